"""The suspense desk: every fen there is an item, and an item moves once, by two people."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from tests.stage import Stage, staged
from tongbao.clearing.suspense import items
from tongbao.clearing.suspense.desk import (
    bound_acts,
    mode_of_book,
    propose_adjustment,
    propose_resolution,
    propose_stop,
)
from tongbao.clearing.suspense.items import item_now, open_items, suspense_sums
from tongbao.clearing.suspense.model import (
    AdjustmentTerms,
    AdjustmentWrong,
    Home,
    PostingRefused,
    Side,
    SuspenseAmountWrong,
    SuspenseHomeWrong,
    SuspenseItem,
    SuspenseItemNotFound,
    SuspenseSpokenFor,
)
from tongbao.controls.approvals.approvals import ApplyApproval, approve, run_apply
from tongbao.controls.approvals.model import (
    Approval,
    Approvals,
    ApprovalState,
    ApprovalWaiting,
    MakerNotAllowed,
    OwnProposal,
    acts_of,
)
from tongbao.controls.approvals.queries import approval_with_id, changes_of
from tongbao.infra import failpoints
from tongbao.infra.db import Db
from tongbao.infra.failpoints import SimulatedCrash
from tongbao.kernel.ids import new_id, parse
from tongbao.kernel.licence import Mode
from tongbao.ledger.model import AccountKey
from tongbao.ledger.queries import balance_of
from tongbao.ledger.verify import verify
from tongbao.parties.merchants.merchants import LIVE_BOOK, SANDBOX_BOOK
from tongbao.payments.refunds.model import RefundNotStoppable
from tongbao.payments.refunds.outcomes import ask_channel
from tongbao.payments.refunds.queries import refunds_of_payment

MAKER, CHECKER = "opr_maker", "opr_checker"
MAY = {"adjustments_act"}
WHY = "the customer's letter of today"


class Desk:
    """A platform with a suspense desk, and two people at it."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.db = stage.db
        self.flow = stage.flow
        self.approvals = Approvals(stage.db, acts_of(*bound_acts(stage.flow)))

    async def adjust(self, amount: int, debit: Side, credit: Side, **more: Any) -> Approval:
        terms = AdjustmentTerms(new_id(), SANDBOX_BOOK, "CNY", amount, debit, credit)
        return await propose_adjustment(self.flow, terms, reason=WHY, actor=MAKER, **more)

    async def found(self, amount: int) -> SuspenseItem:
        """Money that came to the bank and nobody knows from whom."""
        asked = await self.adjust(amount, Side("bank"), Side("suspense"))
        assert (await self.agree(asked)).state is ApprovalState.APPLIED
        return await item_now(self.db, SANDBOX_BOOK, "CNY", parse("adj", asked.subject))

    async def propose(
        self, item: SuspenseItem, home: Home, owner: UUID | None = None, amount: int = 0
    ) -> Approval:
        amount = amount or abs(item.amount)
        return await propose_resolution(
            self.flow, item, amount, home, owner, reason=WHY, actor=MAKER
        )

    async def approve(self, asked: Approval, by: str = CHECKER) -> None:
        async with self.db.begin(by) as tx:
            acts, digest = self.approvals.acts, asked.digest.hex()
            await approve(tx, acts, asked.id, digest=digest, may=MAY)

    async def agree(self, asked: Approval) -> Approval:
        await self.approve(asked)
        await self.run(asked)
        return await approval_with_id(self.db, asked.id)

    async def run(self, asked: Approval) -> None:
        await run_apply(self.approvals, ApplyApproval(asked.id), None)

    async def open_amount(self, item: SuspenseItem) -> int:
        return (await item_now(self.db, item.book, item.currency, item.owner)).amount

    async def booked(self, kind: str, owner: UUID | None = None) -> int:
        key = AccountKey(kind, "CNY", owner)
        return (await balance_of(self.db, SANDBOX_BOOK, key)).posted

    async def ties(self) -> None:
        assert all(each.ties for each in await suspense_sums(self.db))
        report = await verify(self.db)
        assert report.is_sound, report.broken


@pytest.fixture(scope="module")
async def module_stage(
    module_db: Any, tmp_path_factory: pytest.TempPathFactory, sandbox: Any
) -> AsyncIterator[Stage]:
    async with staged(module_db, tmp_path_factory.mktemp("platform"), sandbox) as ready:
        yield ready


@pytest.fixture
async def desk(module_stage: Stage) -> AsyncIterator[Desk]:
    module_stage.sandbox.delete("faults")
    await module_stage.live_together()
    made = Desk(module_stage)
    yield made
    failpoints.arm(None)
    await made.ties()


async def late(stage: Stage) -> Any:
    """A payment that was paid after its end, and whose money the channel will not give back."""
    payment = await stage.show_qr("alipay", 1234)
    await stage.customer(payment, "abandon")
    await stage.fault_of(payment, "close", "late_success:60")
    stage.fault("alipay", "refund", "not_enough", times=-1)
    await stage.close(payment)
    for _ in range(3):
        await stage.advance(seconds=45)
    return payment


async def given_up(desk: Desk, payment: Any) -> SuspenseItem:
    """Have two people stop the refund, and the channel say that it does not have it."""
    stage = desk.stage
    item = await item_now(desk.db, SANDBOX_BOOK, "CNY", parse("pay", payment["id"]))
    asked = await propose_stop(desk.flow, item, reason=WHY, actor=MAKER)
    assert (await desk.agree(asked)).state is ApprovalState.APPLIED
    for _ in range(3):
        await stage.advance(minutes=30)
    return item


async def test_late_money_is_nobody_elses_while_it_may_go_back(desk: Desk) -> None:
    payment = await late(desk.stage)
    item = await item_now(desk.db, SANDBOX_BOOK, "CNY", parse("pay", payment["id"]))
    assert (item.amount, item.is_late_payment) == (1234, True)
    with pytest.raises(SuspenseSpokenFor):
        await desk.propose(item, Home.FEE)

    desk.stage.sandbox.delete("faults")
    for _ in range(4):
        await desk.stage.advance(hours=2)
    assert await desk.stage.given_back(payment) == [1234]
    assert await desk.open_amount(item) == 0


async def test_money_that_cannot_go_back_gets_a_home_and_no_refund_gets_it_too(desk: Desk) -> None:
    payment = await late(desk.stage)
    item = await given_up(desk, payment)
    merchant = desk.stage.shop.merchant.id
    before = await desk.booked("merchant_payable", merchant)
    asked = await desk.propose(item, Home.MERCHANT, merchant, 1000)
    shown = await changes_of(desk.approvals, asked)
    assert (shown[-1].before, shown[-1].after) == ("CNY 12.34", "CNY 2.34")
    assert await desk.booked("merchant_payable", merchant) == before
    assert (await desk.agree(asked)).state is ApprovalState.APPLIED
    assert await desk.booked("merchant_payable", merchant) == before + 1000
    assert (await desk.stage.row_of(payment)).refunded == 1000

    rest = await item_now(desk.db, SANDBOX_BOOK, "CNY", item.owner)
    assert rest.amount == 234
    assert (await desk.agree(await desk.propose(rest, Home.FEE))).state is ApprovalState.APPLIED
    assert await desk.open_amount(item) == 0
    row = await desk.stage.row_of(payment)
    assert row.refunded == row.captured


async def test_a_refund_that_begins_between_the_two_people_wins(desk: Desk) -> None:
    payment = await late(desk.stage)
    item = await given_up(desk, payment)
    asked = await desk.propose(item, Home.FEE)
    row = await desk.stage.row_of(payment)
    sql = "update payment set refunded = $2, version = version + 1 where id = $1"
    await desk.db.execute(sql, (row.id, row.captured))
    ended = await desk.agree(asked)
    assert (ended.state, ended.code) == (ApprovalState.FAILED, "suspense.spoken_for")
    assert await desk.open_amount(item) == 1234
    await desk.db.execute(sql, (row.id, 0))
    again = await desk.agree(await desk.propose(item, Home.WRITTEN_OFF))
    assert again.state is ApprovalState.APPLIED


async def test_a_stopped_refund_is_sent_no_more_and_ends_when_the_channel_has_none(
    desk: Desk,
) -> None:
    payment = await late(desk.stage)
    item = await item_now(desk.db, SANDBOX_BOOK, "CNY", parse("pay", payment["id"]))
    asked = await propose_stop(desk.flow, item, reason=WHY, actor=MAKER)
    assert [each.after for each in await changes_of(desk.approvals, asked)][-1] == (
        "stays in suspense"
    )
    await desk.agree(asked)
    desk.stage.sandbox.delete("faults")  # from here on the channel would give it back

    await desk.stage.advance(minutes=5)
    with pytest.raises(SuspenseSpokenFor):
        await desk.propose(item, Home.FEE)
    [refund] = await refunds_of_payment(desk.db, SANDBOX_BOOK, item.owner)
    desk.db.clock.offset += timedelta(minutes=10)
    failpoints.arm("refunds.before_given_up:raise")
    with pytest.raises(SimulatedCrash):
        await ask_channel(desk.flow, refund)
    failpoints.arm(None)
    await asyncio.gather(*(ask_channel(desk.flow, refund) for _ in range(3)))
    rows = await desk.db.fetch(
        "select state, code from refund where payment_id = $1", (item.owner,)
    )
    assert [(row["state"], row["code"]) for row in rows] == [("failed", "given_up")]
    assert await desk.stage.given_back(payment) == []
    with pytest.raises(RefundNotStoppable):
        await propose_stop(desk.flow, item, reason=WHY, actor=MAKER)
    assert (await desk.agree(await desk.propose(item, Home.FEE))).state is ApprovalState.APPLIED


async def test_a_refund_that_the_channel_has_after_all_is_believed(desk: Desk) -> None:
    payment = await late(desk.stage)
    item = await item_now(desk.db, SANDBOX_BOOK, "CNY", parse("pay", payment["id"]))
    asked = await propose_stop(desk.flow, item, reason=WHY, actor=MAKER)
    desk.stage.sandbox.delete("faults")
    for _ in range(3):
        await desk.stage.advance(hours=1)  # before the second person looks, it has gone back
    assert await desk.stage.given_back(payment) == [1234]
    ended = await desk.agree(asked)
    assert (ended.state, ended.code) == (ApprovalState.FAILED, "refund.not_stoppable")
    assert await desk.open_amount(item) == 0


async def test_unknown_money_goes_to_a_channel_or_is_written_off_and_below_zero_is_covered(
    desk: Desk,
) -> None:
    account = desk.stage.accounts["alipay"]
    channel, lost = (
        await desk.booked("channel_receivable", account),
        await desk.booked("written_off"),
    )
    item = await desk.found(500)
    await desk.agree(await desk.propose(item, Home.CHANNEL, account, 200))
    assert await desk.booked("channel_receivable", account) == channel - 200
    rest = await item_now(desk.db, SANDBOX_BOOK, "CNY", item.owner)
    await desk.agree(await desk.propose(rest, Home.WRITTEN_OFF))
    assert await desk.booked("written_off") == lost - 300

    missing = await desk.agree(await desk.adjust(70, Side("suspense"), Side("bank")))
    owner = parse("adj", missing.subject)
    hole = await item_now(desk.db, SANDBOX_BOOK, "CNY", owner)
    assert hole.amount == -70
    await desk.agree(await desk.propose(hole, Home.WRITTEN_OFF))
    assert await desk.open_amount(hole) == 0
    assert await desk.booked("written_off") == lost - 300 + 70


async def test_one_person_is_not_enough_and_one_item_has_one_proposal(desk: Desk) -> None:
    item = await desk.found(100)
    asked = await desk.propose(item, Home.FEE)
    with pytest.raises(OwnProposal):
        await desk.approve(asked, by=MAKER)
    with pytest.raises(ApprovalWaiting):
        await desk.propose(item, Home.WRITTEN_OFF)
    with pytest.raises(MakerNotAllowed):
        await desk.adjust(1, Side("bank"), Side("suspense"), may={"view"})
    assert await desk.open_amount(item) == 100
    await desk.agree(asked)


async def test_what_cannot_be_is_refused_before_anybody_is_asked(desk: Desk) -> None:
    item = await desk.found(100)
    for amount in (101, -5):
        with pytest.raises(SuspenseAmountWrong):
            await desk.propose(item, Home.FEE, amount=amount)
    wrong = [
        (Home.MERCHANT, None),
        (Home.MERCHANT, new_id()),
        (Home.CHANNEL, desk.stage.shop.merchant.id),
        (Home.FEE, desk.stage.shop.merchant.id),
    ]
    for home, owner in wrong:
        with pytest.raises(SuspenseHomeWrong):
            await desk.propose(item, home, owner)
    with pytest.raises(SuspenseItemNotFound):
        await item_now(desk.db, SANDBOX_BOOK, "CNY", new_id())
    assert mode_of_book(LIVE_BOOK) is Mode.LIVE
    await desk.agree(await desk.propose(item, Home.FEE))


@pytest.mark.parametrize(
    ("amount", "debit", "credit"),
    [
        (0, Side("bank"), Side("suspense")),
        (-1, Side("bank"), Side("suspense")),
        (10**16, Side("bank"), Side("suspense")),
        (1, Side("bank"), Side("bank")),
        (1, Side("wallet", UUID(int=1)), Side("bank")),
        (1, Side("bank"), Side("in_transit_out", UUID(int=2))),
        (1, Side("bank"), Side("nothing")),
        (1, Side("merchant_payable"), Side("bank")),
        (1, Side("bank", UUID(int=1)), Side("suspense")),
    ],
)
def test_not_everything_may_be_posted_by_hand(amount: int, debit: Side, credit: Side) -> None:
    terms = AdjustmentTerms(new_id(), SANDBOX_BOOK, "CNY", amount, debit, credit)
    with pytest.raises(AdjustmentWrong):
        terms.check()


async def test_an_adjustment_cannot_take_what_is_not_there(desk: Desk) -> None:
    empty = (await desk.stage.open_shop()).merchant.id
    with pytest.raises(PostingRefused) as refused:
        await desk.adjust(1, Side("merchant_payable", empty), Side("bank"))
    assert refused.value.facts == {"ledger": "ledger.exceeds_balance"}

    credit = await desk.adjust(9, Side("bank"), Side("merchant_payable", empty))
    await desk.agree(credit)
    spent = await desk.adjust(9, Side("merchant_payable", empty), Side("fee_income"))
    twice = await desk.adjust(9, Side("merchant_payable", empty), Side("fee_income"))
    assert (await desk.agree(spent)).state is ApprovalState.APPLIED
    ended = await desk.agree(twice)
    assert (ended.state, ended.code) == (ApprovalState.FAILED, "adjustment.refused_by_ledger")


async def test_an_item_that_moved_meanwhile_fails_the_approval(desk: Desk) -> None:
    item = await desk.found(100)
    asked = await desk.propose(item, Home.FEE)
    # Nobody else may move an item; should somebody do so all the same, it is noticed.
    sql = "update suspense_item set amount = 90 where owner = $1"
    await desk.db.execute(sql, (item.owner,))
    ended = await desk.agree(asked)
    assert (ended.state, ended.code) == (ApprovalState.FAILED, "suspense.moved")
    await desk.db.execute(sql.replace("90", "100"), (item.owner,))
    await desk.agree(await desk.propose(item, Home.FEE))


PLACES = (
    "approvals.before_effect",
    "suspense.before_catch_up_commit",
    "suspense.before_post",
    "ledger.before_commit",
    "ledger.after_commit",
    "suspense.after_post",
    "approvals.after_effect",
)


@pytest.mark.parametrize("place", PLACES)
async def test_whoever_dies_on_the_way_moves_an_item_once(desk: Desk, place: str) -> None:
    item = await desk.found(100)
    asked = await desk.propose(item, Home.FEE)
    await desk.approve(asked)
    if place == "suspense.before_catch_up_commit":
        await desk.agree(await desk.adjust(5, Side("bank"), Side("suspense")))
    fees = await desk.booked("fee_income")
    failpoints.arm(f"{place}:raise")
    with pytest.raises(SimulatedCrash):
        await desk.run(asked)
    failpoints.arm(None)

    await asyncio.gather(desk.run(asked), desk.run(asked))
    assert (await approval_with_id(desk.db, asked.id)).state is ApprovalState.APPLIED
    assert await desk.booked("fee_income") == fees + 100
    assert await desk.open_amount(item) == 0


async def test_two_who_sum_up_at_once_do_it_once(desk: Desk) -> None:
    item = await desk.found(100)
    asked = await desk.adjust(11, Side("bank"), Side("suspense"))
    await desk.agree(asked)
    await asyncio.gather(*(items.catch_up(desk.db, SANDBOX_BOOK, "CNY") for _ in range(6)))
    assert await desk.open_amount(item) == 100
    again = await items.run_watch_suspense(desk.db, items.WatchSuspense(), None)
    assert again.after == items.EVERY
    assert items._OPEN._value.get() >= 2
    assert items._UNTIED._value.get() == 0
    pages = await open_items(desk.db, SANDBOX_BOOK, limit=1)
    assert pages.next_cursor is not None
    following = await open_items(desk.db, SANDBOX_BOOK, limit=100, cursor=pages.next_cursor)
    assert pages.items[0].first_at <= following.items[0].first_at
    assert (await open_items(desk.db, SANDBOX_BOOK, currency="USD")).items == []


async def test_looking_at_suspense_asks_as_often_however_many_books_there_are(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    await desk.found(100)
    await suspense_sums(desk.db)
    asked: list[str] = []
    fetch = Db.fetch

    async def counted(db: Db, sql: str, *args: Any) -> Any:
        asked.append(sql)
        return await fetch(db, sql, *args)

    monkeypatch.setattr(Db, "fetch", counted)
    await suspense_sums(desk.db)
    before = len(asked)
    for book in range(9_001, 9_021):
        await desk.flow.ledger.open_book(book, actor="tests")
    asked.clear()

    found = await suspense_sums(desk.db)

    assert len(asked) == before
    assert all(each.ties for each in found)
    assert any(each.balance >= 100 for each in found)

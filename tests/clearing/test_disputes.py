"""Chargebacks: the money set aside, the stages, the deadlines, and who is second for the money."""

from __future__ import annotations

import asyncio
import itertools
from base64 import b64encode
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from msgspec.structs import replace

from tests.dying import dying
from tests.payments.invariants import assert_money_is_conserved
from tests.stage import Stage, staged
from tongbao.clearing.disputes import queries
from tongbao.clearing.disputes.chargebacks import (
    DisputeAsked,
    SchemeRow,
    WatchDispute,
    move_dispute,
    open_dispute,
    take_scheme_row,
)
from tongbao.clearing.disputes.deadlines import run_watch_dispute
from tongbao.clearing.disputes.debts import collect_debts
from tongbao.clearing.disputes.evidence import HandIn, content_of, keep_file
from tongbao.clearing.disputes.model import (
    NEXT,
    AtEnd,
    Dispute,
    DisputeExceedsLeft,
    DisputeMoved,
    DisputeRefUsed,
    DisputeState,
    Move,
    Term,
    TermQuality,
    next_reminder,
    next_step,
)
from tongbao.infra.db import Db
from tongbao.kernel.clock import BUSINESS_ZONE, real_now
from tongbao.kernel.ids import new_id, parse, show
from tongbao.kernel.money import Money
from tongbao.ledger.model import AccountKey
from tongbao.ledger.queries import balance_of
from tongbao.parties.merchants.merchants import SANDBOX_BOOK
from tongbao_sandbox.launch import RunningSandbox
from tongbao_sdk import Refused

PAID = 10_000
_NO_LEASE: Any = None


@pytest.fixture(scope="module")
async def module_stage(
    module_db: Db, tmp_path_factory: pytest.TempPathFactory, sandbox: RunningSandbox
) -> AsyncIterator[Stage]:
    async with staged(module_db, tmp_path_factory.mktemp("platform"), sandbox) as ready:
        yield ready
        await assert_money_is_conserved(module_db)
        await assert_disputes_are_booked(module_db)


@pytest.fixture
async def stage(module_stage: Stage) -> AsyncIterator[Stage]:
    """A stage with a shop of the test's own, so that its balances are the test's."""
    shop = await module_stage.open_shop()
    before = module_stage.client, module_stage.shop
    module_stage.client, module_stage.shop = module_stage.client_of(shop), shop
    yield module_stage
    module_stage.client, module_stage.shop = before


async def assert_disputes_are_booked(db: Db) -> None:
    """Every dispute's row says what the ledger holds, and the payment's total what all do."""
    [held] = await db.fetch(
        "select coalesce(sum(held), 0)::bigint as held, coalesce(sum(at_scheme), 0)::bigint as away"
        " from dispute",
        (),
    )
    rows = await db.fetch(
        "select kind, sum(case side when 'credit' then credits_posted - debits_posted"
        " else debits_posted - credits_posted end)::bigint as posted"
        " from ledger_account where kind in ('dispute_held', 'dispute_at_scheme') group by kind",
        (),
    )
    posted = {row["kind"]: row["posted"] for row in rows}
    assert posted.get("dispute_held", 0) == held["held"]
    assert posted.get("dispute_at_scheme", 0) == held["away"]
    wrong = await db.fetch(
        """select p.id from payment p
             left join (select payment_id, sum(amount) as amount from dispute
                         where held > 0 or state in ('lost', 'accepted') group by payment_id) d
               on d.payment_id = p.id
            where p.disputed <> coalesce(d.amount, 0)""",
        (),
    )
    assert not wrong
    chains = await db.fetch(
        "select dispute_id, from_state, to_state from dispute_change order by dispute_id, version",
        (),
    )
    for _, steps in itertools.groupby(chains, key=lambda row: row["dispute_id"]):
        seen = list(steps)
        assert [s["from_state"] for s in seen] == ["new", *(s["to_state"] for s in seen[:-1])]


def asked(amount: int = PAID, **more: Any) -> DisputeAsked:
    terms = {
        "scheme": "unionpay",
        "scheme_ref": uuid4().hex[:20],
        "reason_code": "4527",
        "reason": "no receipt",
        "money": Money(amount, "CNY"),
        "stage": DisputeState.CHARGEBACK,
        **more,
    }
    return DisputeAsked(**terms)


async def paid(stage: Stage, amount: int = PAID) -> Any:
    return await stage.paid("wechat_pay", amount)


async def charged(stage: Stage, payment: Any, what: DisputeAsked | None = None) -> Dispute:
    row = await stage.row_of(payment)
    return await open_dispute(stage.flow, row, what or asked(), actor="operator", why="by hand")


async def balance(stage: Stage, kind: str, owner: UUID | None = None) -> int:
    key = AccountKey(kind, "CNY", owner or stage.shop.merchant.id)
    return (await balance_of(stage.db, SANDBOX_BOOK, key)).posted


async def purse(stage: Stage) -> tuple[int, int, int]:
    """What the merchant has, what is set aside, and what it owes."""
    kinds = ("merchant_payable", "dispute_held", "merchant_debt")
    return tuple([await balance(stage, kind) for kind in kinds])  # type: ignore[return-value]


async def move(stage: Stage, dispute: Dispute, *moves: Move) -> Dispute:
    for each in moves:
        dispute = await move_dispute(stage.flow, dispute, each, actor="scheme", why=each)
    return dispute


async def settle_all(stage: Stage) -> int:
    return await collect_debts(stage.flow, merchant_id=stage.shop.merchant.id)


# The table of states


def dispute_in(state: DisputeState, stage_now: Any) -> Dispute:
    held = PAID if state.holds_money else 0
    return Dispute(
        1, uuid4(), uuid4(), uuid4(), uuid4(), "sandbox", uuid4(), "unionpay", "ref", "", "",
        state, PAID, "CNY", held, 0, 0, 0, None, None, None, 0, None, "", stage_now, None, 1,
    )  # fmt: skip


@pytest.mark.parametrize("state", list(DisputeState))
@pytest.mark.parametrize("by", list(Move))
def test_a_dispute_goes_only_where_the_table_says(state: DisputeState, by: Move) -> None:
    now = real_now()
    before = dispute_in(state, now)
    term = Term("unionpay", state, now.date(), 5, AtEnd.LOST, "a book", TermQuality.HOUSE)
    if (state, by) not in NEXT:
        with pytest.raises(DisputeMoved):
            next_step(before, by, term, now)
        return
    after = next_step(before, by, term, now).after
    assert after.state is NEXT[state, by]
    assert (after.held > 0) == after.state.holds_money
    assert (after.ended_at is None) == after.state.is_open
    if by is Move.SUBMIT:
        assert after.submitted_at == now
    else:
        assert after.deadline_at is not None
        assert after.deadline_at.astimezone(BUSINESS_ZONE).time().isoformat() == "00:00:00"


async def test_the_database_allows_the_same_steps_as_the_model(module_db: Db) -> None:
    [row] = await module_db.fetch(
        "select pg_get_constraintdef(oid) as text from pg_constraint"
        " where conrelid = 'dispute_change'::regclass and contype = 'c'",
        (),
    )
    pairs = {f"{state}>{target}" for (state, _), target in NEXT.items()}
    pairs |= {"new>retrieval", "new>chargeback"}
    assert {each for each in row["text"].split("'") if len(each) > 1 and ">" in each} == pairs


# The money


async def test_a_won_chargeback_gives_the_merchant_all_of_it_back(stage: Stage) -> None:
    payment = await paid(stage)
    had = await balance(stage, "merchant_payable")
    channel = stage.accounts["wechat_pay"]
    due = await balance(stage, "channel_receivable", channel)

    dispute = await charged(stage, payment)
    assert await purse(stage) == (had - PAID if had >= PAID else 0, PAID, max(0, PAID - had))
    assert await balance(stage, "channel_receivable", channel) == due - PAID
    dispute = await move(stage, dispute, Move.SUBMIT, Move.SEND_ON)
    assert await balance(stage, "channel_receivable", channel) == due
    dispute = await move(stage, dispute, Move.TAKE_AGAIN, Move.SUBMIT, Move.SEND_ON, Move.WIN)
    await settle_all(stage)

    assert dispute.state is DisputeState.WON
    assert await purse(stage) == (had, 0, 0)
    assert await balance(stage, "channel_receivable", channel) == due
    assert (await stage.refund(payment, PAID))["status"] in {"succeeded", "pending", "requested"}


@pytest.mark.parametrize(
    "moves",
    [
        (Move.LOSE,),
        (Move.ACCEPT,),
        (Move.SEND_ON, Move.LOSE),
        (Move.SEND_ON, Move.TAKE_AGAIN, Move.ACCEPT),
    ],
)
async def test_what_is_lost_is_gone_once(stage: Stage, moves: tuple[Move, ...]) -> None:
    payment = await paid(stage)
    await paid(stage, 5_000)  # so that the merchant has enough
    had = await balance(stage, "merchant_payable")
    channel = stage.accounts["wechat_pay"]
    due = await balance(stage, "channel_receivable", channel)

    dispute = await move(stage, await charged(stage, payment, asked(6_000)), *moves)

    assert not dispute.state.is_open
    assert await purse(stage) == (had - 6_000, 0, 0)
    assert await balance(stage, "channel_receivable", channel) == due - 6_000
    with pytest.raises(Refused) as refused:
        await stage.refund(payment, 4_001)
    assert refused.value.code == "refund.exceeds_captured"
    assert (await stage.refund(payment, 4_000))["amount"] == 4_000


async def test_what_the_merchant_does_not_have_is_owed_and_taken_from_what_comes_in(
    stage: Stage,
) -> None:
    payment = await paid(stage)
    had = await balance(stage, "merchant_payable")  # less than was paid: there was a fee

    await charged(stage, payment, asked(fee=500))
    assert await purse(stage) == (0, PAID, PAID + 500 - had)
    assert await settle_all(stage) == 0
    await paid(stage, 5_000)
    came = await balance(stage, "merchant_payable")
    assert await settle_all(stage) == PAID + 500 - had
    assert await settle_all(stage) == 0, "what is collected is collected once"

    assert await purse(stage) == (came - (PAID + 500 - had), PAID, 0)


async def test_partial_disputes_and_refunds_share_one_total(stage: Stage) -> None:
    payment = await paid(stage)
    await paid(stage)
    await charged(stage, payment, asked(4_000))
    await stage.refund(payment, 3_000)
    with pytest.raises(DisputeExceedsLeft):
        await charged(stage, payment, asked(3_001))
    last = await charged(stage, payment, asked(3_000))
    with pytest.raises(Refused) as refused:
        await stage.refund(payment, 1)
    assert refused.value.code == "refund.exceeds_captured"

    await move(stage, last, Move.WIN)
    assert (await stage.refund(payment, 3_000))["amount"] == 3_000


async def test_a_retrieval_moves_no_money_and_a_chargeback_may_follow_it(stage: Stage) -> None:
    payment = await paid(stage)
    had = await balance(stage, "merchant_payable")
    what = asked(stage=DisputeState.RETRIEVAL)

    dispute = await charged(stage, payment, what)
    assert await purse(stage) == (had, 0, 0)
    dispute = await move(stage, dispute, Move.SUBMIT, Move.SEND_ON)
    assert dispute.state is DisputeState.CLOSED
    dispute = await move(stage, dispute, Move.CHARGE_BACK)

    assert (dispute.state, dispute.ended_at) == (DisputeState.CHARGEBACK, None)
    assert (await purse(stage))[1] == PAID


# Twice, and two at once


async def test_the_same_case_is_opened_once_and_another_cannot_have_its_number(
    stage: Stage,
) -> None:
    payment, other = await paid(stage), await paid(stage)
    what = asked(2_000)
    first = await charged(stage, payment, what)
    assert await charged(stage, payment, what) == first
    with pytest.raises(DisputeRefUsed):
        await charged(stage, other, what)
    with pytest.raises(DisputeRefUsed):
        await charged(stage, payment, replace(what, money=Money(1_000, "CNY")))
    assert (await purse(stage))[1] == 2_000


async def test_of_a_refund_and_a_dispute_for_the_same_money_one_gets_it(stage: Stage) -> None:
    await paid(stage, 50_000)  # so that the merchant's balance is not what decides
    for _ in range(4):
        payment = await paid(stage)
        outcomes = await asyncio.gather(
            charged(stage, payment), stage.refund(payment, PAID), return_exceptions=True
        )
        won = [each for each in outcomes if not isinstance(each, BaseException)]
        assert len(won) == 1
        [lost] = [each for each in outcomes if isinstance(each, BaseException)]
        assert isinstance(lost, DisputeExceedsLeft | Refused), lost
        [row] = await stage.db.fetch(
            "select refunded, disputed from payment where id = $1", (parse("pay", payment["id"]),)
        )
        assert row["refunded"] + row["disputed"] == PAID


async def test_who_waits_for_the_payments_row_sees_what_it_waited_for(stage: Stage) -> None:
    """A forced interleaving: the refund's commit is held between its update and its end."""
    await paid(stage, 50_000)
    payment = await paid(stage)
    row = await stage.row_of(payment)
    async with stage.db.begin("by hand") as tx:
        await tx.execute(
            "update payment set refunded = refunded + 1, version = version + 1 where id = $1",
            (row.id,),
        )
        second = asyncio.create_task(charged(stage, payment))
        await waits_for_a_lock(stage.db)
        await tx.execute("update payment set refunded = refunded - 1 where id = $1", (row.id,))
        await tx.execute("update payment set disputed = disputed + 5000 where id = $1", (row.id,))
    with pytest.raises(DisputeExceedsLeft):
        await second
    await stage.db.execute("update payment set disputed = 0 where id = $1", (row.id,))


async def waits_for_a_lock(db: Db) -> None:
    waiting = """select count(*) from pg_stat_activity
                  where datname = current_database() and wait_event_type = 'Lock'"""
    async with asyncio.timeout(30):
        while await db.pool.fetchval(waiting) == 0:  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def test_of_two_who_end_a_dispute_one_does(stage: Stage) -> None:
    await paid(stage, 20_000)
    for _ in range(3):
        dispute = await charged(stage, await paid(stage))
        outcomes = await asyncio.gather(
            move(stage, dispute, Move.ACCEPT),
            move(stage, dispute, Move.WIN),
            move(stage, dispute, Move.LOSE),
            return_exceptions=True,
        )
        assert sum(isinstance(each, Dispute) for each in outcomes) == 1
        assert sum(isinstance(each, DisputeMoved) for each in outcomes) == 2


# What schemes send


async def test_a_schemes_rows_do_what_they_say_once_in_whatever_order(stage: Stage) -> None:
    payment = await paid(stage)
    attempt = await stage.attempt_of(payment)
    what = asked(2_500)

    async def said(by: Move | None, account: UUID = attempt.account_id) -> Dispute | None:
        row = SchemeRow(attempt.number, what, by)
        return await take_scheme_row(stage.flow, account, row)

    assert await said(Move.CHARGE_BACK, uuid4()) is None, "a case of another account is not ours"
    dispute = await said(Move.CHARGE_BACK)
    assert dispute is not None
    assert await said(Move.CHARGE_BACK) == dispute
    await move(stage, dispute, Move.SEND_ON)
    again = await said(Move.TAKE_AGAIN)
    assert again is not None
    assert await said(Move.TAKE_AGAIN) == again
    lost = await said(Move.LOSE)
    assert lost is not None
    assert lost.state is DisputeState.LOST
    assert await said(Move.LOSE) == lost
    assert await said(Move.CHARGE_BACK) == lost, "an old row says nothing new"
    assert await stage.cases(payment) == []
    await said(Move.WIN)
    assert await stage.cases(payment) == ["contradiction"]


async def test_a_chargeback_of_more_than_is_left_is_a_case_for_people(stage: Stage) -> None:
    payment = await paid(stage)
    await paid(stage)
    await stage.refund(payment, 9_000)
    attempt = await stage.attempt_of(payment)

    row = SchemeRow(attempt.number, asked(2_000), Move.CHARGE_BACK)
    assert await take_scheme_row(stage.flow, attempt.account_id, row) is None
    assert await take_scheme_row(stage.flow, attempt.account_id, row) is None

    assert await stage.cases(payment) == ["contradiction"]
    assert (await purse(stage))[1] == 0


# Deadlines


async def before_deadline(stage: Stage, dispute: Dispute, days: float) -> None:
    """Let time pass until so many days before the deadline."""
    assert dispute.deadline_at is not None
    left = dispute.deadline_at - timedelta(days=days) - stage.db.clock.now()
    await stage.advance(seconds=left.total_seconds())


async def test_time_reminds_three_times_and_then_decides_as_the_scheme_says(stage: Stage) -> None:
    dispute = await charged(stage, await paid(stage))
    shown = {"id": show("dsp", dispute.id)}
    assert dispute.deadline_at is not None
    assert dispute.term_source is not None
    assert dispute.deadline_at - dispute.opened_at > timedelta(days=25)

    for days, told in ((7.5, 0), (6.5, 1), (2.5, 2), (0.5, 3)):
        await before_deadline(stage, dispute, days)
        assert (await stage.events(shown)).count("dispute.deadline_near") == told
    await before_deadline(stage, dispute, -0.1)

    ended = await queries.dispute_with_id(stage.db, dispute.id)
    assert ended.state is DisputeState.LOST
    kinds = await stage.events(shown)
    assert (kinds[0], kinds[-1]) == ("dispute.opened", "dispute.closed")
    assert kinds.count("dispute.closed") == 1


async def test_an_answer_that_waits_with_us_is_not_lost_by_the_clock(stage: Stage) -> None:
    payment = await paid(stage)
    dispute = await move(stage, await charged(stage, payment), Move.SUBMIT)
    assert next_reminder(dispute) == dispute.deadline_at

    await stage.advance(days=27)

    assert (await queries.dispute_with_id(stage.db, dispute.id)).state is DisputeState.CHARGEBACK
    assert await stage.cases(payment) == ["undecided"]


async def test_an_issuer_that_lets_its_time_pass_has_lost(stage: Stage) -> None:
    dispute = await move(stage, await charged(stage, await paid(stage)), Move.SEND_ON)
    await stage.advance(days=22)
    assert (await queries.dispute_with_id(stage.db, dispute.id)).state is DisputeState.WON


# Death


@pytest.mark.parametrize(
    "place",
    ["disputes.before_open", "disputes.after_open", "ledger.before_commit", "ledger.after_commit"],
)
async def test_whoever_dies_opening_a_dispute_leaves_none_or_one(stage: Stage, place: str) -> None:
    payment, what = await paid(stage), asked(1_000)
    with dying(place):
        await charged(stage, payment, what)

    dispute = await charged(stage, payment, what)

    assert (dispute.state, (await purse(stage))[1]) == (DisputeState.CHARGEBACK, 1_000)
    assert len(await queries.disputes_of_payment(stage.db, dispute.payment_id)) == 1


@pytest.mark.parametrize("place", ["disputes.before_step", "disputes.after_step"])
async def test_whoever_dies_ending_a_dispute_ends_it_once(stage: Stage, place: str) -> None:
    dispute = await charged(stage, await paid(stage), asked(1_000))
    had = await balance(stage, "merchant_payable")
    with dying(place):
        await move(stage, dispute, Move.WIN)
    if place.startswith("disputes.before"):
        await move(stage, dispute, Move.WIN)
    else:
        with pytest.raises(DisputeMoved):
            await move(stage, dispute, Move.WIN)
    assert await purse(stage) == (had + 1_000, 0, 0)


@pytest.mark.parametrize("place", ["disputes.before_collect", "disputes.after_collect"])
async def test_whoever_dies_collecting_collects_once(stage: Stage, place: str) -> None:
    payment = await paid(stage)
    had = await balance(stage, "merchant_payable")
    await charged(stage, payment)
    await paid(stage)
    came = await balance(stage, "merchant_payable")
    with dying(place):
        await settle_all(stage)
    await settle_all(stage)
    assert await purse(stage) == (came - (PAID - had), PAID, 0)


async def test_whoever_dies_reminding_reminds_once(stage: Stage) -> None:
    dispute = await charged(stage, await paid(stage))
    assert dispute.deadline_at is not None
    stage.db.clock.offset += dispute.deadline_at - timedelta(days=6.5) - stage.db.clock.now()
    with dying("disputes.before_reminder"):
        await run_watch_dispute(stage.flow, WatchDispute(dispute.book, dispute.id), _NO_LEASE)
    await before_deadline(stage, dispute, 6.4)
    shown = {"id": show("dsp", dispute.id)}
    assert (await stage.events(shown)).count("dispute.deadline_near") == 1


async def test_left_of_payment_counts_disputes(stage: Stage) -> None:
    payment = await paid(stage)
    await charged(stage, payment, asked(4_000))
    assert (await stage.row_of(payment)).left == 6_000
    assert (await stage.read(payment))["amount_disputed"] == 4_000


# Over the API


def coded(content: bytes) -> str:
    return b64encode(content).decode()


PDF = coded(b"%PDF-1.7 a receipt")


async def api(stage: Stage, client: Any, method: str, path: str, body: Any = None) -> Any:
    """Ask as a merchant's program does, signed."""
    transport = client.transport
    return (
        await stage.call(transport.get, path)
        if method == "GET"
        else await stage.call(transport.post, path, body)
    )


async def test_a_merchant_answers_with_files_and_another_cannot_even_see_it(stage: Stage) -> None:
    dispute = await charged(stage, await paid(stage))
    own = f"/v1/disputes/{show('dsp', dispute.id)}"
    with pytest.raises(Refused) as refused:
        await api(stage, stage.client, "POST", f"{own}/answer", {"answer": " "})
    assert refused.value.code == "dispute.answer_missing"
    page = {"name": "receipt.pdf", "media_type": "application/pdf"}
    first = await api(stage, stage.client, "POST", f"{own}/files", {**page, "content": PDF})
    again = await api(stage, stage.client, "POST", f"{own}/files", {**page, "content": PDF})
    assert again == first, "the same content is the same file"
    for content, media, code in (
        (coded(b"%PDF-1.7 other"), "image/png", "blob.kind_differs"),
        ("", "application/pdf", "blob.empty"),
        (coded(b"%PDF-" + bytes(700 * 1024)), "application/pdf", "blob.too_large"),
    ):
        wrong = {"name": "x", "media_type": media, "content": content}
        with pytest.raises(Refused) as refused:
            await api(stage, stage.client, "POST", f"{own}/files", wrong)
        assert refused.value.code == code

    answered = await api(stage, stage.client, "POST", f"{own}/answer", {"answer": "see the file"})
    assert "answered_at" in answered
    [listed] = await api(stage, stage.client, "GET", f"{own}/files")
    assert listed == first
    stranger = stage.client_of(await stage.open_shop())
    for method, path, body in (
        ("GET", own, None),
        ("GET", f"{own}/files", None),
        ("POST", f"{own}/accept", {}),
        ("POST", f"{own}/answer", {"answer": "mine"}),
        ("POST", f"{own}/files", {**page, "content": PDF}),
    ):
        with pytest.raises(Refused) as refused:
            await api(stage, stranger, method, path, body)
        assert refused.value.code == "dispute.not_found"
    assert (await api(stage, stranger, "GET", "/v1/disputes"))["items"] == []
    accepted = await api(stage, stage.client, "POST", f"{own}/accept", {})
    assert accepted["status"] == "accepted"
    with pytest.raises(Refused) as refused:
        await api(stage, stage.client, "POST", f"{own}/accept", {})
    assert refused.value.code == "dispute.moved"


async def test_whoever_dies_with_a_file_in_hand_hands_it_in_once(stage: Stage) -> None:
    dispute = await charged(stage, await paid(stage))
    page, blobs = HandIn("a.pdf", "application/pdf", b"%PDF-1.7 x"), stage.platform.blobs

    async def hand_in() -> Any:
        file_id = new_id()
        return await keep_file(stage.db, blobs, dispute, page, actor="key", file_id=file_id)

    with dying("disputes.after_blob"):
        await hand_in()
    assert await queries.files_of(stage.db, dispute.book, dispute.id) == []
    kept = await hand_in()
    assert await hand_in() == kept
    assert await queries.files_of(stage.db, dispute.book, dispute.id) == [kept]
    assert await content_of(blobs, kept) == b"%PDF-1.7 x"

"""Routing elsewhere, on proof: never two attempts of one payment that could both be paid."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import pytest
from msgspec.structs import replace

from tests.payments.invariants import assert_one_attempt_lives
from tests.payments.routing_desk import (
    WECHAT_FIRST,
    asked_of,
    by_hand,
    decisions,
    in_force,
    left_to_us,
    open_account,
    terms,
    unplugged,
)
from tests.stage import AT_SANDBOX, Stage
from tongbao.infra.db import Statement, Write
from tongbao.infra.db_failures import UniqueKeyTaken
from tongbao.kernel.clock import real_now
from tongbao.kernel.ids import new_id, parse
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import Money
from tongbao.parties.price_plans.model import CardKind, PriceLine
from tongbao.parties.price_plans.plans import set_price_plan
from tongbao.payments.collecting import queries
from tongbao.payments.collecting.chase import TRIES_MAX, offer, pay_order
from tongbao.payments.collecting.outcomes import Evidence, record_news
from tongbao.payments.collecting.payments import create_payment
from tongbao.payments.routing.model import (
    PLACE_TAKEN,
    Asked,
    Candidate,
    Decision,
    Heard,
    Manner,
    NoChannelLeft,
    Reason,
)
from tongbao.rails.channels.accounts import set_gateway
from tongbao.rails.channels.contract.bills import BillTerms
from tongbao.rails.channels.contract.orders import ChannelAccount, PayMode, PayOrder
from tongbao.rails.channels.contract.outcomes import (
    Answer,
    Closed,
    Declined,
    Exchange,
    NotSent,
    Outcome,
    Pending,
    Succeeded,
    Unknown,
)

# Elsewhere, on proof


async def test_what_was_not_sent_goes_elsewhere_and_its_fee_with_it(own_stage: Stage) -> None:
    await in_force(own_stage, WECHAT_FIRST)
    await unplugged(own_stage, "wechat_pay")
    async with own_stage.db.begin("tests") as tx:
        lines = [PriceLine("wechat_pay", "qr", 8_000), PriceLine("alipay", "qr", 4_000)]
        await set_price_plan(tx, own_stage.shop.merchant.id, Mode.SANDBOX, lines)

    payment = await left_to_us(own_stage)

    story = await queries.timeline(own_stage.db, parse("pay", payment["id"]))
    assert payment["status"] == "pending"
    assert (payment["method"]["channel"], payment["fee"]) == ("alipay", 4)
    assert [(each.channel, each.state) for each in story.attempts] == [
        ("wechat_pay", "not_sent"),
        ("alipay", "pending"),
    ]
    assert [each.to_state for each in story.changes] == ["created", "created", "pending"]
    first, second = await decisions(own_stage, payment)
    assert first.channel == "wechat_pay"
    assert {each.account_id: each.reason for each in second.excluded} == {
        own_stage.accounts["wechat_pay"]: Reason.TRIED
    }
    assert await own_stage.events(payment) == []

    await own_stage.customer(payment)
    await own_stage.idle()
    assert (await own_stage.read(payment))["status"] == "succeeded"


async def test_a_named_channel_that_cannot_be_reached_stays_the_only_one(own_stage: Stage) -> None:
    await in_force(own_stage, WECHAT_FIRST)
    await unplugged(own_stage, "wechat_pay")

    payment = await own_stage.show_qr("wechat_pay")

    assert payment["status"] == "failed"
    assert len((await queries.timeline(own_stage.db, parse("pay", payment["id"]))).attempts) == 1


async def test_silence_is_no_proof(own_stage: Stage) -> None:
    await in_force(own_stage, WECHAT_FIRST)
    own_stage.fault("wechat_pay", "pay", "time_out_unpaid")

    payment = await left_to_us(own_stage)

    assert payment["status"] == "unknown"
    assert payment["method"]["channel"] == "wechat_pay"
    assert len((await queries.timeline(own_stage.db, parse("pay", payment["id"]))).attempts) == 1


async def test_money_for_an_attempt_that_was_replaced_is_a_case_and_is_not_booked_twice(
    own_stage: Stage,
) -> None:
    await in_force(own_stage, WECHAT_FIRST)
    await unplugged(own_stage, "wechat_pay")
    payment = await left_to_us(own_stage)
    story = await queries.timeline(own_stage.db, parse("pay", payment["id"]))
    liar, _ = story.attempts
    news = Succeeded("4200001", Money(1000, "CNY"), own_stage.db.clock.now())

    await record_news(own_stage.flow, liar, news, Evidence("by hand", is_fresh=True))
    await own_stage.customer(payment)
    await own_stage.idle()
    await record_news(own_stage.flow, liar, news, Evidence("by hand", is_fresh=True))

    assert await own_stage.cases(payment) == ["contradiction"]
    assert [each for each in await own_stage.postings(payment) if each[0].endswith("gross")] == [
        ("payment.captured/gross", 1000)
    ]


async def test_money_for_an_attempt_that_was_replaced_goes_back_once_the_other_ends_unpaid(
    own_stage: Stage,
) -> None:
    """The channel confirms it while another attempt may still be paid, and says it only then."""
    stage = own_stage
    await in_force(stage, WECHAT_FIRST)
    account = await stage.flow.account(stage.accounts["wechat_pay"])
    await unplugged(stage, "wechat_pay")
    payment = await left_to_us(stage)
    liar, _ = (await queries.timeline(stage.db, parse("pay", payment["id"]))).attempts
    async with stage.db.begin("tests") as tx:
        await set_gateway(tx, account.id, account.gateway)
    stage.platform.accounts.forget()

    # What was said not to have left has left: the order is made, and somebody pays it.
    order = pay_order(await stage.row_of(payment), liar)
    await offer(stage.flow.channels["wechat_pay"], account, order)
    await stage.control(
        "customer/scan", channel=AT_SANDBOX["wechat_pay"], number=liar.number, action="pay"
    )
    await stage.idle()
    assert (await stage.read(payment))["status"] == "pending"
    assert await stage.cases(payment) == ["contradiction", "contradiction"]
    assert await stage.postings(payment) == []

    for _ in range(4):
        await stage.advance(hours=1)

    assert (await stage.read(payment))["status"] == "closed"
    assert await stage.postings(payment) == [("late.captured/gross", 1000)]
    refunds = await asyncio.to_thread(
        stage.sandbox.get, "refunds", channel=AT_SANDBOX["wechat_pay"]
    )
    assert [each["amount"] for each in refunds if each["trade_number"] == liar.number] == [1000]


class Truth:
    """What really became of the orders that scripted channels were given."""

    def __init__(self) -> None:
        self.orders: dict[str, str] = {}  # number → payable, paid or refused


SCRIPT = {
    "shown": ("payable", Pending()),
    "paid": ("paid", None),
    "declined": ("refused", Declined("NO")),
    "elsewhere": ("refused", Declined("TRY_ANOTHER", retry_elsewhere=True)),
    "not sent": ("refused", NotSent("refused")),
    "silent, paid": ("paid", Unknown("no answer")),
    "silent, payable": ("payable", Unknown("no answer")),
    "silent, nothing": ("refused", Unknown("no answer")),
}
"""What a channel does, what is then true of the order, and what it says."""


class Scripted:
    """A channel that does what the test says, and knows what it did."""

    modes = frozenset({PayMode.QR, PayMode.CARD})
    currencies = frozenset({"CNY"})
    bill_terms = BillTerms(
        frozenset(), frozenset(), frozenset(),
        returns_refund_fees=False, keeps_refund_fees=False, quiet_when_empty=False,
    )  # fmt: skip

    def __init__(self, name: str, truth: Truth) -> None:
        self.name = name
        self.truth = truth
        self.plays = "shown"

    async def pay(self, account: ChannelAccount, order: PayOrder) -> Answer[Outcome]:
        del account
        became, says = SCRIPT[self.plays]
        self.truth.orders[order.number] = became
        outcome = says or Succeeded(order.number, order.money, real_now())
        return Answer(outcome, Exchange("POST", "https://a.test", "", None, "", 1))

    async def close(self, account: ChannelAccount, order: PayOrder) -> Answer[Any]:
        del account
        self.truth.orders[order.number] = "refused"
        return Answer(Closed(), Exchange("POST", "https://a.test", "", None, "", 1))

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"nobody should ask it to {name}")


class InOrder:
    """Places payments at three accounts, one after the other."""

    def __init__(self, accounts: Sequence[tuple[str, UUID]]) -> None:
        self.accounts = accounts

    async def place(self, asked: Asked) -> Decision | None:
        left = [
            Candidate(account_id, channel, 0, 1, 1, 1)
            for channel, account_id in self.accounts
            if account_id not in asked.tried
        ]
        if not left:
            raise NoChannelLeft
        return Decision(asked, None, "test", Manner.ORDER, left, (), "")

    async def refresh(self) -> None:
        pass

    def writes(self, decision: Decision, attempt_id: UUID, now: datetime) -> tuple[Write, ...]:
        del decision, attempt_id, now
        return ()

    def ended(self, book: int, attempt_id: UUID) -> tuple[Write, ...]:
        del book, attempt_id
        return ()

    def heard(self, heard: Heard) -> None:
        pass

    async def methods(self, asked: Asked, pay_modes: Sequence[PayMode]) -> Any:
        raise NotImplementedError

    async def health(self) -> Any:
        raise NotImplementedError


def plays(depth: int = TRIES_MAX) -> list[tuple[str, ...]]:
    """Every way that channels can behave one after the other, while each sends it on."""
    found = []
    for play in SCRIPT:
        goes_on = play in {"elsewhere", "not sent"} and depth > 1
        found += [(play, *rest) for rest in plays(depth - 1)] if goes_on else [(play,)]
    return found


@pytest.mark.parametrize("pay_mode", [PayMode.QR, PayMode.CARD])
@pytest.mark.parametrize("names_channel", [False, True], ids=["left to us", "channel named"])
async def test_never_two_attempts_that_could_both_be_paid(
    own_stage: Stage, pay_mode: PayMode, names_channel: bool
) -> None:
    """Every way three channels can behave, one after the other."""
    stage, names = own_stage, ("wechat_pay", "alipay", "unionpay")
    truth = Truth()
    channels = {name: Scripted(name, truth) for name in names}
    accounts = {name: new_id() for name in names}
    lines = [PriceLine(name, pay_mode, 1000 * (at + 1)) for at, name in enumerate(names)]
    async with stage.db.begin("tests") as tx:
        await set_price_plan(tx, stage.shop.merchant.id, Mode.SANDBOX, lines)
    flow = replace(
        stage.flow, channels=channels, router=InOrder(list(accounts.items())), account=open_account
    )
    tries: Counter[int] = Counter()

    for played in plays():
        for channel, play in zip(channels.values(), played, strict=False):
            channel.plays = play
        truth.orders.clear()
        wanted = asked_of(stage, pay_mode, channel="wechat_pay" if names_channel else None)
        decision = await flow.router.place(wanted)

        payment, attempt = await create_payment(
            flow, terms(stage, wanted, decision), by_hand, wanted.payment_id
        )

        alive = [number for number, became in truth.orders.items() if became != "refused"]
        assert alive in ([], [attempt.number]), (played, truth.orders)
        assert payment.channel == attempt.channel == names[len(truth.orders) - 1]
        assert payment.fee == len(truth.orders)
        assert len(truth.orders) == (1 if names_channel else len(played))
        tries[len(truth.orders)] += 1

    assert set(tries) == ({1} if names_channel else {1, 2, 3})
    await assert_one_attempt_lives(stage.db)


async def test_a_card_costs_elsewhere_what_its_kind_costs_there(own_stage: Stage) -> None:
    stage, names = own_stage, ("wechat_pay", "alipay")
    channels = {name: Scripted(name, Truth()) for name in names}
    channels["wechat_pay"].plays, channels["alipay"].plays = "not sent", "paid"
    lines = [PriceLine(name, PayMode.CARD, 6_000) for name in names]
    lines.append(PriceLine("alipay", PayMode.CARD, 12_000, card=CardKind.CREDIT))
    async with stage.db.begin("tests") as tx:
        await set_price_plan(tx, stage.shop.merchant.id, Mode.SANDBOX, lines)
    router = InOrder([(name, new_id()) for name in names])
    flow = replace(stage.flow, channels=channels, router=router, account=open_account)
    fees = {}

    for kind in ("credit", "debit", ""):
        wanted = asked_of(stage, PayMode.CARD, card=kind)
        decision = await router.place(wanted)
        payment, _ = await create_payment(
            flow, terms(stage, wanted, decision), by_hand, wanted.payment_id
        )
        fees[kind] = payment.channel, payment.fee, payment.card_kind
        row = await queries.payment(stage.db, payment.book, payment.id)
        assert payment.price == row.price, "what is booked and counted next is what was kept"

    assert fees == {
        "credit": ("alipay", 12, CardKind.CREDIT),
        "debit": ("alipay", 6, CardKind.DEBIT),
        "": ("alipay", 6, CardKind.ANY),
    }


class Full(InOrder):
    """Has no place left for whoever comes from elsewhere."""

    def writes(self, decision: Decision, attempt_id: UUID, now: datetime) -> tuple[Write, ...]:
        del attempt_id, now
        is_second = bool(decision.asked.tried)
        return (Write(NOTHING, (), refusal=PLACE_TAKEN),) if is_second else ()


NOTHING = Statement("delete from routing_quota where false")


async def test_a_second_place_that_is_taken_ends_the_payment_as_it_was(own_stage: Stage) -> None:
    stage, names = own_stage, ("wechat_pay", "alipay")
    truth = Truth()
    channels = {name: Scripted(name, truth) for name in names}
    channels["wechat_pay"].plays = "not sent"
    router = Full([(name, new_id()) for name in names])
    flow = replace(stage.flow, channels=channels, router=router, account=open_account)
    wanted = asked_of(stage)
    decision = await router.place(wanted)

    payment, attempt = await create_payment(
        flow, terms(stage, wanted, decision), by_hand, wanted.payment_id
    )

    assert (payment.state, payment.channel, attempt.state) == ("failed", "wechat_pay", "not_sent")
    assert len(truth.orders) == 1


async def test_the_schema_refuses_a_second_live_attempt(own_stage: Stage) -> None:
    payment = await own_stage.show_qr("wechat_pay")
    attempt = await own_stage.attempt_of(payment)
    columns = "book, payment_id, merchant_id, mode, channel, account_id, pay_mode, amount, currency"
    copy = f"""insert into attempt (id, state, client_ip, created_at, {columns})
               select $1, $2, client_ip, created_at, {columns} from attempt where id = $3"""

    await own_stage.db.execute(copy, (new_id(), "declined", attempt.id))
    with pytest.raises(UniqueKeyTaken):
        await own_stage.db.execute(copy, (new_id(), "created", attempt.id))
    await own_stage.db.execute("delete from attempt where state = 'declined'", ())

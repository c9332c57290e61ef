"""Routing at work: the channel left to us, limits counted, breakers shared, one live attempt."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest
from msgspec.structs import replace

from tests.payments.invariants import assert_one_attempt_lives
from tests.payments.test_interleavings import holding
from tests.stage import Stage, new_number
from tongbao.infra.audit import entries_of_subject
from tongbao.infra.db import (
    CheckViolated,
    DatabaseUnavailable,
    Db,
    Statement,
    UniqueKeyTaken,
    Write,
)
from tongbao.kernel.clock import business_date, real_now
from tongbao.kernel.ids import new_id, parse, show
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import Money
from tongbao.parties.merchants.merchants import SANDBOX_BOOK
from tongbao.parties.merchants.model import LateSuccess
from tongbao.parties.price_plans.model import PriceLine, Quote
from tongbao.parties.price_plans.plans import set_price_plan
from tongbao.payments.collecting import queries
from tongbao.payments.collecting.chase import TRIES_MAX
from tongbao.payments.collecting.model import NewPayment, Payment
from tongbao.payments.collecting.outcomes import Evidence, record_news
from tongbao.payments.collecting.payments import create_payment
from tongbao.payments.routing import _store as store
from tongbao.payments.routing.health import CALLS_MIN, PROBES, PROBES_ANSWERED_MIN, REST
from tongbao.payments.routing.model import (
    PLACE_TAKEN,
    Asked,
    Candidate,
    Decision,
    Gate,
    Heard,
    Manner,
    NoChannelLeft,
    NoChannelUp,
    Reason,
)
from tongbao.payments.routing.router import LiveRouter, decisions_of_payment, shadow_tallies
from tongbao.payments.routing.rule_sets import (
    RuleSetDecided,
    RuleSetOwnDraft,
    StartInThePast,
    activate,
    draw_up,
    rule_set,
    stand_in_shadow,
    withdraw,
)
from tongbao.payments.routing.watch import Watch
from tongbao.rails.channels.accounts import set_gateway
from tongbao.rails.channels.contract import (
    Answer,
    BillTerms,
    ChannelAccount,
    Closed,
    Declined,
    Exchange,
    NotSent,
    Outcome,
    PayMode,
    PayOrder,
    Pending,
    Succeeded,
    Unknown,
)
from tongbao_sdk import Refused

STILL = "[terms]\nexplore_ppm = 0\n"
WECHAT_FIRST = '[[rule]]\nname = "wechat first"\nto = ["wechat_pay", "alipay"]\nby = "order"\n'
CHANNELS = ("wechat_pay", "alipay")


async def in_force(stage: Stage, text: str) -> UUID:
    """Draw rules up as one person and put them in force as another."""
    source = f'name = "test"\nmode = "sandbox"\n{STILL}{text}'
    async with stage.db.begin("maker") as tx:
        draft = await draw_up(tx, source, CHANNELS)
    async with stage.db.begin("checker") as tx:
        await activate(tx, draft.id)
    anew(stage)
    return draft.id


def router_of(stage: Stage) -> LiveRouter:
    router = stage.flow.router
    assert isinstance(router, LiveRouter)
    return router


def anew(stage: Stage) -> None:
    """Let the process know at once what it would know a second later."""
    router = router_of(stage)
    router.watch.forget()
    router._rules.forget_all()


async def left_to_us(stage: Stage, amount: int = 1000, **more: Any) -> Any:
    """Ask for a QR without saying of which channel."""
    terms = {"merchant_order_no": new_number(), "subject": "tea", **more}
    create = stage.client.payments.create
    return await stage.call(create, amount=amount, method={"mode": "qr"}, **terms)


async def decisions(stage: Stage, payment: Any) -> list[Any]:
    row = await stage.row_of(payment)
    return await decisions_of_payment(stage.db, row.book, row.id)


async def unplugged(stage: Stage, channel: str) -> None:
    """Let nobody listen where the channel is called."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
    async with stage.db.begin("tests") as tx:
        await set_gateway(tx, stage.accounts[channel], f"http://127.0.0.1:{port}")
    stage.platform.accounts.forget()


async def quota(stage: Stage, channel: str) -> tuple[int, int] | None:
    rows = await stage.db.fetch(
        "select amount, payments from routing_quota where account_id = $1",
        (stage.accounts[channel],),
    )
    return (rows[0]["amount"], rows[0]["payments"]) if rows else None


# Choosing


async def test_without_rules_the_figures_choose_and_the_log_says_so(own_stage: Stage) -> None:
    payment = await left_to_us(own_stage)

    [why] = await decisions(own_stage, payment)

    assert payment["status"] == "pending"
    assert payment["method"]["channel"] == why.channel
    assert (why.rule, why.rule_set_id) == ("(no rule)", None)
    assert {each.channel for each in why.candidates} == set(CHANNELS)
    assert {each.cost for each in why.candidates} == {6}  # 0.6 % of 10.00
    assert (await own_stage.attempt_of(payment)).id == why.attempt_id


async def test_a_rule_decides_and_a_named_channel_still_wins(own_stage: Stage) -> None:
    rules = await in_force(own_stage, WECHAT_FIRST)

    ours = await left_to_us(own_stage)
    theirs = await own_stage.show_qr("alipay")

    assert ours["method"]["channel"] == "wechat_pay"
    assert theirs["method"]["channel"] == "alipay"
    [why] = await decisions(own_stage, ours)
    assert (why.rule_set_id, why.rule, why.manner) == (rules, "wechat first", Manner.ORDER)


async def test_the_same_order_asked_again_is_the_same_payment(own_stage: Stage) -> None:
    order = new_number()
    await in_force(own_stage, WECHAT_FIRST)
    first = await left_to_us(own_stage, merchant_order_no=order)
    await in_force(own_stage, '[[rule]]\nname = "a"\nto = ["alipay"]\n')

    again = await left_to_us(own_stage, merchant_order_no=order)

    assert again == first


async def test_a_payment_that_is_paid_where_we_sent_it_is_booked(own_stage: Stage) -> None:
    await in_force(own_stage, WECHAT_FIRST)
    payment = await left_to_us(own_stage)

    await own_stage.customer(payment)
    await own_stage.idle()

    assert (await own_stage.read(payment))["status"] == "succeeded"


@pytest.mark.parametrize(
    ("limit", "amount"), [("amount_max = 999", 1000), ("amount_min = 1001", 1000)]
)
async def test_what_no_account_may_take_is_refused(
    own_stage: Stage, limit: str, amount: int
) -> None:
    await in_force(own_stage, "".join(f'[[limit]]\nto = "{name}"\n{limit}\n' for name in CHANNELS))

    with pytest.raises(Refused) as refused:
        await left_to_us(own_stage, amount)

    assert refused.value.code == NoChannelLeft.code
    assert await own_stage.db.fetch("select 1 from payment", ()) == []


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


async def open_account(account_id: UUID) -> ChannelAccount:
    gateway = "https://a.test"
    return ChannelAccount(
        account_id, "any", Mode.SANDBOX, gateway, "1", "1", gateway, 0, msgspec.Struct()
    )


def by_hand(payment_id: UUID, now: datetime) -> Write:
    del now
    return Write(TAKEN, (payment_id,))


TAKEN = Statement("select $1::uuid")
"""Stands where a request takes its idempotency key."""


def asked_of(stage: Stage, pay_mode: PayMode = PayMode.QR, **more: Any) -> Asked:
    return Asked(
        **{
            "payment_id": new_id(),
            "book": SANDBOX_BOOK,
            "merchant_id": stage.shop.merchant.id,
            "mode": Mode.SANDBOX,
            "pay_mode": pay_mode,
            "money": Money(1000, "CNY"),
            "at": stage.db.clock.now(),
            **more,
        }
    )


def terms(stage: Stage, asked: Asked, decision: Decision | None) -> NewPayment:
    assert decision is not None
    return NewPayment(
        merchant_id=stage.shop.merchant.id,
        mode=asked.mode,
        book=asked.book,
        merchant_order_no=new_number(),
        money=asked.money,
        subject="tea",
        channel=decision.chosen.channel,
        pay_mode=asked.pay_mode,
        account_id=decision.chosen.account_id,
        price=Quote(1, 1, False, date(2026, 11, 21)),
        late_success=LateSuccess.REFUND,
        expires_in=timedelta(minutes=30),
        metadata={},
        client_ip="127.0.0.1",
        decision=decision,
    )


# Limits


ONE_A_DAY = '[[limit]]\nto = "wechat_pay"\nday_count = 1\n'


async def test_a_quota_is_counted_and_the_rest_goes_elsewhere(own_stage: Stage) -> None:
    await in_force(own_stage, WECHAT_FIRST + ONE_A_DAY)

    taken = [(await left_to_us(own_stage))["method"]["channel"] for _ in range(3)]

    assert taken == ["wechat_pay", "alipay", "alipay"]
    assert await quota(own_stage, "wechat_pay") == (1000, 1)
    assert await quota(own_stage, "alipay") is None


async def test_a_quota_holds_for_named_channels_too(own_stage: Stage) -> None:
    await in_force(own_stage, '[[limit]]\nto = "wechat_pay"\nday_amount = 1500\n')
    await own_stage.show_qr("wechat_pay", 1000)

    with pytest.raises(Refused) as refused:
        await own_stage.show_qr("wechat_pay", 501)

    assert refused.value.code == NoChannelLeft.code
    assert (await own_stage.show_qr("wechat_pay", 500))["status"] == "pending"


async def test_what_was_not_paid_is_free_again(own_stage: Stage) -> None:
    await in_force(own_stage, WECHAT_FIRST + ONE_A_DAY)
    payment = await left_to_us(own_stage)

    await own_stage.close(payment)

    assert await quota(own_stage, "wechat_pay") == (0, 0)
    router_of(own_stage).watch.forget()
    assert (await left_to_us(own_stage))["method"]["channel"] == "wechat_pay"


async def test_what_was_paid_stays_counted(own_stage: Stage) -> None:
    await in_force(own_stage, WECHAT_FIRST + ONE_A_DAY)
    payment = await left_to_us(own_stage)
    await own_stage.customer(payment)
    await own_stage.idle()

    assert await quota(own_stage, "wechat_pay") == (1000, 1)


async def test_a_new_day_has_a_quota_of_its_own(own_stage: Stage) -> None:
    await in_force(own_stage, WECHAT_FIRST + ONE_A_DAY)
    await left_to_us(own_stage)
    await own_stage.advance(days=1)
    anew(own_stage)

    assert (await left_to_us(own_stage))["method"]["channel"] == "wechat_pay"


async def test_two_payments_race_for_the_last_place(own_stage: Stage) -> None:
    """Both were decided while a place was free; the one that waits for the row goes elsewhere."""
    await in_force(own_stage, WECHAT_FIRST + '[[limit]]\nto = "wechat_pay"\nday_count = 2\n')
    await left_to_us(own_stage)
    locks = "select 1 from routing_quota where account_id = $1 for update"

    async with holding(own_stage, locks, own_stage.accounts["wechat_pay"]) as rivals:
        first = await rivals.start(left_to_us(own_stage))
        second = await rivals.start(left_to_us(own_stage))

    channels = sorted(each.result()["method"]["channel"] for each in (first, second))
    assert channels == ["alipay", "wechat_pay"]
    assert await quota(own_stage, "wechat_pay") == (2000, 2)
    assert len(await own_stage.db.fetch("select 1 from payment", ())) == 3


async def test_two_payments_race_for_the_first_place(own_stage: Stage) -> None:
    """There is no row to lock yet: the key of the one that is made makes the second wait."""
    await in_force(own_stage, WECHAT_FIRST + ONE_A_DAY)
    day = business_date(own_stage.db.clock.now())
    row = """insert into routing_quota (account_id, day, currency, amount, payments)
             values ($1, $2, 'CNY', 1, 1)"""

    async with holding(own_stage, row, own_stage.accounts["wechat_pay"], day) as rivals:
        waiting = await rivals.start(left_to_us(own_stage))

    assert waiting.result()["method"]["channel"] == "alipay"
    assert await quota(own_stage, "wechat_pay") == (1, 1)


async def test_a_named_channel_that_loses_the_race_is_refused_and_nothing_is_left(
    own_stage: Stage,
) -> None:
    await in_force(own_stage, ONE_A_DAY)
    day = business_date(own_stage.db.clock.now())
    row = """insert into routing_quota (account_id, day, currency, amount, payments)
             values ($1, $2, 'CNY', 1, 1)"""

    async with holding(own_stage, row, own_stage.accounts["wechat_pay"], day) as rivals:
        waiting = await rivals.start(own_stage.show_qr("wechat_pay"))

    assert isinstance(waiting.exception(), Refused)
    for table in ("payment", "attempt", "routing_decision"):
        assert await own_stage.db.fetch(f"select 1 from {table}", ()) == []


# Health


class Later:
    """Real time that a test may move."""

    def __init__(self) -> None:
        self.by = timedelta()

    def __call__(self) -> datetime:
        return real_now() + self.by


def told(account_id: UUID, outcome: str, after: str = "unknown", purpose: str = "pay") -> Heard:
    return Heard(
        account_id, PayMode.QR, new_id(), SANDBOX_BOOK, purpose, "created", after, outcome, 40
    )


async def gates(db: Db) -> dict[UUID, str]:
    return {
        row["account_id"]: row["gate"]
        for row in await db.fetch("select account_id, gate from routing_breaker", ())
    }


async def test_every_call_reaches_the_window(own_stage: Stage) -> None:
    watch = router_of(own_stage).watch
    own_stage.fault("wechat_pay", "pay", "time_out_unpaid")
    await own_stage.show_qr("wechat_pay")
    paid = await own_stage.paid("wechat_pay")
    await own_stage.refund(paid, 1000)
    await own_stage.idle()

    await watch.write()

    rows = await own_stage.db.fetch(
        "select sum(calls) as calls, sum(lost) as lost, sum(tried) as tried, sum(won) as won"
        " from routing_bucket where account_id = $1 and pay_mode = 'qr'",
        (own_stage.accounts["wechat_pay"],),
    )
    [exchanges] = await own_stage.db.fetch("select count(*) as calls from exchange", ())
    assert rows[0]["calls"] == exchanges["calls"]
    assert (rows[0]["lost"], rows[0]["tried"], rows[0]["won"]) == (1, 2, 1)


async def test_what_was_heard_survives_a_restart_and_is_shared(db: Db) -> None:
    account = new_id()
    first, second = Watch(db), Watch(db)
    for _ in range(30):
        first.hear(told(account, "pending", "pending"))
    await first.close()
    second.hear(told(account, "declined", "declined"))
    await second.write()

    restarted = Watch(db)
    await restarted.know(business_date(db.clock.now()))

    rate = restarted.standings[account].rates["qr/"]
    assert (rate.samples, rate.latency_ms) == (31, 40)
    assert rate.success_ppm == (30 * 1_000_000 + 20 * 950_000) // 51


async def test_cards_have_a_window_for_each_class(own_stage: Stage) -> None:
    stage, attempt_id = own_stage, new_id()
    account = stage.accounts["wechat_pay"]
    asked = asked_of(stage, PayMode.CARD, bin="62284800")
    placed = [Candidate(account, "wechat_pay", 0, 1, 1, 1)]
    decision = Decision(asked, None, "test", Manner.VALUE, placed, (), "unionpay")
    async with stage.db.begin("tests") as tx:
        for write in router_of(stage).writes(decision, attempt_id, tx.now):
            await write.run(tx)
    watch = Watch(stage.db)
    heard = told(account, "declined", "declined")
    watch.hear(replace(heard, attempt_id=attempt_id, pay_mode=PayMode.CARD))

    await watch.write()

    [row] = await stage.db.fetch("select pay_mode, bin_class, tried, won from routing_bucket", ())
    assert tuple(row.values()) == ("card", "unionpay", 1, 0)
    assert list(watch.standings[account].rates) == ["card/unionpay"]
    [kept] = await stage.db.fetch("select to_jsonb(d)::text as all from routing_decision d", ())
    assert "622848" not in kept["all"]


async def test_a_breaker_opens_for_every_process_and_is_probed_by_few(db: Db) -> None:
    account, later = new_id(), Later()
    first, second = Watch(db, later), Watch(db, later)
    for _ in range(CALLS_MIN):
        first.hear(told(account, "unknown"))
    await first.write()

    await second.know(business_date(db.clock.now()))
    assert second.standings[account].gate is Gate.DOWN

    later.by = REST
    await second.read()
    assert second.standings[account].has_probes
    probe = Write(store.TAKE_PROBE, (account,))
    async with db.begin("tests") as tx:
        taken = [await probe.run(tx) for _ in range(PROBES + 1)]
    assert taken == [1] * PROBES + [0]

    first.hear(told(account, "pending", "pending"))
    second.hear(told(account, "pending", "pending"))
    await first.write()
    await second.write()
    assert await gates(db) == {account: "up"}


async def test_one_process_turns_a_breaker(db: Db) -> None:
    """Both judge what both see; the version lets one of them write."""
    account = new_id()
    first, second = Watch(db), Watch(db)
    for _ in range(CALLS_MIN):
        first.hear(told(account, "unknown"))
    await first._add_up(first._heard)
    first._heard.clear()

    await asyncio.gather(first.read(), second.read())

    [row] = await db.fetch("select version, trips from routing_breaker", ())
    assert (row["version"], row["trips"]) == (1, 1)


async def test_asking_about_old_payments_is_no_probe(db: Db) -> None:
    account, later = new_id(), Later()
    watch = Watch(db, later)
    for _ in range(CALLS_MIN):
        watch.hear(told(account, "unknown"))
    await watch.write()
    later.by = REST
    await watch.read()

    for _ in range(5):
        watch.hear(told(account, "succeeded", "succeeded", purpose="query"))
    await watch.write()

    assert await gates(db) == {account: "probing"}


async def test_what_the_database_did_not_take_is_kept_for_the_next_time(
    db: Db, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = Watch(db)
    watch.hear(told(new_id(), "pending", "pending"))
    with monkeypatch.context() as broken:
        broken.setattr(db, "pool", Gone())
        with pytest.raises(DatabaseUnavailable):
            await watch.write()

    await watch.write()

    assert len(await db.fetch("select 1 from routing_bucket", ())) == 1


class Gone:
    """A pool of connections to a server that is not there."""

    async def acquire(self) -> Any:
        raise OSError

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(name)


async def test_what_is_down_takes_nothing_and_a_probe_finds_it_up(own_stage: Stage) -> None:
    """Declines of customers are many here, and open nothing."""
    stage, later = own_stage, Later()
    watch = router_of(stage).watch = Watch(stage.db, later)
    wechat, alipay = stage.accounts["wechat_pay"], stage.accounts["alipay"]
    await in_force(stage, '[[rule]]\nname = "wechat only"\nto = ["wechat_pay"]\n')
    for _ in range(100):
        watch.hear(told(alipay, "declined", "declined"))
        watch.hear(told(wechat, "unknown"))
    await watch.write()
    assert await gates(stage.db) == {wechat: "down"}

    with pytest.raises(NoChannelUp):
        await collected(stage)

    later.by = REST
    watch.forget()
    probes = 0
    while await gates(stage.db) != {wechat: "up"}:
        try:
            payment = await collected(stage)
        except NoChannelUp:  # no probe: a fifth of them is
            continue
        [why] = await decisions_of_payment(stage.db, payment.book, payment.id)
        assert why.manner is Manner.PROBE
        probes += 1
        await watch.write()
        watch.forget()
    assert probes == PROBES_ANSWERED_MIN


async def collected(stage: Stage) -> Payment:
    """A payment that the router placed, without the waiting that a client would do."""
    asked = asked_of(stage)
    decision = await stage.flow.router.place(asked)
    payment, _ = await create_payment(
        stage.flow, terms(stage, asked, decision), by_hand, asked.payment_id
    )
    return payment


async def test_methods_are_those_that_can_take_it_now(own_stage: Stage) -> None:
    stage = own_stage
    router = router_of(stage)
    await in_force(stage, '[[limit]]\nto = "alipay"\namount_max = 999\n')
    asking = asked_of(stage, money=Money(1000, "CNY"))

    many = await router.methods(asking, [PayMode.QR, PayMode.PAYMENT_CODE])
    fewer = await router.methods(replace(asking, money=Money(999, "CNY")), [PayMode.QR])

    assert {(each.channel, each.pay_mode) for each in many} == {
        ("wechat_pay", PayMode.QR),
        ("wechat_pay", PayMode.PAYMENT_CODE),
    }
    assert {each.channel for each in fewer} == set(CHANNELS)


# Versions


async def test_whoever_drew_rules_up_does_not_put_them_in_force(db: Db) -> None:
    async with db.begin("maker") as tx:
        draft = await draw_up(tx, 'name = "a"\nmode = "live"\n', CHANNELS)

    with pytest.raises(RuleSetOwnDraft):
        async with db.begin("maker") as tx:
            await activate(tx, draft.id)
    with pytest.raises(StartInThePast):
        async with db.begin("checker") as tx:
            await activate(tx, draft.id, valid_from=tx.now - timedelta(seconds=1))
    with pytest.raises(CheckViolated):
        await db.execute(
            "update routing_rule_set set state = 'active', checker = maker, decided_at = made_at,"
            " valid_from = made_at",
            (),
        )
    async with db.begin("checker") as tx:
        await activate(tx, draft.id)
    for act in (activate, withdraw, stand_in_shadow):
        with pytest.raises(RuleSetDecided):
            async with db.begin("another") as tx:
                await act(tx, draft.id)

    acts = await entries_of_subject(db, show("rrs", draft.id))
    assert [(each.action, each.actor) for each in acts] == [
        ("routing.drawn_up", "maker"),
        ("routing.activated", "checker"),
    ]


async def test_rules_begin_when_they_are_said_to(own_stage: Stage) -> None:
    stage = own_stage
    await in_force(stage, WECHAT_FIRST)
    source = f'name = "b"\nmode = "sandbox"\n{STILL}[[rule]]\nname = "b"\nto = ["alipay"]\n'
    async with stage.db.begin("maker") as tx:
        draft = await draw_up(tx, source, CHANNELS)
    async with stage.db.begin("checker") as tx:
        await activate(tx, draft.id, valid_from=tx.now + timedelta(hours=1))
    anew(stage)

    before = await left_to_us(stage)
    await stage.advance(hours=1)
    anew(stage)
    after = await left_to_us(stage)

    assert before["method"]["channel"] == "wechat_pay"
    assert after["method"]["channel"] == "alipay"


async def test_a_draft_in_the_shadow_is_counted_and_changes_nothing(own_stage: Stage) -> None:
    stage = own_stage
    await in_force(stage, WECHAT_FIRST)
    source = (
        f'name = "b"\nmode = "sandbox"\n{STILL}'
        '[[rule]]\nname = "b"\nto = ["alipay"]\nwhen = {amount_from = 2000}\n'
        '[[rule]]\nname = "c"\nto = ["wechat_pay"]\n'
    )
    async with stage.db.begin("maker") as tx:
        draft = await draw_up(tx, source, CHANNELS)
        await stand_in_shadow(tx, draft.id)
    anew(stage)

    same, other = await left_to_us(stage, 1000), await left_to_us(stage, 3000)
    await router_of(stage).watch.close()

    assert {each["method"]["channel"] for each in (same, other)} == {"wechat_pay"}
    [why] = await decisions(stage, other)
    assert why.shadow_id == stage.accounts["alipay"]
    tally = (await shadow_tallies(stage.db))[draft.id]
    assert (tally.decided, tally.differed, tally.cost_less) == (2, 1, 0)
    assert (await rule_set(stage.db, draft.id)).is_shadow

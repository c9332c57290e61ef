"""Whatever becomes of a notification, and whenever it comes, the end is the same.

One end state, one posting, one event: for every disturbance, channel and state of the payment. The
channel's own callback is always lost here; what arrives is written by hand and really signed.

Of UnionPay's two channels, and of what was begun, refunded or refused, a sample runs by default;
TONGBAO_CAMPAIGN=1 runs the whole matrix. Notices of refunds and agreements: test_notices.py; of
what is set aside: test_held_notices.py.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

import pytest

from tests.payments.everywhere import AT_UNIONPAY, CHANNELS, EVERYWHERE, open_everywhere
from tests.payments.letters import Letter, Postman, states_of_callbacks
from tests.stage import Stage, new_number
from tongbao.kernel.ids import show
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import Money
from tongbao.parties.price_plans.model import PriceLine
from tongbao.parties.price_plans.plans import set_price_plan
from tongbao.payments.collecting.outcomes import Evidence, record_news
from tongbao.rails.channels.contract.outcomes import Declined
from tongbao_sdk.replies import Payment

WHOLE = os.environ.get("TONGBAO_CAMPAIGN", "0") != "0"
COPIES = 100
ANSWER_S = 0.5
"""How long a channel's answer takes that a notification overtakes."""


@pytest.fixture(scope="module", autouse=True)
async def every_channel(module_stage: Stage) -> None:
    """The shop takes money at UnionPay, too, and charges codes everywhere."""
    await open_everywhere(module_stage)
    modes = ("qr", "payment_code")
    prices = [PriceLine(channel, mode, 8_000) for channel in EVERYWHERE for mode in modes]
    async with module_stage.db.begin("operator") as tx:
        await set_price_plan(tx, module_stage.shop.merchant.id, Mode.SANDBOX, prices)


class Told:
    """A payment the customer has paid, and what is needed to tell of it."""

    def __init__(self, stage: Stage, payment: Payment, trade: dict[str, Any]) -> None:
        self.stage = stage
        self.payment = payment
        self.number = str(trade["number"])
        self.ref = str(trade["ref"]) or uuid4().hex[:28]
        self.money = Money(payment["amount"], "CNY")
        self.channel = payment["method"]["channel"]

    async def letter(self, postman: Postman, **lies: Any) -> Letter:
        account = await postman.account(self.channel)
        facts = {"money": self.money, "ref": self.ref, **lies}
        money = facts.pop("money")
        return await asyncio.to_thread(
            postman.institution.paid, account, self.number, money, **facts
        )

    async def tell(self, postman: Postman, **lies: Any) -> int:
        account = await postman.account(self.channel)
        return (await postman.deliver(account, await self.letter(postman, **lies))).status_code


# The states a payment may be in when its customer has paid and nobody has told us yet

_answers: list[asyncio.Task[Payment]] = []
"""What is still being asked: calls whose answers a notification overtakes."""


async def waiting(stage: Stage, channel: str) -> Payment:
    payment = await stage.show_qr(channel)
    await stage.fault_of(payment, "callback", "lost")
    await stage.customer(payment)
    return payment


async def begun(stage: Stage, channel: str) -> Payment:
    """Their answer to our order is still on its way, and the customer has paid already."""
    stage.fault(channel, "callback", "lost")
    stage.fault(channel, "pay", f"slow:{ANSWER_S}")
    number = new_number()
    _answers.append(asyncio.create_task(stage.show_qr(channel, merchant_order_no=number)))
    query = "select p.id from payment p where merchant_order_no = $1"
    async with asyncio.timeout(ANSWER_S):
        while not (rows := await stage.db.fetch(query, (number,))):  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.005)
        payment = await stage.call(stage.client.payments.get, show("pay", rows[0]["id"]))
        while await stage.trade_of(payment) is None:  # noqa: ASYNC110 - nor here
            await asyncio.sleep(0.005)
    await stage.customer(payment)
    assert payment["status"] == "created"
    return payment


async def failed(stage: Stage, channel: str) -> Payment:
    """The channel has refused the customer's code; whoever says more contradicts it."""
    code = await stage.code(channel, "decline")
    method = {"channel": channel, "mode": "payment_code", "auth_code": code}
    terms = {"merchant_order_no": new_number(), "subject": "tea", "method": method}
    payment = await stage.call(stage.client.payments.create, amount=1999, **terms)
    await stage.advance(seconds=6)  # some say it only when they are asked
    seen = await stage.read(payment)
    assert seen["status"] == "failed", seen
    return seen


async def unknown(stage: Stage, channel: str) -> Payment:
    stage.fault(channel, "callback", "lost")
    stage.fault(channel, "pay", "time_out_paid")
    payment = await stage.show_qr(channel)
    assert payment["status"] == "unknown"
    return payment


async def known(stage: Stage, channel: str) -> Payment:
    payment = await waiting(stage, channel)
    await stage.advance(seconds=6)
    paid = await stage.read(payment)
    assert paid["status"] == "succeeded"
    return paid


async def refunded(stage: Stage, channel: str) -> Payment:
    payment = await known(stage, channel)
    await stage.refund(payment, payment["amount"])
    await stage.advance(seconds=6)
    given = await stage.read(payment)
    assert given["amount_refunded"] == payment["amount"]
    return given


async def closed(stage: Stage, channel: str) -> Payment:
    if channel == "unionpay":
        return await closed_by_time(stage, channel)
    payment = await stage.show_qr(channel)
    await stage.customer(payment, "abandon")  # scanned, so that there is a trade to close
    await stage.fault_of(payment, "callback", "lost")
    await stage.fault_of(payment, "close", "late_success:5")
    assert (await stage.close(payment))["status"] == "closed"
    await asyncio.to_thread(stage.sandbox.advance, 5)
    return payment


async def closed_by_time(stage: Stage, channel: str) -> Payment:
    """UnionPay closes nothing: what it does not know of when the order's time is over is closed."""
    payment = await stage.show_qr(channel, expires_in_s=60)
    for point, fault, times in (("callback", "lost", 1), ("query", "stale", 50)):
        await stage.fault_of(payment, point, fault, times=times)
    await stage.customer(payment)
    for _ in range(8):
        await stage.advance(minutes=10)
        seen = await stage.read(payment)
        if seen["status"] == "closed":
            break
    assert seen["status"] == "closed"
    stage.sandbox.delete("faults")  # from now on it says how it is
    return payment


# What may become of the notification


async def lost(told: Told, postman: Postman) -> None:
    del told, postman


async def late(told: Told, postman: Postman) -> None:
    letter = await told.letter(postman)
    await told.stage.advance(days=3)
    reply = await postman.deliver(await postman.account(told.channel), letter)
    assert reply.is_success


async def doubled(told: Told, postman: Postman) -> None:
    account, letter = await postman.account(told.channel), await told.letter(postman)
    for _ in range(COPIES // 20):
        replies = await asyncio.gather(*(postman.deliver(account, letter) for _ in range(20)))
        assert all(reply.is_success for reply in replies)
        await told.stage.idle()
    rows = await told.stage.db.fetch(
        "select copies from inbound_callback where number = $1", (told.number,)
    )
    assert [row["copies"] for row in rows] == [COPIES], "one row keeps the count of its copies"


async def reordered(told: Told, postman: Postman) -> None:
    assert await told.tell(postman) in {200, 204}
    await told.stage.idle()
    assert await told.tell(postman, waiting=True) in {200, 204}, "older news, told later"


async def forged(told: Told, postman: Postman) -> None:
    assert await told.tell(postman, variant="forged") == 500
    assert await states_of_callbacks(told.stage, told.number) == [], "nothing of it was believed"


async def wrong_amount(told: Told, postman: Postman) -> None:
    await told.tell(postman, money=Money(told.money.amount + 1, "CNY"))
    await told.stage.idle()
    assert "amount_differs" in await told.stage.cases(told.payment)


async def other_merchant(told: Told, postman: Postman) -> None:
    await told.tell(postman, mchid="1900009999")
    await told.stage.idle()
    assert await states_of_callbacks(told.stage, told.number) == ["mismatched"]


async def probed(told: Told, postman: Postman) -> None:
    if told.channel == "wechat_pay":
        assert await told.tell(postman, variant="signtest") == 500
        assert await states_of_callbacks(told.stage, told.number) == []


STATES: list[Callable[[Stage, str], Awaitable[Payment]]] = [
    begun,
    waiting,
    unknown,
    known,
    refunded,
    failed,
    closed,
]
DISTURBANCES: list[Callable[[Told, Postman], Awaitable[None]]] = [
    lost,
    late,
    doubled,
    reordered,
    forged,
    wrong_amount,
    other_merchant,
    probed,
]
TELLING = {"late", "doubled", "reordered", "wrong_amount"}
"""After these even a closed payment's late money is known, without waiting for the bill. Of one
that failed it is a contradiction: the channel is asked, and people look at it."""


def _sample(state: Callable[[Stage, str], Awaitable[Payment]], turn: int) -> set[str]:
    """Return the channels that a state meets a disturbance at by default."""
    if state in {begun, refunded, failed}:
        return {EVERYWHERE[turn % 4]}
    if state is closed:  # UnionPay's way to it is its own
        return {*CHANNELS, "unionpay"}
    return {*CHANNELS, AT_UNIONPAY[turn % 2]}


def matrix() -> list[Any]:
    """Channel × state × disturbance; at UnionPay, and once refunded, a sample of it by default."""
    cases = []
    for row, state in enumerate(STATES):
        for column, disturbed in enumerate(DISTURBANCES):
            cases += [
                pytest.param(channel, state, disturbed, id=f"{channel}-{name}")
                for name in [f"{state.__name__}-{disturbed.__name__}"]
                for channel in EVERYWHERE
                if WHOLE or channel in _sample(state, row + column)
            ]
    return cases


@pytest.mark.parametrize(("channel", "state", "disturbed"), matrix())
async def test_the_end_is_the_same(
    stage: Stage,
    postman: Postman,
    channel: str,
    state: Callable[[Stage, str], Awaitable[Payment]],
    disturbed: Callable[[Told, Postman], Awaitable[None]],
) -> None:
    payment = await state(stage, channel)
    trade = await stage.trade_of(payment)
    assert trade is not None
    assert (trade["paid_at"] is None) == (state is failed)

    await disturbed(Told(stage, payment, trade), postman)
    await asyncio.gather(*_answers)
    _answers.clear()
    await stage.idle()
    await stage.advance(seconds=40)
    await stage.advance(seconds=40)

    end = await stage.read(payment)
    postings = [code for code, _ in await stage.postings(payment)]
    if state is refunded:
        assert (end["status"], end["amount_refunded"]) == ("succeeded", payment["amount"])
        assert postings == ["payment.captured/gross", "payment.captured/fee"]
        assert await stage.events(payment) == ["payment.succeeded"]
        assert await stage.given_back(payment) == [payment["amount"]]
    elif state is failed:
        is_said = disturbed.__name__ in TELLING - {"wrong_amount"}
        assert (end["status"], end["amount_captured"]) == ("failed", 0)
        assert postings == []  # asked, the channel says again that nothing was paid
        assert await stage.events(payment) == ["payment.failed"]
        assert await stage.cases(payment) == ["contradiction"] * is_said + ["amount_differs"] * (
            disturbed is wrong_amount
        )
        assert await stage.given_back(payment) == []
    elif state is not closed:
        assert end["status"] == "succeeded"
        assert end["amount_captured"] == payment["amount"]
        assert postings == ["payment.captured/gross", "payment.captured/fee"]
        assert await stage.events(payment) == ["payment.succeeded"]
        assert await stage.given_back(payment) == []
    elif disturbed.__name__ in TELLING:
        assert (end["status"], end["amount_captured"]) == ("closed", payment["amount"])
        assert postings == ["late.captured/gross"]
        assert await stage.events(payment) == ["payment.closed", "payment.late_success"]
        assert await stage.given_back(payment) == [payment["amount"]]
    else:
        assert (end["status"], end["amount_captured"]) == ("closed", 0)
        assert postings == []
        assert await stage.events(payment) == ["payment.closed"]


@pytest.mark.parametrize("channel", EVERYWHERE)
async def test_money_for_what_was_declined_is_booked_once_the_channel_is_asked(
    stage: Stage, channel: str
) -> None:
    payment = await stage.show_qr(channel)
    attempt = await stage.attempt_of(payment)
    await record_news(stage.flow, attempt, Declined("NO"), Evidence("by hand"))
    assert (await stage.read(payment))["status"] == "failed"

    await stage.customer(payment)  # who pays all the same; the channel tells us
    await stage.idle()
    await stage.advance(seconds=40)
    await stage.advance(seconds=40)

    end = await stage.read(payment)
    assert (end["status"], end["amount_captured"]) == ("failed", payment["amount"])
    assert await stage.postings(payment) == [("late.captured/gross", payment["amount"])]
    assert await stage.events(payment) == ["payment.failed", "payment.late_success"]
    assert await stage.given_back(payment) == [payment["amount"]]
    assert await stage.cases(payment) == ["contradiction"]


@pytest.mark.parametrize("channel", EVERYWHERE)
@pytest.mark.parametrize(
    "fault", ["lost:2", "doubled", "late:120", "forged", "wrong_amount", "reordered", "signtest"]
)
async def test_a_channels_own_bad_luck_changes_nothing_either(
    stage: Stage, channel: str, fault: str
) -> None:
    """The same through the sandbox's courier, with its retry plan."""
    if fault == "signtest" and channel != "wechat_pay":
        fault = "doubled"  # only WeChat Pay probes signatures
    payment = await stage.show_qr(channel)
    await stage.fault_of(payment, "callback", fault)
    await stage.fault_of(payment, "query", "stale", times=3)
    await stage.customer(payment)

    for minutes in (1, 5, 15, 15):
        await stage.advance(minutes=minutes)

    assert (await stage.read(payment))["status"] == "succeeded"
    assert await stage.events(payment) == ["payment.succeeded"]


@pytest.mark.parametrize("channel", ["wechat_pay", "unionpay"])  # Alipay's account goes by keys
async def test_certificates_change_in_mid_flight_and_nobody_waits_for_it(
    stage: Stage, channel: str
) -> None:
    """Once before the answer and once before the notification, which is believed all the same."""
    stage.fault(channel, "pay", "new_key")
    stage.fault(channel, "callback", "new_key")
    payment = await stage.show_qr(channel)
    assert payment["status"] == "pending"

    await stage.customer(payment)
    await stage.idle()

    assert (await stage.read(payment))["status"] == "succeeded"
    assert await stage.events(payment) == ["payment.succeeded"]
    number = (await stage.attempt_of(payment)).number
    assert await states_of_callbacks(stage, number) == ["processed"]
    await stage.control("settings", **{"wechat.rotation": ""})


async def test_a_probe_is_refused_and_does_no_harm(stage: Stage) -> None:
    """WeChat Pay sends wrong signatures on purpose, to see whether they are looked at."""
    payment = await stage.show_qr("wechat_pay")
    number = (await stage.attempt_of(payment)).number

    await stage.control("wechat/probe", number=number)
    await stage.idle()

    callbacks = await asyncio.to_thread(stage.sandbox.get, "callbacks", channel="wechat")
    probe = next(each for each in reversed(callbacks) if each["variant"] == "signtest")
    assert probe["attempts"][0]["status"] == 500
    assert (await stage.read(payment))["status"] == "pending"

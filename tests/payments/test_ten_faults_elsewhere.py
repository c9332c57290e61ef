"""The ten faults of test_ten_faults.py at UnionPay and at Qra.

What is one channel's alone stands where that channel is tested: silence and reversals of cards in
test_cards.py, their refunds in test_card_refunds.py, silent charges at UnionPay in
test_unionpay.py, notices in test_notifications.py.
"""

from __future__ import annotations

import asyncio
import io
import json
from datetime import timedelta
from typing import Any

import pytest
import structlog

from tests.payments.everywhere import AT_UNIONPAY, open_everywhere
from tests.payments.invariants import assert_money_is_conserved, assert_the_channels_agree
from tests.payments.letters import Postman, states_of_callbacks
from tests.stage import Stage, new_number
from tongbao.infra.db import connect
from tongbao.infra.telemetry import set_up_logging
from tongbao.kernel.clock import Clock
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import Money
from tongbao.parties.price_plans.model import PriceLine
from tongbao.parties.price_plans.plans import set_price_plan
from tongbao.wiring import Platform
from tongbao_sdk import Refused

both = pytest.mark.parametrize("channel", AT_UNIONPAY)


@pytest.fixture(scope="module", autouse=True)
async def at_unionpay(module_stage: Stage) -> None:
    """The shop takes money at UnionPay's two channels, by codes both ways."""
    stage = module_stage
    await open_everywhere(stage)
    prices = [PriceLine(channel, "qr", 8_000) for channel in AT_UNIONPAY]
    prices += [PriceLine(channel, "payment_code", 8_000) for channel in AT_UNIONPAY]
    async with stage.db.begin("operator") as tx:
        await set_price_plan(tx, stage.shop.merchant.id, Mode.SANDBOX, prices)


async def charge(stage: Stage, channel: str, behaviour: str = "pay") -> Any:
    """Charge a payment code, at the channel that is named: both can charge either's."""
    code = await stage.code(channel, behaviour)
    method = {"channel": channel, "mode": "payment_code", "auth_code": code}
    terms = {"merchant_order_no": new_number(), "subject": "tea", "method": method}
    return await stage.call(stage.client.payments.create, amount=1999, **terms)


async def until(stage: Stage, thing: Any, *ends: str) -> Any:
    """Return a payment or refund once it has ended so; some channels take hours."""
    for minutes in (1, 1, 5, 10, 30, 60, 120, 120):
        await stage.advance(minutes=minutes)
        seen = await stage.read(thing)
        if seen["status"] in ends:
            return seen
    return seen


# 1 · Silence about a payment code is no failure.


@pytest.mark.parametrize("silence", ["time_out_paid", "http_500_paid", "bad_signature_paid"])
async def test_1_a_code_that_was_charged_in_silence_succeeds(stage: Stage, silence: str) -> None:
    """At Qra; at UnionPay it is test_unionpay.py's."""
    stage.fault("unionpay_qra", "pay", silence)

    payment = await charge(stage, "unionpay_qra")

    assert payment["status"] == "unknown"
    assert (await until(stage, payment, "succeeded"))["status"] == "succeeded"
    assert await stage.events(payment) == ["payment.succeeded"]


@both
@pytest.mark.parametrize("silence", ["reset", "http_500_unpaid", "http_429"])
async def test_1_a_code_that_was_not_charged_in_silence_ends_unpaid(
    stage: Stage, channel: str, silence: str
) -> None:
    stage.fault(channel, "pay", silence)

    payment = await charge(stage, channel)

    assert payment["status"] not in {"failed", "closed", "succeeded"}
    assert (await until(stage, payment, "closed", "failed"))["status"] in {"closed", "failed"}
    assert await stage.postings(payment) == []


# 2 · Silence about a refund is no failure either, and it is made once.


@both
@pytest.mark.parametrize("silence", ["time_out_done", "bad_signature_done", "time_out_not_done"])
async def test_2_a_refund_met_by_silence_is_made_once(
    stage: Stage, channel: str, silence: str
) -> None:
    paid = await stage.paid(channel)
    stage.fault(channel, "refund", silence)

    refund = await stage.refund(paid, 500)
    assert refund["status"] in {"unknown", "requested"}

    assert (await until(stage, refund, "succeeded"))["status"] == "succeeded"
    assert await stage.events(refund) == ["refund.succeeded"]
    assert await stage.given_back(paid) == [500]


# 3 · A refund met by an error is carried through, and one that is refused gives the money back.


@both
@pytest.mark.parametrize("answer", ["http_500_done", "http_500_not_done", "http_429"])
async def test_3_a_refund_met_by_an_error_is_carried_through(
    stage: Stage, channel: str, answer: str
) -> None:
    paid = await stage.paid(channel)
    stage.fault(channel, "refund", answer, times=2)
    stage.fault(channel, "refund_query", "http_500", times=2)

    refund = await stage.refund(paid, 500)

    assert (await until(stage, refund, "succeeded"))["status"] == "succeeded"
    assert await stage.given_back(paid) == [500]


@both
async def test_3_a_refund_that_is_refused_can_be_made_again(stage: Stage, channel: str) -> None:
    paid = await stage.paid(channel)
    stage.fault(channel, "refund", "not_enough", times=-1)

    refused = await until(stage, await stage.refund(paid, 500), "failed")

    assert refused["status"] == "failed"
    assert (await stage.read(paid))["amount_refunded"] == 0
    assert await stage.events(refused) == ["refund.failed"]
    stage.sandbox.delete("faults")
    again = await until(stage, await stage.refund(paid, paid["amount"]), "succeeded")
    assert again["status"] == "succeeded"


@both
async def test_3_a_refund_that_goes_nowhere_for_a_day_is_shown_to_people(
    stage: Stage, channel: str
) -> None:
    paid = await stage.paid(channel)
    stage.fault(channel, "refund", "http_500_not_done", times=-1)

    refund = await stage.refund(paid, 500)
    for _ in range(3):
        await stage.advance(hours=12)

    assert (await stage.read(refund))["status"] in {"unknown", "requested"}
    assert await stage.cases(paid) == ["refund_needs_people"]
    stage.sandbox.delete("faults")
    for _ in range(2):
        await stage.advance(hours=2)
    assert (await stage.read(refund))["status"] == "succeeded"


# 4 · Refunds that race never give back more than came in.


@both
async def test_4_refunds_that_race_never_give_back_more(stage: Stage, channel: str) -> None:
    paid = await stage.paid(channel, 1000)

    results = await asyncio.gather(
        *(stage.refund(paid, 300) for _ in range(8)), return_exceptions=True
    )

    refused = [each for each in results if isinstance(each, Refused)]
    assert [each.code for each in refused] == ["refund.exceeds_captured"] * 5
    made = [each for each in results if not isinstance(each, BaseException)]
    for refund in made:
        assert (await until(stage, refund, "succeeded"))["status"] == "succeeded"
    assert await stage.given_back(paid) == [300, 300, 300]
    assert (await stage.read(paid))["amount_refunded"] == 900


# 5 · What the channel has not closed is not closed, and late money goes back once.


@both
async def test_5_an_order_is_closed_at_the_channel_before_it_is_closed_here(
    stage: Stage, channel: str
) -> None:
    """UnionPay closes nothing: an order stays payable until its own time is over."""
    payment = await stage.show_qr(channel, expires_in_s=600)
    await stage.fault_of(payment, "close", "http_500", times=-1)

    asked = await stage.close(payment)
    await stage.advance(seconds=30)

    assert asked["status"] == (await stage.read(payment))["status"] == "pending"
    stage.sandbox.delete("faults")
    assert (await until(stage, payment, "closed"))["status"] == "closed"
    with pytest.raises(ValueError, match="400"):
        await stage.customer(payment)


@both
async def test_5_who_pays_before_the_close_is_through_has_paid(stage: Stage, channel: str) -> None:
    payment = await stage.show_qr(channel, expires_in_s=600)
    await stage.fault_of(payment, "callback", "lost", times=-1)
    if channel == "unionpay":
        await stage.customer(payment)
    else:
        await stage.customer(payment, "abandon")
        await stage.fault_of(payment, "close", "paid_just_before")

    await stage.close(payment)

    assert (await until(stage, payment, "succeeded"))["status"] == "succeeded"
    assert await stage.events(payment) == ["payment.succeeded"]


async def test_5_a_success_after_the_close_is_given_back_once(stage: Stage) -> None:
    """At Qra; at UnionPay it is the state ``closed`` of test_notifications.py."""
    payment = await stage.show_qr("unionpay_qra")
    await stage.fault_of(payment, "close", "late_success:600")
    assert (await stage.close(payment))["status"] == "closed"

    for minutes in (15, 5, 5):
        await stage.advance(minutes=minutes)

    told = await stage.read(payment)
    assert (told["status"], told["amount_captured"]) == ("closed", told["amount"])
    assert told["amount_refunded"] == told["amount"]
    assert await stage.events(payment) == ["payment.closed", "payment.late_success"]
    assert await stage.given_back(payment) == [payment["amount"]]


# 6 · A payment code nobody confirms is taken back at the channel.


@both
@pytest.mark.parametrize("fault", ["", "time_out_done", "http_500"])
async def test_6_a_code_nobody_confirms_cannot_be_paid_afterwards(
    stage: Stage, channel: str, fault: str
) -> None:
    payment = await charge(stage, channel, "ask_forever")
    if fault:
        stage.fault(channel, "close", fault)

    assert (await until(stage, payment, "closed", "failed"))["status"] in {"closed", "failed"}
    with pytest.raises(ValueError, match="400"):
        await stage.customer(payment)
    assert await stage.postings(payment) == []


# 7 · No secret in a log, an answer or a table.


@both
async def test_7_no_secret_is_written_down(stage: Stage, channel: str) -> None:
    lines = io.StringIO()
    set_up_logging("debug", "json", lines)
    answers: list[str] = []
    try:
        stage.fault(channel, "pay", "bad_signature_paid")
        answers.append(json.dumps(await stage.show_qr(channel)))
        paid = await stage.paid(channel)
        answers.append(json.dumps(await until(stage, await stage.refund(paid, 100), "succeeded")))
        async with Postman(stage) as postman:
            account = await postman.account(channel)
            reply = await postman.deliver(account, ({"x-made": "up"}, b"sign=forged&x=1"))
            answers.append(reply.text)
    finally:
        structlog.reset_defaults()
        set_up_logging("warning", "console")

    shown = stage.sandbox.credentials[channel]
    hidden = [text for name, text in shown.items() if name == "secure_key"]
    pems = [text for name, text in shown.items() if name.endswith("private_key_pem")]
    hidden += [text.splitlines()[5] for text in pems]
    assert hidden
    tables = ("exchange", "task", "event", "payment", "attempt", "refund", "inbound_callback")
    rows = [await stage.db.fetch(f"select t::text as row from {name} t", ()) for name in tables]
    kept = json.dumps([[row["row"] for row in found] for found in rows])
    written = lines.getvalue()
    assert "http_request" in written
    for secret in hidden:
        assert secret not in written
        assert secret not in kept
        assert secret not in " ".join(answers)


# 8 is of no channel: see test_ten_faults.py. 9 · Two workers ask about each payment once.


async def test_9_two_workers_ask_about_each_payment_once(own_stage: Stage, dsn: str) -> None:
    stage = own_stage
    await open_everywhere(stage)
    payments = [await stage.show_qr(channel) for channel in AT_UNIONPAY * 3]
    clock = Clock()
    clock.offset = stage.db.clock.offset
    database = await connect(dsn, clock)
    other = Platform(stage.platform.settings, database, stage.platform.keyring)
    try:
        for db in (stage.db, other.db):
            db.clock.offset += timedelta(seconds=6)
        await asyncio.gather(
            stage.platform.worker.run_until_idle(raise_failures=True),
            other.worker.run_until_idle(raise_failures=True),
        )
    finally:
        await other.close()

    rows = await stage.db.fetch(
        "select p.merchant_order_no as order_no, count(*) as times from exchange e"
        " join payment p on p.id = e.payment_id where purpose = 'query' group by 1",
        (),
    )
    asked = {row["order_no"]: row["times"] for row in rows}
    assert set(asked) <= {payment["merchant_order_no"] for payment in payments}
    assert len(asked) >= 3
    assert set(asked.values()) == {1}


# 10 · A signed callback is compared with what was asked.


@both
@pytest.mark.parametrize(
    ("lie", "becomes"),
    [
        ({"mchid": "1900009999"}, "mismatched"),
        ({"money": Money(1, "CNY")}, "processed"),
    ],
    ids=["another merchant number", "another amount"],
)
async def test_10_a_signed_callback_is_compared_with_what_was_asked(
    stage: Stage, postman: Postman, channel: str, lie: dict[str, Any], becomes: str
) -> None:
    payment = await stage.show_qr(channel)
    number = (await stage.attempt_of(payment)).number
    facts = {"money": Money(payment["amount"], "CNY"), **lie}

    await postman.tell(channel, number, facts.pop("money"), **facts)
    await stage.idle()

    assert await states_of_callbacks(stage, number) == [becomes]
    assert (await stage.read(payment))["status"] == "pending"
    assert await stage.postings(payment) == []


@both
async def test_10_a_callback_about_nothing_of_ours_changes_nothing(
    stage: Stage, postman: Postman, channel: str
) -> None:
    number = "01k9order0000000000000000b"
    reply = await postman.tell(channel, number, Money(100, "CNY"))
    await stage.idle()

    assert reply.is_success
    assert set(await states_of_callbacks(stage, number)) == {"orphaned"}


async def test_the_channels_and_the_platform_agree_after_all_of_this(stage: Stage) -> None:
    stage.sandbox.delete("faults")
    for _ in range(4):
        await stage.advance(hours=3)
    await assert_money_is_conserved(stage.db)
    await assert_the_channels_agree(stage)

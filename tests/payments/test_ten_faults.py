"""Ten faults found in a platform that many use, each one as a test that this house passes.

Every test goes through the public API and a channel that misbehaves as real ones do.
"""

from __future__ import annotations

import asyncio
import io
import json
from datetime import timedelta
from typing import Any

import pytest
import structlog

from tests.payments.invariants import assert_money_is_conserved, assert_the_channels_agree
from tests.payments.letters import Postman, states_of_callbacks
from tests.sandbox.inbox import Inbox
from tests.stage import Stage
from tongbao.infra.db import Db, connect
from tongbao.infra.telemetry import set_up_logging
from tongbao.kernel.clock import Clock
from tongbao.kernel.money import Money
from tongbao.wiring import Platform
from tongbao_sdk import Refused

CHANNELS = ("wechat_pay", "alipay")
both_channels = pytest.mark.parametrize("channel", CHANNELS)


# 1 · A payment code whose answer timed out was marked as failed, though the customer had paid.


@both_channels
@pytest.mark.parametrize("silence", ["time_out_paid", "http_500_paid", "bad_signature_paid"])
async def test_1_a_payment_code_that_was_paid_in_silence_succeeds(
    stage: Stage, channel: str, silence: str
) -> None:
    stage.fault(channel, "pay", silence)

    payment = await stage.scan_code(await stage.code(channel))
    assert payment["status"] == "unknown"
    assert await stage.events(payment) == []

    await stage.advance(seconds=3)
    assert (await stage.read(payment))["status"] == "succeeded"
    assert await stage.events(payment) == ["payment.succeeded"]
    assert [code for code, _ in await stage.postings(payment)].count("payment.captured/gross") == 1


@both_channels
@pytest.mark.parametrize("silence", ["time_out_unpaid", "http_500_unpaid", "reset", "http_429"])
async def test_1_a_payment_code_that_was_not_paid_in_silence_ends_unpaid(
    stage: Stage, channel: str, silence: str
) -> None:
    stage.fault(channel, "pay", silence)

    payment = await stage.scan_code(await stage.code(channel))
    assert payment["status"] == "unknown"

    await stage.advance(seconds=31)
    assert (await stage.read(payment))["status"] == "unknown", "its request may still be on its way"
    await stage.advance(seconds=60)
    ended = await stage.read(payment)
    assert (ended["status"], ended["close_reason"]) == ("closed", "not_paid")
    assert await stage.postings(payment) == []


# 2 · A refund whose answer timed out was marked as failed and the merchant told so.


@both_channels
@pytest.mark.parametrize("silence", ["time_out_done", "bad_signature_done"])
async def test_2_a_refund_done_in_silence_succeeds_once(
    stage: Stage, channel: str, silence: str
) -> None:
    paid = await stage.paid(channel)
    stage.fault(channel, "refund", silence)

    refund = await stage.refund(paid, 500)
    assert refund["status"] in {"unknown", "requested"}

    await stage.advance(seconds=30)
    assert (await stage.read(refund))["status"] == "succeeded"
    assert await stage.events(refund) == ["refund.succeeded"]
    assert await stage.given_back(paid) == [500]


@both_channels
async def test_2_a_refund_lost_in_silence_is_sent_again_under_its_number(
    stage: Stage, channel: str
) -> None:
    paid = await stage.paid(channel)
    stage.fault(channel, "refund", "time_out_not_done")

    refund = await stage.refund(paid, 500)
    assert refund["status"] in {"unknown", "requested"}

    await stage.advance(seconds=30)
    await stage.advance(seconds=30)
    assert (await stage.read(refund))["status"] == "succeeded"
    assert await stage.given_back(paid) == [500]


# 3 · A refund answered with a system error stayed untouched for ever and was closed by the clock.


@both_channels
@pytest.mark.parametrize("answer", ["http_500_done", "http_500_not_done", "http_429"])
async def test_3_a_refund_met_by_a_system_error_is_carried_through(
    stage: Stage, channel: str, answer: str
) -> None:
    paid = await stage.paid(channel)
    stage.fault(channel, "refund", answer, times=2)
    stage.fault(channel, "refund_query", "http_500", times=2)

    refund = await stage.refund(paid, 500)

    for _ in range(6):
        await stage.advance(seconds=60)
    assert (await stage.read(refund))["status"] == "succeeded"
    assert await stage.given_back(paid) == [500]
    await assert_money_is_conserved(stage.db)


@both_channels
async def test_3_a_refund_the_channel_refuses_gives_the_merchant_the_money_back(
    stage: Stage, channel: str
) -> None:
    paid = await stage.paid(channel)
    stage.fault(channel, "refund", "not_enough", times=-1)

    refund = await stage.refund(paid, 500)
    await stage.advance(seconds=10)

    refused = await stage.read(refund)
    assert refused["status"] == "failed"
    assert (await stage.read(paid))["amount_refunded"] == 0
    assert await stage.events(refund) == ["refund.failed"]
    stage.sandbox.delete("faults")
    again = await stage.refund(paid, paid["amount"])
    await stage.advance(seconds=10)
    assert (await stage.read(again))["status"] == "succeeded"


@both_channels
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


# 4 · Two refunds at once both passed the check, and more went back than had come in.


@both_channels
async def test_4_refunds_that_race_never_give_back_more_than_came_in(
    stage: Stage, channel: str
) -> None:
    paid = await stage.paid(channel, 1000)

    results = await asyncio.gather(
        *(stage.refund(paid, 300) for _ in range(8)), return_exceptions=True
    )

    refused = [each for each in results if isinstance(each, Refused)]
    assert [each.code for each in refused] == ["refund.exceeds_captured"] * 5
    assert not [each for each in results if isinstance(each, Exception) and each not in refused]
    await stage.advance(seconds=30)
    assert await stage.given_back(paid) == [300, 300, 300]
    assert (await stage.read(paid))["amount_refunded"] == 900
    await assert_money_is_conserved(stage.db)


# 5 · An order was closed by the clock here and stayed payable there; then the merchant was told of
#     a success that the books did not have, and nobody could give the money back.


@both_channels
async def test_5_an_order_is_closed_at_the_channel_before_it_is_closed_here(
    stage: Stage, channel: str
) -> None:
    payment = await stage.show_qr(channel)
    await stage.fault_of(payment, "close", "http_500", times=-1)

    asked = await stage.close(payment)
    assert asked["status"] == "pending", "the channel has not said that it is closed"
    await stage.advance(seconds=30)
    assert (await stage.read(payment))["status"] == "pending"

    stage.sandbox.delete("faults")
    await stage.advance(seconds=120)
    assert (await stage.read(payment))["status"] == "closed"
    trade = await stage.trade_of(payment)
    assert trade is not None
    assert trade["state"] == "closed"


@both_channels
async def test_5_a_success_after_the_close_is_told_as_it_is_and_given_back_once(
    stage: Stage, channel: str
) -> None:
    payment = await stage.show_qr(channel)
    await stage.fault_of(payment, "close", "late_success:600")
    if channel == "alipay":
        await stage.customer(payment, "abandon")  # scanned, so that there is a trade to close
    assert (await stage.close(payment))["status"] == "closed"

    await stage.advance(minutes=15)
    await stage.advance(minutes=1)

    told = await stage.read(payment)
    assert (told["status"], told["close_reason"]) == ("closed", "merchant")
    assert told["amount_captured"] == told["amount_refunded"] == told["amount"]
    assert await stage.events(payment) == ["payment.closed", "payment.late_success"]
    assert await stage.given_back(payment) == [payment["amount"]]
    assert await stage.cases(payment) == ["late_success"]
    [refund] = await stage.call(lambda: list(stage.client.refunds.list(payment_id=payment["id"])))
    assert (refund["kind"], refund["status"]) == ("late", "succeeded")
    assert await stage.postings(payment) == [("late.captured/gross", payment["amount"])]
    assert await stage.postings(refund) == [("late.refunded/gross", payment["amount"])]
    with pytest.raises(Refused) as again:
        await stage.refund(payment, 1)
    assert again.value.code == "refund.payment_not_captured"
    await assert_money_is_conserved(stage.db)


@both_channels
async def test_5_a_merchant_may_take_money_that_comes_after_the_time(
    stage: Stage, channel: str
) -> None:
    client = await stage.patient_shop()
    payment = await stage.show_qr(channel, client=client, expires_in_s=60)
    await stage.fault_of(payment, "close", "late_success:600")
    if channel == "alipay":
        await stage.customer(payment, "abandon")
    # The channel keeps it open a little longer than we do: it is closed by our call.
    stage.db.clock.offset += timedelta(seconds=61)
    await stage.idle()
    await asyncio.to_thread(stage.sandbox.advance, 61)
    closed = await stage.call(client.payments.get, payment["id"])
    assert (closed["status"], closed["close_reason"]) == ("closed", "expired")

    await stage.advance(minutes=15)

    taken = await stage.call(client.payments.get, payment["id"])
    assert taken["status"] == "succeeded"
    assert "close_reason" not in taken
    assert await stage.events(payment) == ["payment.closed", "payment.succeeded"]
    refund = await stage.refund(taken, 100, client=client)
    await stage.advance(seconds=10)
    assert (await stage.call(client.refunds.get, refund["id"]))["status"] == "succeeded"
    await assert_money_is_conserved(stage.db)


@both_channels
async def test_5_who_pays_just_before_the_close_has_paid(stage: Stage, channel: str) -> None:
    payment = await stage.show_qr(channel)
    await stage.customer(payment, "abandon")
    await stage.fault_of(payment, "close", "paid_just_before")

    closed = await stage.close(payment)

    assert closed["status"] == "succeeded"
    await stage.idle()
    assert await stage.events(payment) == ["payment.succeeded"]
    await assert_money_is_conserved(stage.db)


# 6 · Reversing a payment code was a remark in the code and nothing else.


@both_channels
async def test_6_a_code_nobody_confirms_is_reversed_at_the_channel(
    stage: Stage, channel: str
) -> None:
    payment = await stage.scan_code(await stage.code(channel, "ask_forever"))
    assert payment["status"] == "pending"

    await stage.advance(seconds=31)

    ended = await stage.read(payment)
    assert (ended["status"], ended["close_reason"]) == ("closed", "not_paid")
    trade = await stage.trade_of(payment)
    assert trade is not None
    assert trade["state"] in {"reversed", "closed"}
    with pytest.raises(ValueError, match="order is"):
        await stage.customer(payment)


@both_channels
async def test_6_a_reversal_whose_answer_is_lost_is_repeated(stage: Stage, channel: str) -> None:
    payment = await stage.scan_code(await stage.code(channel, "ask_forever"))
    await stage.fault_of(payment, "close", "time_out_done")

    await stage.advance(seconds=31)
    await stage.advance(seconds=60)

    assert (await stage.read(payment))["status"] == "closed"


async def test_6_an_old_success_of_a_reversed_code_is_not_booked_and_not_given_back_again(
    stage: Stage,
) -> None:
    """The customer paid, the reversal gave it back, and then the callback of the success came."""
    channel = "alipay"
    stage.fault(channel, "callback", "late:600", times=-1)
    payment = await stage.scan_code(await stage.code(channel, "ask"))
    await stage.fault_of(payment, "query", "stale", times=-1)
    await stage.customer(payment)
    await stage.advance(seconds=31)
    assert (await stage.read(payment))["status"] == "closed"
    assert await stage.given_back(payment) == [payment["amount"]]
    stage.sandbox.delete("faults")

    await stage.advance(minutes=15)

    number = (await stage.attempt_of(payment)).number
    assert "processed" in await states_of_callbacks(stage, number), "the success was heard"
    told = await stage.read(payment)
    assert (told["status"], told["amount_captured"]) == ("closed", 0)
    assert await stage.given_back(payment) == [payment["amount"]]
    assert await stage.events(payment) == ["payment.closed"]
    assert await stage.cases(payment) == []
    await assert_money_is_conserved(stage.db)


# 7 · The signing key of every merchant went to the log.


async def test_7_no_secret_reaches_a_log_an_answer_or_the_evidence(own_stage: Stage) -> None:
    stage = own_stage
    lines = io.StringIO()
    set_up_logging("debug", "json", lines)
    answers: list[str] = []
    codes = []
    try:
        for channel in CHANNELS:
            stage.fault(channel, "pay", "time_out_paid")
            codes += [await stage.code(channel), await stage.code(channel, "decline")]
            answers += [json.dumps(await stage.scan_code(code)) for code in codes[-2:]]
            paid = await stage.paid(channel)
            answers.append(json.dumps(await stage.refund(paid, 100)))
            with pytest.raises(Refused) as refused:
                await stage.refund(paid, 100_000)
            answers.append(f"{refused.value} {refused.value.facts}")
            async with Postman(stage) as postman:
                reply = await postman.deliver(
                    await postman.account(channel), ({"x-made": "up"}, b"sign=forged&x=1")
                )
                answers.append(reply.text)
        codes.append(await stage.wallet_code())
        answers.append(json.dumps(await stage.scan_code(codes[-1])))
        await stage.advance(seconds=90)
    finally:
        structlog.reset_defaults()
        set_up_logging("warning", "console")

    written = lines.getvalue()
    assert "http_request" in written, "nothing was logged, so nothing was tried"
    tables = ("exchange", "task", "dead_letter", "event", "payment", "attempt", "refund", "audit")
    kept = json.dumps(
        [[tuple(row) for row in await _everything(stage.db, name)] for name in tables], default=str
    )
    for name, secret in _secrets_of(stage).items():
        for place, text in (("log", written), ("answers", " ".join(answers)), ("tables", kept)):
            assert secret not in text, f"{name} is in the {place}"
    for code in codes:
        assert code not in written
        assert code not in kept


async def _everything(db: Db, table: str) -> list[Any]:
    known = await db.fetch("select tablename from pg_tables where schemaname = 'public'", ())
    if table not in {row["tablename"] for row in known}:
        return []
    return await db.fetch(f"select * from {table}", ())


def _secrets_of(stage: Stage) -> dict[str, str]:
    credentials = stage.sandbox.credentials
    pem = {
        "merchant key": credentials["wechat"]["merchant_private_key_pem"],
        "app key": credentials["alipay"]["app_private_key_pem"],
    }
    return {
        "api secret": stage.shop.secret.reveal(),
        "APIv3 key": credentials["wechat"]["api_v3_key"],
        "bank account": "6222020200112233445",
        **{name: text.splitlines()[5] for name, text in pem.items()},
    }


# 8 · A notification's retries lived in a message of a broker: what it lost was never sent.


async def test_8_a_notification_outlives_the_process_that_should_have_sent_it(
    own_stage: Stage, dsn: str
) -> None:
    stage = own_stage
    with Inbox() as inbox:
        inbox.answers = [(500, b""), (500, b"")]
        await stage.call(stage.client.webhook_endpoints.create, inbox.url)
        payment = await stage.show_qr("wechat_pay")
        await stage.customer(payment)
        await stage.idle()
        assert len(inbox.letters) >= 1
        other = await _another_process(stage, dsn)
        try:
            for _ in range(4):
                stage.db.clock.offset += timedelta(minutes=10)
                other.db.clock.offset = stage.db.clock.offset
                await other.worker.run_until_idle(raise_failures=True)
        finally:
            await other.close()

        kinds = {json.loads(letter.body)["type"] for letter in inbox.letters}
        ids = {letter.headers["webhook-id"] for letter in inbox.letters}
        assert kinds == {"payment.succeeded"}
        assert len(ids) == 1, "the same event keeps its id over every try"
        assert len(inbox.letters) == 3, "two failed, one arrived, and then there was silence"


async def _another_process(stage: Stage, dsn: str) -> Platform:
    """A platform with memory, connections and leases of its own on the same database."""
    clock = Clock()
    clock.offset = stage.db.clock.offset
    return Platform(stage.platform.settings, await connect(dsn, clock), stage.platform.keyring)


# 9 · Every node ran every polling task.


async def test_9_two_workers_ask_about_each_payment_once(own_stage: Stage, dsn: str) -> None:
    stage = own_stage
    payments = [await stage.show_qr(channel) for channel in CHANNELS * 4]
    other = await _another_process(stage, dsn)
    try:
        for db in (stage.db, other.db):
            db.clock.offset += timedelta(seconds=6)
        await asyncio.gather(
            stage.platform.worker.run_until_idle(raise_failures=True),
            other.worker.run_until_idle(raise_failures=True),
        )
    finally:
        await other.close()

    for payment in payments:
        rows = await stage.db.fetch(
            "select purpose, count(*) as times from exchange e"
            " join payment p on p.id = e.payment_id"
            " where p.merchant_order_no = $1 group by purpose order by purpose",
            (payment["merchant_order_no"],),
        )
        assert {row["purpose"]: row["times"] for row in rows} == {"pay": 1, "query": 1}


# 10 · A signed callback was believed without a look at whose it was and how much it said.


@both_channels
@pytest.mark.parametrize(
    ("lie", "becomes"),
    [
        ({"mchid": "1900009999"}, "mismatched"),
        ({"app_id": "wx0000000000000000"}, "mismatched"),
        ({"money": Money(1, "CNY")}, "processed"),
    ],
    ids=["another merchant number", "another app", "another amount"],
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


@both_channels
@pytest.mark.parametrize(
    "number", ["01k9order0000000000000000a", "20261121-0001", "e668382520494f83b73303d3"]
)
async def test_10_a_callback_about_a_number_that_is_not_ours_is_kept_and_changes_nothing(
    stage: Stage, postman: Postman, channel: str, number: str
) -> None:
    reply = await postman.tell(channel, number, Money(100, "CNY"))
    await stage.idle()

    assert reply.is_success, "it is signed, so the channel need not send it again"
    assert set(await states_of_callbacks(stage, number)) == {"orphaned"}


async def test_the_channels_and_the_platform_agree_after_all_of_this(stage: Stage) -> None:
    stage.sandbox.delete("faults")
    for _ in range(3):
        await stage.advance(hours=3)
    await assert_money_is_conserved(stage.db)
    await assert_the_channels_agree(stage)

"""Refunds to cards that meet bad luck: made once, and never more than came in.

The second to fourth of the ten faults of test_ten_faults.py, and the ninth, at a card host.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from tests.payments import test_cards
from tests.payments.test_cards import AMOUNT, BALANCE, fresh_card, on_card, open_card_account, swipe
from tests.stage import Stage
from tongbao.infra.db import connect
from tongbao.infra.tasks import Lease
from tongbao.kernel.clock import Clock
from tongbao.kernel.ids import new_id, parse
from tongbao.payments.collecting.chase import chase_attempt
from tongbao.payments.collecting.outcomes import ChaseAttempt
from tongbao.rails.channels.cards.messages import trace_of
from tongbao.wiring import Platform
from tongbao_sdk import Refused

card_host = test_cards.card_host
NO_LEASE = Lease(new_id(), 1)


@pytest.mark.parametrize(
    "fault",
    [
        *("time_out_done", "time_out_not_done", "bad_signature_done"),
        *("wrong_amount_done", "reset_mid_frame_done", "reset"),
    ],
)
async def test_a_refund_without_a_good_answer_is_made_once(stage: Stage, fault: str) -> None:
    number = fresh_card()
    paid = await swipe(stage, number)
    stage.sandbox.fault("cards", "refund", fault)

    refund = await stage.refund(paid, 500)
    assert refund["status"] in {"unknown", "requested"}

    for _ in range(4):
        await stage.advance(minutes=5)
    assert (await stage.read(refund))["status"] == "succeeded"
    assert await stage.events(refund) == ["refund.succeeded"]
    assert await on_card(stage, number) == (BALANCE - AMOUNT + 500, 0)


async def test_refunds_that_race_never_give_back_more_than_came_in(stage: Stage) -> None:
    number = fresh_card()
    paid = await swipe(stage, number, 1_000)

    results = await asyncio.gather(
        *(stage.refund(paid, 300) for _ in range(8)), return_exceptions=True
    )

    refused = [each for each in results if isinstance(each, Refused)]
    assert [each.code for each in refused] == ["refund.exceeds_captured"] * 5
    await stage.advance(minutes=5)
    assert await on_card(stage, number) == (BALANCE - 1_000 + 900, 0)
    assert (await stage.read(paid))["amount_refunded"] == 900


async def test_a_refund_the_host_refuses_is_nobodys_money_and_can_be_made_again(
    stage: Stage,
) -> None:
    number = fresh_card()
    paid = await swipe(stage, number)
    stage.sandbox.fault("cards", "refund", "not_enough")

    refused = await stage.refund(paid, 500)
    await stage.advance(minutes=5)

    assert (await stage.read(refused))["status"] == "failed"
    assert await stage.events(refused) == ["refund.failed"]
    assert (await stage.read(paid))["amount_refunded"] == 0
    assert await on_card(stage, number) == (BALANCE - AMOUNT, 0)

    again = await stage.refund(paid, AMOUNT)
    await stage.advance(minutes=5)
    assert (await stage.read(again))["status"] == "succeeded"
    assert (await stage.read(paid))["amount_refunded"] == AMOUNT
    assert await on_card(stage, number) == (BALANCE, 0)


async def test_a_reversal_that_another_takes_over_while_it_waits_gives_back_once(
    stage: Stage,
) -> None:
    """Its lease ran out: both send it, and both hear that it is done."""
    number = fresh_card()
    stage.sandbox.fault("cards", "pay", "bad_signature_paid")
    payment = await swipe(stage, number)
    attempt = await stage.attempt_of(payment)
    stage.db.clock.offset += timedelta(minutes=2)
    stage.sandbox.fault("cards", "close", "slow:0.4", number=trace_of(attempt.number).reference)
    task = ChaseAttempt(attempt.book, attempt.id)

    first = asyncio.create_task(chase_attempt(stage.flow, task, NO_LEASE))
    await asyncio.sleep(0.2)
    assert (await stage.read(payment))["status"] == "unknown"
    await asyncio.gather(first, chase_attempt(stage.flow, task, NO_LEASE))

    sent = await stage.db.fetch(
        "select count(*) as times from exchange where payment_id = $1 and purpose = 'close'",
        (parse("pay", payment["id"]),),
    )
    assert sent[0]["times"] == 2
    assert await on_card(stage, number) == (BALANCE, 0)
    assert len(await stage.events(payment)) == 1
    assert await stage.cases(payment) == []
    assert await stage.postings(payment) == []


async def test_two_workers_reverse_each_card_payment_once(own_stage: Stage, dsn: str) -> None:
    stage = own_stage
    await open_card_account(stage)
    numbers = [fresh_card() for _ in range(4)]
    payments = []
    for number in numbers:
        stage.sandbox.fault("cards", "pay", "bad_signature_paid")
        payments.append(await swipe(stage, number))
    clock = Clock()
    clock.offset = stage.db.clock.offset
    database = await connect(dsn, clock)
    other = Platform(stage.platform.settings, database, stage.platform.keyring)
    try:
        for db in (stage.db, other.db):
            db.clock.offset += timedelta(minutes=2)
        await asyncio.gather(
            stage.platform.worker.run_until_idle(raise_failures=True),
            other.worker.run_until_idle(raise_failures=True),
        )
    finally:
        await other.close()

    for number, payment in zip(numbers, payments, strict=True):
        assert await on_card(stage, number) == (BALANCE, 0)
        sent = await stage.db.fetch(
            "select purpose, count(*) as times from exchange e"
            " join payment p on p.id = e.payment_id"
            " where p.merchant_order_no = $1 group by purpose",
            (payment["merchant_order_no"],),
        )
        assert {row["purpose"]: row["times"] for row in sent} == {"pay": 1, "close": 1}

"""Refunds to cards that meet bad luck: made once, and never more than came in.

The second to fourth of the ten faults of test_ten_faults.py, at a card host.
"""

from __future__ import annotations

import asyncio

import pytest

from tests.payments import test_cards
from tests.payments.test_cards import AMOUNT, BALANCE, fresh_card, on_card, swipe
from tests.stage import Stage
from tongbao_sdk import Refused

card_host = test_cards.card_host


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

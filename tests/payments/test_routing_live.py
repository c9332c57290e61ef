"""Rules as a payment meets them through the API: by a card's first digits, and by shares."""

from __future__ import annotations

from typing import Any

import pytest

from tests.payments import test_cards
from tests.payments.routing_desk import anew, decisions, left_to_us
from tests.payments.test_cards import AMOUNT, fresh_card, reading
from tests.stage import Stage, new_number
from tongbao.kernel.licence import Mode
from tongbao.parties.price_plans.model import PriceLine
from tongbao.parties.price_plans.plans import set_price_plan
from tongbao.payments.routing.model import Manner
from tongbao.payments.routing.rule_sets import activate, draw_up
from tongbao_sdk import Refused

card_host = test_cards.card_host
RULES = """
name = "cards and codes"
mode = "sandbox"

[terms]
explore_ppm = 0

[[rule]]
name = "the simulator's cards"
when = { pay_modes = ["card"], bins = ["625188"] }
to = ["cards"]

[[rule]]
name = "other cards"
when = { pay_modes = ["card"] }
to = ["alipay"]

[[rule]]
name = "shares"
when = { pay_modes = ["qr"] }
to = ["wechat_pay", "alipay"]
by = "split"
split = [70, 30]
"""


@pytest.fixture
async def ruled(stage: Stage) -> Stage:
    lines = [PriceLine("cards", "card", 6_000)]
    lines += [PriceLine(channel, "qr", 8_000) for channel in ("wechat_pay", "alipay")]
    async with stage.db.begin("maker") as tx:
        await set_price_plan(tx, stage.shop.merchant.id, Mode.SANDBOX, lines)
        draft = await draw_up(tx, RULES, stage.flow.channels)
    async with stage.db.begin("checker") as tx:
        await activate(tx, draft.id)
    anew(stage)
    return stage


async def swiped(stage: Stage, number: str) -> Any:
    """A card payment whose channel is left to us."""
    terms = {"merchant_order_no": new_number(), "subject": "tea"}
    method = {"mode": "card", "card": reading(stage, number)}
    return await stage.call(stage.client.payments.create, amount=AMOUNT, method=method, **terms)


async def test_a_cards_first_digits_choose_its_rule(ruled: Stage) -> None:
    payment = await swiped(ruled, fresh_card())
    with pytest.raises(Refused) as refused:
        await swiped(ruled, "4111111111111111")

    [why] = await decisions(ruled, payment)
    assert (why.rule, why.channel, payment["status"]) == (
        "the simulator's cards",
        "cards",
        "succeeded",
    )
    assert refused.value.code.startswith("routing.")


async def test_shares_are_drawn_and_the_log_says_so(ruled: Stage) -> None:
    payments = [await left_to_us(ruled) for _ in range(40)]

    found = [(await decisions(ruled, payment))[0] for payment in payments]
    assert {(each.rule, each.manner) for each in found} == {("shares", Manner.SPLIT)}
    # Of forty at 70 to 30, all at one of them comes less than once in a million times.
    assert {each.channel for each in found} == {"wechat_pay", "alipay"}

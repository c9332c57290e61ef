"""What an account costs: what its channel charges us, or what the merchant's price plan says."""

from __future__ import annotations

import pytest

from tests.payments.routing_desk import decisions, in_force, left_to_us
from tests.stage import Stage
from tongbao.kernel.licence import Mode
from tongbao.parties.price_plans.model import PriceLine
from tongbao.parties.price_plans.plans import set_price_plan


@pytest.mark.parametrize("cheap", ["alipay", "wechat_pay"])
async def test_the_merchants_price_plan_chooses_where_the_rules_say_so(
    own_stage: Stage, cheap: str
) -> None:
    dear = {"alipay": "wechat_pay", "wechat_pay": "alipay"}[cheap]
    lines = [PriceLine(cheap, "qr", 4_000), PriceLine(dear, "qr", 40_000)]
    async with own_stage.db.begin("tests") as tx:
        await set_price_plan(tx, own_stage.shop.merchant.id, Mode.SANDBOX, lines)

    [unasked] = await decisions(own_stage, await left_to_us(own_stage, 10_000))
    await in_force(own_stage, 'cost = "merchant"\n')
    payment = await left_to_us(own_stage, 10_000)
    [why] = await decisions(own_stage, payment)

    assert {each.channel: each.cost for each in unasked.candidates} == {cheap: 60, dear: 60}
    assert {each.channel: each.cost for each in why.candidates} == {cheap: 40, dear: 400}
    assert payment["method"]["channel"] == why.channel == cheap

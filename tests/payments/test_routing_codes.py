"""A payment code's first digits say whose it is; the merchant or routing says who charges it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from tests.payments.everywhere import EVERYWHERE, open_everywhere
from tests.payments.routing_desk import anew, decisions, unplugged
from tests.stage import Stage, new_number
from tongbao.kernel.ids import show
from tongbao.parties.price_plans.model import PriceLine
from tongbao.payments.routing.rule_sets import activate, draw_up
from tongbao.surfaces.routing.replay import asked_again
from tongbao_sdk import Refused, Tongbao


@pytest.fixture(scope="module", autouse=True)
async def everywhere(module_stage: Stage) -> None:
    await open_everywhere(module_stage)


async def shop_at(stage: Stage, *channels: str) -> Tongbao:
    """Return a client of a merchant who may charge codes at these channels only."""
    fees = [PriceLine(channel, "payment_code", 6_000) for channel in channels]
    return stage.client_of(await stage.open_shop(fees=fees))


async def charge(stage: Stage, client: Tongbao, code: str, channel: str | None = None) -> Any:
    method = {"mode": "payment_code", "auth_code": code}
    if channel is not None:
        method["channel"] = channel
    terms = {"merchant_order_no": new_number(), "subject": "tea", "method": method}
    return await stage.call(client.payments.create, amount=1999, **terms)


async def refusal(stage: Stage, client: Tongbao, code: str, channel: str | None = None) -> Refused:
    with pytest.raises(Refused) as refused:
        await charge(stage, client, code, channel)
    return refused.value


def ended_at(payment: Any) -> tuple[str, str]:
    return payment["method"]["channel"], payment["status"]


@pytest.mark.parametrize("names_it", [True, False], ids=["named", "left to us"])
@pytest.mark.parametrize("whose", EVERYWHERE)
async def test_a_merchant_with_only_qra_charges_every_wallets_code(
    stage: Stage, whose: str, names_it: bool
) -> None:
    client = await shop_at(stage, "unionpay_qra")

    payment = await charge(
        stage, client, await stage.code(whose), "unionpay_qra" if names_it else None
    )

    assert ended_at(payment) == ("unionpay_qra", "succeeded")
    assert (await stage.trade_of(payment) or {})["state"] == "paid"


@pytest.mark.parametrize("channel", ["unionpay", "unionpay_qra"])
@pytest.mark.parametrize("whose", ["unionpay", "unionpay_qra"])
async def test_a_merchant_with_both_says_which_charges_a_unionpay_code(
    stage: Stage, whose: str, channel: str
) -> None:
    client = await shop_at(stage, "unionpay", "unionpay_qra")

    payment = await charge(stage, client, await stage.code(whose), channel)
    await stage.advance(seconds=5)

    assert ended_at(await stage.read(payment, client=client)) == (channel, "succeeded")
    assert await decisions(stage, payment) == []


async def test_a_merchant_with_both_may_leave_the_choice_to_us(stage: Stage) -> None:
    client = await shop_at(stage, "unionpay", "unionpay_qra")

    payment = await charge(stage, client, await stage.code("unionpay"))

    [why] = await decisions(stage, payment)
    assert {each.channel for each in why.candidates} == {"unionpay", "unionpay_qra"}
    assert payment["method"]["channel"] == why.channel


async def test_with_one_account_for_a_code_there_is_nothing_to_decide(stage: Stage) -> None:
    """Nor is there where another account is connected for which no such price was agreed."""
    client = await shop_at(stage, "wechat_pay", "alipay")

    payment = await charge(stage, client, await stage.code("alipay"))

    assert ended_at(payment) == ("alipay", "succeeded")
    assert await decisions(stage, payment) == []


@pytest.mark.parametrize(
    ("at", "code", "channel", "expected"),
    [
        (["unionpay_qra"], "62" + "0" * 17, "unionpay", "price.not_agreed"),
        (["unionpay"], "62" + "0" * 17, "unionpay_qra", "price.not_agreed"),
        (["unionpay_qra"], "62" + "0" * 17, "alipay", "request.invalid_value"),
        (["unionpay_qra"], "28" + "0" * 16, "unionpay", "request.invalid_value"),
        (["unionpay_qra"], "88" + "0" * 16, "unionpay_qra", "request.invalid_value"),
        (["alipay"], "62" + "0" * 17, None, "price.not_agreed"),
        (["alipay"], "13" + "0" * 16, None, "price.not_agreed"),
    ],
)
async def test_a_code_that_cannot_be_charged_there_is_refused(
    stage: Stage, at: Sequence[str], code: str, channel: str | None, expected: str
) -> None:
    client = await shop_at(stage, *at)

    assert (await refusal(stage, client, code, channel)).code == expected


RULES = """
name = "codes"
mode = "sandbox"
terms = { explore_ppm = 0 }
[[rule]]
name = "small"
when = { amount_below = 2000 }
to = ["alipay", "unionpay_qra"]
by = "order"
[[rule]]
name = "large"
to = ["cards"]
"""


async def test_rules_choose_among_those_that_can_charge_a_code(own_stage: Stage) -> None:
    """A rule that means none of them leaves it to the merchant's own; a second try needs proof."""
    stage = own_stage
    await open_everywhere(stage)
    client = await shop_at(stage, "wechat_pay", "alipay", "unionpay_qra")
    async with stage.db.begin("maker") as tx:
        draft = await draw_up(tx, RULES, stage.flow.channels)
    async with stage.db.begin("checker") as tx:
        await activate(tx, draft.id)
    anew(stage)

    alipays = await charge(stage, client, await stage.code("alipay"))
    wechats = await charge(stage, client, await stage.code("wechat_pay"))
    large = await stage.scan_code(await stage.code("alipay"), 2000, client=client)
    await unplugged(stage, "alipay")
    unsent = await charge(stage, client, await stage.code("alipay"))

    found = [await decisions(stage, each) for each in (alipays, wechats, large, unsent)]
    assert [[each.rule for each in one] for one in found] == [
        ["small"],
        ["small"],
        ["large"],
        ["small", "small"],
    ]
    either = {"unionpay_qra", "alipay"}
    among = [{each.channel for each in one[0].candidates} for one in found]
    assert among == [either, {"unionpay_qra"}, either, either]
    assert [ended_at(each) for each in (alipays, wechats, unsent)] == [
        ("alipay", "succeeded"),
        ("unionpay_qra", "succeeded"),
        ("unionpay_qra", "succeeded"),
    ]
    assert large["status"] == "succeeded"


async def test_after_silence_a_code_is_charged_nowhere_else(stage: Stage) -> None:
    client = await shop_at(stage, "alipay", "unionpay_qra")
    for channel in ("alipay", "unionpay_qra"):
        stage.fault(channel, "pay", "http_500_paid")

    silent = await charge(stage, client, await stage.code("alipay"))

    assert silent["status"] not in {"succeeded", "failed", "closed"}
    assert len(await decisions(stage, silent)) == 1
    await stage.advance(seconds=20)
    assert (await stage.read(silent, client=client))["status"] == "succeeded"


async def test_the_past_is_asked_about_with_the_same_choice(stage: Stage) -> None:
    client = await shop_at(stage, "alipay", "unionpay_qra")
    payment = await charge(stage, client, await stage.code("alipay"), "alipay")
    other = await charge(stage, client, await stage.code("alipay"), "unionpay_qra")

    again = [asked_again(await stage.row_of(each)) for each in (payment, other)]

    assert [each.channel for each in again] == [None, None]
    assert [each.among for each in again] == [("alipay", "unionpay_qra"), ("unionpay_qra",)]
    assert show("pay", again[0].payment_id) == payment["id"]

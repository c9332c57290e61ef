"""Rules as a payment meets them: by a card's first digits, by shares, and asked of the past."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from tests.payments import test_cards
from tests.payments.routing_desk import anew, decisions, left_to_us
from tests.payments.test_cards import AMOUNT, fresh_card, reading
from tests.stage import Stage, new_number
from tongbao.kernel.ids import show
from tongbao.kernel.licence import Mode
from tongbao.parties.price_plans.model import PriceLine
from tongbao.parties.price_plans.plans import set_price_plan
from tongbao.payments.routing.model import Asked, Manner, Offer, bin_of
from tongbao.payments.routing.rule_sets import activate, draw_up
from tongbao.payments.routing.rules import compile_rules, read_rules
from tongbao.surfaces.routing.replay import Comparison, Past, past_traffic
from tongbao.surfaces.routing.replay import replay as play_again
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


@pytest.mark.parametrize(
    ("number", "kept"),
    [
        ("6251880000051688", "62518800"),
        ("6251880000051688123", "62518800"),
        ("378282246310005", "378282"),
    ],
)
def test_no_more_of_a_card_is_known_to_routing_than_may_stand_beside_its_last_digits(
    number: str, kept: str
) -> None:
    assert bin_of(number) == kept


async def test_a_replay_asks_a_draft_about_the_cards_of_the_past(ruled: Stage) -> None:
    stage, cards = ruled, [fresh_card(), fresh_card()]
    made = {(await swiped(stage, card))["id"] for card in cards}
    now = stage.db.clock.now()
    period = (now - timedelta(hours=1), now + timedelta(hours=1))
    traffic = [each async for each in past_traffic(stage.db, Mode.SANDBOX, *period)]
    past = [each for each in traffic if show("pay", each.payment.id) in made]
    router = stage.platform.router

    async def compared(bins: str, seen: Sequence[Past] = past) -> Comparison:
        draft = compile_rules(read_rules(RULES.replace('"625188"', bins)))

        async def offers_of(asked: Asked) -> Sequence[Offer]:
            return await router.offers(asked, draft)

        return await play_again(seen, draft, offers_of)

    fits = await compared(", ".join(f'"{card[:8]}"' for card in cards))
    differs = await compared('"622848"')
    forgotten = await compared('"625188"', [replace(each, card=None) for each in past])

    assert (fits.rules, fits.cards_unknown) == ({"the simulator's cards": 2}, 0)
    assert differs.rules == {"other cards": 2}
    assert differs.unplaced, "another channel takes no cards"
    assert (forgotten.rules, forgotten.cards_unknown) == ({"other cards": 2}, 2)
    [side] = fits.after.values()
    assert side.success_ppm == (2 * 1_000_000 + 20 * 950_000) // 22, "by the class of the card"

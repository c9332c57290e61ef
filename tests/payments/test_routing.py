"""Routing at work: the channel left to us, the log that says why, and versions of the rules."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.payments.routing_desk import (
    CHANNELS,
    STILL,
    WECHAT_FIRST,
    anew,
    asked_of,
    decisions,
    in_force,
    left_to_us,
    router_of,
)
from tests.stage import Stage, new_number
from tongbao.infra.audit import entries_of_subject
from tongbao.infra.db import Db
from tongbao.infra.db_failures import CheckViolated
from tongbao.kernel.ids import new_id, show
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import Money
from tongbao.parties.price_plans.model import PriceLine
from tongbao.parties.price_plans.plans import set_price_plan
from tongbao.payments.routing.model import Manner, NoChannelLeft, Reason, fen_less
from tongbao.payments.routing.router import LiveRouter, shadow_tallies
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
from tongbao.rails.channels.contract.orders import PayMode
from tongbao_sdk import Refused

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


def test_what_a_draft_saves_is_summed_in_one_currency_only() -> None:
    assert [fen_less("CNY", 6, 4), fen_less("CNY", 4, 6), fen_less("HKD", 6, 4)] == [2, -2, 0]


class Abroad:
    """A channel as far as routing knows it, which collects more than those that ship with us."""

    modes = frozenset({PayMode.QR})
    currencies = frozenset({"CNY", "HKD"})


async def test_rules_limits_and_a_draft_in_the_shadow_keep_currencies_apart(
    own_stage: Stage,
) -> None:
    """Dollars have a rule and a quota of their own, and what they save is in no sum of yuan."""
    stage = own_stage
    rules = await in_force(
        stage,
        'cost = "merchant"\n'
        '[[rule]]\nname = "dollars"\nto = ["alipay"]\nwhen = {currencies = ["HKD"]}\n'
        f'{WECHAT_FIRST}[[limit]]\nto = "alipay"\ncurrency = "HKD"\nday_amount = 5000\n',
    )
    source = (
        f'name = "b"\nmode = "sandbox"\n{STILL}cost = "merchant"\n'
        '[[rule]]\nname = "dollars"\nto = ["wechat_pay"]\nwhen = {currencies = ["HKD"]}\n'
        '[[rule]]\nname = "yuan"\nto = ["alipay"]\n'
    )
    async with stage.db.begin("maker") as tx:
        draft = await draw_up(tx, source, CHANNELS)
        await stand_in_shadow(tx, draft.id)
    router = LiveRouter(stage.db, dict.fromkeys(CHANNELS, Abroad()), Watch(stage.db))
    lines = [PriceLine("wechat_pay", "qr", 8_000), PriceLine("alipay", "qr", 4_000)]
    found = {}

    for currency in ("CNY", "HKD"):
        async with stage.db.begin("tests") as tx:
            of_shop = (stage.shop.merchant.id, Mode.SANDBOX)
            await set_price_plan(tx, *of_shop, lines, currency=currency)
        router._terms.forget_all()
        asked = asked_of(stage, money=Money(3000, currency))
        decision = found[currency] = await router.place(asked)
        assert decision is not None
        async with stage.db.begin("tests") as tx:
            for write in router.writes(decision, new_id(), tx.now):
                await write.run(tx)
        stage.db.clock.offset += timedelta(seconds=1)
    router.watch.forget()
    with pytest.raises(NoChannelLeft) as used_up:
        await router.place(asked_of(stage, money=Money(3000, "HKD")))
    await router.watch.close()

    assert {currency: (each.rule, each.chosen.channel) for currency, each in found.items()} == {
        "CNY": ("wechat first", "wechat_pay"),
        "HKD": ("dollars", "alipay"),
    }
    assert {each.rule_set_id for each in found.values()} == {rules}
    assert used_up.value.facts["reason"] == Reason.QUOTA_USED_UP.value
    tally = (await shadow_tallies(stage.db))[draft.id]
    # 24 fen at WeChat Pay are 12 at Alipay; the draft's 12 cents more are in no sum.
    assert (tally.decided, tally.differed, tally.cost_less) == (2, 2, 12)


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

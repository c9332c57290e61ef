"""Quotas of channels: counted exactly, freed by what was not paid, raced for by many."""

from __future__ import annotations

import pytest

from tests.payments.routing_desk import WECHAT_FIRST, anew, in_force, left_to_us, quota, router_of
from tests.payments.test_interleavings import holding
from tests.stage import Stage
from tongbao.kernel.clock import business_date
from tongbao.payments.routing.model import NoChannelLeft
from tongbao_sdk import Refused

# Limits


ONE_A_DAY = '[[limit]]\nto = "wechat_pay"\nday_count = 1\n'


async def test_a_quota_is_counted_and_the_rest_goes_elsewhere(own_stage: Stage) -> None:
    await in_force(own_stage, WECHAT_FIRST + ONE_A_DAY)

    taken = [(await left_to_us(own_stage))["method"]["channel"] for _ in range(3)]

    assert taken == ["wechat_pay", "alipay", "alipay"]
    assert await quota(own_stage, "wechat_pay") == (1000, 1)
    assert await quota(own_stage, "alipay") is None


async def test_a_quota_holds_for_named_channels_too(own_stage: Stage) -> None:
    await in_force(own_stage, '[[limit]]\nto = "wechat_pay"\nday_amount = 1500\n')
    await own_stage.show_qr("wechat_pay", 1000)

    with pytest.raises(Refused) as refused:
        await own_stage.show_qr("wechat_pay", 501)

    assert refused.value.code == NoChannelLeft.code
    assert (await own_stage.show_qr("wechat_pay", 500))["status"] == "pending"


async def test_what_was_not_paid_is_free_again(own_stage: Stage) -> None:
    await in_force(own_stage, WECHAT_FIRST + ONE_A_DAY)
    payment = await left_to_us(own_stage)

    await own_stage.close(payment)

    assert await quota(own_stage, "wechat_pay") == (0, 0)
    router_of(own_stage).watch.forget()
    assert (await left_to_us(own_stage))["method"]["channel"] == "wechat_pay"


async def test_what_was_paid_stays_counted(own_stage: Stage) -> None:
    await in_force(own_stage, WECHAT_FIRST + ONE_A_DAY)
    payment = await left_to_us(own_stage)
    await own_stage.customer(payment)
    await own_stage.idle()

    assert await quota(own_stage, "wechat_pay") == (1000, 1)


async def test_a_new_day_has_a_quota_of_its_own(own_stage: Stage) -> None:
    await in_force(own_stage, WECHAT_FIRST + ONE_A_DAY)
    await left_to_us(own_stage)
    await own_stage.advance(days=1)
    anew(own_stage)

    assert (await left_to_us(own_stage))["method"]["channel"] == "wechat_pay"


async def test_two_payments_race_for_the_last_place(own_stage: Stage) -> None:
    """Both were decided while a place was free; the one that waits for the row goes elsewhere."""
    await in_force(own_stage, WECHAT_FIRST + '[[limit]]\nto = "wechat_pay"\nday_count = 2\n')
    await left_to_us(own_stage)
    locks = "select 1 from routing_quota where account_id = $1 for update"

    async with holding(own_stage, locks, own_stage.accounts["wechat_pay"]) as rivals:
        first = await rivals.start(left_to_us(own_stage))
        second = await rivals.start(left_to_us(own_stage))

    channels = sorted(each.result()["method"]["channel"] for each in (first, second))
    assert channels == ["alipay", "wechat_pay"]
    assert await quota(own_stage, "wechat_pay") == (2000, 2)
    assert len(await own_stage.db.fetch("select 1 from payment", ())) == 3


async def test_two_payments_race_for_the_first_place(own_stage: Stage) -> None:
    """There is no row to lock yet: the key of the one that is made makes the second wait."""
    await in_force(own_stage, WECHAT_FIRST + ONE_A_DAY)
    day = business_date(own_stage.db.clock.now())
    row = """insert into routing_quota (account_id, day, currency, amount, payments)
             values ($1, $2, 'CNY', 1, 1)"""

    async with holding(own_stage, row, own_stage.accounts["wechat_pay"], day) as rivals:
        waiting = await rivals.start(left_to_us(own_stage))

    assert waiting.result()["method"]["channel"] == "alipay"
    assert await quota(own_stage, "wechat_pay") == (1, 1)


async def test_a_named_channel_that_loses_the_race_is_refused_and_nothing_is_left(
    own_stage: Stage,
) -> None:
    await in_force(own_stage, ONE_A_DAY)
    day = business_date(own_stage.db.clock.now())
    row = """insert into routing_quota (account_id, day, currency, amount, payments)
             values ($1, $2, 'CNY', 1, 1)"""

    async with holding(own_stage, row, own_stage.accounts["wechat_pay"], day) as rivals:
        waiting = await rivals.start(own_stage.show_qr("wechat_pay"))

    assert isinstance(waiting.exception(), Refused)
    for table in ("payment", "attempt", "routing_decision"):
        assert await own_stage.db.fetch(f"select 1 from {table}", ()) == []

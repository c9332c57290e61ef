"""The day's round: bills at 10:30, settlement at 11:30, payouts at noon, and again tomorrow."""

from __future__ import annotations

from datetime import datetime, time, timedelta

import pytest

from tests.clearing.conftest import Day
from tongbao.clearing.daily import next_moment, seed
from tongbao.clearing.reconciliation import queries
from tongbao.kernel.clock import BUSINESS_ZONE
from tongbao.kernel.licence import Licence


async def start(day: Day) -> None:
    for _ in range(2):  # every start of the program does it
        async with day.db.begin("startup") as tx:
            await seed(tx, day.clearing.flow.licence)


async def states(day: Day, days: int = 0) -> dict[str, str]:
    bills = await queries.bills_of_day(day.db, day.date + timedelta(days=days))
    return {bill.channel: str(bill.state) for bill in bills}


async def test_a_day_is_reconciled_settled_and_paid_by_the_clock(day: Day) -> None:
    await start(day)
    await day.paid("wechat_pay", 10_000)
    await day.paid("alipay", 5_000)
    await day.until(13)  # the day's own round is about the day before
    await day.until(9, 30, days=1)
    assert await states(day) == {}

    await day.until(10, 31, days=1)
    assert await states(day) == {"wechat_pay": "matched", "alipay": "matched"}
    assert await day.db.fetch("select 1 from settlement", ()) == []

    await day.until(11, 31, days=1)
    [settlement] = await day.db.fetch("select state, payable from settlement", ())
    assert tuple(settlement) == ("closed", 15_000 - 120)
    [payout] = await day.db.fetch("select state from payout", ())
    assert payout["state"] == "requested"

    await day.until(12, 5, days=1)
    await day.stage.advance(minutes=1)
    [settlement] = await day.db.fetch("select state from settlement", ())
    assert settlement["state"] == "paid"
    await day.sound()


async def test_the_round_goes_on_and_makes_up_for_days_nobody_was_there(day: Day) -> None:
    await start(day)
    await day.paid("wechat_pay", 1_000)
    await day.until(13, days=1)
    await day.paid("wechat_pay", 2_000)
    await day.until(13, days=2)
    await day.paid("wechat_pay", 3_000)
    # The clock jumps over two mornings at once, as after an outage.
    await day.until(13, days=4)

    for days, state in enumerate(("matched", "matched", "matched", "empty")):
        assert (await states(day, days))["wechat_pay"] == state
    await day.sound()
    rows = await day.db.fetch("select gross from settlement order by day", ())
    assert [row["gross"] for row in rows] == [1_000, 2_000, 3_000]


async def test_a_late_bill_is_asked_for_until_it_is_there(day: Day) -> None:
    await start(day)
    await day.paid("wechat_pay", 1_000)
    day.bill_fault("wechat_pay", "late", times=3)
    await day.until(10, 31, days=1)
    assert (await states(day))["wechat_pay"] == "requested"

    for _ in range(4):
        await day.stage.advance(minutes=11)

    assert (await states(day))["wechat_pay"] == "matched"


@pytest.mark.parametrize("licence", [Licence.AGGREGATOR])
async def test_an_aggregators_round_has_bills_only(day: Day) -> None:
    await start(day)

    rows = await day.db.fetch("select type from task where type like 'clearing.%'", ())

    assert [row["type"] for row in rows] == ["clearing.reconcile_daily"]


@pytest.mark.parametrize(
    ("now", "moment"),
    [
        ("2026-11-21T10:29:59+08:00", "2026-11-21T10:30:00+08:00"),
        ("2026-11-21T10:30:00+08:00", "2026-11-22T10:30:00+08:00"),
        ("2026-11-21T23:00:00+00:00", "2026-11-22T10:30:00+08:00"),
    ],
)
def test_the_next_moment_is_by_the_business_clock(now: str, moment: str) -> None:
    found = next_moment(datetime.fromisoformat(now), time(10, 30))
    assert found == datetime.fromisoformat(moment)
    assert found.tzinfo is BUSINESS_ZONE

"""Whoever dies on the way leaves a day that comes out the same when it is done again."""

from __future__ import annotations

from typing import Any

import pytest

from tests.clearing.conftest import Day
from tests.clearing.settling import settle_day
from tongbao.infra import failpoints
from tongbao.infra.failpoints import SimulatedCrash

RECONCILIATION = (
    "reconciliation.after_download",
    "reconciliation.after_parse",
    "reconciliation.after_stage",
    "reconciliation.after_match",
    "reconciliation.after_finish",
    "ledger.before_commit",
    "ledger.after_commit",
)
SETTLEMENT = (
    "settlement.before_close",
    "settlement.after_close",
    "ledger.before_commit",
    "ledger.after_commit",
)


async def rows(day: Day, sql: str) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in await day.db.fetch(sql, ())]


@pytest.mark.parametrize("place", RECONCILIATION)
async def test_a_reconciliation_that_died_is_done_again_and_comes_out_the_same(
    day: Day, place: str
) -> None:
    payments = await day.paid("wechat_pay", 1000, 2000, 3000)
    number = await day.number(payments[0])
    day.bill_fault("wechat_pay", "wrong_amount:7", number)
    unknown = await day.stage.show_qr("wechat_pay", 4200)
    its_number = await day.number(unknown)
    for where, fault in (("callback", "lost"), ("query", "http_500"), ("close", "http_500")):
        day.stage.fault("wechat_pay", where, fault, number=its_number, times=-1)
    await day.stage.customer(unknown)
    await day.over()

    failpoints.arm(f"{place}:raise")
    with pytest.raises(SimulatedCrash):
        await day.reconcile("wechat_pay")
    failpoints.arm(None)
    bill = await day.reconcile("wechat_pay")

    assert (bill.state, bill.version, bill.matched_count) == ("matched", 1, 3)
    assert await day.classes("wechat_pay") == [("amount_differs", number, 7)]
    assert await day.booked("channel_cost") == 6 + 12 + 18 + 25
    assert (await day.stage.read(unknown))["status"] == "succeeded"
    assert await rows(day, "select count(*) from bill_row") == [(4,)]
    assert await rows(day, "select count(*) from recon_item") == [(0,)]
    assert await rows(day, "select count(*), sum(amount) from bill_cost") == [(1, 61)]
    told = "select count(*) from event where type = 'reconciliation.day_matched'"
    assert await rows(day, told) == [(1,)]
    await day.sound()


@pytest.mark.parametrize("place", SETTLEMENT)
async def test_a_settlement_that_died_is_closed_once(day: Day, place: str) -> None:
    await day.paid("alipay", 1000, 2000)
    await day.until(11, days=1)

    failpoints.arm(f"{place}:raise")
    with pytest.raises(SimulatedCrash):
        await settle_day(day.clearing, day.date)
    failpoints.arm(None)
    [settlement] = await settle_day(day.clearing, day.date)

    assert settlement.due == 3000 - 24
    assert await rows(day, "select count(*) from settlement") == [(1,)]
    assert await rows(day, "select count(*), sum(amount) from settlement_line") == [(4, 2976)]
    assert await rows(day, "select count(*), sum(amount) from payout") == [(1, 2976)]
    waiting = "select count(*) from task where type = 'payouts.submit_payout'"
    assert await rows(day, waiting) == [(1,)]
    told = "select count(*) from event where type = 'settlement.closed'"
    assert await rows(day, told) == [(1,)]
    assert await day.booked("settlement_due", settlement.merchant_id) == 2976
    await day.sound()


async def test_a_bill_whose_file_is_lost_is_fetched_again(day: Day) -> None:
    await day.paid("wechat_pay", 1000)
    await day.over()
    failpoints.arm("reconciliation.after_parse:raise")
    with pytest.raises(SimulatedCrash):
        await day.reconcile("wechat_pay")
    failpoints.arm(None)
    await day.db.execute("update bill_file set state = 'downloaded'", ())
    await day.db.execute("delete from bill_row", ())
    for path in day.clearing.folder.rglob("*.bill"):
        path.unlink()

    bill = await day.reconcile("wechat_pay")

    assert (bill.state, bill.version, bill.row_count) == ("matched", 1, 1)

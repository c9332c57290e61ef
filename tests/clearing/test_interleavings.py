"""Forced interleavings, one per lock of clearing: the second comer waits exactly where it must."""

from __future__ import annotations

import asyncio

import pytest

from tests.clearing.conftest import Day
from tests.two_people import agree, propose_close
from tongbao.clearing.reconciliation import matching
from tongbao.clearing.reconciliation.model import RunOvertaken
from tongbao.clearing.reconciliation.staging import Run, close_absent
from tongbao.infra.db import Db

WAITING = """
    select count(*) from pg_stat_activity
     where datname = current_database() and wait_event_type = 'Lock'"""


async def waiting(db: Db, count: int) -> None:
    """Return once exactly so many backends wait for a lock."""
    async with asyncio.timeout(30):
        while await db.pool.fetchval(WAITING) != count:  # noqa: ASYNC110 - no event tells it
            await asyncio.sleep(0.005)


async def test_who_waits_to_close_a_difference_sees_that_a_run_found_it_changed(day: Day) -> None:
    [payment] = await day.paid("wechat_pay", 1000)
    day.bill_fault("wechat_pay", "wrong_amount:7", await day.number(payment))
    await day.over()
    await day.reconcile("wechat_pay")
    [found] = await day.breaks("wechat_pay")
    asked = await propose_close(day.db, found.id, "seven fen, let it be")

    async with day.db.begin("a run") as tx:
        await tx.execute("update recon_break set difference = 700 where id = $1", (found.id,))
        closing = asyncio.create_task(agree(day.db, asked))
        await waiting(day.db, 1)

    assert await closing == "failed"
    [after] = await day.breaks("wechat_pay")
    assert (after.state, after.difference) == ("open", 700)


async def test_two_who_fetch_a_bill_at_once_read_it_once(day: Day) -> None:
    await day.paid("wechat_pay", 1000, 2000)
    await day.over()
    day.bill_fault("wechat_pay", "late")
    bill = await day.reconcile("wechat_pay")
    assert bill.state == "requested"

    async with day.db.begin("by hand") as tx:
        await tx.execute("select 1 from bill_file where id = $1 for update", (bill.id,))
        runs = [asyncio.create_task(day.reconcile("wechat_pay")) for _ in range(2)]
        await waiting(day.db, 2)  # both have the file and want to write it down
    outcomes = await asyncio.gather(*runs, return_exceptions=True)

    assert not [
        each
        for each in outcomes
        if isinstance(each, BaseException) and not isinstance(each, RunOvertaken)
    ]
    done = await day.reconcile("wechat_pay")
    assert (done.state, done.version, done.row_count) == ("matched", 1, 2)
    rows = await day.db.fetch("select 1 from bill_row", ())
    assert len(rows) == 2
    assert await day.booked("channel_cost") == 18


async def test_a_run_that_was_overtaken_writes_nothing_and_leaves_nothing(
    day: Day, monkeypatch: pytest.MonkeyPatch
) -> None:
    [payment] = await day.paid("wechat_pay", 1000)
    day.bill_fault("wechat_pay", "wrong_amount:7", await day.number(payment))
    await day.over()
    bill = await day.reconcile("wechat_pay")
    before = await day.breaks("wechat_pay")

    async def then_a_newer_run_begins(run: Run) -> int:
        await day.db.execute("update bill_file set run_id = id where id = $1", (bill.id,))
        return await close_absent(run)

    monkeypatch.setattr(matching, "close_absent", then_a_newer_run_begins)

    with pytest.raises(RunOvertaken):
        await day.reconcile("wechat_pay")

    assert await day.breaks("wechat_pay") == before
    assert await day.db.fetch("select 1 from recon_item", ()) == []

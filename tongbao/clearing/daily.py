"""The day's round, by the business clock: bills at 10:30, settlement at 11:30, payouts at noon.

Two tasks wait for their hour for ever: each asks for the day's work and comes again the next day.
They ask for what is still to do, so a day that nobody was there for is made up for.
"""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from typing import Final

from tongbao.clearing.context import Clearing
from tongbao.clearing.recon_rules.fetching import FetchFurtherBills, next_fetch
from tongbao.clearing.recon_rules.running import MatchDaily, next_match
from tongbao.clearing.reconciliation.days import ReconcileDay, billed_accounts
from tongbao.clearing.reconciliation.queries import last_day
from tongbao.clearing.settlement.reserves import release_reserves
from tongbao.clearing.settlement_batches.batches import open_batch
from tongbao.clearing.slices.taking import TakePieces
from tongbao.infra.db import Tx
from tongbao.infra.tasks import Again, Lease, RetryPolicy, Task, enqueue, enqueue_many
from tongbao.kernel.clock import BUSINESS_ZONE, business_date
from tongbao.kernel.licence import Licence, Mode

BILLS_AT: Final = time(10, 30)
SETTLE_AT: Final = time(11, 30)
MAKES_UP_FOR: Final = timedelta(days=31)
"""How many days back bills are asked for that nobody has asked for."""
DAILY_POLICY: Final = RetryPolicy(
    attempts_max=1_000_000,  # it is tried again until it works: nobody else starts the next day
    delays=tuple(timedelta(minutes=m) for m in (1, 5, 10)),
)


class ReconcileDaily(Task, frozen=True, tag="clearing.reconcile_daily"):
    """Ask for the bills of every account's days that are over."""


class SettleDaily(Task, frozen=True, tag="clearing.settle_daily"):
    """Ask for the settlement of every merchant's day that is due."""


async def seed(tx: Tx, licence: Licence) -> None:
    """Start the daily round, unless it is running: done at every start of the program."""
    await enqueue(tx, ReconcileDaily(), run_at=next_moment(tx.now, BILLS_AT), key="daily")
    await enqueue(tx, TakePieces(), key="pieces")
    await enqueue(tx, FetchFurtherBills(), run_at=next_fetch(tx.now), key="daily")
    await enqueue(tx, MatchDaily(), run_at=next_match(tx.now), key="daily")
    if licence.may_hold_funds:
        await enqueue(tx, SettleDaily(), run_at=next_moment(tx.now, SETTLE_AT), key="daily")


async def run_reconcile_daily(context: Clearing, _task: ReconcileDaily, _lease: Lease) -> Again:
    """Ask for every bill up to yesterday's that was not asked for, and come again tomorrow."""
    now = context.db.clock.now()
    yesterday = business_date(now) - timedelta(days=1)
    for account_id in await billed_accounts(context):
        last = await last_day(context.db, account_id)
        days = _days_to(yesterday, yesterday if last is None else last + timedelta(days=1))
        tasks = [(ReconcileDay(account_id, day), now, f"{account_id}/{day}") for day in days]
        async with context.db.begin("clearing") as tx:
            await enqueue_many(tx, tasks)
    return Again(next_moment(now, BILLS_AT) - now)


async def run_settle_daily(context: Clearing, _task: SettleDaily, _lease: Lease) -> Again:
    """Ask for the newest day of every merchant that is due, and come again tomorrow.

    What earlier days left unsettled is in it, and what was kept back until today.
    """
    now = context.db.clock.now()
    await release_reserves(context)
    async with context.db.begin("clearing") as tx:
        for mode in Mode:
            await open_batch(tx, mode, key=f"{mode}/{business_date(now)}")
    return Again(next_moment(now, SETTLE_AT) - now)


def next_moment(now: datetime, at: time) -> datetime:
    """Return when the business clock next shows a time of day."""
    moment = datetime.combine(business_date(now), at, BUSINESS_ZONE)
    return moment if moment > now else moment + timedelta(days=1)


def _days_to(last: date, first: date) -> list[date]:
    """Return the days from the first to the last, no more of them than are made up for."""
    first = max(first, last - MAKES_UP_FOR + timedelta(days=1))
    return [first + timedelta(days=n) for n in range((last - first).days + 1)]

"""Fetch the bills that channels have beside that of trades, each as a source like anybody's file.

What a channel's trade bill does not say is in them: the fee as a movement of its own, shares given
and taken back. A source is made for each account and kind when its first bill comes, named
``CHANNEL.KIND.ACCOUNT``; a rule may match it like any other.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from typing import Final, assert_never
from uuid import UUID

import structlog
from prometheus_client import Counter

from tongbao.clearing.context import Clearing
from tongbao.clearing.recon_rules.rules import begin_built_in
from tongbao.clearing.recon_rules.running import bring_in
from tongbao.clearing.sources.ingest import add_source, current_file
from tongbao.clearing.sources.layouts import built_in
from tongbao.clearing.sources.model import FileRefused, FileSeenBefore
from tongbao.infra.failpoints import failpoint
from tongbao.infra.tasks import Again, Lease, RetryPolicy, Task, enqueue_many
from tongbao.kernel.clock import BUSINESS_ZONE, business_date, day_bounds
from tongbao.kernel.ids import base32, new_id
from tongbao.rails.channels.accounts import list_accounts
from tongbao.rails.channels.contract.bills import BillEmpty, BillFile, BillNotReady, FurtherBills
from tongbao.rails.channels.contract.orders import ChannelAccount
from tongbao.rails.channels.contract.outcomes import Unknown

FETCH_AT: Final = time(10, 45)
"""When yesterday's are asked for: after those of trades, before the rules run. Our own rule."""
MAKES_UP_FOR: Final = 3
"""How many days back are asked for that nobody was there to ask for."""
WAITS: Final = timedelta(days=4)
"""How long after its day a bill is waited for, as rules wait for their sides."""
FETCH_POLICY: Final = RetryPolicy(
    attempts_max=15,
    delays=tuple(timedelta(minutes=m) for m in (1, 5, 15, 60)),
    time_limit=timedelta(hours=1),
    concurrency_max=1,  # WeChat Pay takes three such questions a second
)
FETCH_DAILY_POLICY: Final = RetryPolicy(
    attempts_max=1_000_000,  # nobody else asks for the next day
    delays=tuple(timedelta(minutes=m) for m in (1, 5, 10)),
)
_LOOK_AGAIN: Final = timedelta(minutes=30)
_ACTOR: Final = "reconciliation"
_LAYOUTS: Final = {"funds_operation": "funds", "funds_fees": "funds"}
_FETCHED: Final = Counter(
    "tongbao_further_bills_total",
    "Bills beside that of trades, by channel, kind and what the channel answered",
    ["channel", "kind", "answer"],
)
_log: Final = structlog.get_logger()


class FetchFurtherBill(Task, frozen=True, tag="matching.fetch_further_bill"):
    """Fetch one bill of an account's day beside that of trades, until it is there or too late."""

    account_id: UUID
    kind: str
    day: date


class FetchFurtherBills(Task, frozen=True, tag="matching.fetch_further_bills"):
    """Ask for yesterday's bills of every account, and come again tomorrow."""


def source_of(channel: str, kind: str, account_id: UUID) -> str:
    """Return the name of the source that an account's bills of a kind are."""
    return f"{channel}.{kind}.{base32(account_id)}"


async def run_fetch_further_bills(
    context: Clearing, _task: FetchFurtherBills, _lease: Lease
) -> Again:
    """Ask for every bill of the last days that is not there."""
    now = context.db.clock.now()
    yesterday = business_date(now) - timedelta(days=1)
    for row in await list_accounts(context.db):
        channel: object = context.flow.channels.get(row.channel)
        if not isinstance(channel, FurtherBills):
            continue
        tasks = [
            (FetchFurtherBill(row.id, kind, day), now, f"{row.id}/{kind}/{day}")
            for kind in sorted(channel.further_bills)
            for day in _days_to(yesterday, row.created_at)
            if await current_file(context.db, source_of(row.channel, kind, row.id), day) is None
        ]
        async with context.db.begin(_ACTOR) as tx:
            await enqueue_many(tx, tasks)
    return Again(next_fetch(now) - now)


def next_fetch(now: datetime) -> datetime:
    """Return when the daily round comes next."""
    moment = datetime.combine(business_date(now), FETCH_AT, BUSINESS_ZONE)
    return moment if moment > now else moment + timedelta(days=1)


def _days_to(last: date, opened_at: datetime) -> Iterator[date]:
    first = max(last - timedelta(days=MAKES_UP_FOR - 1), business_date(opened_at))
    return (first + timedelta(days=n) for n in range((last - first).days + 1))


async def run_fetch_further_bill(
    context: Clearing, task: FetchFurtherBill, _lease: Lease
) -> Again | None:
    """Fetch the bill and take it in; return when to look again, or None at its end.

    A file that its layout refuses stays with its faults, for somebody to look at.
    """
    account = await context.flow.account(task.account_id)
    channel: object = context.flow.channels.get(account.channel)
    if not isinstance(channel, FurtherBills) or task.kind not in channel.further_bills:
        return None
    name = source_of(account.channel, task.kind, account.id)
    if await current_file(context.db, name, task.day) is not None:
        return None
    folder = context.folder / f"fetching-{base32(new_id())}"
    await asyncio.to_thread(folder.mkdir, parents=True)
    try:
        answer = await channel.download_further_bill(account, task.kind, task.day, folder)
        heard = type(answer.outcome).__name__.lower()
        _FETCHED.labels(account.channel, task.kind, heard).inc()
        failpoint("fetching.after_download")
        match answer.outcome:
            case BillFile():
                await _take(context, account, task, answer.outcome)
                return None
            case BillEmpty():
                return None  # nothing moved, which only its rule may find odd
            case BillNotReady() | Unknown():
                _, end = day_bounds(task.day)
                is_late = context.db.clock.now() >= end + WAITS
                if is_late:
                    _log.warning("further_bill_given_up", source=name, day=task.day, heard=heard)
                return None if is_late else Again(_LOOK_AGAIN)
            case _:
                assert_never(answer.outcome)
    finally:
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


async def _take(
    context: Clearing, account: ChannelAccount, task: FetchFurtherBill, found: BillFile
) -> None:
    name = source_of(account.channel, task.kind, account.id)
    layout = built_in()[f"{account.channel}.{_LAYOUTS.get(task.kind, task.kind)}"]
    async with context.db.begin(_ACTOR) as tx:
        await add_source(tx, name, layout, account.mode)
        bill = f"{account.channel}.{task.kind}"
        since = task.day - timedelta(days=MAKES_UP_FOR)
        holds = context.flow.licence.may_hold_funds
        await begin_built_in(tx, bill, name, base32(account.id), since, may_hold_funds=holds)
    failpoint("fetching.after_source")
    try:
        await bring_in(context, name, task.day, found.path, actor=_ACTOR)
    except (FileRefused, FileSeenBefore) as refusal:
        _log.warning("further_bill_refused", source=name, day=task.day, code=refusal.code)

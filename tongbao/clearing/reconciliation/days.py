"""Reconcile a day: bring its bill, compare it, and look again at days that waited for it."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Final
from uuid import UUID

from tongbao.clearing.context import Clearing, Progress, in_silence
from tongbao.clearing.reconciliation import _store as store
from tongbao.clearing.reconciliation.bills import begin_lean, bill_of_day, is_there, obtain
from tongbao.clearing.reconciliation.matching import compare, days_to_look_at_again
from tongbao.clearing.reconciliation.model import (
    BillFile,
    BillState,
    ChannelUnbilled,
    DayNotBilled,
)
from tongbao.clearing.sets.lanes import Lane
from tongbao.infra.tasks import Again, Lease, RetryPolicy, Task
from tongbao.kernel.clock import business_date
from tongbao.kernel.ids import show
from tongbao.rails.channels.accounts import ChannelAccountNotFound, list_accounts
from tongbao.rails.channels.contract.bills import Unbilled
from tongbao.rails.channels.contract.orders import ChannelAccount

RECONCILE_POLICY: Final = RetryPolicy(
    attempts_max=15,
    delays=tuple(timedelta(minutes=m) for m in (1, 5, 15, 60)),
    time_limit=timedelta(hours=2),
    concurrency_max=2,
)
_READ: Final = {
    BillState.PARSED,
    BillState.INCOMPLETE,
    BillState.MATCHED,
    BillState.EMPTY,
}


class ReconcileDay(Task, frozen=True, tag="reconciliation.reconcile_day"):
    """Fetch an account's bill of a day and compare it, again and again until it is whole."""

    account_id: UUID
    day: date


async def reconcile_day(
    context: Clearing,
    account_id: UUID,
    day: date,
    *,
    again: bool = False,
    on_progress: Progress = in_silence,
) -> BillFile:
    """Compare an account's day with its bill and return the bill as it then stands.

    Repeating it doubles nothing. ``again`` fetches the bill anew, and another content becomes
    another version. A bill that is not there yet comes back as requested, with the reason.

    Raises:
        DayNotBilled, ChannelAccountNotFound, ChannelUnbilled, RunOvertaken
    """
    if day >= business_date(context.db.clock.now()):
        raise DayNotBilled(day=day.isoformat())
    account = await _account(context, account_id)
    [currency] = context.flow.channels[account.channel].currencies
    bill = await bill_of_day(context.db, account, day, currency)
    bill = await obtain(context, account, bill, again=again, progress=on_progress)
    if bill.state not in _READ:
        return bill
    bill = await compare(context, account, bill, on_progress)
    if bill.state.is_final:
        await _look_again(context, account, bill, on_progress)
    return bill


async def close_lean(
    context: Clearing,
    account_id: UUID,
    day: date,
    lane: Lane,
    pieces: tuple[str, int],
    *,
    on_progress: Progress = in_silence,
) -> BillFile | None:
    """Compare a day with what came of its bill in pieces; ``pieces`` is their digest and size.

    None: another bill of the day is there already, and it counts.

    Raises:
        DayNotBilled, ChannelAccountNotFound, ChannelUnbilled, RunOvertaken
    """
    if day >= business_date(context.db.clock.now()):
        raise DayNotBilled(day=day.isoformat())
    account = await _account(context, account_id)
    bill = await begin_lean(context, account, day, *pieces)
    if bill is None:
        return None
    bill = await compare(context, account, bill, on_progress, lane)
    if bill.state.is_final:
        await _look_again(context, account, bill, on_progress)
    return bill


async def reconcile_everyone(
    context: Clearing, day: date, *, again: bool = False, on_progress: Progress = in_silence
) -> list[BillFile]:
    """Compare the day of every account that has bills.

    Raises:
        DayNotBilled, RunOvertaken
    """
    return [
        await reconcile_day(context, account_id, day, again=again, on_progress=on_progress)
        for account_id in await billed_accounts(context)
    ]


async def billed_accounts(context: Clearing) -> list[UUID]:
    """Return our accounts at channels that send bills, closed ones too."""
    rows = await list_accounts(context.db)
    return [row.id for row in rows if _sends_bills(context, row.channel)]


async def run_reconcile_day(context: Clearing, task: ReconcileDay, _lease: Lease) -> Again | None:
    """Take the next step of an account's day; return when to look again, or None at its end."""
    bill = await store.CURRENT_BILL.first(context.db, task.account_id, task.day)
    account = await context.flow.account(task.account_id)
    if (bill is not None and bill.state.is_final) or not _sends_bills(context, account.channel):
        return None
    bill = await reconcile_day(context, task.account_id, task.day)
    if bill.state.is_final:
        return None
    return Again(look_again_after(bill, context.db.clock.now()))


def look_again_after(bill: BillFile, now: datetime) -> timedelta:
    """Return how long to wait for a bill that is late: the later it is, the longer."""
    waited = now - bill.requested_at
    if waited < timedelta(hours=6):
        return timedelta(minutes=10)
    return timedelta(hours=1) if waited < timedelta(days=3) else timedelta(hours=6)


async def _look_again(
    context: Clearing, account: ChannelAccount, came: BillFile, progress: Progress
) -> None:
    """Compare earlier days once more whose trades may stand on the bill that came now."""
    for earlier in await days_to_look_at_again(context.db, came):
        bill = await store.CURRENT_BILL.first(context.db, account.id, earlier)
        if bill is not None and not is_there(context, bill):
            bill = await obtain(context, account, bill, again=False, progress=progress)
        if bill is not None and bill.state in _READ and is_there(context, bill):
            progress(f"look again at {earlier}", 0)
            await compare(context, account, bill, progress)


async def _account(context: Clearing, account_id: UUID) -> ChannelAccount:
    account = await context.flow.account(account_id)
    if account.channel not in context.flow.channels:
        raise ChannelAccountNotFound(account=show("chn", account_id))
    if not _sends_bills(context, account.channel):
        raise ChannelUnbilled(channel=account.channel)
    return account


def _sends_bills(context: Clearing, name: str) -> bool:
    channel: object = context.flow.channels.get(name)
    return channel is not None and not isinstance(channel, Unbilled)

"""Get an account's bill of a day: fetch it, keep it, read it into rows, faults and totals.

A bill is read as a stream and written in one commit, so it is there whole or not at all. Lines
that cannot be read are reported one by one, and the others count.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Final, assert_never
from uuid import UUID

import msgspec
from msgspec.structs import replace
from prometheus_client import Counter

from tongbao.clearing.context import Clearing, Progress
from tongbao.clearing.reconciliation import _store as store
from tongbao.clearing.reconciliation.model import (
    NEAR_MIDNIGHT,
    BillFile,
    BillFileLost,
    BillState,
)
from tongbao.clearing.sets.lanes import (
    Lane,
    Question,
    as_lines,
    quick_bill,
    take_what_agrees,
)
from tongbao.clearing.sheets.sheet import Sheet
from tongbao.infra.db import Db, Tx
from tongbao.infra.failpoints import failpoint
from tongbao.kernel.clock import day_bounds
from tongbao.kernel.ids import base32, new_id
from tongbao.payments.collecting import queries as payments
from tongbao.payments.refunds import queries as refunds
from tongbao.rails.channels.contract.bills import BillEmpty, BillLine, BillNotReady, BillOutcome
from tongbao.rails.channels.contract.bills import BillFile as Downloaded
from tongbao.rails.channels.contract.orders import ChannelAccount
from tongbao.rails.channels.contract.outcomes import Unknown

BILLS: Final = Counter(
    "tongbao_bills_total",
    "Bills asked for, by channel and what the channel answered",
    ["channel", "answer"],
)
QUIET_AFTER: Final = timedelta(hours=36)
"""How long after a day began a channel that is quiet about empty days is taken at its word."""

_ACTOR: Final = "reconciliation"
_CHUNK: Final = 5000
_ANSWER_MAX: Final = 200


async def bill_of_day(db: Db, account: ChannelAccount, day: date, currency: str) -> BillFile:
    """Return the current bill of an account's day, a new one if nobody has asked for it yet."""
    bill = await store.CURRENT_BILL.first(db, account.id, day)
    if bill is None:
        fresh = BillFile(
            id=new_id(),
            account_id=account.id,
            channel=account.channel,
            mode=account.mode,
            day=day,
            version=1,
            state=BillState.REQUESTED,
            currency=currency,
            requested_at=db.clock.now(),
        )
        await store.INSERT_BILL.run(db, *msgspec.structs.astuple(fresh))
        bill = await store.CURRENT_BILL.one(db, account.id, day)
    return bill


async def obtain(
    context: Clearing, account: ChannelAccount, bill: BillFile, *, again: bool, progress: Progress
) -> BillFile:
    """Bring a bill as far as it goes today: to its rows, or to the channel's word on why not.

    ``again`` fetches one that is there already; another content becomes another version.
    """
    wanted = {BillState.REQUESTED, BillState.INCOMPLETE}
    needs_file = bill.state is BillState.DOWNLOADED or bill.is_lean
    lost = needs_file and not _place(context, bill).exists()
    if again or lost or bill.state in wanted:
        progress("download", 0)
        bill = await _fetch(context, account, bill)
    if bill.state is BillState.DOWNLOADED and _place(context, bill).exists():
        bill = await _load(context, account, bill, progress)
    return bill


# Fetching


async def _fetch(context: Clearing, account: ChannelAccount, bill: BillFile) -> BillFile:
    folder = context.folder / f"fetching-{base32(new_id())}"
    await asyncio.to_thread(folder.mkdir, parents=True)
    try:
        channel = context.flow.channels[account.channel]
        answer = await channel.download_bill(account, bill.day, folder)
        failpoint("reconciliation.after_download")
        BILLS.labels(account.channel, type(answer.outcome).__name__.lower()).inc()
        return await _note(context, account, bill, answer.outcome)
    finally:
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


async def _note(
    context: Clearing, account: ChannelAccount, bill: BillFile, outcome: BillOutcome
) -> BillFile:
    db = context.db
    match outcome:
        case Downloaded():
            return await _keep(context, bill, outcome)
        case BillEmpty(code=code):
            await store.MARK_EMPTY.run(db, bill.id, code, db.clock.now(), True)
        case BillNotReady(code=code):
            if await _is_quiet_day(context, account, bill):
                # Nobody said that there were no trades, so this proves no absence.
                await store.MARK_EMPTY.run(db, bill.id, code, db.clock.now(), False)
            else:
                await store.NOTE_ANSWER.run(db, bill.id, code[:_ANSWER_MAX])
        case Unknown(reason=reason):
            await store.NOTE_ANSWER.run(db, bill.id, reason[:_ANSWER_MAX])
        case _:
            assert_never(outcome)
    return await store.GET_BILL.one(db, bill.id)


async def _keep(context: Clearing, bill: BillFile, found: Downloaded) -> BillFile:
    place = _place(context, replace(bill, sha256=found.sha256))
    await asyncio.to_thread(place.parent.mkdir, parents=True, exist_ok=True)
    await asyncio.to_thread(found.path.replace, place)
    async with context.db.begin(_ACTOR) as tx:
        current = await store.LOCK_BILL.one(tx, bill.id)
        if current.sha256 == found.sha256 or current.superseded_at is not None:
            return await store.CURRENT_BILL.one(tx, bill.account_id, bill.day)
        if current.sha256 is None and current.state is BillState.REQUESTED:
            await store.MARK_DOWNLOADED.run(tx, bill.id, found.sha256, found.size, tx.now)
            return await store.GET_BILL.one(tx, bill.id)
        await store.SUPERSEDE.run(tx, bill.id, tx.now)
        newer = BillFile(
            id=new_id(),
            account_id=current.account_id,
            channel=current.channel,
            mode=current.mode,
            day=current.day,
            version=current.version + 1,
            state=BillState.DOWNLOADED,
            currency=current.currency,
            requested_at=current.requested_at,
            sha256=found.sha256,
            size=found.size,
            downloaded_at=tx.now,
        )
        await store.INSERT_BILL.run(tx, *msgspec.structs.astuple(newer))
        return newer


def is_there(context: Clearing, bill: BillFile) -> bool:
    """Whether a bill can be compared: a lean one needs its file."""
    return not bill.is_lean or _place(context, bill).exists()


async def begin_lean(
    context: Clearing, account: ChannelAccount, day: date, digest: str, size: int
) -> BillFile | None:
    """Return the day's bill, made lean by what came in pieces; None: a whole one is there."""
    [currency] = context.flow.channels[account.channel].currencies
    bill = await bill_of_day(context.db, account, day, currency)
    async with context.db.begin(_ACTOR) as tx:
        current = await store.LOCK_BILL.one(tx, bill.id)
        if current.state is BillState.REQUESTED:
            await store.MARK_DOWNLOADED.run(tx, bill.id, digest, size, tx.now)
            await store.MARK_LEAN.run(tx, bill.id, tx.now)
        elif not current.is_lean or current.sha256 != digest:
            return None
        return await store.GET_BILL.one(tx, bill.id)


def _place(context: Clearing, bill: BillFile) -> Path:
    name = f"{bill.day.isoformat()}-{bill.sha256}.bill"
    return context.folder / bill.channel / base32(bill.account_id) / name


async def _is_quiet_day(context: Clearing, account: ChannelAccount, bill: BillFile) -> bool:
    """Whether "not ready" means that there is nothing: it is late, and we know of no trade."""
    start, end = day_bounds(bill.day)
    terms = context.flow.channels[account.channel].bill_terms
    if not terms.quiet_when_empty or context.db.clock.now() < start + QUIET_AFTER:
        return False
    if await payments.overdue_attempts(context.db, account.id, end):
        return False
    async with context.db.begin(_ACTOR) as tx:
        async for _ in payments.paid_between(tx, account.id, start, end):
            return False
        async for refund in refunds.given_back_between(tx, account.mode, start, end):
            attempt = await payments.attempt(tx, refund.book, refund.attempt_id)
            if attempt.account_id == account.id:
                return False
    return True


# Reading


async def _load(
    context: Clearing, account: ChannelAccount, bill: BillFile, progress: Progress
) -> BillFile:
    channel = context.flow.channels[account.channel]
    async with context.db.begin(_ACTOR) as tx:
        if (current := await store.LOCK_BILL.one(tx, bill.id)).state is not BillState.DOWNLOADED:
            return current
        place = _place(context, bill)
        if quick_bill(context, bill.channel, place) is not None:
            # It is read when it is compared: what agrees then need not be stored.
            await store.MARK_LEAN.run(tx, bill.id, tx.now)
        else:
            lines = channel.parse_bill(place)
            sheet = _sheet(context, bill, account)
            await _copy(tx, sheet, lines, progress)
            await store.MARK_READ.run(tx, bill.id, *sheet.figures(), tx.now, False)
    failpoint("reconciliation.after_parse")
    return await store.GET_BILL.one(context.db, bill.id)


async def _copy(tx: Tx, sheet: Sheet, lines: Iterator[BillLine], progress: Progress) -> None:
    # Reading happens in a thread: a million rows must not keep the worker from its leases.
    while await asyncio.to_thread(sheet.read, lines, _CHUNK):
        await tx.copy("bill_row", store.ROW_COLUMNS, sheet.rows)
        await tx.copy("bill_fault", store.FAULT_COLUMNS, sheet.faults)
        progress("read", sheet.row_count)
    if sheet.is_of_another_day:
        await store.CLEAR_ROWS.run(tx, sheet.bill_id)  # they say nothing of this day
        await tx.copy("bill_fault", store.FAULT_COLUMNS, sheet.refused("bill.wrong_day"))


async def read_lean(
    context: Clearing, account: ChannelAccount, bill: BillFile, home_book: int, progress: Progress
) -> tuple[BillFile, Lane | None]:
    """Take out of a lean bill what agrees and store the rest as its rows.

    Without a fast lane any more, or for a bill it cannot take, every row is stored and the bill is
    lean no longer.

    Raises:
        BillFileLost
    """
    place = _place(context, bill)
    if not place.exists():
        raise BillFileLost(day=bill.day.isoformat())
    folder = context.folder / f"lane-{base32(new_id())}"
    await asyncio.to_thread(folder.mkdir, parents=True)
    try:
        lane = None
        if (quick := quick_bill(context, bill.channel, place)) is not None:
            channel = context.flow.channels[bill.channel]
            lines = await asyncio.to_thread(as_lines, channel, account, quick, place, folder)
            asked = Question(
                account=account,
                day=bill.day,
                currency=bill.currency,
                bill=lines,
                folder=folder,
                home_book=home_book,
                suspects=await shown_before(context.db, bill.account_id, bill.day),
            )
            progress("take out what agrees", 0)
            lane = await take_what_agrees(context, asked, quick)
        failpoint("reconciliation.after_lane")
        return await store_rest(context, bill, lane, progress), lane
    finally:
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


async def shown_before(db: Db, account_id: UUID, day: date) -> list[str]:
    """Return the numbers on the day before's bill that may stand on this one a second time."""
    earlier = await store.CURRENT_BILL.first(db, account_id, day - timedelta(days=1))
    if earlier is None:
        return []
    start, _ = day_bounds(day)
    near = None if earlier.is_lean else start - NEAR_MIDNIGHT
    return await store.NUMBERS_OF_BILL.all(db, earlier.id, near)


async def store_rest(
    context: Clearing, bill: BillFile, lane: Lane | None, progress: Progress
) -> BillFile:
    """Store the rows of a lean bill that did not agree; without a lane all of them."""
    channel = context.flow.channels[bill.channel]
    sheet = _sheet(context, bill, await context.flow.account(bill.account_id))
    if lane is None:
        lines = channel.parse_bill(_place(context, bill))
    else:
        sheet.agreed(lane)
        lines = (lane.parse or channel.parse_bill)(lane.rest)
    async with context.db.begin(_ACTOR) as tx:
        await store.LOCK_BILL.one(tx, bill.id)
        await store.CLEAR_ROWS.run(tx, bill.id)
        await store.CLEAR_FAULTS.run(tx, bill.id)
        await _copy(tx, sheet, lines, progress)
        await store.MARK_READ.run(tx, bill.id, *sheet.figures(), tx.now, lane is not None)
        return await store.GET_BILL.one(tx, bill.id)


def _sheet(context: Clearing, bill: BillFile, account: ChannelAccount) -> Sheet:
    return Sheet(
        bill.id,
        context.flow.channels[bill.channel].bill_terms,
        day=bill.day,
        currency=bill.currency,
        merchant_number=account.merchant_number,
    )

"""Get an account's bill of a day: fetch it, keep it, read it into rows, faults and totals.

A bill is read as a stream and written in one commit, so it is there whole or not at all. Lines
that cannot be read are reported one by one, and the others count.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from itertools import islice
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
from tongbao.infra.db import Db, Tx
from tongbao.infra.failpoints import failpoint
from tongbao.kernel.clock import business_date, day_bounds
from tongbao.kernel.ids import base32, new_id
from tongbao.kernel.money import Money
from tongbao.payments.collecting import queries as payments
from tongbao.payments.refunds import queries as refunds
from tongbao.rails.channels.contract import (
    BillEmpty,
    BillKind,
    BillLine,
    BillNotReady,
    BillOutcome,
    BillRow,
    BillTerms,
    BillTotal,
    ChannelAccount,
    Unknown,
)
from tongbao.rails.channels.contract import BillFault as FaultRead
from tongbao.rails.channels.contract import BillFile as Downloaded

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
_NUMBER_MAX: Final = 128
_TEXT_MAX: Final = 200

RowRecord = tuple[UUID, int, str, str, str, str, int, str, int, datetime, str, str]
FaultRecord = tuple[UUID, int, int, str, str]


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
            sheet = Sheet(bill, channel.bill_terms)
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
            lines = await asyncio.to_thread(as_lines, channel, quick, place, folder)
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
    sheet = Sheet(bill, channel.bill_terms)
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


class Sheet:
    """Takes a bill's lines piece by piece: the records of the piece, and sums so far."""

    def __init__(self, bill: BillFile, terms: BillTerms) -> None:
        self.rows: list[RowRecord] = []
        self.faults: list[FaultRecord] = []
        self.row_count = 0
        self.bill_id = bill.id
        self._day = bill.day
        self._strange_at: datetime | None = None  # of the first payment, while none is of the day
        self._is_of_day = False
        self._words = dict.fromkeys(terms.moved, "moved")
        self._words |= dict.fromkeys(terms.under_way, "under_way")
        self._words |= dict.fromkeys(terms.failed, "failed")
        self._currency = bill.currency
        self._fault_count = 0
        self._counts = dict.fromkeys(BillKind, 0)
        self._amounts = dict.fromkeys(BillKind, 0)
        self._fees = 0
        self._told: BillTotal | None = None
        self._lane: Lane | None = None

    def agreed(self, lane: Lane) -> None:
        """Count what a fast lane took out of the bill; the lines that follow are its rest."""
        self._lane = lane
        self.row_count += sum(each.count for each in lane.agreed)
        self._counts[BillKind.PAYMENT] += sum(each.count for each in lane.agreed)
        self._amounts[BillKind.PAYMENT] += sum(each.amount for each in lane.agreed)
        self._fees += sum(each.fees for each in lane.agreed)
        self._is_of_day = self.row_count > 0

    @property
    def is_of_another_day(self) -> bool:
        """Whether there are payments, and each is more than a day away from the bill's day."""
        return not self._is_of_day and self._strange_at is not None

    def refused(self, code: str) -> list[FaultRecord]:
        """Return one more fault, of the file as a whole; none of its rows counts."""
        self.faults, self.row_count, self._fees = [], 0, 0
        self._counts, self._amounts = dict.fromkeys(BillKind, 0), dict.fromkeys(BillKind, 0)
        self._take_fault(1, code, str(self._strange_at))
        return self.faults

    def _line(self, line: int) -> int:
        return line if self._lane is None else self._lane.line_in_bill(line)

    def read(self, lines: Iterator[BillLine], count: int) -> bool:
        """Take the next lines; False when there are none."""
        self.rows, self.faults = [], []
        is_any = False
        for line in islice(lines, count):
            is_any = True
            if isinstance(line, BillRow):
                self._take_row(line)
            elif isinstance(line, FaultRead):
                self._take_fault(line.line, line.code, line.text)
            else:
                self._told = line
        return is_any

    def _take_row(self, row: BillRow) -> None:
        outcome = self._words.get(row.state)
        if outcome is None:
            self._take_fault(row.line, "bill.state_unknown", f"{row.number} {row.state}")
            return
        if row.money.currency != self._currency or row.fee.currency != self._currency:
            self._take_fault(row.line, "bill.currency_differs", row.number)
            return
        if not (_is_number(row.number) and _is_number(row.order_number)):
            self._take_fault(row.line, "bill.number_malformed", row.number)
            return
        if row.kind is BillKind.PAYMENT and not self._is_of_day:
            self._is_of_day = abs(business_date(row.at) - self._day) <= timedelta(days=1)
            self._strange_at = self._strange_at or row.at
        kind = str(row.kind)
        if row.kind is BillKind.REFUND and row.number == row.order_number:
            kind = "reversal"  # it has no number of its own: the order itself was undone
        self.row_count += 1
        self._counts[row.kind] += 1
        self._amounts[row.kind] += row.money.amount
        self._fees += row.fee.amount
        self.rows.append(
            (
                *(self.bill_id, self._line(row.line), kind, row.number, row.order_number),
                row.channel_ref[:_NUMBER_MAX].replace("\0", ""),
                *(row.money.amount, row.money.currency, row.fee.amount, row.at, row.state, outcome),
            )
        )

    def _take_fault(self, line: int, code: str, text: str) -> None:
        self._fault_count += 1
        shown = text[:_TEXT_MAX].replace("\0", "")  # the one character PostgreSQL does not take
        place = self._line(line)
        self.faults.append((self.bill_id, self._fault_count, place, code, shown))

    def figures(self) -> tuple[object, ...]:
        """Return what the bill adds up to, as the bill's row keeps it."""
        told = self._told
        is_said = told is not None and not self.is_of_another_day
        return (
            self._currency,
            self.row_count,
            self._fault_count,
            self._counts[BillKind.PAYMENT],
            self._amounts[BillKind.PAYMENT],
            self._counts[BillKind.REFUND],
            self._amounts[BillKind.REFUND],
            self._fees,
            told.row_count if told else None,
            _fen(told.payment_amount) if told else None,
            _fen(told.refund_amount) if told else None,
            _fen(told.fee_amount) if told else None,
            is_said,
            is_said and self._agrees(told),
        )

    def _agrees(self, told: BillTotal | None) -> bool:
        if told is None:
            return False
        pairs = (
            (told.row_count, self.row_count),
            (told.payment_count, self._counts[BillKind.PAYMENT]),
            (_fen(told.payment_amount), self._amounts[BillKind.PAYMENT]),
            (_fen(told.refund_amount), self._amounts[BillKind.REFUND]),
            (_fen(told.fee_amount), self._fees),
        )
        return all(said is None or said == read for said, read in pairs)


def _fen(money: Money | None) -> int | None:
    return None if money is None else money.amount


def _is_number(text: str) -> bool:
    """Whether a number can be one: short enough for an index, and text to PostgreSQL."""
    return len(text) <= _NUMBER_MAX and "\0" not in text

"""Take in pieces of a day's bill, compare the slices, and close the day by those that differ."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import date, timedelta
from itertools import chain, pairwise
from pathlib import Path
from typing import Final
from uuid import UUID

from msgspec import Struct
from msgspec.structs import astuple, replace

from tongbao.clearing.context import Clearing, Progress, in_silence
from tongbao.clearing.reconciliation.bills import shown_before
from tongbao.clearing.reconciliation.days import close_lean
from tongbao.clearing.reconciliation.model import BillFile
from tongbao.clearing.reconciliation.staging import ids_of_numbers
from tongbao.clearing.sets import duck, slicing
from tongbao.clearing.sets.lanes import Lane, Question, Span, compare_spans, export_sides
from tongbao.clearing.sets.parts import Part, split
from tongbao.clearing.sets.plain import (
    Unreadable,
    plain_bill,
    rows_by_layout,
    rows_of_merchant,
    write_plain,
)
from tongbao.clearing.sets.quick import QUICK_BILLS, QuickBill
from tongbao.clearing.slices import _store as store
from tongbao.clearing.slices.model import (
    SLICE_S,
    SLICES,
    PieceSeenBefore,
    PieceUnreadable,
    ReconSlice,
    SlicePiece,
    SlicesMoved,
    SlicesNotPossible,
    Standing,
    TotalMissing,
)
from tongbao.clearing.slices.pieces import PieceLost, counts_of, keep, lines_in, runs_of, with_total
from tongbao.clearing.sources.model import Layout
from tongbao.infra.db import Db, Tx
from tongbao.infra.failpoints import failpoint
from tongbao.kernel.clock import day_bounds
from tongbao.kernel.ids import base32, new_id
from tongbao.kernel.licence import Mode
from tongbao.parties.merchants.merchants import LIVE_BOOK, SANDBOX_BOOK
from tongbao.payments.collecting.queries import attempts_with_ids, count_paid
from tongbao.rails.channels.contract.bills import Unbilled
from tongbao.rails.channels.contract.orders import ChannelAccount

_ACTOR: Final = "reconciliation"
_BOM: Final = b"\xef\xbb\xbf"
_COUNTERS: Final = 4
"""How many stretches of a day are counted at the same time."""
_TRIES: Final = 3


class _Day(Struct, frozen=True):
    """A day of an account whose channel's bill has a fast layout."""

    context: Clearing
    account: ChannelAccount
    day: date
    quick: QuickBill
    currency: str

    @property
    def home(self) -> Path:
        """Where the pieces are kept; if they are lost, the whole bill is compared instead."""
        return self.context.folder / "slices" / base32(self.account.id) / self.day.isoformat()

    def question(self, bill: Path, folder: Path) -> Question:
        """Return what the fast lane is asked."""
        book = LIVE_BOOK if self.account.mode is Mode.LIVE else SANDBOX_BOOK
        return Question(self.account, self.day, self.currency, bill, folder, book, ())


async def take_piece(
    context: Clearing,
    account_id: UUID,
    day: date,
    path: Path,
    *,
    layout: Layout | None = None,
    is_last: bool = False,
) -> SlicePiece:
    """Add a piece of a day's bill to its slices: a file as the channel sends its bill.

    The last one ends with the bill's total; where the bill has none, ``is_last`` says so. With a
    ``layout`` the piece is in that one, whatever the channel's bill looks like.

    Raises:
        SlicesNotPossible, PieceUnreadable, PieceSeenBefore, SlicesMoved
    """
    of = await _day(context, account_id, day)
    if layout is not None and of.quick.parse is None:
        raise SlicesNotPossible(why="pieces of this channel are lines of its own bill")
    async with _folder(context) as folder:
        path = await asyncio.to_thread(_lines_of, of, path, folder, layout, is_last)
        parts = await asyncio.to_thread(split, path, folder)
        has_total = _check(of.quick, parts)
        rows = _rows_of(parts, has_total=has_total)
        engine = await asyncio.to_thread(duck.connect, folder, os.cpu_count() or 1)
        try:
            sums = await asyncio.to_thread(slicing.theirs, engine, of.quick, rows, day, SLICE_S)
        finally:
            engine.close()
        digest = await asyncio.to_thread(_digest, path)
        lines = sum(part.line_count for part in rows)
        counts = {each.place: each.count for each in sums}
        runs = await asyncio.to_thread(runs_of, rows, of.quick.prefix, SLICE_S)
        if counts_of(runs) != counts:
            raise PieceUnreadable(lines=lines)
        total = parts[-1] if has_total else None
        await asyncio.to_thread(keep, of.home, digest, path, with_total(runs, total), folder)
    failpoint("slices.before_piece")
    async with context.db.begin(_ACTOR) as tx:
        return await _add(tx, of, (digest, lines, has_total), sums)


async def compare_slices(
    context: Clearing, account_id: UUID, day: date, *, until: int = SLICES
) -> Standing:
    """Bring our side of a day's slices up to date, before a slice, and say which of them differ.

    Only slices in which something was collected since are summed up again.

    Raises:
        SlicesNotPossible
    """
    of = await _day(context, account_id, day)
    changed = await _changed(of, await slices_of(context.db, account_id, day), until)
    if changed:
        async with _folder(context) as folder:
            asked = of.question(folder, folder)
            paid, nets = await export_sides(context, asked, _spans(of, changed))
            engine = await asyncio.to_thread(duck.connect, folder, os.cpu_count() or 1)
            try:
                sums = await asyncio.to_thread(
                    slicing.ours, engine, of.quick, (paid, nets), of.account.fee_ppm, SLICE_S
                )
            finally:
                engine.close()
        if not sums:
            raise SlicesMoved
        columns = zip(*(astuple(each) for each in sums), strict=True)
        async with context.db.begin(_ACTOR) as tx:
            await store.SET_OURS.run(tx, account_id, day, *map(list, columns), tx.now)
    now = await slices_of(context.db, account_id, day)
    inside = [each for each in now if each.place < until]
    return Standing(len(inside), [each.place for each in inside if not each.agrees])


async def close_by_slices(
    context: Clearing, account_id: UUID, day: date, *, on_progress: Progress = in_silence
) -> BillFile:
    """Close a day whose bill came in pieces: only the slices that differ are opened.

    Raises:
        SlicesNotPossible, TotalMissing, SlicesMoved, DayNotBilled, RunOvertaken
    """
    of = await _day(context, account_id, day)
    pieces, slices = await _as_kept(of)
    if not any(piece.has_total for piece in pieces):
        raise TotalMissing
    suspects = await shown_before(context.db, account_id, day)
    also = await _places_of(of, suspects)
    is_current = any(each.our_at for each in slices)
    for _ in range(_TRIES):
        if not is_current:
            on_progress("compare slices", len(pieces))
            await compare_slices(context, account_id, day)
            pieces, slices = await _as_kept(of)
        agreeing = [each for each in slices if each.agrees and each.place not in also]
        differing = ({each.place for each in slices} | also) - {each.place for each in agreeing}
        on_progress("open slices", len(differing))
        async with _folder(context) as folder:
            # Whether anything was collected since is counted while the slices are opened.
            counting = asyncio.create_task(_grown(of, slices, SLICES))
            try:
                opened = await asyncio.to_thread(_open, of, pieces, slices, differing, folder)
                asked = replace(of.question(opened.path, folder), suspects=suspects)
                lane = await compare_spans(context, asked, of.quick, _spans(of, differing))
            finally:
                await asyncio.wait([counting])
            is_current = not counting.result()
            if lane is None:
                raise TotalMissing
            if is_current:
                failpoint("slices.before_close")
                whole = _with_agreed(lane, opened, agreeing, asked.home_book)
                bill = await close_lean(
                    context, account_id, day, whole, opened.pieces, on_progress=on_progress
                )
                if bill is None:
                    raise SlicesNotPossible(why="a bill of the day is there already")
                return bill
    raise SlicesMoved


async def slices_of(on: Db | Tx, account_id: UUID, day: date) -> list[ReconSlice]:
    """Return a day's slices in which either side has anything, in order."""
    return await store.SLICES_OF_DAY.all(on, account_id, day)


async def _day(context: Clearing, account_id: UUID, day: date) -> _Day:
    account = await context.flow.account(account_id)
    channel: object = context.flow.channels.get(account.channel)
    if channel is None or isinstance(channel, Unbilled) or not duck.is_there():
        raise SlicesNotPossible(channel=account.channel)
    [currency] = context.flow.channels[account.channel].currencies
    quick = QUICK_BILLS.get(account.channel) or plain_bill(currency)
    return _Day(context, account, day, quick, currency)


def _lines_of(of: _Day, path: Path, folder: Path, layout: Layout | None, is_last: bool) -> Path:
    """Return the piece as the lines its slices are counted by."""
    if of.quick.parse is None:
        return path
    channel = of.context.flow.channels[of.account.channel]
    terms, lines = channel.bill_terms, folder / "plain.piece"
    rows = channel.parse_bill(path) if layout is None else rows_by_layout(layout, path, terms)
    rows = rows_of_merchant(rows, of.account.merchant_number)
    try:
        write_plain(rows, terms, lines, is_piece=True, is_last=is_last)
    except Unreadable as failure:
        raise PieceUnreadable(fault=str(failure)) from None
    return lines


def _check(quick: QuickBill, parts: Sequence[Part]) -> bool:
    """Return whether a piece ends with the bill's total; raise where it is no piece of one."""
    if not parts or not all(part.is_plain for part in parts):
        raise PieceUnreadable
    header = parts[0].path.read_bytes().removeprefix(_BOM).rstrip(b"\r\n")
    if header != quick.header.encode() or len(parts) < 2:
        raise PieceUnreadable
    return parts[-1].path.read_bytes().startswith(quick.trailer.encode())


def _rows_of(parts: Sequence[Part], *, has_total: bool) -> list[Part]:
    return list(parts[1:-1] if has_total else parts[1:])


async def _add(
    tx: Tx, of: _Day, piece: tuple[str, int, bool], sums: Sequence[slicing.SliceSum]
) -> SlicePiece:
    digest, lines, has_total = piece
    there = await store.PIECES.all(tx, of.account.id, of.day)
    if any(each.sha256 == digest for each in there):
        raise PieceSeenBefore(sha256=digest)
    made = SlicePiece(of.account.id, of.day, len(there), digest, lines, has_total, tx.now)
    args = (made.account_id, made.day, made.place, digest, lines, has_total, tx.now)
    if not await store.ADD_PIECE.run(tx, *args):
        raise SlicesMoved
    if not sums:
        return made  # nothing but the bill's total
    columns = zip(*((s.place, s.count, s.amount, s.digest) for s in sums), strict=True)
    await store.ADD_THEIRS.run(tx, of.account.id, of.day, *map(list, columns))
    return made


async def _as_kept(of: _Day) -> tuple[list[SlicePiece], list[ReconSlice]]:
    """Return the day's pieces and slices, which are of one moment."""
    pieces = await store.PIECES.all(of.context.db, of.account.id, of.day)
    slices = await slices_of(of.context.db, of.account.id, of.day)
    if sum(each.line_count for each in pieces) != sum(each.their_count for each in slices):
        raise SlicesMoved
    return pieces, slices


async def _places_of(of: _Day, numbers: Sequence[str]) -> set[int]:
    """Return the slices of the payments of this day behind some numbers."""
    start, end = day_bounds(of.day)
    found = await attempts_with_ids(of.context.db, ids_of_numbers(numbers)) if numbers else []
    return {
        int((attempt.paid_at - start).total_seconds()) // SLICE_S
        for attempt in found
        if attempt.account_id == of.account.id
        and attempt.paid_at is not None
        and start <= attempt.paid_at < end
    }


async def _changed(of: _Day, slices: Sequence[ReconSlice], until: int) -> list[int]:
    """Return the slices to be summed up again: something was collected in them, or not booked."""
    unbooked = {
        each.place
        for each in slices
        if each.place < until and each.our_count and not each.is_booked
    }
    return sorted(unbooked | set(await _grown(of, slices, until)))


async def _grown(of: _Day, slices: Sequence[ReconSlice], until: int) -> list[int]:
    """Return the slices in which something was collected since they were summed up.

    What was collected stays so, hence an equal count of a stretch means that nothing has changed
    in it; where it is another, its halves are counted.
    """
    known = [0] * SLICES
    for each in slices:
        known[each.place] = each.our_count
    start, _ = day_bounds(of.day)
    step = timedelta(seconds=SLICE_S)

    async def look(low: int, high: int) -> list[int]:
        begins, ends = start + low * step, start + high * step
        count = await count_paid(of.context.db, of.account.id, begins, ends)
        if count == sum(known[low:high]):
            return []
        if high - low == 1:
            return [low]
        middle = (low + high) // 2
        return [*await look(low, middle), *await look(middle, high)]

    edges = sorted({until * n // _COUNTERS for n in range(_COUNTERS + 1)})
    found = await asyncio.gather(*(look(*pair) for pair in pairwise(edges)))
    return list(chain.from_iterable(found))


def _spans(of: _Day, places: Iterable[int]) -> list[Span]:
    """Return the stretches of time of slices, neighbours as one."""
    start, _ = day_bounds(of.day)
    step = timedelta(seconds=SLICE_S)
    spans: list[Span] = []
    for place in sorted(places):
        begins = start + place * step
        if spans and spans[-1][1] == begins:
            begins = spans.pop()[0]
        spans.append((begins, start + (place + 1) * step))
    return spans


class _Opened(Struct, frozen=True):
    """The lines of the slices that differ, as a bill of their own, and where they stand."""

    path: Path
    numbers: list[int]
    line_count: int
    pieces: tuple[str, int]


def _open(
    of: _Day,
    pieces: Sequence[SlicePiece],
    slices: Sequence[ReconSlice],
    places: Collection[int],
    folder: Path,
) -> _Opened:
    path, numbers, line, size = folder / "opened.bill", [1], 1, 0
    digest, trailer = hashlib.sha256(), b""
    try:
        with path.open("wb") as file:
            file.write(of.quick.header.encode() + b"\r\n")
            for piece in pieces:
                digest.update(piece.sha256.encode())
                found = lines_in(of.home, piece.sha256, places)
                size += found.size
                file.writelines(found.texts)
                numbers += [line + number - 1 for number in found.numbers]
                trailer = found.trailer or trailer
                line += piece.line_count
            file.write(trailer)
    except (OSError, PieceLost) as lost:
        raise SlicesNotPossible(why="a piece is lost") from lost
    if len(numbers) - 1 != sum(each.their_count for each in slices if each.place in places):
        raise SlicesNotPossible(why="a piece is lost")
    numbers += [line + 1, line + 2]
    return _Opened(path, numbers, line + 2, (digest.hexdigest(), size))


def _with_agreed(
    lane: Lane, opened: _Opened, agreeing: Sequence[ReconSlice], home_book: int
) -> Lane:
    """Add the slices that agree to what came of those that were opened."""
    whole = duck.BookSum(
        home_book,
        sum(each.our_count for each in agreeing),
        sum(each.our_amount for each in agreeing),
        sum(each.our_fees for each in agreeing),
    )
    return replace(
        lane,
        line_numbers=[opened.numbers[line - 1] for line in lane.line_numbers],
        line_count=opened.line_count,
        agreed=[*lane.agreed, whole] if whole.count else lane.agreed,
    )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@asynccontextmanager
async def _folder(context: Clearing) -> AsyncIterator[Path]:
    folder = context.folder / f"slices-{base32(new_id())}"
    await asyncio.to_thread(folder.mkdir, parents=True)
    try:
        yield folder
    finally:
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

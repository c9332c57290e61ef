"""Take in pieces of a day's bill, compare the slices, and close the day by those that differ."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import shutil
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import date, timedelta
from itertools import chain
from pathlib import Path
from typing import Final
from uuid import UUID

from msgspec import Struct
from msgspec.structs import replace

from tongbao.clearing.context import Clearing, Progress, in_silence
from tongbao.clearing.reconciliation.days import close_lean
from tongbao.clearing.reconciliation.model import BillFile
from tongbao.clearing.sets import duck, slicing
from tongbao.clearing.sets.lanes import Lane, Question, Span, compare_spans, export_sides
from tongbao.clearing.sets.parts import Part, split
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
from tongbao.infra.db import Db, Tx
from tongbao.infra.failpoints import failpoint
from tongbao.kernel.clock import day_bounds
from tongbao.kernel.ids import base32, new_id
from tongbao.kernel.licence import Mode
from tongbao.parties.merchants.merchants import LIVE_BOOK, SANDBOX_BOOK
from tongbao.payments.collecting.queries import count_paid, paid_by_slice
from tongbao.rails.channels.contract import ChannelAccount

_ACTOR: Final = "reconciliation"
_BOM: Final = b"\xef\xbb\xbf"
_CLOCK: Final = re.compile(rb"\d{4}-\d\d-\d\d ([01]\d|2[0-3]):([0-5]\d):([0-5]\d)")


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


async def take_piece(context: Clearing, account_id: UUID, day: date, path: Path) -> SlicePiece:
    """Add a piece of a day's bill to its slices: lines under the channel's own header.

    The last one ends with the bill's total.

    Raises:
        SlicesNotPossible, PieceUnreadable, PieceSeenBefore, SlicesMoved
    """
    of = await _day(context, account_id, day)
    async with _folder(context) as folder:
        parts = await asyncio.to_thread(split, path, folder)
        has_total = _check(of.quick, parts)
        rows = _rows_of(parts, has_total=has_total)
        engine = await asyncio.to_thread(duck.connect, folder, os.cpu_count() or 1)
        try:
            sums = await asyncio.to_thread(slicing.theirs, engine, of.quick, rows, day, SLICE_S)
        finally:
            engine.close()
        digest = await asyncio.to_thread(_digest, path)
        await asyncio.to_thread(of.home.mkdir, parents=True, exist_ok=True)
        await asyncio.to_thread(shutil.copyfile, path, of.home / f"{digest}.piece")
    lines = sum(part.line_count for part in rows)
    if sum(each.count for each in sums) != lines:
        raise PieceUnreadable(lines=lines)
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
    slices = {each.place: each for each in await slices_of(context.db, account_id, day)}
    changed = await _changed(of, slices, until)
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
        async with context.db.begin(_ACTOR) as tx:
            for each in sums:
                await store.SET_OURS.run(
                    tx, account_id, day, each.place, each.count, each.amount, each.fees,
                    each.digest, each.is_booked, tx.now,
                )  # fmt: skip
    now = await slices_of(context.db, account_id, day)
    inside = [each for each in now if each.place < until]
    return Standing(len(inside), [each.place for each in inside if not each.agrees])


async def close_by_slices(
    context: Clearing, account_id: UUID, day: date, *, on_progress: Progress = in_silence
) -> BillFile:
    """Close a day whose bill came in pieces: only the slices that differ are opened.

    Raises:
        SlicesNotPossible, TotalMissing, DayNotBilled, RunOvertaken
    """
    of = await _day(context, account_id, day)
    pieces = await store.PIECES.all(context.db, account_id, day)
    if not any(piece.has_total for piece in pieces):
        raise TotalMissing
    on_progress("compare slices", len(pieces))
    standing = await compare_slices(context, account_id, day)
    on_progress("open slices", len(standing.differing))
    agreeing = [each for each in await slices_of(context.db, account_id, day) if each.agrees]
    async with _folder(context) as folder:
        opened = await asyncio.to_thread(_open, of, pieces, frozenset(standing.differing), folder)
        asked = of.question(opened.path, folder)
        lane = await compare_spans(context, asked, of.quick, _spans(of, standing.differing))
        if lane is None:
            raise TotalMissing
        failpoint("slices.before_close")
        whole = _with_agreed(lane, opened, agreeing, asked.home_book)
        bill = await close_lean(
            context, account_id, day, whole, opened.pieces, on_progress=on_progress
        )
    if bill is None:
        raise SlicesNotPossible(why="a bill of the day is there already")
    return bill


async def slices_of(on: Db | Tx, account_id: UUID, day: date) -> list[ReconSlice]:
    """Return a day's slices in which either side has anything, in order."""
    return await store.SLICES_OF_DAY.all(on, account_id, day)


async def _day(context: Clearing, account_id: UUID, day: date) -> _Day:
    account = await context.flow.account(account_id)
    quick = QUICK_BILLS.get(account.channel)
    if quick is None or not duck.is_there():
        raise SlicesNotPossible(channel=account.channel)
    [currency] = context.flow.channels[account.channel].currencies
    return _Day(context, account, day, quick, currency)


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
    for each in sums:
        await store.ADD_THEIRS.run(
            tx, of.account.id, of.day, each.place, each.count, each.amount, each.digest
        )
    return made


async def _changed(of: _Day, slices: dict[int, ReconSlice], until: int) -> list[int]:
    """Return the slices in which something was collected since they were summed up."""
    start, _ = day_bounds(of.day)
    end = start + timedelta(seconds=SLICE_S * until)
    db, known = of.context.db, sum(
        each.our_count for each in slices.values() if each.place < until
    )  # fmt: skip
    # What was collected stays so, hence an equal count means that nothing has changed.
    if await count_paid(db, of.account.id, start, end) == known:
        return [
            place for place, each in slices.items()
            if place < until and each.our_count and not each.is_booked
        ]  # fmt: skip
    counts = await paid_by_slice(db, of.account.id, start, end, SLICE_S)
    return sorted(
        place
        for place, count in counts.items()
        if place not in slices or slices[place].our_count != count or not slices[place].is_booked
    )


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


def _open(of: _Day, pieces: Sequence[SlicePiece], places: frozenset[int], folder: Path) -> _Opened:
    path, numbers, line, size = folder / "opened.bill", [1], 1, 0
    digest, trailer = hashlib.sha256(), b""
    skip = len(of.quick.prefix)
    with path.open("wb") as file:
        file.write(of.quick.header.encode() + b"\r\n")
        for piece in pieces:
            digest.update(piece.sha256.encode())
            source = of.home / f"{piece.sha256}.piece"
            size += source.stat().st_size
            with source.open("rb") as lines:
                next(lines)
                for n, text in enumerate(lines):
                    if n >= piece.line_count:
                        trailer = b"".join(chain([text], lines))
                        break
                    if places and _place(text, skip) in places:
                        numbers.append(line + n + 1)
                        file.write(text)
            line += piece.line_count
        file.write(trailer)
    numbers += [line + 1, line + 2]
    return _Opened(path, numbers, line + 2, (digest.hexdigest(), size))


def _place(text: bytes, skip: int) -> int:
    found = _CLOCK.match(text, skip)
    if found is None:
        return 0
    return (int(found[1]) * 3600 + int(found[2]) * 60 + int(found[3])) // SLICE_S


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

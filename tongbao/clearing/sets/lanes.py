"""The fast lane of a day: what plainly agrees is taken out, and only the rest is looked at.

    bill ── parts ──┐                      ┌─ agreed: counted and summed up, stored nowhere
    payments ───────┼─► the set engine ────┤
    ledger ─────────┘                      └─ left over: the bill without the lines that agree

The rest goes the ordinary way, through the channel's own parser and the comparison in the
database, so that there is one place that decides what a difference is.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Sequence
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from msgspec import Struct

from tongbao.clearing.context import Clearing
from tongbao.clearing.sets import duck
from tongbao.clearing.sets.exporting import LineWriter
from tongbao.clearing.sets.parts import NumberedLine, Part, all_lines, lines_with, split
from tongbao.clearing.sets.plain import plain_bill, rows_of_merchant, write_plain
from tongbao.clearing.sets.quick import QUICK_BILLS, QuickBill
from tongbao.kernel.clock import day_bounds
from tongbao.kernel.ids import from_base32
from tongbao.ledger.model import AccountKey
from tongbao.ledger.queries import export_nets
from tongbao.payments.collecting.queries import export_paid, payments_span
from tongbao.rails.channels.contract.bills import BillLine
from tongbao.rails.channels.contract.channel import Channel
from tongbao.rails.channels.contract.orders import ChannelAccount

_ACTOR: Final = "reconciliation"
_BOM: Final = b"\xef\xbb\xbf"
_MARGIN_MS: Final = int(timedelta(minutes=1).total_seconds() * 1000)
"""How much earlier and later than the payments at both ends the others may have been made. What
was made still earlier is not found here, and therefore left over and looked up."""


Span = tuple[datetime, datetime]
"""A stretch of time, its end not in it."""


class Question(Struct, frozen=True):
    """A bill to be compared in the fast lane."""

    account: ChannelAccount
    day: date
    currency: str
    bill: Path
    folder: Path  # for what is written on the way; taken away afterwards
    home_book: int
    suspects: Sequence[str]


class Lane(Struct, frozen=True):
    """What came of it. ``rest`` is the bill without the lines that agree.

    ``line_numbers`` are where the lines of ``rest`` stand in the bill; ``ours`` are the payments
    of the day that did not agree, by their numbers' ids.
    """

    rest: Path
    line_numbers: list[int]
    line_count: int
    agreed: list[duck.BookSum]
    ours: list[UUID]
    parse: Callable[[Path], Iterator[BillLine]] | None = None

    def line_in_bill(self, line: int) -> int:
        """Return where a line of the rest stands in the bill; past its end, past the bill's.

        Plain lines know themselves where they came from.
        """
        if self.parse is not None:
            return line
        inside = line <= len(self.line_numbers)
        return self.line_numbers[line - 1] if inside else self.line_count + 1


def quick_bill(context: Clearing, channel: str, bill: Path) -> QuickBill | None:
    """Return how to read a bill in the fast lane; None: it goes the ordinary way.

    A bill that is no lines as the table has them is written as plain ones first, see `as_lines`.
    """
    if not duck.is_there() or bill.stat().st_size < context.quick_from:
        return None
    quick = QUICK_BILLS.get(channel)
    if quick is not None:
        with bill.open("rb") as file:
            header = file.readline(64 * 1024).removeprefix(_BOM).rstrip(b"\r\n")
        if header == quick.header.encode():
            return quick
    [currency] = context.flow.channels[channel].currencies
    return plain_bill(currency)


def as_lines(
    channel: Channel, account: ChannelAccount, quick: QuickBill, bill: Path, folder: Path
) -> Path:
    """Return the lines that the fast lane reads: the bill's own, or plain ones in the folder."""
    if quick.parse is None:
        return bill
    lines = folder / "plain.bill"
    rows = rows_of_merchant(channel.parse_bill(bill), account.merchant_number)
    write_plain(rows, channel.bill_terms, lines, is_piece=False)
    return lines


async def take_what_agrees(context: Clearing, asked: Question, quick: QuickBill) -> Lane | None:
    """Compare a day's bill, payments and ledger; leave the files of the rest in the folder.

    The three sides are read at about the same time. Whatever one of them did not show yet is left
    over, and looked at again the ordinary way. None: the bill goes on after its own trailer, which
    only the channel's parser knows what to make of.
    """
    return await compare_spans(context, asked, quick, [day_bounds(asked.day)])


async def compare_spans(
    context: Clearing, asked: Question, quick: QuickBill, spans: Sequence[Span]
) -> Lane | None:
    """Compare a bill with what we hold of some stretches of its day, as `take_what_agrees` does."""
    engine = await asyncio.to_thread(duck.connect, asked.folder, os.cpu_count() or 1)
    reading = asyncio.create_task(asyncio.to_thread(_read, engine, asked, quick))
    try:
        paid, nets = await export_sides(context, asked, spans)
        told = await reading
        ours = duck.Ours(paid, nets, asked.account.fee_ppm, asked.suspects)
        left = await asyncio.to_thread(duck.find_leftover, engine, told, ours)
    finally:
        await asyncio.wait([reading])  # a thread cannot be stopped, and it uses the engine
        engine.close()
    rest = asked.folder / "rest.bill"
    lines = await asyncio.to_thread(_write_rest, rest, told, left)
    last = told.parts[-1]
    line_count = last.first_line + last.line_count - 1
    if lines.trailer is not None and lines.trailer < line_count - 1:
        return None
    return Lane(
        rest=rest,
        line_numbers=lines.numbers,
        line_count=line_count,
        agreed=left.agreed,
        ours=[from_base32(number) for number in left.ours],
        parse=quick.parse,
    )


async def export_sides(
    context: Clearing, asked: Question, spans: Sequence[Span]
) -> tuple[Path, Path | None]:
    """Write what we hold of some stretches of a day: payments, and the ledger's movements."""
    nets, paid = await asyncio.gather(
        _export_nets(context, asked, spans), _export(context, asked, spans)
    )
    return paid, nets


async def _export(context: Clearing, asked: Question, spans: Sequence[Span]) -> Path:
    path = asked.folder / "paid.csv"
    path.touch()
    begins, _ = day_bounds(asked.day)
    async with context.db.begin(_ACTOR) as tx:
        await tx.execute("set local statement_timeout = 0", ())
        for span in spans:
            with LineWriter(path, duck.PAID_COLUMNS, begins, more=True) as writer:
                await export_paid(tx, asked.account.id, span, asked.currency, writer.take)
                await writer.finish()
    return path


async def _export_nets(context: Clearing, asked: Question, spans: Sequence[Span]) -> Path | None:
    """Write what the ledger shows for payments made about that day; None: no ledger is kept.

    Payments of other books than the home book are left over.
    """
    if not context.flow.licence.may_hold_funds:
        return None
    path = asked.folder / "nets.csv"
    path.touch()
    key = AccountKey("channel_receivable", asked.currency, asked.account.id)
    for low, high in await _id_spans(context, asked, spans):
        async with context.db.begin(_ACTOR) as tx:
            await tx.execute("set local statement_timeout = 0", ())
            with LineWriter(path, duck.NET_COLUMNS, more=True) as writer:
                await export_nets(tx, asked.home_book, key, (low, high), writer.take)
                await writer.finish()
    return path


async def _id_spans(
    context: Clearing, asked: Question, spans: Sequence[Span]
) -> list[tuple[UUID, UUID]]:
    """Return the stretches of payments' ids behind stretches of time, none in two of them."""
    found: list[tuple[UUID, UUID]] = []
    for span in spans:
        ids = await payments_span(context.db, asked.account.id, *span)
        if ids is None:
            continue
        low, high = _wider(*ids)
        if found and low.int <= found[-1][1].int:
            low, high = found[-1][0], UUID(int=max(high.int, found.pop()[1].int))
        found.append((low, high))
    return found


def _wider(first: UUID, last: UUID) -> tuple[UUID, UUID]:
    low = max(0, (first.int >> 80) - _MARGIN_MS) << 80
    high = (last.int >> 80) + _MARGIN_MS << 80
    return UUID(int=low), UUID(int=min(high, (1 << 128) - 1))


def _read(engine: Any, asked: Question, quick: QuickBill) -> duck.Told:
    return duck.read_bill(engine, quick, split(asked.bill, asked.folder), asked.day)


class _Rest(Struct, frozen=True):
    numbers: list[int]
    trailer: int | None


def _write_rest(path: Path, told: duck.Told, left: duck.Leftover) -> _Rest:
    numbers, trailer, begins = [], None, told.quick.trailer.encode()
    with path.open("wb") as file:
        for line in _lines_left(told.parts, left, told.quick.number):
            numbers.append(line.number)
            file.write(line.text)
            if trailer is None and line.text.startswith(begins):
                trailer = line.number
    return _Rest(numbers, trailer)


def _lines_left(parts: Sequence[Part], left: duck.Leftover, column: int) -> Iterator[NumberedLine]:
    for part in parts:
        if part.place in left.odd:
            yield from all_lines(part)
        elif part.place in left.rows:
            yield from lines_with(part, left.rows[part.place], column)

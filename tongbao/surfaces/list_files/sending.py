"""One way to send a list as a file: made page by page while it is sent, and noted who took it.

Nothing in it is a formula to a spreadsheet, and no list has a person's name or number in full.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Final

from msgspec import Struct

from tongbao.infra import audit
from tongbao.kernel.clock import BUSINESS_ZONE, business_date
from tongbao.kernel.money import Money
from tongbao.kernel.papers.sheets import Cell, csv_line
from tongbao.surfaces.operator_console.visit import Visit
from tongbao.surfaces.page_kit.replies import CSV, Reply, stream_reply

PAGE: Final = 100
_MARK: Final = "\ufeff"  # so that spreadsheets read it as UTF-8


class Part(Struct, frozen=True):
    """Some rows of a list, and from where to read on."""

    rows: Sequence[Sequence[Cell]]
    next_cursor: str | None = None


Read = Callable[[Visit, str | None], Awaitable[Part]]


class ListFile(Struct, frozen=True):
    """A list of the console as a file: its name, its columns, and who reads a page of it."""

    name: str
    columns: tuple[str, ...]
    read: Read


async def send_list(list_file: ListFile, visit: Visit) -> Reply:
    """Return a list as a file, as the address filters it.

    Raises:
        what the list itself refuses: a filter that cannot be read.
    """
    first = await list_file.read(visit, None)  # what is refused is refused before the first byte
    db, given = visit.desk.db, {name: text[:128] for name, text in visit.request.query.items()}
    async with db.begin(visit.operator.actor) as tx:
        await audit.record(tx, "list.exported", list_file.name, {**given})
    day = business_date(db.clock.now()).isoformat()
    return stream_reply(_lines(list_file, visit, first), CSV, name=f"{list_file.name}-{day}.csv")


def when(moment: datetime | None) -> str:
    """Return a moment as people in Shanghai write it."""
    return "" if moment is None else moment.astimezone(BUSINESS_ZONE).strftime("%Y-%m-%d %H:%M:%S")


def major(amount: int, currency: str) -> Decimal:
    """Return an amount of minor units in major ones, for a cell to calculate with."""
    return Decimal(Money(amount, currency).decimal_text())


async def _lines(list_file: ListFile, visit: Visit, part: Part) -> AsyncIterator[bytes]:
    yield f"{_MARK}{csv_line(list_file.columns)}".encode()
    while True:
        yield "".join(csv_line(row) for row in part.rows).encode()
        if part.next_cursor is None:
            return
        part = await list_file.read(visit, part.next_cursor)

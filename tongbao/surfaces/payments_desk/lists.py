"""What both lists have in common: how far their filters go, and how they are filed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

from msgspec import Struct

from tongbao.infra import audit
from tongbao.kernel.clock import business_date
from tongbao.kernel.licence import Mode
from tongbao.kernel.pages import PAGE_MAX, Page
from tongbao.surfaces.operator_console.payments import (
    CSV_MARK,
    FilterMalformed,
    Filters,
    csv_line,
    names_of,
)
from tongbao.surfaces.operator_console.visit import Visit, mode_of
from tongbao.surfaces.page_kit.replies import CSV, Reply, stream_reply

State = TypeVar("State")
Pages = Callable[[str | None, int], Awaitable[Page[Any]]]
Cells = Callable[[Any, str], list[str]]


class Chosen(Struct, frozen=True):
    """A list's filters as a query takes them, but for the state, which each list has of its own."""

    merchant_id: UUID | None
    mode: Mode | None
    channel: str | None
    number: str | None
    created_from: datetime | None
    created_to: datetime | None


def chosen_by(filters: Filters) -> Chosen:
    """Return the filters of an address.

    Raises:
        FilterMalformed, UnknownId
    """
    first, end = filters.period()
    mode, channel, number = mode_of(filters.mode), filters.channel or None, filters.q or None
    return Chosen(filters.merchant_id, mode, channel, number, first, end)


def state_of(kind: Callable[[str], State], text: str) -> State | None:
    """Return the state that was chosen, if one was.

    Raises:
        FilterMalformed
    """
    try:
        return kind(text) if text else None
    except ValueError:
        raise FilterMalformed from None


async def filed(
    visit: Visit, name: str, columns: Sequence[str], pages: Pages, cells: Cells
) -> Reply:
    """Return a filtered list as a file, made while it is sent; whose doing is noted."""
    desk, filters = visit.desk, Filters.of(visit.request.query)
    async with desk.db.begin(visit.operator.actor) as tx:
        await audit.record(tx, f"{name}.exported", name, filters.chosen)

    async def rows() -> AsyncIterator[bytes]:
        yield CSV_MARK + csv_line(tuple(columns))
        cursor: str | None = None
        while True:
            page = await pages(cursor, PAGE_MAX)
            names = await names_of(desk, page.items)
            yield b"".join(
                csv_line(cells(each, names[each.merchant_id].name)) for each in page.items
            )
            cursor = page.next_cursor
            if cursor is None:
                return

    day = business_date(desk.db.clock.now()).isoformat()
    return stream_reply(rows(), CSV, name=f"{name}-{day}.csv")

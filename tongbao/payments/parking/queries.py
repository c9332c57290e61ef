"""Read visits to car parks: for the merchant's API, for the channel's notices, for people."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from msgspec.structs import astuple

from tongbao.controls.retention.model import Raw
from tongbao.infra.db import Db, Tx
from tongbao.kernel.ids import from_base32
from tongbao.kernel.licence import Mode
from tongbao.kernel.pages import Page, page_of, page_size
from tongbao.payments.collecting.queries import cursor_id
from tongbao.payments.parking import _store as store
from tongbao.payments.parking.model import (
    Visit,
    VisitExchange,
    VisitFilter,
    VisitNotFound,
    VisitState,
)

EXCHANGES_KEPT: Final = Raw(
    "parking_exchange",
    "What channels were told of parked cars",
    "与渠道关于停车的往来报文",
    store.ERASE_EXCHANGES,
)


_EXCHANGES_MAX: Final = 100


async def visit_of_merchant(on: Db | Tx, visit_id: UUID, merchant: UUID, mode: Mode) -> Visit:
    """Return the merchant's visit.

    Raises:
        VisitNotFound: also for another merchant's, or another mode's.
    """
    found = await store.FIND_VISIT.first(on, visit_id, merchant, mode)
    if found is None:
        raise VisitNotFound
    return found


async def visit(on: Db | Tx, book: int, visit_id: UUID) -> Visit:
    """Return a visit that is known to exist."""
    return await store.GET_VISIT.one(on, book, visit_id)


async def visit_by_number(on: Db | Tx, number: str) -> Visit | None:
    """Return the visit a channel means by our number, if it is one of ours.

    Raises:
        UnknownId: it is not a number of ours at all.
    """
    return await store.FIND_VISIT_ANYWHERE.first(on, from_base32(number))


async def list_visits(
    on: Db | Tx,
    merchant: tuple[UUID, Mode],
    *,
    number: str | None = None,
    status: VisitState | None = None,
    cursor: str | None = None,
    limit: int | None = None,
) -> Page[Visit]:
    """Return a page of a merchant's visits, newest first.

    Raises:
        CursorInvalid, PageSizeInvalid
    """
    size = page_size(limit)
    rows = await store.LIST_VISITS.all(on, *merchant, number, status, cursor_id(cursor), size + 1)
    return page_of(rows, size, lambda row: row.id)


async def shown_visits(
    on: Db | Tx, wanted: VisitFilter, *, cursor: str | None = None, limit: int | None = None
) -> Page[Visit]:
    """Return a page of anybody's visits, newest first, for people of the platform.

    Raises:
        CursorInvalid, PageSizeInvalid
    """
    size, place = page_size(limit), cursor_id(cursor)
    rows = await store.LIST_SHOWN.all(on, *astuple(wanted), place, size + 1)
    return page_of(rows, size, lambda row: row.id)


async def visit_with_id(on: Db | Tx, visit_id: UUID) -> Visit:
    """Return anybody's visit, for people of the platform.

    Raises:
        VisitNotFound
    """
    found = await store.FIND_VISIT_ANYWHERE.first(on, visit_id)
    if found is None:
        raise VisitNotFound
    return found


async def exchanges_of_visit(on: Db | Tx, visit: Visit) -> list[VisitExchange]:
    """Return the latest of what was told to the channel about a visit, oldest first."""
    place = (visit.book, visit.id)
    return (await store.EXCHANGES_OF_VISIT.all(on, *place, _EXCHANGES_MAX))[::-1]

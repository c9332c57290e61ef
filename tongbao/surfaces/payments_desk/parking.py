"""Visits to car parks in the console: the list, filtered and as a file, and one with its story.

The plate is nowhere here: it says who was where, and nobody needs it to see that a fee was taken.
"""

from __future__ import annotations

from typing import Final
from uuid import UUID

from msgspec.structs import replace

from tongbao.infra import audit
from tongbao.infra.outbox import events_of_resource
from tongbao.kernel.ids import UnknownId, parse, show
from tongbao.kernel.pages import Page
from tongbao.parties.identity.model import Permission
from tongbao.parties.merchants.queries import merchant_with_id
from tongbao.payments.callbacks.queries import callbacks_about
from tongbao.payments.collecting.queries import payment as payment_of
from tongbao.payments.parking import queries
from tongbao.payments.parking.model import Visit as CarVisit
from tongbao.payments.parking.model import VisitExchange, VisitFilter, VisitState
from tongbao.rails.channels.capabilities.agreements import Parking
from tongbao.surfaces.operator_console.payments import (
    ROWS,
    Filters,
    merchant_choices,
    names_of,
)
from tongbao.surfaces.operator_console.timeline import (
    act_entries,
    callback_entries,
    event_entries,
    exchange_entries,
)
from tongbao.surfaces.operator_console.visit import PREFIX, Desk, Route, Visit
from tongbao.surfaces.page_kit.evidence import by_day
from tongbao.surfaces.page_kit.replies import Reply, redirect
from tongbao.surfaces.payments_desk.lists import chosen_by, filed, state_of

_NAME: Final = "parking"
_COLUMNS: Final = (
    "visit_id",
    "merchant_id",
    "merchant",
    "mode",
    "merchant_visit_no",
    "channel",
    "place",
    "status",
    "code",
    "payment_id",
    "entered_at",
    "left_at",
    "created_at",
)


async def show_list(visit: Visit) -> Reply:
    """Return the list, or the one visit that was searched for.

    Raises:
        FilterMalformed, UnknownId, CursorInvalid
    """
    desk, filters = visit.desk, Filters.of(visit.request.query)
    if found := await _searched(desk, filters.q):
        return redirect(f"{PREFIX}/{_NAME}/{show('prk', found)}")
    wanted, cursor = _wanted(filters), visit.request.query.get("cursor")
    page = await queries.shown_visits(desk.db, wanted, cursor=cursor, limit=ROWS)
    names = await names_of(desk, page.items)
    facts = {
        **await merchant_choices(desk),
        "filters": filters,
        "states": list(VisitState),
        "channels": [name for name, each in desk.flow.channels.items() if _parks(each)],
        "rows": [(show("prk", each.id), each, names[each.merchant_id].name) for each in page.items],
        "older": filters.address(_NAME, cursor=page.next_cursor) if page.next_cursor else None,
        "cursor": cursor,
    }
    return await visit.page("parking_visits.html", facts)


async def export_list(visit: Visit) -> Reply:
    """Return the filtered list as a file, made while it is sent.

    Raises:
        FilterMalformed, UnknownId
    """
    wanted = _wanted(Filters.of(visit.request.query))

    async def pages(cursor: str | None, limit: int) -> Page[CarVisit]:
        return await queries.shown_visits(visit.desk.db, wanted, cursor=cursor, limit=limit)

    return await filed(visit, _NAME, _COLUMNS, pages, _cells)


async def show_one(visit: Visit) -> Reply:
    """Return a visit's page: what the merchant said, its fee and its story.

    Raises:
        UnknownId, VisitNotFound
    """
    db = visit.desk.db
    car = await queries.visit_with_id(db, parse("prk", visit.params["visit_id"]))
    shown = show("prk", car.id)
    entries = [
        *exchange_entries(map(_told, await queries.exchanges_of_visit(db, car)), visit.texts),
        *callback_entries(await callbacks_about(db, [car.number]), visit.texts),
        *event_entries(await events_of_resource(db, shown), visit.texts),
        *act_entries(await audit.entries_of_subject(db, shown), visit.texts),
    ]
    facts = {
        "car": car,
        "id": shown,
        "merchant": await merchant_with_id(db, car.merchant_id),
        "payment": await payment_of(db, car.book, car.payment_id) if car.payment_id else None,
        "days": by_day(entries),
    }
    return await visit.page("parking_visit.html", facts)


ROUTES: Final = (
    Route("GET", f"/{_NAME}", show_list, Permission.VIEW),
    Route("GET", f"/{_NAME}.csv", export_list, Permission.VIEW),
    Route("GET", f"/{_NAME}/{{visit_id}}", show_one, Permission.VIEW),
)


def _wanted(filters: Filters) -> VisitFilter:
    chosen = chosen_by(filters)
    return VisitFilter(
        merchant_id=chosen.merchant_id,
        mode=chosen.mode,
        status=state_of(VisitState, filters.status),
        channel=chosen.channel,
        number=chosen.number,
        created_from=chosen.created_from,
        created_to=chosen.created_to,
    )


def _told(exchange: VisitExchange) -> VisitExchange:
    """Return an exchange in the words of a car park: a channel that heard of an exit closes it."""
    is_heard = exchange.purpose == "leave" and exchange.outcome == "closed"
    return replace(exchange, outcome="heard") if is_heard else exchange


def _parks(channel: object) -> bool:
    return isinstance(channel, Parking)


async def _searched(desk: Desk, text: str) -> UUID | None:
    """Return the one visit a text can only mean: an id, or our number at the channel."""
    try:
        if text.startswith("prk_"):
            return parse("prk", text)
        found = await queries.visit_by_number(desk.db, text) if text else None
    except UnknownId:
        return None
    return found.id if found else None


def _cells(car: CarVisit, merchant: str) -> list[str]:
    return [
        show("prk", car.id),
        show("mch", car.merchant_id),
        merchant,
        car.mode,
        car.merchant_visit_no,
        car.channel,
        car.place,
        car.state,
        car.code or "",
        show("pay", car.payment_id) if car.payment_id else "",
        car.entered_at.isoformat(),
        car.left_at.isoformat() if car.left_at else "",
        car.created_at.isoformat(),
    ]

"""The routes of events: what happened to the merchant's payments, in the order it did."""

from __future__ import annotations

from datetime import datetime

from litestar import get

from tongbao.infra.db import Db
from tongbao.infra.outbox import (
    EventUnknown,
    EventView,
    event_of_merchant,
    event_view,
    events_of_merchant,
)
from tongbao.infra.web.caller import Caller, needs
from tongbao.kernel.ids import parse
from tongbao.kernel.pages import Page


@get("/v1/events/{event_id:str}", opt=needs("events:read", refuses=[EventUnknown]))
async def get_event(event_id: str, db: Db, caller: Caller) -> EventView:
    """Return one event, as its webhook told it."""
    row = await event_of_merchant(
        db, parse("evt", event_id), merchant_id=caller.merchant_id, mode=caller.mode
    )
    return event_view(row)


@get("/v1/events", opt=needs("events:read"))
async def list_events(
    db: Db,
    caller: Caller,
    *,
    type: str | None = None,  # noqa: A002 - the public name of the filter
    resource_id: str | None = None,
    created_from: datetime | None = None,
    created_to: datetime | None = None,
    cursor: str | None = None,
    limit: int | None = None,
) -> Page[EventView]:
    """Return events, newest first, by type, by the thing they are about, by time (half-open)."""
    page = await events_of_merchant(
        db,
        merchant_id=caller.merchant_id,
        mode=caller.mode,
        type_=type,
        resource_id=resource_id,
        since=created_from,
        until=created_to,
        limit=limit,
        cursor=cursor,
    )
    return Page([event_view(row) for row in page.items], page.next_cursor)


ROUTES = [get_event, list_events]

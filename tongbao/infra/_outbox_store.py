"""The SQL of events; only `outbox` reads this table."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final
from uuid import UUID

from msgspec import Struct

from tongbao.infra.db import Query, Statement
from tongbao.kernel.licence import Mode


class EventRow(Struct, frozen=True):
    """One row of the event table. ``body`` holds the event's own fields, such as ``object``."""

    id: UUID
    type: str
    merchant_id: UUID | None
    mode: Mode
    resource_id: str
    body: dict[str, Any]
    at: datetime
    dispatched_at: datetime | None


class Undispatched(Struct, frozen=True):
    """How many events of a type wait for the dispatcher, and since when the oldest."""

    type: str
    waiting: int
    oldest_at: datetime


_EVENT: Final = "id, type, merchant_id, mode, resource_id, body, at, dispatched_at"

INSERT: Final = Statement(
    "insert into event (id, type, merchant_id, mode, resource_id, body, at)"
    " values ($1, $2, $3, $4, $5, $6, $7) on conflict (id) do nothing"
)
TAKE_UNDISPATCHED: Final = Query(
    EventRow,
    f"""
    select {_EVENT} from event
     where dispatched_at is null and type = any($1::text[])
     order by at, id
     limit $2
       for update skip locked""",
)
MARK_DISPATCHED: Final = Statement(
    "update event set dispatched_at = $2 where id = any($1::uuid[]) and dispatched_at is null"
)
GET: Final = Query(EventRow, f"select {_EVENT} from event where id = $1")

# An event without `object` is between our own domains and is not shown to merchants.
GET_OF_MERCHANT: Final = Query(
    EventRow,
    f"""
    select {_EVENT} from event
     where id = $1 and merchant_id = $2 and mode = $3 and body ? 'object'""",
)
PAGE_OF_MERCHANT: Final = Query(
    EventRow,
    f"""
    select {_EVENT} from event
     where merchant_id = $1 and mode = $2 and body ? 'object'
       and ($3::text is null or type = $3)
       and ($4::text is null or resource_id = $4)
       and ($5::timestamptz is null or at >= $5)
       and ($6::timestamptz is null or at < $6)
       and ($7::timestamptz is null or (at, id) < ($7, $8::uuid))
     order by at desc, id desc
     limit $9""",
)
OF_RESOURCE: Final = Query(
    EventRow, f"select {_EVENT} from event where resource_id = $1 order by at, id"
)
UNDISPATCHED: Final = Query(
    Undispatched,
    "select type, count(*), min(at) from event where dispatched_at is null group by type",
)

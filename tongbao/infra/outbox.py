"""The outbox: facts written in the transaction that made them, told to everyone afterwards.

An event is told at least once to each subscriber and webhook endpoint, in no promised order. One
with an ``object`` field is public: its merchant may list it and be sent it.
"""

from __future__ import annotations

import struct
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec
from msgspec import Struct

from tongbao.infra.copy_rows import Append, moment, sized, text
from tongbao.infra.db import Db, Query, Statement, Tx, Write
from tongbao.infra.failpoints import failpoint
from tongbao.infra.tasks import DEFAULT_POLICY, RetryPolicy, enqueue_raw, tag_of
from tongbao.kernel.errors import NotFound
from tongbao.kernel.ids import new_id, show
from tongbao.kernel.licence import Mode
from tongbao.kernel.pages import Page, decode_moment, page_by_moment, page_size

SUBSCRIBER_TASK: Final = "subscriber:"


class Event(Struct, frozen=True, kw_only=True):
    """Something that happened; a subclass states ``tag="thing.happened"`` and its own fields.

    ``resource_id`` is the public id of what it happened to. A public event has a field
    ``object``: the wire view of that thing as it was then.
    """

    merchant_id: UUID | None
    mode: Mode
    resource_id: str


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


class EventUnknown(NotFound):
    """The merchant has no such event in this mode."""

    code = "event.unknown"
    advice = "Check the id and the mode of the key; list the events to find it."
    advice_zh = "请检查事件标识和密钥所属环境，或通过事件列表查找。"


class Subscriber(Struct, frozen=True):
    """Who else wants to know: ``receive(event, event_id)`` runs as a task of its own.

    ``name`` is stored with the task, so it is as stable as a table's name. ``wants`` says of each
    event whether there is a task for it, where most are of no concern.
    """

    name: str
    receive: Callable[[Any, UUID], Awaitable[None]]
    policy: RetryPolicy = DEFAULT_POLICY
    wants: Callable[[EventRow], bool] | None = None


class EventView(Struct, frozen=True):
    """An event as merchants see it, in the list of events and in webhooks alike."""

    id: str
    type: str
    created_at: datetime
    mode: Mode
    data: dict[str, Any]


FanOut = Callable[[Tx, Sequence[EventRow]], Awaitable[object]]
"""Plans further deliveries of events in the dispatcher's transaction (webhooks)."""

_EVENT: Final = "id, type, merchant_id, mode, resource_id, body, at, dispatched_at"

# The body is given as text: a set of them is then an array of texts, which the driver knows.
_INSERT: Final = Statement(
    "insert into event (id, type, merchant_id, mode, resource_id, body, at)"
    " values ($1, $2, $3, $4, $5, $6::text::jsonb, $7) on conflict (id) do nothing",
    many="""
    insert into event (id, type, merchant_id, mode, resource_id, body, at)
    select asked.id, asked.type, asked.merchant_id, asked.mode, asked.resource_id,
           asked.body::jsonb, asked.at
      from unnest($1::uuid[], $2::text[], $3::uuid[], $4::text[], $5::text[], $6::text[],
                  $7::timestamptz[])
        as asked (id, type, merchant_id, mode, resource_id, body, at)
        on conflict (id) do nothing""",
)
_APPEND: Final = Append("event", ("id", "merchant_id", "at", "type", "mode", "resource_id", "body"))
_ROW: Final = struct.Struct("!hi16si16siq")
_TAKE_UNDISPATCHED: Final = Query(
    EventRow,
    f"""
    select {_EVENT} from event
     where dispatched_at is null and type = any($1::text[])
     order by at, id
     limit $2
       for update skip locked""",
)
_MARK_DISPATCHED: Final = Statement(
    "update event set dispatched_at = $2 where id = any($1::uuid[]) and dispatched_at is null"
)
_GET: Final = Query(EventRow, f"select {_EVENT} from event where id = $1")
_GET_MANY: Final = Query(EventRow, f"select {_EVENT} from event where id = any($1::uuid[])")

# An event without `object` is between our own domains and is not shown to merchants.
_GET_OF_MERCHANT: Final = Query(
    EventRow,
    f"""
    select {_EVENT} from event
     where id = $1 and merchant_id = $2 and mode = $3 and body ? 'object'""",
)
_PAGE_OF_MERCHANT: Final = Query(
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
_OF_RESOURCE: Final = Query(
    EventRow, f"select {_EVENT} from event where resource_id = $1 order by at, id"
)
_UNDISPATCHED: Final = Query(
    Undispatched,
    "select type, count(*) as waiting, min(at) as oldest_at from event"
    " where dispatched_at is null group by type",
)


def event_write(event: Event, *, now: datetime, event_id: UUID | None = None) -> Write:
    """Return the write that publishes an event; with an id of the caller's a repeat is a no-op."""
    body = msgspec.to_builtins(event)
    for name in (type(event).__struct_config__.tag_field, *Event.__struct_fields__):
        del body[name]
    text = msgspec.json.encode(body).decode()
    return _insert(event_id or new_id(), event, text, now)


def object_event_write(event: Event, object_json: bytes, *, now: datetime) -> Write:
    """Return the write of an event that has an object and no more, whose JSON is there already."""
    if event.merchant_id is None:
        raise ValueError("an event with an object is a merchant's")
    fixed = _ROW.pack(7, 16, new_id().bytes, 16, event.merchant_id.bytes, 8, moment(now))
    body = b'\x01{"object":' + object_json + b"}"
    varying = text(tag_of(type(event))), text(event.mode), text(event.resource_id), sized(body)
    return Write(_APPEND, (b"".join([fixed, *varying]),))


def _insert(event_id: UUID, event: Event, body: str, now: datetime) -> Write:
    kind = tag_of(type(event))
    args = (event_id, kind, event.merchant_id, event.mode, event.resource_id, body, now)
    return Write(_INSERT, args)


async def publish(tx: Tx, event: Event) -> UUID:
    """Publish an event with the caller's transaction and return its id."""
    event_id = new_id()
    await event_write(event, now=tx.now, event_id=event_id).run(tx)
    return event_id


def public_types(events: Iterable[type[Event]]) -> frozenset[str]:
    """Return the types merchants may list and subscribe to."""
    return frozenset(tag_of(event) for event in events if "object" in event.__struct_fields__)


def event_of(row: EventRow, event_type: type[Event]) -> Event:
    """Return the event a row holds; fields this program does not know are left out."""
    known = {"merchant_id": row.merchant_id, "mode": row.mode, "resource_id": row.resource_id}
    return msgspec.convert({**row.body, **known}, event_type)


def event_view(row: EventRow) -> EventView:
    """Return what a merchant may see of a public event."""
    data = {"object": row.body["object"]}
    return EventView(show("evt", row.id), row.type, row.at, row.mode, data)


async def dispatch(
    tx: Tx,
    subscribers: Mapping[str, Sequence[Subscriber]],
    fan_outs: Sequence[FanOut],
    *,
    events_max: int = 100,
) -> int:
    """Turn waiting events of the given types into tasks, each event once, and say how many.

    A type that is not in ``subscribers`` was published by a newer version of this program and
    waits for a worker that knows it.
    """
    events = await _TAKE_UNDISPATCHED.all(tx, list(subscribers), events_max)
    if not events:
        return 0
    await enqueue_raw(
        tx,
        [
            (SUBSCRIBER_TASK + subscriber.name, {"event_id": str(event.id)}, str(event.id), tx.now)
            for event in events
            for subscriber in subscribers[event.type]
            if subscriber.wants is None or subscriber.wants(event)
        ],
    )
    for fan_out in fan_outs:
        await fan_out(tx, events)
    await _MARK_DISPATCHED.run(tx, [event.id for event in events], tx.now)
    failpoint("outbox.before_dispatch_commit")
    return len(events)


async def mark_dispatched(tx: Tx, event_id: UUID) -> None:
    """Keep the dispatcher from an event that its publisher tells by itself."""
    await _MARK_DISPATCHED.run(tx, [event_id], tx.now)


async def event_row(on: Db | Tx, event_id: UUID) -> EventRow | None:
    """Return an event of anybody's."""
    return await _GET.first(on, event_id)


async def event_rows(on: Db | Tx, event_ids: Sequence[UUID]) -> dict[UUID, EventRow]:
    """Return those of these events that there are, by id."""
    return {row.id: row for row in await _GET_MANY.all(on, event_ids)}


async def event_of_merchant(
    on: Db | Tx, event_id: UUID, *, merchant_id: UUID, mode: Mode
) -> EventRow:
    """Return one public event of a merchant.

    Raises:
        EventUnknown
    """
    row = await _GET_OF_MERCHANT.first(on, event_id, merchant_id, mode)
    if row is None:
        raise EventUnknown(event=show("evt", event_id))
    return row


async def events_of_merchant(
    on: Db | Tx,
    *,
    merchant_id: UUID,
    mode: Mode,
    type_: str | None = None,
    resource_id: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    limit: int | None = None,
    cursor: str | None = None,
) -> Page[EventRow]:
    """Return a merchant's public events in ``[since, until)``, newest first.

    Raises:
        PageSizeInvalid, CursorInvalid
    """
    size = page_size(limit)
    page_from = decode_moment(cursor)
    rows = await _PAGE_OF_MERCHANT.all(
        on, merchant_id, mode, type_, resource_id, since, until, *page_from, size + 1
    )
    return page_by_moment(rows, size, lambda row: (row.at, row.id))


async def events_of_resource(on: Db | Tx, resource_id: str) -> list[EventRow]:
    """Return everything published about one thing, oldest first, internal events included."""
    return await _OF_RESOURCE.all(on, resource_id)


async def undispatched(on: Db | Tx) -> list[Undispatched]:
    """Return what waits for a dispatcher, by type."""
    return await _UNDISPATCHED.all(on)

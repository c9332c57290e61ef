"""Deliveries: one event for one endpoint; planned by the outbox, listed and replayed by people."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from msgspec import Struct

from tongbao.infra import audit
from tongbao.infra.db import Db, Tx
from tongbao.infra.outbox import EventRow, event_row, event_write, mark_dispatched
from tongbao.infra.tasks import LeasedTask, RetryPolicy, Task, enqueue_leased, enqueue_many
from tongbao.infra.webhooks import _store as store
from tongbao.infra.webhooks.endpoints import Owner, endpoint_of
from tongbao.infra.webhooks.model import (
    DeliveryState,
    DeliveryUnknown,
    EndpointNotEnabled,
    EndpointState,
    Note,
    ReplayRangeTooLarge,
    WebhookAttempt,
    WebhookDelivery,
    WebhookEndpoint,
    WebhookTest,
    matching_filters,
)
from tongbao.kernel.ids import new_id, show
from tongbao.kernel.pages import Page, decode_moment, page_by_moment, page_size

REPLAY_MAX: Final = 10_000


class DeliverWebhook(Task, frozen=True, tag="webhooks.deliver"):
    """Try a delivery until its round ends."""

    delivery_id: UUID
    round: int


DELIVER_POLICY: Final = RetryPolicy(
    attempts_max=20,
    delays=(timedelta(seconds=5), timedelta(minutes=1), timedelta(minutes=30)),
    time_limit=timedelta(minutes=1),
    concurrency_max=8,
)
"""For failures of our own only: what a receiver answers is counted by the delivery."""


class Planned(Struct, frozen=True):
    """A delivery that was planned, and what is known of it by that."""

    delivery_id: UUID
    event: EventRow
    match: store.Match


async def plan_deliveries(
    tx: Tx, events: Sequence[EventRow], *, room: int = 0
) -> tuple[list[Planned], list[LeasedTask]]:
    """Plan a delivery of each public event to each endpoint that asked for its type.

    This is a fan-out of the dispatcher; an event already planned for an endpoint is passed over,
    and then nothing is returned. So many of the first as there is ``room`` are leased to the
    caller, who begins these rows once they are committed.
    """
    public = [event for event in events if event.merchant_id and "object" in event.body]
    merchants = list({event.merchant_id for event in public})
    matches = await store.MATCHES.all(tx, merchants) if merchants else []
    pairs = [
        (event, match)
        for event in public
        for match in matches
        if (match.merchant_id, match.mode) == (event.merchant_id, event.mode)
        and set(match.event_types) & set(matching_filters(event.type))
    ]
    planned = [Planned(new_id(), event, match) for event, match in pairs]
    asked = [(each.delivery_id, each.event, each.match.id) for each in planned]
    if not planned:
        return [], []
    if not await _insert(tx, asked):
        await _send_again(tx, [store.Reopened(each.delivery_id, 1) for each in planned])
        return [], []
    tasks = [_task(each.delivery_id, 1, tx.now) for each in planned]
    await enqueue_many(tx, tasks[room:])
    return planned, await enqueue_leased(tx, tasks[:room])


async def send_test(tx: Tx, owner: Owner, endpoint_id: UUID, *, note: str) -> WebhookDelivery:
    """Send one endpoint, and no other, an event of type ``webhook.test``.

    Raises:
        EndpointUnknown, EndpointNotEnabled
    """
    endpoint = await endpoint_of(tx, owner, endpoint_id)
    _check_enabled(endpoint)
    event_id = new_id()
    event = WebhookTest(
        merchant_id=owner.merchant_id,
        mode=owner.mode,
        resource_id=show("whe", endpoint_id),
        object=Note(note[:200]),
    )
    await event_write(event, now=tx.now, event_id=event_id).run(tx)
    await mark_dispatched(tx, event_id)
    row = await event_row(tx, event_id)
    if row is None:
        raise LookupError(event_id)
    await _plan(tx, [(new_id(), row, endpoint_id)])
    (delivery,) = await store.DELIVERIES_OF_EVENT.all(tx, event_id)
    return delivery


async def replay_delivery(tx: Tx, owner: Owner, delivery_id: UUID) -> WebhookDelivery:
    """Send a closed delivery again, from the first try; one that is still pending goes on.

    Raises:
        DeliveryUnknown, EndpointUnknown, EndpointNotEnabled
    """
    before = await delivery_of(tx, owner, delivery_id)
    _check_enabled(await endpoint_of(tx, owner, before.endpoint_id))
    reopened = await store.REOPEN.first(tx, delivery_id, tx.now)
    if reopened is not None:
        await _send_again(tx, [reopened])
        await audit.record(tx, "webhook_delivery.replay", show("whd", delivery_id), {})
    return await delivery_of(tx, owner, delivery_id)


async def replay_range(
    tx: Tx,
    owner: Owner,
    endpoint_id: UUID,
    *,
    since: datetime,
    until: datetime,
    failed_only: bool = True,
) -> int:
    """Send an endpoint's closed deliveries of events in ``[since, until)`` again; say how many.

    Raises:
        EndpointUnknown, EndpointNotEnabled, ReplayRangeTooLarge
    """
    _check_enabled(await endpoint_of(tx, owner, endpoint_id))
    chosen = (endpoint_id, since, until, failed_only)
    if await store.COUNT_RANGE.one(tx, *chosen) > REPLAY_MAX:
        raise ReplayRangeTooLarge(limit=REPLAY_MAX)
    reopened = await store.REOPEN_RANGE.all(tx, *chosen, tx.now)
    await _send_again(tx, reopened)
    await audit.record(
        tx,
        "webhook_endpoint.replay_range",
        show("whe", endpoint_id),
        {"since": since.isoformat(), "until": until.isoformat(), "count": len(reopened)},
    )
    return len(reopened)


async def delivery_of(on: Db | Tx, owner: Owner, delivery_id: UUID) -> WebhookDelivery:
    """Return one delivery.

    Raises:
        DeliveryUnknown
    """
    found = await store.GET_DELIVERY.first(on, delivery_id, owner.merchant_id, owner.mode)
    if found is None:
        raise DeliveryUnknown(delivery=show("whd", delivery_id))
    return found


async def deliveries_of_endpoint(
    on: Db | Tx,
    owner: Owner,
    endpoint_id: UUID,
    *,
    state: DeliveryState | None = None,
    limit: int | None = None,
    cursor: str | None = None,
) -> Page[WebhookDelivery]:
    """Return an endpoint's deliveries, newest first.

    Raises:
        EndpointUnknown, PageSizeInvalid, CursorInvalid
    """
    await endpoint_of(on, owner, endpoint_id)
    size = page_size(limit)
    at, last_id = decode_moment(cursor)
    rows = await store.DELIVERIES_PAGE.all(on, endpoint_id, state, at, last_id, size + 1)
    return page_by_moment(rows, size, lambda row: (row.created_at, row.id))


async def deliveries_of_event(on: Db | Tx, event_id: UUID) -> list[WebhookDelivery]:
    """Return where an event went, oldest first."""
    return await store.DELIVERIES_OF_EVENT.all(on, event_id)


async def deliveries_of_resource(on: Db | Tx, resource_id: str) -> list[WebhookDelivery]:
    """Return every delivery that spoke of one thing, oldest first, for its timeline."""
    return await store.DELIVERIES_OF_RESOURCE.all(on, resource_id)


async def attempts_of(on: Db | Tx, delivery_id: UUID) -> list[WebhookAttempt]:
    """Return what each try of a delivery met, oldest first."""
    return await store.ATTEMPTS_OF.all(on, delivery_id)


async def _plan(tx: Tx, planned: Sequence[tuple[UUID, EventRow, UUID]]) -> None:
    """Write the deliveries down and have them tried."""
    await _insert(tx, planned)
    await _send_again(tx, [store.Reopened(delivery_id, 1) for delivery_id, _, _ in planned])


async def _insert(tx: Tx, planned: Sequence[tuple[UUID, EventRow, UUID]]) -> bool:
    """Write the deliveries down; return whether all of them are new."""
    inserted = await store.INSERT_DELIVERY.run_set(
        tx,
        [
            (
                delivery_id,
                endpoint_id,
                event.id,
                event.merchant_id,
                event.mode,
                event.resource_id,
                event.type,
                tx.now,
            )
            for delivery_id, event, endpoint_id in planned
        ],
    )
    return inserted == len(planned)


async def _send_again(tx: Tx, deliveries: Sequence[store.Reopened]) -> None:
    await enqueue_many(tx, [_task(each.id, each.round, tx.now) for each in deliveries])


def _task(delivery_id: UUID, round_: int, now: datetime) -> tuple[DeliverWebhook, datetime, str]:
    # The round is part of the key: the task of an earlier round may not be quite over.
    return DeliverWebhook(delivery_id, round_), now, f"{delivery_id}/{round_}"


def _check_enabled(endpoint: WebhookEndpoint) -> None:
    if endpoint.state is not EndpointState.ENABLED:
        raise EndpointNotEnabled(endpoint=show("whe", endpoint.id))

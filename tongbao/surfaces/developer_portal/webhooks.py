"""Events and webhooks: what happened, who is told, how that went, and tell it once more."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Final
from uuid import UUID

from tongbao.infra.db import Tx
from tongbao.infra.outbox import event_of_merchant, event_view, events_of_merchant
from tongbao.infra.webhooks import deliveries, endpoints
from tongbao.infra.webhooks.endpoints import IssuedKey
from tongbao.infra.webhooks.model import DeliveryState
from tongbao.kernel.ids import parse, show
from tongbao.parties.developers.entering import check_still_there
from tongbao.surfaces.developer_portal.visit import Visit
from tongbao.surfaces.page_kit.replies import Reply

_PAGE: Final = 25
_DELIVERIES: Final = 10
_OVERLAP: Final = timedelta(days=1)
_FILTER_MAX: Final = 64
_DESCRIPTION_MAX: Final = 200
_URL_MAX: Final = 500
_HERE: Final = "http://127.0.0.1:3000/webhooks"

Act = Callable[[Tx], Awaitable[None]]


async def show_events(visit: Visit) -> Reply:
    """List events, newest first, by type and by the thing they are about."""
    query, (merchant_id, mode) = visit.request.query, visit.whose
    chosen = {name: query.get(name, "").strip()[:_FILTER_MAX] for name in ("type", "about")}
    page = await events_of_merchant(
        visit.desk.db,
        merchant_id=merchant_id,
        mode=mode,
        type_=chosen["type"] or None,
        resource_id=chosen["about"] or None,
        limit=_PAGE,
        cursor=query.get("cursor"),
    )
    facts = {
        "events": page.items,
        "older": visit.further(page.next_cursor),
        "chosen": chosen,
        "types": sorted(visit.desk.webhook_rules.event_types),
    }
    return visit.page("events.html", facts)


async def show_event(visit: Visit) -> Reply:
    """Show an event as its webhook tells it, and where it went.

    Raises:
        EventUnknown
    """
    merchant_id, mode = visit.whose
    row = await event_of_merchant(
        visit.desk.db, parse("evt", visit.params["event_id"]), merchant_id=merchant_id, mode=mode
    )
    facts = {
        "event": event_view(row),
        "row": row,
        "deliveries": await deliveries.deliveries_of_event(visit.desk.db, row.id),
    }
    return visit.page("event.html", facts)


async def show_endpoints(visit: Visit) -> Reply:
    """List the endpoints and offer to register one."""
    listening = f"tongbao listen --url {visit.desk.public_url} --key key_… --forward-to {_HERE}"
    facts = {
        "listening": listening,
        "endpoints": await endpoints.endpoints_of(visit.desk.db, visit.owner),
        "types": sorted(visit.desk.webhook_rules.event_types),
    }
    return visit.page("webhooks.html", facts)


async def make_endpoint(visit: Visit) -> Reply:
    """Register an address and show its secret in this answer alone.

    Raises:
        UrlNotAllowed, EventTypeUnknown, EndpointLimitReached, DeveloperSessionEnded
    """
    form = visit.request.form
    chosen = form.get("type", "*")
    async with visit.desk.db.begin(visit.developer.actor) as tx:
        await check_still_there(tx, visit.developer)
        issued = await endpoints.create_endpoint(
            tx,
            visit.desk.keyring,
            visit.desk.webhook_rules,
            visit.owner,
            url=form.get("url", "").strip()[:_URL_MAX],
            event_types=[chosen or "*"],
            description=form.get("description", "").strip()[:_DESCRIPTION_MAX],
        )
    return _show_secret(visit, issued)


async def show_endpoint(visit: Visit) -> Reply:
    """Show an endpoint and what was sent to it, try by try.

    Raises:
        EndpointUnknown
    """
    desk, query = visit.desk, visit.request.query
    endpoint = await endpoints.endpoint_of(desk.db, visit.owner, _endpoint_id(visit))
    state = next((each for each in DeliveryState if each.value == query.get("state")), None)
    page = await deliveries.deliveries_of_endpoint(
        desk.db,
        visit.owner,
        endpoint.id,
        state=state,
        limit=_DELIVERIES,
        cursor=query.get("cursor"),
    )
    tried = [(each, await deliveries.attempts_of(desk.db, each.id)) for each in page.items]
    facts = {
        "endpoint": endpoint,
        "public_keys": await endpoints.public_keys_of(desk.db, endpoint.id, desk.db.clock.now()),
        "deliveries": tried,
        "older": visit.further(page.next_cursor),
        "chosen": state,
        "states": list(DeliveryState),
    }
    return visit.page("endpoint.html", facts)


async def rotate_one(visit: Visit) -> Reply:
    """Issue a new key, beside which the old one signs for a day, and show its secret once.

    Raises:
        EndpointUnknown
    """
    async with visit.desk.db.begin(visit.developer.actor) as tx:
        issued = await endpoints.rotate_key(
            tx, visit.desk.keyring, visit.owner, _endpoint_id(visit), overlap=_OVERLAP
        )
    return _show_secret(visit, issued)


async def send_one_test(visit: Visit) -> Reply:
    """Send the endpoint, and no other, an event of type ``webhook.test``.

    Raises:
        EndpointUnknown, EndpointNotEnabled
    """

    async def send(tx: Tx) -> None:
        await deliveries.send_test(
            tx, visit.owner, _endpoint_id(visit), note="asked for in the portal"
        )

    return await _done(visit, send, "test_sent")


async def enable_one(visit: Visit) -> Reply:
    """Have the endpoint told again.

    Raises:
        EndpointUnknown
    """

    async def enable(tx: Tx) -> None:
        await endpoints.enable_endpoint(tx, visit.owner, _endpoint_id(visit))

    return await _done(visit, enable, "endpoint_enabled")


async def disable_one(visit: Visit) -> Reply:
    """Have the endpoint told nothing more.

    Raises:
        EndpointUnknown
    """

    async def disable(tx: Tx) -> None:
        await endpoints.disable_endpoint(tx, visit.owner, _endpoint_id(visit))

    return await _done(visit, disable, "endpoint_disabled")


async def delete_one(visit: Visit) -> Reply:
    """Remove an endpoint and destroy its keys.

    Raises:
        EndpointUnknown
    """
    async with visit.desk.db.begin(visit.developer.actor) as tx:
        await endpoints.delete_endpoint(tx, visit.owner, _endpoint_id(visit))
    return visit.back_to("webhooks", "endpoint_deleted")


async def replay_one(visit: Visit) -> Reply:
    """Send a delivery that has ended once more.

    Raises:
        DeliveryUnknown, EndpointUnknown, EndpointNotEnabled
    """
    async with visit.desk.db.begin(visit.developer.actor) as tx:
        delivery_id = parse("whd", visit.params["delivery_id"])
        sent = await deliveries.replay_delivery(tx, visit.owner, delivery_id)
    return visit.back_to(f"webhooks/{show('whe', sent.endpoint_id)}", "replayed")


async def _done(visit: Visit, act: Act, done: str) -> Reply:
    """Do something to an endpoint in one transaction and go back to it."""
    async with visit.desk.db.begin(visit.developer.actor) as tx:
        await act(tx)
    return visit.back_to(f"webhooks/{show('whe', _endpoint_id(visit))}", done)


def _endpoint_id(visit: Visit) -> UUID:
    return parse("whe", visit.params["endpoint_id"])


def _show_secret(visit: Visit, issued: IssuedKey) -> Reply:
    facts = {
        "endpoint": issued.endpoint,
        "secret": issued.secret.reveal(),
        "public_key": issued.public_key,
    }
    return visit.page("endpoint_made.html", facts)

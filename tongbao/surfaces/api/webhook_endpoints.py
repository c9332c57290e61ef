"""The routes of webhook endpoints and of what was sent to them."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated
from uuid import UUID

import msgspec
from litestar import Response, delete, get, patch, post
from msgspec import Meta, Struct

from tongbao.infra.crypto import Keyring
from tongbao.infra.db import Db
from tongbao.infra.web.caller import Caller, needs
from tongbao.infra.web.idempotency import Idempotency, answer_once
from tongbao.infra.web.request import ApiRequest
from tongbao.infra.web.versions import VersionUnknown
from tongbao.infra.webhooks import deliveries, endpoints
from tongbao.infra.webhooks.endpoints import IssuedKey, Owner
from tongbao.infra.webhooks.model import (
    OVERLAP_MAX,
    AttemptOutcome,
    DeliveryState,
    DeliveryUnknown,
    DisabledBecause,
    EndpointLimitReached,
    EndpointNotEnabled,
    EndpointState,
    EndpointUnknown,
    EventTypeUnknown,
    OverlapInvalid,
    UrlNotAllowed,
    WebhookDelivery,
    WebhookEndpoint,
    WebhookRules,
)
from tongbao.kernel.ids import parse, show
from tongbao.kernel.licence import Mode
from tongbao.kernel.pages import Page

EventTypes = Annotated[list[Annotated[str, Meta(max_length=64)]], Meta(max_length=50)]
Version = Annotated[str, Meta(pattern=r"^\d{4}-\d{2}-\d{2}$")]
Url = Annotated[str, Meta(min_length=8, max_length=500)]


class CreateEndpoint(Struct, frozen=True, forbid_unknown_fields=True):
    """Tell this address what happens; no types, or ``*``, means everything."""

    url: Url
    event_types: EventTypes = []
    description: Annotated[str, Meta(max_length=200)] = ""
    api_version: Version | None = None
    """The version of the API that events are in; left out, today's, which it keeps."""


class UpdateEndpoint(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Change what is given and leave the rest."""

    url: Url | None = None
    event_types: EventTypes | None = None
    description: Annotated[str, Meta(max_length=200)] | None = None
    enabled: bool | None = None
    api_version: Version | None = None


class RotateKey(Struct, frozen=True, forbid_unknown_fields=True):
    """Issue a new key; the old one signs beside it for this long."""

    overlap_s: Annotated[int, Meta(ge=0, le=int(OVERLAP_MAX.total_seconds()))] = 86_400


class WebhookEndpointView(Struct, frozen=True, kw_only=True):
    """A webhook endpoint; the secret is there only in the answer that made it."""

    id: str
    mode: Mode
    url: str
    description: str
    event_types: tuple[str, ...]
    state: EndpointState
    disabled_because: DisabledBecause | None
    public_keys: list[str]
    secret: str | None
    created_at: datetime
    api_version: str | None


class DeliveryView(Struct, frozen=True, kw_only=True):
    """One event on its way to one endpoint."""

    id: str
    endpoint_id: str
    event_id: str
    event_type: str
    resource_id: str
    state: DeliveryState
    attempts: int
    last_status: int | None
    next_at: datetime | None
    created_at: datetime
    closed_at: datetime | None


class AttemptView(Struct, frozen=True):
    """What one try of a delivery met."""

    number: int
    at: datetime
    outcome: AttemptOutcome
    status: int | None
    duration_ms: int
    reply: str


def _owner(caller: Caller) -> Owner:
    return Owner(caller.merchant_id, caller.mode)


def _view(
    endpoint: WebhookEndpoint, public_keys: list[str], secret: str | None = None
) -> WebhookEndpointView:
    return WebhookEndpointView(
        id=show("whe", endpoint.id),
        mode=endpoint.mode,
        url=endpoint.url,
        description=endpoint.description,
        event_types=endpoint.event_types,
        state=endpoint.state,
        disabled_because=endpoint.disabled_because,
        public_keys=public_keys,
        secret=secret,
        created_at=endpoint.created_at,
        api_version=endpoint.api_version,
    )


def _issued(issued: IssuedKey, public_keys: list[str]) -> WebhookEndpointView:
    return _view(issued.endpoint, public_keys, issued.secret.reveal())


def _without_secret(view: WebhookEndpointView) -> WebhookEndpointView:
    return msgspec.structs.replace(view, secret=None)


async def _shown(db: Db, endpoint: WebhookEndpoint) -> WebhookEndpointView:
    return _view(endpoint, await endpoints.public_keys_of(db, endpoint.id, db.clock.now()))


def view_delivery(delivery: WebhookDelivery) -> DeliveryView:
    """Return a delivery as its merchant sees it."""
    return DeliveryView(
        id=show("whd", delivery.id),
        endpoint_id=show("whe", delivery.endpoint_id),
        event_id=show("evt", delivery.event_id),
        event_type=delivery.event_type,
        resource_id=delivery.resource_id,
        state=delivery.state,
        attempts=delivery.attempts,
        last_status=delivery.last_status,
        next_at=delivery.next_at,
        created_at=delivery.created_at,
        closed_at=delivery.closed_at,
    )


@post(
    "/v1/webhook_endpoints",
    opt=needs(
        "webhooks:write",
        idempotent=True,
        refuses=[UrlNotAllowed, EventTypeUnknown, VersionUnknown, EndpointLimitReached],
        request_example=CreateEndpoint("https://shop.example/webhooks", ["payment.succeeded"]),
    ),
)
async def create_webhook_endpoint(
    data: CreateEndpoint,
    request: ApiRequest,
    db: Db,
    caller: Caller,
    *,
    keyring: Keyring,
    webhook_rules: WebhookRules,
) -> Response[WebhookEndpointView]:
    """Register an address. The secret is shown in this answer and never again."""

    async def fresh(use: Idempotency) -> WebhookEndpointView:
        async with db.begin(caller.actor) as tx:
            issued = await endpoints.create_endpoint(
                tx,
                keyring,
                webhook_rules,
                _owner(caller),
                url=data.url,
                event_types=data.event_types or ["*"],
                description=data.description,
                api_version=data.api_version,
            )
            await use.take(tx, issued.endpoint.id)
        return _issued(issued, [issued.public_key])

    async def resume(endpoint_id: UUID) -> WebhookEndpointView:
        return await _shown(db, await endpoints.endpoint_of(db, _owner(caller), endpoint_id))

    return await answer_once(request, db, fresh=fresh, resume=resume, stored=_without_secret)


@get("/v1/webhook_endpoints", opt=needs("webhooks:read"))
async def list_webhook_endpoints(db: Db, caller: Caller) -> Page[WebhookEndpointView]:
    """Return the merchant's endpoints, newest first; there are at most 16."""
    found = await endpoints.endpoints_of(db, _owner(caller))
    return Page([await _shown(db, endpoint) for endpoint in found])


@get(
    "/v1/webhook_endpoints/{endpoint_id:str}",
    opt=needs("webhooks:read", refuses=[EndpointUnknown]),
)
async def get_webhook_endpoint(endpoint_id: str, db: Db, caller: Caller) -> WebhookEndpointView:
    """Return one endpoint."""
    target = parse("whe", endpoint_id)
    return await _shown(db, await endpoints.endpoint_of(db, _owner(caller), target))


@patch(
    "/v1/webhook_endpoints/{endpoint_id:str}",
    opt=needs(
        "webhooks:write",
        refuses=[EndpointUnknown, UrlNotAllowed, EventTypeUnknown, VersionUnknown],
        request_example=UpdateEndpoint(event_types=["payment.succeeded", "refund.succeeded"]),
    ),
)
async def update_webhook_endpoint(
    endpoint_id: str, data: UpdateEndpoint, db: Db, webhook_rules: WebhookRules, caller: Caller
) -> WebhookEndpointView:
    """Change an endpoint, or switch it off and on."""
    target, owner = parse("whe", endpoint_id), _owner(caller)
    async with db.begin(caller.actor) as tx:
        endpoint = await endpoints.update_endpoint(
            tx,
            webhook_rules,
            owner,
            target,
            url=data.url,
            event_types=data.event_types,
            description=data.description,
            api_version=data.api_version,
        )
        if data.enabled is not None:
            switch = endpoints.enable_endpoint if data.enabled else endpoints.disable_endpoint
            endpoint = await switch(tx, owner, target)
    return await _shown(db, endpoint)


@delete(
    "/v1/webhook_endpoints/{endpoint_id:str}",
    status_code=204,
    opt=needs("webhooks:write", refuses=[EndpointUnknown]),
)
async def delete_webhook_endpoint(endpoint_id: str, db: Db, caller: Caller) -> None:
    """Remove an endpoint and destroy its keys; the log of what was sent stays."""
    async with db.begin(caller.actor) as tx:
        await endpoints.delete_endpoint(tx, _owner(caller), parse("whe", endpoint_id))


@post(
    "/v1/webhook_endpoints/{endpoint_id:str}/rotate_key",
    opt=needs(
        "webhooks:write",
        idempotent=True,
        refuses=[EndpointUnknown, OverlapInvalid],
        request_example=RotateKey(),
    ),
)
async def rotate_webhook_key(
    endpoint_id: str,
    data: RotateKey,
    request: ApiRequest,
    db: Db,
    *,
    keyring: Keyring,
    caller: Caller,
) -> Response[WebhookEndpointView]:
    """Issue a new key. The secret is shown in this answer and never again."""
    target, owner = parse("whe", endpoint_id), _owner(caller)

    async def fresh(use: Idempotency) -> WebhookEndpointView:
        async with db.begin(caller.actor) as tx:
            await use.take(tx, target)
            issued = await endpoints.rotate_key(
                tx, keyring, owner, target, overlap=timedelta(seconds=data.overlap_s)
            )
            keys = await endpoints.public_keys_of(tx, target, tx.now)
        return _issued(issued, keys)

    async def resume(found: UUID) -> WebhookEndpointView:
        return await _shown(db, await endpoints.endpoint_of(db, owner, found))

    return await answer_once(request, db, fresh=fresh, resume=resume, stored=_without_secret)


@post(
    "/v1/webhook_endpoints/{endpoint_id:str}/test",
    opt=needs("webhooks:write", idempotent=True, refuses=[EndpointUnknown, EndpointNotEnabled]),
)
async def test_webhook_endpoint(
    endpoint_id: str, request: ApiRequest, db: Db, caller: Caller
) -> Response[DeliveryView]:
    """Send this endpoint, and no other, an event of type ``webhook.test``."""
    target, owner = parse("whe", endpoint_id), _owner(caller)

    async def fresh(use: Idempotency) -> DeliveryView:
        async with db.begin(caller.actor) as tx:
            delivery = await deliveries.send_test(tx, owner, target, note="asked for by API")
            await use.take(tx, delivery.id)
        return view_delivery(delivery)

    async def resume(delivery_id: UUID) -> DeliveryView:
        return view_delivery(await deliveries.delivery_of(db, owner, delivery_id))

    return await answer_once(request, db, fresh=fresh, resume=resume)


@get(
    "/v1/webhook_endpoints/{endpoint_id:str}/deliveries",
    opt=needs("webhooks:read", refuses=[EndpointUnknown]),
)
async def list_webhook_deliveries(
    endpoint_id: str,
    db: Db,
    caller: Caller,
    *,
    status: DeliveryState | None = None,
    cursor: str | None = None,
    limit: int | None = None,
) -> Page[DeliveryView]:
    """Return what was sent to an endpoint, newest first."""
    page = await deliveries.deliveries_of_endpoint(
        db, _owner(caller), parse("whe", endpoint_id), state=status, limit=limit, cursor=cursor
    )
    return Page([view_delivery(delivery) for delivery in page.items], page.next_cursor)


@get(
    "/v1/webhook_deliveries/{delivery_id:str}/attempts",
    opt=needs("webhooks:read", refuses=[DeliveryUnknown]),
)
async def list_delivery_attempts(delivery_id: str, db: Db, caller: Caller) -> Page[AttemptView]:
    """Return what each try of a delivery met, oldest first: the answer to "why did it not come"."""
    found = await deliveries.delivery_of(db, _owner(caller), parse("whd", delivery_id))
    tried = await deliveries.attempts_of(db, found.id)
    return Page(
        [AttemptView(a.number, a.at, a.outcome, a.status, a.duration_ms, a.reply) for a in tried]
    )


@post(
    "/v1/webhook_deliveries/{delivery_id:str}/replay",
    opt=needs(
        "webhooks:write",
        idempotent=True,
        refuses=[DeliveryUnknown, EndpointUnknown, EndpointNotEnabled],
    ),
)
async def replay_webhook_delivery(
    delivery_id: str, request: ApiRequest, db: Db, caller: Caller
) -> Response[DeliveryView]:
    """Send a delivery that has ended again, from the first try."""
    target, owner = parse("whd", delivery_id), _owner(caller)

    async def fresh(use: Idempotency) -> DeliveryView:
        async with db.begin(caller.actor) as tx:
            await use.take(tx, target)
            return view_delivery(await deliveries.replay_delivery(tx, owner, target))

    async def resume(found: UUID) -> DeliveryView:
        return view_delivery(await deliveries.delivery_of(db, owner, found))

    return await answer_once(request, db, fresh=fresh, resume=resume)


ROUTES = [
    create_webhook_endpoint,
    list_webhook_endpoints,
    get_webhook_endpoint,
    update_webhook_endpoint,
    delete_webhook_endpoint,
    rotate_webhook_key,
    test_webhook_endpoint,
    list_webhook_deliveries,
    list_delivery_attempts,
    replay_webhook_delivery,
]

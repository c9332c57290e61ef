"""Endpoints: where a merchant wants to be told, what about, and the keys that sign for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from msgspec import Struct

from tongbao.infra import audit
from tongbao.infra.crypto import Keyring, bind
from tongbao.infra.db import Db, Tx
from tongbao.infra.outbox import publish
from tongbao.infra.settings import Secret
from tongbao.infra.webhooks import _store as store
from tongbao.infra.webhooks.model import (
    ENDPOINTS_MAX,
    OVERLAP_MAX,
    DisabledBecause,
    EndpointLimitReached,
    EndpointUnknown,
    OverlapInvalid,
    WebhookEndpoint,
    WebhookEndpointDisabled,
    WebhookKey,
    WebhookRules,
    check_event_types,
    check_url,
    endpoint_view,
)
from tongbao.infra.webhooks.signing import SigningKey, new_signing_key, unpacked
from tongbao.kernel.errors import Fact
from tongbao.kernel.ids import new_id, show
from tongbao.kernel.licence import Mode

_PURPOSE: Final = "webhook.secret"
_DESCRIPTION_MAX: Final = 200


class Owner(Struct, frozen=True):
    """Whose endpoints are meant: every look-up names both, so that nobody reaches another's."""

    merchant_id: UUID
    mode: Mode


class IssuedKey(Struct, frozen=True):
    """A new key of an endpoint; the secret is shown this once."""

    endpoint: WebhookEndpoint
    secret: Secret
    public_key: str


async def create_endpoint(
    tx: Tx,
    keyring: Keyring,
    rules: WebhookRules,
    owner: Owner,
    *,
    url: str,
    event_types: Sequence[str],
    description: str = "",
    api_version: str | None = None,
) -> IssuedKey:
    """Add an endpoint with a key of its own; it is told in a version of the API, and keeps that.

    Raises:
        UrlNotAllowed, EventTypeUnknown, VersionUnknown, EndpointLimitReached
    """
    version = rules.check_version(api_version)
    check_url(url, owner.mode, rules)
    wanted = check_event_types(event_types, rules.event_types)
    description = description[:_DESCRIPTION_MAX]
    for _ in range(ENDPOINTS_MAX):  # each turn lost means that another request took a slot
        endpoint = await store.INSERT_ENDPOINT.first(
            *(tx, new_id(), owner.merchant_id, owner.mode, url, description, wanted, tx.now),
            version,
        )
        if endpoint is not None:
            break
        if await store.COUNT_ENDPOINTS.one(tx, owner.merchant_id, owner.mode) >= ENDPOINTS_MAX:
            raise EndpointLimitReached(limit=ENDPOINTS_MAX)
    else:
        raise EndpointLimitReached(limit=ENDPOINTS_MAX)
    await _record(tx, "create", endpoint, {"url": url})
    return await _issue_key(tx, keyring, endpoint)


async def update_endpoint(
    tx: Tx,
    rules: WebhookRules,
    owner: Owner,
    endpoint_id: UUID,
    *,
    url: str | None = None,
    event_types: Sequence[str] | None = None,
    description: str | None = None,
    api_version: str | None = None,
) -> WebhookEndpoint:
    """Change what is given and leave the rest.

    Raises:
        EndpointUnknown, UrlNotAllowed, EventTypeUnknown, VersionUnknown
    """
    before = await _locked(tx, owner, endpoint_id)
    if url is not None:
        check_url(url, owner.mode, rules)
    wanted: Sequence[str] = before.event_types
    if event_types is not None:
        wanted = check_event_types(event_types, rules.event_types)
    if description is not None:
        description = description[:_DESCRIPTION_MAX]
    after = await store.UPDATE_ENDPOINT.one(
        tx,
        endpoint_id,
        before.url if url is None else url,
        before.description if description is None else description,
        wanted,
        before.api_version if api_version is None else rules.check_version(api_version),
    )
    await _record(tx, "update", after, {"url_before": before.url, "url": after.url})
    return after


async def rotate_key(
    tx: Tx, keyring: Keyring, owner: Owner, endpoint_id: UUID, *, overlap: timedelta
) -> IssuedKey:
    """Issue a new key; the one in use until now signs beside it for the overlap.

    A key that was already on its way out ends at once, so at most two ever sign. With no overlap
    (a secret that leaked) the old one ends at once too.

    Raises:
        EndpointUnknown, OverlapInvalid
    """
    if not timedelta() <= overlap <= OVERLAP_MAX:
        raise OverlapInvalid(param="overlap")
    endpoint = await _locked(tx, owner, endpoint_id)
    await store.DROP_RETIRING_KEYS.run(tx, endpoint_id)
    await store.RETIRE_KEYS.run(tx, endpoint_id, tx.now + overlap)
    await _record(tx, "rotate_key", endpoint, {"overlap_s": int(overlap.total_seconds())})
    return await _issue_key(tx, keyring, endpoint)


async def enable_endpoint(tx: Tx, owner: Owner, endpoint_id: UUID) -> WebhookEndpoint:
    """Let an endpoint be told again; what it missed is sent only by a replay.

    Raises:
        EndpointUnknown
    """
    await _locked(tx, owner, endpoint_id)
    endpoint = await store.ENABLE_ENDPOINT.one(tx, endpoint_id)
    await _record(tx, "enable", endpoint, {})
    return endpoint


async def disable_endpoint(tx: Tx, owner: Owner, endpoint_id: UUID) -> WebhookEndpoint:
    """Tell an endpoint nothing until it is enabled again.

    Raises:
        EndpointUnknown
    """
    before = await _locked(tx, owner, endpoint_id)
    after = await store.DISABLE_ENDPOINT.first(tx, endpoint_id, DisabledBecause.MERCHANT)
    if after is None:  # it was disabled already: a repeat changes nothing
        return before
    await _record(tx, "disable", after, {})
    return after


async def give_up_on_endpoint(tx: Tx, endpoint_id: UUID, why: DisabledBecause) -> None:
    """Disable an endpoint that is gone or keeps failing, and tell its merchant by an event."""
    endpoint = await store.DISABLE_ENDPOINT.first(tx, endpoint_id, why)
    if endpoint is None:
        return  # another delivery came to the same end first
    await _record(tx, "give_up", endpoint, {"because": why})
    await publish(
        tx,
        WebhookEndpointDisabled(
            merchant_id=endpoint.merchant_id,
            mode=endpoint.mode,
            resource_id=show("whe", endpoint_id),
            object=endpoint_view(endpoint),
        ),
    )


async def delete_endpoint(tx: Tx, owner: Owner, endpoint_id: UUID) -> None:
    """Remove an endpoint and destroy its keys; its delivery log stays.

    Raises:
        EndpointUnknown
    """
    endpoint = await _locked(tx, owner, endpoint_id)
    await store.DROP_KEYS.run(tx, endpoint_id)
    await store.DELETE_ENDPOINT.run(tx, endpoint_id)
    await _record(tx, "delete", endpoint, {"url": endpoint.url})


async def endpoints_of(on: Db | Tx, owner: Owner) -> list[WebhookEndpoint]:
    """Return a merchant's endpoints, newest first; there are never many."""
    return await store.ENDPOINTS_OF.all(on, owner.merchant_id, owner.mode)


async def endpoint_of(on: Db | Tx, owner: Owner, endpoint_id: UUID) -> WebhookEndpoint:
    """Return one endpoint.

    Raises:
        EndpointUnknown
    """
    found = await store.GET_ENDPOINT.first(on, endpoint_id, owner.merchant_id, owner.mode)
    if found is None:
        raise EndpointUnknown(endpoint=show("whe", endpoint_id))
    return found


async def public_keys_of(on: Db | Tx, endpoint_id: UUID, now: datetime) -> list[str]:
    """Return the keys by which anybody can verify what we send now, newest first."""
    return [key.public_key for key in await store.KEYS_IN_USE.all(on, [endpoint_id], now)]


async def signing_keys_of(
    on: Db | Tx, endpoint_ids: Sequence[UUID], now: datetime
) -> dict[UUID, list[WebhookKey]]:
    """Return the keys that sign now, as they are sealed, of each endpoint, newest first."""
    found: dict[UUID, list[WebhookKey]] = {}
    for key in await store.KEYS_IN_USE.all(on, endpoint_ids, now):
        found.setdefault(key.endpoint_id, []).append(key)
    return found


def opened_key(keyring: Keyring, key: WebhookKey) -> SigningKey:
    """Return a key as it signs.

    Raises:
        SealUnreadable
    """
    return unpacked(keyring.open(_PURPOSE, key.sealed, _place(key.endpoint_id, key.id)))


async def _issue_key(tx: Tx, keyring: Keyring, endpoint: WebhookEndpoint) -> IssuedKey:
    key, key_id = new_signing_key(), new_id()
    sealed = keyring.seal(_PURPOSE, key.packed(), _place(endpoint.id, key_id))
    await store.INSERT_KEY.run(tx, key_id, endpoint.id, sealed, key.public_text, tx.now)
    return IssuedKey(endpoint, Secret(key.secret_text), key.public_text)


async def _locked(tx: Tx, owner: Owner, endpoint_id: UUID) -> WebhookEndpoint:
    found = await store.LOCK_ENDPOINT.first(tx, endpoint_id, owner.merchant_id, owner.mode)
    if found is None:
        raise EndpointUnknown(endpoint=show("whe", endpoint_id))
    return found


async def _record(tx: Tx, act: str, endpoint: WebhookEndpoint, facts: Mapping[str, Fact]) -> None:
    await audit.record(tx, f"webhook_endpoint.{act}", show("whe", endpoint.id), facts)


def _place(endpoint_id: UUID, key_id: UUID) -> bytes:
    return bind("webhook_key", endpoint_id, key_id)

"""The routes of API keys. A secret is in the first answer only, never in a stored or later one."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Literal
from uuid import UUID

import msgspec
from litestar import Response, get, post
from msgspec import UNSET, Meta, Struct, UnsetType

from tongbao.infra.crypto import Keyring
from tongbao.infra.db import Db
from tongbao.infra.public_keys import (
    PEM_LENGTH_MAX,
    PublicKeyUnusable,
    SigningAlgorithm,
    read_public_key,
)
from tongbao.infra.web.caller import Caller, needs
from tongbao.infra.web.idempotency import Idempotency, answer_once
from tongbao.infra.web.request import ApiRequest
from tongbao.infra.web.versions import CURRENT
from tongbao.kernel.clock import real_now
from tongbao.kernel.ids import new_id, parse, show
from tongbao.kernel.licence import Mode
from tongbao.kernel.pages import Page
from tongbao.parties.identity import queries
from tongbao.parties.identity.keys import revoke_key, roll_key
from tongbao.parties.identity.model import (
    OVERLAP_MAX,
    ApiKey,
    KeyEnded,
    KeyNotFound,
    OverlapTooLong,
    ScopesExceedOwn,
)


class ApiKeyView(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An API key as its merchant sees it."""

    id: str
    object: Literal["api_key"]
    mode: Mode
    name: str
    scopes: list[str]
    secret_tail: str  # the last four characters, to tell keys apart
    algorithm: SigningAlgorithm  # how requests with it are signed
    api_version: str  # what its requests are in, unless a header says another
    is_good: bool
    created_at: datetime
    expires_at: datetime | UnsetType = UNSET
    revoked_at: datetime | UnsetType = UNSET
    last_used_at: datetime | UnsetType = UNSET  # to the hour
    replaced_by: str | UnsetType = UNSET
    secret: str | UnsetType = UNSET  # in the first answer to its making only


class RollApiKey(Struct, frozen=True, forbid_unknown_fields=True):
    """Replace the key; the old one stays good for so long.

    With a public key of yours (PEM: Ed25519, EC P-256, RSA of 2048 bits or more, SM2) the new key's
    requests are signed by its private half as of RFC 9421, and its secret only encrypts fields.
    """

    overlap_s: Annotated[int, Meta(ge=0, le=int(OVERLAP_MAX.total_seconds()))] = 86_400
    public_key: Annotated[str, Meta(min_length=1, max_length=PEM_LENGTH_MAX)] | UnsetType = UNSET


@get("/v1/api_keys", opt=needs("api_keys:read"))
async def list_api_keys(
    db: Db, caller: Caller, *, cursor: str | None = None, limit: int | None = None
) -> Page[ApiKeyView]:
    """Return the merchant's keys of this mode, newest first, without their secrets."""
    page = await queries.keys_of_merchant(
        db, caller.merchant_id, caller.mode, cursor=cursor, limit=limit
    )
    return Page([view_key(key) for key in page.items], page.next_cursor)


@get("/v1/api_keys/{key_id:str}", opt=needs("api_keys:read", refuses=[KeyNotFound]))
async def get_api_key(key_id: str, db: Db, caller: Caller) -> ApiKeyView:
    """Return one key, without its secret."""
    key = await queries.key_of_merchant(db, parse("key", key_id), caller.merchant_id, caller.mode)
    return view_key(key)


@post(
    "/v1/api_keys/{key_id:str}/roll",
    opt=needs(
        "api_keys:write",
        idempotent=True,
        refuses=[KeyNotFound, KeyEnded, OverlapTooLong, ScopesExceedOwn, PublicKeyUnusable],
        request_example=RollApiKey(),
    ),
)
async def roll_api_key(
    key_id: str, data: RollApiKey, request: ApiRequest, *, db: Db, keyring: Keyring, caller: Caller
) -> Response[ApiKeyView]:
    """Replace a key by one with the same scopes, and show the new secret once.

    Until the overlap ends both are good. When the answer is lost, so is the secret: roll again.
    """
    old_id = parse("key", key_id)
    merchant_id, mode = caller.merchant_id, caller.mode
    given = data.public_key
    public_key = None if given is UNSET else read_public_key(given, "$.public_key")

    async def fresh(use: Idempotency) -> ApiKeyView:
        old = await queries.key_of_merchant(db, old_id, merchant_id, mode)
        if not caller.scopes.issuperset(old.scopes):
            raise ScopesExceedOwn
        new_key_id = new_id()
        async with db.begin(caller.actor) as tx:
            await use.take(tx, new_key_id)
            new = await roll_key(
                tx,
                keyring,
                old,
                overlap=timedelta(seconds=data.overlap_s),
                new_key_id=new_key_id,
                public_key=public_key,
            )
        return msgspec.structs.replace(view_key(new.key), secret=new.secret.reveal())

    async def resume(new_key_id: UUID) -> ApiKeyView:
        return view_key(await queries.key_of_merchant(db, new_key_id, merchant_id, mode))

    return await answer_once(request, db, fresh=fresh, resume=resume, stored=_without_secret)


@post(
    "/v1/api_keys/{key_id:str}/revoke",
    status_code=200,
    opt=needs("api_keys:write", refuses=[KeyNotFound]),
)
async def revoke_api_key(key_id: str, db: Db, caller: Caller) -> ApiKeyView:
    """End a key at once; safe to repeat."""
    async with db.begin(caller.actor) as tx:
        key = await revoke_key(tx, caller.merchant_id, caller.mode, parse("key", key_id))
    return view_key(key)


ROUTES = [list_api_keys, get_api_key, roll_api_key, revoke_api_key]


def view_key(key: ApiKey) -> ApiKeyView:
    """Return the key as its merchant may see it."""
    return ApiKeyView(
        id=show("key", key.id),
        object="api_key",
        mode=key.mode,
        name=key.name,
        scopes=key.scopes,
        secret_tail=key.secret_tail,
        algorithm=key.algorithm,
        api_version=key.api_version or CURRENT,
        is_good=key.is_good(real_now()),
        created_at=key.created_at,
        expires_at=key.expires_at or UNSET,
        revoked_at=key.revoked_at or UNSET,
        last_used_at=key.last_used_at or UNSET,
        replaced_by=show("key", key.rolled_to_id) if key.rolled_to_id else UNSET,
    )


def _without_secret(view: ApiKeyView) -> ApiKeyView:
    return msgspec.structs.replace(view, secret=UNSET)

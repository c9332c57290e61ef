"""The routes of keys for codes without network, which only a licensed firm has."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final, Literal
from uuid import UUID

from litestar import Response, get, post
from litestar.handlers import HTTPRouteHandler
from msgspec import UNSET, Meta, Struct, UnsetType
from msgspec.structs import replace

from tongbao.infra.crypto import Keyring
from tongbao.infra.db import Db
from tongbao.infra.web.caller import Caller, needs
from tongbao.infra.web.idempotency import Idempotency, answer_once
from tongbao.infra.web.interface_numbers import Area
from tongbao.infra.web.request import ApiRequest
from tongbao.kernel.clock import real_now
from tongbao.kernel.ids import new_id, parse, show
from tongbao.kernel.licence import Licence
from tongbao.kernel.pages import Page
from tongbao.parties.accounts.model import Wallet, WalletFrozen, WalletNotFound
from tongbao.parties.accounts.queries import wallet_of_caller
from tongbao.parties.offline_codes.keys import (
    AliasesTaken,
    GivenKey,
    allowance_of,
    give_key,
    key_of_caller,
    key_of_wallet,
    keys_of_wallet,
    revoke_key,
    status_of,
)
from tongbao.parties.offline_codes.model import (
    NUMBER_DIGITS,
    PREFIX,
    STEP_S,
    OfflineAllowance,
    OfflineKey,
    OfflineKeyNotFound,
    OfflineKeysTooMany,
)


class GiveOfflineKey(Struct, frozen=True, forbid_unknown_fields=True):
    """Give a phone a key; ``replaces`` is the id of the one it has had so far, if it had one."""

    device_name: Annotated[str, Meta(min_length=1, max_length=64)]
    replaces: Annotated[str, Meta(max_length=64)] | None = None


class OfflineKeyView(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A phone's key for codes without network. ``secret`` is hex, and shown once.

    The code of a step is ``prefix``, ``alias`` and a one-time number of ``digits`` digits; a step
    is ``step_s`` seconds of real time. ``server_time`` lets the phone set its watch.
    """

    id: str
    object: Literal["offline_key"]
    wallet_id: str
    device_name: str
    status: str
    alias: str
    algorithm: Literal["HMAC-SM3"]
    prefix: str
    digits: int
    step_s: int
    limit_each: int
    limit_per_day: int
    created_at: datetime
    expires_at: datetime
    server_time: datetime
    secret: str | UnsetType = UNSET


@post(
    "/v1/wallets/{wallet_id:str}/offline_keys",
    opt=needs(
        "wallets:write",
        interface=Area.WALLETS.a2(21),
        idempotent=True,
        refuses=[
            WalletNotFound,
            WalletFrozen,
            OfflineKeyNotFound,
            OfflineKeysTooMany,
            AliasesTaken,
        ],
        request_example=GiveOfflineKey("phone"),
    ),
)
async def give_offline_key(
    wallet_id: str,
    data: GiveOfflineKey,
    request: ApiRequest,
    *,
    db: Db,
    keyring: Keyring,
    caller: Caller,
) -> Response[OfflineKeyView]:
    """Give a phone the secret with which it makes payment codes without network, for a day.

    Pass it to the phone at once and keep no copy: it is shown in this answer only. When the answer
    is lost, so is the secret: ask for another key that replaces this one.
    """
    wallet = await wallet_of_caller(db, caller, parse("wal", wallet_id))
    replaces = None if data.replaces is None else parse("ofk", data.replaces)

    async def fresh(use: Idempotency) -> OfflineKeyView:
        key_id = new_id()
        async with db.begin(caller.actor) as tx:
            await use.take(tx, key_id)
            given = await give_key(
                tx,
                keyring,
                wallet,
                key_id=key_id,
                device_name=data.device_name,
                replaces=replaces,
            )
        return _given(db, given)

    async def resume(key_id: UUID) -> OfflineKeyView:
        return await _view(db, wallet, await key_of_wallet(db, wallet, key_id))

    return await answer_once(request, db, fresh=fresh, resume=resume, stored=_without_secret)


@get(
    "/v1/wallets/{wallet_id:str}/offline_keys",
    opt=needs("wallets:read", interface=Area.WALLETS.a2(22), refuses=[WalletNotFound]),
)
async def list_offline_keys(
    wallet_id: str,
    db: Db,
    caller: Caller,
    *,
    cursor: str | None = None,
    limit: int | None = None,
) -> Page[OfflineKeyView]:
    """Return the wallet's keys for codes without network, newest first, without their secrets."""
    wallet = await wallet_of_caller(db, caller, parse("wal", wallet_id))
    page = await keys_of_wallet(db, wallet, cursor=cursor, limit=limit)
    return Page([await _view(db, wallet, key) for key in page.items], page.next_cursor)


@post(
    "/v1/offline_keys/{offline_key_id:str}/revoke",
    status_code=200,
    opt=needs("wallets:write", interface=Area.WALLETS.a2(23), refuses=[OfflineKeyNotFound]),
)
async def revoke_offline_key(offline_key_id: str, db: Db, caller: Caller) -> OfflineKeyView:
    """End a phone's key at once: its codes pay no more. Safe to repeat."""
    key, wallet = await key_of_caller(db, caller, parse("ofk", offline_key_id))
    async with db.begin(caller.actor) as tx:
        key = await revoke_key(tx, key)
    return await _view(db, wallet, key)


ROUTES: Final[list[HTTPRouteHandler]] = [give_offline_key, list_offline_keys, revoke_offline_key]


def routes(licence: Licence) -> list[HTTPRouteHandler]:
    """Return the routes a deployment has: none where funds may not be held."""
    return ROUTES if licence.may_hold_funds else []


def _given(db: Db, given: GivenKey) -> OfflineKeyView:
    return replace(_shown(db, given.key, given.allowance), secret=given.secret.reveal())


async def _view(db: Db, wallet: Wallet, key: OfflineKey) -> OfflineKeyView:
    return _shown(db, key, await allowance_of(db, wallet))


def _shown(db: Db, key: OfflineKey, allowance: OfflineAllowance) -> OfflineKeyView:
    return OfflineKeyView(
        id=show("ofk", key.id),
        object="offline_key",
        wallet_id=show("wal", key.wallet_id),
        device_name=key.device_name,
        status=status_of(key, db.clock.now()),
        alias=key.alias,
        algorithm="HMAC-SM3",
        prefix=PREFIX,
        digits=NUMBER_DIGITS,
        step_s=STEP_S,
        limit_each=allowance.limit_each,
        limit_per_day=allowance.limit_per_day,
        created_at=key.created_at,
        expires_at=key.expires_at,
        server_time=real_now(),
    )


def _without_secret(view: OfflineKeyView) -> OfflineKeyView:
    return replace(view, secret=UNSET)

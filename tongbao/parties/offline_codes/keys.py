"""Give a phone the secret it makes codes with, replace it, take it back."""

from __future__ import annotations

import os
from datetime import datetime
from typing import Final
from uuid import UUID

from msgspec import Struct

from tongbao.infra import audit
from tongbao.infra.crypto import Keyring, bind
from tongbao.infra.db import Db, Tx
from tongbao.infra.settings import Secret
from tongbao.infra.web.caller import Caller
from tongbao.kernel.clock import business_date
from tongbao.kernel.errors import Busy
from tongbao.kernel.ids import show
from tongbao.kernel.pages import Page, decode_moment, page_by_moment, page_size
from tongbao.parties.accounts.model import Wallet, WalletFrozen, WalletNotFound, WalletState
from tongbao.parties.accounts.queries import locked_wallet, wallet_of_caller
from tongbao.parties.offline_codes import _store as store
from tongbao.parties.offline_codes.model import (
    KEY_BYTES,
    KEY_LIFE,
    KEYS_MAX,
    LIMIT_EACH,
    LIMIT_PER_DAY,
    OVERLAP,
    OfflineAllowance,
    OfflineKey,
    OfflineKeyNotFound,
    OfflineKeysTooMany,
    new_alias,
)

_PURPOSE: Final = "offline_key.secret"
_DRAWS_MAX: Final = 8


class AliasesTaken(Busy):
    """Every alias that was drawn has an owner: that is chance, or a book that is nearly full."""

    code = "offline_key.aliases_taken"
    advice = "Repeat the request."
    advice_zh = "请重试该请求。"
    retry_after_s = 1


class GivenKey(Struct, frozen=True):
    """A key as its phone gets it, once."""

    key: OfflineKey
    secret: Secret
    allowance: OfflineAllowance


async def give_key(
    tx: Tx,
    keyring: Keyring,
    wallet: Wallet,
    *,
    key_id: UUID,
    device_name: str,
    replaces: UUID | None = None,
) -> GivenKey:
    """Make a key for one of the wallet's phones, good for a day.

    The key that it replaces goes on for five minutes, for the answer may be lost on its way.

    Raises:
        WalletFrozen, OfflineKeyNotFound, OfflineKeysTooMany, AliasesTaken
    """
    if (await locked_wallet(tx, wallet)).state is not WalletState.ACTIVE:
        raise WalletFrozen
    if replaces is not None:
        old = await key_of_wallet(tx, wallet, replaces)
        await store.SHORTEN_KEY.run(tx, old.book, old.id, max(old.created_at, tx.now + OVERLAP))
    # Keys on their way out do not count: they are over before a phone could be given many more.
    live = await store.COUNT_LIVE.one(tx, wallet.book, wallet.id, tx.now + OVERLAP)
    if live >= KEYS_MAX:
        raise OfflineKeysTooMany(most=KEYS_MAX)
    secret = os.urandom(KEY_BYTES)
    sealed = keyring.seal(_PURPOSE, secret, _place(wallet.book, key_id))
    key = await _insert(tx, wallet, key_id, device_name, sealed)
    limits = (LIMIT_EACH, LIMIT_PER_DAY, business_date(tx.now))
    await store.INSERT_ALLOWANCE.run(tx, wallet.book, wallet.id, *limits)
    allowance = await store.GET_ALLOWANCE.one(tx, wallet.book, wallet.id)
    await audit.record(tx, "offline_key.given", show("ofk", key_id), _facts(key))
    return GivenKey(key, Secret(secret.hex()), allowance)


async def _insert(
    tx: Tx, wallet: Wallet, key_id: UUID, device_name: str, sealed: bytes
) -> OfflineKey:
    place, until = (wallet.book, key_id, wallet.id, wallet.mode), tx.now + KEY_LIFE
    for _ in range(_DRAWS_MAX):
        row = (*place, new_alias(), device_name, sealed, tx.now, until)
        if (key := await store.INSERT_KEY.first(tx, *row)) is not None:
            return key
    raise AliasesTaken


async def revoke_key(tx: Tx, key: OfflineKey) -> OfflineKey:
    """End a key at once; a second time changes nothing."""
    revoked = await store.REVOKE_KEY.first(tx, key.book, key.id, tx.now)
    if revoked is None:
        return await store.GET_KEY.one(tx, key.book, key.id)
    await audit.record(tx, "offline_key.revoked", show("ofk", key.id), _facts(key))
    return revoked


async def key_of_wallet(on: Db | Tx, wallet: Wallet, key_id: UUID) -> OfflineKey:
    """Return one of the wallet's keys.

    Raises:
        OfflineKeyNotFound
    """
    key = await store.GET_KEY.first(on, wallet.book, key_id)
    if key is None or key.wallet_id != wallet.id:
        raise OfflineKeyNotFound
    return key


async def key_of_caller(on: Db | Tx, caller: Caller, key_id: UUID) -> tuple[OfflineKey, Wallet]:
    """Return a key and its wallet; another merchant's is as unknown as none.

    Raises:
        OfflineKeyNotFound
    """
    key = await store.GET_KEY.first(on, caller.book, key_id)
    if key is None:
        raise OfflineKeyNotFound
    try:
        return key, await wallet_of_caller(on, caller, key.wallet_id)
    except WalletNotFound:
        raise OfflineKeyNotFound from None


async def keys_of_wallet(
    on: Db | Tx, wallet: Wallet, *, cursor: str | None, limit: int | None
) -> Page[OfflineKey]:
    """Return the wallet's keys, newest first, those that are over too.

    Raises:
        CursorInvalid, PageSizeInvalid
    """
    size = page_size(limit)
    _, before = decode_moment(cursor)
    found = await store.LIST_KEYS.all(on, wallet.book, wallet.id, before, size + 1)
    return page_by_moment(found, size, lambda row: (row.created_at, row.id))


async def allowance_of(on: Db | Tx, wallet: Wallet) -> OfflineAllowance:
    """Return how much the wallet may spend without network, once it has had a key."""
    return await store.GET_ALLOWANCE.one(on, wallet.book, wallet.id)


def secret_of(keyring: Keyring, key: OfflineKey) -> bytes:
    """Return a key's secret.

    Raises:
        SealUnreadable
    """
    return keyring.open(_PURPOSE, key.secret_sealed, _place(key.book, key.id))


def status_of(key: OfflineKey, now: datetime) -> str:
    """Return how a key stands, in one word: active, expired, locked or revoked."""
    return "expired" if key.state == "active" and not key.pays_at(now) else key.state.value


def _place(book: int, key_id: UUID) -> bytes:
    return bind("offline_key", "secret_sealed", str(book), key_id)


def _facts(key: OfflineKey) -> dict[str, str | int | bool | None]:
    return {"wallet": show("wal", key.wallet_id), "device": key.device_name}

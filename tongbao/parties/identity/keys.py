"""API keys: make, replace with an overlap, revoke, and find them when a request is signed."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from datetime import timedelta
from functools import lru_cache, partial
from typing import Final
from uuid import UUID

import msgspec
import structlog

from tongbao.infra import audit, test_clock
from tongbao.infra.admission.authentication import SigningKey
from tongbao.infra.changes import BOUND_S, Changes, mark
from tongbao.infra.crypto import Keyring, bind
from tongbao.infra.db import Db, Tx
from tongbao.infra.lookups import Lookups, Remembered
from tongbao.infra.public_keys import PublicKey, SigningAlgorithm
from tongbao.infra.settings import Secret
from tongbao.infra.web.caller import Caller
from tongbao.infra.web.versions import CURRENT
from tongbao.kernel.clock import real_now
from tongbao.kernel.errors import Busy, Fact
from tongbao.kernel.ids import new_id, show
from tongbao.kernel.licence import Licence, Mode
from tongbao.parties.identity import _store as store
from tongbao.parties.identity.model import (
    OVERLAP_MAX,
    ApiKey,
    KeyEnded,
    KeyNotFound,
    NewKey,
    OverlapTooLong,
    check_scopes,
)
from tongbao.parties.merchants.model import Merchant
from tongbao.parties.merchants.queries import merchants_with_ids

_PURPOSE: Final = "api_key.secret"
OPENED_MAX: Final = 10_000
"""How many secrets are kept opened."""
KEY_STANDS_S: Final = BOUND_S
"""How long a key that was looked at is believed at most where its revocation is not heard of; where
it is, a revoked one works for `changes.EVERY_S`."""
KEYS: Final = "api_key"
"""The kind of its marks."""
_READ_ANEW_S: Final = 60.0
_USE_NOTED_EVERY: Final = timedelta(hours=1)
_log = structlog.get_logger()


async def create_key(
    tx: Tx,
    keyring: Keyring,
    merchant_id: UUID,
    mode: Mode,
    *,
    licence: Licence,
    name: str,
    scopes: Sequence[str],
    key_id: UUID | None = None,
) -> NewKey:
    """Make a key and return it with its secret, which is not shown again.

    Raises:
        ScopeUnknown
    """
    made_id, allowed = key_id or new_id(), check_scopes(scopes, licence)
    return await _insert(tx, keyring, merchant_id, mode, key_id=made_id, name=name, scopes=allowed)


async def lock_key(tx: Tx, key_id: UUID) -> ApiKey:
    """Return a key that works and that nobody changes until the transaction ends.

    Raises:
        KeyNotFound, KeyEnded
    """
    key = await store.LOCK_KEY.first(tx, key_id)
    if key is None:
        raise KeyNotFound
    if not key.is_good(real_now()):
        raise KeyEnded
    return key


async def set_scopes(tx: Tx, key: ApiKey, scopes: Sequence[str], *, licence: Licence) -> ApiKey:
    """Let a locked key do these things and no others.

    Raises:
        ScopeUnknown
    """
    changed = await store.SET_SCOPES.one(tx, key.id, check_scopes(scopes, licence))
    await mark(tx, KEYS, key.id)
    facts: dict[str, Fact] = {"before": " ".join(key.scopes), "after": " ".join(changed.scopes)}
    await audit.record(tx, "api_key.scopes_set", show("key", key.id), facts)
    return changed


async def roll_key(
    tx: Tx,
    keyring: Keyring,
    old: ApiKey,
    *,
    overlap: timedelta,
    new_key_id: UUID | None = None,
    public_key: PublicKey | None = None,
) -> NewKey:
    """Make a successor with the same name and scopes; the old key ends when the overlap does.

    With a ``public_key`` the successor's requests are signed by its private half (RFC 9421).

    Raises:
        OverlapTooLong, KeyNotFound, KeyEnded
    """
    if not timedelta() <= overlap <= OVERLAP_MAX:
        raise OverlapTooLong(param="$.overlap_s")
    locked = await store.LOCK_KEY.first(tx, old.id)
    if locked is None:
        raise KeyNotFound
    now = real_now()
    if not locked.is_good(now):
        raise KeyEnded
    new = await _insert(
        tx,
        keyring,
        locked.merchant_id,
        locked.mode,
        key_id=new_key_id or new_id(),
        name=locked.name,
        scopes=locked.scopes,
        public_key=public_key,
        version=locked.api_version,
    )
    # A second roll may end the old key sooner, never keep it longer.
    ends = min(now + overlap, locked.expires_at or now + overlap)
    await store.REPLACE_KEY.one(tx, locked.id, new.key.id, ends)
    await mark(tx, KEYS, locked.id)
    facts: dict[str, Fact] = {
        "successor": show("key", new.key.id),
        "overlap_s": int(overlap.total_seconds()),
        "algorithm": new.key.algorithm.value,
    }
    await audit.record(tx, "api_key.rolled", show("key", locked.id), facts)
    return new


async def revoke_key(tx: Tx, merchant_id: UUID, mode: Mode, key_id: UUID) -> ApiKey:
    """End a key now; doing so again changes nothing.

    Raises:
        KeyNotFound
    """
    key = await store.REVOKE_KEY.first(tx, key_id, merchant_id, mode, real_now())
    if key is None:
        raise KeyNotFound
    await mark(tx, KEYS, key_id)
    await audit.record(tx, "api_key.revoked", show("key", key_id), {})
    return key


class KeysOnRecord:
    """The keys that requests are checked against, as the HTTP edge asks for them."""

    def __init__(self, db: Db, keyring: Keyring) -> None:
        self._db = db
        # The same box in the same place has the same content.
        self._secret = lru_cache(maxsize=OPENED_MAX)(partial(_open, keyring))
        self._asked = Lookups(self.find_all)

    async def find(self, key_id: UUID) -> SigningKey | None:
        """Return the key with its secret opened and its merchant's book of the mode."""
        return await self._asked.get(key_id)  # together with those that are asked for meanwhile

    async def find_all(self, ids: Sequence[UUID]) -> dict[UUID, SigningKey]:
        """Return those of these keys that are on record."""
        keys = await store.KEYS.all(self._db, ids)
        theirs = await merchants_with_ids(self._db, [key.merchant_id for key in keys])
        return {key.id: self._opened(key, theirs[key.merchant_id]) for key in keys}

    def _opened(self, key: ApiKey, merchant: Merchant) -> SigningKey:
        now = real_now()
        secret = self._secret(key.secret_sealed, _place(key.id, key.merchant_id))
        caller = Caller(
            key.id, key.merchant_id, key.mode, merchant.book(key.mode), frozenset(key.scopes)
        )
        noted = key.last_used_at is not None and now - key.last_used_at < _USE_NOTED_EVERY
        public = PublicKey(key.algorithm, key.public_key) if key.public_key else None
        version = key.api_version or CURRENT
        return SigningKey(
            caller, secret, not key.is_good(now), noted, public, version, key.expires_at
        )

    async def note_use(self, key: SigningKey) -> None:
        """Remember to the hour when the key was last used; most uses write nothing."""
        if not key.use_noted:
            now = real_now()
            await store.NOTE_KEY_USE.run(self._db, key.caller.key_id, now, now - _USE_NOTED_EVERY)


class RecentKeys:
    """The same keys, remembered until they are changed, found many at a time.

    None is believed for longer than `KEY_STANDS_S` after changes were last heard of.
    """

    def __init__(self, db: Db, keyring: Keyring, changes: Changes | None = None) -> None:
        self._on_record = KeysOnRecord(db, keyring)
        self.changes = changes or Changes(db)
        self._keys = Remembered(
            self._on_record.find_all, seconds=_READ_ANEW_S, changes=self.changes
        )
        self._keys.forget_with(KEYS, lambda key_id: (key_id,))

    async def find_all(self, ids: Iterable[UUID]) -> dict[UUID, SigningKey]:
        """Return those of these keys that are on record, as they were within the last second.

        Whose requests are in an older form is left out: who reads today's alone hands them over.
        """
        found = await self._keys.all(ids)
        return {key_id: key for key_id, key in found.items() if key.version == CURRENT}

    async def find(self, key_id: UUID) -> SigningKey | None:
        """Return the key; one that was revoked within the last second may still look good."""
        found = self._keys.known(key_id) or await self._keys.get(key_id)
        return found if found is not None and found.version == CURRENT else None

    async def note_use(self, key: SigningKey) -> None:
        """Remember to the hour when the key was last used, or leave it to a later use.

        Who is asked may have begun a payment already, which must not wait for its key's row.
        """
        if not key.use_noted:
            self._keys.amend(key.caller.key_id, msgspec.structs.replace(key, use_noted=True))
            try:
                await self._on_record.note_use(key)
            except Busy as busy:
                _log.warning("key_use_not_noted", why=busy.code)


async def _insert(
    tx: Tx,
    keyring: Keyring,
    merchant_id: UUID,
    mode: Mode,
    *,
    key_id: UUID,
    name: str,
    scopes: list[str],
    public_key: PublicKey | None = None,
    version: str | None = CURRENT,
) -> NewKey:
    secret = f"sk_{mode.value}_{secrets.token_urlsafe(32)}"
    sealed = keyring.seal(_PURPOSE, secret.encode(), _place(key_id, merchant_id))
    algorithm = public_key.algorithm if public_key else SigningAlgorithm.HMAC_SHA256
    der = public_key.der if public_key else None
    if mode is Mode.SANDBOX:  # who is alone with the clock stays so until they have moved it
        await test_clock.hold_still(tx)
    row = (key_id, merchant_id, mode, name, scopes, sealed, secret[-4:], tx.now, algorithm, der)
    key = await store.INSERT_KEY.one(tx, *row, version)
    facts = {"merchant": show("mch", merchant_id), "mode": mode.value, "name": name}
    await audit.record(tx, "api_key.created", show("key", key_id), facts)
    return NewKey(key, Secret(secret))


def secret_of_key(keyring: Keyring, key: ApiKey) -> Secret:
    """Return a key's secret, for the one answer that hands it out.

    Raises:
        SealUnreadable
    """
    return _open(keyring, key.secret_sealed, _place(key.id, key.merchant_id))


def _open(keyring: Keyring, sealed: bytes, place: bytes) -> Secret:
    return Secret(keyring.open(_PURPOSE, sealed, place).decode())


def _place(key_id: UUID, merchant_id: UUID) -> bytes:
    return bind("api_key", "secret_sealed", key_id, merchant_id)

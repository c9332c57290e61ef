"""Seal and open under sealing keys: one per owner, purpose and month, wrapped by the master key.

To destroy a key is to destroy what it sealed, in the copies and exports too: nobody can read them
again. A backup that still has the wrapped key forgets when it expires.
"""

from __future__ import annotations

import os
from typing import Final
from uuid import UUID

from tongbao.infra import audit
from tongbao.infra.crypto import (
    Algorithm,
    ClearKey,
    Place,
    Sealing,
    SealUnreadable,
    open_under,
    require,
    seal_under,
    sealing_key_of,
)
from tongbao.infra.db import Db, Tx
from tongbao.infra.kms import _store as store
from tongbao.infra.kms.model import (
    EVER,
    PLATFORM,
    PREFIX,
    Left,
    Owner,
    SealingKey,
    SealingKeyDestroyed,
    SealingKeyNotFound,
    SealingKind,
)
from tongbao.infra.kms.port import Kms
from tongbao.kernel.clock import business_date
from tongbao.kernel.ids import new_id, show
from tongbao.kernel.pages import Page, decode_moment, encode_moment, page_size

_BYTES: Final = 32
_REMEMBERED_MAX: Final = 1024


class SealingKeys:
    """Every sealing key, by the keeper that wraps them; those in use are remembered unwrapped."""

    def __init__(self, kms: Kms, cipher: Sealing = Sealing.AES_256_GCM) -> None:
        self.kms = kms
        self._cipher = cipher
        self._known: dict[bytes, ClearKey] = {}

    async def seal(
        self, tx: Tx, owner: Owner, purpose: str, plaintext: bytes, place: Place
    ) -> bytes:
        """Encrypt a text under the owner's key of this month, which the first use makes.

        Raises:
            KmsUnavailable
        """
        key = await self._current(tx, owner, purpose, f"{business_date(tx.now):%Y-%m}")
        return seal_under(key, purpose, plaintext, _of(place, owner))

    async def open(
        self, on: Db | Tx, owner: Owner, purpose: str, sealed: bytes, place: Place
    ) -> bytes:
        """Decrypt what was sealed for the same owner, purpose and place.

        Raises:
            SealUnreadable, SealingKeyDestroyed, WrapUnreadable, KmsUnavailable
        """
        key_id = sealing_key_of(sealed)
        row = await store.GET.first(on, key_id) if key_id is not None else None
        if row is None or row.owner != owner or row.purpose != purpose:
            raise SealUnreadable(purpose=purpose)
        return open_under(self._unwrapped(row), purpose, sealed, _of(place, owner))

    async def mac_key(self, tx: Tx, purpose: str) -> bytes:
        """Return the platform's HMAC key of a purpose, which is the same in every month.

        Raises:
            KmsUnavailable
        """
        require(purpose, Algorithm.HMAC_SHA_256)
        return (await self._current(tx, PLATFORM, purpose, EVER)).secret

    async def _current(self, tx: Tx, owner: Owner, purpose: str, month: str) -> ClearKey:
        which = (owner.merchant_id, owner.mode, purpose, month)
        row = await store.FIND.first(tx, *which)
        if row is None:
            row = await self._make(tx, owner, purpose, month)
        if row is None:  # somebody else made it meanwhile
            row = await store.FIND.one(tx, *which)
        return self._unwrapped(row)

    async def _make(self, tx: Tx, owner: Owner, purpose: str, month: str) -> SealingKey | None:
        draft = SealingKey(
            *(new_id(), owner.merchant_id, owner.mode, purpose, month, self._cipher, "", None),
            *(tx.now, None, None, None, None),
        )
        wrapped = self.kms.wrap(os.urandom(_BYTES), draft.aad)
        made = await store.INSERT.first(
            tx,
            *(draft.id, owner.merchant_id, owner.mode, purpose, month, int(self._cipher)),
            *(self.kms.master_of(wrapped), wrapped, tx.now),
        )
        if made is not None:
            facts = {"purpose": purpose, "month": month, "master_key": made.master_key}
            await audit.record(tx, "sealing_key.created", show(PREFIX, made.id), facts)
        return made

    def _unwrapped(self, row: SealingKey) -> ClearKey:
        if row.wrapped is None:
            raise SealingKeyDestroyed(key=show(PREFIX, row.id))
        found = self._known.get(row.wrapped)
        if found is None:
            secret = self.kms.unwrap(row.wrapped, row.aad)
            found = ClearKey(row.id, Sealing(row.cipher), secret)
            if len(self._known) >= _REMEMBERED_MAX:
                self._known.clear()
            self._known[row.wrapped] = found
        return found

    async def rewrap_some(self, tx: Tx, limit: int) -> int:
        """Wrap some keys anew that an older master key wrapped, and return how many.

        What was sealed under them stays as it is. Whoever stops in between loses nothing: what is
        left still says which master key wrapped it.

        Raises:
            WrapUnreadable, KmsUnavailable
        """
        newest = self.kms.master_keys()[0].id
        old = await store.LOCK_OLD.all(tx, newest, limit)
        for each in old:
            secret = self.kms.unwrap(each.wrapped or b"", each.aad)
            wrapped = self.kms.wrap(secret, each.aad)
            await store.REWRAP.run(tx, each.id, wrapped, self.kms.master_of(wrapped), tx.now)
        return len(old)

    async def left(self, on: Db | Tx) -> Left:
        """Return how many keys wait to be wrapped anew, of how many."""
        return await store.COUNT_LEFT.one(on, self.kms.master_keys()[0].id)


async def destroy(tx: Tx, key_id: UUID, *, because: str) -> SealingKey:
    """Destroy a sealing key, so that nothing it sealed can be read again; a repeat changes nothing.

    Raises:
        SealingKeyNotFound
    """
    destroyed = await store.DESTROY.first(tx, key_id, tx.now, tx.actor, because)
    if destroyed is None:
        return await sealing_key(tx, key_id)
    await audit.record(tx, "sealing_key.destroyed", show(PREFIX, key_id), {"because": because})
    return destroyed


async def sealing_key(on: Db | Tx, key_id: UUID) -> SealingKey:
    """Return a sealing key's row.

    Raises:
        SealingKeyNotFound
    """
    found = await store.GET.first(on, key_id)
    if found is None:
        raise SealingKeyNotFound
    return found


async def list_sealing_keys(
    on: Db | Tx, *, cursor: str | None, limit: int | None
) -> Page[SealingKey]:
    """Return the sealing keys, newest first.

    Raises:
        CursorInvalid, PageSizeInvalid
    """
    size = page_size(limit)
    _, before = decode_moment(cursor)
    found = await store.LIST.all(on, before, size + 1)
    last = found[size - 1] if len(found) > size else None
    return Page(found[:size], encode_moment(last.created_at, last.id) if last else None)


async def kinds_of_sealing_keys(on: Db | Tx, master_key: str) -> list[SealingKind]:
    """Return how many sealing keys each purpose has, and how many an older master key wraps."""
    return await store.KINDS.all(on, master_key)


def _of(place: Place, owner: Owner) -> Place:
    """Return the place with the owner's name in it, whatever the caller has put there."""
    return Place(place.table, place.column, place.row, owner.tenant)

"""What the database knows of requests seen before, asked for all that came meanwhile.

A nonce is used once, and an Idempotency-Key is looked up, for every request: alone, each would be a
round trip. Requests that wait at the same time share one; a lone one waits for nobody.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from msgspec import Struct

from tongbao.infra.db import Db
from tongbao.infra.lookups import Lookups, Together
from tongbao.infra.web import _store as store
from tongbao.kernel.clock import real_now
from tongbao.kernel.licence import Mode

RowKey = tuple[UUID, Mode, str, bytes]
"""Where a use of an Idempotency-Key is on record: merchant, mode, route, hash of the key."""


class Nonce(Struct, frozen=True, order=True):
    """One signature's own text, of one key."""

    key_id: UUID
    text: str


class Answered(Struct, frozen=True):
    """What was answered to one use of a key."""

    key: RowKey
    status: int
    body: bytes


class Repeats:
    """The nonces and Idempotency-Keys on record, as one process asks for them."""

    def __init__(self, db: Db, *, nonces_kept: timedelta) -> None:
        self._db = db
        self._kept = nonces_kept
        self._nonces = Together(self._use)
        self._uses = Lookups(self._find)
        self._answers = Together(self._keep)

    async def use(self, nonce: Nonce) -> bool:
        """Use the nonce up; False where somebody did before, or does in this moment."""
        return await self._nonces.ask(nonce)

    async def find(self, key: RowKey) -> store.IdempotencyKey | None:
        """Return what is on record of a use of a key."""
        return await self._uses.get(key)

    async def keep(self, answered: Answered) -> None:
        """Keep an answer, unless there is one."""
        await self._answers.ask(answered)

    async def _use(self, nonces: Sequence[Nonce]) -> list[bool]:
        now = real_now()
        # In one order for everybody, so that two sets never wait for each other.
        rows = sorted(set(nonces))
        ids, texts = [each.key_id for each in rows], [each.text for each in rows]
        used = await store.USE_NONCES.all(self._db, ids, texts, now + self._kept, now)
        first = {Nonce(each.key_id, each.nonce) for each in used}
        return [_taken_out(first, each) for each in nonces]

    async def _find(self, keys: Sequence[RowKey]) -> dict[RowKey, store.IdempotencyKey]:
        columns = [list(column) for column in zip(*keys, strict=True)]
        rows = await store.FIND_ALL.all(self._db, *columns)
        return {(row.merchant_id, row.mode, row.route, row.key_hash): row for row in rows}

    async def _keep(self, answered: Sequence[Answered]) -> list[None]:
        rows = sorted({each.key: each for each in answered}.items())
        columns = [list(column) for column in zip(*[key for key, _ in rows], strict=True)]
        statuses, bodies = [each.status for _, each in rows], [each.body for _, each in rows]
        await store.KEEP_ANSWERS.run(self._db, *columns, statuses, bodies, self._db.clock.now())
        return [None] * len(answered)


def _taken_out(first: set[Nonce], nonce: Nonce) -> bool:
    """Tell whether this is the one that used the nonce up: of equals in a set only one is."""
    if nonce in first:
        first.remove(nonce)
        return True
    return False

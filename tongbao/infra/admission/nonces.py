"""Nonces, each good for one signature, used up for all requests that came meanwhile.

For every request one is used: alone, each would be a round trip. Requests that wait at the same
time share one; a lone one waits for nobody.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from msgspec import Struct

from tongbao.infra.admission import _store as store
from tongbao.infra.db import Db
from tongbao.infra.lookups import Together
from tongbao.kernel.clock import real_now


class Nonce(Struct, frozen=True):
    """One signature's own text, of one key."""

    key_id: UUID
    text: str


class Nonces:
    """The nonces on record, as one process uses them up."""

    def __init__(self, db: Db, *, kept: timedelta) -> None:
        self._db = db
        self._kept = kept
        self._nonces = Together(self._use)

    async def use(self, nonce: Nonce) -> bool:
        """Use the nonce up; False where somebody did before, or does in this moment."""
        return await self._nonces.ask(nonce)

    async def _use(self, nonces: Sequence[Nonce]) -> list[bool]:
        now = real_now()
        # In one order for everybody, so that two sets never wait for each other.
        rows = sorted(set(nonces), key=_place)
        ids, texts = [each.key_id for each in rows], [each.text for each in rows]
        used = await store.USE_NONCES.all(self._db, ids, texts, now + self._kept, now)
        if len(used) == len(nonces):  # all of them, and so no two are equal
            return [True] * len(nonces)
        first = {Nonce(each.key_id, each.nonce) for each in used}
        return [_taken_out(first, each) for each in nonces]


def _place(nonce: Nonce) -> tuple[int, str]:
    return nonce.key_id.int, nonce.text  # numbers compare in a tenth of the time that ids take


def _taken_out(first: set[Nonce], nonce: Nonce) -> bool:
    """Tell whether this is the one that used the nonce up: of equals in a set only one is."""
    if nonce in first:
        first.remove(nonce)
        return True
    return False

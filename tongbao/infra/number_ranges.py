"""Number ranges: short business numbers, leased to a process in blocks (序列旁路生产).

A number is handed out once for ever. What a process leased and did not use is a gap, so nothing
may read an order of creation, or a count, out of these numbers.
"""

from __future__ import annotations

import asyncio
from typing import Final
from weakref import WeakKeyDictionary

from tongbao.infra.db import Db, Query

LEASE_SIZE: Final = 1000

# The first range of a name starts at 1; the row keeps the first number not leased yet.
_LEASE = Query(
    int,
    "insert into number_range (name, next_number) values ($1, 1 + $2::bigint)"
    " on conflict (name) do update set next_number = number_range.next_number + $2::bigint"
    " returning next_number",
)


class _Range:
    """What is left of one process's lease of one name."""

    def __init__(self) -> None:
        self.left = range(0)
        self.leasing = asyncio.Lock()


_ranges: WeakKeyDictionary[Db, dict[str, _Range]] = WeakKeyDictionary()


async def lease(db: Db, name: str, size: int) -> range:
    """Take the next ``size`` numbers of a name for this process alone."""
    end = await _LEASE.one(db, name, size)
    return range(end - size, end)


async def next_number(db: Db, name: str) -> int:
    """Return a number nobody else gets; it is used up even when the caller then fails."""
    ranges = _ranges.setdefault(db, {})
    held = ranges.setdefault(name, _Range())
    async with held.leasing:
        if not held.left:
            held.left = await lease(db, name, LEASE_SIZE)
        number, held.left = held.left[0], held.left[1:]
    return number

"""Numbers leased in ranges."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from tongbao.infra.db import Db
from tongbao.infra.number_ranges import LEASE_SIZE, lease, next_number


async def test_a_process_counts_up_from_one(db: Db) -> None:
    assert [await next_number(db, "account") for _ in range(3)] == [1, 2, 3]
    assert await next_number(db, "bill") == 1


async def test_concurrent_processes_never_get_the_same_number(
    make_db: Callable[..., Awaitable[Db]], dsn: str
) -> None:
    processes = [await make_db(dsn=dsn) for _ in range(3)]
    count = LEASE_SIZE // 2 + 1
    drawn = await asyncio.gather(
        *(next_number(process, "account") for process in processes for _ in range(count))
    )
    assert len(set(drawn)) == 3 * count


async def test_a_lease_used_up_is_followed_by_the_next(db: Db) -> None:
    drawn = [await next_number(db, "account") for _ in range(LEASE_SIZE + 1)]
    assert drawn == list(range(1, LEASE_SIZE + 2))


async def test_a_restart_leaves_a_gap_and_repeats_nothing(
    make_db: Callable[..., Awaitable[Db]], dsn: str
) -> None:
    before = await next_number(await make_db(dsn=dsn), "account")
    after = await next_number(await make_db(dsn=dsn), "account")
    assert after == before + LEASE_SIZE


async def test_leases_do_not_overlap(db: Db) -> None:
    first, second = await lease(db, "x", 10), await lease(db, "x", 5)
    assert (first, second) == (range(1, 11), range(11, 16))

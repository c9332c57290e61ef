"""Whoever is stopped, at whatever await: no connection is left in a transaction, no fact in half.

A task is stopped at its first await, the next at its second, and so on until one is through: so no
await is forgotten, whoever adds it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from contextlib import suppress
from typing import Any

import asyncpg
import pytest

from tongbao.infra.db import Db, Query, Statement, Tx

MakeDb = Callable[..., Awaitable[Db]]

MAKE = Statement("create table fact (turn bigint not null, half text not null)")
INSERT = Statement("insert into fact values ($1, $2)")
HALVES = Query(int, "select count(*) from fact where turn = $1")
NUMBERS = Query(int, "select generate_series(1, $1::bigint)")
BUSY = Query(
    str,
    "select state || ': ' || query from pg_stat_activity"
    " where datname = current_database() and pid <> pg_backend_pid() and state <> 'idle'",
)
CONNECTIONS = 3
TURNS_MAX = 100


class Stopped:
    """Work that is stopped at its n-th await, with all connections lost at the one after that."""

    def __init__(self, work: Awaitable[None], at: int, lose: Callable[[], None]) -> None:
        self._work = work
        self._left = at
        self._lose = lose
        self.reached = False

    def __await__(self) -> Generator[Any, Any, None]:
        steps = self._work.__await__()
        with suppress(StopIteration):
            waits_for = next(steps)
            while True:
                self._left -= 1
                if self._left == 0:
                    self.reached = True
                    _this_task().cancel()  # heard as soon as it waits
                elif self._left == -1:
                    self._lose()
                try:
                    yield waits_for
                except BaseException as thrown:  # noqa: BLE001 - whatever it is, it is the work's
                    waits_for = steps.throw(thrown)
                else:
                    waits_for = next(steps)


def _this_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None
    return task


@pytest.mark.parametrize("loses", [False, True], ids=["connected", "and loses its connection"])
@pytest.mark.parametrize("at_hand", [True, False], ids=["kept at hand", "given back"])
async def test_who_is_stopped_at_any_await_leaves_all_or_nothing(
    make_db: MakeDb, dsn: str, *, at_hand: bool, loses: bool
) -> None:
    db = await make_db(dsn=dsn, connections_max=CONNECTIONS if at_hand else 2)
    watcher = await make_db(dsn=dsn, connections_max=1)
    await MAKE.run(db)
    told: set[int] = set()

    for turn in range(1, TURNS_MAX):
        stopped = Stopped(_write_both(db, turn, told), turn, lambda: _lose(db) if loses else None)

        async def run(stopped: Stopped = stopped) -> None:
            await stopped

        task = asyncio.create_task(run())
        await asyncio.wait([task])
        assert task.cancelled() == stopped.reached, (turn, task)
        assert await HALVES.one(watcher, turn) in {0, 2}, turn
        if not stopped.reached:
            break
    assert turn > 10
    # Who was stopped after the commit was answered is told of it all the same.
    assert told == ({turn} if at_hand else {turn - 1, turn})

    await _have_all(db, CONNECTIONS if at_hand else 2)
    assert await BUSY.all(watcher) == []


async def _write_both(db: Db, turn: int, told: set[int]) -> None:
    """Write two halves of a fact, one behind a savepoint, with a failed try between them."""
    async with db.begin("test") as tx:
        tx.afterwards.append(lambda: told.add(turn))
        await INSERT.run(tx, turn, "first")
        with suppress(asyncpg.NotNullViolationError):
            async with tx.savepoint():
                await INSERT.run(tx, turn, None)
        async for _ in NUMBERS.stream(tx, 3):
            pass
        async with tx.savepoint():
            await _write_second(tx, turn)


async def _write_second(tx: Tx, turn: int) -> None:
    async with tx.savepoint():
        await INSERT.run(tx, turn, "second")


def _lose(db: Db) -> None:
    for holder in db.pool._holders:
        if holder._con is not None and not holder._con.is_closed():
            holder._con._transport.abort()


async def _have_all(db: Db, count: int) -> None:
    """Take every connection at once, to a transaction each."""
    everyone = asyncio.Barrier(count)

    async def take() -> None:
        async with db.begin("test") as tx:
            await NUMBERS.one(tx, 1)
            await everyone.wait()

    await asyncio.gather(*[take() for _ in range(count)])

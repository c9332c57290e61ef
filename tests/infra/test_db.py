"""The database's failures have names, quote no row, and leave no connection half used."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tongbao.infra.db import Db, Query, Statement, Tx, connect
from tongbao.infra.db_failures import DatabaseUnavailable, NothingCommitted, ValueOutOfRange
from tongbao.kernel.clock import Clock

MakeDb = Callable[..., Awaitable[Db]]


SLEEP = Statement("select pg_sleep(60)")
IMPATIENT = Statement("set local statement_timeout = '50ms'")
READ_ONLY = Statement("set transaction isolation level repeatable read, read only")
SESSION = Query(
    str,
    "select current_setting('transaction_read_only') || current_setting('transaction_isolation')"
    " || current_setting('statement_timeout')",
)
KEEP = Statement("insert into pg_temp.kept values ($1)")
KEPT = Query(int, "select number from pg_temp.kept order by number")
BROKEN = Statement("insert into deployment_clock (id, offset_us) values (7, 987654)")


async def test_a_server_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatabaseUnavailable):
        await connect(f"postgresql://nobody@/nothing?host={tmp_path}", Clock())


async def test_a_socket_that_went_away_is_named() -> None:
    class Pool:
        async def acquire(self) -> None:
            raise FileNotFoundError(2, "No such file or directory")

    with pytest.raises(DatabaseUnavailable):
        await SESSION.one(Db(Pool(), Clock()))


async def test_a_missing_file_of_the_callers_own_is_not_taken_for_the_database(
    db: Db, tmp_path: Path
) -> None:
    async def read_what_is_missing() -> None:
        async with db.begin("test"):
            (tmp_path / "bill.csv").read_bytes()

    with pytest.raises(FileNotFoundError):
        await read_what_is_missing()


async def test_a_statement_the_server_gave_up_on_is_named(db: Db) -> None:
    async def sleep() -> None:
        async with db.begin("test") as tx:
            await IMPATIENT.run(tx)
            await SLEEP.run(tx)

    with pytest.raises(DatabaseUnavailable):
        await sleep()


async def test_a_broken_rule_of_the_database_quotes_no_row(db: Db) -> None:
    with pytest.raises(asyncpg.CheckViolationError) as broken:
        await BROKEN.run(db)
    assert "987654" not in str(broken.value)


async def test_a_caller_who_leaves_in_the_middle_leaves_nothing_behind(make_db: MakeDb) -> None:
    db = await make_db(connections_max=1)
    before = await SESSION.one(db)
    for _ in range(3):
        entered = asyncio.Event()

        async def work(entered: asyncio.Event = entered) -> None:
            async with db.begin("test") as tx:
                await READ_ONLY.run(tx)
                entered.set()
                await SLEEP.run(tx)

        task = asyncio.create_task(work())
        await entered.wait()
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await SESSION.one(db) == before


@pytest.mark.parametrize(
    ("sql", "value"),
    [
        (Statement("select $1::bigint"), 1 << 63),
        (Statement("select $1::int"), 1 << 31),
        (Statement("select $1::timestamptz"), datetime.fromisoformat("0001-01-01T00:00+23:59")),
    ],
)
async def test_a_value_no_column_keeps_is_named(db: Db, sql: Statement, value: object) -> None:
    with pytest.raises(ValueOutOfRange):
        await sql.run(db, value)


@pytest.mark.parametrize(
    "given",
    [[1, None, 3], (1, None), deque([1, None]), dict.fromkeys([1, None]).keys(), [[1, 2], [3, 4]]],
    ids=["list", "tuple", "deque", "keys", "nested"],
)
async def test_arrays_of_every_kind_that_is_used_here_arrive(db: Db, given: Any) -> None:
    [record] = await db.fetch("select $1::int[] as array", (given,))
    assert record["array"] == list(given)


@pytest.mark.parametrize("given", ["ab", 5, {1: 2}])
async def test_what_is_no_array_is_none(db: Db, given: Any) -> None:
    with pytest.raises(asyncpg.DataError):
        await db.fetch("select $1::text[]", (given,))


@asynccontextmanager
async def asked_of(db: Db) -> AsyncIterator[list[str]]:
    """Give the statements that are sent meanwhile over the only connection, one a round trip."""
    sent: list[str] = []

    def note(record: Any) -> None:
        sent.append(record.query)

    async with db.begin("test") as tx:
        connection = await tx.begun()
    connection.add_query_logger(note)
    try:
        yield sent
        await asyncio.sleep(0)  # the last is told in the loop's next turn
    finally:
        connection.remove_query_logger(note)


@pytest.fixture
async def narrow(make_db: MakeDb) -> Db:
    """A database that is asked over one connection, so that it keeps what is its session's."""
    db = await make_db(connections_max=3)
    await db.execute("create temporary table kept (number bigint)", ())
    return db


async def test_a_transaction_begins_with_the_first_that_is_asked_of_it(narrow: Db) -> None:
    async with asked_of(narrow) as sent:
        async with narrow.begin("test"):
            pass
        async with narrow.begin("test") as tx:
            await READ_ONLY.run(tx)
        async with narrow.begin("test") as tx, tx.savepoint():
            await KEEP.run(tx, 1)
        async with narrow.begin("test") as tx:
            await KEEP.run(tx, 2)
    assert [" ".join(each.split()[:3]) for each in sent] == [
        *("begin; set transaction", "commit"),
        *(
            "begin; savepoint savepoint_1",
            "insert into pg_temp.kept",
            "release savepoint savepoint_1",
            "commit",
        ),
        *("begin;", "insert into pg_temp.kept", "commit"),
    ]


async def test_who_passes_over_a_failure_is_told_that_nothing_was_committed(narrow: Db) -> None:
    async def pass_over() -> None:
        async with narrow.begin("test") as tx:
            await KEEP.run(tx, 1)
            with suppress(asyncpg.DivisionByZeroError):
                await tx.fetch("select 1 / $1::int", (0,))

    with pytest.raises(NothingCommitted):
        await pass_over()
    assert await KEPT.all(narrow) == []


async def test_a_savepoint_undoes_what_is_inside_and_no_more(narrow: Db) -> None:
    async def keep(tx: Tx, number: int, *, fails: bool = False) -> None:
        async with tx.savepoint():
            await KEEP.run(tx, number)
            async with tx.savepoint():
                await KEEP.run(tx, number + 1)
            if fails:
                await tx.fetch("select 1 / $1::int", (0,))

    async with narrow.begin("test") as tx:
        await keep(tx, 10)
        with suppress(asyncpg.DivisionByZeroError):
            await keep(tx, 20, fails=True)
        await keep(tx, 30)
    assert await KEPT.all(narrow) == [10, 11, 30, 31]


async def test_who_leaves_while_a_transaction_begins_leaves_nothing_behind(narrow: Db) -> None:
    async def begin() -> None:
        async with narrow.begin("test") as tx:
            await SLEEP.run(tx)

    task = asyncio.create_task(begin())
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with narrow.begin("test") as tx:
        await KEEP.run(tx, 1)
    assert await KEPT.all(narrow) == [1]

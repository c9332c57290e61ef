"""The database: `Db` owns transactions, `Tx` is one, `Query` and `Statement` are typed SQL.

What goes wrong with it has names in `infra.db_failures`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from hashlib import sha256
from typing import Any, Final, Generic, LiteralString, TypeVar, get_args, get_type_hints
from uuid import UUID

import asyncpg
import msgspec
from msgspec import Struct

from tongbao.infra.db_failures import (
    NothingCommitted,
    named_absence,
    named_failures,
    raise_named,
)
from tongbao.kernel.clock import Clock

R = TypeVar("R")

# Of every element of every array the driver asks two abstract classes whether it is an array too,
# which takes as long as to encode it: a sixth of a statement that writes a set. These are all that
# is ever one here. A version of the driver that does not ask this way is left as it is.
_ARRAYS: Final[tuple[type, ...]] = (
    list,
    tuple,
    set,
    frozenset,
    deque,
    range,
    type({}.keys()),
    type({}.values()),
)
for _asked, _kinds in (("IterableABC", _ARRAYS), ("SizedABC", _ARRAYS), ("MappingABC", (dict,))):
    if hasattr(asyncpg.protocol.protocol, _asked):
        setattr(asyncpg.protocol.protocol, _asked, _kinds)

_UUID: Final = asyncpg.pgproto.pgproto.UUID
_PLAIN: Final = {str, int, bool, bytes, float, UUID, datetime, date, Decimal, type(None)}
_STREAM_CHUNK: Final = 1000
_COPY_S_MAX: Final = 7 * 24 * 3600.0
_SPARE: Final = 2  # connections that stay at the pool, for who asks it directly
_SESSION: Final = {
    "lock_timeout": "5s",
    "statement_timeout": "60s",
    # A process that is stopped in a transaction keeps its locks, a book's head row among them, from
    # whoever takes its work over: no longer than it keeps a lease.
    "idle_in_transaction_session_timeout": "10s",
    "timezone": "UTC",
}


class Query(Generic[R]):
    """One SQL statement and the type of its rows.

    ``row`` is a Struct with exactly the statement's columns in order, or a scalar type for one
    column. A test prepares every Query against the real schema and compares the columns; decoding
    by position is safe only because of that test.
    """

    def __init__(self, row: type[R], sql: LiteralString) -> None:
        self.row = row
        self.sql = sql
        self._decode = _decoder(row)

    async def all(self, on: Db | Tx, *args: object) -> list[R]:
        """Return every row."""
        return [self._decode(record) for record in await on.fetch(self.sql, args)]

    async def first(self, on: Db | Tx, *args: object) -> R | None:
        """Return the first row, or None when there is none."""
        records = await on.fetch(self.sql, args)
        return self._decode(records[0]) if records else None

    async def one(self, on: Db | Tx, *args: object) -> R:
        """Return the only row; any other number of rows is a bug."""
        records = await on.fetch(self.sql, args)
        if len(records) != 1:
            raise LookupError(f"{len(records)} rows where one was certain: {self.sql}")
        return self._decode(records[0])

    async def stream(self, tx: Tx, *args: object) -> AsyncIterator[R]:
        """Yield every row through a cursor, so that their number does not matter."""
        async for record in tx.stream(self.sql, args):
            yield self._decode(record)


class Statement:
    """One SQL statement that writes and returns no rows.

    ``digest`` names it among all statements of the program, which are in `PROGRAM`: so another
    process of the same program can be asked to run it, and nothing else.

    ``many`` writes a whole set of rows at once: it takes one array per parameter of ``sql``, in
    the same order, and touches exactly as many rows as the arrays are long when every one of
    them takes effect. Where it touches fewer, the caller undoes it and asks one by one.
    """

    def __init__(self, sql: LiteralString, many: LiteralString | None = None) -> None:
        self.sql = sql
        self.many = many
        # Both forms are named: two statements that differ in how they write a set are two.
        self.digest = sha256(f"{sql}\0{many or ''}".encode()).digest()
        PROGRAM[self.digest] = self

    async def run(self, on: Db | Tx, *args: object) -> int:
        """Execute it and return how many rows it touched."""
        return await on.execute(self.sql, args)

    async def run_many(self, tx: Tx, rows: Sequence[Sequence[object]]) -> None:
        """Execute it once per row of arguments in one round trip."""
        await tx.execute_many(self.sql, rows)

    async def run_set(self, tx: Tx, rows: Sequence[Sequence[object]]) -> int:
        """Execute ``many`` for all the rows of arguments and return how many rows it touched."""
        if self.many is None:
            raise TypeError(f"no form for many rows: {self.sql}")
        return await tx.execute(self.many, [list(column) for column in zip(*rows, strict=True)])


PROGRAM: Final[dict[bytes, Statement]] = {}
"""Every statement the program contains, by digest."""


class Write(Struct, frozen=True):
    """A statement with its arguments, to be executed by someone else in their transaction.

    When it touches no row, whoever executes it refuses with ``refusal``; ``refusal`` None means
    that it may touch none.
    """

    statement: Statement
    args: tuple[object, ...]
    refusal: str | None = None

    async def run(self, tx: Tx) -> int:
        """Execute it in the caller's transaction and return how many rows it touched."""
        return await self.statement.run(tx, *self.args)


class Tx:
    """A transaction of the caller's: one time, one author, and no commit of its own.

    It begins with the first that is asked of the database, in one round trip with that where it has
    no arguments. What is put in ``afterwards`` is called once it is committed, whatever a savepoint
    has undone.
    """

    def __init__(self, connection: Any, now: datetime, actor: str) -> None:
        self.now = now
        self.actor = actor
        self.afterwards: list[Callable[[], None]] = []
        self._connection = connection
        self._has_begun = False
        self._savepoints = 0

    async def begun(self) -> Any:
        """Return the driver's connection, on which the transaction has begun."""
        if not self._has_begun:
            await self._begin_with("")
        return self._connection

    async def fetch(self, sql: str, args: Sequence[object]) -> list[Any]:
        """Run a statement in this transaction and return its records."""
        return list(await (await self.begun()).fetch(sql, *args))

    async def stream(self, sql: str, args: Sequence[object]) -> AsyncIterator[Any]:
        """Run a statement in this transaction and yield its records as they are asked for."""
        connection = await self.begun()
        async for record in connection.cursor(sql, *args, prefetch=_STREAM_CHUNK):
            yield record

    async def execute(self, sql: str, args: Sequence[object]) -> int:
        """Run a statement in this transaction and return how many rows it touched."""
        if not self._has_begun and not args:
            return await self._begin_with(sql)
        return _touched(await (await self.begun()).execute(sql, *args))

    async def _begin_with(self, first: str) -> int:
        self._has_begun = True  # or soon has: whoever is stopped here has something to undo
        return _touched(await self._connection.execute(f"begin; {first}"))

    async def commit(self) -> None:
        """Make it last; for who began it."""
        if self._has_begun:
            status = await self._connection.execute("commit")
            if status != "COMMIT":
                raise NothingCommitted

    async def roll_back(self, left: BaseException) -> None:
        """Undo it, for it was left with an exception; for who began it."""
        if self._has_begun:
            await self._undo("rollback", left)

    async def _undo(self, sql: str, left: BaseException) -> None:
        """Undo what was left with an exception; whoever was stopped stays stopped.

        A connection that is lost has undone it already, and its failure in the place of the
        cancellation would let a loop that outlives failures go on for ever.
        """
        try:
            await self._connection.execute(sql)
        except Exception:
            if isinstance(left, Exception):
                raise

    async def execute_many(self, sql: str, rows: Sequence[Sequence[object]]) -> None:
        """Run a statement once per row of arguments."""
        await (await self.begun()).executemany(sql, rows)

    async def copy(
        self, table: str, columns: Sequence[str], rows: Sequence[tuple[Any, ...]]
    ) -> None:
        """Append rows to a table by binary COPY; the columns are in the rows' order."""
        connection = await self.begun()
        await connection.copy_records_to_table(table, columns=list(columns), records=rows)

    async def copy_binary(self, table: str, columns: Sequence[str], payload: bytes) -> int:
        """Append rows already in PostgreSQL's binary COPY format; return how many there were."""
        source = memoryview(payload)  # the driver takes bytes for the name of a file
        connection = await self.begun()
        status = await connection.copy_to_table(
            table, source=source, columns=list(columns), format="binary"
        )
        return _touched(status)

    async def copy_out(
        self, sql: str, args: Sequence[object], take: Callable[[bytes], Awaitable[None]]
    ) -> None:
        """Hand a query's rows to ``take`` in PostgreSQL's binary COPY format, piece by piece.

        The pieces end anywhere. No limit on time but the statement's own: a book may be long.
        """
        connection = await self.begun()
        await connection.copy_from_query(
            sql, *args, output=take, format="binary", timeout=_COPY_S_MAX
        )

    @asynccontextmanager
    async def savepoint(self) -> AsyncIterator[None]:
        """Undo only what happens inside when an exception leaves it.

        Raises:
            LockNotFree: the transaction itself goes on.
        """
        async with named_failures():
            self._savepoints += 1
            name = f"savepoint_{self._savepoints}"
            await self.execute(f"savepoint {name}", ())
            try:
                yield
            except BaseException as left:
                await self._undo(f"rollback to savepoint {name}", left)
                raise
            await self.execute(f"release savepoint {name}", ())


class Db:
    """The database, for a caller who owns its transactions and may use the network between them."""

    def __init__(self, pool: Any, clock: Clock, *, kept_max: int = 0) -> None:
        self.pool = pool
        self.clock = clock
        # The pool's own way to give a connection out and take it back costs as much as a statement,
        # so some are kept at hand between uses.
        self._kept: list[Any] = []
        self._kept_max = kept_max
        self._waiting = 0

    @asynccontextmanager
    async def begin(self, actor: str) -> AsyncIterator[Tx]:
        """Open a READ COMMITTED transaction that commits when the block ends without exception.

        Raises:
            DatabaseUnavailable, LockNotFree
        """
        async with named_failures():
            connection = await self._take()
            tx = Tx(connection, self.clock.now(), actor)
            try:
                try:
                    yield tx
                except BaseException as left:
                    await tx.roll_back(left)
                    raise
                await tx.commit()
                for follow in tx.afterwards:  # before anybody can be stopped at the next await
                    follow()
            except BaseException:
                await self._put_away(connection)
                raise
            await self._give_back(connection)

    async def fetch(self, sql: str, args: Sequence[object]) -> list[Any]:
        """Run one statement in a transaction of its own and return its records."""
        try:
            connection = await self._take()
            try:
                found = await connection.fetch(sql, *args)
            except BaseException:
                await self._put_away(connection)
                raise
            await self._give_back(connection)
        except Exception as failure:
            raise_named(failure)
            raise
        return list(found)

    async def execute(self, sql: str, args: Sequence[object]) -> int:
        """Run one statement in a transaction of its own and return how many rows it touched."""
        try:
            connection = await self._take()
            try:
                status = await connection.execute(sql, *args)
            except BaseException:
                await self._put_away(connection)
                raise
            await self._give_back(connection)
        except Exception as failure:
            raise_named(failure)
            raise
        return _touched(status)

    @property
    def is_closed(self) -> bool:
        """Whether nothing is asked of it any more."""
        return bool(self.pool.is_closing())

    async def close(self) -> None:
        """Close every connection."""
        kept, self._kept, self._kept_max = self._kept, [], 0
        for connection in kept:
            await self.pool.release(connection)
        await self.pool.close()

    async def _take(self) -> Any:
        while self._kept:
            connection = self._kept.pop()
            if _is_open(connection):
                return connection
            await self.pool.release(connection)
        self._waiting += 1
        try:
            with named_absence():
                return await self.pool.acquire()
        finally:
            self._waiting -= 1

    async def _give_back(self, connection: Any) -> None:
        """Keep a connection whose work ended well, unless somebody waits for one at the pool."""
        if self._waiting == 0 and len(self._kept) < self._kept_max and _is_open(connection):
            self._kept.append(connection)
        else:
            await self.pool.release(connection)

    async def _put_away(self, connection: Any) -> None:
        """Give back a connection whose work ended badly: why it did is what the caller hears.

        Where the pool cannot make it good again, it closes it.
        """
        with suppress(Exception):
            await self.pool.release(connection)


def _is_open(connection: Any) -> bool:
    try:
        return not connection.is_closed()
    except asyncpg.InterfaceError:  # it was lost, and the pool has it back already
        return False


class _Refused(Exception):
    """Leave the savepoint, carrying the refusal of the write that touched no row."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


async def write_all(tx: Tx, writes: Iterable[Write]) -> str | None:
    """Execute the writes in order, or none of them.

    Returns None when all are in the caller's transaction; otherwise the refusal code of the first
    that had to touch a row and touched none, with every one of them undone.
    """
    try:
        async with tx.savepoint():
            for write in writes:
                if await write.run(tx) == 0 and write.refusal is not None:
                    raise _Refused(write.refusal)  # noqa: TRY301 - it only leaves the savepoint
    except _Refused as refused:
        return refused.code
    return None


async def connect(dsn: str, clock: Clock, *, connections_max: int = 10) -> Db:
    """Open a pool on the database at ``dsn`` (libpq URI; a socket folder goes in ``host=``).

    Raises:
        DatabaseUnavailable
    """
    async with named_failures():
        with named_absence():
            pool = await asyncpg.create_pool(
                dsn,
                min_size=1,
                max_size=connections_max,
                command_timeout=60,
                statement_cache_size=1000,
                max_cacheable_statement_size=0,  # those that are joined are long
                server_settings=_SESSION,
                init=_prepare_connection,
                reset=_leave_as_it_is,
            )
    return Db(pool, clock, kept_max=max(connections_max - _SPARE, 0))


async def _prepare_connection(connection: Any) -> None:
    await connection.set_type_codec(
        "jsonb",
        schema="pg_catalog",
        format="text",
        encoder=lambda value: msgspec.json.encode(value).decode(),
        decoder=msgspec.json.decode,
    )


async def _leave_as_it_is(_connection: Any) -> None:
    """Spare a round trip at every release: nothing here outlives its transaction.

    No statement of ours sets session state, takes an advisory lock or listens; what a transaction
    sets, it sets locally.
    """


def uuids(ids: Sequence[bytes]) -> list[UUID]:
    """Return 16-byte ids as the driver sends them quickest: a commit has thousands."""
    return [_UUID(one) for one in ids]


def _touched(status: str) -> int:
    last = status.rpartition(" ")[2]
    return int(last) if last.isdigit() else 0


def _decoder(row: type[R]) -> Callable[[Any], R]:
    if not (isinstance(row, type) and issubclass(row, Struct)):
        scalar = _converter(row)
        return lambda record: scalar(record[0]) if scalar else record[0]
    hints = get_type_hints(row)
    converters = [_converter(hints[name]) for name in row.__struct_fields__]
    if not any(converters):
        return lambda record: row(*record)
    return lambda record: row(
        *[
            value if convert is None else convert(value)
            for value, convert in zip(record, converters, strict=True)
        ]
    )


def _converter(hint: Any) -> Callable[[Any], Any] | None:
    """Return how a column of this type becomes its value, or None when the driver's will do."""
    if (set(get_args(hint)) or {hint}) <= _PLAIN:
        return None
    if isinstance(hint, type) and issubclass(hint, Enum):
        return {member.value: member for member in hint}.__getitem__  # many rows have some
    return lambda value: msgspec.convert(value, hint)

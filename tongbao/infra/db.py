"""The database: `Db` owns transactions, `Tx` is one, `Query` and `Statement` are typed SQL.

Only this module and `infra.embedded` import the driver.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from hashlib import sha256
from typing import Any, Final, Generic, LiteralString, TypeVar, get_args, get_type_hints
from uuid import UUID

import asyncpg
import msgspec
from msgspec import Struct

from tongbao.kernel.clock import Clock
from tongbao.kernel.errors import Busy

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
for _asked in ("IterableABC", "SizedABC"):
    if hasattr(asyncpg.protocol.protocol, _asked):
        setattr(asyncpg.protocol.protocol, _asked, _ARRAYS)

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


class DatabaseUnavailable(Busy):
    """The database did not answer; whether the last commit happened is unknown."""

    code = "service.database_unavailable"
    advice = "Repeat the same request with the same Idempotency-Key."
    advice_zh = "请使用相同的 Idempotency-Key 重试同一请求。"
    retry_after_s = 2


class LockNotFree(Busy):
    """Another request holds what this one needs."""

    code = "service.lock_not_free"
    advice = "Repeat the same request with the same Idempotency-Key."
    advice_zh = "请使用相同的 Idempotency-Key 重试同一请求。"


DatabaseRefused: Final = asyncpg.PostgresError
"""What the database says of a statement that is wrong where it stands: a bug, or a key taken."""
UniqueKeyTaken: Final = asyncpg.UniqueViolationError
"""A row with this key is there already."""
NotSupported: Final = asyncpg.FeatureNotSupportedError
"""This kind of server, or of table, does not take a statement."""
CheckViolated: Final = asyncpg.CheckViolationError
"""A row would break what its table promises."""


class ValueOutOfRange(ValueError):
    """A number or time is beyond what any column keeps; it came from outside, unchecked."""


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

    What is put in ``afterwards`` is called once it is committed, whatever a savepoint has undone.
    """

    def __init__(self, connection: Any, now: datetime, actor: str) -> None:
        self.connection = connection
        self.now = now
        self.actor = actor
        self.afterwards: list[Callable[[], None]] = []

    async def fetch(self, sql: str, args: Sequence[object]) -> list[Any]:
        """Run a statement in this transaction and return its records."""
        return list(await self.connection.fetch(sql, *args))

    async def stream(self, sql: str, args: Sequence[object]) -> AsyncIterator[Any]:
        """Run a statement in this transaction and yield its records as they are asked for."""
        async for record in self.connection.cursor(sql, *args, prefetch=_STREAM_CHUNK):
            yield record

    async def execute(self, sql: str, args: Sequence[object]) -> int:
        """Run a statement in this transaction and return how many rows it touched."""
        return _touched(await self.connection.execute(sql, *args))

    async def execute_many(self, sql: str, rows: Sequence[Sequence[object]]) -> None:
        """Run a statement once per row of arguments."""
        await self.connection.executemany(sql, rows)

    async def copy(
        self, table: str, columns: Sequence[str], rows: Sequence[tuple[Any, ...]]
    ) -> None:
        """Append rows to a table by binary COPY; the columns are in the rows' order."""
        await self.connection.copy_records_to_table(table, columns=list(columns), records=rows)

    async def copy_binary(self, table: str, columns: Sequence[str], payload: bytes) -> int:
        """Append rows already in PostgreSQL's binary COPY format; return how many there were."""
        source = memoryview(payload)  # the driver takes bytes for the name of a file
        status = await self.connection.copy_to_table(
            table, source=source, columns=list(columns), format="binary"
        )
        return _touched(status)

    async def copy_out(
        self, sql: str, args: Sequence[object], take: Callable[[bytes], Awaitable[None]]
    ) -> None:
        """Hand a query's rows to ``take`` in PostgreSQL's binary COPY format, piece by piece.

        The pieces end anywhere. No limit on time but the statement's own: a book may be long.
        """
        await self.connection.copy_from_query(
            sql, *args, output=take, format="binary", timeout=_COPY_S_MAX
        )

    @asynccontextmanager
    async def savepoint(self) -> AsyncIterator[None]:
        """Undo only what happens inside when an exception leaves it.

        Raises:
            LockNotFree: the transaction itself goes on.
        """
        async with _named_failures(), self.connection.transaction():
            yield


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
        async with _named_failures():
            connection = await self._take()
            try:
                tx = Tx(connection, self.clock.now(), actor)
                async with connection.transaction():
                    yield tx
            except BaseException:
                await self.pool.release(connection)
                raise
            await self._give_back(connection)
            for follow in tx.afterwards:
                follow()

    async def fetch(self, sql: str, args: Sequence[object]) -> list[Any]:
        """Run one statement in a transaction of its own and return its records."""
        try:
            connection = await self._take()
            try:
                found = await connection.fetch(sql, *args)
            except BaseException:
                await self.pool.release(connection)
                raise
            await self._give_back(connection)
        except Exception as failure:
            _raise_named(failure)
            raise
        return list(found)

    async def execute(self, sql: str, args: Sequence[object]) -> int:
        """Run one statement in a transaction of its own and return how many rows it touched."""
        try:
            connection = await self._take()
            try:
                status = await connection.execute(sql, *args)
            except BaseException:
                await self.pool.release(connection)
                raise
            await self._give_back(connection)
        except Exception as failure:
            _raise_named(failure)
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
            with _named_absence():
                return await self.pool.acquire()
        finally:
            self._waiting -= 1

    async def _give_back(self, connection: Any) -> None:
        """Keep a connection whose work ended well, unless somebody waits for one at the pool."""
        if self._waiting == 0 and len(self._kept) < self._kept_max and _is_open(connection):
            self._kept.append(connection)
        else:
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
    async with _named_failures():
        with _named_absence():
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


@contextmanager
def _named_absence() -> Iterator[None]:
    """Name what connecting to a server that is not there meets, such as a missing socket."""
    try:
        yield
    except OSError as failure:
        raise DatabaseUnavailable from failure


@asynccontextmanager
async def _named_failures() -> AsyncIterator[None]:
    try:
        yield
    except Exception as failure:
        _raise_named(failure)
        raise


_UNAVAILABLE: Final = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.InsufficientResourcesError,  # no disk, memory or connection left
    asyncpg.InternalClientError,  # the driver's own confusion over a connection that died
    ConnectionError,
    TimeoutError,  # our own limit on one statement; what it did meanwhile is unknown
    asyncpg.QueryCanceledError,  # the same limit, noticed by the server first
)


def _raise_named(failure: Exception) -> None:
    """Raise what a failure of the driver means; return where it means nothing else.

    Raises:
        LockNotFree, ValueOutOfRange, DatabaseUnavailable
    """
    if isinstance(failure, asyncpg.LockNotAvailableError | asyncpg.DeadlockDetectedError):
        raise LockNotFree from None
    if isinstance(failure, asyncpg.DataError):  # also an InterfaceError, but not the database's
        if isinstance(failure.__cause__, OverflowError):
            raise ValueOutOfRange from None
    elif isinstance(failure, _UNAVAILABLE):
        raise DatabaseUnavailable from failure
    if isinstance(failure, asyncpg.PostgresError):
        failure.detail = None  # it repeats the values of a row, and this may be logged


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

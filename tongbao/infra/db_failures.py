"""What goes wrong with the database, by name.

Only this module, `infra.db`, `infra.embedded` and `infra.migrate` import the driver.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final

import asyncpg

from tongbao.kernel.errors import Busy


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


class NothingCommitted(RuntimeError):
    """A statement had failed, its failure was passed over, and the commit did nothing: a bug."""


@contextmanager
def named_absence() -> Iterator[None]:
    """Name what connecting to a server that is not there meets, such as a missing socket."""
    try:
        yield
    except OSError as failure:
        raise DatabaseUnavailable from failure


@asynccontextmanager
async def named_failures() -> AsyncIterator[None]:
    """Name what the driver raises inside."""
    try:
        yield
    except Exception as failure:
        raise_named(failure)
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


def raise_named(failure: Exception) -> None:
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

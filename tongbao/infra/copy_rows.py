"""Rows encoded for PostgreSQL's binary COPY by whoever makes them, and appended by somebody else.

A row is the count of its columns, then each with its length before it. What a process with time to
spare has encoded, the one writer of a book only puts side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Final

from tongbao.infra.db import Db, Statement, Tx
from tongbao.infra.db_failures import UniqueKeyTaken

_HEADER: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER: Final = b"\xff\xff"
_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
_FIRST_DAY: Final = _EPOCH.date()
_DAY_US: Final = 86_400_000_000


class Append(Statement):
    """Appends rows that are encoded already; its one argument is such a row.

    A row whose unique key somebody has touches nothing when it stands alone. Among others it
    fails, and the caller undoes the set, as when a set touches too few.
    """

    def __init__(self, table: str, columns: Sequence[str]) -> None:
        sql = f"copy {table} ({', '.join(columns)}) from stdin (format binary)"
        super().__init__(sql, many=sql)
        self._table = table
        self._columns = tuple(columns)

    async def run(self, on: Db | Tx, *args: object) -> int:
        """Append one row; return 0 when its key is taken."""
        if not isinstance(on, Tx):
            raise TypeError("rows are appended in somebody's transaction")
        try:
            async with on.savepoint():
                return await self.run_set(on, [args])
        except UniqueKeyTaken:
            return 0

    async def run_set(self, tx: Tx, rows: Sequence[Sequence[object]]) -> int:
        """Append all the rows.

        Raises:
            UniqueKeyTaken
        """
        encoded = [row for (row,) in rows if isinstance(row, bytes)]
        payload = b"".join([_HEADER, *encoded, _TRAILER])
        return await tx.copy_binary(self._table, self._columns, payload)


def text(value: str) -> bytes:
    """Return a column of text."""
    return sized(value.encode())


def sized(value: bytes) -> bytes:
    """Return a column of bytes, or of any type whose bytes these are."""
    return len(value).to_bytes(4, "big") + value


def json(value: str) -> bytes:
    """Return a column of type jsonb."""
    return sized(b"\x01" + value.encode())


def days(day: date | None) -> int:
    """Return what a date counts: days since 2000."""
    return 0 if day is None else (day - _FIRST_DAY).days


def moment(at: datetime) -> int:
    """Return what a timestamptz counts: microseconds since 2000."""
    since = at - _EPOCH
    return since.days * _DAY_US + since.seconds * 1_000_000 + since.microseconds

"""Rows of a query as numpy records, read by binary COPY without an object of Python for each.

Every field has a fixed width, so a chunk of rows is one view of the bytes that arrived.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tongbao.infra.db import Query, Tx

Records: TypeAlias = NDArray[Any]
Fields: TypeAlias = Sequence[tuple[str, str]]

CHUNK_ROWS: Final = 1 << 16
_SIGNATURE: Final = b"PGCOPY\n\xff\r\n\x00"
_HEADER_BYTES: Final = len(_SIGNATURE) + 8
_TRAILER: Final = b"\xff\xff"
_LENGTH: Final = "length of "


class Unreadable(Exception):
    """The rows are not of the width that their columns have: a column's type was changed."""


def layout(fields: Fields) -> np.dtype[Any]:
    """Return how one row lies in a binary COPY: a count, then a length before each field."""
    parts: list[tuple[str, str]] = [("fields", ">i2")]
    for name, kind in fields:
        parts += [(_LENGTH + name, ">i4"), (name, kind)]
    return np.dtype(parts)


async def read_chunks(
    tx: Tx,
    query: Query[Any],
    args: Sequence[object],
    fields: Fields,
    take: Callable[[Records], Awaitable[None]],
) -> None:
    """Run a query and hand its rows on, some 65,000 at a time.

    Raises:
        Unreadable
    """
    reader = _Reader(layout(fields), take)
    await tx.copy_out(query.sql, args, reader.feed)
    await reader.finish()


async def read_all(tx: Tx, query: Query[Any], args: Sequence[object], fields: Fields) -> Records:
    """Run a query and return all of its rows.

    Raises:
        Unreadable
    """
    chunks: list[Records] = []

    async def keep(rows: Records) -> None:
        chunks.append(rows)

    await read_chunks(tx, query, args, fields, keep)
    return np.concatenate(chunks) if chunks else np.zeros(0, layout(fields))


class _Reader:
    """Cuts what arrives into whole rows."""

    def __init__(self, row: np.dtype[Any], take: Callable[[Records], Awaitable[None]]) -> None:
        self._row = row
        self._take = take
        self._bytes = bytearray()
        self._begun = False

    async def feed(self, piece: bytes) -> None:
        self._bytes += piece
        if not self._begun and len(self._bytes) >= _HEADER_BYTES:
            if not self._bytes.startswith(_SIGNATURE):
                raise Unreadable("no binary COPY")
            del self._bytes[:_HEADER_BYTES]
            self._begun = True
        if self._begun and len(self._bytes) >= CHUNK_ROWS * self._row.itemsize:
            await self._hand_on()

    async def finish(self) -> None:
        await self._hand_on()
        if self._bytes != _TRAILER:
            raise Unreadable(f"{len(self._bytes)} bytes are left over")

    async def _hand_on(self) -> None:
        whole = len(self._bytes) // self._row.itemsize * self._row.itemsize
        if not whole:
            return
        rows = np.frombuffer(bytes(self._bytes[:whole]), self._row)
        del self._bytes[:whole]
        self._check(rows)
        await self._take(rows)

    def _check(self, rows: Records) -> None:
        names = self._row.names or ()
        values = [name for name in names if _LENGTH + name in names]
        if not (rows["fields"] == len(values)).all():
            raise Unreadable("a row has another number of fields")
        for name in values:
            if not (rows[_LENGTH + name] == self._row[name].itemsize).all():
                raise Unreadable(f"{name} is not {self._row[name].itemsize} bytes wide")

"""Write rows that PostgreSQL sends in binary as lines of fixed width, without touching one alone.

A day has millions of rows. A Python object for each would cost more than everything else together,
so the columns are cut and written as arrays: each piece that arrives becomes lines of one length,
and no more than a piece is in memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final, Literal, Self

import numpy as np
import numpy.typing as npt

from tongbao.kernel.ids import ALPHABET

UUID_COLUMN: Final = "uuid"
INT_COLUMN: Final = "int8"
MOMENT_COLUMN: Final = "timestamptz"
_WIDTHS: Final = {UUID_COLUMN: 16, INT_COLUMN: 8, MOMENT_COLUMN: 8}

_HEADER: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_END: Final = b"\xff\xff"
_PAIRS: Final = np.frombuffer(
    "".join(high + low for high in ALPHABET for low in ALPHABET).encode(), np.uint16
)
_PAIRS_OF_ID: Final = 13
_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)  # PostgreSQL's
_SECOND: Final = 1_000_000
_ENOUGH: Final = 1 << 21

Bytes = npt.NDArray[np.uint8]


class ExportMalformed(ValueError):
    """What the database sent is not what the query promised: a bug, never written as if it were."""


class LineWriter:
    """Takes a query's rows in PostgreSQL's binary COPY format and writes lines of CSV.

    ``columns`` names the type of each column of the query, none of them ever null. An id becomes
    its 26 letters, a number its digits with a sign, a moment whole seconds since ``origin``.
    With ``more`` the lines are added to those of a file that is there.
    """

    def __init__(
        self, path: Path, columns: Sequence[str], origin: datetime = _EPOCH, *, more: bool = False
    ) -> None:
        self.row_count = 0
        self._path = path
        self._mode: Literal["ab", "wb"] = "ab" if more else "wb"
        self._columns = tuple(columns)
        self._origin = (origin - _EPOCH) // timedelta(microseconds=1)
        fields: list[tuple[str, Any]] = [("fields", ">i2")]
        for place, kind in enumerate(self._columns):
            fields += [(f"length{place}", ">i4"), (f"value{place}", f"V{_WIDTHS[kind]}")]
        self._record = np.dtype(fields)
        self._left = b""
        self._pieces: list[bytes] = []
        self._waiting = 0
        self._is_begun = False
        self._file: BinaryIO | None = None

    def __enter__(self) -> Self:
        self._file = self._path.open(self._mode)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        _failure: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()
        if kind is None and self._is_begun and self._left != _END:
            raise ExportMalformed("the rows broke off")

    async def take(self, piece: bytes) -> None:
        """Write the lines of a piece; the pieces end anywhere."""
        self._pieces.append(piece)
        self._waiting += len(piece)
        if self._waiting >= _ENOUGH:
            # In a thread: arrays are cut and written while the next rows are on their way.
            await asyncio.to_thread(self._write)

    async def finish(self) -> int:
        """Write what is left and return how many rows there were."""
        await asyncio.to_thread(self._write)
        return self.row_count

    def _write(self) -> None:
        self._left = b"".join((self._left, *self._pieces))
        self._pieces, self._waiting = [], 0
        if not self._is_begun:
            if not self._left:
                return  # nobody sent anything: there was nothing to ask
            if not self._left.startswith(_HEADER):
                raise ExportMalformed("no binary COPY")
            self._left = self._left[len(_HEADER) :]
            self._is_begun = True
        count, _ = divmod(len(self._left), self._record.itemsize)
        if count == 0:
            return
        rows = np.frombuffer(self._left, self._record, count)
        self._check(rows)
        if self._file is None:
            raise ExportMalformed("nothing is open to write to")
        self._file.write(lines_of(rows, self._columns, self._origin).tobytes())
        self.row_count += count
        self._left = self._left[count * self._record.itemsize :]

    def _check(self, rows: npt.NDArray[Any]) -> None:
        is_whole = bool((rows["fields"] == len(self._columns)).all())
        for place, kind in enumerate(self._columns):
            is_whole = is_whole and bool((rows[f"length{place}"] == _WIDTHS[kind]).all())
        if not is_whole:
            raise ExportMalformed("a row with a null, or of another shape")


def lines_of(rows: npt.NDArray[Any], columns: Sequence[str], origin: int) -> Bytes:
    """Return rows of a COPY as lines: one row of bytes each, all of one length."""
    parts: list[Bytes] = []
    comma = np.full((len(rows), 1), ord(","), np.uint8)
    for place, kind in enumerate(columns):
        value = np.ascontiguousarray(rows[f"value{place}"])
        if kind == UUID_COLUMN:
            parts += [letters(value.view(np.uint8).reshape(-1, 16)), comma]
            continue
        number = value.view(">i8").astype(np.int64)
        parts += [digits((number - origin) // _SECOND if kind == MOMENT_COLUMN else number), comma]
    parts[-1] = np.full((len(rows), 1), ord("\n"), np.uint8)
    return np.hstack(parts)


def letters(ids: Bytes) -> Bytes:
    """Return ids of 16 bytes as their 26 letters, as `kernel.ids.base32` writes them."""
    # 130 bits are 13 groups of ten: the id, and two bits in front of it that are none of it.
    wide = np.zeros((18, len(ids)), np.uint32)
    wide[1:17] = ids.T
    found = np.empty((len(ids), _PAIRS_OF_ID), np.uint16)
    for place in range(_PAIRS_OF_ID):
        first, inside = divmod(10 * place - 2 + 8, 8)
        three = wide[first] << 16 | wide[first + 1] << 8
        if inside > 6:  # ten bits that begin so late reach into a third byte
            three |= wide[first + 2]
        found[:, place] = _PAIRS[three >> (14 - inside) & 1023]
    return found.view(np.uint8)


def digits(values: npt.NDArray[np.int64]) -> Bytes:
    """Return numbers as a sign, or a nought, and as many digits as the longest of them has."""
    left = np.abs(values)
    width = len(str(int(left.max(initial=0))))
    found = np.empty((len(values), 1 + width), np.uint8)
    found[:, 0] = np.where(values < 0, ord("-"), ord("0"))
    for place in range(width, 0, -1):
        left, digit = np.divmod(left, 10)
        found[:, place] = digit + ord("0")
    return found

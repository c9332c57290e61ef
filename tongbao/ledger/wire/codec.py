"""What goes over the socket: length-prefixed frames of columns, and writes named by their digest.

A frame is a header and one MessagePack array. Commands travel as the raw records they are decided
from. A companion write travels as the SHA-256 of its statement, which the reader looks up among the
program's own: nothing that the program does not contain can be run. Whatever does not fit exactly
is `FrameMalformed`, and the connection it came over is closed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from functools import singledispatch
from struct import Struct as Layout
from typing import Any, Final
from uuid import UUID

import msgspec
import numpy as np
from msgspec import Struct
from msgspec.msgpack import Ext

from tongbao.infra.db import PROGRAM, Statement, Write
from tongbao.kernel.errors import Busy
from tongbao.ledger.decision.records import COMMAND, Batch
from tongbao.ledger.model import Status, TransferKind

VERSION: Final = 1
FRAME_MAX: Final = 32 << 20
"""Bytes of the longest frame either side reads."""

_MAGIC: Final = b"TB"
HEADER: Final = Layout("<2sBxI")  # magic, version, length of what follows

_PLAIN: Final = frozenset({str, int, bool, float, bytes, type(None)})
_UUID, _DATE, _DECIMAL, _TIME, _SPAN = range(1, 6)


class VersionsDiffer(Busy):
    """The process that keeps the book runs another version of the program."""

    code = "ledger.versions_differ"
    advice = "Repeat the same request with the same key once all processes are upgraded."
    advice_zh = "各进程的程序版本不一致，请在全部升级后使用相同的幂等键重试。"
    retry_after_s = 5


class FrameMalformed(ValueError):
    """The other side sent what is no frame of this version."""


class VersionForeign(FrameMalformed):
    """The frame's header is good and names another version."""


class Line(Struct, frozen=True, array_like=True):
    """One companion write."""

    statement: bytes
    args: list[Any]
    refusal: str | None


class Ask(Struct, frozen=True, array_like=True, tag=1):
    """What several callers ask of one book, as the columns of one batch.

    The callers are numbered on from ``first``; each is answered as soon as it can be. ``counts``
    says how many groups each has, ``left_ms`` how long it still waits. Without callers it asks for
    a sign of life, which is a reply without answers.
    """

    first: int
    book: int
    left_ms: list[int]
    counts: list[int]
    records: bytes
    starts: bytes
    ids: bytes
    refused: bytes
    writes: list[list[Line]]  # a list per group, or none at all


class Told(Struct, frozen=True, array_like=True):
    """What became of one caller's groups: a status and perhaps a code and a seq of each."""

    caller: int
    results: list[tuple[Status, str | None, int | None]]


class Failed(Struct, frozen=True, array_like=True):
    """A caller who was refused as a whole; no code means a failure that nobody foresaw."""

    caller: int
    code: str
    facts: dict[str, str | int | bool | None]


class Reply(Struct, frozen=True, array_like=True, tag=2):
    """Answers to some of those who asked over this connection."""

    told: list[Told]
    failed: list[Failed]


class _RawAsk(Struct, frozen=True, array_like=True, tag=1):
    first: int
    book: int
    left_ms: Sequence[int]
    counts: Sequence[int]
    records: bytes
    starts: bytes
    ids: bytes
    refused: bytes
    writes: Sequence[msgspec.Raw]


def ask_frame(
    first: int,
    book: int,
    batch: Batch,
    *,
    left_ms: Sequence[int],
    counts: Sequence[int],
    writes: Sequence[msgspec.Raw],
) -> bytes:
    """Return a frame that asks for several callers at once."""
    return _framed(
        _RawAsk(
            first,
            book,
            left_ms,
            counts,
            batch.records.tobytes(),
            batch.starts.tobytes(),
            batch.ids.tobytes(),
            batch.refused.tobytes(),
            writes,
        )
    )


def ping_frame() -> bytes:
    """Return a frame that asks for a sign of life."""
    return _PING


def batch_in(ask: Ask) -> Batch:
    """Return the batch that is asked for.

    Raises:
        FrameMalformed: its columns do not fit together.
    """
    try:
        batch = Batch(
            records=np.frombuffer(ask.records, COMMAND),
            starts=np.frombuffer(ask.starts, np.int64),
            ids=np.frombuffer(ask.ids, "V16"),
            refused=np.frombuffer(ask.refused, np.int16),
        )
    except ValueError as failure:
        raise FrameMalformed(str(failure)) from None
    groups, starts, kinds = len(batch.ids), batch.starts, batch.records["kind"]
    fits = (
        len(ask.counts) == len(ask.left_ms)
        and min(ask.counts, default=0) >= 0
        and sum(ask.counts) == groups
        and len(starts) == groups + 1
        and len(batch.refused) == groups
        and len(ask.writes) in {0, groups}
        and starts[0] == 0
        and starts[-1] == len(batch.records)
        and bool(np.all(starts[1:] >= starts[:-1]))
        and bool(np.all((kinds >= TransferKind.SINGLE) & (kinds <= TransferKind.EXPIRE)))
    )
    if not fits:
        raise FrameMalformed("columns of different groups")
    return batch


def reply_frame(reply: Reply) -> bytes:
    """Return a frame with the answers."""
    return _framed(reply)


def empty_frame() -> bytes:
    """Return the header alone, which tells the other side which version this is."""
    return HEADER.pack(_MAGIC, VERSION, 0)


def decode_ask(body: bytes | memoryview) -> Ask:
    """Return the question in a frame's body.

    Raises:
        FrameMalformed
    """
    ask: Ask = _decoded(_ASKS, body)
    return ask


def decode_reply(body: bytes | memoryview) -> Reply:
    """Return the answers in a frame's body.

    Raises:
        FrameMalformed
    """
    reply: Reply = _decoded(_REPLIES, body)
    return reply


class Frames:
    """Cuts a stream of bytes into the bodies of its frames."""

    def __init__(self) -> None:
        self._kept = bytearray()

    def feed(self, received: bytes) -> list[bytes]:
        """Return the bodies that are now whole.

        Raises:
            FrameMalformed: nothing after this point of the stream can be trusted.
        """
        self._kept += received
        bodies, at = [], 0
        while (body := self._body(at)) is not None:
            bodies.append(body)
            at += HEADER.size + len(body)
        del self._kept[:at]
        return bodies

    def _body(self, at: int) -> bytes | None:
        if len(self._kept) - at < HEADER.size:
            if not _MAGIC.startswith(bytes(self._kept[at : at + len(_MAGIC)])):
                raise FrameMalformed("no frame begins like this")
            return None
        magic, version, length = HEADER.unpack_from(self._kept, at)
        if magic != _MAGIC:
            raise FrameMalformed("no frame begins like this")
        if version != VERSION:
            raise VersionForeign(f"version {version}, not {VERSION}")
        if length > FRAME_MAX:
            raise FrameMalformed(f"a frame of {length} bytes")
        begin = at + HEADER.size
        if len(self._kept) < begin + length:
            return None
        return bytes(memoryview(self._kept)[begin : begin + length])


def encode_writes(writes: Sequence[Write]) -> msgspec.Raw:
    """Return the writes of one group as they travel.

    Raises:
        TypeError, OverflowError: an argument that no statement takes.
    """
    if not writes:
        return NO_WRITES
    # Tuples with the content of a `Line`, which cost less to make.
    lines = [(write.statement.digest, _travelling(write.args), write.refusal) for write in writes]
    return msgspec.Raw(_ENCODER.encode(lines))


def _travelling(args: Sequence[object]) -> Sequence[object]:
    if len(args) == 1 and type(args[0]) is bytes:  # an encoded row, as most are
        return args
    return [value if type(value) in _PLAIN else _packed(value) for value in args]


def writes_of(lines: Sequence[Line], program: Mapping[bytes, Statement] = PROGRAM) -> list[Write]:
    """Return the writes of one group, with the statements of this program.

    Raises:
        VersionsDiffer: this program has no such statement.
    """
    writes = []
    for line in lines:
        statement = program.get(line.statement)
        if statement is None:
            raise VersionsDiffer(statement=line.statement.hex()[:16])
        writes.append(Write(statement, tuple(line.args), line.refusal))
    return writes


def _framed(message: Struct) -> bytes:
    # The header's room is left at the front, so that the body is not copied behind it.
    frame = bytearray(HEADER.size)
    _ENCODER.encode_into(message, frame, HEADER.size)
    length = len(frame) - HEADER.size
    if length > FRAME_MAX:
        raise FrameMalformed(f"a frame of {length} bytes")
    HEADER.pack_into(frame, 0, _MAGIC, VERSION, length)
    return bytes(frame)


def _decoded(decoder: msgspec.msgpack.Decoder[Any], body: bytes | memoryview) -> Any:
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, RecursionError, MemoryError) as failure:
        raise FrameMalformed(str(failure)) from None
    except (ValueError, ArithmeticError) as failure:  # of the bytes inside an argument
        raise FrameMalformed(str(failure)) from None


@singledispatch
def _packed(value: object) -> object:
    """Return an argument as MessagePack keeps it without losing its type."""
    raise TypeError(f"a {type(value).__name__} does not travel")


@_packed.register(str)
def _(value: str) -> str:
    return str(value)


@_packed.register(int)
def _(value: int) -> int:
    return int(value)


@_packed.register(bool | float | bytes | None)
def _(value: float | bytes | None) -> object:
    return value


@_packed.register(Enum)
def _(value: Enum) -> object:
    return _packed(value.value)


@_packed.register(UUID)
def _(value: UUID) -> Ext:
    return Ext(_UUID, value.bytes)


@_packed.register(datetime)
def _(value: datetime) -> datetime | Ext:
    # MessagePack's own time is an instant; one of another zone is kept as it was written.
    return value if value.tzinfo is UTC else Ext(_TIME, value.isoformat().encode())


@_packed.register(date)
def _(value: date) -> Ext:
    return Ext(_DATE, value.toordinal().to_bytes(4, "big"))


@_packed.register(Decimal)
def _(value: Decimal) -> Ext:
    return Ext(_DECIMAL, str(value).encode())


@_packed.register(timedelta)
def _(value: timedelta) -> Ext:
    return Ext(_SPAN, str(value // timedelta(microseconds=1)).encode())


@_packed.register(list | tuple)
def _(value: list[object] | tuple[object, ...]) -> list[object]:
    return [each if type(each) in _PLAIN else _packed(each) for each in value]


@_packed.register(dict | Struct)
def _(value: dict[str, object] | Struct) -> object:
    return msgspec.to_builtins(value)  # as its jsonb column will have it


def _unpacked(code: int, kept: memoryview) -> object:
    raw = bytes(kept)
    match code:
        case 1:
            return UUID(bytes=raw)
        case 2:
            return date.fromordinal(int.from_bytes(raw, "big"))
        case 3:
            return Decimal(raw.decode())
        case 4:
            return datetime.fromisoformat(raw.decode())
        case 5:
            return timedelta(microseconds=int(raw))
        case _:
            raise FrameMalformed(f"an argument of kind {code}")


_ENCODER: Final = msgspec.msgpack.Encoder()
_ASKS: Final = msgspec.msgpack.Decoder(Ask, ext_hook=_unpacked)
_REPLIES: Final = msgspec.msgpack.Decoder(Reply)
NO_WRITES: Final = msgspec.Raw(_ENCODER.encode([]))
"""The writes of a group that has none."""
_PING: Final = _framed(Ask(0, 0, [], [], b"", b"", b"", b"", []))

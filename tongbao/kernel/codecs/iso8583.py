"""ISO 8583 messages: bytes to fields and back, by a table per dialect; pure, no I/O.

A message is its type (MTI), a bitmap, and the fields the bitmap names. What is accepted is exactly
what would be written: ``encode(decode(raw)) == raw``, so a MAC over the one holds for the other.
Text fields are Latin-1, one character a byte, because the switch's dialect puts GBK and key
material into them unchanged; binary fields are bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

from msgspec import Struct

from tongbao.kernel.errors import Invalid

MESSAGE_MAX: Final = 9999
"""Bytes; the switch's header writes the length in four digits."""

Value = str | bytes
Kind = Literal["n", "an", "ans", "z", "b"]

_DIGITS: Final = frozenset("0123456789")
_TRACK: Final = _DIGITS | {"=", "D"}
_SHOWN: Final = frozenset(chr(code) for code in range(0x20, 0x7F))


class MessageTruncated(Invalid):
    """A message ends before what it says it holds."""

    code = "iso8583.truncated"
    advice = "Nothing was read. Look at how the far end frames its messages."
    advice_zh = "报文不完整，未做任何处理，请检查对端的报文分帧。"


class MessageTrailing(Invalid):
    """Bytes are left over after the last field."""

    code = "iso8583.trailing_bytes"
    advice = "Nothing was read. Look at the length the far end writes before its messages."
    advice_zh = "报文末尾有多余字节，未做任何处理，请检查对端的报文长度。"


class FieldTooLong(Invalid):
    """A field, or the whole message, is longer than its dialect allows."""

    code = "iso8583.too_long"
    advice = "Shorten the field to the length its dialect gives."
    advice_zh = "请将该域缩短到规范允许的长度。"


class FieldMalformed(Invalid):
    """A field holds what its type does not allow, or is shorter than its fixed length."""

    code = "iso8583.malformed"
    advice = "Write the field in the type and length its dialect gives."
    advice_zh = "请按规范规定的类型与长度填写该域。"


class FieldUnknown(Invalid):
    """The dialect has no such field."""

    code = "iso8583.unknown_field"
    advice = "Leave the field out, or use the dialect that has it."
    advice_zh = "该规范不包含此域，请去除或改用对应规范。"


class Field(Struct, frozen=True):
    """How one field is written. ``length`` counts characters, or bytes of a binary field."""

    kind: Kind  # n digits, an printable ASCII, ans any byte, z track data, b binary
    length: int  # exact, or with ``prefix`` the most there may be
    prefix: int = 0  # digits of the length before it: 0 fixed, 2 LLVAR, 3 LLLVAR


class Dialect(Struct, frozen=True):
    """One institution's way of writing messages."""

    name: str
    fields: Mapping[int, Field]
    packed: bool = False  # MTI, lengths, n and z in packed decimal, two digits a byte


class Message(Struct, frozen=True):
    """One message. Its fields hold card numbers, so it shows none of them."""

    mti: str
    fields: Mapping[int, Value]

    def text(self, number: int) -> str:
        """Return a text field, or nothing where it is absent or binary."""
        value = self.fields.get(number, "")
        return value if isinstance(value, str) else ""

    def __repr__(self) -> str:
        return f"Message({self.mti}, fields {sorted(self.fields)})"


def encode(message: Message, dialect: Dialect) -> bytes:
    """Return the message as bytes.

    Raises:
        FieldUnknown, FieldTooLong, FieldMalformed
    """
    numbers = sorted(message.fields)
    width = 128 if numbers and numbers[-1] > 64 else 64
    bitmap = 1 << (width - 1) if width == 128 else 0
    parts = []
    for number in numbers:
        if number not in dialect.fields:
            raise FieldUnknown(field=number)
        bitmap |= 1 << (width - number)
        parts.append(_write(message.fields[number], dialect.fields[number], dialect, number))
    mti = _write(message.mti, _MTI, dialect, 0)
    raw = mti + bitmap.to_bytes(width // 8, "big") + b"".join(parts)
    if len(raw) > MESSAGE_MAX:
        raise FieldTooLong(bytes=len(raw))
    return raw


def decode(raw: bytes, dialect: Dialect) -> Message:
    """Return the message that the bytes are, all of them.

    Raises:
        MessageTruncated, MessageTrailing, FieldUnknown, FieldTooLong, FieldMalformed
    """
    if len(raw) > MESSAGE_MAX:
        raise FieldTooLong(bytes=len(raw))
    reader = _Reader(raw)
    mti = _read(reader, _MTI, dialect, 0)
    fields: dict[int, Value] = {}
    for number in _named(reader):
        if number not in dialect.fields:
            raise FieldUnknown(field=number)
        fields[number] = _read(reader, dialect.fields[number], dialect, number)
    if reader.at != len(raw):
        raise MessageTrailing(bytes=len(raw) - reader.at)
    return Message(str(mti), fields)


_MTI: Final = Field("n", 4)


class _Reader:
    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self.at = 0

    def take(self, count: int, number: int) -> bytes:
        end = self.at + count
        if end > len(self._raw):
            raise MessageTruncated(field=number)
        taken = self._raw[self.at : end]
        self.at = end
        return taken


def _named(reader: _Reader) -> list[int]:
    """Return the fields the bitmap names; one that says it goes on must name one beyond 64."""
    bits, width = int.from_bytes(reader.take(8, 1), "big"), 64
    if bits >> 63:
        more = int.from_bytes(reader.take(8, 1), "big")
        if more == 0:
            raise FieldMalformed(field=1)
        bits, width = (bits & ~(1 << 63)) << 64 | more, 128
    return [number for number in range(1, width + 1) if bits >> (width - number) & 1]


def _write(value: Value, field: Field, dialect: Dialect, number: int) -> bytes:
    _check(value, field, dialect, number)
    body = value if isinstance(value, bytes) else _letters(value, field, dialect)
    return _length(len(value), field, dialect) + body


def _check(value: Value, field: Field, dialect: Dialect, number: int) -> None:
    if isinstance(value, bytes) is not (field.kind == "b"):
        raise FieldMalformed(field=number)
    if len(value) > field.length:
        raise FieldTooLong(field=number)
    if not field.prefix and len(value) != field.length:
        raise FieldMalformed(field=number)
    if isinstance(value, str) and not _fits(value, field.kind, dialect):
        raise FieldMalformed(field=number)


def _fits(text: str, kind: Kind, dialect: Dialect) -> bool:
    letters = set(text)
    match kind:
        case "n":
            return letters <= _DIGITS
        case "z":
            # A packed separator is the nibble D, which reads back as "=".
            return letters <= (_TRACK - {"D"} if dialect.packed else _TRACK)
        case "an":
            return letters <= _SHOWN
        case _:
            return all(ord(letter) <= 0xFF for letter in letters)


def _letters(text: str, field: Field, dialect: Dialect) -> bytes:
    if not _is_packed(field, dialect):
        return text.encode("latin-1")
    digits = text.replace("=", "D")
    if len(digits) % 2:
        # A field of fixed length is a number and stands at the right; a varying one at the left.
        digits = digits + "0" if field.prefix else "0" + digits
    return bytes.fromhex(digits)


def _length(count: int, field: Field, dialect: Dialect) -> bytes:
    if not field.prefix:
        return b""
    digits = f"{count:0{field.prefix}d}"
    if dialect.packed:
        return bytes.fromhex(digits if len(digits) % 2 == 0 else "0" + digits)
    return digits.encode()


def _read(reader: _Reader, field: Field, dialect: Dialect, number: int) -> Value:
    count = field.length
    if field.prefix:
        count = _read_length(reader, field, dialect, number)
    if count > field.length:
        raise FieldTooLong(field=number)
    if _is_packed(field, dialect):
        value: Value = _unpacked(reader.take((count + 1) // 2, number), count, field, number)
    elif field.kind == "b":
        value = reader.take(count, number)
    else:
        value = reader.take(count, number).decode("latin-1")
    _check(value, field, dialect, number)
    return value


def _read_length(reader: _Reader, field: Field, dialect: Dialect, number: int) -> int:
    width = (field.prefix + 1) // 2 if dialect.packed else field.prefix
    raw = reader.take(width, number)
    digits = raw.hex() if dialect.packed else raw.decode("latin-1")
    if not set(digits) <= _DIGITS:
        raise FieldMalformed(field=number)
    return int(digits)


def _unpacked(raw: bytes, count: int, field: Field, number: int) -> str:
    digits = raw.hex().upper()
    if len(digits) > count:
        filler = digits[-1] if field.prefix else digits[0]
        if filler != "0":
            raise FieldMalformed(field=number)
        digits = digits[:-1] if field.prefix else digits[1:]
    return digits.replace("D", "=") if field.kind == "z" else digits


def _is_packed(field: Field, dialect: Dialect) -> bool:
    return dialect.packed and field.kind in {"n", "z"}

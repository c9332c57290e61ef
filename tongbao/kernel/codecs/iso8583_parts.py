"""What lies around an ISO 8583 message and inside its fields: frames, headers, chip data, balances.

The sender's length comes first, two bytes; then the switch's header of 46 bytes, or a terminal's
TPDU and header of 5 and 6; then the message.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from msgspec import Struct

from tongbao.kernel.codecs.iso8583 import (
    MESSAGE_MAX,
    FieldMalformed,
    FieldTooLong,
    MessageTrailing,
    MessageTruncated,
)

FRAME_MAX: Final = 64 + MESSAGE_MAX
CUPS_HEADER_BYTES: Final = 46
_VERSION: Final = 0x02
_TERMINAL_BYTES: Final = 11

POS_FIELD_60: Final = (("kind", 2), ("batch", 6), ("network_code", 3))
"""A terminal's field 60: kind of transaction, batch number, network management code."""


class CupsHeader(Struct, frozen=True):
    """What stands before a message between hosts. Ids of institutions are left-aligned."""

    destination: str
    source: str
    length: int  # of header and message together
    reserved: str = "000"
    batch: int = 0
    transaction: str = "00000000"
    user: int = 0
    reject_code: str = "00000"


def frame(payload: bytes) -> bytes:
    """Return the payload behind its length, two bytes, high byte first.

    Raises:
        FieldTooLong
    """
    if len(payload) > FRAME_MAX:
        raise FieldTooLong(bytes=len(payload))
    return len(payload).to_bytes(2, "big") + payload


def unframe(raw: bytes) -> bytes:
    """Return the one payload in the bytes.

    Raises:
        MessageTruncated, MessageTrailing, FieldTooLong
    """
    size = int.from_bytes(raw[:2], "big")
    if len(raw) < 2 or len(raw) < 2 + size:
        raise MessageTruncated(bytes=len(raw))
    if size > FRAME_MAX:
        raise FieldTooLong(bytes=size)
    if len(raw) > 2 + size:
        raise MessageTrailing(bytes=len(raw) - 2 - size)
    return raw[2:]


def add_cups_header(message: bytes, *, destination: str, source: str) -> bytes:
    """Return the message behind the header of the switch.

    Raises:
        FieldTooLong, FieldMalformed
    """
    header = CupsHeader(destination, source, CUPS_HEADER_BYTES + len(message))
    return encode_cups_header(header) + message


def take_cups_header(payload: bytes) -> tuple[CupsHeader, bytes]:
    """Return the header and the message behind it, whose length the header states.

    Raises:
        MessageTruncated, FieldMalformed
    """
    header = decode_cups_header(payload[:CUPS_HEADER_BYTES])
    if header.length != len(payload):
        raise FieldMalformed(part="header length")
    return header, payload[CUPS_HEADER_BYTES:]


def encode_cups_header(header: CupsHeader) -> bytes:
    """Return the 46 bytes.

    Raises:
        FieldTooLong, FieldMalformed
    """
    if not 0 <= header.length <= MESSAGE_MAX:
        raise FieldTooLong(bytes=header.length)
    if not (0 <= header.batch <= 0xFF and 0 <= header.user <= 0xFF):
        raise FieldMalformed(part="header")
    return b"".join(
        (
            bytes((CUPS_HEADER_BYTES, _VERSION)),
            f"{header.length:04d}".encode(),
            _padded(header.destination, 11),
            _padded(header.source, 11),
            _exact(header.reserved, 3),
            bytes((header.batch,)),
            _exact(header.transaction, 8),
            bytes((header.user,)),
            _exact(header.reject_code, 5),
        )
    )


def decode_cups_header(raw: bytes) -> CupsHeader:
    """Return what the 46 bytes say.

    Raises:
        MessageTruncated, FieldMalformed
    """
    if len(raw) < CUPS_HEADER_BYTES:
        raise MessageTruncated(bytes=len(raw))
    digits = raw[2:6]
    if raw[:2] != bytes((CUPS_HEADER_BYTES, _VERSION)) or not digits.isdigit():
        raise FieldMalformed(part="header")
    if len(raw) > CUPS_HEADER_BYTES:
        raise FieldMalformed(part="header")
    text = raw.decode("latin-1")
    return CupsHeader(
        destination=text[6:17].rstrip(" "),
        source=text[17:28].rstrip(" "),
        length=int(digits),
        reserved=text[28:31],
        batch=raw[31],
        transaction=text[32:40],
        user=raw[40],
        reject_code=text[41:46],
    )


class TerminalHeader(Struct, frozen=True):
    """A terminal's TPDU (``60``, destination, source) and the header behind it, as hex."""

    tpdu: str  # 10 hex digits
    header: str  # 12 hex digits


def encode_terminal_header(header: TerminalHeader) -> bytes:
    """Return the 11 bytes.

    Raises:
        FieldMalformed
    """
    try:
        raw = bytes.fromhex(header.tpdu + header.header)
    except ValueError:
        raise FieldMalformed(part="tpdu") from None
    if (len(header.tpdu), len(header.header), len(raw)) != (10, 12, _TERMINAL_BYTES):
        raise FieldMalformed(part="tpdu")
    return raw


def take_terminal_header(payload: bytes) -> tuple[TerminalHeader, bytes]:
    """Return the TPDU, the header, and the message behind them.

    Raises:
        MessageTruncated
    """
    if len(payload) < _TERMINAL_BYTES:
        raise MessageTruncated(bytes=len(payload))
    header = TerminalHeader(payload[:5].hex(), payload[5:_TERMINAL_BYTES].hex())
    return header, payload[_TERMINAL_BYTES:]


# --- inside fields --------------------------------------------------------------------------------


def decode_tlv(raw: bytes) -> list[tuple[str, bytes]]:
    """Return the objects of field 55 (BER-TLV of EMV), tags in upper-case hex, in their order.

    Raises:
        MessageTruncated, FieldMalformed
    """
    found, at = [], 0
    while at < len(raw):
        tag = _tag_at(raw, at)
        size, at = _size_at(raw, at + len(tag))
        if at + size > len(raw):
            raise MessageTruncated(field=55)
        found.append((tag.hex().upper(), raw[at : at + size]))
        at += size
    return found


def encode_tlv(objects: Sequence[tuple[str, bytes]]) -> bytes:
    """Return the objects as bytes, each length in its shortest form.

    Raises:
        FieldMalformed, FieldTooLong
    """
    parts = []
    for tag, value in objects:
        try:
            name = bytes.fromhex(tag)
        except ValueError:
            raise FieldMalformed(field=55) from None
        if not name or _tag_at(name, 0) != name:
            raise FieldMalformed(field=55)
        if len(value) > 0xFF:
            raise FieldTooLong(field=55)
        size = bytes((len(value),)) if len(value) < 0x80 else bytes((0x81, len(value)))
        parts.append(name + size + value)
    return b"".join(parts)


def _tag_at(raw: bytes, at: int) -> bytes:
    """A tag goes on after its first byte when that ends in five ones, then by each high bit."""
    end = at + 1
    if raw[at] & 0x1F == 0x1F:
        while end - at < 4 and end < len(raw) and raw[end] & 0x80:
            end += 1
        end += 1
    if end > len(raw):
        raise MessageTruncated(field=55)
    if end - at > 3:
        raise FieldMalformed(field=55)
    return raw[at:end]


def _size_at(raw: bytes, at: int) -> tuple[int, int]:
    first = raw[at : at + 1]
    if not first:
        raise MessageTruncated(field=55)
    if first[0] < 0x80:
        return first[0], at + 1
    second = raw[at + 1 : at + 2]
    if first[0] != 0x81:
        raise FieldMalformed(field=55)
    if not second:
        raise MessageTruncated(field=55)
    if second[0] < 0x80:
        raise FieldMalformed(field=55)
    return second[0], at + 2


class CardBalance(Struct, frozen=True):
    """One balance of field 54. ``amount`` is in minor units, negative when it is owed."""

    account: str  # 30 credit, 40 …: the issuer's kind of account
    kind: str  # 01 ledger balance, 02 available
    currency: str  # ISO 4217 number
    amount: int


def read_balances(text: str) -> list[CardBalance]:
    """Return the balances in field 54, twenty characters each.

    Raises:
        FieldMalformed
    """
    if len(text) % 20:
        raise FieldMalformed(field=54)
    found = []
    for at in range(0, len(text), 20):
        one = text[at : at + 20]
        digits = one[:7] + one[8:]
        if one[7] not in "CD" or not (digits.isascii() and digits.isdigit()):
            raise FieldMalformed(field=54)
        amount = int(one[8:]) if one[7] == "C" else -int(one[8:])
        found.append(CardBalance(one[:2], one[2:4], one[4:7], amount))
    return found


def split_field(text: str, layout: Sequence[tuple[str, int]]) -> Mapping[str, str]:
    """Return the parts of a field made of fixed lengths, as far as the field goes.

    Raises:
        FieldMalformed: it ends inside a part, or goes on after the last.
    """
    parts, at = {}, 0
    for name, length in layout:
        if at == len(text):
            break
        parts[name] = text[at : at + length]
        if len(parts[name]) != length:
            raise FieldMalformed(part=name)
        at += length
    if at != len(text):
        raise FieldMalformed(part="end")
    return parts


def _padded(text: str, length: int) -> bytes:
    if text != text.rstrip(" "):
        raise FieldMalformed(part="header")
    return _exact(text.ljust(length), length)


def _exact(text: str, length: int) -> bytes:
    if len(text) != length or any(ord(letter) > 0xFF for letter in text):
        raise FieldMalformed(part="header")
    return text.encode("latin-1")

"""The card host's own reading and writing of messages; shares nothing with the platform's.

A frame is: length (2 bytes), header (46), type, one or two bitmaps, fields. All ASCII, but for the
PIN block, the chip data and the MAC.
"""

from __future__ import annotations

from typing import Final

HEADER: Final = 46
FIXED: Final = {
    3: 6, 4: 12, 7: 10, 11: 6, 12: 6, 13: 4, 14: 4, 15: 4, 18: 4, 22: 3, 23: 3, 25: 2, 26: 2,
    37: 12, 38: 6, 39: 2, 41: 8, 42: 15, 43: 40, 49: 3, 52: 8, 53: 16, 64: 8, 70: 3, 90: 42, 128: 8,
}  # fmt: skip
VARYING: Final = {
    2: 2, 32: 2, 33: 2, 35: 2, 44: 2, 100: 2, 48: 3, 54: 3, 55: 3, 60: 3, 61: 3, 62: 3, 63: 3,
    121: 3, 123: 3,
}  # fmt: skip
"""How many digits the length has."""

Fields = dict[int, bytes]


class Garbled(Exception):
    """The bytes are no message; a real host would hang up, and so does this one."""


def parse(raw: bytes) -> tuple[str, Fields]:
    """Return the type and the fields of a message without its header.

    Raises:
        Garbled
    """
    mti, bits, at, width = raw[:4], raw[4:12], 12, 64
    if not mti.isdigit() or len(bits) < 8:
        raise Garbled("type or bitmap")
    if bits[0] & 0x80:
        bits, at, width = raw[4:20], 20, 128
    map_ = int.from_bytes(bits.ljust(width // 8, b"\0"), "big")
    fields: Fields = {}
    for number in range(2, width + 1):
        if map_ & (1 << (width - number)):
            size, start = _size(raw, at, number)
            fields[number] = raw[start : start + size]
            if len(fields[number]) != size:
                raise Garbled(f"field {number} is cut")
            at = start + size
    if at != len(raw):
        raise Garbled("bytes left over")
    return mti.decode(), fields


def _size(raw: bytes, at: int, number: int) -> tuple[int, int]:
    if number in FIXED:
        return FIXED[number], at
    digits = VARYING.get(number)
    if digits is None:
        raise Garbled(f"field {number} is not known here")
    text = raw[at : at + digits]
    if len(text) != digits or not text.isdigit():
        raise Garbled(f"length of field {number}")
    return int(text), at + digits


def compose(mti: str, fields: Fields) -> bytes:
    """Return a message without its header; the fields are trusted, they are our own."""
    width = 128 if max(fields) > 64 else 64
    map_ = 1 << 127 if width == 128 else 0
    body = b""
    for number in sorted(fields):
        map_ |= 1 << (width - number)
        value = fields[number]
        if number in VARYING:
            body += str(len(value)).zfill(VARYING[number]).encode()
        body += value
    return mti.encode() + map_.to_bytes(width // 8, "big") + body


def framed(message: bytes, *, to: str, sender: str) -> bytes:
    """Return the message as it goes over the wire, header and length before it."""
    header = b"\x2e\x02" + f"{HEADER + len(message):04d}{to:<11}{sender:<11}000".encode()
    header += b"\x00" + b"0" * 8 + b"\x00" + b"0" * 5
    return (HEADER + len(message)).to_bytes(2, "big") + header + message


def unheadered(payload: bytes) -> bytes:
    """Return the message behind a header.

    Raises:
        Garbled
    """
    if payload[:2] != b"\x2e\x02" or payload[2:6] != f"{len(payload):04d}".encode():
        raise Garbled("header")
    return payload[HEADER:]

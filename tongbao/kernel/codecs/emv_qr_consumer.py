"""EMV consumer-presented QR (EMVCo QRCPS, Consumer-Presented Mode 1.1): a code a merchant scans.

    base64 of   85 payload format "CPV01"
                61 application template, once or more: 4F AID, 57 track 2, 5A number, …
                   63 application-specific transparent template: 9F26, 9F27, 9F10, 9F36, 82, 9F37
                62 common data template ─ 64 common transparent template

BER-TLV: a tag with bit 6 holds further objects. Whatever is read is kept in its order, tags that
nobody here knows included; lengths are written in their shortest form.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from binascii import Error as NotBase64
from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from tongbao.kernel.codecs.emv_qr import (
    TEXT_LENGTH_MAX,
    EmvQrFieldMalformed,
    EmvQrFieldMissing,
    EmvQrFieldRepeated,
    EmvQrTooLong,
    EmvQrUnreadable,
)

FORMAT: Final = "85"
VERSION: Final = b"CPV01"
APPLICATION: Final = "61"
COMMON: Final = "62"
APPLICATION_TRANSPARENT: Final = "63"
COMMON_TRANSPARENT: Final = "64"
AID: Final = "4F"
LABEL: Final = "50"
TRACK2: Final = "57"
NUMBER: Final = "5A"
SEQUENCE: Final = "5F34"

UNIONPAY: Final = bytes.fromhex("A000000333")
"""How UnionPay's application identifiers begin (its registered provider number)."""

DEPTH_MAX: Final = 4
_HOLDS_OBJECTS: Final = 0x20
_LONG_TAG: Final = 0x1F
_MORE_TAG: Final = 0x80
_TRACK2: Final = re.compile(r"([0-9]{8,19})D([0-9]{4})([0-9]{3})?[0-9]*F?")


class Primitive(Struct, frozen=True):
    """A tag, in upper-case hexadecimal, and its bytes."""

    tag: str
    value: bytes

    def __repr__(self) -> str:  # card numbers and cryptograms are not for logs
        return f"Primitive({self.tag}, {len(self.value)} bytes)"


class Constructed(Struct, frozen=True):
    """A tag that holds further objects."""

    tag: str
    objects: tuple[TlvObject, ...]

    def find(self, tag: str) -> bytes | None:
        """Return the first value of a tag, however deep it lies, or None."""
        return _find(self.objects, tag)


TlvObject = Primitive | Constructed


class Track2(Struct, frozen=True):
    """What field 57 says. The number is a token at UnionPay, and a card number elsewhere."""

    number: str
    expiry: str  # YYMM
    service_code: str

    def __repr__(self) -> str:
        return "Track2(…)"


class ConsumerQr(Struct, frozen=True):
    """A code as the objects it holds, in order; the first says which format it is."""

    objects: tuple[TlvObject, ...]

    @property
    def applications(self) -> tuple[Constructed, ...]:
        """Return the ways to pay that the customer's app offers, the preferred one first."""
        return tuple(
            each
            for each in self.objects
            if isinstance(each, Constructed) and each.tag == APPLICATION
        )

    @property
    def common(self) -> Constructed | None:
        """Return what is said for every application, or None."""
        found = (each for each in self.objects if isinstance(each, Constructed))
        return next((each for each in found if each.tag == COMMON), None)

    def find(self, tag: str) -> bytes | None:
        """Return the first value of a tag, however deep it lies, or None."""
        return _find(self.objects, tag)


def track2_of(application: Constructed) -> Track2 | None:
    """Return the track 2 an application gives, or None where it gives none.

    Raises:
        EmvQrFieldMalformed: it gives something that is no track 2.
    """
    value = application.find(TRACK2)
    if value is None:
        return None
    found = _TRACK2.fullmatch(value.hex().upper())
    if found is None:
        raise EmvQrFieldMalformed(param=TRACK2)
    number, expiry, service_code = found.groups(default="")
    return Track2(number, expiry, service_code)


def is_unionpay(application: Constructed) -> bool:
    """Return whether an application is one of UnionPay's."""
    return (application.find(AID) or b"").startswith(UNIONPAY)


def decode(text: str) -> ConsumerQr:
    """Return what the text of a consumer-presented QR says.

    Raises:
        EmvQrTooLong, EmvQrUnreadable, EmvQrFieldMissing, EmvQrFieldRepeated, EmvQrFieldMalformed
    """
    if len(text) > TEXT_LENGTH_MAX:
        raise EmvQrTooLong(length=len(text))
    try:
        content = b64decode(text.encode("ascii"), validate=True)
    except (NotBase64, UnicodeEncodeError):
        raise EmvQrUnreadable from None
    qr = ConsumerQr(_objects(content, DEPTH_MAX))
    _check(qr)
    return qr


def encode(qr: ConsumerQr) -> str:
    """Return the text of a code.

    Raises:
        EmvQrTooLong, EmvQrFieldMissing, EmvQrFieldRepeated, EmvQrFieldMalformed
    """
    _check(qr)
    for each in qr.objects:
        _check_tags(each, DEPTH_MAX)
    text = b64encode(b"".join(_bytes(each) for each in qr.objects)).decode()
    if len(text) > TEXT_LENGTH_MAX:
        raise EmvQrTooLong(length=len(text))
    return text


def _objects(content: bytes, depth: int) -> tuple[TlvObject, ...]:
    if depth == 0:
        raise EmvQrUnreadable
    found: list[TlvObject] = []
    at = 0
    while at < len(content):
        tag, at = _tag(content, at)
        length, at = _length(content, at)
        value = content[at : at + length]
        if len(value) != length:
            raise EmvQrUnreadable
        at += length
        if tag[0] & _HOLDS_OBJECTS:
            found.append(Constructed(tag.hex().upper(), _objects(value, depth - 1)))
        else:
            found.append(Primitive(tag.hex().upper(), value))
    return tuple(found)


def _tag(content: bytes, at: int) -> tuple[bytes, int]:
    """Return a tag of one or two bytes (EMV has no longer ones) and where it ends."""
    length = 2 if content[at] & _LONG_TAG == _LONG_TAG else 1
    tag = content[at : at + length]
    if not _is_tag(tag):
        raise EmvQrUnreadable
    return tag, at + length


def _is_tag(tag: bytes) -> bool:
    """Return whether these bytes are a tag of one or two bytes, and nothing more or less."""
    match len(tag):
        case 1:
            return tag != b"\0" and tag[0] & _LONG_TAG != _LONG_TAG
        case 2:
            return tag[0] & _LONG_TAG == _LONG_TAG and not tag[1] & _MORE_TAG
        case _:
            return False


def _length(content: bytes, at: int) -> tuple[int, int]:
    """Return a length of one to three bytes and where it ends; 512 characters need no more."""
    if at >= len(content):
        raise EmvQrUnreadable
    first = content[at]
    if first < 0x80:
        return first, at + 1
    following = first & 0x7F
    if following not in {1, 2} or at + 1 + following > len(content):
        raise EmvQrUnreadable
    return int.from_bytes(content[at + 1 : at + 1 + following], "big"), at + 1 + following


def _bytes(each: TlvObject) -> bytes:
    value = (
        each.value
        if isinstance(each, Primitive)
        else b"".join(_bytes(inner) for inner in each.objects)
    )
    size = len(value)
    if size < 0x80:
        length = bytes([size])
    elif size < 0x100:
        length = bytes([0x81, size])
    elif size < 0x10000:
        length = bytes([0x82]) + size.to_bytes(2, "big")
    else:
        raise EmvQrTooLong(length=size)
    return bytes.fromhex(each.tag) + length + value


def _check(qr: ConsumerQr) -> None:
    first = qr.objects[0] if qr.objects else None
    if first is None or first.tag != FORMAT:
        raise EmvQrFieldMissing(param=FORMAT)
    if not isinstance(first, Primitive) or first.value != VERSION:
        raise EmvQrFieldMalformed(param=FORMAT)
    tags = [each.tag for each in qr.objects]
    for tag in (FORMAT, COMMON):
        if tags.count(tag) > 1:
            raise EmvQrFieldRepeated(param=tag)
    if not qr.applications:
        raise EmvQrFieldMissing(param=APPLICATION)
    for application in qr.applications:
        if application.find(AID) is None:
            raise EmvQrFieldMissing(param=f"{APPLICATION}.{AID}")


def _check_tags(each: TlvObject, depth: int) -> None:
    try:
        tag = bytes.fromhex(each.tag)
    except ValueError:
        raise EmvQrFieldMalformed(param="tag") from None
    holds = bool(tag and tag[0] & _HOLDS_OBJECTS)
    is_whole = tag.hex().upper() == each.tag and _is_tag(tag)
    if not is_whole or holds != isinstance(each, Constructed):
        raise EmvQrFieldMalformed(param="tag")
    if isinstance(each, Constructed):
        if depth == 1:
            raise EmvQrFieldMalformed(param="depth")
        for inner in each.objects:
            _check_tags(inner, depth - 1)


def _find(objects: Sequence[TlvObject], tag: str) -> bytes | None:
    for each in objects:
        if isinstance(each, Primitive):
            if each.tag == tag:
                return each.value
        elif (deeper := each.find(tag)) is not None:
            return deeper
    return None

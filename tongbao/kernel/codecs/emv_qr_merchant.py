"""EMV merchant-presented QR (EMVCo QRCPS, Merchant-Presented Mode 1.1): a text a customer scans.

    00 02 "01"   tag, length, value; two digits each for tag and length
    26 29 …      a template: its value is tags, lengths and values again
    63 04 A13A   CRC-16 over every byte before it, its own tag and length included

A length counts characters, not bytes: 最佳运输 has four. Fields keep the order they have, so a text
that was read is written again as it was.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from msgspec import Struct

from tongbao.kernel.codecs.emv_qr import (
    TEXT_LENGTH_MAX,
    EmvQrChecksumWrong,
    EmvQrFieldMalformed,
    EmvQrFieldMissing,
    EmvQrFieldRepeated,
    EmvQrTooLong,
    EmvQrUnreadable,
)

FORMAT: Final = "00"
INITIATION: Final = "01"
CATEGORY: Final = "52"
CURRENCY: Final = "53"
AMOUNT: Final = "54"
TIP: Final = "55"
TIP_FIXED: Final = "56"
TIP_PERCENT: Final = "57"
COUNTRY: Final = "58"
NAME: Final = "59"
CITY: Final = "60"
POSTAL_CODE: Final = "61"
ADDITIONAL: Final = "62"
CHECKSUM: Final = "63"
LANGUAGE: Final = "64"
UNIQUE_ID: Final = "00"  # within an account template or an unreserved one: whose it is

STATIC: Final = "11"
DYNAMIC: Final = "12"

VALUE_LENGTH_MAX: Final = 99
_TAIL: Final = f"{CHECKSUM}04"
_DIGITS: Final = re.compile(r"[0-9]{2}")
_AMOUNT: Final = r"(?=.{1,13}$)[0-9]+(\.[0-9]*)?"

SCHEMES: Final[Mapping[str, str]] = {
    "02": "visa", "03": "visa",
    "04": "mastercard", "05": "mastercard",
    "06": "emvco", "07": "emvco", "08": "emvco",
    "09": "discover", "10": "discover",
    "11": "amex", "12": "amex",
    "13": "jcb", "14": "jcb",
    "15": "unionpay", "16": "unionpay",
}  # fmt: skip
"""Whose merchant account number a field below 17 holds; 17–25 are kept for later."""

_SHAPES: Final[Mapping[str, re.Pattern[str]]] = {
    FORMAT: re.compile("01"),
    INITIATION: re.compile("1[12]"),
    CATEGORY: re.compile("[0-9]{4}"),
    CURRENCY: re.compile("[0-9]{3}"),
    AMOUNT: re.compile(_AMOUNT),
    TIP: re.compile("0[123]"),
    TIP_FIXED: re.compile(_AMOUNT),
    TIP_PERCENT: re.compile(r"(?=.{1,5}$)[0-9]{1,2}(\.[0-9]*)?"),
    COUNTRY: re.compile("[A-Z]{2}"),
    NAME: re.compile(".+", re.DOTALL),
    CITY: re.compile(".+", re.DOTALL),
}
_LENGTHS_MAX: Final[Mapping[str, int]] = {NAME: 25, CITY: 15, POSTAL_CODE: 10}
"""For what we write only: codes with longer cities are in use, and say what they mean."""
_MANDATORY: Final = (CATEGORY, CURRENCY, COUNTRY, NAME, CITY)
ADDITIONAL_NAMES: Final[Mapping[str, str]] = {
    "01": "bill",
    "02": "mobile",
    "03": "store",
    "04": "loyalty",
    "05": "reference",
    "06": "customer",
    "07": "terminal",
    "08": "purpose",
    "09": "request",
}
"""What the parts of field 62 are; a value of ``***`` asks the customer's app to have it typed."""
ASKED: Final = "***"


class Part(Struct, frozen=True):
    """A field with a plain value, or one part of a template."""

    tag: str
    value: str


class Template(Struct, frozen=True):
    """A field made of parts."""

    tag: str
    parts: tuple[Part, ...]

    def __getitem__(self, tag: str) -> str | None:
        """Return the value of a part, or None where it is not there."""
        return next((part.value for part in self.parts if part.tag == tag), None)


Field = Part | Template


class MerchantQr(Struct, frozen=True):
    """A code as a list of fields in the order of the text, without its checksum."""

    fields: tuple[Field, ...]

    def value(self, tag: str) -> str | None:
        """Return the value of a plain field, or None where it is not there."""
        found = (each.value for each in self.fields if isinstance(each, Part) and each.tag == tag)
        return next(found, None)

    def template(self, tag: str) -> Template | None:
        """Return a template by its tag, or None where it is not there."""
        found = (each for each in self.fields if isinstance(each, Template) and each.tag == tag)
        return next(found, None)

    @property
    def is_static(self) -> bool:
        """Whether the same code serves many payments; one that does not say so is static."""
        return self.value(INITIATION) != DYNAMIC

    @property
    def accounts(self) -> tuple[Field, ...]:
        """Return the accounts the merchant can be paid to, best first as the merchant has them."""
        return tuple(each for each in self.fields if is_account(each.tag))

    @property
    def additional(self) -> Mapping[str, str]:
        """Return what field 62 says, by the names of `ADDITIONAL_NAMES`."""
        found = self.template(ADDITIONAL)
        parts = found.parts if found is not None else ()
        return {
            ADDITIONAL_NAMES[part.tag]: part.value for part in parts if part.tag in ADDITIONAL_NAMES
        }

    def name_in(self, language: str) -> str | None:
        """Return the merchant's name: in this ISO 639 language where the code has it so."""
        other = self.template(LANGUAGE)
        if other is not None and (other["00"] or "").lower() == language.lower():
            return other["01"] or self.value(NAME)
        return self.value(NAME)


def is_account(tag: str) -> bool:
    """Return whether a field says where the merchant can be paid."""
    return "02" <= tag <= "51"


def is_template(tag: str) -> bool:
    """Return whether a field is made of parts."""
    return "26" <= tag <= "51" or tag in {ADDITIONAL, LANGUAGE} or "80" <= tag <= "99"


def checksum(text: str) -> str:
    """Return CRC-16/CCITT-FALSE over the UTF-8 bytes (``123456789`` gives 29B1)."""
    return f"{binascii.crc_hqx(text.encode(), 0xFFFF):04X}"


def decode(text: str) -> MerchantQr:
    """Return what the text of a merchant-presented QR says.

    Raises:
        EmvQrTooLong, EmvQrUnreadable, EmvQrChecksumWrong, EmvQrFieldRepeated, EmvQrFieldMissing,
        EmvQrFieldMalformed
    """
    if len(text) > TEXT_LENGTH_MAX:
        raise EmvQrTooLong(length=len(text))
    head, told = text[:-4], text[-4:]
    try:
        summed = checksum(head)
    except UnicodeEncodeError:
        raise EmvQrUnreadable from None  # half of a character, which no scanner gives
    if not head.endswith(_TAIL):
        raise EmvQrUnreadable
    if told.upper() != summed:
        raise EmvQrChecksumWrong
    qr = MerchantQr(tuple(_field(part) for part in _parts(head.removesuffix(_TAIL))))
    _check(qr)
    return qr


def encode(qr: MerchantQr) -> str:
    """Return the text of a code, checksum included.

    Raises:
        EmvQrTooLong, EmvQrFieldRepeated, EmvQrFieldMissing, EmvQrFieldMalformed
    """
    _check(qr)
    text = "".join(_text(each) for each in qr.fields) + _TAIL
    try:
        whole = text + checksum(text)
    except UnicodeEncodeError:
        raise EmvQrFieldMalformed(param="text") from None
    if len(whole) > TEXT_LENGTH_MAX:
        raise EmvQrTooLong(length=len(whole))
    return whole


def compose(
    *,
    accounts: Sequence[Field],
    category: str,
    currency: str,
    country: str,
    name: str,
    city: str,
    amount: str | None = None,
    more: Sequence[Field] = (),
) -> MerchantQr:
    """Return a code of these fields in the order of their tags.

    ``currency`` is the ISO 4217 number (156), ``category`` the ISO 18245 code. A code with an
    amount is marked dynamic, one without static. Field 61 and those from 62 on come as ``more``.

    Raises:
        EmvQrFieldRepeated, EmvQrFieldMissing, EmvQrFieldMalformed
    """
    fields: list[Field] = [
        Part(FORMAT, "01"),
        Part(INITIATION, STATIC if amount is None else DYNAMIC),
        *accounts,
        Part(CATEGORY, category),
        Part(CURRENCY, currency),
        *([] if amount is None else [Part(AMOUNT, amount)]),
        Part(COUNTRY, country),
        Part(NAME, name),
        Part(CITY, city),
        *more,
    ]
    qr = MerchantQr(tuple(sorted(fields, key=lambda each: each.tag)))
    _check(qr)
    for tag, longest in _LENGTHS_MAX.items():
        if len(qr.value(tag) or "") > longest:
            raise EmvQrFieldMalformed(param=tag)
    return qr


def _parts(text: str) -> Iterator[Part]:
    """Yield tags with their values, which must fill the text exactly.

    Raises:
        EmvQrUnreadable
    """
    at = 0
    while at < len(text):
        tag, length = text[at : at + 2], text[at + 2 : at + 4]
        if not (_DIGITS.fullmatch(tag) and _DIGITS.fullmatch(length)):
            raise EmvQrUnreadable
        end = at + 4 + int(length)
        if end > len(text):
            raise EmvQrUnreadable
        yield Part(tag, text[at + 4 : end])
        at = end


def _field(part: Part) -> Field:
    if not is_template(part.tag):
        return part
    return Template(part.tag, tuple(_parts(part.value)))


def _text(each: Field) -> str:
    value = each.value if isinstance(each, Part) else "".join(_text(part) for part in each.parts)
    if len(value) > VALUE_LENGTH_MAX:
        raise EmvQrFieldMalformed(param=each.tag)
    return f"{each.tag}{len(value):02}{value}"


def _check(qr: MerchantQr) -> None:
    _check_tags("", qr.fields)
    tags = [each.tag for each in qr.fields]
    if tags[:1] != [FORMAT]:
        raise EmvQrFieldMissing(param=FORMAT)
    for tag in _MANDATORY:
        if tag not in tags:
            raise EmvQrFieldMissing(param=tag)
    if not qr.accounts:
        raise EmvQrFieldMissing(param="02")
    for each in qr.fields:
        _check_field(each)


def _check_field(each: Field) -> None:
    if isinstance(each, Template) != is_template(each.tag) or each.tag == CHECKSUM:
        raise EmvQrFieldMalformed(param=each.tag)
    if isinstance(each, Template):
        _check_tags(f"{each.tag}.", each.parts)
        names_its_owner = each.tag not in {ADDITIONAL, LANGUAGE}
        if names_its_owner and not each[UNIQUE_ID]:
            raise EmvQrFieldMissing(param=f"{each.tag}.{UNIQUE_ID}")
        return
    shape = _SHAPES.get(each.tag)
    if shape is not None and not shape.fullmatch(each.value):
        raise EmvQrFieldMalformed(param=each.tag)


def _check_tags(prefix: str, fields: Sequence[Field]) -> None:
    seen: set[str] = set()
    for each in fields:
        if not _DIGITS.fullmatch(each.tag):
            raise EmvQrFieldMalformed(param="tag")
        if each.tag in seen:
            raise EmvQrFieldRepeated(param=prefix + each.tag)
        seen.add(each.tag)

"""Numbers that China's registers give out, and the check characters in them.

    unified social credit code   GB 32100-2015, 18 characters, modulo 31 over powers of 3; its
                                 ninth to seventeenth are an organisation code (GB 11714-1997)
    resident id                  GB 11643-1999, 17 digits and a check character, ISO 7064 MOD 11-2
    bank number (CNAPS 行号)      12 digits; the last is ISO 7064 MOD 11,10 (GB/T 17710)
    card number                  ISO/IEC 7812-1, Luhn; accounts of firms follow no common rule

A check character proves that a number was copied well, not that it was ever given out.
"""

from __future__ import annotations

import re
from datetime import date
from typing import Final

_CREDIT_ALPHABET: Final = "0123456789ABCDEFGHJKLMNPQRTUWXY"
_CREDIT_FORM: Final = re.compile(r"[0-9A-HJ-NPQRTUWXY]{2}\d{6}[0-9A-HJ-NPQRTUWXY]{10}")
_ORGANISATION_WEIGHTS: Final = (3, 7, 9, 10, 5, 8, 4, 2)
_RESIDENT_FORM: Final = re.compile(r"[1-9]\d{16}[\dX]")
_RESIDENT_CHECKS: Final = "10X98765432"
_BANK_FORM: Final = re.compile(r"\d{12}")
_CARD_FORM: Final = re.compile(r"\d{13,19}")


def is_credit_code(text: str) -> bool:
    """Tell whether a text is a unified social credit code (统一社会信用代码), upper case."""
    if not text.isascii() or _CREDIT_FORM.fullmatch(text) is None:
        return False
    total = sum(_CREDIT_ALPHABET.index(each) * pow(3, at, 31) for at, each in enumerate(text[:17]))
    check = _CREDIT_ALPHABET[-total % 31]
    return text[17] == check and text[16] == _organisation_check(text[8:16])


def is_resident_id(text: str, *, today: date) -> bool:
    """Tell whether a text is a resident id (居民身份证号) of somebody who is born by ``today``."""
    if not text.isascii() or _RESIDENT_FORM.fullmatch(text) is None:
        return False
    try:
        born = date(int(text[6:10]), int(text[10:12]), int(text[12:14]))
    except ValueError:
        return False
    total = sum(int(each) * pow(2, 17 - at, 11) for at, each in enumerate(text[:17]))
    return text[17] == _RESIDENT_CHECKS[total % 11] and born.year >= 1880 and born <= today


def is_bank_number(text: str) -> bool:
    """Tell whether a text is the number of a bank's branch in CNAPS (大额支付行号)."""
    if not text.isascii() or _BANK_FORM.fullmatch(text) is None:
        return False
    product = 10
    for each in text[:11]:
        product = ((product + int(each)) % 10 or 10) * 2 % 11
    return int(text[11]) == (11 - product) % 10


def is_card_number(text: str) -> bool:
    """Tell whether a text is a card's number by its Luhn digit."""
    if not text.isascii() or _CARD_FORM.fullmatch(text) is None:
        return False
    doubled = sum(sum(divmod(2 * int(each), 10)) for each in text[-2::-2])
    return (doubled + sum(int(each) for each in text[::-2])) % 10 == 0


def _organisation_check(code: str) -> str:
    """Return the check character of an organisation code; letters count from A = 10."""
    total = sum(
        weight * int(each, 36) for weight, each in zip(_ORGANISATION_WEIGHTS, code, strict=True)
    )
    check = 11 - total % 11
    return {10: "X", 11: "0"}.get(check, str(check))

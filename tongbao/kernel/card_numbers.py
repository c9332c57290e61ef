"""Card numbers: their check digit, whose they are, and where they stand in a text. No I/O.

What counts as a card number here has 13 to 19 digits, a right check digit (ISO/IEC 7812-1, annex
B: Luhn) and a beginning and length that a scheme gives out. Tokens of ours begin with 9, which is
no scheme's: ISO/IEC 7812 keeps it for national use.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from msgspec import Struct

_SCHEMES: Final = (
    ("unionpay", re.compile(r"(62|81)\d{14,17}")),
    ("mastercard", re.compile(r"(5[1-5]\d\d|222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12}")),
    ("visa", re.compile(r"4\d{12}(\d{3})?")),
    ("amex", re.compile(r"3[47]\d{13}")),
    ("jcb", re.compile(r"35(2[89]|[3-8]\d)\d{12}")),
    ("diners", re.compile(r"3(0[0-5]|[68]\d)\d{11}")),
    ("discover", re.compile(r"6(011|4[4-9]\d|5\d\d)\d{12}")),
)
_RUN: Final = re.compile(
    r"(?<![0-9A-Za-z._])"
    r"(?:\d{13,19}|\d{4}([ -])\d{4}\1\d{4}\1\d{4}(?:\1\d{1,3})?|\d{4}([ -])\d{6}\2\d{5})"
    r"(?![0-9A-Za-z_]|[.-]\d)"
)
_TRACK_1: Final = re.compile(r"%?B\d{12,19}\^[^^\n]{2,26}\^\d{7,}")
_TRACK_2: Final = re.compile(r"(?<!\d);?\d{12,19}=\d{7,20}(?!\d)")
_TRACK_2_HEX: Final = re.compile(r"(?<![0-9A-F])\d{12,19}D\d{7,20}(?![0-9A-E])")


class Sight(Struct, frozen=True):
    """A card number or a track that was found. It prints as how much of it may be shown."""

    kind: str  # a scheme, or "track"
    start: int
    end: int
    shown: str


def is_luhn(digits: str) -> bool:
    """Tell whether the last digit is the check digit of those before it."""
    total = 0
    for at, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + at % 2)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def check_digit(digits: str) -> str:
    """Return the digit that makes these a number with a right check digit."""
    return next(last for last in "0123456789" if is_luhn(digits + last))


def scheme_of(digits: str) -> str | None:
    """Return the scheme that gives out numbers like this, if the number can be one."""
    for scheme, form in _SCHEMES:
        if form.fullmatch(digits):
            return scheme if is_luhn(digits) else None
    return None


def masked(digits: str) -> str:
    """Return the first six and last four digits, as much as PCI DSS 3.4.1 lets people see."""
    if len(digits) < 13:
        return "*" * len(digits)
    return digits[:6] + "*" * (len(digits) - 10) + digits[-4:]


def sights(text: str) -> Iterator[Sight]:
    """Yield every track in a text, and then every card number that is in none.

    Digits may stand in the groups that are printed on cards. What a letter or a digit more stands
    beside is an id of somebody's and no card: of random ids in hex one in some thousands would pass
    for one. For the same reason a Visa number has 16 digits, or 13: with 19 there are hardly any.
    """
    tracks = list(_tracks(text))
    yield from tracks
    for run in _RUN.finditer(text):
        scheme = scheme_of(re.sub(r"[ -]", "", run.group()))
        if scheme is None or any(each.start <= run.start() < each.end for each in tracks):
            continue
        shown = masked(re.sub(r"[ -]", "", run.group()))
        yield Sight(scheme, run.start(), run.end(), shown)


def _tracks(text: str) -> Iterator[Sight]:
    for form, mark in ((_TRACK_1, "^"), (_TRACK_2, "="), (_TRACK_2_HEX, "D")):
        for run in form.finditer(text) if mark in text else ():
            number = re.search(r"\d{12,19}", run.group())
            if number is not None and is_luhn(number.group()):
                yield Sight("track", run.start(), run.end(), masked(number.group()))

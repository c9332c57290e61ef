"""Card numbers: their check digit, whose they are, and where they stand in a text. No I/O.

What counts as a card number here has 13 to 19 digits, a right check digit (ISO/IEC 7812-1, annex
B: Luhn) and a beginning and length that a scheme gives out. Tokens of ours begin with 99, which is
no scheme's: ISO/IEC 7812 keeps 9 for national use, and China's banks have cards of old there.
"""

from __future__ import annotations

import re
import unicodedata
from base64 import b64decode
from collections.abc import Iterator, Mapping
from functools import cache
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
    # Debit cards of the large Chinese banks from before 62, which are still in people's hands:
    # ICBC, ABC, CCB, BOC (twice), PSBC, CMB. The beginnings of smaller banks are left out: at a
    # tenth of all numbers for their check digit, too many numbers of orders would pass for cards.
    ("unionpay", re.compile(r"(9558\d\d|9559[5-9]\d|436742|456351|601382|955100)\d{13}")),
    ("unionpay", re.compile(r"95555\d{11}")),
)
_GAP: Final = r"[ ./_-]{1,3}"
# The first digit is asked for first: most texts have few, and at the others nothing is tried.
_RUN: Final = re.compile(
    r"[0-9](?:(?<![0-9A-Za-z_].)|(?<=(?i:card).)|(?<=(?i:visa).)|(?<=(?i:pan).)|(?<=(?i:no).))"
    rf"(?<![0-9]\..)(?:[0-9]{{12,18}}(?!\.[0-9])"
    rf"|[0-9]{{3}}({_GAP})[0-9]{{4}}\1[0-9]{{4}}\1[0-9]{{4}}(?:\1[0-9]{{1,3}})?(?!\1[0-9]{{4}})"
    rf"|[0-9]{{3}}({_GAP})[0-9]{{6}}\2[0-9]{{4,5}}|[0-9]{{5}}({_GAP})[0-9]{{10,13}}"
    r"|([ ./_-])[0-9](?:\4[0-9]){11,17}(?!\4[0-9]))(?![0-9A-Za-z_])"
)
_NO_DIGIT: Final = re.compile(r"\D")
_TRACK_1: Final = re.compile(r"B[0-9]{12,19}\^[^^\n]{2,26}\^[0-9]{7,}")
_TRACK_2: Final = re.compile(r"[0-9](?<![0-9].)[0-9]{11,18}=[0-9]{7,20}(?![0-9])")
_TRACK_2_HEX: Final = re.compile(
    r"[0-9](?<![0-9A-Fa-f].)[0-9]{11,18}[Dd][0-9]{7,20}(?![0-9A-Ea-e])"
)
_QUARTET: Final = "[ILMNO][CDSTijyz][AEIMQUYcgk0][gtw-z0-5]"
WRAPPED: Final = _QUARTET * 3
"""How digits, blanks and dashes look in Base64, three in four letters."""
_WRAPPED: Final = re.compile(WRAPPED)
_BASE64: Final = re.compile(rf"(?:[0-9A-Za-z+/_-]{{4}})?{WRAPPED}[0-9A-Za-z+/_-]*")
_CODE_NAME: Final = re.compile(
    r"(?:card)?(?:cv[nvc]2?|c[sv]c2?|cav2?|cid|securitycode|verification(?:code|value)|安全码)"
    r"(?:code|number|no|value)?"
)
_NO_LETTER: Final = re.compile(r"[\W_]")
_CODE_SAID: Final = re.compile(
    r"(?<![A-Za-z0-9])(?:cv[nvc]2?|cav2|安全码)[\"']?\s{0,3}(?:[:=]|is|是|为)?\s{0,3}[\"']?\d{3,4}"
    r"(?![0-9A-Za-z])",
    re.IGNORECASE,
)


class Sight(Struct, frozen=True):
    """A card number or a track that was found, and where it stands in the folded text.

    It prints as how much of it may be shown.
    """

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


def folded(text: str) -> str:
    """Return a text with the digits, blanks and dashes of every script as those of ASCII.

    Full-width letters and signs become plain ones too, and what cannot be seen is left out.
    """
    return text if text.isascii() else text.translate(_folds())


def is_code_name(name: str) -> bool:
    """Tell whether a field of this name would have a card's security code."""
    return _CODE_NAME.fullmatch(_NO_LETTER.sub("", folded(name)).lower()) is not None


def says_code(text: str) -> bool:
    """Tell whether a text says a security code: the name of one, and three or four digits."""
    return _CODE_SAID.search(folded(text)) is not None


def sights(text: str) -> Iterator[Sight]:
    """Yield every track in a text, and then every card number that is in none.

    Digits may be those of any script, may stand in the groups that are printed on cards, or one by
    one, and may be in Base64. What a letter or a digit more stands beside is an id of somebody's
    and no card, but for a word like *card*: of random ids in hex one in some thousands would pass
    for one. For the same reason a Visa number has 16 digits, or 13: with 19 there are hardly any.
    """
    plain = folded(text)
    yield from _plain_sights(plain)
    for wrapped in _BASE64.finditer(plain) if _WRAPPED.search(plain) else ():
        for inside in _plain_sights(_unwrapped(wrapped.group())):
            yield Sight(inside.kind, wrapped.start(), wrapped.end(), inside.shown)


def _plain_sights(text: str) -> Iterator[Sight]:
    tracks = list(_tracks(text))
    yield from tracks
    for run in _RUN.finditer(text):
        digits = _NO_DIGIT.sub("", run.group())
        scheme = scheme_of(digits)
        if scheme is None or any(each.start <= run.start() < each.end for each in tracks):
            continue
        yield Sight(scheme, run.start(), run.end(), masked(digits))


def _tracks(text: str) -> Iterator[Sight]:
    for form in (_TRACK_1, _TRACK_2, _TRACK_2_HEX):
        for run in form.finditer(text):
            number = re.search("[0-9]{12,19}", run.group())
            if number is not None and is_luhn(number.group()):
                yield Sight("track", run.start(), run.end(), masked(number.group()))


def _unwrapped(wrapped: str) -> str:
    whole = wrapped[: len(wrapped) // 4 * 4 + (len(wrapped) % 4 > 1) * (len(wrapped) % 4)]
    plain = whole.replace("-", "+").replace("_", "/") + "=" * (-len(whole) % 4)
    return b64decode(plain).decode("latin-1")


@cache
def _folds() -> Mapping[int, str | None]:
    """Return what stands for each character of other scripts; made when the first is read."""
    folds: dict[int, str | None] = {0x2212: "-", 0xB7: "."}
    kinds = {"Pd": "-", "Zs": " ", "Cf": None}
    for code in range(0x80, 0x1FC00):
        kind = unicodedata.category(chr(code))
        if kind == "Nd":
            folds[code] = str(unicodedata.decimal(chr(code)))
        elif kind in kinds:
            folds[code] = kinds[kind]
    return folds | {0xFF01 + place: chr(0x21 + place) for place in range(94)}

"""Card numbers' beginnings: what a table says of a card, and files of such tables. No I/O.

The longest beginning that fits, for numbers of its length, counts. Tables age: what they say is
good for a price that is looked at again when the channel tells the kind, and for choosing a
channel; it is no proof of anything about a card.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from enum import StrEnum
from io import StringIO
from typing import Final

from msgspec import Struct

from tongbao.kernel.errors import Invalid
from tongbao.parties.price_plans.model import CardKind

PREFIX_MIN: Final = 2
PREFIX_MAX: Final = 10
LENGTHS: Final = range(12, 20)
FILE_MAX: Final = 4 * 2**20
ROWS_MAX: Final = 100_000
COLUMNS: Final = ("bin", "bank", "type", "length")
_NAME_MAX: Final = 64
_LONG: Final = 16  # no other scheme's cards have more digits in China

_BRANDS: Final = (
    *(("62", "unionpay"), ("81", "unionpay"), ("34", "amex"), ("37", "amex"), ("35", "jcb")),
    *(("4", "visa"), *((str(each), "mastercard") for each in (*range(51, 56), *range(22, 28)))),
)


class BinFileUnreadable(Invalid):
    """The file is no table of card numbers' beginnings."""

    code = "bins.file_unreadable"
    advice = "Give UTF-8 CSV with the columns bin, bank, type (DC, CC, SCC, PC) and length."
    advice_zh = "请提供 UTF-8 编码的 CSV，列为 bin、bank、type（DC、CC、SCC、PC）与 length。"


class BinKind(StrEnum):
    """What a card is, in the words of Chinese tables: 借记卡, 贷记卡, 准贷记卡, 预付费卡."""

    DEBIT = "DC"
    CREDIT = "CC"
    SEMI_CREDIT = "SCC"
    PREPAID = "PC"

    @property
    def price_kind(self) -> CardKind:
        """The kind of a price line: a semi-credit card costs what credit does, prepaid as debit."""
        is_credit = self in {BinKind.CREDIT, BinKind.SEMI_CREDIT}
        return CardKind.CREDIT if is_credit else CardKind.DEBIT


class BinRow(Struct, frozen=True):
    """One beginning of card numbers of one length. ``source``: where the row is from."""

    prefix: str
    length: int
    issuer: str
    kind: BinKind
    source: str


class CardFacts(Struct, frozen=True):
    """What is known of a card by its number. ``issuer`` is a short code, like ICBC."""

    kind: BinKind
    issuer: str
    brand: str
    source: str


def brand_of(digits: str) -> str:
    """Return the scheme of a card by its first digits; ``other`` where they tell none.

    As the schemes publish their ranges: UnionPay 62 and 81, Visa 4, Mastercard 51-55 and
    2221-2720, American Express 34 and 37, JCB 3528-3589.
    """
    return next((brand for prefix, brand in _BRANDS if digits.startswith(prefix)), "other")


def best_row(number: str, rows: Iterable[BinRow]) -> BinRow | None:
    """Return the row with the longest beginning of a number; of two as long, the first."""
    fits = [row for row in rows if row.length == len(number) and number.startswith(row.prefix)]
    return max(fits, key=lambda row: len(row.prefix), default=None)


def facts_of(number: str, row: BinRow) -> CardFacts:
    """Return what a row says of a card; a number that no scheme gives out so is of UnionPay's net.

    So are those of 17 to 19 digits that begin with 4, as China's banks gave out before 62.
    """
    brand = brand_of(number) if len(number) <= _LONG else "other"
    return CardFacts(row.kind, row.issuer, "unionpay" if brand == "other" else brand, row.source)


def read_bins(content: bytes, source: str) -> list[BinRow]:
    """Return the rows of a file, all of them good and each beginning and length once.

    Raises:
        BinFileUnreadable
    """
    if len(content) > FILE_MAX:
        raise BinFileUnreadable(reason=f"longer than {FILE_MAX} bytes")
    try:
        reader = csv.DictReader(StringIO(content.decode("utf-8-sig")), strict=True)
        lines = list(reader)
    except (UnicodeDecodeError, csv.Error):
        raise BinFileUnreadable(reason="no CSV in UTF-8") from None
    if not set(COLUMNS) <= set(reader.fieldnames or ()):
        raise BinFileUnreadable(reason="a column is missing")
    if not 0 < len(lines) <= ROWS_MAX:
        raise BinFileUnreadable(reason=f"1 to {ROWS_MAX} rows")
    rows: dict[tuple[str, int], BinRow] = {}
    for number, line in enumerate(lines, start=2):
        row = _row(line, source)
        if row is None or (row.prefix, row.length) in rows:
            raise BinFileUnreadable(reason="a row is wrong, or there twice", line=number)
        rows[row.prefix, row.length] = row
    return list(rows.values())


def _row(line: Mapping[str, str | None], source: str) -> BinRow | None:
    prefix, issuer, kind, length = (line[name] or "" for name in COLUMNS)
    is_number = (prefix + length).isascii() and (prefix + length).isdigit()
    if not is_number or not PREFIX_MIN <= len(prefix) <= PREFIX_MAX:
        return None
    if len(length) != 2 or int(length) not in LENGTHS or kind not in set(BinKind):
        return None
    if not 0 < len(issuer) <= _NAME_MAX or not issuer.isprintable():
        return None
    return BinRow(prefix, int(length), issuer, BinKind(kind), source)

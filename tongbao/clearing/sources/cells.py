"""Turn the cells of a line into a row: amounts exact, signs by rule, times in their zone."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Final
from zoneinfo import ZoneInfo

from tongbao.clearing.sources.model import (
    Field,
    Fields,
    Kind,
    Layout,
    Sign,
    SourceFault,
    SourceRow,
    SourceTotal,
    Trailer,
)
from tongbao.kernel.money import EXPONENTS

CELL_MAX: Final = 512
NUMBER_MAX: Final = 128
TEXT_SHOWN: Final = 160
_DIGITS_MAX: Final = 18
_LARGEST: Final = 10**17
_EXCEL_ZERO: Final = datetime(1899, 12, 30)  # noqa: DTZ001 - the zone is the layout's
_NOISE: Final = Decimal("1e-7")
_YEARS: Final = range(2000, 2100)


class CellMalformed(Exception):
    """A cell cannot be read; the rows around its own still count."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


def fault(line: int, code: str, text: str) -> SourceFault:
    """Return the fault of a line, with its start for whoever looks."""
    return SourceFault(line, code, text[:TEXT_SHOWN].replace("\0", "\ufffd"))


def row_of(layout: Layout, line: int, cells: Mapping[str, str]) -> SourceRow | None:
    """Return the row of a line; None for one that the layout skips.

    Raises:
        CellMalformed
    """
    fields = layout.fields
    if fields is None:
        raise CellMalformed("source.no_fields")
    word = text_of(fields.word, cells) if fields.word else ""
    kind = _kind_of(layout, word)
    if kind.skip:
        return None
    if fields.owner and layout.owners and text_of(fields.owner, cells) not in layout.owners:
        raise CellMalformed("source.wrong_merchant")
    currency = text_of(fields.currency, cells).upper() if fields.currency else layout.currency
    if currency not in EXPONENTS:
        raise CellMalformed("source.currency_unknown")
    sign = kind.sign if layout.kinds else layout.sign
    number = text_of(fields.number, cells)
    if not number:
        raise CellMalformed("source.number_missing")
    return SourceRow(
        line=line,
        kind=kind.kind,
        number=number,
        ref=text_of(fields.ref, cells) if fields.ref else "",
        batch=text_of(fields.batch, cells) if fields.batch else "",
        amount=_signed(_amount_of(fields, cells), sign, word),
        fee=_optional(fields.fee, cells),
        currency=currency,
        at=_moment(fields.at, text_of(fields.at, cells, CELL_MAX), layout.zone),
        state=text_of(fields.state, cells) if fields.state else "",
    )


def text_of(field: Field, cells: Mapping[str, str], longest: int = NUMBER_MAX) -> str:
    """Return a cell as text, without what the layout strips.

    Raises:
        CellMalformed
    """
    value = _raw(field, cells)
    if len(value) > longest:
        raise CellMalformed("source.cell_too_long")
    if any(letter < " " for letter in value):
        raise CellMalformed("source.control_character")
    return value


def minor_units(text: str, scale: int) -> int:
    """Return an amount in minor units, exactly.

    Raises:
        CellMalformed: no number, more decimals than the scale, or absurdly large.
    """
    plain = text.replace(",", "") if "," in text and "." in text else text
    body = plain[1:] if plain[:1] in {"+", "-"} else plain
    whole, _, rest = body.partition(".")
    digits = whole + rest
    if not digits.isascii() or not digits.isdigit() or len(digits) > 3 * _DIGITS_MAX:
        raise CellMalformed("source.amount_malformed")
    try:
        value = Decimal(plain).scaleb(scale)
    except InvalidOperation:
        raise CellMalformed("source.amount_malformed") from None
    nearest = value.to_integral_value()
    # A spreadsheet keeps 12.3 as the nearest binary fraction and may write 12.300000000000001.
    if abs(value - nearest) > _NOISE:
        raise CellMalformed("source.amount_too_precise")
    if abs(nearest) > _LARGEST:
        raise CellMalformed("source.amount_too_large")
    return int(nearest)


def total_of(trailer: Trailer, line: int, figures: Mapping[str, str]) -> SourceTotal:
    """Return what a trailer says.

    Raises:
        CellMalformed
    """

    def figure(name: str, scale: int) -> int | None:
        text = figures.get(name, "").strip()
        return minor_units(text, scale) if text else None

    count = figure("count", 0)
    return SourceTotal(
        line=line,
        count=count,
        sum=figure("sum", trailer.scale),
        credit=figure("credit", trailer.scale),
        debit=figure("debit", trailer.scale),
    )


def _raw(field: Field, cells: Mapping[str, str]) -> str:
    value = None
    for place in field.places:
        value = cells.get(place)
        if value is not None:
            value = value.strip().strip(field.strip).strip()
            if value:
                return value
    if value is None and field.default is None:
        raise CellMalformed("source.column_missing")
    return value or field.default or ""


def _amount_of(fields: Fields, cells: Mapping[str, str]) -> int:
    if fields.amount is not None:
        return minor_units(text_of(fields.amount, cells), fields.amount.scale)
    credit, debit = _optional(fields.credit, cells), _optional(fields.debit, cells)
    if credit and debit:
        raise CellMalformed("source.both_directions")
    return credit or -abs(debit)


def _optional(field: Field | None, cells: Mapping[str, str]) -> int:
    if field is None:
        return 0
    text = _raw(field, cells)
    return minor_units(text, field.scale) if text else 0


def _kind_of(layout: Layout, word: str) -> Kind:
    if not layout.kinds:
        return Kind(words=(), kind="line")
    for kind in layout.kinds:
        if word in kind.words:
            return kind
    raise CellMalformed("source.word_unknown")


def _signed(amount: int, sign: Sign, word: str) -> int:
    match sign:
        case "positive":
            return abs(amount)
        case "negative":
            return -abs(amount)
        case "flipped":
            return -amount
        case "by_word":
            return -abs(amount) if word.startswith(("D", "-")) else abs(amount)
        case _:
            return amount


def _moment(field: Field, text: str, zone: str) -> datetime:
    try:
        if field.format == "excel":
            at = _EXCEL_ZERO + timedelta(seconds=round(Decimal(text) * 86_400))
        elif field.format:
            at = datetime.strptime(text, field.format)  # noqa: DTZ007 - its zone comes next
        else:
            at = datetime.fromisoformat(text)
    except (ValueError, InvalidOperation, OverflowError):
        raise CellMalformed("source.time_malformed") from None
    if at.year not in _YEARS:
        raise CellMalformed("source.time_malformed")
    return (at if at.tzinfo else at.replace(tzinfo=ZoneInfo(zone))).astimezone(UTC)

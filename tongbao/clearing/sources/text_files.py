"""Files of lines: delimited, of fixed width, and MT940; read one line at a time."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping
from datetime import date, datetime
from typing import IO, Final

from tongbao.clearing.sources.cells import CellMalformed, fault, minor_units, row_of, total_of
from tongbao.clearing.sources.model import (
    Field,
    Fields,
    Layout,
    SourceFault,
    SourceLine,
    SourceTotal,
    Trailer,
)
from tongbao.rails.channels.bill_text import lines_of as text_lines
from tongbao.rails.channels.contract.bills import BillFault

_BOM: Final = "\ufeff"
_BYTES: Final = "latin-1"
_HEADER_WITHIN: Final = 200
"""A header stands among the first lines, or the file is another's."""
_STATEMENT_LINE: Final = re.compile(
    r":61:(?P<value>\d{6})(?P<booked>\d{4})?(?P<mark>R?[CD])(?P<funds>[A-Z])?"
    r"(?P<amount>\d{1,15},\d{0,2})(?P<kind>[NFS][A-Z0-9]{3})"
    r"(?P<number>[^/]{1,16}?)(?://(?P<ref>.{1,16}))?$"
)
_BALANCE: Final = re.compile(
    r":6(?P<which>0|2)(?P<part>[FM]):(?P<mark>[CD])(?P<day>\d{6})(?P<currency>[A-Z]{3})"
    r"(?P<amount>\d{1,15},\d{0,2})$"
)


def read_delimited(layout: Layout, file: IO[bytes]) -> Iterator[SourceLine]:
    """Yield rows, faults and the total of a delimited file."""
    names = layout.names or None
    yield from _read(layout, file, layout.encoding, names)


def read_fixed(layout: Layout, file: IO[bytes]) -> Iterator[SourceLine]:
    """Yield rows, faults and the total of a file of fixed width."""
    encoding = _BYTES if layout.width_in_bytes else layout.encoding
    yield from _read(layout, file, encoding, ())


def _read(
    layout: Layout, file: IO[bytes], encoding: str, names: tuple[str, ...] | None
) -> Iterator[SourceLine]:
    number, is_whole = 0, layout.trailer is None or not layout.trailer.is_required
    lines = text_lines(file, encoding)
    for number, text in lines:
        if isinstance(text, BillFault):
            yield _told(text)
            continue
        line = text.removeprefix(_BOM) if number == 1 else text
        if (trailer := layout.trailer) and line.startswith(trailer.begins):
            is_whole = True
            yield _total(layout, trailer, number, line, lines)
        elif names is None:
            names = _names(layout, line)
            if number > _HEADER_WITHIN:
                break
        elif line.strip() and not (layout.comment and line.startswith(layout.comment)):
            yield from _row(layout, number, line, names)
    if names is None:
        yield fault(number, "source.header_missing", "")
    elif not is_whole:
        yield fault(number + 1, "source.truncated", "")
    elif layout.trailer is None:
        yield SourceTotal(number)  # nothing at its end says that it is whole


def _names(layout: Layout, line: str) -> tuple[str, ...] | None:
    if not line.startswith(layout.header):
        return None
    return tuple(name.strip() for name in _split(layout, line, with_prefix=False))


def _row(layout: Layout, number: int, line: str, names: tuple[str, ...]) -> Iterator[SourceLine]:
    try:
        cells = (
            _fixed_cells(layout, line) if layout.format == "fixed" else _cells(layout, line, names)
        )
        row = row_of(layout, number, cells)
    except CellMalformed as malformed:
        yield fault(number, malformed.code, line)
        return
    if row is not None:
        yield row


def _cells(layout: Layout, line: str, names: tuple[str, ...]) -> dict[str, str]:
    values = _split(layout, line, with_prefix=True)
    if len(values) != len(names):
        raise CellMalformed("source.columns_differ")
    return dict(zip(names, values, strict=True))


def _split(layout: Layout, line: str, *, with_prefix: bool) -> list[str]:
    if layout.quote:
        try:
            [values] = csv.reader(
                [line], delimiter=layout.separator, quotechar=layout.quote, strict=True
            )
        except (csv.Error, ValueError):
            raise CellMalformed("source.quotes_unbalanced") from None
        return values
    if layout.prefix and with_prefix:
        if not line.startswith(layout.prefix):
            raise CellMalformed("source.columns_differ")
        return line.removeprefix(layout.prefix).split(layout.separator + layout.prefix)
    return line.split(layout.separator)


def _fixed_cells(layout: Layout, line: str) -> dict[str, str]:
    """Cut a line: the fields are their own columns, under the names they have in the layout."""
    cells = {}
    for name, field in fields_of(layout.fields):
        if not field.width:
            continue
        piece = line[field.start : field.start + field.width]
        if len(piece) < field.width and field.default is None:
            raise CellMalformed("source.line_too_short")
        if layout.width_in_bytes:
            try:
                piece = piece.encode(_BYTES).decode(layout.encoding)
            except UnicodeDecodeError:
                raise CellMalformed("source.not_text") from None
        for place in field.places or (name,):
            cells[place] = piece
    return cells


def fields_of(fields: Fields | None) -> Iterator[tuple[str, Field]]:
    """Yield the fields that a layout has, with their names."""
    if fields is None:
        return
    for name in fields.__struct_fields__:
        found = getattr(fields, name)
        if isinstance(found, Field):
            yield name, found


def _total(
    layout: Layout, trailer: Trailer, number: int, line: str, lines: Iterator[tuple[int, object]]
) -> SourceLine:
    try:
        return total_of(trailer, number, _figures(layout, trailer, line, lines))
    except CellMalformed as malformed:
        return fault(number, malformed.code, line)


def _figures(
    layout: Layout, trailer: Trailer, line: str, lines: Iterator[tuple[int, object]]
) -> Mapping[str, str]:
    if trailer.pattern:
        found = re.match(trailer.pattern, line)
        if found is None:
            raise CellMalformed("source.trailer_malformed")
        return {name: value for name, value in found.groupdict().items() if value is not None}
    values = _split(layout, line, with_prefix=not trailer.names_first)
    if trailer.names_first:
        _, after = next(lines, (0, None))
        if not isinstance(after, str):
            raise CellMalformed("source.truncated")
        names, values = values, _split(layout, after, with_prefix=True)
    else:
        names = [str(place) for place in range(1, len(values) + 1)]
    if len(names) != len(values):
        raise CellMalformed("source.trailer_malformed")
    cells = dict(zip(names, values, strict=True))
    wanted = {"count": trailer.count, "sum": trailer.sum}
    wanted |= {"credit": trailer.credit, "debit": trailer.debit}
    missing = [place for place in wanted.values() if place and place not in cells]
    if missing:
        raise CellMalformed("source.trailer_malformed")
    return {name: cells[place] for name, place in wanted.items() if place}


def _told(found: BillFault) -> SourceFault:
    return SourceFault(found.line, found.code.replace("bill.", "source.", 1), found.text)


# MT940: one field per line, `:61:` a movement, `:86:` what is said of it, `:60F:` and `:62F:` the
# balances around them (SWIFT Standards MT, category 9; the fields are the same at every bank).


def read_mt940(layout: Layout, file: IO[bytes]) -> Iterator[SourceLine]:
    """Yield the movements of a bank's MT940, and its balances as totals."""
    opening: int | None = None
    currency, number, is_closed, account = layout.currency, 0, False, ""
    for number, text in text_lines(file, layout.encoding):
        if isinstance(text, BillFault):
            yield _told(text)
            continue
        if text.startswith(":61:"):
            yield _movement(layout, number, text, currency)
        elif text.startswith((":25:", ":25P:")):
            account = text.strip().rpartition(":")[2].rpartition("/")[2]
        elif text.startswith((":60", ":62")):
            balance = _BALANCE.match(text.strip())
            if balance is None:
                yield fault(number, "source.trailer_malformed", text)
                continue
            currency = balance["currency"]
            amount = _comma(balance["amount"]) * (-1 if balance["mark"] == "D" else 1)
            if balance["which"] == "0":
                opening, is_closed = amount, False
            else:
                is_closed = balance["part"] == "F"
                day = _day(balance["day"]) if is_closed else None
                yield SourceTotal(
                    number,
                    opening=opening,
                    closing=amount,
                    account=account.removesuffix(currency).strip(),
                    currency=currency,
                    day=day,
                )
                opening = None
    if not is_closed:
        yield fault(number + 1, "source.truncated", "")


def _day(text: str) -> date | None:
    try:
        return datetime.strptime(text, "%y%m%d").date()  # noqa: DTZ007  a day has no zone
    except ValueError:
        return None


def _movement(layout: Layout, number: int, text: str, currency: str) -> SourceLine:
    found = _STATEMENT_LINE.match(text.strip())
    if found is None:
        return fault(number, "source.columns_differ", text)
    # "RC" takes a credit back, "RD" a debit.
    is_out = found["mark"] in {"D", "RC"}
    cells = {
        "number": found["number"].strip(),
        "ref": (found["ref"] or "").strip(),
        "at": f"20{found['value']}",
        "word": found["kind"],
        "amount": str(_comma(found["amount"]) * (-1 if is_out else 1)),
        "currency": currency,
    }
    try:
        return row_of(layout, number, cells) or fault(number, "source.word_unknown", text)
    except CellMalformed as malformed:
        return fault(number, malformed.code, text)


def _comma(text: str) -> int:
    whole, _, rest = text.partition(",")
    return minor_units(f"{whole}.{rest or '0'}", 2)

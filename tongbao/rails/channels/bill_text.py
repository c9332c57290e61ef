"""What reading any channel's bill shares: lines as a stream, exact amounts, faults as values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import IO, Final

from tongbao.kernel.clock import BUSINESS_ZONE
from tongbao.kernel.errors import Refusal
from tongbao.kernel.money import Money, from_decimal_text
from tongbao.rails.channels.contract.bills import BillFault

LINE_MAX: Final = 64 * 1024
CELL_MAX: Final = 512
"""No channel's number or word is nearly as long, and a longer one fits into no index."""
TEXT_SHOWN: Final = 120
_TIME: Final = "2030-01-31 23:59:59"
_YEAR_MIN: Final = 2000
_COUNT_DIGITS_MAX: Final = 15


class RowMalformed(Exception):
    """A line cannot be read; the lines around it still count."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


def lines_of(file: IO[bytes], encoding: str) -> Iterator[tuple[int, str | BillFault]]:
    """Yield every line with its number, without its ending; one that is no text is a fault."""
    number = 0
    while raw := file.readline(LINE_MAX):
        number += 1
        if len(raw) == LINE_MAX and not raw.endswith(b"\n"):
            while (rest := file.readline(LINE_MAX)) and not rest.endswith(b"\n"):
                pass  # an endless line is skipped in pieces, never held whole
            yield number, fault(number, "bill.line_too_long", raw.decode(encoding, "replace"))
            continue
        try:
            text = raw.decode(encoding).rstrip("\r\n")
        except UnicodeDecodeError:
            yield number, fault(number, "bill.not_text", raw.decode(encoding, "replace"))
            continue
        yield number, text if "\0" not in text else fault(number, "bill.not_text", text)


def fault(line: int, code: str, text: str) -> BillFault:
    """Return the fault of a line, with its start for the person who looks."""
    return BillFault(line, code, text[:TEXT_SHOWN].replace("\0", "\ufffd"))


def cell(row: Mapping[str, str], *names: str) -> str:
    """Return the first of these cells that the bill has.

    Raises:
        RowMalformed
    """
    for name in names:
        if name in row:
            if len(row[name]) > CELL_MAX:
                raise RowMalformed("bill.cell_too_long")
            return row[name]
    raise RowMalformed("bill.column_missing")


def amount(text: str, currency: str) -> Money:
    """Return an exact amount.

    Raises:
        RowMalformed
    """
    try:
        return from_decimal_text(text, currency)
    except Refusal as refusal:
        raise RowMalformed(f"bill.{refusal.code.rpartition('.')[2]}") from None


def not_negative(money: Money) -> Money:
    """Return the amount of a trade, which has no sign of its own.

    Raises:
        RowMalformed
    """
    if money.amount < 0:
        raise RowMalformed("bill.amount_negative")
    return money


def moment(text: str) -> datetime:
    """Return a time that the bill writes in China's zone.

    Raises:
        RowMalformed
    """
    try:
        # A bill has millions of these, and strptime is ten times slower.
        at = datetime.fromisoformat(text)
    except ValueError:
        at = None
    if at is None or at.tzinfo is not None or at.year < _YEAR_MIN or len(text) != len(_TIME):
        raise RowMalformed("bill.time_malformed")
    return at.replace(tzinfo=BUSINESS_ZONE)


def count(text: str) -> int:
    """Return a number of trades; WeChat Pay writes ``45.0``.

    Raises:
        RowMalformed
    """
    whole, _, rest = text.partition(".")
    is_number = whole.isascii() and whole.isdigit() and len(whole) <= _COUNT_DIGITS_MAX
    if not is_number or rest.strip("0"):
        raise RowMalformed("bill.count_malformed")
    return int(whole)


def required(value: str, code: str) -> str:
    """Return a cell that may not be empty.

    Raises:
        RowMalformed
    """
    if not value:
        raise RowMalformed(code)
    return value

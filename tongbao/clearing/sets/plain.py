"""Any bill as plain lines of our own, so that every channel's bill may take the fast lane.

The channel's parser (or a declared layout) reads the bill as always; each row becomes one line of
text in UTF-8, whose few fields stand where `plain_bill` says. A line that could not be read stays a
line too, and is told as such when the lines are read back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from msgspec import Struct

from tongbao.clearing.sets.quick import QuickBill
from tongbao.clearing.sources.model import Layout, SourceFault, SourceRow
from tongbao.clearing.sources.reading import FATAL, read_file
from tongbao.kernel.clock import BUSINESS_ZONE
from tongbao.kernel.money import Money
from tongbao.rails.channels.contract.bills import (
    BillFault,
    BillKind,
    BillLine,
    BillRow,
    BillTerms,
    BillTotal,
)

ROWS_MAX: Final = 50_000_000
PIECE_ROWS_MAX: Final = 5_000_000
"""A piece that unpacks to more is none: whoever puts it there must not fill the disk."""
_HEADER: Final = (
    "at,kind,number,order_number,channel_ref,amount,fee,currency,state,outcome,line"  # columns
)
_TOTAL: Final = "#total"
_FAULT: Final = "fault"
_TRUNCATED: Final = "bill.truncated"
_OTHERS: Final = "bill.wrong_merchant"
_UNREADABLE: Final = frozenset({"bill.archive_damaged", "bill.header_unknown", _OTHERS}) | FATAL
_COLUMNS: Final = 11
_CLOCK: Final = "%Y-%m-%d %H:%M:%S"
_WRITTEN: Final = str.maketrans({sign: f"%{ord(sign):02X}" for sign in '%,"\\\r\n\t\0'})


class Unreadable(ValueError):
    """The file as a whole is not what it should be; its argument is the fault's code."""


class Plain(Struct, frozen=True):
    """What became plain lines. ``is_told``: the bill's own total has figures."""

    rows: int
    has_total: bool
    is_told: bool


def plain_bill(currency: str) -> QuickBill:
    """Return where the fields of plain lines stand; payments that moved in a currency may agree."""
    return QuickBill(
        header=_HEADER,
        trailer=_TOTAL,
        prefix="",
        number=2,
        amount=5,
        fee=6,
        fee_noughts="",
        at=0,
        where=((1, "payment"), (7, currency), (9, "moved")),
        filled=(4,),
        parse=read_plain,
    )


def write_plain(
    lines: Iterable[BillLine],
    terms: BillTerms,
    path: Path,
    *,
    is_piece: bool,
    is_last: bool = False,
) -> Plain:
    """Write a bill as plain lines. A piece need not end with a total; ``is_last`` gives it one.

    Raises:
        Unreadable: a piece is no file of its kind, or is cut off inside.
    """
    words = dict.fromkeys(terms.moved, "moved")
    words |= dict.fromkeys(terms.under_way, "under_way") | dict.fromkeys(terms.failed, "failed")
    rows, total = 0, BillTotal() if is_last else None
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write(f"{_HEADER}\n")
        for line in lines:
            if isinstance(line, BillTotal):
                total = line
            elif isinstance(line, BillRow):
                rows += 1
                file.write(_row(line, words))
            elif not is_piece or line.code != _TRUNCATED:
                if is_piece and line.code in _UNREADABLE:
                    raise Unreadable(line.code)
                rows += 1
                file.write(_line("", _FAULT, line.code, "", line.text, *("",) * 5, str(line.line)))
            if rows > (PIECE_ROWS_MAX if is_piece else ROWS_MAX):
                raise Unreadable("bill.too_long")
        is_told = total is not None and any(figure is not None for figure in _figures(total))
        # A piece without figures is the day's last only if somebody says so.
        has_total = total is not None and (not is_piece or is_told or is_last)
        if has_total and total is not None:
            shown = ("" if each is None else str(each) for each in _figures(total))
            file.write(f"{_TOTAL}\n{_TOTAL},{','.join(shown)}\n")
    return Plain(rows, has_total, is_told)


def rows_of_merchant(lines: Iterable[BillLine], merchant: str) -> Iterator[BillLine]:
    """Yield a bill's lines, each row that names other merchants as a fault.

    A bill with such rows is not ours, so its end, which would prove absences, is left out.
    """
    is_ours = True
    for line in lines:
        if isinstance(line, BillRow) and line.merchants and merchant not in line.merchants:
            is_ours = False
            yield BillFault(line.line, _OTHERS, " ".join(line.merchants))
        elif is_ours or not isinstance(line, BillTotal):
            yield line


def read_plain(path: Path) -> Iterator[BillLine]:
    """Yield what `write_plain` was given, each with its line in the file it came from."""
    with path.open(encoding="utf-8", newline="\n") as file:
        number, currency = 0, "CNY"
        for number, text in enumerate(file, 1):
            if number == 1:
                continue
            if text.startswith(_TOTAL):
                yield _total_of(next(file, ""), currency)
                return
            line = _line_of(text.rstrip("\r\n").split(","))
            if isinstance(line, BillRow):
                currency = line.money.currency
            yield line
        yield BillFault(number + 1, _TRUNCATED, "")


def rows_by_layout(layout: Layout, path: Path, terms: BillTerms) -> Iterator[BillLine]:
    """Yield a file in a declared layout as a channel's bill: money in was paid, money out returned.

    A word for the row's state that the channel does not have counts as moved.
    """
    known = terms.moved | terms.under_way | terms.failed
    for each in read_file(layout, path):
        if isinstance(each, SourceRow):
            is_refund = each.amount < 0
            yield BillRow(
                line=each.line,
                kind=BillKind.REFUND if is_refund else BillKind.PAYMENT,
                number=each.number,
                order_number=each.number,
                channel_ref=each.ref or each.number,
                money=Money(abs(each.amount), each.currency),
                fee=Money(each.fee, each.currency),
                at=each.at,
                state=each.state if each.state in known else min(terms.moved),
            )
        elif isinstance(each, SourceFault):
            yield BillFault(each.line, each.code, each.text)


def _row(row: BillRow, words: dict[str, str]) -> str:
    return _line(
        row.at.astimezone(BUSINESS_ZONE).strftime(_CLOCK),
        str(row.kind),
        row.number,
        row.order_number,
        row.channel_ref,
        _major(row.money.amount),
        _major(row.fee.amount),
        row.money.currency if row.money.currency == row.fee.currency else "?",
        row.state,
        words.get(row.state, ""),
        str(row.line),
    )


def _line(*cells: str) -> str:
    return ",".join(cell.translate(_WRITTEN) for cell in cells) + "\n"


def _line_of(cells: list[str]) -> BillRow | BillFault:
    if len(cells) != _COLUMNS:
        return BillFault(0, "bill.columns_differ", ",".join(cells)[:200])
    at, kind, number, order, ref, amount, fee, currency, state, _, line = map(unquote, cells)
    if kind == _FAULT:
        return BillFault(int(line), number, ref)
    return BillRow(
        line=int(line),
        kind=BillKind(kind),
        number=number,
        order_number=order,
        channel_ref=ref,
        money=Money(_minor(amount), currency),
        fee=Money(_minor(fee), currency),
        at=datetime.strptime(at, _CLOCK).replace(tzinfo=BUSINESS_ZONE),
        state=state,
    )


def _figures(total: BillTotal) -> tuple[int | None, ...]:
    money = (total.payment_amount, total.refund_amount, total.fee_amount)
    return (
        total.row_count,
        total.payment_count,
        *(None if each is None else each.amount for each in money),
    )


def _total_of(text: str, currency: str) -> BillTotal | BillFault:
    cells = text.rstrip("\r\n").split(",")[1:]
    if len(cells) != len(_figures(BillTotal())):
        return BillFault(0, _TRUNCATED, text[:200])
    rows, payments, *sums = (int(cell) if cell else None for cell in cells)
    paid, refunded, fees = (None if each is None else Money(each, currency) for each in sums)
    return BillTotal(
        payment_count=payments,
        payment_amount=paid,
        refund_amount=refunded,
        fee_amount=fees,
        row_count=rows,
    )


def _major(fen: int) -> str:
    """Return hundredths as the set engine writes a decimal, whatever the currency's own unit."""
    return f"{'-' if fen < 0 else ''}{abs(fen) // 100}.{abs(fen) % 100:02d}"


def _minor(text: str) -> int:
    return int(text.replace(".", ""))

"""Read a file of transfers row by row: what each says, or what is wrong with it. No I/O.

Nothing of a file counts while one of its rows is wrong: its sender gets every fault at once.
"""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Final

from msgspec import Struct

from tongbao.clearing.transfers.model import Destination, Payee, TransferFileMalformed
from tongbao.kernel.errors import Refusal
from tongbao.kernel.money import Money, from_decimal_text

COLUMNS: Final = ("number", "destination", "payee", "name", "bank", "amount", "note")
SIZE_MAX: Final = 2 * 1024 * 1024
ROWS_MAX: Final = 5_000
TEXT_MAX: Final = 64
_NUMBER: Final = re.compile(r"[0-9A-Za-z_-]{1,32}")
_PAYEES: Final[Mapping[Destination, re.Pattern[str]]] = {
    Destination.BANK: re.compile(r"[0-9]{8,34}"),
    Destination.WALLET: re.compile(r"wal_[0-9a-z]{26}"),
    Destination.WECHAT_PAY: re.compile(r"[0-9A-Za-z_-]{6,128}"),
    Destination.ALIPAY: re.compile(r"2088[0-9]{12}|[0-9A-Za-z.@+_-]{5,100}"),
}
"""What an account looks like: a card's number, our wallet, an openid, a user id or a login."""
_BANK: Final = re.compile(r"[0-9]{12}")


class Row(Struct, frozen=True):
    """One transfer as the file has it."""

    line: int
    number: str
    destination: Destination
    payee: Payee
    money: Money
    note: str


class RowFault(Struct, frozen=True):
    """What is wrong with one row: the line of the file, the column, and why."""

    line: int
    column: str
    reason: str


class Checked(Struct, frozen=True):
    """What a file comes to: its rows, and every fault."""

    rows: list[Row]
    faults: list[RowFault]


def check_file(content: bytes, currency: str, *, open_to: Collection[Destination]) -> Checked:
    """Return a file's rows and every fault of them.

    Raises:
        TransferFileMalformed: it is no table of ours at all.
    """
    rows: list[Row] = []
    faults: list[RowFault] = []
    numbers: set[str] = set()
    for line, values in _table(content):
        found = _row(line, values, currency)
        if isinstance(found, RowFault):
            faults.append(found)
        elif found.destination not in open_to:
            faults.append(RowFault(line, "destination", "not_open"))
        elif found.number in numbers:
            faults.append(RowFault(line, "number", "twice_in_the_file"))
        else:
            rows.append(found)
            numbers.add(found.number)
    if not rows and not faults:
        raise TransferFileMalformed(reason="no rows")
    return Checked(rows, faults)


def _table(content: bytes) -> list[tuple[int, dict[str, str]]]:
    if not 0 < len(content) <= SIZE_MAX:
        raise TransferFileMalformed(reason="size")
    try:
        table = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
        header = next(table, [])
        if tuple(header) != COLUMNS:
            raise TransferFileMalformed(reason="header")
        rows: list[tuple[int, dict[str, str]]] = []
        for values in table:
            if len(rows) == ROWS_MAX:
                raise TransferFileMalformed(reason="rows")
            if values:
                padded = [*values, *[""] * (len(COLUMNS) - len(values))]
                named = dict(zip(COLUMNS, padded, strict=False))
                rows.append((table.line_num, {**named, "": str(len(values))}))
    except (UnicodeDecodeError, csv.Error) as fault:
        raise TransferFileMalformed(reason=type(fault).__name__) from None
    return rows


def _row(line: int, values: dict[str, str], currency: str) -> Row | RowFault:
    fault = next(_faults(values, currency), None)
    if fault is not None:
        return RowFault(line, *fault)
    payee = Payee(values["payee"], values["name"], values["bank"])
    money = from_decimal_text(values["amount"], currency)
    where = Destination(values["destination"])
    return Row(line, values["number"], where, payee, money, values["note"])


def _faults(values: dict[str, str], currency: str) -> Iterator[tuple[str, str]]:
    """Yield the first fault of a row; what comes after it may not be asked for."""
    if values[""] != str(len(COLUMNS)):
        yield ("", "another_number_of_columns")
    for column in COLUMNS:
        if reason := _text_fault(values[column]):
            yield (column, reason)
    if _NUMBER.fullmatch(values["number"]) is None:
        yield ("number", "malformed")
    if values["destination"] not in set(Destination):
        yield ("destination", "unknown")
    for column, fits in _CHECKS.items():
        if not fits(Destination(values["destination"]), values[column]):
            yield (column, "malformed")
    if reason := _amount_fault(values["amount"], currency):
        yield ("amount", reason)


def _amount_fault(text: str, currency: str) -> str | None:
    try:
        amount = from_decimal_text(text, currency).amount
    except Refusal:
        return "malformed"
    return None if amount > 0 else "not_positive"


def _text_fault(text: str) -> str | None:
    if len(text) > 2 * TEXT_MAX:
        return "too_long"
    if any(unicodedata.category(letter) in {"Cc", "Cf", "Cs", "Cn", "Co"} for letter in text):
        return "characters"
    return None


_CHECKS: Final[Mapping[str, Callable[[Destination, str], bool]]] = {
    "payee": lambda where, text: _PAYEES[where].fullmatch(text) is not None,
    "name": lambda where, text: len(text) <= TEXT_MAX and (where != "bank" or bool(text.strip())),
    "bank": lambda where, text: not text or (where == "bank" and bool(_BANK.fullmatch(text))),
    "note": lambda _where, text: 0 < len(text.strip()) <= TEXT_MAX,
}

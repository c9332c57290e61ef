"""Read a file by its layout, and hold it to what it says of itself."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import IO, Final
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from tongbao.clearing.sources.cells import fault
from tongbao.clearing.sources.documents import DocumentRefused, check_archive, read_xlsx, read_xml
from tongbao.clearing.sources.model import (
    Closing,
    Layout,
    SourceFault,
    SourceLine,
    SourceRow,
    SourceTotal,
)
from tongbao.clearing.sources.text_files import read_delimited, read_fixed, read_mt940
from tongbao.kernel.money import Money
from tongbao.rails.channels.alipay import bills as alipay
from tongbao.rails.channels.contract.bills import BillFault, BillKind, BillLine, BillRow, BillTotal
from tongbao.rails.channels.unionpay import bills as unionpay
from tongbao.rails.channels.wechat_pay import bills as wechat_pay
from tongbao.rails.channels.wechat_pay import statements

READERS: Final = {
    "delimited": read_delimited,
    "fixed": read_fixed,
    "mt940": read_mt940,
    "xml": read_xml,
}
_ZIP: Final = b"PK\x03\x04"
_DAMAGE: Final = (zipfile.BadZipFile, EOFError, OSError, ValueError, RuntimeError)
PREVIEW_ROWS: Final = 20
PREVIEW_FAULTS: Final = 20
CLOSINGS_MAX: Final = 1_000
"""So many statements of one file are remembered by what they closed with, the last ones."""

FATAL: Final = frozenset(
    {
        "source.truncated",
        "source.header_missing",
        "source.archive_damaged",
        "source.archive_bomb",
        "source.archive_unreadable",
        "source.document_type",
        "source.too_deep",
        "source.text_too_long",
        "source.too_many_cells",
        "source.too_large",
        "source.count_differs",
        "source.sum_differs",
        "source.balance_differs",
        "source.trailer_malformed",
        "source.header_unknown",
        "source.sheet_missing",
        "source.cell_without_place",
        "source.cell_without_text",
        "source.wrong_account",
    }
)
"""Faults of the file as a whole: it is refused. Any other is a fault of one line."""


class Tally(Struct):
    """What the rows of a file add up to so far; after a total, what came since."""

    rows: int = 0
    faults: int = 0
    money_in: int = 0
    money_out: int = 0
    fees: int = 0
    since: int = 0
    since_in: int = 0
    since_out: int = 0
    is_whole: bool = False
    closings: list[Closing] = msgspec.field(default_factory=list)

    def take(self, row: SourceRow) -> None:
        """Add a row."""
        self.rows += 1
        self.since += 1
        self.fees += row.fee
        if row.amount >= 0:
            self.money_in += row.amount
            self.since_in += row.amount
        else:
            self.money_out -= row.amount
            self.since_out -= row.amount

    def leave_out(self, row: SourceRow) -> None:
        """Take a row back that does not belong here; the file's own figures still have it."""
        self.rows -= 1
        self.fees -= row.fee
        self.money_in -= max(0, row.amount)
        self.money_out -= max(0, -row.amount)

    def contradiction(self, told: SourceTotal) -> SourceFault | None:
        """Return what a total says that the rows before it do not; then begin anew."""
        found = self._compare(told)
        if told.closing is not None and told.day is not None and told.account:
            closing = Closing(told.account, told.currency, told.day, told.closing)
            self.closings = [*self.closings[-CLOSINGS_MAX:], closing]
        self.since = self.since_in = self.since_out = 0
        self.is_whole = True
        return found

    def _compare(self, told: SourceTotal) -> SourceFault | None:
        net = self.since_in - self.since_out
        for code, said, read in (
            ("source.count_differs", told.count, self.since),
            ("source.sum_differs", told.sum, net),
            ("source.sum_differs", told.credit, self.since_in),
            ("source.sum_differs", told.debit, self.since_out),
        ):
            if said is not None and abs(said) != abs(read):
                return fault(told.line, code, f"{said} / {read}")
        if told.opening is not None and told.closing is not None:
            moved = told.closing - told.opening
            if moved != net:
                return fault(told.line, "source.balance_differs", f"{moved} / {net}")
        return None


class Preview(Struct, frozen=True):
    """The beginning of a file as a layout reads it, and what the whole of it adds up to."""

    rows: list[SourceRow]
    faults: list[SourceFault]
    tally: Tally
    is_refused: bool


def read_file(layout: Layout, path: Path) -> Iterator[SourceLine]:
    """Yield rows, faults and totals as a stream; nothing is ever whole in memory."""
    if path.stat().st_size > layout.bytes_max:
        yield fault(0, "source.too_large", "")
        return
    if layout.format == "channel":
        yield from _in_words(layout, PARSERS[layout.parser](path))
    elif layout.format == "xlsx":
        yield from read_xlsx(layout, path)
    else:
        yield from _read_text(layout, path)


def _in_words(layout: Layout, lines: Iterator[SourceLine]) -> Iterator[SourceLine]:
    """Yield what a channel's own parser read, with its words in the layout's, where it has some."""
    kinds = {word: kind.kind for kind in layout.kinds for word in kind.words}
    for each in lines:
        if not kinds or not isinstance(each, SourceRow):
            yield each
        elif each.kind in kinds:
            yield replace(each, kind=kinds[each.kind])
        else:
            yield fault(each.line, "source.word_unknown", each.kind)


def read_and_check(
    layout: Layout, path: Path, tally: Tally, day: date | None = None
) -> Iterator[SourceRow | SourceFault]:
    """Yield rows and faults, those of the file's own figures among them, and add up the rows.

    Rows beyond what the layout allows end the reading with a fault. A row too far from the file's
    day, where that is known, is a fault, and so is an account that is none of the layout's.
    """
    for each in read_file(layout, path):
        if isinstance(each, SourceRow):
            if tally.rows >= layout.rows_max:
                tally.faults += 1
                yield fault(each.line, "source.too_large", "")
                return
            tally.take(each)
            if day is not None and _is_astray(layout, each, day):
                tally.leave_out(each)
                tally.faults += 1
                yield fault(each.line, "source.wrong_day", f"{each.at.date()} {each.number}")
            else:
                yield each
        elif isinstance(each, SourceFault):
            tally.faults += 1
            yield each
        elif _is_of_others(layout, each):
            tally.faults += 1
            yield fault(each.line, "source.wrong_account", f"•••• {each.account[-4:]}")
        elif (found := tally.contradiction(each)) is not None and not tally.faults:
            # A line that could not be read explains a total that differs; then it alone is told.
            tally.faults += 1
            yield found


def _is_astray(layout: Layout, row: SourceRow, day: date) -> bool:
    far = abs((row.at.astimezone(ZoneInfo(layout.zone)).date() - day).days)
    return bool(layout.within_days) and far > layout.within_days


def _is_of_others(layout: Layout, told: SourceTotal) -> bool:
    numbers = {told.account, told.account.rpartition("/")[2]}
    return bool(layout.owners and told.account) and numbers.isdisjoint(layout.owners)


def preview(layout: Layout, path: Path) -> Preview:
    """Return how a layout reads a file, without keeping anything of it."""
    tally, is_refused = Tally(), False
    rows: list[SourceRow] = []
    faults: list[SourceFault] = []
    for each in read_and_check(layout, path, tally):
        if isinstance(each, SourceRow):
            if len(rows) < PREVIEW_ROWS:
                rows.append(each)
            continue
        is_refused = is_refused or each.code in FATAL
        if len(faults) < PREVIEW_FAULTS:
            faults.append(each)
    return Preview(rows, faults, tally, is_refused or not tally.is_whole)


def _read_text(layout: Layout, path: Path) -> Iterator[SourceLine]:
    read = READERS[layout.format]
    with path.open("rb") as file:
        is_zip = file.read(len(_ZIP)) == _ZIP
        file.seek(0)
        if not is_zip:
            yield from read(layout, file)
            return
        try:
            with zipfile.ZipFile(file) as archive:
                check_archive(archive, layout.bytes_max)
                with _member(archive, layout) as member:
                    yield from read(layout, member)
        except DocumentRefused as refused:
            yield fault(0, refused.code, "")
        except _DAMAGE:
            yield fault(0, "source.archive_damaged", "")


def _member(archive: zipfile.ZipFile, layout: Layout) -> IO[bytes]:
    for info in archive.infolist():
        # The names in Chinese archives are GBK without the flag that says so.
        name = info.filename
        if not info.flag_bits & 0x800:
            name = name.encode("cp437", "replace").decode("gb18030", "replace")
        if not info.is_dir() and layout.member in name:
            return archive.open(info)
    raise DocumentRefused("source.archive_unreadable")


# Channels' bills as statements: their own parsers read them, this only changes the words.

Reader = Callable[[Path], Iterator[SourceLine]]
_NO_TIME: Final = datetime(2000, 1, 1, tzinfo=UTC)


def _trades(parse: Callable[[Path], Iterator[BillLine]]) -> Reader:
    def read(path: Path) -> Iterator[SourceLine]:
        line = 0
        for each in parse(path):
            if isinstance(each, BillFault):
                yield _bill_fault(each)
            elif isinstance(each, BillTotal):
                yield SourceTotal(
                    line + 1,
                    count=each.row_count,
                    credit=_fen(each.payment_amount),
                    debit=_fen(each.refund_amount),
                )
            else:
                line = each.line
                yield _trade(each)

    return read


def _trade(row: BillRow) -> SourceRow:
    is_back = row.kind is BillKind.REFUND
    return SourceRow(
        line=row.line,
        kind=str(row.kind),
        number=row.number,
        ref=row.channel_ref,
        batch=row.order_number,
        amount=-row.money.amount if is_back else row.money.amount,
        fee=row.fee.amount,
        currency=row.money.currency,
        at=row.at.astimezone(UTC),
        state=row.state,
    )


def _wechat_funds(path: Path) -> Iterator[SourceLine]:
    for each in statements.parse_fund_bill(path):
        if isinstance(each, BillFault):
            yield _bill_fault(each)
        elif isinstance(each, statements.FundTotal):
            yield SourceTotal(
                0, count=each.row_count, credit=each.income.amount, debit=each.expense.amount
            )
        else:
            row = _bill_row(each.line, each.name, (each.flow_ref, each.ref), each.money, each.at)
            yield msgspec.structs.replace(row, batch=each.number)  # ours, where it has one


def _wechat_splits(path: Path) -> Iterator[SourceLine]:
    for each in statements.parse_split_bill(path):
        if isinstance(each, BillFault):
            yield _bill_fault(each)
        elif isinstance(each, statements.SplitTotal):
            yield SourceTotal(
                0, count=each.row_count, credit=each.returned.amount, debit=each.shared.amount
            )
        else:
            money = each.money if each.is_return else Money(-each.money.amount, each.money.currency)
            kind = "split_return" if each.is_return else "split"
            numbers = (each.number, each.share_ref)
            yield _bill_row(each.line, kind, numbers, money, each.at, state=each.state)


def _alipay_funds(path: Path) -> Iterator[SourceLine]:
    for each in alipay.parse_fund_bill(path):
        if isinstance(each, BillFault):
            yield _bill_fault(each)
        elif isinstance(each, alipay.FundTotal):
            yield SourceTotal(
                0,
                count=each.in_count + each.out_count,
                credit=each.in_money.amount,
                debit=abs(each.out_money.amount),
            )
        else:
            numbers = (each.flow, each.channel_ref)
            row = _bill_row(each.line, each.kind, numbers, each.money, each.at)
            yield msgspec.structs.replace(row, batch=each.number)  # ours, of the order


def _unionpay_differences(path: Path) -> Iterator[SourceLine]:
    for each in unionpay.parse_differences(path):
        if isinstance(each, BillFault):
            yield _bill_fault(each)
        else:
            at = each.at or _NO_TIME
            numbers = (f"{each.trace_no}-{each.line}", each.trace_no)
            yield _bill_row(each.line, each.code, numbers, each.money, at)
    yield SourceTotal(0)


def _unionpay_cases(path: Path) -> Iterator[SourceLine]:
    """Yield differences as cases of a scheme: said on the file's day, about the trades they name.

    The list names no order. ``ref`` has each trade as trace number and moment, and what a code
    means the layout's kinds say.
    """
    for each in unionpay.parse_differences(path):
        if isinstance(each, BillFault):
            yield _bill_fault(each)
            continue
        named = ",".join(f"{trace}@{at.astimezone(UTC).isoformat()}" for trace, at in each.trades)
        number = f"{each.trace_no}-{each.line}"
        yield _bill_row(each.line, each.code, (number, named), each.money, each.day)
    yield SourceTotal(0)


def _bill_row(
    line: int, kind: str, numbers: tuple[str, str], money: Money, at: datetime, *, state: str = ""
) -> SourceRow:
    moment = at.astimezone(UTC)
    return SourceRow(line, kind, *numbers, "", money.amount, 0, money.currency, moment, state)


def _bill_fault(found: BillFault) -> SourceFault:
    return SourceFault(found.line, found.code.replace("bill.", "source.", 1), found.text)


def _fen(money: Money | None) -> int | None:
    return None if money is None else abs(money.amount)


PARSERS: Final[dict[str, Reader]] = {
    "wechat_pay.trade": _trades(wechat_pay.parse_trade_bill),
    "wechat_pay.funds": _wechat_funds,
    "wechat_pay.splits": _wechat_splits,
    "alipay.trade": _trades(alipay.parse_trade_bill),
    "alipay.funds": _alipay_funds,
    "unionpay.zm": _trades(unionpay.parse_trades),
    "unionpay.zme": _unionpay_differences,
    "unionpay.zme_cases": _unionpay_cases,
}
"""The parsers that a layout of the format "channel" may name."""

"""Alipay's bills of trades and of funds: zips of GBK files, read row by row inside the archive.

The names in the zip are GBK without the flag that says so, and the summary may come first, so the
member is chosen by its decoded name. Values may end with a tab. Refunds carry a minus; the
service fee of a payment is a minus too, because it is the merchant's money going out.
"""

from __future__ import annotations

import hashlib
import io
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import IO, Final, cast

from msgspec import Struct

from tongbao.kernel.money import Money
from tongbao.rails.channels.alipay.wire import CURRENCY
from tongbao.rails.channels.bill_text import (
    RowMalformed,
    amount,
    cell,
    count,
    fault,
    lines_of,
    moment,
    required,
)
from tongbao.rails.channels.contract.bills import (
    BillFault,
    BillFile,
    BillKind,
    BillLine,
    BillRow,
    BillTerms,
    BillTotal,
)

TRADES: Final = "业务明细"
FUNDS: Final = "账务明细"
FILE_MAX: Final = 2 * 1024**3
UNPACKED_MAX: Final = 16 * 1024**3

TERMS: Final = BillTerms(
    moved=frozenset({"交易", "退款"}),
    under_way=frozenset(),
    failed=frozenset(),
    returns_refund_fees=True,
    keeps_refund_fees=True,
    quiet_when_empty=True,
)

_ENCODING: Final = "gb18030"
_SUMMARY: Final = "汇总"
_HEADER_START: Final = "支付宝交易号"
_WHOSE: Final = re.compile(r"#账号：\[(2088\d{12})0156\]")  # and what follows stands for CNY
_PAYMENTS: Final = re.compile(r"#交易合计：(\d+)笔，商家实收共(-?[\d.]+)元，商家优惠共(-?[\d.]+)元")
_REFUNDS: Final = re.compile(
    r"#退款合计：(\d+)笔，商家实收退款共(-?[\d.]+)元，商家优惠退款共(-?[\d.]+)元"
)
_FUNDS_START: Final = "账务流水号"
_OUT: Final = re.compile(r"#支出合计：(\d+)笔，共(-?[\d.]+)元")
_IN: Final = re.compile(r"#收入合计：(\d+)笔，共(-?[\d.]+)元")
_UTF8_NAME: Final = 0x800
_CHUNK: Final = 1024 * 1024
_PACKINGS: Final = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
_DAMAGE: Final = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, RuntimeError)
"""What reading a broken archive raises: wrong places, names that are no text, a password."""


class BillDamaged(ValueError):
    """The file is no archive with a list of trades in it."""


class FundRow(Struct, frozen=True):
    """One movement of the merchant's balance; what goes out is negative."""

    line: int
    flow: str  # Alipay's number of the movement
    channel_ref: str
    number: str  # ours, of what moved
    at: datetime
    money: Money
    balance: Money  # after it
    kind: str  # Alipay's word, such as 在线支付 or 收费


class FundTotal(Struct, frozen=True):
    """What the bill's own trailer says, to be compared with the rows."""

    out_count: int
    out_money: Money
    in_count: int
    in_money: Money


FundLine = FundRow | BillFault | FundTotal


def check_archive(path: Path, contents: str = TRADES) -> BillFile:
    """Return the downloaded file, once it is known to hold a list that unpacks whole.

    ``contents`` is what Alipay calls the list: `TRADES` or `FUNDS`.

    Raises:
        BillDamaged
    """
    try:
        with zipfile.ZipFile(path) as archive, archive.open(_member(archive, contents)) as member:
            _read_to_end(member)
    except BillDamaged:
        raise
    except _DAMAGE as failure:
        raise BillDamaged("no archive, or cut off") from failure
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return BillFile(path, sha256=digest, size=path.stat().st_size)


def _read_to_end(member: IO[bytes]) -> None:
    """Let the member's checksum be compared, which happens at its end."""
    while member.read(_CHUNK):
        if member.tell() > UNPACKED_MAX:
            raise BillDamaged("it is larger than any bill")


def parse_trade_bill(path: Path) -> Iterator[BillLine]:
    """Yield rows, faults and the bill's own total; a bill without its total is cut off."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open(_member(archive, TRADES)) as member:
            yield from _lines(_whole_lines(member))
    except _DAMAGE:
        yield fault(0, "bill.archive_damaged", path.name)


def parse_fund_bill(path: Path) -> Iterator[FundLine]:
    """Yield movements, faults and the bill's own total; a bill without its total is cut off."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open(_member(archive, FUNDS)) as member:
            yield from _fund_lines(_whole_lines(member))
    except _DAMAGE:
        yield fault(0, "bill.archive_damaged", path.name)


def _whole_lines(member: IO[bytes]) -> IO[bytes]:
    """Read on where a member's own readline may stop in the middle of a line."""
    return io.BufferedReader(cast("io.RawIOBase", member))


def _member(archive: zipfile.ZipFile, contents: str) -> zipfile.ZipInfo:
    for info in archive.infolist():
        name = info.filename
        if not info.flag_bits & _UTF8_NAME:
            name = name.encode("cp437").decode(_ENCODING, errors="replace")
        if contents in name and _SUMMARY not in name:
            if info.compress_type not in _PACKINGS:
                raise BillDamaged("it is packed in a way no bill is")
            return info
    raise BillDamaged("there is no such list in the archive")


def _lines(member: IO[bytes]) -> Iterator[BillLine]:
    columns: list[str] | None = None
    payments: re.Match[str] | None = None
    whose: tuple[str, ...] = ()
    number = 0
    for number, text in lines_of(member, _ENCODING):
        if isinstance(text, BillFault):
            yield text
        elif match := _WHOSE.match(text):
            whose = (match[1],)
        elif match := _PAYMENTS.match(text):
            payments = match
        elif match := _REFUNDS.match(text):
            yield _total(number, payments, match)
            return
        elif columns is None and text.startswith(_HEADER_START):
            columns = [name.strip() for name in text.split(",")]
        elif text and not text.startswith("#"):
            yield _row(number, text, columns, whose)
    yield fault(number + 1, "bill.truncated", "")


def _row(
    number: int, text: str, columns: list[str] | None, whose: tuple[str, ...]
) -> BillRow | BillFault:
    if columns is None:
        return fault(number, "bill.header_unknown", text)
    try:
        row = _cells(text, columns)
        return _trade(number, row, _kind(cell(row, "业务类型")), whose)
    except RowMalformed as malformed:
        return fault(number, malformed.code, text)


def _kind(word: str) -> BillKind:
    match word:
        case "交易":
            return BillKind.PAYMENT
        case "退款":
            return BillKind.REFUND
        case _:
            raise RowMalformed("bill.state_unknown")


def _cells(text: str, columns: list[str]) -> dict[str, str]:
    cells = text.split(",")
    if len(cells) != len(columns):
        raise RowMalformed("bill.columns_differ")
    return {name: value.strip() for name, value in zip(columns, cells, strict=True)}


def _trade(number: int, row: Mapping[str, str], kind: BillKind, whose: tuple[str, ...]) -> BillRow:
    order = required(cell(row, "商户订单号"), "bill.number_missing")
    money = amount(cell(row, "订单金额（元）"), CURRENCY)
    fee = amount(cell(row, "服务费（元）"), CURRENCY)
    is_refund = kind is BillKind.REFUND
    if is_refund:
        money = -money
    if money.amount < 0:
        raise RowMalformed("bill.amount_negative")
    charged = Money(abs(fee.amount), fee.currency)
    return BillRow(
        line=number,
        kind=kind,
        number=(cell(row, "退款批次号/请求号") or order) if is_refund else order,
        order_number=order,
        channel_ref=required(cell(row, "支付宝交易号"), "bill.number_missing"),
        money=money,
        fee=-charged if is_refund else charged,
        at=moment(cell(row, "完成时间")),
        state=cell(row, "业务类型"),
        merchants=whose,
    )


def _total(
    number: int, payments: re.Match[str] | None, refunds: re.Match[str]
) -> BillTotal | BillFault:
    """Return the trailer's totals: what the merchant got and what it gave as a discount.

    Together they are the orders' amounts.
    """
    if payments is None:
        return fault(number, "bill.truncated", refunds.string)
    try:
        paid, given_back = count(payments[1]), count(refunds[1])
        refunded = amount(refunds[2], CURRENCY) + amount(refunds[3], CURRENCY)
        return BillTotal(
            payment_count=paid,
            payment_amount=amount(payments[2], CURRENCY) + amount(payments[3], CURRENCY),
            refund_amount=Money(abs(refunded.amount), CURRENCY),
            fee_amount=None,
            row_count=paid + given_back,
        )
    except RowMalformed as malformed:
        return fault(number, malformed.code, refunds.string)


def _fund_lines(member: IO[bytes]) -> Iterator[FundLine]:
    columns: list[str] | None = None
    out: re.Match[str] | None = None
    number = 0
    for number, text in lines_of(member, _ENCODING):
        if isinstance(text, BillFault):
            yield text
        elif match := _OUT.match(text):
            out = match
        elif match := _IN.match(text):
            yield _fund_total(number, out, match)
            return
        elif columns is None and text.startswith(_FUNDS_START):
            columns = [name.strip() for name in text.split(",")]
        elif text and not text.startswith("#"):
            yield _fund_row(number, text, columns)
    yield fault(number + 1, "bill.truncated", "")


def _fund_row(number: int, text: str, columns: list[str] | None) -> FundRow | BillFault:
    if columns is None:
        return fault(number, "bill.header_unknown", text)
    try:
        row = _cells(text, columns)
        comes_in = amount(cell(row, "收入金额（+元）") or "0", CURRENCY)
        goes_out = amount(cell(row, "支出金额（-元）") or "0", CURRENCY)
        return FundRow(
            line=number,
            flow=required(cell(row, "账务流水号"), "bill.number_missing"),
            channel_ref=cell(row, "业务流水号"),
            number=cell(row, "商户订单号"),
            at=moment(cell(row, "发生时间")),
            money=comes_in - Money(abs(goes_out.amount), CURRENCY),
            balance=amount(cell(row, "账户余额（元）"), CURRENCY),
            kind=required(cell(row, "业务类型"), "bill.state_unknown"),
        )
    except RowMalformed as malformed:
        return fault(number, malformed.code, text)


def _fund_total(
    number: int, out: re.Match[str] | None, comes_in: re.Match[str]
) -> FundTotal | BillFault:
    if out is None:
        return fault(number, "bill.truncated", comes_in.string)
    try:
        gone = amount(out[2], CURRENCY)
        return FundTotal(
            count(out[1]),
            Money(-abs(gone.amount), CURRENCY),
            count(comes_in[1]),
            amount(comes_in[2], CURRENCY),
        )
    except RowMalformed as malformed:
        return fault(number, malformed.code, comes_in.string)

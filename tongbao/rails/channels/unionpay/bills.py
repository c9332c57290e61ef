"""UnionPay's settlement files: fixed-width GBK lists in a zip, in a deflated base64 text.

``…ZM_<merId>`` holds every trade of a settlement day, ``…ZME_<merId>`` the differences
(charge-backs and the like). Fields have fixed widths in *bytes*, with one character between them,
so a line is cut as bytes and each field decoded after. There is no line with totals: what the rows
add up to is compared with what the bank says it received.
"""

from __future__ import annotations

import binascii
import hashlib
import io
import re
import zipfile
import zlib
from base64 import b64decode
from collections.abc import Iterator, Mapping
from datetime import date, datetime
from pathlib import Path
from typing import IO, Final, cast

from msgspec import Struct

from tongbao.kernel.clock import BUSINESS_ZONE
from tongbao.kernel.money import Money
from tongbao.rails.channels.bill_text import RowMalformed, fault, lines_of, required
from tongbao.rails.channels.contract.bills import (
    BillFault,
    BillFile,
    BillKind,
    BillLine,
    BillRow,
    BillTerms,
    BillTotal,
)
from tongbao.rails.channels.unionpay.wire import (
    CANCEL,
    CANCEL_SUFFIX,
    COMPLETION_CANCEL,
    CURRENCY,
    UNDONE_SUFFIX,
    with_year,
)

ZIP_MAX: Final = 256 * 1024 * 1024
UNPACKED_MAX: Final = 4 * 1024**3

TERMS: Final = BillTerms(
    moved=frozenset({"01", "03", "04", "13", "31", "33"}),
    under_way=frozenset(),
    failed=frozenset(),
    returns_refund_fees=True,
    keeps_refund_fees=True,
    quiet_when_empty=True,
)
"""A row's state is its txnType: the file lists only what moved money."""

_ENCODING: Final = "gb18030"
_BYTES: Final = "latin-1"  # one character per byte, so that widths are those of the file
_SEPARATORS: Final = frozenset(" \t,|;")
_AMOUNT_DIGITS: Final = 12
_INSTALMENT_FEE_DIGITS: Final = 11
_CHUNK: Final = 1024 * 1024
_PACKINGS: Final = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
_NAME: Final = re.compile(r"INN(\d{6})\d{2}(ZME?)_(\d{15})")
_DAMAGED: Final = "bill.archive_damaged"
_DAMAGE: Final = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, RuntimeError)
_KINDS: Final = {
    "01": BillKind.PAYMENT,
    "03": BillKind.PAYMENT,
    "13": BillKind.PAYMENT,
    "04": BillKind.REFUND,
    "31": BillKind.REFUND,
    "33": BillKind.REFUND,
}

_HEAD: Final = (
    ("code", 3), ("agent", 11), ("sender", 11), ("traceNo", 6), ("txnTime", 10), ("account", 19),
    ("txnAmt", 12), ("mcc", 4), ("terminal", 2), ("queryId", 21), ("oldPayType", 2),
    ("orderId", 32), ("cardType", 2), ("origTraceNo", 6), ("origTxnTime", 10), ("fee", 13),
    ("settled", 13), ("payType", 4), ("group", 15), ("txnType", 2), ("txnSubType", 2),
    ("bizType", 6), ("accType", 2), ("billType", 4), ("billNo", 32), ("interaction", 1),
    ("origQryId", 21), ("merId", 15), ("splitKind", 1), ("subMerId", 15), ("subMerName", 32),
    ("split", 13), ("net", 13), ("termId", 8),
)  # fmt: skip
_TAILS: Final = (
    (
        ("merReserved", 32), ("discount", 13), ("invoice", 13), ("instalmentFee", 12),
        ("instalments", 2), ("medium", 1), ("origOrderId", 32), ("reserved", 98),
    ),
    (
        ("merReserved", 32), ("discount", 13), ("instalments", 2), ("medium", 1), ("rest", 12),
        ("reserved", 67),
    ),
)  # fmt: skip
"""The file specification's own, and the one that newer files have (dax-pay 2.x reads it)."""
DIFFERENCE_WIDTHS: Final = (
    *(3, 11, 11, 6, 10, 19, 12, 4, 2, 2, 6, 10, 4, 12, 13, 13, 15, 15, 1, 12, 2, 135),
)


class BillDamaged(ValueError):
    """What came is no archive with a list of trades in it."""


class Difference(Struct, frozen=True):
    """One line of the list of differences. Of its fields only the first seven have known names.

    ``trades`` are those that it names, each by trace number and the moment it was passed on: its
    own, and an earlier one where the fields that are as long as those two have one.
    """

    line: int
    code: str
    trace_no: str
    at: datetime | None
    money: Money
    fields: tuple[str, ...]  # all of them but the account
    day: datetime  # the settlement day that the file is of, at noon
    trades: tuple[tuple[str, datetime], ...]


def unpack(content: str, path: Path, merchant: str, day: date) -> BillFile:
    """Write the zip inside ``fileContent`` to a file, once its list of trades is known to be whole.

    The list is looked for by the merchant and the settlement day in its name.

    Raises:
        BillDamaged
    """
    part = path.with_name(path.name + ".part")
    try:
        _inflate(content, part)
        with zipfile.ZipFile(part) as archive:
            _check_lists(archive, merchant, day)
        part.replace(path)
    except BillDamaged:
        raise
    except _DAMAGE as failure:
        raise BillDamaged("no archive, or cut off") from failure
    finally:
        part.unlink(missing_ok=True)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return BillFile(path, sha256=digest, size=path.stat().st_size)


def _check_lists(archive: zipfile.ZipFile, merchant: str, day: date) -> None:
    lists = _members(archive, "ZM")
    named = [(name[1], name[3]) for info in lists if (name := _NAME.search(info.filename))]
    if (day.strftime("%y%m%d"), merchant) not in named:
        raise BillDamaged("there is no list of this merchant and day in the archive")
    for info in lists:
        with archive.open(info) as member:
            _read_to_end(member)


def parse_trades(path: Path) -> Iterator[BillLine]:
    """Yield the rows and faults of the list of trades.

    Reading a member to its end compares its checksum, so what ends it proves that it was whole.
    """
    is_whole = True
    for number, line, day in _lines(path, "ZM"):
        if isinstance(line, BillFault):
            is_whole = is_whole and line.code != _DAMAGED
            yield line
            continue
        try:
            yield _trade(number, _cut(line), day)
        except RowMalformed as malformed:
            yield fault(number, malformed.code, _readable(line))
    if is_whole:
        yield BillTotal()


def parse_differences(path: Path) -> Iterator[Difference | BillFault]:
    """Yield the rows and faults of the list of differences, of which there may be none."""
    for number, line, day in _lines(path, "ZME"):
        if isinstance(line, BillFault):
            yield line
            continue
        try:
            yield _difference(number, line, day)
        except RowMalformed as malformed:
            yield fault(number, malformed.code, _readable(line))


def _inflate(content: str, path: Path) -> None:
    """Write what the base64 text deflates from, giving up when it is larger than any bill."""
    try:
        packed = b64decode(content, validate=True)
    except binascii.Error:
        raise BillDamaged("the content is no base64") from None
    inflater = zlib.decompressobj()
    size = 0
    with path.open("wb") as file:
        while packed:
            chunk = inflater.decompress(packed, _CHUNK)
            packed = inflater.unconsumed_tail
            size += len(chunk)
            if size > ZIP_MAX:
                raise BillDamaged("it is larger than any bill")
            file.write(chunk)
    if not inflater.eof:
        raise BillDamaged("the content is cut off")


def _read_to_end(member: IO[bytes]) -> None:
    """Let the member's checksum be compared, which happens at its end."""
    while member.read(_CHUNK):
        if member.tell() > UNPACKED_MAX:
            raise BillDamaged("it is larger than any bill")


def _members(archive: zipfile.ZipFile, kind: str) -> list[zipfile.ZipInfo]:
    found = [
        info
        for info in archive.infolist()
        if (name := _NAME.search(info.filename)) and name[2] == kind
    ]
    if any(info.compress_type not in _PACKINGS for info in found):
        raise BillDamaged("it is packed in a way no bill is")
    return sorted(found, key=lambda info: info.filename)


def _lines(path: Path, kind: str) -> Iterator[tuple[int, str | BillFault, datetime]]:
    """Yield every line as text of one character per byte, with its number and its file's day."""
    number = 0
    try:
        with zipfile.ZipFile(path) as archive:
            members = _members(archive, kind)
            if not members and kind == "ZM":
                raise BillDamaged("there is no list of trades in the archive")
            for info in members:
                day = _day_of(info.filename)
                with archive.open(info) as member:
                    # A member's own readline may stop in the middle of a line.
                    file = io.BufferedReader(cast("io.RawIOBase", member))
                    first = number
                    for offset, line in lines_of(file, _BYTES):
                        number = first + offset
                        if line:
                            yield number, _renumbered(line, number), day
    except _DAMAGE:
        yield number + 1, fault(number + 1, _DAMAGED, path.name), _EPOCH


_EPOCH: Final = datetime(2000, 1, 1, tzinfo=BUSINESS_ZONE)


def _renumbered(line: str | BillFault, number: int) -> str | BillFault:
    return line if isinstance(line, str) else BillFault(number, line.code, line.text)


def _day_of(name: str) -> datetime:
    found = _NAME.search(name)
    text = found[1] if found else ""
    return datetime.strptime(text, "%y%m%d").replace(hour=12, tzinfo=BUSINESS_ZONE)


def _cut(line: str) -> dict[str, str]:
    """Return the fields of a trade; the line's length says which tail it has."""
    for tail in _TAILS:
        layout = (*_HEAD, *tail)
        if len(line) == _length(tuple(width for _, width in layout)):
            cells = _cells(line, tuple(width for _, width in layout))
            return {name: cell for (name, _), cell in zip(layout, cells, strict=True)}
    raise RowMalformed("bill.length_differs")


def _cells(line: str, widths: tuple[int, ...]) -> list[str]:
    cells, at = [], 0
    for width in widths:
        if at and line[at - 1] not in _SEPARATORS:
            raise RowMalformed("bill.columns_differ")
        cells.append(_readable(line[at : at + width]).strip())
        at += width + 1
    return cells


def _length(widths: tuple[int, ...]) -> int:
    return sum(widths) + len(widths) - 1


def _readable(cell: str) -> str:
    return cell.encode(_BYTES).decode(_ENCODING, "replace")


def _trade(number: int, row: Mapping[str, str], day: datetime) -> BillRow:
    kind = _KINDS.get(row["txnType"])
    if kind is None:
        raise RowMalformed("bill.state_unknown")
    ours = required(row["orderId"], "bill.number_missing")
    order = ours if kind is BillKind.PAYMENT else row.get("origOrderId", "")
    if row["txnType"] == CANCEL.type_:
        # Undone whole under a number made from its own, so it is told by that alone.
        ours = order = order or ours.removesuffix(CANCEL_SUFFIX)
    if row["txnType"] == COMPLETION_CANCEL.type_:
        ours = ours.removesuffix(UNDONE_SUFFIX)  # a refund's number, and how it went
    return BillRow(
        line=number,
        kind=kind,
        number=ours,
        order_number=order,
        channel_ref=required(row["queryId"], "bill.number_missing"),
        money=_fen(row["txnAmt"], _AMOUNT_DIGITS),
        fee=_signed(row["fee"], _AMOUNT_DIGITS)
        + _signed(row.get("instalmentFee", ""), _INSTALMENT_FEE_DIGITS),
        at=_moment(row["txnTime"], day),
        state=row["txnType"],
        merchants=tuple(filter(None, (row["merId"], row["group"]))),
    )


def _difference(number: int, line: str, day: datetime) -> Difference:
    if len(line) != _length(DIFFERENCE_WIDTHS):
        raise RowMalformed("bill.length_differs")
    cells = _cells(line, DIFFERENCE_WIDTHS)
    return Difference(
        line=number,
        code=required(cells[0], "bill.code_missing"),
        trace_no=cells[3],
        at=with_year(cells[4], near=day),
        money=_fen(cells[6], _AMOUNT_DIGITS),
        fields=(*cells[:5], *cells[6:]),
        day=day,
        trades=tuple(
            (trace, at)
            for trace, moment in ((cells[3], cells[4]), (cells[10], cells[11]))
            if trace.isascii()
            and trace.isdigit()
            and (at := with_year(moment, near=day)) is not None
        ),
    )


def _fen(text: str, digits: int) -> Money:
    if len(text) != digits or not (text.isascii() and text.isdigit()):
        raise RowMalformed("bill.amount_malformed")
    return Money(int(text), CURRENCY)


def _signed(text: str, digits: int) -> Money:
    """Return a fee: D is taken from the merchant, C is given back to it."""
    if not text:
        return Money(0, CURRENCY)
    money = _fen(text[1:], digits)
    match text[0]:
        case "D":
            return money
        case "C":
            return -money
        case _:
            raise RowMalformed("bill.amount_malformed")


def _moment(text: str, day: datetime) -> datetime:
    at = with_year(text, near=day)
    if at is None:
        raise RowMalformed("bill.time_malformed")
    return at

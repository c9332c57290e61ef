"""WeChat Pay's trade bill: fetched, unpacked and checked, then read row by row.

UTF-8 with a byte order mark; every value begins with a backtick, nothing is quoted, and a comma
inside a value is written as a backslash and a space. Columns are found by name, because the
SUCCESS and REFUND bills have other ones than the bill of all states. Two summary lines end it.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import zlib
from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import BinaryIO, Final, Protocol, assert_never, cast

from tongbao.infra.http import NoAnswerError, NotSentError
from tongbao.rails.channels.bill_text import (
    RowMalformed,
    amount,
    cell,
    count,
    fault,
    lines_of,
    moment,
    not_negative,
    required,
)
from tongbao.rails.channels.contract.bills import (
    BillFault,
    BillFile,
    BillKind,
    BillLine,
    BillOutcome,
    BillRow,
    BillTerms,
    BillTotal,
)
from tongbao.rails.channels.contract.orders import ChannelAccount
from tongbao.rails.channels.contract.outcomes import Answer, NotSent, Unknown
from tongbao.rails.channels.exchange import decode
from tongbao.rails.channels.wechat_pay.crypto import EnvelopeBroken
from tongbao.rails.channels.wechat_pay.documents.orders import BillAddress
from tongbao.rails.channels.wechat_pay.gateway import (
    Answered,
    Gateway,
    Refused,
    ids_of,
    in_path,
    no_bill,
    signed_headers,
)

FILE_MAX: Final = 2 * 1024**3
UNPACKED_MAX: Final = 16 * 1024**3

TERMS: Final = BillTerms(
    moved=frozenset({"SUCCESS", "REVOKED"}),
    under_way=frozenset({"PROCESSING", "CHANGE"}),  # CHANGE waits for a person to send it on
    failed=frozenset({"FAIL"}),
    returns_refund_fees=True,
    keeps_refund_fees=True,
    quiet_when_empty=False,
)

_HEADER_START: Final = "交易时间"
_SUMMARY_START: Final = "总交易单数"
_NONE: Final = frozenset({"", "0"})
_CHUNK: Final = 1024 * 1024
_GZIP_MAGIC: Final = b"\x1f\x8b"


class BillDamaged(ValueError):
    """The file is not what its digest says, does not unpack, or is absurdly large."""


async def download_trade_bill(
    gateway: Gateway, account: ChannelAccount, day: date, folder: Path
) -> Answer[BillOutcome]:
    """Fetch the day's trade bill into ``folder``; of a partner, this sub-merchant's rows only."""
    query = f"bill_date={day.isoformat()}&bill_type=ALL&tar_type=GZIP"
    if sub_mchid := ids_of(account).sub_mchid:
        query = f"{query}&sub_mchid={in_path(sub_mchid)}"
    path = folder / f"wechat_pay-{account.merchant_number}-{day.isoformat()}.csv"
    return await download(gateway, account, f"/v3/bill/tradebill?{query}", path)


async def download(
    gateway: Gateway, account: ChannelAccount, target: str, path: Path
) -> Answer[BillOutcome]:
    """Ask where a bill lies, fetch it to ``path``, unpacked, its SHA-1 verified."""
    heard, exchange = await gateway.call(account, "GET", target)
    match heard:
        case Answered():
            address = decode(heard.body, BillAddress)
            if address is None or address.hash_type != "SHA1":
                return Answer(Unknown("no bill address, or no SHA-1 of it"), exchange)
            return Answer(await fetch_file(gateway, account, address, path), exchange)
        case Refused():
            return Answer(no_bill(heard), exchange)
        case NotSent() | Unknown():
            return Answer(Unknown(heard.reason), exchange)
        case _:
            assert_never(heard)


class Opening(Protocol):
    """Decrypts a downloaded file to another."""

    def __call__(self, *, sealed: Path, to: Path) -> None:
        """Decrypt one file."""


async def fetch_file(
    gateway: Gateway,
    account: ChannelAccount,
    address: BillAddress,
    path: Path,
    opening: Opening | None = None,
) -> BillFile | Unknown:
    """Download a bill, unpack it to ``path`` and check its SHA-1; the download is not signed.

    ``opening`` decrypts what was downloaded to another file, before it is unpacked.
    """
    if not address.download_url.startswith(account.gateway + "/"):
        return Unknown("the bill's address is not on this gateway")
    target = address.download_url.removeprefix(account.gateway)
    packed, opened = path.with_suffix(".download"), path.with_suffix(".opened")
    try:
        found = await gateway.http.download(
            address.download_url,
            signed_headers(account, "GET", target, b"", gateway.real_now()),
            packed,
            timeout_s=gateway.limits.bill_s,
            max_bytes=FILE_MAX,
        )
        if found.path is None:
            return Unknown(f"the bill's address answered http {found.status}")
        if opening is not None:
            await asyncio.to_thread(opening, sealed=packed, to=opened)
        source = packed if opening is None else opened
        return await asyncio.to_thread(_unpack, source, path, address.hash_value)
    except EnvelopeBroken:
        return Unknown("the bill does not open with our key")
    except (NotSentError, NoAnswerError, BillDamaged) as failure:
        return Unknown(f"the bill did not arrive whole: {failure}")
    finally:
        packed.unlink(missing_ok=True)
        opened.unlink(missing_ok=True)


def parse_trade_bill(path: Path) -> Iterator[BillLine]:
    """Yield rows, faults and the bill's own total; a bill without its total is cut off."""
    with path.open("rb") as file:
        lines = lines_of(file, "utf-8")
        number, header = next(lines, (1, ""))
        columns = _columns(header)
        if columns is None:
            shown = header if isinstance(header, str) else header.text
            yield fault(number, "bill.header_unknown", shown)
            return
        for number, text in lines:
            if isinstance(text, str) and text.startswith(_SUMMARY_START):
                yield _total(text.split(","), next(lines, (number + 1, "")))
                return
            yield text if isinstance(text, BillFault) else _row(number, text, columns)
        yield fault(number + 1, "bill.truncated", "")


def _columns(header: str | BillFault) -> list[str] | None:
    if isinstance(header, BillFault):
        return None
    header = header.removeprefix("\ufeff")
    return header.split(",") if header.startswith(_HEADER_START) else None


def cells_of(text: str, columns: list[str]) -> dict[str, str]:
    """Return a line's values by the names of their columns.

    Raises:
        RowMalformed
    """
    cells = text.removeprefix("`").split(",`")
    if not text.startswith("`") or len(cells) != len(columns):
        raise RowMalformed("bill.columns_differ")
    return {name: value.replace("\\ ", ",") for name, value in zip(columns, cells, strict=True)}


def _row(number: int, text: str, columns: list[str]) -> BillRow | BillFault:
    try:
        return _trade(number, cells_of(text, columns))
    except RowMalformed as malformed:
        return fault(number, malformed.code, text)


def _trade(number: int, row: Mapping[str, str]) -> BillRow:
    match cell(row, "交易状态"):
        case "SUCCESS":
            return _payment(number, row)
        case "REFUND" | "REVOKED":
            return _refund(number, row)
        case _:
            raise RowMalformed("bill.state_unknown")


def _payment(number: int, row: Mapping[str, str]) -> BillRow:
    currency = cell(row, "货币种类")
    ours = required(cell(row, "商户订单号"), "bill.number_missing")
    return BillRow(
        line=number,
        kind=BillKind.PAYMENT,
        number=ours,
        order_number=ours,
        channel_ref=required(cell(row, "微信订单号"), "bill.number_missing"),
        money=not_negative(amount(cell(row, "订单金额", "应结订单金额", "总金额"), currency)),
        fee=amount(cell(row, "手续费"), currency),
        at=moment(cell(row, "交易时间")),
        state="SUCCESS",
        merchants=_merchants(row),
    )


def _refund(number: int, row: Mapping[str, str]) -> BillRow:
    """Read a refund; a reversal without a refund number of its own carries the order's."""
    currency = cell(row, "货币种类")
    order = required(cell(row, "商户订单号"), "bill.number_missing")
    ours, theirs = cell(row, "商户退款单号"), cell(row, "微信退款单号")
    state = cell(row, "交易状态")
    if state == "REFUND" and (ours in _NONE or theirs in _NONE):
        raise RowMalformed("bill.number_missing")
    return BillRow(
        line=number,
        kind=BillKind.REFUND,
        number=order if ours in _NONE else ours,
        order_number=order,
        channel_ref=cell(row, "微信订单号") if theirs in _NONE else theirs,
        money=not_negative(amount(cell(row, "申请退款金额", "退款金额"), currency)),
        fee=amount(cell(row, "手续费"), currency),
        at=moment(_first_filled(row, "退款成功时间", "退款申请时间", "交易时间")),
        state=state if state == "REVOKED" else cell(row, "退款状态"),
        merchants=_merchants(row),
    )


def _merchants(row: Mapping[str, str]) -> tuple[str, ...]:
    """Return the numbers of who sold: a provider's as well, where one acts for the merchant."""
    return (cell(row, "商户号"), cell(row, "特约商户号"))


def _first_filled(row: Mapping[str, str], *names: str) -> str:
    return next((row[name] for name in names if row.get(name, "")), "")


def _total(names: list[str], values: tuple[int, str | BillFault]) -> BillTotal | BillFault:
    number, text = values
    if isinstance(text, BillFault):
        return text
    try:
        row = cells_of(text, names)
        return BillTotal(
            payment_count=None,
            payment_amount=amount(cell(row, "订单总金额", "应结订单总金额", "总交易额"), "CNY"),
            refund_amount=amount(cell(row, "申请退款总金额", "退款总金额", "总退款金额"), "CNY"),
            fee_amount=amount(cell(row, "手续费总金额"), "CNY"),
            row_count=count(cell(row, _SUMMARY_START)),
        )
    except RowMalformed:
        return fault(number, "bill.truncated", text)


def _unpack(packed: Path, path: Path, sha1: str) -> BillFile:
    part = path.with_suffix(".part")
    try:
        size, digests = _copy(packed, part)
        if digests[0] != sha1.lower():
            raise BillDamaged("its SHA-1 differs")
        part.replace(path)
    except (OSError, EOFError, zlib.error) as failure:
        raise BillDamaged("it does not unpack") from failure
    finally:
        part.unlink(missing_ok=True)
    return BillFile(path, sha256=digests[1], size=size)


def _copy(packed: Path, part: Path) -> tuple[int, tuple[str, str]]:
    announced, ours = hashlib.sha1(usedforsecurity=False), hashlib.sha256()
    size = 0
    with _opened(packed) as source, part.open("wb") as target:
        while chunk := source.read(_CHUNK):
            size += len(chunk)
            if size > UNPACKED_MAX:
                raise BillDamaged("it is larger than any bill")
            announced.update(chunk)
            ours.update(chunk)
            target.write(chunk)
    return size, (announced.hexdigest(), ours.hexdigest())


def _opened(packed: Path) -> BinaryIO:
    with packed.open("rb") as file:
        is_gzip = file.read(2) == _GZIP_MAGIC
    return cast(BinaryIO, gzip.open(packed, "rb")) if is_gzip else packed.open("rb")

"""WeChat Pay's bills beside the trade bill: of the funds of an account, and of the shares given.

The fee of a trade is a line of its own in the fund bill, and shares are not in the trade bill at
all, so a full reconciliation reads three files.
"""

from __future__ import annotations

import asyncio
import hashlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, datetime
from functools import partial
from pathlib import Path
from typing import Final, TypeVar, assert_never

from msgspec import Struct

from tongbao.kernel.money import Money
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
from tongbao.rails.channels.contract.bills import BillFault, BillFile, BillOutcome
from tongbao.rails.channels.contract.orders import ChannelAccount
from tongbao.rails.channels.contract.outcomes import Answer, NotSent, Unknown
from tongbao.rails.channels.exchange import decode, unsent
from tongbao.rails.channels.wechat_pay.bills import cells_of, download, fetch_file
from tongbao.rails.channels.wechat_pay.crypto import FILES, open_file
from tongbao.rails.channels.wechat_pay.documents.orders import SealedBill, SealedBillAddress
from tongbao.rails.channels.wechat_pay.gateway import (
    Answered,
    Gateway,
    Refused,
    ids_of,
    in_path,
    no_bill,
    secrets_of,
)
from tongbao.rails.channels.wechat_pay.wire import CURRENCY

ACCOUNTS: Final = {"funds": "BASIC", "funds_operation": "OPERATION", "funds_fees": "FEES"}
"""Which account's funds a kind of bill is about."""
KINDS: Final = frozenset({*ACCOUNTS, "splits"})

_FUND_START: Final = "记账时间"
_FUND_END: Final = "资金流水总笔数"
_SPLIT_START: Final = "分账时间"
_SPLIT_END: Final = "总笔数"


class FundRow(Struct, frozen=True):
    """One movement of an account at WeChat Pay; what leaves it is negative."""

    line: int
    at: datetime
    ref: str  # WeChat Pay's number of the trade, refund or split behind it
    flow_ref: str
    name: str
    money: Money
    balance: Money
    number: str  # ours, where there is one


class FundTotal(Struct, frozen=True):
    """What the fund bill's own trailer says."""

    row_count: int
    income_count: int
    income: Money
    expense_count: int
    expense: Money


class SplitRow(Struct, frozen=True):
    """One share given or, with ``is_return``, taken back."""

    line: int
    at: datetime
    payment_ref: str
    split_ref: str
    share_ref: str
    number: str  # ours: the split's or the return's
    account: str  # the receiver
    money: Money
    is_return: bool
    state: str  # 成功, 失败, 处理中
    reason: str


class SplitTotal(Struct, frozen=True):
    """What the bill of shares says at its end."""

    row_count: int
    shared: Money
    returned: Money


R = TypeVar("R")


async def download_statement(
    gateway: Gateway, account: ChannelAccount, kind: str, day: date, folder: Path
) -> Answer[BillOutcome]:
    """Fetch one of ``KINDS`` of a day into ``folder``, unpacked, its SHA-1 verified."""
    if kind not in KINDS:
        reason = f"WeChat Pay has no bill of {kind}"
        return Answer(Unknown(reason), unsent("GET", account.gateway, reason))
    query = f"bill_date={day.isoformat()}&tar_type=GZIP"
    sub_mchid = ids_of(account).sub_mchid
    path = folder / f"wechat_pay-{account.merchant_number}-{kind}-{day.isoformat()}.csv"
    if sub_mchid and kind in ACCOUNTS:
        # Elsewhere the provider's own funds would come, as if they were the sub-merchant's.
        query = f"{query}&account_type={ACCOUNTS[kind]}&sub_mchid={in_path(sub_mchid)}"
        return await _download_sealed(gateway, account, query, path)
    if kind == "splits":
        target = f"/v3/profitsharing/bills?{query}"
        target = f"{target}&sub_mchid={in_path(sub_mchid)}" if sub_mchid else target
    else:
        target = f"/v3/bill/fundflowbill?{query}&account_type={ACCOUNTS[kind]}"
    return await download(gateway, account, target, path)


async def _download_sealed(
    gateway: Gateway, account: ChannelAccount, query: str, path: Path
) -> Answer[BillOutcome]:
    """Fetch a sub-merchant's fund bill, whose files are encrypted for their service provider."""
    algorithm = FILES[secrets_of(account).scheme]
    target = f"/v3/bill/sub-merchant-fundflowbill?{query}&algorithm={algorithm}"
    heard, exchange = await gateway.call(account, "GET", target)
    match heard:
        case Answered():
            bill = decode(heard.body, SealedBill)
            files = sorted(bill.download_bill_list, key=_place) if bill is not None else []
            wanted = list(range(1, len(files) + 1))
            is_whole = [each.bill_sequence for each in files] == wanted and all(
                each.hash_type == "SHA1" for each in files
            )
            if bill is None or not files or not is_whole or bill.download_bill_count != len(files):
                return Answer(Unknown("not every file of the bill is named"), exchange)
            return Answer(await _fetch_sealed(gateway, account, files, path), exchange)
        case Refused():
            return Answer(no_bill(heard), exchange)
        case NotSent() | Unknown():
            return Answer(Unknown(heard.reason), exchange)
        case _:
            assert_never(heard)


async def _fetch_sealed(
    gateway: Gateway, account: ChannelAccount, files: Sequence[SealedBillAddress], path: Path
) -> BillFile | Unknown:
    """Fetch, open and check every file, and put them together in their order."""
    secrets = secrets_of(account)
    opens = partial(open_file, secrets.scheme, secrets.merchant_private_key_pem)
    pieces: list[Path] = []
    try:
        for file in files:
            piece = path.with_name(f"{path.stem}-{file.bill_sequence}{path.suffix}")
            opening = partial(opens, key=file.encrypt_key, nonce=file.nonce)
            found = await fetch_file(gateway, account, file, piece, opening)
            if isinstance(found, Unknown):
                return found
            pieces.append(piece)
        return await asyncio.to_thread(_put_together, pieces, path)
    finally:
        for piece in pieces:
            piece.unlink(missing_ok=True)


def _put_together(pieces: Sequence[Path], path: Path) -> BillFile:
    with path.open("wb") as whole:
        for piece in pieces:
            with piece.open("rb") as source:
                shutil.copyfileobj(source, whole)
    with path.open("rb") as whole:
        digest = hashlib.file_digest(whole, "sha256").hexdigest()
    return BillFile(path, sha256=digest, size=path.stat().st_size)


def _place(file: SealedBillAddress) -> int:
    return file.bill_sequence


def parse_fund_bill(path: Path) -> Iterator[FundRow | FundTotal | BillFault]:
    """Yield movements, faults and the bill's own total; a bill without it is cut off."""
    return _parse(path, (_FUND_START, _FUND_END), _movement, _fund_total)


def parse_split_bill(path: Path) -> Iterator[SplitRow | SplitTotal | BillFault]:
    """Yield shares, returns, faults and the bill's own total; a bill without it is cut off."""
    return _parse(path, (_SPLIT_START, _SPLIT_END), _share, _split_total)


def _parse(
    path: Path,
    starts: tuple[str, str],
    row: Callable[[int, Mapping[str, str]], R],
    total: Callable[[Mapping[str, str]], R],
) -> Iterator[R | BillFault]:
    with path.open("rb") as file:
        lines = lines_of(file, "utf-8")
        number, header = next(lines, (1, ""))
        text = header.text if isinstance(header, BillFault) else header.removeprefix("\ufeff")
        if isinstance(header, BillFault) or not text.startswith(starts[0]):
            yield fault(number, "bill.header_unknown", text)
            return
        names = text.split(",")
        for number, line in lines:
            if isinstance(line, BillFault):
                yield line
            elif line.startswith(starts[1]):
                _, figures = next(lines, (number + 1, ""))
                shown = figures.text if isinstance(figures, BillFault) else figures
                yield _made(number + 1, shown, line.split(","), total)
                return
            else:
                yield _made(number, line, names, partial(row, number))
        yield fault(number + 1, "bill.truncated", "")


def _made(
    number: int, text: str, names: list[str], make: Callable[[Mapping[str, str]], R]
) -> R | BillFault:
    try:
        return make(cells_of(text, names))
    except RowMalformed as malformed:
        return fault(number, malformed.code, text)


def _movement(number: int, row: Mapping[str, str]) -> FundRow:
    money = not_negative(amount(cell(row, "收支金额(元)", "收支金额（元）"), CURRENCY))
    match cell(row, "收支类型"):
        case "收入":
            pass
        case "支出":
            money = Money(-money.amount, CURRENCY)
        case _:
            raise RowMalformed("bill.state_unknown")
    return FundRow(
        line=number,
        at=moment(cell(row, _FUND_START)),
        ref=cell(row, "微信支付业务单号"),
        flow_ref=required(cell(row, "资金流水单号"), "bill.number_missing"),
        name=cell(row, "业务名称"),
        money=money,
        balance=amount(cell(row, "账户结余(元)", "账户结余（元）"), CURRENCY),
        number=cell(row, "业务凭证号"),
    )


def _fund_total(row: Mapping[str, str]) -> FundTotal:
    return FundTotal(
        row_count=count(cell(row, _FUND_END)),
        income_count=count(cell(row, "收入笔数")),
        income=amount(cell(row, "收入金额"), CURRENCY),
        expense_count=count(cell(row, "支出笔数")),
        expense=amount(cell(row, "支出金额"), CURRENCY),
    )


def _share(number: int, row: Mapping[str, str]) -> SplitRow:
    kind = cell(row, "业务类型")
    if kind not in {"分账", "分账回退"}:
        raise RowMalformed("bill.state_unknown")
    return SplitRow(
        line=number,
        at=moment(cell(row, _SPLIT_START)),
        payment_ref=cell(row, "微信订单号"),
        split_ref=required(cell(row, "微信分账/回退单号"), "bill.number_missing"),
        share_ref=cell(row, "分账明细单号"),
        number=required(cell(row, "商户分账/回退单号"), "bill.number_missing"),
        account=cell(row, "分账接收方"),
        money=not_negative(amount(cell(row, "分账金额"), CURRENCY)),
        is_return=kind == "分账回退",
        state=cell(row, "处理状态"),
        reason=cell(row, "备注"),
    )


def _split_total(row: Mapping[str, str]) -> SplitTotal:
    return SplitTotal(
        row_count=count(cell(row, _SPLIT_END)),
        shared=amount(cell(row, "分账总金额"), CURRENCY),
        returned=amount(cell(row, "回退总金额"), CURRENCY),
    )

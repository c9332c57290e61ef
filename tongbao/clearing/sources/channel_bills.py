"""Channels' bills as statements: their own parsers read them, this only changes the words."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from tongbao.clearing.sources.model import SourceFault, SourceLine, SourceRow, SourceTotal
from tongbao.kernel.money import Money
from tongbao.rails.channels.alipay import bills as alipay
from tongbao.rails.channels.contract import BillFault, BillKind, BillLine, BillRow, BillTotal
from tongbao.rails.channels.unionpay import bills as unionpay
from tongbao.rails.channels.wechat_pay import bills as wechat_pay
from tongbao.rails.channels.wechat_pay import statements

Reader = Callable[[Path], Iterator[SourceLine]]
_NO_TIME: Final = datetime(2000, 1, 1, tzinfo=UTC)


def _trades(parse: Callable[[Path], Iterator[BillLine]]) -> Reader:
    def read(path: Path) -> Iterator[SourceLine]:
        line = 0
        for each in parse(path):
            if isinstance(each, BillFault):
                yield _fault(each)
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
            yield _fault(each)
        elif isinstance(each, statements.FundTotal):
            yield SourceTotal(
                0, count=each.row_count, credit=each.income.amount, debit=each.expense.amount
            )
        else:
            yield _row(each.line, each.name, (each.flow_ref, each.ref), each.money, each.at)


def _wechat_splits(path: Path) -> Iterator[SourceLine]:
    for each in statements.parse_split_bill(path):
        if isinstance(each, BillFault):
            yield _fault(each)
        elif isinstance(each, statements.SplitTotal):
            yield SourceTotal(
                0, count=each.row_count, credit=each.returned.amount, debit=each.shared.amount
            )
        else:
            money = each.money if each.is_return else Money(-each.money.amount, each.money.currency)
            kind = "split_return" if each.is_return else "split"
            numbers = (each.number, each.share_ref)
            yield _row(each.line, kind, numbers, money, each.at, state=each.state)


def _alipay_funds(path: Path) -> Iterator[SourceLine]:
    for each in alipay.parse_fund_bill(path):
        if isinstance(each, BillFault):
            yield _fault(each)
        elif isinstance(each, alipay.FundTotal):
            yield SourceTotal(
                0,
                count=each.in_count + each.out_count,
                credit=each.in_money.amount,
                debit=abs(each.out_money.amount),
            )
        else:
            yield _row(each.line, each.kind, (each.flow, each.channel_ref), each.money, each.at)


def _unionpay_differences(path: Path) -> Iterator[SourceLine]:
    for each in unionpay.parse_differences(path):
        if isinstance(each, BillFault):
            yield _fault(each)
        else:
            at = each.at or _NO_TIME
            numbers = (f"{each.trace_no}-{each.line}", each.trace_no)
            yield _row(each.line, each.code, numbers, each.money, at)
    yield SourceTotal(0)


def _row(
    line: int, kind: str, numbers: tuple[str, str], money: Money, at: datetime, *, state: str = ""
) -> SourceRow:
    moment = at.astimezone(UTC)
    return SourceRow(line, kind, *numbers, "", money.amount, 0, money.currency, moment, state)


def _fault(found: BillFault) -> SourceFault:
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
}
"""The parsers that a layout of the format "channel" may name."""

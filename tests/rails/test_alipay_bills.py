"""Alipay's bills of a day on which everything happened, from the sandbox's own trades."""

from __future__ import annotations

import asyncio
import itertools
import zipfile
from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path

import pytest

from tests.rails.alipay_desk import PRICE, Desk, account_of
from tests.rails.wire_server import WireServer
from tests.sandboxes import start_sandbox
from tongbao.infra.http import HttpClient
from tongbao.kernel.clock import business_date
from tongbao.kernel.ids import base32, new_id
from tongbao.kernel.money import Money
from tongbao.rails.channels.alipay.bills import FundRow, FundTotal, parse_fund_bill
from tongbao.rails.channels.capabilities.shares import Receiver, Share, SplitOrder, SplitReturn
from tongbao.rails.channels.capabilities.transfers import TransferOrder
from tongbao.rails.channels.contract.bills import (
    BillFault,
    BillFile,
    BillNotReady,
    BillRow,
    BillTotal,
    FurtherBills,
)
from tongbao.rails.channels.contract.orders import PayMode, RefundOrder
from tongbao.rails.channels.contract.outcomes import Succeeded, Unknown
from tongbao_sandbox.launch import RunningSandbox

SHOP = Receiver("userId", "2088722000000101")
HEADER = (
    "账务流水号,业务流水号,商户订单号,商品名称,发生时间,对方账号,收入金额（+元）,支出金额（-元）,"
    "账户余额（元）,交易渠道,业务类型,备注"
)
ROW = "2026\t,2026\t,order1\t,茶,2026-11-21 12:00:00,*顾客\t,19.99,,119.99,支付宝\t,在线支付\t,"
TRAILERS = ["#支出合计：0笔，共0.00元", "#收入合计：1笔，共19.99元"]


@pytest.fixture(scope="module")
def sandbox_of_a_day(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSandbox]:
    with start_sandbox(tmp_path_factory.mktemp("day")) as running:
        yield running


async def busy_day(desk: Desk) -> tuple[date, list[str]]:
    """Pay, share, refund with a share, and pay out; return the day and the numbers."""
    day = business_date(datetime.fromisoformat(desk.sandbox.get("clock")["now"]))
    channel, account = desk.channel, desk.account
    order = desk.order(PayMode.IN_APP)
    ref = await desk.offer(order)
    await desk.scan(order)
    await channel.add_receiver(account, SHOP)
    split = SplitOrder(base32(new_id()), ref, [Share(SHOP, Money(300, "CNY"))])
    await channel.split(account, split)
    await asyncio.to_thread(desk.sandbox.advance, 3)
    refund = RefundOrder(base32(new_id()), order.number, Money(500, "CNY"), PRICE)
    back = SplitReturn(refund.number, split.number, ref, SHOP, Money(100, "CNY"))
    given = await channel.refund_with_shares(account, refund, [back])
    assert isinstance(given.outcome, Succeeded)
    payout = TransferOrder(
        base32(new_id()), "2088722000000201", "ALIPAY_USER_ID", None, Money(700, "CNY"), "佣金"
    )
    assert isinstance((await channel.transfer(account, payout)).outcome, Succeeded)
    return day, [order.number, split.number, refund.number, payout.number]


@pytest.mark.parametrize("kind", ["key", "rest and certificate"])
async def test_both_bills_say_what_happened(
    kind: str, http: HttpClient, far_end: WireServer, tmp_path: Path
) -> None:
    with await asyncio.to_thread(start_sandbox, tmp_path / "sandbox") as sandbox:
        desk = Desk(sandbox, http, far_end)
        desk.account = account_of(sandbox, far_end.url, kind)
        assert isinstance(desk.channel, FurtherBills)
        day, [paid, shared, refunded, sent] = await busy_day(desk)
        early = await desk.channel.download_further_bill(desk.account, "funds", day, tmp_path)
        assert isinstance(early.outcome, BillNotReady)
        await asyncio.to_thread(sandbox.advance, 36 * 3600)
        answer = await desk.channel.download_further_bill(desk.account, "funds", day, tmp_path)
        trades = await desk.channel.download_bill(desk.account, day, tmp_path)
    assert isinstance(answer.outcome, BillFile), answer
    assert isinstance(trades.outcome, BillFile), trades
    assert answer.outcome.path != trades.outcome.path

    *rows, total = list(parse_fund_bill(answer.outcome.path))
    moved = {(row.kind, row.number, row.money.amount) for row in rows if isinstance(row, FundRow)}
    assert moved == {
        ("在线支付", paid, 1999),
        ("收费", paid, -12),
        ("分账", shared, -300),
        ("退分账", shared, 100),
        ("交易退款", paid, -500),
        ("服务费退回", paid, 3),
        ("转账", sent, -700),
    }
    assert total == FundTotal(4, Money(-1512, "CNY"), 3, Money(2102, "CNY"))
    balances = [row.balance.amount for row in rows if isinstance(row, FundRow)]
    steps = [row.money.amount for row in rows if isinstance(row, FundRow)]
    assert [b - a for a, b in itertools.pairwise(balances)] == steps[1:]

    told = list(desk.channel.parse_bill(trades.outcome.path))
    trade_rows = [line for line in told if isinstance(line, BillRow)]
    assert [row.number for row in trade_rows] == [paid, refunded]
    assert {row.merchants for row in trade_rows} == {(desk.account.merchant_number,)}
    assert isinstance(told[-1], BillTotal)


async def test_a_bill_cut_off_is_a_fault_and_a_late_one_not_ready(
    sandbox_of_a_day: RunningSandbox, http: HttpClient, far_end: WireServer, tmp_path: Path
) -> None:
    desk = Desk(sandbox_of_a_day, http, far_end)
    day, _ = await busy_day(desk)
    await asyncio.to_thread(sandbox_of_a_day.advance, 36 * 3600)
    sandbox_of_a_day.fault("alipay", "bill", "late")
    late = await desk.channel.download_further_bill(desk.account, "funds", day, tmp_path)
    assert isinstance(late.outcome, BillNotReady)
    sandbox_of_a_day.fault("alipay", "bill", "truncate")
    cut = await desk.channel.download_further_bill(desk.account, "funds", day, tmp_path)
    assert isinstance(cut.outcome, BillFile)
    lines = list(parse_fund_bill(cut.outcome.path))
    assert isinstance(lines[-1], BillFault)
    assert lines[-1].code == "bill.truncated"
    other = await desk.channel.download_further_bill(desk.account, "splits", day, tmp_path)
    assert isinstance(other.outcome, Unknown)
    assert "no bill of splits" in other.exchange.reply


def funds_in(tmp_path: Path, lines: list[str]) -> list[FundRow | BillFault | FundTotal]:
    path = tmp_path / "bill.zip"
    with zipfile.ZipFile(path, "w") as archive:
        text = "".join(line + "\r\n" for line in lines)
        archive.writestr("2088_20261121_账务明细(汇总).csv", "x")
        archive.writestr("2088_20261121_账务明细.csv", text.encode("gbk"))
    return list(parse_fund_bill(path))


def test_a_row_that_cannot_be_read_is_a_fault_and_the_others_count(tmp_path: Path) -> None:
    bad = [
        ROW.replace("19.99,,", "many,,"),
        ROW.replace("119.99", ""),
        ROW + ",one more",
        ROW.replace("2026-11-21 12:00:00", "noon"),
        ROW.replace("在线支付", ""),
    ]
    lines = funds_in(tmp_path, ["#支付宝账务明细查询", HEADER, ROW, *bad, *TRAILERS])
    assert isinstance(lines[0], FundRow)
    assert (lines[0].money, lines[0].balance) == (Money(1999, "CNY"), Money(11999, "CNY"))
    assert all(isinstance(line, BillFault) for line in lines[1:6])
    assert lines[6] == FundTotal(0, Money(0, "CNY"), 1, Money(1999, "CNY"))


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        ([HEADER, ROW], "bill.truncated"),
        ([HEADER, ROW, TRAILERS[0]], "bill.truncated"),
        ([HEADER, ROW, TRAILERS[1]], "bill.truncated"),
        ([ROW, *TRAILERS], "bill.header_unknown"),
    ],
)
def test_a_bill_without_its_beginning_or_end_is_not_believed(
    tmp_path: Path, lines: list[str], code: str
) -> None:
    faults = [line.code for line in funds_in(tmp_path, lines) if isinstance(line, BillFault)]
    assert code in faults


def test_a_trade_bill_is_no_fund_bill(tmp_path: Path) -> None:
    path = tmp_path / "bill.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("2088_20261121_业务明细.csv", "x")
    [line] = parse_fund_bill(path)
    assert isinstance(line, BillFault)
    assert line.code == "bill.archive_damaged"

"""Alipay's account bill (signcustomer): every movement of the merchant's balance on a day.

Payments and refunds come from the sandbox's trades, with the fee as a row of its own; shares and
payouts are noted here when they happen.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date, datetime
from typing import Final

import msgspec
from msgspec import Struct

from tongbao.kernel.clock import business_date
from tongbao_sandbox.alipay_bill import Line, opening, text_of, yuan, zip_of_gbk_names
from tongbao_sandbox.alipay_trade import NAME
from tongbao_sandbox.clock import china, plain
from tongbao_sandbox.seam import World

OPENING_FEN: Final = 100_000_000
"""The balance each day begins with, so that the bill's last column says something."""
HEADER: Final = (
    "账务流水号,业务流水号,商户订单号,商品名称,发生时间,对方账号,收入金额（+元）,支出金额（-元）,"
    "账户余额（元）,交易渠道,业务类型,备注"
)
SUMMARY_HEADER: Final = "类型,笔数,金额（元）"


class Move(Struct, frozen=True):
    """One movement of the balance; what goes out is negative, in fen."""

    ref: str
    number: str
    subject: str
    at: datetime
    other: str
    amount: int
    kind: str


def note(world: World, move: Move) -> None:
    """Remember a movement that no trade or refund tells of."""
    name = f"moves/{business_date(move.at)}"
    kept = world.state.document(NAME, name)
    moves = [] if kept is None else msgspec.json.decode(kept[0], type=list[Move])
    content = msgspec.json.encode([*moves, move])
    world.state.put_document(NAME, name, content, world.clock.now())


def moves_of(world: World, day: date, trades: Iterable[Line]) -> list[Move]:
    """Return the day's movements by time: what its trades say, and what was noted."""
    kept = world.state.document(NAME, f"moves/{day}")
    noted = [] if kept is None else msgspec.json.decode(kept[0], type=list[Move])
    told = [move for line in trades for move in _moves(line)]
    return sorted([*told, *noted], key=lambda move: move.at)


def bill_zip(seller_id: str, day: date, moves: Sequence[Move], *, is_cut: bool = False) -> bytes:
    """Return the day's bill; on every other day the summary comes first."""
    stem = f"{seller_id}0156_{day:%Y%m%d}_账务明细"
    detail = _detail(seller_id, day, moves)
    files = [
        (f"{stem}.csv", detail[: detail.index(HEADER) + len(HEADER) + 60] if is_cut else detail),
        (f"{stem}(汇总).csv", _summary(seller_id, day, moves)),
    ]
    if day.toordinal() % 2:
        files.reverse()
    return zip_of_gbk_names([(name, text.encode("gbk", "replace")) for name, text in files])


def _moves(line: Line) -> Iterable[Move]:
    kind = "交易退款" if line.is_refund else "在线支付"
    yield Move(
        line.trade_no, line.number, line.subject, line.done_at, line.buyer, line.amount, kind
    )
    if line.fee:
        fee = "服务费退回" if line.is_refund else "收费"
        yield Move(line.trade_no, line.number, line.subject, line.done_at, "支付宝", -line.fee, fee)


def _detail(seller_id: str, day: date, moves: Sequence[Move]) -> str:
    balance, rows = OPENING_FEN, []
    for index, move in enumerate(moves):
        balance += move.amount
        rows.append(_row(day, index, move, balance))
    out = [move.amount for move in moves if move.amount < 0]
    back = [move.amount for move in moves if move.amount >= 0]
    return text_of(
        [
            "#支付宝账务明细查询",
            *opening(seller_id, day),
            f"#{'-' * 41}账务明细列表{'-' * 40}",
            HEADER,
            *rows,
            f"#{'-' * 41}账务明细列表结束{'-' * 36}",
            f"#支出合计：{len(out)}笔，共{yuan(sum(out))}元",
            f"#收入合计：{len(back)}笔，共{yuan(sum(back))}元",
            f"#导出时间：[{china(moves[-1].at):%Y年%m月%d日 %H:%M:%S}]"
            if moves
            else "#导出时间：[]",
        ]
    )


def _row(day: date, index: int, move: Move, balance: int) -> str:
    comes_in, goes_out = max(move.amount, 0), min(move.amount, 0)
    cells = (
        f"{day:%Y%m%d}{index:08d}\t", f"{move.ref}\t", f"{move.number}\t",
        move.subject.translate({ord(","): "，", ord("\n"): " ", ord("\t"): " "}),
        plain(move.at), f"{move.other}\t",
        yuan(comes_in) if comes_in else "", yuan(goes_out) if goes_out else "",
        yuan(balance), "支付宝\t", f"{move.kind}\t", "",
    )  # fmt: skip
    return ",".join(cells)


def _summary(seller_id: str, day: date, moves: Sequence[Move]) -> str:
    kinds = sorted({move.kind for move in moves})
    amounts = {kind: [move.amount for move in moves if move.kind == kind] for kind in kinds}
    return text_of(
        [
            "#支付宝账务汇总查询",
            *opening(seller_id, day),
            SUMMARY_HEADER,
            *(f"{kind}\t,{len(amounts[kind])},{yuan(sum(amounts[kind]))}" for kind in kinds),
        ]
    )

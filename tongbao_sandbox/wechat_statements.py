"""WeChat Pay's further bills: of the funds of an account, and of the shares given.

Payments, refunds and shares move the basic account; payouts leave the operating account, which
begins with ``wechat.operating_balance`` fen (100,000,000). The account of fees does not move.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime, time
from typing import Any, Final

from msgspec import Struct

from tongbao_sandbox.clock import CHINA, plain
from tongbao_sandbox.wechat_bill import Bills, Row, file, line, movements, yuan
from tongbao_sandbox.wechat_desk import Desk
from tongbao_sandbox.wechat_splits import Splits
from tongbao_sandbox.wechat_transfers import Transfers
from tongbao_sandbox.wechat_wire import Call, Handler, Outcome, Problem, parameter_error

FUND_HEADER: Final = (
    "记账时间,微信支付业务单号,资金流水单号,业务名称,业务类型,收支类型,收支金额(元),账户结余(元),"
    "资金变更提交申请人,备注,业务凭证号"
)
FUND_SUMMARY: Final = "资金流水总笔数,收入笔数,收入金额,支出笔数,支出金额"
SPLIT_HEADER: Final = (
    "分账时间,分账发起方,分账方,微信订单号,微信分账/回退单号,分账明细单号,商户分账/回退单号,"
    "订单金额,分账接收方,分账金额,业务类型,处理状态,分账描述,备注"
)
OPERATING_BALANCE: Final = 100_000_000
SPLIT_SUMMARY: Final = "总笔数,分账笔数,分账总金额,回退笔数,回退总金额"
_STATES: Final = {"SUCCESS": "成功", "CLOSED": "失败", "FAILED": "失败", "PENDING": "处理中"}


class Movement(Struct, frozen=True, order=True):
    """One change of an account; money in fen, negative when it leaves."""

    time: str
    ref: str
    name: str
    amount: int
    note: str
    voucher: str


class Statements:
    """Answers the calls for bills beside the trade bill."""

    def __init__(self, desk: Desk, bills: Bills, splits: Splits, transfers: Transfers) -> None:
        self._desk = desk
        self._world = desk.world
        self._bills = bills
        self._splits = splits
        self._transfers = transfers

    def routes(self) -> tuple[tuple[str, str, Handler], ...]:
        """Return every call for a further bill."""
        return (
            ("GET", "/v3/bill/fundflowbill", self.fund_bill),
            ("GET", "/v3/bill/sub-merchant-fundflowbill", self.sub_merchant_bill),
            ("GET", "/v3/profitsharing/bills", self.split_bill),
        )

    def fund_bill(self, call: Call) -> Outcome:
        """Offer the movements of one of the merchant's accounts on a day for download."""
        day = self._bills.day(call)
        _check_account(call)
        return self._bills.offer(call, self._funds(call, day, ""))

    def sub_merchant_bill(self, call: Call) -> Outcome:
        """Offer a sub-merchant's movements, encrypted for the provider whose merchant it is."""
        day = self._bills.day(call)
        _check_account(call)
        algorithm, sub_mchid = call.query.get("algorithm", ""), call.query.get("sub_mchid", "")
        if algorithm not in {"AEAD_AES_256_GCM", "SM4_GCM"}:
            raise parameter_error("algorithm", algorithm, "加密算法不支持", "query")
        if sub_mchid != self._desk.vault.sub_mchid:
            raise parameter_error("sub_mchid", sub_mchid, "特约商户号未绑定", "query")
        funds = self._funds(call, day, sub_mchid)
        at = funds.index(b"\n", len(funds) // 2) + 1  # in two files, as a large one comes
        files = [
            {"bill_sequence": place, **self._bills.offer_sealed(call, piece)}
            for place, piece in enumerate((funds[:at], funds[at:]), 1)
        ]
        return Outcome({"download_bill_count": len(files), "download_bill_list": files[::-1]})

    def _funds(self, call: Call, day: date, sub_mchid: str) -> bytes:
        """Return the bill of everybody's movements, or of one sub-merchant's."""
        account = call.query.get("account_type", "BASIC")
        if account == "BASIC":
            moved, balance = self._basic(day, sub_mchid)
        elif account == "OPERATION":
            moved, balance = self._operating(day, sub_mchid)
        else:
            moved, balance = [], 0
        if not moved:
            raise Problem(400, "NO_STATEMENT_EXIST", "账单文件不存在")
        moved.sort(key=lambda one: one.time)
        return self._render_funds(moved, balance)

    def _basic(self, day: date, sub_mchid: str) -> tuple[list[Movement], int]:
        """Return a day's movements of the basic account, and what it began with."""
        shared = [] if sub_mchid else self._shared()

        def of(rows: Sequence[Row]) -> list[Movement]:
            wanted = [row for row in rows if sub_mchid in {"", row.sub_mchid}]
            return [one for row in wanted for one in _of_row(row)]

        # A wrong row is wrong in the trade bill alone: the account moved by what was truly paid.
        moved = of(self._bills.true_rows(day)) + _on(day, shared)
        return moved, _before(day, of(self._bills.all_rows()) + shared)

    def _operating(self, day: date, sub_mchid: str) -> tuple[list[Movement], int]:
        """Return a day's movements of the operating account, and what it began with."""
        opening = int(self._world.setting("wechat.operating_balance", OPERATING_BALANCE))
        gone = [
            _of_payout(one)
            for one in self._transfers.paid_out()
            if sub_mchid == one.get("sub_mchid", "")
        ]
        return _on(day, gone), opening + _before(day, gone)

    def split_bill(self, call: Call) -> Outcome:
        """Offer the shares and returns of a day for download."""
        day = self._bills.day(call)
        lines = self._split_lines(day, call.query.get("sub_mchid", ""))
        if not lines:
            raise Problem(400, "NO_STATEMENT_EXIST", "账单文件不存在")
        return self._bills.offer(call, file([SPLIT_HEADER, *lines, SPLIT_SUMMARY, self._sums(day)]))

    def _shared(self) -> list[Movement]:
        return [
            Movement(plain(at), ref, name, amount, name, number)
            for at, name, amount, ref, number in self._splits.movements()
        ]

    def _render_funds(self, moved: list[Movement], balance: int) -> bytes:
        lines = [FUND_HEADER]
        sums = {"收入": [0, 0], "支出": [0, 0]}
        for one in moved:
            balance += one.amount
            way = "收入" if one.amount > 0 else "支出"
            sums[way][0] += 1
            sums[way][1] += abs(one.amount)
            flow = f"1000039501{self._world.state.next_number('wechat.flow'):018d}"
            cells = [one.time, one.ref, flow, one.name, one.name, way, yuan(abs(one.amount))]
            lines.append(line([*cells, yuan(balance), "system", one.note, one.voucher]))
        count, money, _ = self._bills.figures()
        figures = [count(sums["收入"][0] + sums["支出"][0])]
        for number, amount in sums.values():
            figures += [count(number), money(amount)]
        return file([*lines, FUND_SUMMARY, line(figures)])

    def _split_lines(self, day: date, sub_mchid: str) -> list[str]:
        told: list[str] = []
        for one in self._splits.lines_of(day):
            if sub_mchid not in {"", one.get("sub_mchid", "")}:
                continue
            trade = self._world.state.trade_by_ref("wechat", one.get("transaction_id", ""))
            told.append(
                line(
                    [
                        plain(datetime.fromisoformat(one["at"])),
                        self._desk.vault.mchid,
                        one.get("sub_mchid") or self._desk.vault.mchid,
                        one.get("transaction_id", ""),
                        one.get("return_id") or one["order_id"],
                        one.get("detail_id", ""),
                        one.get("out_return_no") or one["out_order_no"],
                        yuan(trade.amount if trade else 0),
                        one["account"],
                        yuan(one["amount"]),
                        one["kind"],
                        _STATES[one["result"]],
                        one["description"],
                        one.get("fail_reason", ""),
                    ]
                )
            )
        return told

    def _sums(self, day: date) -> str:
        lines = self._splits.lines_of(day)
        count, money, _ = self._bills.figures()
        figures = [count(len(lines))]
        for kind in ("分账", "分账回退"):
            amounts = [one["amount"] for one in lines if one["kind"] == kind]
            figures += [count(len(amounts)), money(sum(amounts))]
        return line(figures)


def _check_account(call: Call) -> None:
    account = call.query.get("account_type", "BASIC")
    if account not in {"BASIC", "OPERATION", "FEES"}:
        raise parameter_error("account_type", account, "账户类型不存在", "query")


def _on(day: date, moved: Sequence[Movement]) -> list[Movement]:
    return [one for one in moved if one.time.startswith(day.isoformat())]


def _before(day: date, moved: Sequence[Movement]) -> int:
    """Return what all of it came to before a day began, in fen."""
    start = plain(datetime.combine(day, time(), CHINA))
    return sum(one.amount for one in moved if one.time < start)


def _of_payout(kept: Mapping[str, Any]) -> Movement:
    """Return what a payout took from the operating account."""
    return Movement(
        time=plain(datetime.fromisoformat(kept["update_time"])),
        ref=kept["transfer_bill_no"],
        name="商家转账",
        amount=-kept["transfer_amount"],
        note=kept["transfer_remark"],
        voucher=kept["out_bill_no"],
    )


def _of_row(row: Row) -> list[Movement]:
    """Return what a trade does to the basic account, line by line."""
    ref = row.transaction_id if row.state == "SUCCESS" else row.refund_id
    return [
        Movement(row.time, ref, name, amount, row.title, row.own_number)
        for name, amount in movements(row)
    ]

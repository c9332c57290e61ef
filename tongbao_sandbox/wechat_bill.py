"""WeChat Pay's bills, made from the sandbox's own trades in the real file format.

A trade bill of a business day of China is ready at nine the next morning. Its rows are fixed the
first time anybody asks for the day, so every download of a day tells the same, faults included.
"""

from __future__ import annotations

import gzip
import hashlib
import secrets
from collections.abc import Callable, Sequence
from datetime import date, datetime, time, timedelta
from typing import Any, Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from tongbao.kernel.clock import business_date
from tongbao.kernel.money import share_half_up
from tongbao_sandbox import early_bills, late_rows, magic
from tongbao_sandbox.clock import CHINA, plain
from tongbao_sandbox.model import Refund, Trade
from tongbao_sandbox.wechat_desk import NAME, Desk, trade_type
from tongbao_sandbox.wechat_wire import Call, Outcome, Problem, at, parameter_error

FEE_PPM: Final = 6000
READY_AT: Final = time(9)
KEPT_FOR: Final = timedelta(days=92)
LINK_FOR: Final = timedelta(minutes=5)

_HEAD: Final = (
    "交易时间,公众账号ID,商户号,特约商户号,设备号,微信订单号,商户订单号,用户标识,交易类型,"
    "交易状态,付款银行,货币种类,应结订单金额,代金券金额"
)
_REFUND: Final = "微信退款单号,商户退款单号,退款金额,充值券退款金额,退款类型,退款状态"
HEADERS: Final = {
    "ALL": f"{_HEAD},{_REFUND},商品名称,商户数据包,手续费,费率,订单金额,申请退款金额,费率备注",
    "SUCCESS": f"{_HEAD},商品名称,商户数据包,手续费,费率,订单金额,费率备注",
    "REFUND": f"{_HEAD},退款申请时间,退款成功时间,{_REFUND},商品名称,商户数据包,手续费,费率,"
    "订单金额,申请退款金额,费率备注",
}
_SUMMARY: Final = (
    "总交易单数,应结订单总金额,退款总金额,充值券退款总金额,手续费总金额,订单总金额,申请退款总金额"
)
SUMMARIES: Final = {
    "ALL": _SUMMARY,
    "SUCCESS": "总交易单数,应结订单总金额,手续费总金额,订单总金额",
    "REFUND": _SUMMARY,
}
_REFUND_WORDS: Final = {
    "processing": "PROCESSING",
    "done": "SUCCESS",
    "abnormal": "CHANGE",
    "closed": "FAIL",
}
_ROW_FAULTS: Final = frozenset({"drop_row", "late_row", "wrong_amount", "wrong_fee"})


class Row(Struct, frozen=True, kw_only=True):
    """One line of a trade bill; money in fen, the fee as the bill's sign has it."""

    state: str  # SUCCESS | REFUND | REVOKED
    time: str
    device: str
    transaction_id: str
    number: str
    sub_mchid: str = "0"
    payer: str
    trade_type: str
    currency: str
    amount: int = 0
    refund_id: str = "0"
    refund_number: str = "0"
    refund: int = 0
    refund_state: str = ""
    refund_done: str = ""
    title: str
    attach: str
    fee: int

    @property
    def own_number(self) -> str:
        """The number by which a fault names this row."""
        return self.number if self.state == "SUCCESS" else self.refund_number


class Bills:
    """Answers the bill calls."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._world = desk.world

    # Calls --------------------------------------------------------------------------------

    def trade_bill(self, call: Call) -> Outcome:
        """Offer the trade bill of a day for download."""
        day = self.day(call)
        kind = call.query.get("bill_type", "ALL")
        if kind not in HEADERS:
            raise parameter_error("bill_type", kind, "账单类型不存在", "query")
        merchant = call.query.get("sub_mchid", "")
        rows = [
            row
            for row in self.rows(day)
            if (kind in {"ALL", row.state} or _gives_back(kind, row))
            and merchant in {"", row.sub_mchid}
        ]
        if not rows:
            raise Problem(400, "NO_STATEMENT_EXIST", "账单文件不存在")
        return self.offer(call, self._render(kind, rows))

    def download(self, call: Call) -> Outcome:
        """Hand out the file behind a link, unsigned."""
        kept = self._world.state.document(NAME, f"download:{call.query.get('token', '')}")
        if kept is None or self._world.clock.now() > kept[1] + LINK_FOR:
            raise Problem(404, "RESOURCE_NOT_EXISTS", "账单下载地址无效或已过期")
        content = kept[0]
        zipped = content.startswith(b"\x1f\x8b")
        return Outcome(
            content, media="application/x-gzip" if zipped else "text/plain; charset=utf-8"
        )

    def make(self, day: date) -> dict[str, Any]:
        """Fix the day's rows now, and give them out before their time; for the control API."""
        self.forget(day)
        early_bills.mark(self._world, NAME, day)
        return {"day": str(day), "rows": len(self.rows(day))}

    def forget(self, day: date) -> dict[str, Any]:
        """Make the day's rows anew at the next request; for the control API."""
        self._world.state.put_document(NAME, f"rows:{day}", b"", self._world.clock.now())
        return {}

    # Days and links -------------------------------------------------------------------------

    def day(self, call: Call) -> date:
        """Return the day a bill is asked for, or refuse: too early, too late, no day."""
        text = call.query.get("bill_date", "")
        try:
            day = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=CHINA).date()
        except ValueError:
            raise parameter_error("bill_date", text, "日期格式应为yyyy-MM-dd", "query") from None
        if call.query.get("tar_type", "GZIP") != "GZIP":
            raise parameter_error("tar_type", call.query["tar_type"], "压缩格式不支持", "query")
        now = self._world.clock.now()
        if early_bills.is_early(self._world, NAME, day):
            return day
        if day >= business_date(now):
            raise parameter_error("bill_date", text, "不能查询当日或未来的账单", "query")
        if now - datetime.combine(day, time(), CHINA) > KEPT_FOR:
            raise parameter_error("bill_date", text, "仅支持查询三个月内的账单", "query")
        ready = datetime.combine(day + timedelta(days=1), READY_AT, CHINA)
        late = self._world.faults.take(NAME, "bill", "", frozenset({"late"}))
        if now < ready or late.name:
            raise Problem(400, "STATEMENT_CREATING", "账单生成中，请稍后再试")
        return day

    def offer(self, call: Call, content: bytes) -> Outcome:
        """Keep a file and answer with its link and digest."""
        digest = hashlib.sha1(content).hexdigest()  # noqa: S324 - the protocol's own choice
        fault = self._world.faults.take(NAME, "bill", "", frozenset({"truncate"}))
        if fault.name:
            content = content[: len(content) * 3 // 5]
            if fault.argument == "hashed":
                digest = hashlib.sha1(content).hexdigest()  # noqa: S324
        if call.query.get("tar_type") == "GZIP":
            content = gzip.compress(content, mtime=0)
        return Outcome(self._kept(call, content, digest))

    def offer_sealed(self, call: Call, content: bytes) -> dict[str, str]:
        """Keep a file that only its merchant can open, and return its link, digest and key."""
        digest = hashlib.sha1(content).hexdigest()  # noqa: S324 - the protocol's own choice
        fault = self._world.faults.take(NAME, "bill", "", frozenset({"truncate"}))
        if call.query.get("tar_type") == "GZIP":
            content = gzip.compress(content, mtime=0)
        sealed, key, nonce = self._desk.vault.seal_file(content, call.query["algorithm"])
        if fault.name:
            sealed = sealed[: len(sealed) * 3 // 5]
        return {**self._kept(call, sealed, digest), "encrypt_key": key, "nonce": nonce}

    def _kept(self, call: Call, content: bytes, digest: str) -> dict[str, str]:
        token = secrets.token_urlsafe(48)
        self._world.state.put_document(NAME, f"download:{token}", content, self._world.clock.now())
        return {
            "download_url": f"{call.origin}/v3/billdownload/file?token={token}",
            "hash_type": "SHA1",
            "hash_value": digest,
        }

    def all_rows(self) -> list[Row]:
        """Return every payment and refund there ever was, without planted differences."""
        rows = [self._payment(trade) for trade in self._world.state.trades(NAME) if trade.paid_at]
        return rows + [self._refund(refund) for refund in self._world.state.refunds(NAME)]

    def true_rows(self, day: date) -> list[Row]:
        """Return a day's payments and refunds by time, without planted differences."""
        rows = [self._payment(trade) for trade in self._world.state.trades_paid_on(NAME, day)]
        rows += map(self._refund, self._world.state.refunds_asked_on(NAME, day))
        return sorted(rows, key=lambda row: row.time)

    # Rows -----------------------------------------------------------------------------------

    def rows(self, day: date) -> list[Row]:
        """Return the trades of a day as its bills tell them."""
        late = late_rows.left_over(self._world, NAME, day, Row)
        return [*late, *self._rows_of(day)]

    def _rows_of(self, day: date) -> list[Row]:
        """Return what the day's bill tells of this very day."""
        kept = self._world.state.document(NAME, f"rows:{day}")
        if kept is not None and kept[0]:
            return msgspec.json.decode(kept[0], type=list[Row])
        rows = self.true_rows(day)
        if not rows:
            return []
        rows = self._misreport(day, rows)
        self._world.state.put_document(
            NAME, f"rows:{day}", msgspec.json.encode(rows), self._world.clock.now()
        )
        return rows

    def _misreport(self, day: date, rows: Sequence[Row]) -> list[Row]:
        """Plant the scripted differences."""
        told: list[Row] = []
        late: list[Row] = []
        for row in rows:
            amount = row.amount or row.refund
            fault = magic.fault_of(
                self._world, NAME, "bill", row.own_number, amount, only=_ROW_FAULTS
            )
            delta = int(fault.argument or 1)
            if fault.name == "wrong_amount" and row.state == "SUCCESS":
                told.append(replace(row, amount=row.amount + delta))
            elif fault.name == "wrong_amount":
                told.append(replace(row, refund=row.refund + delta))
            elif fault.name == "wrong_fee":
                told.append(replace(row, fee=row.fee + delta))
            elif fault.name == "late_row":
                late.append(row)
            elif fault.name != "drop_row":
                told.append(row)
        late_rows.put_off(self._world, NAME, day, late)
        while True:
            fault = self._world.faults.take(NAME, "bill", "", frozenset({"extra_row"}))
            if not fault.name:
                return told
            told.append(self._stranger(rows[-1], int(fault.argument or 100)))

    def _stranger(self, like: Row, amount: int) -> Row:
        """Return a payment of which the merchant knows nothing."""
        now = datetime.strptime(like.time, "%Y-%m-%d %H:%M:%S").replace(tzinfo=CHINA)
        return replace(
            like,
            state="SUCCESS",
            transaction_id=self._desk.transaction_id(now),
            number=f"sandboxextra{secrets.token_hex(7)}",
            amount=amount,
            refund_id="0",
            refund_number="0",
            refund=0,
            refund_state="",
            fee=self._fee(amount),
        )

    def _payment(self, trade: Trade) -> Row:
        return replace(
            self._row(trade, trade.paid_at or trade.created_at),
            amount=trade.amount,
            fee=self._fee(trade.amount),
        )

    def _refund(self, refund: Refund) -> Row:
        trade = self._world.state.trade(NAME, refund.trade_number)
        if trade is None:
            raise LookupError(refund.trade_number)
        returned = self._world.setting("wechat.refund_fee", "returned") == "returned"
        return replace(
            self._row(trade, refund.created_at),
            state="REVOKED" if refund.extra.get("reversal") else "REFUND",
            refund_id=refund.ref,
            refund_number=refund.number,
            refund=refund.amount,
            refund_state=_REFUND_WORDS[refund.state],
            refund_done="" if refund.done_at is None else plain(refund.done_at),
            fee=-self._fee(refund.amount) if returned else 0,
        )

    def _row(self, trade: Trade, moment: datetime) -> Row:
        return Row(
            state="SUCCESS",
            time=plain(moment),
            device=str(at(trade.extra, "/scene_info/device_id") or ""),
            transaction_id=trade.ref,
            number=trade.number,
            sub_mchid=trade.extra.get("sub_mchid", "0"),
            payer=trade.payer,
            trade_type=trade_type(trade),
            currency=trade.currency,
            title=trade.subject,
            attach=trade.extra.get("attach", ""),
            fee=0,
        )

    def _fee(self, amount: int) -> int:
        return share_half_up(amount, self._fee_ppm())

    def _fee_ppm(self) -> int:
        return int(self._world.setting("wechat.fee_ppm", FEE_PPM))

    # Files ----------------------------------------------------------------------------------

    def _render(self, kind: str, rows: Sequence[Row]) -> bytes:
        lines = [HEADERS[kind], *(line(self._cells(kind, row)) for row in rows), SUMMARIES[kind]]
        count, money, fee = self.figures()
        paid, refunded = sum(row.amount for row in rows), sum(row.refund for row in rows)
        figures = [count(len(rows)), money(paid)]
        if kind != "SUCCESS":
            figures += [money(refunded), money(0)]
        figures += [fee(sum(row.fee for row in rows)), money(paid)]
        if kind != "SUCCESS":
            figures.append(money(refunded))
        return file([*lines, line(figures)])

    def _cells(self, kind: str, row: Row) -> list[str]:
        rate = f"{self._fee_ppm() // 10000}.{self._fee_ppm() % 10000 // 100:02d}%"
        head = [row.time, self._desk.vault.appid, self._desk.vault.mchid, row.sub_mchid, row.device]
        head += [row.transaction_id, row.number, row.payer, row.trade_type, row.state]
        head += ["OTHERS", row.currency, yuan(row.amount), "0.00"]
        refund = [row.refund_id, row.refund_number, yuan(row.refund), "0.00"]
        refund += ["ORIGINAL" if row.state != "SUCCESS" else "", row.refund_state]
        tail = [row.title, row.attach, fee_text(row.fee), rate, yuan(row.amount)]
        if kind == "SUCCESS":
            return [*head, *tail, ""]
        times = [row.time, row.refund_done] if kind == "REFUND" else []
        return [*head, *times, *refund, *tail, yuan(row.refund), ""]

    def figures(self) -> tuple[Callable[[int], str], Callable[[int], str], Callable[[int], str]]:
        """Return how the summary writes a count, an amount and a fee.

        Real files of some merchants print the figures with as few decimals as they need.
        """
        if self._world.setting("wechat.bill_summary", "plain") == "trimmed":
            return (lambda count: f"{count}.0"), _trimmed, _trimmed
        return str, yuan, fee_text


def yuan(fen: int) -> str:
    """Return fen as the bill writes an amount: ``12.30``."""
    sign, whole = ("-" if fen < 0 else ""), abs(fen)
    return f"{sign}{whole // 100}.{whole % 100:02d}"


def fee_text(fen: int) -> str:
    """Return fen as the bill writes a fee: five decimals, ``0.01000``."""
    return f"{yuan(fen)}000"


def _trimmed(fen: int) -> str:
    text = yuan(fen)
    return text.removesuffix("0")


def _gives_back(kind: str, row: Row) -> bool:
    return kind == "REFUND" and row.state == "REVOKED"


def movements(row: Row) -> list[tuple[str, int]]:
    """Return what a row does to the basic account, line by line."""
    if row.state == "SUCCESS":
        lines = [("交易", row.amount), ("扣除交易手续费", -row.fee)]
    else:
        lines = [("退款", -row.refund), ("退还交易手续费", -row.fee)]
    return [(name, amount) for name, amount in lines if amount]


def line(cells: Sequence[str]) -> str:
    """Join cells as the real file does: a backtick before each, and no comma inside one."""
    safe = (cell.replace(",", "\\ ").replace("\r", " ").replace("\n", " ") for cell in cells)
    return ",".join(f"`{cell}" for cell in safe)


def file(lines: Sequence[str]) -> bytes:
    """Return the lines as a bill's file."""
    return ("\ufeff" + "".join(f"{line}\r\n" for line in lines)).encode()

"""The days of Alipay's bill: which rows a day has, when it is ready, and what is wrong with it."""

from __future__ import annotations

import secrets
from datetime import date, timedelta
from typing import Any, Final
from urllib.parse import parse_qs

from msgspec import structs

from tongbao.kernel.clock import business_date, day_bounds
from tongbao_sandbox import alipay_fund_bill, early_bills, late_rows, magic
from tongbao_sandbox.alipay_bill import FEE_PPM, Line, bill_zip, fee_of
from tongbao_sandbox.alipay_trade import NAME, logon_of
from tongbao_sandbox.alipay_wire import Ask, Refusal, success
from tongbao_sandbox.model import Fault, Refund, Trade
from tongbao_sandbox.seam import Reply, Request, World

DOWNLOAD_PATH: Final = "/downloadBillFile.resource"
READY_HOUR: Final = 9
"""The bill of a day is ready at this hour of the next one; ``alipay.bill_hour`` overrides."""
LINK_LIVES: Final = timedelta(seconds=30)
CALL_FAULTS: Final = frozenset({"late", "truncate"})
_ROW_FAULTS: Final = frozenset({"drop_row", "late_row", "wrong_amount", "wrong_fee"})


def download_url_query(world: World, ask: Ask, fault: Fault) -> dict[str, Any]:
    """Return a link to the day's bill (alipay.data.dataservice.bill.downloadurl.query)."""
    kind = ask.text("bill_type")
    if kind not in {"trade", "signcustomer"}:
        raise Refusal("40002", "isv.invalid-parameter", "无效参数：bill_type")
    try:
        day = date.fromisoformat(ask.text("bill_date"))
    except ValueError:
        raise Refusal("40002", "isv.invalid-parameter", "无效参数：bill_date") from None
    ready_at = day_bounds(day)[1] + timedelta(hours=world.setting("alipay.bill_hour", READY_HOUR))
    is_ready = world.clock.now() >= ready_at or early_bills.is_early(world, NAME, day)
    not_yet = not is_ready or fault.name == "late"
    seller = world.keys[NAME].shown["seller_id"]
    is_cut = fault.name == "truncate"
    content = b""
    if kind == "trade" and not not_yet and (lines := _lines(world, day)):
        content = bill_zip(seller, day, lines, ready_at, is_cut=is_cut)
    if kind == "signcustomer" and not not_yet:
        moves = alipay_fund_bill.moves_of(world, day, _true_lines(world, day))
        content = alipay_fund_bill.bill_zip(seller, day, moves, is_cut=is_cut) if moves else b""
    if not content:
        raise Refusal("40004", "isp.bill_not_exist", "账单不存在")
    token = f"{world.state.next_number('alipay.link'):016x}"
    world.state.put_document(NAME, f"link/{token}", content, world.clock.now())
    link = (
        f"{ask.origin}{DOWNLOAD_PATH}?bizType={kind}&userId={seller}&fileType=csv.zip"
        f"&bizDates={day:%Y%m%d}&downloadFileName={seller}0156_{day:%Y%m%d}.csv.zip&token={token}"
    )
    return success({"bill_download_url": link})


def download(world: World, request: Request) -> Reply:
    """Return the file behind a link, which is good for 30 seconds of the virtual clock."""
    token = parse_qs(request.query).get("token", [""])[0]
    found = world.state.document(NAME, f"link/{token}")
    if found is None or found[1] + LINK_LIVES < world.clock.now():
        return Reply(403, (("content-type", "text/html;charset=GBK"),), "链接已失效".encode("gbk"))
    return Reply(200, (("content-type", "application/octet-stream"),), found[0])


def make(world: World, day: str) -> dict[str, Any]:
    """Fix a day's rows now, and give them out before their time."""
    forget(world, day)
    early_bills.mark(world, NAME, date.fromisoformat(day))
    return {"day": day, "rows": len(_lines(world, date.fromisoformat(day)))}


def forget(world: World, day: str) -> dict[str, Any]:
    """Have a day's bill made anew when it is next asked for."""
    world.state.put_document(NAME, f"bill/{day}", b"", world.clock.now())
    return {"day": day}


def _lines(world: World, day: date) -> list[Line]:
    return late_rows.rows_of(world, NAME, day, _MAKING)


def _true_lines(world: World, day: date) -> list[Line]:
    paid = [_trade_line(world, trade) for trade in world.state.trades_paid_on(NAME, day)]
    start, end = day_bounds(day)
    back = [
        _refund_line(world, refund)
        for refund in world.state.refunds(NAME)
        if refund.state == "done" and refund.done_at and start <= refund.done_at < end
    ]
    return sorted(paid + back, key=lambda line: line.done_at)


def _trade_line(world: World, trade: Trade) -> Line:
    return Line(
        trade_no=trade.ref,
        number=trade.number,
        is_refund=False,
        subject=trade.subject,
        created_at=trade.created_at,
        done_at=trade.paid_at or trade.created_at,
        store=trade.extra.get("store_id", ""),
        buyer=f"*顾客({logon_of(trade.payer)})",
        amount=trade.amount,
        fee=_fee(world, trade.amount),
        note=trade.extra.get("body", ""),
    )


def _refund_line(world: World, refund: Refund) -> Line:
    trade = world.state.trade(NAME, refund.trade_number)
    if trade is None or refund.done_at is None:
        raise LookupError("a refund that is done has a trade and a time")
    returned = world.setting("alipay.refund_fee", "returned") == "returned"
    return structs.replace(
        _trade_line(world, trade),
        is_refund=True,
        done_at=refund.done_at,
        amount=-refund.amount,
        fee=-_fee(world, refund.amount) if returned else 0,
        request_number=refund.number,
        note=refund.reason,
    )


def _misreported(world: World, line: Line, late: list[Line]) -> list[Line]:
    """Return the row as the scripted fault leaves it: gone, changed, as it was, or put to late."""
    number = line.request_number or line.number
    fault = magic.fault_of(world, NAME, "bill", number, abs(line.amount), only=_ROW_FAULTS)
    delta = int(fault.argument or 1)
    if fault.name == "late_row":
        late.append(line)
    if fault.name in {"drop_row", "late_row"}:
        return []
    if fault.name == "wrong_amount":
        changed = line.amount - delta if line.is_refund else line.amount + delta
        return [structs.replace(line, amount=changed)]
    if fault.name == "wrong_fee":
        return [structs.replace(line, fee=line.fee + delta)]
    return [line]


def _stranger(world: World, like: Line, amount: int) -> Line:
    """Return a payment of which the merchant knows nothing."""
    serial = world.state.next_number("alipay.trade")
    return structs.replace(
        like,
        trade_no=f"{business_date(like.done_at):%Y%m%d}22001{serial:015d}",
        number=f"sandboxextra{secrets.token_hex(7)}",
        is_refund=False,
        amount=amount,
        fee=_fee(world, amount),
        request_number="",
    )


def _fee(world: World, amount: int) -> int:
    return fee_of(amount, int(world.setting("alipay.fee_ppm", FEE_PPM)))


_MAKING: Final = late_rows.Making(Line, _true_lines, _misreported, _stranger)

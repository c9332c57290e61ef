"""The files of UnionPay's settlement days: which rows a day has, and what is wrong with them."""

from __future__ import annotations

import secrets
import zlib
from base64 import b64encode
from datetime import date, timedelta
from typing import Any, Final

import msgspec
from msgspec import structs

from tongbao.kernel.clock import business_date, day_bounds
from tongbao_sandbox import early_bills, late_rows, magic
from tongbao_sandbox.model import Fault, Refund, Trade
from tongbao_sandbox.seam import World
from tongbao_sandbox.unionpay_bill import FEE_PPM, Difference, Line, bill_zip, fee_of
from tongbao_sandbox.unionpay_crypto import NAME
from tongbao_sandbox.unionpay_wire import Ask, Refusal

READY_HOUR: Final = 9
"""A day's file is ready at this hour of the next one; ``unionpay.bill_hour`` overrides."""
CALL_FAULTS: Final = frozenset({"late", "truncate"})
_ROW_FAULTS: Final = frozenset({"drop_row", "late_row", "wrong_amount", "wrong_fee"})
_MOVES: Final = frozenset({"01", "03", "13", "31", "33"})
_UNDOES: Final = frozenset({"31", "33"})


def file_of(world: World, ask: Ask, fault: Fault) -> dict[str, str]:
    """Return the file of a settlement day, which is named without its year: the latest such day.

    Raises:
        Refusal
    """
    if ask.kind != ("76", "01") or ask.text("fileType") != "00":
        raise Refusal("32")
    day = _latest(ask.text("settleDate"), business_date(world.clock.now()))
    ready_at = day_bounds(day)[1] + timedelta(hours=world.setting("unionpay.bill_hour", READY_HOUR))
    is_ready = world.clock.now() >= ready_at or early_bills.is_early(world, NAME, day)
    is_late = not is_ready or fault.name == "late"
    lines = [] if is_late else _lines(world, day)
    if not lines:
        raise Refusal("98")
    merchant = world.keys[NAME].shown["mer_id"]
    packed = zlib.compress(bill_zip(merchant, day, lines, _differences(world, day)))
    if fault.name == "truncate":
        packed = packed[: len(packed) // 2]
    return {
        "fileName": f"{merchant}_{day:%Y%m%d}.zip",
        "fileContent": b64encode(packed).decode(),
    }


def make(world: World, day: str) -> dict[str, Any]:
    """Fix a day's rows now, and give them out before their time."""
    forget(world, day)
    early_bills.mark(world, NAME, date.fromisoformat(day))
    return {"day": day, "rows": len(_lines(world, date.fromisoformat(day)))}


def forget(world: World, day: str) -> dict[str, Any]:
    """Have a day's file made anew when it is next asked for."""
    world.state.put_document(NAME, f"bill/{day}", b"", world.clock.now())
    return {"day": day}


def add_difference(world: World, body: dict[str, Any]) -> dict[str, Any]:
    """Put a charge-back of a transaction into a day's list of differences."""
    trade = world.state.trade(NAME, body["number"])
    if trade is None or trade.paid_at is None:
        raise ValueError("no paid transaction has this number")
    day = body["day"]
    found = world.state.document(NAME, f"differences/{day}")
    kept = msgspec.json.decode(found[0], type=list[Difference]) if found else []
    amount = int(body.get("amount", trade.amount))
    kept.append(Difference(body.get("code", "E23"), trade.ref, trade.payer, trade.paid_at, amount))
    world.state.put_document(
        NAME, f"differences/{day}", msgspec.json.encode(kept), world.clock.now()
    )
    return {"day": day, "count": len(kept)}


def _latest(month_and_day: str, today: date) -> date:
    for year in (today.year, today.year - 1):
        try:
            day = date.fromisoformat(f"{year}{month_and_day}")
        except ValueError:
            raise Refusal("10") from None
        if day <= today:
            return day
    raise Refusal("98")


def _differences(world: World, day: date) -> list[Difference]:
    found = world.state.document(NAME, f"differences/{day}")
    return msgspec.json.decode(found[0], type=list[Difference]) if found else []


def _lines(world: World, day: date) -> list[Line]:
    return late_rows.rows_of(world, NAME, day, _MAKING)


def _true_lines(world: World, day: date) -> list[Line]:
    moved = [
        _trade_line(world, trade)
        for trade in world.state.trades_paid_on(NAME, day)
        if trade.extra["asked"]["txnType"] in _MOVES
    ]
    start, end = day_bounds(day)
    back = [
        _refund_line(world, refund)
        for refund in world.state.refunds(NAME)
        if refund.state == "done" and refund.done_at and start <= refund.done_at < end
    ]
    return sorted(moved + back, key=lambda line: line.done_at)


def _trade_line(world: World, trade: Trade) -> Line:
    asked = trade.extra["asked"]
    is_undoing = asked["txnType"] in _UNDOES
    origin = world.state.trade(NAME, trade.extra["origin"]) if "origin" in trade.extra else None
    return Line(
        kind=asked["txnType"],
        subtype=asked["txnSubType"],
        product=asked["bizType"],
        number=trade.number,
        ref=trade.ref,
        account=trade.payer,
        done_at=trade.paid_at or trade.created_at,
        amount=trade.amount,
        fee=-_fee(world, trade.amount) if is_undoing else _fee(world, trade.amount),
        origin_number=origin.number if origin else "",
        origin_ref=origin.ref if origin else "",
        shop=trade.subject,
    )


def _refund_line(world: World, refund: Refund) -> Line:
    trade = world.state.trade(NAME, refund.trade_number)
    if trade is None or refund.done_at is None:
        raise LookupError("a refund that is done has a trade and a time")
    returned = world.setting("unionpay.refund_fee", "returned") == "returned"
    return structs.replace(
        _trade_line(world, trade),
        kind="04",
        subtype="00",
        number=refund.number,
        ref=refund.ref,
        done_at=refund.done_at,
        amount=refund.amount,
        fee=-_fee(world, refund.amount) if returned else 0,
        origin_number=trade.number,
        origin_ref=trade.ref,
    )


def _misreported(world: World, line: Line, late: list[Line]) -> list[Line]:
    """Return the row as the scripted fault leaves it: gone, changed, as it was, or put to late."""
    fault = magic.fault_of(world, NAME, "bill", line.number, line.amount, only=_ROW_FAULTS)
    delta = int(fault.argument or 1)
    if fault.name == "late_row":
        late.append(line)
    if fault.name in {"drop_row", "late_row"}:
        return []
    if fault.name == "wrong_amount":
        return [structs.replace(line, amount=line.amount + delta)]
    if fault.name == "wrong_fee":
        return [structs.replace(line, fee=line.fee + delta)]
    return [line]


def _stranger(world: World, like: Line, amount: int) -> Line:
    """Return a payment of which the merchant knows nothing."""
    return structs.replace(
        like,
        kind="01",
        subtype="01",
        number=f"sandboxextra{secrets.token_hex(7)}",
        ref=f"{business_date(like.done_at):%y%m%d}{secrets.randbelow(10**15):015d}",
        amount=amount,
        fee=_fee(world, amount),
        origin_number="",
        origin_ref="",
    )


def _fee(world: World, amount: int) -> int:
    return fee_of(amount, int(world.setting("unionpay.fee_ppm", FEE_PPM)))


_MAKING: Final = late_rows.Making(Line, _true_lines, _misreported, _stranger)

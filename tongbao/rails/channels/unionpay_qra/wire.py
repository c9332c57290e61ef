"""Qra's fields: what each call asks, and what each answer says about the money.

Amounts are fen; times are China's, ``yyyyMMddHHmmss``.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from tongbao.kernel.clock import BUSINESS_ZONE
from tongbao.kernel.money import Money
from tongbao.rails.channels.contract.orders import ChannelAccount, PayOrder, RefundOrder
from tongbao.rails.channels.contract.outcomes import (
    Absent,
    Closed,
    Declined,
    Pending,
    Succeeded,
    Unknown,
)

CURRENCY: Final = "CNY"

_TIME: Final = "%Y%m%d%H%M%S"
_SUBJECT_MAX: Final = 32
_WIDE: Final = str.maketrans("/=&<>", "／＝＆＜＞")
_AMOUNT_DIGITS_MAX: Final = 12
_REFUNDS_MAX: Final = 50


def order_fields(account: ChannelAccount, order: PayOrder) -> dict[str, str]:
    """Return what asks for money, by a code to show or by the one a customer shows."""
    fields = {
        "out_trade_no": order.number,
        "body": order.subject[:_SUBJECT_MAX].translate(_WIDE) or order.number,
        "total_fee": str(order.money.amount),
        "mch_create_ip": order.client_ip,
        "time_expire": order.expires_at.astimezone(BUSINESS_ZONE).strftime(_TIME),
    }
    if order.auth_code:
        return {**fields, "auth_code": order.auth_code}
    return {**fields, "notify_url": account.notify_url}


def refund_fields(account: ChannelAccount, refund: RefundOrder) -> dict[str, str]:
    """Return what asks for a refund; its number makes repeats harmless."""
    return {
        "out_trade_no": refund.order_number,
        "out_refund_no": refund.number,
        "total_fee": str(refund.order_money.amount),
        "refund_fee": str(refund.money.amount),
        "op_user_id": account.merchant_number,
    }


def differs(fields: Mapping[str, str], **asked: str) -> str | None:
    """Return what in an answer contradicts what was asked, or None; all of it must be there."""
    for name, value in asked.items():
        if fields.get(name) != value:
            return f"{name} is {fields.get(name, 'missing')[:40]}, asked for {value}"
    return None


def paid(fields: Mapping[str, str], order: PayOrder, now: datetime) -> Succeeded | Unknown:
    """Return the success that an answer about this order stands for."""
    number, amount = order.number, str(order.money.amount)
    if difference := differs(fields, out_trade_no=number, total_fee=amount):
        return Unknown(f"contradiction: {difference}")
    return moved(fields, now)


def moved(fields: Mapping[str, str], now: datetime) -> Succeeded | Unknown:
    """Return the success that fields stand for; ``now`` dates one that is not dated."""
    money, ref = fen(fields, "total_fee"), fields.get("transaction_id", "")
    if money is None or not ref:
        return Unknown("a success without number or amount")
    payer = fields.get("openid") or fields.get("sub_openid") or None
    return Succeeded(ref, money, moment(fields.get("time_end", "")) or now, payer)


def stands(
    fields: Mapping[str, str], order: PayOrder, now: datetime
) -> Succeeded | Pending | Declined | Closed | Unknown:
    """Return what an order's state says about the money."""
    if difference := differs(fields, out_trade_no=order.number):
        return Unknown(f"contradiction: {difference}")
    match state := fields.get("trade_state", ""):
        case "SUCCESS" | "REFUND":
            return paid(fields, order, now)
        case "NOTPAY" | "USERPAYING":
            return Pending(reason=state)
        case "CLOSED" | "REVERSE" | "REVOK" | "REVOKED":
            return Closed(state)
        case "PAYERROR":
            return Declined(state, fields.get("trade_state_desc", "")[:128])
        case _:
            return Unknown(f"trade_state {state[:32] or 'missing'}")


def refund_stands(
    fields: Mapping[str, str], refund: RefundOrder, now: datetime
) -> Succeeded | Pending | Declined | Absent | Unknown:
    """Return what became of a refund, which is one of a numbered list."""
    number = refund.number
    places = [at for at in range(_REFUNDS_MAX) if fields.get(f"out_refund_no_{at}") == number]
    if not places:
        return Absent("NO_REFUND")
    [at, *more] = places
    told = {name: fields.get(f"{name}_{at}", "") for name in _OF_A_REFUND}
    if more or told["refund_fee"] != str(refund.money.amount):
        return Unknown(f"contradiction: refund_fee is {told['refund_fee'][:20]}")
    match state := told["refund_status"]:
        case "SUCCESS":
            ref = told["refund_id"] or refund.number
            return Succeeded(ref, refund.money, moment(told["refund_time"]) or now)
        case "PROCESSING":
            return Pending(reason=state)
        case "FAIL":
            return Declined(state)
        case _:  # NOTSURE and CHANGE are for people
            return Unknown(f"refund_status {state[:32] or 'missing'}")


_OF_A_REFUND: Final = ("refund_fee", "refund_status", "refund_id", "refund_time")


def fen(fields: Mapping[str, str], name: str) -> Money | None:
    """Return an amount, or None when it is none in yuan."""
    text = fields.get(name, "")
    is_amount = text.isascii() and text.isdigit() and len(text) <= _AMOUNT_DIGITS_MAX
    if not is_amount or fields.get("fee_type", CURRENCY) != CURRENCY:
        return None
    return Money(int(text), CURRENCY)


def moment(text: str) -> datetime | None:
    """Return a time, or None."""
    try:
        return datetime.strptime(text, _TIME).replace(tzinfo=BUSINESS_ZONE)
    except ValueError:
        return None

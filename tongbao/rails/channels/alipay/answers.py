"""Read Alipay's answers: from the signed node of a reply to an outcome of the contract."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Final, TypeVar, assert_never

from tongbao.rails.channels.alipay.gateway import Answered, Refused
from tongbao.rails.channels.alipay.wire import (
    Created,
    Precreated,
    Refunded,
    RefundFound,
    Trade,
    Undone,
    found_differs,
    moment,
    paid,
    trade_differs,
    trade_outcome,
    yuan,
)
from tongbao.rails.channels.contract.bills import BillEmpty, BillNotReady
from tongbao.rails.channels.contract.orders import PayOrder, RefundOrder
from tongbao.rails.channels.contract.outcomes import (
    Absent,
    Closed,
    Declined,
    NotSent,
    OpenApp,
    Pending,
    ShowQr,
    Succeeded,
    Unknown,
)
from tongbao.rails.channels.error_map import Call, Entry, error_map
from tongbao.rails.channels.exchange import decode

_ERRORS: Final = error_map("alipay")
T = TypeVar("T")


def read_or_absent(
    heard: Answered | Refused | NotSent | Unknown, call: Call, read: Callable[[bytes], T]
) -> T | Absent | Unknown:
    """Return what ``read`` makes of the answer to a question, or why nothing can be said.

    `Absent` only where the error map says that there is no such thing.
    """
    match heard:
        case Answered():
            return read(heard.node)
        case Refused():
            if _ERRORS.find(call, heard.sub_code, heard.code).meaning == "absent":
                return Absent(heard.shown_code)
            return Unknown(f"{call} refused: {heard.shown_code}")
        case NotSent() | Unknown():
            return Unknown(heard.reason)
        case _:
            assert_never(heard)


def offered(node: bytes, order: PayOrder) -> Pending | Unknown:
    """Return what a precreate answer offers: a code to draw, or nothing to rely on."""
    answer = decode(node, Precreated)
    if answer is None or not answer.qr_code:
        return Unknown("the answer holds no qr_code")
    if answer.out_trade_no != order.number:
        return Unknown("contradiction: the code is for another order")
    return Pending(ShowQr(answer.qr_code))


def opened(node: bytes, order: PayOrder) -> Pending | Unknown:
    """Return what a create answer offers: a trade for the buyer to pay in Alipay's own page."""
    answer = decode(node, Created)
    if answer is None or not answer.trade_no:
        return Unknown("the answer holds no trade_no")
    if answer.out_trade_no != order.number:
        return Unknown("contradiction: the trade is of another order")
    return Pending(action=OpenApp({"tradeNO": answer.trade_no}))


def charged(node: bytes, order: PayOrder) -> Succeeded | Unknown:
    """Return what charging a payment code came to."""
    trade = decode(node, Trade)
    if trade is None:
        return Unknown("the answer is no trade")
    if difference := trade_differs(trade, order):
        return Unknown(f"contradiction: {difference}")
    return paid(trade)


def traded(node: bytes, order: PayOrder) -> Succeeded | Pending | Closed | Unknown:
    """Return how a trade stands, when the answer speaks of our order."""
    trade = decode(node, Trade)
    if trade is None:
        return Unknown("the answer is no trade")
    if difference := trade_differs(trade, order):
        return Unknown(f"contradiction: {difference}")
    return trade_outcome(trade)


def undone(node: bytes, order: PayOrder, *, cancelled: bool) -> Closed | Absent | Unknown:
    """Return what closing or cancelling came to; a cancel without an action found no trade."""
    answer = decode(node, Undone)
    if answer is None or answer.out_trade_no not in {"", order.number}:
        return Unknown("the answer does not name the order")
    if answer.retry_flag == "Y":
        return Unknown("Alipay asks to cancel again")
    if cancelled and not answer.action:
        return Absent("NO_TRADE")
    return Closed(answer.action or "TRADE_CLOSED")


def refunded(node: bytes, refund: RefundOrder) -> Succeeded | Unknown | None:
    """Return what the answer decides, or None when it only a query can tell."""
    answer = decode(node, Refunded)
    if answer is None:
        return Unknown("the answer is no refund")
    if answer.out_trade_no != refund.order_number:
        return Unknown("contradiction: the refund is of another order")
    at = moment(answer.gmt_refund_pay)
    if answer.fund_change != "Y" or at is None:
        return None
    total = yuan(answer.refund_fee)
    if total is None or not refund.money <= total <= refund.order_money:
        return Unknown(f"contradiction: refund_fee is {answer.refund_fee[:32]}")
    return Succeeded(answer.trade_no or refund.order_number, refund.money, at)


def found(
    node: bytes, refund: RefundOrder, now: datetime
) -> Succeeded | Pending | Absent | Unknown:
    """Return how a refund stands, when the answer speaks of ours."""
    answer = decode(node, RefundFound)
    if answer is None:
        return Unknown("the answer is no refund")
    if difference := found_differs(answer, refund):
        return Unknown(f"contradiction: {difference}")
    if not answer.refund_amount:
        return Absent("NO_REFUND")
    match answer.refund_status:
        case "REFUND_SUCCESS":
            # Without its own time the refund is dated by the answer that proves it.
            at = moment(answer.gmt_refund_pay) or now
            return Succeeded(answer.trade_no or refund.order_number, refund.money, at)
        case "REFUND_PROCESSING":
            return Pending(reason="REFUND_PROCESSING")
        case status:
            return Unknown(f"refund_status {status[:32] or 'missing'}")


def meant(entry: Entry, refused: Refused) -> Pending | Declined | NotSent | Unknown:
    """Return the outcome that a refused call means by the error map."""
    match entry.meaning:
        case "declined":
            return Declined(
                refused.shown_code, refused.message, retry_elsewhere=entry.retry_elsewhere
            )
        case "not_sent":
            return NotSent(f"{refused.shown_code}: {refused.message}")
        case "pending":
            return Pending(reason=refused.shown_code)
        case _:
            return Unknown(f"{refused.shown_code}: {refused.message}")


def no_bill(refused: Refused) -> BillNotReady | BillEmpty | Unknown:
    """Return why there is no bill to download."""
    match _ERRORS.find("bill", refused.sub_code, refused.code).meaning:
        case "empty":
            return BillEmpty(refused.shown_code)
        case "not_ready":
            return BillNotReady(refused.shown_code)
        case _:
            return Unknown(f"{refused.shown_code}: {refused.message}")

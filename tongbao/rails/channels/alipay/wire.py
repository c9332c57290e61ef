"""Alipay's JSON documents, and what each of them says about the money.

Amounts are decimal yuan as text. A document is compared with what we asked before it is believed.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from msgspec import Struct

from tongbao.kernel.clock import BUSINESS_ZONE
from tongbao.kernel.errors import Refusal
from tongbao.kernel.money import Money, from_decimal_text
from tongbao.rails.channels.capabilities.shares import SplitReturn
from tongbao.rails.channels.contract.orders import PayMode, PayOrder, RefundOrder
from tongbao.rails.channels.contract.outcomes import Closed, Pending, Succeeded, Unknown

SUBJECT_MAX: Final = 128
REASON_MAX: Final = 256
CURRENCY: Final = "CNY"

PAGES: Final = {
    PayMode.WEB: ("alipay.trade.page.pay", "FAST_INSTANT_TRADE_PAY"),
    PayMode.H5: ("alipay.trade.wap.pay", "QUICK_WAP_WAY"),
    PayMode.APP: ("alipay.trade.app.pay", "QUICK_MSECURITY_PAY"),
}
"""What the customer brings to Alipay: the method and its product."""

_BUYER_ID_DIGITS: Final = 16
_TIME: Final = "%Y-%m-%d %H:%M:%S"
_WIDE: Final = str.maketrans("/=&", "／＝＆")


class Precreated(Struct, frozen=True):
    """The answer to ``alipay.trade.precreate``; no trade exists before the code is scanned."""

    out_trade_no: str
    qr_code: str


class Trade(Struct, frozen=True):
    """A trade in the answers of pay (no status: it is paid) and query."""

    out_trade_no: str
    total_amount: str
    trade_no: str = ""
    trade_status: str = ""
    buyer_pay_amount: str = ""
    gmt_payment: str = ""
    send_pay_date: str = ""
    buyer_user_id: str | None = None
    buyer_open_id: str | None = None

    @property
    def payer(self) -> str | None:
        """Alipay's id of the customer."""
        return self.buyer_open_id or self.buyer_user_id

    @property
    def paid_at(self) -> datetime | None:
        """When the money moved, which only a trade that was paid once knows."""
        return moment(self.gmt_payment or self.send_pay_date)


class Created(Struct, frozen=True):
    """The answer to ``alipay.trade.create``: an open trade of one buyer."""

    out_trade_no: str
    trade_no: str = ""


class Undone(Struct, frozen=True):
    """The answer to close and cancel. ``action`` is absent when there was no trade."""

    out_trade_no: str = ""
    retry_flag: str = "N"
    action: str = ""


class Refunded(Struct, frozen=True):
    """The answer to a refund. ``refund_fee`` is all that was ever given back of the trade."""

    out_trade_no: str
    trade_no: str = ""
    fund_change: str = ""
    refund_fee: str = ""
    gmt_refund_pay: str = ""


class RefundFound(Struct, frozen=True):
    """The answer to a refund query; for a number it never saw, the amount is missing."""

    out_trade_no: str = ""
    out_request_no: str = ""
    trade_no: str = ""
    refund_amount: str = ""
    total_amount: str = ""
    refund_status: str = ""
    gmt_refund_pay: str = ""


class BillAddress(Struct, frozen=True):
    """Where a bill lies for thirty seconds."""

    bill_download_url: str


def precreate_content(order: PayOrder) -> dict[str, Any]:
    """Return what asks for a code the customer scans."""
    return _basics(order)


def pay_content(order: PayOrder) -> dict[str, Any]:
    """Return what charges the code the customer shows."""
    return {
        **_basics(order),
        "scene": "bar_code",
        "auth_code": order.auth_code,
        "store_id": order.store_id,
    }


def agreement_pay_content(order: PayOrder) -> dict[str, Any]:
    """Return what charges a customer under an agreement.

    ``agreement_ref`` holds the product the agreement was signed for, a slash, and its number.
    """
    product, _, number = (order.agreement_ref or "").rpartition("/")
    return {
        **_basics(order),
        "product_code": product or "GENERAL_WITHHOLDING",
        "agreement_params": {"agreement_no": number},
    }


def create_content(order: PayOrder, app_id: str) -> dict[str, Any]:
    """Return what opens a trade for a buyer in a page or mini-program inside Alipay (JSAPI).

    A buyer is named by the old id of 16 digits, 2088 at first, or by an open id.
    """
    payer = order.payer_id or ""
    is_old = payer.startswith("2088") and len(payer) == _BUYER_ID_DIGITS and payer.isdecimal()
    return {
        **_basics(order),
        "product_code": "JSAPI_PAY",
        "op_app_id": order.app_id or app_id,
        ("buyer_id" if is_old else "buyer_open_id"): payer,
    }


def page_content(order: PayOrder) -> dict[str, Any]:
    """Return what a browser or an app brings to Alipay's own cashier."""
    content = {**_basics(order), "product_code": PAGES[order.mode][1]}
    if order.mode is PayMode.H5 and order.return_url:
        content["quit_url"] = order.return_url
    return content


def refund_content(refund: RefundOrder) -> dict[str, Any]:
    """Return what asks for a refund; ``out_request_no`` makes its repeats harmless."""
    content = {
        "out_trade_no": refund.order_number,
        "out_request_no": refund.number,
        "refund_amount": refund.money.decimal_text(),
    }
    if refund.reason:
        content["refund_reason"] = refund.reason[:REASON_MAX]
    return content


def refund_question(refund: RefundOrder) -> dict[str, Any]:
    """Return what asks about a refund."""
    return {
        "out_trade_no": refund.order_number,
        "out_request_no": refund.number,
        "query_options": ["gmt_refund_pay"],
    }


def share_back(back: SplitReturn, seller: str) -> dict[str, str]:
    """Return what takes a share back within a refund."""
    return {
        "royalty_type": "transfer",
        "trans_out": back.receiver.account,
        "trans_out_type": back.receiver.kind,
        "trans_in": seller,
        "trans_in_type": "userId",
        "amount": back.money.decimal_text(),
        "desc": back.reason[:REASON_MAX],
    }


def trade_differs(trade: Trade, order: PayOrder) -> str | None:
    """Return what in the answer contradicts the order, or None."""
    if trade.out_trade_no != order.number:
        return f"out_trade_no is {trade.out_trade_no[:64]}, asked for {order.number}"
    if yuan(trade.total_amount) != order.money:
        return f"total_amount is {trade.total_amount[:32]}, asked for {order.money.decimal_text()}"
    return None


def paid(trade: Trade) -> Succeeded | Unknown:
    """Return the success a paid trade stands for."""
    money, at = yuan(trade.total_amount), trade.paid_at
    if money is None or at is None or not trade.trade_no:
        return Unknown("a paid trade without number, amount or time")
    return Succeeded(trade.trade_no, money, at, trade.payer)


UNDONE: Final = Unknown("TRADE_CLOSED after it was paid: cancelled, or refunded in full")


def trade_outcome(trade: Trade) -> Succeeded | Pending | Closed | Unknown:
    """Return what a trade's status says about the money.

    A closed trade that knows when it was paid was paid and given back in full: never "unpaid". A
    cancellation, which we may have asked for, cannot be told from a refund: `UNDONE`.
    """
    match trade.trade_status:
        case "TRADE_SUCCESS" | "TRADE_FINISHED":
            return paid(trade)
        case "WAIT_BUYER_PAY":
            return Pending(reason="WAIT_BUYER_PAY")
        case "TRADE_CLOSED" if trade.paid_at is None and not _was_charged(trade):
            return Closed("TRADE_CLOSED")
        case "TRADE_CLOSED":
            return UNDONE
        case status:
            return Unknown(f"trade_status {status[:32]}")


def found_differs(found: RefundFound, refund: RefundOrder) -> str | None:
    """Return what in the answer contradicts the refund, or None."""
    if found.out_request_no not in {"", refund.number}:
        return f"out_request_no is {found.out_request_no[:64]}, asked for {refund.number}"
    if found.out_trade_no not in {"", refund.order_number}:
        return f"out_trade_no is {found.out_trade_no[:64]}, asked for {refund.order_number}"
    if found.refund_amount and yuan(found.refund_amount) != refund.money:
        return f"refund_amount is {found.refund_amount[:32]}"
    if found.total_amount and yuan(found.total_amount) != refund.order_money:
        return f"total_amount is {found.total_amount[:32]}"
    return None


def yuan(text: str) -> Money | None:
    """Return an amount, or None when the text is no exact one."""
    try:
        return from_decimal_text(text, CURRENCY)
    except Refusal:
        return None


def moment(text: str) -> datetime | None:
    """Return a time, which Alipay writes in China's zone, or None."""
    try:
        return datetime.strptime(text[:19], _TIME).replace(tzinfo=BUSINESS_ZONE)
    except ValueError:
        return None


def _was_charged(trade: Trade) -> bool:
    charged = yuan(trade.buyer_pay_amount or "0")
    return charged is None or charged.amount != 0


def _basics(order: PayOrder) -> dict[str, Any]:
    return {
        "out_trade_no": order.number,
        "total_amount": order.money.decimal_text(),
        "subject": _subject(order),
        "time_expire": _text(order.expires_at),
    }


def _subject(order: PayOrder) -> str:
    """Return the subject without what Alipay refuses in one.

    It comes back in the notification, whose signature is over ``name=value`` pairs that nothing
    escapes: who may write ``&total_amount=`` there could have them cut in another place.
    """
    return order.subject[:SUBJECT_MAX].translate(_WIDE) or order.number


def _text(at: datetime) -> str:
    return at.astimezone(BUSINESS_ZONE).strftime(_TIME)

"""What WeChat Pay's orders and refunds are asked for with, and what an answer says of the money.

A document is compared with what we asked before it is believed: another number, merchant, amount
or currency is a contradiction, which is `Unknown` with the reason, never a success.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from typing import Any, Final, Literal

import msgspec

from tongbao.kernel.money import Money
from tongbao.rails.channels.contract.orders import ChannelAccount, PayMode, PayOrder, RefundOrder
from tongbao.rails.channels.contract.outcomes import Closed, Declined, Pending, Succeeded, Unknown
from tongbao.rails.channels.wechat_pay.documents.orders import (
    H5Scene,
    OrderRequest,
    Refund,
    RefundAmount,
    RefundRequest,
    Scene,
    Settling,
    Store,
    Transaction,
)
from tongbao.rails.channels.wechat_pay.documents.parts import Amount, Document, Payer
from tongbao.rails.channels.wechat_pay.documents.transfers import TransferBill
from tongbao.rails.channels.wechat_pay.gateway import ids_of, secrets_of

STUCK: Final = "ABNORMAL: the customer's card or account cannot take the refund"
DESCRIPTION_MAX: Final = 127
REASON_MAX: Final = 80
CURRENCY: Final = "CNY"
"""What an amount is in when a document leaves its currency out."""
_CHINA: Final = timezone(timedelta(hours=8))


def order_request(account: ChannelAccount, order: PayOrder) -> OrderRequest:
    """Return the body that asks for a payment in the order's mode.

    A payment code's order is answered at once, so it has no callback address and no end.
    """
    ids = ids_of(account, order.app_id)
    by_code = order.mode is PayMode.PAYMENT_CODE
    return OrderRequest(
        appid=ids.appid,
        mchid=ids.mchid,
        sp_appid=ids.sp_appid,
        sp_mchid=ids.sp_mchid,
        sub_appid=ids.sub_appid,
        sub_mchid=ids.sub_mchid,
        description=order.subject[:DESCRIPTION_MAX] or order.number,
        out_trade_no=order.number,
        time_expire=None if by_code else china_time(order.expires_at),
        notify_url=None if by_code else account.notify_url,
        amount=Amount(total=order.money.amount, currency=order.money.currency),
        payer=_payer(account, order),
        scene_info=scene_of(order),
        settle_info=Settling(profit_sharing=True) if secrets_of(account).profit_sharing else None,
    )


def _payer(account: ChannelAccount, order: PayOrder) -> Payer | None:
    if order.mode is PayMode.PAYMENT_CODE:
        return Payer(auth_code=order.auth_code)
    if order.mode is not PayMode.IN_APP:
        return None
    if secrets_of(account).partner is None:
        return Payer(openid=order.payer_id)
    if ids_of(account, order.app_id).sub_appid:
        return Payer(sub_openid=order.payer_id)
    return Payer(sp_openid=order.payer_id)


def scene_of(order: PayOrder) -> Scene:
    """Return where the order is placed, as its product wants to know."""
    if order.mode is PayMode.PAYMENT_CODE:
        return Scene(device_ip=order.client_ip, store_info=Store(id=order.store_id))
    if order.mode is PayMode.H5:
        return Scene(payer_client_ip=order.client_ip, h5_info=H5Scene(type="Wap"))
    return Scene(payer_client_ip=order.client_ip)


def refund_request(account: ChannelAccount, refund: RefundOrder) -> RefundRequest:
    """Return the body that asks for a refund."""
    return RefundRequest(
        sub_mchid=ids_of(account).sub_mchid,
        out_trade_no=refund.order_number,
        out_refund_no=refund.number,
        reason=refund.reason[:REASON_MAX] or None,
        notify_url=account.notify_url,
        amount=RefundAmount(
            refund=refund.money.amount,
            total=refund.order_money.amount,
            currency=refund.money.currency,
        ),
    )


def order_differs(transaction: Transaction, account: ChannelAccount, order: PayOrder) -> str | None:
    """Return what in the answer contradicts the order, or None.

    The apps are compared where the answer names them; the merchants always.
    """
    ids = ids_of(account, order.app_id)
    facts: list[tuple[str, object, object]] = [
        ("out_trade_no", transaction.out_trade_no, order.number),
        ("mchid", transaction.mchid, ids.mchid),
        ("sp_mchid", transaction.sp_mchid, ids.sp_mchid),
        ("sub_mchid", transaction.sub_mchid, ids.sub_mchid),
    ]
    facts += [
        (name, said, getattr(ids, name))
        for name in ("appid", "sp_appid", "sub_appid")
        if (said := getattr(transaction, name))
    ]
    if (amount := transaction.amount) is not None:
        facts.append(("total", amount.total, order.money.amount))
        facts.append(("currency", amount.currency or CURRENCY, order.money.currency))
    return first_difference(facts)


def order_outcome(
    transaction: Transaction,
) -> Succeeded | Pending | Declined | Closed | Unknown:
    """Return what an order's state says about the money.

    ``REFUND`` says that it was paid and later given back, at least in part: paid, here.
    """
    match transaction.trade_state:
        case "SUCCESS" | "REFUND":
            return _paid(transaction)
        case "NOTPAY" | "USERPAYING" | "ACCEPT" | "ACCEPTED" as state:
            return Pending(reason=state)
        case "CLOSED" | "REVOKED" as state:
            return Closed(state)
        case "PAYERROR" | "PAY_FAIL" as state:
            return Declined(state, transaction.trade_state_desc or "", retry_elsewhere=True)
        case state:
            return Unknown(f"trade_state {(state or '')[:32]}")


def refund_differs(document: Refund, refund: RefundOrder) -> str | None:
    """Return what in the answer contradicts the refund, or None."""
    amount = document.amount or RefundAmount()
    return first_difference(
        [
            ("out_refund_no", document.out_refund_no, refund.number),
            ("out_trade_no", document.out_trade_no, refund.order_number),
            ("refund", amount.refund, refund.money.amount),
            ("total", amount.total, refund.order_money.amount),
            ("currency", amount.currency or CURRENCY, refund.money.currency),
        ]
    )


def refund_outcome(document: Refund) -> Succeeded | Pending | Declined | Unknown:
    """Return what a refund's state says: abnormal ones wait for a person, so they stay unknown."""
    match document.status or document.refund_status:
        case "SUCCESS":
            at, amount = moment(document.success_time), document.amount
            if at is None or not document.refund_id or amount is None or amount.refund is None:
                return Unknown("a successful refund without number, amount or time")
            return Succeeded(document.refund_id, yuan(amount.refund, amount.currency), at)
        case "PROCESSING":
            return Pending(reason="PROCESSING")
        case "CLOSED":
            return Declined("REFUND_CLOSED", "WeChat Pay closed the refund")
        case "ABNORMAL":
            return Unknown(STUCK)
        case state:
            return Unknown(f"refund status {(state or '')[:32]}")


def transfer_outcome(
    bill: TransferBill,
) -> Succeeded | Declined | Closed | Pending | Unknown:
    """Return what a payout's state says about the money, its action aside."""
    match bill.state:
        case "SUCCESS":
            at = moment(bill.update_time)
            if at is None or not bill.transfer_bill_no or bill.transfer_amount is None:
                return Unknown("a successful payout without number, amount or time")
            return Succeeded(bill.transfer_bill_no, yuan(bill.transfer_amount), at, bill.openid)
        case "FAIL":
            return Declined(bill.fail_reason or "FAIL")
        case "CANCELLED" as state:
            return Closed(state)
        case "ACCEPTED" | "PROCESSING" | "WAIT_USER_CONFIRM" | "TRANSFERING" | "CANCELING" as state:
            return Pending(reason=state)
        case other:
            return Unknown(f"state {(other or '')[:32]}")


def payer_of(payer: Payer | None) -> str | None:
    """Return the customer as the app the order came from knows them."""
    return (payer.openid or payer.sub_openid or payer.sp_openid) if payer else None


def yuan(fen: int, currency: str | None = None) -> Money:
    """Return an amount of a document; without a currency it is CNY."""
    return Money(fen, currency or CURRENCY)


def moment(text: str | None) -> datetime | None:
    """Return an RFC 3339 time, or None when the text is none with an offset."""
    try:
        at = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return at if at.tzinfo else None


def china_time(at: datetime) -> str:
    """Return a time as WeChat Pay wants it: RFC 3339 in China's zone, to the second."""
    return at.astimezone(_CHINA).isoformat(timespec="seconds")


def encode(body: Document | dict[str, Any]) -> bytes:
    """Return the JSON bytes that are signed and sent."""
    return msgspec.json.encode(body)


def first_difference(facts: Sequence[tuple[str, object, object]]) -> str | None:
    """Return the first fact that is not as asked, in words, or None."""
    for name, got, expected in facts:
        if got != expected:
            return f"{name} is {str(got)[:64]}, asked for {expected}"
    return None


def _paid(transaction: Transaction) -> Succeeded | Unknown:
    at, amount = moment(transaction.success_time), transaction.amount
    if at is None or not transaction.transaction_id or amount is None or amount.total is None:
        return Unknown("a paid order without number, amount or time")
    money = yuan(amount.total, amount.currency)
    payer, card = payer_of(transaction.payer), _card_of(transaction.bank_type)
    return Succeeded(transaction.transaction_id, money, at, payer, card)


def _card_of(bank_type: str | None) -> Literal["debit", "credit"] | None:
    """Return the kind of card: banks are named such as ``ICBC_DEBIT``, a balance ``OTHERS``."""
    if bank_type is None:
        return None
    if bank_type.endswith("_DEBIT"):
        return "debit"
    return "credit" if bank_type.endswith("_CREDIT") else None

"""WeChat Pay's JSON documents, and what each of them says about the money.

A document is compared with what we asked before it is believed: another number, merchant, amount
or currency is a contradiction, which is `Unknown` with the reason, never a success.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any, Final

import msgspec
from msgspec import Struct, field

from tongbao.kernel.money import Money
from tongbao.rails.channels.contract import (
    ChannelAccount,
    Closed,
    Declined,
    PayOrder,
    Pending,
    RefundOrder,
    Succeeded,
    Unknown,
)

DESCRIPTION_MAX: Final = 127
REASON_MAX: Final = 80
_CHINA: Final = timezone(timedelta(hours=8))


class Amount(Struct, frozen=True):
    """Amounts in fen. Refund callbacks leave the currency out; it is then CNY."""

    total: int
    currency: str = "CNY"
    refund: int | None = None


class Payer(Struct, frozen=True):
    """Who paid, as the merchant's app knows them."""

    openid: str | None = None


class Transaction(Struct, frozen=True):
    """An order as WeChat Pay shows it in answers and callbacks."""

    mchid: str
    out_trade_no: str
    trade_state: str
    appid: str | None = None
    transaction_id: str = ""
    trade_state_desc: str = ""
    success_time: str = ""
    payer: Payer = field(default_factory=Payer)
    amount: Amount | None = None


class Refund(Struct, frozen=True):
    """A refund in answers (``status``) and in callbacks (``refund_status`` and ``mchid``)."""

    out_refund_no: str
    out_trade_no: str
    amount: Amount
    refund_id: str = ""
    status: str = ""
    refund_status: str = ""
    success_time: str = ""
    mchid: str | None = None

    @property
    def state(self) -> str:
        """The refund's state, wherever it is written."""
        return self.status or self.refund_status


class CodeUrl(Struct, frozen=True):
    """The answer to a Native order."""

    code_url: str


class Reversed(Struct, frozen=True):
    """The answer to a reversal."""

    mchid: str
    out_trade_no: str


class BillAddress(Struct, frozen=True):
    """Where a bill lies for five minutes; the digest is over the unpacked file."""

    hash_type: str
    hash_value: str
    download_url: str


class Failure(Struct, frozen=True):
    """The body of a 4xx or 5xx."""

    code: str
    message: str = ""


class Envelope(Struct, frozen=True):
    """An encrypted resource of a callback or of the certificate list."""

    algorithm: str
    ciphertext: str
    nonce: str
    associated_data: str = ""
    original_type: str = ""


class Notification(Struct, frozen=True):
    """A callback around its encrypted resource."""

    id: str
    event_type: str
    resource: Envelope


class ListedCertificate(Struct, frozen=True):
    """One platform certificate, encrypted with the APIv3 key."""

    serial_no: str
    encrypt_certificate: Envelope


class CertificateList(Struct, frozen=True):
    """The answer of ``/v3/certificates``."""

    data: list[ListedCertificate]


def native_order(account: ChannelAccount, order: PayOrder) -> dict[str, Any]:
    """Return the body that asks for a code the customer scans."""
    return {
        "appid": account.app_id,
        "mchid": account.merchant_number,
        "description": _description(order),
        "out_trade_no": order.number,
        "time_expire": order.expires_at.astimezone(_CHINA).isoformat(timespec="seconds"),
        "notify_url": account.notify_url,
        "amount": {"total": order.money.amount, "currency": order.money.currency},
        "scene_info": {"payer_client_ip": order.client_ip},
    }


def code_order(account: ChannelAccount, order: PayOrder) -> dict[str, Any]:
    """Return the body that charges the code the customer shows."""
    return {
        "appid": account.app_id,
        "mchid": account.merchant_number,
        "description": _description(order),
        "out_trade_no": order.number,
        "payer": {"auth_code": order.auth_code},
        "amount": {"total": order.money.amount, "currency": order.money.currency},
        "scene_info": {"device_ip": order.client_ip, "store_info": {"id": order.store_id}},
    }


def refund_request(account: ChannelAccount, refund: RefundOrder) -> dict[str, Any]:
    """Return the body that asks for a refund."""
    body: dict[str, Any] = {
        "out_trade_no": refund.order_number,
        "out_refund_no": refund.number,
        "notify_url": account.notify_url,
        "amount": {
            "refund": refund.money.amount,
            "total": refund.order_money.amount,
            "currency": refund.money.currency,
        },
    }
    if refund.reason:
        body["reason"] = refund.reason[:REASON_MAX]
    return body


def order_differs(transaction: Transaction, account: ChannelAccount, order: PayOrder) -> str | None:
    """Return what in the answer contradicts the order, or None."""
    facts = [
        ("out_trade_no", transaction.out_trade_no, order.number),
        ("mchid", transaction.mchid, account.merchant_number),
    ]
    if transaction.appid is not None:
        facts.append(("appid", transaction.appid, account.app_id))
    if transaction.amount is not None:
        facts.append(("total", str(transaction.amount.total), str(order.money.amount)))
        facts.append(("currency", transaction.amount.currency, order.money.currency))
    return _first_difference(facts)


def order_outcome(
    transaction: Transaction,
) -> Succeeded | Pending | Declined | Closed | Unknown:
    """Return what an order's state says about the money.

    ``REFUND`` says that it was paid and later given back, at least in part: paid, here.
    """
    match transaction.trade_state:
        case "SUCCESS" | "REFUND":
            return _paid(transaction)
        case "NOTPAY" | "USERPAYING" | "ACCEPT":
            return Pending(reason=transaction.trade_state)
        case "CLOSED" | "REVOKED":
            return Closed(transaction.trade_state)
        case "PAYERROR":
            return Declined("PAYERROR", transaction.trade_state_desc, retry_elsewhere=True)
        case state:
            return Unknown(f"trade_state {state[:32]}")


def refund_differs(document: Refund, refund: RefundOrder) -> str | None:
    """Return what in the answer contradicts the refund, or None."""
    return _first_difference(
        [
            ("out_refund_no", document.out_refund_no, refund.number),
            ("out_trade_no", document.out_trade_no, refund.order_number),
            ("refund", str(document.amount.refund), str(refund.money.amount)),
            ("total", str(document.amount.total), str(refund.order_money.amount)),
            ("currency", document.amount.currency, refund.money.currency),
        ]
    )


def refund_outcome(document: Refund) -> Succeeded | Pending | Declined | Unknown:
    """Return what a refund's state says: abnormal ones wait for a person, so they stay unknown."""
    match document.state:
        case "SUCCESS":
            at = moment(document.success_time)
            if at is None or not document.refund_id or document.amount.refund is None:
                return Unknown("a successful refund without number, amount or time")
            money = Money(document.amount.refund, document.amount.currency)
            return Succeeded(document.refund_id, money, at)
        case "PROCESSING":
            return Pending(reason="PROCESSING")
        case "CLOSED":
            return Declined("REFUND_CLOSED", "WeChat Pay closed the refund")
        case "ABNORMAL":
            return Unknown("ABNORMAL: the customer's card or account cannot take the refund")
        case state:
            return Unknown(f"refund status {state[:32]}")


def moment(text: str) -> datetime | None:
    """Return an RFC 3339 time, or None when the text is none with an offset."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    return at if at.tzinfo else None


def encode(body: dict[str, Any]) -> bytes:
    """Return the JSON bytes that are signed and sent."""
    return msgspec.json.encode(body)


def _paid(transaction: Transaction) -> Succeeded | Unknown:
    at = moment(transaction.success_time)
    if at is None or not transaction.transaction_id or transaction.amount is None:
        return Unknown("a paid order without number, amount or time")
    money = Money(transaction.amount.total, transaction.amount.currency)
    return Succeeded(transaction.transaction_id, money, at, transaction.payer.openid)


def _description(order: PayOrder) -> str:
    return order.subject[:DESCRIPTION_MAX] or order.number


def _first_difference(facts: list[tuple[str, str, str]]) -> str | None:
    for name, got, expected in facts:
        if got != expected:
            return f"{name} is {got[:64]}, asked for {expected}"
    return None

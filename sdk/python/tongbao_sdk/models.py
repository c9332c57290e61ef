"""The shapes of what the API takes and gives, as TypedDicts: plain dicts with checked keys."""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict

Channel = Literal["wechat_pay", "alipay", "wallet"]
PayMode = Literal["qr", "payment_code"]
PaymentStatus = Literal["created", "pending", "unknown", "succeeded", "failed", "closed"]
RefundStatus = Literal["requested", "pending", "unknown", "succeeded", "failed"]


class Method(TypedDict):
    """How to collect. A payment code says by itself which channel it is of."""

    mode: PayMode
    channel: NotRequired[Channel]
    auth_code: NotRequired[str]


class NextAction(TypedDict):
    """Draw ``code_url`` as a QR code for the customer."""

    type: Literal["show_qr"]
    code_url: str


class Failure(TypedDict):
    """Why a payment failed, for the program and for the customer."""

    code: str
    message: str
    message_zh: str


class Payment(TypedDict):
    """One payment; amounts in minor units."""

    id: str
    object: Literal["payment"]
    mode: Literal["live", "sandbox"]
    merchant_order_no: str
    amount: int
    currency: str
    subject: str
    method: dict[str, str]
    status: PaymentStatus
    version: int
    amount_captured: int
    amount_refunded: int
    fee: int
    created_at: str
    expires_at: str
    metadata: dict[str, str]
    next_action: NotRequired[NextAction]
    failure: NotRequired[Failure]
    close_reason: NotRequired[str]
    succeeded_at: NotRequired[str]
    ended_at: NotRequired[str]


class Refund(TypedDict):
    """One refund; amounts in minor units."""

    id: str
    object: Literal["refund"]
    mode: Literal["live", "sandbox"]
    payment_id: str
    merchant_refund_no: str
    amount: int
    currency: str
    fee_returned: int
    kind: Literal["merchant", "late"]
    reason: str
    status: RefundStatus
    version: int
    created_at: str
    code: NotRequired[str]
    ended_at: NotRequired[str]


class Page(TypedDict):
    """One page of a list, newest first."""

    items: list[dict[str, Any]]
    next_cursor: NotRequired[str | None]

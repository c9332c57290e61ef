"""The shapes of what the API takes, as TypedDicts: plain dicts with checked keys; see `replies`.

Amounts are whole minor units (1999 is 19.99 yuan), moments are RFC 3339 texts. Fields are only ever
added, so a program reads what it knows and ignores the rest.
"""

from __future__ import annotations

from typing import Generic, Literal, NotRequired, TypedDict, TypeVar

from tongbao_sdk.replies import (
    OpenApp,
    Redirect,
    ShowQr,
    SubmitForm,
)

T = TypeVar("T")

Mode = Literal["live", "sandbox"]
Channel = Literal["wechat_pay", "alipay", "unionpay", "cards", "wallet"]
PayMode = Literal["qr", "payment_code", "in_app", "app", "h5", "web", "agreement", "card"]
PaymentStatus = Literal[
    "created",
    "pending",
    "unknown",
    "authorised",
    "capturing",
    "voiding",
    "succeeded",
    "failed",
    "closed",
    "voided",
]
AgreementStatus = Literal["created", "pending", "unknown", "active", "ending", "ended", "failed"]
Period = Literal["day", "week", "month", "year"]
CaptureMode = Literal["automatic", "manual"]
RefundStatus = Literal["requested", "pending", "unknown", "succeeded", "failed"]
PayoutStatus = Literal["requested", "pending", "unknown", "succeeded", "failed", "returned"]
DeliveryStatus = Literal["pending", "succeeded", "failed"]


class Page(TypedDict, Generic[T]):
    """One page of a list, newest first."""

    items: list[T]
    next_cursor: str | None


class Card(TypedDict):
    """What a terminal read of a card; the platform keeps none of it."""

    number: str
    expiry: str
    entry: str
    terminal: str
    merchant: str
    track2: NotRequired[str]
    sequence: NotRequired[str]
    chip_hex: NotRequired[str]
    pin_block_hex: NotRequired[str]


class TokenUsed(TypedDict):
    """A card token; one on a device comes with what its limited-use key makes of the payment."""

    number: str
    key_number: NotRequired[int]
    counter: NotRequired[int]
    cryptogram: NotRequired[str]


class Method(TypedDict):
    """How to collect. A payment code says by itself which channel it is of."""

    mode: PayMode
    channel: NotRequired[Channel]
    auth_code: NotRequired[str]
    payer_id: NotRequired[str]
    return_url: NotRequired[str]
    app_id: NotRequired[str]
    agreement_id: NotRequired[str]
    card: NotRequired[Card]
    card_token: NotRequired[TokenUsed]


NextAction = ShowQr | Redirect | SubmitForm | OpenApp

"""What the sandbox remembers: trades, refunds, payment codes, callbacks, faults.

The states are neutral words; each channel translates them into its own.

    Trade   offered ─► waiting ─► asking ─► paid          offered: a code nobody scanned (Alipay)
                          │          │        └─► reversed  (payment code undone, money back)
                          └──────────┴─► closed | failed
    Refund  processing ─► done | abnormal | closed
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from msgspec import Struct, field

TradeState = Literal["offered", "waiting", "asking", "paid", "closed", "reversed", "failed"]
RefundState = Literal["processing", "done", "abnormal", "closed"]
TradeMode = Literal["qr", "payment_code", "in_app", "web", "h5", "app", "agreement", "card"]
CallbackState = Literal["waiting", "delivered", "gave_up", "lost"]
Variant = Literal["genuine", "forged", "signtest"]


class Trade(Struct, frozen=True, kw_only=True):
    """One order a merchant placed; ``(channel, number)`` is its key, money is in minor units."""

    channel: str
    number: str  # the merchant's number: out_trade_no
    mode: TradeMode
    state: TradeState
    amount: int
    currency: str
    subject: str
    created_at: datetime
    expires_at: datetime
    ref: str = ""  # the channel's number: transaction_id, trade_no; often given only at payment
    token: str = ""  # what the QR code says
    payer: str = ""  # openid, buyer id
    notify_url: str = ""
    refunded: int = 0  # asked for and not failed
    paid_at: datetime | None = None
    closed_at: datetime | None = None
    extra: dict[str, Any] = field(default_factory=dict)  # what only this channel knows


class Refund(Struct, frozen=True, kw_only=True):
    """One refund; ``(channel, trade_number, number)`` is its key."""

    channel: str
    trade_number: str
    number: str  # the merchant's number: out_refund_no, out_request_no
    state: RefundState
    amount: int
    currency: str
    created_at: datetime
    ref: str = ""
    reason: str = ""
    notify_url: str = ""
    done_at: datetime | None = None
    extra: dict[str, Any] = field(default_factory=dict)


class PaymentCode(Struct, frozen=True, kw_only=True):
    """A code on a customer's phone: used once, valid for 60 seconds of the virtual clock."""

    code: str
    channel: str
    behaviour: str  # pay | ask | ask_then_pay | ask_forever | decline | cancel
    after_s: (
        float  # ask_then_pay: when the password has been typed; cancel: when the customer quits
    )
    made_at: datetime
    used_for: str = ""


class Fault(Struct, frozen=True, kw_only=True):
    """One scripted misbehaviour. ``left`` counts down; -1 means always."""

    id: int
    channel: str
    on: str  # pay | query | refund | refund_query | close | callback | bill
    number: str  # "" fits every number
    name: str
    argument: str  # what stood after the colon: late:30
    left: int

    def seconds(self, default: float = 0.0) -> float:
        """Return the argument as seconds."""
        return float(self.argument or default)


class Callback(Struct, frozen=True, kw_only=True):
    """One notification on its way. Content is the channel's plain content, signed at each try."""

    id: int
    channel: str
    kind: str  # payment | refund | …: the channel's own word
    number: str
    url: str
    content: dict[str, Any]
    variant: Variant
    state: CallbackState
    tries: int
    next_at: datetime | None  # None: finished, or held back until another one has gone
    made_at: datetime
    lose: int = 0  # how many tries get lost on the way; -1 all of them


class Attempt(Struct, frozen=True, kw_only=True):
    """One try to deliver a callback, and what the merchant said."""

    callback_id: int
    at: datetime
    status: int | None  # None: no answer, or lost on the way
    reply: str
    error: str


class Due(Struct, frozen=True, kw_only=True):
    """Something a channel will do at a time of the virtual clock."""

    id: int
    at: datetime
    channel: str
    action: str
    number: str
    argument: str

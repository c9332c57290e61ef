"""What a channel tells us unasked: a notification, verified and read out, and our reply to it."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from msgspec import Struct

from tongbao.kernel.errors import Invalid, Unauthenticated
from tongbao.rails.channels.contract.outcomes import (
    Authorised,
    Closed,
    Declined,
    Pending,
    Succeeded,
    Unknown,
)


class CallbackKind(StrEnum):
    """What a callback speaks about."""

    PAYMENT = "payment"
    COMBINED = "combined"  # a combined order was paid; ``number`` is ours of the whole
    REFUND = "refund"
    SPLIT = "split"  # a share was given or taken back; ``number`` is the split's or the return's
    TRANSFER = "transfer"  # a payout to a customer's account at the channel ended
    AGREEMENT = "agreement"  # signed or ended; ``number`` is ours of the agreement
    PARKING = "parking"  # a car may or may not be charged; ``number`` is the entrance's
    COMPLAINT = "complaint"  # a customer complained, or more was said; ``number`` is the channel's
    OTHER = "other"  # of a product this adapter does not know; ``number`` may be empty


class Callback(Struct, frozen=True):
    """A verified notification, read out. ``merchant_number`` and money are still to be compared."""

    kind: CallbackKind
    notification_id: str  # the channel's id of this notification, for de-duplication
    number: str  # our number: the order's, or for a refund the refund's
    merchant_number: str
    app_id: str | None
    outcome: Succeeded | Authorised | Declined | Closed | Pending | Unknown
    # Unknown: there is news, and we ask for the rest. An agreement is always asked about.
    content: str  # the readable notification, for evidence


class CallbackForged(Unauthenticated):
    """A callback's signature does not verify on its raw bytes."""

    code = "callback.forged"
    advice = "Nothing changed. If you are the channel, check the signing key."
    advice_zh = "验签失败，未做任何变更。"


class CallbackKeyUnknown(CallbackForged):
    """A callback names a signing key we do not hold: `Channel.refresh_keys`, then read it again."""

    code = "callback.key_unknown"


class CallbackUnreadable(Invalid):
    """A callback's signature verifies, but it is nothing this channel's adapter can read."""

    code = "callback.unreadable"
    advice = "Nothing changed. Look at the stored notification; it may be of a product not in use."
    advice_zh = "验签通过但无法识别通知内容，未做任何变更，请查看已保存的原始通知。"


class CallbackReply(Struct, frozen=True):
    """What the channel wants to hear, byte for byte."""

    status: int
    headers: Mapping[str, str]
    body: bytes

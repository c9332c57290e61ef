"""What an inbound callback is, from its arrival to its effect.

received ─► processed | mismatched | orphaned          forged | unreadable, kept apart
   │  ▲
   ▼  └── a domain of ours takes its kind now
  kept
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

import msgspec
from msgspec import Struct

from tongbao.rails.channels.contract.callbacks import Callback, CallbackKind
from tongbao.rails.channels.contract.orders import ChannelAccount

MASK: Final = "***"
_PERSONAL: Final = frozenset(
    {
        *("name", "user_name", "real_name", "payee_name", "payee_real_name", "payer_name"),
        *("user_display_name", "display_name"),
        *("phone", "mobile", "payer_phone", "cert_no", "id_card_number", "identity_no"),
        *("plate_number", "plate_no", "car_number", "address", "email"),
    }
)
"""Fields of channels' notices that say who or where somebody is, by the channels' own names."""

Taker = Callable[[ChannelAccount, Callback], Awaitable[bool]]
"""Takes a notice to its domain; False says that it is about nothing of ours.

It runs outside any transaction and again after a crash, so hearing it twice changes nothing.
"""
Takers = Mapping[CallbackKind, Taker]
"""Who takes which kind of notice. A kind that nobody takes is kept until somebody does."""


class InboundState(StrEnum):
    """What became of a callback."""

    RECEIVED = "received"
    PROCESSED = "processed"
    MISMATCHED = "mismatched"  # signed, but of another merchant number or app
    ORPHANED = "orphaned"  # signed, but about a number that is not ours
    KEPT = "kept"  # signed, and of a kind that no domain of ours takes yet
    FORGED = "forged"
    UNREADABLE = "unreadable"  # signed, but nothing we understand


class InboundCallback(Struct, frozen=True):
    """One row of inbound_callback: what arrived, byte for byte, and what it said."""

    id: UUID
    account_id: UUID
    channel: str
    notification_id: str
    headers: dict[str, str]
    body: bytes
    number: str
    kind: CallbackKind | None  # None: nothing could be read
    callback: Callback | None
    state: InboundState
    copies: int
    received_at: datetime
    processed_at: datetime | None
    aside: bool  # its state is one of `ASIDE`


class NoticeFilter(Struct, frozen=True):
    """Which notices a list shows; every None means any."""

    state: InboundState | None = None
    kind: CallbackKind | None = None
    channel: str | None = None


ASIDE: Final = (
    InboundState.KEPT,
    InboundState.ORPHANED,
    InboundState.MISMATCHED,
    InboundState.UNREADABLE,
    InboundState.FORGED,
)
"""The states of what nobody took, for people to look at; the table has them once more."""
KEPT_AS_RECEIVED: Final = frozenset(
    {CallbackKind.PAYMENT, CallbackKind.REFUND, CallbackKind.AGREEMENT}
)
"""Kinds whose content a domain of ours reads: what they say of people is masked when shown."""


def redacted(callback: Callback) -> Callback:
    """Return the notice as it is stored: of kinds nobody reads, without what tells of people."""
    if callback.kind in KEPT_AS_RECEIVED:
        return callback
    return msgspec.structs.replace(callback, content=_redacted_text(callback.content))


def _redacted_text(text: str) -> str:
    """Return JSON with personal fields masked, JSON inside its texts included."""
    if text[:1] not in {"{", "["}:
        return text
    try:
        tree = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return text
    return msgspec.json.encode(_redacted_tree(tree)).decode()


def _redacted_tree(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            name: MASK if name in _PERSONAL else _redacted_tree(each)
            for name, each in value.items()
        }
    if isinstance(value, list):
        return [_redacted_tree(each) for each in value]
    return _redacted_text(value) if isinstance(value, str) else value

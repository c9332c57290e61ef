"""What an inbound callback is, from its arrival to its effect.

received ─► processed | mismatched | orphaned          forged | unreadable, kept apart
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from msgspec import Struct

from tongbao.rails.channels.contract import Callback


class InboundState(StrEnum):
    """What became of a callback."""

    RECEIVED = "received"
    PROCESSED = "processed"
    MISMATCHED = "mismatched"  # signed, but of another merchant number or app
    ORPHANED = "orphaned"  # signed, but about a number that is not ours
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
    callback: Callback | None
    state: InboundState
    copies: int
    received_at: datetime
    processed_at: datetime | None

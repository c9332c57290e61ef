"""What refunds ask of splits, as values and a Protocol that wiring fills."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final, Protocol
from uuid import UUID

from msgspec import Struct

from tongbao.infra.db import Write
from tongbao.ledger.model import Transfer
from tongbao.rails.channels.capabilities.shares import SplitReturn

SHARES_MOVED: Final = "payment.shares_moved"
"""Refuses a refund's commit where the shares are not any more as they were seen."""


class RefundAsked(Struct, frozen=True):
    """A refund that is about to be written down, and the payment as it was seen then.

    ``back_in_all`` is what of the payment will have been given back with it, in minor units.
    """

    book: int
    refund_id: UUID
    payment_id: UUID
    captured: int
    back_in_all: int
    shared: int
    now: datetime


class TakenBack(Struct, frozen=True):
    """What happens to shares in the refund's own commit, or begins there."""

    transfers: tuple[Transfer, ...] = ()
    writes: tuple[Write, ...] = ()


class Ready(Struct, frozen=True):
    """Whether the refund may be sent now, and which shares the channel takes back with it."""

    may_go: bool = True
    backs: Sequence[SplitReturn] = ()


class SharesTaker(Protocol):
    """Who takes shares back for refunds."""

    async def with_refund(self, asked: RefundAsked) -> TakenBack:
        """Return what of the shares comes back in the refund's commit."""

    async def before_refund(self, book: int, refund_id: UUID) -> Ready:
        """Drive what must come back before the channel is asked for the refund."""


class NoShares:
    """Where nothing is shared, nothing comes back."""

    async def with_refund(self, asked: RefundAsked) -> TakenBack:
        """Return nothing."""
        del asked
        return TakenBack()

    async def before_refund(self, book: int, refund_id: UUID) -> Ready:
        """Let the refund go."""
        del book, refund_id
        return Ready()


NO_SHARES: Final = NoShares()

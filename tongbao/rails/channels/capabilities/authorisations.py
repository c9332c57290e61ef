"""Setting money aside now, and taking it or letting it go later (预授权)."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from msgspec import Struct

from tongbao.kernel.money import Money
from tongbao.rails.channels.contract.orders import ChannelAccount, PayOrder
from tongbao.rails.channels.contract.outcomes import (
    Answer,
    Authorised,
    Closed,
    Declined,
    NotSent,
    Outcome,
    Pending,
    QueryOutcome,
    Unknown,
)


class Capture(Struct, frozen=True):
    """Take all or a part of what was authorised. ``number`` is our idempotency key there."""

    number: str
    order: PayOrder  # the authorisation's own order
    channel_ref: str  # of the authorisation
    authorisation_code: str | None
    money: Money


class Voiding(Struct, frozen=True):
    """Let go what was authorised and not captured, under a number of its own."""

    number: str
    order: PayOrder
    channel_ref: str
    authorisation_code: str | None
    money: Money


AuthoriseOutcome = Authorised | Outcome


VoidOutcome = Closed | Pending | Declined | NotSent | Unknown


@runtime_checkable
class Authorising(Protocol):
    """Sets money aside now and takes it, or lets it go, later (预授权)."""

    async def authorise(self, account: ChannelAccount, order: PayOrder) -> Answer[AuthoriseOutcome]:
        """Set the order's money aside; `PayOrder.captures` is False."""

    async def query_authorisation(
        self, account: ChannelAccount, order: PayOrder
    ) -> Answer[Authorised | QueryOutcome]:
        """Ask what became of an authorisation."""

    async def capture(self, account: ChannelAccount, capture: Capture) -> Answer[Outcome]:
        """Take the money, once, in full or less."""

    async def query_capture(
        self, account: ChannelAccount, capture: Capture
    ) -> Answer[QueryOutcome]:
        """Ask what became of a capture."""

    async def void(self, account: ChannelAccount, voiding: Voiding) -> Answer[VoidOutcome]:
        """Let the money go."""

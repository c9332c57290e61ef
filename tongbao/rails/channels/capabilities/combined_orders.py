"""Several orders paid in one go (合单)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from msgspec import Struct

from tongbao.kernel.money import Money
from tongbao.rails.channels.contract.orders import ChannelAccount, PayOrder
from tongbao.rails.channels.contract.outcomes import (
    Absent,
    Answer,
    Closed,
    Outcome,
    QueryOutcome,
    Unknown,
)


class CombinedPart(Struct, frozen=True):
    """One order of a combined payment."""

    number: str  # ours, like any order's
    money: Money
    subject: str
    attach: str = "-"  # comes back in answers; WeChat Pay wants something here
    sub_mchid: str | None = None  # the sub-merchant, where a service provider combines


class CombinedOrder(Struct, frozen=True):
    """What the customer pays at once: an order of the whole sum, and its parts."""

    order: PayOrder  # its mode, payer and end; its money is the parts' sum
    parts: Sequence[CombinedPart]


class PartFound(Struct, frozen=True):
    """What became of one part."""

    number: str
    outcome: QueryOutcome


@runtime_checkable
class Combining(Protocol):
    """Offers several orders as one payment; each is an order of its own afterwards.

    `Channel.query` and `close` of a part name the whole in `PayOrder.combined`; closing one part
    closes all. A part is never offered alone.
    """

    def combines_for(self, account: ChannelAccount) -> str:
        """Return who asks the channel for the account; only orders of one asker go together."""

    async def pay_combined(self, account: ChannelAccount, order: CombinedOrder) -> Answer[Outcome]:
        """Offer all parts; safe to repeat with the same parts."""

    async def query_combined(
        self, account: ChannelAccount, order: CombinedOrder
    ) -> Answer[tuple[PartFound, ...] | Absent | Unknown]:
        """Ask what became of each part."""

    async def close_combined(
        self, account: ChannelAccount, order: CombinedOrder
    ) -> Answer[Closed | Absent | Unknown]:
        """Make all parts unpayable."""

    def part_of(self, account: ChannelAccount, order: PayOrder) -> CombinedPart:
        """Return an order of the account's as a part of a combined one."""

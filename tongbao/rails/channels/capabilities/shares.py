"""Splitting what was collected: shares of a payment for others, and taking them back (分账)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol, runtime_checkable

from msgspec import Struct

from tongbao.kernel.money import Money
from tongbao.rails.channels.contract.orders import ChannelAccount, RefundOrder
from tongbao.rails.channels.contract.outcomes import (
    Absent,
    Answer,
    Declined,
    NotSent,
    Outcome,
    QueryOutcome,
    RefundOutcome,
    Unknown,
)


class Receiver(Struct, frozen=True):
    """Who gets a share, as the channel knows them."""

    kind: str  # the channel's word: MERCHANT_ID, PERSONAL_OPENID, userId, loginName
    account: str
    name: str | None = None  # encrypted on the way where the channel asks for it
    relation: str = "PARTNER"


class Share(Struct, frozen=True):
    """What one receiver gets of one payment."""

    receiver: Receiver
    money: Money
    description: str = ""


class SplitOrder(Struct, frozen=True):
    """Give shares of a captured order away; ``finishes`` frees what is left for the merchant."""

    number: str
    channel_ref: str  # of the payment
    shares: Sequence[Share]
    finishes: bool = False
    reason: str = ""


class ShareResult(Struct, frozen=True):
    """What became of one share."""

    account: str
    money: Money
    state: Literal["pending", "succeeded", "failed"]
    reason: str = ""  # the channel's word for why it failed
    channel_ref: str = ""


class SplitDone(Struct, frozen=True, tag="split_done"):
    """Every share has an end."""

    channel_ref: str
    results: Sequence[ShareResult]


class SplitUnderWay(Struct, frozen=True, tag="split_under_way"):
    """Accepted; shares may still be open."""

    channel_ref: str
    results: Sequence[ShareResult] = ()


SplitOutcome = SplitDone | SplitUnderWay | Declined | NotSent | Unknown


SplitQueryOutcome = SplitDone | SplitUnderWay | Declined | Absent | Unknown


class SplitReturn(Struct, frozen=True):
    """Take a share back from its receiver."""

    number: str
    split_number: str
    split_ref: str
    receiver: Receiver
    money: Money
    reason: str = ""


@runtime_checkable
class Splitting(Protocol):
    """Gives shares of a collected payment to others."""

    async def add_receiver(self, account: ChannelAccount, receiver: Receiver) -> Answer[Outcome]:
        """Let the channel know a receiver; a second time does nothing."""

    async def remove_receiver(self, account: ChannelAccount, receiver: Receiver) -> Answer[Outcome]:
        """Let the channel forget a receiver."""

    async def split(self, account: ChannelAccount, split: SplitOrder) -> Answer[SplitOutcome]:
        """Give the shares away."""

    async def query_split(
        self, account: ChannelAccount, split: SplitOrder
    ) -> Answer[SplitQueryOutcome]:
        """Ask what became of the shares."""

    async def return_split(self, account: ChannelAccount, back: SplitReturn) -> Answer[Outcome]:
        """Take a share back."""

    async def query_split_return(
        self, account: ChannelAccount, back: SplitReturn
    ) -> Answer[QueryOutcome]:
        """Ask what became of a return."""

    async def unfreeze(self, account: ChannelAccount, split: SplitOrder) -> Answer[SplitOutcome]:
        """Free what nobody gets a share of for the merchant."""


@runtime_checkable
class RefundingShares(Protocol):
    """Takes shares back together with a refund; some channels know no other way."""

    async def refund_with_shares(
        self, account: ChannelAccount, refund: RefundOrder, backs: Sequence[SplitReturn]
    ) -> Answer[RefundOutcome]:
        """Refund and take these shares back as one; each of ``backs`` bears the refund's number."""

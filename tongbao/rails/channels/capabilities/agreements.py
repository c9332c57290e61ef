"""What customers agree to beforehand: deductions (签约, 代扣), and fees of car parks (停车)."""

from __future__ import annotations

from datetime import date, datetime
from typing import Literal, Protocol, runtime_checkable

from msgspec import Struct

from tongbao.kernel.money import Money
from tongbao.rails.channels.contract.orders import CarVisit, ChannelAccount, ParkingFee
from tongbao.rails.channels.contract.outcomes import (
    Absent,
    Answer,
    Closed,
    Declined,
    NextAction,
    NotSent,
    Unknown,
)


class AgreementTerms(Struct, frozen=True):
    """What may be taken under an agreement, for a channel that shows it and keeps to it."""

    begins: date  # the first day on which something is taken, in China's zone
    period: Literal["day", "week", "month", "year"] | None = None
    limit_each: Money | None = None
    limit_per_period: Money | None = None
    limit_total: Money | None = None
    payments_max: int | None = None


# Where a customer signs: on a page, out of the merchant's app, or out of its mini-program.
SignsIn = Literal["page", "app", "mini_program"]


class AgreementOrder(Struct, frozen=True):
    """An agreement to be offered to a customer. ``number`` is ours."""

    number: str
    plan: str  # the channel's number of the product and its rules
    display_name: str
    return_url: str | None = None
    payer_id: str | None = None
    terms: AgreementTerms | None = None
    signs_in: SignsIn = "page"


class AgreementSigned(Struct, frozen=True, tag="agreement_signed"):
    """The customer signed; ``agreement_ref`` is what payments under it name."""

    agreement_ref: str
    payer: str | None
    at: datetime
    ends_at: datetime | None = None


class AgreementOffered(Struct, frozen=True, tag="agreement_offered"):
    """Open: the customer is to sign."""

    action: NextAction | None = None


class AgreementEnded(Struct, frozen=True, tag="agreement_ended"):
    """Signed no more; nothing can be taken under it."""

    code: str = ""


AgreementOutcome = (
    AgreementSigned | AgreementOffered | AgreementEnded | Declined | Absent | NotSent | Unknown
)


@runtime_checkable
class Agreeing(Protocol):
    """Takes money under an agreement the customer has signed.

    A payment under it is `Channel.pay` with `PayMode.AGREEMENT` and `PayOrder.agreement_ref`.
    """

    @property
    def signs_in(self) -> frozenset[SignsIn]:
        """Where the channel lets customers sign."""

    async def offer_agreement(
        self, account: ChannelAccount, order: AgreementOrder
    ) -> Answer[AgreementOutcome]:
        """Make an offer for the customer to sign."""

    async def query_agreement(
        self, account: ChannelAccount, order: AgreementOrder
    ) -> Answer[AgreementOutcome]:
        """Ask whether it is signed."""

    async def end_agreement(
        self, account: ChannelAccount, order: AgreementOrder, agreement_ref: str, reason: str
    ) -> Answer[AgreementOutcome]:
        """End it."""


class VisitOpen(Struct, frozen=True, tag="visit_open"):
    """The fee can be taken without the driver's doing; ``ref`` is the channel's number of it."""

    ref: str


class VisitBlocked(Struct, frozen=True, tag="visit_blocked"):
    """Nothing can be taken from this plate: let the driver pay in another way."""

    reason: str


VisitOutcome = VisitOpen | VisitBlocked | Declined | Absent | NotSent | Unknown


@runtime_checkable
class Parking(Protocol):
    """Takes parking fees from a plate whose owner has agreed to it at the channel.

    The fee is `Channel.pay` with `PayMode.AGREEMENT`, `PayOrder.visit` and `PayOrder.stay`; without
    the stay it is only asked about.
    """

    tells_exits: bool  # whether it wants to hear that a car has left

    async def drive_in(self, account: ChannelAccount, visit: CarVisit) -> Answer[VisitOutcome]:
        """Tell that a car drove in; a repeat says how things stand by now."""

    async def drive_out(
        self, account: ChannelAccount, visit: CarVisit, left_at: datetime, fee: ParkingFee | None
    ) -> Answer[Closed | Declined | NotSent | Unknown]:
        """Tell that it drove out, and what it paid; `Closed` says that the channel heard it."""

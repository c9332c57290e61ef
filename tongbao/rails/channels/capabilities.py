"""What some channels can be asked beyond collecting: each a contract of its own.

A channel says by having the methods that it can; whoever needs one asks `isinstance`. As in
`contract`, every call is safe to repeat with the same numbers, and its outcome is closed: what is
not positive evidence is `Unknown`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from msgspec import Struct

from tongbao.kernel.codecs.iso8583_parts import CardBalance
from tongbao.kernel.money import Money
from tongbao.rails.channels.contract import (
    Absent,
    Answer,
    Authorised,
    BillOutcome,
    CardRead,
    CarVisit,
    ChannelAccount,
    Closed,
    CombinedOrder,
    CombinedPart,
    Declined,
    NextAction,
    NotSent,
    Outcome,
    ParkingFee,
    PartFound,
    PayOrder,
    Pending,
    QueryOutcome,
    RefundOrder,
    RefundOutcome,
    Succeeded,
    Unknown,
)

# --- authorise, capture, void -------------------------------------------------------------------


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


# --- splitting what was collected (分账) ----------------------------------------------------------


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


# --- paying out to a customer's account at the channel --------------------------------------------


class TransferOrder(Struct, frozen=True):
    """Pay somebody from our account at the channel. ``number`` is our idempotency key there."""

    number: str
    payee: str  # openid, user id or login
    payee_kind: str
    payee_name: str | None
    money: Money
    title: str
    scene: str = ""  # the channel's number of the purpose
    notes: Sequence[tuple[str, str]] = ()  # what the channel wants to know of the purpose


TransferOutcome = Succeeded | Pending | Declined | NotSent | Unknown
TransferQueryOutcome = Succeeded | Pending | Declined | Closed | Absent | Unknown


@runtime_checkable
class Transferring(Protocol):
    """Pays out to accounts at the channel."""

    async def transfer(
        self, account: ChannelAccount, order: TransferOrder
    ) -> Answer[TransferOutcome]:
        """Pay out; `Pending` may ask the payee to confirm."""

    async def query_transfer(
        self, account: ChannelAccount, order: TransferOrder
    ) -> Answer[TransferQueryOutcome]:
        """Ask what became of it."""


# --- agreements (签约, 代扣) ----------------------------------------------------------------------


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
    """Takes money as the customer has signed: by `Channel.pay` with `PayOrder.agreement_ref`."""

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


# --- several orders paid in one go (合单) ---------------------------------------------------------


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


# --- car parks (停车) -----------------------------------------------------------------------------


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


# --- taking a merchant on at the channel (进件) ---------------------------------------------------


class Picture(Struct, frozen=True):
    """One document of an application, as it is to be sent."""

    kind: str  # our word: business_license, legal_id_front, legal_id_back, store_front …
    media_type: str
    content: bytes

    def __repr__(self) -> str:
        return f"Picture({self.kind})"


class RegistrationOrder(Struct, frozen=True, kw_only=True):
    """A firm to be taken on below ours. ``number`` is our idempotency key there.

    A date that is None is for good. ``terms`` are what only this channel wants to know.
    """

    number: str
    channel_ref: str | None
    firm_kind: Literal["enterprise", "individual_business"]
    legal_name: str
    short_name: str
    credit_code: str
    firm_address: str
    license_begins: date
    license_ends: date | None
    legal_person: str
    id_number: str
    id_begins: date
    id_ends: date | None
    id_address: str
    contact: str
    phone: str
    email: str
    account_kind: Literal["corporate", "personal"]
    holder: str
    account_number: str
    bank: str
    bank_number: str
    bank_area_code: str
    mcc: str
    service_phone: str
    store_name: str
    area_code: str
    store_address: str
    signed_at: datetime
    terms: Mapping[str, str]
    pictures: Mapping[str, Picture]

    def __repr__(self) -> str:  # persons
        return f"RegistrationOrder({self.number})"


class Registered(Struct, frozen=True, tag="registered"):
    """Taken on: ``sub_merchant`` is the channel's number of the merchant."""

    sub_merchant: str
    channel_ref: str


class RegistrationUnderWay(Struct, frozen=True, tag="registration_under_way"):
    """With the channel, or with the merchant, who is to go to ``action_url``."""

    stage: Literal["auditing", "verifying", "signing", "opening"]
    channel_ref: str
    action_url: str | None = None


class RejectedField(Struct, frozen=True):
    """One thing the channel wants corrected, in its words."""

    field: str
    reason: str


class RegistrationRejected(Struct, frozen=True, tag="registration_rejected"):
    """To be corrected and sent again under the same number."""

    reasons: Sequence[RejectedField]
    channel_ref: str


class RegistrationCanceled(Struct, frozen=True, tag="registration_canceled"):
    """Ended without a merchant; nothing can be sent under this number again."""

    channel_ref: str


RegistrationOutcome = (
    Registered | RegistrationUnderWay | RegistrationRejected | RegistrationCanceled
    | Declined | Absent | NotSent | Unknown
)  # fmt: skip


@runtime_checkable
class Registering(Protocol):
    """Takes merchants on below an account of ours, and says what became of it."""

    async def register(
        self, account: ChannelAccount, order: RegistrationOrder
    ) -> Answer[RegistrationOutcome]:
        """Send the application; one that was rejected is replaced under its number."""

    async def query_registration(
        self, account: ChannelAccount, order: RegistrationOrder
    ) -> Answer[RegistrationOutcome]:
        """Ask what became of it."""

    def sub_account(
        self, account: ChannelAccount, sub_merchant: str
    ) -> tuple[str, Mapping[str, object]] | None:
        """Return app id and keys of an account of the sub-merchant's, None where it needs none."""


# --- who is there, inside the channel's own app (静默授权) ----------------------------------------


class Identified(Struct, frozen=True, tag="identified"):
    """The channel says who the customer is, to the app that asked."""

    payer_id: str

    def __repr__(self) -> str:  # a person
        return "Identified(…)"


IdentifyOutcome = Identified | Declined | NotSent | Unknown


@runtime_checkable
class Identifying(Protocol):
    """Tells who opened a page inside the channel's app, by sending their browser there and back.

    Nobody can pay on a page inside the app (`PayMode.IN_APP`) without.
    """

    def identity_address(self, account: ChannelAccount, back_url: str, state: str) -> str | None:
        """Return where browsers get their ``code`` and ``state``; None where no key is for it."""

    async def identify(self, account: ChannelAccount, code: str) -> Answer[IdentifyOutcome]:
        """Ask whose code this is; a code serves once."""


# --- no bill, but totals (轧账) -------------------------------------------------------------------


@runtime_checkable
class Unbilled(Protocol):
    """Sends no bill of its trades, by this connection or ever; nobody is to wait for one."""

    no_bill_because: str


class BatchTotals(Struct, frozen=True):
    """What a batch came to, in minor units: debits are purchases and captures, credits refunds."""

    debit_count: int
    debit_amount: int
    credit_count: int
    credit_amount: int

    @property
    def net(self) -> int:
        """What the customers paid, less what they got back."""
        return self.debit_amount - self.credit_amount


class TotalsAgree(Struct, frozen=True, tag="agree"):
    """The channel has the same figures."""


class TotalsDiffer(Struct, frozen=True, tag="differ"):
    """The channel has other figures: these, where it gives them."""

    theirs: BatchTotals | None


@runtime_checkable
class ComparingTotals(Protocol):
    """Closes an account's batch and compares what it came to; the next trade opens another."""

    def totals_fit(self, totals: BatchTotals) -> bool:
        """Return whether the channel's message can hold the figures."""

    async def compare_totals(
        self, account: ChannelAccount, number: str, totals: BatchTotals
    ) -> Answer[TotalsAgree | TotalsDiffer | NotSent | Unknown]:
        """Compare; ``number`` is ours of the batch, and a repeat is answered as the first was."""


# --- what a card has ------------------------------------------------------------------------------


class BalanceKnown(Struct, frozen=True, tag="balance"):
    """What a card has, as its issuer says."""

    balances: tuple[CardBalance, ...]


@runtime_checkable
class TellingBalances(Protocol):
    """Asks a card's issuer what the card has (余额查询)."""

    async def balance(
        self, account: ChannelAccount, number: str, card: CardRead
    ) -> Answer[BalanceKnown | Declined | NotSent | Unknown]:
        """Ask; ``number`` is ours of this question. Nothing of it is kept."""


# --- further bills --------------------------------------------------------------------------------


@runtime_checkable
class FurtherBills(Protocol):
    """Has bills beside that of the day's trades: of funds, of shares."""

    further_bills: frozenset[str]  # "funds", "splits"

    async def download_further_bill(
        self, account: ChannelAccount, kind: str, day: date, folder: Path
    ) -> Answer[BillOutcome]:
        """Fetch one of them into ``folder``."""

"""What every channel can be asked and what it may answer.

A call has a closed outcome. A time-out, a reset, a 5xx or a bad signature on the answer is
`Unknown`, never a failure; only positive evidence is `Declined` or `NotSent`. Every answer carries
the raw exchange, which is the evidence shown to people.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime
from enum import StrEnum
from pathlib import Path
from typing import Generic, Literal, Protocol, TypeVar, runtime_checkable
from uuid import UUID

from msgspec import Struct

from tongbao.kernel.errors import Invalid, Unauthenticated
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import Money


class PayMode(StrEnum):
    """How the customer meets the payment."""

    QR = "qr"  # we show a code, the customer scans it (WeChat Native, Alipay precreate)
    PAYMENT_CODE = "payment_code"  # the customer shows a code, the merchant scans it (付款码)
    IN_APP = "in_app"  # a page or mini-program inside the channel's own app (JSAPI)
    APP = "app"  # the merchant's app opens the channel's app
    H5 = "h5"  # a phone's browser goes to the channel and comes back
    WEB = "web"  # a desktop browser goes to the channel and comes back
    AGREEMENT = "agreement"  # taken under an agreement the customer signed before (代扣)
    CARD = "card"  # a card, read by a terminal or keyed in


PlateColour = Literal["BLUE", "GREEN", "YELLOW", "BLACK", "WHITE", "LIMEGREEN"]


class ChannelAccount(Struct, frozen=True):
    """Our account at a channel: where to call it and the keys of this mode.

    ``secrets`` is the channel's own Struct, decrypted; it is never logged.
    """

    id: UUID
    channel: str
    mode: Mode
    gateway: str  # where its paths begin: https, no trailing slash
    merchant_number: str  # mchid at WeChat Pay, seller pid at Alipay
    app_id: str
    notify_url: str  # where the channel sends callbacks for this account
    fee_ppm: int  # what the channel charges us, parts per million of the amount
    secrets: Struct
    is_open: bool = True  # whether it takes new payments; what is under way always goes on


class PayOrder(Struct, frozen=True):
    """One try to collect, in the channel's terms. ``number`` is our idempotency key there."""

    number: str  # 26 base32 characters of the attempt id
    mode: PayMode
    money: Money
    subject: str
    expires_at: datetime
    auth_code: str | None = None  # what the customer's payment code said
    client_ip: str = "127.0.0.1"
    store_id: str = "0001"
    payer_id: str | None = None  # the channel's id of the customer: openid, buyer id
    return_url: str | None = None  # where the customer's browser comes back to
    agreement_ref: str | None = None  # the channel's number of the agreement to take it under
    captures: bool = True  # False: only authorise, to be captured or voided later
    card: CardRead | None = None
    app_id: str | None = None  # of the page or app that asks, where it is not the account's own
    combined: str | None = None  # our number of the combined order that it is a part of
    visit: str | None = None  # our number of the visit to a car park that it is the fee of
    stay: CarStay | None = None  # what a visit's fee is charged for; only the first call knows


class CarVisit(Struct, frozen=True):
    """One visit of a car to a car park; ``number`` is ours."""

    number: str
    plate: str
    colour: PlateColour
    place: str
    lot: str
    entered_at: datetime
    free_s: int

    def __repr__(self) -> str:  # a person's car
        return f"CarVisit({self.number})"


class CarStay(Struct, frozen=True):
    """What a fee is taken for: one stay of a car at a car park. Never stored or logged."""

    visit: CarVisit
    ref: str  # the channel's number of the entrance, where it gives one
    left_at: datetime
    device: str


class ParkingFee(Struct, frozen=True):
    """A fee that was taken, for a channel that keeps the driver's parking orders."""

    number: str
    channel_ref: str
    payer: str
    money: Money
    asked_at: datetime
    paid_at: datetime


class CardRead(Struct, frozen=True):
    """What a terminal read of a card. Goes to the channel alone; never stored, never logged."""

    number: str
    expiry: str  # YYMM
    entry: str  # point-of-service entry mode, ISO 8583 field 22
    track2: str | None = None
    sequence: str | None = None  # card sequence number, field 23
    chip: bytes | None = None  # EMV data, field 55
    pin_block: bytes | None = None  # encrypted for the acquirer: ISO 9564-1 format 0 or 4
    terminal: str = ""  # field 41
    merchant: str = ""  # field 42
    token: TokenRead | None = None  # stands for the card, whose number is not here then

    def __repr__(self) -> str:
        return "CardRead(…)"


class TokenRead(Struct, frozen=True):
    """A token in place of a card, who wants to use it, and what its device proves that with."""

    merchant_id: UUID
    mode: Mode
    number: str
    key_number: int | None = None
    counter: int | None = None
    cryptogram: str | None = None


class Detokenise(Protocol):
    """Who knows the card behind a token. Asked just before sending, with no transaction open."""

    async def __call__(self, token: TokenRead, order: PayOrder) -> CardRead | Declined | NotSent:
        """Return the card for this order alone, or why there is none."""


class RefundOrder(Struct, frozen=True):
    """One refund of a captured order; ``number`` is our idempotency key at the channel."""

    number: str  # 26 base32 characters of the refund id
    order_number: str  # of the order, or of the capture where it had only authorised
    money: Money
    order_money: Money
    reason: str = ""
    order_ref: str | None = None  # the channel's own number of what is given back, where known
    order_mode: PayMode | None = None  # how the customer met it, where known
    to: RefundTarget | None = None  # where else, once it could not go back the way it came
    authorised: Authorised | None = None  # before; where all is given back that was captured then
    captured_at: datetime | None = None


class RefundTarget(Struct, frozen=True):
    """Where a refund goes that the customer's card or account could not take. Never logged."""

    kind: Literal["customer_card", "merchant_account"]
    bank: str = ""  # the channel's code of the card's bank
    account: str = ""
    name: str = ""

    def __repr__(self) -> str:
        return "RefundTarget(…)"


class Exchange(Struct, frozen=True):
    """One request and what came back, with secrets removed, kept as evidence."""

    method: str
    url: str
    request: str
    status: int | None  # None: no answer
    reply: str
    duration_ms: int


class Succeeded(Struct, frozen=True, tag="succeeded"):
    """Money moved, says verified evidence."""

    channel_ref: str  # the channel's own number of the trade or refund
    money: Money
    at: datetime
    payer: str | None = None  # the channel's opaque id of the customer
    card: Literal["debit", "credit", "foreign"] | None = None  # what paid, where it tells


class Authorised(Struct, frozen=True, tag="authorised"):
    """The money is set aside for us, says verified evidence; it moves when we capture it."""

    channel_ref: str
    money: Money
    at: datetime
    payer: str | None = None
    code: str | None = None  # the issuer's authorisation code, where later calls name it


class ShowQr(Struct, frozen=True, tag="show_qr"):
    """Draw it as a QR code for the customer to scan."""

    code_url: str


class Redirect(Struct, frozen=True, tag="redirect"):
    """Send the customer's browser there."""

    url: str


class SubmitForm(Struct, frozen=True, tag="submit_form"):
    """Let the customer's browser post these fields there."""

    url: str
    fields: Mapping[str, str]


class OpenApp(Struct, frozen=True, tag="open_app"):
    """Hand these to the channel's own code, in its page or in the merchant's app."""

    parameters: Mapping[str, str]


NextAction = ShowQr | Redirect | SubmitForm | OpenApp


class Pending(Struct, frozen=True, tag="pending"):
    """Accepted and open: the customer must act, or the channel is still at it."""

    action: NextAction | None = None  # what the customer is to do
    reason: str = ""


class Declined(Struct, frozen=True, tag="declined"):
    """The channel did not and will not move the money, says positive evidence."""

    code: str  # the channel's own code
    message: str = ""
    retry_elsewhere: bool = False


class NotSent(Struct, frozen=True, tag="not_sent"):
    """Nothing happened, provably: a refused connection, or refused at the channel's door.

    Like `Declined` it speaks of this call only. Who has an earlier call of the same number still
    unanswered asks with `query`, and does not conclude from a repeat.
    """

    reason: str


class Unknown(Struct, frozen=True, tag="unknown"):
    """It may have happened. Ask again with the same number; never guess."""

    reason: str


class Absent(Struct, frozen=True, tag="absent"):
    """Asked about a number, the channel says it has no such order (yet)."""

    code: str


class Closed(Struct, frozen=True, tag="closed"):
    """The order is closed at the channel, unpaid, and can no longer be paid."""

    code: str = ""


Outcome = Succeeded | Pending | Declined | NotSent | Unknown
QueryOutcome = Succeeded | Pending | Declined | Closed | Absent | Unknown
CloseOutcome = Closed | Succeeded | Absent | Unknown
"""What closing or reversing led to; `Succeeded` says the customer had paid first."""
RefundOutcome = Succeeded | Pending | Declined | NotSent | Unknown
RefundQueryOutcome = Succeeded | Pending | Declined | Absent | Unknown

A = TypeVar("A", covariant=True)


class Answer(Struct, Generic[A], frozen=True):
    """An outcome and the evidence for it."""

    outcome: A
    exchange: Exchange


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


class BillKind(StrEnum):
    """What a bill row is about."""

    PAYMENT = "payment"
    REFUND = "refund"


class BillRow(Struct, frozen=True):
    """One trade of a bill. A refund's money is positive; fees we get back are negative."""

    line: int
    kind: BillKind
    number: str  # our number: the order's, or for a refund the refund's
    order_number: str
    channel_ref: str
    money: Money
    fee: Money
    at: datetime
    state: str  # the channel's word, such as SUCCESS
    merchants: tuple[str, ...] = ()  # whose trade it is, by the channel's numbers, where it says so


class BillTerms(Struct, frozen=True):
    """How a channel's bill is to be read: its words for a row's state, and its ways with fees.

    A word in none of the sets is not guessed at: its row is a fault.
    """

    moved: frozenset[str]  # the money moved
    under_way: frozenset[str]  # it had not moved when the bill was made, and still may
    failed: frozenset[str]  # it did not move and will not
    returns_refund_fees: bool  # a refund's row may return its share of the fee
    keeps_refund_fees: bool  # or may return nothing
    quiet_when_empty: bool  # of a day without trades it says "not ready", and goes on saying so


class BillFault(Struct, frozen=True):
    """One line that cannot be read; the other lines still count."""

    line: int
    code: str  # such as "bill.amount_malformed"
    text: str  # the start of the line


class BillTotal(Struct, frozen=True):
    """What the bill's own trailer says, to be compared with the rows; None: it does not say.

    It also says that the bill is whole. A file that proves that in another way, by its checksum,
    and has no figures yields one without any.
    """

    payment_count: int | None = None
    payment_amount: Money | None = None
    refund_amount: Money | None = None
    fee_amount: Money | None = None
    row_count: int | None = None


BillLine = BillRow | BillFault | BillTotal


class BillNotReady(Struct, frozen=True, tag="not_ready"):
    """The channel has not made the day's bill yet; ask again later."""

    code: str


class BillEmpty(Struct, frozen=True, tag="empty"):
    """The channel says there were no trades that day."""

    code: str


class BillFile(Struct, frozen=True, tag="file"):
    """A bill downloaded whole, its digest verified where the channel gives one."""

    path: Path
    sha256: str
    size: int


BillOutcome = BillFile | BillNotReady | BillEmpty | Unknown


class Channel(Protocol):
    """A way to move money. Implementations hold no state; time-outs are theirs to set."""

    name: str  # "wechat_pay", "alipay"
    modes: frozenset[PayMode]
    currencies: frozenset[str]
    bill_terms: BillTerms

    async def pay(self, account: ChannelAccount, order: PayOrder) -> Answer[Outcome]:
        """Offer the order to the customer; safe to repeat with the same order."""

    async def query(self, account: ChannelAccount, order: PayOrder) -> Answer[QueryOutcome]:
        """Ask what became of the order."""

    async def close(self, account: ChannelAccount, order: PayOrder) -> Answer[CloseOutcome]:
        """Make the order unpayable; a payment code's order is reversed, which may refund it."""

    async def refund(self, account: ChannelAccount, refund: RefundOrder) -> Answer[RefundOutcome]:
        """Give money back; safe to repeat with the same refund."""

    async def query_refund(
        self, account: ChannelAccount, refund: RefundOrder
    ) -> Answer[RefundQueryOutcome]:
        """Ask what became of the refund."""

    def read_callback(
        self, account: ChannelAccount, headers: Mapping[str, str], body: bytes, now: datetime
    ) -> Callback:
        """Verify a notification on its raw bytes and read it; header names are lower case.

        ``now`` is real time, for the signature's window.

        Raises:
            CallbackForged, CallbackKeyUnknown, CallbackUnreadable
        """

    async def refresh_keys(self, account: ChannelAccount) -> None:
        """Fetch the keys the channel signs with again, at most once a minute per account."""

    def reply_to_callback(self, accepted: bool) -> CallbackReply:
        """Say what the channel wants to hear so that it stops, or goes on, resending."""

    async def download_bill(
        self, account: ChannelAccount, day: date, folder: Path
    ) -> Answer[BillOutcome]:
        """Fetch the day's trade bill into ``folder``."""

    def parse_bill(self, path: Path) -> Iterator[BillLine]:
        """Read a bill as a stream, row by row, never whole in memory."""


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


ComplaintWord = Literal["pending", "processing", "processed"]


class ComplaintMessage(Struct, frozen=True):
    """One thing that was said or done about a complaint, under the channel's own number."""

    ref: str
    kind: str  # the channel's word
    who: Literal["customer", "merchant", "channel"]
    text: str
    image_count: int
    at: datetime
    images: tuple[str, ...] = ()  # what the channel calls its pictures by


class ComplaintFound(Struct, frozen=True, tag="complaint"):
    """A complaint as the channel has it now; ``number`` is ours of the order it is about."""

    ref: str
    number: str
    state: ComplaintWord
    kind: str
    detail: str
    money: Money
    times: int
    is_refunded: bool
    has_news: bool
    at: datetime
    messages: tuple[ComplaintMessage, ...]  # oldest first


class ComplaintsListed(Struct, frozen=True, tag="complaints"):
    """The channel's numbers of what was complained about in some days."""

    refs: tuple[str, ...]


class ReplySent(Struct, frozen=True, tag="reply_sent"):
    """The channel has what we said."""


@runtime_checkable
class Complaining(Protocol):
    """Lets customers complain about a payment, and us answer."""

    # An answer has no number of ours: look whether it is there before saying it again.

    async def find_complaints(
        self, account: ChannelAccount, first: date, last: date
    ) -> Answer[ComplaintsListed | Unknown]:
        """List what was complained about in these days, 30 at most."""

    async def read_complaint(
        self, account: ChannelAccount, ref: str
    ) -> Answer[ComplaintFound | Absent | Unknown]:
        """Read one with all that was said."""

    async def reply_to_complaint(
        self, account: ChannelAccount, ref: str, text: str, images: Sequence[str] = ()
    ) -> Answer[ReplySent | Declined | NotSent | Unknown]:
        """Answer the customer, with pictures that were sent up before."""

    async def complete_complaint(
        self, account: ChannelAccount, ref: str
    ) -> Answer[ReplySent | Declined | NotSent | Unknown]:
        """Say that it is dealt with."""

    async def read_complaint_image(
        self, account: ChannelAccount, ref: str
    ) -> Answer[bytes | Absent | Declined | Unknown]:
        """Fetch a picture that a message names. Declined: it is none, or nowhere we fetch from."""

    async def send_complaint_image(
        self, account: ChannelAccount, media_type: str, content: bytes
    ) -> Answer[str | Declined | NotSent | Unknown]:
        """Send a picture up and return what an answer names it by; again does no harm."""

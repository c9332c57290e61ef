"""What payments and attempts are, as rows and as the API shows them. No I/O.

    created ─► pending ─► succeeded
       │          │  └──► failed | closed        unknown is a state: it may have happened
       └────► unknown ◄─► pending, and from there to any end, on evidence only

    … ─► authorised ◄─► capturing ─► succeeded   where the merchant captures later
             └───────◄─► voiding ──► voided

A payment is what the merchant asked; an attempt is one try on one channel.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from typing import Final, Literal, Protocol
from uuid import UUID

import msgspec
from msgspec import UNSET, Struct, UnsetType

from tongbao.infra.db import Write
from tongbao.kernel.clock import business_date
from tongbao.kernel.ids import base32, show
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import Money
from tongbao.parties.merchants.model import LateSuccess
from tongbao.parties.price_plans.model import CardKind, Quote
from tongbao.payments.methods.asked import HowAsked, MethodView, view_method
from tongbao.payments.routing.model import Decision
from tongbao.rails.channels.codes import OWN_WALLET
from tongbao.rails.channels.contract.orders import CardRead, CarStay, PayMode
from tongbao.rails.channels.contract.outcomes import NextAction
from tongbao.rails.channels.error_map import error_map

WALLET: Final = OWN_WALLET


AT_THE_COUNTER: Final = frozenset({PayMode.PAYMENT_CODE, PayMode.CARD})
"""Ways of paying that end while the customer waits, and whose call is made once: what it needs of
the customer is kept nowhere."""


class PaymentState(StrEnum):
    """Where a payment stands; the last four are ends."""

    CREATED = "created"
    PENDING = "pending"
    UNKNOWN = "unknown"
    AUTHORISED = "authorised"  # the money is set aside, and moves when it is captured
    CAPTURING = "capturing"
    VOIDING = "voiding"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CLOSED = "closed"
    VOIDED = "voided"  # what was set aside was let go

    @property
    def is_open(self) -> bool:
        """Whether money may still come in the ordinary way."""
        return self in {PaymentState.CREATED, PaymentState.PENDING, PaymentState.UNKNOWN}

    @property
    def is_held(self) -> bool:
        """Whether money is set aside that is neither taken nor let go yet."""
        return self in {PaymentState.AUTHORISED, PaymentState.CAPTURING, PaymentState.VOIDING}


class AttemptState(StrEnum):
    """Where one try on one channel stands."""

    CREATED = "created"
    PENDING = "pending"
    UNKNOWN = "unknown"
    AUTHORISED = "authorised"
    SUCCEEDED = "succeeded"
    DECLINED = "declined"
    NOT_SENT = "not_sent"
    CLOSED = "closed"
    VOIDED = "voided"

    @property
    def is_open(self) -> bool:
        """Whether the channel may still take the customer's money for it."""
        return self in {AttemptState.CREATED, AttemptState.PENDING, AttemptState.UNKNOWN}

    @property
    def is_held(self) -> bool:
        """Whether money is set aside for it that is neither taken nor let go yet."""
        return self is AttemptState.AUTHORISED


class CaseKind(StrEnum):
    """Why people should look at a payment."""

    AMOUNT_DIFFERS = "amount_differs"
    CONTRADICTION = "contradiction"
    LATE_SUCCESS = "late_success"
    REFUND_NEEDS_PEOPLE = "refund_needs_people"
    UNDECIDED = "undecided"


class CloseReason(StrEnum):
    """Who or what ended an unpaid payment."""

    MERCHANT = "merchant"
    EXPIRED = "expired"
    NOT_PAID = "not_paid"


class Payment(Struct, frozen=True):
    """One row of the payment table: what the merchant asked and how far it got."""

    book: int
    id: UUID
    merchant_id: UUID
    mode: Mode
    merchant_order_no: str
    request_hash: bytes
    amount: int
    currency: str
    subject: str
    channel: str
    pay_mode: PayMode
    state: PaymentState
    captured: int
    refunded: int  # requested or done; the table checks refunded <= captured
    fee: int
    fee_returned: int
    refund_returns_fee: bool
    late_success: LateSuccess
    failure_code: str | None
    close_reason: CloseReason | None
    close_requested_at: datetime | None
    metadata: dict[str, str]
    created_at: datetime
    expires_at: datetime
    succeeded_at: datetime | None
    ended_at: datetime | None
    version: int
    capture_within_s: int | None = None  # set: only authorised at first, captured later
    authorised: int = 0
    capturing: int = 0  # what the capture that is under way asks for
    authorised_at: datetime | None = None
    authorised_until: datetime | None = None
    price_version: int | None = None  # of the merchant's plan, with what else the fee came from
    price_day: date | None = None
    price_volume: int | None = None
    card_kind: CardKind | None = None
    shared: int = 0  # given to others or on the way, less what came back
    shares_ended: bool = False  # nothing more of it is shared
    disputed: int = 0  # held or taken by disputes; refunded + disputed <= captured

    @property
    def money(self) -> Money:
        """What the merchant asked for."""
        return Money(self.amount, self.currency)

    @property
    def price(self) -> Quote:
        """What it costs the merchant and why, as it was kept; of old payments version 0."""
        day = self.price_day or business_date(self.created_at)
        kept = (self.fee, self.refund_returns_fee, day, self.price_volume, self.card_kind)
        return Quote(self.price_version or 0, *kept)

    @property
    def left(self) -> int:
        """What is neither given back, nor on its way, nor held or taken by disputes."""
        return self.captured - self.refunded - self.disputed

    @property
    def taken(self) -> Money:
        """What came in: all of it, or what was captured of it."""
        return Money(self.captured, self.currency)


class Attempt(Struct, frozen=True):
    """One row of the attempt table. The channel knows it by `number`."""

    book: int
    id: UUID
    payment_id: UUID
    merchant_id: UUID
    mode: Mode
    channel: str
    account_id: UUID
    pay_mode: PayMode
    amount: int
    currency: str
    state: AttemptState
    code: str | None
    channel_ref: str | None
    payer: str | None
    action: NextAction | None
    how: HowAsked | None
    client_ip: str
    created_at: datetime
    paid_at: datetime | None
    queries: int
    authorised_at: datetime | None = None
    authorisation_ref: str | None = None  # the channel's number of the authorisation
    authorisation_code: str | None = None
    capture_id: UUID | None = None  # of the capture that took the money
    capture_amount: int | None = None

    @property
    def number(self) -> str:
        """Our number at the channel, and the idempotency key of every call about it."""
        return base32(self.id)

    @property
    def taken_number(self) -> str:
        """The number under which the money came in: a capture's, where it was set aside first."""
        return base32(self.capture_id or self.id)

    @property
    def taken(self) -> Money:
        """What came in under that number, or what should."""
        return Money(self.capture_amount or self.amount, self.currency)

    @property
    def money(self) -> Money:
        """What this try should collect."""
        return Money(self.amount, self.currency)


class NewPayment(Struct, frozen=True):
    """A merchant's request with the terms that apply to it, ready to be written down."""

    merchant_id: UUID
    mode: Mode
    book: int
    merchant_order_no: str
    money: Money
    subject: str
    channel: str
    pay_mode: PayMode
    account_id: UUID
    price: Quote
    late_success: LateSuccess
    expires_in: timedelta
    metadata: dict[str, str]
    client_ip: str
    auth_code: str | None = None
    how: HowAsked | None = None
    card: CardRead | None = None
    stay: CarStay | None = None
    capture_within_s: int | None = None
    decision: Decision | None = None
    uses: tuple[Write, ...] = ()  # counted in the payment's own commit, or refused there
    stands: tuple[Write, ...] = ()  # what was agreed, looked at again at that commit's beginning

    @property
    def is_routed(self) -> bool:
        """Whether the merchant left the channel to us."""
        return self.decision is not None and self.decision.asked.channel is None

    @property
    def fingerprint(self) -> bytes:
        """What makes two requests the same order; the customer's one-time code does not.

        Nor does what a terminal read of a card: that is kept nowhere.
        """
        meant = (
            self.money.amount,
            self.money.currency,
            self.subject,
            "" if self.is_routed or self.pay_mode is PayMode.PAYMENT_CODE else self.channel,
            self.pay_mode,
            sorted(self.metadata.items()),
            *(() if self.how is None else (self.how,)),
            *(() if self.capture_within_s is None else ("manual", self.capture_within_s)),
        )
        return sha256(msgspec.json.encode(meant)).digest()


class Verdict(Struct, frozen=True):
    """What the risk hook says of a payment: declined under a code, or counted by these writes.

    The meters are part of the payment's own commit; one that refuses there refuses the payment.
    """

    declined: str | None = None
    meters: tuple[Write, ...] = ()


class RiskHook(Protocol):
    """Who is asked before the own wallet pays; wiring says who that is."""

    async def __call__(self, asked: NewPayment, wallet_id: UUID) -> Verdict:
        """Return whether the wallet may make this payment."""


_ALLOWED: Final = Verdict()


async def allow_all(asked: NewPayment, wallet_id: UUID) -> Verdict:
    """Decline nothing; the wallet's own limit for the day is counted all the same."""
    del asked, wallet_id
    return _ALLOWED


class PaidAttempt(Struct, frozen=True):
    """An attempt that took the customer's money, as clearing compares it.

    ``id`` is what the channel knows the money by: of the attempt, or of the capture.
    """

    book: int
    id: UUID
    payment_id: UUID
    amount: int
    currency: str
    paid_at: datetime


class PaidBy(Struct, frozen=True):
    """Which attempt a channel's trade has paid, or was set aside for."""

    book: int
    account_id: UUID
    trade: str
    id: UUID


class OverdueAttempt(Struct, frozen=True):
    """An attempt whose end is not known although its payment's time is over."""

    book: int
    id: UUID
    created_at: datetime
    expires_at: datetime


class OpenUnknown(Struct, frozen=True):
    """How many attempts of an account nobody knows the end of, and since when."""

    account_id: UUID
    attempts: int
    oldest_at: datetime


class StateChange(Struct, frozen=True):
    """One row of payment_state_change: a step of a payment and why it was taken."""

    book: int
    payment_id: UUID
    version: int
    from_state: str
    to_state: str
    why: str
    at: datetime


class ExchangeRow(Struct, frozen=True):
    """One row of the exchange table: what we sent to a channel and what came back."""

    book: int
    id: UUID
    payment_id: UUID
    refund_id: UUID | None
    purpose: str
    method: str
    url: str
    request: str
    status: int | None
    reply: str
    duration_ms: int
    outcome: str
    at: datetime


class PaymentCase(Struct, frozen=True):
    """One row of payment_case: a contradiction that people should see."""

    book: int
    id: UUID
    payment_id: UUID
    merchant_id: UUID
    mode: Mode
    kind: CaseKind
    detail: str
    opened_at: datetime
    closed_at: datetime | None
    resolution: str | None


class Tally(Struct, frozen=True):
    """How many payments stand where, and for how much; one per mode, state and currency."""

    mode: Mode
    state: PaymentState
    currency: str
    payments: int
    amount: int
    oldest_at: datetime


class Failure(Struct, frozen=True):
    """Why a payment failed, for the program and for the customer in both languages."""

    code: str
    message: str
    message_zh: str


class PaymentView(Struct, frozen=True, omit_defaults=True):
    """A payment as the API and the webhooks show it."""

    id: str
    object: Literal["payment"]
    mode: Mode
    merchant_order_no: str
    amount: int
    currency: str
    subject: str
    method: MethodView
    status: PaymentState
    version: int
    amount_captured: int
    amount_refunded: int
    fee: int
    fee_returned: int
    created_at: datetime
    expires_at: datetime
    metadata: dict[str, str]
    next_action: NextAction | UnsetType = UNSET
    failure: Failure | UnsetType = UNSET
    close_reason: CloseReason | UnsetType = UNSET
    succeeded_at: datetime | UnsetType = UNSET
    ended_at: datetime | UnsetType = UNSET
    capture: Literal["automatic", "manual"] = "automatic"
    amount_authorised: int | UnsetType = UNSET
    amount_capturing: int | UnsetType = UNSET
    amount_disputed: int | UnsetType = UNSET
    authorised_at: datetime | UnsetType = UNSET
    capture_before: datetime | UnsetType = UNSET


def view_payment(payment: Payment, attempt: Attempt) -> PaymentView:
    """Return the payment as the API and the webhooks show it."""
    failure = None
    if payment.failure_code is not None:
        text = error_map(payment.channel).customer_text(payment.failure_code)
        failure = Failure(payment.failure_code, text.en, text.zh)
    return PaymentView(
        id=show("pay", payment.id),
        object="payment",
        mode=payment.mode,
        merchant_order_no=payment.merchant_order_no,
        amount=payment.amount,
        currency=payment.currency,
        subject=payment.subject,
        method=view_method(payment.channel, payment.pay_mode, attempt.how),
        status=payment.state,
        version=payment.version,
        amount_captured=payment.captured,
        amount_refunded=payment.refunded,
        fee=payment.fee,
        fee_returned=payment.fee_returned,
        created_at=payment.created_at,
        expires_at=payment.expires_at,
        metadata=payment.metadata,
        next_action=_next_action(payment, attempt),
        failure=failure or UNSET,
        close_reason=payment.close_reason or UNSET,
        succeeded_at=payment.succeeded_at or UNSET,
        ended_at=payment.ended_at or UNSET,
        capture="automatic" if payment.capture_within_s is None else "manual",
        amount_authorised=payment.authorised or UNSET,
        amount_capturing=payment.capturing or UNSET,
        amount_disputed=payment.disputed or UNSET,
        authorised_at=payment.authorised_at or UNSET,
        capture_before=payment.authorised_until or UNSET,
    )


def _next_action(payment: Payment, attempt: Attempt) -> NextAction | UnsetType:
    if payment.state is not PaymentState.PENDING or attempt.action is None:
        return UNSET
    return attempt.action

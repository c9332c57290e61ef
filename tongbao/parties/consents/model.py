"""What a consent is, how it moves, and how a partner words it (RFC 9396). No I/O.

    awaiting ──► authorised ──► consumed   the one payment was made
        │             └───────► revoked    by the person, the partner, or a code used twice
        └──────► rejected

Rules and lives are those of the FAPI 2.0 Security Profile; consents end by business time, codes
and tokens by real time.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from typing import Annotated, Any, Final, Literal
from uuid import UUID

import msgspec
from msgspec import Meta, Struct

from tongbao.infra.outbox import Event
from tongbao.kernel.errors import Conflict, Invalid, NotFound, Rejected
from tongbao.kernel.ids import UnknownId, parse, show
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import AmountOutOfRange, Money, UnknownCurrency, positive
from tongbao.parties.partners.model import Kind

PREFIX: Final = "cns"
PAYMENT_PREFIX: Final = "opp"
REQUEST_LIFE: Final = timedelta(seconds=60)
"""How long a pushed request can be opened."""
OPENED_LIFE: Final = timedelta(minutes=10)
"""How long a person may take over it once it is open."""
CODE_LIFE: Final = timedelta(seconds=60)
ACCESS_LIFE: Final = timedelta(minutes=10)
INFORMATION_DAYS_MAX: Final = 180
"""What a consent to look may last; PSD2's rules (EU 2018/389 Art. 10a) have the same figure."""
ONCE_LIFE: Final = timedelta(hours=24)
"""How long a payment or a question about funds may wait after it was asked for."""
URN: Final = "urn:ietf:params:oauth:request_uri:"

Permission = Literal["accounts", "balances", "transactions"]
Scope = Literal["accounts", "payments"]


class ConsentNotFound(NotFound):
    """There is no such consent for whoever asks."""

    code = "consent.not_found"
    advice = "Check the id."
    advice_zh = "请检查授权标识。"


class ConsentEnded(Conflict):
    """The consent was used, revoked or rejected, or its time is over."""

    code = "consent.ended"
    advice = "Ask the person for a new consent."
    advice_zh = "授权已使用、已撤销或已过期，请重新向用户申请授权。"


class DetailsInvalid(Invalid):
    """The authorisation details say nothing that a person could consent to."""

    code = "consent.details_invalid"
    advice = "Send one authorisation detail, of a type and with the members of the reference."
    advice_zh = "请按接口文档提供一项授权详情（authorization_details）。"


class AccountNotHeld(NotFound):
    """The person does not hold this account, or it is not one that was consented to."""

    code = "consent.account_not_held"
    advice = "Use an account of the list."
    advice_zh = "请使用列表中的账户。"


class PaymentRefused(Rejected):
    """The money was not moved: see the reason; nothing has changed."""

    code = "consent.payment_refused"
    advice = "Read the reason; the consent can still be used until it ends."
    advice_zh = "付款未执行，请查看原因；授权到期前仍可使用。"


class State(StrEnum):
    """Where a consent stands."""

    AWAITING = "awaiting"
    AUTHORISED = "authorised"
    REJECTED = "rejected"
    REVOKED = "revoked"
    CONSUMED = "consumed"


class Amount(Struct, frozen=True, forbid_unknown_fields=True):
    """Money in minor units."""

    amount: Annotated[int, Meta(ge=1, le=10**15)]
    currency: Annotated[str, Meta(min_length=3, max_length=3)]


class Creditor(Struct, frozen=True, forbid_unknown_fields=True):
    """Who is paid."""

    account: Annotated[str, Meta(max_length=64)]
    name: Annotated[str, Meta(min_length=1, max_length=64)]


class AccountInformation(
    Struct, frozen=True, tag="account_information", tag_field="type", forbid_unknown_fields=True
):
    """See accounts that the person chooses, until a moment."""

    permissions: Annotated[list[Permission], Meta(min_length=1, max_length=3)]
    expires_at: datetime | None = None


class PaymentInitiation(
    Struct, frozen=True, tag="payment_initiation", tag_field="type", forbid_unknown_fields=True
):
    """Pay this much to this payee, once."""

    amount: Amount
    creditor: Creditor
    remittance: Annotated[str, Meta(max_length=140)] = ""


class FundsConfirmation(
    Struct, frozen=True, tag="funds_confirmation", tag_field="type", forbid_unknown_fields=True
):
    """Ask whether there is enough, and hear yes or no, until a moment."""

    expires_at: datetime | None = None


Details = AccountInformation | PaymentInitiation | FundsConfirmation


class Wish(Struct, frozen=True):
    """What a partner asks a person for, as the program decides by it."""

    kind: Kind
    details: dict[str, Any]
    permissions: list[str]
    money: Money | None
    payee: UUID | None
    payee_name: str | None
    expires_at: datetime


class Consent(Struct, frozen=True):
    """One row of the table."""

    id: UUID
    partner_id: UUID
    mode: Mode
    kind: Kind
    details: dict[str, Any]
    permissions: list[str]
    amount: int | None
    currency: str | None
    payee: UUID | None
    payee_name: str | None
    state: State
    person_id: UUID | None
    accounts: list[UUID]
    expires_at: datetime
    created_at: datetime
    decided_at: datetime | None
    ended_at: datetime | None
    ended_by: str | None
    last_used_at: datetime | None
    expiry_told_at: datetime | None

    @property
    def shown_id(self) -> str:
        """Return the id as people and partners see it."""
        return show(PREFIX, self.id)

    @property
    def money(self) -> Money | None:
        """Return what is to be paid."""
        if self.amount is None or self.currency is None:
            return None
        return Money(self.amount, self.currency)

    def is_good(self, now: datetime) -> bool:
        """Tell whether anything may be done on it."""
        return self.state is State.AUTHORISED and now < self.expires_at

    def status(self, now: datetime) -> str:
        """Return how it stands, time included."""
        is_open = self.state in {State.AWAITING, State.AUTHORISED}
        return "expired" if is_open and now >= self.expires_at else self.state.value


class ConsentNotice(Struct, frozen=True):
    """What a partner is told of a consent: nothing of the person, their accounts or the money.

    ``ended_by`` is ``person``, ``partner``, or ``security`` where a code came twice.
    """

    id: str
    object: Literal["consent"]
    type: Kind
    status: str
    ended_by: Literal["person", "partner", "security"] | None
    expires_at: datetime


class ConsentAuthorised(Event, frozen=True, kw_only=True, tag="consent.authorised"):
    """Somebody has consented, and the partner may act on it; told to the partner."""

    object: ConsentNotice


class ConsentRevoked(Event, frozen=True, kw_only=True, tag="consent.revoked"):
    """A consent was ended before its time, with every token on it; told to the partner."""

    object: ConsentNotice


class ConsentExpired(Event, frozen=True, kw_only=True, tag="consent.expired"):
    """A consent's time is over; told to the partner within some minutes."""

    object: ConsentNotice


class ConsentSuspended(Event, frozen=True, kw_only=True, tag="consent.suspended"):
    """Nothing is done on a consent for now: its person or its partner is suspended."""

    object: ConsentNotice


class ConsentResumed(Event, frozen=True, kw_only=True, tag="consent.resumed"):
    """A consent that was suspended is good again."""

    object: ConsentNotice


ConsentEvent = (
    ConsentAuthorised | ConsentRevoked | ConsentExpired | ConsentSuspended | ConsentResumed
)

_BY: Final[Mapping[str, Literal["person", "partner", "security"]]] = {
    "person": "person",
    "erasure": "person",  # that somebody has gone is nobody else's business
    "partner": "partner",
    "code_reuse": "security",
}


def notice_of(kind: type[ConsentEvent], consent: Consent, status: str) -> ConsentEvent:
    """Return the event that tells a consent's partner how it stands."""
    told = ConsentNotice(
        consent.shown_id,
        "consent",
        consent.kind,
        status,
        _BY.get(consent.ended_by or ""),
        consent.expires_at,
    )
    return kind(
        merchant_id=consent.partner_id,
        mode=consent.mode,
        resource_id=consent.shown_id,
        object=told,
    )


ResponseMode = Literal["query", "jwt"]
RESPONSE_MODES: Final = ("query", "jwt")
"""How a browser brings the answer back: as parameters, or as one token that we sign (JARM)."""


class Authorisation(Struct, frozen=True):
    """One pushed request on its way to a code. One row of the table."""

    id: UUID
    partner_id: UUID
    consent_id: UUID
    request_hash: bytes
    redirect_uri: str
    code_challenge: str
    client_state: str | None
    jkt: str | None
    pushed_at: datetime
    expires_at: datetime
    browser_hash: bytes | None
    person_id: UUID | None
    chosen: list[UUID]
    message_code: UUID | None
    code_hash: bytes | None
    code_expires_at: datetime | None
    code_used_at: datetime | None
    ended_at: datetime | None
    response_mode: ResponseMode


class Holder(Struct, frozen=True):
    """Whose token it is: the thumbprint of a DPoP key, or of a certificate; never both."""

    jkt: str | None = None
    x5t: str | None = None

    @property
    def token_type(self) -> str:
        """Return how the token is sent: a certificate needs no scheme of its own (RFC 8705 §3)."""
        return "Bearer" if self.jkt is None else "DPoP"

    @property
    def cnf(self) -> dict[str, str]:
        """Return the confirmation as JWTs and introspection have it (RFC 8705 §3, RFC 9449 §6)."""
        if self.jkt is not None:
            return {"jkt": self.jkt}
        return {} if self.x5t is None else {"x5t#S256": self.x5t}


class PartnerToken(Struct, frozen=True):
    """One row of the table of access and refresh tokens."""

    token_hash: bytes
    kind: Literal["access", "refresh"]
    authorisation_id: UUID
    partner_id: UUID
    consent_id: UUID
    jkt: str | None
    issued_at: datetime
    expires_at: datetime
    revoked_at: datetime | None
    x5t: str | None

    @property
    def holder(self) -> Holder:
        """Return what it is bound to."""
        return Holder(self.jkt, self.x5t)

    def is_good(self, now: datetime) -> bool:
        """Tell whether it opens anything by itself."""
        return self.revoked_at is None and now < self.expires_at


class PartnerAccess(Struct, frozen=True):
    """One row of the table of partners' own tokens."""

    token_hash: bytes
    partner_id: UUID
    scope: Scope
    jkt: str | None
    issued_at: datetime
    expires_at: datetime
    x5t: str | None

    @property
    def holder(self) -> Holder:
        """Return what it is bound to."""
        return Holder(self.jkt, self.x5t)


class Lodged(Struct, frozen=True):
    """Which consent was lodged under a key, and by which body."""

    body_hash: bytes
    consent_id: UUID


class ConsentPayment(Struct, frozen=True):
    """The payment that a consent was used for. One row of the table."""

    book: int
    consent_id: UUID
    payment_id: UUID
    partner_id: UUID
    mode: Mode
    payer: UUID
    payee: UUID
    amount: int
    currency: str
    paid_at: datetime


class NamedConsent(Struct, frozen=True, forbid_unknown_fields=True):
    """An authorisation detail that names a consent which was lodged before."""

    type: Kind
    consent_id: str


def read_named(text: str) -> tuple[Kind, UUID] | None:
    """Return which lodged consent ``authorization_details`` name, if that is what they do."""
    try:
        [named] = msgspec.json.decode(text, type=list[NamedConsent])
        return named.type, parse(PREFIX, named.consent_id)
    except (msgspec.DecodeError, ValueError, UnknownId):
        return None


def read_wish(text: str, now: datetime) -> Wish:
    """Return what a partner's ``authorization_details`` ask for.

    Raises:
        DetailsInvalid
    """
    try:
        [details] = msgspec.json.decode(text, type=list[Details])
        [raw] = msgspec.json.decode(text)
    except (msgspec.DecodeError, ValueError):
        raise DetailsInvalid(param="authorization_details") from None
    match details:
        case PaymentInitiation():
            return _payment(details, raw, now)
        case AccountInformation(permissions=permissions):
            if len(set(permissions)) != len(permissions):
                raise DetailsInvalid(param="permissions")
            kind = Kind.ACCOUNT_INFORMATION
            wanted: list[str] = [*permissions]
        case FundsConfirmation():
            kind, wanted = Kind.FUNDS_CONFIRMATION, []
    latest = now + timedelta(days=INFORMATION_DAYS_MAX)
    end = details.expires_at or latest
    if end.tzinfo is None or not now < end <= latest:
        raise DetailsInvalid(param="expires_at")
    return Wish(kind, raw, wanted, None, None, None, end)


def _payment(details: PaymentInitiation, raw: dict[str, Any], now: datetime) -> Wish:
    try:
        money = positive(details.amount.amount, details.amount.currency)
        payee = parse("wal", details.creditor.account)
    except (AmountOutOfRange, UnknownCurrency, UnknownId):
        raise DetailsInvalid(param="authorization_details") from None
    name = details.creditor.name.strip()
    if not name or not name.isprintable() or not details.remittance.isprintable():
        raise DetailsInvalid(param="creditor.name")
    return Wish(Kind.PAYMENT_INITIATION, raw, [], money, payee, name, now + ONCE_LIFE)


def new_secret() -> str:
    """Return 256 bits of chance as text."""
    return secrets.token_urlsafe(32)


def hashed(secret: str) -> bytes:
    """Return what is kept of a secret that has 256 bits of chance in it."""
    return sha256(secret.encode()).digest()

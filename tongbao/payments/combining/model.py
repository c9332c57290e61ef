"""What combined payments are, and what they can be refused for. No I/O.

    created ─► pending ─► succeeded | closed | mixed
       ▲──────────┘ the customer wants another way, and this one is provably closed

The money is in the parts: each is a payment of its own merchant, with its own number at the
channel, and is posted on the channel's word about that number alone. The whole only says how far
its parts got. ``mixed`` should never be: some were paid and others were not.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from typing import Literal
from uuid import UUID

import msgspec
from msgspec import UNSET, Struct, UnsetType

from tongbao.kernel.errors import Conflict, Forbidden, Invalid, NotFound, Rejected
from tongbao.kernel.ids import base32, show
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import Money
from tongbao.payments.collecting.model import Payment, PaymentState
from tongbao.payments.methods.asked import HowAsked, MethodView
from tongbao.rails.channels.contract.orders import PayMode
from tongbao.rails.channels.contract.outcomes import NextAction


class CombiningNotOffered(Rejected):
    """The channel takes no combined payments, or not in this way of paying or currency."""

    code = "combined.not_offered"
    advice = "Choose a channel and mode that combine orders, such as wechat_pay with qr."
    advice_zh = "该渠道或支付方式不支持合单支付，请更换。"


class CombiningNotAllowed(Forbidden):
    """A part is of a merchant who has not agreed that the caller asks for its orders."""

    code = "combined.not_allowed"
    advice = "Let that merchant give its consent first: POST /v1/combining_consents."
    advice_zh = "子单所属商户尚未授权，请其先通过 /v1/combining_consents 授权。"


class CombinedApart(Rejected):
    """The parts' merchants are not served by one account at the channel."""

    code = "combined.accounts_differ"
    advice = "Combine orders of merchants whom the same merchant number serves at the channel."
    advice_zh = "各子单商户须由同一渠道商户号（服务商）发起，方可合单。"


class CombinedNumberUsed(Conflict):
    """The merchant's number of the combined payment belongs to another request, for ever."""

    code = "combined.number_used"
    advice = "Use a new merchant_combined_no, or repeat the first request unchanged."
    advice_zh = "请更换 merchant_combined_no，或原样重复首次请求。"


class CombinedOrdersRepeat(Invalid):
    """Two parts are the same order."""

    code = "combined.orders_repeat"
    advice = "Give each part of a merchant an order number of its own."
    advice_zh = "同一商户的各子单订单号不得重复。"


class CombinedNotFound(NotFound):
    """The caller has no such combined payment."""

    code = "combined.not_found"
    advice = "Check the id, and that the API key is of the same merchant and mode."
    advice_zh = "请检查合单标识，并确认 API 密钥属于同一商户与模式。"


class ConsentsTooMany(Rejected):
    """The merchant has agreed with as many others as it may."""

    code = "combined.consents_too_many"
    advice = "Withdraw a consent that is not needed any more."
    advice_zh = "授权数量已达上限，请先撤回不再需要的授权。"


class CombinedState(StrEnum):
    """Where a combined payment stands; the last three are ends."""

    CREATED = "created"
    PENDING = "pending"
    SUCCEEDED = "succeeded"
    CLOSED = "closed"
    MIXED = "mixed"

    @property
    def is_open(self) -> bool:
        """Whether the customer may still pay."""
        return self in {CombinedState.CREATED, CombinedState.PENDING}


class CombinedPayment(Struct, frozen=True):
    """One row of combined_payment. The channel knows it by `number`."""

    book: int
    id: UUID
    merchant_id: UUID
    mode: Mode
    merchant_combined_no: str
    request_hash: bytes
    channel: str
    account_id: UUID
    pay_mode: PayMode
    amount: int
    currency: str
    how: HowAsked | None
    client_ip: str
    state: CombinedState
    action: NextAction | None
    code: str | None
    created_at: datetime
    expires_at: datetime
    ended_at: datetime | None
    version: int
    chooses: bool = False  # whether the customer may choose another way to pay
    tries: int = 1
    try_id: UUID | None = None  # of a try after the first
    wish: str | None = None  # the way to try next, once this one is closed

    @property
    def number(self) -> str:
        """Our number of the whole at the channel, as it is tried now."""
        return base32(self.try_id or self.id)

    @property
    def way(self) -> str:
        """How it is tried now, as a form and a wish name it."""
        return f"{self.channel}.{self.pay_mode}"

    @property
    def money(self) -> Money:
        """What the customer pays in all."""
        return Money(self.amount, self.currency)


class CombinedMember(Struct, frozen=True):
    """One row of combined_part: which payment is which part."""

    book: int
    combined_id: UUID
    place: int
    merchant_id: UUID
    mode: Mode
    part_book: int
    payment_id: UUID
    attempt_id: UUID
    try_id: UUID | None = None


class CombinedFilter(Struct, frozen=True):
    """Which combined payments a list shows; every None means any."""

    merchant_id: UUID | None = None
    mode: Mode | None = None
    status: CombinedState | None = None
    channel: str | None = None
    number: str | None = None
    created_from: datetime | None = None
    created_to: datetime | None = None


class Consent(Struct, frozen=True):
    """One row of combining_consent: whom a merchant lets ask for its orders."""

    book: int
    merchant_id: UUID
    mode: Mode
    initiator_id: UUID
    given_at: datetime
    withdrawn_at: datetime | None


class PartAsked(Struct, frozen=True):
    """One order to be paid with others."""

    merchant_id: UUID
    merchant_order_no: str
    money: Money
    subject: str
    metadata: dict[str, str]


class NewCombined(Struct, frozen=True):
    """A merchant's request to have several orders paid in one go."""

    merchant_id: UUID
    mode: Mode
    book: int
    merchant_combined_no: str
    channel: str
    pay_mode: PayMode
    how: HowAsked | None
    client_ip: str
    expires_in: timedelta
    parts: Sequence[PartAsked]
    chooses: bool = False

    @property
    def money(self) -> Money:
        """The sum of the parts."""
        return Money(sum(part.money.amount for part in self.parts), self.parts[0].money.currency)

    @property
    def fingerprint(self) -> bytes:
        """What makes two requests the same combined payment."""
        parts = [
            (
                part.merchant_id,
                part.merchant_order_no,
                part.money.amount,
                part.subject,
                sorted(part.metadata.items()),
            )
            for part in self.parts
        ]
        how = () if self.how is None else (self.how,)
        chooses = ("chooses",) if self.chooses else ()
        meant = (self.channel, self.pay_mode, *how, *chooses, self.money.currency, parts)
        return sha256(msgspec.json.encode(meant)).digest()

    def row(self, combined_id: UUID, account_id: UUID, now: datetime) -> CombinedPayment:
        """Return the row of the whole as it begins."""
        return CombinedPayment(
            book=self.book,
            id=combined_id,
            merchant_id=self.merchant_id,
            mode=self.mode,
            merchant_combined_no=self.merchant_combined_no,
            request_hash=self.fingerprint,
            channel=self.channel,
            account_id=account_id,
            pay_mode=self.pay_mode,
            amount=self.money.amount,
            currency=self.money.currency,
            how=self.how,
            client_ip=self.client_ip,
            state=CombinedState.CREATED,
            action=None,
            code=None,
            created_at=now,
            expires_at=now + self.expires_in,
            ended_at=None,
            version=1,
            chooses=self.chooses,
        )


def end_of(parts: Sequence[Payment]) -> CombinedState | None:
    """Return how a combined payment ended whose parts stand so, or None while one is open."""
    if any(part.state.is_open for part in parts):
        return None
    paid = sum(part.state is PaymentState.SUCCEEDED for part in parts)
    if paid == len(parts):
        return CombinedState.SUCCEEDED
    return CombinedState.MIXED if paid else CombinedState.CLOSED


class CombinedPartView(Struct, frozen=True):
    """One part of a combined payment: its payment, as far as who combined it is told."""

    payment_id: str
    merchant_id: str
    merchant_order_no: str
    amount: int
    subject: str
    status: PaymentState


class CombinedPaymentView(Struct, frozen=True, omit_defaults=True):
    """A combined payment as the API and the webhooks show it."""

    id: str
    object: Literal["combined_payment"]
    mode: Mode
    merchant_combined_no: str
    amount: int
    currency: str
    method: MethodView
    status: CombinedState
    version: int
    parts: Sequence[CombinedPartView]
    created_at: datetime
    expires_at: datetime
    next_action: NextAction | UnsetType = UNSET
    code: str | UnsetType = UNSET
    ended_at: datetime | UnsetType = UNSET
    hosted_url: str | UnsetType = UNSET  # where the customer pays; not in events
    customer_chooses: bool = False


class ConsentView(Struct, frozen=True):
    """Whom a merchant lets ask for its orders together with theirs."""

    merchant_id: str
    given_at: datetime


def view_combined(combined: CombinedPayment, parts: Sequence[Payment]) -> CombinedPaymentView:
    """Return the combined payment as the API and the webhooks show it."""
    shows = combined.state is CombinedState.PENDING and combined.action is not None
    return CombinedPaymentView(
        id=show("cmb", combined.id),
        object="combined_payment",
        mode=combined.mode,
        merchant_combined_no=combined.merchant_combined_no,
        amount=combined.amount,
        currency=combined.currency,
        method=MethodView(combined.channel, combined.pay_mode),
        status=combined.state,
        version=combined.version,
        parts=[_view_part(part) for part in parts],
        created_at=combined.created_at,
        expires_at=combined.expires_at,
        next_action=combined.action if shows and combined.action is not None else UNSET,
        code=combined.code or UNSET,
        ended_at=combined.ended_at or UNSET,
        customer_chooses=combined.chooses,
    )


def _view_part(part: Payment) -> CombinedPartView:
    return CombinedPartView(
        payment_id=show("pay", part.id),
        merchant_id=show("mch", part.merchant_id),
        merchant_order_no=part.merchant_order_no,
        amount=part.amount,
        subject=part.subject,
        status=part.state,
    )

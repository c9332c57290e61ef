"""What refunds are, and what news from a channel does to them. No I/O.

    requested ─► pending ─► succeeded | failed
         └────► unknown ◄─► pending

The merchant's money is held when a refund is requested, posted when the channel has given it
back, released when the channel says it will not.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Literal, assert_never
from uuid import UUID

from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import replace

from tongbao.kernel.errors import Conflict
from tongbao.kernel.ids import base32
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import Money
from tongbao.payments.collecting.model import CaseKind
from tongbao.rails.channels.contract.outcomes import (
    Absent,
    Declined,
    NotSent,
    Pending,
    Succeeded,
    Unknown,
)


class RefundState(StrEnum):
    """Where a refund stands; the last two are ends."""

    REQUESTED = "requested"
    PENDING = "pending"
    UNKNOWN = "unknown"
    SUCCEEDED = "succeeded"
    FAILED = "failed"

    @property
    def is_open(self) -> bool:
        """Whether the money is still on its way or may be."""
        return self in {RefundState.REQUESTED, RefundState.PENDING, RefundState.UNKNOWN}


class Refund(Struct, frozen=True):
    """One row of the refund table. The channel knows it by `number`."""

    book: int
    id: UUID
    payment_id: UUID
    attempt_id: UUID
    merchant_id: UUID
    mode: Mode
    merchant_refund_no: str
    amount: int
    currency: str
    fee_back: int
    kind: Literal["merchant", "late"]
    reason: str
    state: RefundState
    code: str | None
    channel_ref: str | None
    channel_at: datetime | None  # when the channel says it gave the money back
    created_at: datetime
    ended_at: datetime | None
    queries: int
    version: int
    staff_id: UUID | None = None  # who asked for it at a till

    @property
    def number(self) -> str:
        """Our number at the channel, and the idempotency key of every call about it."""
        return base32(self.id)

    @property
    def money(self) -> Money:
        """What is given back."""
        return Money(self.amount, self.currency)


class GivenBack(Struct, frozen=True):
    """A refund that a channel gave back, as clearing compares it."""

    book: int
    id: UUID
    payment_id: UUID
    attempt_id: UUID
    amount: int
    currency: str
    created_at: datetime
    channel_at: datetime


RefundNews = Succeeded | Pending | Declined | NotSent | Unknown | Absent
"""Anything a channel can say about a refund."""


class RefundNotStoppable(Conflict):
    """Only late money that is still to be given back can be kept from it."""

    code = "refund.not_stoppable"
    advice = "Look at the payment; its refund has ended, or is the merchant's own."
    advice_zh = "仅可停止尚未结束的迟到款项退款，请查看该支付单。"


class RefundStop(Struct, frozen=True):
    """One row of refund_stop: people will give this late money back another way."""

    book: int
    refund_id: UUID
    asked_at: datetime
    asked_by: str


class Redirection(Struct, frozen=True):
    """One row of refund_redirection: where a stuck refund is to go; sealed until it is there."""

    book: int
    refund_id: UUID
    merchant_id: UUID
    mode: Mode
    request_hash: bytes
    target: Literal["customer_card", "merchant_account"]
    sealed: bytes | None
    state: Literal["requested", "accepted", "refused"]
    code: str | None
    tries: int
    asked_at: datetime
    ended_at: datetime | None


class RedirectionView(Struct, frozen=True, omit_defaults=True):
    """Where a stuck refund is sent, as the API shows it; whose card it is nobody is shown."""

    refund_id: str
    object: Literal["refund_redirection"]
    target: Literal["customer_card", "merchant_account"]
    status: Literal["requested", "accepted", "refused"]
    asked_at: datetime
    code: str | UnsetType = UNSET
    ended_at: datetime | UnsetType = UNSET


class RefundStep(Struct, frozen=True):
    """What news does to a refund: the row as it becomes and whether its hold is posted or void."""

    refund: Refund | None = None
    ledger: Literal["post", "void"] | None = None
    case: CaseKind | None = None
    detail: str = ""


def next_refund_step(refund: Refund, news: RefundNews, now: datetime) -> RefundStep | None:
    """Return what the news changes about a refund, or None when it is no news."""
    match news:
        case Succeeded():
            return _on_refunded(refund, news, now)
        case Declined():
            return _on_declined(refund, news.code, now)
        case Pending() | Unknown():
            return _on_open(refund, news)
        case NotSent() | Absent():
            # A repeat that never left, or a number not known yet, proves nothing: ask again later.
            return None
        case _:
            assert_never(news)


def _on_open(refund: Refund, news: Pending | Unknown) -> RefundStep | None:
    target = RefundState.PENDING if isinstance(news, Pending) else RefundState.UNKNOWN
    learned_more = refund.state is RefundState.UNKNOWN and target is RefundState.PENDING
    if refund.state is not RefundState.REQUESTED and not learned_more:
        return None
    return RefundStep(refund=replace(refund, state=target, code=news.reason[:64] or None))


def _on_refunded(refund: Refund, news: Succeeded, now: datetime) -> RefundStep | None:
    if news.money != refund.money:
        told, asked = news.money.decimal_text(), refund.money.decimal_text()
        return _refund_contradiction(refund, f"channel gave back {told}, asked {asked}")
    if refund.state is RefundState.SUCCEEDED:
        return None
    if refund.state is RefundState.FAILED:
        return _refund_contradiction(refund, f"given back as {news.channel_ref} after it failed")
    done = replace(
        refund,
        state=RefundState.SUCCEEDED,
        code=None,
        channel_ref=news.channel_ref,
        channel_at=news.at,
        ended_at=now,
    )
    return RefundStep(refund=done, ledger="post")


def _on_declined(refund: Refund, code: str, now: datetime) -> RefundStep | None:
    if refund.state is RefundState.SUCCEEDED:
        return _refund_contradiction(refund, f"declined with {code} after success")
    if refund.state is RefundState.FAILED:
        return None
    if refund.kind == "late":
        # The money is not the merchant's to keep: people must find the customer another way.
        detail = f"late money could not be given back: {code}"
        return RefundStep(case=CaseKind.REFUND_NEEDS_PEOPLE, detail=detail)
    failed = replace(refund, state=RefundState.FAILED, code=code[:64], ended_at=now)
    return RefundStep(refund=failed, ledger="void")


def _refund_contradiction(refund: Refund, detail: str) -> RefundStep:
    return RefundStep(case=CaseKind.CONTRADICTION, detail=f"refund {refund.number}: {detail}")


class RefundView(Struct, frozen=True, omit_defaults=True):
    """A refund as the API and the webhooks show it; ``staff_id``: who gave it back at a till."""

    id: str
    object: Literal["refund"]
    mode: Mode
    payment_id: str
    merchant_refund_no: str
    amount: int
    currency: str
    fee_returned: int
    kind: Literal["merchant", "late"]
    reason: str
    status: RefundState
    version: int
    created_at: datetime
    code: str | UnsetType = UNSET
    ended_at: datetime | UnsetType = UNSET
    staff_id: str | UnsetType = UNSET

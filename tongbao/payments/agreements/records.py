"""What is kept beside an agreement: what was asked of its channel, and what payments took."""

from __future__ import annotations

from datetime import date, datetime
from uuid import UUID

from msgspec import Struct

from tongbao.kernel.licence import Mode
from tongbao.payments.agreements.model import AgreementState


class AgreementExchange(Struct, frozen=True):
    """One row of agreement_exchange: what was asked of a channel about an agreement."""

    book: int
    id: UUID
    agreement_id: UUID
    purpose: str
    method: str
    url: str
    request: str
    status: int | None
    reply: str
    duration_ms: int
    outcome: str
    at: datetime


class AgreementUse(Struct, frozen=True):
    """One row of agreement_use: what a payment took of the limit, until it ended unpaid."""

    book: int
    payment_id: UUID
    agreement_id: UUID
    amount: int
    period_begins: date
    at: datetime
    released_at: datetime | None


class AgreementFilter(Struct, frozen=True):
    """Which agreements a list shows; every None means any."""

    merchant_id: UUID | None = None
    mode: Mode | None = None
    status: AgreementState | None = None
    channel: str | None = None
    merchant_agreement_no: str | None = None
    created_from: datetime | None = None
    created_to: datetime | None = None

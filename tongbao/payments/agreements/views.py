"""Agreements as the API and the webhooks show them."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from msgspec import UNSET, Struct, UnsetType

from tongbao.kernel.ids import show
from tongbao.kernel.licence import Mode
from tongbao.payments.agreements.model import Agreement, AgreementState, Period
from tongbao.rails.channels.contract.outcomes import NextAction


class AgreementView(Struct, frozen=True, omit_defaults=True):
    """An agreement as the API and the webhooks show it."""

    id: str
    object: Literal["agreement"]
    mode: Mode
    merchant_agreement_no: str
    channel: str
    plan: str
    display_name: str
    currency: str
    status: AgreementState
    version: int
    amount_used: int
    amount_used_total: int
    payments_used: int
    created_at: datetime
    expires_at: datetime
    limit_each: int | UnsetType = UNSET
    period: Period | UnsetType = UNSET
    limit_per_period: int | UnsetType = UNSET
    limit_total: int | UnsetType = UNSET
    payments_max: int | UnsetType = UNSET
    next_action: NextAction | UnsetType = UNSET
    code: str | UnsetType = UNSET
    signed_at: datetime | UnsetType = UNSET
    ends_at: datetime | UnsetType = UNSET
    ended_at: datetime | UnsetType = UNSET


def view_agreement(agreement: Agreement, now: datetime) -> AgreementView:
    """Return the agreement as the API and the webhooks show it at this moment."""
    shows = agreement.state is AgreementState.PENDING and agreement.action is not None
    return AgreementView(
        id=show("agr", agreement.id),
        object="agreement",
        mode=agreement.mode,
        merchant_agreement_no=agreement.merchant_agreement_no,
        channel=agreement.channel,
        plan=agreement.plan,
        display_name=agreement.display_name,
        currency=agreement.currency,
        status=agreement.state,
        version=agreement.version,
        amount_used=agreement.used_at(now),
        amount_used_total=agreement.used_total,
        payments_used=agreement.payments_used,
        created_at=agreement.created_at,
        expires_at=agreement.expires_at,
        limit_each=agreement.limit_each or UNSET,
        period=agreement.period or UNSET,
        limit_per_period=agreement.limit_per_period or UNSET,
        limit_total=agreement.limit_total or UNSET,
        payments_max=agreement.payments_max or UNSET,
        next_action=agreement.action if shows and agreement.action is not None else UNSET,
        code=agreement.code or UNSET,
        signed_at=agreement.signed_at or UNSET,
        ends_at=agreement.ends_at or UNSET,
        ended_at=agreement.ended_at or UNSET,
    )

"""The wire forms of paying from one's own electronic accounts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from tongbao.kernel.ids import show
from tongbao.kernel.licence import Mode
from tongbao.parties.e_accounts.model import PREFIX as ACCOUNT
from tongbao.payments.e_account_payments.model import EAccountPayment, EAccountRefund


class ScanCode(Struct, frozen=True, forbid_unknown_fields=True):
    """What the app has scanned, as it is."""

    code: Annotated[str, Meta(min_length=1, max_length=256)]


class WayView(Struct, frozen=True, kw_only=True):
    """One account that might pay; a ``code`` says which rule stands against it, with its facts."""

    account_id: str
    kind: str
    available: int
    currency: str
    level: int  # what would have to be confirmed: 0 nothing, 3 by certificate
    code: str | None
    facts: dict[str, Any]


class CodeScanView(Struct, frozen=True, kw_only=True):
    """What a merchant's code asks for, and out of which accounts it can be paid."""

    object: Literal["code_scan"]
    payment_id: str
    mode: Mode
    payee: str
    subject: str
    amount: int
    currency: str
    status: str
    expires_at: datetime
    ways: list[WayView]


class EAccountRefundView(Struct, frozen=True, kw_only=True):
    """What was given back, and where it is."""

    id: str
    object: Literal["e_account_refund"]
    payment_id: str
    account_id: str
    amount: int
    currency: str
    status: str
    code: str | None
    created_at: datetime
    taken_at: datetime | None
    taken_to: str | None


class EAccountPaymentView(Struct, frozen=True, kw_only=True):
    """A payment out of an account, with what was given back of it."""

    id: str
    object: Literal["e_account_payment"]
    account_id: str
    payee: str
    subject: str
    amount: int
    currency: str
    level: int
    paid_at: datetime
    refunds: list[EAccountRefundView]


def view_payment(made: EAccountPayment, backs: Sequence[EAccountRefund]) -> EAccountPaymentView:
    """Return a payment as its person sees it."""
    return EAccountPaymentView(
        id=show("pay", made.payment_id),
        object="e_account_payment",
        account_id=show(ACCOUNT, made.account_id),
        payee=made.payee,
        subject=made.subject,
        amount=made.amount,
        currency=made.currency,
        level=made.level,
        paid_at=made.paid_at,
        refunds=[view_refund(each) for each in backs],
    )


def view_refund(back: EAccountRefund) -> EAccountRefundView:
    """Return what was given back as its person sees it."""
    return EAccountRefundView(
        id=show("ref", back.refund_id),
        object="e_account_refund",
        payment_id=show("pay", back.payment_id),
        account_id=show(ACCOUNT, back.account_id),
        amount=back.amount,
        currency=back.currency,
        status=back.state.value,
        code=back.code,
        created_at=back.made_at,
        taken_at=back.taken_at,
        taken_to=None if back.taken_to is None else show(ACCOUNT, back.taken_to),
    )

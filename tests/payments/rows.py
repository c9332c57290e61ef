"""Rows of payments, attempts and refunds as pure values, for tests without a database."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from msgspec.structs import replace

from tongbao.kernel.licence import Mode
from tongbao.kernel.money import Money
from tongbao.parties.merchants.model import LateSuccess
from tongbao.payments.collecting.model import Attempt, AttemptState, Payment, PaymentState
from tongbao.payments.refunds.model import Refund, RefundState
from tongbao.rails.channels.contract.orders import PayMode

NOON = datetime(2026, 11, 21, 4, tzinfo=UTC)
AMOUNT = Money(1999, "CNY")

_PAYMENT = Payment(
    book=1,
    id=UUID(int=1),
    merchant_id=UUID(int=2),
    mode=Mode.SANDBOX,
    merchant_order_no="A-1",
    request_hash=b"",
    amount=AMOUNT.amount,
    currency=AMOUNT.currency,
    subject="tea",
    channel="wechat_pay",
    pay_mode=PayMode.QR,
    state=PaymentState.CREATED,
    captured=0,
    refunded=0,
    fee=16,
    fee_returned=0,
    refund_returns_fee=False,
    late_success=LateSuccess.REFUND,
    failure_code=None,
    close_reason=None,
    close_requested_at=None,
    metadata={},
    created_at=NOON,
    expires_at=NOON + timedelta(minutes=30),
    succeeded_at=None,
    ended_at=None,
    version=1,
)
_ATTEMPT = Attempt(
    book=1,
    id=UUID(int=3),
    payment_id=UUID(int=1),
    merchant_id=UUID(int=2),
    mode=Mode.SANDBOX,
    channel="wechat_pay",
    account_id=UUID(int=4),
    pay_mode=PayMode.QR,
    amount=AMOUNT.amount,
    currency=AMOUNT.currency,
    state=AttemptState.CREATED,
    code=None,
    channel_ref=None,
    payer=None,
    action=None,
    how=None,
    client_ip="127.0.0.1",
    created_at=NOON,
    paid_at=None,
    queries=0,
)
_REFUND = Refund(
    book=1,
    id=UUID(int=5),
    payment_id=UUID(int=1),
    attempt_id=UUID(int=3),
    merchant_id=UUID(int=2),
    mode=Mode.SANDBOX,
    merchant_refund_no="R-1",
    amount=500,
    currency="CNY",
    fee_back=4,
    kind="merchant",
    reason="",
    state=RefundState.REQUESTED,
    code=None,
    channel_ref=None,
    channel_at=None,
    created_at=NOON,
    ended_at=None,
    queries=0,
    version=1,
)


def new_payment(**fields: Any) -> Payment:
    """A payment that was just asked for."""
    return replace(_PAYMENT, **fields)


def new_attempt(**fields: Any) -> Attempt:
    """Its attempt, before the channel was called."""
    return replace(_ATTEMPT, **fields)


def new_refund(**fields: Any) -> Refund:
    """A refund of it, before the channel was called."""
    return replace(_REFUND, **fields)

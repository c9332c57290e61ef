"""Fees worked out again from what payments keep. No I/O."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from typing import Literal
from uuid import UUID

from msgspec import Struct, field

from tongbao.kernel.clock import business_date
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import Money
from tongbao.parties.price_plans.model import (
    CardKind,
    Inputs,
    PriceNotAgreed,
    PricePlan,
    quote,
)
from tongbao.payments.collecting.model import Payment, PaymentState

DIFFERENCES_MAX = 100


class FeeDifference(Struct, frozen=True):
    """What a payment or a month keeps, and what comes out when it is worked out again."""

    what: Literal[
        "fee", "refund_returns_fee", "fee_returned", "volume", "plan", "booked", "booked_back"
    ]
    payment_id: UUID | None
    merchant_id: UUID
    kept: int | None
    expected: int | None


class FeeReport(Struct):
    """What looking at every fee of a period found; the first differences, in order of time."""

    checked: int = 0
    without_version: int = 0  # of before versions were kept: nobody can work these out
    differences: int = 0
    first: list[FeeDifference] = field(default_factory=list)

    def add(self, found: FeeDifference) -> None:
        """Take note of a difference."""
        self.differences += 1
        if len(self.first) < DIFFERENCES_MAX:
            self.first.append(found)


def inputs_of(payment: Payment) -> Inputs:
    """Return what the payment's fee was worked out from, as the payment keeps it."""
    kept = payment.price
    # What was set aside first is charged for what was captured of it.
    amount = payment.captured if payment.capture_within_s and payment.captured else payment.amount
    return Inputs(
        payment.channel,
        payment.pay_mode,
        Money(amount, payment.currency),
        kept.day,
        kept.volume or 0,
        kept.card or CardKind.ANY,
    )


def differences_of(payment: Payment, plan: PricePlan | None) -> Iterator[FeeDifference]:
    """Yield what differs when the payment's fee is worked out again by the version it names."""
    whose = (payment.id, payment.merchant_id)
    try:
        again = quote(plan, inputs_of(payment))
    except PriceNotAgreed:
        yield FeeDifference("plan", *whose, payment.price_version, None)
        return
    if again.fee != payment.fee:
        yield FeeDifference("fee", *whose, payment.fee, again.fee)
    if again.refund_returns_fee != payment.refund_returns_fee:
        kept, found = payment.refund_returns_fee, again.refund_returns_fee
        yield FeeDifference("refund_returns_fee", *whose, int(kept), int(found))
    if payment.state is PaymentState.SUCCEEDED:
        yield from _returned(payment)


def _returned(payment: Payment) -> Iterator[FeeDifference]:
    """Yield what differs in what refunds gave back, where that is known: at nothing and at all."""
    if not payment.refund_returns_fee or payment.refunded == 0:
        due = 0
    elif payment.refunded == payment.captured:
        due = payment.fee
    else:
        return
    if payment.fee_returned != due:
        ids = (payment.id, payment.merchant_id)
        yield FeeDifference("fee_returned", *ids, payment.fee_returned, due)


class WayCost(Struct):
    """What payments over one channel, in one way, cost, and what they would have."""

    payments: int = 0
    amount: int = 0
    fee: int = 0
    fee_then: int = 0  # under the draft
    unpriced: int = 0  # the draft has no price for them


class Costs:
    """Adds up what the payments of a merchant would have cost under a draft, in order of time."""

    def __init__(self, plan: PricePlan) -> None:
        self._plan = plan
        self._volumes: dict[date, int] = {}
        self.ways: dict[tuple[str, str], WayCost] = {}

    def add(self, payment: Payment) -> None:
        """Count a payment that succeeded."""
        day = payment.price_day or business_date(payment.created_at)
        way, month = (payment.channel, payment.pay_mode.value), day.replace(day=1)
        cost = self.ways.setdefault(way, WayCost())
        cost.payments += 1
        cost.amount += payment.captured
        cost.fee += payment.fee
        money = Money(payment.captured, payment.currency)
        volume, card = self._volumes.get(month, 0), payment.card_kind or CardKind.ANY
        try:
            found = quote(self._plan, Inputs(*way, money, day, volume, card))
        except PriceNotAgreed:
            cost.unpriced += 1
            return
        cost.fee_then += found.fee
        if found.volume is not None:
            self._volumes[month] = volume + payment.captured


class Volume(Struct, frozen=True):
    """What a merchant's payments of a month come to that count its volume."""

    book: int
    merchant_id: UUID
    mode: Mode
    currency: str
    month: date

"""Price plans and fees: what they are and how a fee is worked out. No I/O.

Each version of a plan is in force from its `valid_from` until the next one's. A line prices one way
of paying: the promotion of the day if there is one, else the last of its steps that is reached,
else its own charge. A line for a kind of card goes before the line for any card.

Rounding: every fee is rounded once, half up, to the minor unit; the fixed part is added, the floor
and the cap are kept, and no fee is above its payment. What refunds give back is rounded down in
sum, so that all of them together give the whole fee, however many there are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date, datetime
from enum import StrEnum
from itertools import pairwise
from typing import Annotated, Final, Literal
from uuid import UUID

from msgspec import Meta, Struct

from tongbao.kernel.clock import business_date
from tongbao.kernel.errors import Conflict, Invalid, Rejected
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import AMOUNT_MAX, Money, share_half_up

_PPM_MAX: Final = 100_000  # ten percent; nobody charges more
LINES_MAX: Final = 200
STEPS_MAX: Final = 20
_VOLUME_MAX: Final = 10**18


class PriceNotAgreed(Rejected):
    """No price was agreed for this channel, way of paying and currency at this time."""

    code = "price.not_agreed"
    advice = "Use a channel and currency of the merchant's price plan, or have it extended."
    advice_zh = "请使用价格方案内的渠道与币种，或申请开通。"


class PriceLinesInvalid(Invalid):
    """A price plan has no lines, two for the same, or one that contradicts itself."""

    code = "price.lines_invalid"
    advice = (
        "Give exactly one line for each channel, way of paying and kind of card, its steps in"
        " rising order, its promotions one after another, no cap below its floor."
    )
    advice_zh = (
        "每个渠道、支付方式与卡种应有且仅有一条价格；阶梯须递增，优惠期不得重叠，封顶不得低于保底。"
    )


class PriceInThePast(Rejected):
    """Prices are agreed for the future: fees already taken stay as they were."""

    code = "price.in_the_past"
    advice = "Let the plan begin now or later."
    advice_zh = "价格方案的生效时间不得早于当前时间。"


class PriceStartTaken(Conflict):
    """Another version of the plan begins at the same moment."""

    code = "price.start_taken"
    advice = "Choose another moment."
    advice_zh = "该时刻已有其他价格版本生效，请另选时间。"


class CardKind(StrEnum):
    """What kind of card paid, where the channel tells; any where it does not."""

    ANY = "any"
    DEBIT = "debit"
    CREDIT = "credit"
    FOREIGN = "foreign"


_Share = Annotated[int, Meta(ge=0, le=_PPM_MAX)]
_Amount = Annotated[int, Meta(ge=0, le=AMOUNT_MAX)]
_Volume = Annotated[int, Meta(ge=0, le=_VOLUME_MAX)]


class Charge(Struct, frozen=True, forbid_unknown_fields=True):
    """A share in millionths, plus a fixed sum, within a floor and a cap, in minor units."""

    rate_ppm: _Share
    fixed: _Amount = 0
    fee_min: _Amount = 0
    fee_max: _Amount | None = None

    def of(self, amount: int) -> int:
        """Return the fee for an amount in minor units, half up, never above the amount."""
        fee = max(share_half_up(amount, self.rate_ppm) + self.fixed, self.fee_min)
        return min(fee, amount if self.fee_max is None else min(self.fee_max, amount))


class Step(Charge, frozen=True, kw_only=True):
    """The charge from an amount of the payment, and a volume of the month before it, on."""

    amount_from: _Amount = 0
    volume_from: _Volume = 0

    def is_reached(self, amount: int, volume: int) -> bool:
        """Whether a payment of this amount, after this much in its month, has come this far."""
        return amount >= self.amount_from and volume >= self.volume_from


class Promotion(Charge, frozen=True, kw_only=True):
    """The charge on business days in ``[from_day, until_day)``, in the place of any other."""

    from_day: date
    until_day: date


class PriceLine(Struct, frozen=True, forbid_unknown_fields=True):
    """What a way of paying costs the merchant; ``fixed``, ``fee_min``, ``fee_max`` in minor units.

    ``refund_fee``: whether a refund gives its part of the fee back; ``plan`` leaves it to the plan.
    """

    channel: str
    pay_mode: str
    rate_ppm: _Share
    fixed: _Amount = 0
    fee_min: _Amount = 0
    fee_max: _Amount | None = None
    card: CardKind = CardKind.ANY
    steps: tuple[Step, ...] = ()
    promotions: tuple[Promotion, ...] = ()
    refund_fee: Literal["plan", "returned", "kept"] = "plan"

    @property
    def charge(self) -> Charge:
        """Return what the line charges where neither a step nor a promotion does."""
        return Charge(self.rate_ppm, self.fixed, self.fee_min, self.fee_max)

    @property
    def counts_volume(self) -> bool:
        """Whether the fee depends on what the merchant has collected in the month."""
        return any(step.volume_from for step in self.steps)

    def charges(self) -> Iterator[Charge]:
        """Yield every charge the line could make."""
        yield self.charge
        yield from self.steps
        yield from self.promotions


class PricePlan(Struct, frozen=True):
    """One row of the plan table: all prices of a merchant in one mode, from a moment on."""

    id: UUID
    merchant_id: UUID
    mode: Mode
    version: int
    valid_from: datetime
    currency: str
    refund_returns_fee: bool
    lines: list[PriceLine]
    created_at: datetime
    created_by: str

    def lines_for(self, channel: str, pay_mode: str) -> list[PriceLine]:
        """Return the lines for a way of paying, one for each kind of card that has its own."""
        return [one for one in self.lines if (one.channel, one.pay_mode) == (channel, pay_mode)]

    def counts_volume(self, channel: str, pay_mode: str) -> bool:
        """Whether the fee of this way of paying depends on the month's volume."""
        return any(line.counts_volume for line in self.lines_for(channel, pay_mode))


class Inputs(Struct, frozen=True):
    """All that a fee is worked out from, beside the plan.

    ``volume`` is what the merchant had collected in the month, where the line counts that: the
    payments before this one whose price counted it too. A step that a payment crosses is not split:
    the whole payment has the charge that the month had reached before it.
    """

    channel: str
    pay_mode: str
    money: Money
    day: date  # of the business calendar
    volume: int = 0
    card: CardKind = CardKind.ANY


class Quote(Struct, frozen=True):
    """A payment's price and what it was worked out from, kept with the payment.

    ``volume`` is None where the price does not count it, ``card`` where it is the same for all.
    ``basis`` says which charge it was: ``line``, ``step 1`` (the first), ``promotion 1``.
    """

    version: int
    fee: int
    refund_returns_fee: bool
    day: date
    volume: int | None = None
    card: CardKind | None = None
    basis: str = "line"


def plan_at(plans: Sequence[PricePlan], at: datetime) -> PricePlan | None:
    """Return the version in force at a moment."""
    begun = [plan for plan in plans if plan.valid_from <= at]
    return max(begun, key=lambda plan: plan.valid_from, default=None)


def quote(plan: PricePlan | None, inputs: Inputs) -> Quote:
    """Return what a payment costs under a version of the merchant's plan.

    Raises:
        PriceNotAgreed
    """
    money = inputs.money
    lines = plan.lines_for(inputs.channel, inputs.pay_mode) if plan is not None else []
    line = _line_for(lines, inputs.card)
    if plan is None or line is None or plan.currency != money.currency:
        said = {"channel": inputs.channel, "pay_mode": inputs.pay_mode}
        raise PriceNotAgreed(**said, currency=money.currency)
    charge, basis = charge_of(line, money.amount, inputs.day, inputs.volume)
    returns = plan.refund_returns_fee if line.refund_fee == "plan" else line.refund_fee != "kept"
    return Quote(
        version=plan.version,
        fee=charge.of(money.amount),
        refund_returns_fee=returns,
        day=inputs.day,
        volume=inputs.volume if any(one.counts_volume for one in lines) else None,
        card=inputs.card if len(lines) > 1 else None,
        basis=basis,
    )


def _line_for(lines: Sequence[PriceLine], card: CardKind) -> PriceLine | None:
    by_card = {line.card: line for line in lines}
    return by_card.get(card) or by_card.get(CardKind.ANY)


def charge_of(line: PriceLine, amount: int, day: date, volume: int = 0) -> tuple[Charge, str]:
    """Return what a line charges such a payment, and which of its charges that is."""
    for place, promotion in enumerate(line.promotions, 1):
        if promotion.from_day <= day < promotion.until_day:
            return promotion, f"promotion {place}"
    for place in range(len(line.steps), 0, -1):
        if line.steps[place - 1].is_reached(amount, volume):
            return line.steps[place - 1], f"step {place}"
    return line.charge, "line"


def inputs_at(channel: str, pay_mode: str, money: Money, at: datetime) -> Inputs:
    """Return what is known of a payment that begins now, before anything is counted or read."""
    return Inputs(channel, pay_mode, money, business_date(at))


def fee_back(fee: int, captured: int, back_in_all: int, returned_before: int) -> int:
    """Return how much of a payment's fee one more refund gives back, where it is given back.

    It is what all refunds together should have returned, this one included, less what they have:
    so the parts come to the whole fee when all is given back, and never to more.
    """
    if not 0 <= back_in_all <= captured:
        raise ValueError("more refunded than captured")
    if captured == 0:
        return 0
    due = fee * back_in_all // captured - returned_before
    return min(max(due, 0), fee - returned_before)


def check_lines(lines: Sequence[PriceLine]) -> list[PriceLine]:
    """Return the lines of a plan in a stable order.

    Raises:
        PriceLinesInvalid
    """
    found = {(line.channel, line.pay_mode, line.card.value): line for line in lines}
    if not lines or len(found) != len(lines) or len(lines) > LINES_MAX:
        raise PriceLinesInvalid(param="$.lines")
    for place, line in enumerate(lines):
        if not (_rises(line.steps) and _follow(line.promotions) and _is_capped_well(line)):
            raise PriceLinesInvalid(param=f"$.lines[{place}]")
    return [found[key] for key in sorted(found)]


def _rises(steps: Sequence[Step]) -> bool:
    """Whether each step is reached later than the one before, in amount or in volume."""
    reached = [(step.amount_from, step.volume_from) for step in steps]
    return len(steps) <= STEPS_MAX and all(
        before != after and before[0] <= after[0] and before[1] <= after[1]
        for before, after in pairwise([(0, 0), *reached])
    )


def _follow(promotions: Sequence[Promotion]) -> bool:
    return all(one.from_day < one.until_day for one in promotions) and all(
        before.until_day <= after.from_day for before, after in pairwise(promotions)
    )


def _is_capped_well(line: PriceLine) -> bool:
    return all(one.fee_max is None or one.fee_min <= one.fee_max for one in line.charges())

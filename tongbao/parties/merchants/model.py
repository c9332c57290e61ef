"""Merchants, price plans and fees: what they are and how a fee is worked out. No I/O.

merchant  active ⇄ suspended
plan      each version is in force from its `valid_from` until the next one's
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Final
from uuid import UUID

from msgspec import Meta, Struct

from tongbao.kernel.errors import Conflict, Invalid, NotFound, Rejected
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import AMOUNT_MAX, Money, share_half_up

_PPM_MAX: Final = 100_000  # ten percent; nobody charges more


class MerchantNotFound(NotFound):
    """There is no such merchant."""

    code = "merchant.not_found"
    advice = "List the merchants to find its id."
    advice_zh = "请通过商户列表查找正确的标识。"


class MerchantSuspended(Rejected):
    """The merchant may take no new payments at present; refunds go on."""

    code = "merchant.suspended"
    advice = "Contact us to have the merchant reinstated."
    advice_zh = "商户已被暂停收款，请联系我们恢复。"


class PriceNotAgreed(Rejected):
    """No price was agreed for this channel, way of paying and currency at this time."""

    code = "price.not_agreed"
    advice = "Use a channel and currency of the merchant's price plan, or have it extended."
    advice_zh = "请使用价格方案内的渠道与币种，或申请开通。"


class PriceLinesInvalid(Invalid):
    """A price plan has no lines, or two for the same channel and way of paying."""

    code = "price.lines_invalid"
    advice = "Give exactly one line for each channel and way of paying."
    advice_zh = "每个渠道与支付方式应有且仅有一条价格。"


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


class ChannelNotOpened(Rejected):
    """The merchant is not connected to this channel in this mode."""

    code = "merchant.channel_not_opened"
    advice = "Use a channel listed in the merchant's profile, or have this one opened."
    advice_zh = "该商户未开通此渠道，请使用已开通的渠道或申请开通。"


class MerchantState(StrEnum):
    """Whether the merchant may take new payments."""

    ACTIVE = "active"
    SUSPENDED = "suspended"


class LateSuccess(StrEnum):
    """What happens to money that arrives after the order was given up."""

    REFUND = "refund"
    ACCEPT_IF_OPEN = "accept_if_open"  # keep it when the merchant's order can still take it


class Merchant(Struct, frozen=True):
    """One row of the merchant table. The full account number is sealed."""

    id: UUID
    name: str
    state: MerchantState
    live_book: int
    sandbox_book: int
    late_success: LateSuccess
    settlement_delay_days: int  # 1 is T+1
    bank_holder: str | None
    bank_account_masked: str | None
    bank_account_sealed: bytes | None
    opened_at: datetime

    def book(self, mode: Mode) -> int:
        """Return the book the merchant's money of this mode is in."""
        return self.live_book if mode is Mode.LIVE else self.sandbox_book

    def check_active(self) -> None:
        """Raise unless the merchant may take new payments.

        Raises:
            MerchantSuspended
        """
        if self.state is not MerchantState.ACTIVE:
            raise MerchantSuspended


class PriceLine(Struct, frozen=True, forbid_unknown_fields=True):
    """What a payment costs the merchant: a share, plus a fixed sum, but no less than a minimum.

    ``fixed`` and ``fee_min`` are minor units of the plan's currency.
    """

    channel: str
    pay_mode: str
    rate_ppm: Annotated[int, Meta(ge=0, le=_PPM_MAX)]
    fixed: Annotated[int, Meta(ge=0, le=AMOUNT_MAX)] = 0
    fee_min: Annotated[int, Meta(ge=0, le=AMOUNT_MAX)] = 0


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


def plan_at(plans: Sequence[PricePlan], at: datetime) -> PricePlan | None:
    """Return the version in force at a moment."""
    begun = [plan for plan in plans if plan.valid_from <= at]
    return max(begun, key=lambda plan: plan.valid_from, default=None)


def fee_for(
    plans: Sequence[PricePlan], channel: str, pay_mode: str, money: Money, at: datetime
) -> int:
    """Return the merchant's fee for a payment in minor units, half up, never above the payment.

    Raises:
        PriceNotAgreed
    """
    plan = plan_at(plans, at)
    if plan is not None and plan.currency == money.currency:
        for line in plan.lines:
            if (line.channel, line.pay_mode) == (channel, pay_mode):
                fee = share_half_up(money.amount, line.rate_ppm) + line.fixed
                return min(max(fee, line.fee_min), money.amount)
    raise PriceNotAgreed(channel=channel, pay_mode=pay_mode, currency=money.currency)


def fee_returned(fee: int, captured: int, refunded_before: int, refund: int) -> int:
    """Return how much of a payment's fee a refund gives back, where the plan gives it back.

    Each refund gives its share of what was captured, so that all of them together give the whole
    fee and never more.
    """
    if not 0 <= refunded_before <= refunded_before + refund <= captured:
        raise ValueError("more refunded than captured")
    return fee * (refunded_before + refund) // captured - fee * refunded_before // captured


def check_lines(lines: Sequence[PriceLine]) -> list[PriceLine]:
    """Return the lines of a plan in a stable order.

    Raises:
        PriceLinesInvalid
    """
    found = {(line.channel, line.pay_mode): line for line in lines}
    if not lines or len(found) != len(lines):
        raise PriceLinesInvalid(param="$.lines")
    return [found[key] for key in sorted(found)]


def masked(number: str) -> str:
    """Return an account number as people may see it: the last four digits."""
    return f"•••• {number[-4:]}"

"""Merchants: what they are. No I/O.

merchant  active ⇄ suspended, held, stopped; leaving ──► gone
"""

from __future__ import annotations

from datetime import date, datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

from msgspec import Struct

from tongbao.kernel.errors import Conflict, NotFound, Rejected
from tongbao.kernel.licence import Mode

TERMS: Final = "merchant"
"""The kind of the marks of merchants, whom they are served by and what prices are agreed."""


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


class MerchantHeld(Rejected):
    """The merchant may move no money out at present: no refunds it asks for, no payouts."""

    code = "merchant.held"
    advice = "Contact us about the hold; customers are still paid back when a channel decides so."
    advice_zh = "商户资金已被冻结转出，暂不能退款或出款，请联系我们。"


class MerchantStandsOtherwise(Conflict):
    """The merchant's standing is one that two people set, and only two people change it."""

    code = "merchant.stands_otherwise"
    advice = "Propose the change in the console, for another person to approve."
    advice_zh = "该商户状态须双人复核变更，请在控制台提交。"


class ChannelNotOpened(Rejected):
    """The merchant is not connected to this channel in this mode."""

    code = "merchant.channel_not_opened"
    advice = "Use a channel listed in the merchant's profile, or have this one opened."
    advice_zh = "该商户未开通此渠道，请使用已开通的渠道或申请开通。"


class MerchantState(StrEnum):
    """What the merchant may do: take new payments, give money back, be paid out."""

    ACTIVE = "active"
    SUSPENDED = "suspended"  # no new payments
    HELD = "held"  # no refunds it asks for, no payouts
    STOPPED = "stopped"  # neither
    LEAVING = "leaving"  # no new payments; payouts wait for the reserve's day
    GONE = "gone"  # nothing but the last payout


_TAKES: Final = frozenset({MerchantState.ACTIVE, MerchantState.HELD})
_REFUNDS: Final = frozenset({MerchantState.ACTIVE, MerchantState.SUSPENDED, MerchantState.LEAVING})
_IS_PAID: Final = frozenset({MerchantState.ACTIVE, MerchantState.SUSPENDED, MerchantState.GONE})


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
        if self.state not in _TAKES:
            raise MerchantSuspended

    def check_may_refund(self) -> None:
        """Raise unless the merchant may ask for refunds.

        Raises:
            MerchantHeld
        """
        if self.state not in _REFUNDS:
            raise MerchantHeld

    @property
    def is_paid_out(self) -> bool:
        """Whether payouts go out; those of a merchant that leaves wait until it is gone."""
        return self.state in _IS_PAID


class Standing(Struct, frozen=True):
    """One row of merchant_standing: what a merchant may do from a moment on, and who said why."""

    owner_id: UUID
    version: int
    state: MerchantState
    because: str
    reserve_until: date | None
    changed_by: str
    changed_at: datetime


def masked(number: str) -> str:
    """Return an account number as people may see it: the last four digits."""
    return f"•••• {number[-4:]}"

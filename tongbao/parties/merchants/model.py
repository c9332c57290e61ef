"""Merchants: what they are. No I/O.

merchant  active ⇄ suspended
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from msgspec import Struct

from tongbao.kernel.errors import NotFound, Rejected
from tongbao.kernel.licence import Mode


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


def masked(number: str) -> str:
    """Return an account number as people may see it: the last four digits."""
    return f"•••• {number[-4:]}"

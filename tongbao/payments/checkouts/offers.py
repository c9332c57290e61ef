"""Which ways to pay a checkout are open now: who is asked, and the plain answer.

Routing, where there is one, answers instead; it knows what is up, what costs less, what is full.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final, Protocol
from uuid import UUID

from msgspec import Struct

from tongbao.kernel.licence import Mode
from tongbao.kernel.money import Money
from tongbao.parties.merchants import queries as merchants
from tongbao.payments.checkouts.model import Checkout, Offer
from tongbao.payments.collecting.outcomes import Flow
from tongbao.rails.channels.contract import PayMode

PAGE_MODES: Final = frozenset({PayMode.QR, PayMode.IN_APP, PayMode.H5, PayMode.WEB})
"""What a page can do. The other modes need a till or the merchant's app."""


class Wanted(Struct, frozen=True):
    """What somebody wants to pay, as far as it decides how they can."""

    merchant_id: UUID
    mode: Mode
    money: Money
    channels: Sequence[str]  # empty: any
    at: datetime


class Offering(Protocol):
    """Says which ways to pay can take a payment at this moment."""

    async def __call__(self, wanted: Wanted) -> Sequence[Offer]:
        """Return the ways that are up and can take it, the best first; none is an answer too."""


class Health(Protocol):
    """Says which channel is up, as far as is known without asking it."""

    def __call__(self, channel: str, account_id: UUID) -> bool:
        """Return whether payments over our account at the channel may be tried."""


def all_up(channel: str, account_id: UUID) -> bool:
    """Believe that every channel is up; its own answer tells otherwise."""
    del channel, account_id
    return True


def merchants_own(flow: Flow, is_up: Health = all_up) -> Offering:
    """Return who offers what the merchant has a price and an open account for, in that order."""

    async def offering(wanted: Wanted) -> Sequence[Offer]:
        plan = await merchants.price_plan_at(flow.db, wanted.merchant_id, wanted.mode, wanted.at)
        if plan is None or plan.currency != wanted.money.currency:
            return []
        accounts = await merchants.channels_of(flow.db, wanted.merchant_id, wanted.mode)
        found = []
        for line in plan.lines:
            account_id = accounts.get(line.channel)
            offer = Offer(line.channel, PayMode(line.pay_mode))
            if account_id is None or not _can_take(flow, offer, wanted):
                continue
            if is_up(offer.channel, account_id) and (await flow.account(account_id)).is_open:
                found.append(offer)
        return found

    return offering


def wanted_by(checkout: Checkout, now: datetime) -> Wanted:
    """Return what is asked for a checkout."""
    return Wanted(checkout.merchant_id, checkout.mode, checkout.money, checkout.channels, now)


def _can_take(flow: Flow, offer: Offer, wanted: Wanted) -> bool:
    channel = flow.channels.get(offer.channel)
    return (
        channel is not None
        and offer.mode in channel.modes & PAGE_MODES
        and wanted.money.currency in channel.currencies
        and (not wanted.channels or offer.channel in wanted.channels)
    )

"""Which ways to pay a checkout are open now: whoever routes payments is asked."""

from __future__ import annotations

from datetime import datetime
from typing import Final
from uuid import UUID

from tongbao.parties.price_plans.model import PriceNotAgreed, inputs_at, quote
from tongbao.parties.price_plans.queries import price_plan_at
from tongbao.payments.checkouts.model import Checkout, Offer
from tongbao.payments.collecting.model import WALLET
from tongbao.payments.collecting.outcomes import Flow
from tongbao.payments.routing.model import Asked
from tongbao.rails.channels.contract.orders import PayMode

PAGE_MODES: Final = (PayMode.QR, PayMode.IN_APP, PayMode.H5, PayMode.WEB)
"""What a page can do. The other modes need a till or the merchant's app."""


async def offers_for(flow: Flow, checkout: Checkout, now: datetime) -> list[Offer]:
    """Return the ways that are up and can take the checkout's amount, the best first.

    None at all is an answer too.
    """
    asked = asked_of_router(checkout, PAGE_MODES[0], payment_id=checkout.id, now=now)
    up = [
        Offer(each.channel, each.pay_mode) for each in await flow.router.methods(asked, PAGE_MODES)
    ]
    if await _is_wallet_open(flow, checkout, now):
        up.append(Offer(WALLET, PayMode.QR))
    return [each for each in up if not checkout.channels or each.channel in checkout.channels]


async def _is_wallet_open(flow: Flow, checkout: Checkout, now: datetime) -> bool:
    """Whether customers may pay from the platform's own wallet: routing knows no account of it."""
    if not flow.licence.may_hold_funds:
        return False
    plan = await price_plan_at(flow.db, checkout.merchant_id, checkout.mode, now)
    try:
        quote(plan, inputs_at(WALLET, PayMode.QR, checkout.money, now))
    except PriceNotAgreed:
        return False
    return True


def asked_of_router(
    checkout: Checkout,
    pay_mode: PayMode,
    *,
    payment_id: UUID,
    now: datetime,
    channel: str | None = None,
) -> Asked:
    """Return what a checkout asks of routing: any channel's account, or the one that was chosen."""
    return Asked(
        payment_id=payment_id,
        book=checkout.book,
        merchant_id=checkout.merchant_id,
        mode=checkout.mode,
        pay_mode=pay_mode,
        money=checkout.money,
        at=now,
        channel=channel,
        metadata=checkout.metadata,
    )

"""Which ways to pay a checkout are open now: whoever routes payments is asked."""

from __future__ import annotations

from datetime import datetime
from typing import Final
from uuid import UUID

from tongbao.payments.checkouts.model import Checkout, Offer
from tongbao.payments.collecting.outcomes import Flow
from tongbao.payments.routing.model import Asked
from tongbao.rails.channels.contract import PayMode

PAGE_MODES: Final = (PayMode.QR, PayMode.IN_APP, PayMode.H5, PayMode.WEB)
"""What a page can do. The other modes need a till or the merchant's app."""


async def offers_for(flow: Flow, checkout: Checkout, now: datetime) -> list[Offer]:
    """Return the ways that are up and can take the checkout's amount, the best first.

    None at all is an answer too.
    """
    asked = asked_of_router(checkout, PAGE_MODES[0], payment_id=checkout.id, now=now)
    return [
        Offer(each.channel, each.pay_mode)
        for each in await flow.router.methods(asked, PAGE_MODES)
        if not checkout.channels or each.channel in checkout.channels
    ]


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

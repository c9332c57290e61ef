"""Let a customer choose the way to pay a combined payment, among those that can take all of it.

A choice is a wish on the row. The way that stands is closed at its channel first, and the next is
tried when that is proven; who pays the one before in the meantime has paid.
"""

from __future__ import annotations

from datetime import datetime

from msgspec.json import encode
from msgspec.structs import replace

from tongbao.infra.db import Write, write_all
from tongbao.kernel.errors import Refusal
from tongbao.kernel.money import Money
from tongbao.payments.checkouts.model import Offer
from tongbao.payments.collecting.model import Payment
from tongbao.payments.collecting.outcomes import Flow
from tongbao.payments.combining import _store as store
from tongbao.payments.combining import queries
from tongbao.payments.combining.combined import MOVED_ON_TO, TRIES_MAX, look
from tongbao.payments.combining.model import CombinedPayment, CombinedState, NewCombined
from tongbao.payments.combining.terms import MODES, begun_parts, parts_again
from tongbao.payments.routing.model import Asked
from tongbao.rails.channels.capabilities.combined_orders import Combining
from tongbao.rails.channels.contract.orders import PayMode

PAGE_MODES = (PayMode.QR, PayMode.H5)
"""What a page of ours can do with orders of several merchants. Inside a channel's app a page would
have to know the customer there."""


async def offers_for(flow: Flow, whole: CombinedPayment, now: datetime) -> list[Offer]:
    """Return the ways that are up and can take all orders, the one that is tried now left out."""
    if not whole.chooses or whole.tries >= TRIES_MAX:
        return []
    parts = [payment for payment, _ in await queries.parts_of(flow.db, whole)]
    up = await _up_for_everybody(flow, whole, parts, now)
    others = [offer for offer in up if offer.key != whole.way]
    return [offer for offer in others if await _takes_all(flow, whole, parts, offer, now)]


async def _up_for_everybody(
    flow: Flow, whole: CombinedPayment, parts: list[Payment], now: datetime
) -> list[Offer]:
    """Return what routing finds up for each merchant among the orders, in the first one's order."""
    found: list[Offer] | None = None
    for merchant_id in dict.fromkeys(part.merchant_id for part in parts):
        most = max((one for one in parts if one.merchant_id == merchant_id), key=_amount)
        asked = Asked(
            payment_id=whole.id,
            book=most.book,
            merchant_id=merchant_id,
            mode=whole.mode,
            pay_mode=PAGE_MODES[0],
            money=Money(most.amount, most.currency),
            at=now,
        )
        up = [
            Offer(one.channel, one.pay_mode) for one in await flow.router.methods(asked, PAGE_MODES)
        ]
        found = up if found is None else [offer for offer in found if offer in up]
    return found or []


async def _takes_all(
    flow: Flow, whole: CombinedPayment, parts: list[Payment], offer: Offer, now: datetime
) -> bool:
    """Whether the orders could begin this way: combined there, priced, opened, one account."""
    channel: object = flow.channels.get(offer.channel)
    if not isinstance(channel, Combining) or offer.mode not in MODES:
        return False
    asked = NewCombined(
        merchant_id=whole.merchant_id,
        mode=whole.mode,
        book=whole.book,
        merchant_combined_no=whole.merchant_combined_no,
        channel=offer.channel,
        pay_mode=offer.mode,
        how=None,
        client_ip=whole.client_ip,
        expires_in=whole.expires_at - now,
        parts=parts_again(whole, parts),
        chooses=True,
    )
    try:
        await begun_parts(flow, asked, whole.id, now)
    except Refusal:
        return False
    return True


async def choose(flow: Flow, whole: CombinedPayment, offer: Offer) -> CombinedPayment:
    """Take another way: this one is closed first. What may have been paid stands.

    Raises:
        StateContended
    """
    stands = whole.state is not CombinedState.PENDING or whole.wish is not None
    if not whole.chooses or stands or offer.key == whole.way or whole.tries >= TRIES_MAX:
        return whole
    args = (whole.state, _action(whole), whole.code, whole.ended_at, offer.key)
    wish = Write(
        store.UPDATE_COMBINED, (whole.book, whole.id, whole.version, *args), refusal=MOVED_ON_TO
    )
    async with flow.db.begin("payments") as tx:
        refused = await write_all(tx, (wish,))
    if refused is not None:  # somebody else chose, or it was paid or called off
        return await queries.combined(flow.db, whole.book, whole.id)
    return await look(flow, replace(whole, wish=offer.key, version=whole.version + 1))


def _action(whole: CombinedPayment) -> str | None:
    return None if whole.action is None else encode(whole.action).decode()


def _amount(part: Payment) -> int:
    return part.amount

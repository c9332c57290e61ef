"""Tell a merchant, once, that a checkout has closed unpaid.

A task looks when the checkout's time is over, and another when its merchant calls it off. While the
latest try may still have been paid it comes back; a try that begins meanwhile wins.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from msgspec.structs import replace

from tongbao.infra.db import Db
from tongbao.infra.outbox import Event, publish
from tongbao.infra.tasks import Again, Lease, RetryPolicy, Task
from tongbao.kernel.ids import show
from tongbao.payments.checkouts import _store as store
from tongbao.payments.checkouts import queries
from tongbao.payments.checkouts.model import (
    TRY_LIFETIME_MIN,
    Checkout,
    CheckoutStatus,
    CheckoutView,
    status_of,
    view_checkout,
)
from tongbao.payments.collecting.model import Payment

_SOON: Final = timedelta(seconds=5)
_LATE: Final = timedelta(minutes=10)
CLOSING_POLICY: Final = RetryPolicy(
    attempts_max=20, delays=tuple(timedelta(seconds=s) for s in (1, 5, 30, 120, 600, 1800))
)


class CloseCheckout(Task, frozen=True, tag="checkouts.close"):
    """Find out whether a checkout ended unpaid, and tell of it if so."""

    book: int
    checkout_id: UUID


class CheckoutClosedEvent(Event, frozen=True, kw_only=True, tag="checkout.closed"):
    """The checkout ended unpaid: its time is over or it was called off, and no try took money."""

    object: CheckoutView


def over_at(checkout: Checkout) -> datetime:
    """Return the first moment at which nobody can begin to pay any more."""
    by_time = checkout.expires_at - TRY_LIFETIME_MIN + timedelta(microseconds=1)
    return min(by_time, checkout.called_off_at or by_time)


async def close_checkout_unpaid(
    db: Db, public_url: str, task: CloseCheckout, _lease: Lease
) -> Again | None:
    """Write down that the checkout closed and tell its merchant, or return when to look again."""
    checkout = await store.GET_CHECKOUT.first(db, task.book, task.checkout_id)
    if checkout is None or checkout.closed_at is not None:
        return None  # forgotten, or told by the other of its tasks
    latest = await queries.latest_try(db, checkout)
    payment, now = latest[0] if latest is not None else None, db.clock.now()
    match status_of(checkout, payment, now):
        case CheckoutStatus.PAID:
            return None
        case CheckoutStatus.OPEN:
            return Again(over_at(checkout) - now)
        case CheckoutStatus.CLOSING:
            return Again(min(max((now - over_at(checkout)) / 2, _SOON), _LATE))
        case CheckoutStatus.CLOSED if checkout.plate_id is not None and payment is None:
            return None  # somebody looked at a plate and walked away: no merchant knows of it
    is_told = await _tell(db, checkout, payment, public_url)
    return None if is_told else Again(_SOON)  # not told: another try began


async def _tell(db: Db, checkout: Checkout, payment: Payment | None, public_url: str) -> bool:
    async with db.begin("checkouts") as tx:
        args = (checkout.book, checkout.id, checkout.tries, tx.now)
        if await store.CLOSE.run(tx, *args) == 0:
            return False
        closed = replace(checkout, closed_at=tx.now)
        event = CheckoutClosedEvent(
            merchant_id=closed.merchant_id,
            mode=closed.mode,
            resource_id=show("cko", closed.id),
            object=view_checkout(closed, payment, tx.now, public_url),
        )
        await publish(tx, event)
    return True

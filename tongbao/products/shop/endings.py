"""Let an order end where its money did, and what follows for its goods.

Whatever happens to the money calls `look_at_order`, which reads how the checkout or payment stands
and moves the order there once: nothing that a message says is believed, and a lost one delays, no
more. The stock of an order goes where the order goes, in the transaction that moves it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from msgspec import Struct

from tongbao.infra.db import Db, Tx
from tongbao.infra.failpoints import failpoint
from tongbao.infra.outbox import Event, EventRow, publish
from tongbao.infra.tasks import Again, Lease, RetryPolicy, Task
from tongbao.infra.web.caller import Caller
from tongbao.kernel.ids import UnknownId, parse, show
from tongbao.kernel.licence import Mode
from tongbao.parties.merchants import queries as merchants
from tongbao.payments.checkouts import queries as checkouts
from tongbao.payments.checkouts.checkouts import call_off
from tongbao.payments.checkouts.model import Checkout, CheckoutNotFound, CheckoutPaid
from tongbao.payments.collecting import queries as payments
from tongbao.payments.collecting.model import Payment, PaymentState
from tongbao.payments.collecting.outcomes import Flow
from tongbao.payments.collecting.payments import close_payment
from tongbao.products.shop import _store as store
from tongbao.products.shop.model import (
    METADATA_KEY,
    OrderLine,
    OrderNotFound,
    OrderNotPaid,
    OrderNotPlaced,
    OrderState,
    OrderView,
    Scene,
    ShopOrder,
    view_order,
)

_SOON: Final = timedelta(seconds=5)
_LATE: Final = timedelta(minutes=10)
LOOK_POLICY: Final = RetryPolicy(
    attempts_max=20, delays=tuple(timedelta(seconds=s) for s in (1, 5, 30, 120, 600, 1800))
)

Following = Callable[[Tx, ShopOrder], Awaitable[None]]
"""What else follows from an order's end, in its transaction."""


async def nothing_follows(_tx: Tx, _order: ShopOrder) -> None:
    """Where no restaurant table has orders."""


class Shop(Struct, frozen=True):
    """What every act of a shop needs, built once by wiring."""

    flow: Flow
    follow: Following = nothing_follows  # what a restaurant table does, above us

    @property
    def db(self) -> Db:
        """The database."""
        return self.flow.db


class LookAtOrder(Task, frozen=True, tag="shop.look_at_order"):
    """See how an order's money stands when its time is over, and let the order follow."""

    order_id: UUID


class OrderPaid(Event, frozen=True, kw_only=True, tag="order.paid"):
    """The order's payment came in; its goods are the customer's."""

    object: OrderView


class OrderCancelled(Event, frozen=True, kw_only=True, tag="order.cancelled"):
    """The order ended unpaid and cannot be paid any more; its goods are back on the shelf."""

    object: OrderView


class _Standing(Struct, frozen=True):
    """How an order's money stands: the latest try, and whether nobody can pay any more."""

    payment: Payment | None
    is_over: bool
    is_begun: bool = True  # there is something that somebody could pay

    @property
    def is_paid(self) -> bool:
        return self.payment is not None and self.payment.state is PaymentState.SUCCEEDED


async def look_at_order(shop: Shop, order_id: UUID) -> ShopOrder:
    """Move the order to where its money is, once, and return it as it is then."""
    order = await store.GET_ORDER.one(shop.db, order_id)
    if order.state is not OrderState.PLACED:
        return order
    standing = await _standing_of(shop.db, order, shop.db.clock.now())
    if standing.is_paid and standing.payment is not None:
        return await _pay(shop, order, standing.payment)
    return await end_unpaid(shop, order) if standing.is_over else order


async def _standing_of(on: Db | Tx, order: ShopOrder, now: datetime) -> _Standing:
    nothing = _Standing(None, now >= order.expires_at, is_begun=False)
    if order.scene is Scene.COUNTER:
        if order.payment_id is None:
            return nothing
        book = (await merchants.merchant_with_id(on, order.merchant_id)).book(order.mode)
        payment = await payments.payment(on, book, order.payment_id)
        return _Standing(payment, not payment.state.is_open)
    checkout = await _known_checkout(on, order)
    if checkout is None:
        return nothing
    # Of a checkout that was closed or called off the latest try is the last.
    is_ended = checkout.closed_at is not None or checkout.called_off_at is not None
    latest = await checkouts.latest_try(on, checkout)
    if latest is None:
        return _Standing(None, is_ended)
    return _Standing(latest[0], is_ended and not latest[0].state.is_open)


async def _known_checkout(on: Db | Tx, order: ShopOrder) -> Checkout | None:
    try:
        of = (order.merchant_id, order.mode)
        return await checkouts.checkout_of_merchant(on, order.checkout_id, *of)
    except CheckoutNotFound:
        return None


async def _pay(shop: Shop, order: ShopOrder, payment: Payment) -> ShopOrder:
    if (payment.captured, payment.currency) != (order.total, order.currency):
        raise RuntimeError(f"{show('pay', payment.id)} is not what {show('ord', order.id)} asks")
    failpoint("shop.before_paid")
    async with shop.db.begin("shop") as tx:
        paid = await store.MARK_PAID.first(tx, order.id, payment.id, tx.now)
        if paid is None:  # another saw it first
            return await store.GET_ORDER.one(tx, order.id)
        await shop.follow(tx, paid)  # before the stock: tables lock in this order too
        await store.SELL.run(tx, order.id)
        lines = await store.LINES_OF.all(tx, order.id)
        await publish(tx, _told(OrderPaid, paid, lines))
    failpoint("shop.after_paid")
    return paid


async def end_unpaid(shop: Shop, order: ShopOrder, *, given_up: bool = False) -> ShopOrder:
    """End an order that nobody has paid or can pay, its goods back on the shelf; once.

    It is looked at again under the lock that its checkout is opened under, and its payment made.
    ``given_up``: whoever was to begin that will not, so its time need not be over.
    """
    failpoint("shop.before_cancelled")
    async with shop.db.begin("shop") as tx:
        order = await store.LOCK_ORDER.one(tx, order.id)
        standing = await _standing_of(tx, order, tx.now)
        is_over = standing.is_over or (given_up and not standing.is_begun)
        if order.state is not OrderState.PLACED or standing.is_paid or not is_over:
            return order
        cancelled = await store.MARK_CANCELLED.one(tx, order.id, tx.now)
        await shop.follow(tx, cancelled)
        if order.scene is not Scene.TABLE:  # whose guests have their dishes, paid or not
            await store.RELEASE.run(tx, order.id)
        lines = await store.LINES_OF.all(tx, order.id)
        await publish(tx, _told(OrderCancelled, cancelled, lines))
    failpoint("shop.after_cancelled")
    return cancelled


def _told(kind: Callable[..., Event], order: ShopOrder, lines: Sequence[OrderLine]) -> Event:
    return kind(
        merchant_id=order.merchant_id,
        mode=order.mode,
        resource_id=show("ord", order.id),
        object=view_order(order, lines),
    )


async def cancel_order(shop: Shop, order: ShopOrder, actor: str) -> ShopOrder:
    """Call an order off, its checkout first; while a try may still be paid it stays placed.

    A customer who paid first wins.

    Raises:
        OrderNotPlaced, StateContended
    """
    if order.state is OrderState.CANCELLED:
        return order
    order = await end_unpaid(shop, order, given_up=True)
    checkout = await _known_checkout(shop.db, order)
    if order.state is OrderState.PLACED and checkout is not None:
        with suppress(CheckoutPaid):
            await call_off(shop.flow, checkout, actor)
    elif order.state is OrderState.PLACED:
        payment = (await _standing_of(shop.db, order, shop.db.clock.now())).payment
        if payment is not None and payment.state.is_open:
            await close_payment(shop.flow, payment)
    order = await look_at_order(shop, order.id)
    if order.is_paid:
        raise OrderNotPlaced
    return order


async def run_look_at_order(shop: Shop, task: LookAtOrder, _lease: Lease) -> Again | None:
    """Look at an order whose time is over, until it has ended."""
    order = await look_at_order(shop, task.order_id)
    if order.state is not OrderState.PLACED:
        return None
    since = shop.db.clock.now() - order.expires_at
    return Again(min(max(since / 2, _SOON), _LATE))


def names_an_order(event: EventRow) -> bool:
    """Whether a payment or checkout says that it is of an order."""
    told = event.body.get("object", {})
    return METADATA_KEY in told.get("metadata", {})


async def on_money(shop: Shop, event: Any, _event_id: UUID) -> None:
    """Look at the order that a payment or checkout names, if there is one of this merchant's."""
    try:
        order_id = parse("ord", event.object.metadata.get(METADATA_KEY, ""))
    except UnknownId:
        return  # a merchant may write into metadata what it likes
    if await store.FIND_ORDER.first(shop.db, order_id, event.merchant_id, event.mode) is not None:
        await look_at_order(shop, order_id)


async def fulfil_order(tx: Tx, order: ShopOrder) -> ShopOrder:
    """Say that the customer has the goods; a second time does nothing.

    Raises:
        OrderNotPaid
    """
    of = (order.id, order.merchant_id, order.mode)
    fulfilled = await store.MARK_FULFILLED.first(tx, *of, tx.now)
    if fulfilled is None:
        raise OrderNotPaid
    return fulfilled


async def order_of_caller(on: Db | Tx, caller: Caller, order_id: UUID) -> ShopOrder:
    """Return the merchant's order.

    Raises:
        OrderNotFound: also for another merchant's, or another mode's.
    """
    return await order_of_merchant(on, caller.merchant_id, caller.mode, order_id)


async def order_of_merchant(
    on: Db | Tx, merchant_id: UUID, mode: Mode, order_id: UUID
) -> ShopOrder:
    """Return a merchant's order, for who is let in by another proof than a key.

    Raises:
        OrderNotFound: also for another merchant's, or another mode's.
    """
    order = await store.FIND_ORDER.first(on, order_id, merchant_id, mode)
    if order is None:
        raise OrderNotFound
    return order


async def url_of(on: Db | Tx, order: ShopOrder, public_url: str) -> str | None:
    """Return where the customer pays an order that nobody has paid yet."""
    if order.state is not OrderState.PLACED:
        return None
    checkout = await _known_checkout(on, order)
    return None if checkout is None else f"{public_url}{checkout.path}"

"""Give some of an order back: count the pieces, refund the payment, put the goods on the shelf.

    requested ──the payment's refund succeeds──► succeeded    restocked, if that was asked
        └──it is refused or fails──► failed                   the pieces can be asked back again

What is asked back is counted on the locked order first, so that no two requests give a piece back
twice. The refund of the payment has its id and number from ours, so asking again is harmless.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from msgspec import Struct

from tongbao.infra.db import Tx, Write
from tongbao.infra.failpoints import failpoint
from tongbao.infra.outbox import Event, publish
from tongbao.infra.tasks import Again, Lease, RetryPolicy, Task, enqueue
from tongbao.infra.web.idempotency import Idempotency, InFlight
from tongbao.kernel.errors import Conflict, Rejected
from tongbao.kernel.ids import base32, derived_id, parse, show
from tongbao.kernel.money import Money
from tongbao.parties.merchants import queries as merchants
from tongbao.payments.collecting import queries as payments
from tongbao.payments.refunds import queries as given_back
from tongbao.payments.refunds.model import RefundState
from tongbao.payments.refunds.outcomes import ask_channel
from tongbao.payments.refunds.refunds import RefundRequest, request_refund
from tongbao.products.shop import _store as store
from tongbao.products.shop.endings import Shop
from tongbao.products.shop.model import (
    OrderNotPaid,
    OrderRefund,
    OrderRefundState,
    OrderRefundView,
    OrderState,
    RefundedLine,
    RefundExceedsLine,
    ShopOrder,
    refund_of,
    view_order_refund,
)

_CALLER_ASKS_FIRST: Final = timedelta(seconds=10)
_SOON: Final = timedelta(seconds=5)
_LATE: Final = timedelta(minutes=30)
PUSH_POLICY: Final = RetryPolicy(
    attempts_max=20, delays=tuple(timedelta(seconds=s) for s in (1, 5, 30, 120, 600, 1800))
)


class PushOrderRefund(Task, frozen=True, tag="shop.push_order_refund"):
    """Have the payment of an order give money back, and see what became of it."""

    order_refund_id: UUID


class OrderRefunded(Event, frozen=True, kw_only=True, tag="order.refunded"):
    """The customer has money of the order back."""

    object: OrderRefundView


class OrderRefundAsked(Struct, frozen=True):
    """Which pieces to give back, all that are left when none are named."""

    lines: tuple[RefundedLine, ...] = ()
    restock: bool = True
    reason: str = ""


async def refund_order(
    shop: Shop, order: ShopOrder, asked: OrderRefundAsked, use: Idempotency, refund_id: UUID
) -> OrderRefund:
    """Count what is given back and refund the payment by as much.

    Raises:
        OrderNotPaid, RefundExceedsLine, InFlight, and what refuses a refund of the payment
    """
    async with shop.db.begin("shop") as tx:
        await use.take(tx, refund_id)
        order = await store.LOCK_ORDER.one(tx, order.id)
        if order.state not in {OrderState.PAID, OrderState.FULFILLED}:
            raise OrderNotPaid
        lines = await store.LINES_OF.all(tx, order.id)
        pieces = _pieces(asked.lines) or {
            each.number: left for each in lines if (left := each.quantity - each.refunded)
        }
        amount = refund_of(lines, pieces)
        if amount == 0:
            raise RefundExceedsLine(left=0)
        await _count(tx, order, pieces, amount, 1)
        refund = await store.INSERT_REFUND.one(
            tx,
            refund_id,
            order.id,
            order.merchant_id,
            order.mode,
            amount,
            [RefundedLine(number, quantity) for number, quantity in pieces.items()],
            asked.restock,
            asked.reason,
            tx.now,
        )
        pushing = PushOrderRefund(refund.id)
        await enqueue(
            tx, pushing, run_at=tx.now + _CALLER_ASKS_FIRST, key=f"order_refund/{refund.id}"
        )
    failpoint("shop.after_refund_request")
    return await push_refund(shop, refund)


def _pieces(lines: Sequence[RefundedLine]) -> dict[int, int]:
    pieces: dict[int, int] = {}
    for line in lines:
        pieces[line.number] = pieces.get(line.number, 0) + line.quantity
    return pieces


async def _count(tx: Tx, order: ShopOrder, pieces: dict[int, int], amount: int, sign: int) -> None:
    await store.ADD_REFUNDED.run(tx, order.id, sign * amount)
    rows = [(order.id, number, sign * pieces[number]) for number in sorted(pieces)]
    await store.ADD_LINE_REFUNDED.run_many(tx, rows)


async def push_refund(shop: Shop, refund: OrderRefund) -> OrderRefund:
    """Ask the payment for the money, or look what became of it, and let the order follow.

    Raises:
        what refuses a refund of the payment; the order's refund has failed then.
    """
    if refund.state is not OrderRefundState.REQUESTED:
        return refund
    order = await store.GET_ORDER.one(shop.db, refund.order_id)
    book = (await merchants.merchant_with_id(shop.db, order.merchant_id)).book(order.mode)
    if order.payment_id is None:
        raise LookupError("a paid order names its payment")
    payment = await payments.payment(shop.db, book, order.payment_id)
    money = Money(refund.amount, order.currency)
    asked = RefundRequest(base32(refund.id), money, refund.reason or "order refund")

    def take(refund_id: UUID, _now: datetime) -> Write:
        return Write(store.TAKE_REFUND, (refund.id, refund_id), refusal=InFlight.code)

    try:
        made = await request_refund(
            shop.flow, payment, asked, take=take, refund_id=derived_id(refund.id, "refund")
        )
    except (Rejected, Conflict) as refused:
        if isinstance(refused, InFlight):
            raise
        await _end(shop, refund.id, OrderRefundState.FAILED, refused.code)
        raise
    failpoint("shop.after_refund_order")
    if made.state.is_open and made.queries == 0:
        made = await ask_channel(shop.flow, made)
    return await _follow(shop, refund.id, made.state, made.code)


async def _follow(
    shop: Shop, order_refund_id: UUID, state: RefundState, code: str | None
) -> OrderRefund:
    if state is RefundState.SUCCEEDED:
        return await _end(shop, order_refund_id, OrderRefundState.SUCCEEDED, None)
    if state is RefundState.FAILED:
        return await _end(shop, order_refund_id, OrderRefundState.FAILED, code)
    return await store.GET_REFUND.one(shop.db, order_refund_id)


async def _end(
    shop: Shop, order_refund_id: UUID, state: OrderRefundState, code: str | None
) -> OrderRefund:
    """End it once: the customer's totals and the shelf, or the pieces can be asked back again."""
    failpoint("shop.before_refund_end")
    async with shop.db.begin("shop") as tx:
        refund = await store.GET_REFUND.one(tx, order_refund_id)
        order = await store.LOCK_ORDER.one(tx, refund.order_id)
        ended = await store.END_REFUND.first(tx, refund.id, state, code, tx.now)
        if ended is None:  # another heard of it first
            return await store.GET_REFUND.one(tx, refund.id)
        pieces = _pieces(ended.lines)
        if state is OrderRefundState.FAILED:
            await _count(tx, order, pieces, ended.amount, -1)
            return ended
        await store.ADD_RETURNED.one(tx, order.id, ended.amount)
        if ended.restock:
            await _restock(tx, order, pieces)
        event = OrderRefunded(
            merchant_id=ended.merchant_id,
            mode=ended.mode,
            resource_id=show("ore", ended.id),
            object=view_order_refund(ended),
        )
        await publish(tx, event)
    failpoint("shop.after_refund_end")
    return ended


async def _restock(tx: Tx, order: ShopOrder, pieces: dict[int, int]) -> None:
    back: dict[UUID, int] = {}
    for line in await store.LINES_OF.all(tx, order.id):
        if line.counted and line.sku_id is not None and line.number in pieces:
            back[line.sku_id] = back.get(line.sku_id, 0) + pieces[line.number]
    for sku_id in sorted(back, key=lambda each: each.bytes):
        await store.RESTOCK.run(tx, sku_id, back[sku_id])


async def run_push_order_refund(shop: Shop, task: PushOrderRefund, _lease: Lease) -> Again | None:
    """Push a refund on until it has ended."""
    refund = await store.GET_REFUND.one(shop.db, task.order_refund_id)
    try:
        refund = await push_refund(shop, refund)
    except (Rejected, Conflict):
        refund = await store.GET_REFUND.one(shop.db, refund.id)
    if refund.state is not OrderRefundState.REQUESTED:
        return None
    since = shop.db.clock.now() - refund.created_at
    return Again(min(max(since / 2, _SOON), _LATE))


async def on_refund_end(shop: Shop, event: Any, _event_id: UUID) -> None:
    """Let an order follow the refund of its payment, where the order asked for it."""
    refund_id = parse("ref", event.resource_id)
    ours = await store.FIND_BY_REFUND.first(shop.db, refund_id)
    if ours is None:
        return
    merchant = await merchants.merchant_with_id(shop.db, ours.merchant_id)
    refund = await given_back.refund(shop.db, merchant.book(ours.mode), refund_id)
    await _follow(shop, ours.id, refund.state, refund.code)

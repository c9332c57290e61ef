"""Place an order and have it paid: its goods reserved in the same commit.

An order is written down with its stock in one commit; then its checkout is opened, under an id the
order has from its birth, so that whoever died in between can be followed by anybody.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial
from uuid import UUID

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from tongbao.infra.db import Tx, Write
from tongbao.infra.failpoints import failpoint
from tongbao.infra.tasks import task_write
from tongbao.infra.web.caller import Caller
from tongbao.infra.web.idempotency import Idempotency, InFlight
from tongbao.kernel.ids import base32, show
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import Money
from tongbao.parties.merchants import queries as merchants
from tongbao.payments.checkouts.checkouts import open_checkout
from tongbao.payments.checkouts.model import Checkout, CheckoutAsked, check_return_url
from tongbao.products.shop import _store as store
from tongbao.products.shop.catalogue import on_sale, reserve_write
from tongbao.products.shop.endings import LookAtOrder, Shop
from tongbao.products.shop.model import (
    EXPIRES_DEFAULT,
    METADATA_KEY,
    NUMBER_TAKEN,
    OUT_OF_STOCK,
    OrderLine,
    OrderNotPlaced,
    OrderState,
    OutOfStock,
    Scene,
    ShopOrder,
    ShopOrderNumberUsed,
    fingerprint,
    lines_of,
    total_of,
)


class OrderAsked(Struct, frozen=True):
    """What a customer wants to buy."""

    merchant_order_no: str
    pieces: tuple[tuple[UUID, int], ...]  # of which variant how many
    return_url: str | None = None
    expires_in: timedelta = EXPIRES_DEFAULT
    metadata: dict[str, str] = {}


async def place_order(
    shop: Shop, caller: Caller, asked: OrderAsked, use: Idempotency, order_id: UUID
) -> ShopOrder:
    """Write an order down at the prices of now and reserve its goods, all or nothing.

    The same order number with the same content returns the order it already made.

    Raises:
        ReturnUrlUnsafe, MerchantSuspended, SkuNotFound, NotOnShelf, OrderCurrenciesDiffer,
        OrderTooLarge, OutOfStock, ShopOrderNumberUsed, InFlight
    """
    if asked.return_url is not None:
        check_return_url(asked.return_url, caller.mode)
    (await merchants.merchant_with_id(shop.db, caller.merchant_id)).check_active()
    ids = list(dict.fromkeys(sku_id for sku_id, _ in asked.pieces))
    goods = await on_sale(shop.db, caller.merchant_id, caller.mode, ids)
    lines = lines_of(order_id, ((goods[sku_id], count) for sku_id, count in asked.pieces))
    more = f" +{len(lines) - 1}" if len(lines) > 1 else ""
    order = new_order(
        (caller.merchant_id, caller.mode),
        order_id,
        number=asked.merchant_order_no,
        total=Money(total_of(lines), goods[ids[0]].currency),
        hash_=fingerprint(asked.pieces, asked.return_url, asked.metadata),
        scene=Scene.SHOP,
        subject=f"{lines[0].name[:100]}{more}",
        at=shop.db.clock.now(),
        expires_in=asked.expires_in,
    )
    order = replace(order, return_url=asked.return_url, metadata=asked.metadata)
    failpoint("shop.before_order")
    found = await commit_order(shop, order, lines, use, reserves=True)
    failpoint("shop.after_order")
    return found


async def commit_order(
    shop: Shop, order: ShopOrder, lines: Sequence[OrderLine], use: Idempotency, *, reserves: bool
) -> ShopOrder:
    """Commit an order together with those that others place at this moment.

    Raises:
        OutOfStock, ShopOrderNumberUsed, InFlight
    """
    counted = sorted((line for line in lines if line.counted and reserves), key=_by_sku)
    code = await shop.flow.commits.write(
        (
            use.write(order.id, order.created_at),
            # The number comes before the stock: a repeat is told apart from a piece too many.
            *order_writes(order, lines),
            *(reserve_write(line.sku_id, line.quantity) for line in counted if line.sku_id),
        )
    )
    if code is None:
        return order
    if code == OUT_OF_STOCK:
        raise OutOfStock
    if code != NUMBER_TAKEN:
        raise InFlight
    of = (order.merchant_id, order.mode, order.merchant_order_no)
    earlier = await store.FIND_BY_NUMBER.one(shop.db, *of)
    if (earlier.request_hash, earlier.scene) != (order.request_hash, order.scene):
        raise ShopOrderNumberUsed(merchant_order_no=order.merchant_order_no)
    async with shop.db.begin("shop") as tx:
        await use.take(tx, earlier.id)
    return earlier


def _by_sku(line: OrderLine) -> bytes:
    return b"" if line.sku_id is None else line.sku_id.bytes


def order_writes(order: ShopOrder, lines: Sequence[OrderLine]) -> tuple[Write, ...]:
    """Return the writes that make an order, and the task that looks at its end."""
    row = (
        order.id,
        order.merchant_id,
        order.mode,
        order.merchant_order_no,
        order.request_hash,
        order.scene,
        order.currency,
        order.total,
        order.tab_id,
        order.subject,
        order.return_url,
        msgspec.json.encode(order.metadata).decode(),
        order.created_at,
        order.expires_at,
    )
    looking = LookAtOrder(order.id)
    return (
        Write(store.INSERT_ORDER, row, refusal=NUMBER_TAKEN),
        *(Write(store.INSERT_LINE, msgspec.structs.astuple(line)) for line in lines),
        task_write(looking, run_at=order.expires_at, key=f"order/{order.id}"),
    )


def take_payment(order: ShopOrder, payment_id: UUID) -> Write:
    """Return the write that makes a payment the order's, for the payment's own commit.

    Another payment for the same order, or one for an order that has ended, is refused there.
    """
    return Write(store.TAKE_PAYMENT, (order.id, payment_id), refusal=InFlight.code)


def new_order(
    of: tuple[UUID, Mode],
    order_id: UUID,
    *,
    number: str,
    total: Money,
    hash_: bytes,
    scene: Scene,
    subject: str,
    at: datetime,
    expires_in: timedelta = EXPIRES_DEFAULT,
    tab_id: UUID | None = None,
) -> ShopOrder:
    """Return an order that nobody has paid."""
    return ShopOrder(
        id=order_id,
        merchant_id=of[0],
        mode=of[1],
        merchant_order_no=number,
        request_hash=hash_,
        scene=scene,
        state=OrderState.PLACED,
        currency=total.currency,
        total=total.amount,
        refunded=0,
        returned=0,
        tab_id=tab_id,
        payment_id=None,
        subject=subject,
        return_url=None,
        metadata={},
        created_at=at,
        expires_at=at + expires_in,
        paid_at=None,
        ended_at=None,
    )


async def checkout_of(shop: Shop, order: ShopOrder) -> Checkout:
    """Return the checkout the order is paid at, opened now if nobody has.

    Raises:
        MerchantSuspended, CheckoutsTooMany, OrderNotPlaced: the order ended meanwhile.
    """
    failpoint("shop.before_checkout")
    merchant = await merchants.merchant_with_id(shop.db, order.merchant_id)
    asked = CheckoutAsked(
        merchant_id=order.merchant_id,
        mode=order.mode,
        book=merchant.book(order.mode),
        merchant_order_no=base32(order.id),  # no number of the merchant's own can be the same
        money=order.money,
        subject=order.subject,
        return_url=order.return_url,
        metadata={**order.metadata, METADATA_KEY: show("ord", order.id)},
        expires_in=order.expires_at - order.created_at,
    )
    checkout = await open_checkout(shop.db, asked, partial(_while_placed, order), order.checkout_id)
    failpoint("shop.after_checkout")
    return checkout


async def _while_placed(order: ShopOrder, tx: Tx, _checkout_id: UUID) -> None:
    """Keep the order placed until its checkout is there; the order itself makes a repeat one."""
    current = await store.LOCK_ORDER.one(tx, order.id)
    if current.state is not OrderState.PLACED:
        raise OrderNotPlaced

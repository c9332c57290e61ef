"""Order at a restaurant table, pay once or each for oneself, and say how it was."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Final
from uuid import UUID

from msgspec.structs import astuple, replace

from tongbao.infra import audit
from tongbao.infra.db import Db, Tx, write_all
from tongbao.infra.failpoints import failpoint
from tongbao.infra.web.caller import Caller
from tongbao.kernel.ids import base32, new_id, show
from tongbao.kernel.money import Money
from tongbao.products.scenes import _store as store
from tongbao.products.scenes.model import (
    DISHES_MAX,
    DiningTable,
    Dish,
    DishNotFound,
    DishState,
    Guest,
    NothingToPay,
    OrderReview,
    OrderReviewed,
    TabFull,
    TableBusy,
    TableNotFound,
    TableTab,
    TabNotFound,
    TabUnpaid,
)
from tongbao.products.shop.catalogue import let_go, on_sale, reserve_write
from tongbao.products.shop.endings import Shop, order_of_merchant
from tongbao.products.shop.model import (
    NotOnShelf,
    OrderCurrenciesDiffer,
    OrderLine,
    OrderNotFound,
    OrderNotPaid,
    OrderState,
    OutOfStock,
    Scene,
    ShopOrder,
    fingerprint,
    total_of,
)
from tongbao.products.shop.orders import new_order, order_writes

BILL_EXPIRES: Final = timedelta(minutes=15)
_TOKEN_BYTES: Final = 16
_TRIES_MAX: Final = 3


class _Again(Exception):
    """The dish is there already: undo what was counted for it."""


async def make_table(tx: Tx, caller: Caller, name: str, table_id: UUID) -> DiningTable:
    """Write a table down with an address nobody can guess."""
    token = secrets.token_urlsafe(_TOKEN_BYTES)
    of = (table_id, caller.merchant_id, caller.mode)
    table = await store.INSERT_TABLE.one(tx, *of, token, name, tx.now)
    await audit.record(tx, "table.made", show("tbl", table.id), {"name": name})
    return table


async def revoke_table(tx: Tx, caller: Caller, table_id: UUID) -> DiningTable:
    """Give a table's code up for good; a second time does nothing.

    Raises:
        TableNotFound
    """
    of = (table_id, caller.merchant_id, caller.mode)
    table = await store.REVOKE_TABLE.first(tx, *of, tx.now)
    if table is None:
        raise TableNotFound
    await audit.record(tx, "table.revoked", show("tbl", table.id), {})
    return table


async def table_of_token(on: Db | Tx, token: str) -> DiningTable:
    """Return the table whose printed code says this address.

    Raises:
        TableNotFound
    """
    table = await store.TABLE_OF_TOKEN.first(on, token)
    if table is None:
        raise TableNotFound
    return table


async def tab_at(on: Db | Tx, table: DiningTable) -> tuple[TableTab, list[Dish]] | None:
    """Return what is on the table's tab, or None when nobody has ordered yet."""
    tab = await store.TAB_OF_TABLE.first(on, table.id)
    return None if tab is None else (tab, await store.DISHES_OF.all(on, tab.id))


async def order_dish(
    shop: Shop,
    table: DiningTable,
    guest: Guest,
    dish: tuple[UUID, int],
    *,
    wishes: str = "",
    dish_id: UUID,
) -> None:
    """Put so many of a variant on the table's tab, its stock promised; the same id does so once.

    Raises:
        SkuNotFound, NotOnShelf, OutOfStock, TabFull, TableBusy
    """
    sku_id, quantity = dish
    wanted = (await on_sale(shop.db, table.merchant_id, table.mode, [sku_id]))[sku_id]
    if not wanted.on_shelf:
        raise NotOnShelf(sku_id=show("sku", sku_id))
    try:
        async with shop.db.begin("table") as tx:
            tab = await _counted(tx, table)
            if wanted.counted and await write_all(tx, [reserve_write(sku_id, quantity)]):
                raise OutOfStock
            made = await store.INSERT_DISH.first(
                tx,
                dish_id,
                tab.id,
                table.merchant_id,
                table.mode,
                sku_id,
                wanted.code,
                wanted.title,
                wanted.price,
                wanted.currency,
                quantity,
                wanted.counted,
                wishes,
                guest.id,
                guest.name,
                tx.now,
            )
            if made is None:
                raise _Again  # noqa: TRY301 - it only leaves the transaction
    except _Again:
        return


async def _counted(tx: Tx, table: DiningTable) -> TableTab:
    """Count one more dish on the open tab, which is opened if there is none."""
    for _ in range(_TRIES_MAX):
        of = (new_id(), table.id, table.merchant_id, table.mode)
        await store.OPEN_TAB.run(tx, *of, tx.now)
        tab = await store.COUNT_DISH.first(tx, table.id, DISHES_MAX)
        if tab is not None:
            return tab
        if await store.TAB_OF_TABLE.first(tx, table.id) is not None:
            raise TabFull
    raise TableBusy


async def move_dish(tx: Tx, caller: Caller, dish_id: UUID, state: DishState) -> Dish:
    """Move a dish on in the kitchen, or cancel it and put its stock back.

    Raises:
        DishNotFound, DishCannotMove
    """
    dish = await store.LOCK_DISH.first(tx, dish_id, caller.merchant_id, caller.mode)
    if dish is None:
        raise DishNotFound
    if dish.state is state:
        return dish  # a repeat
    dish.check_moves_to(state)
    if state is DishState.CANCELLED and dish.counted:
        await let_go(tx, dish.sku_id, dish.quantity)
    return await store.MOVE_DISH.one(tx, dish.id, state)


async def bill_tab(
    shop: Shop, tab: TableTab, guest_id: UUID | None, back: Callable[[UUID], str] | None = None
) -> UUID:
    """Make an order of what is unpaid: all of it, or what one guest ordered; return its id.

    Where all of that is on an unpaid bill already, it is that bill. ``back`` says where whoever
    has paid an order is led.

    Raises:
        NothingToPay, OrderCurrenciesDiffer, OrderTooLarge
    """
    failpoint("scenes.before_bill")
    order_id = new_id()
    async with shop.db.begin("table") as tx:
        await store.LOCK_TAB.one(tx, tab.id)
        dishes = await store.LOCK_UNBILLED.all(tx, tab.id, guest_id)
        if not dishes:
            return await _bill_there(tx, tab, guest_id)
        lines = _lines(order_id, dishes)
        order = new_order(
            (tab.merchant_id, tab.mode),
            order_id,
            number=base32(order_id),
            total=Money(total_of(lines), dishes[0].currency),
            hash_=fingerprint(order_id.hex),
            scene=Scene.TABLE,
            subject=f"{dishes[0].name[:100]}{f' +{len(dishes) - 1}' if dishes[1:] else ''}",
            at=tx.now,
            expires_in=BILL_EXPIRES,
            tab_id=tab.id,
        )
        order = replace(order, return_url=None if back is None else back(order_id))
        for write in order_writes(order, lines):
            await write.run(tx)
        await store.BILL.run(tx, [dish.id for dish in dishes], order_id)
    failpoint("scenes.after_bill")
    return order_id


async def _bill_there(tx: Tx, tab: TableTab, guest_id: UUID | None) -> UUID:
    for dish in reversed(await store.DISHES_OF.all(tx, tab.id)):
        if dish.order_id is not None and not dish.paid and guest_id in {None, dish.guest_id}:
            return dish.order_id
    raise NothingToPay


def _lines(order_id: UUID, dishes: Sequence[Dish]) -> list[OrderLine]:
    if len({dish.currency for dish in dishes}) > 1:
        raise OrderCurrenciesDiffer
    return [
        OrderLine(
            order_id,
            number,
            dish.sku_id,
            dish.code,
            dish.name,
            dish.price,
            dish.quantity,
            dish.amount,
            refunded=0,
            counted=dish.counted,
        )
        for number, dish in enumerate(dishes, start=1)
    ]


async def follow_order(tx: Tx, order: ShopOrder) -> None:
    """Let a table's dishes follow their bill, in the transaction of its end.

    A paid one may be the last, and closes the tab; one that ended unpaid lets its dishes go.
    """
    if order.tab_id is None:
        return
    if order.state is OrderState.CANCELLED:
        await store.UNBILL.run(tx, order.id)
        return
    await store.LOCK_TAB.one(tx, order.tab_id)
    await store.MARK_PAID.run(tx, order.id)
    await store.CLOSE_TAB_IF_PAID.first(tx, order.tab_id, tx.now)


async def close_tab(tx: Tx, tab: TableTab) -> TableTab:
    """Close a tab whose guests have gone: what nobody has a bill for is cancelled.

    Raises:
        TabUnpaid
    """
    tab = await store.LOCK_TAB.one(tx, tab.id)
    for dish in await store.LOCK_UNBILLED.all(tx, tab.id, None):
        if dish.counted:
            await let_go(tx, dish.sku_id, dish.quantity)
        await store.MOVE_DISH.one(tx, dish.id, DishState.CANCELLED)
    closed = await store.CLOSE_TAB_IF_PAID.first(tx, tab.id, tx.now)
    if closed is not None:
        await audit.record(tx, "tab.closed", show("tab", tab.id), {})
        return closed
    tab = await store.LOCK_TAB.one(tx, tab.id)
    if tab.closed_at is None:
        raise TabUnpaid
    return tab


async def tab_of_caller(on: Db | Tx, caller: Caller, tab_id: UUID) -> TableTab:
    """Return the merchant's tab.

    Raises:
        TabNotFound: also for another merchant's, or another mode's.
    """
    tab = await store.FIND_TAB.first(on, tab_id, caller.merchant_id, caller.mode)
    if tab is None:
        raise TabNotFound
    return tab


async def order_at(on: Db | Tx, table: DiningTable, order_id: UUID) -> ShopOrder:
    """Return a bill of this very table.

    Raises:
        OrderNotFound: also for an order of another table.
    """
    order = await order_of_merchant(on, table.merchant_id, table.mode, order_id)
    of = (table.merchant_id, table.mode)
    tab = None if order.tab_id is None else await store.FIND_TAB.first(on, order.tab_id, *of)
    if tab is None or tab.table_id != table.id:
        raise OrderNotFound
    return order


async def review_order(tx: Tx, order: ShopOrder, stars: int, words: str) -> OrderReview:
    """Keep what a customer who has paid thinks, once for each order.

    Raises:
        OrderNotPaid, OrderReviewed
    """
    if not order.is_paid:
        raise OrderNotPaid
    review = OrderReview(order.id, order.merchant_id, order.mode, stars, words, tx.now)
    if await store.INSERT_REVIEW.run(tx, *astuple(review)) == 0:
        raise OrderReviewed
    return review

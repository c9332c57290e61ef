"""A restaurant table: several guests order, one pays or each does, and nothing is billed twice."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest

from tests.products.callers import caller_of
from tests.products.corner import Corner
from tongbao.infra.failpoints import SimulatedCrash, arm
from tongbao.kernel.ids import new_id
from tongbao.products.scenes import _store as store
from tongbao.products.scenes import queries
from tongbao.products.scenes.model import (
    DiningTable,
    Dish,
    DishCannotMove,
    DishNotFound,
    DishState,
    Guest,
    NothingToPay,
    OrderReviewed,
    TableNotFound,
    TableTab,
    TabNotFound,
    TabState,
    TabUnpaid,
)
from tongbao.products.scenes.tables import (
    bill_tab,
    close_tab,
    make_table,
    move_dish,
    order_dish,
    review_order,
    revoke_table,
    tab_at,
    tab_of_caller,
    table_of_token,
)
from tongbao.products.shop.endings import cancel_order, order_of_caller
from tongbao.products.shop.model import OrderState, OutOfStock, ShopOrder, Sku
from tongbao.products.shop.orders import checkout_of


async def seated(corner: Corner) -> DiningTable:
    async with corner.db.begin("tests") as tx:
        return await make_table(tx, corner.caller, "table 7", new_id())


async def serve(corner: Corner, table: DiningTable, guest: Guest, sku: Sku, count: int = 1) -> UUID:
    dish_id = new_id()
    await order_dish(corner.shop, table, guest, (sku.id, count), dish_id=dish_id)
    return dish_id


async def tab_of(corner: Corner, table: DiningTable) -> tuple[TableTab, list[Dish]]:
    found = await tab_at(corner.db, table)
    assert found is not None
    return found


async def bill(corner: Corner, tab: TableTab, guest: Guest | None = None) -> ShopOrder:
    order_id = await bill_tab(corner.shop, tab, None if guest is None else guest.id)
    return await order_of_caller(corner.db, corner.caller, order_id)


async def move(corner: Corner, dish_id: UUID, state: DishState) -> Dish:
    async with corner.db.begin("tests") as tx:
        return await move_dish(tx, corner.caller, dish_id, state)


ANNE, BO = Guest(new_id(), "Anne"), Guest(new_id(), "波")


async def test_guests_order_on_one_tab_and_one_pays_for_all(corner: Corner) -> None:
    tea, rice = await corner.product(5, None)
    table = await seated(corner)

    await asyncio.gather(
        *[serve(corner, table, guest, sku) for guest in (ANNE, BO) for sku in (tea, rice)]
    )
    tab, dishes = await tab_of(corner, table)
    assert (len(dishes), tab.dishes) == (4, 4)
    assert await corner.stock(tea) == (3, 2, 0)

    order = await bill(corner, tab)
    assert order.total == 1200
    assert await bill(corner, tab) == order, "the bill that is there"
    order = await corner.pay(order)

    assert order.state is OrderState.PAID
    assert await corner.stock(tea) == (3, 0, 2)
    assert await tab_at(corner.db, table) is None
    async with corner.db.begin("tests") as tx:
        await review_order(tx, order, 4, "好吃")
        with pytest.raises(OrderReviewed):
            await review_order(tx, order, 4, "好吃")


async def test_each_pays_for_oneself_and_the_last_closes_the_tab(corner: Corner) -> None:
    [tea] = await corner.product(9, price=500)
    table = await seated(corner)
    await serve(corner, table, ANNE, tea, 2)
    await serve(corner, table, BO, tea)
    tab, _ = await tab_of(corner, table)

    hers, his = await asyncio.gather(bill(corner, tab, ANNE), bill(corner, tab, BO))
    assert (hers.total, his.total) == (1000, 500)
    with pytest.raises(NothingToPay):
        await bill(corner, tab, Guest(new_id(), "Carl"))
    await corner.pay(hers)
    assert (await tab_of(corner, table))[0].state is TabState.OPEN
    await corner.pay(his)

    assert await tab_at(corner.db, table) is None


async def test_a_bill_nobody_pays_lets_its_dishes_go_and_they_can_be_split(corner: Corner) -> None:
    [tea] = await corner.product(9)
    table = await seated(corner)
    for guest in (ANNE, BO):
        await serve(corner, table, guest, tea)
    tab, _ = await tab_of(corner, table)
    together = await bill(corner, tab)
    await checkout_of(corner.shop, together)

    await cancel_order(corner.shop, together, "tests")

    assert await corner.stock(tea) == (7, 2, 0), "the dishes are still theirs"
    hers = await bill(corner, tab, ANNE)
    assert hers.total == 300
    await corner.stage.advance(minutes=16)
    assert (await corner.now(hers)).state is OrderState.CANCELLED
    assert not [dish for dish in (await tab_of(corner, table))[1] if dish.order_id]


async def test_a_dish_added_while_the_bill_is_paid_keeps_the_tab_open(corner: Corner) -> None:
    [tea] = await corner.product(9)
    table = await seated(corner)
    await serve(corner, table, ANNE, tea)
    tab, _ = await tab_of(corner, table)
    order = await bill(corner, tab)
    await serve(corner, table, BO, tea)

    await corner.pay(order)

    assert (await tab_of(corner, table))[0].state is TabState.OPEN
    assert (await bill(corner, tab)).total == 300


async def test_the_kitchen_moves_dishes_forward_and_cancels_what_nobody_has_a_bill_for(
    corner: Corner,
) -> None:
    [tea] = await corner.product(9)
    table = await seated(corner)
    first, second = [await serve(corner, table, ANNE, tea) for _ in range(2)]

    await move(corner, first, DishState.COOKING)
    await move(corner, first, DishState.COOKING)
    assert (await move(corner, first, DishState.SERVED)).state is DishState.SERVED
    for state in (DishState.READY, DishState.CANCELLED):
        with pytest.raises(DishCannotMove):
            await move(corner, first, state)
    await move(corner, second, DishState.CANCELLED)
    assert await corner.stock(tea) == (8, 1, 0)
    with pytest.raises(DishNotFound):
        await move(corner, new_id(), DishState.READY)
    third = await serve(corner, table, BO, tea)
    tab, _ = await tab_of(corner, table)
    await bill(corner, tab)
    with pytest.raises(DishCannotMove):
        await move(corner, third, DishState.CANCELLED)
    tickets = await queries.list_dishes(
        corner.db, corner.caller, status=DishState.SERVED, cursor=None, limit=1
    )
    assert len(tickets.items) == 1


async def test_what_runs_out_is_refused_and_a_form_sent_twice_orders_once(corner: Corner) -> None:
    [last] = await corner.product(1)
    table = await seated(corner)
    await serve(corner, table, ANNE, last)
    with pytest.raises(OutOfStock):
        await serve(corner, table, BO, last)

    [free] = await corner.product(None)
    again = new_id()
    for _ in range(2):
        await order_dish(corner.shop, table, BO, (free.id, 1), dish_id=again)
    tab, dishes = await tab_of(corner, table)
    assert (tab.dishes, len(dishes)) == (2, 2)


async def test_guests_who_left_leave_nothing_reserved(corner: Corner) -> None:
    [tea] = await corner.product(5)
    table = await seated(corner)
    await serve(corner, table, ANNE, tea, 2)
    tab, _ = await tab_of(corner, table)
    order = await bill(corner, tab)
    async with corner.db.begin("tests") as tx:
        with pytest.raises(TabUnpaid):
            await close_tab(tx, tab)
    await cancel_order(corner.shop, order, "tests")

    for _ in range(2):
        async with corner.db.begin("tests") as tx:
            assert (await close_tab(tx, tab)).state is TabState.CLOSED

    assert await corner.stock(tea) == (5, 0, 0)


async def test_a_code_that_was_given_up_opens_nothing_and_strangers_see_nothing(
    corner: Corner,
) -> None:
    table = await seated(corner)
    [tea] = await corner.product(None)
    await serve(corner, table, ANNE, tea)
    tab, _ = await tab_of(corner, table)
    stranger = caller_of(new_id(), corner.caller.book)

    assert await table_of_token(corner.db, table.token) == table
    with pytest.raises(TabNotFound):
        await tab_of_caller(corner.db, stranger, tab.id)
    async with corner.db.begin("tests") as tx:
        with pytest.raises(TableNotFound):
            await revoke_table(tx, stranger, table.id)
        await revoke_table(tx, corner.caller, table.id)
    with pytest.raises(TableNotFound):
        await table_of_token(corner.db, table.token)


@pytest.mark.parametrize("place", ["before_bill", "after_bill"])
async def test_a_death_beside_a_bill_bills_nothing_twice(corner: Corner, place: str) -> None:
    [tea] = await corner.product(5)
    table = await seated(corner)
    await serve(corner, table, ANNE, tea)
    tab, _ = await tab_of(corner, table)

    arm(f"scenes.{place}:raise")
    try:
        with pytest.raises(SimulatedCrash):
            await bill(corner, tab)
    finally:
        arm(None)
    order = await corner.pay(await bill(corner, tab))

    assert (order.state, order.total) == (OrderState.PAID, 300)
    rows = await corner.db.fetch("select id from shop_order where tab_id = $1", (tab.id,))
    assert len(rows) == 1
    assert await store.DISHES_OF.all(corner.db, tab.id)

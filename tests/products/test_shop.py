"""A shop: stock is never oversold, an order ends once, and gives back no piece twice."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.products.callers import caller_of, once
from tests.products.corner import Corner
from tests.stage import new_number
from tongbao.infra.db_failures import CheckViolated
from tongbao.infra.failpoints import SimulatedCrash, arm
from tongbao.infra.tasks import Lease
from tongbao.kernel.clock import real_now
from tongbao.kernel.ids import new_id, show
from tongbao.kernel.money import Money
from tongbao.payments.refunds.refunds import RefundExceedsCaptured
from tongbao.products.scenes.counter import CounterSale, charge, sell_at_counter
from tongbao.products.scenes.model import OrderReviewed
from tongbao.products.scenes.tables import review_order
from tongbao.products.shop import _store as store
from tongbao.products.shop.catalogue import (
    NewProduct,
    NewSku,
    ProductChange,
    adjust_stock,
    change_price,
    change_product,
    make_product,
)
from tongbao.products.shop.endings import (
    LookAtOrder,
    cancel_order,
    end_unpaid,
    fulfil_order,
    look_at_order,
    run_look_at_order,
)
from tongbao.products.shop.model import (
    NotOnShelf,
    OnSale,
    OrderCurrenciesDiffer,
    OrderNotPaid,
    OrderNotPlaced,
    OrderRefundState,
    OrderState,
    OutOfStock,
    Product,
    RefundedLine,
    RefundExceedsLine,
    ShopOrder,
    ShopOrderNumberUsed,
    SkuCodeUsed,
    SkuNotFound,
    StockNotCounted,
    StockTooLow,
    lines_of,
    refund_of,
    total_of,
)
from tongbao.products.shop.orders import checkout_of
from tongbao.products.shop.queries import OrderFilter, export_orders, list_orders
from tongbao.products.shop.refunds import OrderRefundAsked, push_refund, refund_order

BUYERS = 200
ALL = OrderRefundAsked()


def on_sale(price: int, currency: str = "CNY", *, on_shelf: bool = True) -> OnSale:
    row = (new_id(), new_id(), "tea", "drinks", "t", "100 g", price, currency, True, 5, on_shelf)
    return OnSale(*row)


# The decisions


@given(st.lists(st.tuples(st.integers(1, 10**6), st.integers(1, 1000)), min_size=1, max_size=20))
@settings(max_examples=40)
def test_a_total_is_the_sum_of_its_lines_and_so_is_what_goes_back(
    wanted: list[tuple[int, int]],
) -> None:
    lines = lines_of(new_id(), [(on_sale(price), count) for price, count in wanted])

    assert total_of(lines) == sum(price * count for price, count in wanted)
    everything = {line.number: line.quantity for line in lines}
    assert refund_of(lines, everything) == total_of(lines)
    halves = {line.number: line.quantity // 2 for line in lines}
    rest = {number: everything[number] - half for number, half in halves.items()}
    assert refund_of(lines, halves) + refund_of(lines, rest) == total_of(lines)
    with pytest.raises(RefundExceedsLine):
        refund_of(lines, {1: lines[0].quantity + 1})
    with pytest.raises(RefundExceedsLine):
        refund_of(lines, {len(lines) + 1: 1})


def test_what_an_order_cannot_have() -> None:
    with pytest.raises(NotOnShelf):
        lines_of(new_id(), [(on_sale(1, on_shelf=False), 1)])
    with pytest.raises(OrderCurrenciesDiffer):
        lines_of(new_id(), [(on_sale(1), 1), (on_sale(1, "USD"), 1)])


# The catalogue


async def test_products_are_changed_and_stock_is_counted(corner: Corner) -> None:
    counted, free = await corner.product(5, None)
    caller = corner.caller
    async with corner.db.begin("tests") as tx:
        more = await adjust_stock(tx, caller, counted.id, 3, "delivery")
        dearer = await change_price(tx, caller, counted.id, 400)
        away = await change_product(
            tx, caller, counted.product_id, ProductChange(on_shelf=False, category="drinks")
        )
    assert (more.available, dearer.price) == (8, 400)
    assert isinstance(away, Product)
    assert (away.on_shelf, away.name, away.category) == (False, "tea", "drinks")
    with pytest.raises(NotOnShelf):
        await corner.order((counted, 1))

    for sku_id, change, refusal in (
        (counted.id, -9, StockTooLow),
        (free.id, 1, StockNotCounted),
        (new_id(), 1, SkuNotFound),
    ):
        async with corner.db.begin("tests") as tx:
            with pytest.raises(refusal):
                await adjust_stock(tx, caller, sku_id, change, "mistake")
    stranger = caller_of(new_id(), caller.book)
    async with corner.db.begin("tests") as tx:
        with pytest.raises(SkuNotFound):
            await adjust_stock(tx, stranger, counted.id, 1, "theft")
        again = NewProduct("x", (NewSku(counted.code, Money(1, "CNY")),))
        with pytest.raises(SkuCodeUsed):
            await make_product(tx, caller, again, new_id())


# Stock under a crowd


async def test_two_hundred_buyers_of_a_hot_article_get_no_more_than_there_is(
    corner: Corner,
) -> None:
    [hot] = await corner.product(37)

    placed = await asyncio.gather(
        *[corner.order((hot, 1 + n % 2)) for n in range(BUYERS)], return_exceptions=True
    )

    orders = [each for each in placed if isinstance(each, ShopOrder)]
    refused = [each for each in placed if not isinstance(each, ShopOrder)]
    assert {type(each) for each in refused} == {OutOfStock}
    promised = sum(each.total // 300 for each in orders)
    assert promised == 37, "single pieces fill what pairs leave"
    assert await corner.stock(hot) == (0, 37, 0)
    for order in orders:
        await cancel_order(corner.shop, order, "tests")
    assert await corner.stock(hot) == (37, 0, 0)


async def test_an_order_takes_all_of_its_goods_or_none(corner: Corner) -> None:
    many, few = await corner.product(10, 1)

    with pytest.raises(OutOfStock):
        await corner.order((many, 2), (few, 2))

    assert await corner.stock(many) == (10, 0, 0)
    assert await corner.stock(few) == (1, 0, 0)


async def test_the_database_sells_nothing_that_is_not_there(corner: Corner) -> None:
    [sku] = await corner.product(1)

    for change in ("available = -1, reserved = 2", "sold = 1", "reserved = 1", "received = 2"):
        with pytest.raises(CheckViolated):
            await corner.db.execute(f"update sku set {change} where id = $1", (sku.id,))


# An order's life


async def test_a_paid_order_takes_its_goods_and_is_told_once(corner: Corner) -> None:
    counted, free = await corner.product(5, None)
    order = await corner.place((counted, 2), (free, 1))
    assert await corner.stock(counted) == (3, 2, 0)

    order = await corner.pay(order)
    await asyncio.gather(*[look_at_order(corner.shop, order.id) for _ in range(3)])

    assert (order.state, order.total) == (OrderState.PAID, 900)
    assert await corner.stock(counted) == (3, 0, 2)
    assert await corner.told(show("ord", order.id)) == {"order.paid": 1}
    with pytest.raises(OrderNotPlaced):
        await cancel_order(corner.shop, order, "tests")
    async with corner.db.begin("tests") as tx:
        fulfilled = await fulfil_order(tx, order)
        again = await fulfil_order(tx, fulfilled)
    assert again == fulfilled
    async with corner.db.begin("tests") as tx:
        await review_order(tx, fulfilled, 5, "好喝")
        with pytest.raises(OrderReviewed):
            await review_order(tx, fulfilled, 1, "")


async def test_the_price_is_that_of_the_moment(corner: Corner) -> None:
    [sku] = await corner.product(5, price=100)
    order = await corner.place((sku, 2))
    async with corner.db.begin("tests") as tx:
        await change_price(tx, corner.caller, sku.id, 999)

    assert (await corner.pay(order)).total == 200


async def test_time_gives_the_goods_of_an_unpaid_order_back_once(corner: Corner) -> None:
    [sku] = await corner.product(5)
    order = await corner.place((sku, 2))
    unopened = await corner.order((sku, 1))  # whoever placed it died before its checkout was there

    await corner.stage.advance(minutes=31)
    await asyncio.gather(*[look_at_order(corner.shop, order.id) for _ in range(3)])
    assert await run_look_at_order(corner.shop, LookAtOrder(order.id), Lease(new_id(), 1)) is None

    assert (await corner.now(order)).state is OrderState.CANCELLED
    assert (await corner.now(unopened)).state is OrderState.CANCELLED
    assert await corner.stock(sku) == (5, 0, 0)
    with pytest.raises(OrderNotPlaced):
        await checkout_of(corner.shop, unopened)
    async with corner.db.begin("tests") as tx:
        with pytest.raises(OrderNotPaid):
            await review_order(tx, await corner.now(order), 5, "")


async def test_who_pays_first_wins_against_who_cancels(corner: Corner) -> None:
    [sku] = await corner.product(5)
    order = await corner.place((sku, 1))
    await corner.try_to_pay(order)

    with pytest.raises(OrderNotPlaced):
        await cancel_order(corner.shop, order, "tests")
    await corner.stage.idle()
    assert (await corner.now(order)).state is OrderState.PAID


async def test_a_repeat_is_one_order_and_another_content_is_refused(corner: Corner) -> None:
    [sku] = await corner.product(5)
    first = await corner.order((sku, 2), number="N-1")

    assert await corner.order((sku, 2), number="N-1") == first
    with pytest.raises(ShopOrderNumberUsed):
        await corner.order((sku, 1), number="N-1")

    assert await corner.stock(sku) == (3, 2, 0)


async def test_what_a_payment_says_of_itself_is_not_believed(corner: Corner) -> None:
    """A payment of a fen whose metadata names an order of a thousand pays nothing."""
    [sku] = await corner.product(5)
    order = await corner.place((sku, 1))
    claims = {"order_id": show("ord", order.id), "checkout_id": show("cko", order.checkout_id)}

    payment = await corner.stage.paid("wechat_pay", 1, metadata=claims)

    assert payment["status"] == "succeeded"
    assert (await corner.now(order)).state is OrderState.PLACED
    await cancel_order(corner.shop, order, "tests")


# The counter


@pytest.mark.parametrize("channel", ["wallet", "alipay"])
async def test_a_counter_sale_is_paid_by_the_code_shown(corner: Corner, channel: str) -> None:
    stage = corner.stage
    code = await (stage.wallet_code() if channel == "wallet" else stage.code(channel))
    sale = CounterSale(new_number(), Money(1500, "CNY"), "lunch", code, "127.0.0.1")

    order = await sell_at_counter(corner.shop, corner.caller, sale, once(corner.caller), new_id())
    keyring = stage.platform.keyring
    paid = await charge(corner.shop, keyring, corner.caller, order, sale)

    assert (paid.state, paid.total) == (OrderState.PAID, 1500)
    assert await charge(corner.shop, keyring, corner.caller, paid, sale) == paid


async def test_a_code_that_does_not_pay_cancels_the_sale(corner: Corner) -> None:
    keyring = corner.stage.platform.keyring
    poor = await corner.stage.wallet_code(balance=10)
    sale = CounterSale(new_number(), Money(1500, "CNY"), "lunch", poor, "127.0.0.1")
    order = await sell_at_counter(corner.shop, corner.caller, sale, once(corner.caller), new_id())

    ended = await charge(corner.shop, keyring, corner.caller, order, sale)

    assert ended.state is OrderState.CANCELLED


async def test_a_checkout_opened_at_the_last_moment_keeps_the_order(corner: Corner) -> None:
    """Whoever opens it holds the order's row; who would end the order looks again behind it."""
    [sku] = await corner.product(5)
    order = await corner.order((sku, 1))
    looking: asyncio.Task[ShopOrder]
    async with corner.db.begin("by hand") as tx:
        await store.LOCK_ORDER.one(tx, order.id)
        looking = asyncio.create_task(end_unpaid(corner.shop, order, given_up=True))
        opening = asyncio.create_task(checkout_of(corner.shop, order))
        async with asyncio.timeout(5):
            while await waiting_for_locks(corner) < 2:  # noqa: ASYNC110 - the server knows
                await asyncio.sleep(0.005)
    ended, opened = await asyncio.gather(looking, opening, return_exceptions=True)

    if isinstance(opened, OrderNotPlaced):
        assert isinstance(ended, ShopOrder)
        assert ended.state is OrderState.CANCELLED
        assert await corner.stock(sku) == (5, 0, 0)
    else:
        assert isinstance(ended, ShopOrder)
        assert ended.state is OrderState.PLACED
        assert (await corner.pay(order)).state is OrderState.PAID


async def waiting_for_locks(corner: Corner) -> int:
    rows = await corner.db.fetch(
        "select count(*) from pg_stat_activity"
        " where datname = current_database() and wait_event_type = 'Lock'",
        (),
    )
    return int(rows[0][0])


# Giving back


async def test_pieces_go_back_and_on_the_shelf_as_asked(corner: Corner) -> None:
    one, other = await corner.product(5, 5)
    order = await corner.paid((one, 3), (other, 1))

    asked = OrderRefundAsked((RefundedLine(1, 2),), restock=True, reason="broken")
    await give_back(corner, order, asked)
    kept = OrderRefundAsked((RefundedLine(2, 1),), restock=False)
    await give_back(corner, order, kept)

    assert await corner.stock(one) == (4, 0, 1)
    assert await corner.stock(other) == (4, 0, 1)
    now = await corner.now(order)
    assert (now.state, now.refunded, now.returned) == (OrderState.PAID, 900, 900)
    with pytest.raises(RefundExceedsLine):
        await refund(corner, order, OrderRefundAsked((RefundedLine(1, 2),)))
    await give_back(corner, order, ALL)
    assert (await corner.now(order)).state is OrderState.REFUNDED
    with pytest.raises(OrderNotPaid):
        await refund(corner, order, ALL)


async def refund(corner: Corner, order: ShopOrder, asked: OrderRefundAsked) -> UUID:
    made = await refund_order(corner.shop, order, asked, once(corner.caller), new_id())
    return made.id


async def give_back(corner: Corner, order: ShopOrder, asked: OrderRefundAsked) -> None:
    made = await refund(corner, order, asked)
    await corner.stage.advance(seconds=60)
    ended = await store.GET_REFUND.one(corner.db, made)
    assert ended.state is OrderRefundState.SUCCEEDED


async def test_of_many_who_give_the_same_piece_back_one_does(corner: Corner) -> None:
    [sku] = await corner.product(5)
    order = await corner.paid((sku, 1))

    answers = await asyncio.gather(
        *[refund(corner, order, ALL) for _ in range(5)], return_exceptions=True
    )
    await corner.stage.advance(seconds=60)

    assert sum(isinstance(each, UUID) for each in answers) == 1
    assert (await corner.now(order)).returned == 300
    assert await corner.stock(sku) == (5, 0, 0)


async def test_a_refund_the_payment_refuses_can_be_asked_again(corner: Corner) -> None:
    """Some of the money went back past the order; its pieces can be asked back again later."""
    [sku] = await corner.product(5)
    order = await corner.paid((sku, 1))
    payment_id = order.payment_id
    assert payment_id is not None
    other = await corner.stage.call(
        corner.stage.client.payments.refund,
        show("pay", payment_id),
        merchant_refund_no=new_number(),
        amount=200,
    )
    assert other["amount"] == 200

    with pytest.raises(RefundExceedsCaptured):
        await refund(corner, order, ALL)

    now = await corner.now(order)
    assert (now.refunded, now.returned) == (0, 0)
    [failed] = await store.REFUNDS_OF.all(corner.db, order.id)
    assert (failed.state, failed.code) == (OrderRefundState.FAILED, "refund.exceeds_captured")
    assert await push_refund(corner.shop, failed) == failed
    assert await corner.stock(sku) == (4, 0, 1)


# Death


PLACES = (
    *("before_order", "after_order", "before_checkout", "after_checkout"),
    *("before_paid", "after_paid"),
    *("after_refund_request", "after_refund_order", "before_refund_end", "after_refund_end"),
)


@pytest.mark.parametrize("place", PLACES)
async def test_a_death_at_any_place_is_made_good(corner: Corner, place: str) -> None:
    """Asked again from its start, with tasks run: one order, one payment, goods back once."""
    [sku] = await corner.product(5)
    number = new_number()

    async def life() -> ShopOrder:
        order = await corner.order((sku, 2), number=number)
        if order.state is OrderState.PLACED:
            await checkout_of(corner.shop, order)
            with suppress(ValueError):  # the customer paid before the crash
                await corner.try_to_pay(order)
            await asyncio.to_thread(corner.stage.sandbox.settle)
            await corner.stage.platform.worker.run_until_idle(raise_failures=True)
            order = await look_at_order(corner.shop, order.id)
        if not await store.REFUNDS_OF.all(corner.db, order.id):
            await refund(corner, order, ALL)
        await corner.stage.advance(seconds=60)  # the task asks the channel where nobody did
        await corner.stage.advance(seconds=60)  # and the channel needs a moment
        return await corner.now(order)

    arm(f"shop.{place}:raise")
    try:
        with pytest.raises(SimulatedCrash):
            await life()
    finally:
        arm(None)
        corner.stage.platform.worker._crash = None  # another worker goes on, when the lease is over
        sql = "update task set lease_until = $1 where lease_until is not null"
        await corner.db.execute(sql, (real_now(),))
    order = await life()

    assert (order.state, order.returned) == (OrderState.REFUNDED, 600)
    assert await corner.stock(sku) == (5, 0, 0)
    rows = await corner.db.fetch(
        "select count(*) from payment where state = 'succeeded' and metadata->>'order_id' = $1",
        (show("ord", order.id),),
    )
    assert rows[0][0] == 1


@pytest.mark.parametrize("place", ["before_cancelled", "after_cancelled"])
async def test_a_death_beside_the_end_of_an_unpaid_order_puts_its_goods_back_once(
    corner: Corner, place: str
) -> None:
    [sku] = await corner.product(5)
    order = await corner.place((sku, 2))

    arm(f"shop.{place}:raise")
    try:
        with pytest.raises(SimulatedCrash):
            await cancel_order(corner.shop, order, "tests")
    finally:
        arm(None)

    assert (await cancel_order(corner.shop, order, "tests")).state is OrderState.CANCELLED
    assert await corner.stock(sku) == (5, 0, 0)
    assert await corner.told(show("ord", order.id)) == {"order.cancelled": 1}


@pytest.mark.parametrize("place", ["before_charge", "after_charge"])
async def test_a_death_beside_a_charge_charges_once(corner: Corner, place: str) -> None:
    keyring = corner.stage.platform.keyring
    code = await corner.stage.wallet_code()
    sale = CounterSale(new_number(), Money(1500, "CNY"), "lunch", code, "127.0.0.1")
    order = await sell_at_counter(corner.shop, corner.caller, sale, once(corner.caller), new_id())

    arm(f"scenes.{place}:raise")
    try:
        with pytest.raises(SimulatedCrash):
            await charge(corner.shop, keyring, corner.caller, order, sale)
    finally:
        arm(None)
    paid = await charge(corner.shop, keyring, corner.caller, await corner.now(order), sale)

    assert paid.state is OrderState.PAID
    rows = await corner.db.fetch(
        "select state from payment where metadata->>'order_id' = $1", (show("ord", order.id),)
    )
    assert [row["state"] for row in rows] == ["succeeded"]


async def test_lists_and_sheets_have_pages(corner: Corner) -> None:
    [sku] = await corner.product(None)
    for number in ("=1+1", "P-2", "P-3"):
        await corner.order((sku, 1), number=number)
    wanted = OrderFilter(OrderState.PLACED)

    one = await list_orders(corner.db, corner.caller, wanted, cursor=None, limit=2)
    sheet = await export_orders(corner.db, corner.caller, wanted, cursor=None, limit=2)
    rest = await export_orders(
        corner.db, corner.caller, wanted, cursor=sheet.next_cursor, limit=100
    )

    assert [each.merchant_order_no for each in one.items] == ["P-3", "P-2"]
    assert sheet.csv.startswith("order,merchant_order_no,scene,status")
    assert sheet.csv.count("\r\n") == 3
    assert "'=1+1" in rest.csv
    assert "order," not in rest.csv

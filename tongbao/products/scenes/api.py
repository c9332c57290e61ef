"""The routes of the counter, of restaurant tables and of reviews."""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

from litestar import Response, get, post
from msgspec import Meta, Struct

from tongbao.infra.crypto import Keyring
from tongbao.infra.db import Db
from tongbao.infra.web.caller import Caller, needs
from tongbao.infra.web.idempotency import Idempotency, answer_once
from tongbao.infra.web.request import AmountField, ApiRequest, CurrencyField, NumberField
from tongbao.kernel.ids import new_id, parse
from tongbao.kernel.money import AmountOutOfRange, UnknownCurrency, positive
from tongbao.kernel.pages import Page
from tongbao.parties.accounts.model import CodeUsedOrExpired
from tongbao.parties.merchants.model import ChannelNotOpened, MerchantSuspended
from tongbao.payments.checkouts.api import PublicUrl
from tongbao.payments.checkouts.model import CheckoutsTooMany
from tongbao.products.scenes import queries
from tongbao.products.scenes.counter import CounterSale, charge, sell_at_counter
from tongbao.products.scenes.model import (
    DishCannotMove,
    DishNotFound,
    DishState,
    DishView,
    NothingToPay,
    OrderReviewed,
    ReviewView,
    TableNotFound,
    TableView,
    TabNotFound,
    TabState,
    TabUnpaid,
    TabView,
    view_dish,
    view_review,
    view_table,
)
from tongbao.products.scenes.tables import (
    bill_tab,
    close_tab,
    make_table,
    move_dish,
    review_order,
    revoke_table,
    tab_of_caller,
)
from tongbao.products.shop.endings import Shop, order_of_caller
from tongbao.products.shop.model import (
    OrderCurrenciesDiffer,
    OrderNotFound,
    OrderNotPaid,
    OrderNotPlaced,
    OrderState,
    OrderView,
    ShopOrderNumberUsed,
)
from tongbao.products.shop.orders import checkout_of
from tongbao.products.shop.queries import order_view
from tongbao.rails.channels.codes import PaymentCodeUnknown


class SellAtCounter(Struct, frozen=True, forbid_unknown_fields=True):
    """An amount keyed in by a cashier, and the code that the customer's phone shows."""

    merchant_order_no: NumberField
    amount: AmountField
    auth_code: Annotated[str, Meta(min_length=16, max_length=24, pattern=r"^[0-9]+(?!\n)$")]
    subject: Annotated[str, Meta(min_length=1, max_length=120)] = "counter sale"
    currency: CurrencyField = "CNY"


class ReviewOrder(Struct, frozen=True, forbid_unknown_fields=True):
    """What the customer thinks of a paid order."""

    stars: Annotated[int, Meta(ge=1, le=5)]
    words: Annotated[str, Meta(max_length=500)] = ""


class MakeTable(Struct, frozen=True, forbid_unknown_fields=True):
    """A table with a printed code; ``name`` is what the kitchen calls it."""

    name: Annotated[str, Meta(min_length=1, max_length=64)]


class MoveDish(Struct, frozen=True, forbid_unknown_fields=True):
    """Where the dish is now."""

    status: Literal["cooking", "ready", "served", "cancelled"]


class BillTab(Struct, frozen=True, forbid_unknown_fields=True):
    """Who pays: one guest for what they ordered, or somebody for all that is unpaid."""

    guest_id: str | None = None


@post(
    "/v1/counter_sales",
    opt=needs(
        "shop:write",
        idempotent=True,
        refuses=[
            ShopOrderNumberUsed,
            MerchantSuspended,
            PaymentCodeUnknown,
            CodeUsedOrExpired,
            ChannelNotOpened,
            AmountOutOfRange,
            UnknownCurrency,
        ],
        request_example=SellAtCounter("20261122-0002", 1500, "282801234567890123"),
    ),
)
async def create_counter_sale(
    data: SellAtCounter,
    request: ApiRequest,
    shop: Shop,
    *,
    keyring: Keyring,
    public_url: PublicUrl,
    caller: Caller,
) -> Response[OrderView]:
    """Charge the code a customer shows for an amount keyed in, as an order without goods.

    It comes back paid or cancelled, or placed while the customer confirms or the channel is silent.
    """
    money = positive(data.amount, data.currency)
    ip = request.client.host if request.client is not None else "127.0.0.1"
    sale = CounterSale(data.merchant_order_no, money, data.subject, data.auth_code, ip)

    async def fresh(use: Idempotency) -> OrderView:
        order = await sell_at_counter(shop, caller, sale, use, new_id())
        return await resume(order.id)

    async def resume(order_id: UUID) -> OrderView:
        order = await order_of_caller(shop.db, caller, order_id)
        order = await charge(shop, keyring, caller, order, sale)
        return await order_view(shop.db, order, public_url.text)

    return await answer_once(request, shop.db, fresh=fresh, resume=resume)


@post(
    "/v1/dining_tables",
    opt=needs("shop:write", idempotent=True, request_example=MakeTable("table 7")),
)
async def create_table(
    data: MakeTable, request: ApiRequest, db: Db, public_url: PublicUrl, caller: Caller
) -> Response[TableView]:
    """Make a table whose printed code opens the menu, for all who sit there."""

    async def fresh(use: Idempotency) -> TableView:
        table_id = new_id()
        async with db.begin(caller.actor) as tx:
            await use.take(tx, table_id)
            table = await make_table(tx, caller, data.name, table_id)
        return view_table(table, public_url.text)

    async def resume(table_id: UUID) -> TableView:
        return view_table(await queries.table_of_caller(db, caller, table_id), public_url.text)

    return await answer_once(request, db, fresh=fresh, resume=resume)


@get("/v1/dining_tables", opt=needs("shop:read"))
async def list_tables(
    db: Db,
    public_url: PublicUrl,
    caller: Caller,
    *,
    cursor: str | None = None,
    limit: int | None = None,
) -> Page[TableView]:
    """Return the tables, newest first, those given up included."""
    page = await queries.list_tables(db, caller, cursor=cursor, limit=limit)
    return Page([view_table(each, public_url.text) for each in page.items], page.next_cursor)


@post(
    "/v1/dining_tables/{table_id:str}/revoke",
    status_code=200,
    opt=needs("shop:write", refuses=[TableNotFound]),
)
async def revoke_dining_table(
    table_id: str, db: Db, public_url: PublicUrl, caller: Caller
) -> TableView:
    """Give a table's code up for good. Safe to repeat."""
    async with db.begin(caller.actor) as tx:
        table = await revoke_table(tx, caller, parse("tbl", table_id))
    return view_table(table, public_url.text)


@get("/v1/tabs", opt=needs("shop:read"))
async def list_tabs(
    db: Db,
    caller: Caller,
    *,
    status: TabState | None = None,
    cursor: str | None = None,
    limit: int | None = None,
) -> Page[TabView]:
    """Return the tabs of tables, newest first; without their dishes."""
    return await queries.list_tabs(db, caller, status=status, cursor=cursor, limit=limit)


@get("/v1/tabs/{tab_id:str}", opt=needs("shop:read", refuses=[TabNotFound]))
async def get_tab(tab_id: str, db: Db, caller: Caller) -> TabView:
    """Return one tab with its dishes."""
    return await queries.tab_view(db, await tab_of_caller(db, caller, parse("tab", tab_id)))


@post(
    "/v1/tabs/{tab_id:str}/bills",
    status_code=200,
    opt=needs(
        "shop:write",
        refuses=[
            TabNotFound,
            NothingToPay,
            OrderCurrenciesDiffer,
            OrderNotPlaced,
            CheckoutsTooMany,
        ],
        request_example=BillTab(),
    ),
)
async def create_bill(
    tab_id: str, data: BillTab, shop: Shop, public_url: PublicUrl, caller: Caller
) -> OrderView:
    """Make an order of what is unpaid on a tab, or of one guest's part; ``url`` is where to pay.

    While that bill can be paid, a repeat returns it.
    """
    guest_id = parse("gst", data.guest_id) if data.guest_id else None
    tab = await tab_of_caller(shop.db, caller, parse("tab", tab_id))
    order_id = await bill_tab(shop, tab, guest_id)
    order = await order_of_caller(shop.db, caller, order_id)
    if order.state is OrderState.PLACED:
        await checkout_of(shop, order)
    return await order_view(shop.db, order, public_url.text)


@post(
    "/v1/tabs/{tab_id:str}/close",
    status_code=200,
    opt=needs("shop:write", refuses=[TabNotFound, TabUnpaid]),
)
async def close_table_tab(tab_id: str, db: Db, caller: Caller) -> TabView:
    """Close a tab whose guests have gone; what is unpaid is cancelled. Safe to repeat."""
    async with db.begin(caller.actor) as tx:
        tab = await close_tab(tx, await tab_of_caller(tx, caller, parse("tab", tab_id)))
        return await queries.tab_view(tx, tab)


@get("/v1/dishes", opt=needs("shop:read"))
async def list_dishes(
    db: Db,
    caller: Caller,
    *,
    status: DishState | None = None,
    cursor: str | None = None,
    limit: int | None = None,
) -> Page[DishView]:
    """Return what the kitchen has to do, newest first; by status."""
    return await queries.list_dishes(db, caller, status=status, cursor=cursor, limit=limit)


@post(
    "/v1/dishes/{dish_id:str}/move",
    status_code=200,
    opt=needs(
        "shop:write",
        refuses=[DishNotFound, DishCannotMove],
        request_example=MoveDish("cooking"),
    ),
)
async def move_one_dish(dish_id: str, data: MoveDish, db: Db, caller: Caller) -> DishView:
    """Say where a dish is: it goes forward, or is cancelled before its bill. Safe to repeat."""
    async with db.begin(caller.actor) as tx:
        moved = await move_dish(tx, caller, parse("dsh", dish_id), DishState(data.status))
    return view_dish(moved)


@post(
    "/v1/orders/{order_id:str}/review",
    opt=needs(
        "shop:write",
        refuses=[OrderNotFound, OrderNotPaid, OrderReviewed],
        request_example=ReviewOrder(5, "very good"),
    ),
)
async def keep_review(order_id: str, data: ReviewOrder, db: Db, caller: Caller) -> ReviewView:
    """Keep what the customer thinks of a paid order, once."""
    async with db.begin(caller.actor) as tx:
        order = await order_of_caller(tx, caller, parse("ord", order_id))
        return view_review(await review_order(tx, order, data.stars, data.words))


@get("/v1/order_reviews", opt=needs("shop:read"))
async def list_reviews(
    db: Db, caller: Caller, *, cursor: str | None = None, limit: int | None = None
) -> Page[ReviewView]:
    """Return what customers think, the newest order first."""
    return await queries.list_reviews(db, caller, cursor=cursor, limit=limit)


ROUTES = [
    create_counter_sale,
    create_table,
    list_tables,
    revoke_dining_table,
    list_tabs,
    get_tab,
    create_bill,
    close_table_tab,
    list_dishes,
    move_one_dish,
    keep_review,
    list_reviews,
]

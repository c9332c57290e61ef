"""The routes of a shop: its goods and its orders."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated
from uuid import UUID

from litestar import Response, get, patch, post
from msgspec import Meta, Struct

from tongbao.infra.db import Db
from tongbao.infra.web.caller import Caller, needs
from tongbao.infra.web.idempotency import Idempotency, answer_once
from tongbao.infra.web.request import AmountField, ApiRequest, CurrencyField, NumberField
from tongbao.kernel.ids import new_id, parse
from tongbao.kernel.money import AmountOutOfRange, UnknownCurrency, positive
from tongbao.kernel.pages import Page
from tongbao.parties.merchants.model import MerchantSuspended
from tongbao.payments.checkouts.api import PublicUrl
from tongbao.payments.checkouts.model import CheckoutsTooMany, ReturnUrlUnsafe
from tongbao.payments.refunds.refunds import MerchantBalanceTooLow, RefundExceedsCaptured
from tongbao.products.shop import catalogue, queries
from tongbao.products.shop.endings import (
    Shop,
    cancel_order,
    fulfil_order,
    order_of_caller,
)
from tongbao.products.shop.model import (
    LINES_MAX,
    STOCK_MAX,
    LineAsked,
    NotOnShelf,
    OrderCurrenciesDiffer,
    OrderNotFound,
    OrderNotPaid,
    OrderNotPlaced,
    OrderRefundView,
    OrderState,
    OrderTooLarge,
    OrderView,
    OutOfStock,
    ProductNotFound,
    RefundedLine,
    RefundExceedsLine,
    ShopOrderNumberUsed,
    SkuCodeUsed,
    SkuNotFound,
    StockNotCounted,
    StockTooLow,
    view_order_refund,
)
from tongbao.products.shop.orders import (
    OrderAsked,
    checkout_of,
    place_order,
)
from tongbao.products.shop.queries import OrderExport, ProductView, SkuView, view_sku
from tongbao.products.shop.refunds import OrderRefundAsked, push_refund, refund_order

Code = Annotated[str, Meta(min_length=1, max_length=64)]
Stock = Annotated[int, Meta(ge=0, le=STOCK_MAX)]
ShortText = Annotated[str, Meta(max_length=500)]
ImageKey = Annotated[str, Meta(min_length=1, max_length=200, pattern=r"^[\w./-]+(?!\n)$")]


class MakeSku(Struct, frozen=True, forbid_unknown_fields=True):
    """A variant to be sold. Without ``stock`` there is always more of it."""

    code: Code
    price: AmountField
    name: Annotated[str, Meta(max_length=64)] = ""
    currency: CurrencyField = "CNY"
    stock: Stock | None = None


class MakeProduct(Struct, frozen=True, forbid_unknown_fields=True):
    """A product with its variants; ``image_key`` is where its picture is kept, if there is one."""

    name: Annotated[str, Meta(min_length=1, max_length=120)]
    skus: Annotated[list[MakeSku], Meta(min_length=1, max_length=50)]
    category: Annotated[str, Meta(max_length=64)] = ""
    description: Annotated[str, Meta(max_length=1000)] = ""
    image_key: ImageKey | None = None
    on_shelf: bool = True


class ChangeProduct(Struct, frozen=True, forbid_unknown_fields=True):
    """What is to be different; what is left out stays."""

    name: Annotated[str, Meta(min_length=1, max_length=120)] | None = None
    category: Annotated[str, Meta(max_length=64)] | None = None
    description: Annotated[str, Meta(max_length=1000)] | None = None
    image_key: ImageKey | None = None
    on_shelf: bool | None = None


class ChangePrice(Struct, frozen=True, forbid_unknown_fields=True):
    """The price from now on, in the variant's currency."""

    price: AmountField


class AdjustStock(Struct, frozen=True, forbid_unknown_fields=True):
    """So many pieces more, or fewer: what came in, or was broken, lost or counted anew."""

    change: Annotated[int, Meta(ge=-STOCK_MAX, le=STOCK_MAX)]
    reason: Annotated[str, Meta(min_length=1, max_length=120)]


class PlaceOrder(Struct, frozen=True, forbid_unknown_fields=True):
    """What a customer buys, at the prices of now. The goods are theirs until the time is over."""

    merchant_order_no: NumberField
    lines: Annotated[list[LineAsked], Meta(min_length=1, max_length=LINES_MAX)]
    return_url: Annotated[str, Meta(min_length=1, max_length=512)] | None = None
    expires_in_s: Annotated[int, Meta(ge=120, le=7 * 86_400)] = 1800
    metadata: Annotated[
        dict[Annotated[str, Meta(max_length=40)], ShortText], Meta(max_length=20)
    ] = {}


class RefundOrder(Struct, frozen=True, forbid_unknown_fields=True):
    """Give back these pieces, all that are left when none are named."""

    lines: Annotated[list[RefundedLine], Meta(max_length=LINES_MAX)] = []
    restock: bool = True
    reason: Annotated[str, Meta(max_length=80)] = ""


_SKU = "sku_01hx0000000000000000000000"


@post(
    "/v1/products",
    opt=needs(
        "shop:write",
        idempotent=True,
        refuses=[SkuCodeUsed, AmountOutOfRange, UnknownCurrency],
        request_example=MakeProduct("Longjing tea", [MakeSku("tea-100g", 1999, "100 g", stock=20)]),
    ),
)
async def create_product(
    data: MakeProduct, request: ApiRequest, db: Db, caller: Caller
) -> Response[ProductView]:
    """Put a product with its variants into the catalogue."""
    skus = tuple(_new_sku(each) for each in data.skus)
    facts = (data.category, data.description, data.image_key, data.on_shelf)
    asked = catalogue.NewProduct(data.name, skus, *facts)

    async def fresh(use: Idempotency) -> ProductView:
        product_id = new_id()
        async with db.begin(caller.actor) as tx:
            await use.take(tx, product_id)
            made = await catalogue.make_product(tx, caller, asked, product_id)
        return queries.view_product(*made)

    async def resume(product_id: UUID) -> ProductView:
        return await queries.product_view(db, caller, product_id)

    return await answer_once(request, db, fresh=fresh, resume=resume)


@get("/v1/products", opt=needs("shop:read"))
async def list_products(
    db: Db,
    caller: Caller,
    *,
    category: str | None = None,
    on_shelf: bool | None = None,
    cursor: str | None = None,
    limit: int | None = None,
) -> Page[ProductView]:
    """Return products with their variants and stock, newest first."""
    page = await catalogue.list_products(
        db, caller, category=category, on_shelf=on_shelf, cursor=cursor, limit=limit
    )
    skus = await catalogue.skus_of(db, page.items)
    return Page([queries.view_product(p, skus[p.id]) for p in page.items], page.next_cursor)


@get("/v1/products/{product_id:str}", opt=needs("shop:read", refuses=[ProductNotFound]))
async def get_product(product_id: str, db: Db, caller: Caller) -> ProductView:
    """Return one product with its variants and stock."""
    return await queries.product_view(db, caller, parse("prd", product_id))


@patch(
    "/v1/products/{product_id:str}",
    opt=needs(
        "shop:write",
        refuses=[ProductNotFound],
        request_example=ChangeProduct(on_shelf=False),
    ),
)
async def change_product(
    product_id: str, data: ChangeProduct, db: Db, caller: Caller
) -> ProductView:
    """Change what is said of a product, or take it off the shelf. Safe to repeat."""
    change = catalogue.ProductChange(
        data.name, data.category, data.description, data.image_key, data.on_shelf
    )
    wanted = parse("prd", product_id)
    async with db.begin(caller.actor) as tx:
        await catalogue.change_product(tx, caller, wanted, change)
    return await queries.product_view(db, caller, wanted)


@post(
    "/v1/products/{product_id:str}/skus",
    opt=needs(
        "shop:write",
        idempotent=True,
        refuses=[ProductNotFound, SkuCodeUsed, AmountOutOfRange, UnknownCurrency],
        request_example=MakeSku("tea-500g", 8999, "500 g", stock=5),
    ),
)
async def create_sku(
    product_id: str, data: MakeSku, request: ApiRequest, db: Db, caller: Caller
) -> Response[SkuView]:
    """Add a variant to a product."""
    asked, wanted = _new_sku(data), parse("prd", product_id)

    async def fresh(use: Idempotency) -> SkuView:
        sku_id = new_id()
        async with db.begin(caller.actor) as tx:
            product = await catalogue.product_of_caller(tx, caller, wanted)
            await use.take(tx, sku_id)
            return view_sku(await catalogue.make_sku(tx, product, asked, sku_id))

    async def resume(sku_id: UUID) -> SkuView:
        return await queries.sku_view(db, caller, sku_id)

    return await answer_once(request, db, fresh=fresh, resume=resume)


@post(
    "/v1/skus/{sku_id:str}/price",
    status_code=200,
    opt=needs(
        "shop:write",
        refuses=[SkuNotFound, AmountOutOfRange, UnknownCurrency],
        request_example=ChangePrice(2099),
    ),
)
async def change_price(sku_id: str, data: ChangePrice, db: Db, caller: Caller) -> SkuView:
    """Change what a variant costs; orders keep the price they were placed at. Safe to repeat."""
    price = positive(data.price, "CNY").amount  # the limits are the same in every currency
    async with db.begin(caller.actor) as tx:
        return view_sku(await catalogue.change_price(tx, caller, parse("sku", sku_id), price))


@post(
    "/v1/skus/{sku_id:str}/stock",
    opt=needs(
        "shop:write",
        idempotent=True,
        refuses=[SkuNotFound, StockNotCounted, StockTooLow],
        request_example=AdjustStock(10, "delivery of Monday"),
    ),
)
async def adjust_stock(
    sku_id: str, data: AdjustStock, request: ApiRequest, db: Db, caller: Caller
) -> Response[SkuView]:
    """Put pieces on the shelf, or take away some that no order has."""
    wanted = parse("sku", sku_id)

    async def fresh(use: Idempotency) -> SkuView:
        async with db.begin(caller.actor) as tx:
            await use.take(tx, wanted)
            sku = await catalogue.adjust_stock(tx, caller, wanted, data.change, data.reason)
        return view_sku(sku)

    async def resume(found: UUID) -> SkuView:
        return await queries.sku_view(db, caller, found)

    return await answer_once(request, db, fresh=fresh, resume=resume)


@post(
    "/v1/orders",
    opt=needs(
        "shop:write",
        idempotent=True,
        refuses=[
            SkuNotFound,
            NotOnShelf,
            OutOfStock,
            OrderCurrenciesDiffer,
            OrderTooLarge,
            ShopOrderNumberUsed,
            ReturnUrlUnsafe,
            MerchantSuspended,
            CheckoutsTooMany,
        ],
        request_example=PlaceOrder("20261122-0001", [LineAsked(_SKU, 2)]),
    ),
)
async def create_order(
    data: PlaceOrder, request: ApiRequest, shop: Shop, public_url: PublicUrl, caller: Caller
) -> Response[OrderView]:
    """Place an order: its goods are reserved, and ``url`` is where the customer pays it.

    The webhooks ``order.paid`` and ``order.cancelled`` tell how it ended. The same order number
    with the same content returns the order it already made.
    """
    asked = OrderAsked(
        data.merchant_order_no,
        tuple((parse("sku", each.sku_id), each.quantity) for each in data.lines),
        data.return_url,
        timedelta(seconds=data.expires_in_s),
        data.metadata,
    )

    async def fresh(use: Idempotency) -> OrderView:
        order = await place_order(shop, caller, asked, use, new_id())
        return await resume(order.id)

    async def resume(order_id: UUID) -> OrderView:
        order = await order_of_caller(shop.db, caller, order_id)
        if order.state is OrderState.PLACED:
            await checkout_of(shop, order)
        return await queries.order_view(shop.db, order, public_url.text)

    return await answer_once(request, shop.db, fresh=fresh, resume=resume)


@get("/v1/orders", opt=needs("shop:read"))
async def list_orders(
    db: Db,
    caller: Caller,
    *,
    status: OrderState | None = None,
    merchant_order_no: str | None = None,
    created_from: datetime | None = None,
    created_to: datetime | None = None,
    cursor: str | None = None,
    limit: int | None = None,
) -> Page[OrderView]:
    """Return orders, newest first, by status, number or time; without their lines."""
    wanted = queries.OrderFilter(status, merchant_order_no, created_from, created_to)
    return await queries.list_orders(db, caller, wanted, cursor=cursor, limit=limit)


@get("/v1/orders/export", opt=needs("shop:read"))
async def export_orders(
    db: Db,
    caller: Caller,
    *,
    status: OrderState | None = None,
    created_from: datetime | None = None,
    created_to: datetime | None = None,
    cursor: str | None = None,
    limit: int | None = None,
) -> OrderExport:
    """Return orders as lines of CSV, newest first, a page at a time, for a spreadsheet."""
    wanted = queries.OrderFilter(status, None, created_from, created_to)
    return await queries.export_orders(db, caller, wanted, cursor=cursor, limit=limit)


@get("/v1/orders/{order_id:str}", opt=needs("shop:read", refuses=[OrderNotFound]))
async def get_order(order_id: str, db: Db, public_url: PublicUrl, caller: Caller) -> OrderView:
    """Return one order with its lines, and where it is paid while it can be."""
    order = await order_of_caller(db, caller, parse("ord", order_id))
    return await queries.order_view(db, order, public_url.text)


@post(
    "/v1/orders/{order_id:str}/cancel",
    status_code=200,
    opt=needs("shop:write", refuses=[OrderNotFound, OrderNotPlaced]),
)
async def cancel_one_order(
    order_id: str, shop: Shop, public_url: PublicUrl, caller: Caller
) -> OrderView:
    """Call an unpaid order off and put its goods back. A customer who paid first wins.

    While a channel has not said that the latest try cannot be paid any more, it stays ``placed``;
    the webhook tells its end. Safe to repeat.
    """
    order = await order_of_caller(shop.db, caller, parse("ord", order_id))
    order = await cancel_order(shop, order, caller.actor)
    return await queries.order_view(shop.db, order, public_url.text)


@post(
    "/v1/orders/{order_id:str}/fulfil",
    status_code=200,
    opt=needs("shop:write", refuses=[OrderNotFound, OrderNotPaid]),
)
async def fulfil_one_order(
    order_id: str, db: Db, public_url: PublicUrl, caller: Caller
) -> OrderView:
    """Say that the customer has the goods. Safe to repeat."""
    async with db.begin(caller.actor) as tx:
        order = await order_of_caller(tx, caller, parse("ord", order_id))
        order = await fulfil_order(tx, order)
    return await queries.order_view(db, order, public_url.text)


@post(
    "/v1/orders/{order_id:str}/refunds",
    opt=needs(
        "shop:write",
        idempotent=True,
        refuses=[
            OrderNotFound,
            OrderNotPaid,
            RefundExceedsLine,
            RefundExceedsCaptured,
            MerchantBalanceTooLow,
        ],
        request_example=RefundOrder([RefundedLine(1, 1)], reason="broken"),
    ),
)
async def create_order_refund(
    order_id: str, data: RefundOrder, request: ApiRequest, shop: Shop, caller: Caller
) -> Response[OrderRefundView]:
    """Give pieces of a paid order back: the payment is refunded, the goods go on the shelf again.

    Where the channel needs time the webhook ``order.refunded`` tells when the customer has it.
    """
    asked = OrderRefundAsked(tuple(data.lines), data.restock, data.reason)
    wanted = parse("ord", order_id)

    async def fresh(use: Idempotency) -> OrderRefundView:
        order = await order_of_caller(shop.db, caller, wanted)
        return view_order_refund(await refund_order(shop, order, asked, use, new_id()))

    async def resume(refund_id: UUID) -> OrderRefundView:
        refund = await queries.order_refund(shop.db, refund_id)
        return view_order_refund(await push_refund(shop, refund))

    return await answer_once(request, shop.db, fresh=fresh, resume=resume)


@get("/v1/orders/{order_id:str}/refunds", opt=needs("shop:read", refuses=[OrderNotFound]))
async def list_order_refunds(order_id: str, db: Db, caller: Caller) -> Page[OrderRefundView]:
    """Return what was given back of an order, oldest first; all of it on one page."""
    order = await order_of_caller(db, caller, parse("ord", order_id))
    return Page(await queries.refunds_of(db, order))


def _new_sku(asked: MakeSku) -> catalogue.NewSku:
    return catalogue.NewSku(
        asked.code, positive(asked.price, asked.currency), asked.name, asked.stock
    )


ROUTES = [
    create_product,
    list_products,
    get_product,
    change_product,
    create_sku,
    change_price,
    adjust_stock,
    create_order,
    list_orders,
    export_orders,
    get_order,
    cancel_one_order,
    fulfil_one_order,
    create_order_refund,
    list_order_refunds,
]

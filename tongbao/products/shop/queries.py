"""What merchants see of their shop: products with stock, orders with lines, a sheet of orders."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from datetime import datetime
from typing import Final, Literal
from uuid import UUID

from msgspec import UNSET, Struct, UnsetType

from tongbao.infra.db import Db, Tx
from tongbao.infra.web.caller import Caller
from tongbao.kernel.clock import BUSINESS_ZONE
from tongbao.kernel.ids import show
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import Money
from tongbao.kernel.pages import Page, encode_cursor, page_size
from tongbao.products.shop import _store as store
from tongbao.products.shop.catalogue import id_of_cursor, product_of_caller, skus_of
from tongbao.products.shop.endings import url_of
from tongbao.products.shop.model import (
    OrderRefund,
    OrderRefundView,
    OrderState,
    OrderView,
    Product,
    ShopOrder,
    Sku,
    SkuNotFound,
    view_order,
    view_order_refund,
)

_HEADER: Final = (
    "order", "merchant_order_no", "scene", "status", "amount", "currency", "refunded", "subject",
    "created_at", "paid_at",
)  # fmt: skip
_FORMULA_SIGNS: Final = ("=", "+", "-", "@", "\t", "\r")


class SkuView(Struct, frozen=True):
    """A variant with its stock; without counting, all of that is zero."""

    id: str
    object: Literal["sku"]
    code: str
    name: str
    price: int
    currency: str
    is_counted: bool
    available: int
    reserved: int
    sold: int


class ProductView(Struct, frozen=True, omit_defaults=True):
    """A product as its merchant sees it."""

    id: str
    object: Literal["product"]
    mode: Mode
    name: str
    category: str
    description: str
    on_shelf: bool
    skus: list[SkuView]
    created_at: datetime
    image_key: str | UnsetType = UNSET


class OrderExport(Struct, frozen=True):
    """Lines of CSV with a heading (RFC 4180), and the cursor of the next page, if there is one.

    What a spreadsheet would run as a formula has an apostrophe before it.
    """

    object: Literal["order_export"]
    csv: str
    orders: int
    next_cursor: str | None


class OrderFilter(Struct, frozen=True):
    """Which orders a list shows; every None means any. Times are ``[from, to)``."""

    state: OrderState | None = None
    merchant_order_no: str | None = None
    created_from: datetime | None = None
    created_to: datetime | None = None


def view_sku(sku: Sku) -> SkuView:
    """Return a variant as the API shows it."""
    return SkuView(
        id=show("sku", sku.id),
        object="sku",
        code=sku.code,
        name=sku.name,
        price=sku.price,
        currency=sku.currency,
        is_counted=sku.counted,
        available=sku.available,
        reserved=sku.reserved,
        sold=sku.sold,
    )


def view_product(product: Product, skus: Sequence[Sku]) -> ProductView:
    """Return a product as the API shows it."""
    return ProductView(
        id=show("prd", product.id),
        object="product",
        mode=product.mode,
        name=product.name,
        category=product.category,
        description=product.description,
        on_shelf=product.on_shelf,
        skus=[view_sku(each) for each in skus],
        created_at=product.created_at,
        image_key=product.image_key or UNSET,
    )


async def product_view(on: Db | Tx, caller: Caller, product_id: UUID) -> ProductView:
    """Return a product with its variants.

    Raises:
        ProductNotFound
    """
    product = await product_of_caller(on, caller, product_id)
    return view_product(product, (await skus_of(on, [product]))[product.id])


async def sku_view(on: Db | Tx, caller: Caller, sku_id: UUID) -> SkuView:
    """Return a variant.

    Raises:
        SkuNotFound
    """
    sku = await store.FIND_SKU.first(on, sku_id, caller.merchant_id, caller.mode)
    if sku is None:
        raise SkuNotFound
    return view_sku(sku)


async def order_view(on: Db | Tx, order: ShopOrder, public_url: str) -> OrderView:
    """Return an order with its lines and where it is paid."""
    lines = await store.LINES_OF.all(on, order.id)
    return view_order(order, lines, await url_of(on, order, public_url))


async def list_orders(
    on: Db | Tx, caller: Caller, wanted: OrderFilter, *, cursor: str | None, limit: int | None
) -> Page[OrderView]:
    """Return a page of the merchant's orders, newest first.

    Raises:
        CursorInvalid, PageSizeInvalid
    """
    rows, following = await _orders(on, caller, wanted, cursor, limit)
    return Page([view_order(each) for each in rows], following)


async def export_orders(
    on: Db | Tx, caller: Caller, wanted: OrderFilter, *, cursor: str | None, limit: int | None
) -> OrderExport:
    """Return a page of the merchant's orders as CSV; the first page has the heading.

    Raises:
        CursorInvalid, PageSizeInvalid
    """
    rows, following = await _orders(on, caller, wanted, cursor, limit)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    if cursor is None:
        writer.writerow(_HEADER)
    writer.writerows([_harmless(cell) for cell in _cells(each)] for each in rows)
    return OrderExport("order_export", out.getvalue(), len(rows), following)


async def _orders(
    on: Db | Tx, caller: Caller, wanted: OrderFilter, cursor: str | None, limit: int | None
) -> tuple[list[ShopOrder], str | None]:
    size = page_size(limit)
    rows = await store.LIST_ORDERS.all(
        on,
        caller.merchant_id,
        caller.mode,
        wanted.state,
        wanted.merchant_order_no,
        wanted.created_from,
        wanted.created_to,
        id_of_cursor(cursor),
        size + 1,
    )
    return rows[:size], encode_cursor(str(rows[size - 1].id)) if rows[size:] else None


def _cells(order: ShopOrder) -> Sequence[str]:
    return (
        show("ord", order.id),
        order.merchant_order_no,
        order.scene,
        order.state,
        order.money.decimal_text(),
        order.currency,
        Money(order.returned, order.currency).decimal_text(),
        order.subject,
        order.created_at.astimezone(BUSINESS_ZONE).isoformat(),
        order.paid_at.astimezone(BUSINESS_ZONE).isoformat() if order.paid_at else "",
    )


def _harmless(cell: str) -> str:
    return f"'{cell}" if cell.startswith(_FORMULA_SIGNS) else cell


async def order_refund(on: Db | Tx, refund_id: UUID) -> OrderRefund:
    """Return what is given back of an order, which is known to exist."""
    return await store.GET_REFUND.one(on, refund_id)


async def refunds_of(on: Db | Tx, order: ShopOrder) -> list[OrderRefundView]:
    """Return what was given back of an order, oldest first."""
    return [view_order_refund(each) for each in await store.REFUNDS_OF.all(on, order.id)]

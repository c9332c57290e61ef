"""What a merchant sells: products, their variants, and how much of each there is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from uuid import UUID

from msgspec import Struct

from tongbao.infra import audit
from tongbao.infra.db import Db, Tx, Write
from tongbao.infra.web.caller import Caller
from tongbao.kernel.ids import new_id, show
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import Money
from tongbao.kernel.pages import CursorInvalid, Page, decode_cursor, page_of, page_size
from tongbao.products.shop import _store as store
from tongbao.products.shop.model import (
    OUT_OF_STOCK,
    OnSale,
    Product,
    ProductNotFound,
    Sku,
    SkuCodeUsed,
    SkuNotFound,
    StockNotCounted,
    StockTooLow,
)

MENU_MAX = 500


class NewSku(Struct, frozen=True):
    """A variant to be sold; without ``stock`` there is always more of it."""

    code: str
    price: Money
    name: str = ""
    stock: int | None = None


class NewProduct(Struct, frozen=True):
    """A product with its first variants."""

    name: str
    skus: tuple[NewSku, ...]
    category: str = ""
    description: str = ""
    image_key: str | None = None
    on_shelf: bool = True


class ProductChange(Struct, frozen=True):
    """What is to be different of a product; None stays as it is."""

    name: str | None = None
    category: str | None = None
    description: str | None = None
    image_key: str | None = None
    on_shelf: bool | None = None


async def make_product(
    tx: Tx, caller: Caller, asked: NewProduct, product_id: UUID
) -> tuple[Product, list[Sku]]:
    """Write a product down with its variants.

    Raises:
        SkuCodeUsed
    """
    product = await store.INSERT_PRODUCT.one(
        tx,
        product_id,
        caller.merchant_id,
        caller.mode,
        asked.name,
        asked.category,
        asked.description,
        asked.image_key,
        asked.on_shelf,
        tx.now,
    )
    skus = [await make_sku(tx, product, each, new_id()) for each in asked.skus]
    await audit.record(tx, "product.made", show("prd", product.id), {"name": product.name})
    return product, skus


async def make_sku(tx: Tx, product: Product, asked: NewSku, sku_id: UUID) -> Sku:
    """Write one more variant of a product down.

    Raises:
        SkuCodeUsed
    """
    sku = await store.INSERT_SKU.first(
        tx,
        sku_id,
        product.id,
        product.merchant_id,
        product.mode,
        asked.code,
        asked.name,
        asked.price.amount,
        asked.price.currency,
        asked.stock is not None,
        asked.stock or 0,
        tx.now,
    )
    if sku is None:
        raise SkuCodeUsed(sku_code=asked.code)
    return sku


async def change_product(
    tx: Tx, caller: Caller, product_id: UUID, change: ProductChange
) -> Product:
    """Change what is said of a product, or put it on the shelf or away.

    Raises:
        ProductNotFound
    """
    product = await store.CHANGE_PRODUCT.first(
        tx,
        product_id,
        caller.merchant_id,
        caller.mode,
        change.name,
        change.category,
        change.description,
        change.image_key,
        change.on_shelf,
    )
    if product is None:
        raise ProductNotFound
    await audit.record(
        tx, "product.changed", show("prd", product.id), {"on_shelf": product.on_shelf}
    )
    return product


async def change_price(tx: Tx, caller: Caller, sku_id: UUID, price: int) -> Sku:
    """Change what a variant costs from now on; orders keep the price they were placed at.

    Raises:
        SkuNotFound
    """
    sku = await store.CHANGE_PRICE.first(tx, sku_id, caller.merchant_id, caller.mode, price)
    if sku is None:
        raise SkuNotFound
    await audit.record(tx, "sku.price_changed", show("sku", sku.id), {"price": price})
    return sku


async def adjust_stock(tx: Tx, caller: Caller, sku_id: UUID, change: int, reason: str) -> Sku:
    """Put pieces on the shelf, or take some away that no order has.

    Raises:
        SkuNotFound, StockNotCounted, StockTooLow
    """
    of = (sku_id, caller.merchant_id, caller.mode)
    sku = await store.ADJUST.first(tx, *of, change)
    if sku is None:
        there = await store.FIND_SKU.first(tx, *of)
        if there is None:
            raise SkuNotFound
        if not there.counted:
            raise StockNotCounted
        raise StockTooLow(available=there.available)
    facts: dict[str, str | int | bool | None] = {"change": change, "available": sku.available}
    facts["reason"] = reason
    await audit.record(tx, "sku.stock_adjusted", show("sku", sku.id), facts)
    return sku


async def product_of_caller(on: Db | Tx, caller: Caller, product_id: UUID) -> Product:
    """Return the merchant's product.

    Raises:
        ProductNotFound: also for another merchant's, or another mode's.
    """
    product = await store.FIND_PRODUCT.first(on, product_id, caller.merchant_id, caller.mode)
    if product is None:
        raise ProductNotFound
    return product


async def skus_of(on: Db | Tx, products: Sequence[Product]) -> dict[UUID, list[Sku]]:
    """Return the variants of these products."""
    found: dict[UUID, list[Sku]] = {product.id: [] for product in products}
    for sku in await store.SKUS_OF.all(on, list(found)):
        found[sku.product_id].append(sku)
    return found


async def list_products(
    on: Db | Tx,
    caller: Caller,
    *,
    category: str | None,
    on_shelf: bool | None,
    cursor: str | None,
    limit: int | None,
) -> Page[Product]:
    """Return a page of the merchant's products, newest first.

    Raises:
        CursorInvalid, PageSizeInvalid
    """
    size = page_size(limit)
    of = (caller.merchant_id, caller.mode)
    rows = await store.LIST_PRODUCTS.all(
        on, *of, category, on_shelf, id_of_cursor(cursor), size + 1
    )
    return page_of(rows, size, lambda row: row.id)


async def on_sale(
    on: Db | Tx, merchant_id: UUID, mode: Mode, ids: Sequence[UUID]
) -> Mapping[UUID, OnSale]:
    """Return these variants of the merchant's, by id.

    Raises:
        SkuNotFound: one of them is not there.
    """
    found = {each.id: each for each in await store.ON_SALE.all(on, list(ids), merchant_id, mode)}
    for wanted in ids:
        if wanted not in found:
            raise SkuNotFound(sku_id=show("sku", wanted))
    return found


async def menu_of(on: Db | Tx, merchant_id: UUID, mode: Mode) -> list[OnSale]:
    """Return what is on the shelf, by category."""
    return await store.MENU.all(on, merchant_id, mode, MENU_MAX)


def reserve_write(sku_id: UUID, quantity: int) -> Write:
    """Return the write that promises pieces of a counted variant to somebody."""
    return Write(store.RESERVE, (sku_id, quantity), refusal=OUT_OF_STOCK)


async def let_go(tx: Tx, sku_id: UUID, quantity: int) -> None:
    """Put pieces that were promised to somebody back on the shelf."""
    await store.LET_GO.run(tx, sku_id, quantity)


def id_of_cursor(cursor: str | None) -> UUID | None:
    """Return the id a page's cursor stands for.

    Raises:
        CursorInvalid
    """
    if cursor is None:
        return None
    try:
        [text] = decode_cursor(cursor)
        return UUID(text)
    except ValueError:
        raise CursorInvalid(param="cursor") from None

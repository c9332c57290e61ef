"""A shop: what it sells, orders that customers pay, its counter and its tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NotRequired, TypedDict, Unpack, cast

from tongbao_sdk.replies import (
    DiningTable,
    Dish,
    Order,
    OrderExport,
    OrderRefund,
    Product,
    RefundedLine,
    Review,
    Sku,
    Tab,
)
from tongbao_sdk.transport import Once, Transport, path_of

OrderStatus = Literal["placed", "paid", "fulfilled", "cancelled", "refunded"]
DishStatus = Literal["ordered", "cooking", "ready", "served", "cancelled"]
TabStatus = Literal["open", "closed"]


class NewSku(TypedDict):
    """A variant to be sold; without ``stock`` there is always more of it."""

    code: str
    price: int
    name: NotRequired[str]
    currency: NotRequired[str]
    stock: NotRequired[int]


class WantedLine(TypedDict):
    """So many pieces of a variant."""

    sku_id: str
    quantity: NotRequired[int]


class Products:
    """The catalogue and its stock."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(
        self,
        *,
        name: str,
        skus: Sequence[NewSku],
        category: str = "",
        description: str = "",
        image_key: str | None = None,
        on_shelf: bool = True,
        **once: Unpack[Once],
    ) -> Product:
        """Put a product with its variants into the catalogue.

        Raises:
            Refused, Unanswered
        """
        body = {
            "name": name,
            "skus": list(skus),
            "category": category,
            "description": description,
            "image_key": image_key,
            "on_shelf": on_shelf,
        }
        return cast("Product", self._transport.post(path_of("products"), body, **once))

    def get(self, product_id: str) -> Product:
        """Return one product with its stock."""
        return cast("Product", self._transport.get(path_of("products", product_id)))

    def list(
        self, *, category: str | None = None, on_shelf: bool | None = None, limit: int = 100
    ) -> Iterator[Product]:
        """Yield products, newest first."""
        shown = None if on_shelf is None else str(on_shelf).lower()
        return self._transport.pages(
            path_of("products"), category=category, on_shelf=shown, limit=limit
        )

    def update(
        self,
        product_id: str,
        *,
        name: str | None = None,
        category: str | None = None,
        description: str | None = None,
        image_key: str | None = None,
        on_shelf: bool | None = None,
    ) -> Product:
        """Change what is said of a product, or take it off the shelf; None stays as it is."""
        body = {
            "name": name,
            "category": category,
            "description": description,
            "image_key": image_key,
            "on_shelf": on_shelf,
        }
        return cast("Product", self._transport.patch(path_of("products", product_id), body))

    def add_sku(
        self,
        product_id: str,
        *,
        code: str,
        price: int,
        name: str = "",
        currency: str = "CNY",
        stock: int | None = None,
        **once: Unpack[Once],
    ) -> Sku:
        """Add a variant to a product.

        Raises:
            Refused, Unanswered
        """
        body = {"code": code, "price": price, "name": name, "currency": currency, "stock": stock}
        path = path_of("products", product_id, "skus")
        return cast("Sku", self._transport.post(path, body, **once))

    def set_price(self, sku_id: str, price: int) -> Sku:
        """Change what a variant costs from now on."""
        path = path_of("skus", sku_id, "price")
        return cast("Sku", self._transport.post(path, {"price": price}))

    def adjust_stock(self, sku_id: str, *, change: int, reason: str, **once: Unpack[Once]) -> Sku:
        """Put pieces on the shelf, or take away some that no order has.

        Raises:
            Refused, Unanswered
        """
        path = path_of("skus", sku_id, "stock")
        body = {"change": change, "reason": reason}
        return cast("Sku", self._transport.post(path, body, **once))


class Orders:
    """Orders of the shop, its counter and its tables."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def place(
        self,
        *,
        merchant_order_no: str,
        lines: Sequence[WantedLine],
        return_url: str | None = None,
        expires_in_s: int = 1800,
        metadata: dict[str, str] | None = None,
        **once: Unpack[Once],
    ) -> Order:
        """Place an order and reserve its goods; send the customer to its ``url``.

        Raises:
            Refused, Unanswered
        """
        body = {
            "merchant_order_no": merchant_order_no,
            "lines": list(lines),
            "return_url": return_url,
            "expires_in_s": expires_in_s,
            "metadata": metadata or {},
        }
        return cast("Order", self._transport.post(path_of("orders"), body, **once))

    def sell_at_counter(
        self,
        *,
        merchant_order_no: str,
        amount: int,
        auth_code: str,
        subject: str = "counter sale",
        currency: str = "CNY",
        **once: Unpack[Once],
    ) -> Order:
        """Charge the code a customer shows for an amount keyed in.

        Raises:
            Refused, Unanswered
        """
        body = {
            "merchant_order_no": merchant_order_no,
            "amount": amount,
            "auth_code": auth_code,
            "subject": subject,
            "currency": currency,
        }
        return cast("Order", self._transport.post(path_of("counter_sales"), body, **once))

    def get(self, order_id: str) -> Order:
        """Return one order with its lines."""
        return cast("Order", self._transport.get(path_of("orders", order_id)))

    def list(
        self,
        *,
        status: OrderStatus | None = None,
        merchant_order_no: str | None = None,
        created_from: str | None = None,
        created_to: str | None = None,
        limit: int = 100,
    ) -> Iterator[Order]:
        """Yield orders, newest first, without their lines."""
        return self._transport.pages(
            path_of("orders"),
            status=status,
            merchant_order_no=merchant_order_no,
            created_from=created_from,
            created_to=created_to,
            limit=limit,
        )

    def export(
        self,
        *,
        status: OrderStatus | None = None,
        created_from: str | None = None,
        created_to: str | None = None,
        cursor: str | None = None,
        limit: int = 100,
    ) -> OrderExport:
        """Return a page of orders as CSV."""
        asked = {
            "status": status,
            "created_from": created_from,
            "created_to": created_to,
            "cursor": cursor,
            "limit": limit,
        }
        return cast("OrderExport", self._transport.get(path_of("orders", "export"), **asked))

    def cancel(self, order_id: str) -> Order:
        """Call an unpaid order off; a customer who paid first wins."""
        return cast("Order", self._transport.post(path_of("orders", order_id, "cancel")))

    def fulfil(self, order_id: str) -> Order:
        """Say that the customer has the goods."""
        return cast("Order", self._transport.post(path_of("orders", order_id, "fulfil")))

    def refund(
        self,
        order_id: str,
        *,
        lines: Sequence[RefundedLine] = (),
        restock: bool = True,
        reason: str = "",
        **once: Unpack[Once],
    ) -> OrderRefund:
        """Give pieces back, all that are left when none are named.

        Raises:
            Refused, Unanswered
        """
        body = {"lines": list(lines), "restock": restock, "reason": reason}
        path = path_of("orders", order_id, "refunds")
        return cast("OrderRefund", self._transport.post(path, body, **once))

    def refunds(self, order_id: str) -> Iterator[OrderRefund]:
        """Yield what was given back of an order, oldest first."""
        return self._transport.pages(path_of("orders", order_id, "refunds"))

    def review(self, order_id: str, *, stars: int, words: str = "") -> Review:
        """Keep what the customer thinks of a paid order, once."""
        path = path_of("orders", order_id, "review")
        return cast("Review", self._transport.post(path, {"stars": stars, "words": words}))

    def reviews(self, *, limit: int = 100) -> Iterator[Review]:
        """Yield what customers think, the newest order first."""
        return self._transport.pages(path_of("order_reviews"), limit=limit)


class Tables:
    """Restaurant tables, what is ordered there, and the kitchen."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(self, name: str, **once: Unpack[Once]) -> DiningTable:
        """Make a table whose printed code opens the menu.

        Raises:
            Refused, Unanswered
        """
        path = path_of("dining_tables")
        return cast("DiningTable", self._transport.post(path, {"name": name}, **once))

    def list(self, *, limit: int = 100) -> Iterator[DiningTable]:
        """Yield tables, newest first."""
        return self._transport.pages(path_of("dining_tables"), limit=limit)

    def revoke(self, table_id: str) -> DiningTable:
        """Give a table's code up for good."""
        path = path_of("dining_tables", table_id, "revoke")
        return cast("DiningTable", self._transport.post(path))

    def tab(self, tab_id: str) -> Tab:
        """Return one tab with its dishes."""
        return cast("Tab", self._transport.get(path_of("tabs", tab_id)))

    def tabs(self, *, status: TabStatus | None = None, limit: int = 100) -> Iterator[Tab]:
        """Yield tabs, newest first, without their dishes."""
        return self._transport.pages(path_of("tabs"), status=status, limit=limit)

    def bill(self, tab_id: str, *, guest_id: str | None = None) -> Order:
        """Make an order of what is unpaid, or of one guest's part."""
        path = path_of("tabs", tab_id, "bills")
        return cast("Order", self._transport.post(path, {"guest_id": guest_id}))

    def close(self, tab_id: str) -> Tab:
        """Close a tab whose guests have gone."""
        return cast("Tab", self._transport.post(path_of("tabs", tab_id, "close")))

    def dishes(self, *, status: DishStatus | None = None, limit: int = 100) -> Iterator[Dish]:
        """Yield what the kitchen has to do, newest first."""
        return self._transport.pages(path_of("dishes"), status=status, limit=limit)

    def move(
        self, dish_id: str, status: Literal["cooking", "ready", "served", "cancelled"]
    ) -> Dish:
        """Say where a dish is."""
        path = path_of("dishes", dish_id, "move")
        return cast("Dish", self._transport.post(path, {"status": status}))

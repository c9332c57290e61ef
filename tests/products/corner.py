"""A shop on a street corner, and the platform under it, for tests that sell something."""

from __future__ import annotations

from collections import Counter
from typing import Any

from msgspec import Struct

from tests.products.callers import once
from tests.stage import Stage, new_number
from tongbao.infra.db import Db
from tongbao.infra.web.caller import Caller
from tongbao.kernel.ids import new_id
from tongbao.kernel.money import Money
from tongbao.payments.checkouts.checkouts import Visitor, try_paying
from tongbao.payments.checkouts.model import Checkout, Offer
from tongbao.products.shop import _store as store
from tongbao.products.shop.catalogue import NewProduct, NewSku, make_product
from tongbao.products.shop.endings import Shop
from tongbao.products.shop.model import OrderState, ShopOrder, Sku
from tongbao.products.shop.orders import OrderAsked, checkout_of, place_order
from tongbao.rails.channels.contract.orders import PayMode


class Corner(Struct, frozen=True):
    """A shop on a street corner, and the platform under it."""

    stage: Stage
    shop: Shop
    caller: Caller

    @property
    def db(self) -> Db:
        return self.stage.db

    async def product(self, *stocks: int | None, price: int = 300) -> list[Sku]:
        """A product with a variant for each stock; None is not counted."""
        asked = NewProduct(
            "tea",
            tuple(NewSku(new_number(), Money(price, "CNY"), f"no. {n}", each)
                  for n, each in enumerate(stocks)),
        )  # fmt: skip
        async with self.db.begin("tests") as tx:
            return (await make_product(tx, self.caller, asked, new_id()))[1]

    async def place(self, *pieces: tuple[Sku, int], **more: Any) -> ShopOrder:
        """An order with its checkout open."""
        order = await self.order(*pieces, **more)
        await checkout_of(self.shop, order)
        return order

    async def order(self, *pieces: tuple[Sku, int], number: str = "", **more: Any) -> ShopOrder:
        wanted = tuple((sku.id, count) for sku, count in pieces)
        asked = OrderAsked(number or new_number(), wanted, **more)
        return await place_order(self.shop, self.caller, asked, once(self.caller), new_id())

    async def pay(self, order: ShopOrder) -> ShopOrder:
        """A customer chooses WeChat at the checkout, scans and pays."""
        await self.try_to_pay(order)
        await self.stage.idle()
        return await self.now(order)

    async def try_to_pay(self, order: ShopOrder, action: str = "pay") -> None:
        checkout: Checkout = await checkout_of(self.shop, order)
        visitor = Visitor("127.0.0.1", "http://127.0.0.1/")
        offer = Offer("wechat_pay", PayMode.QR)
        _, attempt = await try_paying(self.stage.flow, checkout, offer, visitor)
        await self.stage.control(
            "customer/scan", channel="wechat", number=attempt.number, action=action
        )

    async def paid(self, *pieces: tuple[Sku, int]) -> ShopOrder:
        order = await self.pay(await self.place(*pieces))
        assert order.state is OrderState.PAID
        return order

    async def now(self, order: ShopOrder) -> ShopOrder:
        return await store.GET_ORDER.one(self.db, order.id)

    async def stock(self, sku: Sku) -> tuple[int, int, int]:
        """Available, reserved, sold."""
        found = await store.FIND_SKU.one(self.db, sku.id, sku.merchant_id, sku.mode)
        return found.available, found.reserved, found.sold

    async def told(self, thing_id: str) -> Counter[str]:
        rows = await self.db.fetch("select type from event where resource_id = $1", (thing_id,))
        return Counter(row["type"] for row in rows)


async def assert_stock_is_where_orders_say(db: Db) -> None:
    """What is reserved is in orders and on tables that nobody has paid; what is sold was bought."""
    rows = await db.fetch(
        """select s.id, s.reserved, s.sold,
                  coalesce((select sum(l.quantity) from order_line l
                              join shop_order o on o.id = l.order_id
                             where l.sku_id = s.id and l.counted and o.state = 'placed'
                               and o.scene <> 'table'), 0)
                  + coalesce((select sum(d.quantity) from dish d
                               where d.sku_id = s.id and d.counted and not d.paid
                                 and d.state <> 'cancelled'), 0) as promised,
                  coalesce((select sum(l.quantity) from order_line l
                              join shop_order o on o.id = l.order_id
                             where l.sku_id = s.id and o.paid_at is not null), 0) as bought
             from sku s where s.counted""",
        (),
    )
    for row in rows:
        assert row["reserved"] == row["promised"], row["id"]
        assert row["sold"] <= row["bought"], row["id"]

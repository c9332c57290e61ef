"""Points of the counter and of orders that end unpaid: whoever dies there leaves no order stuck."""

from __future__ import annotations

import pytest

from tests.dying import dying
from tests.products.callers import once
from tests.products.corner import Corner
from tests.stage import new_number
from tongbao.kernel.ids import new_id, show
from tongbao.kernel.money import Money
from tongbao.products.scenes.counter import CounterSale, charge, sell_at_counter
from tongbao.products.shop.endings import end_unpaid
from tongbao.products.shop.model import OrderState


@pytest.mark.parametrize("place", ["scenes.before_charge", "scenes.after_charge"])
async def test_a_counter_sale_that_died_is_charged_once(corner: Corner, place: str) -> None:
    code = await corner.stage.wallet_code()
    sale = CounterSale(new_number(), Money(1500, "CNY"), "lunch", code, "127.0.0.1")
    order = await sell_at_counter(corner.shop, corner.caller, sale, once(corner.caller), new_id())
    keyring = corner.stage.platform.keyring
    with dying(place):
        await charge(corner.shop, keyring, corner.caller, order, sale)

    paid = await charge(corner.shop, keyring, corner.caller, await corner.now(order), sale)

    assert paid.state is OrderState.PAID
    rows = await corner.db.fetch(
        "select id from payment where state = 'succeeded' and metadata->>'order_id' = $1",
        (show("ord", order.id),),
    )
    assert len(rows) == 1


@pytest.mark.parametrize("place", ["shop.before_cancelled", "shop.after_cancelled"])
async def test_an_order_whose_end_died_ends_once_and_its_goods_are_back(
    corner: Corner, place: str
) -> None:
    [sku] = await corner.product(5)
    order = await corner.place((sku, 2))
    with dying(place):
        await end_unpaid(corner.shop, order)

    ended = await end_unpaid(corner.shop, order)

    assert ended.state is OrderState.CANCELLED
    assert await corner.stock(sku) == (5, 0, 0)
    assert (await corner.told(show("ord", order.id)))["order.cancelled"] == 1

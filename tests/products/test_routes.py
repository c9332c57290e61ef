"""The shop's and the red packets' routes as a merchant's program uses them, and a stranger."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.products.corner import Corner
from tests.stage import new_number
from tongbao.kernel.ids import new_id, parse
from tongbao.products.scenes.model import Guest
from tongbao.products.scenes.tables import order_dish, table_of_token
from tongbao_sdk import Refused, Tongbao


async def refused(
    corner: Corner, call: Callable[..., object], *args: object, **more: object
) -> str:
    with pytest.raises(Refused) as answer:
        await corner.stage.call(call, *args, **more)
    return str(answer.value.code)


async def test_a_small_shop_by_its_program(corner: Corner) -> None:
    call, client = corner.stage.call, corner.stage.client
    product = await call(
        client.products.create,
        name="Longjing",
        category="tea",
        skus=[{"code": new_number(), "name": "100 g", "price": 1999, "stock": 3}],
    )
    [sku] = product["skus"]
    await call(client.products.adjust_stock, sku["id"], change=2, reason="delivery")
    number, key = new_number(), new_number()
    wanted = {"merchant_order_no": number, "lines": [{"sku_id": sku["id"], "quantity": 2}]}

    order = await call(client.orders.place, idempotency_key=key, **wanted)
    again = await call(client.orders.place, idempotency_key=key, **wanted)
    other_key = await call(client.orders.place, **wanted)

    assert order == again
    assert order["id"] == other_key["id"]
    assert order["url"].startswith(f"{corner.stage.url}/pay/c/")
    [found] = await call(lambda: list(client.orders.list(merchant_order_no=number)))
    assert found["amount"] == 3998
    sheet = await call(client.orders.export, status="placed", limit=1)
    assert number in sheet["csv"]
    cancelled = await call(client.orders.cancel, order["id"])
    assert (cancelled["status"], "url" in cancelled) == ("cancelled", False)
    shown = await call(client.products.get, product["id"])
    assert shown["skus"][0]["available"] == 5
    too_many = {"merchant_order_no": new_number(), "lines": [{"sku_id": sku["id"], "quantity": 6}]}
    assert await refused(corner, client.orders.place, **too_many) == "order.out_of_stock"
    assert await refused(corner, client.orders.fulfil, order["id"]) == "order.not_paid"
    assert await refused(corner, client.orders.review, order["id"], stars=5) == "order.not_paid"


async def test_red_packets_by_their_program(corner: Corner) -> None:
    call, client = corner.stage.call, corner.stage.client
    sender = await call(client.wallets.open, holder_name="张三")
    await call(client.wallets.top_up, sender["id"], amount=1_000)
    takers = [await call(client.wallets.open, holder_name="李四") for _ in range(3)]
    key = new_number()
    terms = {"kind": "lucky", "amount": 100, "parts": 2, "greeting": "恭喜发财"}

    packet = await call(client.red_packets.send, sender["id"], idempotency_key=key, **terms)
    again = await call(client.red_packets.send, sender["id"], idempotency_key=key, **terms)
    answers = [await call(client.red_packets.grab, packet["id"], each["id"]) for each in takers]
    repeated = await call(client.red_packets.grab, packet["id"], takers[0]["id"])

    assert packet == again
    assert [each["outcome"] for each in answers] == ["grabbed", "grabbed", "empty"]
    assert repeated == answers[0]
    assert sum(each["grab"]["amount"] for each in answers[:2]) == 100
    assert (await call(client.red_packets.get, packet["id"]))["status"] == "emptied"
    grabs = await call(lambda: list(client.red_packets.grabs(packet["id"], limit=1)))
    assert [each["part"] for each in grabs] == [1, 2]
    [mine] = await call(lambda: list(client.red_packets.received(takers[0]["id"])))
    assert mine == answers[0]["grab"]
    poor = {"kind": "equal", "amount": 2_000, "parts": 2}
    code = await refused(corner, client.red_packets.send, sender["id"], **poor)
    assert code == "red_packet.balance_too_low"


async def test_a_stranger_finds_nothing_of_another_merchants(corner: Corner) -> None:
    call, mine = corner.stage.call, corner.stage.client
    theirs: Tongbao = corner.stage.client_of(await corner.stage.open_shop())
    product = await call(
        mine.products.create, name="tea", skus=[{"code": new_number(), "price": 1}]
    )
    sku = product["skus"][0]["id"]
    order = await call(mine.orders.place, merchant_order_no="S-1", lines=[{"sku_id": sku}])
    table = await call(mine.tables.create, "table 1")
    row = await table_of_token(corner.db, table["url"].rpartition("/")[2])
    dish_id = new_id()
    guest = Guest(new_id(), "Anne")
    await order_dish(corner.shop, row, guest, (parse("sku", sku), 1), dish_id=dish_id)
    tab, *_ = await call(lambda: list(mine.tables.tabs(status="open")))
    dish, *_ = await call(lambda: list(mine.tables.dishes(status="ordered")))
    sender = await call(mine.wallets.open, holder_name="张三")
    await call(mine.wallets.top_up, sender["id"], amount=100)
    packet = await call(mine.red_packets.send, sender["id"], kind="equal", amount=2, parts=2)
    wallet = await call(theirs.wallets.open, holder_name="王五")

    for answer, call_ in (
        ("product.not_found", (theirs.products.get, product["id"])),
        ("product.not_found", (theirs.products.update, product["id"])),
        ("sku.not_found", (theirs.products.set_price, sku, 1)),
        ("order.not_found", (theirs.orders.get, order["id"])),
        ("order.not_found", (theirs.orders.cancel, order["id"])),
        ("order.not_found", (theirs.orders.refund, order["id"])),
        ("table.not_found", (theirs.tables.revoke, table["id"])),
        ("tab.not_found", (theirs.tables.bill, tab["id"])),
        ("tab.not_found", (theirs.tables.close, tab["id"])),
        ("dish.not_found", (theirs.tables.move, dish["id"], "ready")),
        ("red_packet.not_found", (theirs.red_packets.get, packet["id"])),
        ("red_packet.not_found", (theirs.red_packets.grab, packet["id"], wallet["id"])),
        ("wallet.not_found", (theirs.red_packets.grab, packet["id"], sender["id"])),
    ):
        assert await refused(corner, *call_) == answer
    lines = [{"sku_id": sku}]
    placing = {"merchant_order_no": "S-1", "lines": lines}
    assert await refused(corner, theirs.orders.place, **placing) == "sku.not_found"
    assert not await call(lambda: list(theirs.orders.list()))
    assert not await call(lambda: list(theirs.tables.dishes()))
    assert not await call(lambda: list(theirs.red_packets.list()))

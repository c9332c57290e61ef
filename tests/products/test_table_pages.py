"""What guests see when they scan a table's code: order, pay together or alone, review."""

from __future__ import annotations

import re

import httpx2 as httpx
import pytest

from tests.products.corner import Corner
from tongbao.kernel.ids import new_id, show
from tongbao.products.scenes.model import DiningTable
from tongbao.products.scenes.tables import make_table, tab_at
from tongbao.products.shop import _store as store
from tongbao.products.shop.model import Sku
from tongbao.surfaces.page_kit.texts import load_texts
from tongbao.surfaces.tables.app import HERE

WEIGHT_MAX = 60_000


class Phone:
    """A guest's browser, without a script in it."""

    def __init__(self, corner: Corner, table: DiningTable, language: str = "en") -> None:
        self.table = table
        self.corner = corner
        headers = {"accept-language": language, "sec-fetch-site": "same-origin"}
        self.http = httpx.Client(base_url=corner.stage.url, headers=headers, trust_env=False)

    async def get(self, path: str = "") -> httpx.Response:
        return await self.corner.stage.call(self.http.get, self.table.path + path)

    async def post(self, path: str, **form: str) -> httpx.Response:
        return await self.corner.stage.call(self.http.post, self.table.path + path, data=form)

    async def sit_down(self, name: str) -> Phone:
        reply = await self.post("/name", name=name)
        assert reply.status_code == 303
        return self

    async def order(self, sku: Sku, quantity: str = "1", **more: str) -> httpx.Response:
        page = (await self.get()).text
        once = re.findall(r'name="once" value="(\w+)"', page)[0]
        form = {"sku": show("sku", sku.id), "quantity": quantity, "once": once, **more}
        return await self.post("/dishes", **form)


@pytest.fixture
async def table(corner: Corner) -> DiningTable:
    async with corner.db.begin("tests") as tx:
        return await make_table(tx, corner.caller, "七号桌", new_id())


async def test_guests_order_pay_and_review(corner: Corner, table: DiningTable) -> None:
    [tea] = await corner.product(20, price=500)
    anne = await Phone(corner, table).sit_down("Anne & <b>")
    bo = await Phone(corner, table, "zh").sit_down("波")
    await anne.order(tea, "2", wishes="less sugar")
    await bo.order(tea)

    page = await anne.get()
    assert page.status_code == 200
    assert "Anne &amp; &lt;b&gt;" in page.text
    assert "less sugar" in page.text
    assert "Pay for myself" in page.text
    assert "本桌已点" in (await bo.get()).text
    assert len(page.content) < WEIGHT_MAX
    assert "<script" not in page.text
    assert "script-src 'nonce-" in page.headers["content-security-policy"]

    to_cashier = await bo.post("/pay", who="me")
    assert to_cashier.headers["location"].startswith("/pay/c/")
    found = await tab_at(corner.db, table)
    assert found is not None
    [his] = {dish.order_id for dish in found[1] if dish.order_id is not None}
    assert his is not None
    order = await store.GET_ORDER.one(corner.db, his)
    assert (order.total, order.return_url) == (
        500,
        f"{corner.stage.url}{table.path}/order/{show('ord', his)}",
    )
    await corner.pay(order)

    shown = await bo.get(f"/order/{show('ord', his)}")
    assert "已支付" in shown.text
    thanks = await bo.post(f"/review/{show('ord', his)}", stars="5", words="好")
    assert thanks.status_code == 200
    again = await bo.post(f"/review/{show('ord', his)}", stars="1")
    assert (again.status_code, "order.reviewed" in again.text) == (409, True)


async def test_a_bill_can_be_called_off_and_split(corner: Corner, table: DiningTable) -> None:
    [tea] = await corner.product(5)
    anne = await Phone(corner, table).sit_down("Anne")
    await anne.order(tea)
    await anne.post("/pay", who="all")
    page = (await anne.get()).text
    [bill] = set(re.findall(r"/let_go/(ord_\w+)", page))

    assert (await anne.post(f"/let_go/{bill}")).status_code == 303

    assert "/let_go/" not in (await anne.get()).text
    found = await tab_at(corner.db, table)
    assert found is not None
    assert [dish.order_id for dish in found[1]] == [None]


async def test_what_is_not_ours_is_refused(corner: Corner, table: DiningTable) -> None:
    [tea] = await corner.product(5)
    anne = await Phone(corner, table).sit_down("Anne")
    other = await Phone(corner, table).sit_down("Bo")
    other.http.headers["sec-fetch-site"] = "cross-site"
    elsewhere = await corner.order((tea, 1))

    assert (await other.post("/pay", who="all")).status_code == 403
    for quantity in ("0", "-1", "10", "٣", "1e1", ""):
        assert (await anne.order(tea, quantity)).status_code == 400, quantity
    assert (await anne.order(tea, wishes="x" * 101)).status_code == 400
    assert (await anne.post("/dishes", sku="sku_x", quantity="1", once="x")).status_code == 400
    for order in (show("ord", elsewhere.id), show("ord", new_id()), "nonsense"):
        assert (await anne.get(f"/order/{order}")).status_code == 404
        assert (await anne.post(f"/let_go/{order}")).status_code == 404
    assert (await anne.get("/nothing")).status_code == 404
    assert (await anne.post("")).status_code == 405
    nobody = await corner.stage.call(anne.http.get, "/table/" + "x" * 22)
    assert nobody.status_code == 404
    assert await tab_at(corner.db, table) is None
    away = await corner.stage.call(anne.http.get, "/table/language?to=zh&next=//evil.example")
    assert away.status_code == 404


async def test_the_code_is_drawn_and_both_languages_say_the_same(
    corner: Corner, table: DiningTable
) -> None:
    image = await Phone(corner, table).get("/code.svg")
    texts = load_texts(HERE / "texts")

    assert image.headers["content-type"] == "image/svg+xml"
    assert image.text.startswith("<svg")
    assert texts["zh"].by_key.keys() == texts["en"].by_key.keys()

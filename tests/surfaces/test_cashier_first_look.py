"""What a customer sees first, and what the page says while nobody knows, in a real browser."""

from __future__ import annotations

from typing import Any

import pytest

from tests.payments.everywhere import open_everywhere
from tests.stage import Stage
from tests.surfaces.cashing import UNIONPAY_APP, Till, price_every_way
from tests.surfaces.visitors import browsing
from tongbao.kernel.licence import Mode
from tongbao.parties.price_plans.model import PriceLine
from tongbao.parties.price_plans.plans import set_price_plan

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")
SMALL = {"width": 320, "height": 640}


@pytest.fixture
async def till(stage: Stage) -> Till:
    await price_every_way(stage, stage.shop.merchant.id)
    return Till(stage)


async def place_of(page: Any, selector: str) -> tuple[float, float]:
    """Return how far down something begins and ends, in pixels."""
    box = await page.locator(selector).first.bounding_box()
    assert box is not None, selector
    return box["y"], box["y"] + box["height"]


async def test_the_amount_and_the_payee_stand_above_the_ways_to_pay(
    stage: Stage, till: Till
) -> None:
    checkout = await till.open()
    async with browsing(stage, viewport=SMALL, locale="en") as watched:
        page = watched.page
        await page.goto(checkout["url"])
        amount, payee = await place_of(page, ".bill h1"), await place_of(page, ".bill .payee")
        way = await place_of(page, "[name=method]")

        assert await page.locator(".bill h1").inner_text() == "¥19.99"
        assert await page.locator(".bill .payee").inner_text() == "测试商店"
        assert amount[1] <= payee[0]
        assert payee[1] <= way[0]
        assert way[1] <= SMALL["height"], "and the first way is seen without scrolling"


async def test_while_nobody_knows_the_page_says_so_and_offers_nothing(
    stage: Stage, till: Till
) -> None:
    checkout = await till.open()
    stage.fault("wechat_pay", "pay", "http_500_unpaid", times=-1)
    async with browsing(stage, viewport=SMALL, locale="en") as watched:
        page = watched.page
        await page.goto(checkout["url"])
        await page.locator("[value='wechat_pay.qr']").click()
        for turn in (page.reload, page.reload, page.go_back, page.go_forward):
            await page.get_by_text("Do not pay again").first.wait_for()
            assert await page.locator("[name=method]").count() == 0
            await turn()
        await page.goto(checkout["url"])
        await page.get_by_text("Do not pay again").first.wait_for()
        assert (await till.row(checkout)).tries == 1
    stage.sandbox.delete("faults")


async def test_unionpays_own_app_pays_over_unionpay(stage: Stage) -> None:
    """The same plate, scanned with UnionPay's app, offers its page and no other channel."""
    await open_everywhere(stage)
    ways = [("unionpay", "qr"), ("unionpay", "h5"), ("wechat_pay", "qr"), ("alipay", "h5")]
    async with stage.db.begin("operator") as tx:
        lines = [PriceLine(channel, mode, 8_000) for channel, mode in ways]
        await set_price_plan(tx, stage.shop.merchant.id, Mode.SANDBOX, lines)
    plate = await Till(stage).plate(amount=500)
    options = {"viewport": SMALL, "user_agent": UNIONPAY_APP, "locale": "en"}
    async with browsing(stage, **options) as watched:
        page = watched.page
        await page.goto(plate["url"])
        await page.get_by_role("button", name="Go on to pay").click()
        offered = await page.locator("[name=method]").evaluate_all(
            "each => each.map(one => one.value)"
        )
        await page.locator("[value='unionpay.h5']").click()
        await page.wait_for_url("**/unionpay/gateway/api/frontTransReq.do")

        assert offered == ["unionpay.h5"]

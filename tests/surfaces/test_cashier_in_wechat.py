"""The hosted cashier inside WeChat, where the customer pays without leaving the page."""

from __future__ import annotations

import html
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.stage import Stage
from tests.surfaces import cashing
from tests.surfaces.cashing import METHOD, WECHAT_APP, Till, page_of, price_every_way, scene
from tests.surfaces.visitors import Reader, reader
from tongbao.payments.collecting.queries import last_attempt
from tongbao.rails.channels.accounts import replace_keys
from tongbao.surfaces.demo.stage import account_orders
from tongbao.wiring import SECRETS

till = cashing.till


@pytest.fixture
async def inside(stage: Stage) -> AsyncIterator[Reader]:
    """A browser inside WeChat, at a shop that takes payments there."""
    await price_every_way(stage, stage.shop.merchant.id, "in_app")
    async with reader(stage) as one:
        one.client.headers["user-agent"] = WECHAT_APP
        yield one


async def walk(one: Reader, address: str) -> Any:
    """Open an address and follow wherever it leads, other people's hosts included."""
    page = await one.get(address)
    for _ in range(5):
        [to] = re.findall(r'http-equiv="refresh" content="0;url=([^"]+)"', page.text) or [""]
        if page.status_code not in {302, 303} and not to:
            return page
        to = html.unescape(to) or page.headers["location"]
        page = await one.get(to, **{"sec-fetch-site": "cross-site"})
    raise AssertionError("it leads round and round")


async def test_inside_wechat_the_customer_pays_right_there(stage: Stage, inside: Reader) -> None:
    till = Till(stage)
    checkout = await till.open()
    page = await walk(inside, page_of(checkout))
    assert METHOD.findall(page.text) == ["wechat_pay.in_app"]

    reply = await inside.post(f"{page_of(checkout)}/method", {"method": "wechat_pay.in_app"})
    assert reply.headers["location"] == f"{page_of(checkout)}?open=1"
    page = await inside.follow(reply)
    assert scene(page) == "leave"
    [shown] = re.findall(r'data-opens="wechat_pay" data-parameters="([^"]+)"', page.text)
    parameters = json.loads(html.unescape(shown))
    await stage.control("wechat/open", parameters=parameters)
    await stage.idle()

    assert scene(await inside.get(page_of(checkout))) == "paid"
    attempt = await last_attempt(stage.db, await till.latest(checkout))
    assert attempt.how is not None
    assert attempt.payer == attempt.how.payer_id


async def test_a_browser_that_wechat_says_nothing_of_is_told_how_to_go_on(
    stage: Stage, inside: Reader
) -> None:
    checkout = await Till(stage).open()
    stage.fault("wechat_pay", "identify", "busy")
    page = await walk(inside, page_of(checkout))
    assert METHOD.findall(page.text) == []
    assert "Open in browser" in page.text


async def test_an_answer_nobody_asked_for_says_nothing(stage: Stage, inside: Reader) -> None:
    """Somebody else's code cannot be slipped in: it comes without the state of this browser."""
    checkout = await Till(stage).open()
    for query in ("", "?code=x", "?code=x&state=y"):
        reply = await inside.get(f"{page_of(checkout)}/known{query}")
        assert reply.status_code == 303
        assert reply.headers["location"] == page_of(checkout)
        assert "set-cookie" not in reply.headers


async def test_who_is_there_is_sealed_and_of_one_checkout(stage: Stage, inside: Reader) -> None:
    till = Till(stage)
    first, second = await till.open(), await till.open()
    await walk(inside, page_of(first))
    kept = inside.client.cookies["tongbao_payer"]
    openid = inside.client.cookies["sandbox_openid"]
    assert openid not in kept
    inside.client.cookies.delete("tongbao_payer")
    for wrong in (kept[:-4] + "AAAA", "x", "=", "%", "AAAA"):
        page = await inside.get(page_of(first), cookie=f"tongbao_payer={wrong}")
        assert page.headers["location"] == f"{page_of(first)}/who"
    page = await inside.get(page_of(second), cookie=f"tongbao_payer={kept}")
    assert page.headers["location"] == f"{page_of(second)}/who"
    page = await inside.get(page_of(first), cookie=f"tongbao_payer={kept}")
    assert METHOD.findall(page.text) == ["wechat_pay.in_app"]


async def test_an_account_without_the_apps_secret_does_not_ask(
    stage: Stage, inside: Reader
) -> None:
    credentials = stage.sandbox.credentials["wechat"]
    [order] = [
        each
        for each in account_orders(stage.url, stage.sandbox.credentials)
        if each.channel == "wechat_pay"
    ]
    keys = {name: value for name, value in order.keys.items() if name != "app_secret"}
    async with stage.db.begin("operator") as tx:
        await replace_keys(tx, stage.platform.keyring, SECRETS, stage.accounts["wechat_pay"], keys)
    assert credentials["app_secret"]
    checkout = await Till(stage).open()
    page = await inside.get(page_of(checkout))
    assert "Open in browser" in page.text
    assert (await inside.get(f"{page_of(checkout)}/who")).headers["location"] == page_of(checkout)

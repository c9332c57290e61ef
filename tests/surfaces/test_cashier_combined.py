"""The hosted page of a combined payment: every order, one sum, one way to pay, and no guess."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.stage import Stage, new_number
from tests.surfaces.cashing import PHONE, price_every_way
from tests.surfaces.test_console_browser import fits
from tests.surfaces.visitors import browsing, reader
from tongbao.kernel.ids import base32, new_id, parse

SCENE = re.compile(r'data-scene="(\w+)"')


async def whole(stage: Stage, method: dict[str, str] | None = None, **terms: Any) -> Any:
    return await stage.call(
        stage.client.combined_payments.create,
        merchant_combined_no=new_number(),
        method=method or {"mode": "qr"},
        orders=[
            {"merchant_order_no": new_number(), "amount": amount, "subject": subject}
            for amount, subject in ((1999, "两杯茶 <b>"), (300, "a bun"))
        ],
        **terms,
    )


def page_of(made: Any) -> str:
    return str(urlsplit(made["hosted_url"]).path)


async def pay(stage: Stage, made: Any) -> None:
    number = (await stage.attempt_of({"id": made["parts"][0]["payment_id"]})).number
    await stage.control("customer/scan", channel="wechat", number=number, action="pay")


async def test_a_customer_sees_every_order_scans_once_and_has_paid(stage: Stage) -> None:
    made = await whole(stage)
    own = page_of(made)
    async with reader(stage) as one:
        page = await one.get(own)
        state = json.loads((await one.get(f"{own}/state")).content)
        await pay(stage, made)
        await stage.idle()
        after = json.loads((await one.get(f"{own}/state")).content)
        done = await one.get(own)
        chinese = await one.get(own, **{"accept-language": "zh-CN"})

    for text in (
        "22.99",
        "19.99",
        "3.00",
        "两杯茶 &lt;b&gt;",
        "2 orders",
        "测试商店",
        'class="qr"',
    ):
        assert text in page.text, text
    assert 'http-equiv="refresh"' in page.text, "it goes on without JavaScript"
    assert SCENE.findall(page.text) == ["scan"]
    assert state["key"] != after["key"]
    assert after["scene"] == "paid"
    assert made["id"] in done.text
    assert "2 笔订单" in chinese.text
    assert len(page.content) < 30_000
    assert "unsafe-eval" not in page.headers["content-security-policy"]


async def test_a_lost_notice_is_found_by_asking_and_nobody_pays_again(stage: Stage) -> None:
    stage.fault("wechat_pay", "pay", "bad_signature_paid")
    made = await whole(stage)
    own = page_of(made)
    async with reader(stage) as one:
        waiting = await one.get(own)
        assert SCENE.findall(waiting.text) == ["confirming"], "nobody knows yet"
        assert "Do not pay again" in waiting.text
        assert 'class="qr"' not in waiting.text
        found = await one.follow(await one.post(f"{own}/check", {}))
    assert SCENE.findall(found.text) == ["paid"]


async def test_a_phone_is_sent_to_the_channel_and_an_end_is_said(stage: Stage) -> None:
    await price_every_way(stage, stage.shop.merchant.id)
    made = await whole(stage, {"mode": "h5", "return_url": "https://shop.example/"})
    own = page_of(made)
    async with reader(stage) as one:
        page = await one.get(own, **{"user-agent": PHONE})
        assert SCENE.findall(page.text) == ["leave"]
        assert re.search(r'href="(http[^"]+)" rel="noreferrer"', page.text)
        await stage.call(stage.client.combined_payments.close, made["id"])
        closed = await one.get(own)
    assert SCENE.findall(closed.text) == ["closed"]
    assert "No money was taken" in closed.text


async def test_after_its_time_nobody_is_asked_to_pay(stage: Stage) -> None:
    made = await whole(stage, expires_in_s=60)
    stage.fault("wechat_pay", "close", "time_out_not_done", times=9)
    stage.db.clock.offset += timedelta(seconds=61)
    async with reader(stage) as one:
        page = await one.get(page_of(made))
    assert SCENE.findall(page.text) == ["confirming"]


async def test_only_the_whole_address_opens_a_page(stage: Stage) -> None:
    made = await whole(stage)
    own = page_of(made)
    number = base32(parse("cmb", made["id"]))
    wrong = own[:-1] + ("0" if own[-1] != "0" else "1")
    async with reader(stage) as one:
        for path in (
            f"/pay/m/{number}",
            f"/pay/m/{number}{'0' * 32}",
            f"/pay/m/{base32(new_id())}{own[-32:]}",
            f"/pay/m/{own[-32:]}",
            "/pay/m/é",
            wrong,
        ):
            assert (await one.get(path)).status_code == 404, path
        sent = await one.post(f"{own}/check", {}, **{"sec-fetch-site": "cross-site"})
    assert sent.status_code == 403
    refused = await stage.call(stage.client.combined_payments.get, made["id"])
    assert refused["hosted_url"] == made["hosted_url"]


async def test_it_fits_a_small_phone_and_turns_into_a_receipt_by_itself(
    stage: Stage, tmp_path: Path
) -> None:
    made = await whole(stage)
    async with browsing(stage) as watched:
        page = watched.page
        await page.set_viewport_size({"width": 320, "height": 640})
        await page.goto(made["hosted_url"])
        await page.get_by_role("img", name="微信支付付款二维码").wait_for()
        assert await fits(page)
        await page.screenshot(path=tmp_path / "combined.png", full_page=True)
        await pay(stage, made)
        await stage.idle()
        await page.get_by_role("heading", name="支付成功").wait_for(timeout=15_000)
        assert not watched.complaints
        assert not watched.foreign

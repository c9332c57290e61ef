"""The hosted page of a combined payment: every order, one sum, one way to pay, and no guess."""

from __future__ import annotations

import asyncio
import json
import re
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.stage import Stage, new_number
from tests.surfaces.cashing import PHONE, price_every_way
from tests.surfaces.test_console_browser import fits
from tests.surfaces.visitors import browsing, picture, reader
from tongbao.infra import failpoints
from tongbao.infra.failpoints import SimulatedCrash
from tongbao.kernel.ids import base32, new_id, parse
from tongbao.payments.checkouts.model import Offer
from tongbao.payments.combining import queries
from tongbao.payments.combining.choosing import choose
from tongbao.rails.channels.capabilities.combined_orders import CombinedOrder
from tongbao.rails.channels.contract.orders import ChannelAccount, PayMode
from tongbao.rails.channels.contract.outcomes import Answer, Declined, Outcome
from tongbao.rails.channels.exchange import unsent
from tongbao.rails.channels.wechat_pay.client import WechatPay

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


WAY = re.compile(r'name="method" value="([\w.]+)"')


async def chosen(stage: Stage, **terms: Any) -> Any:
    await price_every_way(stage, stage.shop.merchant.id)
    return await whole(stage, customer_chooses=True, **terms)


async def read(stage: Stage, made: Any) -> Any:
    return await stage.call(stage.client.combined_payments.get, made["id"])


async def test_a_customer_takes_another_way_and_pays_once(stage: Stage) -> None:
    """The first is closed at the channel before the second is offered; the page says which."""
    made = await chosen(stage)
    first = made["parts"]
    own = page_of(made)
    async with reader(stage) as one:
        page = await one.get(own, **{"user-agent": PHONE})
        assert WAY.findall(page.text) == ["wechat_pay.h5"]
        assert "Pay another way" in page.text
        assert WAY.findall((await one.get(own)).text) == [], "a desktop cannot leave for an app"
        chinese = await one.get(own, **{"user-agent": PHONE, "accept-language": "zh-CN"})
        assert "更换支付方式" in chinese.text
        sent = await one.post(f"{own}/method", {"method": "wechat_pay.h5"})
        leaving = await one.follow(sent)
        again = await one.follow(await one.post(f"{own}/method", {"method": "wechat_pay.h5"}))
        wrong = await one.follow(await one.post(f"{own}/method", {"method": "alipay.qr"}))
    for page in (leaving, again, wrong):
        assert SCENE.findall(page.text) == ["leave"]
    now = await read(stage, made)
    assert (now["status"], now["method"]["mode"], now["customer_chooses"]) == (
        "pending",
        "h5",
        True,
    )
    earlier = [await stage.read({"id": part["payment_id"], "object": "payment"}) for part in first]
    assert {each["status"] for each in earlier} == {"closed"}
    numbers = [part["merchant_order_no"] for part in now["parts"]]
    assert numbers == [f"{part['merchant_order_no']}-2" for part in first]
    assert await stage.events(made) == [], "the whole goes on"

    await pay(stage, now)
    await stage.idle()

    done = await read(stage, made)
    assert (done["status"], {part["status"] for part in done["parts"]}) == (
        "succeeded",
        {"succeeded"},
    )
    assert await stage.events(made) == ["combined_payment.ended"]
    for part in done["parts"]:
        payment = await stage.read({"id": part["payment_id"], "object": "payment"})
        assert payment["method"]["combined_payment_id"] == made["id"]


async def test_who_paid_before_the_choice_has_paid(stage: Stage) -> None:
    made = await chosen(stage)
    stage.fault("wechat_pay", "callback", "lost", times=4)
    await pay(stage, made)
    async with reader(stage) as one:
        found = await one.follow(
            await one.post(f"{page_of(made)}/method", {"method": "wechat_pay.h5"})
        )
    assert SCENE.findall(found.text) == ["paid"]
    done = await read(stage, made)
    assert (done["status"], done["parts"]) == ("succeeded", done["parts"])
    assert done["method"]["mode"] == "qr"


async def test_another_way_is_not_offered_before_proof(stage: Stage) -> None:
    made = await chosen(stage)
    stage.fault("wechat_pay", "close", "http_500", times=2)
    own = page_of(made)
    async with reader(stage) as one:
        stuck = await one.follow(await one.post(f"{own}/method", {"method": "wechat_pay.h5"}))
        assert SCENE.findall(stuck.text) == ["confirming"]
        assert "Do not pay again" in stuck.text
        stage.sandbox.delete("faults")
        await stage.advance(minutes=2)
        assert SCENE.findall((await one.get(own)).text) == ["leave"], "the chase went on with it"
    assert (await read(stage, made))["method"]["mode"] == "h5"


class WithoutH5(WechatPay):
    """WeChat Pay at a merchant number for which it has not opened the phone's way."""

    async def pay_combined(self, account: ChannelAccount, order: CombinedOrder) -> Answer[Outcome]:
        if order.order.mode is PayMode.H5:
            refused = unsent("POST", account.gateway, "NO_AUTH")
            return Answer(Declined("NO_AUTH", "not opened"), refused)
        return await super().pay_combined(account, order)


async def test_a_way_that_is_refused_gives_the_one_before_back(stage: Stage) -> None:
    made = await chosen(stage)
    channels: Any = stage.flow.channels
    kept, own = channels["wechat_pay"], page_of(made)
    channels["wechat_pay"] = WithoutH5(stage.platform.http)
    async with reader(stage) as one:
        await one.post(f"{own}/method", {"method": "wechat_pay.h5"})
        await stage.advance(minutes=1)  # the chase may be at it at the same time
        page = await one.get(own)
    channels["wechat_pay"] = kept
    assert SCENE.findall(page.text) == ["scan"], "nobody's order dies of a choice"
    now = await read(stage, made)
    assert (now["status"], now["method"]["mode"]) == ("pending", "qr")
    assert now["parts"][0]["merchant_order_no"].endswith("-3")


async def test_late_money_of_the_first_way_goes_back(stage: Stage) -> None:
    """It is told under the first way's number, when the second is already offered."""
    made = await chosen(stage)
    first = made["parts"]
    stage.fault("wechat_pay", "close", "late_success:5")
    async with reader(stage) as one:
        await one.post(f"{page_of(made)}/method", {"method": "wechat_pay.h5"})
    assert (await read(stage, made))["method"]["mode"] == "h5"
    await stage.advance(seconds=6)
    await stage.advance(minutes=2)

    late = [await stage.read({"id": part["payment_id"], "object": "payment"}) for part in first]
    assert [each["amount_captured"] for each in late] == [part["amount"] for part in first]
    for part in first:
        assert await stage.given_back({"id": part["payment_id"]}) == [part["amount"]]
    now = await read(stage, made)
    assert (now["status"], now["method"]["mode"]) == ("pending", "h5")


async def test_a_merchant_who_closes_ends_the_choice(stage: Stage) -> None:
    made = await chosen(stage)
    stage.fault("wechat_pay", "close", "http_500", times=2)
    async with reader(stage) as one:
        await one.post(f"{page_of(made)}/method", {"method": "wechat_pay.h5"})
    await stage.call(stage.client.combined_payments.close, made["id"])
    stage.sandbox.delete("faults")
    await stage.advance(minutes=2)
    closed = await read(stage, made)
    assert (closed["status"], closed["method"]["mode"]) == ("closed", "qr")
    assert await stage.events(made) == ["combined_payment.ended"]


@pytest.mark.parametrize("place", ["combining.before_next_try", "combining.after_next_try"])
async def test_whoever_dies_between_the_ways_is_followed_by_the_chase(
    stage: Stage, place: str
) -> None:
    made = await chosen(stage)
    found = await queries.combined_with_id(stage.db, parse("cmb", made["id"]))
    failpoints.arm(f"{place}:raise")
    with pytest.raises(SimulatedCrash):
        await choose(stage.flow, found, Offer("wechat_pay", PayMode.H5))
    failpoints.arm(None)
    await stage.advance(minutes=2)
    now = await read(stage, made)
    assert (now["status"], now["method"]["mode"]) == ("pending", "h5")
    assert now["parts"][0]["merchant_order_no"].endswith("-2")


async def test_two_who_choose_at_once_make_one_try(stage: Stage) -> None:
    made = await chosen(stage)
    found = await queries.combined_with_id(stage.db, parse("cmb", made["id"]))
    offer = Offer("wechat_pay", PayMode.H5)
    await asyncio.gather(*(choose(stage.flow, found, offer) for _ in range(4)))
    await stage.idle()
    now = await read(stage, made)
    assert (now["status"], now["method"]["mode"]) == ("pending", "h5")
    assert now["parts"][0]["merchant_order_no"].endswith("-2")


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


async def test_it_fits_a_small_phone_and_turns_into_a_receipt_by_itself(stage: Stage) -> None:
    made = await whole(stage)
    async with browsing(stage) as watched:
        page = watched.page
        await page.set_viewport_size({"width": 320, "height": 640})
        await page.goto(made["hosted_url"])
        await page.get_by_role("img", name="微信支付付款二维码").wait_for()
        assert await fits(page)
        await picture(page, "combined")
        await pay(stage, made)
        await stage.idle()
        await page.get_by_role("heading", name="支付成功").wait_for(timeout=15_000)
        assert not watched.complaints
        assert not watched.foreign

"""Checkouts: how merchants open them, how long they are open, and what comes after their time."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.stage import Stage, new_number
from tests.surfaces import cashing
from tests.surfaces.cashing import SOMEBODY, Till, choose, page_of, scene
from tests.surfaces.visitors import reader
from tongbao.kernel.licence import Mode
from tongbao.parties.merchants.merchants import set_suspended
from tongbao.payments.checkouts import _store as store
from tongbao.payments.checkouts.checkouts import try_paying
from tongbao.payments.checkouts.model import (
    CheckoutClosed,
    Offer,
    ReturnUrlUnsafe,
    check_return_url,
)
from tongbao.rails.channels.contract.orders import PayMode
from tongbao.surfaces.cashier.scenes import is_safe_to_leave_for

till = cashing.till


async def test_a_checkout_ends_with_its_time(stage: Stage, till: Till) -> None:
    checkout = await till.open(expires_in_s=120)
    async with reader(stage) as one:
        await stage.advance(seconds=121)
        page = await one.get(page_of(checkout))
        assert scene(page) == "closed"
        assert "No money was taken" in page.text
        refused = await one.post(f"{page_of(checkout)}/method", {"method": "alipay.qr"})
    assert refused.status_code == 409
    assert "checkout.closed" in refused.text
    assert (await till.seen(checkout))["status"] == "closed"


async def test_a_merchant_is_told_once_of_a_checkout_that_ended_unpaid(
    stage: Stage, till: Till
) -> None:
    """Never tried, tried and left, called off: one event each, with what was asked for."""
    untried, left, off = [await till.open(expires_in_s=600) for _ in range(3)]
    async with reader(stage) as one:
        await choose(one, left, "wechat_pay.qr")
        await choose(one, off, "alipay.qr")
    await till.said("POST", f"/v1/checkouts/{off['id']}/close")
    for _ in range(2):
        await till.said("POST", f"/v1/checkouts/{off['id']}/close")
        await stage.idle()
    assert await stage.events(off) == ["checkout.closed"], "it is told at once"
    assert await stage.events(untried) == await stage.events(left) == []

    await stage.advance(seconds=541)
    assert await stage.events(untried) == ["checkout.closed"]
    await stage.advance(minutes=20)
    await stage.advance(minutes=20)

    for checkout in (untried, left, off):
        assert await stage.events(checkout) == ["checkout.closed"]
        seen = await till.seen(checkout)
        assert (seen["status"], seen["amount"]) == ("closed", 1999)
        events = await till.said("GET", f"/v1/events?resource_id={checkout['id']}")
        [told] = events["items"]
        assert (told["type"], told["data"]["object"]) == ("checkout.closed", seen)


async def test_nothing_is_told_of_a_checkout_that_is_paid_or_that_nobody_asked_for(
    stage: Stage, till: Till
) -> None:
    paid, plate = await till.open(expires_in_s=600), await till.plate()
    async with reader(stage) as one:
        await choose(one, paid, "wechat_pay.qr")
        await stage.customer(await till.as_payment(paid))
        await one.post(page_of(plate), {"amount": "1"})
    await stage.advance(minutes=31)
    await stage.advance(minutes=31)
    assert await stage.events(paid) == []
    rows = await stage.db.fetch("select 1 from event where type = 'checkout.closed'", ())
    assert rows == [], "whoever looks at a plate and walks away was never asked for anything"


async def test_no_try_begins_once_it_is_told_that_a_checkout_closed(
    stage: Stage, till: Till
) -> None:
    """Both decide on what they saw; the row's own count of tries decides between them."""
    checkout = await till.open(expires_in_s=600)
    row = await till.row(checkout)
    await stage.advance(minutes=10)
    assert await stage.events(checkout) == ["checkout.closed"]
    stage.db.clock.offset -= timedelta(minutes=10)

    with pytest.raises(CheckoutClosed):  # as a customer saw it a moment before
        await try_paying(stage.flow, row, Offer("wechat_pay", PayMode.QR), SOMEBODY)

    assert (await till.seen(checkout))["status"] == "closed"


async def test_a_try_that_began_first_keeps_the_checkout_open(stage: Stage, till: Till) -> None:
    checkout = await till.open(expires_in_s=600)
    row = await till.row(checkout)
    async with reader(stage) as one:
        await choose(one, checkout, "wechat_pay.qr")
    async with stage.db.begin("checkouts") as tx:
        closed = await store.CLOSE.run(tx, row.book, row.id, row.tries, tx.now)
    assert closed == 0


async def test_a_merchant_calls_a_checkout_off_at_the_channel_first(
    stage: Stage, till: Till
) -> None:
    checkout = await till.open()
    async with reader(stage) as one:
        await choose(one, checkout, "wechat_pay.qr")
        payment = await till.as_payment(checkout)
        closed = await till.said("POST", f"/v1/checkouts/{checkout['id']}/close")
        page = await one.get(page_of(checkout))
    assert closed["status"] == "closed"
    assert scene(page) == "closed"
    assert (await stage.trade_of(payment))["state"] == "closed"
    again = await till.said("POST", f"/v1/checkouts/{checkout['id']}/close")
    assert again["status"] == "closed"


async def test_a_checkout_is_closing_until_its_channel_says_so(stage: Stage, till: Till) -> None:
    checkout = await till.open()
    async with reader(stage) as one:
        await choose(one, checkout, "wechat_pay.qr")
        await stage.fault_of(await till.as_payment(checkout), "close", "http_500")
        told = await till.said("POST", f"/v1/checkouts/{checkout['id']}/close")
        assert told["status"] == "closing"
        assert scene(await one.get(page_of(checkout))) == "confirming"
        await stage.advance(minutes=5)
        assert (await till.seen(checkout))["status"] == "closed"
        assert scene(await one.get(page_of(checkout))) == "closed"


async def test_a_paid_checkout_cannot_be_called_off(stage: Stage, till: Till) -> None:
    checkout = await till.open()
    async with reader(stage) as one:
        await choose(one, checkout, "wechat_pay.qr")
    await stage.customer(await till.as_payment(checkout))
    await stage.idle()
    reply = await till.api.post(f"/v1/checkouts/{checkout['id']}/close", key=new_number())
    assert reply.code == "checkout.paid"


# Opening one


async def test_the_same_order_is_the_same_checkout_and_another_is_refused(
    stage: Stage, till: Till
) -> None:
    number = new_number()
    first = await till.open(merchant_order_no=number)
    assert (await till.open(merchant_order_no=number))["id"] == first["id"]
    key = new_number()
    body = {"merchant_order_no": number, "subject": "两杯茶", "amount": 1}
    for _ in range(2):
        reply = await till.api.post("/v1/checkouts", body, key=key)
        assert reply.code == "payment.order_no_used"

    listed = await till.said("GET", f"/v1/checkouts?merchant_order_no={number}")
    assert [each["id"] for each in listed["items"]] == [first["id"]]


async def test_an_order_that_was_asked_for_directly_has_no_checkout(
    stage: Stage, till: Till
) -> None:
    payment = await stage.show_qr("alipay")
    body = {
        "merchant_order_no": payment["merchant_order_no"],
        "subject": "两杯茶",
        "amount": payment["amount"],
    }
    reply = await till.api.post("/v1/checkouts", body, key=new_number())
    assert reply.code == "payment.order_no_used"


@pytest.mark.parametrize(
    "url",
    [
        "javascript:alert(1)",
        "data:text/html,<script>alert(1)</script>",
        "//evil.example/x",
        "https://",
        "https:///x",
        "https://user:secret@shop.example/",
        "https://shop.example/\nset-cookie: x",
        'https://shop.example/"onmouseover="x',
        "https://shop.example/a b",
        "https://[",
        "https://shop.example:port/",
        "https:\\\\shop.example",
        "ftp://shop.example/",
        "https://商店.example/",
    ],
)
async def test_an_unsafe_address_to_return_to_is_refused(
    stage: Stage, till: Till, url: str
) -> None:
    body = {"merchant_order_no": new_number(), "subject": "x", "amount": 1, "return_url": url}
    reply = await till.api.post("/v1/checkouts", body, key=new_number())
    assert reply.code == "checkout.return_url_unsafe"


def test_only_sandbox_keys_may_return_to_plain_http() -> None:
    check_return_url("http://127.0.0.1:8000/back", Mode.SANDBOX)
    check_return_url("https://shop.example/back?a=b#c", Mode.LIVE)
    with pytest.raises(ReturnUrlUnsafe):
        check_return_url("http://shop.example/back", Mode.LIVE)


@pytest.mark.parametrize(
    ("url", "safe"),
    [
        ("https://openapi.alipay.com/gateway.do?a=b", True),
        ("http://127.0.0.1:1/x", False),
        ("javascript:alert(1)", False),
        ("https://a/\r\nx", False),
        ("https://[", False),
        ("weixin://wap/pay", False),
    ],
)
def test_a_browser_is_sent_to_web_addresses_only(url: str, safe: bool) -> None:
    assert is_safe_to_leave_for(url, Mode.LIVE) == safe


async def test_a_merchants_program_cannot_open_checkouts_without_end(
    stage: Stage, till: Till, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tongbao.payments.checkouts.checkouts.CREATED_PER_MINUTE_MAX", 3)
    for _ in range(3):
        await till.open()
    body = {"merchant_order_no": new_number(), "subject": "x", "amount": 1}
    reply = await till.api.post("/v1/checkouts", body, key=new_number())
    assert (reply.status, reply.code) == (429, "checkout.too_many")
    stage.db.clock.offset += timedelta(seconds=61)
    await till.open()


async def test_a_suspended_merchant_opens_none(stage: Stage, till: Till) -> None:
    plate = await till.plate()
    async with stage.db.begin("operator") as tx:
        await set_suspended(tx, till.shop.merchant.id, suspended=True, because="test")
    body = {"merchant_order_no": new_number(), "subject": "x", "amount": 1}
    reply = await till.api.post("/v1/checkouts", body, key=new_number())
    assert reply.code == "merchant.suspended"
    async with reader(stage) as one:
        page = await one.get(page_of(plate))
        assert "takes no payments at present" in page.text
        assert (await one.post(page_of(plate), {"amount": "1"})).status_code == 422

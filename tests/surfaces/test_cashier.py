"""The hosted cashier without a picture: what is offered, what is tried, and what is never done."""

from __future__ import annotations

import asyncio
import html
import json
import re
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from tests.stage import Stage, new_number
from tests.surfaces.cashing import (
    ALIPAY_APP,
    DESKTOP,
    PHONE,
    UNIONPAY_APP,
    WECHAT_APP,
    Till,
    page_of,
    price_every_way,
)
from tests.surfaces.visitors import Reader, reader
from tongbao.infra.web.problem import TooManyRequests
from tongbao.kernel.codecs import emv_qr_merchant as emv
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import Money
from tongbao.parties.merchants.merchants import set_suspended
from tongbao.parties.merchants.model import LateSuccess, MerchantSuspended
from tongbao.payments.checkouts import _store as store
from tongbao.payments.checkouts.checkouts import Visitor, prune_abandoned, try_paying
from tongbao.payments.checkouts.model import (
    CheckoutClosed,
    CheckoutsTooMany,
    CheckoutTriedTooOften,
    Offer,
    ReturnUrlUnsafe,
    check_return_url,
)
from tongbao.payments.collecting.queries import last_attempt
from tongbao.payments.plates.model import (
    EmvAsked,
    PlateAmountDiffers,
    PlateBusy,
    PlateCurrencyUnknown,
    PlateRevoked,
    emv_text,
)
from tongbao.payments.routing.health import CALLS_MIN
from tongbao.rails.channels.accounts import AccountState, replace_keys, set_gateway, set_state
from tongbao.rails.channels.contract import PayMode
from tongbao.surfaces.cashier.app import SentFromElsewhere
from tongbao.surfaces.cashier.desk import ACTS_PER_MINUTE, HERE, Throttle
from tongbao.surfaces.cashier.scanners import Place, place_of
from tongbao.surfaces.cashier.scenes import is_safe_to_leave_for
from tongbao.surfaces.demo.stage import account_orders
from tongbao.surfaces.page_kit.qr import draw
from tongbao.surfaces.page_kit.texts import load_texts
from tongbao.wiring import SECRETS

METHOD = re.compile(r'name="method" value="([^"]+)"')
SOMEBODY = Visitor("203.0.113.9", "https://pay.example/pay/c/somebody")
SCENE = re.compile(r'data-scene="(\w+)"')


@pytest.fixture
async def till(stage: Stage) -> Till:
    await price_every_way(stage, stage.shop.merchant.id)
    return Till(stage)


def scene(page: Any) -> str:
    [found] = SCENE.findall(page.text)
    return str(found)


async def choose(one: Reader, checkout: dict[str, Any], method: str) -> Any:
    """Press a method's button and go where that leads."""
    return await one.follow(await one.post(f"{page_of(checkout)}/method", {"method": method}))


# --- what is offered ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("agent", "offered"),
    [
        (DESKTOP, ["alipay.qr", "alipay.web", "wechat_pay.qr"]),
        (PHONE, ["alipay.h5", "wechat_pay.h5", "alipay.qr", "wechat_pay.qr"]),
        (ALIPAY_APP, ["alipay.h5"]),
        (WECHAT_APP, []),
        (UNIONPAY_APP, []),
        ("", ["alipay.qr", "alipay.web", "wechat_pay.qr"]),
    ],
)
async def test_a_page_offers_what_works_where_it_was_opened(
    stage: Stage, till: Till, agent: str, offered: list[str]
) -> None:
    checkout = await till.open()
    async with reader(stage) as one:
        page = await one.get(page_of(checkout), **{"user-agent": agent})

    assert METHOD.findall(page.text) == offered
    if agent in {WECHAT_APP, UNIONPAY_APP}:
        assert "Open in browser" in page.text


@pytest.mark.parametrize(
    ("agent", "place"),
    [
        (WECHAT_APP, Place.WECHAT),
        (ALIPAY_APP, Place.ALIPAY),
        (UNIONPAY_APP, Place.UNIONPAY),
        (f"{PHONE} TongbaoWallet/1.2", Place.WALLET),
        (PHONE, Place.PHONE),
        (DESKTOP, Place.DESKTOP),
        ("curl/8", Place.DESKTOP),
    ],
)
def test_the_scanning_app_is_recognised(agent: str, place: Place) -> None:
    assert place_of(agent) is place


async def test_the_merchant_can_limit_the_channels(stage: Stage, till: Till) -> None:
    checkout = await till.open(channels=["wechat_pay"])
    async with reader(stage) as one:
        page = await one.get(page_of(checkout))
    assert METHOD.findall(page.text) == ["wechat_pay.qr"]


@pytest.mark.parametrize(
    ("closed", "left"),
    [(["alipay"], ["wechat_pay.qr"]), (["alipay", "wechat_pay"], [])],
    ids=["one", "all"],
)
async def test_a_channel_that_is_closed_is_not_offered_and_none_is_said_so(
    stage: Stage, till: Till, closed: list[str], left: list[str]
) -> None:
    checkout = await till.open()
    async with stage.db.begin("operator") as tx:
        for channel in closed:
            await set_state(tx, stage.accounts[channel], AccountState.CLOSED)
    async with reader(stage) as one:
        page = await one.get(page_of(checkout))
    assert METHOD.findall(page.text) == left
    if not left:
        assert "There is no way to pay at present" in page.text
        assert "No money was taken" in page.text


async def test_a_channel_that_is_down_is_not_offered(stage: Stage, till: Till) -> None:
    """Its calls are lost until its breaker opens; the page then has the other channel only."""
    checkout = await till.open()
    stage.fault("wechat_pay", "pay", "http_500_unpaid", times=-1)
    await asyncio.gather(*(stage.show_qr("wechat_pay") for _ in range(CALLS_MIN)))
    watch = stage.platform.router.watch
    await watch.write()
    watch.forget()
    async with reader(stage) as one:
        page = await one.get(page_of(checkout))
    assert METHOD.findall(page.text) == ["alipay.qr", "alipay.web"]


async def test_the_way_paid_last_time_comes_first_and_the_cookie_knows_nothing_else(
    stage: Stage, till: Till
) -> None:
    first, second = await till.open(), await till.open()
    async with reader(stage) as one:
        reply = await one.post(f"{page_of(first)}/method", {"method": "wechat_pay.qr"})
        page = await one.get(page_of(second))

    [kept] = [value for name, value in reply.headers.multi_items() if name == "set-cookie"]
    assert kept.startswith("tongbao_pay_by=wechat_pay.qr; ")
    assert "HttpOnly" in kept
    assert METHOD.findall(page.text)[0] == "wechat_pay.qr"
    assert "last time" in page.text


async def test_a_way_that_was_given_up_comes_last_and_is_forgotten(
    stage: Stage, till: Till
) -> None:
    first, second = await till.open(), await till.open()
    async with reader(stage) as one:
        await choose(one, first, "alipay.qr")
        left = await one.post(f"{page_of(first)}/other", {})
        again = await one.follow(left)
        other = await one.get(page_of(second))

    assert METHOD.findall(again.text) == ["alipay.web", "wechat_pay.qr", "alipay.qr"]
    assert "last time" not in again.text
    [forgotten] = [value for name, value in left.headers.multi_items() if name == "set-cookie"]
    assert forgotten.startswith("tongbao_pay_by=; ")
    assert "Max-Age=0" in forgotten
    assert "last time" not in other.text


async def test_a_code_that_a_phone_shows_is_for_another_phone(stage: Stage, till: Till) -> None:
    checkout = await till.open()
    async with reader(stage) as one:
        there = await one.get(page_of(checkout), **{"user-agent": PHONE})
        here = await one.get(page_of(checkout), **{"user-agent": DESKTOP})

    assert there.text.count("shows a code for another phone to scan") == 2
    assert "scan with your phone" not in there.text
    assert here.text.count("shows a code to scan with your phone") == 2


async def test_a_way_that_is_not_offered_is_not_tried(stage: Stage, till: Till) -> None:
    checkout = await till.open(channels=["alipay"])
    async with reader(stage) as one:
        for method in ("wechat_pay.qr", "wallet.qr", "", "alipay.payment_code", "<script>"):
            assert scene(await choose(one, checkout, method)) == "choose"
    assert (await till.row(checkout)).tries == 0


# --- paying --------------------------------------------------------------------------------------


async def test_a_customer_scans_pays_and_is_led_back(stage: Stage, till: Till) -> None:
    checkout = await till.open(
        return_url="https://shop.example/order?id=7", metadata={"table": "12"}
    )
    async with reader(stage) as one:
        page = await choose(one, checkout, "wechat_pay.qr")
        assert scene(page) == "scan"
        payment = await till.as_payment(checkout)
        drawn = draw(payment["next_action"]["code_url"]).path
        assert drawn in page.text

        await stage.customer(payment)
        await stage.idle()
        page = await one.get(page_of(checkout))

    assert scene(page) == "paid"
    assert f"https://shop.example/order?id=7&amp;checkout_id={checkout['id']}" in page.text
    seen, payment = await till.seen(checkout), await till.as_payment(checkout)
    assert seen["status"] == "paid"
    assert seen["payment_id"] == payment["id"]
    assert payment["merchant_order_no"] == checkout["merchant_order_no"]
    assert payment["metadata"] == {"table": "12", "checkout_id": checkout["id"]}
    assert await stage.events(payment) == ["payment.succeeded"]


async def test_what_a_form_says_of_the_amount_is_not_read(stage: Stage, till: Till) -> None:
    checkout = await till.open(4200)
    async with reader(stage) as one:
        fields = {"method": "alipay.qr", "amount": "1", "currency": "USD", "merchant": "x"}
        await one.post(f"{page_of(checkout)}/method", fields)
    assert (await till.as_payment(checkout))["amount"] == 4200


async def test_another_way_is_tried_after_the_first_was_closed_at_its_channel(
    stage: Stage, till: Till
) -> None:
    checkout = await till.open()
    async with reader(stage) as one:
        await choose(one, checkout, "wechat_pay.qr")
        first = await till.as_payment(checkout)
        page = await one.follow(await one.post(f"{page_of(checkout)}/other", {}))
        assert scene(page) == "choose"
        assert "no money was taken" in page.text
        assert (await stage.trade_of(first))["state"] == "closed"
        await choose(one, checkout, "alipay.qr")

    second = await till.as_payment(checkout)
    assert second["id"] != first["id"]
    assert second["merchant_order_no"] == f"{checkout['merchant_order_no']}-2"
    await stage.customer(second)
    await stage.idle()
    assert (await till.seen(checkout))["status"] == "paid"
    assert (await stage.read(first))["status"] == "closed"


async def test_while_nobody_knows_there_is_no_other_way(stage: Stage, till: Till) -> None:
    """The channel does not answer the closing: the customer may have paid."""
    checkout = await till.open()
    async with reader(stage) as one:
        await choose(one, checkout, "wechat_pay.qr")
        first = await till.as_payment(checkout)
        await stage.fault_of(first, "close", "http_500", times=-1)
        page = await one.follow(await one.post(f"{page_of(checkout)}/other", {}))
        assert scene(page) == "confirming"
        assert "Do not pay again" in page.text
        assert METHOD.findall(page.text) == []

        page = await choose(one, checkout, "alipay.qr")  # from another tab that still shows it
        assert scene(page) == "confirming"
        assert (await till.row(checkout)).tries == 1


async def test_a_channel_that_is_silent_from_the_start_is_confirming(
    stage: Stage, till: Till
) -> None:
    checkout = await till.open()
    stage.fault("wechat_pay", "pay", "http_500_unpaid", times=-1)
    async with reader(stage) as one:
        page = await choose(one, checkout, "wechat_pay.qr")
        assert scene(page) == "confirming"
        stage.sandbox.delete("faults")
        await stage.advance(seconds=6)
        page = await one.get(page_of(checkout))
    assert scene(page) == "scan"
    assert (await till.row(checkout)).tries == 1


async def test_who_paid_while_changing_their_mind_has_paid(stage: Stage, till: Till) -> None:
    """Paid, and the callback is lost; closing finds out."""
    checkout = await till.open()
    async with reader(stage) as one:
        await choose(one, checkout, "wechat_pay.qr")
        stage.fault("wechat_pay", "callback", "lost", times=-1)
        await stage.customer(await till.as_payment(checkout))
        page = await one.follow(await one.post(f"{page_of(checkout)}/other", {}))
    assert scene(page) == "paid"


async def test_asking_now_finds_a_payment_whose_callback_was_lost(stage: Stage, till: Till) -> None:
    checkout = await till.open()
    async with reader(stage) as one:
        await choose(one, checkout, "alipay.qr")
        stage.fault("alipay", "callback", "lost", times=-1)
        await stage.customer(await till.as_payment(checkout))
        page = await one.follow(await one.post(f"{page_of(checkout)}/check", {}))
    assert scene(page) == "paid"


async def test_of_two_tabs_one_makes_the_try(stage: Stage, till: Till) -> None:
    checkout = await till.open()
    async with reader(stage) as one, reader(stage) as two:
        await asyncio.gather(
            *(
                tab.post(f"{page_of(checkout)}/method", {"method": method})
                for _ in range(3)
                for tab, method in ((one, "wechat_pay.qr"), (two, "alipay.qr"))
            )
        )
    rows = await stage.db.fetch(
        "select state, close_requested_at from payment where metadata ->> 'checkout_id' = $1",
        (checkout["id"],),
    )
    still_open = [row for row in rows if row["state"] in {"created", "pending", "unknown"}]
    assert len(still_open) == 1, "never two that can be paid"
    assert (await till.row(checkout)).tries == len(rows)


async def test_money_of_a_try_that_was_given_up_goes_back(stage: Stage) -> None:
    """Even at a merchant who keeps late money: another try may have been paid meanwhile."""
    till = Till(stage, await stage.open_shop(late_success=LateSuccess.ACCEPT_IF_OPEN))
    checkout = await till.open()
    stage.fault("wechat_pay", "close", "late_success")
    async with reader(stage) as one:
        await choose(one, checkout, "wechat_pay.qr")
        first = await till.as_payment(checkout)
        page = await one.follow(await one.post(f"{page_of(checkout)}/other", {}))
        assert scene(page) == "choose"
        await choose(one, checkout, "alipay.qr")
    second = await till.as_payment(checkout)
    await stage.customer(second)
    await stage.advance(minutes=1)
    await stage.advance(minutes=1)

    assert await stage.given_back(first) == [1999]
    assert await stage.given_back(second) == []
    assert (await till.seen(checkout))["status"] == "paid"


async def test_a_try_that_never_left_is_told_and_another_way_is_offered(
    stage: Stage, till: Till
) -> None:
    checkout = await till.open()
    async with stage.db.begin("operator") as tx:
        await set_gateway(tx, stage.accounts["alipay"], "http://127.0.0.1:1")
    stage.platform.accounts.forget()
    async with reader(stage) as one:
        page = await choose(one, checkout, "alipay.qr")
        assert scene(page) == "choose"
        assert "Alipay did not take any money" in page.text
        assert scene(await choose(one, checkout, "wechat_pay.qr")) == "scan"


# --- inside WeChat ------------------------------------------------------------------------------


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


# --- the end of its time -------------------------------------------------------------------------


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


# --- opening one ---------------------------------------------------------------------------------


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


# --- plates --------------------------------------------------------------------------------------


async def test_a_plate_opens_a_checkout_for_what_the_customer_enters(
    stage: Stage, till: Till
) -> None:
    plate = await till.plate()
    async with reader(stage) as one:
        page = await one.get(page_of(plate))
        assert "测试商店" in page.text
        for wrong in ("", "0", "-1", "1.234", "1e3", "abc", "99999999999999999999"):
            reply = await one.post(page_of(plate), {"amount": wrong})
            assert reply.status_code == 422, wrong
            assert 'role="alert"' in reply.text
        page = await one.follow(await one.post(page_of(plate), {"amount": "1,234.50"}))
        assert scene(page) == "choose"
        assert "1,234.50" in page.text
        path = str(one.page.url.path)
        page = await one.follow(await one.post(f"{path}/method", {"method": "wechat_pay.qr"}))
        assert scene(page) == "scan"
    listed = await till.said(
        "GET", f"/v1/payments?metadata=%7B%22plate_id%22%3A%22{plate['id']}%22%7D"
    )
    assert [each["amount"] for each in listed["items"]] == [123_450]


async def test_looking_at_a_plate_writes_nothing(stage: Stage, till: Till) -> None:
    plate = await till.plate()
    async with reader(stage) as one:
        for _ in range(3):
            await one.get(page_of(plate))
    assert (await till.said("GET", "/v1/checkouts"))["items"] == []


async def test_what_nobody_tried_to_pay_at_a_plate_is_forgotten(stage: Stage, till: Till) -> None:
    plate, own = await till.plate(), await till.open()
    async with reader(stage) as one:
        await one.post(page_of(plate), {"amount": "1"})
        tried = await one.follow(await one.post(page_of(plate), {"amount": "2"}))
        await one.post(f"{tried.url.path}/method", {"method": "alipay.qr"})
    await prune_abandoned(stage.db)
    assert len((await till.said("GET", "/v1/checkouts"))["items"]) == 3
    stage.db.clock.offset += timedelta(days=1, minutes=31)
    await prune_abandoned(stage.db)
    left = (await till.said("GET", "/v1/checkouts"))["items"]
    assert {each["amount"] for each in left} == {200, own["amount"]}


async def test_a_fixed_plate_takes_its_own_amount_only(stage: Stage, till: Till) -> None:
    plate = await till.plate(amount=500)
    async with reader(stage) as one:
        await one.follow(await one.post(page_of(plate), {"amount": "0.01"}))
    [checkout] = (await till.said("GET", "/v1/checkouts"))["items"]
    assert checkout["amount"] == 500
    assert checkout["plate_id"] == plate["id"]


async def test_a_plates_image_is_its_address_and_its_emv_text_checks_out(
    stage: Stage, till: Till
) -> None:
    plate = await till.plate(
        emv={"category": "5814", "name": "CORNER TEA", "city": "HANGZHOU"}, amount=500
    )
    async with reader(stage) as one:
        image = await one.get(f"{page_of(plate)}/code.svg")
        other = await one.get(f"{page_of(plate)}/code.svg?as=emv")
    assert image.headers["content-type"] == "image/svg+xml"
    assert draw(plate["url"]).path in image.text
    assert draw(plate["emv_text"]).path in other.text
    code = emv.decode(plate["emv_text"])
    assert code.value(emv.AMOUNT) == "5.00"
    assert code.name_in("zh") == "测试商店"
    account = code.template("26")
    assert account is not None
    assert account["01"] == plate["url"].rpartition("/")[2]


def test_an_emv_text_is_in_a_currency_that_has_a_number_here() -> None:
    asked = EmvAsked("5814", "TEA", "HANGZHOU")
    where = {"token": "x" * 22, "public_url": "https://pay.example.cn", "name": "TEA"}
    text = emv_text(asked, Money(100, "HKD"), "HKD", **where)
    assert "5303344" in text
    assert "0014cn.example.pay" in text
    with pytest.raises(PlateCurrencyUnknown):
        emv_text(asked, None, "JPY", **where)


async def test_a_revoked_plate_opens_nothing_ever_again(stage: Stage, till: Till) -> None:
    plate = await till.plate()
    revoked = await till.said("POST", f"/v1/plates/{plate['id']}/revoke")
    again = await till.said("POST", f"/v1/plates/{plate['id']}/revoke")
    assert revoked["status"] == again["status"] == "revoked"
    assert revoked["revoked_at"] == again["revoked_at"]
    async with reader(stage) as one:
        for path in (page_of(plate), f"{page_of(plate)}/code.svg"):
            assert (await one.get(path)).status_code == 404
        assert (await one.post(page_of(plate), {"amount": "1"})).status_code == 404
    assert [each["id"] for each in (await till.said("GET", "/v1/plates"))["items"]] == [plate["id"]]


async def test_a_plate_is_not_flooded(
    stage: Stage, till: Till, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tongbao.payments.plates.plates.OPENED_PER_MINUTE_MAX", 2)
    plate = await till.plate()
    async with reader(stage) as one:
        for _ in range(2):
            assert (await one.post(page_of(plate), {"amount": "1"})).status_code == 303
        assert (await one.post(page_of(plate), {"amount": "1"})).status_code == 429


async def test_one_address_cannot_press_buttons_without_end(stage: Stage, till: Till) -> None:
    plate = await till.plate()
    async with reader(stage) as one:
        answers = [
            (await one.post(page_of(plate), {"amount": ""})).status_code
            for _ in range(ACTS_PER_MINUTE + 1)
        ]
        assert answers[-1] == 429
        assert set(answers[:-1]) == {422}
        assert (await one.get(page_of(plate))).status_code == 200


def test_a_pace_is_a_sliding_one_and_forgets_who_was_quiet() -> None:
    now = [1000.0]
    pace = Throttle(2, 10.0, clock=lambda: now[0])
    assert [pace.lets_through("a") for _ in range(3)] == [True, True, False]
    assert pace.lets_through("b")
    now[0] += 10
    assert not pace.lets_through("a"), "what was just before counts too"
    now[0] += 6
    assert pace.lets_through("a")
    now[0] += 100
    assert [pace.lets_through("a") for _ in range(3)] == [True, True, False]
    for number in range(Throttle.KEYS_MAX + 10):
        pace.lets_through(str(number))
    assert len(pace._counts) == Throttle.KEYS_MAX


# --- the edges -----------------------------------------------------------------------------------


async def test_an_address_nobody_was_given_says_nothing(stage: Stage, till: Till) -> None:
    checkout = await till.open()
    guess = page_of(checkout)[:-1] + ("A" if page_of(checkout)[-1] != "A" else "B")
    async with reader(stage) as one:
        for path in (guess, f"{guess}/state", "/pay/c/x", "/pay/p/x", "/pay", "/pay/x"):
            page = await one.get(path)
            assert page.status_code == 404, path
            assert "测试商店" not in page.text
            assert "Scan the code again" in page.text
            assert "API" not in page.text, "a customer has no key"
        assert (await one.post(f"{page_of(checkout)}/state", {})).status_code == 405


async def test_a_channel_may_send_the_customer_back_with_a_form(stage: Stage, till: Till) -> None:
    checkout = await till.open()
    async with reader(stage) as one:
        told = {"respCode": "00", "orderId": "x", "method": "alipay.qr"}
        reply = await one.post(page_of(checkout), told, **{"sec-fetch-site": "cross-site"})
        assert reply.headers["location"] == page_of(checkout)
        assert (await one.follow(reply)).status_code == 200
        strange = await one.post("/pay/c/x%0d%0ay", told, **{"sec-fetch-site": "cross-site"})
        assert strange.headers["location"] == "/pay/c/x%0D%0Ay"
    assert (await till.row(checkout)).tries == 0, "what the form says is not read"


async def test_forms_of_foreign_pages_are_refused(stage: Stage, till: Till) -> None:
    checkout = await till.open()
    async with reader(stage) as one:
        for headers in (
            {"sec-fetch-site": "cross-site"},
            {"sec-fetch-site": "same-site"},
        ):
            reply = await one.post(
                f"{page_of(checkout)}/method", {"method": "alipay.qr"}, **headers
            )
            assert reply.status_code == 403
    assert (await till.row(checkout)).tries == 0


async def test_every_page_keeps_to_the_strictest_policy(stage: Stage, till: Till) -> None:
    plate, checkout = await till.plate(), await till.open()
    async with reader(stage) as one:
        for path in (page_of(plate), page_of(checkout), "/pay/nothing"):
            page = await one.get(path)
            policy = dict(
                part.strip().partition(" ")[::2]
                for part in page.headers["content-security-policy"].split(";")
            )
            assert policy["default-src"] == "'none'"
            assert re.fullmatch(r"'nonce-[\w-]+'", policy["script-src"])
            assert policy["style-src"] == policy["form-action"] == policy["connect-src"] == "'self'"
            assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
            assert policy["trusted-types"] == "'none'"
            assert page.headers["cache-control"] == "no-store"
            assert page.headers["referrer-policy"] == "same-origin"
            assert not re.search(r"<script(?![^>]*src=)|style=|\son\w+=", page.text)


async def test_a_page_and_all_it_loads_are_small(stage: Stage, till: Till) -> None:
    """60 kB as sent, the largest page included, nothing compressed and nothing from elsewhere."""
    checkout = await till.open()
    async with reader(stage) as one:
        page = await choose(one, checkout, "wechat_pay.qr")
        assert scene(page) == "scan"
        files = set(re.findall(r'(?:href|src)="(/pay/static/[^"]+)"', page.text))
        assert len(files) == 4
        total = len(page.content)
        for path in files:
            loaded = await one.get(path)
            assert "immutable" in loaded.headers["cache-control"]
            total += len(loaded.content)
    assert total <= 60_000
    assert set(re.findall(r'(?:href|src|action)="(https?:[^"]+)"', page.text)) == set()


async def test_names_and_subjects_are_never_markup(stage: Stage) -> None:
    attack = '"><script>alert(1)</script>'
    shop = await stage.open_shop(name=attack)
    till = Till(stage, shop)
    checkout = await till.open(subject=attack)
    plate = await till.plate(name=attack, subject=attack)
    async with reader(stage) as one:
        for path in (page_of(checkout), page_of(plate), f"{page_of(plate)}/code.svg"):
            assert "<script>alert" not in (await one.get(path)).text


async def test_the_language_follows_the_reader_and_leads_nowhere_else(
    stage: Stage, till: Till
) -> None:
    checkout = await till.open()
    async with reader(stage, language="zh-CN") as one:
        assert "选择支付方式" in (await one.get(page_of(checkout))).text
        reply = await one.get(f"/pay/language?to=en&next={page_of(checkout)}")
        assert "Choose how to pay" in (await one.follow(reply)).text
        for elsewhere in ("https://evil.example", "//evil.example", "/console", "/pay/\\evil"):
            reply = await one.get(f"/pay/language?to=en&next={elsewhere}")
            assert reply.headers["location"] == "/pay/"


def test_a_refusal_tells_a_customer_what_a_customer_can_do() -> None:
    """What refuses a page or a press; for any other, what helps in every case."""
    told = load_texts(HERE / "texts")["en"].by_key
    for refusal in (
        TooManyRequests, SentFromElsewhere, CheckoutClosed, CheckoutTriedTooOften, CheckoutsTooMany,
        PlateRevoked, PlateBusy, PlateAmountDiffers, MerchantSuspended,
    ):  # fmt: skip
        assert f"told.{refusal.code.replace('.', '_')}" in told
    assert {"told.gone", "told.later", "told.other"} <= told.keys()


def test_both_languages_say_the_same_things() -> None:
    texts = load_texts(HERE / "texts")
    assert texts["zh"].by_key.keys() == texts["en"].by_key.keys()
    for key, text in texts["zh"].by_key.items():
        names = set(re.findall(r"{(\w+)}", text))
        assert names == set(re.findall(r"{(\w+)}", texts["en"].by_key[key])), key

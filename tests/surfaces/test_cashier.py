"""The hosted cashier without a picture: what is offered, what is tried, and what is never done."""

from __future__ import annotations

import asyncio
import re

import pytest

from tests.payments.routing_desk import in_force
from tests.stage import Stage
from tests.surfaces import cashing
from tests.surfaces.cashing import (
    ALIPAY_APP,
    DESKTOP,
    METHOD,
    PHONE,
    UNIONPAY_APP,
    WECHAT_APP,
    Till,
    choose,
    page_of,
    scene,
)
from tests.surfaces.visitors import reader
from tongbao.infra.web.problem import TooManyRequests
from tongbao.parties.merchants.model import LateSuccess, MerchantSuspended
from tongbao.payments.checkouts.model import CheckoutClosed, CheckoutsTooMany, CheckoutTriedTooOften
from tongbao.payments.plates.model import PlateAmountDiffers, PlateBusy, PlateRevoked
from tongbao.payments.routing.health import CALLS_MIN
from tongbao.rails.channels.accounts import AccountState, set_gateway, set_state
from tongbao.surfaces.cashier.app import SentFromElsewhere
from tongbao.surfaces.cashier.desk import HERE
from tongbao.surfaces.cashier.scanners import Place, place_of
from tongbao.surfaces.page_kit.qr import draw
from tongbao.surfaces.page_kit.texts import load_texts

till = cashing.till

# What is offered


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
    watch = stage.platform.router.watch
    await watch.write()
    await stage.db.execute("delete from routing_bucket", ())  # which channel has done better
    watch.forget()
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


async def test_a_channel_that_may_not_take_the_amount_is_not_offered(
    stage: Stage, till: Till
) -> None:
    """Nor one whose day is full: only what can take this very payment is on the page."""
    limits = '[[limit]]\nto = "alipay"\namount_max = 999\n'
    await in_force(stage, limits + '[[limit]]\nto = "wechat_pay"\nday_count = 1\n')
    small, large, later = [await till.open(amount) for amount in (999, 1000, 1000)]
    async with reader(stage) as one:
        offered = [METHOD.findall((await one.get(page_of(each))).text) for each in (small, large)]
        await choose(one, large, "wechat_pay.qr")
        stage.platform.router.watch.forget()
        page = await one.get(page_of(later))

    assert offered == [["alipay.qr", "alipay.web", "wechat_pay.qr"], ["wechat_pay.qr"]]
    assert METHOD.findall(page.text) == []
    assert "There is no way to pay at present" in page.text


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


# Paying


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


# The edges


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

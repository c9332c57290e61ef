"""The hosted cashier in a real browser: scanned, left and come back to, reloaded, scriptless."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import msgspec
import pytest

from tests.stage import Stage
from tests.surfaces import cashing
from tests.surfaces.cashing import PHONE, WECHAT_APP, Till, page_of, price_every_way
from tests.surfaces.test_console_browser import FAINT, fits
from tests.surfaces.visitors import Watched, asked_from_now, browsing, picture
from tongbao.payments.collecting.queries import last_attempt
from tongbao.rails.channels.contract.outcomes import Redirect, SubmitForm

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")
SIZES = [(1280, 900), (320, 640)]
BACK = "https://shop.example/orders/7"

till = cashing.till


def ours(watched: Watched) -> list[str]:
    """What the browser complained of, other people's pages left out."""
    return [each for each in watched.complaints if "404" not in each]


async def pay_there(page: Any, stage: Stage) -> None:
    """Pay on the channel's own page, which then sends the browser back."""
    await page.get_by_role("button", name="确认付款").click()
    await page.wait_for_url(f"{stage.url}/pay/c/**")
    await stage.idle()


async def test_a_scanned_code_turns_into_a_receipt_by_itself(stage: Stage, till: Till) -> None:
    checkout = await till.open(return_url=BACK)
    async with browsing(stage) as watched:
        page = watched.page
        await page.goto(checkout["url"])
        assert await page.locator("h1").inner_text() == "¥19.99"
        await page.get_by_role("button", name=re.compile("微信支付")).click()
        await page.get_by_role("img", name="微信支付付款二维码").wait_for()
        left = page.get_by_role("timer")
        assert re.fullmatch(r"1[45]:\d\d", await left.inner_text())
        before = await left.inner_text()
        await page.wait_for_function(
            "before => document.querySelector('[role=timer]').textContent !== before", arg=before
        )
        await picture(page, "scan")

        await stage.customer(await till.as_payment(checkout))
        await stage.idle()
        await page.get_by_role("heading", name="支付成功").wait_for(timeout=15_000)

        asked = asked_from_now(page)
        await page.wait_for_timeout(3_000)
        assert not asked, "what has ended is not asked about any more"
        link = page.get_by_role("link", name="返回测试商店")
        assert await link.get_attribute("href") == f"{BACK}?checkout_id={checkout['id']}"
        assert not watched.complaints
        assert not watched.foreign


async def test_a_customer_goes_to_the_channel_pays_and_comes_back(stage: Stage, till: Till) -> None:
    checkout = await till.open()
    async with browsing(stage, locale="en") as watched:
        page = watched.page
        await page.goto(checkout["url"])
        await page.get_by_role("button", name="Alipay opens its page").click()
        await page.wait_for_url("**/alipay/gateway.do**")
        await pay_there(page, stage)
        await page.get_by_role("heading", name="Paid").wait_for(timeout=15_000)
        assert (await till.seen(checkout))["status"] == "paid"
        assert not ours(watched)


async def test_going_back_from_the_channel_leads_to_the_checkout_and_not_away_again(
    stage: Stage, till: Till
) -> None:
    checkout = await till.open()
    async with browsing(stage, locale="en") as watched:
        page = watched.page
        await page.goto(checkout["url"])
        await page.get_by_role("button", name="Alipay opens its page").click()
        await page.wait_for_url("**/alipay/gateway.do**")

        await page.go_back()
        await page.get_by_role("heading", name="Finish paying at Alipay").wait_for()
        assert page.url == checkout["url"]
        await page.wait_for_timeout(500)
        assert page.url == checkout["url"]
        assert (await till.row(checkout)).tries == 1

        # They may have paid in another tab: nothing else is offered until Alipay says it is closed.
        await page.get_by_role("button", name="Pay another way").click()
        await page.get_by_text("Do not pay again").wait_for()
        assert await page.locator("[name=method]").count() == 0


async def test_a_form_that_a_channel_wants_posted_is_posted(stage: Stage, till: Till) -> None:
    """The same order as a form, as UnionPay's gateway wants it; the page lets it go there only."""
    checkout = await till.open()
    async with browsing(stage, locale="en") as watched:
        page = watched.page
        await page.goto(checkout["url"])
        await page.get_by_role("button", name="Alipay opens its page").click()
        await page.wait_for_url("**/alipay/gateway.do**")
        await page.go_back()
        await as_form(stage, till, checkout)

        await page.get_by_role("link", name="Continue to Alipay").click()
        await page.wait_for_url("**/alipay/gateway.do")
        await page.go_back()
        await page.get_by_role("heading", name="Finish paying at Alipay").wait_for()
        assert page.url == checkout["url"]
        await page.get_by_role("link", name="Continue to Alipay").click()
        await page.wait_for_url("**/alipay/gateway.do")
        await pay_there(page, stage)
        await page.get_by_role("heading", name="Paid").wait_for(timeout=15_000)
        assert not ours(watched)


async def as_form(stage: Stage, till: Till, checkout: dict[str, Any]) -> None:
    """Let the try that stands be one whose channel wants a form."""
    attempt = await last_attempt(stage.db, await till.latest(checkout))
    assert isinstance(attempt.action, Redirect)
    parts = urlsplit(attempt.action.url)
    action = SubmitForm(parts._replace(query="").geturl(), dict(parse_qsl(parts.query)))
    await stage.db.execute(
        "update attempt set action = $2::jsonb where id = $1",
        (attempt.id, msgspec.to_builtins(action)),
    )


@pytest.mark.parametrize("wants_form", [False, True])
async def test_everything_works_without_scripts(stage: Stage, till: Till, wants_form: bool) -> None:
    plate = await till.plate()
    small = {"width": 320, "height": 640}
    options = {"viewport": small, "locale": "en", "java_script_enabled": False}
    async with browsing(stage, **options) as watched:
        page = watched.page
        await page.goto(plate["url"])
        assert await fits(page)
        await page.get_by_label("Amount to pay").fill("19.99")
        await page.keyboard.press("Enter")
        await page.locator("[name=method]").first.wait_for()
        assert await fits(page)
        await page.get_by_role("button", name="Alipay opens its page").click()
        await page.wait_for_url("**/alipay/gateway.do**")
        if wants_form:
            [checkout] = (await till.said("GET", "/v1/checkouts"))["items"]
            await as_form(stage, till, checkout)
            await page.goto(f"{checkout['url']}/go")
            assert await fits(page)
            await page.get_by_role("button", name="Continue to Alipay").click()
            await page.wait_for_url("**/alipay/gateway.do")
        await page.get_by_role("button", name="确认付款").click()
        await page.wait_for_url(f"{stage.url}/pay/c/**")
        await stage.idle()
        await page.get_by_role("heading", name="Paid").wait_for(timeout=15_000)
        assert await fits(page)


async def test_a_code_turns_into_a_receipt_without_scripts_too(stage: Stage, till: Till) -> None:
    checkout = await till.open()
    async with browsing(stage, locale="en", java_script_enabled=False) as watched:
        page = watched.page
        await page.goto(checkout["url"])
        await page.get_by_role("button", name=re.compile("WeChat Pay")).click()
        await page.get_by_role("img", name="QR code to pay with WeChat Pay").wait_for()
        await stage.customer(await till.as_payment(checkout))
        await stage.idle()
        await page.get_by_role("heading", name="Paid").wait_for(timeout=15_000)


async def test_reloading_and_going_back_keep_the_same_code(stage: Stage, till: Till) -> None:
    plate = await till.plate(amount=1999)
    async with browsing(stage, locale="en") as watched:
        page = watched.page
        await page.goto(plate["url"])
        await page.get_by_role("button", name="Go on to pay").click()
        await page.get_by_role("button", name=re.compile("WeChat Pay")).click()
        drawn = page.locator(".qr path").last
        code = await drawn.get_attribute("d")
        for _ in range(2):
            await page.reload()
            assert await drawn.get_attribute("d") == code
        await page.go_back()
        await page.go_forward()
        assert await drawn.get_attribute("d") == code
        [checkout] = (await till.said("GET", "/v1/checkouts"))["items"]
        assert (await till.row(checkout)).tries == 1
        assert not watched.complaints


async def test_the_end_of_the_countdown_is_decided_by_the_server(stage: Stage, till: Till) -> None:
    checkout = await till.open(expires_in_s=120)
    async with browsing(stage, locale="en") as watched:
        page = watched.page
        await page.goto(checkout["url"])
        await page.get_by_role("button", name=re.compile("WeChat Pay")).click()
        await page.get_by_role("timer").wait_for()
        await page.evaluate("document.querySelector('[data-left]').dataset.left = '1'")
        await stage.advance(seconds=125)
        await page.get_by_role("heading", name="This order is closed").wait_for(timeout=15_000)


async def test_a_lost_connection_is_said_and_found_again(stage: Stage, till: Till) -> None:
    checkout = await till.open()
    async with browsing(stage, locale="en") as watched:
        page = watched.page
        await page.goto(checkout["url"])
        await page.get_by_role("button", name=re.compile("WeChat Pay")).click()
        await page.get_by_role("timer").wait_for()
        await page.route("**/state", lambda route: route.abort())
        await page.get_by_text("The connection is unsteady").wait_for(timeout=15_000)
        await page.unroute("**/state")
        await page.get_by_text("The connection is unsteady").wait_for(
            state="detached", timeout=15_000
        )


@pytest.mark.parametrize("size", SIZES, ids=lambda size: str(size[0]))
@pytest.mark.parametrize(("locale", "scheme"), [("zh-CN", "light"), ("en", "dark")])
async def test_every_page_fits_and_can_be_read(
    stage: Stage, till: Till, size: tuple[int, int], scheme: str, locale: str
) -> None:
    """No page sticks out at 320 pixels, and what is written stands out from what is behind it."""
    long = "一家名字很长很长的商店 with a name that goes on and on 有限责任公司杭州第二分公司"
    shop = await stage.open_shop(name=long)
    await price_every_way(stage, shop.merchant.id)
    other = Till(stage, shop)
    viewport = {"width": size[0], "height": size[1]}
    async with browsing(stage, viewport=viewport, color_scheme=scheme, locale=locale) as watched:
        page = watched.page

        async def check(name: str) -> None:
            await picture(page, f"cashier-{name}-{locale}-{size[0]}")
            assert await fits(page), name
            assert await page.evaluate(FAINT) == [], name
            assert await page.evaluate(UNLABELLED) == [], name
            assert await page.locator("h1").count() == 1, name
            assert await page.evaluate("document.documentElement.lang") == locale

        await page.goto((await other.plate())["url"])
        await check("plate")
        checkout = await other.open(123_456_789, subject=long[:60], return_url=BACK)
        await page.goto(checkout["url"])
        await check("choose")
        await page.locator("[value='wechat_pay.qr']").click()
        await page.get_by_role("timer").wait_for()
        await check("scan")
        await page.locator("form[action$='/other'] button").click()
        await page.locator("[value='alipay.qr']").wait_for()
        await check("choose-again")
        stage.fault("wechat_pay", "pay", "http_500_unpaid", times=-1)
        await page.locator("[value='wechat_pay.qr']").click()
        await page.locator("[value='wechat_pay.qr']").wait_for(state="detached")
        await check("confirming")
        stage.sandbox.delete("faults")

        paid = await other.open(return_url=BACK)
        await page.goto(paid["url"])
        await page.locator("[value='wechat_pay.qr']").click()
        await stage.customer(await other.as_payment(paid))
        await stage.idle()
        await page.locator(".is-paid").wait_for(timeout=15_000)
        await check("paid")
        closed = await other.open()
        await other.said("POST", f"/v1/checkouts/{closed['id']}/close")
        await page.goto(closed["url"])
        await check("closed")
        assert not watched.complaints
        assert not watched.foreign


async def test_a_keyboard_is_enough_and_focus_is_seen(stage: Stage, till: Till) -> None:
    plate = await till.plate()
    async with browsing(stage, locale="en") as watched:
        page = watched.page
        await page.goto(plate["url"])
        await page.keyboard.type("12.5")
        await page.keyboard.press("Enter")
        await page.locator("[name=method]").first.wait_for()
        for _ in range(4):
            await page.keyboard.press("Tab")
            outline = await page.evaluate(
                "getComputedStyle(document.activeElement).outlineStyle + ' '"
                " + getComputedStyle(document.activeElement).outlineWidth"
            )
            assert outline == "solid 3px"
            if await page.evaluate("document.activeElement.name") == "method":
                break
        await page.keyboard.press("Enter")
        await page.get_by_role("timer").wait_for()
        assert not watched.complaints


async def test_inside_another_app_the_page_says_how_to_go_on(stage: Stage, till: Till) -> None:
    plate = await till.plate(amount=500)
    options = {"viewport": {"width": 320, "height": 640}, "user_agent": WECHAT_APP}
    async with browsing(stage, **options) as watched:
        page = watched.page
        await page.goto(plate["url"])
        await page.get_by_role("button", name="去付款").click()
        await page.get_by_role("heading", name="微信内暂不支持付款").wait_for()
        assert await fits(page)
        assert not watched.complaints


async def test_inside_wechat_one_press_opens_the_payment(stage: Stage, till: Till) -> None:
    """WeChat's own code is played by the test, and its part of the payment by the sandbox."""
    await price_every_way(stage, till.shop.merchant.id, "in_app")
    plate = await till.plate(amount=500)
    options = {"viewport": {"width": 320, "height": 640}, "user_agent": WECHAT_APP}
    async with browsing(stage, alone=True, **options) as watched:
        page = watched.page
        await page.add_init_script(
            "window.WeixinJSBridge = {invoke(name, given, done) {"
            " window.opened = [name, given]; window.done = done; }}"
        )
        await page.goto(plate["url"])
        await page.get_by_role("button", name="去付款").click()
        await page.get_by_role("button", name="微信支付 直接付款").click()
        await page.wait_for_function("() => window.opened")
        name, parameters = await page.evaluate("window.opened")
        assert name == "getBrandWCPayRequest"
        assert await fits(page)
        assert await page.evaluate("location.search") == ""

        await stage.control("wechat/open", parameters=parameters)
        await stage.idle()
        await page.evaluate("window.done({err_msg: 'get_brand_wcpay_request:ok'})")
        await page.get_by_role("heading", name="支付成功").wait_for(timeout=15_000)
        assert not ours(watched)


async def test_a_phone_goes_to_the_channels_page(stage: Stage, till: Till) -> None:
    checkout = await till.open()
    options = {"viewport": {"width": 390, "height": 800}, "user_agent": PHONE, "locale": "en"}
    async with browsing(stage, **options) as watched:
        page = watched.page
        await page.goto(checkout["url"])
        await page.locator("[value='alipay.h5']").click()
        await page.wait_for_url("**/alipay/gateway.do**")
        await pay_there(page, stage)
        await page.get_by_role("heading", name="Paid").wait_for(timeout=15_000)
        assert not ours(watched)


async def test_what_merchants_write_is_never_run(stage: Stage) -> None:
    attack = '"><img src=x onerror=alert(1)>'
    till = Till(stage, await stage.open_shop(name=attack))
    checkout = await till.open(subject=attack)
    async with browsing(stage, alone=True, locale="en") as watched:
        page = watched.page
        dialogs: list[str] = []
        page.on("dialog", lambda dialog: dialogs.append(dialog.message))
        await page.goto(checkout["url"])
        assert attack in await page.locator(".bill").inner_text()
        blocked = await page.evaluate(
            "() => { try { document.body.innerHTML = '<b></b>'; return 'let in'; }"
            " catch (refused) { return refused.name; } }"
        )
        assert blocked == "TypeError"
        assert not dialogs
        assert not watched.foreign


async def test_a_printed_plate_opens_its_own_page(stage: Stage, till: Till) -> None:
    """The image of a plate is a picture a browser draws, with a white edge all around."""
    plate = await till.plate()
    async with browsing(stage) as watched:
        page = watched.page
        await page.set_viewport_size({"width": 400, "height": 400})
        await page.goto(plate["image_url"])
        assert await page.evaluate("document.documentElement.tagName") == "svg"
        assert page_of(plate) == urlsplit(plate["url"]).path
        assert not watched.complaints


UNLABELLED = """() => [...document.querySelectorAll('input:not([type=hidden]), button, a, svg')]
    .filter(each => {
        if (each.closest('[aria-hidden=true]')) return false;
        const named = each.labels?.length || each.getAttribute('aria-label');
        return !named && !(each.textContent || '').trim();
    }).map(each => each.outerHTML.slice(0, 80))"""

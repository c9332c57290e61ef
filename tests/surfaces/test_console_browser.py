"""The console in a real browser: live, in both languages, narrow and wide, without a complaint."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.payments.routing_desk import WECHAT_FIRST, in_force
from tests.stage import Stage
from tests.surfaces.visitors import Person, Watched, asked_from_now, browsing, hire, picture, reader
from tongbao.parties.identity.model import Role

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")
SIZES = [(1280, 900), (320, 640)]


async def log_in(watched: Watched, stage: Stage, person: Person) -> None:
    """Type what an operator types."""
    page = watched.page
    await page.goto(f"{stage.url}/console")
    await page.fill("[name=login]", person.login)
    await page.fill("[name=password]", person.password)
    await page.fill("[name=code]", person.code)
    await page.keyboard.press("Enter")
    await page.wait_for_url(f"{stage.url}/console/payments")


async def fits(page: Any) -> bool:
    """Whether nothing sticks out to the side."""
    inside: bool = await page.evaluate(
        "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
    )
    return inside


async def test_a_payment_arrives_before_the_operators_eyes(stage: Stage) -> None:
    """Log in, wait, see it come in, open it, believe it."""
    person = await hire(stage)
    async with browsing(stage) as watched:
        page = watched.page
        await log_in(watched, stage, person)
        await page.get_by_text("还没有支付").wait_for()

        payment = await stage.show_qr("wechat_pay", 1999, subject="两杯茶")
        row = page.locator(f"#{payment['id']}")
        await row.wait_for(timeout=15_000)
        await row.get_by_text("待付款").wait_for()
        await stage.customer(payment)
        await stage.idle()
        await row.get_by_text("成功").wait_for(timeout=15_000)

        await row.get_by_role("link").click()
        await page.get_by_text("微信支付通过回调确认收款成功。").wait_for()
        callback = page.locator("li.kind-callback")
        await callback.get_by_text("内容").click()
        assert '"trade_state": "SUCCESS"' in await callback.locator("pre").first.inner_text()
        assert await page.locator("li.kind-posting").count() == 2
        assert await page.locator("table.t-account").count() == 3
        await picture(page, "payment")

        await page.get_by_role("button", name="English").click()
        await page.get_by_text("WeChat Pay told us by callback that the money came in.").wait_for()
        assert await page.evaluate("document.documentElement.lang") == "en"
        assert not watched.complaints
        assert not watched.foreign


async def test_an_open_payment_follows_what_happens_and_keeps_what_was_opened(
    stage: Stage,
) -> None:
    person = await hire(stage)
    payment = await stage.show_qr("alipay")
    async with browsing(stage, locale="en") as watched:
        page = watched.page
        await log_in(watched, stage, person)
        await page.goto(f"{stage.url}/console/payments/{payment['id']}")
        request = page.locator("li.kind-exchange .sheet").first
        await request.locator("summary").click()
        clock = await page.locator(".live time").inner_text()

        await page.wait_for_function(
            "before => document.querySelector('.live time').innerText !== before", arg=clock
        )
        assert await request.get_attribute("open") is not None
        await stage.customer(payment)
        await stage.idle()
        await page.locator(".payment-head.is-succeeded").wait_for(timeout=15_000)

        assert await request.get_attribute("open") is not None
        asked = asked_from_now(page)
        await page.wait_for_timeout(3_000)
        assert not asked, "what has ended is not asked about any more"
        assert not watched.complaints


async def test_pausing_stops_the_asking(stage: Stage) -> None:
    person = await hire(stage)
    async with browsing(stage, locale="en") as watched:
        page = watched.page
        await log_in(watched, stage, person)
        await page.get_by_role("link", name="Pause").click()
        await page.get_by_text("Paused").wait_for()
        asked = asked_from_now(page)
        await page.wait_for_timeout(3_000)
        assert not asked
        async with page.expect_request(re.compile("/console/payments/live")):
            await page.get_by_role("link", name="Resume").click()


async def test_filters_apply_as_they_are_chosen_and_stay_in_the_address(stage: Stage) -> None:
    person = await hire(stage)
    paid, waiting = await stage.paid("wechat_pay"), await stage.show_qr("alipay")
    async with browsing(stage, locale="en") as watched:
        page = watched.page
        await log_in(watched, stage, person)
        await page.select_option("[name=status]", "succeeded")
        await page.locator(f"#{waiting['id']}").wait_for(state="detached")
        assert await page.locator(f"#{paid['id']}").count() == 1
        assert "status=succeeded" in page.url

        async with page.expect_response(re.compile("payments/live.*status=succeeded")):
            pass  # what polls now, polls with the filter
        await page.select_option("[name=status]", "pending")
        await page.locator(f"#{waiting['id']}").wait_for()
        await page.go_back()
        await page.locator(f"#{paid['id']}").wait_for()
        assert not watched.complaints


async def test_a_number_or_a_slip_typed_into_the_filters_changes_the_whole_page(
    stage: Stage,
) -> None:
    person = await hire(stage)
    payment = await stage.show_qr("alipay")
    attempt = await stage.attempt_of(payment)
    async with browsing(stage, locale="en") as watched:
        page = watched.page
        await log_in(watched, stage, person)
        await page.fill("[name=q]", attempt.number)
        await page.locator("h1").click()  # leaving the field is enough
        await page.wait_for_url(f"{stage.url}/console/payments/{payment['id']}")
        assert not watched.complaints

        await page.goto(f"{stage.url}/console/payments")
        await page.evaluate(
            "document.querySelector('[name=merchant] option:last-child').value = '1'"
        )
        await page.select_option("[name=merchant]", "1")
        await page.get_by_role("heading", name="Not done").wait_for()


async def test_an_act_is_opened_read_and_confirmed_by_keyboard(stage: Stage) -> None:
    person = await hire(stage, Role.OPERATOR)
    payment = await stage.show_qr("wechat_pay")
    async with browsing(stage, locale="en") as watched:
        page = watched.page
        await log_in(watched, stage, person)
        await page.goto(f"{stage.url}/console/payments/{payment['id']}?live=off")
        await page.locator("summary", has_text="Call off…").focus()
        await page.keyboard.press("Enter")
        await page.get_by_text("Closes the order at WeChat Pay first.").wait_for()
        await page.keyboard.press("Tab")
        await page.keyboard.press("Enter")
        await page.locator(".payment-head.is-closed").wait_for()

        assert "The merchant called it off" in await page.locator(".payment-head").inner_text()
        assert (await stage.read(payment))["status"] == "closed"
        assert not watched.complaints


async def test_everything_works_without_scripts(stage: Stage) -> None:
    person = await hire(stage)
    payment = await stage.show_qr("wechat_pay")
    other = await stage.show_qr("alipay")
    async with browsing(stage, locale="en", java_script_enabled=False) as watched:
        page = watched.page
        await log_in(watched, stage, person)
        await page.select_option("[name=channel]", "wechat_pay")
        await page.get_by_role("button", name="Show").click()
        assert await page.locator(f"#{other['id']}").count() == 0
        await page.locator(f"#{payment['id']} a").click()
        await page.locator("summary", has_text="Call off…").click()
        await page.get_by_role("button", name="Call it off").click()
        await page.locator(".payment-head.is-closed").wait_for()
        await page.get_by_role("button", name="Log out").click()
        await page.get_by_role("heading", name="Log in").wait_for()


@pytest.mark.parametrize(
    ("size", "scheme"), [(SIZES[0], "light"), (SIZES[1], "dark")], ids=["1280 light", "320 dark"]
)
async def test_pages_fit_and_can_be_read(stage: Stage, size: tuple[int, int], scheme: str) -> None:
    """No page sticks out at 320 pixels, and what is written stands out from what is behind it."""
    person = await hire(stage)
    stage.fault("wechat_pay", "callback", "wrong_amount")
    odd = await stage.paid("wechat_pay", 4500)
    paid = await stage.paid("alipay", 123_456_789)
    await stage.refund(paid, 500)
    await in_force(stage, f'{WECHAT_FIRST}[[limit]]\nto = "alipay"\nday_amount = 20_000_000\n')
    width, height = size
    options = {"viewport": {"width": width, "height": height}, "color_scheme": scheme}
    async with browsing(stage, **options) as watched:
        page = watched.page
        await log_in(watched, stage, person)
        own = [f"payments/{each['id']}" for each in (odd, paid)]
        for path in ("payments?live=off", "cases", "ledger", "health", "channels", *own):
            await page.goto(f"{stage.url}/console/{path}")
            await page.evaluate(
                "document.querySelectorAll('details').forEach(each => { each.open = true; })"
            )
            name = re.sub(r"\W+", "-", path)[:20]
            await picture(page, f"console-{name}-{scheme}")
            assert await fits(page), path
            assert await page.evaluate(FAINT) == [], path
        assert not watched.complaints
        assert not watched.foreign


async def test_text_that_was_let_in_is_never_run(stage: Stage) -> None:
    """Names and subjects come from outside; the nonce keeps even htmx away from them."""
    attack = '"><img src=x onerror=alert(1)><i hx-get="/console" hx-trigger="load">'
    person = await hire(stage)
    payment = await stage.show_qr("alipay", subject=attack, metadata={"<b>": attack})
    async with browsing(stage, alone=True, locale="en") as watched:
        page = watched.page
        dialogs: list[str] = []
        page.on("dialog", lambda dialog: dialogs.append(dialog.message))
        await log_in(watched, stage, person)
        await page.goto(f"{stage.url}/console/payments/{payment['id']}")
        assert attack in await page.locator(".payment-head").inner_text()
        # had it been let in as markup all the same
        blocked = await page.evaluate(
            """async () => {
                const intruder = document.createElement('i');
                intruder.setAttribute('hx-get', '/console/cases');
                intruder.setAttribute('hx-trigger', 'load');
                document.body.append(intruder);
                htmx.process(intruder);
                try { document.body.innerHTML = '<b></b>'; return 'let in'; }
                catch (refused) { return [refused.name, intruder.hasAttribute('hx-get')]; }
            }"""
        )
        assert blocked == ["TypeError", False]
        assert not dialogs
        assert not watched.foreign


async def test_a_session_that_ended_leads_to_the_form(stage: Stage) -> None:
    person = await hire(stage)
    async with browsing(stage, locale="en") as watched, reader(stage):
        page = watched.page
        await log_in(watched, stage, person)
        await stage.db.execute("delete from operator_session", ())
        await page.get_by_role("heading", name="Log in").wait_for(timeout=15_000)


FAINT = """() => {
    // Texts whose contrast is below WCAG AA: 4.5, or 3 where they are large.
    const channel = value => {
        const part = value / 255;
        return part <= .03928 ? part / 12.92 : ((part + .055) / 1.055) ** 2.4;
    };
    const read = text => {
        const parts = text.match(/[\\d.]+/g).map(Number);
        return {rgb: parts.slice(0, 3), alpha: parts[3] ?? 1};
    };
    const light = rgb => rgb.map(channel).reduce((sum, part, place) =>
        sum + part * [.2126, .7152, .0722][place], 0);
    const behind = element => {
        for (let at = element; at; at = at.parentElement) {
            const found = read(getComputedStyle(at).backgroundColor);
            if (found.alpha === 1) return found.rgb;
        }
        return [255, 255, 255];
    };
    const faint = [];
    for (const element of document.querySelectorAll('main *, header *')) {
        const says = [...element.childNodes].some(each => each.nodeType === 3 && each.data.trim());
        if (!says || !element.checkVisibility({visibilityProperty: true})) continue;
        const style = getComputedStyle(element);
        const [a, b] = [light(read(style.color).rgb), light(behind(element))];
        const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
        const size = parseFloat(style.fontSize);
        const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
        if (ratio < (large ? 3 : 4.5))
            faint.push(`${element.tagName}.${element.className}: ${ratio.toFixed(2)}`);
    }
    return faint;
}"""

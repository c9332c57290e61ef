"""The operator console over HTTP: who gets in, what is shown, what an act changes."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import re
from collections.abc import AsyncIterator
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.stage import Stage
from tests.surfaces.receiver import receiving
from tests.surfaces.visitors import PASSWORD, Reader, hire, reader
from tongbao.infra.audit import entries_of_subject
from tongbao.infra.tasks import dead_letters
from tongbao.kernel.clock import business_date, real_now
from tongbao.kernel.ids import new_id, show
from tongbao.parties.identity.model import Permission, Role
from tongbao.payments.collecting import queries
from tongbao.surfaces.operator_console import payments as payments_pages
from tongbao.surfaces.operator_console.app import ROUTES, ConsoleApp
from tongbao.surfaces.page_kit import remembered

OPEN_TO_ANYBODY = {("GET", "/login"), ("POST", "/login"), ("POST", "/language")}
PAGES = (
    "/invariants",
    *("/payments", "/cases", "/reconciliation", "/settlements", "/ledger", "/channels", "/health"),
)


@pytest.fixture(autouse=True)
def _nothing_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine counting may take long enough to be remembered."""
    monkeypatch.setattr(remembered, "QUICK_S", float("inf"))


@pytest.fixture
async def admin(stage: Stage) -> AsyncIterator[Reader]:
    """An administrator who is logged in."""
    async with reader(stage, await hire(stage)) as one:
        yield one


def filled(pattern: str) -> str:
    """An address of a route, its names filled with something of the right look."""
    kinds = {
        "account_id": "chn",
        "break_id": "brk",
        "case_id": "cas",
        "delivery_id": "whd",
        "payment_id": "pay",
        "refund_id": "ref",
        "rule_set_id": "rrs",
        "settlement_id": "set",
    }
    return re.sub(r"\{(\w+)\}", lambda name: show(kinds.get(name[1], "tsk"), new_id()), pattern)


# Getting in


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.pattern}")
async def test_nothing_is_shown_or_done_without_a_session(shared_stage: Stage, route: Any) -> None:
    """Denied by default: a route that forgets its permission would fail here."""
    async with reader(shared_stage) as visitor:
        path = f"/console{filled(route.pattern)}"
        reply = await (
            visitor.get(path) if route.method == "GET" else visitor.post(path, {"a": "b"})
        )

    if (route.method, route.pattern) in OPEN_TO_ANYBODY:
        assert route.permission is None
        assert reply.status_code == (200 if route.method == "GET" else 403)
    else:
        assert route.permission is not None
        assert reply.status_code == 303
        assert urlsplit(reply.headers["location"]).path == "/console/login"
        assert not reply.text


async def test_whether_an_address_exists_is_told_to_operators_only(
    stage: Stage, admin: Reader
) -> None:
    async with reader(stage) as visitor:
        nowhere = await visitor.get("/console/nowhere")
        method = await visitor.post("/console/payments", {})

    assert (nowhere.status_code, method.status_code) == (303, 303)
    assert (await admin.get("/console/nowhere")).status_code == 404
    refused = await admin.post("/console/payments", {})
    assert (refused.status_code, refused.headers["allow"]) == (405, "GET")


async def test_a_poll_without_a_session_sends_the_whole_page_to_the_form(stage: Stage) -> None:
    async with reader(stage) as visitor:
        reply = await visitor.get("/console/payments/live", **{"hx-request": "true"})

    assert reply.status_code == 401
    assert reply.headers["hx-redirect"] == "/console/login"


async def test_password_and_code_open_a_session_and_the_wanted_page(stage: Stage) -> None:
    person = await hire(stage)
    async with reader(stage) as visitor:
        asked = await visitor.get("/console/cases?cursor=x")
        await visitor.follow(asked)
        inside = await visitor.send(
            "/console/login",
            login=" Chen.Yu ",
            password=PASSWORD,
            code=f"{person.code[:3]} {person.code[3:]}",
        )

        assert inside.headers["location"] == "/console/cases?cursor=x"
        cookie = next(
            each for each in inside.headers.get_list("set-cookie") if "tongbao_session" in each
        )
        assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(cookie.split("; "))
        assert (await visitor.get("/console/payments")).status_code == 200


async def test_a_wrong_login_learns_nothing(stage: Stage) -> None:
    person = await hire(stage)
    async with reader(stage) as visitor:
        wrong = [
            await visitor.log_in(person, password="not the password"),
            await visitor.log_in(person, code="000000"),
            await visitor.log_in(person, login="nobody"),
        ]

    assert {reply.status_code for reply in wrong} == {401}
    texts = {re.sub(r'value="[^"]*"|nonce[=-]["\w-]+', "", reply.text) for reply in wrong}
    assert len(texts) == 1
    assert PASSWORD not in wrong[0].text


async def test_a_code_opens_one_session_only(stage: Stage) -> None:
    person = await hire(stage)
    code = person.code
    async with reader(stage) as first, reader(stage) as second:
        assert (await first.log_in(person, code=code)).status_code == 303
        assert (await second.log_in(person, code=code)).status_code == 401


@pytest.mark.parametrize(
    "wanted",
    ["//evil.example/console/", "https://evil.example/", "/console\\@evil.example", "/v1/payments",
     "javascript:alert(1)", "/console/\r\nset-cookie: a=b"],
)  # fmt: skip
async def test_after_login_nobody_is_sent_elsewhere(stage: Stage, wanted: str) -> None:
    person = await hire(stage)
    async with reader(stage) as visitor:
        inside = await visitor.log_in(person, next=wanted)

    assert inside.headers["location"] == "/console/payments"


async def test_logging_out_ends_the_session_for_good(stage: Stage, admin: Reader) -> None:
    kept = dict(admin.client.cookies)
    out = await admin.send("/console/logout")
    admin.client.cookies.update(kept)  # as somebody who copied the cookie

    assert out.headers["location"] == "/console/login"
    assert (await admin.get("/console/payments")).status_code == 303


async def test_an_open_page_does_not_keep_a_session_alive(stage: Stage, admin: Reader) -> None:
    """Idle means that nobody is there, whatever the page asks for by itself."""
    seen = "select seen_at from operator_session"
    before = real_now() - timedelta(minutes=29)
    await stage.db.execute("update operator_session set seen_at = $1", (before,))

    polled = await admin.get("/console/payments/live", **{"hx-request": "true"})
    [after_poll] = await stage.db.fetch(seen, ())
    opened = await admin.get("/console/payments")
    [after_page] = await stage.db.fetch(seen, ())

    assert (polled.status_code, opened.status_code) == (200, 200)
    assert after_poll["seen_at"] == before
    assert after_page["seen_at"] > before
    await stage.db.execute(
        "update operator_session set seen_at = $1", (before - timedelta(minutes=2),)
    )
    assert (await admin.get("/console/payments")).status_code == 303


async def test_over_https_cookies_are_tied_to_the_host(stage: Stage) -> None:
    app = ConsoleApp(stage.flow, stage.platform.keyring, "https://pay.example")
    person = await hire(stage)

    shown = await asked(app, "GET", "/console/login")
    token = re.search(r'name="form_token" value="([^"]+)"', shown.text)
    assert token is not None
    fields = f"form_token={token[1]}&login={person.login}&password={PASSWORD}&code={person.code}"
    inside = await asked(
        app, "POST", "/console/login", fields.replace(" ", "+"), cookie=shown.cookies[0]
    )

    assert shown.cookies[0].startswith("__Host-tongbao_visitor=")
    assert inside.status == 303
    assert inside.cookies[0].startswith("__Host-tongbao_session=")
    assert {"Secure", "HttpOnly", "SameSite=Strict"} <= set(inside.cookies[0].split("; "))
    assert "max-age" in inside.headers["strict-transport-security"]


async def test_a_link_from_elsewhere_arrives_although_cookies_are_strict(admin: Reader) -> None:
    """The browser keeps a strict cookie back at first; our own page then asks again with it."""
    there = "/console/cases"
    async with reader(cast("Stage", SimpleNamespace(url=admin.url))) as stranger:
        followed = await stranger.get(there, **{"sec-fetch-site": "cross-site"})

    assert followed.status_code == 200
    assert f'content="0;url={there}"' in followed.text
    assert "set-cookie" not in followed.headers


# What may be done


async def test_a_form_is_good_for_its_session_and_from_our_pages_only(
    stage: Stage, admin: Reader
) -> None:
    other = await hire(stage, Role.ADMIN, "li.na")
    async with reader(stage, other) as second:
        foreign = second.form("/console/logout").fields["form_token"]
    own = admin.form("/console/logout").fields["form_token"]
    for fields, headers in (
        ({}, {}),
        ({"form_token": foreign}, {}),
        ({"form_token": own}, {"sec-fetch-site": "cross-site"}),
        ({"form_token": own}, {"sec-fetch-site": "same-site"}),
    ):
        reply = await admin.post("/console/logout", fields, **headers)
        assert reply.status_code == 403
        assert "operator.csrf_token_wrong" in reply.text

    assert (await admin.get("/console/payments")).status_code == 200
    assert (await admin.post("/console/logout", {"form_token": own})).status_code == 303


async def test_an_old_browser_is_known_by_its_origin(admin: Reader) -> None:
    token = admin.form("/console/logout").fields["form_token"]
    headers = {"content-type": "application/x-www-form-urlencoded"}
    for origin, status in (("https://evil.example", 403), ("null", 403), (admin.url, 303)):
        reply = await admin.client.post(
            f"{admin.url}/console/logout",
            content=f"form_token={token}",
            headers={**headers, "origin": origin},
        )
        assert reply.status_code == status


async def test_a_viewer_sees_and_does_nothing(stage: Stage) -> None:
    payment = await stage.show_qr("wechat_pay")
    own = f"/console/payments/{payment['id']}"
    async with reader(stage, await hire(stage, Role.VIEWER)) as viewer:
        page = await viewer.get(own)
        token = viewer.form("/console/logout").fields["form_token"]
        acts = [
            await viewer.post(f"/console{filled(route.pattern)}", {"form_token": token})
            for route in ROUTES
            if route.permission not in {None, Permission.VIEW}
        ]

    assert page.status_code == 200
    assert f'action="{own}' not in page.text
    assert len(acts) >= 5
    assert {reply.status_code for reply in acts} == {403}


async def test_an_operator_may_act_on_payments_but_not_on_the_deployment(stage: Stage) -> None:
    async with reader(stage, await hire(stage, Role.OPERATOR)) as operator:
        token = operator.form("/console/logout").fields["form_token"]
        dead = await operator.post(
            f"/console/dead-letters/{show('tsk', new_id())}/replay", {"form_token": token}
        )
        case = await operator.post(
            f"/console/cases/{show('cas', new_id())}/close",
            {"form_token": token, "resolution": "looked into"},
        )

    assert (dead.status_code, case.status_code) == (403, 404)


# What keeps foreign things out


class Strict(HTMLParser):
    """Finds what a strict policy would block, and what would leave the origin."""

    def __init__(self) -> None:
        super().__init__()
        self.breaches: list[str] = []
        self.integrities = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.breaches += [f"<{tag} {name}>" for name in given if name.startswith("on")]
        self.breaches += [f"<{tag} style>"] if "style" in given else []
        self.breaches += ["inline <style>"] if tag == "style" else []
        if tag == "script":
            self.breaches += [] if given.get("src") and given.get("nonce") else ["inline <script>"]
        if tag in {"script", "link"} and given.get("rel") != "icon":
            self.integrities += 1
            self.breaches += [] if given.get("integrity") else [f"<{tag}> without integrity"]
        for name in ("href", "src", "action", "hx-get"):
            address = given.get(name)
            if address and not address.startswith(("/console", "/docs", "#")):
                self.breaches.append(f"{name}={address}")
        if any(name.startswith("hx-") for name in given) and "hx-nonce" not in given:
            self.breaches.append(f"<{tag}> with htmx and without its nonce")
        if any("js:" in (value or "") for value in given.values()):
            self.breaches.append(f"<{tag}> evaluates text")


async def test_pages_hold_nothing_foreign_and_nothing_inline(stage: Stage, admin: Reader) -> None:
    payment = await stage.show_qr("alipay", subject="<script>alert(1)</script>")
    pages = [f"/console{page}" for page in PAGES]
    for path in (*pages, f"/console/payments/{payment['id']}", "/console/nowhere"):
        page = await admin.get(path)
        strict = Strict()
        strict.feed(page.text)
        assert not strict.breaches, path
        assert strict.integrities >= 2
        assert "<script>alert" not in page.text


async def test_every_reply_says_what_the_browser_may_do(stage: Stage, admin: Reader) -> None:
    first, second = await admin.get("/console/payments"), await admin.get("/console/payments")
    policies = [reply.headers["content-security-policy"] for reply in (first, second)]
    rules = dict(
        rule.strip().split(" ", 1) for rule in policies[0].split(";") if " " in rule.strip()
    )

    assert rules["default-src"] == "'none'"
    assert rules["frame-ancestors"] == "'none'"
    assert rules["base-uri"] == "'none'"
    assert rules["form-action"] == "'self'"
    assert re.fullmatch(r"'nonce-[\w-]{24}'", rules["script-src"])
    assert rules["require-trusted-types-for"] == "'script'"
    assert not re.search("unsafe|http:|https:|\\*", policies[0])
    assert policies[0] != policies[1], "a nonce is for one page"
    for reply in (first, await admin.get("/console/payments.csv"), await admin.get("/console/x")):
        assert reply.headers["content-type"].endswith("charset=utf-8")
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["x-frame-options"] == "DENY"
        assert reply.headers["referrer-policy"] == "same-origin"
        assert reply.headers["cache-control"] == "no-store"
        assert "default-src 'none'" in reply.headers["content-security-policy"]


async def test_files_are_kept_by_their_hash_and_by_nothing_else(
    stage: Stage, admin: Reader
) -> None:
    page = await admin.get("/console/payments")
    files = set(re.findall(r'(?:src|href)="(/console/static/[^"]+)"', page.text))
    async with reader(stage) as anybody:
        for file in files:
            kept = await anybody.get(file)
            assert kept.status_code == 200
            assert "immutable" in kept.headers["cache-control"]
        other = re.sub(r"static/\w{16}", "static/" + "0" * 16, min(files))
        assert (await anybody.get(other)).status_code == 303
        assert (await anybody.get("/console/static/../app.py")).status_code in {303, 404}
    assert {Path(file).name for file in files} >= {"htmx.min.js", "hx-csp.min.js", "page.css"}


# The list


async def test_the_list_shows_the_newest_first_and_what_stands_where(
    stage: Stage, admin: Reader
) -> None:
    empty = await admin.get("/console/payments")
    paid = await stage.paid("wechat_pay", 1999)
    waiting = await stage.show_qr("alipay", 550)
    page = await admin.get("/console/payments")

    assert "No payments yet" in empty.text
    shown = re.findall(r'<tr id="(pay_\w+)"', page.text)
    assert shown == [waiting["id"], paid["id"]]
    assert "Succeeded <b>1</b>" in page.text
    assert "Pending <b>1</b>" in page.text
    assert re.search(r"Collected today.*?19\.99", page.text, re.DOTALL)


async def test_filters_narrow_the_list_and_stay_in_its_links(stage: Stage, admin: Reader) -> None:
    paid = await stage.paid("wechat_pay")
    waiting = await stage.show_qr("alipay")
    second = await stage.open_shop(name="另一家店")
    theirs = await stage.show_qr("alipay", client=stage.client_of(second))
    today = business_date(stage.db.clock.now())
    yesterday = today - timedelta(days=1)
    everything = {paid["id"], waiting["id"], theirs["id"]}
    for query, found in (
        ("status=succeeded", {paid["id"]}),
        ("channel=alipay", {waiting["id"], theirs["id"]}),
        (f"merchant={show('mch', second.merchant.id)}", {theirs["id"]}),
        ("mode=live", set()),
        ("mode=sandbox", everything),
        (f"since={today}&until={today}", everything),
        (f"until={yesterday}", set()),
        (f"q={waiting['merchant_order_no']}", {waiting["id"]}),
        ("q=no-such-order", set()),
        (f"status=pending&channel=alipay&merchant={show('mch', second.merchant.id)}",
         {theirs["id"]}),
    ):  # fmt: skip
        page = await admin.get(f"/console/payments?{query}")
        live = await admin.get(f"/console/payments/live?{query}")
        for reply in (page, live):
            assert set(re.findall(r'<tr id="(pay_\w+)"', reply.text)) == found, query
    export = re.search(r'href="(/console/payments\.csv[^"]*)"', page.text)
    assert export is not None
    assert parse_qs(urlsplit(export[1].replace("&amp;", "&")).query)["status"] == ["pending"]


@pytest.mark.parametrize(
    "query", ["status=lost", "since=yesterday", "until=2026-02-30", "merchant=mch_1", "cursor=%00x"]
)
async def test_a_filter_made_by_hand_is_refused_by_name(admin: Reader, query: str) -> None:
    page = await admin.get(f"/console/payments?{query}")

    assert page.status_code in {400, 404}
    assert re.search(r"console\.filter_malformed|id\.unknown|page\.cursor_invalid", page.text)


async def test_too_many_fields_are_no_form_of_ours(admin: Reader) -> None:
    assert (await admin.get("/console/payments?" + "a=1&" * 100)).status_code == 400


async def test_pages_follow_without_a_gap_or_a_double(
    stage: Stage, admin: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(payments_pages, "ROWS", 2)
    made = [(await stage.show_qr("wechat_pay"))["id"] for _ in range(5)]
    seen: list[str] = []
    path = "/console/payments?channel=wechat_pay"
    while path:
        page = (await admin.get(path)).text
        seen += re.findall(r'<tr id="(pay_\w+)"', page)
        older = re.search(r'rel="next" href="([^"]+)"', page)
        path = older[1].replace("&amp;", "&") if older else ""
        assert ('hx-trigger="every' in page) == (len(seen) == 2), "only the newest page is live"

    assert seen == made[::-1]


async def test_live_can_be_paused(admin: Reader) -> None:
    live = await admin.get("/console/payments?status=pending")
    paused = await admin.get("/console/payments?status=pending&live=off")

    assert 'hx-get="/console/payments/live?status=pending"' in live.text
    assert 'hx-trigger="every 2s"' not in paused.text
    assert 'href="/console/payments?status=pending"' in paused.text


async def test_whatever_number_somebody_reads_out_leads_to_the_payment(
    stage: Stage, admin: Reader
) -> None:
    paid = await stage.paid("wechat_pay")
    refund = await stage.refund(paid, 100)
    attempt = await stage.attempt_of(paid)
    numbers = (
        paid["id"],
        refund["id"],
        refund["id"].removeprefix("ref_"),
        attempt.number,
        attempt.channel_ref,
    )
    for number in numbers:
        found = await admin.get(f"/console/payments?q={number}")
        assert found.headers.get("location") == f"/console/payments/{paid['id']}", number


async def test_the_export_is_the_filtered_list_without_the_customer(
    stage: Stage, admin: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(payments_pages, "PAGE_MAX", 2)  # so that it takes several
    paid = [await stage.paid("wechat_pay", 100 + place) for place in range(3)]
    formula = await stage.show_qr("wechat_pay", merchant_order_no="-2|cmd")
    await stage.show_qr("alipay")
    reply = await admin.get("/console/payments.csv?channel=wechat_pay")
    payer = (await stage.attempt_of(paid[0])).payer

    assert reply.headers["content-type"].startswith("text/csv")
    assert "attachment" in reply.headers["content-disposition"]
    assert reply.content.startswith("\ufeff".encode())
    rows = list(csv.DictReader(io.StringIO(reply.content.decode("utf-8-sig"))))
    assert [row["payment_id"] for row in rows] == [
        formula["id"],
        *(each["id"] for each in reversed(paid)),
    ]
    assert rows[0]["merchant_order_no"] == "'-2|cmd"
    assert (rows[1]["amount"], rows[1]["currency"], rows[1]["status"]) == (
        "1.02",
        "CNY",
        "succeeded",
    )
    assert payer is not None
    assert payer not in reply.text
    [entry] = await entries_of_subject(stage.db, "payments")
    assert (entry.action, entry.facts) == ("payments.exported", {"channel": "wechat_pay"})


# One payment


async def test_a_payment_is_told_with_all_its_evidence(stage: Stage, admin: Reader) -> None:
    async with receiving() as receiver:
        await stage.call(
            stage.client.webhook_endpoints.create, receiver.url, event_types=["payment.*"]
        )
        paid = await stage.paid("wechat_pay", 1999, subject="tea & <cake>")
        await stage.idle()
    await stage.refund(paid, 500)
    await stage.advance(seconds=60)
    page = (await admin.get(f"/console/payments/{paid['id']}")).text
    attempt = await stage.attempt_of(paid)

    assert "tea &amp; &lt;cake&gt;" in page
    assert "WeChat Pay told us by callback that the money came in." in page
    kinds = re.findall(r'class="is-\w+ kind-(\w+)"', page)
    assert kinds[:4] == ["state", "attempt", "exchange", "state"]
    assert set(kinds) == {
        "state", "attempt", "exchange", "callback", "posting", "refund", "event", "delivery"
    }  # fmt: skip
    assert kinds.index("callback") < kinds.index("posting") < kinds.index("refund")
    # the request as it was sent, indented, and the reply with its signature
    assert f"&#34;out_trade_no&#34;: &#34;{attempt.number}&#34;" in page
    assert "wechatpay-signature: " in page
    assert "&#34;trade_state&#34;: &#34;SUCCESS&#34;" in page
    # both sides of each entry
    assert page.count("<caption>") == 3
    assert re.search(r"Payment captured.*?19\.99.*?Our fee", page, re.DOTALL)
    assert "1. " in page
    assert "delivered" in page


async def test_entries_stand_in_the_order_they_happened(stage: Stage, admin: Reader) -> None:
    paid = await stage.paid("alipay")
    await stage.refund(paid, 1)
    await stage.advance(days=1)
    page = (await admin.get(f"/console/payments/{paid['id']}")).text
    story = page[page.index('id="story"') : page.index('id="postings"')]

    times = re.findall(r'<time datetime="([^"]+)"', story)
    assert times == sorted(times)
    assert len(times) > 8


async def test_nobody_sees_who_the_customer_is(stage: Stage, admin: Reader) -> None:
    wechat, alipay = await stage.paid("wechat_pay"), await stage.paid("alipay")
    code = await stage.code("wechat_pay")
    scanned = await stage.scan_code(code)
    for payment in (wechat, alipay, scanned):
        payer = (await stage.attempt_of(payment)).payer
        own = f"/console/payments/{payment['id']}"
        for path in (own, f"{own}/live", f"{own}/raw.json"):
            shown = (await admin.get(path)).text
            assert payer is not None
            assert payer not in shown, path
            assert code not in shown
        assert "•••" in shown


async def test_the_raw_document_has_everything(stage: Stage, admin: Reader) -> None:
    paid = await stage.paid("alipay")
    reply = await admin.get(f"/console/payments/{paid['id']}/raw.json")
    raw = json.loads(reply.text)

    assert reply.headers["content-type"] == "application/json"
    assert raw["story"]["payment"]["state"] == "succeeded"
    assert {"attempts", "changes", "exchanges", "cases"} <= raw["story"].keys()
    assert raw["callbacks"][0]["body"].startswith("notify_type=")
    assert len(raw["transfers"]) == 2
    assert raw["merchant"]["name"] == "测试商店"
    assert "sealed" not in reply.text


@pytest.mark.parametrize("number", ["pay_0", "pay_zzzzzzzzzzzzzzzzzzzzzzzzzz", "ref_1", "%00"])
async def test_an_unknown_payment_is_a_page_too(admin: Reader, number: str) -> None:
    page = await admin.get(f"/console/payments/{number}")
    made_up = await admin.get(f"/console/payments/{show('pay', new_id())}")

    assert (page.status_code, made_up.status_code) == (404, 404)
    assert "req_" in page.text
    assert "payment.not_found" in made_up.text


async def test_an_unknown_payment_says_so_and_counts_as_money_at_risk(
    stage: Stage, admin: Reader
) -> None:
    stage.fault("alipay", "pay", "http_500_paid")
    stage.fault("alipay", "query", "http_500", times=50)
    lost = await stage.scan_code(await stage.code("alipay"), 125_000)
    page = (await admin.get(f"/console/payments/{lost['id']}")).text
    listed = (await admin.get("/console/payments")).text

    assert lost["status"] == "unknown"
    assert "do not collect again" in page
    assert "hx-trigger" in page, "an open payment is live"
    assert re.search(r"Money at risk.*?1,250\.00.*?Oldest: ", listed, re.DOTALL)


# Acts


async def test_asking_the_channel_settles_what_nobody_knew(stage: Stage, admin: Reader) -> None:
    stage.fault("alipay", "pay", "http_500_paid")
    stage.fault("alipay", "query", "http_500", times=50)
    lost = await stage.scan_code(await stage.code("alipay"))
    stage.sandbox.delete("faults")
    own = f"/console/payments/{lost['id']}"
    await admin.get(own)

    done = await admin.follow(await admin.send(f"{own}/ask"))

    assert (await stage.read(lost))["status"] == "succeeded"
    assert "Asked. What the channel said is on the timeline." in done.text
    [act] = await entries_of_subject(stage.db, lost["id"])
    assert act.action == "payment.asked"
    assert act.actor.startswith("opr_")
    assert f"Asked the channel, by {act.actor}" in done.text
    assert f'action="{own}/ask"' not in done.text
    token = admin.form("/console/logout").fields["form_token"]
    again = await admin.post(f"{own}/ask", {"form_token": token})
    assert (again.status_code, "console.nothing_to_ask" in again.text) == (409, True)


async def test_calling_off_closes_at_the_channel_first(stage: Stage, admin: Reader) -> None:
    waiting, paid = await stage.show_qr("wechat_pay"), await stage.show_qr("wechat_pay")
    await stage.customer(paid)
    for payment in (waiting, paid):
        own = f"/console/payments/{payment['id']}"
        await admin.get(own)
        done = await admin.send(f"{own}/close")
        assert done.headers["location"] == f"{own}?done=close_asked"

    assert (await stage.read(waiting))["status"] == "closed"
    assert (await stage.read(paid))["status"] == "succeeded", "a customer who paid first wins"
    token = admin.form("/console/logout").fields["form_token"]
    again = await admin.post(f"/console/payments/{paid['id']}/close", {"form_token": token})
    assert (again.status_code, "payment.not_closable" in again.text) == (409, True)


async def test_a_refund_can_be_asked_about(stage: Stage, admin: Reader) -> None:
    paid = await stage.paid("wechat_pay")
    stage.fault("wechat_pay", "callback", "lost:9")
    refund = await stage.refund(paid, 100)
    assert refund["status"] == "pending"
    await admin.get(f"/console/payments/{paid['id']}")
    await asyncio.to_thread(stage.sandbox.advance, 60)

    done = await admin.send(f"/console/refunds/{refund['id']}/ask")

    assert done.status_code == 303
    assert (await stage.read(refund))["status"] == "succeeded"
    [act] = await entries_of_subject(stage.db, refund["id"])
    assert act.action == "refund.asked"


async def test_a_webhook_is_sent_again_and_the_page_says_by_whom(
    stage: Stage, admin: Reader
) -> None:
    async with receiving() as receiver:
        await stage.call(
            stage.client.webhook_endpoints.create, receiver.url, event_types=["payment.*"]
        )
        paid = await stage.paid("alipay")
        await stage.idle()
        own = f"/console/payments/{paid['id']}"
        page = await admin.get(own)
        action = re.search(rf'action="({own}/deliveries/whd_\w+/replay)"', page.text)
        assert action is not None
        assert len(receiver.received) == 1

        await admin.follow(await admin.send(action[1]))
        await stage.idle()

        assert len(receiver.received) == 2
        ids = {each.headers["webhook-id"] for each in receiver.received}
        assert len(ids) == 1, "the same event, once more"


async def test_another_merchants_delivery_is_not_reached_through_a_payment(
    stage: Stage, admin: Reader
) -> None:
    second = await stage.open_shop(name="另一家店")
    client = stage.client_of(second)
    async with receiving() as receiver:
        await stage.call(client.webhook_endpoints.create, receiver.url, event_types=["payment.*"])
        theirs = await stage.show_qr("alipay", client=client)
        await stage.customer(theirs)
        await stage.idle()
    mine = await stage.show_qr("alipay")
    page = await admin.get(f"/console/payments/{theirs['id']}")
    delivery = re.search(r"deliveries/(whd_\w+)/replay", page.text)
    assert delivery is not None
    token = admin.form("/console/logout").fields["form_token"]

    reply = await admin.post(
        f"/console/payments/{mine['id']}/deliveries/{delivery[1]}/replay", {"form_token": token}
    )

    assert (reply.status_code, "webhook.delivery_unknown" in reply.text) == (404, True)


async def test_a_case_is_closed_once_with_a_reason(stage: Stage, admin: Reader) -> None:
    payment = await stage.show_qr("wechat_pay", 4500)
    await stage.fault_of(payment, "callback", "wrong_amount")
    await stage.customer(payment)
    await stage.idle()
    page = await admin.get("/console/cases")
    action = re.search(r'action="(/console/cases/cas_\w+/close)"', page.text)
    assert action is not None
    assert "The channel names another amount" in page.text
    assert 'aria-label="1 open">1</span>' in page.text

    unsaid = await admin.send(action[1], resolution="  a ")
    done = await admin.follow(
        await admin.send(action[1], resolution="forged upstream,\n told them")
    )
    token = admin.form("/console/logout").fields["form_token"]
    again = await admin.post(action[1], {"form_token": token, "resolution": "once more"})

    assert (unsaid.status_code, "payment.case_resolution_missing" in unsaid.text) == (400, True)
    assert "forged upstream, told them" in done.text
    assert "No open cases" in done.text
    assert (again.status_code, "payment.case_closed" in again.text) == (409, True)
    assert not await queries.open_cases(stage.db)
    [act] = await entries_of_subject(stage.db, payment["id"])
    assert act.facts["resolution"] == "forged upstream, told them"


async def test_the_ledger_is_shown_and_proved(stage: Stage, admin: Reader) -> None:
    await stage.paid("wechat_pay", 1000)
    page = await admin.get("/console/ledger")
    proved = await admin.send("/console/ledger/verify")

    assert "merchant_payable" in page.text
    assert page.text.count("✓</span>Balanced") == 1
    assert "Every figure was derived again and agrees" in proved.text
    assert "✕" not in proved.text
    assert [act.action for act in await entries_of_subject(stage.db, "ledger")] == [
        "ledger.verified"
    ]


async def test_a_broken_book_is_said_aloud(stage: Stage, admin: Reader) -> None:
    await stage.paid("wechat_pay", 1000)
    await stage.db.execute(
        "update ledger_account set credits_posted = credits_posted + 1 where kind = 'fee_income'",
        (),
    )
    page = await admin.get("/console/ledger")
    proved = await admin.send("/console/ledger/verify")

    assert "Not balanced" in page.text
    assert "invariants are broken" in proved.text
    assert "✕" in proved.text


async def test_the_ledger_is_verified_once_at_a_time(
    stage: Stage, admin: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = ConsoleApp(stage.flow, stage.platform.keyring, stage.url)
    await app._desk.verifying.acquire()
    await admin.get("/console/ledger")
    cookie = "; ".join(f"{name}={value}" for name, value in admin.client.cookies.items())
    token = admin.form("/console/ledger/verify").fields["form_token"]

    reply = await asked(app, "POST", "/console/ledger/verify", f"form_token={token}", cookie=cookie)

    assert (reply.status, "console.verify_running" in reply.text) == (503, True)


async def test_a_task_that_was_given_up_is_replayed(stage: Stage, admin: Reader) -> None:
    task_id = new_id()
    await stage.db.execute(
        "insert into dead_letter (id, type, args, key, attempts, reason, died_at)"
        " values ($1, 'housekeeping.keep', '{}', 'by-hand', 15, 'ValueError: <b>no</b>', $2)",
        (task_id, stage.db.clock.now()),
    )
    page = await admin.get("/console/health")
    done = await admin.follow(
        await admin.send(f"/console/dead-letters/{show('tsk', task_id)}/replay")
    )

    assert "ValueError: &lt;b&gt;no&lt;/b&gt;" in page.text
    assert "Put back into the queue." in done.text
    assert not (await dead_letters(stage.db)).items
    [act] = await entries_of_subject(stage.db, show("tsk", task_id))
    assert act.action == "task.replay"


# Languages and failures


async def test_pages_speak_the_readers_language_and_remember_a_choice(stage: Stage) -> None:
    person = await hire(stage)
    async with reader(stage, person, language="zh-CN,zh;q=0.9,en;q=0.8") as one:
        chinese = await one.get("/console/payments?status=pending")
        chosen = await one.send("/console/language", language="en")
        english = await one.follow(chosen)
        unknown = await one.send("/console/language", language="fr")

    assert '<html lang="zh-CN">' in chinese.text
    assert "今日收款" in chinese.text
    assert chosen.headers["location"] == "/console/payments?status=pending"
    assert "Collected today" in english.text
    assert "set-cookie" not in unknown.headers


async def test_a_refusal_is_explained_in_the_readers_language(stage: Stage) -> None:
    async with reader(stage, await hire(stage), language="zh") as one:
        page = await one.get(f"/console/payments/{show('pay', new_id())}")

    assert queries.PaymentNotFound.advice_zh in page.text


async def test_a_failure_of_ours_says_nothing_but_its_request(
    stage: Stage, admin: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_args: object, **_more: object) -> Any:
        raise RuntimeError("a secret of the machine")

    monkeypatch.setattr(queries, "closed_cases", broken)
    page = await admin.get("/console/cases")

    assert page.status_code == 500
    assert "secret" not in page.text
    assert "service.internal_error" in page.text


async def test_head_is_answered_like_get(admin: Reader) -> None:
    reply = await admin.client.head(f"{admin.url}/console/payments")

    assert (reply.status_code, reply.content) == (200, b"")


async def test_before_the_first_operator_the_form_says_how_to_make_one(stage: Stage) -> None:
    async with reader(stage) as visitor:
        before = await visitor.get("/console/login")
        await hire(stage)
        after = await visitor.get("/console/login")

    assert "tongbao operator create-first" in before.text
    assert "create-first" not in after.text


class Heard(SimpleNamespace):
    """A reply of an ASGI application that is called by hand."""

    status: int
    headers: dict[str, str]
    cookies: list[str]
    text: str


async def asked(app: Any, method: str, path: str, body: str = "", *, cookie: str = "") -> Heard:
    """Call an ASGI application as the platform's own does."""
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [
        (b"content-type", b"application/x-www-form-urlencoded"),
        (b"cookie", cookie.partition(";")[0].encode() if "Path=" in cookie else cookie.encode()),
    ]
    state = {"body": body.encode(), "request_id": "req_test"}
    scope = {"method": method, "path": path, "query_string": b"", "headers": headers}
    await app({**scope, "state": state}, receive, send)
    pairs = [(name.decode(), value.decode()) for name, value in sent[0]["headers"]]
    return Heard(
        status=sent[0]["status"],
        headers=dict(pairs),
        cookies=[value for name, value in pairs if name == "set-cookie"],
        text=b"".join(message.get("body", b"") for message in sent[1:]).decode(),
    )

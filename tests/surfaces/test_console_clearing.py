"""After the day, in the console: differences, who may close them, settlements and payouts."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import AsyncIterator
from datetime import date
from typing import Any

import msgspec
import pytest

from tests.clearing.settling import settle_day
from tests.stage import Stage
from tests.surfaces.test_console import asked
from tests.surfaces.test_console_browser import FAINT, fits, log_in
from tests.surfaces.visitors import Reader, browsing, hire, picture, reader
from tongbao.clearing.reconciliation.days import reconcile_everyone
from tongbao.clearing.reconciliation.model import BreakState
from tongbao.clearing.reconciliation.queries import BreakFilter, break_with_id, list_breaks
from tongbao.infra.audit import entries_of_subject
from tongbao.kernel.clock import business_date, day_bounds
from tongbao.kernel.ids import parse, show
from tongbao.kernel.licence import Licence
from tongbao.kernel.money import Money
from tongbao.parties.identity.model import Role
from tongbao.surfaces.operator_console.app import ConsoleApp, routes

BANK_NUMBER = "6222020200112233445"


class Closed:
    """A day that is over, with three differences on WeChat Pay's bill."""

    def __init__(self, stage: Stage, day: date, payments: list[Any]) -> None:
        self.stage = stage
        self.day = day
        self.payments = payments
        account = show("chn", stage.accounts["wechat_pay"])
        self.path = f"/console/reconciliation/{account}/{day}"

    async def breaks(self) -> dict[str, str]:
        """The ids of the differences by class."""
        page = await list_breaks(self.stage.db, BreakFilter(day=self.day), limit=100)
        return {str(each.break_class): show("brk", each.id) for each in page.items}


@pytest.fixture
async def closed(stage: Stage) -> Closed:
    # A day of its own, so that its bill holds nothing of another test's.
    _, start = day_bounds(business_date(stage.db.clock.now()))
    await stage.advance(seconds=(start - stage.db.clock.now()).total_seconds() + 9 * 3600)
    day = business_date(stage.db.clock.now())
    payments = [
        await stage.paid(channel, 1000 + place)
        for place, channel in enumerate(["wechat_pay", "alipay"] * 3)
    ]
    await stage.refund(payments[0], 300)
    for fault in ("drop_row", "wrong_amount", "extra_row"):
        stage.fault("wechat_pay", "bill", fault)
    _, end = day_bounds(day)
    await stage.advance(seconds=(end - stage.db.clock.now()).total_seconds() + 10.6 * 3600)
    await reconcile_everyone(stage.platform.clearing, day)
    return Closed(stage, day, payments)


@pytest.fixture
async def finance(stage: Stage) -> AsyncIterator[Reader]:
    """Somebody from finance who is logged in."""
    async with reader(stage, await hire(stage, Role.FINANCE)) as one:
        yield one


async def test_differences_are_listed_by_day_with_both_sides(
    closed: Closed, finance: Reader
) -> None:
    page = (await finance.get("/console/reconciliation")).text
    day = (await finance.get(closed.path)).text

    for shown in (page, day):
        assert shown.count('class="break is-open"') == 3
        for text in ("On the bill, not with us", "With us, not on the bill", "The amount differs"):
            assert text in shown
    assert closed.path in page
    assert re.search(r"<td>With us, not on the bill</td>.*?>1</td>", day, re.DOTALL)
    assert "agrees" in day
    assert day.count("Look at the payment") == 2


async def test_a_payment_tells_of_its_difference(closed: Closed, finance: Reader) -> None:
    page = await list_breaks(closed.stage.db, BreakFilter(day=closed.day), limit=100)
    [missing] = [each for each in page.items if each.break_class == "missing_at_channel"]
    assert missing.payment_id is not None
    shown = await finance.get(f"/console/payments/{show('pay', missing.payment_id)}")

    assert "With us, not on the bill" in shown.text
    assert 'kind-break"' in shown.text


async def test_money_in_question_takes_two_people(closed: Closed, finance: Reader) -> None:
    stage = closed.stage
    target = (await closed.breaks())["missing_at_platform"]
    own = f"/console/differences/{target}"
    await finance.get(closed.path)

    unsaid = await finance.send(f"{own}/close", reason="no")
    proposed = await finance.follow(
        await finance.send(f"{own}/close", reason="the sandbox made it up")
    )
    inbox = str(proposed.url.path)
    waits = (await finance.get(closed.path)).text
    token = finance.form("/console/logout").fields["form_token"]
    alone = await finance.post(f"{inbox}/approve", {"form_token": token})
    async with reader(stage, await hire(stage, Role.FINANCE, "li.na")) as second:
        shown = await second.get(inbox)
        await second.follow(await second.send(f"{inbox}/approve"))
        await stage.idle()
        after = await second.get(own)

    assert (unsaid.status_code, "approval.reason_missing" in unsaid.text) == (400, True)
    assert (f'action="{own}/close"' in waits, inbox in waits) == (False, True)
    assert (alone.status_code, "approval.own_proposal" in alone.text) == (403, True)
    assert "Left as it is" in shown.text
    assert "the sandbox made it up" in after.text
    assert f'action="{own}/close"' not in after.text
    acts = await entries_of_subject(stage.db, target)
    assert [act.action for act in acts] == ["reconciliation.break_closed"]
    found = await break_with_id(stage.db, parse("brk", target))
    assert len({found.proposed_by, found.closed_by}) == 2


async def test_who_may_not_deal_with_differences_sees_them_only(closed: Closed) -> None:
    stage = closed.stage
    target = (await closed.breaks())["amount_differs"]
    async with reader(stage, await hire(stage, Role.OPERATOR)) as operator:
        page = await operator.get(closed.path)
        token = operator.form("/console/logout").fields["form_token"]
        reply = await operator.post(
            f"/console/differences/{target}/close", {"form_token": token, "reason": "let me"}
        )

    assert "The amount differs" in page.text
    assert '/close"' not in page.text
    assert reply.status_code == 403


async def test_the_differences_of_a_day_are_a_file(closed: Closed, finance: Reader) -> None:
    reply = await finance.get(f"{closed.path}/breaks.csv")
    rows = list(csv.DictReader(io.StringIO(reply.content.decode("utf-8-sig"))))

    assert {row["class"] for row in rows} == {
        "missing_at_platform", "missing_at_channel", "amount_differs"
    }  # fmt: skip
    assert {row["id"] for row in rows} == set((await closed.breaks()).values())


async def test_a_day_is_compared_again_and_nothing_doubles(closed: Closed, finance: Reader) -> None:
    before = await closed.breaks()
    await finance.get(closed.path)
    done = await finance.follow(await finance.send(f"{closed.path}/again"))
    await closed.stage.idle()

    assert "the worker does it now" in done.text
    assert await closed.breaks() == before
    page = await list_breaks(closed.stage.db, BreakFilter(states=(BreakState.OPEN,)), limit=100)
    assert len(page.items) == 3


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/console/reconciliation/{account}/2020-01-01", 404),
        ("/console/reconciliation/{account}/yesterday", 400),
        ("/console/reconciliation/chn_1/2020-01-01", 404),
        ("/console/reconciliation/{account}/2020-01-01/breaks.csv", 404),
        ("/console/settlements/set_1", 404),
    ],
)
async def test_days_that_nobody_compared_are_refused_by_name(
    stage: Stage, finance: Reader, path: str, status: int
) -> None:
    account = show("chn", stage.accounts["alipay"])
    assert (await finance.get(path.format(account=account))).status_code == status


async def test_a_settlement_is_told_to_the_last_fen(closed: Closed, finance: Reader) -> None:
    stage = closed.stage
    [settled] = await settle_day(stage.platform.clearing, closed.day)
    await stage.advance(hours=3)
    page = (await finance.get("/console/settlements")).text
    one = (await finance.get(f"/console/settlements/{show('set', settled.id)}")).text

    assert show("set", settled.id) in page
    assert "Payment captured" in one
    assert one.count("/console/payments/pay_") == 12
    lines = [int(each.replace(".", "").replace("−", "-").replace(",", "")) for each in re.findall(
        r'<td class="right">(−?[\d,]+\.\d\d)</td></tr>', one[one.index('id="lines"') :]
    )]  # fmt: skip
    assert sum(lines) == settled.due
    assert "•••• 3445" in one
    assert BANK_NUMBER not in one
    assert "Pay out: accepted" in one or "Pay out: succeeded" in one
    assert "&lt;Cdtr&gt;\n&lt;Nm&gt;•••&lt;/Nm&gt;" in one
    file = await finance.get("/console/settlements.csv")
    [row] = csv.DictReader(io.StringIO(file.content.decode("utf-8-sig")))
    assert row["settlement"] == show("set", settled.id)
    assert row["due"] == Money(settled.due, "CNY").decimal_text()
    [payout] = await stage.db.fetch("select id from payout", ())
    assert row["payout"] == show("pyo", payout["id"])


async def test_a_day_is_settled_by_hand_once(closed: Closed, finance: Reader) -> None:
    stage = closed.stage
    await finance.get("/console/settlements")
    today = business_date(stage.db.clock.now())
    early = await finance.send("/console/settlements/settle", day=today.isoformat())
    wrong = await finance.send("/console/settlements/settle", day="soon")
    for _ in range(2):
        done = await finance.send("/console/settlements/settle", day=closed.day.isoformat())
        assert done.status_code == 303
        await stage.idle()
    page = (await finance.get("/console/settlements")).text

    assert (early.status_code, wrong.status_code) == (400, 400)
    assert page.count("/console/settlements/set_") >= 1
    assert len(set(re.findall(r"/console/settlements/(set_\w+)", page))) == 1


async def test_pages_go_on_where_they_ended(
    closed: Closed, finance: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tongbao.surfaces.operator_console.clearing.ROWS", 1)
    for start in ("/console/reconciliation", closed.path):
        seen: list[str] = []
        path = start
        while path:
            page = (await finance.get(path)).text
            seen += re.findall(r'<li id="(brk_\w+)"', page)
            older = re.search(r'rel="next" href="([^"]+)"', page)
            path = older[1].replace("&amp;", "&") if older else ""
        assert sorted(seen) == sorted((await closed.breaks()).values())


async def test_a_firm_that_may_not_hold_money_has_no_settlements(stage: Stage) -> None:
    """Not even the address exists."""
    flow = msgspec.structs.replace(stage.flow, licence=Licence.AGGREGATOR)
    app = ConsoleApp(flow, stage.platform.keyring, stage.url)
    async with reader(stage, await hire(stage)) as admin:
        cookie = "; ".join(f"{name}={value}" for name, value in admin.client.cookies.items())
        listed = await asked(app, "GET", "/console/settlements", cookie=cookie)
        start = await asked(app, "GET", "/console/reconciliation", cookie=cookie)

    assert listed.status == 404
    assert "/console/settlements" not in start.text
    licensed = {route.pattern for route in routes(may_hold_funds=True)}
    plain = {route.pattern for route in routes(may_hold_funds=False)}
    assert licensed - plain == {
        "/settlements", "/settlements/{settlement_id}", "/settlements/settle"
    }  # fmt: skip


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_its_pages_fit_and_can_be_read(closed: Closed, scheme: str) -> None:
    stage = closed.stage
    [settled] = await settle_day(stage.platform.clearing, closed.day)
    await stage.advance(hours=3)
    person = await hire(stage)
    size = {"width": 320, "height": 640}
    async with browsing(stage, viewport=size, color_scheme=scheme) as watched:
        await log_in(watched, stage, person)
        own = f"/console/settlements/{show('set', settled.id)}"
        for path in ("/console/reconciliation", closed.path, "/console/settlements", own):
            await watched.page.goto(f"{stage.url}{path}")
            await watched.page.evaluate(
                "document.querySelectorAll('details').forEach(each => { each.open = true; })"
            )
            name = path.rpartition("/")[2]
            await picture(watched.page, f"console-{name}-{scheme}")
            assert await fits(watched.page), path
            assert await watched.page.evaluate(FAINT) == [], path
        assert not watched.complaints

"""The pages of agreements and of notices: what is listed, found, filed, asked and told."""

from __future__ import annotations

import asyncio
import csv
import io
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.payments.letters import Postman
from tests.stage import Stage, new_number
from tests.surfaces.visitors import Reader, hire, reader
from tongbao.infra.audit import entries_of_subject
from tongbao.kernel.ids import base32, new_id, parse, show
from tongbao.kernel.licence import Mode
from tongbao.parties.identity.model import Role
from tongbao.parties.price_plans.model import PriceLine
from tongbao.parties.price_plans.plans import set_price_plan
from tongbao.surfaces.operator_console import agreements

PLAN = "GENERAL_WITHHOLDING_P/INDUSTRY|CARRENTAL"
ROW = re.compile(r'<tr id="(agr_\w+)"')


@pytest.fixture
async def admin(stage: Stage) -> AsyncIterator[Reader]:
    async with stage.db.begin("operator") as tx:
        prices = [PriceLine("alipay", "agreement", 8_000)]
        await set_price_plan(tx, stage.shop.merchant.id, Mode.SANDBOX, prices)
    async with reader(stage, await hire(stage)) as one:
        yield one


async def offered(stage: Stage, **terms: Any) -> Any:
    asked = {
        "merchant_agreement_no": new_number(),
        "channel": "alipay",
        "plan": PLAN,
        "display_name": "会员 <b>",
        "return_url": "https://shop.example/member",
        "limit_each": 5_000,
        "period": "month",
        "limit_per_period": 12_000,
        **terms,
    }
    return await stage.call(stage.client.agreements.create, **asked)


async def signed(stage: Stage, **terms: Any) -> Any:
    agreement = await offered(stage, **terms)
    await stage.control("alipay/visit", url=agreement["next_action"]["url"], action="pay")
    await stage.idle()
    return agreement


async def deducted(stage: Stage, agreement: Any, amount: int) -> Any:
    method: Any = {"mode": "agreement", "agreement_id": agreement["id"]}
    terms = {"merchant_order_no": new_number(), "subject": "一个月"}
    payment = await stage.call(stage.client.payments.create, amount=amount, method=method, **terms)
    await stage.idle()
    return payment


async def test_the_list_narrows_by_its_filters(stage: Stage, admin: Reader) -> None:
    open_one, active = await offered(stage), await signed(stage)
    ids = [active["id"], open_one["id"]]

    assert ROW.findall((await admin.get("/console/agreements")).text) == ids
    for query, found in (
        ("status=active", [active["id"]]),
        ("status=pending", [open_one["id"]]),
        ("channel=alipay&mode=sandbox", ids),
        ("channel=wechat_pay", []),
        ("mode=live", []),
        (f"q={open_one['merchant_agreement_no']}", [open_one["id"]]),
        ("since=2000-01-01&until=2000-01-02", []),
        (f"merchant={active_merchant(stage)}", ids),
    ):
        page = await admin.get(f"/console/agreements?{query}")
        assert ROW.findall(page.text) == found, query
    assert "会员 &lt;b&gt;" in (await admin.get("/console/agreements")).text
    for query in ("status=gone", "since=yesterday"):
        assert (await admin.get(f"/console/agreements?{query}")).status_code == 400


def active_merchant(stage: Stage) -> str:
    return show("mch", stage.shop.merchant.id)


async def test_pages_follow_without_a_gap_or_a_double(
    stage: Stage, admin: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:

    monkeypatch.setattr(agreements, "ROWS", 2)
    made = [(await offered(stage))["id"] for _ in range(5)]
    seen, place = [], "/console/agreements"
    while place:
        page = await admin.get(place)
        seen += ROW.findall(page.text)
        older = re.search(r'rel="next" href="([^"]+)"', page.text)
        place = older[1].replace("&amp;", "&") if older else ""
    assert seen == made[::-1]


async def test_whatever_number_somebody_reads_out_leads_to_the_agreement(
    stage: Stage, admin: Reader
) -> None:
    agreement = await offered(stage)
    for text in (agreement["id"], base32(parse("agr", agreement["id"]))):
        reply = await admin.get(f"/console/agreements?q={text}")
        assert reply.headers["location"] == f"/console/agreements/{agreement['id']}"


async def test_the_file_is_the_filtered_list_without_the_customer(
    stage: Stage, admin: Reader
) -> None:
    await offered(stage)
    agreement = await signed(stage)
    await deducted(stage, agreement, 1_500)

    reply = await admin.get("/console/agreements.csv?status=active")

    [row] = csv.DictReader(io.StringIO(reply.content.decode("utf-8-sig")))
    assert row["agreement_id"] == agreement["id"]
    assert (row["status"], row["limit_each"], row["used"]) == ("active", "50.00", "15.00")
    assert "payer" not in row
    acts = await entries_of_subject(stage.db, "agreements")
    assert [(each.action, each.facts) for each in acts] == [
        ("agreements.exported", {"status": "active"})
    ]


async def test_one_agreement_is_told_with_its_payments_and_its_evidence(
    stage: Stage, admin: Reader
) -> None:
    agreement = await signed(stage)
    paid, refused = [await deducted(stage, agreement, fen) for fen in (1_500, 2_000)]
    payer = (await stage.db.fetch("select payer from agreement", ()))[0]["payer"]

    page = await admin.get(f"/console/agreements/{agreement['id']}")

    for text in (agreement["merchant_agreement_no"], paid["id"], refused["id"], PLAN, "50.00"):
        assert text in page.text
    assert "35.00" in page.text, "taken in the period"
    assert "120.00" in page.text
    for happened in (
        "Offer of the agreement: offered, not signed yet",
        "Query: signed",
        "Believed",
        "agreement.signed",
    ):
        assert happened in page.text, happened
    assert payer
    assert payer not in page.text, "who the customer is"


async def test_asking_finds_an_end_nobody_told_of(stage: Stage, admin: Reader) -> None:
    agreement = await signed(stage)
    stage.fault("alipay", "callback", "lost")
    number = base32(parse("agr", agreement["id"]))
    await stage.control("alipay/agreement", number=number, action="end")
    own = f"/console/agreements/{agreement['id']}"
    assert "money may be taken" in (await admin.get(own)).text

    page = await admin.follow(await admin.send(f"{own}/ask"))

    assert "Nothing can be taken under it" in page.text
    assert "Asked about the agreement" in page.text
    assert f"{own}/ask" not in page.text, "its end is known"


async def test_who_may_only_look_may_not_ask(stage: Stage, admin: Reader) -> None:
    agreement = await offered(stage)
    own = f"/console/agreements/{agreement['id']}"
    assert f"{own}/ask" in (await admin.get(own)).text
    async with reader(stage, await hire(stage, Role.VIEWER, login="wang.wu")) as viewer:
        page = await viewer.get(own)
        assert page.status_code == 200
        assert f"{own}/ask" not in page.text


@pytest.mark.parametrize("number", ["agr_nonsense", "agr_01k9order0000000000000000a"])
async def test_an_unknown_agreement_is_a_page_too(admin: Reader, number: str) -> None:
    page = await admin.get(f"/console/agreements/{number}")
    assert page.status_code == 404
    assert "<h1>" in page.text


async def test_what_nobody_took_is_shown_with_what_it_is_about(stage: Stage, admin: Reader) -> None:
    async with Postman(stage) as postman:
        account, number = await postman.account("wechat_pay"), base32(new_id())
        news = {"sp_mchid": account.merchant_number, "out_parking_no": number}
        letter = await asyncio.to_thread(
            postman.institution.sealed, news, "vehicle", "VEHICLE.CHANGED"
        )
        assert (await postman.deliver(account, letter)).status_code == 204
        assert (await postman.deliver(account, ({}, b"{}"))).status_code == 500
        await stage.idle()

    whole = await admin.get("/console/notices")
    kept = await admin.get("/console/notices?state=orphaned&kind=parking&channel=wechat_pay")
    other = await admin.get("/console/notices?kind=transfer")

    assert "Not the channel" in whole.text
    assert "Share of a payment" in kept.text
    assert number in kept.text
    assert number not in other.text
    assert (await admin.get("/console/notices?state=nonsense")).status_code == 400

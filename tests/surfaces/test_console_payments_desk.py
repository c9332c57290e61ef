"""The pages of combined payments and of car parks: listed, filtered, filed, told, asked about."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.payments.test_parking import plate
from tests.stage import Stage, new_number
from tests.surfaces.visitors import Reader, hire, reader
from tongbao.infra.audit import entries_of_subject
from tongbao.kernel.ids import base32, parse, show
from tongbao.parties.identity.model import Role
from tongbao.surfaces.payments_desk import combined, parking

ROW = re.compile(r'<tr id="((?:cmb|prk)_\w+)"')


@pytest.fixture
async def admin(stage: Stage) -> AsyncIterator[Reader]:
    async with reader(stage, await hire(stage)) as one:
        yield one


async def whole(stage: Stage) -> Any:
    """Two orders to be paid in one go."""
    return await stage.call(
        stage.client.combined_payments.create,
        merchant_combined_no=new_number(),
        method={"mode": "qr", "channel": "wechat_pay"},
        orders=[
            {"merchant_order_no": new_number(), "amount": amount, "subject": f"茶 <b> {amount}"}
            for amount in (300, 700)
        ],
    )


async def paid(stage: Stage) -> Any:
    made = await whole(stage)
    number = (await stage.attempt_of({"id": made["parts"][0]["payment_id"]})).number
    await stage.control("customer/scan", channel="wechat", number=number, action="pay")
    return made


async def parked(stage: Stage) -> Any:
    return await stage.call(
        stage.client.parking.enter,
        merchant_visit_no=new_number(),
        channel="alipay",
        plate=await plate(stage, "alipay"),
        plate_colour="BLUE",
        place="港湾停车场 <b>",
        lot="PI1",
    )


MAKES = {"combined": (whole, "cmb", combined), "parking": (parked, "prk", parking)}


@pytest.mark.parametrize("name", MAKES)
async def test_a_list_narrows_and_goes_on_without_a_gap_and_is_taken_away(
    stage: Stage, admin: Reader, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, prefix, module = MAKES[name]
    empty = (await admin.get(f"/console/{name}")).text
    assert "over the API" in empty
    made = [await make(stage) for _ in range(3)]
    ids = [each["id"] for each in made][::-1]
    state, number = (
        made[0]["status"],
        made[0]["merchant_" + {"combined": "combined", "parking": "visit"}[name] + "_no"],
    )
    channel = made[0].get("channel") or made[0]["method"]["channel"]
    for query, found in (
        ("", ids),
        (f"status={state}", ids),
        (f"channel={channel}&mode=sandbox", ids),
        ("channel=unionpay", []),
        ("mode=live", []),
        (f"q={number}", [made[0]["id"]]),
        ("since=2000-01-01&until=2000-01-02", []),
        (f"merchant={show('mch', stage.shop.merchant.id)}", ids),
    ):
        page = await admin.get(f"/console/{name}?{query}")
        assert ROW.findall(page.text) == found, query
    assert "<b>" not in (await admin.get(f"/console/{name}/{ids[0]}")).text
    for query in ("status=gone", "since=yesterday", "merchant=mch_x"):
        assert (await admin.get(f"/console/{name}?{query}")).status_code in {400, 404}
    for text in (ids[0], base32(parse(prefix, ids[0]))):
        reply = await admin.get(f"/console/{name}?q={text}")
        assert reply.headers["location"] == f"/console/{name}/{ids[0]}"
    assert (await admin.get(f"/console/{name}/{prefix}_nonsense")).status_code == 404

    monkeypatch.setattr(module, "ROWS", 2)
    seen, place = [], f"/console/{name}"
    while place:
        page = await admin.get(place)
        seen += ROW.findall(page.text)
        older = re.search(r'rel="next" href="([^"]+)"', page.text)
        place = older[1].replace("&amp;", "&") if older else ""
    assert seen == ids

    reply = await admin.get(f"/console/{name}.csv?status={state}")
    rows = list(csv.DictReader(io.StringIO(reply.content.decode("utf-8-sig"))))
    assert [next(iter(row.values())) for row in rows] == ids
    [act] = await entries_of_subject(stage.db, name)
    assert (act.action, act.facts) == (f"{name}.exported", {"status": state})


async def test_a_combined_payment_is_shown_with_its_orders_and_asked_about(
    stage: Stage, admin: Reader
) -> None:
    stage.fault("wechat_pay", "callback", "lost:15")
    made = await paid(stage)
    own = f"/console/combined/{made['id']}"
    before = (await admin.get(own)).text
    assert "the customer is to pay" in before
    for part in made["parts"]:
        assert f"/console/payments/{part['payment_id']}" in before
    async with reader(stage, await hire(stage, Role.VIEWER, login="wang.wu")) as viewer:
        assert f"{own}/ask" not in (await viewer.get(own)).text

    page = await admin.follow(await admin.send(f"{own}/ask"))

    assert "Every order was paid" in page.text
    assert "combined_payment.ended" in page.text
    assert "Asked about the combined payment" in page.text
    assert f"{own}/ask" not in page.text, "its end is known"


async def test_a_visit_is_shown_with_its_fee_and_without_its_plate(
    stage: Stage, admin: Reader
) -> None:
    visit = await parked(stage)
    page = (await admin.get(f"/console/parking/{visit['id']}")).text
    assert "takes the fee without the driver" in page
    assert "Car drives in: can be charged" in page
    assert "PI1" in page
    assert "BQX" not in page, "whose car it is"
    async with reader(
        stage, await hire(stage, Role.VIEWER, login="li.si"), language="zh"
    ) as viewer:
        assert "可直接代扣停车费" in (await viewer.get(f"/console/parking/{visit['id']}")).text

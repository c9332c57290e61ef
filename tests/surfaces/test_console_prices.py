"""Prices in the console: looked at, tried, proposed, agreed by another; and who got a share."""

from __future__ import annotations

import json

from tests.stage import Stage, new_number
from tests.surfaces.visitors import hire, reader
from tongbao.kernel.ids import show
from tongbao.kernel.licence import Mode
from tongbao.parties.identity.model import Role
from tongbao.parties.price_plans.queries import price_plans

DRAFT = {
    "currency": "CNY",
    "refund_returns_fee": False,
    "lines": [{"channel": "wallet", "pay_mode": "payment_code", "rate_ppm": 10_000}],
}


async def test_prices_are_tried_proposed_and_agreed_by_two(stage: Stage) -> None:
    shop = await stage.open_shop(name="价格 <b>")
    payment = await stage.scan_code(await stage.wallet_code(), 1_000, client=stage.client_of(shop))
    page = f"/console/prices/{show('mch', shop.merchant.id)}"
    form = {"mode": "sandbox", "draft": json.dumps(DRAFT), "reason": "a better price"}
    maker = await hire(stage, login="ma.ke")
    checker = await hire(stage, Role.FINANCE, login="fu.he")
    viewer = await hire(stage, Role.VIEWER, login="kan.ke")

    async with reader(stage, maker) as admin:
        listed = (await admin.get("/console/prices")).text
        shown = (await admin.get(f"{page}?mode=sandbox")).text
        given = {**admin.form(f"{page}/propose").fields, **form}
        tried = await admin.post(f"{page}/try", given)
        wrong = await admin.post(f"{page}/try", {**given, "draft": "{"})
        proposed = await admin.post(f"{page}/propose", given)
        assert proposed.status_code == 303, proposed.text[-1800:]
    async with reader(stage, viewer) as onlooker:
        read_only = (await onlooker.get(f"{page}?mode=sandbox")).text
    inbox = proposed.headers["location"].partition("?")[0]
    async with reader(stage, checker) as other:
        await other.get(inbox)
        await other.send(f"{inbox}/approve")
    await stage.idle()

    assert "价格 &lt;b&gt;" in listed
    assert "0.3%" in shown
    assert '<td class="right">0.10</td>' in tried.text.replace("\n", "")
    assert wrong.status_code == 400
    assert "textarea" not in read_only
    [_, second] = await price_plans(stage.db, shop.merchant.id, Mode.SANDBOX)
    assert [line.rate_ppm for line in second.lines] == [10_000]
    assert payment["status"] == "succeeded"


async def test_a_payments_page_shows_who_got_a_share(stage: Stage) -> None:
    shop = await stage.open_shop()
    client = stage.client_of(shop)
    wallet = await stage.call(client.wallets.open, holder_name="李四")
    friend = await stage.call(client.splits.bind, kind="wallet", account=wallet["id"])
    payment = await stage.scan_code(await stage.wallet_code(), 1_000, client=client)
    number, parts = new_number(), [{"receiver_id": friend["id"], "amount": 200}]
    await stage.call(client.splits.create, payment["id"], merchant_split_no=number, shares=parts)
    await stage.refund(payment, 500, client=client)

    async with reader(stage, await hire(stage, login="ke.fu")) as admin:
        page = (await admin.get(f"/console/payments/{payment['id']}")).text

    assert number in page
    assert friend["id"] in page
    assert "2.00" in page
    assert "refund:" in page

"""Money set aside first: the bill shows the capture, and knows of it when nobody said so."""

from __future__ import annotations

from typing import Any

import pytest

from tests.clearing.conftest import Day
from tests.stage import new_number
from tongbao.kernel.ids import base32
from tongbao.kernel.licence import Mode
from tongbao.parties.merchants.merchants import connect_channel
from tongbao.parties.price_plans.model import PriceLine
from tongbao.parties.price_plans.plans import set_price_plan
from tongbao.payments.authorisations import queries
from tongbao.rails.channels.accounts import NewAccount
from tongbao.surfaces.demo.stage import open_accounts
from tongbao.wiring import SECRETS

KEYS = (
    *("merchant_private_key_pem", "merchant_certificate_pem"),
    *("root_certificate_pem", "middle_certificate_pem"),
)
SILENCE = 40


@pytest.fixture
async def unionpay(day: Day) -> Day:
    """A day with an account at the simulated UnionPay."""
    stage = day.stage
    if "unionpay" not in stage.accounts:
        given = stage.sandbox.credentials["unionpay"]
        order = NewAccount(
            channel="unionpay",
            mode=Mode.SANDBOX,
            gateway=f"{stage.sandbox.url}/unionpay",
            merchant_number=given["mer_id"],
            app_id="000201",
            fee_ppm=6_000,
            keys={name: given[name] for name in KEYS},
        )
        stage.accounts |= await open_accounts(stage.db, stage.platform.keyring, SECRETS, [order])
        merchant = stage.shop.merchant.id
        async with stage.db.begin("operator") as tx:
            lines = [PriceLine("unionpay", "qr", 6_000)]
            await set_price_plan(tx, merchant, Mode.SANDBOX, lines)
            await connect_channel(
                tx, merchant, Mode.SANDBOX, "unionpay", stage.accounts["unionpay"]
            )
    return day


async def authorised(day: Day) -> Any:
    """Money of a customer, set aside for two hours."""
    stage = day.stage
    payment = await stage.call(
        stage.client.payments.create,
        merchant_order_no=new_number(),
        amount=1999,
        subject="a room",
        method={"mode": "qr", "channel": "unionpay"},
        capture="manual",
        capture_within_s=7200,
    )
    await stage.customer(payment)
    await stage.idle()
    return payment


async def capture_number(day: Day, payment: Any) -> str:
    [made] = await queries.completions_of_payment(day.db, await day.stage.row_of(payment))
    return base32(made.id)


async def test_a_capture_stands_on_the_bill_under_its_own_number(unionpay: Day) -> None:
    day = unionpay
    payment = await authorised(day)
    await day.stage.call(day.stage.client.payments.capture, payment["id"], amount=1500)
    await authorised(day)  # of which nothing is captured
    await day.stage.advance(minutes=2)
    assert (await day.stage.read(payment))["status"] == "succeeded"
    await day.over()

    bill = await day.reconcile("unionpay")

    assert (bill.state, bill.row_count, bill.matched_count) == ("matched", 1, 1)
    assert bill.matched_payment_amount == 1500
    assert await day.classes("unionpay") == []


async def test_the_bill_tells_of_a_capture_that_nobody_answered(unionpay: Day) -> None:
    day, stage = unionpay, unionpay.stage
    payment = await authorised(day)
    stage.fault("unionpay", "capture", "time_out_done", times=SILENCE)
    stage.fault("unionpay", "query", "time_out", times=SILENCE)
    stage.fault("unionpay", "callback", "lost:9", times=SILENCE)
    await stage.call(stage.client.payments.capture, payment["id"], amount=1500)
    await day.over()
    assert (await stage.read(payment))["status"] == "capturing"

    bill = await day.reconcile("unionpay")

    assert (await stage.read(payment))["amount_captured"] == 1500
    assert (bill.state, bill.matched_count) == ("matched", 1)
    assert await day.classes("unionpay") == []
    assert (await stage.attempt_of(payment)).taken_number == await capture_number(day, payment)

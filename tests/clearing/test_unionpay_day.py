"""UnionPay's settlement days: a file without totals is whole by its checksum, and is compared."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from tests.clearing.conftest import Day
from tongbao.kernel.licence import Mode
from tongbao.parties.merchants.merchants import connect_channel
from tongbao.parties.price_plans.model import PriceLine
from tongbao.parties.price_plans.plans import set_price_plan
from tongbao.rails.channels.accounts import NewAccount
from tongbao.surfaces.demo.stage import open_accounts
from tongbao.wiring import SECRETS

KEYS = (
    *("merchant_private_key_pem", "merchant_certificate_pem"),
    *("root_certificate_pem", "middle_certificate_pem"),
)


@pytest.fixture
async def unionpay_day(day: Day) -> Day:
    """A day on which the shop also takes UnionPay."""
    stage: Any = day.stage
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
    opened = await open_accounts(stage.db, stage.platform.keyring, SECRETS, [order])
    stage.accounts.update(opened)
    merchant = stage.shop.merchant
    async with stage.db.begin("operator") as tx:
        lines = [PriceLine("unionpay", mode, 6_000) for mode in ("qr", "payment_code")]
        await set_price_plan(tx, merchant.id, Mode.SANDBOX, lines)
        await connect_channel(tx, merchant.id, Mode.SANDBOX, "unionpay", opened["unionpay"])
    return day


async def test_a_day_without_faults_matches_to_the_fen(unionpay_day: Day) -> None:
    day = unionpay_day
    first, _ = await day.paid("unionpay", 1999, 300)
    await day.stage.refund(first, 500)
    await day.stage.advance(minutes=1)
    await day.over()
    bill = await day.reconcile("unionpay")
    assert (bill.state, bill.is_complete) == ("matched", True)
    assert (bill.row_count, bill.matched_count, bill.fault_count) == (3, 3, 0)
    assert (bill.payment_amount, bill.refund_amount) == (2299, 500)
    assert bill.told_payment_amount is None
    assert bill.totals_agree
    assert await day.classes("unionpay") == []
    assert await day.booked("channel_cost") == bill.fee_amount == 12 + 2 - 3
    await day.sound()


async def test_every_planted_difference_is_found(unionpay_day: Day) -> None:
    day = unionpay_day
    payments = await day.paid("unionpay", 1000, 2000, 3000)
    dropped, other_amount, other_fee = [await day.number(each) for each in payments]
    await day.over()
    for fault, number in (
        ("drop_row", dropped),
        ("wrong_amount:7", other_amount),
        ("wrong_fee:3", other_fee),
        ("extra_row:555", ""),
    ):
        day.bill_fault("unionpay", fault, number)
    await day.reconcile("unionpay")
    found = await day.classes("unionpay")
    [stranger] = [number for _, number, _ in found if number.startswith("sandboxextra")]
    assert sorted(found) == sorted(
        [
            ("missing_at_channel", dropped, -1000),
            ("amount_differs", other_amount, 7),
            ("fee_differs", other_fee, 3),
            ("missing_at_platform", stranger, 555),
        ]
    )
    await day.sound()


async def test_a_cancelled_payment_code_is_no_difference(unionpay_day: Day) -> None:
    day = unionpay_day
    day.stage.fault("unionpay", "pay", "time_out_paid")
    day.stage.fault("unionpay", "query", "stale", times=50)
    code = await day.stage.code("unionpay")
    payment = await day.stage.scan_code(code, 1999)
    await day.stage.advance(minutes=2)
    day.sandbox.delete("faults")
    await day.stage.advance(minutes=30)
    ended = await day.stage.read(payment)
    trade = await day.stage.trade_of(payment)
    assert trade
    await day.over()
    bill = await day.reconcile("unionpay")
    # Found at last, it was either kept or cancelled; the file says the same as we do.
    assert (ended["status"], trade["state"]) in {("succeeded", "paid"), ("closed", "reversed")}
    assert bill.fault_count == 0
    assert await day.classes("unionpay") == []
    await day.sound()


async def test_a_file_cut_off_is_fetched_again(unionpay_day: Day) -> None:
    day = unionpay_day
    await day.paid("unionpay", 1999)
    day.bill_fault("unionpay", "truncate")
    await day.over()
    cut = await day.reconcile("unionpay")
    assert cut.state == "requested"
    assert "not arrive whole" in cut.last_answer
    bill = await day.reconcile("unionpay")
    assert (bill.state, bill.matched_count) == ("matched", 1)


async def test_a_row_that_comes_with_the_next_days_file_is_cut_off(unionpay_day: Day) -> None:
    day = unionpay_day
    await day.paid("unionpay", 2000)
    await day.until(23, 55)
    [payment] = await day.paid("unionpay", 1000)
    day.bill_fault("unionpay", "late_row", await day.number(payment))
    await day.over()
    first = await day.reconcile("unionpay")
    assert (first.matched_count, first.waiting_count) == (1, 1)
    await day.over(days=2)
    second = await day.reconcile("unionpay", day=day.date + timedelta(days=1))
    assert second.matched_count == 1
    assert await day.classes("unionpay") == []
    assert await day.classes("unionpay", second.day) == []

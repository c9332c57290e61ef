"""Payments through the API, the channel and back, when nothing goes wrong."""

from __future__ import annotations

import pytest

from tests.payments.invariants import assert_money_is_conserved, assert_the_channels_agree
from tests.stage import Stage, new_number

CHANNELS = ("wechat_pay", "alipay")


@pytest.mark.parametrize("channel", CHANNELS)
async def test_a_scanned_qr_ends_in_the_book(stage: Stage, channel: str) -> None:
    payment = await stage.show_qr(channel, 1999)
    assert payment["status"] == "pending"
    assert payment["next_action"]["type"] == "show_qr"

    await stage.customer(payment)
    await stage.idle()

    paid = await stage.read(payment)
    assert (paid["status"], paid["amount_captured"]) == ("succeeded", 1999)
    assert "next_action" not in paid
    assert await stage.events(payment) == ["payment.succeeded"]
    assert await stage.postings(payment) == [
        ("payment.captured/gross", 1999),
        ("payment.captured/fee", 16),  # 0.8 % of 19.99, rounded half up
    ]


@pytest.mark.parametrize("channel", CHANNELS)
@pytest.mark.parametrize(
    ("behaviour", "at_once", "in_the_end"),
    [
        ("pay", "succeeded", "succeeded"),
        ("decline", "failed", "failed"),
        ("ask_then_pay", "pending", "succeeded"),
        ("ask_forever", "pending", "closed"),
        ("cancel", "pending", "failed or closed"),
    ],
)
async def test_a_payment_code_ends_as_its_customer_wants(
    stage: Stage, channel: str, behaviour: str, at_once: str, in_the_end: str
) -> None:
    payment = await stage.scan_code(await stage.code(channel, behaviour))
    assert payment["status"] == at_once

    for _ in range(3):
        await stage.advance(seconds=31)

    ended = await stage.read(payment)
    assert ended["status"] in in_the_end
    if ended["status"] == "failed":
        assert ended["failure"]["message"]
        assert ended["failure"]["message_zh"]
    if ended["status"] == "closed":
        assert ended["close_reason"] == "not_paid"
    await assert_money_is_conserved(stage.db)


@pytest.mark.parametrize("channel", CHANNELS)
async def test_refunds_in_parts_give_back_all_and_no_more(stage: Stage, channel: str) -> None:
    paid = await stage.paid(channel, 1000)

    first = await stage.refund(paid, 300)
    second = await stage.refund(paid, 700)
    await stage.advance(seconds=60)

    assert [(await stage.read(each))["status"] for each in (first, second)] == ["succeeded"] * 2
    assert sorted(await stage.given_back(paid)) == [300, 700]
    assert (await stage.read(paid))["amount_refunded"] == 1000
    await assert_money_is_conserved(stage.db)


async def test_the_own_wallet_pays_and_is_given_back_at_once(stage: Stage) -> None:
    payment = await stage.scan_code(await stage.wallet_code(10_000), 500)
    assert payment["status"] == "succeeded"

    refund = await stage.refund(payment, 200)

    assert refund["status"] == "succeeded"
    assert await stage.postings(payment) == [
        ("payment.captured_by_wallet/gross", 500),
        ("payment.captured_by_wallet/fee", 2),
    ]
    assert await stage.postings(refund) == [("refund.by_wallet/gross", 200)]
    await assert_money_is_conserved(stage.db)


async def test_a_wallet_without_enough_money_makes_a_failed_payment(stage: Stage) -> None:
    payment = await stage.scan_code(await stage.wallet_code(100), 500)

    assert payment["status"] == "failed"
    assert payment["failure"]["code"] == "ledger.exceeds_balance"
    assert await stage.postings(payment) == []
    assert await stage.events(payment) == ["payment.failed"]


@pytest.mark.parametrize("channel", CHANNELS)
async def test_a_merchant_closes_an_unpaid_payment(stage: Stage, channel: str) -> None:
    payment = await stage.show_qr(channel)

    closed = await stage.close(payment)

    assert (closed["status"], closed["close_reason"]) == ("closed", "merchant")
    assert await stage.events(payment) == ["payment.closed"]
    assert (await stage.close(payment))["status"] == "closed"  # asked twice, told once
    assert await stage.events(payment) == ["payment.closed"]


@pytest.mark.parametrize("channel", CHANNELS)
async def test_a_payment_nobody_pays_ends_with_its_time(stage: Stage, channel: str) -> None:
    payment = await stage.show_qr(channel, expires_in_s=120)

    await stage.advance(seconds=300)

    ended = await stage.read(payment)
    assert (ended["status"], ended["close_reason"]) == ("closed", "expired")


async def test_the_same_order_asked_again_is_the_same_payment(stage: Stage) -> None:
    order = new_number()
    first = await stage.show_qr("wechat_pay", merchant_order_no=order)

    again = await stage.show_qr("wechat_pay", merchant_order_no=order)

    assert again == first


async def test_an_order_paid_by_wallet_is_found_again_under_a_new_key(stage: Stage) -> None:
    """Its code is used by now, which must not look like "not paid" to a merchant who lost the
    answer and the key."""
    order, code = new_number(), await stage.wallet_code()
    first = await stage.scan_code(code, merchant_order_no=order)

    again = await stage.scan_code(code, merchant_order_no=order)

    assert first["status"] == "succeeded"
    assert again == first


async def test_a_quiet_platform_and_its_channels_agree(stage: Stage) -> None:
    for channel in CHANNELS:
        await stage.refund(await stage.paid(channel), 500)
        await stage.scan_code(await stage.code(channel, "ask_forever"))
        await stage.close(await stage.show_qr(channel))
    await stage.advance(hours=3)

    await assert_money_is_conserved(stage.db)
    await assert_the_channels_agree(stage)

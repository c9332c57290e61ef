"""A merchant's day is closed once, in order, and ties to the ledger to the fen."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from tests.clearing.conftest import Day
from tests.clearing.settling import settle_day
from tongbao.clearing.settlement.model import (
    COLUMN_OF_CODE,
    OWN_RULE,
    DayPassed,
    SettlementNotDue,
)
from tongbao.kernel.licence import Mode
from tongbao.ledger.rules.posting import RULES
from tongbao_sdk.errors import Refused


async def settle(day: Day, days: int = 0) -> Any:
    """The settlements of the shop's day so many days after the first."""
    return await settle_day(
        day.clearing,
        day.date + timedelta(days=days),
        merchant_id=day.stage.shop.merchant.id,
        mode=Mode.SANDBOX,
    )


async def test_a_day_is_settled_net_of_fees_and_refunds(day: Day) -> None:
    first, _ = await day.paid("wechat_pay", 10_000, 5_000)
    await day.stage.refund(first, 2_500)
    await day.stage.advance(minutes=1)
    await day.until(11, 30, days=1)

    [settlement] = await settle(day)

    assert settlement.gross == 15_000
    assert settlement.fees == 80 + 40
    assert settlement.refunds == 2_500
    assert settlement.fees_returned == 20
    assert settlement.due == settlement.payable == 15_000 - 120 - 2_500 + 20
    assert settlement.carried == 0
    client = day.stage.client
    shown = await day.stage.call(lambda: list(client.settlements.list()))
    assert [each["due"] for each in shown] == [settlement.due]
    lines = await day.stage.call(lambda: list(client.settlements.lines(shown[0]["id"])))
    assert sum(line["amount"] for line in lines) == settlement.due
    assert len(lines) == settlement.line_count == 6
    assert {line["reference"][:3] for line in lines} == {"pay", "ref"}
    [balance] = (await day.stage.call(client.balance))["balances"]
    assert balance == {
        "currency": "CNY",
        "available": 0,
        "held": 0,
        "settling": settlement.payable,
        "reserved": 0,
    }
    assert await day.stage.events(shown[0]) == ["settlement.closed"]
    await day.sound()


async def test_closing_a_day_again_gives_the_same_settlement(day: Day) -> None:
    await day.paid("alipay", 1_000)
    await day.until(11, days=1)

    [first] = await settle(day)
    [second] = await settle(day)

    assert second == first
    payouts = await day.db.fetch("select id from payout", ())
    assert [row["id"] for row in payouts] == [first.payout_id]


async def test_a_day_is_closed_when_it_is_due_and_not_before(day: Day) -> None:
    await day.paid("alipay", 1_000)
    with pytest.raises(SettlementNotDue):
        await settle(day)
    slow = await day.stage.open_shop()
    await day.db.execute(
        "update merchant set settlement_delay_days = 3 where id = $1", (slow.merchant.id,)
    )
    await day.until(1, days=2)

    with pytest.raises(SettlementNotDue):
        await settle_day(day.clearing, day.date, merchant_id=slow.merchant.id)
    # In everybody's round, who is not due is left out.
    [settlement] = await settle_day(day.clearing, day.date)
    assert settlement.merchant_id == day.stage.shop.merchant.id


async def test_days_are_closed_in_order_and_a_later_one_has_what_was_left(day: Day) -> None:
    await day.paid("wechat_pay", 1_000)
    await day.until(10, days=1)
    await day.paid("wechat_pay", 2_000)
    await day.until(11, days=2)

    [both] = await settle(day, days=1)

    assert both.gross == 3_000
    with pytest.raises(DayPassed):
        await settle(day)
    await day.sound()


async def test_a_day_with_nothing_makes_no_settlement(day: Day) -> None:
    await day.paid("wechat_pay", 1_000)
    await day.until(11, days=1)
    await settle(day)
    await day.until(11, days=2)

    assert await settle(day, days=1) == []


async def test_what_a_refund_holds_is_carried_to_the_next_settlement(day: Day) -> None:
    first, _ = await day.paid("wechat_pay", 10_000, 1_000)
    await day.until(10, days=1)
    day.stage.fault("wechat_pay", "refund", "processing")
    day.stage.fault("wechat_pay", "callback", "lost", times=-1)
    refund = await day.stage.refund(first, 9_000)
    await day.until(11, days=1)

    [settlement] = await settle(day)

    fee = 80 + 8
    assert settlement.due == 11_000 - fee
    # The refund's fee came back this morning and is available, though it is not yet due.
    assert settlement.payable == 11_000 - fee - 9_000 + 72
    assert settlement.carried == 9_000 - 72
    [balance] = (await day.stage.call(day.stage.client.balance))["balances"]
    assert (balance["available"], balance["held"]) == (0, 9_000)

    await day.stage.control("wechat/refund", number=refund["id"][4:], state="closed")
    await day.stage.advance(hours=2)
    assert (await day.stage.read(refund))["status"] == "failed"
    await day.until(11, days=2)
    [following] = await settle(day, days=1)

    assert following.opening == 9_000 - 72
    assert following.fees_returned == 72 - 72
    assert following.payable == 9_000 - 72
    assert following.carried == 0
    await day.sound()


async def test_a_debt_is_carried_until_new_money_covers_it(day: Day) -> None:
    """Refunds of the next day are paid from what the day before left, and leave a debt."""
    [payment] = await day.paid("wechat_pay", 10_000)
    await day.until(23, 50, days=1)
    await day.stage.refund(payment, 8_000)
    await day.stage.advance(minutes=1)
    await day.until(8, days=2)
    await day.paid("wechat_pay", 20_000)
    [first] = await settle(day)  # late: the third day's money covers it
    [second] = await settle(day, days=1)

    assert (first.payable, first.carried) == (10_000 - 80, 0)
    assert second.due == second.carried == -8_000 + 64
    assert second.payable == 0
    assert second.payout_id is None
    await day.until(11, days=3)
    [third] = await settle(day, days=2)
    assert third.opening == -8_000 + 64
    assert third.payable == 20_000 - 160 - 8_000 + 64
    await day.sound()


async def test_the_own_wallet_is_settled_too(day: Day) -> None:
    code = await day.stage.wallet_code(10_000)
    payment = await day.stage.scan_code(code, 4_000)
    await day.stage.refund(payment, 1_000)
    await day.until(11, days=1)

    [settlement] = await settle(day)

    assert (settlement.gross, settlement.refunds) == (4_000, 1_000)
    assert (settlement.fees, settlement.fees_returned) == (12, 3)
    assert settlement.payable == 4_000 - 12 - 1_000 + 3


async def test_another_merchants_settlement_is_not_found(day: Day) -> None:
    await day.paid("alipay", 1_000)
    await day.until(11, days=1)
    await settle(day)
    [shown] = await day.stage.call(lambda: list(day.stage.client.settlements.list()))
    stranger = day.stage.client_of(await day.stage.open_shop())

    with pytest.raises(Refused) as refused:
        await day.stage.call(stranger.settlements.get, shown["id"])
    assert refused.value.code == "settlement.not_found"
    with pytest.raises(Refused) as refused:
        await day.stage.call(lambda: list(stranger.settlements.lines(shown["id"])))
    assert refused.value.code == "settlement.not_found"
    assert await day.stage.call(lambda: list(stranger.settlements.list())) == []


def test_every_leg_on_a_merchants_account_is_in_a_column_on_purpose() -> None:
    """A new rule must say whether it is gross, fee or refund, or that it is something else."""
    touching = {
        f"{name}/{leg.name}"
        for name, rule in RULES.items()
        for leg in rule.legs
        if "merchant_payable" in {leg.debit, leg.credit}
    }
    ended = {f"{name}/{leg.name}" for name, rule in RULES.items() for leg in rule.legs if leg.ends}

    assert set(COLUMN_OF_CODE) <= touching | ended
    own = {f"{OWN_RULE}/{leg.name}" for leg in RULES[OWN_RULE].legs}
    others = touching - set(COLUMN_OF_CODE) - own
    assert others == {
        "payout.failed/amount",
        "payout.returned/amount",
        "settlement.reserve_released/amount",
        "transfer.held/amount",  # only held
        "transfer.to_wallet/amount",
        "agent.commission/share",
        "split.channel_held/amount",
        "split.channel_returned/amount",
        "split.given_at_once/amount",
        "split.held/amount",
        "split.returned/amount",
        "transfer.returned/amount",
        "refund.held/gross",  # only held
        "dispute.charged_back/taken",
        "dispute.charged_back/fee",
        "dispute.won/gross",
        "merchant_debt.collected/amount",
    }

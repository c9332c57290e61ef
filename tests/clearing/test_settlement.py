"""A merchant's day is closed once, in order, and ties to the ledger to the fen."""

from __future__ import annotations

from datetime import timedelta

from tests.clearing.conftest import Day
from tongbao.clearing.settlement.settlements import settle_day
from tongbao.kernel.licence import Mode


async def settle(day: Day, days: int = 0):
    merchant = day.stage.shop.merchant
    return await settle_day(
        day.clearing,
        day.date + timedelta(days=days),
        merchant_id=merchant.id,
        mode=Mode.SANDBOX,
    )


async def lines(day: Day, settlement) -> list[tuple[str, int]]:
    rows = await day.db.fetch(
        "select code, amount from settlement_line where settlement_id = $1 order by seq",
        (settlement.id,),
    )
    return [(row["code"], row["amount"]) for row in rows]


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
    assert sum(amount for _, amount in await lines(day, settlement)) == settlement.due
    shown = await day.stage.call(day.stage.client.balance)
    [balance] = shown["balances"]
    assert (balance["available"], balance["settling"]) == (0, settlement.payable)
    await day.sound()

"""The day is over: bills, reconciliation, settlement, payout, and the ledger's own proof."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, Final

from tongbao.clearing.reconciliation.queries import BreakFilter, bills_of_day, list_breaks
from tongbao.kernel.clock import BUSINESS_ZONE
from tongbao.ledger.verify import verify
from tongbao.surfaces.demo.misbehaviour import CHANNELS
from tongbao.surfaces.demo.programme import SANDBOX_NAME, Programme
from tongbao.surfaces.demo.stage import SHOP_FEES

PLANTED: Final[Mapping[str, str]] = {
    "drop_row": "missing_at_channel",
    "wrong_amount:7": "amount_differs",
    "wrong_fee:3": "fee_differs",
}
"""A fault of the bill, and the class its difference belongs to. A fourth adds a row of nobody's."""


async def reconcile(programme: Programme) -> None:
    """Plant differences in the channels' bills, and see each found, classed, and nothing else."""
    planted: Counter[str] = Counter()
    for channel in CHANNELS:
        sandbox_name = SANDBOX_NAME[channel]
        numbers = await _billed_numbers(programme, sandbox_name)
        for number, (fault, found_as) in zip(numbers, PLANTED.items(), strict=False):
            programme.sandbox.fault(sandbox_name, "bill", fault, number=number)
            planted[f"{channel} {found_as}"] += 1
        programme.sandbox.fault(sandbox_name, "bill", "extra_row:100")
        planted[f"{channel} missing_at_platform"] += 1

    await programme.advance_to(programme.today_at(10, 40, days=1))
    day = datetime.strptime(programme.day, "%Y%m%d").replace(tzinfo=BUSINESS_ZONE).date()
    bills = {bill.channel: bill for bill in await bills_of_day(programme.db, day)}
    for channel in CHANNELS:
        bill = bills[channel]
        wanted = f"{bill.row_count} rows read, 0 unreadable, matched"
        seen = f"{bill.row_count} rows read, {bill.fault_count} unreadable, {bill.state}"
        programme.mark(f"{channel.replace('_', ' ')}: bill", wanted, seen)
    page = await list_breaks(programme.db, BreakFilter(day=day), limit=100)
    found = Counter(f"{each.channel} {each.break_class}" for each in page.items)
    for kind in sorted(planted | found):
        programme.mark(f"difference: {kind.replace('_', ' ')}", planted[kind], found[kind])


async def _billed_numbers(programme: Programme, sandbox_name: str) -> list[str]:
    """Return our numbers of trades that the day's bill will show as plainly paid."""
    trades = await programme.call(
        programme.sandbox.control, f"trades?channel={sandbox_name}", method="GET"
    )
    day = f"{programme.day[:4]}-{programme.day[4:6]}-{programme.day[6:]}"
    return [
        trade["number"]
        for trade in trades
        if trade["paid_at"] and _day_of(trade["paid_at"]) == day and not trade["refunded"]
    ]


def _day_of(moment: str) -> str:
    return datetime.fromisoformat(moment).astimezone(BUSINESS_ZONE).date().isoformat()


async def settle(programme: Programme) -> None:
    """See the shop settled net of fees to the fen, and paid out by the bank."""
    owed = await _owed(programme)
    await programme.advance_to(programme.today_at(11, 40, days=1))
    for minute in (0, 10, 20, 30):  # the bank takes its time, and is asked again
        await programme.advance_to(programme.today_at(12, minute, days=1))
    found = await programme.call(lambda: list(programme.shop.settlements.list()))
    programme.mark("settlements of the shop", 1, len(found))
    for settlement in found:
        programme.mark("settled net of fees, in fen", owed, settlement["payable"])
    payouts = await programme.call(lambda: list(programme.shop.payouts.list()))
    for payout in payouts:
        programme.mark("paid out, in fen", owed, payout["amount"])
        programme.mark("payout", "succeeded", payout["status"])
        number = payout["id"].partition("_")[2]
        path = f"bank/payments/{number}"
        at_bank = await programme.call(programme.sandbox.control, path, method="GET")
        programme.mark("the bank says", "ACSC", at_bank["reports"][0]["status"])


async def _owed(programme: Programme) -> int:
    """Work out what the shop is owed from its own papers: prices, payments and refunds."""
    payments = await programme.call(lambda: list(programme.shop.payments.list()))
    refunds = await programme.call(lambda: list(programme.shop.refunds.list(status="succeeded")))
    given_back: Counter[str] = Counter()
    for refund in refunds:
        given_back[refund["payment_id"]] += refund["amount"]
    owed = 0
    for payment in payments:
        if payment["status"] == "succeeded":
            back = given_back[payment["id"]]
            fee = _fee(payment)
            owed += payment["amount"] - back - (fee - fee * back // payment["amount"])
    return owed


def _fee(payment: Mapping[str, Any]) -> int:
    method = payment["method"]
    [line] = [
        line
        for line in SHOP_FEES
        if (line.channel, line.pay_mode) == (method["channel"], method["mode"])
    ]
    share = Decimal(payment["amount"]) * line.rate_ppm / 1_000_000
    return int(share.to_integral_value(ROUND_HALF_UP))


async def check_webhooks(programme: Programme) -> None:
    """See that every event reached the shop, and had its effect once."""
    await programme.idle()
    listed = await programme.call(lambda: list(programme.shop.events.list()))
    told = {event["id"] for event in listed}
    heard = programme.receiver.events
    programme.mark("events heard by the shop", len(told), len(told & heard.keys()))
    programme.mark("events that are none of ours", 0, len(heard.keys() - told))
    ends = Counter(_subject(event) for event in heard.values())
    programme.mark("ends told twice", 0, sum(1 for times in ends.values() if times > 1))
    programme.mark("bad signatures", 0, programme.receiver.invalid)


def _subject(event: dict[str, Any]) -> tuple[str, str]:
    return event["type"], event["data"]["object"]["id"]


async def prove(programme: Programme) -> None:
    """Let the ledger re-derive every figure from its journal."""
    report = await verify(programme.db)
    looked_at = sum(check.looked_at for check in report.checks)
    broken = ", ".join(check.name for check in report.broken) or "nothing broken"
    programme.mark(f"{looked_at} figures re-derived from the journal", "nothing broken", broken)

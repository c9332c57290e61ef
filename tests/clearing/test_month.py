"""Days of trade by many merchants on the test clock, which end without an unexplained fen.

TONGBAO_MONTH=200x30 lets two hundred merchants trade for thirty days; an ordinary run takes a few
of each. Everything happens that may: refunds, disputes won and lost, debts, splits, transfers,
settlements, payouts and their returns, adjustments, bills compared, and each morning's round by the
clock. In the end every invariant of the catalogue holds as well.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time
from typing import Any

import pytest
from msgspec import Struct

from tests.clearing.conftest import Day
from tests.clearing.doings import Doings, do_more
from tests.clearing.explaining import unexplained
from tests.payments.invariants import assert_every_invariant
from tests.payments.test_splits import may_be_split
from tongbao.clearing import daily
from tongbao.clearing.disputes import debts
from tongbao.clearing.disputes.chargebacks import DisputeAsked, move_dispute, open_dispute
from tongbao.clearing.disputes.model import NEXT, Dispute, DisputeExceedsLeft, DisputeState, Move
from tongbao.clearing.recon_rules.rules import rules_on
from tongbao.kernel.clock import business_date
from tongbao.kernel.ids import new_id
from tongbao.kernel.money import Money
from tongbao.ledger.model import AccountKey, Group
from tongbao.ledger.rules import posting
from tongbao.parties.merchants.merchants import SANDBOX_BOOK
from tongbao.surfaces.invariants.running import chosen, run_invariants
from tongbao_sandbox import magic
from tongbao_sdk import Refused, Tongbao

SIZE = os.environ.get("TONGBAO_MONTH", "6x5")
AT_ONCE = 16
LUCK_FROM = min(fen for amounts in magic.TABLE.values() for fen in amounts)
"""From this amount on the sandbox has some that meet a fault: a row that its bill leaves out."""


class Books(Struct):
    """What was done so far, to be done something about later."""

    payments: list[tuple[Tongbao, Any]]
    disputes: list[Dispute]
    counts: dict[str, int]

    def count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1


async def sell(day: Day, books: Books, clients: list[Tongbao], chance: random.Random) -> None:
    """Every merchant sells something, or nothing; a few orders are never paid."""
    wanted = [
        (client, chance.choice(("wechat_pay", "alipay")), chance.randrange(100, LUCK_FROM))
        for client in clients
        for _ in range(chance.choice((0, 1, 1, 2)))
    ]
    limit = asyncio.Semaphore(AT_ONCE)

    async def one(client: Tongbao, channel: str, amount: int) -> tuple[Tongbao, Any]:
        async with limit:
            payment = await day.stage.show_qr(channel, amount, client=client)
            if chance.random() < 0.95:
                try:
                    await day.stage.customer(payment)
                except ValueError as refusal:  # on a busy machine the call may not have got there
                    assert "no order has this code" in str(refusal)  # noqa: PT017
                    books.count("orders that never arrived")
            return client, payment

    made = await asyncio.gather(*[one(*each) for each in wanted])
    await day.stage.idle()
    for client, payment in made:
        books.count("orders")
        if (await day.stage.row_of(payment)).captured:
            books.payments.append((client, payment))
            books.count("payments")


async def regret(day: Day, books: Books, chance: random.Random) -> None:
    """Some customers get money back, some go to their bank, and disputes take their course."""
    late = books.payments[-4 * AT_ONCE * 10 :]  # nobody goes to the bank about last month
    for client, payment in chance.sample(late, len(late) // 12):
        left = (await day.stage.row_of(payment)).left
        if left == 0:
            continue
        try:
            await day.stage.refund(payment, chance.randint(1, left), client=client)
            books.count("refunds")
        except Refused as refused:
            assert refused.code == "refund.balance_too_low"  # noqa: PT017
            books.count("refunds refused")
    for _, payment in chance.sample(late, -(-len(late) // 25)):
        row = await day.stage.row_of(payment)
        if row.left == 0:
            continue
        asked = DisputeAsked(
            scheme=chance.choice(("unionpay", "visa", "mastercard")),
            scheme_ref=new_id().hex,
            reason_code="4527",
            reason="",
            money=Money(chance.randint(1, row.left), "CNY"),
            stage=DisputeState.CHARGEBACK,
            fee=chance.choice((0, 1_000)),
        )
        try:
            made = await open_dispute(day.stage.flow, row, asked, actor="scheme", why="")
        except DisputeExceedsLeft:
            continue
        books.disputes.append(made)
        books.count("disputes")
    for place, dispute in enumerate(books.disputes):
        moves = [move for state, move in NEXT if state is dispute.state]
        if moves and chance.random() < 0.3:
            move: Move = chance.choice(moves)
            flow = day.stage.flow
            now_is = await move_dispute(flow, dispute, move, actor="scheme", why=str(move))
            books.disputes[place] = now_is
            books.count(f"disputes {now_is.state}")


async def one_fen_too_much(day: Day) -> None:
    """Book a fee of a channel that no bill has."""
    account = AccountKey("channel_receivable", "CNY", day.stage.accounts["alipay"])
    group = Group(
        id=new_id(),
        book=SANDBOX_BOOK,
        transfers=posting.transfers(
            "channel.fee",
            reference=new_id(),
            accounts={"channel_receivable": account},
            amounts={"fee": Money(1, "CNY")},
        ),
    )
    [result] = await day.stage.flow.ledger.submit([group])
    assert result.happened


async def open_breaks(day: Day) -> list[tuple[Any, ...]]:
    """What is not explained, to be told with a failure."""
    rows = await day.db.fetch(
        "select channel, day, kind, number, break_class, bill_amount, platform_amount"
        " from recon_break where state = 'open' order by day limit 40",
        (),
    )
    return [tuple(row) for row in rows]


async def compared(day: Day) -> set[str]:
    """Which bills beside that of trades were compared, by the rules that came with the program."""
    rules = await rules_on(day.db, business_date(day.now))
    matched = await day.db.fetch(
        "select channel from bill_file where superseded_at is null and state = 'matched'"
        " and starts_with(channel, 'rule:') and row_count > 0",
        (),
    )
    ran = {row["channel"].removeprefix("rule:") for row in matched}
    bills = {rule.name: rule.right.removeprefix("source:").rpartition(".")[0] for rule in rules}
    return {bill for name, bill in bills.items() if name in ran}


@pytest.mark.parametrize("seed", [20261122])
@pytest.mark.timeout(0 if "TONGBAO_MONTH" in os.environ else 240)
async def test_a_month_ends_without_an_unexplained_fen(day: Day, seed: int) -> None:
    merchants, days = (int(each) for each in SIZE.split("x"))
    chance, began = random.Random(seed), time.monotonic()
    shops = [day.stage.shop, *[await day.stage.open_shop() for _ in range(merchants - 1)]]
    clients, doings = [day.stage.client_of(shop) for shop in shops], Doings(shops)
    async with day.db.begin("startup") as tx:
        await daily.seed(tx, day.clearing.flow.licence)
        await debts.seed(tx)
    await may_be_split(day.stage, day.db, day.sandbox)
    books = Books([], [], {})

    for number in range(days):
        await day.until(9, 5, days=number)
        await sell(day, books, clients, chance)
        await regret(day, books, chance)
        await do_more(day, doings, books.payments, chance)
        await day.stage.idle()
        await day.until(13, days=number)
        await assert_every_invariant(day.stage)
    for number in (days, days + 1):
        await day.until(13, days=number)
        await day.stage.advance(hours=2)

    found = await unexplained(day.stage)
    assert found == {}, await open_breaks(day)
    await assert_every_invariant(day.stage)
    states = await day.db.fetch(
        "select state, count(*) as n, coalesce(sum(payment_amount), 0)::bigint as fen"
        " from bill_file where superseded_at is null group by state",
        (),
    )
    assert {row["state"] for row in states} <= {"matched", "empty"}
    assert await compared(day) >= {"wechat_pay.funds", "wechat_pay.splits", "alipay.funds"}
    [paid] = await day.db.fetch(
        "select count(*) as n, coalesce(sum(amount), 0)::bigint as fen from payout"
        " where state = 'succeeded'",
        (),
    )
    assert paid["n"] > 0
    held = chosen((), day.clearing.flow.licence)
    broken = [each for each in await run_invariants(day.db, day.clearing.flow.licence, held)
              if each.breaches]  # fmt: skip
    assert broken == []
    assert doings.counts.keys() >= {"splits", "transfer batches", "adjustments"}
    await one_fen_too_much(day)
    assert await unexplained(day.stage) == {"channel fees": -1}, "a stray fen is seen"
    if "TONGBAO_MONTH" in os.environ:
        took = time.monotonic() - began
        told = [tuple(row) for row in states]
        done = {**books.counts, **doings.counts}
        sys.stdout.write(f"{SIZE}: {done} {told} {tuple(paid)} {took:.0f} s\n")

"""Random days of trade, settled in random order of events: every fen is settled once."""

from __future__ import annotations

import asyncio
import random
from contextlib import asynccontextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from tests.clearing.books import FIRST_DAY, Books, open_books
from tests.clearing.settling import settle_day
from tongbao.clearing.context import Clearing
from tongbao.clearing.settlement import closing
from tongbao.clearing.settlement import settlements as room
from tongbao.clearing.settlement.drawing import Wanted, draw
from tongbao.clearing.settlement.model import AccountHeldBack
from tongbao.clearing.settlement_terms.queries import holds_of_merchant
from tongbao.clearing.settlement_terms.terms import lift_hold
from tongbao.infra.db import Db, Tx
from tongbao.ledger.model import AccountState
from tongbao.ledger.verify import verify
from tongbao.parties.merchants.merchants import SANDBOX_BOOK

WAITING = """
    select count(*) from pg_stat_activity
     where datname = current_database() and wait_event_type = 'Lock'"""


@pytest.fixture
async def books(db: Db, tmp_path: Path) -> Books:
    return await open_books(db, tmp_path)


async def trade(books: Books, chance: random.Random) -> None:
    """One thing that may happen to a merchant."""
    match chance.randrange(6):
        case 0 | 1 | 2:
            gross = chance.randrange(1, 50_000)
            await books.capture(gross, chance.randrange(gross // 50 + 1))
        case 3 | 4:
            gross = chance.randrange(1, 60_000)
            await books.hold(gross, chance.randrange(gross // 50 + 1))
        case _:
            if books.held:
                place = chance.randrange(len(books.held))
                await books.end_refund(place, succeeds=chance.random() < 0.7)


@pytest.mark.parametrize("seed", range(4))
async def test_every_movement_is_settled_once_and_the_figures_are_the_ledgers(
    books: Books, seed: int
) -> None:
    chance = random.Random(seed)
    last = FIRST_DAY
    for number in range(14):
        day = FIRST_DAY + timedelta(days=number)
        books.at(day, 9)
        for _ in range(chance.randrange(6)):
            await trade(books, chance)
        books.at(day, 11, 30)
        if chance.random() < 0.75:
            for _ in range(chance.randrange(1, 3)):
                await books.settle(day - timedelta(days=1))
            last = day - timedelta(days=1)
        await books.end_payouts(chance)
        for _ in range(chance.randrange(4)):
            await trade(books, chance)
        await check(books, last)
    report = await verify(books.db)
    assert report.is_sound, report.broken


async def check(books: Books, last: date) -> None:
    """What must hold after every day, whatever happened."""
    settled = await books.db.fetch("select * from settlement order by day", ())
    lines = await books.db.fetch("select * from settlement_line order by seq", ())
    by_settlement: dict[UUID, list[Any]] = {}
    for line in lines:
        by_settlement.setdefault(line["settlement_id"], []).append(line)
    carried, previous = 0, None
    for row in settled:
        mine = by_settlement.get(row["id"], [])
        assert row["previous_id"] == previous
        assert row["opening"] == carried
        assert row["due"] == row["opening"] + sum(line["amount"] for line in mine)
        assert row["line_count"] == len(mine)
        carried, previous = row["carried"], row["id"]
    movements = await books.db.fetch(
        """select t.seq, t.biz_date,
                  case when t.credit_account = a.id then t.amount else -t.amount end as change
             from ledger_transfer t
             join ledger_account a
               on a.book = t.book and a.id in (t.debit_account, t.credit_account)
             join ledger_code c on c.number = t.code
            where a.kind = 'merchant_payable' and a.owner = $1 and t.kind in (1, 3)
              and c.code not like 'settlement.closed/%'""",
        (books.merchant.id,),
    )
    was_settled = bool(settled) and settled[-1]["day"] >= last
    for movement in movements:
        found = [line for line in lines if line["seq"] == movement["seq"]]
        assert len(found) <= 1
        if found:
            assert found[0]["amount"] == movement["change"]
        elif was_settled:
            assert movement["biz_date"] > settled[-1]["day"]
    paid_out = sum(row["payable"] for row in settled)
    left = sum(movement["change"] for movement in movements) - paid_out
    assert await books.posted(books.payable) == left
    ended = await books.db.fetch(
        "select coalesce(sum(amount), 0)::bigint as sum from payout where ended_at is not null", ()
    )
    assert await books.posted(books.due) == paid_out - ended[0]["sum"]


# Two at once


@asynccontextmanager
async def held_head(db: Db) -> Any:
    """Keep the book's head, so that whoever posts stops just before the commit."""
    async with db.begin("by hand") as tx:
        await tx.execute(
            "select 1 from ledger_book where book = $1 for no key update", (SANDBOX_BOOK,)
        )
        yield


async def waiting(books: Books, count: int) -> None:
    """Return once so many wait: one in its commit, the others for the book to decide on them."""
    ledger = books.ledger
    async with asyncio.timeout(30):
        while await books.db.pool.fetchval(WAITING) + ledger.waiting(SANDBOX_BOOK) != count:  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def test_of_two_who_close_a_day_at_once_one_does_and_the_other_sees_it(books: Books) -> None:
    await books.capture(1_000, 10)
    books.at(FIRST_DAY + timedelta(days=1), 11, 30)

    async with held_head(books.db):
        one = asyncio.create_task(books.settle(FIRST_DAY))
        await waiting(books, 1)  # it has written everything and waits for the head
        two = asyncio.create_task(books.settle(FIRST_DAY))
        await waiting(books, 2)  # for the same place in the chain
    first, second = await one, await two

    assert first == second
    assert first[0].payable == 990
    assert await books.posted(books.due) == 990
    [row] = await books.db.fetch("select count(*) as count from settlement", ())
    assert row["count"] == 1


async def test_two_days_closed_at_once_are_a_chain_all_the_same(books: Books) -> None:
    await books.capture(1_000, 10)
    books.at(FIRST_DAY + timedelta(days=1), 9)
    await books.capture(2_000, 20)
    books.at(FIRST_DAY + timedelta(days=2), 11, 30)

    async with held_head(books.db):
        one = asyncio.create_task(books.settle(FIRST_DAY))
        await waiting(books, 1)
        two = asyncio.create_task(books.settle(FIRST_DAY + timedelta(days=1)))
        await waiting(books, 2)
    [first], [second] = await one, await two

    assert (first.gross, second.gross) == (1_000, 2_000)
    assert second.previous_id == first.id
    await check(books, FIRST_DAY + timedelta(days=1))


async def test_a_refund_that_comes_in_between_leaves_less_to_pay(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The balance was read, then a refund held some: the floor says no, and it starts over."""
    await books.capture(1_000, 0)
    books.at(FIRST_DAY + timedelta(days=1), 11, 30)
    raced = []

    async def refund_then_close(context: Clearing, drafts: Any) -> Any:
        if not raced:
            raced.append(await books.hold(400, 0))
        return await closing.close_drawn(context, drafts)

    monkeypatch.setattr(room, "close_drawn", refund_then_close)

    [settlement] = await books.settle(FIRST_DAY)

    assert raced == [True]
    assert (settlement.due, settlement.payable, settlement.carried) == (1_000, 600, 400)
    await check(books, FIRST_DAY)
    report = await verify(books.db)
    assert report.is_sound, report.broken


async def drawn(books: Books) -> list[Any]:
    """Something to pay, drawn and not released."""
    await books.capture(1_000, 0)
    books.at(FIRST_DAY + timedelta(days=1), 11, 30)
    return (await draw(books.clearing, [books.merchant], Wanted(books.mode, FIRST_DAY))).new


async def keep_back(books: Books, tx: Tx, amount: int | None = None) -> None:
    await closing.hold_back(tx, books.merchant, books.mode, amount=amount, reason="court order")


async def test_a_hold_placed_after_the_last_look_is_met_in_the_commit(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    drafts = await drawn(books)
    real, raced = closing._submit, []

    async def held_first(*how: Any) -> Any:
        if not raced:
            raced.append(how)
            async with books.db.begin("operator:anna") as tx:
                await keep_back(books, tx, 300)
        return await real(*how)

    monkeypatch.setattr(closing, "_submit", held_first)

    closed = await closing.close_drawn(books.clearing, drafts)

    assert [(each.payable, each.carried) for each in closed.now] == [(700, 300)]
    await check(books, FIRST_DAY)


async def test_who_holds_waits_for_the_release_under_way_and_lets_none_begin(books: Books) -> None:
    drafts = await drawn(books)

    async def hold() -> None:
        async with books.db.begin("operator:anna") as tx:
            await keep_back(books, tx)

    async with held_head(books.db):
        release = asyncio.create_task(closing.close_drawn(books.clearing, drafts))
        await waiting(books, 1)
        holding = asyncio.create_task(hold())
        await waiting(books, 2)  # for the row that is being closed
        assert not holding.done()
    await holding
    closed = await release
    assert [each.payable for each in closed.now] == [1_000], "it was released before the hold"

    books.at(FIRST_DAY + timedelta(days=1), 12)
    await books.capture(500, 0)
    books.at(FIRST_DAY + timedelta(days=2), 11, 30)
    next_day = Wanted(books.mode, FIRST_DAY + timedelta(days=1))
    [hold_now] = await holds_of_merchant(books.db, books.merchant.id, books.mode)
    async with books.db.begin("operator:bert") as tx:
        await lift_hold(tx, hold_now)
    drafts = (await draw(books.clearing, [books.merchant], next_day)).new
    async with books.db.begin("operator:anna") as tx:
        await keep_back(books, tx)
        release = asyncio.create_task(closing.close_drawn(books.clearing, drafts))
        await waiting(books, 1)
    closed = await release
    assert [(each.payable, each.carried) for each in closed.now] == [(0, 500)]
    await check(books, FIRST_DAY + timedelta(days=1))


async def test_a_movement_committed_after_its_days_settlement_is_in_the_next(books: Books) -> None:
    """A posting begun just before midnight may be committed after the day was settled."""
    books.at(FIRST_DAY, 23, 59)
    await books.capture(1_000, 0)
    books.at(FIRST_DAY + timedelta(days=1), 9)
    await books.capture(7, 0)
    books.at(FIRST_DAY + timedelta(days=1), 11, 30)
    await books.settle(FIRST_DAY)
    books.at(FIRST_DAY, 23, 59)
    await books.capture(500, 0)

    books.at(FIRST_DAY + timedelta(days=2), 11, 30)
    [settlement] = await books.settle(FIRST_DAY + timedelta(days=1))

    assert settlement.gross == 507
    await check(books, FIRST_DAY + timedelta(days=1))
    books.at(FIRST_DAY + timedelta(days=3), 11, 30)
    assert await books.settle(FIRST_DAY + timedelta(days=2)) == []


async def test_a_frozen_account_is_left_out_and_settled_whole_when_it_is_thawed(
    books: Books,
) -> None:
    await books.capture(1_000, 0)
    books.at(FIRST_DAY + timedelta(days=1), 11, 30)
    where = (SANDBOX_BOOK, books.payable)
    why = {"actor": "operator:anna", "because": "court order"}
    await books.ledger.set_account_state(*where, AccountState.FROZEN, **why)

    with pytest.raises(AccountHeldBack):
        await books.settle(FIRST_DAY)
    assert await settle_day(books.clearing, FIRST_DAY) == []
    await books.ledger.set_account_state(*where, AccountState.OPEN, **why)

    [settlement] = await books.settle(FIRST_DAY)
    assert settlement.payable == 1_000
    await check(books, FIRST_DAY)

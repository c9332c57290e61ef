"""Split accounts: parts in several books that are one account, filled up and never overdrawn."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest

from tests.ledger.making import ALICE, MERCHANT
from tests.ledger.movements.moving import fund, pay, posted
from tongbao.infra.audit import entries_of_subject
from tongbao.kernel.ids import new_id
from tongbao.ledger.model import AccountKey
from tongbao.ledger.movements.crossings import complete
from tongbao.ledger.movements.model import Shift, SplitInvalid, SplitNotFound
from tongbao.ledger.movements.queries import moving_since, transit_pairs
from tongbao.ledger.movements.splits import (
    RebalanceSplits,
    list_splits,
    place_by_quota,
    rebalance,
    run_rebalance_splits,
    set_split,
    split_balance,
    split_of,
)

CAMPAIGN = AccountKey("subsidy", "CNY", UUID(int=0xCA11))


@pytest.fixture
async def split(db, ledger):
    async with db.begin("tests") as tx:
        return await set_split(tx, CAMPAIGN, [1, 2, 3], low=100, target=500)


async def bring(db, ledger):
    for book in (1, 2, 3):
        for each in await moving_since(db, book, db.clock.now()):
            await complete(db, ledger, book, each.id)


async def test_the_parts_are_shown_as_one_account(db, ledger, split):
    await fund(ledger, CAMPAIGN, 1000, book=1)
    await fund(ledger, CAMPAIGN, 300, book=2)
    balance = await split_balance(db, split)
    assert (balance.posted, balance.available, balance.held, balance.moving) == (1300, 1300, 0, 0)
    assert [balance.parts[book].posted for book in (1, 2, 3)] == [1000, 300, 0]


async def test_what_moves_between_parts_is_still_the_accounts_money(db, ledger, split):
    await fund(ledger, CAMPAIGN, 1000, book=1)
    done = await rebalance(db, ledger, split)
    assert [shift for shift, _ in done] == [Shift(1, 2, 500)]
    balance = await split_balance(db, split)
    assert (balance.posted, balance.moving, balance.available) == (1000, 500, 500)
    await bring(db, ledger)
    balance = await split_balance(db, split)
    assert (balance.posted, balance.moving, balance.available) == (1000, 0, 1000)


async def test_parts_that_run_low_are_filled_to_their_target(db, ledger, split):
    await fund(ledger, CAMPAIGN, 5000, book=1)
    await fund(ledger, CAMPAIGN, 99, book=3)
    await rebalance(db, ledger, split)
    await bring(db, ledger)
    assert [await posted(db, CAMPAIGN, book=book) for book in (1, 2, 3)] == [4099, 500, 500]
    assert await rebalance(db, ledger, split) == []
    assert not any(pair.breach for pair in await transit_pairs(db))


async def test_what_is_on_its_way_is_not_sent_twice(db, ledger, split):
    await fund(ledger, CAMPAIGN, 5000, book=1)
    assert len(await rebalance(db, ledger, split)) == 2
    assert await rebalance(db, ledger, split) == []


async def test_rebalancing_beside_spending_overdraws_nobody_and_loses_nothing(db, ledger, split):
    await fund(ledger, CAMPAIGN, 3000, book=1)
    spent = []

    async def spend():
        for _ in range(40):
            payment = new_id()
            book = await place_by_quota(db, split, payment, 7)
            result = await pay(ledger, CAMPAIGN, MERCHANT, 7, book=book)
            assert result.status == "created" or result.code == "ledger.exceeds_balance"
            spent.append(7 if result.happened else 0)

    async def balance():
        for _ in range(10):
            await rebalance(db, ledger, split)
            await bring(db, ledger)

    await asyncio.gather(spend(), spend(), balance())
    await bring(db, ledger)
    assert sum(spent) > 0
    whole = await split_balance(db, split)
    assert whole.posted == 3000 - sum(spent)
    assert all(part.available >= 0 for part in whole.parts.values())


async def test_the_round_serves_every_split_account(db, ledger, split):
    await fund(ledger, CAMPAIGN, 5000, book=1)
    await run_rebalance_splits(db, ledger, RebalanceSplits(), None)
    await bring(db, ledger)
    assert await posted(db, CAMPAIGN, book=3) == 500


async def test_a_split_names_open_books_once_and_a_low_under_its_target(db, ledger):
    for books, low, target in (
        ([], 1, 2),
        ([1, 1], 1, 2),
        ([1, 9], 1, 2),
        ([1, 2], 2, 2),
        ([1, 2], -1, 2),
    ):
        async with db.begin("tests") as tx:
            with pytest.raises(SplitInvalid):
                await set_split(tx, CAMPAIGN, books, low=low, target=target)
    with pytest.raises(SplitNotFound):
        await split_of(db, ALICE)


async def test_a_split_can_be_changed_and_the_audit_log_knows(db, ledger, split):
    async with db.begin("tests") as tx:
        await set_split(tx, CAMPAIGN, [3, 1], low=0, target=9)
    found = await split_of(db, CAMPAIGN)
    assert (found.books, found.low, found.target) == ([1, 3], 0, 9)
    assert await list_splits(db) == [found]
    entries = await entries_of_subject(db, f"account subsidy {CAMPAIGN.owner} CNY")
    assert [each.facts["books"] for each in entries] == ["1,2,3", "1,3"]

"""Accounts that move to another book: with all their money and limits, and nothing behind."""

from __future__ import annotations

import asyncio

import pytest

from tests.ledger.making import ALICE, BANK, BOB, group, pending, void
from tests.ledger.movements.moving import fund, order, pay, posted
from tongbao.ledger.model import (
    AccountKey,
    AccountMissing,
    AccountNotEmpty,
    AccountState,
    BookMissing,
)
from tongbao.ledger.movements.crossings import move
from tongbao.ledger.movements.model import (
    AccountHasHolds,
    AccountNotMovable,
    MovementUnfinished,
    MovementWithinBook,
)
from tongbao.ledger.movements.queries import transit_pairs
from tongbao.ledger.movements.relocation import move_account
from tongbao.ledger.queries import balance_of


async def relocate(db, ledger, key=ALICE, book=1, to_book=2):
    return await move_account(db, ledger, book, key, to_book=to_book, actor="tests")


async def state_of(db, key=ALICE, book=1):
    return (await balance_of(db, book, key)).state


@pytest.fixture
async def funded(ledger):
    await fund(ledger, ALICE, 1000)
    return ledger


async def test_an_account_moves_with_its_money_and_closes_behind_itself(db, funded):
    moved = await relocate(db, funded)
    assert (moved.amount, moved.to_book) == (1000, 2)
    assert await posted(db, ALICE, book=2) == 1000
    assert await state_of(db) is AccountState.CLOSED
    assert (await pay(funded, ALICE, BANK, 400, book=2)).happened
    assert all(pair.in_flight == 0 for pair in await transit_pairs(db))


async def test_an_empty_account_just_closes(db, funded):
    assert (await pay(funded, ALICE, BANK, 1000)).happened
    assert (await relocate(db, funded)).amount == 0
    assert await state_of(db) is AccountState.CLOSED


async def test_its_own_limits_go_with_it(db, funded):
    await funded.set_account_limits(
        1, ALICE, floor=-50, ceiling=2000, actor="tests", because="test"
    )
    await relocate(db, funded)
    assert (await pay(funded, ALICE, BANK, 1050, book=2)).happened
    assert (await pay(funded, ALICE, BANK, 1, book=2)).code == "ledger.exceeds_balance"
    assert (await pay(funded, BANK, ALICE, 2051, book=2)).code == "ledger.exceeds_ceiling"


async def test_an_account_with_open_holds_stays(db, funded):
    hold = pending(10, ALICE, BANK)
    await funded.submit([group(hold)])
    with pytest.raises(AccountHasHolds):
        await relocate(db, funded)
    await funded.submit([group(void(hold))])
    assert (await relocate(db, funded)).amount == 1000


async def test_money_that_comes_in_meanwhile_goes_along(db, funded):
    async def earn():
        return [await pay(funded, BANK, ALICE, 1) for _ in range(30)]

    earned, moved = await asyncio.gather(earn(), relocate(db, funded), return_exceptions=True)
    if isinstance(moved, AccountNotEmpty):
        moved = await relocate(db, funded)
    came_in = sum(result.happened for result in earned)
    assert await posted(db, ALICE, book=2) == 1000 + came_in
    assert await state_of(db) is AccountState.CLOSED


async def test_a_book_that_stands_still_is_waited_for_and_the_command_repeated(db, funded):
    await funded.set_book_frozen(2, True, actor="tests", because="test")
    for _ in range(2):
        with pytest.raises(MovementUnfinished):
            await relocate(db, funded)
    assert await state_of(db) is AccountState.OPEN
    await funded.set_book_frozen(2, False, actor="tests", because="test")
    await relocate(db, funded)
    assert await posted(db, ALICE, book=2) == 1000
    assert await state_of(db) is AccountState.CLOSED


async def test_earlier_money_that_comes_back_is_waited_for(db, funded):
    await fund(funded, BOB, 1, book=3)
    assert (await pay(funded, BOB, BANK, 1, book=3)).happened
    await funded.set_account_state(3, BOB, AccountState.CLOSED, actor="tests", because="test")
    await move(db, funded, order(ALICE, BOB, 400, to_book=3))
    moved = await relocate(db, funded)
    assert moved.amount == 1000


async def test_a_new_book_that_refuses_it_leaves_it_where_it_was(db, funded):
    await fund(funded, ALICE, 5, book=2)
    await funded.set_account_limits(2, ALICE, floor=0, ceiling=9, actor="tests", because="test")
    with pytest.raises(AccountNotMovable):
        await relocate(db, funded)
    assert await posted(db, ALICE) == 1000
    assert await state_of(db) is AccountState.OPEN


async def test_what_cannot_move_says_why(db, funded):
    with pytest.raises(MovementWithinBook):
        await relocate(db, funded, to_book=1)
    with pytest.raises(BookMissing):
        await relocate(db, funded, to_book=9)
    with pytest.raises(AccountNotMovable):
        await relocate(db, funded, key=BANK)
    with pytest.raises(AccountNotMovable):
        await relocate(db, funded, key=AccountKey("e_account", "CNY", ALICE.owner))
    with pytest.raises(AccountMissing):
        await relocate(db, funded, key=AccountKey("wallet", "USD", ALICE.owner))
    await funded.set_account_state(1, ALICE, AccountState.FROZEN, actor="tests", because="test")
    with pytest.raises(AccountNotMovable):
        await relocate(db, funded)

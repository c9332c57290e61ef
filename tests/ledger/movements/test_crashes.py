"""Dying between the legs of a movement loses nothing and doubles nothing."""

from __future__ import annotations

from uuid import UUID

import pytest

from tests.ledger.making import ALICE, BANK, BOB
from tests.ledger.movements.moving import fund, order, pay, posted
from tongbao.infra import failpoints
from tongbao.infra.failpoints import SimulatedCrash
from tongbao.kernel.licence import Licence
from tongbao.ledger.book import Ledger
from tongbao.ledger.model import AccountState
from tongbao.ledger.movements.crossings import CompleteMovement, move, run_complete_movement
from tongbao.ledger.movements.queries import moving_since, transit_pairs
from tongbao.ledger.movements.relocation import move_account
from tongbao.ledger.queries import balance_of

LEGS = ("ledger.after_leg_out", "ledger.before_leg_in", "ledger.after_leg_in")


async def bring(db, ledger):
    """Do what a worker of the next process does with the task that is there."""
    for row in await db.pool.fetch("select args from task where type = 'ledger.complete_movement'"):
        task = CompleteMovement(row["args"]["book"], UUID(row["args"]["movement_id"]))
        await run_complete_movement(db, ledger, task, None)


async def go(db, ledger, wanted):
    await move(db, ledger, wanted)
    await bring(db, ledger)


async def drained(db):
    pairs = await transit_pairs(db)
    return all(pair.in_flight == 0 and not pair.breach for pair in pairs)


@pytest.fixture
async def next_ledger(db, ledger):
    """The door of a process that starts after ours died."""
    after = Ledger(db, Licence.PAYMENT_INSTITUTION)
    yield after
    await after.close()


@pytest.mark.parametrize("place", LEGS)
@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize("refused", [False, True])
async def test_a_movement_whose_process_died_comes_to_its_end(
    db, ledger, next_ledger, place, held, refused
):
    await fund(ledger, ALICE, 1000)
    if refused:
        await fund(ledger, BOB, 1, book=2)
        assert (await pay(ledger, BOB, BANK, 1, book=2)).happened
        await ledger.set_account_state(2, BOB, AccountState.CLOSED, actor="tests", because="test")
    wanted = order(ALICE, BOB, 300, held=held)
    failpoints.arm(f"{place}:raise")
    with pytest.raises(SimulatedCrash):
        await go(db, ledger, wanted)
    failpoints.arm(None)
    assert (await move(db, next_ledger, wanted)).status == "exists"
    await bring(db, next_ledger)
    assert await moving_since(db, 1, db.clock.now()) == []
    assert await drained(db)
    balance = await balance_of(db, 1, ALICE)
    assert (balance.posted, balance.held) == ((1000, 0) if refused else (700, 0))
    assert await posted(db, BOB, book=2) == (0 if refused else 300)


@pytest.mark.parametrize("place", [*LEGS, "ledger.before_account_closed"])
async def test_an_account_whose_move_died_moves_when_asked_again(db, ledger, next_ledger, place):
    await fund(ledger, ALICE, 1000)
    failpoints.arm(f"{place}:raise")
    with pytest.raises(SimulatedCrash):
        await move_account(db, ledger, 1, ALICE, to_book=2, actor="tests")
    failpoints.arm(None)
    await move_account(db, next_ledger, 1, ALICE, to_book=2, actor="tests")
    assert await posted(db, ALICE, book=2) == 1000
    assert (await balance_of(db, 1, ALICE)).state is AccountState.CLOSED
    assert await drained(db)

"""Money between books: it leaves once, arrives once, or comes back, whatever happens between."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from prometheus_client import REGISTRY

from tests.ledger.making import ALICE, BANK, BOB, MERCHANT
from tests.ledger.movements.moving import fund, order, pay, posted
from tongbao.infra.tasks import Again
from tongbao.kernel.ids import new_id
from tongbao.kernel.money import CurrencyMismatch
from tongbao.ledger.model import (
    AccountKey,
    AccountState,
    BookMissing,
    TransferAmountInvalid,
)
from tongbao.ledger.movements.crossings import (
    CompleteMovement,
    cancel,
    complete,
    move,
    run_complete_movement,
)
from tongbao.ledger.movements.model import MovementNotFound, MovementWithinBook
from tongbao.ledger.movements.queries import (
    WatchMovements,
    movement_of,
    moving_since,
    run_watch_movements,
    transit_pairs,
)
from tongbao.ledger.queries import balance_of, transfers_of_reference
from tongbao.ledger.rules.chart import book_owner
from tongbao.ledger.rules.posting import FactsDiffer

OUT = AccountKey("in_transit_out", "CNY", book_owner(2))
IN = AccountKey("in_transit_in", "CNY", book_owner(1))
SUSPENSE = AccountKey("suspense", "CNY")


@pytest.fixture
async def funded(ledger):
    await fund(ledger, ALICE, 1000)
    return ledger


async def close_bob(ledger, book=2):
    await fund(ledger, BOB, 1, book=book)
    assert (await pay(ledger, BOB, BANK, 1, book=book)).happened
    await ledger.set_account_state(book, BOB, AccountState.CLOSED, actor="tests", because="test")


async def drained(db):
    return all(pair.in_flight == 0 and not pair.breach for pair in await transit_pairs(db))


async def tasks_waiting(db):
    return await db.pool.fetchval(
        "select count(*) from task where type = 'ledger.complete_movement'"
    )


async def test_money_leaves_one_book_and_arrives_in_the_other(db, funded):
    wanted = order(ALICE, BOB, 300)
    result = await move(db, funded, wanted)
    assert result.status == "created"
    assert await posted(db, ALICE) == 700
    assert await posted(db, OUT) == 300
    assert await posted(db, BOB, book=2) == 0
    [pair] = await transit_pairs(db)
    assert (pair.book, pair.to_book, pair.in_flight, pair.breach) == (1, 2, 300, "")
    movement = await complete(db, funded, 1, wanted.id)
    assert (movement.state, movement.code) == ("arrived", None)
    assert await posted(db, BOB, book=2) == 300
    assert await posted(db, IN, book=2) == 300
    assert await drained(db)


async def test_the_second_leg_is_asked_for_in_the_commit_of_the_first(db, funded):
    wanted = order(ALICE, BOB, 300)
    await move(db, funded, wanted)
    assert await tasks_waiting(db) == 1
    task = CompleteMovement(1, wanted.id)
    assert await run_complete_movement(db, funded, task, None) is None
    assert await posted(db, BOB, book=2) == 300


async def test_both_legs_are_found_by_the_reference_in_their_books(db, funded):
    wanted = order(ALICE, MERCHANT, 300)
    await move(db, funded, wanted)
    await complete(db, funded, 1, wanted.id)
    [left] = await transfers_of_reference(db, 1, wanted.reference)
    [came] = await transfers_of_reference(db, 2, wanted.reference)
    assert (left.code, left.debit, left.credit) == ("cross_book.out/amount", ALICE, OUT)
    assert (came.code, came.debit, came.credit) == ("cross_book.in/amount", IN, MERCHANT)
    assert left.id == wanted.id


async def test_repeating_any_step_changes_nothing(db, funded):
    wanted = order(ALICE, BOB, 300)
    for status in ("created", "exists"):
        assert (await move(db, funded, wanted)).status == status
    for _ in range(3):
        assert (await complete(db, funded, 1, wanted.id)).state == "arrived"
    assert (await move(db, funded, wanted)).status == "exists"
    assert await posted(db, BOB, book=2) == 300
    assert await posted(db, ALICE) == 700


async def test_many_who_complete_at_once_move_the_money_once(db, funded):
    wanted = order(ALICE, BOB, 300)
    await move(db, funded, wanted)
    ended = await asyncio.gather(*(complete(db, funded, 1, wanted.id) for _ in range(8)))
    assert {each.state.value for each in ended} <= {"arrived", "moving"}
    assert await posted(db, BOB, book=2) == 300
    assert await drained(db)


async def test_a_payer_without_the_money_is_refused_and_nothing_moves(db, funded):
    wanted = order(ALICE, BOB, 1001)
    result = await move(db, funded, wanted)
    assert (result.status, result.code) == ("refused", "ledger.exceeds_balance")
    assert await tasks_waiting(db) == 0
    with pytest.raises(MovementNotFound):
        await movement_of(db, 1, wanted.id)


async def test_a_payee_that_is_closed_sends_the_money_back(db, funded):
    await close_bob(funded)
    wanted = order(ALICE, BOB, 300)
    await move(db, funded, wanted)
    for _ in range(2):
        movement = await complete(db, funded, 1, wanted.id)
        assert (movement.state, movement.code) == ("returned", "ledger.account_closed")
    assert await posted(db, ALICE) == 1000
    assert await drained(db)
    codes = [each.code for each in await transfers_of_reference(db, 1, wanted.reference)]
    assert codes == ["cross_book.out/amount", "cross_book.returned/amount"]


async def test_money_that_can_neither_arrive_nor_come_back_is_in_suspense(db, funded):
    await close_bob(funded)
    wanted = order(ALICE, BOB, 1000)
    await move(db, funded, wanted)
    await funded.set_account_state(1, ALICE, AccountState.CLOSED, actor="tests", because="test")
    for _ in range(2):
        movement = await complete(db, funded, 1, wanted.id)
        assert movement.state == "suspended"
    assert await posted(db, SUSPENSE) == 1000
    assert await drained(db)


async def test_a_frozen_book_delays_what_goes_there(db, funded):
    await funded.set_book_frozen(2, True, actor="tests", because="test")
    wanted = order(ALICE, BOB, 300)
    await move(db, funded, wanted)
    assert (await complete(db, funded, 1, wanted.id)).state == "moving"
    task = CompleteMovement(1, wanted.id)
    assert isinstance(await run_complete_movement(db, funded, task, None), Again)
    await funded.set_book_frozen(2, False, actor="tests", because="test")
    assert (await complete(db, funded, 1, wanted.id)).state == "arrived"


async def test_a_held_movement_takes_the_money_after_it_has_arrived(db, funded):
    wanted = order(ALICE, BOB, 300, held=True)
    assert (await move(db, funded, wanted)).status == "created"
    balance = await balance_of(db, 1, ALICE)
    assert (balance.posted, balance.held) == (1000, 300)
    [pair] = await transit_pairs(db)
    assert pair.in_flight == 300
    assert (await complete(db, funded, 1, wanted.id)).state == "arrived"
    balance = await balance_of(db, 1, ALICE)
    assert (balance.posted, balance.held) == (700, 0)
    assert await posted(db, BOB, book=2) == 300
    assert await drained(db)


async def test_a_held_movement_that_cannot_arrive_is_released(db, funded):
    await close_bob(funded)
    wanted = order(ALICE, BOB, 300, held=True)
    await move(db, funded, wanted)
    assert (await complete(db, funded, 1, wanted.id)).state == "returned"
    balance = await balance_of(db, 1, ALICE)
    assert (balance.posted, balance.held) == (1000, 0)


async def test_a_held_movement_can_be_cancelled_before_it_arrives(db, funded):
    wanted = order(ALICE, BOB, 300, held=True)
    await move(db, funded, wanted)
    assert (await cancel(db, funded, 1, wanted.id)).status == "created"
    assert (await complete(db, funded, 1, wanted.id)).state == "cancelled"
    balance = await balance_of(db, 1, ALICE)
    assert (balance.posted, balance.held) == (1000, 0)
    assert await posted(db, BOB, book=2) == 0


async def test_what_may_have_arrived_cannot_be_cancelled(db, funded):
    """Book 2 stands still after the movement has begun to arrive; a later release still works."""
    await close_bob(funded)
    await funded.set_book_frozen(2, True, actor="tests", because="test")
    wanted = order(ALICE, BOB, 300, held=True)
    await move(db, funded, wanted)
    assert (await complete(db, funded, 1, wanted.id)).state == "arriving"
    result = await cancel(db, funded, 1, wanted.id)
    assert (result.status, result.code) == ("refused", "ledger.movement_not_cancellable")
    await funded.set_book_frozen(2, False, actor="tests", because="test")
    assert (await complete(db, funded, 1, wanted.id)).state == "returned"
    assert (await balance_of(db, 1, ALICE)).held == 0


async def test_cancelling_and_arriving_at_once_never_does_both(db, funded):
    for _ in range(10):
        wanted = order(ALICE, BOB, 10, held=True)
        await move(db, funded, wanted)
        await asyncio.gather(complete(db, funded, 1, wanted.id), cancel(db, funded, 1, wanted.id))
        await complete(db, funded, 1, wanted.id)
    arrived = await posted(db, BOB, book=2)
    assert await posted(db, ALICE) == 1000 - arrived
    assert await drained(db)


async def test_what_was_not_held_cannot_be_cancelled(db, funded):
    wanted = order(ALICE, BOB, 300)
    await move(db, funded, wanted)
    assert (await cancel(db, funded, 1, wanted.id)).code == "ledger.movement_not_cancellable"


async def test_orders_that_make_no_sense_are_refused(db, funded):
    with pytest.raises(MovementWithinBook):
        await move(db, funded, order(ALICE, BOB, 1, to_book=1))
    with pytest.raises(BookMissing):
        await move(db, funded, order(ALICE, BOB, 1, to_book=9))
    with pytest.raises(TransferAmountInvalid):
        await move(db, funded, order(ALICE, BOB, 0))
    with pytest.raises(FactsDiffer):
        await move(db, funded, order(ALICE, BOB, 1, rule="red_packet"))
    with pytest.raises(FactsDiffer):
        await move(db, funded, order(ALICE, BOB, 1, rule="quota", held=True))
    with pytest.raises(CurrencyMismatch):
        await move(db, funded, order(AccountKey("wallet", "USD", BOB.owner), ALICE, 1, to_book=2))
    with pytest.raises(MovementNotFound):
        await complete(db, funded, 1, new_id())


async def test_many_movements_both_ways_drain_to_nothing(db, ledger):
    for book in (1, 2, 3):
        for key in (ALICE, BOB):
            await fund(ledger, key, 10_000, book=book)
    wanted = [
        order(
            ALICE, BOB, 1 + n % 7, book=1 + n % 3, to_book=1 + (n + 1 + n % 2) % 3, held=n % 4 == 0
        )
        for n in range(60)
    ]
    results = await asyncio.gather(*(move(db, ledger, each) for each in wanted))
    assert all(result.happened for result in results)
    assert not any(pair.breach for pair in await transit_pairs(db))
    await asyncio.gather(*(complete(db, ledger, each.book, each.id) for each in wanted))
    assert await drained(db)
    total = [await posted(db, key, book=book) for key in (ALICE, BOB) for book in (1, 2, 3)]
    assert sum(total) == 60_000


async def test_a_movement_nobody_brings_is_asked_for_again(db, funded):
    wanted = order(ALICE, BOB, 300)
    await move(db, funded, wanted)
    await db.pool.execute("delete from task")
    await run_watch_movements(db, WatchMovements(), None)
    assert await tasks_waiting(db) == 0  # it is young
    await db.pool.execute(
        "update ledger_movement set made_at = made_at - $1::interval", timedelta(minutes=6)
    )
    for _ in range(2):
        await run_watch_movements(db, WatchMovements(), None)
    assert await tasks_waiting(db) == 1
    assert [each.id for each in await moving_since(db, 1, db.clock.now())] == [wanted.id]


@pytest.mark.parametrize(
    ("change", "breach"),
    [
        ("update ledger_account set debits_posted = 400 where kind = 'in_transit_in'", "more"),
        ("update ledger_account set credits_posted = 400 where kind = 'in_transit_out'", "no"),
    ],
)
async def test_a_pair_that_cannot_be_is_named(db, funded, change, breach):
    wanted = order(ALICE, BOB, 300)
    await move(db, funded, wanted)
    await complete(db, funded, 1, wanted.id)
    await db.pool.execute(change)
    [pair] = await transit_pairs(db)
    assert breach in pair.breach
    await run_watch_movements(db, WatchMovements(), None)
    assert REGISTRY.get_sample_value("tongbao_ledger_transit_breaches") == 1

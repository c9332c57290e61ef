"""Forced interleavings, one per lock: the second comer is made to wait exactly where it must.

The head row of the book is held by hand. A submission then stops just before its commit, with all
its other locks taken, and the next one is seen waiting for those before the first may go on.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from uuid import UUID, uuid4

import pytest
from msgspec.structs import replace

from tests.ledger.making import (
    ALICE,
    BANK,
    BOB,
    MERCHANT,
    NOTES,
    SPENT,
    a_calling_domain,
    group,
    note,
    pending,
    post,
    single,
    spend,
    void,
)
from tongbao.infra import db as database
from tongbao.ledger.model import AccountNotEmpty, AccountState
from tongbao.ledger.queries import balance_of
from tongbao.ledger.verify import verify

WAITING = """
    select count(*) from pg_stat_activity
     where datname = current_database() and wait_event_type = 'Lock'"""


@pytest.fixture(autouse=True)
async def _book_stays_sound(db):
    yield
    report = await verify(db)
    assert report.is_sound, report.broken


async def waiting(db, count):
    """Return once exactly so many backends wait for a lock."""
    async with asyncio.timeout(30):
        while True:
            if await db.pool.fetchval(WAITING) == count:
                return
            await asyncio.sleep(0.005)


class GivenUp(Exception):
    """Whoever held the lock by hand rolls back."""


@asynccontextmanager
async def holding(db, statement, *args, then=None):
    """Keep what a statement locks until the block ends, then commit it, or give it up."""
    with suppress(GivenUp):
        async with db.begin("by hand") as tx:
            await tx.execute(statement, args)
            yield
            if then is not None:
                raise then


def head(db):
    return holding(db, "select 1 from ledger_book where book = 1 for no key update")


def start(ledger, *groups):
    return asyncio.create_task(ledger.submit(groups))


async def codes(*tasks):
    results = [result for task in tasks for result in await task]
    return [result.code or result.status for result in results]


async def one_after_the_other(db, ledger, first, second):
    """Let the first stop before its commit, see the second wait for it, then let both go on."""
    async with head(db):
        one = start(ledger, first)
        await waiting(db, 1)
        two = start(ledger, second)
        await waiting(db, 2)
    return await codes(one, two)


async def test_account_lock_the_second_spender_sees_what_the_first_left(db, ledger):
    await ledger.submit([group(single(100, BANK, ALICE), single(1, BANK, BOB))])
    spends = [group(single(60, ALICE, BOB)), group(single(60, ALICE, MERCHANT))]
    assert await one_after_the_other(db, ledger, *spends) == ["created", "ledger.exceeds_balance"]
    assert (await balance_of(db, 1, ALICE)).posted == 40


async def test_account_lock_a_hold_in_flight_counts_for_the_next(db, ledger):
    await ledger.submit([group(single(100, BANK, ALICE))])
    holds = [group(pending(60, ALICE, BOB)), group(pending(60, ALICE, MERCHANT))]
    assert await one_after_the_other(db, ledger, *holds) == ["created", "ledger.exceeds_balance"]


async def test_account_lock_running_balances_follow_the_order_of_commits(db, ledger):
    groups = [group(single(60, BANK, ALICE)), group(single(40, BANK, ALICE))]
    await ledger.submit([group(single(1, BANK, ALICE))])
    assert await one_after_the_other(db, ledger, *groups) == ["created", "created"]


async def test_group_id_the_second_of_two_concurrent_submissions_exists(db, ledger):
    await ledger.submit([group(single(100, BANK, ALICE))])
    once = group(single(60, ALICE, BOB))
    assert await one_after_the_other(db, ledger, once, once) == ["created", "exists"]
    assert (await balance_of(db, 1, ALICE)).posted == 40


async def test_group_id_the_second_body_is_told_apart_even_while_the_first_runs(db, ledger):
    await ledger.submit([group(single(100, BANK, ALICE))])
    once = group(single(60, ALICE, BOB))
    other = replace(once, transfers=(single(10, ALICE, BOB),))
    decided = await one_after_the_other(db, ledger, once, other)
    assert decided == ["created", "ledger.exists_different"]


async def test_group_id_with_disjoint_accounts_meets_at_its_answer(db, ledger):
    await ledger.submit([group(single(9, BANK, ALICE), single(9, BANK, BOB))])
    once = group(single(1, ALICE, MERCHANT))
    other = replace(once, transfers=(single(2, BOB, replace(MERCHANT, owner=UUID(int=5))),))
    async with head(db):
        tasks = [start(ledger, once), start(ledger, other)]
        await waiting(db, 2)
    assert sorted(await codes(*tasks)) == ["created", "ledger.exists_different"]


async def test_group_id_companions_run_once_though_both_try(db, ledger):
    await a_calling_domain(db)
    once = group(single(5, BANK, ALICE), companions=[spend(1, 40), note("once")])
    assert await one_after_the_other(db, ledger, once, once) == ["created", "exists"]
    assert await NOTES.all(db) == ["once"]
    assert await SPENT.one(db, 1) == 40


async def test_group_id_the_second_of_a_refused_group_gets_the_refusal_of_the_first(db, ledger):
    await a_calling_domain(db)
    guarded = group(single(5, BANK, ALICE), companions=[spend(1, 40)])
    async with holding(db, "update budget set spent = 100"):
        one, two = start(ledger, guarded), start(ledger, guarded)
        await waiting(db, 2)
    assert await codes(one, two) == ["test.over_budget", "test.over_budget"]


async def test_companion_guard_two_groups_cannot_pass_one_limit(db, ledger):
    await a_calling_domain(db)
    refunds = [
        group(single(5, BANK, ALICE), companions=[spend(1, 60), note("first")]),
        group(single(7, BANK, BOB), companions=[spend(1, 60), note("second")]),
    ]
    assert await one_after_the_other(db, ledger, *refunds) == ["created", "test.over_budget"]
    assert await NOTES.all(db) == ["first"]
    assert await SPENT.one(db, 1) == 60
    assert (await balance_of(db, 1, BOB)).posted == 0


@pytest.mark.parametrize(
    ("first", "second", "code"),
    [
        (post, post, "ledger.hold_already_posted"),
        (post, void, "ledger.hold_already_posted"),
        (void, post, "ledger.hold_already_voided"),
    ],
)
async def test_hold_lock_a_hold_ends_once(db, ledger, first, second, code):
    hold = pending(60, ALICE, MERCHANT)
    await ledger.submit([group(single(100, BANK, ALICE), hold)])
    ends = [group(first(hold)), group(second(hold))]
    assert await one_after_the_other(db, ledger, *ends) == ["created", code]


OPEN_BOB = """
    insert into ledger_account
    select book, id + 1000, kind, $1, currency, side, floor, state, 0, 0, 0, 0, opened_at
      from ledger_account where kind = 'wallet'"""


@pytest.mark.parametrize("then", [None, GivenUp])
async def test_account_opening_all_openers_share_one_account(db, ledger, make_db, dsn, then):
    other_process = type(ledger)(await make_db(dsn=dsn), ledger._licence)
    await ledger.submit([group(single(1, BANK, ALICE))])
    async with holding(db, OPEN_BOB, BOB.owner, then=then):
        tasks = [start(each, group(single(5, BANK, BOB))) for each in (ledger, other_process)]
        await waiting(db, 2)
    assert await codes(*tasks) == ["created", "created"]
    assert (await balance_of(db, 1, BOB)).posted == 10
    assert await db.pool.fetchval("select count(*) from ledger_account") == 3


async def test_head_lock_sequence_numbers_have_no_gap_when_a_commit_is_given_up(db, ledger):
    await ledger.submit([group(single(9, BANK, ALICE), single(9, BANK, BOB))])
    async with holding(db, "update ledger_book set last_seq = last_seq + 5", then=GivenUp):
        one = start(ledger, group(single(1, ALICE, MERCHANT)))
        two = start(ledger, group(single(1, BOB, replace(MERCHANT, owner=uuid4()))))
        await waiting(db, 2)
    results = [(await task)[0].seq for task in (one, two)]
    assert sorted(results) == [3, 4]


async def test_head_lock_a_freeze_stops_what_was_already_decided(db, ledger):
    late = group(single(1, BANK, ALICE))
    async with holding(db, "update ledger_book set frozen = true"):
        task = start(ledger, late)
        await waiting(db, 1)
    assert await codes(task) == ["ledger.book_frozen"]
    assert (await balance_of(db, 1, ALICE)).posted == 0
    await ledger.set_book_frozen(1, frozen=False, actor="ann", because="over")
    assert await codes(start(ledger, late)) == ["created"]


async def test_transfer_id_two_groups_cannot_both_post_it(db, ledger):
    await ledger.submit([group(single(9, BANK, ALICE), single(9, BANK, BOB))])
    same = uuid4()
    first = replace(single(1, ALICE, MERCHANT), id=same)
    second = replace(single(2, BOB, replace(MERCHANT, owner=uuid4())), id=same)
    async with head(db):
        tasks = [start(ledger, group(first)), start(ledger, group(second))]
        await waiting(db, 2)
    assert sorted(await codes(*tasks)) == ["created", "ledger.transfer_exists"]


async def test_hold_id_two_groups_cannot_both_open_it(db, ledger):
    await ledger.submit([group(single(9, BANK, ALICE), single(9, BANK, BOB))])
    same = uuid4()
    first = replace(pending(1, ALICE, MERCHANT), id=same)
    second = replace(pending(2, BOB, replace(MERCHANT, owner=uuid4())), id=same)
    async with head(db):
        tasks = [start(ledger, group(first)), start(ledger, group(second))]
        await waiting(db, 2)
    assert sorted(await codes(*tasks)) == ["created", "ledger.transfer_exists"]


async def test_account_state_lock_closing_waits_for_the_posting_before_it(db, ledger):
    await ledger.submit([group(single(5, BANK, ALICE), single(5, ALICE, BOB))])
    async with head(db):
        posting = start(ledger, group(single(1, BANK, ALICE)))
        await waiting(db, 1)
        closing = asyncio.create_task(
            ledger.set_account_state(
                1, ALICE, AccountState.CLOSED, actor="ann", because="customer left"
            )
        )
        await waiting(db, 2)
    assert await codes(posting) == ["created"]
    with pytest.raises(AccountNotEmpty):
        await closing


async def test_a_lock_that_does_not_become_free_is_answered_and_nothing_is_recorded(
    db, dsn, make_db, ledger, monkeypatch
):
    monkeypatch.setitem(database._SESSION, "lock_timeout", "100ms")
    hurried = type(ledger)(await make_db(dsn=dsn), ledger._licence)
    once = group(single(5, BANK, ALICE))
    async with head(db):
        assert await codes(start(hurried, once)) == ["ledger.in_flight"]
    assert await codes(start(hurried, once)) == ["created"]


async def test_eight_submitters_on_four_accounts_never_lock_each_other_out(db, ledger):
    accounts = [replace(ALICE, owner=UUID(int=n + 1)) for n in range(4)]
    await ledger.submit([group(*(single(50, BANK, account) for account in accounts))])

    async def submitter(number):
        results = []
        for step in range(20):
            place = number + step * 3
            giver, taker = accounts[place % 4], accounts[(place * 5 + 1) % 4]
            back = accounts[(place + 2) % 4]
            lines = [single(3, back, giver)]
            lines += [single(41, giver, taker)] if giver != taker else []
            results += await ledger.submit([group(*lines)])
        return results

    every = await asyncio.gather(*(submitter(number) for number in range(8)))
    statuses = [result.status for results in every for result in results]
    assert len(statuses) == 160
    assert set(statuses) == {"created", "refused"}
    deadlocks = "select deadlocks from pg_stat_database where datname = current_database()"
    assert await db.pool.fetchval(deadlocks) == 0
    held = [(await balance_of(db, 1, account)).posted for account in accounts]
    assert sum(held) == 200
    assert min(held) >= 0

"""Forced interleavings: whoever comes second is made to wait exactly where it must.

The head row of the book is held by hand, so that a commit stops with everything decided; a second
process, or a change made past the writer, is then seen waiting before the first may go on.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from uuid import UUID

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
from tongbao.infra.db import Statement, Write
from tongbao.infra.db_failures import DatabaseRefused
from tongbao.kernel.ids import new_id
from tongbao.kernel.licence import Licence
from tongbao.ledger.book import Ledger
from tongbao.ledger.model import AccountNotEmpty, AccountState
from tongbao.ledger.queries import balance_of, books
from tongbao.ledger.verify import verify

WAITING = """
    select count(*) from pg_stat_activity
     where datname = current_database() and wait_event_type = 'Lock'"""


@pytest.fixture(autouse=True)
async def _book_stays_sound(db):
    yield
    report = await verify(db)
    assert report.is_sound, report.broken


@pytest.fixture
async def other(db, dsn, make_db, balances):
    """A second process on the same database that nobody can ask, so that it takes the book."""
    opened = Ledger(await make_db(dsn=dsn), Licence.PAYMENT_INSTITUTION, balances=balances)
    yield opened
    await opened.close()


async def waiting(db, count):
    """Return once exactly so many backends wait for a lock."""
    async with asyncio.timeout(30):
        while await db.pool.fetchval(WAITING) != count:  # noqa: ASYNC110 - no event tells it
            await asyncio.sleep(0.005)


async def queued(ledger, count, book=1):
    """Return once so many callers wait for the book to decide on them."""
    async with asyncio.timeout(30):
        while ledger.waiting(book) != count:  # noqa: ASYNC110 - no event tells it
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
    """Let the first stop in its commit, see the second wait behind it, then let both go on."""
    async with head(db):
        one = start(ledger, first)
        await waiting(db, 1)
        two = start(ledger, second)
        await queued(ledger, 1)
    return await codes(one, two)


async def test_the_second_spender_sees_what_the_first_left(db, ledger):
    await ledger.submit([group(single(100, BANK, ALICE), single(1, BANK, BOB))])
    spends = [group(single(60, ALICE, BOB)), group(single(60, ALICE, MERCHANT))]
    assert await one_after_the_other(db, ledger, *spends) == ["created", "ledger.exceeds_balance"]
    assert (await balance_of(db, 1, ALICE)).posted == 40


async def test_a_hold_in_flight_counts_for_the_next(db, ledger):
    await ledger.submit([group(single(100, BANK, ALICE))])
    holds = [group(pending(60, ALICE, BOB)), group(pending(60, ALICE, MERCHANT))]
    assert await one_after_the_other(db, ledger, *holds) == ["created", "ledger.exceeds_balance"]


async def test_the_second_of_two_concurrent_submissions_exists(db, ledger):
    await ledger.submit([group(single(100, BANK, ALICE))])
    once = group(single(60, ALICE, BOB))
    assert await one_after_the_other(db, ledger, once, once) == ["created", "exists"]
    assert (await balance_of(db, 1, ALICE)).posted == 40


async def test_the_second_body_is_told_apart_even_while_the_first_runs(db, ledger):
    await ledger.submit([group(single(100, BANK, ALICE))])
    once = group(single(60, ALICE, BOB))
    other = replace(once, transfers=(single(10, ALICE, BOB),))
    one, two = await one_after_the_other(db, ledger, once, other)
    assert (one, two.startswith("ledger.exists_different")) == ("created", True)


async def test_companions_run_once_though_both_try(db, ledger):
    await a_calling_domain(db)
    once = group(single(5, BANK, ALICE), companions=[spend(1, 40), note("once")])
    assert await one_after_the_other(db, ledger, once, once) == ["created", "exists"]
    assert await NOTES.all(db) == ["once"]
    assert await SPENT.one(db, 1) == 40


async def test_two_groups_cannot_pass_one_limit_of_a_companion(db, ledger):
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
async def test_a_hold_ends_once(db, ledger, first, second, code):
    hold = pending(60, ALICE, MERCHANT)
    await ledger.submit([group(single(100, BANK, ALICE), hold)])
    ends = [group(first(hold)), group(second(hold))]
    assert await one_after_the_other(db, ledger, *ends) == ["created", code]


OPEN_BOB = """
    with opened as (
        insert into ledger_account
        select book, id + 1000, kind, $1, currency, side, floor, ceiling, state, 0, 0, 0, 0, 0,
               null, opened_at
          from ledger_account where kind = 'wallet'
     returning book, id, kind, owner, currency, side, opened_at
    )
    insert into ledger_opening
    select book, id,
           sha256(convert_to(
               concat_ws('/', book, id, kind, owner, currency, side,
                         (extract(epoch from opened_at) * 1000000)::bigint), 'UTF8'))
      from opened"""


@pytest.mark.parametrize("then", [None, GivenUp])
async def test_all_openers_share_one_account(db, ledger, other, then):
    await ledger.submit([group(single(1, BANK, ALICE))])
    async with holding(db, OPEN_BOB, BOB.owner, then=then):
        tasks = [start(each, group(single(5, BANK, BOB))) for each in (ledger, other)]
        await waiting(db, 2)
    assert await codes(*tasks) == ["created", "created"]
    assert (await balance_of(db, 1, BOB)).posted == 10
    assert await db.pool.fetchval("select count(*) from ledger_account") == 3


async def test_a_freeze_by_another_process_stops_what_was_already_decided(db, ledger, other):
    late = group(single(1, BANK, ALICE))
    await ledger.submit([group(single(1, BANK, BOB))])
    async with head(db):
        freeze = asyncio.create_task(
            other.set_book_frozen(1, frozen=True, actor="ann", because="audit")
        )
        await waiting(db, 1)
        task = start(ledger, late)
        await waiting(db, 2)
    await freeze
    assert await codes(task) == ["ledger.book_frozen"]
    assert (await balance_of(db, 1, ALICE)).posted == 0
    await other.set_book_frozen(1, frozen=False, actor="ann", because="over")
    assert await codes(start(ledger, late)) == ["created"]


async def test_closing_waits_for_the_posting_before_it_and_sees_its_balance(db, ledger, other):
    await ledger.submit([group(single(5, BANK, ALICE), single(5, ALICE, BOB))])
    async with head(db):
        posting = start(ledger, group(single(1, BANK, ALICE)))
        await waiting(db, 1)
        closing = asyncio.create_task(
            other.set_account_state(
                1, ALICE, AccountState.CLOSED, actor="ann", because="customer left"
            )
        )
        await waiting(db, 2)
    assert await codes(posting) == ["created"]
    with pytest.raises(AccountNotEmpty):
        await closing


async def test_a_writer_whose_book_was_taken_finds_out_and_decides_again(db, ledger, other):
    """Its memory says 100; the other process has spent 60 of it since."""
    await ledger.submit([group(single(100, BANK, ALICE))])
    assert await codes(start(other, group(single(60, ALICE, BOB)))) == ["created"]
    assert await codes(start(ledger, group(single(60, ALICE, BOB)))) == ["ledger.exceeds_balance"]
    assert await codes(start(other, group(single(40, ALICE, BOB)))) == ["created"]
    assert (await balance_of(db, 1, BOB)).posted == 100


async def test_a_zombie_in_its_commit_writes_nothing(db, ledger, other):
    await ledger.submit([group(single(100, BANK, ALICE))])
    async with head(db):
        taking = start(other, group(single(60, ALICE, MERCHANT)))
        await waiting(db, 1)
        zombie = start(ledger, group(single(60, ALICE, BOB)))
        await waiting(db, 2)
    decided = sorted(await codes(taking, zombie))
    assert decided == ["created", "ledger.exceeds_balance"]
    assert (await balance_of(db, 1, ALICE)).posted == 40


async def test_a_zombie_repeats_no_refusal_it_only_imagined(db, ledger, other):
    """By its memory there is nothing to spend; the other process has put something in."""
    spending = group(single(30, ALICE, BOB))
    await ledger.submit([group(single(1, BANK, ALICE))])
    await other.submit([group(single(50, BANK, ALICE))])
    assert await codes(start(ledger, spending)) == ["created"]


async def test_two_writers_who_fight_for_a_book_lose_and_double_nothing(db, ledger, other):
    await ledger.submit([group(single(1000, BANK, ALICE))])

    async def caller(writer, number):
        return await writer.submit([group(single(1, ALICE, BOB)) for _ in range(number)])

    answers = await asyncio.gather(*(caller(each, 5) for each in (ledger, other) for _ in range(8)))
    statuses = {result.status for results in answers for result in results}
    assert statuses == {"created"}
    assert (await balance_of(db, 1, BOB)).posted == 80
    [heads] = [each for each in await books(db) if each.book == 1]
    assert heads.last_seq == 81


async def test_account_states_change_under_load(db, ledger, other):
    await ledger.submit([group(single(100_000, BANK, ALICE))])
    frozen = asyncio.Event()
    late = []

    async def spender():
        for _ in range(25):
            was_frozen = frozen.is_set()
            [result] = await ledger.submit([group(single(1, ALICE, BOB))])
            if was_frozen:
                late.append(result.code)

    async def freezer():
        await asyncio.sleep(0.02)
        await other.set_account_state(
            1, ALICE, AccountState.FROZEN, actor="ann", because="court order"
        )
        frozen.set()

    await asyncio.gather(freezer(), *(spender() for _ in range(12)))
    assert set(late) <= {"ledger.account_frozen"}
    assert await codes(start(ledger, group(single(1, ALICE, BOB)))) == ["ledger.account_frozen"]


async def test_who_waits_for_a_companions_lock_is_told_and_the_others_go_on(db, ledger):
    await a_calling_domain(db)
    stuck = group(single(5, BANK, ALICE), companions=[spend(1, 1)])
    free = group(single(7, BANK, BOB), companions=[spend(2, 1)])
    async with holding(db, "select 1 from budget where id = 1 for update"):
        assert await codes(start(ledger, stuck, free)) == ["ledger.in_flight", "created"]
    assert await codes(start(ledger, stuck)) == ["created"]
    assert [await SPENT.one(db, each) for each in (1, 2)] == [1, 1]


BROKEN = Statement("insert into note (id, text) values ($1, null)")


async def test_only_the_caller_of_a_broken_companion_hears_of_it(db, ledger):
    await a_calling_domain(db)
    broken = group(single(1, BANK, ALICE), companions=[Write(BROKEN, (new_id(),))])
    fine = [group(single(1, BANK, ALICE), companions=[note(str(each))]) for each in range(5)]
    await ledger.submit([group(single(1, BANK, BOB))])
    async with head(db):
        first = start(ledger, group(single(1, BANK, BOB)))
        await waiting(db, 1)
        tasks = [start(ledger, each) for each in (*fine[:3], broken, *fine[3:])]
        await queued(ledger, 6)
    answers = await asyncio.gather(first, *tasks, return_exceptions=True)
    assert [type(each) for each in answers].count(list) == 6
    assert isinstance(answers[4], DatabaseRefused)
    assert await NOTES.all(db) == ["0", "1", "2", "3", "4"]
    assert (await balance_of(db, 1, ALICE)).posted == 5


PUT = Statement(
    "insert into note (id, text) values ($1, $2) on conflict (id) do nothing",
    many="insert into note (id, text) select * from unnest($1::uuid[], $2::text[])"
    " on conflict (id) do nothing",
)


async def test_a_set_of_companions_of_which_one_refuses_is_halved(db, ledger):
    await a_calling_domain(db)
    taken = new_id()
    ids = [new_id(), new_id(), taken, new_id(), taken, new_id()]
    groups = [
        group(single(1, BANK, ALICE), companions=[Write(PUT, (id_, str(place)), "test.taken")])
        for place, id_ in enumerate(ids)
    ]
    assert await codes(start(ledger, *groups)) == [*["created"] * 4, "test.taken", "created"]
    assert await NOTES.all(db) == ["0", "1", "2", "3", "5"]
    assert (await balance_of(db, 1, ALICE)).posted == 5


async def test_money_that_hangs_on_a_refused_companion_is_decided_without_it(db, ledger):
    await a_calling_domain(db)
    funding = group(single(50, BANK, ALICE), companions=[spend(1, 101)])
    spending = group(single(50, ALICE, BOB), companions=[note("spent")])
    poor = group(single(1, ALICE, BOB), companions=[note("poor")])
    decided = await codes(start(ledger, funding, spending, poor))
    assert decided == ["test.over_budget", "ledger.exceeds_balance", "ledger.exceeds_balance"]
    assert await NOTES.all(db) == []


async def test_a_refused_companion_leaves_its_money_to_the_next(db, ledger):
    await a_calling_domain(db)
    await ledger.submit([group(single(50, BANK, ALICE))])
    greedy = group(single(50, ALICE, BOB), companions=[spend(1, 101)])
    modest = group(single(40, ALICE, BOB), companions=[spend(1, 10), note("modest")])
    assert await codes(start(ledger, greedy, modest)) == ["test.over_budget", "created"]
    assert await NOTES.all(db) == ["modest"]
    assert await SPENT.one(db, 1) == 10


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
    assert set(statuses) <= {"created", "refused"}
    held = [(await balance_of(db, 1, account)).posted for account in accounts]
    assert sum(held) == 200
    assert min(held) >= 0

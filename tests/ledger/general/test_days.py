"""Accounting days: closed and opened again by two people, and never before everything is done."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import asyncpg
import pytest

from tests.ledger.general.journal import Journal
from tests.ledger.making import ALICE, BANK, BOB
from tongbao.infra.audit import entries_of_subject
from tongbao.kernel.clock import Clock, business_date
from tongbao.kernel.ids import new_id
from tongbao.ledger.general.days import (
    approve_day,
    closing_findings,
    reject_day,
    request_day,
    withdraw_day,
)
from tongbao.ledger.general.model import (
    DayAction,
    DayInTheFuture,
    DayNotClosed,
    DayNotOpen,
    DayNotReady,
    DayRequestDecided,
    DayRequestNotFound,
    DayRequestWaiting,
    ReasonMissing,
    RequestState,
    SamePerson,
)
from tongbao.ledger.general.proving import check_general_ledger
from tongbao.ledger.general.queries import day_requests, trial_balance
from tongbao.ledger.general.vouchers import build_next, coverage
from tongbao.ledger.model import BookMissing

CLOSE, REOPEN = DayAction.CLOSE, DayAction.REOPEN
MAKER, CHECKER = "opr_maker", "opr_checker"


@pytest.fixture
def journal(db):
    return Journal(db)


@pytest.fixture
def today(db):
    return business_date(db.clock.now())


async def ask(db, day, action=CLOSE, actor=MAKER):
    return await request_day(db, 1, action, day, reason="end of day", actor=actor)


async def close(db, day):
    return await approve_day(db, 1, (await ask(db, day)).id, actor=CHECKER)


async def closed_through(db):
    return (await coverage(db, 1)).closed_through


async def test_a_day_closes_when_another_person_approves(db, journal, today):
    await journal.commit((BANK, ALICE, 5, "t/a", today))
    request = await ask(db, today)
    assert request.state is RequestState.WAITING
    assert await closed_through(db) is None
    decided = await approve_day(db, 1, request.id, actor=CHECKER)
    assert (decided.state, decided.checker, decided.last_batch) == ("approved", CHECKER, 1)
    assert await closed_through(db) == today
    assert (await trial_balance(db, 1, today)).is_closed


async def test_closing_leaves_vouchers_complete_to_the_last_commit(db, journal, today):
    for amount in range(1, 5):
        await journal.commit((BANK, ALICE, amount, "t/a", today))
    await close(db, today)
    covered = await coverage(db, 1)
    assert covered.covered_batch == covered.last_batch == 4
    assert await check_general_ledger(db, 1) == []


async def test_closing_fences_whoever_writes_the_book(db, journal, today):
    epoch = "select epoch from ledger_book where book = 1"
    before = await db.pool.fetchval(epoch)
    await close(db, today)
    assert await db.pool.fetchval(epoch) == before + 1


async def test_nobody_approves_or_rejects_their_own_request(db, today):
    request = await ask(db, today)
    for decide in (approve_day, reject_day):
        with pytest.raises(SamePerson):
            await decide(db, 1, request.id, actor=MAKER)
    assert await closed_through(db) is None


async def test_the_database_too_wants_a_second_person(db, today):
    request = await ask(db, today)
    forged = """update gl_day_request set state = 'approved', checker = maker, decided_at = made_at,
                       last_batch = 0 where id = $1"""
    with pytest.raises(asyncpg.CheckViolationError, match="four_eyes"):
        await db.pool.execute(forged, request.id)
    without = """update gl_day_request set state = 'approved', decided_at = made_at, last_batch = 0
                  where id = $1"""
    with pytest.raises(asyncpg.CheckViolationError):
        await db.pool.execute(without, request.id)


async def test_a_closed_day_opens_again_by_two_people(db, today):
    await close(db, today)
    yesterday = today - timedelta(days=1)
    request = await ask(db, yesterday, REOPEN)
    await approve_day(db, 1, request.id, actor=CHECKER)
    assert await closed_through(db) == yesterday - timedelta(days=1)
    await close(db, today)
    assert await closed_through(db) == today


async def test_a_rejected_or_withdrawn_request_changes_nothing_and_is_over(db, today):
    first = await ask(db, today)
    assert (await reject_day(db, 1, first.id, actor=CHECKER)).state is RequestState.REJECTED
    second = await ask(db, today)
    with pytest.raises(DayRequestNotFound):
        await withdraw_day(db, 1, second.id, actor=CHECKER)
    assert (await withdraw_day(db, 1, second.id, actor=MAKER)).state is RequestState.WITHDRAWN
    for request in (first, second):
        with pytest.raises(DayRequestDecided):
            await approve_day(db, 1, request.id, actor=CHECKER)
    assert await closed_through(db) is None
    assert [each.id for each in await day_requests(db, 1)] == [second.id, first.id]


async def test_a_request_runs_out(make_db, dsn, today):
    clock = Clock()
    db = await make_db(dsn=dsn, clock=clock)
    request = await ask(db, today)
    clock.offset = timedelta(hours=24)
    with pytest.raises(DayRequestDecided):
        await approve_day(db, 1, request.id, actor=CHECKER)
    [found] = await day_requests(db, 1)
    assert found.state is RequestState.EXPIRED
    assert (await ask(db, today)).state is RequestState.WAITING


async def test_one_request_at_a_time_waits_for_a_book(db, today):
    await ask(db, today)
    with pytest.raises(DayRequestWaiting):
        await ask(db, today, actor="opr_other")


async def test_of_two_approvals_at_once_one_closes_the_day(db, today):
    request = await ask(db, today)
    answers = await asyncio.gather(
        *(approve_day(db, 1, request.id, actor=name) for name in ("opr_b", "opr_c")),
        return_exceptions=True,
    )
    refused = [each for each in answers if isinstance(each, BaseException)]
    assert len(refused) == 1
    assert isinstance(refused[0], (DayRequestDecided, DayNotOpen, DayNotReady))
    entries = await entries_of_subject(db, "book 1")
    assert [each.action for each in entries].count("general_ledger.day_closed") == 1


async def test_what_was_asked_and_decided_is_in_the_audit_log(db, today):
    await close(db, today)
    await approve_day(db, 1, (await ask(db, today, REOPEN)).id, actor=CHECKER)
    entries = await entries_of_subject(db, "book 1")
    told = [(each.action, each.actor) for each in entries if "day" in each.action]
    assert told == [
        ("general_ledger.day_requested", MAKER),
        ("general_ledger.day_closed", CHECKER),
        ("general_ledger.day_requested", MAKER),
        ("general_ledger.day_reopened", CHECKER),
    ]
    assert entries[-1].facts["reason"] == "end of day"


async def test_days_that_cannot_be_closed_or_opened_say_why(db, today):
    with pytest.raises(DayInTheFuture):
        await ask(db, today + timedelta(days=1))
    with pytest.raises(DayNotClosed):
        await ask(db, today, REOPEN)
    with pytest.raises(BookMissing):
        await request_day(db, 7, CLOSE, today, reason="x", actor=MAKER)
    for reason in ("", "   ", "x" * 501):
        with pytest.raises(ReasonMissing):
            await request_day(db, 1, CLOSE, today, reason=reason, actor=MAKER)
    with pytest.raises(DayRequestNotFound):
        await approve_day(db, 1, new_id(), actor=CHECKER)
    await close(db, today)
    with pytest.raises(DayNotOpen):
        await ask(db, today - timedelta(days=3))


async def missing(db, day):
    return {each.name for each in await closing_findings(db, 1, day) if not each.is_ready}


async def test_an_overdue_hold_stands_in_the_way(db, today):
    due = db.clock.now() - timedelta(hours=1)
    await db.pool.execute(
        """insert into ledger_hold (book, pending_id, debit_account, credit_account, amount, state,
                                    posted_amount, expires_at)
           values (1, $1, 1, 2, 5, 'held', 0, $2)""",
        new_id(),
        due,
    )
    assert await missing(db, today) == {"holds"}
    with pytest.raises(DayNotReady, match="holds"):
        await ask(db, today)


async def test_money_that_is_long_on_its_way_stands_in_the_way(db, today):
    await db.pool.execute(
        """insert into ledger_movement (book, id, reference, rule, held, currency, amount,
               payer_kind, payer_owner, to_book, payee_kind, payee_owner, state, made_at)
           values (1, $1, $1, 'cross_book', false, 'CNY', 5, 'wallet', $1, 2, 'wallet', $1,
                   'moving', $2)""",
        new_id(),
        db.clock.now() - timedelta(hours=2),
    )
    assert await missing(db, today) == {"transit"}


async def test_books_that_do_not_balance_stand_in_the_way(db, journal, today):
    await journal.commit((BANK, ALICE, 5, "t/a", today))
    await db.pool.execute(
        "update ledger_account set debits_posted = 6 where book = 1 and kind = 'bank'"
    )
    assert await missing(db, today) == {"balance"}


async def test_balances_or_vouchers_far_behind_stand_in_the_way(db, journal, today):
    await journal.commit((BANK, ALICE, 5, "t/a", today))
    await db.pool.execute("update ledger_book set last_seq = 20000 where book = 1")
    assert await missing(db, today) == {"projection"}
    await db.pool.execute("update ledger_book set last_seq = 90000 where book = 1")
    await db.pool.execute("update ledger_watermark set seq = 90000 where book = 1")
    assert await missing(db, today) == {"vouchers"}


async def test_what_breaks_between_asking_and_approving_is_found(db, journal, today):
    await journal.commit((BANK, ALICE, 5, "t/a", today))
    request = await ask(db, today)
    await db.pool.execute(
        "update ledger_account set debits_posted = 6 where book = 1 and kind = 'bank'"
    )
    with pytest.raises(DayNotReady):
        await approve_day(db, 1, request.id, actor=CHECKER)
    assert await closed_through(db) is None
    assert (await coverage(db, 1)).covered_batch == 0


async def test_closing_waits_for_vouchers_that_somebody_else_is_building(db, journal, today):
    await journal.commit((BANK, ALICE, 5, "t/a", today))
    await journal.commit((BANK, BOB, 5, "t/a", today))
    request = await ask(db, today)
    async with db.begin("tests") as builder:
        assert await build_next(builder, 1, transfers_max=1)
        closing = asyncio.create_task(approve_day(db, 1, request.id, actor=CHECKER))
        await asyncio.sleep(0.1)
        assert not closing.done()
    assert (await closing).last_batch == 2
    assert await check_general_ledger(db, 1) == []

"""The one door: exactly once, whole or not at all, answered for ever."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from uuid import uuid4

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
    outcome,
    pending,
    post,
    single,
    spend,
    void,
)
from tongbao.infra.audit import entries_of_subject
from tongbao.infra.db import Statement, Write
from tongbao.kernel.clock import real_now
from tongbao.kernel.ids import derived_id, new_id
from tongbao.kernel.licence import Licence
from tongbao.ledger.book import Ledger
from tongbao.ledger.model import (
    AccountKey,
    AccountMissing,
    AccountNotEmpty,
    AccountState,
    BookMissing,
    TransferKind,
)
from tongbao.ledger.queries import balance_of, books, transfers_of_reference
from tongbao.ledger.verify import verify

CREATED = ("created", None)


@pytest.fixture(autouse=True)
async def _book_stays_sound(db):
    yield
    report = await verify(db)
    assert report.is_sound, report.broken


async def posted(db, key, book=1):
    return (await balance_of(db, book, key)).posted


async def test_a_group_moves_money_and_says_where_it_stands_in_the_book(db, ledger):
    results = await ledger.submit(
        [group(single(100, BANK, ALICE), single(30, ALICE, BOB)), group(single(1, BOB, ALICE))]
    )
    assert [(result.status, result.seq) for result in results] == [("created", 2), ("created", 3)]
    assert (await posted(db, ALICE), await posted(db, BOB), await posted(db, BANK)) == (71, 29, 100)


async def test_a_repeated_group_exists_and_moves_nothing(db, ledger):
    once = group(single(100, BANK, ALICE), single(30, ALICE, BOB))
    first, second = await ledger.submit([once, once])
    [third] = await Ledger(db, Licence.PAYMENT_INSTITUTION).submit([once])
    assert (first.status, second.status, third.status) == ("created", "exists", "exists")
    assert first.seq == second.seq == third.seq == 2
    assert await posted(db, ALICE) == 70


async def test_the_same_id_with_another_body_is_another_thing(db, ledger):
    once = group(single(100, BANK, ALICE))
    await ledger.submit([once])
    for other in (
        replace(once, transfers=(single(100, BANK, ALICE),)),
        replace(once, transfers=(replace(once.transfers[0], amount=99),)),
        replace(once, transfers=()),
        replace(once, transfers=(single(10**9, BOB, ALICE),)),
    ):
        [result] = await ledger.submit([other])
        assert result.status == "exists_different"
        assert not result.happened
    assert await posted(db, ALICE) == 100


async def test_a_part_of_a_group_is_another_group(db, ledger):
    moves = [single(10, BANK, ALICE) for _ in range(3)]
    [done] = await ledger.submit([group(*moves, id=moves[0].id)])
    assert done.status == "created"
    parts = [moves[first:last] for first in range(3) for last in range(first + 1, 4)]
    for part in parts:
        [result] = await ledger.submit([group(*part, id=part[0].id)])
        assert result.status == ("exists" if part == moves else "exists_different")
    assert await posted(db, ALICE) == 30


async def test_the_same_id_in_another_book_is_another_group(db, ledger):
    await ledger.open_book(52, actor="tests")
    once = group(single(100, BANK, ALICE))
    results = await ledger.submit([once, replace(once, book=52)])
    assert [result.status for result in results] == ["created", "created"]
    assert await posted(db, ALICE, book=52) == 100


async def test_a_refusal_is_remembered_when_the_reason_is_gone(db, ledger):
    early = group(single(5, ALICE, BOB))
    [first] = await ledger.submit([early])
    await ledger.submit([group(single(100, BANK, ALICE))])
    [again] = await ledger.submit([early])
    assert (first.status, first.code) == ("refused", "ledger.exceeds_balance")
    assert (again.status, again.code) == ("already_refused", "ledger.exceeds_balance")
    assert await posted(db, BOB) == 0
    [other] = await ledger.submit([replace(early, transfers=(single(5, ALICE, BOB),))])
    assert other.status == "exists_different"


async def test_a_refused_group_leaves_its_transfer_ids_free(ledger):
    spend_it = single(5, ALICE, BOB)
    assert await outcome(ledger, spend_it) == ("refused", "ledger.exceeds_balance")
    assert await outcome(ledger, single(5, BANK, ALICE)) == CREATED
    assert await outcome(ledger, spend_it) == CREATED


async def test_a_transfer_of_another_group_is_not_posted_again(db, ledger):
    once = single(5, BANK, ALICE)
    assert await outcome(ledger, once) == CREATED
    refused = ("refused", "ledger.transfer_exists")
    assert await outcome(ledger, once) == refused
    assert await outcome(ledger, replace(once, credit=BOB)) == refused
    assert await outcome(ledger, single(1, BANK, BOB), once) == refused
    assert (await posted(db, ALICE), await posted(db, BOB)) == (5, 0)


async def test_a_group_without_transfers_runs_its_companions_once(db, ledger):
    await a_calling_domain(db)
    once = group(companions=[note("hello")])
    results = await ledger.submit([once, once])
    assert [(result.status, result.seq) for result in results] == [
        ("created", None),
        ("exists", None),
    ]
    assert await NOTES.all(db) == ["hello"]


async def test_companions_happen_with_the_money_or_not_at_all(db, ledger):
    await a_calling_domain(db)
    paid = group(single(5, BANK, ALICE), companions=[note("paid"), spend(1, 60)])
    too_much = group(single(500, ALICE, BOB), companions=[note("too much"), spend(1, 1)])
    results = await ledger.submit([paid, too_much, paid, too_much])
    assert [result.status for result in results] == [
        "created",
        "refused",
        "exists",
        "already_refused",
    ]
    assert await NOTES.all(db) == ["paid"]
    assert await SPENT.one(db, 1) == 60


async def test_a_companion_that_touches_nothing_refuses_its_own_group_only(db, ledger):
    await a_calling_domain(db)
    over = group(single(5, BANK, ALICE), companions=[note("over"), spend(1, 101)])
    fine = group(single(7, BANK, ALICE), companions=[note("fine"), spend(1, 100)])
    results = await ledger.submit([over, fine, over])
    assert [(result.status, result.code) for result in results] == [
        ("refused", "test.over_budget"),
        CREATED,
        ("already_refused", "test.over_budget"),
    ]
    assert await NOTES.all(db) == ["fine"]
    assert await posted(db, ALICE) == 7


async def test_a_companion_may_touch_nothing_when_it_says_so(db, ledger):
    await a_calling_domain(db)
    same = uuid4()
    first = group(single(5, BANK, ALICE), companions=[note("one", id=same)])
    second = group(single(5, BANK, ALICE), companions=[note("two", id=same)])
    third = group(single(5, BANK, ALICE), companions=[note("three", "test.taken", id=same)])
    results = await ledger.submit([first, second, third])
    assert [result.code for result in results] == [None, None, "test.taken"]
    assert await NOTES.all(db) == ["one"]


async def test_a_repeat_may_bring_other_companions_and_they_do_not_run(db, ledger):
    await a_calling_domain(db)
    first = group(single(5, BANK, ALICE), companions=[note("first")])
    await ledger.submit([first])
    [again] = await ledger.submit([replace(first, companions=(note("second"),))])
    assert again.status == "exists"
    assert await NOTES.all(db) == ["first"]


async def test_a_companion_that_cannot_run_twice_is_not_asked_to_by_a_repeat(db, ledger):
    await a_calling_domain(db)
    careless = Write(Statement("insert into note (id, text) values ($1, 'x')"), (uuid4(),))
    once = group(single(5, BANK, ALICE), companions=[careless])
    results = await ledger.submit([once, once])
    assert [result.status for result in results] == ["created", "exists"]


async def test_a_hold_is_posted_in_part_and_ends(db, ledger):
    hold = pending(70, ALICE, MERCHANT)
    await ledger.submit([group(single(100, BANK, ALICE)), group(hold)])
    held = await balance_of(db, 1, ALICE)
    assert (held.posted, held.held, held.available) == (100, 70, 30)
    assert (await balance_of(db, 1, MERCHANT)).incoming == 70
    assert await outcome(ledger, post(hold, 50)) == CREATED
    after = await balance_of(db, 1, ALICE)
    assert (after.posted, after.held, after.available) == (50, 0, 50)
    assert await posted(db, MERCHANT) == 50
    assert await outcome(ledger, post(hold)) == ("refused", "ledger.hold_already_posted")
    assert await outcome(ledger, void(hold)) == ("refused", "ledger.hold_already_posted")


async def test_a_voided_hold_gives_everything_back(db, ledger):
    hold = pending(70, ALICE, MERCHANT)
    await ledger.submit([group(single(100, BANK, ALICE)), group(hold), group(void(hold))])
    assert (await balance_of(db, 1, ALICE)).available == 100
    assert await outcome(ledger, post(hold)) == ("refused", "ledger.hold_already_voided")
    assert await outcome(ledger, post(pending(1, ALICE, BOB))) == ("refused", "ledger.hold_missing")


async def test_a_hold_opens_and_ends_in_one_group(db, ledger):
    hold = pending(70, ALICE, MERCHANT)
    assert await outcome(ledger, single(100, BANK, ALICE), hold, post(hold, 7)) == CREATED
    assert (await balance_of(db, 1, ALICE)).available == 93


async def test_holds_expire_on_business_time_and_in_order(db, ledger):
    now = db.clock.now()
    late = pending(20, ALICE, MERCHANT, expires_at=now + timedelta(hours=3))
    soon = pending(10, ALICE, MERCHANT, expires_at=now + timedelta(hours=2))
    for_ever = pending(5, ALICE, MERCHANT)
    await ledger.submit([group(single(100, BANK, ALICE), late, soon, for_ever)])
    assert await ledger.expire_holds(db.clock.now(), 10) == 0
    # A caller whose clock is ahead expires nothing early, and burns no id by trying.
    assert await ledger.expire_holds(now + timedelta(days=1), 10) == 0
    db.clock.offset = timedelta(hours=4)
    assert await outcome(ledger, post(soon)) == ("refused", "ledger.hold_expired")
    assert await ledger.expire_holds(db.clock.now(), 1) == 1
    assert (await balance_of(db, 1, ALICE)).held == 25
    assert await ledger.expire_holds(db.clock.now(), 10) == 1
    assert await ledger.expire_holds(db.clock.now(), 10) == 0
    after = await balance_of(db, 1, ALICE)
    assert (after.posted, after.held) == (100, 5)
    [_, ended] = [*await transfers_of_reference(db, 1, soon.reference)]
    assert (ended.kind, ended.code, ended.pending_id, ended.amount) == (
        TransferKind.EXPIRE,
        "hold.expired",
        soon.id,
        10,
    )
    [_, ended_later] = [*await transfers_of_reference(db, 1, late.reference)]
    assert ended.seq < ended_later.seq


async def test_due_holds_of_a_frozen_book_keep_nobody_else_waiting(db, ledger):
    await ledger.open_book(52, actor="tests")
    soon = db.clock.now() + timedelta(hours=1)
    for book in (1, 52):
        holds = [pending(1, BANK, ALICE, expires_at=soon) for _ in range(3)]
        await ledger.submit([group(*holds, book=book)])
    await ledger.set_book_frozen(1, frozen=True, actor="ann", because="audit")
    db.clock.offset = timedelta(hours=2)
    assert await ledger.expire_holds(db.clock.now(), 3) == 3
    assert (await balance_of(db, 52, ALICE)).incoming == 0
    assert (await balance_of(db, 1, ALICE)).incoming == 3
    await ledger.set_book_frozen(1, frozen=False, actor="ann", because="over")
    assert await ledger.expire_holds(db.clock.now(), 3) == 3


async def test_transfers_are_dated_in_shanghai(db, ledger):
    midnight = datetime(2027, 1, 1, tzinfo=UTC) - timedelta(hours=8)
    reference = new_id()
    for moment in (midnight - timedelta(minutes=5), midnight + timedelta(minutes=5)):
        db.clock.offset = moment - real_now()
        of_it = derived_id(reference, moment.isoformat())
        line = replace(single(1, BANK, ALICE), id=of_it, reference=reference)
        await ledger.submit([group(line)])
    days = [line.biz_date for line in await transfers_of_reference(db, 1, reference)]
    assert days == [date(2026, 12, 31), date(2027, 1, 1)]
    db.clock.offset = timedelta(days=2000)  # past what verify may find overdue


async def test_a_frozen_book_answers_later_and_remembers_nothing(db, ledger):
    before, during = group(single(5, BANK, ALICE)), group(single(7, BANK, ALICE))
    await ledger.submit([before])
    await ledger.set_book_frozen(1, frozen=True, actor="ann", because="audit")
    results = await ledger.submit([before, during, group(), group(single(1, BANK, BANK))])
    assert [result.status for result in results] == ["exists", *["in_flight"] * 3]
    assert {result.code for result in results[1:]} == {"ledger.book_frozen"}
    assert await posted(db, ALICE) == 5
    await ledger.set_book_frozen(1, frozen=False, actor="ann", because="done")
    assert (await ledger.submit([during]))[0].status == "created"
    entries = await entries_of_subject(db, "book 1")
    assert [(entry.actor, entry.action) for entry in entries] == [
        ("ann", "ledger.book_frozen"),
        ("ann", "ledger.book_thawed"),
    ]


async def test_a_book_that_was_never_opened_is_named(ledger):
    with pytest.raises(BookMissing):
        await ledger.submit([group(single(5, BANK, ALICE), book=99)])
    with pytest.raises(BookMissing):
        await ledger.submit([group(single(5, BANK, BANK), book=99)])
    with pytest.raises(BookMissing):
        await ledger.set_book_frozen(99, frozen=True, actor="ann", because="audit")


async def test_opening_a_book_twice_changes_nothing(db, ledger):
    await ledger.open_book(52, actor="ann")
    await ledger.submit([group(single(5, BANK, ALICE), book=52)])
    await ledger.open_book(52, actor="ann")
    heads = {head.book: head.last_seq for head in await books(db)}
    assert (heads[1], heads[52]) == (0, 1)


async def test_accounts_freeze_and_close(db, ledger):
    async def turn(key, state):
        await ledger.set_account_state(1, key, state, actor="ann", because="court order")

    await ledger.submit([group(single(5, BANK, ALICE), single(2, BANK, BOB))])
    await turn(ALICE, AccountState.FROZEN)
    assert await outcome(ledger, single(1, ALICE, BOB)) == ("refused", "ledger.account_frozen")
    assert await outcome(ledger, single(1, BANK, ALICE)) == CREATED
    assert (await balance_of(db, 1, ALICE)).state is AccountState.FROZEN
    await turn(ALICE, AccountState.OPEN)
    with pytest.raises(AccountNotEmpty):
        await turn(ALICE, AccountState.CLOSED)
    assert await outcome(ledger, single(6, ALICE, BOB)) == CREATED
    await turn(ALICE, AccountState.CLOSED)
    await turn(ALICE, AccountState.CLOSED)
    assert await outcome(ledger, single(1, BOB, ALICE)) == ("refused", "ledger.account_closed")
    with pytest.raises(AccountMissing):
        await turn(MERCHANT, AccountState.FROZEN)


async def test_accounts_carry_their_book_in_their_number(db, ledger):
    await ledger.open_book(77, actor="tests")
    await ledger.submit([group(single(5, BANK, ALICE), book=77), group(single(5, BANK, ALICE))])
    rows = await db.pool.fetch("select book, id >> 40 as shard, id from ledger_account")
    assert len({row["id"] for row in rows}) == 4
    assert all(row["book"] == row["shard"] for row in rows)


async def test_an_account_of_another_owner_or_currency_is_another_account(db, ledger):
    dollars = AccountKey("bank", "USD")
    assert await outcome(ledger, single(1, dollars, replace(ALICE, currency="USD"))) == CREATED
    assert await outcome(ledger, single(1, dollars, ALICE)) == (
        "refused",
        "ledger.currency_mismatch",
    )
    assert await posted(db, ALICE) == 0


@pytest.mark.parametrize(
    ("statement", "constraint"),
    [
        ("update ledger_account set debits_posted = debits_posted + 6", "above_floor"),
        ("update ledger_account set debits_pending = 6", "above_floor"),
        ("update ledger_account set credits_posted = -1, floor = null", "credits_posted"),
        ("update ledger_account set credits_posted = 4000000000000000001", "credits_posted"),
        ("update ledger_account set state = 'closed'", "closed_is_empty"),
        ("update ledger_account set id = id + (1::bigint << 40)", "ledger_account_check"),
        ("update ledger_transfer set credit_account = debit_account", "ledger_transfer_check"),
        ("update ledger_transfer set amount = 0", "amount"),
        ("update ledger_transfer set pending_id = id", "ledger_transfer_check"),
        ("update ledger_request set code = 'x'", "ledger_request_check"),
    ],
)
async def test_the_schema_states_the_invariants_again(db, ledger, statement, constraint):
    await ledger.submit([group(single(5, BANK, ALICE))])
    await balance_of(db, 1, ALICE)  # they have followed
    await db.pool.execute("grant update on ledger_transfer, ledger_request to current_user")
    where = " where kind = 'wallet'" if "ledger_account set" in statement else ""
    with pytest.raises(Exception, match=constraint):
        await db.pool.execute(statement + where)


@pytest.mark.parametrize("table", ["ledger_transfer", "ledger_request"])
async def test_what_is_recorded_cannot_be_changed_by_the_program(db, table):
    for statement in (f"update {table} set at = at", f"delete from {table}", f"truncate {table}"):
        with pytest.raises(Exception, match="permission denied"):
            await db.pool.execute(statement)

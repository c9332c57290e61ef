"""What the book says about balances, references and statements."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from random import Random

import pytest
from msgspec.structs import replace

from tests.ledger.making import ALICE, BANK, BOB, MERCHANT, group, pending, post, single, void
from tongbao.kernel.clock import business_date
from tongbao.kernel.ids import derived_id, new_id
from tongbao.kernel.pages import CursorInvalid, PageSizeInvalid, encode_cursor
from tongbao.ledger import queries
from tongbao.ledger.chains import HistoryArchived
from tongbao.ledger.model import AccountKey, Side, TransferKind
from tongbao.ledger.queries import (
    BalancesBehind,
    balance_at,
    balance_of,
    balances_of_owner,
    movements,
    net_of_references,
    statement,
    statement_of_days,
    sums,
    transfers_of_reference,
)


def of(transfer, reference, role):
    return replace(transfer, id=derived_id(reference, role), reference=reference)


async def test_an_account_nothing_touched_has_zero(db):
    balance = await balance_of(db, 1, ALICE)
    assert (balance.posted, balance.available, balance.side) == (0, 0, Side.CREDIT)
    assert await balances_of_owner(db, 1, ALICE.owner) == []
    assert (await statement(db, 1, ALICE)).items == []


async def test_balances_stand_on_the_normal_side(db, ledger):
    hold = pending(30, ALICE, BANK)
    await ledger.submit([group(single(100, BANK, ALICE), hold)])
    bank, alice = await balance_of(db, 1, BANK), await balance_of(db, 1, ALICE)
    assert (bank.posted, bank.held, bank.incoming, bank.available) == (100, 30, 0, 70)
    assert (alice.posted, alice.held, alice.incoming, alice.available) == (100, 30, 0, 70)


async def test_an_owner_sees_all_of_its_accounts_and_nobody_elses(db, ledger):
    due = AccountKey("settlement_due", "CNY", MERCHANT.owner)
    dollars = replace(MERCHANT, currency="USD")
    lines = [
        single(9, BANK, MERCHANT),
        single(4, MERCHANT, due),
        single(1, AccountKey("bank", "USD"), dollars),
        single(7, BANK, BOB),
    ]
    await ledger.submit([group(*lines)])
    found = await balances_of_owner(db, 1, MERCHANT.owner)
    assert {balance.account: balance.posted for balance in found} == {
        MERCHANT: 5,
        dollars: 1,
        due: 4,
    }


async def test_the_trial_balance_adds_up_by_kind_and_currency(db, ledger):
    await ledger.submit(
        [group(single(10, BANK, ALICE), single(5, BANK, BOB), single(2, BOB, BANK))]
    )
    trial = {line.kind: (line.accounts, line.posted) for line in await sums(db, 1)}
    assert trial == {"bank": (1, 13), "wallet": (2, 13)}


# Waiting for the balances


async def leave_behind(db, ledger, amount):
    """Post so that the balances do not follow: their writer is gone before they could."""
    await ledger.submit([group(single(amount, BANK, ALICE))])
    await balance_of(db, 1, ALICE)
    await ledger.close()
    await db.pool.execute("update ledger_watermark set seq = 0, batch = 0")
    await db.pool.execute(
        "update ledger_account set debits_posted = 0, credits_posted = 0, touches = 0,"
        " last_transfer = null"
    )


async def test_a_read_waits_until_the_balances_have_everything_that_was_answered(
    db, ledger, monkeypatch
):
    await leave_behind(db, ledger, 10)
    monkeypatch.setattr(queries, "_HELP_S", 60)
    asked = asyncio.create_task(balance_of(db, 1, ALICE))
    await asyncio.sleep(0.05)
    assert not asked.done()
    await queries.catch_up(db, await queries.read_head(db, 1))
    assert (await asked).posted == 10


async def test_a_read_takes_the_balances_along_when_their_writer_is_gone(db, ledger, monkeypatch):
    await leave_behind(db, ledger, 10)
    monkeypatch.setattr(queries, "_HELP_S", 0)
    assert (await balance_of(db, 1, ALICE)).posted == 10


async def test_a_read_that_waited_long_enough_says_that_it_is_behind(db, ledger, monkeypatch):
    await leave_behind(db, ledger, 10)
    monkeypatch.setattr(queries, "CATCH_UP_S_MAX", 0.05)
    for read in (
        balance_of(db, 1, ALICE),
        balances_of_owner(db, 1, ALICE.owner),
        sums(db, 1),
        statement(db, 1, ALICE),
        balance_at(db, 1, ALICE, 1),
    ):
        with pytest.raises(BalancesBehind) as refusal:
            await read
        assert refusal.value.facts["balanced_seq"] == 0
    assert (await balance_of(db, 1, ALICE, as_of=0)).posted == 0
    assert len(await transfers_of_reference(db, 1, await first_reference(db))) == 1


async def test_a_read_of_a_stopped_book_does_not_wait_for_balances_that_will_not_come(db, ledger):
    await leave_behind(db, ledger, 10)
    await db.pool.execute("update ledger_book set stopped_because = 'tests'")
    with pytest.raises(BalancesBehind):
        await balance_of(db, 1, ALICE)


async def test_a_read_inside_a_transaction_sees_what_was_answered_before_it(db, ledger):
    async with db.begin("tests") as tx:
        await tx.fetch("select 1", ())
        await ledger.submit([group(single(10, BANK, ALICE))])
        assert (await balance_of(tx, 1, ALICE)).posted == 10


async def first_reference(db):
    return await db.pool.fetchval("select reference from ledger_transfer where seq = 1")


# References


async def test_a_reference_shows_its_transfers_in_order_with_named_accounts(db, ledger):
    reference = new_id()
    hold = of(pending(30, ALICE, MERCHANT), reference, "hold")
    await ledger.submit([group(single(100, BANK, ALICE), hold)])
    await ledger.submit([group(of(post(hold, 20), reference, "post"))])
    held, posted = await transfers_of_reference(db, 1, reference)
    assert (held.seq, held.kind, held.debit, held.credit) == (
        2,
        TransferKind.PENDING,
        ALICE,
        MERCHANT,
    )
    assert (posted.seq, posted.kind, posted.amount) == (3, TransferKind.POST, 20)
    assert (posted.pending_id, posted.code) == (hold.id, "test/post")
    assert (posted.debit, posted.credit) == (ALICE, MERCHANT)


async def test_references_of_one_instant_are_told_apart(db, ledger):
    """They may share the eight bytes that make the range, and nothing more."""
    one = new_id()
    other = derived_id(one, "another payment")
    pay, repay = of(single(5, BANK, ALICE), one, "leg"), of(single(7, BANK, ALICE), other, "leg")
    await ledger.submit([group(pay), group(repay)])
    [found] = await transfers_of_reference(db, 1, one)
    assert found.amount == 5
    assert await net_of_references(db, 1, ALICE, [one, other]) == {one: -5, other: -7}


async def test_the_net_of_a_reference_is_what_it_posted_to_the_account(db, ledger):
    reference = new_id()
    paid = of(single(30, BANK, ALICE), reference, "paid")
    back = of(single(4, ALICE, BANK), reference, "back")
    held = pending(9, ALICE, BOB)
    await ledger.submit([group(paid, back, held)])
    asked = [reference, held.reference, new_id(), reference]
    assert await net_of_references(db, 1, ALICE, asked) == {reference: -26}
    assert await net_of_references(db, 1, BANK, asked) == {reference: 26}
    assert await net_of_references(db, 1, MERCHANT, asked) == {}


# Statements


async def test_a_statement_pages_from_new_to_old_without_gap_or_repeat(db, ledger):
    lines = [single(10 * n, BANK, ALICE) for n in range(1, 5)]
    lines.insert(2, single(7, ALICE, BOB))
    hold = pending(1, ALICE, BOB)
    await ledger.submit([group(*lines), group(hold)])
    first = await statement(db, 1, ALICE, limit=2)
    await ledger.submit([group(single(1000, BANK, ALICE))])  # the list grows meanwhile
    second = await statement(db, 1, ALICE, limit=2, cursor=first.next_cursor)
    third = await statement(db, 1, ALICE, limit=2, cursor=second.next_cursor)
    shown = [(line.change, line.balance_after) for line in first.items + second.items + third.items]
    assert shown == [(40, 93), (30, 53), (-7, 23), (20, 30), (10, 10)]
    assert third.next_cursor is None


async def test_what_moved_nothing_takes_no_place_on_a_page(db, ledger, monkeypatch):
    monkeypatch.setattr(queries, "_PAGE_STEPS", 2)
    paid = single(100, BANK, ALICE)
    holds = [pending(1, ALICE, BOB) for _ in range(7)]
    await ledger.submit([group(paid, *holds)])
    await ledger.submit([group(*[void(hold) for hold in holds[1:]], post(holds[0]))])
    page = await statement(db, 1, ALICE, limit=2)
    assert [line.change for line in page.items] == [-1, 100]
    assert page.next_cursor is None


async def test_a_statement_of_an_asset_grows_by_debits(db, ledger):
    await ledger.submit([group(single(10, BANK, ALICE), single(4, ALICE, BANK))])
    page = await statement(db, 1, BANK)
    assert [(line.change, line.balance_after) for line in page.items] == [(-4, 6), (10, 10)]


@pytest.mark.parametrize(
    "cursor", ["%", encode_cursor("x"), encode_cursor(1, 2), encode_cursor(str(ALICE.owner))]
)
async def test_a_cursor_of_another_list_is_refused(db, ledger, cursor):
    with pytest.raises(CursorInvalid):
        await statement(db, 1, ALICE, cursor=cursor)
    await ledger.submit([group(single(10, BANK, ALICE))])
    with pytest.raises(CursorInvalid):
        await statement(db, 1, ALICE, cursor=cursor)
    with pytest.raises(PageSizeInvalid):
        await statement(db, 1, ALICE, limit=0)


async def test_a_cursor_of_another_account_shows_nothing_of_it(db, ledger):
    await ledger.submit([group(single(10, BANK, ALICE), single(20, BANK, ALICE))])
    await ledger.submit([group(single(30, BANK, BOB))])
    page = await statement(db, 1, ALICE, limit=1)
    with pytest.raises(CursorInvalid):
        await statement(db, 1, BOB, cursor=page.next_cursor)


async def test_movements_are_the_posted_ones_after_a_number_however_many(db, ledger, monkeypatch):
    monkeypatch.setattr(queries, "_CHUNK", 2)
    lines = [single(n, BANK, ALICE) for n in range(1, 7)]
    await ledger.submit([group(*lines), group(pending(1, ALICE, BOB))])
    assert [line.change async for line in movements(db, 1, ALICE, after=0)] == [6, 5, 4, 3, 2, 1]
    assert [line.change async for line in movements(db, 1, ALICE, after=3)] == [6, 5, 4]
    assert [line async for line in movements(db, 1, ALICE, after=6)] == []
    assert [line async for line in movements(db, 1, MERCHANT, after=0)] == []


async def test_a_chain_that_goes_into_the_archive_says_so(db, ledger):
    lines = [single(n, BANK, ALICE) for n in range(1, 5)]
    await ledger.submit([group(*lines)])
    await balance_of(db, 1, ALICE)
    await db.pool.execute("grant delete on ledger_transfer to current_user")
    await db.pool.execute("delete from ledger_transfer where seq <= 2")
    page = await statement(db, 1, ALICE)
    assert [line.change for line in page.items] == [4, 3]
    with pytest.raises(HistoryArchived):
        await statement(db, 1, ALICE, cursor=page.next_cursor)
    lines = movements(db, 1, ALICE, after=0)
    assert [(await anext(lines)).change for _ in range(2)] == [4, 3]
    with pytest.raises(HistoryArchived):
        await anext(lines)
    assert [line.change async for line in movements(db, 1, ALICE, after=3)] == [4]
    assert (await balance_at(db, 1, ALICE, 3)).posted == 6
    with pytest.raises(HistoryArchived):
        await balance_at(db, 1, ALICE, 2)


# The past


async def test_every_past_balance_is_what_it_was_then(db, ledger):
    """More movements than the marks are apart, so the chain is entered in the middle."""
    random, balance = Random(7), 0
    then = {}
    for _ in range(30):
        lines = []
        for _ in range(10):
            amount = random.randint(1, 50)
            takes = random.random() < 0.4 and balance >= amount
            lines.append(single(amount, *((ALICE, BANK) if takes else (BANK, ALICE))))
            balance += -amount if takes else amount
            then[len(then) + 1] = balance
        await ledger.submit([group(*lines), group(single(1, BANK, BOB))])
        then[len(then) + 1] = balance
    assert await db.pool.fetchval("select count(*) from ledger_mark") > 5
    for seq in [1, 2, *random.sample(sorted(then), 25), len(then)]:
        found = await balance_at(db, 1, ALICE, seq)
        assert (found.posted, found.seq) == (then[seq], seq)
        assert found.transfer_seq in {seq, seq - 1}
    assert (await balance_at(db, 1, ALICE, 0)).transfer_id is None
    assert (await balance_at(db, 1, MERCHANT, 5)).posted == 0
    assert (await balance_at(db, 1, ALICE, 10**9)).posted == balance


async def test_a_moment_is_the_last_commit_before_it(db, ledger):
    start = db.clock.now()
    moments = [(start, 0)]
    for hour in range(1, 6):
        db.clock.offset = timedelta(hours=hour)
        await ledger.submit([group(single(hour, BANK, ALICE)), group(single(1, BANK, BOB))])
        moments.append((db.clock.now(), sum(range(hour + 1))))
    for at, posted in moments:
        assert (await balance_at(db, 1, ALICE, at)).posted == posted


async def test_a_statement_of_days_lies_between_two_balances(db, ledger):
    today = business_date(db.clock.now())
    for day in range(5):
        db.clock.offset = timedelta(days=day)
        await ledger.submit([group(single(10 + day, BANK, ALICE), single(1, ALICE, BOB))])
    middle = await statement_of_days(
        db, 1, ALICE, today + timedelta(days=1), today + timedelta(days=3)
    )
    assert (middle.opening, middle.closing) == (9, 9 + 10 + 11 + 12)
    assert [line.change for line in middle.lines] == [11, -1, 12, -1, 13, -1]
    assert middle.lines[-1].balance_after == middle.closing
    before = await statement_of_days(
        db, 1, ALICE, today - timedelta(days=9), today - timedelta(days=1)
    )
    assert (before.opening, before.closing, before.lines) == (0, 0, ())
    after = await statement_of_days(
        db, 1, ALICE, today + timedelta(days=8), today + timedelta(days=9)
    )
    assert (after.opening, after.closing, after.lines) == (55, 55, ())


async def test_a_movement_after_an_early_closing_belongs_to_the_next_day(db, ledger):
    """What is decided on a day that is closed has the first open day as its accounting day."""
    today = business_date(db.clock.now())
    tomorrow = today + timedelta(days=1)
    await ledger.submit([group(single(10, BANK, ALICE))])
    await ledger.close()
    await db.pool.execute("update ledger_book set closed_through = $1, epoch = epoch + 1", today)
    await ledger.submit([group(single(5, BANK, ALICE))])
    first = await statement_of_days(db, 1, ALICE, today, today)
    second = await statement_of_days(db, 1, ALICE, tomorrow, tomorrow)
    assert (first.opening, first.closing) == (0, 10)
    assert (second.opening, second.closing) == (10, 15)

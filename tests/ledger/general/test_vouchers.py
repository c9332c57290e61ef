"""Vouchers: the journal summed up, every commit exactly once, and a proof that finds breaches."""

from __future__ import annotations

import asyncio
from datetime import date, timedelta

import asyncpg
import pytest

from tests.ledger.general.journal import DAY, Journal
from tests.ledger.making import ALICE, BANK, BOB, FEES, MERCHANT
from tongbao.ledger.general.accounts import NUMBER_OF
from tongbao.ledger.general.model import JournalIncomplete, JournalSum, Line, lines_of
from tongbao.ledger.general.proving import check_general_ledger
from tongbao.ledger.general.queries import trial_balance, voucher, voucher_lines, vouchers
from tongbao.ledger.general.vouchers import build_next, build_vouchers, coverage
from tongbao.ledger.model import AccountKey, BookMissing, TransferKind

NEXT_DAY = DAY + timedelta(days=1)
DOLLARS = AccountKey("bank", "USD")
WALLET, CASH, PAYABLE, INCOME = "2241.03", "1002", "2241.01", "6021"


@pytest.fixture
def journal(db):
    return Journal(db)


async def a_day(journal):
    await journal.commit(
        (BANK, ALICE, 1000, "wallet.topped_up/amount"),
        (BANK, BOB, 500, "wallet.topped_up/amount"),
    )
    await journal.commit(
        (ALICE, MERCHANT, 300, "payment.captured_by_wallet/gross"),
        (MERCHANT, FEES, 3, "payment.captured_by_wallet/fee"),
    )


def figures(lines):
    return [(line.code, line.account, line.debits, line.credits, line.transfers) for line in lines]


async def test_a_voucher_has_the_sums_by_posting_code_and_account(db, journal):
    await a_day(journal)
    assert await build_vouchers(db, 1) == 1
    [made] = await vouchers(db, 1, DAY)
    assert (made.first_batch, made.last_batch, made.transfers) == (1, 2, 4)
    assert made.number == "1-20261121-2"
    _, lines = await voucher(db, 1, DAY, 2)
    assert figures(lines) == [
        ("payment.captured_by_wallet/fee", PAYABLE, 3, 0, 1),
        ("payment.captured_by_wallet/fee", INCOME, 0, 3, 1),
        ("payment.captured_by_wallet/gross", PAYABLE, 0, 300, 1),
        ("payment.captured_by_wallet/gross", WALLET, 300, 0, 1),
        ("wallet.topped_up/amount", CASH, 1500, 0, 2),
        ("wallet.topped_up/amount", WALLET, 0, 1500, 2),
    ]


async def test_each_accounting_day_of_a_stretch_has_its_own_voucher(db, journal):
    await journal.commit((BANK, ALICE, 1, "t/a"), (BANK, ALICE, 2, "t/a", NEXT_DAY))
    await build_vouchers(db, 1)
    assert [line.debits for line in await voucher_lines(db, 1, DAY)] == [1, 0]
    assert [line.debits for line in await voucher_lines(db, 1, NEXT_DAY)] == [2, 0]


async def test_what_is_only_held_or_released_is_in_no_voucher(db, journal):
    kinds = TransferKind
    await journal.commit(
        (BANK, ALICE, 9, "t/hold", DAY, kinds.PENDING),
        (BANK, ALICE, 5, "t/post", DAY, kinds.POST),
        (BANK, ALICE, 4, "t/void", DAY, kinds.VOID),
        (BANK, ALICE, 3, "t/expire", DAY, kinds.EXPIRE),
    )
    await build_vouchers(db, 1)
    assert {line.code for line in await voucher_lines(db, 1, DAY)} == {"t/post"}
    assert await check_general_ledger(db, 1) == []


async def test_a_commit_of_refusals_alone_is_covered_without_a_voucher(db, journal):
    await journal.commit()
    assert await build_vouchers(db, 1) == 1
    assert await vouchers(db, 1, DAY) == []
    assert (await coverage(db, 1)).covered_batch == 1
    assert await check_general_ledger(db, 1) == []


async def test_the_next_range_begins_where_the_last_ended(db, journal):
    for amount in range(1, 6):
        await journal.commit((BANK, ALICE, amount))
        async with db.begin("tests") as tx:
            assert await build_next(tx, 1)
    async with db.begin("tests") as tx:
        assert not await build_next(tx, 1)
    made = await vouchers(db, 1, DAY)
    assert [(each.first_batch, each.last_batch) for each in made] == [(n, n) for n in range(1, 6)]
    assert await check_general_ledger(db, 1) == []


async def test_a_long_stretch_is_cut_between_commits(db, journal):
    for _ in range(5):
        await journal.commit((BANK, ALICE, 1), (BANK, BOB, 1))
    async with db.begin("tests") as tx:
        while await build_next(tx, 1, transfers_max=5):
            pass
    made = await vouchers(db, 1, DAY)
    assert [(each.first_batch, each.last_batch) for each in made] == [(1, 2), (3, 4), (5, 5)]


async def test_a_commit_larger_than_a_stretch_is_a_range_of_its_own(db, journal):
    await journal.commit(*[(BANK, ALICE, 1)] * 4)
    async with db.begin("tests") as tx:
        assert await build_next(tx, 1, transfers_max=2)
    assert [each.transfers for each in await vouchers(db, 1, DAY)] == [4]


async def test_two_builders_sum_every_commit_up_once(db, journal):
    """The second waits for the first one's row, finds it taken and adds nothing."""
    await a_day(journal)
    async with db.begin("tests") as first:
        assert await build_next(first, 1)
        second = asyncio.create_task(build_vouchers(db, 1))
        await asyncio.sleep(0.05)
        assert not second.done()
    assert await second == 0
    assert await check_general_ledger(db, 1) == []


async def test_many_builders_at_once_leave_sound_books(db, journal):
    for amount in range(1, 20):
        await journal.commit((BANK, ALICE, amount))

    async def build():
        while True:
            async with db.begin("tests") as tx:
                if not await build_next(tx, 1, transfers_max=2):
                    break

    await asyncio.gather(*(build() for _ in range(4)))
    await build_vouchers(db, 1)
    assert (await coverage(db, 1)).covered_batch == 19
    assert await check_general_ledger(db, 1) == []


async def test_the_table_lets_no_range_overlap_leave_a_gap_or_begin_twice(db, journal):
    for amount in range(1, 10):
        await journal.commit((BANK, ALICE, amount))
    insert = """insert into gl_range (book, first_batch, last_batch, transfers, made_at)
                values (1, $1, $2, 0, $3)"""
    now = db.clock.now()
    await db.execute(insert, (1, 4, now))
    for first, last in ((6, 8), (4, 5), (3, 6), (1, 2), (0, 9)):
        with pytest.raises(asyncpg.IntegrityConstraintViolationError):
            await db.execute(insert, (first, last, now))
    await db.execute(insert, (5, 5, now))


async def test_a_voucher_is_written_once_and_never_changed(db, journal):
    await a_day(journal)
    await build_vouchers(db, 1)
    for change in (
        "delete from gl_range",
        "delete from gl_voucher",
        "delete from gl_voucher_line",
        "update gl_voucher_line set debits = 0",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await db.execute(change, ())


async def test_a_trial_balance_has_what_was_before_and_what_moved(db, journal):
    await journal.commit((BANK, ALICE, 1000), (DOLLARS, AccountKey("suspense", "USD"), 70))
    await journal.commit((ALICE, MERCHANT, 300, "t/pay", NEXT_DAY))
    await build_vouchers(db, 1)
    balance = await trial_balance(db, 1, NEXT_DAY)
    shown = {(line.account, line.currency): line for line in balance.lines}
    wallet = shown[WALLET, "CNY"]
    assert (wallet.opening, wallet.debits, wallet.credits, wallet.closing) == (-1000, 300, 0, -700)
    assert shown[PAYABLE, "CNY"].closing == -300
    assert shown[CASH, "USD"].opening == 70
    yuan, dollars = balance.totals()
    assert (yuan.currency, yuan.opening_debits, yuan.debits, yuan.closing_credits) == (
        "CNY",
        1000,
        300,
        1000,
    )
    assert (dollars.opening_debits, dollars.debits, dollars.closing_debits) == (70, 0, 70)
    assert balance.is_balanced
    assert not balance.is_closed
    assert balance.last_batch == 2


async def test_a_day_before_anything_happened_is_empty_and_balanced(db, journal):
    await a_day(journal)
    await build_vouchers(db, 1)
    balance = await trial_balance(db, 1, date(2020, 1, 1))
    assert balance.lines == ()
    assert balance.is_balanced


async def test_a_book_that_was_never_opened_is_refused(db):
    with pytest.raises(BookMissing):
        await trial_balance(db, 7, DAY)
    with pytest.raises(BookMissing):
        await build_vouchers(db, 7)


async def test_books_do_not_mix(db):
    await db.execute(
        """insert into ledger_book select 3, 0, '', opened_at, 0, 0, head_hash, newest_id, false,
                  null, null, opened_at from ledger_book where book = 1""",
        (),
    )
    await db.execute("insert into ledger_watermark values (3, 0, 0)", ())
    one, two = Journal(db), Journal(db, 3)
    await one.commit((BANK, ALICE, 5, "t/one"))
    two.codes = {"t/one": 1}
    await two.commit((BANK, ALICE, 7, "t/one"))
    for book, amount in ((1, 5), (3, 7)):
        await build_vouchers(db, book)
        [cash, _] = (await trial_balance(db, book, DAY)).lines
        assert cash.debits == amount
        assert await check_general_ledger(db, book) == []


async def test_sums_tie_to_the_accounts_whichever_of_the_two_is_behind(db, journal):
    await journal.commit((BANK, ALICE, 5))
    assert await check_general_ledger(db, 1) == []  # vouchers behind
    await build_vouchers(db, 1)
    await journal.commit((BANK, BOB, 6), projected=False)
    await build_vouchers(db, 1)
    assert await check_general_ledger(db, 1) == []  # balances behind


@pytest.fixture
async def forger(db, server):
    """A connection of the server's owner, who may change what nobody else may."""
    name = await db.pool.fetchval("select current_database()")
    await db.pool.execute(
        "grant update, delete on gl_range, gl_voucher, gl_voucher_line, ledger_transfer"
        " to current_user"
    )
    return db.pool, name


@pytest.mark.parametrize(
    ("change", "check"),
    [
        ("update gl_voucher_line set debits = debits + 1 where account = '1002'", "vouchers"),
        ("update gl_voucher_line set debits = debits + 1 where account = '1002'", "balance"),
        ("update gl_voucher_line set code = 'x/y' where account = '1002'", "vouchers"),
        ("delete from gl_voucher_line where account = '2241.03' and code like 'wallet%'", "days"),
        ("update gl_range set transfers = 9", "vouchers"),
        ("update gl_day_total set credits = credits + 1 where account = '6021'", "days"),
        ("update gl_day_total set credits = credits + 1 where account = '6021'", "accounts"),
        ("update ledger_transfer set amount = amount + 1 where seq = 1", "vouchers"),
        (
            "update ledger_account set debits_posted = debits_posted + 1 where kind = 'bank'",
            "accounts",
        ),
        ("delete from ledger_batch where batch = 1", "coverage"),
        ("delete from ledger_transfer where seq = 2", "coverage"),
    ],
)
async def test_the_proof_finds_what_was_changed(db, journal, forger, change, check):
    await a_day(journal)
    await build_vouchers(db, 1)
    assert await check_general_ledger(db, 1) == []
    pool, _ = forger
    await pool.execute("grant update, delete on ledger_batch to current_user")
    await pool.execute(change)
    assert check in {breach.check for breach in await check_general_ledger(db, 1)}


async def test_what_the_journal_lost_is_never_summed_up(db, journal, forger):
    await a_day(journal)
    pool, _ = forger
    await pool.execute("delete from ledger_transfer where seq = 2")
    with pytest.raises(JournalIncomplete):
        await build_vouchers(db, 1)
    assert (await coverage(db, 1)).covered_batch == 0
    assert [each.check for each in await check_general_ledger(db, 1)] == ["accounts"]


async def test_months_in_the_archive_are_proved_as_far_as_they_are_here(db, journal, forger):
    await a_day(journal)
    await build_vouchers(db, 1)
    await journal.commit((BANK, ALICE, 7))
    await build_vouchers(db, 1)
    pool, _ = forger
    await pool.execute("delete from ledger_transfer where seq <= 4")
    assert {each.check for each in await check_general_ledger(db, 1)} == {"coverage"}
    await pool.execute(
        """insert into ledger_month (month, state, transfers, requests, folder, manifest_sha256,
                                     sealed_at, archived_at)
           values ('2026-10-01', 'archived', 4, 0, 'there', $1, $2, $2)""",
        bytes(32),
        db.clock.now(),
    )
    await pool.execute(
        """insert into ledger_month_book (book, month, transfers, requests, first_seq, last_seq,
                                          first_batch, last_batch)
           values (1, '2026-10-01', 4, 0, 1, 4, 1, 2)"""
    )
    assert await check_general_ledger(db, 1) == []


def test_both_sides_inside_one_account_are_on_one_line():
    inside = JournalSum(DAY, "t/a", "CNY", "wallet", "wallet", 5, 2, 2)
    assert lines_of([inside], NUMBER_OF) == [Line(DAY, "CNY", "t/a", WALLET, 5, 5, 2)]

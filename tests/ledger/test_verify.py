"""Verifying names whatever is changed behind the ledger's back."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from msgspec.structs import replace

from tests.ledger.making import ALICE, BANK, BOB, MERCHANT, group, pending, post, single, void
from tongbao.ledger.model import BookMissing
from tongbao.ledger.verify import CHECKS, verify

OPEN_UP = """
do $$ declare c record; begin
    for c in select conrelid::regclass as t, conname from pg_constraint
              where conrelid::regclass::text like 'ledger%' and contype in ('c', 'f')
    loop execute format('alter table %s drop constraint %I', c.t, c.conname); end loop;
    for c in select conrelid::regclass as t, conname from pg_constraint
              where conrelid::regclass::text like 'ledger%' and contype in ('p', 'u')
    loop execute format('alter table %s drop constraint %I cascade', c.t, c.conname); end loop;
    drop index ledger_transfer_ends;
    grant update, delete, truncate on ledger_transfer, ledger_request to current_user;
end $$"""
TABLES = ["ledger_book", "ledger_account", "ledger_transfer", "ledger_hold", "ledger_request"]

LINE = "update ledger_transfer set {} where seq = 2"
"""The second transfer is a plain payment of 30 from Alice to the merchant."""
WALLET = "update ledger_account set {} where kind = 'wallet' and credits_posted = 100"
HOLD = "update ledger_hold set {} where state = 'held'"
POSTED = "update ledger_hold set {} where state = 'posted'"
ANSWER = "update ledger_request set {} where seq = 2"

TAMPERINGS = [
    (LINE.format("id = gen_random_uuid()"), "bodies"),
    (LINE.format("seq = 20"), "sequence"),
    (LINE.format("seq = 1"), "sequence"),
    (LINE.format("amount = amount + 1"), "bodies"),
    (LINE.format("amount = amount + 1"), "counters"),
    (LINE.format("amount = amount + 1"), "running_balances"),
    (LINE.format("amount = 101"), "floors"),
    (LINE.format("kind = 'pending'"), "holds"),
    (LINE.format("kind = 'void'"), "holds"),
    (LINE.format("code = 'payment.captured/fee'"), "bodies"),
    (LINE.format("reference = gen_random_uuid()"), "bodies"),
    (LINE.format("pending_id = gen_random_uuid()"), "bodies"),
    (LINE.format("whole = true"), "bodies"),
    (LINE.format("debit_after = debit_after + 1"), "running_balances"),
    (LINE.format("credit_after = credit_after + 1"), "running_balances"),
    (LINE.format("biz_date = biz_date + 1"), "dates"),
    (LINE.format("value_date = value_date - 1"), "dates"),
    (LINE.format("at = at + interval '1 microsecond'"), "requests"),
    (LINE.format("debit_account = 7"), "parties"),
    (LINE.format("credit_account = debit_account"), "parties"),
    (LINE.format("debit_account = credit_account, credit_account = debit_account"), "bodies"),
    (LINE.format("book = 52"), "sequence"),
    ("delete from ledger_transfer where seq = 2", "sequence"),
    ("delete from ledger_transfer where seq = (select max(seq) from ledger_transfer)", "sequence"),
    (
        (
            "insert into ledger_transfer select book, gen_random_uuid(), seq + 1, debit_account,"
            " credit_account, amount, kind, code, reference, pending_id, whole, debit_after,"
            " credit_after, biz_date, value_date, at from ledger_transfer order by seq desc limit 1"
        ),
        "requests",
    ),
    (WALLET.format("debits_pending = debits_pending + 1"), "counters"),
    (WALLET.format("debits_posted = debits_posted - 1"), "balanced"),
    (WALLET.format("credits_pending = credits_pending + 1"), "balanced"),
    (WALLET.format("credits_posted = credits_posted + 1"), "counters"),
    (WALLET.format("floor = -1000"), "accounts"),
    (WALLET.format("floor = null"), "accounts"),
    (WALLET.format("kind = 'gold'"), "accounts"),
    (WALLET.format("kind = 'settlement_due'"), "bodies"),
    (WALLET.format("side = 'debit'"), "accounts"),
    (WALLET.format("owner = gen_random_uuid()"), "bodies"),
    (WALLET.format("currency = 'USD'"), "parties"),
    (WALLET.format("id = 7"), "accounts"),
    (WALLET.format("book = 52"), "parties"),
    ("delete from ledger_account where kind = 'wallet'", "parties"),
    ("delete from ledger_account_kind where kind = 'wallet'", "accounts"),
    ("update ledger_account_kind set floor = -5 where kind = 'wallet'", "accounts"),
    ("update ledger_book set last_seq = last_seq + 1", "sequence"),
    ("update ledger_book set last_seq = last_seq - 1", "sequence"),
    (HOLD.format("state = 'posted', posted_amount = amount"), "holds"),
    (HOLD.format("state = 'voided'"), "holds"),
    (HOLD.format("amount = amount - 1"), "holds"),
    (HOLD.format("debit_account = credit_account"), "holds"),
    (HOLD.format("credit_account = debit_account"), "holds"),
    (HOLD.format("pending_id = gen_random_uuid()"), "holds"),
    (HOLD.format("expires_at = null"), "bodies"),
    (HOLD.format("book = 52"), "holds"),
    (POSTED.format("posted_amount = posted_amount - 1"), "holds"),
    (POSTED.format("state = 'held', posted_amount = 0"), "holds"),
    (POSTED.format("state = 'expired'"), "holds"),
    ("delete from ledger_hold where state = 'held'", "holds"),
    (
        (
            "insert into ledger_hold select book, gen_random_uuid(), debit_account, credit_account,"
            " amount, state, posted_amount, expires_at from ledger_hold limit 1"
        ),
        "holds",
    ),
    (ANSWER.format("body_hash = sha256('x')"), "bodies"),
    (ANSWER.format("status = 'refused', code = 'x', seq = null, transfer_count = 0"), "requests"),
    (ANSWER.format("seq = seq + 1"), "requests"),
    (ANSWER.format("transfer_count = 2"), "requests"),
    (ANSWER.format("at = at - interval '1 day'"), "requests"),
    (ANSWER.format("book = 52"), "requests"),
    ("delete from ledger_request where seq = 2", "requests"),
    (
        (
            "insert into ledger_request select book, gen_random_uuid(), body_hash, status, code,"
            " seq, transfer_count, at from ledger_request where seq = 2"
        ),
        "requests",
    ),
]

NOT_DERIVABLE = {
    # decided by people and kept in the audit log, or no figure of money
    "ledger_book": {"epoch", "frozen", "opened_at"},
    "ledger_account": {"state", "opened_at"},
    "ledger_request": {"id", "code"},  # a group's name, and why a group moved nothing
}


@pytest.fixture
async def full_book(db, ledger):
    """One book in which everything happened once."""
    now = db.clock.now()
    held = pending(5, ALICE, BOB, expires_at=now + timedelta(days=30))
    to_post, to_void = pending(10, ALICE, MERCHANT), pending(7, ALICE, MERCHANT)
    to_expire = pending(3, ALICE, MERCHANT, expires_at=now + timedelta(hours=1))
    await ledger.submit(
        [
            group(single(100, BANK, ALICE)),
            group(single(30, ALICE, MERCHANT)),
            group(single(10_000, ALICE, BOB)),
            group(held, to_post, to_void, to_expire),
            group(post(to_post, 6), single(2, MERCHANT, BANK)),
            group(void(to_void)),
            group(),
        ]
    )
    db.clock.offset = timedelta(hours=2)
    assert await ledger.expire_holds(db.clock.now(), 10) == 1
    return db


async def test_a_sound_book_passes_every_check_and_says_how_much_it_looked_at(full_book):
    report = await verify(full_book, books=[1])
    assert report.is_sound
    looked_at = {check.name: check.looked_at for check in report.checks}
    assert looked_at == {
        "accounts": 4,
        "sequence": 10,
        "parties": 10,
        "dates": 10,
        "floors": 10,
        "running_balances": 10,
        "holds": 4,
        "overdue_holds": 1,
        "requests": 6,
        "bodies": 6,
        "counters": 4,
        "balanced": 2,
    }


async def test_every_tampering_is_named(full_book):
    run = full_book.pool.execute
    await run(OPEN_UP)
    for table in [*TABLES, "ledger_account_kind"]:
        await run(f"create table kept_{table} as table {table}")
    for statement, check in TAMPERINGS:
        assert await run(statement) not in {"UPDATE 0", "DELETE 0", "INSERT 0 0"}, statement
        report = await verify(full_book)
        broken = {each.name: each for each in report.broken}
        assert check in broken, (statement, broken)
        assert broken[check].first is not None
        for table in [*TABLES, "ledger_account_kind"]:
            await run(f"truncate {table}")
            await run(f"insert into {table} table kept_{table}")
    assert (await verify(full_book)).is_sound


async def test_every_check_is_broken_by_some_tampering():
    assert {check for _, check in TAMPERINGS} == set(CHECKS) - {"overdue_holds"}


async def test_every_column_is_tampered_with_or_known_not_to_be_derivable(db):
    columns = await db.pool.fetch(
        "select table_name, column_name from information_schema.columns"
        " where table_name = any($1::text[])",
        TABLES,
    )
    for table, column in columns:
        set_alone = re.compile(rf"update {table} set {column} =")
        tried = any(set_alone.match(statement) for statement, _ in TAMPERINGS)
        identifies = (table, column) == ("ledger_book", "book")
        assert identifies or tried != (column in NOT_DERIVABLE.get(table, ())), (table, column)


async def test_the_first_breach_says_where(full_book):
    await full_book.pool.execute(OPEN_UP)
    [tampered] = await full_book.pool.fetch(LINE.format("amount = 31") + " returning *")
    broken = {check.name: check.first for check in (await verify(full_book)).broken}
    assert (broken["bodies"].transfer, broken["bodies"].seq) == (tampered["id"], 2)
    assert broken["bodies"].request is not None
    first = broken["running_balances"]
    assert (first.transfer, first.account) == (tampered["id"], tampered["debit_account"])
    assert first.what == "70 is noted, the transfers add up to 69"
    assert broken["counters"].account in {tampered["debit_account"], tampered["credit_account"]}


async def test_an_open_hold_long_past_its_time_is_named(full_book):
    full_book.clock.offset = timedelta(days=30, hours=3)
    assert (await verify(full_book)).is_sound
    report = await verify(full_book, grace=timedelta(hours=1))
    assert [check.name for check in report.broken] == ["overdue_holds"]


async def test_a_broken_book_does_not_taint_the_others(full_book, ledger):
    await ledger.open_book(52, actor="tests")
    await ledger.submit([group(single(5, BANK, ALICE), book=52)])
    await full_book.pool.execute(
        "update ledger_account set credits_posted = 6 where book = 52 and kind = 'wallet'"
    )
    report = await verify(full_book)
    assert {check.book for check in report.broken} == {52}
    assert (await verify(full_book, books=[1])).is_sound


async def test_posting_goes_on_while_a_book_is_verified(full_book, ledger):
    """The snapshot is one: what is posted after it began is not half seen."""
    line = single(1, BANK, replace(ALICE))
    async with full_book.begin("by hand") as tx:
        await tx.execute("set transaction isolation level repeatable read", ())
        await tx.fetch("select 1 from ledger_book", ())
        await ledger.submit([group(line)])
        assert await tx.connection.fetchval("select max(seq) from ledger_transfer") == 10
    assert (await verify(full_book)).is_sound


async def test_a_book_that_was_never_opened_is_not_called_sound(db):
    with pytest.raises(BookMissing):
        await verify(db, books=[99])

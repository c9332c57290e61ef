"""Verifying names whatever is changed behind the ledger's back."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from msgspec.structs import replace

from tests.ledger.making import ALICE, BANK, BOB, MERCHANT, group, pending, post, single, void
from tongbao.infra import audit
from tongbao.kernel.clock import business_date
from tongbao.ledger.model import AccountKey, AccountState, BookMissing
from tongbao.ledger.queries import balance_of
from tongbao.ledger.verify import CHECKS, verify

OPEN_UP = """
do $$ declare c record; begin
    for c in select conrelid::regclass as t, conname from pg_constraint
              where conrelid::regclass::text like 'ledger%' and contype in ('c', 'f')
                and conparentid = 0 and coninhcount = 0
    loop execute format('alter table %s drop constraint %I', c.t, c.conname); end loop;
    for c in select conrelid::regclass as t, conname from pg_constraint
              where conrelid::regclass::text like 'ledger%' and contype in ('p', 'u')
                and conparentid = 0
    loop execute format('alter table %s drop constraint %I cascade', c.t, c.conname); end loop;
    for c in select relname from pg_class where relname like 'ledger%' and relkind in ('r', 'p')
    loop execute format('grant update, delete, truncate on %I to current_user', c.relname);
    end loop;
end $$"""
TABLES = [
    "ledger_account_kind",
    "ledger_book",
    "ledger_watermark",
    "ledger_account",
    "ledger_opening",
    "ledger_code",
    "ledger_transfer",
    "ledger_mark",
    "ledger_batch",
    "ledger_hold",
    "ledger_request",
]
KIND = "update ledger_account_kind set {} where kind = 'wallet'"
HEAD = "update ledger_book set {} where book = 1"
MARK = "update ledger_watermark set {} where book = 1"
WALLET = "update ledger_account set {} where kind = 'wallet' and credits_posted = 1001"
OPENING = "update ledger_opening set {} where account = (select max(account) from ledger_opening)"
CODE = "update ledger_code set {} where code = 'test/leg'"
LINE = "update ledger_transfer set {} where book = 1 and seq = 3"
"""A plain payment of 30 from Alice to the merchant, alone in its group and commit."""
ENTRANCE = "update ledger_mark set {} where account = (select min(account) from ledger_mark)"
COMMIT = "update ledger_batch set {} where book = 1 and batch = 2"
HOLD = "update ledger_hold set {} where state = 'held'"
POSTED = "update ledger_hold set {} where state = 'posted'"
ANSWER = "update ledger_request set {} where transfer_count = 5"
NO = "update ledger_request set {} where status = 'refused'"

TAMPERINGS = [
    # kinds
    (KIND.format("kind = 'gold'"), "accounts"),
    (KIND.format("side = 'debit'"), "accounts"),
    (KIND.format("floor = -5"), "accounts"),
    ("delete from ledger_account_kind where kind = 'wallet'", "accounts"),
    # heads
    (HEAD.format("epoch = 0"), "batches"),
    (HEAD.format("last_seq = last_seq + 1"), "sequence"),
    (HEAD.format("last_seq = last_seq - 1"), "batches"),
    (HEAD.format("last_batch = last_batch - 1"), "batches"),
    (HEAD.format("head_hash = sha256('x')"), "batch_chain"),
    (HEAD.format("newest_id = gen_random_uuid()"), "batches"),
    (HEAD.format("frozen = true"), "alterations"),
    (HEAD.format("closed_through = '2026-01-01'"), "alterations"),
    # watermarks
    (MARK.format("book = 52"), "watermark"),
    (MARK.format("seq = seq - 1"), "watermark"),
    (MARK.format("batch = batch - 1"), "watermark"),
    ("delete from ledger_watermark where book = 1", "watermark"),
    (
        (
            "update ledger_watermark w set batch = b.batch, seq = b.first_seq + b.transfers - 1"
            " from ledger_batch b where w.book = 1 and b.book = 1 and b.batch = w.batch - 1"
        ),
        "counters",
    ),
    # accounts
    (WALLET.format("book = 52"), "parties"),
    (WALLET.format("id = 7"), "accounts"),
    (WALLET.format("kind = 'gold'"), "accounts"),
    (WALLET.format("kind = 'subsidy'"), "accounts"),
    (WALLET.format("owner = '00000000-0000-0000-0000-000000000000'"), "accounts"),
    (WALLET.format("owner = gen_random_uuid()"), "accounts"),
    (WALLET.format("opened_at = opened_at - interval '1 microsecond'"), "accounts"),
    (WALLET.format("currency = 'USD'"), "parties"),
    (WALLET.format("currency = 'yuan'"), "accounts"),
    (WALLET.format("side = 'debit'"), "accounts"),
    (WALLET.format("side = 'left'"), "accounts"),
    (WALLET.format("floor = -1000"), "alterations"),
    (WALLET.format("floor = null"), "alterations"),
    (WALLET.format("ceiling = 10"), "alterations"),
    (WALLET.format("state = 'frozen'"), "alterations"),
    (WALLET.format("state = 'asleep'"), "accounts"),
    (WALLET.format("debits_pending = debits_pending + 1"), "counters"),
    (WALLET.format("debits_posted = debits_posted - 1"), "balanced"),
    (WALLET.format("credits_pending = credits_pending + 1"), "balanced"),
    (WALLET.format("credits_posted = credits_posted + 1"), "counters"),
    (WALLET.format("touches = touches + 1"), "chains"),
    (WALLET.format("last_transfer = gen_random_uuid()"), "chains"),
    (WALLET.format("last_transfer = null"), "chains"),
    ("delete from ledger_account where kind = 'wallet'", "parties"),
    # openings
    (OPENING.format("book = 52"), "accounts"),
    (OPENING.format("account = 7"), "accounts"),
    (OPENING.format("fingerprint = sha256('x')"), "accounts"),
    (OPENING.format("fingerprint = fingerprint || 'x'"), "accounts"),
    ("delete from ledger_opening where book = 1", "accounts"),
    ("insert into ledger_opening values (1, 7, sha256('x'))", "accounts"),
    # codes
    (CODE.format("number = 99"), "codes"),
    ("delete from ledger_code where code = 'test/leg'", "codes"),
    # transfers: every byte of a row is in its commit's digest, and most stand somewhere else too
    (LINE.format("book = 52"), "sequence"),
    (LINE.format("id = gen_random_uuid()"), "digests"),
    (LINE.format("id = gen_random_uuid()"), "chains"),
    (LINE.format("id = gen_random_uuid()"), "batches"),
    (LINE.format("seq = 20000"), "sequence"),
    (LINE.format("seq = 1"), "sequence"),
    (LINE.format("debit_account = 7"), "parties"),
    (LINE.format("credit_account = debit_account"), "parties"),
    (LINE.format("debit_account = credit_account, credit_account = debit_account"), "digests"),
    (LINE.format("amount = amount + 1"), "digests"),
    (LINE.format("amount = amount + 1"), "counters"),
    (LINE.format("amount = amount + 1"), "running_balances"),
    (LINE.format("amount = 1001"), "limits"),
    (LINE.format("kind = 2"), "holds"),
    (LINE.format("kind = 4"), "holds"),
    (LINE.format("kind = 9"), "holds"),
    (LINE.format("flags = 1"), "requests"),
    (LINE.format("flags = 8"), "digests"),
    (LINE.format("code = 99"), "codes"),
    (LINE.format("reference = gen_random_uuid()"), "digests"),
    (LINE.format("pending_id = gen_random_uuid()"), "holds"),
    (LINE.format("debit_previous = null"), "chains"),
    (LINE.format("debit_previous = credit_previous"), "chains"),
    (LINE.format("credit_previous = gen_random_uuid()"), "chains"),
    (LINE.format("debit_after = debit_after + 1"), "running_balances"),
    (LINE.format("credit_after = credit_after + 1"), "running_balances"),
    (LINE.format("biz_date = biz_date - 1"), "dates"),
    (LINE.format("biz_date = biz_date + 1"), "digests"),
    (LINE.format("value_date = value_date - 1"), "digests"),
    (LINE.format("at = at + interval '1 microsecond'"), "dates"),
    ("delete from ledger_transfer where book = 1 and seq = 3", "sequence"),
    ("delete from ledger_transfer where book = 1 and seq = 3", "batches"),
    (
        "delete from ledger_transfer where seq = (select max(seq) from ledger_transfer)",
        "sequence",
    ),
    (
        (
            "insert into ledger_transfer select book, gen_random_uuid(), seq + 1, debit_account,"
            " credit_account, amount, kind, flags, code, reference, pending_id, debit_previous,"
            " credit_previous, debit_after, credit_after, biz_date, value_date, at"
            " from ledger_transfer where book = 1 order by seq desc limit 1"
        ),
        "sequence",
    ),
    # marks
    (ENTRANCE.format("book = 52"), "marks"),
    (ENTRANCE.format("account = account + 1"), "marks"),
    (ENTRANCE.format("seq = seq + 1"), "marks"),
    (ENTRANCE.format("transfer_id = gen_random_uuid()"), "marks"),
    ("delete from ledger_mark", "marks"),
    ("insert into ledger_mark select 1, account, 10000, transfer_id from ledger_mark", "marks"),
    # commits
    (COMMIT.format("book = 52"), "batches"),
    (COMMIT.format("batch = 20000"), "batches"),
    (COMMIT.format("epoch = 20000"), "batches"),
    (COMMIT.format("first_seq = first_seq + 1"), "batches"),
    (COMMIT.format("transfers = transfers + 1"), "batches"),
    (COMMIT.format("requests = requests + 1"), "batches"),
    (COMMIT.format("spans = array[gen_random_uuid(), spans[2]]"), "batches"),
    (COMMIT.format("spans = array[spans[1], gen_random_uuid()]"), "batches"),
    (COMMIT.format("spans = spans || spans"), "batches"),
    (COMMIT.format("spans = array[spans]"), "batches"),
    (COMMIT.format("spans = '{}'"), "batches"),
    (COMMIT.format("digest = sha256('x')"), "digests"),
    (COMMIT.format("digest = digest || 'x'"), "digests"),
    (COMMIT.format("hash = sha256('x')"), "batch_chain"),
    (COMMIT.format("hash = hash || 'x'"), "batch_chain"),
    (COMMIT.format("at = at + interval '1 microsecond'"), "dates"),
    ("delete from ledger_batch where book = 1 and batch = 2", "batches"),
    ("delete from ledger_batch where book = 1", "batches"),
    # holds
    (HOLD.format("book = 52"), "holds"),
    (HOLD.format("pending_id = gen_random_uuid()"), "holds"),
    (HOLD.format("debit_account = credit_account"), "holds"),
    (HOLD.format("credit_account = debit_account"), "holds"),
    (HOLD.format("amount = amount - 1"), "holds"),
    (HOLD.format("state = 'posted', posted_amount = amount"), "holds"),
    (HOLD.format("state = 'voided'"), "holds"),
    (HOLD.format("state = 'lost'"), "holds"),
    (HOLD.format("posted_amount = 1"), "holds"),
    (HOLD.format("expires_at = null"), "bodies"),
    (HOLD.format("expires_at = expires_at - interval '60 days'"), "holds"),
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
    # answers
    (ANSWER.format("book = 52"), "digests"),
    (ANSWER.format("id = gen_random_uuid()"), "digests"),
    (ANSWER.format("body_hash = sha256('x')"), "bodies"),
    (ANSWER.format("body_hash = body_hash || 'x'"), "requests"),
    (ANSWER.format("status = 'refused', code = 'x', seq = null, transfer_count = 0"), "digests"),
    (ANSWER.format("status = 'maybe'"), "requests"),
    (ANSWER.format("code = 'x'"), "requests"),
    (ANSWER.format("seq = seq + 1"), "requests"),
    (ANSWER.format("seq = null"), "requests"),
    (ANSWER.format("transfer_count = 2"), "requests"),
    (ANSWER.format("batch = batch + 1"), "batches"),
    (ANSWER.format("batch = 20000"), "requests"),
    (ANSWER.format("at = at - interval '1 day'"), "requests"),
    (NO.format("code = 'ledger.account_closed'"), "digests"),
    (NO.format("body_hash = sha256('x')"), "digests"),
    (NO.format("status = 'created', code = null"), "digests"),
    ("delete from ledger_request where transfer_count = 5", "batches"),
    (
        (
            "insert into ledger_request select book, gen_random_uuid(), body_hash, status, code,"
            " seq, transfer_count, batch, at from ledger_request where transfer_count = 5"
        ),
        "batches",
    ),
    (
        (
            "insert into ledger_request select 1, (select id from ledger_transfer where seq = 3),"
            " body_hash, status, code, seq, transfer_count, batch, at from ledger_request"
            " where status = 'refused'"
        ),
        "requests",
    ),
]

NOT_DERIVABLE = {
    "ledger_book": {
        "book": "its number: a book without rows of its own name is another book",
        "holder": "where its writer listens now",
        "lease_until": "until when others ask that one",
        "stopped_because": "what a person reads; it moves nothing",
        "opened_at": "no figure follows from it",
    },
    "ledger_code": {"code": "the journal keeps the number, and no figure follows from the word"},
}
"""What nothing else in the ledger repeats, and why that is bearable."""


@pytest.fixture
def balances():
    """One mode will do: what is stored is the same in both."""
    return "behind"


@pytest.fixture
async def full_book(db, ledger):
    """One book in which everything happened once."""
    now = db.clock.now()
    held = pending(5, ALICE, BOB, expires_at=now + timedelta(days=30))
    to_post, to_void = pending(10, ALICE, MERCHANT), pending(7, ALICE, MERCHANT)
    to_expire = pending(3, ALICE, MERCHANT, expires_at=now + timedelta(hours=1))
    paid, short = single(30, ALICE, MERCHANT), single(900, ALICE, BOB, at_most=True)
    back_dated = single(1, BANK, ALICE, value_date=now.date() - timedelta(days=9))
    for each in (
        group(single(1000, BANK, ALICE), single(1, ALICE, BANK)),
        group(paid, id=paid.id),
        group(single(10_000, ALICE, BOB)),
        group(held, to_post, to_void, to_expire, single(1, BANK, BOB)),
        group(post(to_post, 6), single(2, MERCHANT, BANK)),
        group(void(to_void)),
        group(short, id=short.id),
        group(back_dated),
        group(),
        group(*(single(1, BANK, BOB) for _ in range(130))),
    ):
        await ledger.submit([each])
    db.clock.offset = timedelta(hours=2)
    assert await ledger.expire_holds(db.clock.now(), 10) == 1
    why = {"actor": "tests", "because": "tests"}
    await ledger.set_account_limits(1, BOB, floor=10, ceiling=5000, **why)
    await ledger.set_account_state(1, MERCHANT, AccountState.FROZEN, **why)
    await ledger.set_book_frozen(1, True, **why)
    await ledger.set_book_frozen(1, False, **why)
    await ledger.submit([group(single(1, BANK, BOB))])
    await balance_of(db, 1, BOB)
    return db


def broken_in(report):
    return {check.name: check for check in report.broken}


async def test_a_sound_book_passes_every_check_and_says_how_much_it_looked_at(full_book):
    report = await verify(full_book, books=[1])
    assert broken_in(report) == {}
    assert report.is_sound
    looked_at = {check.name: check.looked_at for check in report.checks}
    transfers = await full_book.pool.fetchval("select count(*) from ledger_transfer")
    assert looked_at.keys() == CHECKS.keys()
    assert {looked_at[name] for name in ("sequence", "parties", "codes")} == {transfers}
    assert looked_at["running_balances"] == looked_at["limits"] == 2 * transfers
    assert looked_at["counters"] == 4
    assert looked_at["holds"] == 4
    assert looked_at["overdue_holds"] == 1
    assert looked_at["bodies"] == 7
    assert looked_at["marks"] > 1
    assert looked_at["batches"] == looked_at["digests"] == 12


async def test_every_tampering_is_named_and_placed(full_book):
    run = full_book.pool.execute
    await run(OPEN_UP)
    for table in TABLES:
        await run(f"create table kept_{table} as table {table}")
    for statement, check in TAMPERINGS:
        assert await run(statement) not in {"UPDATE 0", "DELETE 0", "INSERT 0 0"}, statement
        report = await verify(full_book)
        broken = broken_in(report)
        assert check in broken, (statement, broken)
        assert broken[check].first is not None
        words = statement.split()
        table = words[1] if words[0] == "update" else words[2]
        await run(f"truncate {table}")
        await run(f"insert into {table} table kept_{table}")
    assert broken_in(await verify(full_book)) == {}


async def test_every_check_is_broken_by_some_tampering():
    assert {check for _, check in TAMPERINGS} == set(CHECKS) - {"overdue_holds"}


async def test_every_column_is_tampered_with_or_known_not_to_be_derivable(db):
    columns = await db.pool.fetch(
        "select table_name, column_name from information_schema.columns"
        " where table_name = any($1::text[])",
        TABLES,
    )
    assert {table for table, _ in columns} == set(TABLES)
    for table, column in columns:
        set_alone = f"update {table} set {column} = "
        tried = any(statement.startswith(set_alone) for statement, _ in TAMPERINGS)
        is_excused = column in NOT_DERIVABLE.get(table, {})
        shares_the_key = column == "book" and table == "ledger_book"
        assert tried != (is_excused or shares_the_key), (table, column)


async def test_the_first_breach_says_where(full_book):
    await full_book.pool.execute(OPEN_UP)
    [tampered] = await full_book.pool.fetch(LINE.format("amount = 31") + " returning *")
    broken = {name: check.first for name, check in broken_in(await verify(full_book)).items()}
    assert broken.keys() == {"digests", "running_balances", "counters"}
    assert (broken["digests"].batch, broken["digests"].seq) == (2, 3)
    first = broken["running_balances"]
    assert (first.transfer, first.account) == (tampered["id"], tampered["debit_account"])
    assert first.what == "969 is noted, the transfers add up to 968"
    assert broken["counters"].account in {tampered["debit_account"], tampered["credit_account"]}


async def test_an_open_hold_long_past_its_time_is_named(full_book):
    full_book.clock.offset = timedelta(days=30, hours=3)
    assert (await verify(full_book)).is_sound
    report = await verify(full_book, grace=timedelta(hours=1))
    assert [check.name for check in report.broken] == ["overdue_holds"]


async def test_a_limit_binds_from_the_moment_it_was_set(full_book, ledger):
    """Alice once had a thousand, before anybody said that she may have a hundred."""
    why = {"actor": "tests", "because": "tests"}
    await ledger.set_account_limits(1, ALICE, floor=0, ceiling=100, **why)
    assert (await verify(full_book)).is_sound
    await full_book.pool.execute("grant update on audit_entry to current_user")
    await full_book.pool.execute("update audit_entry set at = at - interval '1 day'")
    broken = broken_in(await verify(full_book))
    assert broken.keys() == {"limits"}
    assert broken["limits"].first.seq == 1
    assert broken["limits"].first.what == "it rose to 1000, above the ceiling"


async def test_balances_that_are_behind_are_compared_where_they_are(full_book):
    """The journal after the watermark is proved as well, by itself."""
    for side, counter in (("debit", "debits_posted"), ("credit", "credits_posted")):
        await full_book.pool.execute(
            f"update ledger_account a set {counter} = {counter} - 1, touches = touches - 1,"
            f" last_transfer = t.{side}_previous from ledger_transfer t, ledger_book b"
            f" where b.book = 1 and t.seq = b.last_seq and a.id = t.{side}_account"
        )
    assert broken_in(await verify(full_book)).keys() == {"counters", "chains"}
    await full_book.pool.execute(MARK.format("seq = seq - 1, batch = batch - 1"))
    assert broken_in(await verify(full_book)) == {}
    await full_book.pool.execute(OPEN_UP)
    await full_book.pool.execute(
        "update ledger_transfer set debit_after = 0"
        " where seq = (select last_seq from ledger_book where book = 1)"
    )
    assert broken_in(await verify(full_book)).keys() == {"digests", "running_balances"}


async def test_a_broken_book_does_not_taint_the_others(full_book, ledger):
    await ledger.open_book(52, actor="tests")
    await ledger.submit([group(single(5, BANK, ALICE), book=52)])
    await balance_of(full_book, 52, ALICE)
    await full_book.pool.execute(
        "update ledger_account set credits_posted = 6 where book = 52 and kind = 'wallet'"
    )
    report = await verify(full_book, parallel=3)
    assert {check.book for check in report.broken} == {52}
    assert (await verify(full_book, books=[1])).is_sound


async def test_a_breach_stops_the_writer_of_its_book_when_asked_to(full_book, ledger):
    await ledger.open_book(52, actor="tests")
    for book in (1, 52):
        await ledger.submit([group(single(5, BANK, ALICE), book=book)])
        await balance_of(full_book, book, ALICE)
    await full_book.pool.execute(
        "update ledger_account set credits_posted = 6 where book = 52 and kind = 'wallet'"
    )
    assert not (await verify(full_book)).is_sound
    [still] = await ledger.submit([group(single(5, BANK, ALICE), book=52)])
    assert still.status == "created"
    assert not (await verify(full_book, stop=True)).is_sound
    [stopped] = await ledger.submit([group(single(5, BANK, ALICE), book=52)])
    [sound] = await ledger.submit([group(single(5, BANK, ALICE))])
    assert (stopped.status, stopped.code) == ("in_flight", "ledger.book_stopped")
    assert sound.status == "created"
    because = await full_book.pool.fetchval(
        "select stopped_because from ledger_book where book = 52"
    )
    assert because.startswith("verify: counters: credits_posted is 11")


async def test_posting_goes_on_while_a_book_is_verified(full_book, ledger):
    """The snapshot is one: what is posted after it began is not half seen."""

    async def posting():
        for _ in range(20):
            await ledger.submit([group(single(1, BANK, replace(ALICE)))])

    reports, _ = await asyncio.gather(
        asyncio.gather(*(verify(full_book) for _ in range(5))), posting()
    )
    assert all(broken_in(report) == {} for report in reports)


async def test_progress_is_told_up_to_the_end(full_book):
    told = []
    await verify(full_book, books=[1], progress=lambda *step: told.append(step))
    last = await full_book.pool.fetchval("select last_seq from ledger_book where book = 1")
    assert told[-1] == (1, last, last)


async def test_a_book_that_was_never_opened_is_not_called_sound(db):
    with pytest.raises(BookMissing):
        await verify(db, books=[99])


async def test_books_with_accounts_that_were_never_used_are_sound(db, ledger):
    assert (await verify(db)).is_sound
    await ledger.submit([group(single(5, AccountKey("wallet", "CNY", ALICE.owner), BANK))])
    assert (await verify(db)).is_sound


async def test_a_transfer_after_a_closing_has_the_first_open_day(full_book, ledger):
    """The audit log says after which commit the day was closed; only a later one is bound."""
    db, today = full_book, business_date(full_book.clock.now())
    await ledger.close()
    async with db.begin("tests") as tx:
        await tx.execute(
            "update ledger_book set closed_through = $1, epoch = epoch + 1 where book = 1", (today,)
        )
        last = await tx.fetch("select last_batch from ledger_book where book = 1", ())
        facts = {"day": today.isoformat(), "last_batch": last[0]["last_batch"]}
        await audit.record(tx, "general_ledger.day_closed", "book 1", facts)
    await ledger.submit([group(single(3, BANK, BOB))])
    await balance_of(db, 1, BOB)
    assert broken_in(await verify(db)) == {}
    await db.pool.execute("grant update on ledger_transfer to current_user")
    await db.pool.execute(
        "update ledger_transfer set biz_date = biz_date - 1"
        " where seq = (select last_seq from ledger_book where book = 1)"
    )
    assert broken_in(await verify(db)).keys() == {"dates", "digests", "bodies"}

"""Months have partitions before they begin, and are sealed in turn when nothing more can come."""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

import pytest

from tests.ledger.archive.past import (
    ALICE,
    BANK,
    BOB,
    MONTH,
    NEXT,
    group_of,
    make_past,
    pretend_proven,
    sound,
    submit,
    transfer,
)
from tongbao.infra.db import Db
from tongbao.kernel.clock import real_now
from tongbao.kernel.ids import new_id
from tongbao.kernel.licence import Licence
from tongbao.ledger.archive import _store as store
from tongbao.ledger.archive.model import (
    BookNotSound,
    MonthHasOpenHolds,
    MonthHasOpenMovements,
    MonthNotProven,
    MonthOutOfTurn,
    MonthTooYoung,
    MonthUnreadable,
    first_of,
    lowest_id,
    month_after,
    parse_month,
    partition_of,
)
from tongbao.ledger.archive.months import list_months, list_partitions, make_months, seal_month
from tongbao.ledger.archive.queries import archived_before
from tongbao.ledger.book import Ledger
from tongbao.ledger.model import TransferKind
from tongbao.ledger.queries import caught_up


def test_the_bounds_of_a_month_are_those_of_its_ids() -> None:
    just_before = datetime(2026, 12, 31, 23, 59, 59, 999_000, tzinfo=UTC)
    bound = lowest_id(date(2027, 1, 1))

    assert UUID(int=int(just_before.timestamp() * 1000) << 80 | (1 << 80) - 1) < bound
    assert bound.int >> 80 == int(datetime(2027, 1, 1, tzinfo=UTC).timestamp() * 1000)
    assert lowest_id(first_of(real_now())) < new_id() < lowest_id(month_after(first_of(real_now())))


def test_months_are_counted_over_the_year() -> None:
    assert month_after(date(2026, 12, 1)) == date(2027, 1, 1)
    assert month_after(date(2026, 1, 1), -1) == date(2025, 12, 1)
    assert month_after(date(2026, 11, 1), 14) == date(2028, 1, 1)
    assert first_of(datetime(2026, 12, 1, 7, tzinfo=UTC)) == date(2026, 12, 1)
    assert parse_month("2026-02") == date(2026, 2, 1)
    for text in ("2026", "2026-13", "2026-02-01", "last"):
        with pytest.raises(MonthUnreadable):
            parse_month(text)


async def test_a_new_database_has_this_month_and_two_ahead(db: Db) -> None:
    this = first_of(real_now())
    wanted = [
        partition_of(parent, month_after(this, ahead))
        for parent in ("ledger_transfer", "ledger_request")
        for ahead in range(3)
    ]

    names = [partition.name for partition in await list_partitions(db)]

    assert set(wanted) <= set(names)
    assert await make_months(db) == []


async def test_partitions_of_coming_months_are_made_once(db: Db) -> None:
    later = month_after(first_of(real_now()), 3)

    made = await make_months(db, ahead=3)

    assert made == [partition_of("ledger_transfer", later), partition_of("ledger_request", later)]
    assert await make_months(db, ahead=3) == []


async def test_processes_that_start_at_once_make_each_partition_once(db: Db) -> None:
    made = await asyncio.gather(*(make_months(db, ahead=4) for _ in range(4)))

    names = [name for each in made for name in each]
    assert len(names) == len(set(names)) == 4
    assert await make_months(db, ahead=4) == []


async def test_a_month_that_began_in_the_default_partition_stays_there(db: Db, ledger) -> None:
    """No row is ever moved: nothing may delete from the journal."""
    this = first_of(real_now())
    async with db.begin("tests") as tx:
        await store.drop_partitions(tx, this)
    await submit(ledger, group_of(transfer(this, 5, BANK, ALICE)))

    made = await make_months(db)

    assert made == [partition_of("ledger_request", this)]


async def test_nothing_in_a_partition_can_be_changed(db: Db) -> None:
    for partition in await list_partitions(db):
        for right in ("update", "delete", "truncate"):
            assert not await db.pool.fetchval(
                "select has_table_privilege($1, $2)", partition.name, right
            ), partition.name


async def test_a_sealed_month_is_summed_up_and_its_ids_are_not_taken_any_more(
    db: Db, ledger
) -> None:
    await make_past(db)
    hold = transfer(MONTH, 30, ALICE, BOB, TransferKind.PENDING)
    assert await submit(
        ledger,
        group_of(transfer(MONTH, 100, BANK, ALICE)),
        group_of(hold),
        group_of(transfer(MONTH, 999, ALICE, BOB)),  # refused, and recorded
        group_of(transfer(NEXT, 20, None, None, TransferKind.POST, pending_id=hold.id)),
        group_of(transfer(NEXT, 10, BANK, BOB)),
    ) == ["created", "created", "refused", "created", "created"]
    await pretend_proven(db)

    sealed = await seal_month(db, MONTH, actor="tests", prove=sound)

    assert (sealed.state, sealed.transfers, sealed.requests) == ("sealed", 2, 1)
    assert await archived_before(db, 1) == lowest_id(NEXT)
    of_book = (await store.MONTH_BOOKS.all(db, MONTH))[0]
    assert (of_book.transfers, of_book.requests) == (2, 1)
    assert (of_book.first_seq, of_book.last_seq) == (1, 2)
    sums = await store.MONTH_ACCOUNTS.all(db, 1, MONTH)
    assert {
        (s.debits_pending, s.debits_posted, s.credits_pending, s.credits_posted, s.touches)
        for s in sums
    } == {(0, 100, 0, 0, 1), (30, 0, 0, 100, 2), (0, 0, 30, 0, 1)}
    late = transfer(MONTH, 1, BANK, ALICE)
    [refused] = await ledger.submit([group_of(late)])
    [repeated] = await ledger.submit([group_of(hold)])
    assert (refused.status, refused.code) == ("refused", "ledger.id_archived")
    assert (repeated.status, repeated.code) == ("refused", "ledger.id_archived")
    assert await submit(ledger, group_of(transfer(NEXT, 1, BANK, ALICE))) == ["created"]
    assert await seal_month(db, MONTH, actor="tests", prove=sound) == sealed
    assert [month.month for month in await list_months(db)] == [MONTH]


async def test_every_page_of_a_sealed_month_is_frozen(db: Db, ledger) -> None:
    """So that no vacuum against wraparound ever has to read it again."""
    await make_past(db)
    await submit(ledger, *[group_of(transfer(MONTH, 1, BANK, ALICE)) for _ in range(20)])
    await pretend_proven(db)

    await seal_month(db, MONTH, actor="tests", prove=sound)

    pages, frozen = await db.pool.fetchrow(
        "select relpages, relallfrozen from pg_class where relname = $1",
        partition_of("ledger_transfer", MONTH),
    )
    assert pages > 0
    assert frozen == pages


async def test_a_month_is_sealed_in_its_turn_and_not_too_early(db: Db) -> None:
    await make_past(db)

    with pytest.raises(MonthOutOfTurn) as refused:
        await seal_month(db, NEXT, actor="tests", prove=sound)
    with pytest.raises(MonthTooYoung):
        await seal_month(db, first_of(real_now() - timedelta(days=62)), actor="tests", prove=sound)

    assert refused.value.facts["first"] == f"{MONTH:%Y-%m}"


async def test_an_open_hold_keeps_its_month_open(db: Db, ledger) -> None:
    await make_past(db)
    hold = transfer(MONTH, 30, ALICE, BOB, TransferKind.PENDING)
    await submit(ledger, group_of(transfer(MONTH, 100, BANK, ALICE)), group_of(hold))
    await pretend_proven(db)

    with pytest.raises(MonthHasOpenHolds) as refused:
        await seal_month(db, MONTH, actor="tests", prove=sound)

    assert refused.value.facts["hold"] == str(hold.id)
    assert await archived_before(db, 1) == UUID(int=0)
    assert await list_months(db) == []


async def test_money_between_books_keeps_its_month_open(db: Db, ledger) -> None:
    await make_past(db)
    leaves = transfer(MONTH, 100, BANK, ALICE)
    await submit(ledger, group_of(leaves))
    await pretend_proven(db)
    await db.pool.execute(
        "insert into ledger_movement (book, id, reference, rule, held, currency, amount,"
        " payer_kind, payer_owner, to_book, payee_kind, payee_owner, state, code, made_at)"
        " values (1, $1, $2, 'cross_book', false, 'CNY', 100, 'wallet', $2, 2, 'wallet', $2,"
        " 'moving', null, now())",
        leaves.id,
        leaves.reference,
    )

    with pytest.raises(MonthHasOpenMovements) as refused:
        await seal_month(db, MONTH, actor="tests", prove=sound)

    assert refused.value.facts["movement"] == str(leaves.id)


async def test_a_month_without_vouchers_and_checkpoints_or_with_a_breach_stays(
    db: Db, ledger
) -> None:
    await make_past(db)
    await submit(ledger, group_of(transfer(MONTH, 100, BANK, ALICE)))

    async def unsound(_db: Db) -> str:
        return "balanced: somewhere"

    with pytest.raises(MonthNotProven):
        await seal_month(db, MONTH, actor="tests", prove=sound)
    await pretend_proven(db)
    with pytest.raises(BookNotSound):
        await seal_month(db, MONTH, actor="tests", prove=unsound)

    assert await archived_before(db, 1) == UUID(int=0)


async def test_updates_of_accounts_stay_on_their_page(make_db, dsn: str) -> None:
    """No index on a changing column and room on the page: no index entry per posting."""
    writing = await make_db(dsn=dsn)
    for balances in ("behind", "with_commit"):
        ledger = Ledger(writing, Licence.PAYMENT_INSTITUTION, balances=balances)
        for _ in range(20):
            await submit(ledger, group_of(transfer(first_of(real_now()), 1, BANK, ALICE)))
        await caught_up(writing, 1)
        await ledger.close()
    await writing.close()  # a server process tells its counts when it ends

    db = await make_db(dsn=dsn)
    query = (
        "select n_tup_upd, n_tup_hot_upd from pg_stat_user_tables where relname = 'ledger_account'"
    )
    updates, hot = 0, 0
    while updates < 40:
        await asyncio.sleep(0.05)
        updates, hot = await db.pool.fetchrow(query)

    assert hot / updates > 0.9

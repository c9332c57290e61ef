"""The schema and the statements keep what Citus asks of tables that are spread by book.

Run on a PostgreSQL without Citus: the rules were tried on Citus 14.0 when the design was made, and
here they are checked in the schema's catalogue, in the text of every statement, and by a stand-in
that refuses what Citus documents as refused. Nothing here has seen a cluster.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import asyncpg
import pytest

from tongbao.infra import distribute
from tongbao.infra.db import Db
from tongbao.infra.distribute import (
    ANCHOR,
    TABLES,
    BookNotPlaced,
    CitusMissing,
    NodeUnreadable,
    Reference,
    Spread,
    TablesUnplaced,
    move_book,
)
from tools.house import statements

PLACED = {each.table: each.spread for each in TABLES}
WITH_BOOK = {table for table, spread in PLACED.items() if spread is Spread.DISTRIBUTED}

ACROSS_BOOKS: Mapping[str, tuple[str, ...]] = {
    "what a month has of each book": ("tongbao.ledger.archive._store.MONTH_BOOKS",),
    "one row by an id from outside, before its book is known: a look at every shard's index": (
        "tongbao.clearing.complaints._store.FIND_COMPLAINT",
        "tongbao.clearing.complaints._store.FIND_COMPLAINT_ANYWHERE",
        "tongbao.clearing.complaints._store.FIND_IMAGE",
        "tongbao.clearing.disputes._store.FIND_DISPUTE",
        "tongbao.clearing.disputes._store.FIND_DISPUTE_ANYWHERE",
        "tongbao.clearing.disputes._store.FIND_FILE_ANYWHERE",
        "tongbao.clearing.transfers._store.GET_BATCH",
        "tongbao.clearing.payouts._store.FIND_PAYOUT",
        "tongbao.clearing.payouts._store.FIND_PAYOUT_ANYWHERE",
        "tongbao.clearing.settlement._store.FIND_SETTLEMENT",
        "tongbao.clearing.settlement._store.GET_SETTLEMENT",
        "tongbao.payments.checkouts._store.FIND_BY_TOKEN",
        "tongbao.payments.checkouts._store.FIND_CHECKOUT",
        "tongbao.payments.collecting._store.FIND_ATTEMPT",
        "tongbao.payments.collecting._store.FIND_ATTEMPTS",
        "tongbao.payments.collecting._store.FIND_CASE",
        "tongbao.payments.collecting._store.FIND_PAYMENT",
        "tongbao.payments.collecting._store.FIND_PAYMENT_ANYWHERE",
        "tongbao.payments.refunds._store.FIND_REFUND",
        "tongbao.payments.splits._store.FIND_ANYWHERE",
        "tongbao.payments.splits._store.FIND_RETURN",
        "tongbao.payments.refunds._store.FIND_REFUND_ANYWHERE",
        "tongbao.payments.authorisations._store.FIND_COMPLETION",
        "tongbao.payments.combining._store.FIND_COMBINED",
        "tongbao.payments.parking._store.FIND_VISIT",
        "tongbao.payments.parking._store.FIND_VISIT_ANYWHERE",
        "tongbao.payments.combining._store.FIND_COMBINED_ANYWHERE",
        "tongbao.payments.combining._store.CONSENTED",
        "tongbao.payments.agreements._store.FIND_AGREEMENT",
        "tongbao.payments.agreements._store.FIND_AGREEMENT_ANYWHERE",
    ),
    "a person's bank card, with which they sign with merchants in every book": (
        "tongbao.payments.agreements._store.SIGNED_BY",
    ),
    "a merchant's or an operator's page, which may span books": (
        "tongbao.payments.agreements._store.AGREEMENTS_BY_PAYERS",
        "tongbao.clearing.disputes._store.DISPUTES_OF_PAYMENT",
        "tongbao.clearing.disputes._store.LIST_DISPUTES",
        "tongbao.clearing.complaints._store.LIST_COMPLAINTS",
        "tongbao.clearing.payouts._store.LIST_PAYOUTS",
        "tongbao.clearing.settlement._store.PARTS_OF",
        "tongbao.clearing.transfers._store.LIST_BATCHES",
        "tongbao.payments.collecting._store.PAYMENTS_BEGUN",
        "tongbao.clearing.settlement._store.LIST_SETTLEMENTS",
        "tongbao.parties.accounts._store.LIST_WALLETS",
        "tongbao.payments.checkouts._store.CREATED_OF_PLATE_SINCE",
        "tongbao.payments.checkouts._store.CREATED_SINCE",
        "tongbao.payments.checkouts._store.LIST_CHECKOUTS",
        "tongbao.payments.collecting._store.CLOSED_CASES",
        "tongbao.payments.collecting._store.CLOSE_CASE",
        "tongbao.payments.collecting._store.COUNT_OPEN_CASES",
        "tongbao.payments.collecting._store.LIST_PAYMENTS",
        "tongbao.payments.collecting._store.OPEN_CASES",
        "tongbao.payments.collecting._store.PAYMENTS_BY_CHANNEL_REF",
        "tongbao.payments.collecting._store.TALLY",
        "tongbao.payments.collecting._store.TALLY_UNKNOWN",
        "tongbao.payments.refunds._store.LIST_REFUNDS",
        "tongbao.payments.combining._store.LIST_COMBINED",
        "tongbao.payments.combining._store.LIST_SHOWN",
        "tongbao.payments.parking._store.LIST_SHOWN",
        "tongbao.payments.parking._store.LIST_VISITS",
        "tongbao.payments.agreements._store.LIST_AGREEMENTS",
    ),
    "a worker's round over all books": (
        "tongbao.clearing.complaints._store.COUNT_OVERDUE",
        "tongbao.clearing.disputes._store.OWING",
        "tongbao.clearing.payouts._store.CONTRADICTED",
        "tongbao.clearing.payouts._store.OPEN_PAYOUTS",
        "tongbao.clearing.payouts._store.PAID_OUT_BETWEEN",
        "tongbao.clearing.payouts._store.UNFILED",
        "tongbao.clearing.payouts._store.UNFILED_MERCHANTS",
        "tongbao.clearing.settlement._store.DRAWN_OF_BATCH",
        "tongbao.clearing.settlement._store.PARTS_DUE",
        "tongbao.clearing.settlement._store.SUMS_OF_BATCH",
        "tongbao.parties.accounts._store.PRUNE_CODES",
        "tongbao.payments.checkouts._store.PRUNE_ABANDONED",
    ),
    "a bank's file has the payouts of all books": (
        "tongbao.clearing.payouts._store.FREE_FILED",
        "tongbao.clearing.payouts._store.MERCHANTS_OF_FILE",
        "tongbao.clearing.payouts._store.PAYOUTS_OF_FILE",
        "tongbao.clearing.payouts._store.PAYOUTS_WITH_IDS",
        "tongbao.clearing.payouts._store.OPEN_FILES",
        "tongbao.clearing.transfers._store.FIND_ITEM",
        "tongbao.clearing.payouts._store.SEND_FILED",
    ),
    "an invariant is one of all books": (
        "tongbao.surfaces.invariants._store.ENDS_IN",
        "tongbao.surfaces.invariants._store.EVENTS",
        "tongbao.surfaces.invariants._store.FUNDS",
        "tongbao.surfaces.invariants._store.SLICE_END",
    ),
    "a channel's bill has the payments of all books": (
        "tongbao.clearing.reconciliation._store.CLEAR_ITEMS",
        "tongbao.clearing.reconciliation._store.COMPARE",
        "tongbao.clearing.reconciliation._store.COSTS_BY_BOOK",
        "tongbao.clearing.reconciliation._store.COUNT_ITEMS",
        "tongbao.clearing.reconciliation._store.FEES_BY_BOOK",
        "tongbao.clearing.reconciliation._store.ROWS_ALONE",
        "tongbao.clearing.transfers._store.TRANSFERRED",
        "tongbao.payments.collecting._store.ATTEMPTS_WITH_IDS",
        "tongbao.payments.collecting._store.PAID_BETWEEN",
        "tongbao.payments.collecting._store.COUNT_PAID",
        "tongbao.payments.collecting._store.FIRST_PAID",
        "tongbao.payments.collecting._store.LAST_PAID",
        "tongbao.payments.refunds._store.GIVEN_BACK_BETWEEN",
        "tongbao.payments.refunds._store.REFUNDS_WITH_IDS",
        "tongbao.payments.authorisations._store.COMPLETIONS_WITH_IDS",
    ),
}
"""Statements that ask every shard, by the reason why they may."""

TABLE = re.compile(r"\b(?:from|join|into|update|using)\s+(?:only\s+)?([a-z_]+)", re.IGNORECASE)
BOOK = re.compile(
    r"\bbook\b\s*(=|in\b)|=\s*\(?\s*(\w+\.)?book\b|\(\s*(\w+\.)?book\s*,[^)]*\)\s*(=|in)"
    r"|\busing\s*\(\s*book\b|\binsert\s+into\s+\w+\s*\(\s*book\b",
    re.IGNORECASE,
)

STAND_IN = """
create schema stand_in;
create table stand_in.placed (logicalrelid regclass primary key, partmethod text not null);
create view pg_dist_partition as select logicalrelid, partmethod from stand_in.placed;
create function create_reference_table(t text) returns void language plpgsql as $$
begin
    if exists (select from pg_constraint c where c.conrelid = t::regclass and c.contype = 'f'
                and not exists (select from pg_dist_partition p
                                 where p.logicalrelid = c.confrelid and p.partmethod = 'n')) then
        raise exception 'a reference table names % that is none', t;
    end if;
    insert into pg_dist_partition values (t::regclass, 'n');
end $$;
create function create_distributed_table(
    t text, c text, colocate_with text default null, shard_count int default null)
returns void language plpgsql as $$
declare
    number smallint := (select attnum from pg_attribute
                         where attrelid = t::regclass and attname = c and not attisdropped);
begin
    if number is null then
        raise exception '% has no column %', t, c;
    end if;
    if (colocate_with is null) = (shard_count is null) then
        raise exception '% wants one of the two', t;
    end if;
    if colocate_with is not null
       and not exists (select from pg_dist_partition
                        where logicalrelid = colocate_with::regclass and partmethod = 'h') then
        raise exception '% is not distributed yet', colocate_with;
    end if;
    if exists (select from pg_index where indrelid = t::regclass and indisunique
                and not number = any (indkey)) then
        raise exception '% has a unique index without %', t, c;
    end if;
    if exists (select from pg_constraint f where f.conrelid = t::regclass and f.contype = 'f'
                and f.confrelid <> f.conrelid
                and not exists (select from pg_dist_partition p
                                 where p.logicalrelid = f.confrelid
                                   and (p.partmethod = 'n' or number = any (f.conkey)))) then
        raise exception '% names a table that is neither here nor everywhere', t;
    end if;
    insert into pg_dist_partition values (t::regclass, 'h');
end $$;
"""


@pytest.fixture
async def cluster(db: Db) -> Db:
    await db.pool.execute(STAND_IN)
    return db


async def tables_of(db: Db) -> set[str]:
    return {
        row["relname"]
        for row in await db.fetch(
            """select relname::text from pg_class
                where relnamespace = 'public'::regnamespace and relkind in ('r', 'p')
                  and not relispartition""",
            (),
        )
    }


async def test_somebody_decided_where_each_table_goes(db: Db) -> None:
    here = await tables_of(db)

    assert not here - set(PLACED), "add them to tongbao.infra.distribute.TABLES, with a reason"
    assert not set(PLACED) - here, "they are gone: take them out of the list"
    assert not [each.table for each in TABLES if len(each.reason.split()) < 4]
    assert len(PLACED) == len(TABLES)


async def test_a_table_lies_with_its_book_exactly_when_it_has_one(db: Db) -> None:
    rows = await db.fetch(
        """select table_name::text as name from information_schema.columns
            where table_schema = 'public' and column_name = 'book' and data_type = 'integer'""",
        (),
    )
    partitions = re.compile(r"_(\d{4}_\d\d|default)$")

    assert {row["name"] for row in rows if not partitions.search(row["name"])} == WITH_BOOK


async def test_every_unique_key_of_a_distributed_table_has_the_book(db: Db) -> None:
    rows = await db.fetch(
        """select i.indrelid::regclass::text as "table", i.indexrelid::regclass::text as name
             from pg_index i
            where i.indisunique
              and not exists (select from pg_attribute a
                               where a.attrelid = i.indrelid and a.attname = 'book'
                                 and a.attnum = any (i.indkey))""",
        (),
    )

    assert not [row["name"] for row in rows if row["table"] in WITH_BOOK]


async def test_foreign_keys_stay_on_one_machine(db: Db) -> None:
    """To a table that is everywhere, or by the book to one that lies with it."""
    rows = await db.fetch(
        """select f.conrelid::regclass::text as "table", f.confrelid::regclass::text as names,
                  exists (select from unnest(f.conkey, f.confkey) as k (mine, theirs)
                            join pg_attribute m on m.attrelid = f.conrelid and m.attnum = k.mine
                            join pg_attribute t on t.attrelid = f.confrelid and t.attnum = k.theirs
                           where m.attname = 'book' and t.attname = 'book') as by_book
             from pg_constraint f
            where f.contype = 'f' and f.connamespace = 'public'::regnamespace
              and f.conparentid = 0""",
        (),
    )
    broken = []
    for row in rows:
        mine, theirs = PLACED.get(row["table"]), PLACED.get(row["names"])
        fine = theirs is Spread.REFERENCE or (
            (mine is Spread.DISTRIBUTED and theirs is Spread.DISTRIBUTED and row["by_book"])
            or (mine is Spread.LOCAL and theirs is Spread.LOCAL)
        )
        if not fine:
            broken.append(f"{row['table']} → {row['names']}")

    assert not broken


def test_every_statement_names_the_book_of_what_it_touches() -> None:
    """Without it a statement goes to every shard, and a write locks rows on every machine."""
    found = {each.where for each in statements() if spreads(each.thing.sql)}

    allowed = {name for names in ACROSS_BOOKS.values() for name in names}
    assert sorted(found - allowed) == [], "name the book, or say here why not"
    assert sorted(allowed - found) == [], "they name the book now: take them out of the list"


def test_nothing_computed_anew_on_each_machine_is_written() -> None:
    volatile = re.compile(
        r"\bset\b[^;]*\b(clock_timestamp|random|gen_random_uuid|timeofday|txid_current)\s*\(",
        re.IGNORECASE | re.DOTALL,
    )

    assert not [each.where for each in statements() if volatile.search(each.thing.sql)]


def test_the_lint_sees_what_it_looks_for() -> None:
    assert spreads("select id from payment where id = $1")
    assert spreads("update attempt set state = $2 where id = $1")
    assert not spreads("select id from payment where book = $1 and id = $2")
    assert not spreads("insert into payment (book, id) values ($1, $2)")
    assert not spreads("select name from merchant where id = $1")
    assert not spreads("select book from ledger_book order by book")
    assert spreads("update ledger_book set frozen = true")
    assert not spreads(
        "select 1 from payment p join attempt a on a.book = p.book where (p.book, p.id) = ($1, $2)"
    )


async def test_the_commands_run_in_an_order_that_citus_takes(cluster: Db) -> None:
    run = await distribute.distribute(cluster)

    placed = await cluster.fetch("select logicalrelid::text, partmethod from pg_dist_partition", ())
    assert {row[0] for row in placed if row[1] == "h"} == WITH_BOOK
    assert len(run) == len(placed)
    assert await distribute.distribute(cluster) == []


async def test_a_table_of_a_later_migration_is_placed_by_running_it_again(
    cluster: Db, monkeypatch: pytest.MonkeyPatch
) -> None:
    await distribute.distribute(cluster)
    await cluster.pool.execute("create table later (book int, id int, primary key (book, id))")

    with pytest.raises(TablesUnplaced):
        await distribute.distribute(cluster)
    more = distribute.Placed("later", Spread.DISTRIBUTED, "is of a test")
    monkeypatch.setattr(distribute, "TABLES", (*TABLES, more))

    assert await distribute.distribute(cluster) == [
        f"select create_distributed_table('later', 'book', colocate_with => '{ANCHOR}')"
    ]


async def test_the_stand_in_refuses_what_citus_refuses(cluster: Db) -> None:
    await cluster.pool.execute("create table loose (book int, id int unique)")
    with pytest.raises(asyncpg.RaiseError, match="unique index"):
        await cluster.fetch("select create_distributed_table('loose', 'book', null, 4)", ())
    with pytest.raises(asyncpg.RaiseError, match="neither here"):
        await cluster.fetch("select create_distributed_table('refund', 'book', null, 4)", ())


async def test_without_citus_it_only_shows(db: Db) -> None:
    with pytest.raises(CitusMissing):
        await distribute.distribute(db)
    with pytest.raises(CitusMissing):
        await move_book(db, 1, "worker-2:5432")

    shown = await distribute.distribute(db, only_show=True)

    assert shown[0].startswith("select create_reference_table(")
    assert f"select create_distributed_table('{ANCHOR}', 'book', shard_count => 64)" in shown
    for sql in shown:
        with pytest.raises(asyncpg.UndefinedFunctionError):
            await db.fetch(sql, ())


def test_a_circle_of_foreign_keys_is_a_bug() -> None:
    circle = [Reference("a", "b"), Reference("b", "a")]

    with pytest.raises(ValueError, match="circle"):
        distribute.in_order(["a", "b"], circle)


async def test_a_book_moves_by_its_own_shard(cluster: Db) -> None:
    await cluster.pool.execute("""
        create table stand_in.moved (call text);
        create view citus_shards (shardid, nodename, nodeport) as
            values (102::bigint, 'worker-1', 5432);
        create function get_shard_id_for_distribution_column(t text, v int)
            returns bigint language sql as $$ select 101 where v = 1 $$;
        create function isolate_tenant_to_new_shard(t text, v int, how text)
            returns bigint language sql as $$ select 102 $$;
        create function citus_move_shard_placement(s bigint, a text, b int, c text, d int)
            returns void language sql as $$
            insert into stand_in.moved values (concat_ws(' ', s, a, b, c, d)) $$;
        """)

    assert await move_book(cluster, 1, "worker-2:5433") == "worker-1:5432"
    assert await cluster.pool.fetchval("select call from stand_in.moved") == (
        "102 worker-1 5432 worker-2 5433"
    )
    with pytest.raises(BookNotPlaced):
        await move_book(cluster, 2, "worker-2:5433")
    for unreadable in ("worker-2", ":5432", "worker-2:x"):
        with pytest.raises(NodeUnreadable):
            await move_book(cluster, 1, unreadable)


def spreads(sql: str) -> bool:
    """Whether a statement touches tables with a book and does not say which."""
    text = re.sub(r"--[^\n]*|/\*.*?\*/", " ", sql, flags=re.DOTALL)
    spread = set(TABLE.findall(text)) & WITH_BOOK
    asks_which_books_there_are = spread == {ANCHOR} and text.lstrip().startswith("select")
    return bool(spread) and not asks_which_books_there_are and not BOOK.search(text)

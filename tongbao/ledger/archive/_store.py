"""The SQL of months. Names of partitions are made of a month's numbers, never of text from outside.

Partitions are made, filled and dropped by statements built here, because no statement takes the
name of a table as a parameter; all else is written out.
"""

from __future__ import annotations

from datetime import date
from typing import Final
from uuid import UUID

from tongbao.infra.db import Db, Query, Statement, Tx
from tongbao.ledger.archive.model import (
    PARENTS,
    ArchivedTotal,
    Cut,
    LedgerHorizon,
    LedgerMonth,
    LedgerMonthAccount,
    LedgerMonthBook,
    OpeningAccount,
    Partition,
    lowest_id,
    month_after,
    partition_of,
)
from tongbao.ledger.rows import LedgerHold

LONG_S: Final = 6 * 3600.0
"""What a statement over a whole month may take."""
SHORT_LOCKS = Statement("set local lock_timeout = '500ms'")
_ALL_FROZEN: Final = "select relallfrozen = relpages from pg_class where oid = $1::regclass"
LOCK_MONTHS = Statement("lock table ledger_month in share row exclusive mode")
NO_LIMIT = Statement("""
    select set_config('statement_timeout', '0', true),
           set_config('idle_in_transaction_session_timeout', '0', true)""")

PARTITIONS = Query(
    Partition,
    """
    select parent.relname::text as parent, part.relname::text as name,
           pg_get_expr(part.relpartbound, part.oid) as bounds,
           pg_stat_get_live_tuples(part.oid)::bigint as rows,
           pg_total_relation_size(part.oid)::bigint as bytes
      from pg_inherits
      join pg_class parent on parent.oid = inhparent
      join pg_class part on part.oid = inhrelid
     where parent.relname in ('ledger_transfer', 'ledger_request') and parent.relkind = 'p'
     order by parent.relname desc, part.relname""",
)
TABLE_EXISTS = Query(bool, "select to_regclass($1::text) is not null")
# Whether the default partition has rows of a month, which then can have no partition of its own.
DEFAULT_HAS_TRANSFERS = Query(
    bool,
    "select exists (select from ledger_transfer_default where id >= $1 and id < $2)",
)
DEFAULT_HAS_REQUESTS = Query(
    bool,
    "select exists (select from ledger_request_default where id >= $1 and id < $2)",
)

BOOKS = Query(int, "select book from ledger_book order by book")
HORIZON = Query(LedgerHorizon, "select book, archived_before from ledger_horizon where book = $1")
RAISE_HORIZON = Statement("""
    insert into ledger_horizon (book, archived_before) values ($1, $2)
    on conflict (book) do update set archived_before = excluded.archived_before
     where ledger_horizon.archived_before < excluded.archived_before""")
OPEN_HOLD = Query(
    UUID,
    """
    select pending_id from ledger_hold
     where book = $1 and state = 'held' and pending_id < $2
     order by pending_id limit 1""",
)
OPEN_MOVEMENT = Query(
    UUID,
    """
    select id from ledger_movement
     where book = $1 and ended_at is null and id < $2
     order by made_at limit 1""",
)
LAST_BATCH = Query(
    int,
    """
    select coalesce(max(batch), 0)::bigint from ledger_batch where book = $1 and spans[1] < $2""",
)
# How far vouchers, checkpoints and the closed blocks of the tree have come.
PROVEN_TO = Query(
    int,
    """
    select least(
               (select coalesce(max(last_batch), 0) from gl_range where book = $1),
               (select coalesce(max(batch), 0) from ledger_checkpoint where book = $1),
               (select coalesce(max(block_batch) - 1, 0) from ledger_tree where book = $1))
           ::bigint""",
)

MONTHS = Query(
    LedgerMonth,
    """
    select month, state, transfers, requests, folder, manifest_sha256, sealed_at, archived_at
      from ledger_month order by month""",
)
LOCK_MONTH = Query(
    LedgerMonth,
    """
    select month, state, transfers, requests, folder, manifest_sha256, sealed_at, archived_at
      from ledger_month where month = $1 for update""",
)
INSERT_MONTH = Statement("""
    insert into ledger_month (month, state, transfers, requests, sealed_at)
    values ($1, 'sealed', 0, 0, $2)""")
COUNT_MONTH = Statement("update ledger_month set transfers = $2, requests = $3 where month = $1")
MARK_ARCHIVED = Statement("""
    update ledger_month
       set state = 'archived', folder = $2, manifest_sha256 = $3, archived_at = $4
     where month = $1 and state = 'sealed'""")
MARK_BACK = Statement("""
    update ledger_month set state = 'sealed', archived_at = null
     where month = $1 and state = 'archived'""")
INSERT_MONTH_BOOK = Statement("""
    insert into ledger_month_book (
        book, month, transfers, requests, first_seq, last_seq, first_batch, last_batch)
    select $1::int, $2::date, t.transfers, r.requests, t.first_seq, t.last_seq,
           least(b.first_batch, r.first_batch), greatest(b.last_batch, r.last_batch)
      from (select count(*) as transfers, min(seq) as first_seq, max(seq) as last_seq
              from ledger_transfer where book = $1 and id >= $3 and id < $4) as t
     cross join (select count(*) as requests, min(batch) as first_batch, max(batch) as last_batch
                   from ledger_request where book = $1 and id >= $3 and id < $4) as r
     cross join (select min(batch) as first_batch, max(batch) as last_batch
                   from ledger_batch
                  where book = $1
                    and exists (select from generate_series(1, cardinality(spans), 2) as i
                                 where spans[i] < $4 and spans[i + 1] >= $3)) as b
    """)
# The end of a hold takes all of it out of pending, whatever was posted of it.
INSERT_MONTH_ACCOUNTS = Statement("""
    insert into ledger_month_account (
        book, month, account, debits_pending, debits_posted, credits_pending, credits_posted,
        touches, last_seq, last_transfer)
    select $1::int, $2::date, s.account, sum(s.debits_pending)::bigint,
           sum(s.debits_posted)::bigint, sum(s.credits_pending)::bigint,
           sum(s.credits_posted)::bigint, count(*), max(t.seq),
           (array_agg(t.id order by t.seq desc))[1]
      from (select t.debit_account, t.credit_account, t.seq, t.id,
                   case t.kind when 2 then t.amount when 3 then - h.amount
                               when 1 then 0 else - t.amount end as pending,
                   case when t.kind in (1, 3) then t.amount else 0 end as posted
              from ledger_transfer t
              left join ledger_hold h
                on t.kind = 3 and h.book = $1 and h.pending_id = t.pending_id
             where t.book = $1 and t.id >= $3 and t.id < $4) as t
     cross join lateral (
           values (t.debit_account, t.pending, t.posted, 0, 0),
                  (t.credit_account, 0, 0, t.pending, t.posted))
           as s (account, debits_pending, debits_posted, credits_pending, credits_posted)
     group by s.account""")
MONTH_BOOKS = Query(
    LedgerMonthBook,
    """
    select book, month, transfers, requests, first_seq, last_seq, first_batch, last_batch
      from ledger_month_book where month = $1 order by book""",
)
MONTH_ACCOUNTS = Query(
    LedgerMonthAccount,
    """
    select book, month, account, debits_pending, debits_posted, credits_pending, credits_posted,
           touches, last_seq, last_transfer
      from ledger_month_account where book = $1 and month = $2 order by account""",
)
ARCHIVED_BOOKS = Query(
    LedgerMonthBook,
    """
    select b.book, b.month, b.transfers, b.requests, b.first_seq, b.last_seq, b.first_batch,
           b.last_batch
      from ledger_month_book b
      join ledger_month m on m.month = b.month
     where b.book = $1 and m.state = 'archived'
     order by b.month""",
)
CUT = Query(
    Cut,
    """
    select batch, first_seq + transfers - 1 as seq
      from ledger_batch
     where book = $1
       and batch = (select max(b.last_batch)
                      from ledger_month_book b
                      join ledger_month m on m.month = b.month
                     where b.book = $1 and m.state = 'archived')""",
)
# What is in the archive, and of what is here the part that was recorded by the cut.
OPENING_ACCOUNTS = Query(
    OpeningAccount,
    """
    select account, sum(debits_pending)::bigint as debits_pending,
           sum(debits_posted)::bigint as debits_posted,
           sum(credits_pending)::bigint as credits_pending,
           sum(credits_posted)::bigint as credits_posted, sum(touches)::bigint as touches,
           (array_agg(last_transfer order by last_seq desc))[1] as last_transfer
      from (select a.account, a.debits_pending, a.debits_posted, a.credits_pending,
                   a.credits_posted, a.touches, a.last_seq, a.last_transfer
              from ledger_month_account a
              join ledger_month m on m.month = a.month
             where a.book = $1 and m.state = 'archived'
             union all
            select s.account, s.debits_pending, s.debits_posted, s.credits_pending,
                   s.credits_posted, 1, t.seq, t.id
              from (select t.debit_account, t.credit_account, t.seq, t.id,
                           case t.kind when 2 then t.amount when 3 then - h.amount
                                       when 1 then 0 else - t.amount end as pending,
                           case when t.kind in (1, 3) then t.amount else 0 end as posted
                      from ledger_transfer t
                      left join ledger_hold h
                        on t.kind = 3 and h.book = $1 and h.pending_id = t.pending_id
                     where t.book = $1 and t.seq <= $2) as t
             cross join lateral (
                   values (t.debit_account, t.pending, t.posted, 0, 0),
                          (t.credit_account, 0, 0, t.pending, t.posted))
                   as s (account, debits_pending, debits_posted, credits_pending,
                         credits_posted)) as parts
     group by account
     order by account""",
)
OPENING_HOLDS = Query(
    LedgerHold,
    """
    select h.book, h.pending_id, h.debit_account, h.credit_account, h.amount, h.state,
           h.posted_amount, h.expires_at
      from ledger_hold h
     where h.book = $1
       and not exists (select from ledger_transfer t
                        where t.book = $1 and t.id = h.pending_id and t.seq > $2)
       and (h.state = 'held'
            or exists (select from ledger_transfer t
                        where t.book = $1 and t.pending_id = h.pending_id and t.kind >= 3
                          and t.seq > $2))
     order by h.pending_id""",
)
OPENING_HOLDS_BEGUN = Query(
    int,
    """
    select count(*)
      from ledger_hold h
     where h.book = $1
       and not exists (select from ledger_transfer t
                        where t.book = $1 and t.id = h.pending_id and t.seq > $2)""",
)
ARCHIVED_TOTALS = Query(
    ArchivedTotal,
    """
    select a.account, sum(a.debits_pending)::bigint as debits_pending,
           sum(a.debits_posted)::bigint as debits_posted,
           sum(a.credits_pending)::bigint as credits_pending,
           sum(a.credits_posted)::bigint as credits_posted, sum(a.touches)::bigint as touches
      from ledger_month_account a
      join ledger_month m on m.month = a.month
     where a.book = $1 and m.state = 'archived'
     group by a.account
     order by a.account""",
)


async def make_partition(tx: Tx, parent: str, month: date) -> None:
    """Make an empty partition and attach it, which leaves writers of the others alone."""
    await make_table(tx, parent, month)
    await attach(tx, parent, month)


async def make_table(tx: Tx, parent: str, month: date) -> None:
    """Make a month's table beside its parent. Written once, it is frozen as it is vacuumed."""
    name = partition_of(parent, month)
    await tx.execute(
        f"create table {name} (like {parent} including all) with (autovacuum_freeze_min_age = 0)",
        (),
    )
    await tx.execute(f"revoke update, delete, truncate on {name} from current_user", ())


async def attach(tx: Tx, parent: str, month: date) -> None:
    """Make a month's table a partition again."""
    low, high = lowest_id(month), lowest_id(month_after(month))
    await tx.execute(
        f"alter table {parent} attach partition {partition_of(parent, month)}"
        f" for values from ('{low}') to ('{high}')",
        (),
    )


async def drop_partitions(tx: Tx, month: date) -> None:
    """Take a month out of the journal, rows and all."""
    for parent in PARENTS:
        name = partition_of(parent, month)
        await tx.execute(f"alter table {parent} detach partition {name}", ())
        await tx.execute(f"drop table {name}", ())


async def run_long(tx: Tx, statement: Statement, *args: object) -> None:
    """Run a statement over a whole month, after `NO_LIMIT`."""
    await (await tx.begun()).execute(statement.sql, *args, timeout=LONG_S)


async def freeze(db: Db, name: str) -> None:
    """Vacuum a table for the last time; its index has nothing dead, for rows are only added."""
    async with db.pool.acquire() as connection:
        # VACUUM wants no transaction, so its limit cannot be set for one.
        await connection.execute("set statement_timeout = 0")
        try:
            # The first pass freezes every row, and now and then leaves pages off the map.
            for _ in range(2):
                await connection.execute(
                    f"vacuum (freeze, analyze, index_cleanup off) {name}", timeout=LONG_S
                )
                if await connection.fetchval(_ALL_FROZEN, name):
                    break
        finally:
            await connection.execute("set statement_timeout = '60s'")

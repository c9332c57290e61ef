"""The SQL of the poster: the head row, the answering commit, the balances behind it."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from msgspec import Struct

from tongbao.infra.db import Query, Statement
from tongbao.ledger.decision.records import AccountRow, HoldRow
from tongbao.ledger.rows import LedgerBatch, LedgerBook, LedgerWatermark

# --- the head row -------------------------------------------------------------------------------

# Waits for a commit in flight, because that has the row: what comes back is final.
TAKE_BOOK = Query(
    LedgerBook,
    """
    update ledger_book
       set epoch = epoch + 1, holder = $2, lease_until = $3
     where book = $1
 returning book, epoch, holder, lease_until, last_seq, last_batch, head_hash, newest_id, frozen,
           stopped_because, closed_through, opened_at""",
)
GET_HEAD = Query(
    LedgerBook,
    """
    select book, epoch, holder, lease_until, last_seq, last_batch, head_hash, newest_id, frozen,
           stopped_because, closed_through, opened_at
      from ledger_book where book = $1""",
)
# Below it the archive may have what was recorded, so nobody could tell a repeat.
ARCHIVED_BEFORE = Query(UUID, "select archived_before from ledger_horizon where book = $1")
STOP_BOOK = Statement("""
    update ledger_book
       set epoch = epoch + 1, holder = '', stopped_because = coalesce(stopped_because, $2)
     where book = $1""")
GET_BATCH = Query(
    LedgerBatch,
    """
    select book, batch, epoch, first_seq, transfers, requests, spans, digest, hash, at
      from ledger_batch where book = $1 and batch = $2""",
)

# --- the answering commit -----------------------------------------------------------------------

# No row when another holder, or another batch, came in between.
ADVANCE_HEAD = Statement("""
    with head as (
        update ledger_book
           set last_seq = $4, last_batch = $5, head_hash = $6, newest_id = greatest(newest_id, $7),
               lease_until = $8
         where book = $1 and epoch = $2 and last_batch = $3
           and not frozen and stopped_because is null
     returning book
    )
    insert into ledger_batch (
        book, batch, epoch, first_seq, transfers, requests, spans, digest, hash, at)
    select head.book, $5::bigint, $2::bigint, $9::bigint, $10::int, $11::int, $12::uuid[],
           $13::bytea, $6::bytea, $14::timestamptz
      from head""")

JOURNAL: Final = "ledger_transfer"

OPEN_HOLDS = Statement("""
    insert into ledger_hold (
        book, pending_id, debit_account, credit_account, amount, state, posted_amount, expires_at)
    select $1::int, h.pending_id, h.debit_account, h.credit_account, h.amount, h.state,
           h.posted_amount, h.expires_at
      from unnest($2::uuid[], $3::bigint[], $4::bigint[], $5::bigint[], $6::text[], $7::bigint[],
                  $8::timestamptz[])
           as h (pending_id, debit_account, credit_account, amount, state, posted_amount,
                 expires_at)""")
END_HOLDS = Statement("""
    update ledger_hold h
       set state = e.state, posted_amount = e.posted_amount
      from unnest($2::uuid[], $3::text[], $4::bigint[]) as e (pending_id, state, posted_amount)
     where h.book = $1 and h.pending_id = e.pending_id and h.state = 'held'""")
RECORD_REQUESTS = Statement("""
    insert into ledger_request (
        book, id, body_hash, status, code, seq, transfer_count, batch, at)
    select $1::int, r.id, r.body_hash, r.status, r.code, r.seq, r.transfer_count, $8::bigint,
           $9::timestamptz
      from unnest($2::uuid[], $3::bytea[], $4::text[], $5::text[], $6::bigint[], $7::int[])
           as r (id, body_hash, status, code, seq, transfer_count)""")

BEGIN_SNAPSHOT = Statement("set transaction isolation level repeatable read, read only")

# --- what the memory of a poster is filled with -------------------------------------------------


LOAD_ACCOUNTS = Query(
    AccountRow,
    """
    select id, side, floor, ceiling, state, currency, debits_pending, debits_posted,
           credits_pending, credits_posted, touches, last_transfer
      from ledger_account
     where book = $1 and id = any($2::bigint[])""",
)
LOAD_HOLDS = Query(
    HoldRow,
    """
    select pending_id, debit_account, credit_account, amount, state, posted_amount, expires_at
      from ledger_hold
     where book = $1 and pending_id = any($2::uuid[])""",
)
# --- balances behind the journal ----------------------------------------------------------------


class BatchRange(Struct, frozen=True):
    """Where the transfers of a commit lie in the journal."""

    batch: int
    first_seq: int
    transfers: int
    spans: list[UUID]


class Projected(Struct, frozen=True):
    """How much a projection met: the caller compares it with what the batches promised."""

    transfers: int
    accounts: int
    moved: int


LOCK_WATERMARK = Query(
    LedgerWatermark,
    "select book, seq, batch from ledger_watermark where book = $1 for no key update",
)
GET_WATERMARK = Query(
    LedgerWatermark, "select book, seq, batch from ledger_watermark where book = $1"
)
MOVE_WATERMARK = Statement(
    "update ledger_watermark set seq = $3, batch = $4 where book = $1 and batch = $2"
)
NEXT_BATCHES = Query(
    BatchRange,
    """
    select batch, first_seq, transfers, spans
      from ledger_batch
     where book = $1 and batch > $2 and batch <= $3
     order by batch
     limit $4""",
)

# The planner may not know how fresh the rows are; every join below is by a primary key, and what
# is sorted fits into memory.
BY_KEY_ONLY = Statement(
    "select set_config('enable_hashjoin', 'off', true),"
    " set_config('enable_mergejoin', 'off', true), set_config('enable_seqscan', 'off', true),"
    " set_config('enable_bitmapscan', 'off', true), set_config('enable_material', 'off', true),"
    " set_config('work_mem', '64MB', true)"
)

# What the writer worked out that its commits do to accounts. A row whose touches are others than
# it believes is left alone, and the number of rows says so.
CARRY = Statement("""
    update ledger_account a
       set debits_pending = a.debits_pending + coalesce(c.debits_pending, 0),
           debits_posted = a.debits_posted + coalesce(c.debits_posted, 0),
           credits_pending = a.credits_pending + coalesce(c.credits_pending, 0),
           credits_posted = a.credits_posted + coalesce(c.credits_posted, 0),
           touches = a.touches + c.touches, last_transfer = c.last_transfer
      from unnest($2::bigint[], $3::bigint[], $4::bigint[], $5::uuid[], $6::bigint[], $7::bigint[],
                  $8::bigint[], $9::bigint[])
           as c (id, touches_before, touches, last_transfer, debits_pending, debits_posted,
                 credits_pending, credits_posted)
     where a.book = $1 and a.id = c.id and a.touches = c.touches_before""")
MARK = Statement("""
    insert into ledger_mark (book, account, seq, transfer_id)
    select $1::int, m.account, m.seq, m.transfer_id
      from unnest($2::bigint[], $3::bigint[], $4::uuid[]) as m (account, seq, transfer_id)""")

# What each transfer does to the four counters of its two accounts, summed by account. The end of a
# hold takes all of it out of pending, whatever was posted of it. Every 64th touch of an account is
# marked, so that its chain can be entered there. `offset 0` keeps the planner from reading the
# whole book and asking of each row which stretch has it.
#
# The sums lie in arrays, and each account finds its place among them by bisection: a join would be
# left to what the planner believes of tables that grew a moment ago.
PROJECT = Query(
    Projected,
    """
    with journal as materialized (
        select t.id, t.seq, t.debit_account, t.credit_account,
               case t.kind when 2 then t.amount when 3 then - h.amount
                           when 1 then 0 else - t.amount end as pending,
               case when t.kind in (1, 3) then t.amount else 0 end as posted
          from unnest($2::uuid[], $3::uuid[]) as span (low, high)
         cross join lateral (
               select id, seq, debit_account, credit_account, amount, kind, pending_id
                 from ledger_transfer
                where book = $1 and id between span.low and span.high and seq > $4 and seq <= $5
               offset 0) as t
          left join ledger_hold h
            on t.kind = 3 and h.book = $1 and h.pending_id = t.pending_id
    ), touched as materialized (
        select debit_account as account, seq, id, pending as debits_pending,
               posted as debits_posted, 0 as credits_pending, 0 as credits_posted
          from journal
         union all
        select credit_account, seq, id, 0, 0, pending, posted
          from journal
         order by account, seq
    ), touches as materialized (
        select array_agg(seq) as seqs, array_agg(id) as ids from touched
    ), summed as (
        select account, sum(debits_pending)::bigint as debits_pending,
               sum(debits_posted)::bigint as debits_posted,
               sum(credits_pending)::bigint as credits_pending,
               sum(credits_posted)::bigint as credits_posted, count(*) as touches
          from touched
         group by account
    ), placed as (
        select s.account, s.debits_pending, s.debits_posted, s.credits_pending, s.credits_posted,
               s.touches, (sum(s.touches) over (order by s.account))::bigint as last
          from summed s
         order by s.account
    ), sums as materialized (
        select array_agg(account) as accounts, array_agg(debits_pending) as debits_pending,
               array_agg(debits_posted) as debits_posted,
               array_agg(credits_pending) as credits_pending,
               array_agg(credits_posted) as credits_posted, array_agg(touches) as touches,
               array_agg(last) as last
          from placed
    ), moved as (
        update ledger_account a
           set debits_pending = a.debits_pending
                   + ((select debits_pending from sums))
                     [width_bucket(a.id, (select accounts from sums))],
               debits_posted = a.debits_posted
                   + ((select debits_posted from sums))
                     [width_bucket(a.id, (select accounts from sums))],
               credits_pending = a.credits_pending
                   + ((select credits_pending from sums))
                     [width_bucket(a.id, (select accounts from sums))],
               credits_posted = a.credits_posted
                   + ((select credits_posted from sums))
                     [width_bucket(a.id, (select accounts from sums))],
               touches = a.touches
                   + ((select touches from sums))
                     [width_bucket(a.id, (select accounts from sums))],
               last_transfer = ((select ids from touches))
                   [((select last from sums))[width_bucket(a.id, (select accounts from sums))]]
         where a.book = $1 and a.id = any ((select accounts from sums)::bigint[])
     returning a.id, a.touches, width_bucket(a.id, (select accounts from sums)) as place
    ), marked as (
        insert into ledger_mark (book, account, seq, transfer_id)
        select $1::int, m.id, ((select seqs from touches))[m.last - m.count + n],
               ((select ids from touches))[m.last - m.count + n]
          from (select id, touches - ((select touches from sums))[place] as before,
                       ((select touches from sums))[place] as count,
                       ((select last from sums))[place] as last
                  from moved) as m
         cross join lateral generate_series(64 - m.before % 64, m.count, 64) as n
         where m.before % 64 + m.count >= 64
     returning 1
    )
    select (select count(*)::int from journal) as transfers,
           (select coalesce(cardinality(accounts), 0) from sums) as accounts,
           (select count(*)::int from moved) as moved""",
)

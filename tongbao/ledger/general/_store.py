"""The SQL of the general ledger: stretches of the journal, vouchers, days."""

from __future__ import annotations

from datetime import date
from uuid import UUID

from msgspec import Struct

from tongbao.infra.db import Query, Statement
from tongbao.ledger.general.model import GlDayRequest, GlVoucher, GlVoucherLine, JournalSum


class BatchSpan(Struct, frozen=True):
    """Where the transfers of a commit lie in the journal."""

    batch: int
    first_seq: int
    transfers: int
    spans: list[UUID]


class RangeSpan(Struct, frozen=True):
    """The commits of one range."""

    first_batch: int
    last_batch: int
    transfers: int


class Covered(Struct, frozen=True):
    """How far vouchers cover the commits of a book, and how far there is something to cover."""

    book: int
    last_batch: int
    last_seq: int
    covered_batch: int
    covered_seq: int
    balanced_batch: int
    balanced_seq: int
    closed_through: date | None


class DayTotal(Struct, frozen=True):
    """An account's sums before a day and on it."""

    account: str
    currency: str
    debits_before: int
    credits_before: int
    debits: int
    credits: int


class AccountSum(Struct, frozen=True):
    """All debits and credits of an account or kind, as of a commit."""

    batch: int
    name: str
    currency: str
    debits: int
    credits: int


class DaySum(Struct, frozen=True):
    """An account's sums on one day."""

    biz_date: date
    currency: str
    account: str
    debits: int
    credits: int


class Day(Struct, frozen=True):
    """An accounting day that has entries."""

    biz_date: date
    vouchers: int
    transfers: int


COVERED = Query(
    Covered,
    """
    select b.book, b.last_batch, b.last_seq, coalesce(r.last_batch, 0) as covered_batch,
           coalesce(c.first_seq + c.transfers - 1, 0) as covered_seq,
           w.batch as balanced_batch, w.seq as balanced_seq, b.closed_through
      from ledger_book b
      join ledger_watermark w on w.book = b.book
      left join lateral (select last_batch from gl_range
                          where book = b.book order by last_batch desc limit 1) r on true
      left join ledger_batch c on c.book = b.book and c.batch = r.last_batch
     where b.book = $1""",
)
LIST_BOOKS = Query(int, "select book from ledger_book order by book")
BATCHES_AFTER = Query(
    BatchSpan,
    """
    select batch, first_seq, transfers, spans
      from ledger_batch
     where book = $1 and batch > $2 and batch <= $3
     order by batch
     limit $4""",
)
# Kinds 1 and 3 are SINGLE and POST: what is held or released has moved nothing. It is counted, so
# that a transfer which is not there, or whose account is not, is missed. Without `offset 0` the
# planner would read the book and ask of each row which stretch has it.
MOVEMENTS = Query(
    JournalSum,
    """
    select s.biz_date, w.code, s.currency, s.debit_kind, s.credit_kind, s.amount, s.transfers,
           s.seen
      from (select t.biz_date, t.code, d.currency, d.kind as debit_kind, c.kind as credit_kind,
                   coalesce(sum(t.amount) filter (where t.kind in (1, 3)), 0)::bigint as amount,
                   count(*) filter (where t.kind in (1, 3)) as transfers, count(*) as seen
              from unnest($2::uuid[], $3::uuid[]) as span (low, high)
             cross join lateral (
                   select book, biz_date, code, debit_account, credit_account, amount, kind
                     from ledger_transfer
                    where book = $1 and id between span.low and span.high and seq between $4 and $5
                   offset 0) as t
              join ledger_account d on d.book = t.book and d.id = t.debit_account
              join ledger_account c on c.book = t.book and c.id = t.credit_account
             group by t.biz_date, t.code, d.currency, d.kind, c.kind) s
      join ledger_code w on w.number = s.code""",
)
ADD_RANGE = Statement("""
    insert into gl_range (book, last_batch, first_batch, transfers, made_at)
    values ($1, $3, $2, $4, $5)
    on conflict do nothing""")
ADD_VOUCHERS = Statement("""
    insert into gl_voucher (book, last_batch, biz_date, first_batch, transfers)
    select $1::int, $3::bigint, v.biz_date, $2::bigint, v.transfers
      from unnest($4::date[], $5::bigint[]) as v (biz_date, transfers)""")
ADD_LINES = Statement("""
    insert into gl_voucher_line (
        book, last_batch, biz_date, currency, code, account, debits, credits, transfers)
    select $1::int, $2::bigint, l.biz_date, l.currency, l.code, l.account, l.debits, l.credits,
           l.transfers
      from unnest($3::date[], $4::text[], $5::text[], $6::text[], $7::bigint[], $8::bigint[],
                  $9::bigint[])
           as l (biz_date, currency, code, account, debits, credits, transfers)""")
ADD_TO_DAYS = Statement("""
    insert into gl_day_total (book, biz_date, currency, account, debits, credits)
    select $1::int, l.biz_date, l.currency, l.account, sum(l.debits)::bigint,
           sum(l.credits)::bigint
      from unnest($2::date[], $3::text[], $4::text[], $5::bigint[], $6::bigint[])
           as l (biz_date, currency, account, debits, credits)
     group by l.biz_date, l.currency, l.account
     order by l.biz_date, l.currency, l.account
    on conflict (book, biz_date, currency, account) do update
       set debits = gl_day_total.debits + excluded.debits,
           credits = gl_day_total.credits + excluded.credits""")

# --- reading it --------------------------------------------------------------------------------

TOTALS = Query(
    DayTotal,
    """
    select account, currency,
           coalesce(sum(debits) filter (where biz_date < $2), 0)::bigint as debits_before,
           coalesce(sum(credits) filter (where biz_date < $2), 0)::bigint as credits_before,
           coalesce(sum(debits) filter (where biz_date = $2), 0)::bigint as debits,
           coalesce(sum(credits) filter (where biz_date = $2), 0)::bigint as credits
      from gl_day_total
     where book = $1 and biz_date <= $2
     group by account, currency
     order by currency, account""",
)
VOUCHERS = Query(
    GlVoucher,
    """
    select book, last_batch, biz_date, first_batch, transfers
      from gl_voucher
     where book = $1 and biz_date = $2 and last_batch > $3
     order by last_batch
     limit $4""",
)
VOUCHER = Query(
    GlVoucher,
    """
    select book, last_batch, biz_date, first_batch, transfers
      from gl_voucher
     where book = $1 and last_batch = $2 and biz_date = $3""",
)
LINES = Query(
    GlVoucherLine,
    """
    select book, last_batch, biz_date, currency, code, account, debits, credits, transfers
      from gl_voucher_line
     where book = $1 and last_batch = $2 and biz_date = $3
     order by currency, code, account""",
)
LINES_OF_DAY = Query(
    GlVoucherLine,
    """
    select book, last_batch, biz_date, currency, code, account, debits, credits, transfers
      from gl_voucher_line
     where book = $1 and biz_date = $2
     order by last_batch, currency, code, account""",
)
LINES_OF_RANGE = Query(
    GlVoucherLine,
    """
    select book, last_batch, biz_date, currency, code, account, debits, credits, transfers
      from gl_voucher_line
     where book = $1 and last_batch = $2
     order by biz_date, currency, code, account""",
)
DAYS = Query(
    Day,
    """
    select biz_date, count(*) as vouchers, sum(transfers)::bigint as transfers
      from gl_voucher
     where book = $1
     group by biz_date
     order by biz_date desc
     limit $2""",
)

# --- checking it -------------------------------------------------------------------------------

RANGES_AFTER = Query(
    RangeSpan,
    """
    select first_batch, last_batch, transfers
      from gl_range
     where book = $1 and last_batch > $2
     order by last_batch
     limit $3""",
)
DAY_SUMS = Query(
    DaySum,
    """
    select biz_date, currency, account, debits, credits
      from gl_day_total
     where book = $1
     order by biz_date, currency, account""",
)
SUMS_OF_LINES = Query(
    DaySum,
    """
    select biz_date, currency, account, sum(debits)::bigint as debits,
           sum(credits)::bigint as credits
      from gl_voucher_line
     where book = $1
     group by biz_date, currency, account
     order by biz_date, currency, account""",
)
# Each in one statement, so that the figures and the commit they are as of are one snapshot.
SUMS_OF_KINDS = Query(
    AccountSum,
    """
    select w.batch, a.kind as name, a.currency, sum(a.debits_posted)::bigint as debits,
           sum(a.credits_posted)::bigint as credits
      from ledger_watermark w
      join ledger_account a on a.book = w.book
     where w.book = $1
     group by w.batch, a.kind, a.currency""",
)
SUMS_OF_ACCOUNTS = Query(
    AccountSum,
    """
    select r.batch, d.account as name, d.currency, sum(d.debits)::bigint as debits,
           sum(d.credits)::bigint as credits
      from (select book, max(last_batch) as batch from gl_range where book = $1 group by book) r
      join gl_day_total d on d.book = r.book
     group by r.batch, d.account, d.currency""",
)
SUMS_THROUGH = Query(
    AccountSum,
    """
    select $3::bigint as batch, account as name, currency, sum(debits)::bigint as debits,
           sum(credits)::bigint as credits
      from gl_voucher_line
     where book = $1 and biz_date <= $2 and last_batch <= $3
     group by account, currency
     order by account, currency""",
)
OVERDUE_HOLDS = Query(
    int,
    """
    select count(*)::int from ledger_hold
     where book = $1 and state = 'held' and expires_at < $2""",
)

# --- days --------------------------------------------------------------------------------------

CLOSE_THROUGH = Statement("update ledger_book set closed_through = $2 where book = $1")
ADD_REQUEST = Statement("""
    insert into gl_day_request (
        book, id, action, day, reason, maker, made_at, expires_at, state)
    values ($1, $2, $3, $4, $5, $6, $7, $8, 'waiting')
    on conflict do nothing""")
END_REQUEST = Query(
    GlDayRequest,
    """
    update gl_day_request
       set state = $3, checker = $4, decided_at = $5, last_batch = $6
     where book = $1 and id = $2 and state = 'waiting' and (expires_at > $5 or $3 = 'expired')
 returning book, id, action, day, reason, maker, made_at, expires_at, state, checker, decided_at,
           last_batch""",
)
EXPIRE_REQUESTS = Query(
    GlDayRequest,
    """
    update gl_day_request
       set state = 'expired', decided_at = $2
     where book = $1 and state = 'waiting' and expires_at <= $2
 returning book, id, action, day, reason, maker, made_at, expires_at, state, checker, decided_at,
           last_batch""",
)
GET_REQUEST = Query(
    GlDayRequest,
    """
    select book, id, action, day, reason, maker, made_at, expires_at, state, checker, decided_at,
           last_batch
      from gl_day_request
     where book = $1 and id = $2""",
)
LIST_REQUESTS = Query(
    GlDayRequest,
    """
    select book, id, action, day, reason, maker, made_at, expires_at, state, checker, decided_at,
           last_batch
      from gl_day_request
     where book = $1
     order by id desc
     limit $2""",
)

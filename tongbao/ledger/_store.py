"""The SQL of reading: balances, the transfers of a reference, walks along an account's chain.

The journal has one index, by id. A reference is a range of it, because derived ids share their
first eight bytes; an account's history is a chain from its newest transfer to its first.
"""

from __future__ import annotations

from datetime import date, datetime
from typing import Final
from uuid import UUID

from msgspec import Struct

from tongbao.infra.db import Query, Statement
from tongbao.ledger.model import TransferKind
from tongbao.ledger.rows import (
    HouseAccount,
    KindBalance,
    LedgerAccount,
    LedgerAccountKind,
    LedgerBook,
    LedgerMark,
    ReferenceNet,
)


class Progress(Struct, frozen=True):
    """How far a book is written and its balances are, and whether a breach stopped it."""

    last_seq: int
    balanced_seq: int
    stopped: bool


class TransferOfReference(Struct, frozen=True):
    """A transfer with the names of its accounts."""

    seq: int
    id: UUID
    kind: TransferKind
    code: str
    debit_kind: str
    debit_owner: UUID
    credit_kind: str
    credit_owner: UUID
    amount: int
    currency: str
    debit_after: int
    credit_after: int
    pending_id: UUID | None
    biz_date: date
    value_date: date
    at: datetime


class ChainRow(Struct, frozen=True):
    """A transfer as one of its accounts sees it, and the one before it on that account.

    ``held`` is what it adds to what is pending: the whole hold at its begin, less the whole hold
    at its end, however much of it was posted.
    """

    seq: int
    id: UUID
    is_debit: bool
    kind: TransferKind
    amount: int
    held: int
    balance_after: int
    code: str
    reference: UUID
    biz_date: date
    value_date: date
    at: datetime
    previous: UUID | None


class BatchMoment(Struct, frozen=True):
    """When a batch was decided, and the number of its last transfer."""

    batch: int
    last_seq: int
    at: datetime


PROGRESS = Query(
    Progress,
    """
    select b.last_seq, w.seq as balanced_seq, b.stopped_because is not null as stopped
      from ledger_book b
      join ledger_watermark w on w.book = b.book
     where b.book = $1""",
)
GET_ACCOUNT = Query(
    LedgerAccount,
    """
    select book, id, kind, owner, currency, side, floor, ceiling, state,
           debits_pending, debits_posted, credits_pending, credits_posted, touches, last_transfer,
           opened_at
      from ledger_account
     where book = $1 and owner = $2 and kind = $3 and currency = $4""",
)
BOOKS_BEHIND = Query(
    int,
    """
    select b.book from ledger_book b join ledger_watermark w on w.book = b.book
     where w.seq < b.last_seq order by b.book""",
)
# By way of the books, so that each is one step down an index. A transfer that is archived is newer
# than anything for whoever asks, who then is told so by reading on.
HOUSE_ACCOUNTS = Query(
    HouseAccount,
    """
    select a.book, a.currency,
           case a.side when 'credit' then a.credits_posted - a.debits_posted
                else a.debits_posted - a.credits_posted end as posted,
           case when a.last_transfer is null then 0
                else coalesce(t.seq, 9223372036854775807) end as last_seq
      from ledger_book b
      join ledger_account a on a.book = b.book and a.owner = $1 and a.kind = $2
      left join ledger_transfer t on t.book = a.book and t.id = a.last_transfer
     order by a.book, a.currency""",
)
ACCOUNTS_OF_OWNER = Query(
    LedgerAccount,
    """
    select book, id, kind, owner, currency, side, floor, ceiling, state,
           debits_pending, debits_posted, credits_pending, credits_posted, touches, last_transfer,
           opened_at
      from ledger_account
     where book = $1 and owner = $2
     order by kind, currency""",
)
RESUME_BOOK = Statement("""
    update ledger_book
       set epoch = epoch + 1, holder = '', stopped_because = null
     where book = $1 and stopped_because is not null""")
SUMS = Query(
    KindBalance,
    """
    select kind, currency, side, count(*)::int as accounts,
           sum(debits_pending)::bigint as debits_pending,
           sum(debits_posted)::bigint as debits_posted,
           sum(credits_pending)::bigint as credits_pending,
           sum(credits_posted)::bigint as credits_posted
      from ledger_account
     where book = $1
     group by kind, currency, side
     order by kind, currency""",
)
LIST_KINDS = Query(
    LedgerAccountKind, "select kind, side, floor from ledger_account_kind order by kind"
)
LIST_BOOKS = Query(
    LedgerBook,
    """
    select book, epoch, holder, lease_until, last_seq, last_batch, head_hash, newest_id, frozen,
           stopped_because, closed_through, opened_at
      from ledger_book
     order by book""",
)
TRANSFERS_OF_REFERENCE = Query(
    TransferOfReference,
    """
    select t.seq, t.id, t.kind, k.code, d.kind as debit_kind, d.owner as debit_owner,
           c.kind as credit_kind, c.owner as credit_owner, t.amount, d.currency, t.debit_after,
           t.credit_after, t.pending_id, t.biz_date, t.value_date, t.at
      from ledger_transfer t
      join ledger_code k on k.number = t.code
      join ledger_account d on d.book = t.book and d.id = t.debit_account
      join ledger_account c on c.book = t.book and c.id = t.credit_account
     where t.book = $1 and t.id between $3 and $4 and t.reference = $2
     order by t.seq""",
)
# One index range for each reference; the arrays are the references and the ends of their ranges.
NET_OF_REFERENCES = Query(
    ReferenceNet,
    """
    select r.reference, sum(moved.net)::bigint as net
      from unnest($3::uuid[], $4::uuid[], $5::uuid[]) as r (reference, lowest, highest)
     cross join lateral (
           select case when t.debit_account = $2 then t.amount else - t.amount end as net
             from ledger_transfer t
            where t.book = $1 and t.id between r.lowest and r.highest
              and t.reference = r.reference and t.kind in (1, 3)
              and (t.debit_account = $2 or t.credit_account = $2)
            offset 0 -- looked up one by one: as a join it would read the whole ledger
           ) as moved
     group by r.reference""",
)
# All that references of a stretch of time did to an account, a row a transfer, for copying out.
EXPORT_NETS: Final = """
    select t.reference, case when t.debit_account = $2 then t.amount else - t.amount end
      from ledger_transfer t
     where t.book = $1 and t.id between $3 and $4 and t.kind in (1, 3)
       and (t.debit_account = $2 or t.credit_account = $2)"""
# From one transfer of an account towards its first: at most $4 steps, none past seq $5.
WALK = Query(
    ChainRow,
    """
    with recursive chain as (
        select t.seq, t.id, t.debit_account = $2 as is_debit, t.kind, t.amount, t.pending_id,
               case when t.debit_account = $2 then t.debit_after else t.credit_after end
                   as balance_after,
               t.code, t.reference, t.biz_date, t.value_date, t.at,
               case when t.debit_account = $2 then t.debit_previous else t.credit_previous end
                   as previous,
               1 as step
          from ledger_transfer t
         where t.book = $1 and t.id = $3 and (t.debit_account = $2 or t.credit_account = $2)
         union all
        select t.seq, t.id, t.debit_account = $2, t.kind, t.amount, t.pending_id,
               case when t.debit_account = $2 then t.debit_after else t.credit_after end,
               t.code, t.reference, t.biz_date, t.value_date, t.at,
               case when t.debit_account = $2 then t.debit_previous else t.credit_previous end,
               c.step + 1
          from chain c
          join ledger_transfer t on t.book = $1 and t.id = c.previous
         where c.step < $4 and c.seq > $5
           and (t.debit_account = $2 or t.credit_account = $2)
    )
    select c.seq, c.id, c.is_debit, c.kind, c.amount,
           case c.kind when 1 then 0 when 2 then c.amount when 3 then - coalesce(p.amount, 0)
                       else - c.amount end as held,
           c.balance_after, k.code, c.reference, c.biz_date, c.value_date, c.at, c.previous
      from chain c
      join ledger_code k on k.number = c.code
      left join ledger_transfer p on c.kind = 3 and p.book = $1 and p.id = c.pending_id
     order by c.step""",
)
# The nearest place at or after a number where an account's chain can be entered.
FIRST_MARK = Query(
    LedgerMark,
    """
    select book, account, seq, transfer_id
      from ledger_mark
     where book = $1 and account = $2 and seq >= $3
     order by seq
     limit 1""",
)
BATCH_MOMENT = Query(
    BatchMoment,
    """
    select batch, first_seq + transfers - 1 as last_seq, at
      from ledger_batch
     where book = $1 and batch >= $2
     order by batch
     limit 1""",
)
LAST_BATCH = Query(int, "select last_batch from ledger_book where book = $1")
MARKS_FROM = Query(
    int,
    """
    select count(*)::int
      from ledger_mark
     where book = $1 and account = $2 and seq > $3""",
)


ACCOUNTS_OF_OWNERS = Query(
    LedgerAccount,
    """
    select book, id, kind, owner, currency, side, floor, ceiling, state,
           debits_pending, debits_posted, credits_pending, credits_posted, touches, last_transfer,
           opened_at
      from ledger_account
     where book = $1 and owner = any($2::uuid[]) and kind = any($3::text[])
     order by owner, currency, kind""",
)


class Walked(Struct, frozen=True):
    """Posted movements of several accounts, column by column, each account's oldest first.

    ``place`` counts the accounts asked for, from one. ``within`` says whether a movement is of
    the account's days and was decided before its moment.
    """

    places: list[int]
    seqs: list[int]
    changes: list[int]
    codes: list[str]
    references: list[UUID]
    biz_dates: list[date]
    within: list[bool]
    lost: list[int]  # places of accounts whose chain leaves this database


# As WALK, for many accounts at a time: the arrays are the accounts, where each one's chain begins,
# the number it ends before, the last accounting day asked for and the moment to stay before.
# A step is one look at the index for each account: without the limits, PostgreSQL may take it for a
# join and read the whole journal at every step.
WALK_MANY = Query(
    Walked,
    """
    with recursive asked as (
        select a.place::int as place, a.account, a.start, a.after, a.until, a.before
          from unnest($2::bigint[], $3::uuid[], $4::bigint[], $5::date[], $6::timestamptz[])
               with ordinality as a (account, start, after, until, before, place)
    ), chain as (
        select a.place, a.account, a.after, t.seq, t.kind, t.amount, t.code, t.reference,
               t.biz_date, t.at, t.debit_account = a.account as is_debit,
               case when t.debit_account = a.account then t.debit_previous
                    else t.credit_previous end as previous
          from asked a
          left join lateral (
               select seq, kind, amount, code, reference, biz_date, at, debit_account,
                      debit_previous, credit_previous
                 from ledger_transfer where book = $1 and id = a.start limit 1) as t on true
         where t.seq is null or t.seq > a.after
         union all
        select c.place, c.account, c.after, t.seq, t.kind, t.amount, t.code, t.reference,
               t.biz_date, t.at, t.debit_account = c.account as is_debit,
               case when t.debit_account = c.account then t.debit_previous
                    else t.credit_previous end as previous
          from chain c
          left join lateral (
               select seq, kind, amount, code, reference, biz_date, at, debit_account,
                      debit_previous, credit_previous
                 from ledger_transfer where book = $1 and id = c.previous limit 1) as t on true
         where c.previous is not null and (t.seq is null or t.seq > c.after)
    ), line as (
        select c.place, c.seq, case when c.is_debit = ($7 = 'debit') then c.amount
                                    else - c.amount end as change,
               k.code, c.reference, c.biz_date,
               c.biz_date <= a.until and (a.before is null or c.at < a.before) as within
          from chain c
          join asked a on a.place = c.place
          join ledger_code k on k.number = c.code
         where c.kind in (1, 3)
         order by c.place, c.seq
    )
    select coalesce(array_agg(place), '{}') as places, coalesce(array_agg(seq), '{}') as seqs,
           coalesce(array_agg(change), '{}') as changes, coalesce(array_agg(code), '{}') as codes,
           coalesce(array_agg(reference), '{}') as references,
           coalesce(array_agg(biz_date), '{}') as biz_dates,
           coalesce(array_agg(within), '{}') as within,
           array(select place from chain where seq is null) as lost
      from line""",
)


class Parties(Struct, frozen=True):
    """The accounts of a transfer by name."""

    id: UUID
    debit_kind: str
    debit_owner: UUID
    credit_kind: str
    credit_owner: UUID


PARTIES = Query(
    Parties,
    """
    select t.id, d.kind as debit_kind, d.owner as debit_owner, c.kind as credit_kind,
           c.owner as credit_owner
      from ledger_transfer t
      join ledger_account d on d.book = t.book and d.id = t.debit_account
      join ledger_account c on c.book = t.book and c.id = t.credit_account
     where t.book = $1 and t.id = any($2::uuid[])""",
)


# --- books, their accounts and their holds, past the writer --------------------------------------


class DueHold(Struct, frozen=True):
    """An open hold past its time."""

    book: int
    pending_id: UUID
    reference: UUID


SET_ACCOUNT_STATE = Statement("update ledger_account set state = $3 where book = $1 and id = $2")
SET_ACCOUNT_LIMITS = Statement(
    "update ledger_account set floor = $3, ceiling = $4 where book = $1 and id = $2"
)
OPEN_BOOK = Statement("""
    insert into ledger_book (
        book, epoch, holder, lease_until, last_seq, last_batch, head_hash, newest_id, frozen,
        stopped_because, closed_through, opened_at)
    values ($1, 0, '', $2, 0, 0, $3, $4, false, null, null, $2)
    on conflict do nothing""")
OPEN_WATERMARK = Statement(
    "insert into ledger_watermark (book, seq, batch) values ($1, 0, 0) on conflict do nothing"
)
SET_BOOK_FROZEN = Statement("update ledger_book set frozen = $2 where book = $1")

# The holds of a book that takes no postings wait until it does, and keep nobody else waiting.
DUE_HOLDS = Query(
    DueHold,
    """
    select h.book, h.pending_id, t.reference
      from ledger_book b
      join ledger_hold h on h.book = b.book
      join ledger_transfer t on t.book = h.book and t.id = h.pending_id
     where h.state = 'held' and h.expires_at <= $1
       and not b.frozen and b.stopped_because is null
     order by h.book, h.expires_at, t.seq
     limit $2""",
)

BOOK_NUMBERS = Query(int, "select book from ledger_book order by book")

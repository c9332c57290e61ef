"""The SQL of the ledger; nothing outside this package reads or writes these tables."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from msgspec import Struct

from tongbao.infra.db import Query, Statement
from tongbao.ledger.model import (
    AccountState,
    HoldState,
    LedgerAccount,
    LedgerAccountKind,
    LedgerBook,
    LedgerRequest,
    Side,
)

# --- one group ----------------------------------------------------------------------------------


class FoundAccount(Struct, frozen=True):
    """The number an account key stands for."""

    kind: str
    owner: UUID
    currency: str
    id: int


class LockedAccount(Struct, frozen=True):
    """An account as it is under its lock, and what every row of the answer repeats."""

    book: int
    id: int
    kind: str
    owner: UUID
    currency: str
    side: Side
    floor: int | None
    state: AccountState
    debits_pending: int
    debits_posted: int
    credits_pending: int
    credits_posted: int
    opened_at: datetime
    frozen: bool
    recorded: list[UUID]


class LockedHold(Struct, frozen=True):
    """A hold as it is under its lock."""

    book: int
    pending_id: UUID
    debit_account: int
    credit_account: int
    amount: int
    state: HoldState
    posted_amount: int
    expires_at: datetime | None


class Written(Struct, frozen=True):
    """How much of the group arrived: the caller compares it with what was sent."""

    seq: int | None
    transfers: int
    accounts: int
    heads: int


GET_REQUEST = Query(
    LedgerRequest,
    """
    select book, id, body_hash, status, code, seq, transfer_count, at
      from ledger_request where book = $1 and id = $2""",
)

FIND_ACCOUNTS = Query(
    FoundAccount,
    """
    select a.kind, a.owner, a.currency, a.id
      from unnest($2::text[], $3::uuid[], $4::text[]) as k (kind, owner, currency)
      join ledger_account a
        on a.book = $1 and a.owner = k.owner and a.kind = k.kind and a.currency = k.currency""",
)

# Side and floor come from the table of licensed kinds: what is not in it opens nothing. The rows
# arrive sorted, so two openers of the same accounts meet in the same order.
OPEN_ACCOUNTS = Statement("""
    insert into ledger_account (
        book, id, kind, owner, currency, side, floor, state,
        debits_pending, debits_posted, credits_pending, credits_posted, opened_at)
    select b.book, n.id, k.kind, n.owner, n.currency, k.side, k.floor, 'open', 0, 0, 0, 0,
           $6::timestamptz
      from unnest($2::bigint[], $3::text[], $4::uuid[], $5::text[])
           as n (id, kind, owner, currency)
      join ledger_account_kind k on k.kind = n.kind
      join ledger_book b on b.book = $1
     order by n.owner, n.kind, n.currency
    on conflict do nothing""")

# Rows that are waited for come back as their last writer left them, because they are locked; the
# two sub-selects may be older, and WRITE_GROUP checks again what they said.
LOCK_ACCOUNTS = Query(
    LockedAccount,
    """
    select a.book, a.id, a.kind, a.owner, a.currency, a.side, a.floor, a.state,
           a.debits_pending, a.debits_posted, a.credits_pending, a.credits_posted, a.opened_at,
           (select b.frozen from ledger_book b where b.book = $1) as frozen,
           array(select t.id from ledger_transfer t
                  where t.book = $1 and t.id = any($3::uuid[])) as recorded
      from ledger_account a
     where a.book = $1 and a.id = any($2::bigint[])
     order by a.id
       for no key update of a""",
)

LOCK_HOLDS = Query(
    LockedHold,
    """
    select book, pending_id, debit_account, credit_account, amount, state, posted_amount,
           expires_at
      from ledger_hold
     where book = $1 and pending_id = any($2::uuid[])
     order by pending_id
       for no key update""",
)

OPEN_HOLDS = Statement("""
    insert into ledger_hold (
        book, pending_id, debit_account, credit_account, amount, state, posted_amount, expires_at)
    select $1::int, h.pending_id, h.debit_account, h.credit_account, h.amount, h.state,
           h.posted_amount, h.expires_at
      from unnest($2::uuid[], $3::bigint[], $4::bigint[], $5::bigint[], $6::text[], $7::bigint[],
                  $8::timestamptz[])
           as h (pending_id, debit_account, credit_account, amount, state, posted_amount,
                 expires_at)
    on conflict do nothing""")

END_HOLDS = Statement("""
    update ledger_hold h
       set state = e.state, posted_amount = e.posted_amount
      from unnest($2::uuid[], $3::text[], $4::bigint[]) as e (pending_id, state, posted_amount)
     where h.book = $1 and h.pending_id = e.pending_id and h.state = 'held'""")

# The head row's lock is the last one taken and is kept to the commit, so seq is gapless and in
# commit order. A conflict means that somebody else was first: less is written than was sent.
WRITE_GROUP = Query(
    Written,
    """
    with head as (
        update ledger_book
           set last_seq = last_seq + $4::bigint
         where book = $1 and not frozen
     returning last_seq
    ), written as (
        insert into ledger_transfer (
            book, id, seq, debit_account, credit_account, amount, kind, code, reference,
            pending_id, whole, debit_after, credit_after, biz_date, value_date, at)
        select $1::int, t.id, head.last_seq - $4::bigint + t.place, t.debit_account,
               t.credit_account, t.amount, t.kind, t.code, t.reference, t.pending_id, t.whole,
               t.debit_after, t.credit_after, $6::date, $7::date, $5::timestamptz
          from head
         cross join unnest(
               $8::uuid[], $9::bigint[], $10::bigint[], $11::bigint[], $12::text[], $13::text[],
               $14::uuid[], $15::uuid[], $16::boolean[], $17::bigint[], $18::bigint[])
               with ordinality
               as t (id, debit_account, credit_account, amount, kind, code, reference, pending_id,
                     whole, debit_after, credit_after, place)
        on conflict do nothing
     returning 1
    ), counted as (
        update ledger_account a
           set debits_pending = a.debits_pending + d.debits_pending,
               debits_posted = a.debits_posted + d.debits_posted,
               credits_pending = a.credits_pending + d.credits_pending,
               credits_posted = a.credits_posted + d.credits_posted
          from unnest($19::bigint[], $20::bigint[], $21::bigint[], $22::bigint[], $23::bigint[])
               as d (id, debits_pending, debits_posted, credits_pending, credits_posted)
         where a.book = $1 and a.id = d.id
     returning 1
    ), noted as (
        insert into ledger_request (
            book, id, body_hash, status, code, seq, transfer_count, at)
        select $1::int, $2::uuid, $3::bytea, 'created', null, head.last_seq, $4::bigint,
               $5::timestamptz
          from head
        on conflict do nothing
     returning seq
    )
    select (select seq from noted) as seq,
           (select count(*)::int from written) as transfers,
           (select count(*)::int from counted) as accounts,
           (select count(*)::int from head) as heads""",
)

RECORD_REQUEST = Statement("""
    insert into ledger_request (book, id, body_hash, status, code, seq, transfer_count, at)
    values ($1, $2, $3, $4, $5, null, 0, $6)
    on conflict do nothing""")

# --- holds whose time is over -------------------------------------------------------------------


class DueHold(Struct, frozen=True):
    """An open hold past its time."""

    book: int
    pending_id: UUID
    reference: UUID


DUE_HOLDS = Query(
    DueHold,
    """
    select h.book, h.pending_id, t.reference
      from ledger_hold h
      join ledger_transfer t on t.book = h.book and t.id = h.pending_id
     where h.state = 'held' and h.expires_at <= $1
     order by h.book, h.expires_at, t.seq
     limit $2""",
)

# --- books and accounts -------------------------------------------------------------------------

GET_BOOK = Query(
    LedgerBook,
    "select book, epoch, last_seq, frozen, opened_at from ledger_book where book = $1",
)
LIST_BOOKS = Query(
    LedgerBook,
    "select book, epoch, last_seq, frozen, opened_at from ledger_book order by book",
)
OPEN_BOOK = Statement("""
    insert into ledger_book (book, epoch, last_seq, frozen, opened_at)
    values ($1, 0, 0, false, $2)
    on conflict do nothing""")
SET_BOOK_FROZEN = Statement(
    "update ledger_book set frozen = $2 where book = $1 and frozen is distinct from $2"
)
LOCK_ACCOUNT = Query(
    LedgerAccount,
    """
    select book, id, kind, owner, currency, side, floor, state,
           debits_pending, debits_posted, credits_pending, credits_posted, opened_at
      from ledger_account
     where book = $1 and owner = $2 and kind = $3 and currency = $4
       for no key update""",
)
SET_ACCOUNT_STATE = Statement(
    "update ledger_account set state = $3 where book = $1 and id = $2 and state <> $3"
)
LIST_KINDS = Query(
    LedgerAccountKind, "select kind, side, floor from ledger_account_kind order by kind"
)

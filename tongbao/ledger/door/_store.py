"""The SQL of the door: accounts by their keys, codes by their words, what was recorded before."""

from __future__ import annotations

from datetime import date, datetime
from uuid import UUID

from msgspec import Struct

from tongbao.infra.db import Query, Statement
from tongbao.ledger.rows import LedgerAccount, LedgerCode, LedgerRequest


class FoundAccount(Struct, frozen=True):
    """The number an account key stands for."""

    kind: str
    owner: UUID
    currency: str
    id: int


class RecordedCommand(Struct, frozen=True):
    """A recorded transfer as a repeat of its group is compared with it."""

    id: UUID
    seq: int
    debit_account: int
    credit_account: int
    amount: int
    kind: int
    flags: int
    code: int
    reference: UUID
    pending_id: UUID | None
    biz_date: date
    value_date: date
    expires_at: datetime | None


class DueHold(Struct, frozen=True):
    """An open hold past its time."""

    book: int
    pending_id: UUID
    reference: UUID


FIND_ACCOUNTS = Query(
    FoundAccount,
    """
    select a.kind, a.owner, a.currency, a.id
      from unnest($2::text[], $3::uuid[], $4::text[]) as k (kind, owner, currency)
      join ledger_account a
        on a.book = $1 and a.owner = k.owner and a.kind = k.kind and a.currency = k.currency""",
)

# Side and floor come from the table of licensed kinds: what is not in it opens nothing. The rows
# arrive sorted, so two openers of the same accounts meet in the same order. The fingerprint says a
# second time whose an account is: the journal names it by its number only.
OPEN_ACCOUNTS = Statement("""
    with opened as (
        insert into ledger_account (
            book, id, kind, owner, currency, side, floor, ceiling, state, debits_pending,
            debits_posted, credits_pending, credits_posted, touches, last_transfer, opened_at)
        select b.book, n.id, k.kind, n.owner, n.currency, k.side, k.floor, null, 'open', 0, 0, 0, 0,
               0, null, $6::timestamptz
          from unnest($2::bigint[], $3::text[], $4::uuid[], $5::text[])
               as n (id, kind, owner, currency)
          join ledger_account_kind k on k.kind = n.kind
          join ledger_book b on b.book = $1
         order by n.owner, n.kind, n.currency
        on conflict do nothing
     returning book, id, kind, owner, currency, side, opened_at
    )
    insert into ledger_opening (book, account, fingerprint)
    select book, id,
           sha256(convert_to(
               concat_ws('/', book, id, kind, owner, currency, side,
                         (extract(epoch from opened_at) * 1000000)::bigint), 'UTF8'))
      from opened""")

GET_ACCOUNT = Query(
    LedgerAccount,
    """
    select book, id, kind, owner, currency, side, floor, ceiling, state, debits_pending,
           debits_posted, credits_pending, credits_posted, touches, last_transfer, opened_at
      from ledger_account
     where book = $1 and owner = $2 and kind = $3 and currency = $4""",
)
SET_ACCOUNT_STATE = Statement("update ledger_account set state = $3 where book = $1 and id = $2")
SET_ACCOUNT_LIMITS = Statement(
    "update ledger_account set floor = $3, ceiling = $4 where book = $1 and id = $2"
)

LIST_CODES = Query(LedgerCode, "select number, code from ledger_code order by number")
ADD_CODE = Statement(
    "insert into ledger_code (number, code) values ($1, $2) on conflict do nothing"
)

FIND_TRANSFERS = Query(
    RecordedCommand,
    """
    select t.id, t.seq, t.debit_account, t.credit_account, t.amount, t.kind, t.flags, t.code,
           t.reference, t.pending_id, t.biz_date, t.value_date, h.expires_at
      from ledger_transfer t
      left join ledger_hold h on t.kind = 2 and h.book = $1 and h.pending_id = t.id
     where t.book = $1 and t.id = any($2::uuid[])""",
)
FIND_REQUESTS = Query(
    LedgerRequest,
    """
    select book, id, body_hash, status, code, seq, transfer_count, batch, at
      from ledger_request
     where book = $1 and id = any($2::uuid[])""",
)
RECORDED_TRANSFERS = Query(
    UUID, "select id from ledger_transfer where book = $1 and id = any($2::uuid[])"
)
RECORDED_REQUESTS = Query(
    UUID, "select id from ledger_request where book = $1 and id = any($2::uuid[])"
)

OPEN_BOOK = Statement("""
    insert into ledger_book (
        book, epoch, holder, lease_until, last_seq, last_batch, head_hash, newest_id, frozen,
        stopped_because, closed_through, opened_at)
    values ($1, 0, '', $2, 0, 0, $3, $4, false, null, null, $2)
    on conflict do nothing""")
LIST_BOOKS = Query(int, "select book from ledger_book order by book")
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

# A group whose companion waits is told so; everybody else in the batch waits with it. The planner
# may not know how fresh the rows are: companions touch theirs by key, and read no table for a set.
SHORT_LOCKS = Statement(
    "select set_config('lock_timeout', '250ms', true), set_config('enable_hashjoin', 'off', true),"
    " set_config('enable_mergejoin', 'off', true), set_config('enable_seqscan', 'off', true),"
    " set_config('enable_bitmapscan', 'off', true), set_config('enable_material', 'off', true)"
)
SHORTEST_LOCKS = Statement("set local lock_timeout = '50ms'")
USUAL_LOCKS = Statement(
    "select set_config('lock_timeout', '5s', true), set_config('enable_hashjoin', 'on', true),"
    " set_config('enable_mergejoin', 'on', true), set_config('enable_seqscan', 'on', true),"
    " set_config('enable_bitmapscan', 'on', true), set_config('enable_material', 'on', true)"
)

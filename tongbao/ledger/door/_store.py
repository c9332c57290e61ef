"""The SQL of the door: accounts by their keys, codes by their words, what was recorded before."""

from __future__ import annotations

from datetime import date, datetime
from uuid import UUID

from msgspec import Struct

from tongbao.infra.db import Query, Statement
from tongbao.ledger.rows import LedgerCode, LedgerRequest


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

"""The SQL of proving. Nothing here writes.

Statements that are read as columns give every field a fixed width: what may be null comes with a
number that says whether it is, and a text as its length and its first bytes.
"""

from __future__ import annotations

from datetime import date, datetime
from uuid import UUID

from msgspec import Struct

from tongbao.infra.db import Query, Statement
from tongbao.ledger.rows import LedgerBook, LedgerCode, LedgerWatermark

BEGIN_SNAPSHOT = Statement("set transaction isolation level repeatable read, read only")
TAKE_YOUR_TIME = Statement(
    "select set_config('statement_timeout', '0', true),"
    " set_config('idle_in_transaction_session_timeout', '0', true),"
    " set_config('work_mem', '256MB', true)"
)
LIST_BOOKS = Query(int, "select book from ledger_book order by book")
GET_HEAD = Query(
    LedgerBook,
    """
    select book, epoch, holder, lease_until, last_seq, last_batch, head_hash, newest_id, frozen,
           stopped_because, closed_through, opened_at
      from ledger_book where book = $1""",
)
GET_WATERMARK = Query(
    LedgerWatermark, "select book, seq, batch from ledger_watermark where book = $1"
)


class LicensedKind(Struct, frozen=True):
    """A kind of account that the database has, whatever it says of it."""

    kind: str
    side: str
    floor: int | None


LIST_KINDS = Query(LicensedKind, "select kind, side, floor from ledger_account_kind order by kind")
LIST_CODES = Query(LedgerCode, "select number, code from ledger_code order by number")


class AccountFamily(Struct, frozen=True):
    """All accounts of a book that share kind, side and currency, and the numbers of both words."""

    kind: str
    side: str
    currency: str
    kind_number: int
    currency_number: int
    accounts: int


FAMILIES = Query(
    AccountFamily,
    """
    select kind, side, currency, hashtextextended(kind, 0) as kind_number,
           hashtextextended(currency, 0) as currency_number, count(*)::int as accounts
      from ledger_account
     where book = $1
     group by kind, side, currency
     order by kind, side, currency""",
)


class AccountColumns(Struct, frozen=True):
    """An account; ``nulls`` has a bit for each of floor, ceiling and last_transfer.

    ``as_opened`` is 1 where its name is still the one that it was opened with.
    """

    id: int
    kind_number: int
    currency_number: int
    owner: UUID
    side: int
    nulls: int
    floor: int
    ceiling: int
    state: int
    debits_pending: int
    debits_posted: int
    credits_pending: int
    credits_posted: int
    touches: int
    last_transfer: UUID
    as_opened: int


ACCOUNTS = Query(
    AccountColumns,
    """
    select a.id, hashtextextended(a.kind, 0) as kind_number,
           hashtextextended(a.currency, 0) as currency_number, a.owner,
           (case a.side when 'credit' then 1 when 'debit' then 2 else 0 end)::int2 as side,
           ((a.floor is null)::int + (a.ceiling is null)::int * 2
            + (a.last_transfer is null)::int * 4)::int2 as nulls,
           coalesce(a.floor, 0) as floor, coalesce(a.ceiling, 0) as ceiling,
           (case a.state when 'open' then 1 when 'frozen' then 2 when 'closed' then 3
                         else 0 end)::int2 as state,
           a.debits_pending, a.debits_posted, a.credits_pending, a.credits_posted, a.touches,
           coalesce(a.last_transfer, '00000000-0000-0000-0000-000000000000'::uuid)
               as last_transfer,
           coalesce(o.fingerprint = sha256(convert_to(
               concat_ws('/', a.book, a.id, a.kind, a.owner, a.currency, a.side,
                         (extract(epoch from a.opened_at) * 1000000)::bigint), 'UTF8')),
               false)::int::int2 as as_opened
      from ledger_account a
      left join ledger_opening o on o.book = a.book and o.account = a.id
     where a.book = $1
     order by a.id""",
)
ACCOUNT_FIELDS = (
    ("id", ">i8"),
    ("kind_number", ">i8"),
    ("currency_number", ">i8"),
    ("owner", "V16"),
    ("side", ">i2"),
    ("nulls", ">i2"),
    ("floor", ">i8"),
    ("ceiling", ">i8"),
    ("state", ">i2"),
    ("debits_pending", ">i8"),
    ("debits_posted", ">i8"),
    ("credits_pending", ">i8"),
    ("credits_posted", ">i8"),
    ("touches", ">i8"),
    ("last_transfer", "V16"),
    ("as_opened", ">i2"),
)


class BatchColumns(Struct, frozen=True):
    """A batch; ``spans`` is a fingerprint of them, and ``highest_id`` the last one."""

    batch: int
    epoch: int
    first_seq: int
    transfers: int
    requests: int
    spans: bytes
    highest_id: UUID
    digest_length: int
    digest: bytes
    hash_length: int
    hash: bytes
    at: datetime


BATCHES = Query(
    BatchColumns,
    """
    select batch, epoch, first_seq, transfers, requests,
           sha256(coalesce(array_send(spans), ''::bytea)) as spans,
           coalesce(spans[cardinality(spans)], '00000000-0000-0000-0000-000000000000'::uuid)
               as highest_id,
           length(digest) as digest_length,
           decode(rpad(encode(digest, 'hex'), 64, '0'), 'hex') as digest,
           length(hash) as hash_length,
           decode(rpad(encode(hash, 'hex'), 64, '0'), 'hex') as hash, at
      from ledger_batch
     where book = $1
     order by batch""",
)
BATCH_FIELDS = (
    ("batch", ">i8"),
    ("epoch", ">i8"),
    ("first_seq", ">i8"),
    ("transfers", ">i4"),
    ("requests", ">i4"),
    ("spans", "V32"),
    ("highest_id", "V16"),
    ("digest_length", ">i4"),
    ("digest", "V32"),
    ("hash_length", ">i4"),
    ("hash", "V32"),
    ("at", ">i8"),
)


class RequestColumns(Struct, frozen=True):
    """A recorded answer; ``transfer_seq`` is the transfer that has the same id, 0 for none."""

    id: UUID
    body_length: int
    body_hash: bytes
    status: int
    code_length: int
    code: bytes
    nulls: int
    seq: int
    transfer_count: int
    batch: int
    at: datetime
    transfer_seq: int


REQUESTS = Query(
    RequestColumns,
    """
    select r.id, length(r.body_hash) as body_length,
           decode(rpad(encode(r.body_hash, 'hex'), 64, '0'), 'hex') as body_hash,
           (case r.status when 'created' then 1 when 'refused' then 2 else 0 end)::int2 as status,
           coalesce(octet_length(r.code), 0) as code_length,
           decode(rpad(encode(convert_to(coalesce(r.code, ''), 'UTF8'), 'hex'), 256, '0'), 'hex')
               as code,
           ((r.code is null)::int + (r.seq is null)::int * 2)::int2 as nulls,
           coalesce(r.seq, 0) as seq, r.transfer_count, r.batch, r.at,
           coalesce(t.seq, 0) as transfer_seq
      from ledger_request r
      left join ledger_transfer t on t.book = r.book and t.id = r.id
     where r.book = $1
     order by r.batch, r.id""",
)
REQUEST_FIELDS = (
    ("id", "V16"),
    ("body_length", ">i4"),
    ("body_hash", "V32"),
    ("status", ">i2"),
    ("code_length", ">i4"),
    ("code", "V128"),
    ("nulls", ">i2"),
    ("seq", ">i8"),
    ("transfer_count", ">i4"),
    ("batch", ">i8"),
    ("at", ">i8"),
    ("transfer_seq", ">i8"),
)


class MarkColumns(Struct, frozen=True):
    """A place where the chain of an account can be entered."""

    account: int
    seq: int
    transfer_id: UUID


MARKS = Query(
    MarkColumns,
    """
    select account, seq, transfer_id
      from ledger_mark
     where book = $1
     order by account, seq""",
)
MARK_FIELDS = (("account", ">i8"), ("seq", ">i8"), ("transfer_id", "V16"))


class JournalColumns(Struct, frozen=True):
    """A transfer and, if it is pending, what its hold says.

    ``nulls`` has a bit for each of pending_id, the two previous ones, the hold and its expiry.
    """

    book: int
    id: UUID
    seq: int
    debit_account: int
    credit_account: int
    amount: int
    kind: int
    flags: int
    code: int
    reference: UUID
    pending_id: UUID
    debit_previous: UUID
    credit_previous: UUID
    debit_after: int
    credit_after: int
    biz_date: date
    value_date: date
    at: datetime
    nulls: int
    hold_state: int
    hold_debit: int
    hold_credit: int
    hold_amount: int
    hold_posted: int
    hold_expires_at: datetime


JOURNAL = Query(
    JournalColumns,
    """
    select t.book, t.id, t.seq, t.debit_account, t.credit_account, t.amount, t.kind, t.flags,
           t.code, t.reference,
           coalesce(t.pending_id, '00000000-0000-0000-0000-000000000000'::uuid) as pending_id,
           coalesce(t.debit_previous, '00000000-0000-0000-0000-000000000000'::uuid)
               as debit_previous,
           coalesce(t.credit_previous, '00000000-0000-0000-0000-000000000000'::uuid)
               as credit_previous,
           t.debit_after, t.credit_after, t.biz_date, t.value_date, t.at,
           ((t.pending_id is null)::int + (t.debit_previous is null)::int * 2
            + (t.credit_previous is null)::int * 4 + (h.pending_id is null)::int * 8
            + (h.expires_at is null)::int * 16)::int2 as nulls,
           (case h.state when 'held' then 1 when 'posted' then 2 when 'voided' then 3
                         when 'expired' then 4 else 0 end)::int2 as hold_state,
           coalesce(h.debit_account, 0) as hold_debit, coalesce(h.credit_account, 0) as hold_credit,
           coalesce(h.amount, 0) as hold_amount, coalesce(h.posted_amount, 0) as hold_posted,
           coalesce(h.expires_at, 'epoch'::timestamptz) as hold_expires_at
      from ledger_transfer t
      left join ledger_hold h
        on h.book = t.book and h.pending_id = t.id and t.kind = 2
     where t.book = $1
     order by t.seq, t.id""",
)
# The first eighteen are the columns of the table: packed one after the other, big-endian, they
# are the bytes that the digest of a batch is of.
JOURNAL_FIELDS = (
    ("book", ">i4"),
    ("id", "V16"),
    ("seq", ">i8"),
    ("debit_account", ">i8"),
    ("credit_account", ">i8"),
    ("amount", ">i8"),
    ("kind", ">i2"),
    ("flags", ">i2"),
    ("code", ">i4"),
    ("reference", "V16"),
    ("pending_id", "V16"),
    ("debit_previous", "V16"),
    ("credit_previous", "V16"),
    ("debit_after", ">i8"),
    ("credit_after", ">i8"),
    ("biz_date", ">i4"),
    ("value_date", ">i4"),
    ("at", ">i8"),
    ("nulls", ">i2"),
    ("hold_state", ">i2"),
    ("hold_debit", ">i8"),
    ("hold_credit", ">i8"),
    ("hold_amount", ">i8"),
    ("hold_posted", ">i8"),
    ("hold_expires_at", ">i8"),
)
STORED_FIELDS = JOURNAL_FIELDS[:18]

OPENING_WITHOUT_ACCOUNT = Query(
    int,
    """
    select o.account
      from ledger_opening o
      left join ledger_account a on a.book = o.book and a.id = o.account
     where o.book = $1 and a.id is null
     order by o.account
     limit 1""",
)
COUNT_HOLDS = Query(int, "select count(*)::int from ledger_hold where book = $1")
HOLD_WITHOUT_TRANSFER = Query(
    UUID,
    """
    select h.pending_id
      from ledger_hold h
      left join ledger_transfer t
        on t.book = h.book and t.id = h.pending_id and t.kind = 2
     where h.book = $1 and t.id is null
     order by h.pending_id
     limit 1""",
)

"""The SQL of proofs: trees, checkpoints, keys, and the journal as packed bytes."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from msgspec import Struct

from tongbao.infra.db import Query, Statement
from tongbao.ledger.proofs.model import (
    AccountRow,
    LedgerCheckpoint,
    LedgerDayRoot,
    LedgerTree,
    LedgerTreeNode,
    ProofKey,
)
from tongbao.ledger.rows import LedgerCode


class BookHead(Struct, frozen=True):
    """How far a book is written."""

    book: int
    last_seq: int
    last_batch: int
    stopped_because: str | None


class BatchLink(Struct, frozen=True):
    """One commit: its transfers, and how it hangs on the one before."""

    batch: int
    first_seq: int
    transfers: int
    spans: list[UUID]
    digest: bytes
    hash: bytes


class PlaceInBook(Struct, frozen=True):
    """Where a transfer stands."""

    seq: int
    debit_account: int
    credit_account: int


# --- the journal --------------------------------------------------------------------------------

HEADS = Query(
    BookHead, "select book, last_seq, last_batch, stopped_because from ledger_book order by book"
)
NEXT_BATCHES = Query(
    BatchLink,
    """
    select batch, first_seq, transfers, spans, digest, hash
      from ledger_batch where book = $1 and batch > $2 order by batch limit $3""",
)
BATCHES_WITH = Query(
    BatchLink,
    """
    select batch, first_seq, transfers, spans, digest, hash
      from ledger_batch
     where book = $1 and batch between $2 and $3
       and transfers > 0 and first_seq <= $5 and first_seq + transfers > $4
     order by batch""",
)
# One text of 156 bytes for each transfer, in order; `entries.ROW` says what is where. The server
# packs them for a tenth of what it costs to make Python objects of eighteen columns each.
_ROW: Final = """
    int4send(book) || int8send(seq) || uuid_send(id) || int8send(amount) || int2send(kind)
    || int2send(flags) || int4send(code) || uuid_send(reference)
    || coalesce(uuid_send(pending_id), '\\x00000000000000000000000000000000'::bytea)
    || date_send(biz_date) || date_send(value_date) || timestamptz_send(at)
    || int8send(debit_account)
    || coalesce(uuid_send(debit_previous), '\\x00000000000000000000000000000000'::bytea)
    || int8send(debit_after)
    || int8send(credit_account)
    || coalesce(uuid_send(credit_previous), '\\x00000000000000000000000000000000'::bytea)
    || int8send(credit_after)"""
# Without `offset 0` the planner would read the book and ask of each row which stretch has it.
ROWS = Query(
    bytes,
    f"""
    select coalesce(string_agg(t.entry, ''::bytea order by t.seq), ''::bytea)
      from unnest($2::uuid[], $3::uuid[]) as span (low, high)
     cross join lateral (
           select seq, {_ROW} as entry
             from ledger_transfer
            where book = $1 and id between span.low and span.high and seq between $4 and $5
           offset 0) as t""",
)
FOR_REFERENCE = Query(
    PlaceInBook,
    """
    select seq, debit_account, credit_account
      from ledger_transfer
     where book = $1 and id between $2 and $3 and reference = $4
     order by seq limit $5""",
)
WITH_ID = Query(
    PlaceInBook,
    """
    select seq, debit_account, credit_account
      from ledger_transfer where book = $1 and id = $2""",
)
ACCOUNTS = Query(
    AccountRow,
    """
    select id, kind, owner, currency
      from ledger_account where book = $1 and id = any($2::bigint[])""",
)
# Transfers up to this seq may lie in the archive.
ARCHIVED_TO = Query(
    int,
    """
    select coalesce(max(b.last_seq), 0)::bigint
      from ledger_month_book b
      join ledger_month m on m.month = b.month
     where b.book = $1 and m.state = 'archived'""",
)
CODES = Query(LedgerCode, "select number, code from ledger_code order by number")

# --- trees --------------------------------------------------------------------------------------

OPEN_TREE = Statement("""
    insert into ledger_tree (
        book, size, batch, head_hash, frontier, block_batch, audited, checkpoints)
    values ($1, 0, 0, $2, ''::bytea, 1, 0, 0) on conflict do nothing""")
LOCK_TREE = Query(
    LedgerTree,
    """
    select book, size, batch, head_hash, frontier, block_batch, audited, checkpoints
      from ledger_tree where book = $1 for no key update""",
)
GET_TREE = Query(
    LedgerTree,
    """
    select book, size, batch, head_hash, frontier, block_batch, audited, checkpoints
      from ledger_tree where book = $1""",
)
GROW_TREE = Statement("""
    update ledger_tree
       set size = $2, batch = $3, head_hash = $4, frontier = $5, block_batch = $6
     where book = $1""")
MARK_AUDITED = Statement("update ledger_tree set audited = $2 where book = $1")
COUNT_CHECKPOINT = Statement("update ledger_tree set checkpoints = $2 where book = $1")
ADD_NODES = Statement("""
    insert into ledger_tree_node (book, level, number, hash, batch)
    select $1::int, n.level, n.number, n.hash, n.batch
      from unnest($2::smallint[], $3::bigint[], $4::bytea[], $5::bigint[])
           as n (level, number, hash, batch)""")
NODES = Query(
    LedgerTreeNode,
    """
    select book, level, number, hash, batch
      from ledger_tree_node
     where book = $1 and level = $2 and number between $3 and $4
     order by number""",
)

# --- checkpoints --------------------------------------------------------------------------------

ADD_CHECKPOINT = Statement("""
    insert into ledger_checkpoint (
        book, number, size, batch, root, head_hash, frontier, codes, codes_root, day, at, note)
    values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)""")
GET_CHECKPOINT = Query(
    LedgerCheckpoint,
    """
    select book, number, size, batch, root, head_hash, frontier, codes, codes_root, day, at, note
      from ledger_checkpoint where book = $1 and number = $2""",
)
LAST_CHECKPOINT = Query(
    LedgerCheckpoint,
    """
    select book, number, size, batch, root, head_hash, frontier, codes, codes_root, day, at, note
      from ledger_checkpoint where book = $1 order by number desc limit 1""",
)
LIST_CHECKPOINTS = Query(
    LedgerCheckpoint,
    """
    select book, number, size, batch, root, head_hash, frontier, codes, codes_root, day, at, note
      from ledger_checkpoint
     where book = $1 and (day is not null or not $2::bool)
     order by number desc limit $3""",
)
CHECKPOINT_OF_DAY = Query(
    LedgerCheckpoint,
    """
    select book, number, size, batch, root, head_hash, frontier, codes, codes_root, day, at, note
      from ledger_checkpoint where book = $1 and day = $2""",
)
FORGET_CHECKPOINTS = Statement("""
    delete from ledger_checkpoint
     where book = $1 and day is null and at < $2 and number < $3""")
ADD_DAY_ROOT = Statement("""
    insert into ledger_day_root (day, books, root, at, note)
    values ($1, $2, $3, $4, $5) on conflict do nothing""")
DAY_ROOT = Query(
    LedgerDayRoot, "select day, books, root, at, note from ledger_day_root where day = $1"
)
# --- keys ---------------------------------------------------------------------------------------

KEYS = Query(
    ProofKey,
    """
    select id, kind, public_key, sealed, starts_at, ends_at
      from proof_key order by starts_at, id""",
)
ADD_KEY = Statement("""
    insert into proof_key (id, kind, public_key, sealed, starts_at, ends_at)
    values ($1, $2, $3, $4, $5, null) on conflict do nothing""")
END_KEY = Statement("update proof_key set ends_at = $2 where id = $1 and ends_at is null")

"""The SQL of movements, split accounts and accounts that move."""

from __future__ import annotations

from uuid import UUID

from msgspec import Struct

from tongbao.infra.db import Query, Statement
from tongbao.ledger.movements.model import LedgerMovement, LedgerSplit


class TransitSum(Struct, frozen=True):
    """What an in-transit account of a book has, posted and held, on its normal side."""

    kind: str
    peer: UUID
    currency: str
    posted: int
    held: int


class Limits(Struct, frozen=True):
    """The limits an account has of its own."""

    floor: int | None
    ceiling: int | None


BOOKS = Query(int, "select book from ledger_book order by book")
HAS_BOOK = Query(int, "select book from ledger_book where book = $1")

ADD_MOVEMENT = Statement(
    """
    insert into ledger_movement (
        book, id, reference, rule, held, currency, amount, payer_kind, payer_owner, to_book,
        payee_kind, payee_owner, state, made_at)
    values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, 'moving', $13)""",
    many="""
    insert into ledger_movement (
        book, id, reference, rule, held, currency, amount, payer_kind, payer_owner, to_book,
        payee_kind, payee_owner, state, made_at)
    select m.book, m.id, m.reference, m.rule, m.held, m.currency, m.amount, m.payer_kind,
           m.payer_owner, m.to_book, m.payee_kind, m.payee_owner, 'moving', m.made_at
      from unnest($1::int[], $2::uuid[], $3::uuid[], $4::text[], $5::bool[], $6::text[],
                  $7::bigint[], $8::text[], $9::uuid[], $10::int[], $11::text[], $12::uuid[],
                  $13::timestamptz[])
           as m (book, id, reference, rule, held, currency, amount, payer_kind, payer_owner,
                 to_book, payee_kind, payee_owner, made_at)""",
)
GET_MOVEMENT = Query(
    LedgerMovement,
    """
    select book, id, reference, rule, held, currency, amount, payer_kind, payer_owner, to_book,
           payee_kind, payee_owner, state, code, made_at, ended_at
      from ledger_movement
     where book = $1 and id = $2""",
)
# From here on the payee may have the money, so it can no longer be cancelled.
START_ARRIVING = Statement("""
    update ledger_movement set state = 'arriving'
     where book = $1 and id = $2 and state = 'moving'""")
END_MOVEMENT = Statement("""
    update ledger_movement set state = $3, code = $4, ended_at = $5
     where book = $1 and id = $2 and ended_at is null""")
CANCEL_MOVEMENT = Statement("""
    update ledger_movement set state = 'cancelled', ended_at = $3
     where book = $1 and id = $2 and state = 'moving' and held""")
OPEN_MOVEMENTS = Query(
    LedgerMovement,
    """
    select book, id, reference, rule, held, currency, amount, payer_kind, payer_owner, to_book,
           payee_kind, payee_owner, state, code, made_at, ended_at
      from ledger_movement
     where book = $1 and ended_at is null and made_at <= $2
     order by made_at
     limit $3""",
)
TRANSIT_SUMS = Query(
    TransitSum,
    """
    select kind, owner as peer, currency,
           case side when 'credit' then credits_posted - debits_posted
                else debits_posted - credits_posted end as posted,
           case side when 'credit' then credits_pending else debits_pending end as held
      from ledger_account
     where book = $1 and owner = any($2::uuid[]) and kind in ('in_transit_in', 'in_transit_out')
     order by kind, owner, currency""",
)

# --- split accounts ----------------------------------------------------------------------------

SET_SPLIT = Statement("""
    insert into ledger_split (kind, owner, currency, books, low, target, made_at)
    values ($1, $2, $3, $4, $5, $6, $7)
    on conflict (kind, owner, currency) do update
       set books = excluded.books, low = excluded.low, target = excluded.target""")
GET_SPLIT = Query(
    LedgerSplit,
    """
    select kind, owner, currency, books, low, target, made_at
      from ledger_split
     where kind = $1 and owner = $2 and currency = $3""",
)
LIST_SPLITS = Query(
    LedgerSplit,
    """
    select kind, owner, currency, books, low, target, made_at
      from ledger_split
     order by kind, owner, currency""",
)

# --- accounts that move ------------------------------------------------------------------------

LIMITS = Query(
    Limits,
    """
    select floor, ceiling from ledger_account
     where book = $1 and owner = $2 and kind = $3 and currency = $4""",
)

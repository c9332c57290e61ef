"""The SQL of the suspense desk; nothing outside this package reads the tables."""

from __future__ import annotations

from typing import Final

from tongbao.clearing.suspense.model import (
    SummedAccount,
    SuspenseAccount,
    SuspenseItem,
    Waiting,
)
from tongbao.infra.db import Query, Statement

_ITEM: Final = "book, currency, owner, amount, code, first_at, last_at, last_seq"

GET_ACCOUNT = Query(
    SuspenseAccount,
    "select book, currency, through_seq from suspense_account where book = $1 and currency = $2",
)
OPEN_ACCOUNT = Statement(
    "insert into suspense_account (book, currency, through_seq) values ($1, $2, 0)"
    " on conflict (book, currency) do nothing"
)
MOVE_ON = Statement(
    "update suspense_account set through_seq = $4"
    " where book = $1 and currency = $2 and through_seq = $3"
)
ADD_MOVEMENT = Statement(
    f"""
    insert into suspense_item ({_ITEM}) values ($1, $2, $3, $4, $5, $6, $7, $8)
        on conflict (book, currency, owner) do update
       set amount = suspense_item.amount + excluded.amount,
           last_at = greatest(suspense_item.last_at, excluded.last_at),
           last_seq = greatest(suspense_item.last_seq, excluded.last_seq)"""
)
GET_ITEM = Query(
    SuspenseItem,
    f"select {_ITEM} from suspense_item where book = $1 and currency = $2 and owner = $3",
)
OPEN_ITEMS = Query(
    SuspenseItem,
    f"""
    select {_ITEM} from suspense_item
     where book = $1 and amount <> 0 and ($2::text is null or currency = $2)
       and ($3::timestamptz is null or (first_at, owner) > ($3, $4::uuid))
     order by first_at, owner
     limit $5""",
)
WAITING = Query(
    Waiting,
    """
    select count(*) as items, min(first_at) as oldest_at from suspense_item
     where book = $1 and amount <> 0""",
)
SUMMED = Query(
    SummedAccount,
    """
    select a.book, a.currency, a.through_seq, coalesce(sum(i.amount), 0)::bigint as items
      from suspense_account a
      left join suspense_item i
        on i.book = a.book and i.currency = a.currency and i.amount <> 0
     group by a.book, a.currency, a.through_seq""",
)

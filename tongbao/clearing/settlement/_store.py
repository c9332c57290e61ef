"""The SQL of settlements; nothing outside this package reads or writes their tables."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from msgspec import Struct

from tongbao.clearing.settlement.model import BatchSum, ReservePart, Settlement, SettlementLine
from tongbao.infra.db import Query, Statement


class Had(Struct, frozen=True):
    """A movement of a merchant's account that a settlement has."""

    merchant_id: UUID
    seq: int


_SETTLEMENT: Final = """book, id, merchant_id, mode, currency, kind, day, number, previous_id,
    batch_id, opening, gross, fees, refunds, fees_returned, other, due, reserved, quick_fee,
    payable, carried, line_count, through_seq, newest_seq, reserve_until, pays_by, state, payout_id,
    drawn_at, closed_at"""
_LINE: Final = """book, seq, merchant_id, mode, settlement_id, code, reference, amount, biz_date"""
_PART: Final = """book, settlement_id, merchant_id, mode, currency, amount, release_on,
    released_at"""

# Leaves those out whose day is closed, or whose place in the chain is taken.
INSERT_DRAWN = Query(
    UUID,
    f"""insert into settlement ({_SETTLEMENT})
        select {_SETTLEMENT} from unnest(
                    $1::int[], $2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::text[],
                    $7::date[], $8::int[], $9::uuid[], $10::uuid[], $11::bigint[], $12::bigint[],
                    $13::bigint[], $14::bigint[], $15::bigint[], $16::bigint[], $17::bigint[],
                    $18::bigint[], $19::bigint[], $20::bigint[], $21::bigint[], $22::int[],
                    $23::bigint[], $24::bigint[], $25::date[], $26::text[], $27::text[],
                    $28::uuid[], $29::timestamptz[], $30::timestamptz[])
               as drawn ({_SETTLEMENT})
        on conflict do nothing
        returning id""",
)
# Whose each line is, is named by its place in two arrays.
INSERT_LINES = Statement(
    f"""insert into settlement_line ({_LINE})
        select $1::int, l.seq, ($3::uuid[])[l.place], $2::text, ($4::uuid[])[l.place], l.code,
               l.reference, l.amount, l.biz_date
          from unnest($5::int[], $6::bigint[], $7::text[], $8::uuid[], $9::bigint[], $10::date[])
               as l (place, seq, code, reference, amount, biz_date)"""
)
RESHARE = Statement(
    """update settlement
          set reserved = $4, quick_fee = $5, payable = $6, carried = $7, reserve_until = $8,
              payout_id = $9
        where book = $1 and id = $2 and payable = $3 and state = 'drawn'"""
)
CLOSE = Statement(
    """update settlement set state = 'closed', closed_at = $4
        where book = $1 and id = $2 and payable = $3 and state = 'drawn'""",
    many="""
    update settlement s set state = 'closed', closed_at = c.closed_at
      from unnest($1::int[], $2::uuid[], $3::bigint[], $4::timestamptz[])
           as c (book, id, payable, closed_at)
     where s.book = c.book and s.id = c.id and s.payable = c.payable and s.state = 'drawn'""",
)
# Waits for whoever is just closing one of them, and lets nobody close one until the caller commits.
LOCK_DRAWN = Query(
    UUID,
    """select id from settlement
        where book = $1 and merchant_id = $2 and mode = $3 and state = 'drawn'
        order by id for update""",
)
DROP = Query(
    UUID,
    """delete from settlement
        where book = $1 and id = any($2::uuid[]) and state = 'drawn'
       returning id""",
)
DROP_LINES = Statement(
    "delete from settlement_line where book = $1 and settlement_id = any($2::uuid[])"
)
SET_STATE = Statement(
    """update settlement set state = $3
        where book = $1 and id = $2 and state in ('closed', 'paid') and state <> $3"""
)

INSERT_PART = Statement(
    f"""insert into reserve_part ({_PART}) values ($1, $2, $3, $4, $5, $6, $7, null)""",
    many=f"""
    insert into reserve_part ({_PART})
    select *, null from unnest($1::int[], $2::uuid[], $3::uuid[], $4::text[], $5::text[],
                               $6::bigint[], $7::date[])""",
)
RELEASE_PART = Statement(
    """update reserve_part set released_at = $3
        where book = $1 and settlement_id = $2 and released_at is null""",
    many="""
    update reserve_part p set released_at = r.released_at
      from unnest($1::int[], $2::uuid[], $3::timestamptz[]) as r (book, id, released_at)
     where p.book = r.book and p.settlement_id = r.id and p.released_at is null""",
)
PARTS_DUE = Query(
    ReservePart,
    f"""select {_PART} from reserve_part
         where released_at is null and release_on <= $1
           and ($2::uuid is null or settlement_id > $2)
         order by settlement_id limit $3""",
)
PARTS_OF = Query(
    ReservePart,
    f"""select {_PART} from reserve_part
         where merchant_id = $1 and mode = $2 and ($3::uuid is null or settlement_id < $3)
         order by settlement_id desc limit $4""",
)

LAST_OF_MANY = Query(
    Settlement,
    f"""select {_SETTLEMENT} from unnest($3::uuid[], $4::text[]) as asked (owner, kept_in)
         cross join lateral (
               select {_SETTLEMENT} from settlement
                where book = $1 and merchant_id = asked.owner and mode = $2
                  and currency = asked.kept_in
                order by number desc limit 1) as s""",
)
HAD_AMONG = Query(
    Had,
    """select l.merchant_id, l.seq
         from unnest($2::uuid[], $3::bigint[]) as asked (merchant_id, seq)
         join settlement_line l
           on l.book = $1 and l.seq = asked.seq and l.merchant_id = asked.merchant_id""",
)
SETTLED_UP_TO = Query(
    int,
    """select l.seq
         from unnest($3::bigint[]) as asked (seq)
         join settlement_line l
           on l.book = $1 and l.seq = asked.seq and l.merchant_id = $2
         join settlement s on s.book = l.book and s.id = l.settlement_id and s.number <= $4
         where s.currency = $5""",
)
DRAWN_OF_BATCH = Query(
    Settlement,
    f"""select {_SETTLEMENT} from settlement
         where batch_id = $1 and state = 'drawn' and ($2::uuid is null or id > $2)
         order by id limit $3""",
)
SUMS_OF_BATCH = Query(
    BatchSum,
    """select currency, count(*)::int as count, coalesce(sum(due), 0)::bigint as due,
              coalesce(sum(payable), 0)::bigint as payable,
              coalesce(sum(reserved), 0)::bigint as reserved,
              (count(*) filter (where state <> 'drawn'))::int as closed
         from settlement where batch_id = $1
        group by currency order by currency""",
)
GET_SETTLEMENT = Query(Settlement, f"select {_SETTLEMENT} from settlement where id = $1")
GET_MANY = Query(
    Settlement, f"select {_SETTLEMENT} from settlement where book = $1 and id = any($2::uuid[])"
)
FIND_SETTLEMENT = Query(
    Settlement,
    f"select {_SETTLEMENT} from settlement where id = $1 and merchant_id = $2 and mode = $3",
)
# A merchant sees what was released; the house sees what is drawn, too.
LIST_SETTLEMENTS = Query(
    Settlement,
    f"""select {_SETTLEMENT} from settlement
         where ($1::uuid is null or merchant_id = $1) and ($2::text is null or mode = $2)
           and ($3::date is null or day = $3) and ($4::text is null or currency = $4)
           and ($5::text is null or state = $5) and ($6::uuid is null or batch_id = $6)
           and ($7::boolean or state <> 'drawn')
           and ($8::uuid is null or id < $8)
         order by id desc limit $9""",
)
CHAIN_OF = Query(
    Settlement,
    f"""select {_SETTLEMENT} from settlement
         where book = $1 and merchant_id = $2 and mode = $3 and currency = $4 and number > $5
         order by number limit $6""",
)
LINES_OF = Query(
    SettlementLine,
    f"""select {_LINE} from settlement_line
         where book = $1 and settlement_id = $2 and seq > $3
         order by seq limit $4""",
)

"""The SQL of settlements; nothing outside this package reads or writes their tables."""

from __future__ import annotations

from typing import Final

from tongbao.clearing.settlement.model import Settlement, SettlementLine
from tongbao.infra.db import Query, Statement

_SETTLEMENT: Final = """book, id, merchant_id, mode, currency, day, previous_id, opening, gross,
    fees, refunds, fees_returned, other, due, payable, carried, line_count, through_seq, state,
    payout_id, closed_at"""
_LINE: Final = """book, merchant_id, mode, seq, settlement_id, code, reference, amount, biz_date"""

# Touches no row when the day is closed, or when another settlement follows the same one.
INSERT_SETTLEMENT = Statement(
    f"""insert into settlement ({_SETTLEMENT})
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18,
                $19, $20, $21)
        on conflict do nothing"""
)
INSERT_LINES = Statement(
    f"""insert into settlement_line ({_LINE})
        select $1::int, $2::uuid, $3::text, l.seq, $4::uuid, l.code, l.reference, l.amount,
               l.biz_date
          from unnest($5::bigint[], $6::text[], $7::uuid[], $8::bigint[], $9::date[])
               as l (seq, code, reference, amount, biz_date)"""
)
SET_STATE = Statement(
    "update settlement set state = $3 where book = $1 and id = $2 and state = 'closed'"
)

LAST_SETTLEMENT = Query(
    Settlement,
    f"""select {_SETTLEMENT} from settlement
         where book = $1 and merchant_id = $2 and mode = $3 and currency = $4
         order by day desc limit 1""",
)
SETTLEMENT_OF_DAY = Query(
    Settlement,
    f"""select {_SETTLEMENT} from settlement
         where book = $1 and merchant_id = $2 and mode = $3 and currency = $4 and day = $5""",
)
SETTLED_AFTER = Query(
    int,
    """select seq from settlement_line
        where book = $1 and merchant_id = $2 and mode = $3 and seq > $4""",
)
GET_SETTLEMENT = Query(Settlement, f"select {_SETTLEMENT} from settlement where id = $1")
FIND_SETTLEMENT = Query(
    Settlement,
    f"select {_SETTLEMENT} from settlement where id = $1 and merchant_id = $2 and mode = $3",
)
LIST_SETTLEMENTS = Query(
    Settlement,
    f"""select {_SETTLEMENT} from settlement
         where ($1::uuid is null or merchant_id = $1) and ($2::text is null or mode = $2)
           and ($3::date is null or day = $3) and ($4::text is null or currency = $4)
           and ($5::uuid is null or id < $5)
         order by id desc limit $6""",
)
LINES_OF = Query(
    SettlementLine,
    f"""select {_LINE} from settlement_line
         where book = $1 and settlement_id = $2 and seq > $3
         order by seq limit $4""",
)

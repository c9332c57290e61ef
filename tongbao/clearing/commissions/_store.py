"""The SQL of commissions; nothing outside this package reads these tables."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from msgspec import Struct

from tongbao.clearing.commissions.model import Commission, CommissionLine
from tongbao.infra.db import Query, Statement


class Carried(Struct, frozen=True):
    """What an agent's last commission of a merchant left to be taken from the next."""

    agent_id: UUID
    carried_out: int


_COMMISSION: Final = (
    "book, id, run_id, agent_id, merchant_id, payer_id, mode, currency, earned, carried_in, posted,"
    " carried_out, created_at"
)
_LINE: Final = "book, commission_id, seq, reference, fee, share_ppm, passed_ppm, amount, at"

LAST_SEQ: Final = Query(
    int,
    """
    select coalesce(max(through_seq), 0) as seq from commission_run
     where book = $1 and merchant_id = $2 and mode = $3 and currency = $4""",
)
INSERT_RUN: Final = Statement("""
    insert into commission_run (book, id, merchant_id, mode, currency, after_seq, through_seq,
                                created_at)
    values ($1, $2, $3, $4, $5, $6, $7, $8)
        on conflict (book, merchant_id, mode, currency, after_seq) do nothing""")
INSERT_COMMISSION: Final = Statement(f"""
    insert into commission ({_COMMISSION})
    values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)""")
INSERT_LINE: Final = Statement(
    f"insert into commission_line ({_LINE}) values ($1, $2, $3, $4, $5, $6, $7, $8, $9)"
)
CARRIED: Final = Query(
    Carried,
    """
    select distinct on (agent_id) agent_id, carried_out from commission
     where book = $1 and payer_id = $2 and mode = $3 and currency = $4
     order by agent_id, id desc""",
)
COMMISSIONS: Final = Query(
    Commission,
    f"""
    select {_COMMISSION} from commission
     where book = $1 and merchant_id = $2 and mode = $3 and ($4::uuid is null or id < $4)
     order by id desc
     limit $5""",
)
FIND_COMMISSION: Final = Query(
    Commission,
    f"""
    select {_COMMISSION} from commission
     where book = $1 and id = $2 and merchant_id = $3 and mode = $4""",
)
LINES: Final = Query(
    CommissionLine,
    f"""
    select {_LINE} from commission_line
     where book = $1 and commission_id = $2 and seq > $3
     order by seq
     limit $4""",
)

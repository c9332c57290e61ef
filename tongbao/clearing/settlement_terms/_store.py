"""The SQL of settlement terms and holds; nothing outside this package reads their tables."""

from __future__ import annotations

from typing import Final

from tongbao.clearing.settlement_terms.model import HoldCount, SettlementHold, SettlementTerm
from tongbao.infra.db import Query, Statement

_TERM: Final = """id, merchant_id, mode, version, valid_from, delay_days, counts, cut_off_minute,
    payable_min, reserve_ppm, reserve_days, quick_allowed, quick_ppm, quick_fee_min, pays_by,
    created_at, created_by"""
_HOLD: Final = """id, merchant_id, mode, amount, reason, until_day, placed_by, placed_at, lifted_by,
    lifted_at"""

LAST_VERSION: Final = Query(
    int,
    """select coalesce(max(version), 0) as version from settlement_term
        where merchant_id = $1 and mode = $2""",
)
INSERT_TERM: Final = Statement(
    f"""insert into settlement_term ({_TERM})
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)"""
)
TERMS: Final = Query(
    SettlementTerm,
    f"""select {_TERM} from settlement_term
         where merchant_id = $1 and mode = $2
         order by valid_from desc, version desc""",
)
TERMS_OF: Final = Query(
    SettlementTerm,
    f"""select {_TERM} from settlement_term where merchant_id = any($1::uuid[]) and mode = $2""",
)

INSERT_HOLD: Final = Statement(
    f"""insert into settlement_hold ({_HOLD})
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"""
)
GET_HOLD: Final = Query(SettlementHold, f"select {_HOLD} from settlement_hold where id = $1")
LIFT_HOLD: Final = Statement(
    """update settlement_hold set lifted_by = $2, lifted_at = $3
        where id = $1 and lifted_at is null"""
)
HOLD_COUNTS: Final = Query(
    HoldCount,
    """select merchant_id, count(*)::int as count from settlement_hold
        where merchant_id = any($1::uuid[]) and mode = $2 and lifted_at is null
        group by merchant_id""",
)
# Touches a row for each merchant on whom there are just as many holds as whoever asks has seen.
SAME_HOLDS: Final = Statement(
    """select 1
        where $3 = (select count(*) from settlement_hold h
                     where h.merchant_id = $1 and h.mode = $2 and h.lifted_at is null)""",
    many="""
    select 1 from unnest($1::uuid[], $2::text[], $3::bigint[]) as seen (merchant_id, mode, holds)
     where holds = (select count(*) from settlement_hold h
                     where h.merchant_id = seen.merchant_id and h.mode = seen.mode
                       and h.lifted_at is null)""",
)
HOLDS: Final = Query(
    SettlementHold,
    f"""select {_HOLD} from settlement_hold
         where merchant_id = $1 and mode = $2
         order by placed_at desc, id desc""",
)
HOLDS_OF: Final = Query(
    SettlementHold,
    f"""select {_HOLD} from settlement_hold
         where merchant_id = any($1::uuid[]) and mode = $2 and lifted_at is null""",
)

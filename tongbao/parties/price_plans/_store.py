"""The SQL of price plans; nothing outside this package reads these tables."""

from __future__ import annotations

from typing import Final

from tongbao.infra.db import Query, Statement
from tongbao.parties.price_plans.model import PricePlan

_PLAN: Final = (
    "id, merchant_id, mode, version, valid_from, currency, refund_returns_fee, lines, created_at,"
    " created_by"
)

LAST_VERSION: Final = Query(
    int,
    "select coalesce(max(version), 0) as version from price_plan"
    " where merchant_id = $1 and mode = $2",
)
INSERT_PLAN: Final = Query(
    PricePlan,
    f"""
    insert into price_plan ({_PLAN}) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
        on conflict do nothing
    returning {_PLAN}""",
)
PLANS: Final = Query(
    PricePlan,
    f"select {_PLAN} from price_plan where merchant_id = $1 and mode = $2 order by valid_from",
)
PLANS_OF: Final = Query(
    PricePlan,
    """
    select plan.id, plan.merchant_id, plan.mode, plan.version, plan.valid_from, plan.currency,
           plan.refund_returns_fee, plan.lines, plan.created_at, plan.created_by
      from unnest($1::uuid[], $2::text[]) as asked (merchant_id, mode)
      join price_plan plan on plan.merchant_id = asked.merchant_id and plan.mode = asked.mode
     order by plan.valid_from""",
)
PLAN_AT: Final = Query(
    PricePlan,
    f"""
    select {_PLAN} from price_plan
     where merchant_id = $1 and mode = $2 and valid_from <= $3
     order by valid_from desc
     limit 1""",
)
# The version that was in force when it was read still is: asked in the commit that relies on it.
STILL_IN_FORCE: Final = Statement(
    """
    select where not exists (
        select from price_plan
         where merchant_id = $1 and mode = $2 and valid_from > $3 and valid_from <= $4)""",
    many="""
    select from unnest($1::uuid[], $2::text[], $3::timestamptz[], $4::timestamptz[])
        as t (merchant_id, mode, valid_from, at)
     where not exists (
        select from price_plan p
         where p.merchant_id = t.merchant_id and p.mode = t.mode
           and p.valid_from > t.valid_from and p.valid_from <= t.at)""",
)
PLAN_OF_VERSION: Final = Query(
    PricePlan,
    f"select {_PLAN} from price_plan where merchant_id = $1 and mode = $2 and version = $3",
)

VOLUME: Final = Query(
    int,
    """
    select collected from price_volume
     where book = $1 and merchant_id = $2 and mode = $3 and currency = $4 and month = $5""",
)
# No form for many rows: one statement cannot change the row of a merchant's month twice.
COUNT_VOLUME: Final = Statement("""
    insert into price_volume (book, merchant_id, mode, currency, month, collected)
    values ($1, $2, $3, $4, $5, $6)
        on conflict (book, merchant_id, mode, currency, month) do update
       set collected = price_volume.collected + excluded.collected""")

"""The SQL of limits and meters; nothing outside this package reads these tables."""

from __future__ import annotations

from typing import Final

from tongbao.controls.limits.model import LimitMeter, LimitRule
from tongbao.infra.db import Query, Statement

_METER: Final = "book, owner_id, kind, meter, currency, day, day_used, year, year_used, used"

RULES: Final = Query(
    LimitRule,
    """
    select kind, meter, period, currency, valid_from, most, instrument from limit_rule
     where kind = $1 and currency = $2
     order by meter, period, valid_from""",
)
ALL_RULES: Final = Query(
    LimitRule,
    """
    select kind, meter, period, currency, valid_from, most, instrument from limit_rule
     order by kind, currency, meter, period, valid_from""",
)
INSERT_RULE: Final = Statement("""
    insert into limit_rule (kind, meter, period, currency, valid_from, most, instrument)
    values ($1, $2, $3, $4, $5, $6, $7)
        on conflict do nothing""")
METERS: Final = Query(
    LimitMeter,
    f"""
    select {_METER} from limit_meter
     where book = $1 and owner_id = $2 and kind = any($3::text[]) and currency = $4
     order by meter""",
)
OPEN_METER: Final = Statement("""
    insert into limit_meter (book, owner_id, kind, meter, currency, day, day_used, year, year_used,
                             used)
    values ($1, $2, $3, $4, $5, $6, 0, $7, 0, 0)
        on conflict do nothing""")
# Day and year only go on. What is given back ($8 below zero) is under no limit. Of a set, what one
# meter counts is added up first, for a statement changes a row once only; the answer has a row for
# everything that was counted.
COUNT: Final = Statement(
    """
    update limit_meter
       set day = greatest(day, $6), year = greatest(year, $7), used = used + $8::bigint,
           day_used = case when day >= $6 then day_used else 0 end + greatest($8::bigint, 0),
           year_used = case when year >= $7 then year_used else 0 end + greatest($8::bigint, 0)
     where book = $1 and owner_id = $2 and kind = $3 and meter = $4 and currency = $5
       and ($8::bigint <= 0
            or (case when day >= $6 then day_used else 0 end + $8::bigint <= $9
                and case when year >= $7 then year_used else 0 end + $8::bigint <= $10
                and used + $8::bigint <= $11))""",
    many="""
    with asked as materialized (
        select each.*
          from unnest($1::int[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::date[],
                      $7::int[], $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[])
            as each (book, owner_id, kind, meter, currency, day, year, amount, day_most, year_most,
                     most)
    ), summed as materialized (
        select asked.book, asked.owner_id, asked.kind, asked.meter, asked.currency,
               max(asked.day) as day, max(asked.year) as year, sum(asked.amount)::bigint as amount,
               sum(greatest(asked.amount, 0))::bigint as more, min(asked.day_most) as day_most,
               min(asked.year_most) as year_most, min(asked.most) as most, count(*) as times
          from asked
         group by asked.book, asked.owner_id, asked.kind, asked.meter, asked.currency
    ), counted as (
        update limit_meter
           set day = greatest(limit_meter.day, summed.day),
               year = greatest(limit_meter.year, summed.year),
               used = limit_meter.used + summed.amount,
               day_used = case when limit_meter.day >= summed.day
                               then limit_meter.day_used else 0 end + summed.more,
               year_used = case when limit_meter.year >= summed.year
                                then limit_meter.year_used else 0 end + summed.more
          from summed
         where limit_meter.book = summed.book and limit_meter.owner_id = summed.owner_id
           and limit_meter.kind = summed.kind and limit_meter.meter = summed.meter
           and limit_meter.currency = summed.currency
           and (summed.more = 0
                or (case when limit_meter.day >= summed.day
                         then limit_meter.day_used else 0 end + summed.more <= summed.day_most
                    and case when limit_meter.year >= summed.year
                             then limit_meter.year_used else 0 end + summed.more
                        <= summed.year_most
                    and limit_meter.used + summed.amount <= summed.most))
        returning summed.times
    )
    select each.number from counted, generate_series(1, counted.times) as each (number)""",
)
# What was counted on a day ($6) did not happen after all: it is given back to that day, where the
# meter has not gone on to another one, to its year, and to all.
GIVE_BACK: Final = Statement("""
    update limit_meter
       set used = greatest(used - $8::bigint, 0),
           day_used = case when day = $6 then greatest(day_used - $8::bigint, 0)
                           else day_used end,
           year_used = case when year = $7 then greatest(year_used - $8::bigint, 0)
                            else year_used end
     where book = $1 and owner_id = $2 and kind = $3 and meter = $4 and currency = $5""")

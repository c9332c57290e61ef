"""The SQL of electronic accounts; nothing outside this package reads these tables."""

from __future__ import annotations

from typing import Final

from tongbao.infra.db import Query, Statement
from tongbao.parties.e_accounts.model import (
    EAccount,
    EAccountBatch,
    EAccountFreeze,
    EAccountLeg,
    EAccountOrder,
    Progress,
)

_ACCOUNT: Final = (
    "book, id, person_id, mode, kind, currency, state, balance, in_stops, out_stops, device,"
    " opened_at, activated_at, moved_at, dormant_at, closed_at, held, barred_until"
)
_FREEZE: Final = (
    "book, id, account_id, kind, direction, document, reason, set_by, set_at, lifted_by, lifted_at,"
    " lifted_because, amount, starts_at, ends_at, began_at"
)
_ORDER: Final = (
    "book, id, account_id, person_id, mode, kind, payee_id, amount, currency, request_id, timing,"
    " run_at, level, state, code, made_at, ended_at, card_id, batch_id"
)

# Opening: lock who opens, then count in later statements
KNOW_OPENER: Final = Statement(
    "insert into e_account_opener (book, subject) values ($1, $2) on conflict do nothing"
)
LOCK_OPENER: Final = Query(
    int,
    "select 1 as locked from e_account_opener where book = $1 and subject = $2 for update",
)
OF_KIND: Final = Query(
    int,
    """
    select count(*)::int from e_account
     where book = $1 and person_id = $2 and kind = $3 and state <> 'closed'""",
)
OPENED_BY_PERSON: Final = Query(
    int,
    """
    select count(*)::int from e_account
     where book = $1 and person_id = $2 and opened_at >= $3""",
)
OPENED_ON_DEVICE: Final = Query(
    int,
    """
    select count(*)::int from e_account where book = $1 and device = $2 and opened_at >= $3""",
)
OTHERS_ON_DEVICE: Final = Query(
    int,
    """
    select count(distinct person_id)::int from e_account
     where book = $1 and device = $2 and person_id <> $3""",
)
CLOSED_SINCE: Final = Query(
    int,
    """
    select count(*)::int from e_account
     where book = $1 and person_id = $2 and kind = $3 and closed_at > $4""",
)
INSERT_ACCOUNT: Final = Query(
    EAccount,
    f"""
    insert into e_account (book, id, person_id, mode, kind, currency, state, balance, in_stops,
                           out_stops, held, device, opened_at)
    values ($1, $2, $3, $4, $5, $6, 'opened', 0, 0, 0, 0, $7, $8)
    returning {_ACCOUNT}""",
)
GET_ACCOUNT: Final = Query(
    EAccount, f"select {_ACCOUNT} from e_account where book = $1 and id = $2"
)
LOCK_ACCOUNT: Final = Query(
    EAccount, f"select {_ACCOUNT} from e_account where book = $1 and id = $2 for no key update"
)
OF_PERSON: Final = Query(
    EAccount,
    f"select {_ACCOUNT} from e_account where book = $1 and person_id = $2 order by id",
)
FIND_ACCOUNTS: Final = Query(
    EAccount,
    f"""
    select {_ACCOUNT} from e_account
     where book = $1 and ($2::uuid is null or person_id = $2)
       and ($3::text is null or state = $3)
       and (not $4::bool or in_stops > 0 or out_stops > 0 or held > 0)
       and ($5::uuid is null or id < $5)
     order by id desc
     limit $6""",
)
ACTIVATE: Final = Query(
    EAccount,
    f"""
    update e_account set state = 'active', activated_at = $3, dormant_at = null
     where book = $1 and id = $2 and state in ('opened', 'dormant')
    returning {_ACCOUNT}""",
)
CLOSE: Final = Query(
    EAccount,
    f"""
    update e_account set state = 'closed', closed_at = $3
     where book = $1 and id = $2 and state <> 'closed' and balance = 0 and in_stops = 0
       and out_stops = 0 and held = 0
    returning {_ACCOUNT}""",
)
# The movement of one account, out below zero. Of a set, what one account moves is added up first,
# as a statement changes a row once only; the answer has a row for every movement.
MOVE: Final = Statement(
    """
    update e_account set balance = balance + $3, moved_at = $4
     where book = $1 and id = $2 and state = 'active'
       and balance + $3 >= case when $3 > 0 then 0 else held end
       and case when $3 > 0 then in_stops = 0
                else out_stops = 0 and (barred_until is null or barred_until <= $4) end""",
    many="""
    with asked as materialized (
        select each.book, each.id, each.change, each.at
          from unnest($1::int[], $2::uuid[], $3::bigint[], $4::timestamptz[])
            as each (book, id, change, at)
    ), summed as materialized (
        select asked.book, asked.id, sum(asked.change)::bigint as change, max(asked.at) as at,
               bool_or(asked.change > 0) as comes, bool_or(asked.change <= 0) as goes,
               count(*) as times
          from asked
         group by asked.book, asked.id
    ), moved as (
        update e_account set balance = e_account.balance + summed.change, moved_at = summed.at
          from summed
         where e_account.book = summed.book and e_account.id = summed.id
           and e_account.state = 'active'
           and e_account.balance + summed.change
               >= case when summed.goes then e_account.held else 0 end
           and (not summed.comes or e_account.in_stops = 0)
           and (not summed.goes
                or e_account.out_stops = 0
                   and (e_account.barred_until is null or e_account.barred_until <= summed.at))
        returning summed.times
    )
    select each.number from moved, generate_series(1, moved.times) as each (number)""",
)
# What a person has done for them: it waits for a bar that is being set, and is refused then.
MAY_ACT: Final = Statement("""
    update e_account set barred_until = barred_until
     where book = $1 and id = $2 and (barred_until is null or barred_until <= $3)""")
BAR_ACCOUNTS: Final = Statement(
    "update e_account set barred_until = $3 where book = $1 and person_id = $2"
)
QUIET: Final = Query(
    EAccount,
    f"""
    select {_ACCOUNT} from e_account
     where book = $1 and moved_at is null and state in ('opened', 'active') and opened_at <= $2
       and (activated_at is null or activated_at <= $2)
     order by opened_at
     limit $3
       for no key update skip locked""",
)
FALL_ASLEEP: Final = Statement("""
    update e_account set state = 'dormant', dormant_at = $3
     where book = $1 and id = $2 and moved_at is null and state in ('opened', 'active')""")

# Freezes
INSERT_FREEZE: Final = Query(
    EAccountFreeze,
    f"""
    insert into e_account_freeze (book, id, account_id, kind, direction, document, reason, set_by,
                                  set_at, amount, starts_at, ends_at, began_at)
    values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
    returning {_FREEZE}""",
)
LIFT_FREEZE: Final = Query(
    EAccountFreeze,
    f"""
    update e_account_freeze set lifted_by = $4, lifted_at = $5, lifted_because = $6
     where book = $1 and account_id = $2 and id = $3 and lifted_at is null
    returning {_FREEZE}""",
)
FREEZES: Final = Query(
    EAccountFreeze,
    f"""
    select {_FREEZE} from e_account_freeze where book = $1 and account_id = $2 order by id""",
)
GET_FREEZE: Final = Query(
    EAccountFreeze, f"select {_FREEZE} from e_account_freeze where book = $1 and id = $2"
)
BEGIN_FREEZE: Final = Statement("""
    update e_account_freeze set began_at = $3
     where book = $1 and id = $2 and began_at is null and lifted_at is null""")
ADD_STOPS: Final = Statement("""
    update e_account
       set in_stops = in_stops + $3, out_stops = out_stops + $4, held = held + $5
     where book = $1 and id = $2 and state <> 'closed'""")

# Orders
INSERT_ORDER: Final = Statement("""
    insert into e_account_order (book, id, account_id, person_id, mode, kind, payee_id, amount,
                                 currency, request_id, timing, run_at, level, state, made_at,
                                 ended_at, card_id, batch_id)
    values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)
        on conflict do nothing""")
GET_ORDER: Final = Query(
    EAccountOrder, f"select {_ORDER} from e_account_order where book = $1 and id = $2"
)
ORDER_OF_REQUEST: Final = Query(
    EAccountOrder,
    f"""
    select {_ORDER} from e_account_order
     where book = $1 and account_id = $2 and request_id = $3""",
)
ORDERS: Final = Query(
    EAccountOrder,
    f"""
    select {_ORDER} from e_account_order
     where book = $1 and account_id = $2 and ($3::uuid is null or id < $3)
     order by id desc
     limit $4""",
)
WAITING: Final = Query(
    int,
    """
    select count(*)::int from e_account_order
     where book = $1 and account_id = $2 and state = 'waiting'""",
)
END_ORDER: Final = Statement("""
    update e_account_order set state = $3, ended_at = $4, code = $5
     where book = $1 and id = $2 and state = 'waiting'""")

# Batches
_BATCH: Final = (
    "book, id, account_id, person_id, mode, request_id, digest, orders, amount, currency, run_at,"
    " made_at"
)
INSERT_BATCH: Final = Query(
    EAccountBatch,
    f"""
    insert into e_account_batch ({_BATCH})
    values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
    returning {_BATCH}""",
)
GET_BATCH: Final = Query(
    EAccountBatch, f"select {_BATCH} from e_account_batch where book = $1 and id = $2"
)
BATCH_OF_REQUEST: Final = Query(
    EAccountBatch,
    f"""
    select {_BATCH} from e_account_batch
     where book = $1 and account_id = $2 and request_id = $3""",
)
PROGRESS: Final = Query(
    Progress,
    """
    select state, count(*)::int as orders, sum(amount)::bigint as amount from e_account_order
     where book = $1 and batch_id = $2 group by state order by state""",
)
ORDERS_OF_BATCH: Final = Query(
    EAccountOrder,
    f"""
    select {_ORDER} from e_account_order
     where book = $1 and batch_id = $2 and ($3::uuid is null or id > $3)
     order by id
     limit $4""",
)
WAITING_OF_BATCH: Final = Query(
    EAccountOrder,
    f"""
    select {_ORDER} from e_account_order
     where book = $1 and batch_id = $2 and state = 'waiting' order by id""",
)

# Over a bank
INSERT_LEG: Final = Statement("""
    insert into e_account_leg (book, order_id, card_id, rail_id, is_own, sends, asks, reference)
    values ($1, $2, $3, $4, $5, 0, 0, '')""")
GET_LEG: Final = Query(
    EAccountLeg,
    """
    select book, order_id, card_id, rail_id, is_own, sends, sent_at, asks, reference
      from e_account_leg where book = $1 and order_id = $2""",
)
LEGS: Final = Query(
    EAccountLeg,
    """
    select book, order_id, card_id, rail_id, is_own, sends, sent_at, asks, reference
      from e_account_leg where book = $1 and order_id = any($2::uuid[])""",
)
COUNT_ASK: Final = Statement(
    "update e_account_leg set asks = asks + 1 where book = $1 and order_id = $2"
)
SEND: Final = Statement("""
    update e_account_leg set sends = sends + 1, sent_at = coalesce(sent_at, $4)
     where book = $1 and order_id = $2 and sends = $3""")
KEEP_REFERENCE: Final = Statement("""
    update e_account_leg set reference = $4
     where book = $1 and order_id = $2 and sends = coalesce($3::int, sends)""")
# What was on its way lands whatever stands against new money meanwhile: it is the person's.
LAND: Final = Statement("""
    update e_account set balance = balance + $3, moved_at = $4
     where book = $1 and id = $2 and state in ('active', 'dormant')""")

"""The SQL of bound bank cards; nothing outside this package reads these tables."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from tongbao.infra.db import Query, Statement
from tongbao.parties.bound_cards.model import BoundCard

_CARD: Final = (
    "id, person_id, mode, vault_card_id, par, bin, last4, issuer, brand, kind, account_class,"
    " phone_masked, phone_mark, device, state, reference, is_default, in_use, asked_at,"
    " answered_at, bound_at, ended_at"
)

KNOW_BINDER: Final = Statement(
    "insert into card_binder (subject) values ($1) on conflict do nothing"
)
LOCK_BINDER: Final = Query(int, "select 1 as locked from card_binder where subject = $1 for update")

# What a rule counts; tries are counted however they ended.
TRIES_OF_PERSON: Final = Query(
    int, "select count(*)::int from bound_card where person_id = $1 and asked_at >= $2"
)
TRIES_ON_DEVICE: Final = Query(
    int, "select count(*)::int from bound_card where device = $1 and asked_at >= $2"
)
TRIES_OF_CARD: Final = Query(
    int, "select count(*)::int from bound_card where par = $1 and asked_at >= $2"
)
OTHERS_ON_DEVICE: Final = Query(
    int,
    """
    select count(distinct person_id)::int from bound_card
     where device = $1 and person_id <> $2 and mode = $3
       and state in ('asked', 'verified', 'bound', 'unbound')""",
)
OTHERS_OF_CARD: Final = Query(
    int,
    """
    select count(distinct person_id)::int from bound_card
     where par = $1 and person_id <> $2 and mode = $3 and state = 'bound'""",
)
OTHERS_OF_PHONE: Final = Query(
    int,
    """
    select count(distinct person_id)::int from bound_card
     where phone_mark = $1 and person_id <> $2 and mode = $3 and state = 'bound'""",
)
BOUND_OF_PERSON: Final = Query(
    int, "select count(*)::int from bound_card where person_id = $1 and state = 'bound'"
)
OF_VAULT_CARD: Final = Query(
    int,
    """
    select count(*)::int from bound_card
     where person_id = $1 and vault_card_id = $2 and id <> $3
       and state in ('asked', 'verified', 'bound')""",
)
BOUND_ALREADY: Final = Query(
    int,
    """
    select count(*)::int from bound_card
     where person_id = $1 and vault_card_id = $2 and state = 'bound'""",
)

INSERT: Final = Query(
    BoundCard,
    f"""
    insert into bound_card (id, person_id, mode, vault_card_id, par, bin, last4, issuer, brand,
                            kind, phone_masked, phone_mark, device, state, reference, is_default,
                            in_use, asked_at)
    values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, 'asked', '', false, 0, $14)
    returning {_CARD}""",
)
ANSWER: Final = Query(
    BoundCard,
    f"""
    update bound_card set state = $2, reference = $3, account_class = $4, answered_at = $5
     where id = $1 and state = 'asked'
    returning {_CARD}""",
)
GET: Final = Query(BoundCard, f"select {_CARD} from bound_card where id = $1")
LOCK: Final = Query(BoundCard, f"select {_CARD} from bound_card where id = $1 for update")
OF_PERSON: Final = Query(
    BoundCard,
    f"""
    select {_CARD} from bound_card
     where person_id = $1 and mode = $2 and (not $3::bool or state = 'bound')
     order by is_default desc, id desc
     limit $4""",
)
DEFAULT_OF: Final = Query(
    BoundCard,
    f"select {_CARD} from bound_card where person_id = $1 and mode = $2 and is_default",
)
BIND: Final = Query(
    BoundCard,
    f"""
    update bound_card set state = 'bound', bound_at = $2, is_default = $3
     where id = $1 and state = 'verified'
    returning {_CARD}""",
)
DROP_DEFAULT: Final = Statement(
    "update bound_card set is_default = false where person_id = $1 and mode = $2 and is_default"
)
SET_DEFAULT: Final = Query(
    BoundCard,
    f"""
    update bound_card set is_default = true where id = $1 and state = 'bound'
    returning {_CARD}""",
)
UNBIND: Final = Query(
    BoundCard,
    f"""
    update bound_card set state = 'unbound', is_default = false, ended_at = $2
     where id = $1 and state = 'bound' and in_use = 0
    returning {_CARD}""",
)
# Orders that begin or end over a card; of a set, those of one card are added up first.
HOLD: Final = Statement(
    """
    update bound_card set in_use = in_use + $3
     where id = $1 and person_id = $2 and state = 'bound' and in_use + $3 >= 0""",
    many="""
    with asked as materialized (
        select each.id, each.person_id, sum(each.change)::int as change, count(*) as times
          from unnest($1::uuid[], $2::uuid[], $3::int[]) as each (id, person_id, change)
         group by each.id, each.person_id
    ), held as (
        update bound_card set in_use = bound_card.in_use + asked.change
          from asked
         where bound_card.id = asked.id and bound_card.person_id = asked.person_id
           and bound_card.state = 'bound' and bound_card.in_use + asked.change >= 0
        returning asked.times
    )
    select each.number from held, generate_series(1, held.times) as each (number)""",
)
STALE: Final = Query(
    BoundCard,
    f"""
    select {_CARD} from bound_card
     where person_id = $1 and state in ('asked', 'verified') and asked_at <= $2""",
)
WITH_STALE: Final = Query(
    UUID,
    """
    select distinct person_id from bound_card
     where state in ('asked', 'verified') and asked_at <= $1
     limit $2""",
)
END_STALE: Final = Statement("""
    update bound_card set state = 'unclear', answered_at = coalesce(answered_at, $2)
     where id = $1 and state in ('asked', 'verified')""")

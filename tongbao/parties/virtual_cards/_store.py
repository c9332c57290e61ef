"""The SQL of virtual cards; nothing outside this package reads this table."""

from __future__ import annotations

from typing import Final

from tongbao.infra.db import Query, Statement
from tongbao.parties.virtual_cards.model import VirtualCard

_CARD: Final = (
    "book, id, account_id, person_id, mode, request_id, vault_card_id, par, bin, last4, state,"
    " each_max, day_max, total_max, day, day_used, used, uses, expires_at, created_at, closed_at"
)

INSERT: Final = Query(
    VirtualCard,
    f"""
    insert into virtual_card (book, id, account_id, person_id, mode, request_id, vault_card_id,
                              par, bin, last4, state, each_max, day_max, total_max, day, day_used,
                              used, uses, expires_at, created_at)
    values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 'active', $11, $12, $13, $14, 0, 0, 0, $15,
            $16)
    returning {_CARD}""",
)
OF_REQUEST: Final = Query(
    VirtualCard,
    f"""
    select {_CARD} from virtual_card
     where book = $1 and account_id = $2 and request_id = $3""",
)
OF_ACCOUNT: Final = Query(
    VirtualCard,
    f"select {_CARD} from virtual_card where book = $1 and account_id = $2 order by id desc",
)
OF_PERSON: Final = Query(
    VirtualCard,
    f"select {_CARD} from virtual_card where book = $1 and person_id = $2 order by id desc",
)
OPEN_OF_ACCOUNT: Final = Query(
    int,
    """
    select count(*)::int from virtual_card
     where book = $1 and account_id = $2 and state <> 'closed'""",
)
BY_PAR: Final = Query(VirtualCard, f"select {_CARD} from virtual_card where book = $1 and par = $2")
GET: Final = Query(VirtualCard, f"select {_CARD} from virtual_card where book = $1 and id = $2")
MOVE: Final = Query(
    VirtualCard,
    f"""
    update virtual_card set state = $3, closed_at = $4
     where book = $1 and id = $2 and state <> 'closed'
    returning {_CARD}""",
)
SET_LIMITS: Final = Query(
    VirtualCard,
    f"""
    update virtual_card set each_max = $3, day_max = $4, total_max = $5
     where book = $1 and id = $2 and state <> 'closed'
    returning {_CARD}""",
)
# One payment; $3 the amount, $4 the day, $5 the moment.
PAY: Final = Statement("""
    update virtual_card
       set day = greatest(day, $4::date), uses = uses + 1, used = used + $3::bigint,
           day_used = case when day >= $4 then day_used else 0 end + $3::bigint
     where book = $1 and id = $2 and state = 'active' and expires_at > $5
       and $3::bigint <= coalesce(each_max, $3::bigint)
       and case when day >= $4 then day_used else 0 end + $3::bigint
           <= coalesce(day_max, case when day >= $4 then day_used else 0 end + $3::bigint)
       and used + $3::bigint <= coalesce(total_max, used + $3::bigint)""")

KNOW_GUESSER: Final = Statement("""
    insert into virtual_card_guess (book, kind, subject, day, wrong) values ($1, $2, $3, $4, 0)
        on conflict do nothing""")
LOCK_GUESSER: Final = Query(
    int,
    """
    select case when day >= $4 then wrong else 0 end as wrong from virtual_card_guess
     where book = $1 and kind = $2 and subject = $3 for no key update""",
)
COUNT_GUESS: Final = Query(
    int,
    """
    update virtual_card_guess
       set wrong = case when day >= $4 then wrong else 0 end + 1, day = greatest(day, $4)
     where book = $1 and kind = $2 and subject = $3
    returning wrong""",
)
# Rows that somebody holds are theirs; the next wrong try looks again.
PRUNE_GUESSES: Final = Statement("""
    delete from virtual_card_guess
     where (book, kind, subject) in (
           select book, kind, subject from virtual_card_guess where day < $1
            limit 100 for update skip locked)""")

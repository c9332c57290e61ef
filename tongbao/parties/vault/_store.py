"""The SQL of the vault, the only statements that name its schema."""

from __future__ import annotations

from typing import Final

from tongbao.infra.db import Query, Statement
from tongbao.parties.vault.model import Card, Token, TokenUse, UseKey

_CARD: Final = """id, merchant_id, mode, fingerprint, par, bin, last4, scheme, state, sealed,
    created_at, changed_at"""
_COLUMNS: Final = """id, card_id, merchant_id, mode, number, requestor, kind, state, assurance,
    channels, pay_modes, currency, amount_each_max, amount_max, uses_max, expires_at, amount_used,
    uses, replaced_by, created_at, changed_at"""
_KEY: Final = """id, token_id, merchant_id, mode, number, state, sealed, uses_max, refill_at, uses,
    last_counter, expires_at, created_at"""
_USE: Final = """token_id, reference, merchant_id, mode, amount, currency, key_number, counter,
    used_at"""

INSERT_CARD: Final = Query(
    Card,
    f"""
    insert into vault.card ({_CARD})
    values ($1, $2, $3, $4, $5, $6, $7, $8, 'active', $9, $10, $10)
    on conflict (merchant_id, mode, fingerprint) where state = 'active' do nothing
    returning {_CARD}""",
)
FIND_CARD: Final = Query(
    Card,
    f"""
    select {_CARD} from vault.card
     where merchant_id = $1 and mode = $2 and fingerprint = $3 and state = 'active'""",
)
GET_CARD: Final = Query(
    Card,
    f"select {_CARD} from vault.card where id = $1 and merchant_id = $2 and mode = $3",
)
LOCK_CARD: Final = Query(
    Card,
    f"""
    select {_CARD} from vault.card
     where id = $1 and merchant_id = $2 and mode = $3 and state = 'active' for update""",
)
LIST_CARDS: Final = Query(
    Card,
    f"""
    select {_CARD} from vault.card
     where merchant_id = $1 and mode = $2 and ($3::uuid is null or id < $3)
     order by id desc limit $4""",
)
DELETE_CARD: Final = Query(
    Card,
    f"""
    update vault.card set state = 'deleted', sealed = null, changed_at = $2
     where id = $1 and state = 'active'
    returning {_CARD}""",
)
REISSUE_CARD: Final = Query(
    Card,
    f"""
    update vault.card
       set fingerprint = $2, bin = $3, last4 = $4, scheme = $5, sealed = $6, changed_at = $7
     where id = $1 and state = 'active'
    returning {_CARD}""",
)

INSERT_REQUESTOR: Final = Statement("""
    insert into vault.requestor (number, merchant_id, mode, created_at) values ($1, $2, $3, $4)
    on conflict do nothing""")
GET_REQUESTOR: Final = Query(
    str, "select number from vault.requestor where merchant_id = $1 and mode = $2"
)

# Of a number that is taken nothing is written, and the caller draws another.
INSERT_TOKEN: Final = Query(
    Token,
    f"""
    insert into vault.token ({_COLUMNS})
    values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, 0, 0, null, $17,
            $17)
    on conflict (number) do nothing
    returning {_COLUMNS}""",
)
GET_TOKEN: Final = Query(
    Token,
    f"select {_COLUMNS} from vault.token where id = $1 and merchant_id = $2 and mode = $3",
)
LOCK_TOKEN: Final = Query(
    Token,
    f"""
    select {_COLUMNS} from vault.token
     where id = $1 and merchant_id = $2 and mode = $3 for update""",
)
LOCK_NUMBER: Final = Query(
    Token,
    f"""
    select {_COLUMNS} from vault.token
     where number = $1 and merchant_id = $2 and mode = $3 for update""",
)
LIST_TOKENS: Final = Query(
    Token,
    f"""
    select {_COLUMNS} from vault.token
     where merchant_id = $1 and mode = $2 and ($3::uuid is null or card_id = $3)
       and ($4::uuid is null or id < $4)
     order by id desc limit $5""",
)
LOCK_OF_CARD: Final = Query(
    Token,
    f"""
    select {_COLUMNS} from vault.token
     where card_id = $1 and state in ('requested', 'active', 'suspended') order by id for update""",
)
MOVE_TOKEN: Final = Query(
    Token,
    f"""
    update vault.token
       set state = $2, assurance = coalesce($3, assurance), replaced_by = $4, changed_at = $5
     where id = $1
    returning {_COLUMNS}""",
)
TAKE_OVER: Final = Statement("update vault.token set uses = $2, amount_used = $3 where id = $1")
COUNT_USE: Final = Query(
    Token,
    f"""
    update vault.token
       set uses = uses + 1, amount_used = amount_used + $2, changed_at = $3
     where id = $1
    returning {_COLUMNS}""",
)

INSERT_USE: Final = Statement(f"""
    insert into vault.token_use ({_USE}) values ($1, $2, $3, $4, $5, $6, $7, $8, $9)""")
GET_USE: Final = Query(
    TokenUse,
    f"select {_USE} from vault.token_use where token_id = $1 and reference = $2",
)

END_KEYS: Final = Statement("""
    update vault.use_key set state = 'ended', sealed = null
     where token_id = $1 and state = 'active' and number <= $2""")
LAST_KEY: Final = Query(
    int, "select coalesce(max(number), 0) from vault.use_key where token_id = $1"
)
INSERT_KEY: Final = Query(
    UseKey,
    f"""
    insert into vault.use_key ({_KEY})
    values ($1, $2, $3, $4, $5, 'active', $6, $7, $8, 0, 0, $9, $10)
    returning {_KEY}""",
)
LOCK_KEY: Final = Query(
    UseKey,
    f"""
    select {_KEY} from vault.use_key where token_id = $1 and number = $2 for update""",
)
COUNT_KEY: Final = Query(
    UseKey,
    f"""
    update vault.use_key set uses = uses + 1, last_counter = $2
     where id = $1 and last_counter < $2 and uses < uses_max
    returning {_KEY}""",
)
GET_KEY: Final = Query(
    UseKey,
    f"select {_KEY} from vault.use_key where id = $1 and merchant_id = $2 and mode = $3",
)

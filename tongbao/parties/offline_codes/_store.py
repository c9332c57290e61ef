"""The SQL of codes without network; nothing outside this package reads these tables."""

from __future__ import annotations

from typing import Final

from tongbao.infra.db import Query, Statement
from tongbao.parties.offline_codes.model import OfflineAllowance, OfflineKey

_KEY: Final = """book, id, wallet_id, mode, alias, device_name, secret_sealed, state, misses,
    created_at, expires_at, ended_at"""

# Of an alias that is taken nothing is written, and the caller draws another.
INSERT_KEY: Final = Query(
    OfflineKey,
    f"""
    insert into offline_key ({_KEY})
    values ($1, $2, $3, $4, $5, $6, $7, 'active', 0, $8, $9, null)
    on conflict (book, alias) do nothing
    returning {_KEY}""",
)
GET_KEY: Final = Query(
    OfflineKey,
    f"select {_KEY} from offline_key where book = $1 and id = $2",
)
FIND_KEY: Final = Query(
    OfflineKey,
    f"select {_KEY} from offline_key where book = $1 and alias = $2 and mode = $3",
)
LIST_KEYS: Final = Query(
    OfflineKey,
    f"""
    select {_KEY} from offline_key
     where book = $1 and wallet_id = $2 and ($3::uuid is null or id < $3)
     order by id desc
     limit $4""",
)
COUNT_LIVE: Final = Query(
    int,
    """
    select count(*) from offline_key
     where book = $1 and wallet_id = $2 and state = 'active' and expires_at > $3""",
)
SHORTEN_KEY: Final = Statement("""
    update offline_key set expires_at = least(expires_at, $3)
     where book = $1 and id = $2 and state = 'active'""")
REVOKE_KEY: Final = Query(
    OfflineKey,
    f"""
    update offline_key set state = 'revoked', ended_at = coalesce(ended_at, $3)
     where book = $1 and id = $2 and state <> 'revoked'
    returning {_KEY}""",
)
COUNT_MISS: Final = Query(
    OfflineKey,
    f"""
    update offline_key
       set misses = misses + 1,
           state = case when misses + 1 >= $3 then 'locked' else 'active' end,
           ended_at = case when misses + 1 >= $3 then $4::timestamptz end
     where book = $1 and id = $2 and state = 'active'
    returning {_KEY}""",
)
# Whether the key still pays is decided on its row as it is when its lock is had.
HOLD_KEY: Final = Statement("""
    update offline_key set misses = 0
     where book = $1 and id = $2 and state = 'active' and expires_at > $3""")
IS_USED: Final = Query(
    bool,
    "select exists (select 1 from offline_code where book = $1 and key_id = $2 and step = $3)",
)
USE_CODE: Final = Statement("""
    insert into offline_code (book, key_id, step, used_at, used_by)
    values ($1, $2, $3, $4, $5)
    on conflict (book, key_id, step) do nothing""")

INSERT_ALLOWANCE: Final = Statement("""
    insert into offline_allowance (book, wallet_id, limit_each, limit_per_day, spent_on, spent)
    values ($1, $2, $3, $4, $5, 0)
    on conflict (book, wallet_id) do nothing""")
GET_ALLOWANCE: Final = Query(
    OfflineAllowance,
    """
    select book, wallet_id, limit_each, limit_per_day, spent_on, spent from offline_allowance
     where book = $1 and wallet_id = $2""",
)
SPEND: Final = Statement("""
    update offline_allowance
       set spent = case when spent_on >= $3 then spent else 0 end + $4,
           spent_on = greatest(spent_on, $3)
     where book = $1 and wallet_id = $2 and $4 <= limit_each
       and case when spent_on >= $3 then spent else 0 end + $4 <= limit_per_day""")

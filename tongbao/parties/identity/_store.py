"""The SQL of API keys, operators and sessions; nothing outside this package reads these tables."""

from __future__ import annotations

from typing import Final

from tongbao.infra.db import Query, Statement
from tongbao.parties.identity.model import ApiKey, KeyAge, Operator, OperatorSession

_KEY: Final = (
    "id, merchant_id, mode, name, scopes, secret_sealed, secret_tail, created_at, expires_at,"
    " revoked_at, last_used_at, rolled_to_id, algorithm, public_key,"
    " api_version"
)
_OPERATOR: Final = (
    "id, login, name, role, state, password_hash, totp_sealed, totp_last_step, failures,"
    " locked_until, created_at, is_first"
)
_SESSION: Final = "token_hash, operator_id, opened_at, seen_at, expires_at"

INSERT_KEY: Final = Query(
    ApiKey,
    f"""
    insert into api_key (id, merchant_id, mode, name, scopes, secret_sealed, secret_tail,
                         created_at, algorithm, public_key, api_version)
    values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
    returning {_KEY}""",
)
GET_KEY: Final = Query(ApiKey, f"select {_KEY} from api_key where id = $1")
KEYS: Final = Query(ApiKey, f"select {_KEY} from api_key where id = any($1::uuid[])")
LOCK_KEY: Final = Query(ApiKey, f"select {_KEY} from api_key where id = $1 for update")
REPLACE_KEY: Final = Query(
    ApiKey,
    f"update api_key set rolled_to_id = $2, expires_at = $3 where id = $1 returning {_KEY}",
)
REVOKE_KEY: Final = Query(
    ApiKey,
    f"""
    update api_key set revoked_at = coalesce(revoked_at, $4)
     where id = $1 and merchant_id = $2 and mode = $3
    returning {_KEY}""",
)
SET_SCOPES: Final = Query(ApiKey, f"update api_key set scopes = $2 where id = $1 returning {_KEY}")
NOTE_KEY_USE: Final = Statement("""
    update api_key set last_used_at = $2
     where id = $1 and (last_used_at is null or last_used_at < $3)""")
OTHERS_HAVE_KEYS: Final = Query(
    bool,
    """
    select exists (
      select from api_key
       where mode = 'sandbox' and merchant_id <> $1 and revoked_at is null
         and (expires_at is null or expires_at > $2)
    ) as found""",
)
LIST_KEYS: Final = Query(
    ApiKey,
    f"""
    select {_KEY} from api_key
     where merchant_id = $1 and mode = $2 and ($3::uuid is null or id < $3)
     order by id desc
     limit $4""",
)

INSERT_OPERATOR: Final = Query(
    Operator,
    f"""
    insert into operator (id, login, name, role, state, password_hash, totp_sealed, created_at,
                          is_first)
    values ($1, $2, $3, $4, 'active', $5, $6, $7, $8)
        on conflict do nothing
    returning {_OPERATOR}""",
)
ANY_OPERATOR: Final = Query(bool, "select exists (select from operator) as found")
FIND_OPERATOR: Final = Query(Operator, f"select {_OPERATOR} from operator where login = $1")
GET_OPERATOR: Final = Query(Operator, f"select {_OPERATOR} from operator where id = $1")
LIST_OPERATORS: Final = Query(Operator, f"select {_OPERATOR} from operator order by login")
SET_PASSWORD: Final = Query(
    Operator,
    f"""
    update operator set password_hash = $2, failures = 0, locked_until = null
     where login = $1
    returning {_OPERATOR}""",
)
SET_TOTP: Final = Query(
    Operator,
    f"update operator set totp_sealed = $2, totp_last_step = 0 where id = $1 returning {_OPERATOR}",
)
SET_STATE: Final = Query(
    Operator, f"update operator set state = $2 where login = $1 returning {_OPERATOR}"
)
UNLOCK: Final = Query(
    Operator,
    f"""
    update operator set failures = 0, locked_until = null where login = $1
    returning {_OPERATOR}""",
)
# A try is counted before it is judged, so a burst of guesses in parallel gets no more than five.
COUNT_TRY: Final = Query(
    Operator,
    f"""
    update operator
       set failures = failures + 1,
           locked_until = case when failures + 1 >= $2 then $4::timestamptz end
     where id = $1 and state = 'active' and (locked_until is null or locked_until <= $3)
    returning {_OPERATOR}""",
)
# The step only grows: of two logins with one code, the second touches no row.
USE_CODE: Final = Query(
    Operator,
    f"""
    update operator set failures = 0, locked_until = null, totp_last_step = $2
     where id = $1 and totp_last_step < $2 and state = 'active'
    returning {_OPERATOR}""",
)

# Who proved themselves in another way than by TOTP.
LET_IN: Final = Query(
    Operator,
    f"""
    update operator set failures = 0, locked_until = null where id = $1 and state = 'active'
    returning {_OPERATOR}""",
)
INSERT_RECOVERY: Final = Statement(
    "insert into operator_recovery_code (operator_id, code_hash, made_at) values ($1, $2, $3)"
)
FORGET_RECOVERY: Final = Statement("delete from operator_recovery_code where operator_id = $1")
USE_RECOVERY: Final = Statement("""
    update operator_recovery_code set used_at = $3
     where operator_id = $1 and code_hash = $2 and used_at is null""")
KNOWS_RECOVERY: Final = Query(
    bool,
    """
    select exists (select from operator_recovery_code
                    where operator_id = $1 and code_hash = $2 and used_at is null) as known""",
)
RECOVERY_LEFT: Final = Query(
    int,
    """
    select count(*)::int from operator_recovery_code where operator_id = $1 and used_at is null""",
)

INSERT_SESSION: Final = Statement("""
    insert into operator_session (token_hash, operator_id, opened_at, seen_at, expires_at)
    values ($1, $2, $3, $3, $4)""")
KEY_AGES: Final = Query(
    KeyAge,
    """
    select mode, count(*)::int as keys, min(created_at) as oldest,
           (count(*) filter (where created_at < $2))::int as overdue
      from api_key where revoked_at is null and (expires_at is null or expires_at > $1)
     group by mode order by mode""",
)
END_OLDEST: Final = Statement("""
    delete from operator_session
     where token_hash in (select token_hash from operator_session where operator_id = $1
                           order by opened_at desc, token_hash offset $2)""")
FIND_SESSION: Final = Query(
    OperatorSession, f"select {_SESSION} from operator_session where token_hash = $1"
)
TOUCH_SESSION: Final = Statement(
    "update operator_session set seen_at = $2 where token_hash = $1 and seen_at < $2"
)
END_SESSION: Final = Statement("delete from operator_session where token_hash = $1")
END_SESSIONS_OF: Final = Statement("delete from operator_session where operator_id = $1")
PRUNE_SESSIONS: Final = Statement(
    "delete from operator_session where expires_at < $1 or seen_at < $2"
)

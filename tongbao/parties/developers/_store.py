"""The SQL of developers; nothing outside this package reads these tables."""

from __future__ import annotations

from typing import Final

from tongbao.infra.db import Query, Statement
from tongbao.parties.developers.model import Developer, DeveloperSession

_DEVELOPER: Final = (
    "id, merchant_id, mode, mail_blind, mail_sealed, mail_masked, failures, locked_until,"
    " created_at"
)
_SESSION: Final = "token_hash, developer_id, opened_at, seen_at, expires_at"

# Of two who proved the same address at once, one signs up.
INSERT: Final = Query(
    Developer,
    f"""
    insert into developer (id, merchant_id, mail_blind, mail_sealed, mail_masked, created_at)
    values ($1, $2, $3, $4, $5, $6)
        on conflict (mail_blind) do nothing
    returning {_DEVELOPER}""",
)
GET: Final = Query(Developer, f"select {_DEVELOPER} from developer where id = $1")
FIND: Final = Query(Developer, f"select {_DEVELOPER} from developer where mail_blind = $1")
COUNT_TRY: Final = Query(
    Developer,
    f"""
    update developer
       set failures = failures + 1,
           locked_until = case when failures + 1 >= $2 then $4::timestamptz end
     where id = $1 and (locked_until is null or locked_until <= $3)
    returning {_DEVELOPER}""",
)
DELETE: Final = Statement("delete from developer where id = $1")
CLEAR_TRIES: Final = Statement(
    "update developer set failures = 0, locked_until = null where id = $1"
)

INSERT_SESSION: Final = Statement("""
    insert into developer_session (token_hash, developer_id, opened_at, seen_at, expires_at)
    values ($1, $2, $3, $3, $4)""")
FIND_SESSION: Final = Query(
    DeveloperSession, f"select {_SESSION} from developer_session where token_hash = $1"
)
TOUCH_SESSION: Final = Statement(
    "update developer_session set seen_at = $2 where token_hash = $1 and seen_at < $2"
)
END_SESSION: Final = Statement("delete from developer_session where token_hash = $1")
END_SESSIONS_OF: Final = Statement("delete from developer_session where developer_id = $1")
PRUNE_SESSIONS: Final = Statement(
    "delete from developer_session where expires_at <= $1 or seen_at <= $2"
)

"""The SQL of messages to people; nothing outside this package reads this table."""

from __future__ import annotations

from typing import Final

from tongbao.infra.db import Query, Statement
from tongbao.infra.notify.model import Notification

_NOTIFICATION: Final = (
    "id, mode, kind, purpose, subject, sealed, state, reference, created_at, ended_at"
)

INSERT: Final = Statement("""
    insert into notification (id, mode, kind, purpose, subject, sealed, state, created_at)
    values ($1, $2, $3, $4, $5, $6, 'waiting', $7)""")
GET: Final = Query(Notification, f"select {_NOTIFICATION} from notification where id = $1")
# What was sent is no longer needed here, and would be one more place to forget it in.
END: Final = Statement("""
    update notification set state = $2, reference = $3, ended_at = $4, sealed = null
     where id = $1 and state = 'waiting'""")
OF_SUBJECT: Final = Query(
    Notification, f"select {_NOTIFICATION} from notification where subject = $1 order by id"
)
FORGET_SUBJECT: Final = Statement("delete from notification where subject = $1")
PRUNE: Final = Statement("delete from notification where created_at < $1 and state <> 'waiting'")

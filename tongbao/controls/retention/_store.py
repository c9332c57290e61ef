"""The SQL of retention; nothing outside this package reads these tables."""

from __future__ import annotations

from typing import Final

from tongbao.controls.retention.model import RetentionProgress, RetentionTerm
from tongbao.infra.db import Query, Statement

_PROGRESS: Final = "kind, of_book, after_id, erased, looked_at"

TERMS: Final = Query(
    RetentionTerm,
    "select kind, valid_from, days, because from retention_term order by kind, valid_from",
)
INSERT_TERM: Final = Statement("""
    insert into retention_term (kind, valid_from, days, because) values ($1, $2, $3, $4)
        on conflict do nothing""")
PROGRESS: Final = Query(
    RetentionProgress, f"select {_PROGRESS} from retention_progress order by kind, of_book"
)
BEGIN: Final = Statement(f"""
    insert into retention_progress ({_PROGRESS}) values ($1, $2, $3, 0, $4)
        on conflict do nothing""")
LOCK_PROGRESS: Final = Query(
    RetentionProgress,
    f"""
    select {_PROGRESS} from retention_progress
     where kind = $1 and of_book = $2 for update skip locked""",
)
ADVANCE: Final = Statement("""
    update retention_progress set after_id = $3, erased = erased + $4, looked_at = $5
     where kind = $1 and of_book = $2""")

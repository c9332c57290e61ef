"""The SQL of the audit log's checkpoints; the log itself and its tree are `infra.audit`'s."""

from __future__ import annotations

from typing import Final

from tongbao.controls.audit_log.model import AuditCheckpoint
from tongbao.infra.db import Query, Statement

_POINT: Final = "number, size, root, frontier, at, note"

LAST_POINT: Final = Query(
    AuditCheckpoint, f"select {_POINT} from audit_checkpoint order by number desc limit 1"
)
POINT: Final = Query(AuditCheckpoint, f"select {_POINT} from audit_checkpoint where number = $1")
POINTS: Final = Query(
    AuditCheckpoint,
    f"""
    select {_POINT} from audit_checkpoint where $1::bigint is null or number < $1
     order by number desc limit $2""",
)
ADD_POINT: Final = Statement("""
    insert into audit_checkpoint (number, size, root, frontier, at, note)
    values ($1, $2, $3, $4, $5, $6)""")

"""The SQL of who was handed a key's secret; nothing outside this package reads the table."""

from __future__ import annotations

from typing import Final

from tongbao.infra.db import Query, Statement
from tongbao.parties.live_keys.model import Handover

_HANDOVER: Final = "approval_id, key_id, collected_at, collected_by"

INSERT: Final = Statement("insert into api_key_handover (approval_id, key_id) values ($1, $2)")
GET: Final = Query(Handover, f"select {_HANDOVER} from api_key_handover where approval_id = $1")
COLLECT: Final = Query(
    Handover,
    f"""
    update api_key_handover set collected_at = $2, collected_by = $3
     where approval_id = $1 and collected_at is null
    returning {_HANDOVER}""",
)

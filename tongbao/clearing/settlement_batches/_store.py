"""The SQL of settlement batches; nothing outside this package reads or writes their tables."""

from __future__ import annotations

from typing import Final

from tongbao.clearing.settlement_batches.model import LeftOut, SettlementBatch
from tongbao.infra.db import Query, Statement

_BATCH: Final = """id, key, mode, day, state, releases_itself, cursor, looked_at, created_by,
    created_at, drawn_at, ended_at"""
_LEFT_OUT: Final = "batch_id, merchant_id, mode, currency, reason, by, at"

INSERT_BATCH = Statement(
    f"""insert into settlement_batch ({_BATCH})
        values ($1, $2, $3, $4, 'drawing', $5, null, 0, $6, $7, null, null)
        on conflict (key) do nothing"""
)
ADVANCE = Statement(
    """update settlement_batch set cursor = $3, looked_at = looked_at + $4
        where id = $1 and cursor is not distinct from $2 and state = 'drawing'"""
)
END_DRAWING = Statement(
    """update settlement_batch
          set state = case when releases_itself then 'releasing' else 'drawn' end, drawn_at = $3
        where id = $1 and cursor is not distinct from $2 and state = 'drawing'"""
)
MOVE = Statement("update settlement_batch set state = $3 where id = $1 and state = $2")
END = Statement(
    "update settlement_batch set state = $3, ended_at = $4 where id = $1 and state = $2"
)
ANALYZE = Statement("analyze settlement")
INSERT_LEFT_OUT = Statement(
    f"""insert into settlement_left_out ({_LEFT_OUT}) values ($1, $2, $3, $4, $5, $6, $7)
        on conflict do nothing"""
)

GET_BATCH = Query(SettlementBatch, f"select {_BATCH} from settlement_batch where id = $1")
BATCH_OF_KEY = Query(SettlementBatch, f"select {_BATCH} from settlement_batch where key = $1")
LOCK_BATCH = Query(
    SettlementBatch, f"select {_BATCH} from settlement_batch where id = $1 for update"
)
LIST_BATCHES = Query(
    SettlementBatch,
    f"""select {_BATCH} from settlement_batch
         where ($1::text is null or mode = $1) and ($2::text is null or state = $2)
           and ($3::uuid is null or id < $3)
         order by id desc limit $4""",
)
LEFT_OUT_OF = Query(
    LeftOut,
    f"select {_LEFT_OUT} from settlement_left_out where batch_id = $1 order by at, merchant_id",
)

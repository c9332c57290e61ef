"""The SQL of captures and voids; nothing outside this package reads their table."""

from __future__ import annotations

from typing import Final

from tongbao.infra.db import Query, Statement
from tongbao.payments.authorisations.model import Completion

_COMPLETION: Final = """book, id, payment_id, attempt_id, account_id, merchant_id, mode, kind, why,
    amount, currency, fee, state, code, channel_ref, channel_at, created_at, ended_at, queries,
    version"""

INSERT_COMPLETION = Statement(
    f"""insert into completion ({_COMPLETION})
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18,
                $19, $20)
        on conflict do nothing"""
)
UPDATE_COMPLETION = Statement(
    """update completion
          set state = $4, code = $5, channel_ref = $6, channel_at = $7, ended_at = $8,
              version = version + 1
        where book = $1 and id = $2 and version = $3"""
)
COUNT_QUERY = Statement("update completion set queries = queries + 1 where book = $1 and id = $2")

GET_COMPLETION = Query(
    Completion, f"select {_COMPLETION} from completion where book = $1 and id = $2"
)
FIND_COMPLETION = Query(Completion, f"select {_COMPLETION} from completion where id = $1")
COMPLETIONS_OF_PAYMENT = Query(
    Completion,
    f"""select {_COMPLETION} from completion
         where book = $1 and payment_id = $2 order by id""",
)
COMPLETIONS_WITH_IDS = Query(
    Completion, f"select {_COMPLETION} from completion where id = any($1::uuid[])"
)

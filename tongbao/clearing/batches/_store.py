"""The SQL of batches; nothing outside this package reads their table."""

from __future__ import annotations

from typing import Final

from tongbao.clearing.batches.model import Batch
from tongbao.infra.db import Query, Statement

_BATCH: Final = """id, account_id, channel, mode, number, currency, begins, ends, state,
    debit_count, debit_amount, credit_count, credit_amount, their_debit_count, their_debit_amount,
    their_credit_count, their_credit_amount, tries, last_answer, answered_at"""

INSERT_BATCH = Statement(
    f"""insert into batch ({_BATCH})
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18,
                $19, $20)
        on conflict do nothing"""
)
LAST_BATCH = Query(
    Batch,
    f"select {_BATCH} from batch where account_id = $1 order by number desc limit 1",
)
COUNTED = Query(
    str, "select number from batch_item where account_id = $1 and number = any($2::text[])"
)
INSERT_ITEM = Statement("insert into batch_item (account_id, number, batch_id) values ($1, $2, $3)")
GET_BATCH = Query(Batch, f"select {_BATCH} from batch where id = $1")
LATEST_BATCHES = Query(Batch, f"select {_BATCH} from batch order by ends desc, id desc limit $1")
COUNT_TRY = Statement(
    "update batch set tries = tries + 1, last_answer = $2 where id = $1 and state = 'asked'"
)
# Compare and set: a batch ends once.
END_BATCH = Statement(
    """update batch
          set state = $2, their_debit_count = $3, their_debit_amount = $4,
              their_credit_count = $5, their_credit_amount = $6, answered_at = $7,
              last_answer = $8, tries = tries + 1
        where id = $1 and state = 'asked'"""
)

"""The SQL of visits to car parks; nothing outside this package reads their tables."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from tongbao.controls.retention.erasing import erasing
from tongbao.infra.db import Query, Statement
from tongbao.payments.parking.model import Visit, VisitExchange

_VISIT: Final = """book, id, merchant_id, mode, merchant_visit_no, request_hash, channel,
    account_id, plate_sealed, place, lot, free_s, state, visit_ref, code, entered_at, left_at,
    exit_told_at, payment_id, charges, created_at, version"""
_EXCHANGE: Final = """book, id, visit_id, purpose, method, url, request, status, reply,
    duration_ms, outcome, at"""

INSERT_VISIT = Statement(
    f"""insert into parking_visit ({_VISIT})
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18,
                $19, $20, $21, $22)
        on conflict (merchant_visit_no, merchant_id, mode, book) do nothing"""
)
UPDATE_VISIT = Statement(
    """update parking_visit
          set state = $4, visit_ref = $5, code = $6, left_at = $7, exit_told_at = $8,
              version = version + 1
        where book = $1 and id = $2 and version = $3"""
)
# Compare and set, in the commit that makes the payment: of two charges one is made.
TAKE_CHARGE = Statement(
    """update parking_visit
          set payment_id = $4, charges = charges + 1, left_at = $5, version = version + 1
        where book = $1 and id = $2 and charges = $3 and state in ('open', 'left')
          and visit_ref is not null"""
)
INSERT_EXCHANGE = Statement(
    f"""insert into parking_exchange ({_EXCHANGE})
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)"""
)
GET_VISIT = Query(Visit, f"select {_VISIT} from parking_visit where book = $1 and id = $2")
FIND_VISIT = Query(
    Visit, f"select {_VISIT} from parking_visit where id = $1 and merchant_id = $2 and mode = $3"
)
FIND_VISIT_ANYWHERE = Query(Visit, f"select {_VISIT} from parking_visit where id = $1")
FIND_VISIT_BY_NUMBER = Query(
    Visit,
    f"""select {_VISIT} from parking_visit
         where book = $1 and merchant_id = $2 and mode = $3 and merchant_visit_no = $4""",
)
LIST_VISITS = Query(
    Visit,
    f"""select {_VISIT} from parking_visit
         where merchant_id = $1 and mode = $2 and ($3::text is null or merchant_visit_no = $3)
           and ($4::text is null or state = $4) and ($5::uuid is null or id < $5)
         order by id desc limit $6""",
)
LIST_SHOWN = Query(
    Visit,
    f"""select {_VISIT} from parking_visit
         where ($1::uuid is null or merchant_id = $1) and ($2::text is null or mode = $2)
           and ($3::text is null or state = $3) and ($4::text is null or channel = $4)
           and ($5::text is null or merchant_visit_no = $5)
           and ($6::timestamptz is null or created_at >= $6)
           and ($7::timestamptz is null or created_at < $7)
           and ($8::uuid is null or id < $8)
         order by id desc limit $9""",
)
EXCHANGES_OF_VISIT = Query(
    VisitExchange,
    f"""select {_EXCHANGE} from parking_exchange
         where book = $1 and visit_id = $2 order by id desc limit $3""",
)
ERASE_EXCHANGES: Final = Query(UUID, erasing("parking_exchange"))

"""The SQL of refunds; nothing outside this package reads their table."""

from __future__ import annotations

from typing import Final

from tongbao.infra.db import Query, Statement
from tongbao.payments.refunds.model import GivenBack, Redirection, Refund, RefundStop

_REFUND: Final = """book, id, payment_id, attempt_id, merchant_id, mode, merchant_refund_no, amount,
    currency, fee_back, kind, reason, state, code, channel_ref, channel_at, created_at, ended_at,
    queries, version, staff_id"""

_REDIRECTION: Final = """book, refund_id, merchant_id, mode, request_hash, target, sealed, state,
    code, tries, asked_at, ended_at"""

INSERT_REFUND = Statement(
    f"""insert into refund ({_REFUND})
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18,
                $19, $20, $21)
        on conflict (book, merchant_id, mode, merchant_refund_no) do nothing"""
)
UPDATE_REFUND = Statement(
    """update refund
          set state = $4, code = $5, channel_ref = $6, channel_at = $7, ended_at = $8,
              version = version + 1
        where book = $1 and id = $2 and version = $3"""
)
COUNT_QUERY = Statement("update refund set queries = queries + 1 where book = $1 and id = $2")

ADD_STOP = Statement(
    """insert into refund_stop (book, refund_id, asked_at, asked_by) values ($1, $2, $3, $4)
        on conflict (book, refund_id) do nothing"""
)
GET_STOP = Query(
    RefundStop,
    """select book, refund_id, asked_at, asked_by from refund_stop
        where book = $1 and refund_id = $2""",
)
INSERT_REDIRECTION = Statement(
    f"""insert into refund_redirection ({_REDIRECTION})
        values ($1, $2, $3, $4, $5, $6, $7, 'requested', null, 0, $8, null)
        on conflict (book, refund_id) do update
           set request_hash = excluded.request_hash, target = excluded.target,
               sealed = excluded.sealed, state = 'requested', code = null, tries = 0,
               asked_at = excluded.asked_at, ended_at = null
         where refund_redirection.state = 'refused'"""
)
COUNT_REDIRECTION = Statement(
    """update refund_redirection set tries = tries + 1
        where book = $1 and refund_id = $2 and state = 'requested'"""
)
END_REDIRECTION = Statement(
    """update refund_redirection set state = $3, code = $4, ended_at = $5, sealed = null
        where book = $1 and refund_id = $2 and state = 'requested'"""
)
GET_REDIRECTION = Query(
    Redirection,
    f"select {_REDIRECTION} from refund_redirection where book = $1 and refund_id = $2",
)

LOCK_REFUND = Query(Refund, f"select {_REFUND} from refund where book = $1 and id = $2 for update")

GET_REFUND = Query(Refund, f"select {_REFUND} from refund where book = $1 and id = $2")
FIND_REFUND = Query(
    Refund, f"select {_REFUND} from refund where id = $1 and merchant_id = $2 and mode = $3"
)
FIND_REFUND_ANYWHERE = Query(Refund, f"select {_REFUND} from refund where id = $1")
FIND_REFUND_BY_NUMBER = Query(
    Refund,
    f"""select {_REFUND} from refund
         where book = $1 and merchant_id = $2 and mode = $3 and merchant_refund_no = $4""",
)
REFUNDS_OF_PAYMENT = Query(
    Refund, f"select {_REFUND} from refund where book = $1 and payment_id = $2 order by id"
)
REFUNDS_WITH_IDS = Query(Refund, f"select {_REFUND} from refund where id = any($1::uuid[])")
GIVEN_BACK_BETWEEN = Query(
    GivenBack,
    """select book, id, payment_id, attempt_id, amount, currency, created_at, channel_at
          from refund
         where mode = $1 and channel_at >= $2 and channel_at < $3 and channel_at is not null
         order by channel_at, id""",
)
LIST_REFUNDS = Query(
    Refund,
    f"""select {_REFUND} from refund
         where ($1::uuid is null or merchant_id = $1) and ($2::text is null or mode = $2)
           and ($3::uuid is null or payment_id = $3) and ($4::text is null or state = $4)
           and ($5::text is null or merchant_refund_no = $5)
           and ($6::uuid is null or id < $6)
         order by id desc limit $7""",
)

"""The SQL of payments by electronic accounts; nothing outside this package reads these tables."""

from __future__ import annotations

from typing import Final

from tongbao.infra.db import Query, Statement
from tongbao.payments.e_account_payments.model import (
    EAccountPayment,
    EAccountRefund,
    WaitingSum,
)

_PAYMENT: Final = (
    "book, payment_id, account_id, person_id, merchant_id, mode, payee, subject, amount, currency,"
    " level, paid_at"
)
_REFUND: Final = (
    "book, refund_id, payment_id, account_id, person_id, merchant_id, mode, amount, currency,"
    " state, code, made_at, taken_at, taken_to"
)

INSERT_PAYMENT: Final = Statement(f"""
    insert into e_account_payment ({_PAYMENT})
    values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
        on conflict do nothing""")
GET_PAYMENT: Final = Query(
    EAccountPayment,
    f"select {_PAYMENT} from e_account_payment where book = $1 and payment_id = $2",
)
PAYMENTS: Final = Query(
    EAccountPayment,
    f"""
    select {_PAYMENT} from e_account_payment
     where book = $1 and account_id = $2
       and ($3::timestamptz is null or (paid_at, payment_id) < ($3, $4))
     order by paid_at desc, payment_id desc
     limit $5""",
)
INSERT_REFUND: Final = Statement(f"""
    insert into e_account_refund ({_REFUND})
    values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
        on conflict do nothing""")
GET_REFUND: Final = Query(
    EAccountRefund,
    f"select {_REFUND} from e_account_refund where book = $1 and refund_id = $2",
)
REFUNDS: Final = Query(
    EAccountRefund,
    f"""
    select {_REFUND} from e_account_refund
     where book = $1 and payment_id = any($2::uuid[]) order by refund_id""",
)
WAITING: Final = Query(
    EAccountRefund,
    f"""
    select {_REFUND} from e_account_refund
     where book = $1 and person_id = $2 and state = 'waiting' order by made_at, refund_id""",
)
ALL_WAITING: Final = Query(
    EAccountRefund,
    f"""
    select {_REFUND} from e_account_refund
     where book = $1 and state = 'waiting' and ($2::uuid is null or person_id = $2)
       and ($3::timestamptz is null or (made_at, refund_id) > ($3, $4))
     order by made_at, refund_id
     limit $5""",
)
WAITING_SUMS: Final = Query(
    WaitingSum,
    """
    select currency, count(*)::int as refunds, sum(amount)::bigint as amount
      from e_account_refund
     where book = $1 and state = 'waiting'
     group by currency order by currency""",
)
TAKE: Final = Statement("""
    update e_account_refund set state = 'taken', taken_at = $3, taken_to = $4
     where book = $1 and refund_id = $2 and state = 'waiting'""")

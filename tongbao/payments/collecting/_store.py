"""The SQL of payments, attempts and their evidence; nothing outside this package reads them."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from tongbao.infra.db import Query, Statement
from tongbao.payments.collecting.model import (
    Attempt,
    ExchangeRow,
    OverdueAttempt,
    PaidAttempt,
    Payment,
    PaymentCase,
    StateChange,
    Tally,
)

_PAYMENT: Final = """book, id, merchant_id, mode, merchant_order_no, request_hash, amount, currency,
    subject, channel, pay_mode, state, captured, refunded, fee, fee_returned,
    refund_returns_fee, late_success, failure_code, close_reason, close_requested_at, metadata,
    created_at, expires_at, succeeded_at, ended_at, version"""
_ATTEMPT: Final = """book, id, payment_id, merchant_id, mode, channel, account_id, pay_mode, amount,
    currency, state, code, channel_ref, payer, code_url, client_ip, created_at, paid_at, queries"""
_EXCHANGE: Final = """book, id, payment_id, refund_id, purpose, method, url, request, status, reply,
    duration_ms, outcome, at"""
_CASE: Final = """book, id, payment_id, merchant_id, mode, kind, detail, opened_at, closed_at,
    resolution"""
_CHANGE: Final = "book, payment_id, version, from_state, to_state, why, at"

INSERT_PAYMENT = Statement(
    f"""insert into payment ({_PAYMENT})
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18,
                $19, $20, $21, $22, $23, $24, $25, $26, $27)
        on conflict (merchant_order_no, merchant_id, mode, book) do nothing"""
)
INSERT_ATTEMPT = Statement(
    f"""insert into attempt ({_ATTEMPT})
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18,
                $19)"""
)
INSERT_CHANGE = Statement(
    f"insert into payment_state_change ({_CHANGE}) values ($1, $2, $3, $4, $5, $6, $7)"
)

# A payment from the own wallet is at its end the moment it begins: payment, attempt and change of
# state are one statement, and most of their columns follow from a few.
_PAID: Final = """
    , tried as (
        insert into attempt (book, id, payment_id, merchant_id, mode, channel, account_id, pay_mode,
                             amount, currency, state, channel_ref, payer, client_ip, created_at,
                             paid_at)
        select book, attempt_id, id, merchant_id, mode, 'wallet', merchant_id, 'payment_code',
               amount, currency, 'succeeded', number, payer, client_ip, at, at
          from asked
    ), changed as (
        insert into payment_state_change (book, payment_id, version, from_state, to_state, why, at)
        select book, id, 1, 'new', 'succeeded', 'own wallet', at from asked
    )
    insert into payment (book, id, merchant_id, mode, merchant_order_no, request_hash, amount,
                         currency, subject, channel, pay_mode, state, captured, fee,
                         refund_returns_fee, late_success, metadata, created_at, expires_at,
                         succeeded_at, ended_at, version)
    select book, id, merchant_id, mode, merchant_order_no, request_hash, amount, currency, subject,
           'wallet', 'payment_code', 'succeeded', amount, fee, refund_returns_fee, late_success,
           metadata::jsonb, at, expires_at, at, at, 1
      from asked
        on conflict (merchant_order_no, merchant_id, mode, book) do nothing"""
INSERT_PAID_BY_WALLET = Statement(
    f"""
    with asked as materialized (
        select $1::int as book, $2::uuid as id, $3::uuid as merchant_id, $4::text as mode,
               $5::text as merchant_order_no, $6::bytea as request_hash, $7::bigint as amount,
               $8::text as currency, $9::text as subject, $10::bigint as fee,
               $11::bool as refund_returns_fee, $12::text as late_success, $13::text as metadata,
               $14::timestamptz as at, $15::timestamptz as expires_at, $16::uuid as attempt_id,
               $17::text as number, $18::text as payer, $19::text as client_ip
    ){_PAID}""",
    many=f"""
    with asked as materialized (
        select book, id, merchant_id, mode, merchant_order_no, request_hash, amount, currency,
               subject, fee, refund_returns_fee, late_success, metadata, at, expires_at, attempt_id,
               number, payer, client_ip
          from unnest($1::int[], $2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::bytea[],
                      $7::bigint[], $8::text[], $9::text[], $10::bigint[], $11::bool[],
                      $12::text[], $13::text[], $14::timestamptz[], $15::timestamptz[],
                      $16::uuid[], $17::text[], $18::text[], $19::text[])
            as each (book, id, merchant_id, mode, merchant_order_no, request_hash, amount, currency,
                     subject, fee, refund_returns_fee, late_success, metadata, at, expires_at,
                     attempt_id, number, payer, client_ip)
    ){_PAID}""",
)
INSERT_EXCHANGE = Statement(
    f"""insert into exchange ({_EXCHANGE})
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)"""
)
INSERT_CASE = Statement(
    f"""insert into payment_case ({_CASE}) values ($1, $2, $3, $4, $5, $6, $7, $8, null, null)
        on conflict (book, id) do nothing"""
)

# Compare and set: whoever decided on an older version touches no row and decides again.
UPDATE_PAYMENT = Statement(
    """update payment
          set state = $4, captured = $5, failure_code = $6, close_reason = $7, succeeded_at = $8,
              ended_at = $9, version = version + 1
        where book = $1 and id = $2 and version = $3"""
)
UPDATE_ATTEMPT = Statement(
    """update attempt
          set state = $4, code = $5, channel_ref = $6, payer = $7, code_url = $8, paid_at = $9
        where book = $1 and id = $2 and state = $3"""
)
COUNT_QUERY = Statement("update attempt set queries = queries + 1 where book = $1 and id = $2")
REQUEST_CLOSE = Statement(
    """update payment set close_requested_at = $3
        where book = $1 and id = $2 and close_requested_at is null
          and state in ('created', 'pending', 'unknown')"""
)
# Running totals on the row itself: nobody can raise them past what came in, or on an older sight.
ADD_REFUNDED = Statement(
    """update payment
          set refunded = refunded + $3, fee_returned = fee_returned + $4, version = version + 1
        where book = $1 and id = $2
          and refunded + $3 between 0 and captured and fee_returned + $4 between 0 and fee
          and ($5::bigint is null or (refunded = $5 and fee_returned = $6))"""
)
CLOSE_CASE = Query(
    PaymentCase,
    f"""update payment_case set closed_at = $2, resolution = $3
         where id = $1 and closed_at is null
        returning {_CASE}""",
)

GET_PAYMENT = Query(Payment, f"select {_PAYMENT} from payment where book = $1 and id = $2")
FIND_PAYMENT = Query(
    Payment, f"select {_PAYMENT} from payment where id = $1 and merchant_id = $2 and mode = $3"
)
FIND_PAYMENT_BY_ORDER = Query(
    Payment,
    f"""select {_PAYMENT} from payment
         where book = $1 and merchant_id = $2 and mode = $3 and merchant_order_no = $4""",
)
FIND_PAYMENT_ANYWHERE = Query(Payment, f"select {_PAYMENT} from payment where id = $1")
GET_ATTEMPT = Query(Attempt, f"select {_ATTEMPT} from attempt where book = $1 and id = $2")
FIND_ATTEMPT = Query(Attempt, f"select {_ATTEMPT} from attempt where id = $1")
ATTEMPTS_OF_PAYMENT = Query(
    Attempt, f"select {_ATTEMPT} from attempt where book = $1 and payment_id = $2 order by id"
)
ATTEMPTS_OF = Query(
    Attempt, f"select {_ATTEMPT} from attempt where payment_id = any($1::uuid[]) order by id"
)
PAID_BY_TRADE = Query(
    UUID,
    """select id from attempt
        where book = $1 and account_id = $2 and channel_ref = $3 and channel <> 'wallet'""",
)
ATTEMPTS_WITH_IDS = Query(Attempt, f"select {_ATTEMPT} from attempt where id = any($1::uuid[])")
PAID_BETWEEN = Query(
    PaidAttempt,
    """select book, id, payment_id, amount, currency, paid_at from attempt
         where account_id = $1 and paid_at >= $2 and paid_at < $3 and paid_at is not null
           and channel <> 'wallet'""",
)
OVERDUE_ATTEMPTS = Query(
    OverdueAttempt,
    """select a.book, a.id, a.created_at, p.expires_at
          from attempt a
          join payment p on p.book = a.book and p.id = a.payment_id
         where a.account_id = $1 and a.state in ('created', 'pending', 'unknown')
           and p.expires_at < $2
         order by a.id""",
)
CHANGES_OF_PAYMENT = Query(
    StateChange,
    f"""select {_CHANGE} from payment_state_change
         where book = $1 and payment_id = $2 order by version""",
)
EXCHANGES_OF_PAYMENT = Query(
    ExchangeRow,
    f"select {_EXCHANGE} from exchange where book = $1 and payment_id = $2 order by id",
)
CASES_OF_PAYMENT = Query(
    PaymentCase,
    f"select {_CASE} from payment_case where book = $1 and payment_id = $2 order by id",
)
FIND_CASE = Query(PaymentCase, f"select {_CASE} from payment_case where id = $1")
OPEN_CASES = Query(
    PaymentCase,
    f"""select {_CASE} from payment_case where closed_at is null
         order by opened_at desc, id desc limit $1""",
)
CLOSED_CASES = Query(
    PaymentCase,
    f"""select {_CASE} from payment_case
         where closed_at is not null
           and ($1::timestamptz is null or (opened_at, id) < ($1, $2::uuid))
         order by opened_at desc, id desc limit $3""",
)
COUNT_OPEN_CASES = Query(int, "select count(*) as cases from payment_case where closed_at is null")

# What the channel calls a trade is unique at its account only, so there may be a few.
PAYMENTS_BY_CHANNEL_REF = Query(
    UUID,
    """select distinct payment_id from attempt
        where channel_ref = $1 and channel <> 'wallet' limit 10""",
)
TALLY = Query(
    Tally,
    """select mode, state, currency, count(*) as payments, sum(amount)::bigint as amount,
              min(created_at) as oldest_at
         from payment
        where created_at >= $1 and created_at < $2
          and ($3::uuid is null or merchant_id = $3) and ($4::text is null or mode = $4)
        group by mode, state, currency
        order by mode, state, currency""",
)
TALLY_UNKNOWN = Query(
    Tally,
    """select mode, state, currency, count(*) as payments, sum(amount)::bigint as amount,
              min(created_at) as oldest_at
         from payment
        where state = 'unknown'
          and ($1::uuid is null or merchant_id = $1) and ($2::text is null or mode = $2)
        group by mode, state, currency
        order by mode, currency""",
)

# One list for the API (its merchant and mode) and the console (both null: everyone's).
LIST_PAYMENTS = Query(
    Payment,
    f"""select {_PAYMENT} from payment
         where ($1::uuid is null or merchant_id = $1) and ($2::text is null or mode = $2)
           and ($3::text is null or state = $3) and ($4::text is null or channel = $4)
           and ($5::text is null or merchant_order_no = $5)
           and ($6::timestamptz is null or created_at >= $6)
           and ($7::timestamptz is null or created_at < $7)
           and ($8::uuid is null or id < $8)
           and ($10::jsonb is null or metadata @> $10)
         order by id desc limit $9""",
)

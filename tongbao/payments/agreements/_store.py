"""The SQL of agreements and their uses; nothing outside this package reads these tables."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from tongbao.controls.retention.erasing import erasing
from tongbao.infra.db import Query, Statement
from tongbao.payments.agreements.model import Agreement
from tongbao.payments.agreements.records import AgreementExchange, AgreementUse

_AGREEMENT: Final = """book, id, merchant_id, mode, merchant_agreement_no, request_hash, channel,
    account_id, plan, display_name, payer_id, return_url, currency, limit_each, period,
    limit_per_period, period_begins, used, state, agreement_ref, payer, action, code, created_at,
    expires_at, signed_at, ends_at, ended_at, queries, version,
    limit_total, payments_max, used_total, payments_used, signs_in"""

INSERT_AGREEMENT = Statement(
    f"""insert into agreement ({_AGREEMENT})
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18,
                $19, $20, $21, $22, $23, $24, $25, $26, $27, $28, $29, $30, $31, $32, $33,
                $34, $35)
        on conflict (merchant_agreement_no, merchant_id, mode, book) do nothing"""
)
# Compare and set: whoever decided on an older version touches no row and decides again.
UPDATE_AGREEMENT = Statement(
    """update agreement
          set state = $4, agreement_ref = $5, payer = $6, action = $7::text::jsonb, code = $8,
              signed_at = $9, ends_at = $10, ended_at = $11, version = version + 1
        where book = $1 and id = $2 and version = $3"""
)
COUNT_QUERY = Statement("update agreement set queries = queries + 1 where book = $1 and id = $2")
# Decided on the row as it is when its lock is had, whatever was seen of it before. What comes late
# from the period before counts in the one that has begun: it must not set the row's period back.
USE_AGREEMENT = Statement(
    """update agreement
          set used = $3 + case when period_begins >= $5 then used else 0 end,
              period_begins = greatest(period_begins, $5),
              used_total = used_total + $3, payments_used = payments_used + 1
        where book = $1 and id = $2 and state = 'active' and currency = $4
          and (ends_at is null or ends_at > $6) and (limit_each is null or $3 <= limit_each)
          and (limit_per_period is null
               or $3 + case when period_begins >= $5 then used else 0 end <= limit_per_period)
          and (limit_total is null or used_total + $3 <= limit_total)
          and (payments_max is null or payments_used < payments_max)"""
)
INSERT_USE = Statement(
    """insert into agreement_use
           (book, payment_id, agreement_id, amount, period_begins, at, released_at)
       select $1, $2, $3, $4, greatest($5, a.period_begins), $6, null
         from agreement a where a.book = $1 and a.id = $3"""
)
# What was taken in a period that is over counts no more there, and cannot come back.
RETURN_USED = Statement(
    """update agreement a
          set used = a.used - case when a.period_begins = u.period_begins then u.amount else 0 end,
              used_total = greatest(a.used_total - u.amount, 0),
              payments_used = greatest(a.payments_used - 1, 0)
         from agreement_use u
        where u.book = $1 and u.payment_id = $2 and u.released_at is null
          and a.book = $1 and a.id = u.agreement_id"""
)
RELEASE_USE = Statement(
    """update agreement_use set released_at = $3
        where book = $1 and payment_id = $2 and released_at is null"""
)
INSERT_EXCHANGE = Statement(
    """insert into agreement_exchange
           (book, id, agreement_id, purpose, method, url, request, status, reply, duration_ms,
            outcome, at)
       values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)"""
)

GET_AGREEMENT = Query(Agreement, f"select {_AGREEMENT} from agreement where book = $1 and id = $2")
FIND_AGREEMENT = Query(
    Agreement,
    f"select {_AGREEMENT} from agreement where id = $1 and merchant_id = $2 and mode = $3",
)
FIND_AGREEMENT_ANYWHERE = Query(Agreement, f"select {_AGREEMENT} from agreement where id = $1")
AGREEMENTS_BY_PAYERS = Query(
    Agreement,
    f"""select {_AGREEMENT} from agreement
         where channel = 'cards' and payer = any($1::text[])
         order by (state in ('active', 'ending')) desc, id desc limit $2""",
)
SIGNED_BY = Query(
    Agreement,
    f"""select {_AGREEMENT} from agreement
         where channel = 'cards' and payer = $1 and state in ('active', 'ending')
         order by book, id""",
)
LOCK_AGREEMENT = Query(
    Agreement,
    f"select {_AGREEMENT} from agreement where book = $1 and id = $2 for no key update",
)
FIND_AGREEMENT_BY_NUMBER = Query(
    Agreement,
    f"""select {_AGREEMENT} from agreement
         where book = $1 and merchant_id = $2 and mode = $3 and merchant_agreement_no = $4""",
)
LIST_AGREEMENTS = Query(
    Agreement,
    f"""select {_AGREEMENT} from agreement
         where ($1::uuid is null or merchant_id = $1) and ($2::text is null or mode = $2)
           and ($3::text is null or state = $3) and ($4::text is null or channel = $4)
           and ($5::text is null or merchant_agreement_no = $5)
           and ($6::timestamptz is null or created_at >= $6)
           and ($7::timestamptz is null or created_at < $7)
           and ($8::uuid is null or id < $8)
         order by id desc limit $9""",
)
LIST_USES = Query(
    AgreementUse,
    """select book, payment_id, agreement_id, amount, period_begins, at, released_at
         from agreement_use
        where book = $1 and agreement_id = $2 and ($3::uuid is null or payment_id < $3)
        order by payment_id desc limit $4""",
)
EXCHANGES_OF_AGREEMENT = Query(
    AgreementExchange,
    """select book, id, agreement_id, purpose, method, url, request, status, reply, duration_ms,
              outcome, at
         from agreement_exchange
        where book = $1 and agreement_id = $2 order by id desc limit $3""",
)
ERASE_EXCHANGES: Final = Query(UUID, erasing("agreement_exchange"))
OUTCOME_OF_EXCHANGE = Query(
    str, "select outcome from agreement_exchange where book = $1 and id = $2"
)

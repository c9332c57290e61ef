"""The SQL of combined payments; nothing outside this package reads their tables."""

from __future__ import annotations

from typing import Final

from tongbao.infra.db import Query, Statement
from tongbao.payments.combining.model import CombinedMember, CombinedPayment, Consent

_COMBINED: Final = """book, id, merchant_id, mode, merchant_combined_no, request_hash, channel,
    account_id, pay_mode, amount, currency, how, client_ip, state, action, code, created_at,
    expires_at, ended_at, version, chooses, tries, try_id, wish"""
_PART: Final = (
    "book, combined_id, place, merchant_id, mode, part_book, payment_id, attempt_id, try_id"
)
_CONSENT: Final = "book, merchant_id, mode, initiator_id, given_at, withdrawn_at"

INSERT_COMBINED = Statement(
    f"""insert into combined_payment ({_COMBINED})
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12::text::jsonb, $13, $14,
                $15::text::jsonb, $16, $17, $18, $19, $20, $21, $22, $23, $24)
        on conflict (merchant_combined_no, merchant_id, mode, book) do nothing"""
)
INSERT_PART = Statement(
    f"insert into combined_part ({_PART}) values ($1, $2, $3, $4, $5, $6, $7, $8, $9)"
)
UPDATE_COMBINED = Statement(
    """update combined_payment
          set state = $4, action = $5::text::jsonb, code = $6, ended_at = $7, wish = $8,
              version = version + 1
        where book = $1 and id = $2 and version = $3"""
)
BEGIN_TRY = Statement(
    """update combined_payment
          set state = 'created', action = null, code = null, channel = $4, account_id = $5,
              pay_mode = $6, how = $7::text::jsonb, try_id = $8, wish = $9, tries = tries + 1,
              version = version + 1
        where book = $1 and id = $2 and version = $3 and ended_at is null"""
)
FIX_WAY = Statement(
    """update combined_payment set chooses = false, wish = null, version = version + 1
        where book = $1 and id = $2 and chooses and ended_at is null"""
)
FIND_BY_TRY = Query(
    CombinedPayment,
    f"""select {_COMBINED} from combined_payment
         where (book, id) in (select book, combined_id from combined_part where try_id = $1)""",
)
GET_COMBINED = Query(
    CombinedPayment, f"select {_COMBINED} from combined_payment where book = $1 and id = $2"
)
FIND_COMBINED = Query(
    CombinedPayment,
    f"select {_COMBINED} from combined_payment where id = $1 and merchant_id = $2 and mode = $3",
)
FIND_COMBINED_ANYWHERE = Query(
    CombinedPayment, f"select {_COMBINED} from combined_payment where id = $1"
)
FIND_COMBINED_BY_NUMBER = Query(
    CombinedPayment,
    f"""select {_COMBINED} from combined_payment
         where book = $1 and merchant_id = $2 and mode = $3 and merchant_combined_no = $4""",
)
LIST_COMBINED = Query(
    CombinedPayment,
    f"""select {_COMBINED} from combined_payment
         where merchant_id = $1 and mode = $2 and ($3::text is null or merchant_combined_no = $3)
           and ($4::uuid is null or id < $4)
         order by id desc limit $5""",
)
LIST_SHOWN = Query(
    CombinedPayment,
    f"""select {_COMBINED} from combined_payment
         where ($1::uuid is null or merchant_id = $1) and ($2::text is null or mode = $2)
           and ($3::text is null or state = $3) and ($4::text is null or channel = $4)
           and ($5::text is null or merchant_combined_no = $5)
           and ($6::timestamptz is null or created_at >= $6)
           and ($7::timestamptz is null or created_at < $7)
           and ($8::uuid is null or id < $8)
         order by id desc limit $9""",
)
PARTS = Query(
    CombinedMember,
    f"select {_PART} from combined_part where book = $1 and combined_id = $2"
    " and try_id is not distinct from $3 order by place",
)

GIVE_CONSENT = Statement(
    f"""insert into combining_consent ({_CONSENT}) values ($1, $2, $3, $4, $5, null)
        on conflict (book, merchant_id, mode, initiator_id)
        do update set given_at = excluded.given_at, withdrawn_at = null
         where combining_consent.withdrawn_at is not null"""
)
WITHDRAW_CONSENT = Statement(
    """update combining_consent set withdrawn_at = $5
        where book = $1 and merchant_id = $2 and mode = $3 and initiator_id = $4
          and withdrawn_at is null"""
)
CONSENTS = Query(
    Consent,
    f"""select {_CONSENT} from combining_consent
         where book = $1 and merchant_id = $2 and mode = $3 and withdrawn_at is null
         order by given_at, initiator_id limit $4""",
)
CONSENTED = Query(
    Consent,
    f"""select {_CONSENT} from combining_consent
         where merchant_id = $1 and mode = $2 and initiator_id = $3 and withdrawn_at is null""",
)

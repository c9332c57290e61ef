"""The SQL of payments, attempts and their evidence; nothing outside this package reads them."""

from __future__ import annotations

from struct import Struct
from typing import Final
from uuid import UUID

import msgspec

from tongbao.infra.copy_rows import Append, days, json, moment, sized, text
from tongbao.infra.db import Query, Statement
from tongbao.payments.collecting.model import (
    Attempt,
    ExchangeRow,
    OpenUnknown,
    OverdueAttempt,
    PaidAttempt,
    PaidBy,
    Payment,
    PaymentCase,
    StateChange,
    Tally,
)

_PAYMENT: Final = """book, id, merchant_id, mode, merchant_order_no, request_hash, amount, currency,
    subject, channel, pay_mode, state, captured, refunded, fee, fee_returned,
    refund_returns_fee, late_success, failure_code, close_reason, close_requested_at, metadata,
    created_at, expires_at, succeeded_at, ended_at, version, capture_within_s, authorised,
    capturing, authorised_at, authorised_until, price_version, price_day, price_volume,
    card_kind, shared, shares_ended, disputed"""
_ATTEMPT: Final = """book, id, payment_id, merchant_id, mode, channel, account_id, pay_mode, amount,
    currency, state, code, channel_ref, payer, action, how, client_ip, created_at, paid_at,
    queries, authorised_at, authorisation_ref, authorisation_code, capture_id, capture_amount"""
_EXCHANGE: Final = """book, id, payment_id, refund_id, purpose, method, url, request, status, reply,
    duration_ms, outcome, at"""
_CASE: Final = """book, id, payment_id, merchant_id, mode, kind, detail, opened_at, closed_at,
    resolution"""
_ASKED: Final = """(book, id) in (
    select asked.book, asked.id from unnest($1::int[], $2::uuid[]) as asked (book, id))"""
_CHANGE: Final = "book, payment_id, version, from_state, to_state, why, at"

# Each of these has a form for many rows: what comes at one moment shares a commit. Its JSON
# is given as text, because a set of texts is an array that the driver knows.
INSERT_PAYMENT = Statement(
    f"""insert into payment ({_PAYMENT})
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18,
                $19, $20, $21, $22::text::jsonb, $23, $24, $25, $26, $27, $28, $29, $30, $31, $32,
                $33, $34, $35, $36, $37, $38, $39)
        on conflict (merchant_order_no, merchant_id, mode, book) do nothing""",
    many=f"""insert into payment ({_PAYMENT})
        select * from unnest(
            $1::int[], $2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::bytea[], $7::bigint[],
            $8::text[], $9::text[], $10::text[], $11::text[], $12::text[], $13::bigint[],
            $14::bigint[], $15::bigint[], $16::bigint[], $17::bool[], $18::text[], $19::text[],
            $20::text[], $21::timestamptz[], $22::text[]::jsonb[], $23::timestamptz[],
            $24::timestamptz[], $25::timestamptz[], $26::timestamptz[], $27::int[], $28::int[],
            $29::bigint[], $30::bigint[], $31::timestamptz[], $32::timestamptz[], $33::int[],
            $34::date[], $35::bigint[], $36::text[], $37::bigint[], $38::bool[],
            $39::bigint[])
        on conflict (merchant_order_no, merchant_id, mode, book) do nothing""",
)
INSERT_ATTEMPT = Statement(
    f"""insert into attempt ({_ATTEMPT})
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15::text::jsonb,
                $16::text::jsonb, $17, $18, $19, $20, $21, $22, $23, $24, $25)""",
    many=f"""insert into attempt ({_ATTEMPT})
        select * from unnest(
            $1::int[], $2::uuid[], $3::uuid[], $4::uuid[], $5::text[], $6::text[], $7::uuid[],
            $8::text[], $9::bigint[], $10::text[], $11::text[], $12::text[], $13::text[],
            $14::text[], $15::text[]::jsonb[], $16::text[]::jsonb[], $17::text[],
            $18::timestamptz[], $19::timestamptz[], $20::int[], $21::timestamptz[], $22::text[],
            $23::text[], $24::uuid[], $25::bigint[])""",
)
INSERT_CHANGE = Statement(
    f"insert into payment_state_change ({_CHANGE}) values ($1, $2, $3, $4, $5, $6, $7)",
    many=f"""insert into payment_state_change ({_CHANGE})
        select * from unnest($1::int[], $2::uuid[], $3::int[], $4::text[], $5::text[], $6::text[],
                             $7::timestamptz[])""",
)


def payment_row(payment: Payment) -> tuple[object, ...]:
    """Return the arguments of `INSERT_PAYMENT`."""
    row = list(msgspec.structs.astuple(payment))
    row[_METADATA_AT] = msgspec.json.encode(payment.metadata).decode()
    return tuple(row)


def attempt_row(attempt: Attempt) -> tuple[object, ...]:
    """Return the arguments of `INSERT_ATTEMPT`."""
    row = list(msgspec.structs.astuple(attempt))
    for at in _ACTION_AT, _HOW_AT:
        row[at] = None if row[at] is None else msgspec.json.encode(row[at]).decode()
    return tuple(row)


_METADATA_AT: Final = Payment.__struct_fields__.index("metadata")
_ACTION_AT: Final = Attempt.__struct_fields__.index("action")
_HOW_AT: Final = Attempt.__struct_fields__.index("how")

# A payment from the own wallet is at its end the moment it begins, so its rows are only appended.
APPEND_PAYMENT = Append(
    "payment",
    (
        "book", "id", "merchant_id", "amount", "captured", "fee", "refund_returns_fee",
        "created_at", "expires_at", "succeeded_at", "ended_at", "version", "price_version",
        "price_day", "mode", "merchant_order_no", "request_hash", "currency", "subject", "channel",
        "pay_mode", "state", "late_success", "metadata",
    ),
)  # fmt: skip
APPEND_ATTEMPT = Append(
    "attempt",
    (
        "book", "id", "payment_id", "merchant_id", "account_id", "amount", "created_at", "paid_at",
        "mode", "channel", "pay_mode", "currency", "state", "channel_ref", "payer", "client_ip",
    ),
)  # fmt: skip
APPEND_CHANGE = Append(
    "payment_state_change",
    ("book", "payment_id", "version", "at", "from_state", "to_state", "why"),
)
_PAYMENT_FIXED: Final = Struct("!hiii16si16siqiqiqi?iqiqiqiqiiiiii")
_ATTEMPT_FIXED: Final = Struct("!hiii16si16si16si16siqiqiq")
_CHANGE_FIXED: Final = Struct("!hiii16siiiq")
_HOW: Final = text("wallet") + text("payment_code")
_STATES: Final = text("new") + text("succeeded") + text("own wallet")
_PAID: Final = text("succeeded")


def paid_payment_row(payment: Payment) -> bytes:
    """Return the row of `APPEND_PAYMENT`, of a payment that the own wallet has made."""
    at = moment(payment.created_at)
    fixed = _PAYMENT_FIXED.pack(
        24,
        4, payment.book, 16, payment.id.bytes, 16, payment.merchant_id.bytes, 8, payment.amount,
        8, payment.captured, 8, payment.fee, 1, payment.refund_returns_fee, 8, at,
        8, moment(payment.expires_at), 8, at, 8, at, 4, payment.version,
        4, payment.price_version, 4, days(payment.price_day),
    )  # fmt: skip
    metadata = msgspec.json.encode(payment.metadata).decode() if payment.metadata else "{}"
    return b"".join(
        [
            fixed,
            text(payment.mode),
            text(payment.merchant_order_no),
            sized(payment.request_hash),
            text(payment.currency),
            text(payment.subject),
            _HOW,
            _PAID,
            text(payment.late_success),
            json(metadata),
        ]
    )


def paid_attempt_row(attempt: Attempt) -> bytes:
    """Return the row of `APPEND_ATTEMPT`, of the try that made it."""
    at = moment(attempt.created_at)
    fixed = _ATTEMPT_FIXED.pack(
        16,
        4, attempt.book, 16, attempt.id.bytes, 16, attempt.payment_id.bytes,
        16, attempt.merchant_id.bytes, 16, attempt.account_id.bytes, 8, attempt.amount,
        8, at, 8, at,
    )  # fmt: skip
    return b"".join(
        [
            fixed,
            text(attempt.mode),
            _HOW,
            text(attempt.currency),
            _PAID,
            text(attempt.channel_ref or ""),
            text(attempt.payer or ""),
            text(attempt.client_ip),
        ]
    )


def paid_change_row(payment: Payment) -> bytes:
    """Return the row of `APPEND_CHANGE`, of its only change of state."""
    at = moment(payment.created_at)
    fixed = _CHANGE_FIXED.pack(7, 4, payment.book, 16, payment.id.bytes, 4, payment.version, 8, at)
    return fixed + _STATES


INSERT_EXCHANGE = Statement(
    f"""insert into exchange ({_EXCHANGE})
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)""",
    many=f"""insert into exchange ({_EXCHANGE})
        select * from unnest($1::int[], $2::uuid[], $3::uuid[], $4::uuid[], $5::text[], $6::text[],
                             $7::text[], $8::text[], $9::int[], $10::text[], $11::int[],
                             $12::text[], $13::timestamptz[])""",
)
INSERT_CASE = Statement(f"""
    insert into payment_case ({_CASE}) values ($1, $2, $3, $4, $5, $6, $7, $8, null, null)
        on conflict (book, id) do nothing""")

# Compare and set: whoever decided on an older version touches no row and decides again.
UPDATE_PAYMENT = Statement(
    """update payment
          set state = $4, captured = $5, failure_code = $6, close_reason = $7, succeeded_at = $8,
              ended_at = $9, fee = $10, authorised = $11, capturing = $12, authorised_at = $13,
              authorised_until = $14, card_kind = $15, refund_returns_fee = $16,
              version = version + 1
        where book = $1 and id = $2 and version = $3""",
    many="""update payment p
          set state = n.state, captured = n.captured, failure_code = n.failure_code,
              close_reason = n.close_reason, succeeded_at = n.succeeded_at, ended_at = n.ended_at,
              fee = n.fee, authorised = n.authorised, capturing = n.capturing,
              authorised_at = n.authorised_at, authorised_until = n.authorised_until,
              card_kind = n.card_kind, refund_returns_fee = n.refund_returns_fee,
              version = p.version + 1
         from unnest($1::int[], $2::uuid[], $3::int[], $4::text[], $5::bigint[], $6::text[],
                     $7::text[], $8::timestamptz[], $9::timestamptz[], $10::bigint[],
                     $11::bigint[], $12::bigint[], $13::timestamptz[], $14::timestamptz[],
                     $15::text[], $16::bool[])
           as n (book, id, version, state, captured, failure_code, close_reason, succeeded_at,
                 ended_at, fee, authorised, capturing, authorised_at, authorised_until, card_kind,
                 refund_returns_fee)
        where p.book = n.book and p.id = n.id and p.version = n.version""",
)
# Right after the update of its state, which raised the version.
MOVE_PAYMENT = Statement("""
    update payment
       set channel = $4, fee = $5, refund_returns_fee = $6, price_version = $7, price_day = $8,
           price_volume = $9, card_kind = $10
     where book = $1 and id = $2 and version = $3""")
UPDATE_ATTEMPT = Statement(
    """update attempt
          set state = $4, code = $5, channel_ref = $6, payer = $7, action = $8::text::jsonb,
              paid_at = $9, authorised_at = $10, authorisation_ref = $11, authorisation_code = $12,
              capture_id = $13, capture_amount = $14, queries = queries + $15
        where book = $1 and id = $2 and state = $3""",
    many="""update attempt a
          set state = becomes.state, code = becomes.code, channel_ref = becomes.channel_ref,
              payer = becomes.payer, action = becomes.action::jsonb, paid_at = becomes.paid_at,
              authorised_at = becomes.authorised_at, authorisation_ref = becomes.authorisation_ref,
              authorisation_code = becomes.authorisation_code, capture_id = becomes.capture_id,
              capture_amount = becomes.capture_amount, queries = a.queries + becomes.asked
         from unnest($1::int[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[],
                     $7::text[], $8::text[], $9::timestamptz[], $10::timestamptz[], $11::text[],
                     $12::text[], $13::uuid[], $14::bigint[], $15::int[])
           as becomes (book, id, from_state, state, code, channel_ref, payer, action, paid_at,
                       authorised_at, authorisation_ref, authorisation_code, capture_id,
                       capture_amount, asked)
        where a.book = becomes.book and a.id = becomes.id and a.state = becomes.from_state""",
)
COUNT_QUERY = Statement(
    "update attempt set queries = queries + 1 where book = $1 and id = $2",
    # Two may have asked about the same attempt at one moment, and a join changes a row only once.
    many="""update attempt a set queries = a.queries + asked.times
         from (select each.book, each.id, count(*)::int as times
                 from unnest($1::int[], $2::uuid[]) as each (book, id)
                group by each.book, each.id) as asked
        where a.book = asked.book and a.id = asked.id""",
)
REQUEST_CLOSE = Statement("""
    update payment set close_requested_at = $3
     where book = $1 and id = $2 and close_requested_at is null
       and state in ('created', 'pending', 'unknown')""")
# Running totals on the row itself: nobody can raise them past what came in, or on an older sight.
ADD_REFUNDED = Statement("""
    update payment
       set refunded = refunded + $3, fee_returned = fee_returned + $4, version = version + 1
     where book = $1 and id = $2 and refunded + $3 between 0 and captured - disputed
       and fee_returned + $4 between 0 and fee
       and ($5::bigint is null or (refunded = $5 and fee_returned = $6 and shared = $7))""")
# What a dispute holds or has taken: on the same row, so that no refund gets it too.
ADD_DISPUTED = Statement("""
    update payment set disputed = disputed + $3, version = version + 1
     where book = $1 and id = $2 and disputed + $3 between 0 and captured - refunded""")
# On the row that splits, refunds and disputes all lock: $4 is the most that may be shared of it,
# and what is given back or disputed is nobody's to share.
ADD_SHARED = Statement("""
    update payment set shared = shared + $3, version = version + 1
     where book = $1 and id = $2 and state = 'succeeded' and shared + $3 between 0 and captured
       and ($3 < 0 or (not shares_ended and shared + $3 <= $4
                       and shared + $3 <= captured - refunded - disputed))""")
END_SHARES = Statement("""
    update payment set shares_ended = true, version = version + 1
     where book = $1 and id = $2 and state = 'succeeded' and not shares_ended""")
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
FIND_ATTEMPTS = Query(Attempt, f"select {_ATTEMPT} from attempt where id = any($1::uuid[])")
GET_PAYMENTS = Query(Payment, f"select {_PAYMENT} from payment where {_ASKED}")
GET_ATTEMPTS = Query(Attempt, f"select {_ATTEMPT} from attempt where {_ASKED}")
ATTEMPTS_OF_PAYMENT = Query(
    Attempt, f"select {_ATTEMPT} from attempt where book = $1 and payment_id = $2 order by id"
)
ATTEMPTS_OF = Query(
    Attempt,
    f"""select {_ATTEMPT} from attempt where book = any($1::int[]) and payment_id = any($2::uuid[])
         order by id""",
)
PAID_BY_TRADE = Query(
    UUID,
    """select id from attempt
        where book = $1 and account_id = $2 and channel_ref = $3 and channel <> 'wallet'""",
)
PAID_BY_TRADES = Query(
    PaidBy,
    """select asked.book, asked.account_id, asked.channel_ref as trade, a.id
         from unnest($1::int[], $2::uuid[], $3::text[]) as asked (book, account_id, channel_ref)
         join attempt a on a.book = asked.book and a.account_id = asked.account_id
          and a.channel_ref = asked.channel_ref and a.channel <> 'wallet'""",
)
# By what the channel knows their money by: the attempt's own id, or its capture's.
ATTEMPTS_WITH_IDS = Query(
    Attempt,
    f"""select {_ATTEMPT} from attempt
         where id = any($1::uuid[]) or capture_id = any($1::uuid[])""",
)
LIVE_BESIDE = Query(
    UUID,
    """select id from attempt where book = $1 and payment_id = $2 and id <> $3
          and state not in ('declined', 'not_sent', 'closed') limit 1""",
)
_TAKEN: Final = """account_id = $1 and paid_at >= $2 and paid_at < $3 and paid_at is not null
    and channel <> 'wallet'"""
PAID_BETWEEN = Query(
    PaidAttempt,
    f"""select book, coalesce(capture_id, id) as id, payment_id,
              coalesce(capture_amount, amount) as amount, currency, paid_at
         from attempt where {_TAKEN}""",
)
# The same rows as columns without a null: they are copied out by the million.
EXPORT_PAID: Final = f"""select coalesce(capture_id, id), payment_id, book::bigint, coalesce(
    capture_amount, amount), (currency = $4)::int::bigint, paid_at from attempt where {_TAKEN}"""
COUNT_PAID = Query(int, f"select count(*) from attempt where {_TAKEN}")
FIRST_PAID = Query(UUID, f"select payment_id from attempt where {_TAKEN} order by paid_at limit 1")
_LAST: Final = "order by paid_at desc limit 1"
LAST_PAID = Query(UUID, f"select payment_id from attempt where {_TAKEN} {_LAST}")
OVERDUE_ATTEMPTS = Query(
    OverdueAttempt,
    """select a.book, a.id, a.created_at, p.expires_at
          from attempt a
          join payment p on p.book = a.book and p.id = a.payment_id
         where a.account_id = $1 and a.state in ('created', 'pending', 'unknown')
           and p.expires_at < $2
           and p.capture_within_s is null  -- what is only set aside stands on no bill
         order by a.id""",
)
PAYMENTS_BEGUN = Query(
    Payment,
    f"""select {_PAYMENT} from payment where created_at >= $1 and created_at < $2
           and ($3::uuid is null or merchant_id = $3) and ($4::text is null or mode = $4)
         order by created_at, id""",
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
    f"""select {_CASE} from payment_case where closed_at is not null
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
              min(created_at) as oldest_at from payment
        where created_at >= $1 and created_at < $2
          and ($3::uuid is null or merchant_id = $3) and ($4::text is null or mode = $4)
        group by mode, state, currency order by mode, state, currency""",
)
TALLY_UNKNOWN = Query(
    Tally,
    """select mode, state, currency, count(*) as payments, sum(amount)::bigint as amount,
              min(created_at) as oldest_at from payment
        where state = 'unknown'
          and ($1::uuid is null or merchant_id = $1) and ($2::text is null or mode = $2)
        group by mode, state, currency
        order by mode, currency""",
)

UNKNOWN_BY_ACCOUNT = Query(
    OpenUnknown,
    """select a.account_id, count(*) as attempts, min(a.created_at) as oldest_at
         from payment p
         join attempt a on a.book = p.book and a.payment_id = p.id and a.state = 'unknown'
        where p.state = 'unknown'
        group by a.account_id""",
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

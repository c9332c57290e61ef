"""The SQL of wallets and payment codes; nothing outside this package reads these tables."""

from __future__ import annotations

from typing import Final

from tongbao.infra.db import Query, Statement
from tongbao.parties.accounts.model import PaymentCode, ScannedCode, Wallet

_WALLET: Final = (
    "book, id, merchant_id, mode, holder_masked, currency, state, daily_limit, spent_on, spent,"
    " opened_at, barred_until"
)
_CODE: Final = "book, code_hash, wallet_id, mode, created_at, expires_at, used_at, used_by"

INSERT_WALLET: Final = Query(
    Wallet,
    f"""
    insert into wallet ({_WALLET})
    values ($1, $2, $3, $4, $5, $6, 'active', $7, $8, 0, $9, null)
    returning {_WALLET}""",
)
GET_WALLET: Final = Query(Wallet, f"select {_WALLET} from wallet where book = $1 and id = $2")
LOCK_WALLET: Final = Query(
    Wallet, f"select {_WALLET} from wallet where book = $1 and id = $2 for no key update"
)
LIST_WALLETS: Final = Query(
    Wallet,
    f"""
    select {_WALLET} from wallet
     where merchant_id = $1 and mode = $2 and ($3::uuid is null or id < $3)
     order by id desc
     limit $4""",
)
SET_STATE: Final = Query(
    Wallet,
    f"update wallet set state = $3 where book = $1 and id = $2 returning {_WALLET}",
)
BAR: Final = Statement("update wallet set barred_until = $3 where book = $1 and id = $2")
# Of a set, what one wallet spends is added up first, for a statement changes a row once only; the
# answer has a row for every spending that was counted.
SPEND: Final = Statement(
    """
    update wallet
       set spent = case when spent_on >= $3 then spent else 0 end + $4,
           spent_on = greatest(spent_on, $3)
     where book = $1 and id = $2 and state = 'active'
       and (barred_until is null or barred_until <= $5)
       and case when spent_on >= $3 then spent else 0 end + $4 <= daily_limit""",
    many="""
    with asked as materialized (
        select each.book, each.id, each.day, each.amount, each.at
          from unnest($1::int[], $2::uuid[], $3::date[], $4::bigint[], $5::timestamptz[])
            as each (book, id, day, amount, at)
    ), summed as materialized (
        select asked.book, asked.id, asked.day, sum(asked.amount)::bigint as amount,
               count(*) as times, min(asked.at) as at
          from asked
         group by asked.book, asked.id, asked.day
    ), spent as (
        update wallet
           set spent = case when wallet.spent_on >= summed.day then wallet.spent else 0 end
                       + summed.amount,
               spent_on = greatest(wallet.spent_on, summed.day)
          from summed
         where wallet.book = summed.book and wallet.id = summed.id and wallet.state = 'active'
           and (wallet.barred_until is null or wallet.barred_until <= summed.at)
           and case when wallet.spent_on >= summed.day then wallet.spent else 0 end
               + summed.amount <= wallet.daily_limit
        returning summed.times
    )
    select each.number from spent, generate_series(1, spent.times) as each (number)""",
)

INSERT_CODE: Final = Statement("""
    insert into payment_code (book, code_hash, wallet_id, mode, created_at, expires_at)
    values ($1, $2, $3, $4, $5, $6)""")
FIND_CODE: Final = Query(
    PaymentCode,
    f"select {_CODE} from payment_code where book = $1 and code_hash = $2 and mode = $3",
)
# Those of these codes that pay at this moment, with what a payment needs of their wallets. One look
# at the key for each, whatever the planner believes of the tables' size.
SCANNED: Final = Query(
    ScannedCode,
    """
    select asked.book, asked.code_hash, asked.mode, code.wallet_id, payer.currency
      from unnest($1::int[], $2::bytea[], $3::text[]) as asked (book, code_hash, mode)
     cross join lateral (
           select shown.wallet_id from payment_code shown
            where shown.book = asked.book and shown.code_hash = asked.code_hash
              and shown.mode = asked.mode and shown.used_at is null and shown.expires_at > $4
            limit 1) code
     cross join lateral (
           select wallet.currency from wallet
            where wallet.book = asked.book and wallet.id = code.wallet_id
            limit 1) payer""",
)
USE_CODE: Final = Statement(
    """
    update payment_code set used_at = $3, used_by = $4
     where book = $1 and code_hash = $2 and used_at is null and expires_at > $3""",
    many="""
    update payment_code set used_at = asked.at, used_by = asked.payment_id
      from unnest($1::int[], $2::bytea[], $3::timestamptz[], $4::uuid[])
        as asked (book, code_hash, at, payment_id)
     where payment_code.book = asked.book and payment_code.code_hash = asked.code_hash
       and payment_code.used_at is null and payment_code.expires_at > asked.at""",
)
PRUNE_CODES: Final = Statement("delete from payment_code where expires_at < $1 and used_at is null")

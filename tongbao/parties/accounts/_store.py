"""The SQL of wallets and payment codes; nothing outside this package reads these tables."""

from __future__ import annotations

from typing import Final

from tongbao.infra.db import Query, Statement
from tongbao.parties.accounts.model import PaymentCode, Wallet

_WALLET: Final = (
    "book, id, merchant_id, mode, holder_masked, currency, state, daily_limit, spent_on, spent,"
    " opened_at"
)
_CODE: Final = "book, code_hash, wallet_id, mode, created_at, expires_at, used_at, used_by"

INSERT_WALLET: Final = Query(
    Wallet,
    f"""
    insert into wallet ({_WALLET})
    values ($1, $2, $3, $4, $5, $6, 'active', $7, $8, 0, $9)
    returning {_WALLET}""",
)
GET_WALLET: Final = Query(Wallet, f"select {_WALLET} from wallet where book = $1 and id = $2")
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
SPEND: Final = Statement("""
    update wallet
       set spent = case when spent_on = $3 then spent else 0 end + $4, spent_on = $3
     where book = $1 and id = $2 and state = 'active'
       and case when spent_on = $3 then spent else 0 end + $4 <= daily_limit""")

INSERT_CODE: Final = Statement("""
    insert into payment_code (book, code_hash, wallet_id, mode, created_at, expires_at)
    values ($1, $2, $3, $4, $5, $6)""")
FIND_CODE: Final = Query(
    PaymentCode,
    f"select {_CODE} from payment_code where book = $1 and code_hash = $2 and mode = $3",
)
USE_CODE: Final = Statement("""
    update payment_code set used_at = $3, used_by = $4
     where book = $1 and code_hash = $2 and used_at is null and expires_at > $3""")
PRUNE_CODES: Final = Statement("delete from payment_code where expires_at < $1 and used_at is null")

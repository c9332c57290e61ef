"""The SQL of the reserve; nothing outside this package reads the tables."""

from __future__ import annotations

from typing import Final

from tongbao.clearing.reserve.model import (
    CustodyAccount,
    CustodyBalance,
    ReserveGap,
    ReserveProof,
    ReserveRule,
)
from tongbao.infra.db import Query, Statement

_ACCOUNT: Final = (
    "id, mode, currency, purpose, bank, account_masked, account_mac, opened_on, closed_on,"
    " approved_as"
)
_BALANCE: Final = (
    "account_id, day, version, amount, source, reference, digest, recorded_at, recorded_by"
)
_PROOF: Final = """id, mode, currency, day, version, state, owed, required, custody, own_at_bank,
    bank_in_books, shortfall, difference, inputs, digest, made_at, made_by"""
_GAP: Final = """id, mode, currency, day, kind, amount, proof_id, opened_at, explained_at,
    explanation, explained_as"""

INSERT_ACCOUNT: Final = Query(
    CustodyAccount,
    f"""
    insert into custody_account ({_ACCOUNT}) values ($1, $2, $3, $4, $5, $6, $7, $8, null, $9)
    on conflict (mode, currency, account_mac) do nothing
    returning {_ACCOUNT}""",
)
CLOSE_ACCOUNT: Final = Query(
    CustodyAccount,
    f"""
    update custody_account set closed_on = greatest(opened_on, $2::date)
     where id = $1 and closed_on is null
    returning {_ACCOUNT}""",
)
GET_ACCOUNT: Final = Query(CustodyAccount, f"select {_ACCOUNT} from custody_account where id = $1")
LOCK_ACCOUNT: Final = Query(
    CustodyAccount, f"select {_ACCOUNT} from custody_account where id = $1 for update"
)
ACCOUNTS: Final = Query(
    CustodyAccount,
    f"""
    select {_ACCOUNT} from custody_account
     where $1::text is null or mode = $1 order by mode, currency, id""",
)
# The account's row is locked, so the versions of a day are counted without a gap.
ADD_BALANCE: Final = Query(
    CustodyBalance,
    f"""
    insert into custody_balance ({_BALANCE})
    select $1, $2, coalesce(max(version), 0) + 1, $3, $4, $5, $6, $7, $8
      from custody_balance where account_id = $1 and day = $2
    on conflict (account_id, day, digest) do nothing
    returning {_BALANCE}""",
)
LAST_BALANCE: Final = Query(
    CustodyBalance,
    f"""
    select {_BALANCE} from custody_balance
     where account_id = $1 and day <= $2 order by day desc, version desc limit 1""",
)
BALANCE: Final = Query(
    CustodyBalance,
    f"""
    select {_BALANCE} from custody_balance
     where account_id = $1 and day = $2 and version = $3""",
)
BALANCES: Final = Query(
    CustodyBalance,
    f"""
    select {_BALANCE} from custody_balance
     where account_id = $1 order by day desc, version desc limit $2""",
)
RULE_ON: Final = Query(
    ReserveRule,
    """
    select valid_from, ratio_bp, instrument, article from reserve_rule
     where valid_from <= $1 order by valid_from desc limit 1""",
)

INSERT_PROOF: Final = Query(
    ReserveProof,
    f"""
    insert into reserve_proof ({_PROOF})
    values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)
    on conflict (mode, currency, day, version) do nothing
    returning {_PROOF}""",
)
GET_PROOF: Final = Query(ReserveProof, f"select {_PROOF} from reserve_proof where id = $1")
LAST_PROOF: Final = Query(
    ReserveProof,
    f"""
    select {_PROOF} from reserve_proof
     where mode = $1 and currency = $2 and day = $3 order by version desc limit 1""",
)
LATEST_PROOFS: Final = Query(
    ReserveProof,
    f"""
    select distinct on (day, currency) {_PROOF} from reserve_proof
     where mode = $1 and day >= $2 and day <= $3
     order by day, currency, version desc""",
)
LAST_DAY: Final = Query(
    ReserveProof,
    f"select {_PROOF} from reserve_proof where mode = $1 order by day desc, version desc limit 1",
)
OPEN_GAP: Final = Statement("""
    insert into reserve_gap (id, mode, currency, day, kind, amount, proof_id, opened_at)
    values ($1, $2, $3, $4, $5, $6, $7, $8)
    on conflict (mode, currency, day, kind) do nothing""")
GET_GAP: Final = Query(ReserveGap, f"select {_GAP} from reserve_gap where id = $1")
EXPLAIN_GAP: Final = Query(
    ReserveGap,
    f"""
    update reserve_gap set explained_at = $2, explanation = $3, explained_as = $4
     where id = $1 and explained_at is null
    returning {_GAP}""",
)
OPEN_GAPS: Final = Query(
    ReserveGap,
    f"""
    select {_GAP} from reserve_gap
     where explained_at is null and ($1::text is null or mode = $1)
     order by day desc, currency, kind limit 200""",
)
GAPS_OF_DAY: Final = Query(
    ReserveGap,
    f"""
    select {_GAP} from reserve_gap
     where mode = $1 and day = $2 order by currency, kind""",
)

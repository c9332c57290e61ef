"""The SQL of payouts; nothing outside this package reads or writes their tables."""

from __future__ import annotations

from struct import Struct
from typing import Final
from uuid import UUID

from tongbao.clearing.payouts.model import Payout, PayoutExchange, PayoutFile
from tongbao.controls.retention.erasing import erasing
from tongbao.infra.copy_rows import Append, moment, text
from tongbao.infra.db import Query, Statement

_PAYOUT: Final = """book, id, settlement_id, merchant_id, mode, amount, currency, state, pays_by,
    file_id, account_id, bank_holder, bank_account_masked, bank_account_sealed, code, bank_ref,
    return_ref, contradiction, sends, queries, version, created_at, ended_at, returned_at"""
_FILE: Final = """id, mode, account_id, layout, currency, count, amount, digest, state, made_by,
    made_at, sent_by, sent_at"""
_EXCHANGE: Final = """book, id, payout_id, purpose, method, url, request, status, reply,
    duration_ms, outcome, at"""

# As a payout begins: nothing is known of it but what is to be paid, and to whom.
APPEND_PAYOUT = Append(
    "payout",
    (
        "book", "id", "settlement_id", "merchant_id", "amount", "created_at", "sends", "queries",
        "version", "mode", "currency", "state", "pays_by",
    ),
)  # fmt: skip
_FIXED: Final = Struct("!hiii16si16si16siqiqiiiiii")


def new_payout_row(payout: Payout) -> bytes:
    """Return the row of `APPEND_PAYOUT`."""
    fixed = _FIXED.pack(
        13,
        4, payout.book, 16, payout.id.bytes, 16, payout.settlement_id.bytes,
        16, payout.merchant_id.bytes, 8, payout.amount, 8, moment(payout.created_at),
        4, payout.sends, 4, payout.queries, 4, payout.version,
    )  # fmt: skip
    words = (payout.mode, payout.currency, payout.state, payout.pays_by)
    return b"".join([fixed, *map(text, words)])


# The creditor is fixed once, and every instruction is counted before it leaves.
FIX_CREDITOR = Statement(
    """update payout
          set account_id = $4, bank_holder = $5, bank_account_masked = $6,
              bank_account_sealed = $7, version = version + 1
        where book = $1 and id = $2 and version = $3 and account_id is null"""
)
COUNT_SEND = Statement(
    """update payout set sends = sends + 1, version = version + 1
        where book = $1 and id = $2 and version = $3
          and state in ('requested', 'pending', 'unknown')"""
)
COUNT_QUERY = Statement("update payout set queries = queries + 1 where book = $1 and id = $2")
UPDATE_PAYOUT = Statement(
    """update payout
          set state = $4, code = $5, bank_ref = $6, return_ref = $7, contradiction = $8,
              ended_at = $9, returned_at = $10, version = version + 1
        where book = $1 and id = $2 and version = $3"""
)
INSERT_EXCHANGE = Statement(
    f"""insert into payout_exchange ({_EXCHANGE})
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)"""
)

GET_PAYOUT = Query(Payout, f"select {_PAYOUT} from payout where book = $1 and id = $2")
FIND_PAYOUT = Query(
    Payout, f"select {_PAYOUT} from payout where id = $1 and merchant_id = $2 and mode = $3"
)
FIND_PAYOUT_ANYWHERE = Query(Payout, f"select {_PAYOUT} from payout where id = $1")
OPEN_PAYOUTS = Query(
    Payout,
    f"""select {_PAYOUT} from payout
         where state in ('requested', 'pending', 'unknown')
           and ($1::uuid is null or merchant_id = $1) and ($2::text is null or mode = $2)
         order by created_at, id""",
)
LIST_PAYOUTS = Query(
    Payout,
    f"""select {_PAYOUT} from payout
         where ($1::uuid is null or merchant_id = $1) and ($2::text is null or mode = $2)
           and ($3::text is null or state = $3) and ($4::uuid is null or settlement_id = $4)
           and ($5::uuid is null or id < $5)
         order by id desc limit $6""",
)
# Two ways in, an index for each; what was paid and returned on one day is one row.
PAID_OUT_BETWEEN = Query(
    Payout,
    f"""select {_PAYOUT} from payout
         where mode = $1 and currency = $2 and (
               (ended_at >= $3 and ended_at < $4 and state in ('succeeded', 'returned'))
               or (returned_at >= $3 and returned_at < $4))
         order by ended_at, id""",
)
# Those whose creditor is fixed; the oldest first, and one file's worth.
UNFILED = Query(
    Payout,
    f"""select {_PAYOUT} from payout
         where state = 'requested' and pays_by = 'bank_file' and file_id is null
           and mode = $1 and currency = $2 and merchant_id <> all($3::uuid[])
         order by created_at, id limit $4""",
)
UNFILED_MERCHANTS = Query(
    UUID,
    """select distinct merchant_id from payout
         where state = 'requested' and pays_by = 'bank_file' and file_id is null
           and mode = $1 and currency = $2""",
)
MERCHANTS_OF_FILE = Query(UUID, "select distinct merchant_id from payout where file_id = $1")
SET_FILE = Statement(
    """update payout set file_id = $3, version = version + 1
        where book = $1 and id = $2 and version = $4 and file_id is null and account_id = $5"""
)
SEND_FILED = Statement(
    """update payout set state = 'pending', sends = sends + 1, version = version + 1
        where file_id = $1 and state = 'requested'"""
)
FREE_FILED = Statement(
    """update payout set file_id = null, version = version + 1
        where file_id = $1 and state = 'requested'"""
)
PAYOUTS_OF_FILE = Query(
    Payout, f"select {_PAYOUT} from payout where file_id = $1 order by id limit $2"
)
PAYOUTS_WITH_IDS = Query(Payout, f"select {_PAYOUT} from payout where id = any($1::uuid[])")

INSERT_FILE = Statement(
    f"""insert into payout_file ({_FILE})
        values ($1, $2, $3, $4, $5, $6, $7, $8, 'made', $9, $10, null, null)"""
)
SEND_FILE = Statement(
    """update payout_file set state = 'sent', sent_by = $2, sent_at = $3
        where id = $1 and state = 'made'"""
)
ANSWER_FILE = Statement(
    """update payout_file set state = 'answered'
        where id = any($1::uuid[]) and state in ('sent', 'overdue')"""
)
MISS_FILE = Statement("update payout_file set state = 'overdue' where id = $1 and state = 'sent'")
COUNT_OVERDUE = Query(int, "select count(*)::int as n from payout_file where state = 'overdue'")
OPEN_FILES = Query(
    UUID,
    """select distinct file_id from payout
         where file_id = any($1::uuid[]) and state in ('requested', 'pending', 'unknown')""",
)
DELETE_FILE = Statement("delete from payout_file where id = $1 and state = 'made'")
GET_FILE = Query(PayoutFile, f"select {_FILE} from payout_file where id = $1")
LIST_FILES = Query(
    PayoutFile,
    f"""select {_FILE} from payout_file where $1::uuid is null or id < $1
         order by id desc limit $2""",
)
INSERT_ANSWER = Statement(
    """insert into payout_answer (digest, account_id, kind, lines, applied, brought_by, brought_at)
        values ($1, $2, $3, $4, $5, $6, $7)
        on conflict (digest) do nothing"""
)
ANSWERED = Query(int, "select applied from payout_answer where digest = $1")

CONTRADICTED = Query(
    Payout,
    f"""select {_PAYOUT} from payout where contradiction is not null
         order by id desc limit $1""",
)
EXCHANGES_OF_PAYOUT = Query(
    PayoutExchange,
    f"""select {_EXCHANGE} from payout_exchange where book = $1 and payout_id = $2 order by id""",
)
ERASE_EXCHANGES: Final = Query(UUID, erasing("payout_exchange"))

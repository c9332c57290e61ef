"""The SQL of splits; nothing outside this package reads their tables."""

from __future__ import annotations

from typing import Final

from tongbao.infra.db import Query, Statement
from tongbao.payments.splits.model import (
    ReceiverRow,
    Return,
    SharedAtChannel,
    ShareRow,
    Split,
    SplitTerms,
)

_RECEIVER: Final = """book, id, merchant_id, mode, kind, party_id, account_id, channel,
    channel_kind, account_masked, account_mac, sealed, relation, state, code, created_at, ended_at,
    version"""
_SPLIT: Final = """book, id, payment_id, merchant_id, mode, merchant_split_no, request_hash,
    currency, amount, side, kind, account_id, channel_trade, releases, release_at, state, code,
    channel_ref, created_at, ended_at, queries, version"""
_SHARE: Final = """book, id, split_id, payment_id, receiver_id, amount, state, code, channel_ref,
    returned, version"""
_RETURN: Final = """book, id, share_id, split_id, payment_id, merchant_id, mode,
    merchant_return_no, refund_id, amount, state, code, channel_ref, created_at, ended_at, queries,
    version"""

TERMS = Query(
    SplitTerms,
    "select share_max_ppm, refund_from from split_policy where merchant_id = $1 and mode = $2",
)
SET_TERMS = Statement("""
    insert into split_policy (merchant_id, mode, share_max_ppm, refund_from, set_at, set_by)
    values ($1, $2, $3, $4, $5, $6)
        on conflict (merchant_id, mode) do update
       set share_max_ppm = excluded.share_max_ppm, refund_from = excluded.refund_from,
           set_at = excluded.set_at, set_by = excluded.set_by""")

INSERT_RECEIVER = Statement(
    f"""insert into split_receiver ({_RECEIVER})
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)
        on conflict do nothing"""
)
UPDATE_RECEIVER = Statement("""
    update split_receiver set state = $4, code = $5, ended_at = $6, version = version + 1
     where book = $1 and id = $2 and version = $3""")
GET_RECEIVER = Query(
    ReceiverRow, f"select {_RECEIVER} from split_receiver where book = $1 and id = $2"
)
FIND_RECEIVER = Query(
    ReceiverRow,
    f"""select {_RECEIVER} from split_receiver
         where book = $1 and id = $2 and merchant_id = $3 and mode = $4""",
)
RECEIVER_BOUND = Query(
    ReceiverRow,
    f"""select {_RECEIVER} from split_receiver
         where book = $1 and merchant_id = $2 and mode = $3 and account_mac = $4
           and state in ('binding', 'active', 'unbinding')""",
)
LIST_RECEIVERS = Query(
    ReceiverRow,
    f"""select {_RECEIVER} from split_receiver
         where book = $1 and merchant_id = $2 and mode = $3 and ($4::uuid is null or id < $4)
         order by id desc limit $5""",
)

INSERT_SPLIT = Statement(
    f"""insert into split ({_SPLIT})
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18,
                $19, $20, $21, $22)
        on conflict (book, merchant_id, mode, merchant_split_no) do nothing"""
)
UPDATE_SPLIT = Statement("""
    update split set state = $4, code = $5, channel_ref = $6, ended_at = $7, version = version + 1
     where book = $1 and id = $2 and version = $3""")
COUNT_QUERY = Statement("update split set queries = queries + 1 where book = $1 and id = $2")
GET_SPLIT = Query(Split, f"select {_SPLIT} from split where book = $1 and id = $2")
FIND_SPLIT = Query(
    Split,
    f"""select {_SPLIT} from split
         where book = $1 and id = $2 and merchant_id = $3 and mode = $4""",
)
FIND_BY_NUMBER = Query(
    Split,
    f"""select {_SPLIT} from split
         where book = $1 and merchant_id = $2 and mode = $3 and merchant_split_no = $4""",
)
FIND_ANYWHERE = Query(Split, f"select {_SPLIT} from split where id = $1")
SPLITS_OF_PAYMENT = Query(
    Split, f"select {_SPLIT} from split where book = $1 and payment_id = $2 order by id"
)

INSERT_SHARE = Statement(
    f"""insert into split_share ({_SHARE})
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)"""
)
UPDATE_SHARE = Statement("""
    update split_share set state = $4, code = $5, channel_ref = $6, version = version + 1
     where book = $1 and id = $2 and version = $3""")
# What comes back of a share is a running total on its row: nobody can take back more than it is.
ADD_RETURNED = Statement("""
    update split_share set returned = returned + $3, version = version + 1
     where book = $1 and id = $2 and state = 'succeeded' and returned + $3 between 0 and amount""")
GET_SHARE = Query(ShareRow, f"select {_SHARE} from split_share where book = $1 and id = $2")
SHARES_OF_SPLIT = Query(
    ShareRow, f"select {_SHARE} from split_share where book = $1 and split_id = $2 order by id"
)
SHARES_OF_PAYMENT = Query(
    ShareRow, f"select {_SHARE} from split_share where book = $1 and payment_id = $2 order by id"
)

INSERT_RETURN = Statement(
    f"""insert into split_return ({_RETURN})
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)
        on conflict (book, merchant_id, mode, merchant_return_no) do nothing"""
)
UPDATE_RETURN = Statement("""
    update split_return
       set state = $4, code = $5, channel_ref = $6, ended_at = $7, version = version + 1
     where book = $1 and id = $2 and version = $3""")
COUNT_RETURN_QUERY = Statement(
    "update split_return set queries = queries + 1 where book = $1 and id = $2"
)
GET_RETURN = Query(Return, f"select {_RETURN} from split_return where book = $1 and id = $2")
FIND_RETURN = Query(Return, f"select {_RETURN} from split_return where id = $1")
FIND_RETURN_BY_NUMBER = Query(
    Return,
    f"""select {_RETURN} from split_return
         where book = $1 and merchant_id = $2 and mode = $3 and merchant_return_no = $4""",
)
RETURNS_OF_PAYMENT = Query(
    Return, f"select {_RETURN} from split_return where book = $1 and payment_id = $2 order by id"
)
RETURNS_OF_REFUND = Query(
    Return, f"select {_RETURN} from split_return where book = $1 and refund_id = $2 order by id"
)
SHARED_BETWEEN = Query(
    SharedAtChannel,
    """select h.id, s.id as number_of, 'split' as kind, -h.amount as amount, s.currency,
              s.account_id, s.ended_at as at
         from split s
         join split_share h on h.book = s.book and h.split_id = s.id
        where s.mode = $1 and s.side = 'channel' and s.ended_at >= $2 and s.ended_at < $3
          and h.state = 'succeeded'
        union all
       select r.id, r.id, 'split_return', r.amount, s.currency, s.account_id, r.ended_at
         from split_return r
         join split s on s.book = r.book and s.id = r.split_id
        where r.mode = $1 and s.side = 'channel' and r.ended_at >= $2 and r.ended_at < $3
          and r.state = 'succeeded'
        order by at, id""",
)

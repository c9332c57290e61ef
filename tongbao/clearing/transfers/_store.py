"""The SQL of batch transfers; nothing outside this package reads or writes their tables."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from tongbao.clearing.transfers.model import CountOfState, TransferBatch, TransferItem
from tongbao.controls.retention.erasing import erasing
from tongbao.infra.db import Query, Statement

_BATCH: Final = """book, id, merchant_id, mode, number, digest, currency, count, amount, state,
    created_by, created_at, ended_at"""
_ITEM: Final = """book, id, batch_id, merchant_id, mode, line, number, destination, payee_masked,
    payee_sealed, amount, currency, note, state, account_id, code, channel_ref, action, sends,
    queries, version, ended_at"""

INSERT_BATCH = Statement(
    f"""insert into transfer_batch ({_BATCH})
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, 'listed', $10, $11, null)
        on conflict do nothing"""
)
INSERT_ITEMS = Statement(
    f"""insert into transfer_item ({_ITEM})
        select $1::int, i.id, $2::uuid, $3::uuid, $4::text, i.line, i.number, i.destination,
               i.payee_masked, i.payee_sealed, i.amount, $5::text, i.note, 'listed', null, null,
               null, null, 0, 0, 1, null
          from unnest($6::uuid[], $7::int[], $8::text[], $9::text[], $10::text[], $11::bytea[],
                      $12::bigint[], $13::text[])
               as i (id, line, number, destination, payee_masked, payee_sealed, amount, note)"""
)
BATCH_OF_NUMBER = Query(
    TransferBatch,
    f"""select {_BATCH} from transfer_batch
         where book = $1 and merchant_id = $2 and mode = $3 and number = $4""",
)
GET_BATCH = Query(TransferBatch, f"select {_BATCH} from transfer_batch where id = $1")
LIST_BATCHES = Query(
    TransferBatch,
    f"""select {_BATCH} from transfer_batch
         where ($1::uuid is null or merchant_id = $1) and ($2::text is null or mode = $2)
           and ($3::text is null or state = $3) and ($4::uuid is null or id < $4)
         order by id desc limit $5""",
)
MOVE_BATCH = Statement(
    """update transfer_batch set state = $4, ended_at = $5
        where book = $1 and id = $2 and state = $3"""
)
COUNTS = Query(
    CountOfState,
    """select state, count(*)::int as count, coalesce(sum(amount), 0)::bigint as amount
         from transfer_item where book = $1 and batch_id = $2 group by state order by state""",
)
GET_ITEM = Query(TransferItem, f"select {_ITEM} from transfer_item where book = $1 and id = $2")
FIND_ITEM = Query(TransferItem, f"select {_ITEM} from transfer_item where id = $1")
LISTED = Query(
    TransferItem,
    f"""select {_ITEM} from transfer_item
         where book = $1 and batch_id = $2 and state = 'listed' order by line limit $3""",
)
ITEMS = Query(
    TransferItem,
    f"""select {_ITEM} from transfer_item
         where book = $1 and batch_id = $2 and line > $3 order by line limit $4""",
)
TRANSFERRED = Query(
    TransferItem,
    f"""select {_ITEM} from transfer_item
         where account_id = $1 and state = 'succeeded' and ended_at >= $2 and ended_at < $3
         order by ended_at, id""",
)
BEGIN_ITEM = Statement(
    """update transfer_item
          set state = $4, account_id = $5, code = $6, ended_at = $7, version = version + 1
        where book = $1 and id = $2 and version = $3 and state = 'listed'""",
    many="""
    update transfer_item i
       set state = c.state, account_id = c.account_id, code = c.code, ended_at = c.ended_at,
           version = i.version + 1
      from unnest($1::int[], $2::uuid[], $3::int[], $4::text[], $5::uuid[], $6::text[],
                  $7::timestamptz[])
           as c (book, id, version, state, account_id, code, ended_at)
     where i.book = c.book and i.id = c.id and i.version = c.version and i.state = 'listed'""",
)
COUNT_SEND = Statement(
    """update transfer_item set sends = sends + 1, version = version + 1
        where book = $1 and id = $2 and version = $3 and state in ('held', 'pending', 'unknown')"""
)
COUNT_QUERY = Statement(
    "update transfer_item set queries = queries + 1 where book = $1 and id = $2"
)
UPDATE_ITEM = Statement(
    """update transfer_item
          set state = $4, code = $5, channel_ref = $6, action = $7, ended_at = $8,
              version = version + 1
        where book = $1 and id = $2 and version = $3"""
)
INSERT_EXCHANGE = Statement(
    """insert into transfer_exchange
           (book, id, item_id, purpose, method, url, request, status, reply, duration_ms, outcome,
            at)
       values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)"""
)
ERASE_EXCHANGES: Final = Query(UUID, erasing("transfer_exchange"))

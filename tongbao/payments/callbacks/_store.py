"""The SQL of inbound callbacks."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from tongbao.infra.db import Query, Statement
from tongbao.payments.callbacks.model import InboundCallback

_CALLBACK: Final = """id, account_id, channel, notification_id, headers, body, number, callback,
    state, copies, received_at, processed_at"""

# A copy of a notification that was stored before only raises its count.
KEEP_CALLBACK = Query(
    UUID,
    f"""insert into inbound_callback ({_CALLBACK})
        values ($1, $2, $3, $4, $5, $6, $7, $8, 'received', 1, $9, null)
        on conflict (account_id, notification_id) where callback is not null
        do update set copies = inbound_callback.copies + 1
        returning id""",
)
# Whoever knows the address can send what verifies as nothing, so a copy is counted and not kept,
# and an account keeps only so many a day.
KEEP_REFUSED = Statement(
    f"""insert into inbound_callback ({_CALLBACK})
        select $1::uuid, $2::uuid, $3::text, $4::text, $5::jsonb, $6::bytea, '', null, $7::text, 1,
               $8::timestamptz, $8::timestamptz
         where (select count(*) from inbound_callback
                 where account_id = $2 and callback is null and received_at > $9) < $10
        on conflict (account_id, notification_id) where callback is null
        do update set copies = inbound_callback.copies + 1"""
)
MARK_CALLBACK = Statement(
    """update inbound_callback set state = $2, processed_at = $3
        where id = $1 and state = 'received'"""
)
GET_CALLBACK = Query(InboundCallback, f"select {_CALLBACK} from inbound_callback where id = $1")
CALLBACKS_ABOUT = Query(
    InboundCallback,
    f"select {_CALLBACK} from inbound_callback where number = any($1::text[]) order by id",
)

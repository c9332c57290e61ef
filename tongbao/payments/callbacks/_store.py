"""The SQL of inbound callbacks."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from tongbao.infra.db import Query, Statement
from tongbao.payments.callbacks.model import InboundCallback

_WRITTEN: Final = """id, account_id, channel, notification_id, headers, body, number, kind,
    callback, state, copies, received_at, processed_at"""
_CALLBACK: Final = f"{_WRITTEN}, aside"

# A copy of a notification that was stored before only raises its count.
KEEP_CALLBACK = Statement(
    f"""insert into inbound_callback ({_WRITTEN})
        values ($1, $2, $3, $4, $5::text::jsonb, $6, $7, $8, $9::text::jsonb, 'received', 1, $10,
                null)
        on conflict (account_id, notification_id) where callback is not null
        do update set copies = inbound_callback.copies + 1""",
    many=f"""insert into inbound_callback ({_WRITTEN})
        select k.id, k.account_id, k.channel, k.notification_id, k.headers::jsonb, k.body,
               k.number, k.kind, k.callback::jsonb, 'received', 1, k.at, null
          from unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::bytea[],
                      $7::text[], $8::text[], $9::text[], $10::timestamptz[])
            as k (id, account_id, channel, notification_id, headers, body, number, kind, callback,
                  at)
        on conflict (account_id, notification_id) where callback is not null
        do update set copies = inbound_callback.copies + 1""",
)
# Whoever knows the address can send what verifies as nothing, so a copy is counted and not kept,
# and an account keeps only so many a day.
KEEP_REFUSED = Statement(
    f"""insert into inbound_callback ({_WRITTEN})
        select $1::uuid, $2::uuid, $3::text, $4::text, $5::jsonb, $6::bytea, '', null, null,
               $7::text, 1, $8::timestamptz, $8::timestamptz
         where (select count(*) from inbound_callback
                 where account_id = $2 and callback is null and received_at > $9) < $10
        on conflict (account_id, notification_id) where callback is null
        do update set copies = inbound_callback.copies + 1"""
)
MARK_CALLBACK = Statement(
    """update inbound_callback set state = $2, processed_at = $3
        where id = $1 and state = 'received'""",
    many="""update inbound_callback c set state = m.state, processed_at = m.at
         from unnest($1::uuid[], $2::text[], $3::timestamptz[]) as m (id, state, at)
        where c.id = m.id and c.state = 'received'""",
)
# Of a kind that somebody takes now: believed again, as when it came.
TAKE_KEPT = Query(
    UUID,
    """with kept as materialized (
           select id from inbound_callback
            where aside and state = 'kept' and kind = any($1::text[])
            order by id limit $2 for update skip locked)
       update inbound_callback c set state = 'received', processed_at = null
         from kept where c.id = kept.id
       returning c.id""",
)
GET_CALLBACK = Query(InboundCallback, f"select {_CALLBACK} from inbound_callback where id = $1")
FIND_CALLBACK = Query(
    InboundCallback,
    f"""select {_CALLBACK} from inbound_callback
         where account_id = $1 and notification_id = $2 and callback is not null""",
)
LIST_ASIDE = Query(
    InboundCallback,
    f"""select {_CALLBACK} from inbound_callback
         where aside and ($1::text is null or state = $1) and ($2::text is null or kind = $2)
           and ($3::text is null or channel = $3) and ($4::uuid is null or id < $4)
         order by id desc limit $5""",
)
CALLBACKS_ABOUT = Query(
    InboundCallback,
    f"select {_CALLBACK} from inbound_callback where number = any($1::text[]) order by id",
)

# The names of headers have no colon, so nobody who sends one can say that it is erased.
_ERASED: Final = """
       set headers = jsonb_build_object(':erased', $5::text,
                                        ':sha256', encode(sha256(c.body), 'hex')),
           body = ''::bytea, callback = jsonb_set(c.callback, '{content}', '""')"""
_OLD: Final = """
        select id from inbound_callback
         where $1::int = 0 and id > $2 and id < $3 and not headers ? ':erased'"""
ERASE_BODIES = Query(
    UUID,
    f"""
    with old as materialized ({_OLD} and callback is not null order by id limit $4 for update)
    update inbound_callback c {_ERASED} from old where c.id = old.id returning c.id""",
)
ERASE_REFUSED = Query(
    UUID,
    f"""
    with old as materialized ({_OLD} and callback is null order by id limit $4 for update)
    update inbound_callback c {_ERASED} from old where c.id = old.id returning c.id""",
)
ERASE_ABOUT = Statement("""
    update inbound_callback c
       set headers = jsonb_build_object(':erased', $2::text,
                                        ':sha256', encode(sha256(c.body), 'hex')),
           body = ''::bytea, callback = jsonb_set(c.callback, '{content}', '""')
     where number = any($1::text[]) and not headers ? ':erased'""")

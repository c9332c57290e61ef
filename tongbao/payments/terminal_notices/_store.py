"""The SQL of what terminals are told; nothing outside this package reads these tables."""

from __future__ import annotations

from typing import Final

from tongbao.infra.db import Query, Statement
from tongbao.payments.terminal_notices.model import Feed, Notice

_NOTICE: Final = "terminal_id, seq, merchant_id, mode, event_id, body, at"

# The rows stay locked until the notices are committed with them, and are taken in one order.
ADVANCE: Final = Query(
    Feed,
    """
    insert into terminal_feed (terminal_id, last_seq)
    select asked.id, asked.more from unnest($1::uuid[], $2::bigint[]) as asked (id, more)
     order by asked.id
        on conflict (terminal_id) do update
       set last_seq = terminal_feed.last_seq + excluded.last_seq
    returning terminal_id, last_seq""",
)
INSERT_NOTICES: Final = Statement(f"""
    insert into terminal_notice ({_NOTICE})
    select asked.terminal_id, asked.seq, asked.merchant_id, asked.mode, asked.event_id,
           asked.body::jsonb, asked.at
      from unnest($1::uuid[], $2::bigint[], $3::uuid[], $4::text[], $5::uuid[], $6::text[],
                  $7::timestamptz[])
        as asked (terminal_id, seq, merchant_id, mode, event_id, body, at)
        on conflict (terminal_id, event_id) do nothing""")
FEEDS: Final = Query(
    Feed, "select terminal_id, last_seq from terminal_feed where terminal_id = any($1::uuid[])"
)
NOTICES_AFTER: Final = Query(
    Notice,
    f"""
    select {_NOTICE} from terminal_notice
     where terminal_id = $1 and seq > $2 and merchant_id = $3 and mode = $4
     order by seq
     limit $5""",
)
LATEST: Final = Query(
    Notice,
    f"""
    select {_NOTICE} from terminal_notice
     where terminal_id = $1 and merchant_id = $2 and mode = $3
     order by seq desc
     limit $4""",
)
PRUNE: Final = Statement("""
    delete from terminal_notice
     where (terminal_id, seq) in (select terminal_id, seq from terminal_notice
                                   where at < $1 limit $2)""")

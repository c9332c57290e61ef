"""The SQL of nonces and rate limits; nothing outside this package reads these tables."""

from __future__ import annotations

from datetime import datetime
from struct import Struct
from typing import Final
from uuid import UUID

import msgspec

from tongbao.infra.admission.rate_limits import BucketRow, LoginSourceRule
from tongbao.infra.copy_rows import Append, moment, text
from tongbao.infra.db import Query, Statement


class UsedNonce(msgspec.Struct, frozen=True):
    """A nonce that was used up just now."""

    key_id: UUID
    nonce: str


# One statement, run outside any transaction, so its commit need not wait for the disk: a crash may
# forget the last moments' nonces, but what changes anything has its Idempotency-Key as well.
USE_NONCE: Final = Statement("""
    with unhurried as materialized (select set_config('synchronous_commit', 'off', true) as set)
    insert into api_nonce (key_id, nonce, kept_until)
    select $1::uuid, $2::text, $3::timestamptz from unhurried
        on conflict (key_id, nonce) do update set kept_until = excluded.kept_until
     where api_nonce.kept_until < $4""")
# The same for many at once, in one order for everybody.
USE_NONCES: Final = Query(
    UsedNonce,
    """
    with unhurried as materialized (select set_config('synchronous_commit', 'off', true) as set)
    insert into api_nonce (key_id, nonce, kept_until)
    select asked.key_id, asked.nonce, $3::timestamptz
      from unhurried, unnest($1::uuid[], $2::text[]) with ordinality
        as asked (key_id, nonce, place)
     order by place
        on conflict (key_id, nonce) do update set kept_until = excluded.kept_until
     where api_nonce.kept_until < $4
    returning key_id, nonce""",
)
# The same in somebody else's commit. A stale nonce that nobody has cleared away yet counts as used.
INSERT_NONCE: Final = Statement(
    """
    insert into api_nonce (key_id, nonce, kept_until) values ($1, $2, $3)
        on conflict (key_id, nonce) do nothing""",
    many="""
    insert into api_nonce (key_id, nonce, kept_until)
    select * from unnest($1::uuid[], $2::text[], $3::timestamptz[])
        on conflict (key_id, nonce) do nothing""",
)
# The same as a row of somebody else's commit, which waits for the disk as that one does. A stale
# nonce that nobody has cleared away yet counts as used here.
APPEND_NONCE: Final = Append("api_nonce", ("key_id", "kept_until", "nonce"))
PRUNE_NONCES: Final = Statement("delete from api_nonce where kept_until < $1")

SET_RATE_LIMIT: Final = Statement("""
    insert into agreed_rate (subject, mode, units_per_s, burst, units_per_day, set_at, set_by)
    values ($1, $2, $3, $4, $5, $6, $7)
        on conflict (subject, mode) do update
       set units_per_s = $3, burst = $4, units_per_day = $5, set_at = $6, set_by = $7""")
OPEN_BUCKETS: Final = Statement("""
    insert into rate_bucket (subject, mode, spent_until, day, used)
    select asked.subject, asked.mode, $3::timestamptz, $4::date, 0
      from unnest($1::uuid[], $2::text[]) with ordinality as asked (subject, mode, place)
     order by place
        on conflict (subject, mode) do nothing""")
# In one order, whoever asks: two processes that fill for the same merchants wait for each other.
LOCK_BUCKETS: Final = Query(
    BucketRow,
    """
    select b.subject, b.mode, b.spent_until, b.day, b.used,
           r.units_per_s, r.burst, r.units_per_day
      from unnest($1::uuid[], $2::text[]) as asked (subject, mode)
      join rate_bucket b on b.subject = asked.subject and b.mode = asked.mode
      left join agreed_rate r on r.subject = b.subject and r.mode = b.mode
     order by b.subject, b.mode
       for update of b""",
)
FILL_BUCKETS: Final = Statement(
    """
    update rate_bucket set spent_until = $3, day = $4, used = $5
     where subject = $1 and mode = $2""",
    many="""
    update rate_bucket b set spent_until = f.spent_until, day = f.day, used = f.used
      from unnest($1::uuid[], $2::text[], $3::timestamptz[], $4::date[], $5::bigint[])
           as f (subject, mode, spent_until, day, used)
     where b.subject = f.subject and b.mode = f.mode""",
)

_NONCE: Final = Struct("!hi16siq")


def nonce_row(key_id: UUID, nonce: str, kept_until: datetime) -> bytes:
    """Return the row of `APPEND_NONCE`."""
    return _NONCE.pack(3, 16, key_id.bytes, 8, moment(kept_until)) + text(nonce)


_SOURCE_RULE: Final = "entrance, family, prefix_bits, period_s, valid_from, most, because"

LOGIN_SOURCE_RULES: Final = Query(
    LoginSourceRule,
    f"select {_SOURCE_RULE} from login_source_rule where entrance = $1 and family = $2",
)
# One more in this period, unless there were as many as may fail.
COUNT_LOGIN: Final = Statement("""
    insert into login_source_use (subject, period_s, starts_at, used) values ($1, $2, $3, 1)
        on conflict (subject, period_s, starts_at)
        do update set used = login_source_use.used + 1 where login_source_use.used < $4""")
GIVE_LOGIN_BACK: Final = Statement("""
    update login_source_use set used = used - 1
     where subject = $1 and period_s = $2 and starts_at = $3 and used > 0""")
PRUNE_LOGINS: Final = Statement("""
    delete from login_source_use
     where (subject, period_s, starts_at) in
           (select subject, period_s, starts_at from login_source_use
             where starts_at < $1 order by starts_at limit $2)""")
EVERY_SOURCE_RULE: Final = Query(
    LoginSourceRule,
    f"""
    select {_SOURCE_RULE} from login_source_rule
     order by entrance, family, prefix_bits desc, period_s, valid_from""",
)
ADD_SOURCE_RULE: Final = Statement(f"""
    insert into login_source_rule ({_SOURCE_RULE}) values ($1, $2, $3, $4, $5, $6, $7)
        on conflict do nothing""")

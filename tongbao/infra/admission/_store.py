"""The SQL of nonces and rate limits; nothing outside this package reads these tables."""

from __future__ import annotations

from datetime import datetime
from struct import Struct
from typing import Final
from uuid import UUID

import msgspec

from tongbao.infra.admission.rate_limits import Bucket, RateLimit
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

RATE_LIMIT: Final = Query(
    RateLimit,
    """
    select units_per_s, burst, units_per_day from agreed_rate where subject = $1 and mode = $2""",
)
SET_RATE_LIMIT: Final = Statement("""
    insert into agreed_rate (subject, mode, units_per_s, burst, units_per_day, set_at, set_by)
    values ($1, $2, $3, $4, $5, $6, $7)
        on conflict (subject, mode) do update
       set units_per_s = $3, burst = $4, units_per_day = $5, set_at = $6, set_by = $7""")
OPEN_BUCKET: Final = Statement("""
    insert into rate_bucket (subject, mode, spent_until, day, used) values ($1, $2, $3, $4, 0)
        on conflict (subject, mode) do nothing""")
LOCK_BUCKET: Final = Query(
    Bucket,
    """
    select spent_until, day, used from rate_bucket where subject = $1 and mode = $2
       for update""",
)
FILL_BUCKET: Final = Statement("""
    update rate_bucket set spent_until = $3, day = $4, used = $5
     where subject = $1 and mode = $2""")

_NONCE: Final = Struct("!hi16siq")


def nonce_row(key_id: UUID, nonce: str, kept_until: datetime) -> bytes:
    """Return the row of `APPEND_NONCE`."""
    return _NONCE.pack(3, 16, key_id.bytes, 8, moment(kept_until)) + text(nonce)

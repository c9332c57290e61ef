"""The SQL of idempotency keys; nothing outside this package reads this table."""

from __future__ import annotations

from datetime import datetime
from struct import Struct
from typing import Final
from uuid import UUID

import msgspec

from tongbao.infra.copy_rows import Append, moment, sized, text
from tongbao.infra.db import Query, Statement
from tongbao.kernel.licence import Mode


class IdempotencyKey(msgspec.Struct, frozen=True):
    """What became of one use of a key. ``resource_id`` None: a refusal is the whole answer."""

    merchant_id: UUID
    mode: Mode
    route: str
    key_hash: bytes
    body_hash: bytes
    resource_id: UUID | None
    status: int | None
    response: bytes | None
    created_at: datetime
    lease_until: datetime
    answered_at: datetime | None
    asked_by: UUID | None = None  # the person, where it is one at a till


class AskedFor(msgspec.Struct, frozen=True):
    """What somebody asked for and what came of it: the payment, or the refund."""

    route: str
    resource_id: UUID
    created_at: datetime


FIND: Final = Query(
    IdempotencyKey,
    """
    select merchant_id, mode, route, key_hash, body_hash, resource_id, status, response,
           created_at, lease_until, answered_at, asked_by
      from idempotency_key
     where merchant_id = $1 and mode = $2 and route = $3 and key_hash = $4""",
)
FIND_ALL: Final = Query(
    IdempotencyKey,
    """
    select k.merchant_id, k.mode, k.route, k.key_hash, k.body_hash, k.resource_id, k.status,
           k.response, k.created_at, k.lease_until, k.answered_at, k.asked_by
      from unnest($1::uuid[], $2::text[], $3::text[], $4::bytea[])
        as asked (merchant_id, mode, route, key_hash)
      join lateral (
           select merchant_id, mode, route, key_hash, body_hash, resource_id, status, response,
                  created_at, lease_until, answered_at, asked_by
             from idempotency_key each
            where each.merchant_id = asked.merchant_id and each.mode = asked.mode
              and each.route = asked.route and each.key_hash = asked.key_hash
            limit 1) k on true""",
)
TAKE: Final = Statement(
    """
    insert into idempotency_key (merchant_id, mode, route, key_hash, body_hash, resource_id,
                                 created_at, lease_until, asked_by)
    values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
        on conflict do nothing""",
    many="""
    insert into idempotency_key (merchant_id, mode, route, key_hash, body_hash, resource_id,
                                 created_at, lease_until, asked_by)
    select asked.merchant_id, asked.mode, asked.route, asked.key_hash, asked.body_hash,
           asked.resource_id, asked.created_at, asked.lease_until, asked.asked_by
      from unnest($1::uuid[], $2::text[], $3::text[], $4::bytea[], $5::bytea[], $6::uuid[],
                  $7::timestamptz[], $8::timestamptz[], $9::uuid[])
        as asked (merchant_id, mode, route, key_hash, body_hash, resource_id, created_at,
                  lease_until, asked_by)
        on conflict do nothing""",
)
KEEP_REFUSAL: Final = Statement("""
    insert into idempotency_key (merchant_id, mode, route, key_hash, body_hash, status, response,
                                 created_at, lease_until, answered_at, asked_by)
    values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
        on conflict do nothing""")
ASKED_BY: Final = Query(
    AskedFor,
    """
    select route, resource_id, created_at
      from idempotency_key
     where asked_by = $1 and resource_id is not null
       and ($2::timestamptz is null or (created_at, resource_id) < ($2, $3::uuid))
     order by created_at desc, resource_id desc
     limit $4""",
)
APPEND_ANSWERED: Final = Append(
    "idempotency_key",
    (
        "merchant_id", "resource_id", "status", "created_at", "lease_until", "answered_at",
        "mode", "route", "key_hash", "body_hash", "response",
    ),
)  # fmt: skip
_ANSWERED: Final = Struct("!hi16si16siiiqiqiq")


def answered_row(key: IdempotencyKey) -> bytes:
    """Return the row of `APPEND_ANSWERED`, for a key that is answered the moment it is taken."""
    if key.resource_id is None or key.response is None:
        raise ValueError("a refusal is not written this way")
    at = moment(key.created_at)
    fixed = _ANSWERED.pack(
        11,
        16, key.merchant_id.bytes, 16, key.resource_id.bytes, 4, key.status, 8, at,
        8, moment(key.lease_until), 8, at,
    )  # fmt: skip
    varying = text(key.mode), text(key.route), sized(key.key_hash), sized(key.body_hash)
    return b"".join([fixed, *varying, sized(key.response)])


# Which of these keys are taken: one look at the key for each, whatever the table's size.
TAKEN: Final = Query(
    bytes,
    """
    select taken.key_hash
      from unnest($1::uuid[], $2::text[], $3::text[], $4::bytea[])
        as asked (merchant_id, mode, route, key_hash)
     cross join lateral (
           select each.key_hash from idempotency_key each
            where each.merchant_id = asked.merchant_id and each.mode = asked.mode
              and each.route = asked.route and each.key_hash = asked.key_hash
            limit 1) taken""",
)
ANSWER: Final = Statement(
    """
    update idempotency_key set status = $5, response = $6, answered_at = $7
     where merchant_id = $1 and mode = $2 and route = $3 and key_hash = $4
       and answered_at is null""",
    many="""
    update idempotency_key k set status = a.status, response = a.response, answered_at = a.at
      from unnest($1::uuid[], $2::text[], $3::text[], $4::bytea[], $5::int[], $6::bytea[],
                  $7::timestamptz[])
        as a (merchant_id, mode, route, key_hash, status, response, at)
     where k.merchant_id = a.merchant_id and k.mode = a.mode and k.route = a.route
       and k.key_hash = a.key_hash and k.answered_at is null""",
)
# For a commit of its own only, which then does not wait for the disk: an answer that a crash
# forgets is made again from the resource. In a transaction with money it would hurry that too.
# Both conditions are written so that the planner knows nothing of them but what we do: few rows are
# asked for, and most there are not answered. Each is looked up by its key then; it would else read
# the whole table, from the day it was empty until somebody tells it that it is not.
KEEP_ANSWERS: Final = Statement("""
    with unhurried as materialized (select set_config('synchronous_commit', 'off', true) as set),
         answered as (
             select merchant_id, mode, route, key_hash, status, response
               from unnest($1::uuid[], $2::text[], $3::text[], $4::bytea[], $5::int[], $6::bytea[])
                 as a (merchant_id, mode, route, key_hash, status, response)
              where a.status between 100 and 599)
    update idempotency_key k set status = a.status, response = a.response, answered_at = $7
      from unhurried, answered a
     where k.merchant_id = a.merchant_id and k.mode = a.mode and k.route = a.route
       and k.key_hash = a.key_hash and case when k.answered_at is null then true end""")
MOVE_LEASE: Final = Statement("""
    update idempotency_key set lease_until = $6
     where merchant_id = $1 and mode = $2 and route = $3 and key_hash = $4
       and lease_until = $5 and answered_at is null""")
PRUNE_ANSWERS: Final = Statement("""
    update idempotency_key set response = null
     where answered_at < $1 and response is not null and resource_id is not null""")

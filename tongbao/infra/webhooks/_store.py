"""The SQL of webhooks; nothing outside this folder reads these tables."""

from __future__ import annotations

from datetime import datetime
from typing import Final
from uuid import UUID

from msgspec import Struct

from tongbao.infra.db import Query, Statement
from tongbao.infra.webhooks.model import (
    DeliveryState,
    EndpointState,
    WebhookAttempt,
    WebhookDelivery,
    WebhookEndpoint,
    WebhookKey,
)
from tongbao.kernel.licence import Mode


class Match(Struct, frozen=True):
    """An enabled endpoint, what it wants to hear and where."""

    id: UUID
    merchant_id: UUID
    mode: Mode
    event_types: tuple[str, ...]
    url: str
    resting_until: datetime | None
    failing_since: datetime | None
    api_version: str | None


class Letter(Struct, frozen=True):
    """What is needed to try a delivery once."""

    id: UUID
    endpoint_id: UUID
    event_id: UUID
    merchant_id: UUID
    mode: Mode
    state: DeliveryState
    round: int
    tries: int
    attempts: int
    url: str
    endpoint_state: EndpointState
    resting_until: datetime | None
    failing_since: datetime | None
    api_version: str | None

    @property
    def is_troubled(self) -> bool:
        """Whether a success changes how its endpoint stands."""
        return self.failing_since is not None or self.resting_until is not None


class Reopened(Struct, frozen=True):
    """A delivery that goes out again, and which round that is."""

    id: UUID
    round: int


_ENDPOINT: Final = (
    "id, merchant_id, mode, slot, url, description, event_types, state, disabled_because,"
    " failing_since, failures_in_row, resting_until, created_at, api_version"
)
_KEY: Final = "id, endpoint_id, sealed, public_key, created_at, retires_at"
_DELIVERY: Final = (
    "id, endpoint_id, event_id, merchant_id, mode, resource_id, event_type, state, round, tries,"
    " attempts, next_at, last_status, created_at, closed_at"
)

# Of two requests for the last free slot one inserts nothing; none is counted past the limit.
INSERT_ENDPOINT: Final = Query(
    WebhookEndpoint,
    f"""
    insert into webhook_endpoint
           (id, merchant_id, mode, slot, url, description, event_types, state, failures_in_row,
            created_at, api_version)
    select $1, $2, $3, free.slot, $4, $5, $6, 'enabled', 0, $7, $8
      from generate_series(1, 16) as free (slot)
     where not exists (select from webhook_endpoint used
                        where used.merchant_id = $2 and used.mode = $3 and used.slot = free.slot)
     order by free.slot
     limit 1
    on conflict (merchant_id, mode, slot) do nothing
    returning {_ENDPOINT}""",
)
COUNT_ENDPOINTS: Final = Query(
    int,
    "select count(*) from webhook_endpoint"
    " where merchant_id = $1 and mode = $2 and slot is not null",
)
ENDPOINTS_OF: Final = Query(
    WebhookEndpoint,
    f"""
    select {_ENDPOINT} from webhook_endpoint
     where merchant_id = $1 and mode = $2 and state <> 'deleted'
     order by created_at desc, id desc""",
)
GET_ENDPOINT: Final = Query(
    WebhookEndpoint,
    f"""
    select {_ENDPOINT} from webhook_endpoint
     where id = $1 and merchant_id = $2 and mode = $3 and state <> 'deleted'""",
)
LOCK_ENDPOINT: Final = Query(
    WebhookEndpoint,
    f"""
    select {_ENDPOINT} from webhook_endpoint
     where id = $1 and merchant_id = $2 and mode = $3 and state <> 'deleted'
       for update""",
)
UPDATE_ENDPOINT: Final = Query(
    WebhookEndpoint,
    f"""
    update webhook_endpoint set url = $2, description = $3, event_types = $4, api_version = $5
     where id = $1
    returning {_ENDPOINT}""",
)
ENABLE_ENDPOINT: Final = Query(
    WebhookEndpoint,
    f"""
    update webhook_endpoint
       set state = 'enabled', disabled_because = null, failing_since = null,
           failures_in_row = 0, resting_until = null
     where id = $1
    returning {_ENDPOINT}""",
)
DISABLE_ENDPOINT: Final = Query(
    WebhookEndpoint,
    f"""
    update webhook_endpoint set state = 'disabled', disabled_because = $2
     where id = $1 and state = 'enabled'
    returning {_ENDPOINT}""",
)
DELETE_ENDPOINT: Final = Statement(
    "update webhook_endpoint set state = 'deleted', disabled_because = null, slot = null"
    " where id = $1"
)
# The same endpoint may stand in a set many times, and most often nothing is to be changed.
ENDPOINT_WORKS: Final = Statement(
    """
    update webhook_endpoint set failing_since = null, failures_in_row = 0, resting_until = null
     where id = $1 and (failing_since is not null or resting_until is not null)""",
    many="""
    update webhook_endpoint set failing_since = null, failures_in_row = 0, resting_until = null
     where id = any($1::uuid[]) and (failing_since is not null or resting_until is not null)""",
)
ENDPOINT_FAILED: Final = Query(
    WebhookEndpoint,
    f"""
    update webhook_endpoint
       set failing_since = coalesce(failing_since, $2), failures_in_row = failures_in_row + 1
     where id = $1
    returning {_ENDPOINT}""",
)
REST_ENDPOINT: Final = Statement(
    "update webhook_endpoint set resting_until = greatest(resting_until, $2) where id = $1"
)

INSERT_KEY: Final = Statement(
    "insert into webhook_key (id, endpoint_id, sealed, public_key, created_at)"
    " values ($1, $2, $3, $4, $5)"
)
DROP_RETIRING_KEYS: Final = Statement(
    "delete from webhook_key where endpoint_id = $1 and retires_at is not null"
)
RETIRE_KEYS: Final = Statement("update webhook_key set retires_at = $2 where endpoint_id = $1")
DROP_KEYS: Final = Statement("delete from webhook_key where endpoint_id = $1")
KEYS_IN_USE: Final = Query(
    WebhookKey,
    f"""
    select {_KEY} from webhook_key
     where endpoint_id = any($1::uuid[]) and (retires_at is null or retires_at > $2)
     order by id desc""",
)

MATCHES: Final = Query(
    Match,
    """
    select id, merchant_id, mode, event_types, url, resting_until, failing_since, api_version
      from webhook_endpoint
     where state = 'enabled' and merchant_id = any($1::uuid[])
     order by id""",
)
INSERT_DELIVERY: Final = Statement(
    """
    insert into webhook_delivery
           (id, endpoint_id, event_id, merchant_id, mode, resource_id, event_type, state, round,
            tries, attempts, next_at, created_at)
    values ($1, $2, $3, $4, $5, $6, $7, 'pending', 1, 0, 0, $8, $8)
    on conflict (endpoint_id, event_id) do nothing""",
    many="""
    insert into webhook_delivery
           (id, endpoint_id, event_id, merchant_id, mode, resource_id, event_type, state, round,
            tries, attempts, next_at, created_at)
    select p.id, p.endpoint_id, p.event_id, p.merchant_id, p.mode, p.resource_id, p.event_type,
           'pending', 1, 0, 0, p.at, p.at
      from unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::text[], $6::text[],
                  $7::text[], $8::timestamptz[])
        as p (id, endpoint_id, event_id, merchant_id, mode, resource_id, event_type, at)
    on conflict (endpoint_id, event_id) do nothing""",
)
LETTERS: Final = Query(
    Letter,
    """
    select d.id, d.endpoint_id, d.event_id, d.merchant_id, d.mode, d.state, d.round, d.tries,
           d.attempts, e.url, e.state as endpoint_state, e.resting_until, e.failing_since,
           e.api_version
      from webhook_delivery d join webhook_endpoint e on e.id = d.endpoint_id
     where d.id = any($1::uuid[])""",
)
INSERT_ATTEMPT: Final = Statement(
    """
    insert into webhook_attempt
           (delivery_id, number, merchant_id, mode, at, outcome, status, duration_ms, reply)
    values ($1, $2, $3, $4, $5, $6, $7, $8, $9)""",
    many="""
    insert into webhook_attempt
           (delivery_id, number, merchant_id, mode, at, outcome, status, duration_ms, reply)
    select * from unnest($1::uuid[], $2::int[], $3::uuid[], $4::text[], $5::timestamptz[],
                         $6::text[], $7::int[], $8::int[], $9::text[])""",
)
DELIVERED: Final = Statement(
    """
    update webhook_delivery
       set tries = tries + 1, attempts = attempts + 1, last_status = $2, state = 'succeeded',
           next_at = null, closed_at = $3
     where id = $1 and state = 'pending'""",
    many="""
    update webhook_delivery d
       set tries = d.tries + 1, attempts = d.attempts + 1, last_status = told.status,
           state = 'succeeded', next_at = null, closed_at = told.at
      from unnest($1::uuid[], $2::int[], $3::timestamptz[]) as told (id, status, at)
     where d.id = told.id and d.state = 'pending'""",
)
TRIED: Final = Statement(
    """
    update webhook_delivery
       set tries = tries + 1, attempts = attempts + 1, last_status = $2, next_at = $3
     where id = $1 and state = 'pending'"""
)
CLOSE: Final = Statement(
    """
    update webhook_delivery set state = $2, next_at = null, closed_at = $3
     where id = $1 and state = 'pending'"""
)
REOPEN: Final = Query(
    Reopened,
    """
    update webhook_delivery
       set state = 'pending', round = round + 1, tries = 0, next_at = $2, closed_at = null
     where id = $1 and state <> 'pending'
    returning id, round""",
)
COUNT_RANGE: Final = Query(
    int,
    """
    select count(*) from webhook_delivery
     where endpoint_id = $1 and created_at >= $2 and created_at < $3
       and state <> 'pending' and (state = 'failed' or not $4)""",
)
REOPEN_RANGE: Final = Query(
    Reopened,
    """
    with chosen as (
        select id from webhook_delivery
         where endpoint_id = $1 and created_at >= $2 and created_at < $3
           and state <> 'pending' and (state = 'failed' or not $4)
         order by id
           for update)
    update webhook_delivery d
       set state = 'pending', round = d.round + 1, tries = 0, next_at = $5, closed_at = null
      from chosen
     where d.id = chosen.id
    returning d.id, d.round""",
)
GET_DELIVERY: Final = Query(
    WebhookDelivery,
    f"select {_DELIVERY} from webhook_delivery where id = $1 and merchant_id = $2 and mode = $3",
)
DELIVERIES_PAGE: Final = Query(
    WebhookDelivery,
    f"""
    select {_DELIVERY} from webhook_delivery
     where endpoint_id = $1
       and ($2::text is null or state = $2)
       and ($3::timestamptz is null or (created_at, id) < ($3, $4::uuid))
     order by created_at desc, id desc
     limit $5""",
)
DELIVERIES_OF_EVENT: Final = Query(
    WebhookDelivery,
    f"select {_DELIVERY} from webhook_delivery where event_id = $1 order by created_at, id",
)
DELIVERIES_OF_RESOURCE: Final = Query(
    WebhookDelivery,
    f"select {_DELIVERY} from webhook_delivery where resource_id = $1 order by created_at, id",
)
ATTEMPTS_OF: Final = Query(
    WebhookAttempt,
    """
    select delivery_id, number, merchant_id, mode, at, outcome, status, duration_ms, reply
      from webhook_attempt where delivery_id = $1 order by number""",
)

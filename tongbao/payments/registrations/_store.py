"""The SQL of registrations; nothing outside this package reads these tables."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from tongbao.infra.db import Query, Statement
from tongbao.payments.registrations.model import Registration, RegistrationExchange

_REGISTRATION: Final = (
    "id, application_id, merchant_id, mode, channel, account_id, number, state, channel_ref,"
    " sub_merchant, action_url, reasons, connected_id, sends, queries, version, created_at,"
    " ended_at"
)
_EXCHANGE: Final = (
    "id, registration_id, purpose, method, url, request, status, reply, duration_ms, outcome, at"
)

INSERT_REGISTRATION: Final = Query(
    Registration,
    f"""
    insert into registration ({_REGISTRATION})
    values ($1, $2, $3, $4, $5, $6, $7, $8, null, null, null, '[]', null, 0, 0, 1, $9, null)
        on conflict (application_id, channel) do nothing
    returning {_REGISTRATION}""",
)
GET_REGISTRATION: Final = Query(
    Registration, f"select {_REGISTRATION} from registration where id = $1"
)
FIND_REGISTRATION: Final = Query(
    Registration,
    f"select {_REGISTRATION} from registration where application_id = $1 and channel = $2",
)
REGISTRATIONS: Final = Query(
    Registration,
    f"select {_REGISTRATION} from registration where application_id = $1 order by channel",
)
# The compare and set by which of several answers the first is written, and the others look again.
UPDATE_REGISTRATION: Final = Query(
    Registration,
    f"""
    update registration
       set state = $3, channel_ref = $4, sub_merchant = $5, action_url = $6, reasons = $7,
           connected_id = $8, sends = $9, queries = $10, account_id = $11, ended_at = $12,
           version = version + 1
     where id = $1 and version = $2
    returning {_REGISTRATION}""",
)
INSERT_EXCHANGE: Final = Statement(f"""
    insert into registration_exchange ({_EXCHANGE})
    values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)""")
ERASE_EXCHANGES: Final = Query(
    UUID,
    """
    with old as materialized (
        select id from registration_exchange
         where $1::int = 0 and id > $2 and id < $3 and request not like 'erased % sha256=%'
         order by id limit $4 for update)
    update registration_exchange e
       set request = 'erased ' || $5 || ' sha256='
               || encode(sha256(convert_to(e.request, 'UTF8')), 'hex'),
           reply = 'erased ' || $5 || ' sha256='
               || encode(sha256(convert_to(e.reply, 'UTF8')), 'hex')
      from old
     where e.id = old.id
    returning e.id""",
)
EXCHANGES: Final = Query(
    RegistrationExchange,
    f"""
    select {_EXCHANGE} from registration_exchange
     where registration_id = $1
     order by id desc
     limit 50""",
)

"""The SQL of merchants and routes; nothing outside this package reads these tables."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from msgspec import Struct

from tongbao.infra.db import Query, Statement
from tongbao.kernel.licence import Mode
from tongbao.parties.merchants.model import Merchant, Standing


class ChannelRoute(Struct, frozen=True):
    """Which of our accounts at a channel serves a merchant."""

    merchant_id: UUID
    mode: Mode
    channel: str
    channel_account_id: UUID


_MERCHANT: Final = (
    "id, name, state, live_book, sandbox_book, late_success, settlement_delay_days, bank_holder,"
    " bank_account_masked, bank_account_sealed, opened_at"
)
INSERT_MERCHANT: Final = Query(
    Merchant,
    f"""
    insert into merchant ({_MERCHANT})
    values ($1, $2, 'active', $3, $4, $5, $6, $7, $8, $9, $10)
    returning {_MERCHANT}""",
)
GET_MERCHANT: Final = Query(Merchant, f"select {_MERCHANT} from merchant where id = $1")
MERCHANTS: Final = Query(Merchant, f"select {_MERCHANT} from merchant where id = any($1::uuid[])")
LOCK_MERCHANT: Final = Query(Merchant, f"select {_MERCHANT} from merchant where id = $1 for update")
SET_STATE: Final = Query(
    Merchant, f"update merchant set state = $2 where id = $1 returning {_MERCHANT}"
)
LIST_MERCHANTS: Final = Query(
    Merchant,
    f"""
    select {_MERCHANT} from merchant where $1::uuid is null or id < $1 order by id desc limit $2""",
)

_STANDING: Final = "owner_id, version, state, because, reserve_until, changed_by, changed_at"
LAST_STANDING_VERSION: Final = Query(
    int,
    "select coalesce(max(version), 0) as version from merchant_standing where owner_id = $1",
)
INSERT_STANDING: Final = Statement(
    f"insert into merchant_standing ({_STANDING}) values ($1, $2, $3, $4, $5, $6, $7)"
)
STANDINGS: Final = Query(
    Standing,
    f"select {_STANDING} from merchant_standing where owner_id = $1 order by version desc",
)

SET_ROUTE: Final = Statement("""
    insert into channel_route (merchant_id, mode, channel, channel_account_id)
    values ($1, $2, $3, $4)
        on conflict (merchant_id, mode, channel) do update
       set channel_account_id = excluded.channel_account_id""")
ROUTES: Final = Query(
    ChannelRoute,
    """
    select merchant_id, mode, channel, channel_account_id from channel_route
     where merchant_id = $1 and mode = $2
     order by channel""",
)
# What was read a moment ago still stands: asked in the commit that relies on it.
STILL_SERVES: Final = Statement(
    """
    select from merchant m
     where m.id = $1 and m.state = $2 and m.late_success = $3
       and ($6::uuid is null
            or exists (select from channel_route r
                        where r.merchant_id = m.id and r.mode = $4 and r.channel = $5
                          and r.channel_account_id = $6))""",
    many="""
    select from unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::uuid[])
        as t (merchant_id, state, late_success, mode, channel, account_id)
      join merchant m on m.id = t.merchant_id and m.state = t.state
                     and m.late_success = t.late_success
     where t.account_id is null
        or exists (select from channel_route r
                    where r.merchant_id = m.id and r.mode = t.mode and r.channel = t.channel
                      and r.channel_account_id = t.account_id)""",
)
ROUTE: Final = Query(
    UUID,
    "select channel_account_id from channel_route"
    " where merchant_id = $1 and mode = $2 and channel = $3",
)

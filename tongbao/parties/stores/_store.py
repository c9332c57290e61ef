"""The SQL of stores; nothing outside this package reads the table."""

from __future__ import annotations

from typing import Final

from tongbao.infra.db import Query
from tongbao.parties.stores.model import Store

_STORE: Final = (
    "id, merchant_id, mode, store_no, name, area_code, address, latitude, longitude, state,"
    " version, created_at"
)

INSERT_STORE: Final = Query(
    Store,
    f"""
    insert into store ({_STORE}) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, 'open', 1, $10)
        on conflict (merchant_id, mode, store_no) do nothing
    returning {_STORE}""",
)
GET_STORE: Final = Query(
    Store, f"select {_STORE} from store where id = $1 and merchant_id = $2 and mode = $3"
)
STORES: Final = Query(
    Store,
    f"""
    select {_STORE} from store
     where merchant_id = $1 and mode = $2 and ($3::uuid is null or id < $3)
     order by id desc
     limit $4""",
)
CHANGE_STORE: Final = Query(
    Store,
    f"""
    update store
       set name = $4, area_code = $5, address = $6, latitude = $7, longitude = $8, state = $9,
           version = version + 1
     where id = $1 and merchant_id = $2 and mode = $3
    returning {_STORE}""",
)
KNOWN_STORES: Final = Query(
    int,
    """
    select count(*) as n from store
     where merchant_id = $1 and mode = $2 and id = any($3::uuid[])""",
)

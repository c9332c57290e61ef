"""The SQL of a merchant's people; nothing outside this package reads these tables."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from tongbao.infra.db import Query, Statement
from tongbao.parties.staff.model import Staff

_STAFF: Final = (
    "id, merchant_id, mode, role, every_store, name_masked, phone_masked, sealed, phone_blind,"
    " state, version, created_at, left_at"
)

INSERT_STAFF: Final = Query(
    Staff,
    f"""
    insert into staff ({_STAFF})
    values ($1, $2, $3, $4, $5, $6, $7, $8, $9, 'active', 1, $10, null)
        on conflict (merchant_id, mode, phone_blind) where state = 'active' do nothing
    returning {_STAFF}""",
)
GET_STAFF: Final = Query(
    Staff, f"select {_STAFF} from staff where id = $1 and merchant_id = $2 and mode = $3"
)
LOCK_STAFF: Final = Query(
    Staff,
    f"select {_STAFF} from staff where id = $1 and merchant_id = $2 and mode = $3 for update",
)
LIST_STAFF: Final = Query(
    Staff,
    f"""
    select {_STAFF} from staff
     where merchant_id = $1 and mode = $2 and ($3::uuid is null or id < $3)
     order by id desc
     limit $4""",
)
CHANGE_STAFF: Final = Query(
    Staff,
    f"""
    update staff set role = $2, every_store = $3, version = version + 1 where id = $1
    returning {_STAFF}""",
)
LEAVE: Final = Query(
    Staff,
    f"""
    update staff set state = 'left', left_at = $2, version = version + 1
     where id = $1 and state = 'active'
    returning {_STAFF}""",
)
CLEAR_STORES: Final = Statement("delete from staff_store where staff_id = $1")
ADD_STORES: Final = Statement("""
    insert into staff_store (staff_id, store_id) select $1, unnest($2::uuid[])
    on conflict do nothing""")
STORES: Final = Query(
    UUID, "select store_id from staff_store where staff_id = $1 order by store_id"
)

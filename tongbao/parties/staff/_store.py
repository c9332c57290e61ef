"""The SQL of a merchant's people; nothing outside this package reads these tables."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from tongbao.infra.db import Query, Statement
from tongbao.parties.staff.model import Pin, PinCode, Staff, TillSession

_STAFF: Final = (
    "id, merchant_id, mode, role, every_store, name_masked, phone_masked, sealed, phone_blind,"
    " state, version, created_at, left_at"
)

INSERT_STAFF: Final = Query(
    Staff,
    f"""
    insert into staff ({_STAFF})
    values ($1, $2, $3, $4, $5, $6, $7, $8, $9, 'active', 1, $10, null)
        on conflict (merchant_id, mode, phone_blind) where state <> 'left' do nothing
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
     where id = $1 and state <> 'left'
    returning {_STAFF}""",
)
MOVE_STAFF: Final = Query(
    Staff,
    f"""
    update staff set state = $2, version = version + 1 where id = $1 and state <> 'left'
    returning {_STAFF}""",
)
STAFF_AT: Final = Query(
    Staff,
    f"""
    select {_STAFF} from staff
     where merchant_id = $1 and mode = $2 and state = 'active'
       and (every_store or id in (select staff_id from staff_store where store_id = $3::uuid))
     order by id
     limit $4""",
)
CLEAR_STORES: Final = Statement("delete from staff_store where staff_id = $1")
ADD_STORES: Final = Statement("""
    insert into staff_store (staff_id, store_id) select $1, unnest($2::uuid[])
    on conflict do nothing""")
STORES: Final = Query(
    UUID, "select store_id from staff_store where staff_id = $1 order by store_id"
)

# PINs
_PIN: Final = "staff_id, hash, number, set_at, tries, locked_until"

GIVE_CODE: Final = Statement("""
    insert into staff_pin_code (staff_id, code_hash, misses, expires_at) values ($1, $2, 0, $3)
        on conflict (staff_id) do update
           set code_hash = excluded.code_hash, misses = 0, expires_at = excluded.expires_at""")
LOCK_CODE: Final = Query(
    PinCode,
    """
    select staff_id, code_hash, misses, expires_at from staff_pin_code
     where staff_id = $1 for update""",
)
MISS_CODE: Final = Statement("""
    update staff_pin_code set misses = misses + 1 where staff_id = $1 and misses < 5""")
USE_CODE: Final = Statement("delete from staff_pin_code where staff_id = $1 and code_hash = $2")
FORGET_CODE: Final = Statement("delete from staff_pin_code where staff_id = $1")
SET_PIN: Final = Statement(f"""
    insert into staff_pin ({_PIN}) values ($1, $2, 1, $3, 0, null)
        on conflict (staff_id) do update
           set hash = excluded.hash, number = staff_pin.number + 1, set_at = excluded.set_at,
               tries = 0, locked_until = null""")
GET_PIN: Final = Query(Pin, f"select {_PIN} from staff_pin where staff_id = $1")
# A try is counted before it is judged, so a burst of guesses in parallel gets no more than one by
# one: the try that makes a round of them full locks those after it.
COUNT_TRY: Final = Query(
    Pin,
    f"""
    update staff_pin
       set tries = tries + 1,
           locked_until = case when (tries + 1) % $3::int = 0 then $4::timestamptz end
     where staff_id = $1 and tries < $5 and (locked_until is null or locked_until <= $2)
    returning {_PIN}""",
)
RIGHT_PIN: Final = Statement("""
    update staff_pin set tries = 0, locked_until = null where staff_id = $1 and number = $2""")
FORGET_PIN: Final = Statement("delete from staff_pin where staff_id = $1")

# Who is at a till
_SESSION: Final = (
    "terminal_id, id, key_number, staff_id, merchant_id, mode, opened_at, ends_at, ended_at"
)

OPEN_SESSION: Final = Query(
    TillSession,
    f"""
    insert into till_session ({_SESSION}) values ($1, $2, $3, $4, $5, $6, $7, $8, null)
        on conflict (terminal_id) do update
           set id = excluded.id, key_number = excluded.key_number, staff_id = excluded.staff_id,
               merchant_id = excluded.merchant_id, mode = excluded.mode,
               opened_at = excluded.opened_at, ends_at = excluded.ends_at, ended_at = null
    returning {_SESSION}""",
)
GET_SESSION: Final = Query(
    TillSession,
    f"select {_SESSION} from till_session where terminal_id = $1 and id = $2",
)
END_SESSION: Final = Statement("""
    update till_session set ended_at = $3
     where terminal_id = $1 and id = $2 and ended_at is null""")
END_SESSIONS_OF: Final = Statement("""
    update till_session set ended_at = $2 where staff_id = $1 and ended_at is null""")

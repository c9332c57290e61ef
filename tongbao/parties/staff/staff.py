"""Add a person, change what they are there for, let them leave."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal
from uuid import UUID

import msgspec

from tongbao.infra import audit
from tongbao.infra.crypto import Keyring, bind, hmac_sha256
from tongbao.infra.db import Db, Tx
from tongbao.infra.web.caller import Caller
from tongbao.kernel.ids import show
from tongbao.kernel.pages import Page, decode_moment, page_by_moment, page_size
from tongbao.parties.onboarding.model import mask_name, mask_phone
from tongbao.parties.staff import _store as store
from tongbao.parties.staff.model import (
    PREFIX,
    Person,
    Staff,
    StaffLeft,
    StaffNotFound,
    StaffPhoneUsed,
    StaffRole,
    check_stores,
)
from tongbao.parties.stores.stores import check_own_stores

_SEALED: Final = "staff.person"
_BLIND: Final = "staff.blind"


async def add_staff(
    tx: Tx,
    keyring: Keyring,
    caller: Caller,
    person: Person,
    *,
    staff_id: UUID,
    role: StaffRole,
    store_ids: Sequence[UUID],
    every_store: bool,
) -> Staff:
    """Add one of the merchant's people; a phone is one active person's.

    Raises:
        StoresUnclear, StoreNotFound, StaffPhoneUsed
    """
    check_stores(role, every_store=every_store, named=len(store_ids))
    await check_own_stores(tx, caller.merchant_id, caller.mode, store_ids)
    digits = "".join(each for each in person.phone if each.isdigit())
    made = await store.INSERT_STAFF.first(
        tx,
        staff_id,
        caller.merchant_id,
        caller.mode,
        role,
        every_store,
        mask_name(person.name),
        mask_phone(person.phone),
        keyring.seal(_SEALED, msgspec.json.encode(person), _place(staff_id)),
        hmac_sha256(keyring.mac_key(_BLIND), bind("phone", digits)),
        tx.now,
    )
    if made is None:
        raise StaffPhoneUsed
    await store.ADD_STORES.run(tx, staff_id, list(store_ids))
    await audit.record(tx, "staff.added", show(PREFIX, staff_id), {"role": role.value})
    return made


async def change_staff(
    tx: Tx,
    caller: Caller,
    staff_id: UUID,
    *,
    role: StaffRole,
    store_ids: Sequence[UUID],
    every_store: bool,
) -> Staff:
    """Say what a person is there for from now on, and where.

    Raises:
        StaffNotFound, StaffLeft, StoresUnclear, StoreNotFound
    """
    found = await store.LOCK_STAFF.first(tx, staff_id, caller.merchant_id, caller.mode)
    if found is None:
        raise StaffNotFound
    if found.state == "left":
        raise StaffLeft
    check_stores(role, every_store=every_store, named=len(store_ids))
    await check_own_stores(tx, caller.merchant_id, caller.mode, store_ids)
    changed = await store.CHANGE_STAFF.one(tx, staff_id, role, every_store)
    await store.CLEAR_STORES.run(tx, staff_id)
    await store.ADD_STORES.run(tx, staff_id, list(store_ids))
    await audit.record(tx, "staff.changed", show(PREFIX, staff_id), {"role": role.value})
    return changed


async def let_leave(tx: Tx, caller: Caller, staff_id: UUID) -> Staff:
    """Let a person leave; doing so again changes nothing.

    Raises:
        StaffNotFound
    """
    found = await staff_of_caller(tx, caller, staff_id)
    left = await store.LEAVE.first(tx, found.id, tx.now)
    if left is None:
        return await staff_of_caller(tx, caller, staff_id)
    await store.FORGET_CODE.run(tx, found.id)
    await store.FORGET_PIN.run(tx, found.id)
    await store.END_SESSIONS_OF.run(tx, found.id, tx.now)
    await audit.record(tx, "staff.left", show(PREFIX, staff_id), {})
    return left


async def suspend_staff(tx: Tx, caller: Caller, staff_id: UUID) -> Staff:
    """Let a person do nothing for a while: out of every till at once; repeats change nothing.

    Raises:
        StaffNotFound, StaffLeft
    """
    return await _move(tx, caller, staff_id, "suspended")


async def resume_staff(tx: Tx, caller: Caller, staff_id: UUID) -> Staff:
    """Let a person work again, who then signs in again; repeats change nothing.

    Raises:
        StaffNotFound, StaffLeft
    """
    return await _move(tx, caller, staff_id, "active")


async def _move(
    tx: Tx, caller: Caller, staff_id: UUID, to: Literal["active", "suspended"]
) -> Staff:
    found = await store.LOCK_STAFF.first(tx, staff_id, caller.merchant_id, caller.mode)
    if found is None:
        raise StaffNotFound
    if found.state == "left":
        raise StaffLeft
    if found.state == to:
        return found
    moved = await store.MOVE_STAFF.one(tx, staff_id, to)
    await store.END_SESSIONS_OF.run(tx, staff_id, tx.now)
    action = "staff.suspended" if to == "suspended" else "staff.resumed"
    await audit.record(tx, action, show(PREFIX, staff_id), {})
    return moved


async def staff_of_caller(on: Db | Tx, caller: Caller, staff_id: UUID) -> Staff:
    """Return one of the merchant's people.

    Raises:
        StaffNotFound
    """
    found = await store.GET_STAFF.first(on, staff_id, caller.merchant_id, caller.mode)
    if found is None:
        raise StaffNotFound
    return found


async def list_staff(
    on: Db | Tx, caller: Caller, *, cursor: str | None, limit: int | None
) -> Page[Staff]:
    """Return the merchant's people, newest first, those who left too.

    Raises:
        CursorInvalid, PageSizeInvalid
    """
    size = page_size(limit)
    _, before = decode_moment(cursor)
    found = await store.LIST_STAFF.all(on, caller.merchant_id, caller.mode, before, size + 1)
    return page_by_moment(found, size, lambda row: (row.created_at, row.id))


async def stores_of_staff(on: Db | Tx, staff_id: UUID) -> list[UUID]:
    """Return the stores somebody works in who does not work in every one."""
    return await store.STORES.all(on, staff_id)


def person_of(keyring: Keyring, staff: Staff) -> Person:
    """Return who a person is, opened.

    Raises:
        SealUnreadable
    """
    opened = keyring.open(_SEALED, staff.sealed, _place(staff.id))
    return msgspec.json.decode(opened, type=Person)


def _place(staff_id: UUID) -> bytes:
    return bind("staff", "sealed", staff_id)

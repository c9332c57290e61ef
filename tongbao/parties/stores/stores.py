"""Open a store, change it, close it and open it again."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Literal
from uuid import UUID

from tongbao.infra import audit
from tongbao.infra.db import Db, Tx
from tongbao.infra.web.caller import Caller
from tongbao.infra.web.request import InvalidValue
from tongbao.kernel.ids import show
from tongbao.kernel.licence import Mode
from tongbao.kernel.pages import Page, decode_moment, page_by_moment, page_size
from tongbao.parties.stores import _store as store
from tongbao.parties.stores.model import PREFIX, Place, Store, StoreNotFound, StoreNumberUsed


async def open_store(
    tx: Tx, caller: Caller, *, store_id: UUID, store_no: str, name: str, place: Place
) -> Store:
    """Open a store under the merchant's own number for it.

    Raises:
        StoreNumberUsed, InvalidValue
    """
    made = await store.INSERT_STORE.first(
        tx,
        store_id,
        caller.merchant_id,
        caller.mode,
        store_no,
        name,
        place.area_code,
        place.address,
        *_degrees(place),
        tx.now,
    )
    if made is None:
        raise StoreNumberUsed(store_no=store_no)
    await audit.record(tx, "store.opened", show(PREFIX, made.id), {"number": store_no})
    return made


async def change_store(
    tx: Tx,
    caller: Caller,
    store_id: UUID,
    *,
    name: str,
    place: Place,
    state: Literal["open", "closed"],
) -> Store:
    """Say what a store is called now, where it is, and whether it is open.

    Raises:
        StoreNotFound, InvalidValue
    """
    changed = await store.CHANGE_STORE.first(
        tx,
        store_id,
        caller.merchant_id,
        caller.mode,
        name,
        place.area_code,
        place.address,
        *_degrees(place),
        state,
    )
    if changed is None:
        raise StoreNotFound
    await audit.record(tx, "store.changed", show(PREFIX, store_id), {"state": state})
    return changed


async def store_of_merchant(on: Db | Tx, merchant_id: UUID, mode: Mode, store_id: UUID) -> Store:
    """Return one of the merchant's stores.

    Raises:
        StoreNotFound
    """
    found = await store.GET_STORE.first(on, store_id, merchant_id, mode)
    if found is None:
        raise StoreNotFound
    return found


async def stores_of_merchant(
    on: Db | Tx, merchant_id: UUID, mode: Mode, *, cursor: str | None, limit: int | None
) -> Page[Store]:
    """Return the merchant's stores, newest first, closed ones too.

    Raises:
        CursorInvalid, PageSizeInvalid
    """
    size = page_size(limit)
    _, before = decode_moment(cursor)
    found = await store.STORES.all(on, merchant_id, mode, before, size + 1)
    return page_by_moment(found, size, lambda row: (row.created_at, row.id))


async def check_own_stores(on: Db | Tx, merchant_id: UUID, mode: Mode, ids: Sequence[UUID]) -> None:
    """Raise unless all of these are stores of the merchant's.

    Raises:
        StoreNotFound
    """
    wanted = list(set(ids))
    if await store.KNOWN_STORES.one(on, merchant_id, mode, wanted) != len(wanted):
        raise StoreNotFound


def _degrees(place: Place) -> tuple[int | None, int | None]:
    """Return where a place is, in millionths of a degree."""
    if place.point is None:
        return None, None
    latitude, longitude = Decimal(place.point.latitude), Decimal(place.point.longitude)
    if abs(latitude) > 90 or abs(longitude) > 180:
        raise InvalidValue(param="$.place.point", reason="beyond a pole or the date line")
    return int(latitude.scaleb(6)), int(longitude.scaleb(6))

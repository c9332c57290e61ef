"""The routes of a merchant's stores."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Final, Literal
from uuid import UUID

from litestar import Response, get, post
from litestar.handlers import HTTPRouteHandler
from msgspec import Meta, Struct

from tongbao.infra.db import Db
from tongbao.infra.web.caller import Caller, needs
from tongbao.infra.web.idempotency import Idempotency, answer_once
from tongbao.infra.web.request import ApiRequest, NumberField
from tongbao.kernel.ids import new_id, parse, show
from tongbao.kernel.licence import Mode
from tongbao.kernel.pages import Page
from tongbao.parties.stores.model import (
    PREFIX,
    Place,
    Point,
    Store,
    StoreNotFound,
    StoreNumberUsed,
)
from tongbao.parties.stores.stores import (
    change_store,
    open_store,
    store_of_merchant,
    stores_of_merchant,
)

Name = Annotated[str, Meta(min_length=1, max_length=128)]


class OpenStore(Struct, frozen=True, forbid_unknown_fields=True):
    """Open a store."""

    store_no: NumberField
    name: Name
    place: Place


class ChangeStore(Struct, frozen=True, forbid_unknown_fields=True):
    """What a store is from now on."""

    name: Name
    place: Place
    status: Literal["open", "closed"] = "open"


class StoreView(Struct, frozen=True):
    """A store as its merchant sees it."""

    id: str
    object: Literal["store"]
    mode: Mode
    store_no: str
    name: str
    place: Place
    status: Literal["open", "closed"]
    created_at: datetime


_PLACE: Final = Place("330106", "文三路1号一层", Point("30.276", "120.124"))


@post(
    "/v1/stores",
    opt=needs(
        "stores:write",
        idempotent=True,
        refuses=[StoreNumberUsed],
        request_example=OpenStore("store-1", "西溪茶馆", _PLACE),
    ),
)
async def post_store(
    data: OpenStore, request: ApiRequest, *, db: Db, caller: Caller
) -> Response[StoreView]:
    """Open a store under a number of the merchant's own."""

    async def fresh(use: Idempotency) -> StoreView:
        store_id = new_id()
        async with db.begin(caller.actor) as tx:
            await use.take(tx, store_id)
            made = await open_store(
                tx,
                caller,
                store_id=store_id,
                store_no=data.store_no,
                name=data.name,
                place=data.place,
            )
        return view_store(made)

    async def resume(store_id: UUID) -> StoreView:
        return view_store(await store_of_merchant(db, caller.merchant_id, caller.mode, store_id))

    return await answer_once(request, db, fresh=fresh, resume=resume)


@get("/v1/stores", opt=needs("stores:read"))
async def get_stores(
    db: Db, caller: Caller, *, cursor: str | None = None, limit: int | None = None
) -> Page[StoreView]:
    """Return the merchant's stores, newest first."""
    page = await stores_of_merchant(db, caller.merchant_id, caller.mode, cursor=cursor, limit=limit)
    return Page([view_store(each) for each in page.items], page.next_cursor)


@get("/v1/stores/{store_id:str}", opt=needs("stores:read", refuses=[StoreNotFound]))
async def get_store(store_id: str, db: Db, caller: Caller) -> StoreView:
    """Return one store."""
    wanted = parse(PREFIX, store_id)
    return view_store(await store_of_merchant(db, caller.merchant_id, caller.mode, wanted))


@post(
    "/v1/stores/{store_id:str}",
    status_code=200,
    opt=needs(
        "stores:write",
        refuses=[StoreNotFound],
        request_example=ChangeStore("西溪茶馆", _PLACE, "closed"),
    ),
)
async def change_one_store(store_id: str, data: ChangeStore, db: Db, caller: Caller) -> StoreView:
    """Say what the store is from now on; safe to repeat."""
    async with db.begin(caller.actor) as tx:
        changed = await change_store(
            tx,
            caller,
            parse(PREFIX, store_id),
            name=data.name,
            place=data.place,
            state=data.status,
        )
    return view_store(changed)


ROUTES: Final[list[HTTPRouteHandler]] = [post_store, get_stores, get_store, change_one_store]


def view_store(store: Store) -> StoreView:
    """Return a store as its merchant may see it."""
    point = None
    if store.latitude is not None and store.longitude is not None:
        point = Point(_degrees(store.latitude), _degrees(store.longitude))
    return StoreView(
        id=show(PREFIX, store.id),
        object="store",
        mode=store.mode,
        store_no=store.store_no,
        name=store.name,
        place=Place(store.area_code, store.address, point),
        status=store.state,
        created_at=store.created_at,
    )


def _degrees(millionths: int) -> str:
    return f"{Decimal(millionths).scaleb(-6):f}"

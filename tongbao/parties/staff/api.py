"""The routes of a merchant's people. Names and phones go in, and come out masked."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final, Literal
from uuid import UUID

from litestar import Response, get, post
from litestar.handlers import HTTPRouteHandler
from msgspec import UNSET, Meta, Struct, UnsetType

from tongbao.infra.crypto import Keyring
from tongbao.infra.db import Db
from tongbao.infra.web.caller import Caller, needs
from tongbao.infra.web.idempotency import Idempotency, answer_once, asked_by
from tongbao.infra.web.request import ApiRequest
from tongbao.kernel.ids import new_id, parse, show
from tongbao.kernel.licence import Mode
from tongbao.kernel.pages import Page
from tongbao.parties.staff.model import (
    CODE_LIFE,
    DOES,
    PREFIX,
    STAFF_MAY,
    Person,
    Staff,
    StaffLeft,
    StaffNotFound,
    StaffPhoneUsed,
    StaffRole,
    StoresUnclear,
    TillAct,
)
from tongbao.parties.staff.staff import (
    add_staff,
    change_staff,
    let_leave,
    list_staff,
    resume_staff,
    staff_of_caller,
    stores_of_staff,
    suspend_staff,
)
from tongbao.parties.staff.tills import give_pin_code
from tongbao.parties.stores.model import PREFIX as STORE
from tongbao.parties.stores.model import StoreNotFound

StoreIds = Annotated[list[Annotated[str, Meta(max_length=64)]], Meta(max_length=200)]


class ChangeStaff(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a person is there for, and where: in every store, or in those named."""

    role: StaffRole
    every_store: bool = False
    store_ids: StoreIds = []


class AddStaff(ChangeStaff, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Add a person."""

    name: Annotated[str, Meta(min_length=1, max_length=64)]
    phone: Annotated[str, Meta(pattern=r"^[0-9+() -]{5,32}(?!\n)$")]

    def __repr__(self) -> str:
        return f"AddStaff({self.role})"


class StaffView(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A person as the merchant sees them; ``may`` is what the role includes."""

    id: str
    object: Literal["staff"]
    mode: Mode
    role: StaffRole
    may: list[str]
    name: str
    phone: str
    every_store: bool
    store_ids: list[str]
    status: Literal["active", "suspended", "left"]
    created_at: datetime
    left_at: datetime | UnsetType = UNSET


class PinCodeView(Struct, frozen=True):
    """A code with which a person chooses a PIN at a terminal, once; shown here only."""

    object: Literal["staff_pin_code"]
    staff_id: str
    code: str
    expires_at: datetime


class StaffActView(Struct, frozen=True):
    """What a person did at a till; ``object_id`` is the payment's, or the refund's."""

    object: Literal["staff_act"]
    staff_id: str
    act: TillAct
    object_id: str
    at: datetime


_EXAMPLE: Final = AddStaff(
    role=StaffRole.MANAGER, every_store=True, name="李四", phone="13900005678"
)


@post(
    "/v1/staff",
    opt=needs(
        "staff:write",
        idempotent=True,
        refuses=[StaffPhoneUsed, StoresUnclear, StoreNotFound],
        request_example=_EXAMPLE,
    ),
)
async def post_staff(
    data: AddStaff, request: ApiRequest, *, db: Db, keyring: Keyring, caller: Caller
) -> Response[StaffView]:
    """Add one of the merchant's people."""

    async def fresh(use: Idempotency) -> StaffView:
        staff_id = new_id()
        async with db.begin(caller.actor) as tx:
            await use.take(tx, staff_id)
            made = await add_staff(
                tx,
                keyring,
                caller,
                Person(data.name, data.phone),
                staff_id=staff_id,
                role=data.role,
                store_ids=_stores(data),
                every_store=data.every_store,
            )
        return await _view(db, made)

    async def resume(staff_id: UUID) -> StaffView:
        return await _view(db, await staff_of_caller(db, caller, staff_id))

    return await answer_once(request, db, fresh=fresh, resume=resume)


@get("/v1/staff", opt=needs("staff:read"))
async def get_all_staff(
    db: Db, caller: Caller, *, cursor: str | None = None, limit: int | None = None
) -> Page[StaffView]:
    """Return the merchant's people, newest first."""
    page = await list_staff(db, caller, cursor=cursor, limit=limit)
    return Page([await _view(db, each) for each in page.items], page.next_cursor)


@get("/v1/staff/{staff_id:str}", opt=needs("staff:read", refuses=[StaffNotFound]))
async def get_staff(staff_id: str, db: Db, caller: Caller) -> StaffView:
    """Return one person."""
    return await _view(db, await staff_of_caller(db, caller, parse(PREFIX, staff_id)))


@post(
    "/v1/staff/{staff_id:str}",
    status_code=200,
    opt=needs(
        "staff:write",
        refuses=[StaffNotFound, StaffLeft, StoresUnclear, StoreNotFound],
        request_example=ChangeStaff(role=StaffRole.OWNER, every_store=True),
    ),
)
async def change_one_staff(staff_id: str, data: ChangeStaff, db: Db, caller: Caller) -> StaffView:
    """Say what the person is there for from now on; safe to repeat."""
    async with db.begin(caller.actor) as tx:
        changed = await change_staff(
            tx,
            caller,
            parse(PREFIX, staff_id),
            role=data.role,
            store_ids=_stores(data),
            every_store=data.every_store,
        )
    return await _view(db, changed)


@post(
    "/v1/staff/{staff_id:str}/leave",
    status_code=200,
    opt=needs("staff:write", refuses=[StaffNotFound]),
)
async def let_staff_leave(staff_id: str, db: Db, caller: Caller) -> StaffView:
    """Let the person leave; safe to repeat."""
    async with db.begin(caller.actor) as tx:
        left = await let_leave(tx, caller, parse(PREFIX, staff_id))
    return await _view(db, left)


@post(
    "/v1/staff/{staff_id:str}/suspend",
    status_code=200,
    opt=needs("staff:write", refuses=[StaffNotFound, StaffLeft]),
)
async def suspend_one_staff(staff_id: str, db: Db, caller: Caller) -> StaffView:
    """Let the person do nothing for a while; they are out of every till at once. Safe to repeat."""
    async with db.begin(caller.actor) as tx:
        suspended = await suspend_staff(tx, caller, parse(PREFIX, staff_id))
    return await _view(db, suspended)


@post(
    "/v1/staff/{staff_id:str}/resume",
    status_code=200,
    opt=needs("staff:write", refuses=[StaffNotFound, StaffLeft]),
)
async def resume_one_staff(staff_id: str, db: Db, caller: Caller) -> StaffView:
    """Let the person work again, with the PIN they have. Safe to repeat."""
    async with db.begin(caller.actor) as tx:
        resumed = await resume_staff(tx, caller, parse(PREFIX, staff_id))
    return await _view(db, resumed)


@post(
    "/v1/staff/{staff_id:str}/pin_codes",
    status_code=200,
    opt=needs("staff:write", refuses=[StaffNotFound, StaffLeft]),
)
async def create_pin_code(staff_id: str, db: Db, caller: Caller) -> PinCodeView:
    """Make the code with which a person chooses a PIN at a terminal. It replaces an earlier code.

    A PIN that the person has goes on until the code is used.
    """
    wanted = parse(PREFIX, staff_id)
    async with db.begin(caller.actor) as tx:
        code = await give_pin_code(tx, caller, wanted)
        until = tx.now + CODE_LIFE
    return PinCodeView("staff_pin_code", show(PREFIX, wanted), code.reveal(), until)


@get("/v1/staff/{staff_id:str}/acts", opt=needs("staff:read", refuses=[StaffNotFound]))
async def list_staff_acts(
    staff_id: str,
    db: Db,
    caller: Caller,
    *,
    cursor: str | None = None,
    limit: int | None = None,
) -> Page[StaffActView]:
    """Return what a person did at tills, newest first: each is on record with what it did."""
    staff = await staff_of_caller(db, caller, parse(PREFIX, staff_id))
    page = await asked_by(db, staff.id, cursor=cursor, limit=limit)
    acts = [
        StaffActView("staff_act", show(PREFIX, staff.id), *of, each.created_at)
        for each in page.items
        if (of := _act(each.route, each.resource_id)) is not None
    ]
    return Page(acts, page.next_cursor)


ROUTES: Final[list[HTTPRouteHandler]] = [
    post_staff,
    get_all_staff,
    get_staff,
    change_one_staff,
    let_staff_leave,
    suspend_one_staff,
    resume_one_staff,
    create_pin_code,
    list_staff_acts,
]


def _stores(data: ChangeStaff) -> list[UUID]:
    return [parse(STORE, each) for each in data.store_ids]


def _act(route: str, resource_id: UUID) -> tuple[TillAct, str] | None:
    """Return what a request did and to what, where it was one of a till's."""
    for act, of in DOES.items():
        if of.operation == route:
            return act, show(of.prefix, resource_id)
    return None


async def _view(db: Db, staff: Staff) -> StaffView:
    return StaffView(
        id=show(PREFIX, staff.id),
        object="staff",
        mode=staff.mode,
        role=staff.role,
        may=sorted(STAFF_MAY[staff.role]),
        name=staff.name_masked,
        phone=staff.phone_masked,
        every_store=staff.every_store,
        store_ids=[show(STORE, each) for each in await stores_of_staff(db, staff.id)],
        status=staff.state,
        created_at=staff.created_at,
        left_at=staff.left_at or UNSET,
    )

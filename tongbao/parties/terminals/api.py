"""The routes with which a merchant looks after its terminals. Terminals have their own way in."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from litestar import get, post
from litestar.handlers import HTTPRouteHandler
from msgspec import Meta, Struct

from tongbao.infra.db import Db, Tx
from tongbao.infra.web.caller import Caller, needs
from tongbao.infra.web.request import CurrencyField
from tongbao.kernel.clock import business_date
from tongbao.kernel.ids import parse, show
from tongbao.kernel.money import UnknownCurrency
from tongbao.kernel.pages import Page
from tongbao.parties.terminals.devices import give_code
from tongbao.parties.terminals.inventory import (
    Place,
    PlacesKnown,
    TerminalFilter,
    heartbeats_of,
    list_terminals,
    move_terminal,
    place_terminal,
    terminal_of_merchant,
)
from tongbao.parties.terminals.limits import meter_of, set_limits
from tongbao.parties.terminals.model import (
    CODE_LIFE,
    PREFIX,
    Limits,
    Meter,
    Parameters,
    ParametersVersion,
    ParametersVersionUnknown,
    PlaceNotFound,
    Terminal,
    TerminalNotFound,
    TerminalState,
    TerminalStateWrong,
    TerminalView,
    view_terminal,
)
from tongbao.parties.terminals.parameters import roll_back, set_own_parameters, versions_of

_Why = Annotated[str, Meta(min_length=1, max_length=200)]


class Reason(Struct, frozen=True, forbid_unknown_fields=True):
    """Why something is done, for those who read it later."""

    reason: _Why


class PlaceTerminal(Struct, frozen=True, forbid_unknown_fields=True):
    """Where a terminal stands. A speaker that is bound to a plate tells what is paid there."""

    name: Annotated[str, Meta(max_length=64)] = ""
    plate_id: Annotated[str, Meta(max_length=64)] | None = None
    store_id: Annotated[str, Meta(max_length=64)] | None = None


class SetLimits(Struct, frozen=True, forbid_unknown_fields=True):
    """What a terminal may take, in minor units: at once, and in a business day."""

    currency: CurrencyField = "CNY"
    each: Annotated[int, Meta(ge=1)] | None = None
    count: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None
    amount: Annotated[int, Meta(ge=1)] | None = None


class SetParameters(Struct, frozen=True, forbid_unknown_fields=True):
    """A terminal's own parameters; they replace all that it had of its own."""

    parameters: Parameters
    reason: _Why


class RollBack(Struct, frozen=True, forbid_unknown_fields=True):
    """The version whose parameters come back."""

    version: Annotated[int, Meta(ge=1)]


class ActivationCodeView(Struct, frozen=True):
    """A code to type into the terminal, once; shown here only."""

    object: Literal["terminal_activation_code"]
    terminal_id: str
    serial: str
    code: str
    expires_at: datetime


class LimitsView(Struct, frozen=True):
    """A terminal's limits, the platform's caps over them, and what counts today."""

    object: Literal["terminal_limits"]
    terminal_id: str
    currency: str
    limits: Limits
    caps: Limits
    used_count: int
    used_amount: int


class ParametersView(Struct, frozen=True):
    """One version of what a terminal is to do."""

    object: Literal["terminal_parameters"]
    terminal_id: str
    version: int
    own: dict[str, Any]
    effective: dict[str, Any]
    reason: str
    made_at: datetime


@get("/v1/terminals", opt=needs("terminals:read"))
async def list_all_terminals(
    db: Db,
    caller: Caller,
    *,
    status: TerminalState | None = None,
    serial: str | None = None,
    cursor: str | None = None,
    limit: int | None = None,
) -> Page[TerminalView]:
    """Return the merchant's terminals, the newest first."""
    wanted = TerminalFilter(caller.merchant_id, caller.mode, status, serial)
    now = db.clock.now()
    page = await list_terminals(db, wanted, now=now, cursor=cursor, limit=limit)
    beats = await heartbeats_of(db, page.items)
    views = [view_terminal(each, beats.get(each.id), now) for each in page.items]
    return Page(views, page.next_cursor)


@get("/v1/terminals/{terminal_id:str}", opt=needs("terminals:read", refuses=[TerminalNotFound]))
async def get_terminal(terminal_id: str, db: Db, caller: Caller) -> TerminalView:
    """Return one terminal: where it stands, and what it said of itself last."""
    return await _view(db, await _of_caller(db, caller, terminal_id))


@post(
    "/v1/terminals/{terminal_id:str}/activation_codes",
    status_code=200,
    opt=needs("terminals:write", refuses=[TerminalNotFound, TerminalStateWrong]),
)
async def create_activation_code(terminal_id: str, db: Db, caller: Caller) -> ActivationCodeView:
    """Make the code with which a terminal gets its key. It replaces an earlier code.

    The terminal goes on with the key it has until the code is used.
    """
    async with db.begin(caller.actor) as tx:
        wanted = parse(PREFIX, terminal_id)
        code = await give_code(tx, wanted, (caller.merchant_id, caller.mode))
        terminal = await terminal_of_merchant(tx, wanted, caller.merchant_id, caller.mode)
        expires_at = tx.now + CODE_LIFE
    return ActivationCodeView(
        "terminal_activation_code", terminal_id, terminal.serial_number, code.reveal(), expires_at
    )


@post(
    "/v1/terminals/{terminal_id:str}/place",
    status_code=200,
    opt=needs(
        "terminals:write",
        refuses=[TerminalNotFound, PlaceNotFound],
        request_example=PlaceTerminal("counter 1", "plt_01jd2ch4cfe1z8q0v6y5m7n3xk"),
    ),
)
async def put_terminal(
    terminal_id: str, data: PlaceTerminal, db: Db, places: PlacesKnown, caller: Caller
) -> TerminalView:
    """Say where a terminal stands. What is left out it does not have any more. Safe to repeat."""
    wanted = Place(data.name, _maybe("sto", data.store_id), _maybe("plt", data.plate_id))
    owner = (caller.merchant_id, caller.mode)
    async with db.begin(caller.actor) as tx:
        placed = await place_terminal(tx, parse(PREFIX, terminal_id), owner, wanted, places)
    return await _view(db, placed)


@post(
    "/v1/terminals/{terminal_id:str}/suspend",
    status_code=200,
    opt=needs(
        "terminals:write",
        refuses=[TerminalNotFound, TerminalStateWrong],
        request_example=Reason("the shop is closed for a week"),
    ),
)
async def suspend_terminal(terminal_id: str, data: Reason, db: Db, caller: Caller) -> TerminalView:
    """Let a terminal take no payments and tell nothing for a while. Safe to repeat."""
    return await _move(db, caller, terminal_id, TerminalState.SUSPENDED, data.reason)


@post(
    "/v1/terminals/{terminal_id:str}/resume",
    status_code=200,
    opt=needs(
        "terminals:write",
        refuses=[TerminalNotFound, TerminalStateWrong],
        request_example=Reason("open again"),
    ),
)
async def resume_terminal(terminal_id: str, data: Reason, db: Db, caller: Caller) -> TerminalView:
    """Let a suspended terminal work again. Safe to repeat."""
    return await _move(db, caller, terminal_id, TerminalState.BOUND, data.reason)


@post(
    "/v1/terminals/{terminal_id:str}/report_stolen",
    status_code=204,
    opt=needs(
        "terminals:write",
        refuses=[TerminalNotFound, TerminalStateWrong],
        request_example=Reason("gone since last night"),
    ),
)
async def report_terminal_stolen(terminal_id: str, data: Reason, db: Db, caller: Caller) -> None:
    """Say that a terminal was stolen: its key ends at once, and it is the merchant's no more."""
    owner = (caller.merchant_id, caller.mode)
    async with db.begin(caller.actor) as tx:
        await move_terminal(
            tx,
            parse(PREFIX, terminal_id),
            TerminalState.STOLEN,
            because=data.reason,
            owner=owner,
        )


@get(
    "/v1/terminals/{terminal_id:str}/limits",
    opt=needs("terminals:read", refuses=[TerminalNotFound]),
)
async def get_terminal_limits(terminal_id: str, db: Db, caller: Caller) -> LimitsView:
    """Return a terminal's limits and what counts against them today."""
    terminal = await _of_caller(db, caller, terminal_id)
    return _limits(db, terminal, await meter_of(db, caller.book, terminal.id))


@post(
    "/v1/terminals/{terminal_id:str}/limits",
    status_code=200,
    opt=needs(
        "terminals:write",
        refuses=[TerminalNotFound, UnknownCurrency],
        request_example=SetLimits(each=50_000, amount=1_000_000),
    ),
)
async def limit_terminal(terminal_id: str, data: SetLimits, db: Db, caller: Caller) -> LimitsView:
    """Set what a terminal may take; what is left out is unlimited. Safe to repeat.

    The platform's caps stand over these limits, whatever they say.
    """
    wanted = Limits(data.each, data.count, data.amount)
    async with db.begin(caller.actor) as tx:
        terminal = await _of_caller(tx, caller, terminal_id)
        meter = await set_limits(tx, caller.book, terminal, wanted, currency=data.currency)
    return _limits(db, terminal, meter)


@get(
    "/v1/terminals/{terminal_id:str}/parameters",
    opt=needs("terminals:read", refuses=[TerminalNotFound]),
)
async def list_terminal_parameters(
    terminal_id: str, db: Db, caller: Caller
) -> Page[ParametersView]:
    """Return the versions of what a terminal is to do, latest first; the fifty last."""
    terminal = await _of_caller(db, caller, terminal_id)
    return Page([_version(each) for each in await versions_of(db, terminal.id)])


@post(
    "/v1/terminals/{terminal_id:str}/parameters",
    status_code=200,
    opt=needs(
        "terminals:write",
        refuses=[TerminalNotFound],
        request_example=SetParameters(Parameters(volume=9, language="zh"), "a noisy street"),
    ),
)
async def instruct_terminal(
    terminal_id: str, data: SetParameters, db: Db, caller: Caller
) -> TerminalView:
    """Tell a terminal what to do otherwise than its template; it fetches them on its heartbeat."""
    owner = (caller.merchant_id, caller.mode)
    async with db.begin(caller.actor) as tx:
        told = await set_own_parameters(
            tx, parse(PREFIX, terminal_id), data.parameters, why=data.reason, owner=owner
        )
    return await _view(db, told)


@post(
    "/v1/terminals/{terminal_id:str}/parameters/roll_back",
    status_code=200,
    opt=needs(
        "terminals:write",
        refuses=[TerminalNotFound, ParametersVersionUnknown],
        request_example=RollBack(3),
    ),
)
async def roll_back_terminal(
    terminal_id: str, data: RollBack, db: Db, caller: Caller
) -> TerminalView:
    """Give a terminal back what an old version said, as a new version."""
    owner = (caller.merchant_id, caller.mode)
    async with db.begin(caller.actor) as tx:
        told = await roll_back(tx, parse(PREFIX, terminal_id), data.version, owner=owner)
    return await _view(db, told)


ROUTES: Final[list[HTTPRouteHandler]] = [
    list_all_terminals,
    get_terminal,
    create_activation_code,
    put_terminal,
    suspend_terminal,
    resume_terminal,
    report_terminal_stolen,
    get_terminal_limits,
    limit_terminal,
    list_terminal_parameters,
    instruct_terminal,
    roll_back_terminal,
]


async def _of_caller(on: Db | Tx, caller: Caller, terminal_id: str) -> Terminal:
    wanted = parse(PREFIX, terminal_id)
    return await terminal_of_merchant(on, wanted, caller.merchant_id, caller.mode)


async def _move(
    db: Db, caller: Caller, terminal_id: str, to: TerminalState, because: str
) -> TerminalView:
    owner = (caller.merchant_id, caller.mode)
    async with db.begin(caller.actor) as tx:
        moved = await move_terminal(
            tx, parse(PREFIX, terminal_id), to, because=because, owner=owner
        )
    return await _view(db, moved)


async def _view(db: Db, terminal: Terminal) -> TerminalView:
    beats = await heartbeats_of(db, [terminal])
    return view_terminal(terminal, beats.get(terminal.id), db.clock.now())


def _limits(db: Db, terminal: Terminal, meter: Meter) -> LimitsView:
    count, amount = meter.used_at(business_date(db.clock.now()))
    return LimitsView(
        "terminal_limits",
        show(PREFIX, terminal.id),
        meter.currency,
        Limits(meter.limit_each, meter.limit_count, meter.limit_amount),
        Limits(meter.cap_each, meter.cap_count, meter.cap_amount),
        count,
        amount,
    )


def _version(found: ParametersVersion) -> ParametersView:
    return ParametersView(
        "terminal_parameters",
        show(PREFIX, found.terminal_id),
        found.version,
        found.own,
        found.effective,
        found.why,
        found.made_at,
    )


def _maybe(prefix: str, shown: str | None) -> UUID | None:
    return None if shown is None else parse(prefix, shown)

"""Where people sign in at terminals: mounted beside the API, signed by the terminal's own key.

    GET  /terminals/v1/staff                             who may sign in here
    POST /terminals/v1/staff/pins                        code and PIN ─► the PIN is in force
    POST /terminals/v1/staff/sessions                    who and PIN  ─► a session, here alone
    POST /terminals/v1/staff/sessions/{id}/sign_out
    …    /terminals/v1/staff/sessions/{id}/v1/payments   as in the API, within the person's role

The session's id is no secret: it is good under the terminal's key alone, and is signed with the
path. So a request that was sent before somebody else signed in is never taken for theirs.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, MutableMapping
from datetime import datetime
from typing import Annotated, Any, Final, Literal, Protocol
from urllib.parse import quote
from uuid import UUID

import msgspec
from msgspec import Meta, Struct

from tongbao.infra.admission.authentication import (
    KeyUnknown,
    SignedRequest,
    authenticate,
    nonces_of,
)
from tongbao.infra.crypto import Keyring
from tongbao.infra.db import Db
from tongbao.infra.serving.asgi import Receive, Send, target_of
from tongbao.infra.web.caller import AtTill, Caller
from tongbao.infra.web.problem import MethodNotAllowed, RouteUnknown
from tongbao.infra.web.request import decode
from tongbao.kernel.ids import UnknownId, parse, show
from tongbao.parties.staff.model import (
    PREFIX,
    SESSION,
    StaffRole,
    TillAct,
    TillSessionOver,
    acts_of,
    check_may,
)
from tongbao.parties.staff.tills import people_at, set_pin, sign_in, sign_out, signed_in
from tongbao.parties.terminals.devices import TerminalKeys
from tongbao.parties.terminals.inventory import terminal_with_id
from tongbao.parties.terminals.model import Terminal

TILLS_PREFIX: Final = "/terminals/v1/staff"
_SESSION: Final = re.compile(r"/sessions/([^/]{1,64})(/.+)")
_ONE: Final = "[^/]{1,64}"

Scope = MutableMapping[str, Any]


class Offered(Struct, frozen=True):
    """A request of the API that a till may make: what it is, and the scope that its route needs."""

    method: str
    path: re.Pattern[str]
    act: TillAct
    scope: str


OFFERED: Final = tuple(
    Offered(method, re.compile(path), act, scope)
    for method, path, act, scope in (
        ("POST", "/v1/payments", TillAct.TAKE, "payments:write"),
        ("GET", "/v1/payments", TillAct.LOOK, "payments:read"),
        ("GET", f"/v1/payments/{_ONE}", TillAct.LOOK, "payments:read"),
        ("POST", f"/v1/payments/{_ONE}/close", TillAct.CALL_OFF, "payments:write"),
        ("POST", f"/v1/payments/{_ONE}/capture", TillAct.CAPTURE, "payments:write"),
        ("POST", f"/v1/payments/{_ONE}/void", TillAct.VOID, "payments:write"),
        ("POST", f"/v1/payments/{_ONE}/refunds", TillAct.REFUND, "refunds:write"),
        ("GET", "/v1/refunds", TillAct.LOOK_AT_REFUNDS, "refunds:read"),
        ("GET", f"/v1/refunds/{_ONE}", TillAct.LOOK_AT_REFUNDS, "refunds:read"),
    )
)
"""All that there is at a till; whatever is not here does not exist there."""


class ServesFor(Protocol):
    """The API, as it serves a caller who is proved."""

    async def serve_for(self, caller: Caller, scope: Scope, receive: Receive, send: Send) -> None:
        """Route and decode a request and answer it."""


class SetPin(Struct, frozen=True, forbid_unknown_fields=True):
    """A person's new PIN, with the code that their merchant gave them."""

    staff_id: Annotated[str, Meta(max_length=64)]
    code: Annotated[str, Meta(min_length=1, max_length=64)]
    pin: Annotated[str, Meta(min_length=1, max_length=64)]

    def __repr__(self) -> str:
        return "SetPin(…)"


class SignIn(Struct, frozen=True, forbid_unknown_fields=True):
    """Who stands at the terminal."""

    staff_id: Annotated[str, Meta(max_length=64)]
    pin: Annotated[str, Meta(min_length=1, max_length=64)]

    def __repr__(self) -> str:
        return "SignIn(…)"


class PersonView(Struct, frozen=True):
    """Somebody who may sign in at the terminal."""

    staff_id: str
    name: str
    role: StaffRole


class PeopleView(Struct, frozen=True):
    """Everybody who may sign in at the terminal."""

    items: list[PersonView]


class SessionView(Struct, frozen=True):
    """A person at the till: what they may do there, and until when without signing in again."""

    id: str
    object: Literal["till_session"]
    staff_id: str
    name: str
    role: StaffRole
    may: list[TillAct]
    ends_at: datetime


class TillApp:
    """An ASGI application to mount at ``/terminals/v1/staff``."""

    def __init__(self, db: Db, keyring: Keyring, api: ServesFor) -> None:
        self._db = db
        self._keyring = keyring
        self._nonces = nonces_of(db)
        self._keys = TerminalKeys(db, keyring)
        self._api = api
        self._views: dict[str, tuple[str, Callable[[Scope, Terminal], Awaitable[Struct]]]] = {
            "": ("GET", self._people),
            "/pins": ("POST", self._set_pin),
            "/sessions": ("POST", self._sign_in),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request of a terminal.

        Raises:
            RouteUnknown, MethodNotAllowed, KeyUnknown, what a signature may lack, and what the
            views refuse
        """
        path = scope["path"].removeprefix(TILLS_PREFIX)
        found = _SESSION.fullmatch(path)
        if path not in self._views and found is None:
            raise RouteUnknown
        caller, terminal = await self._proved(scope)
        if found is not None:
            await self._act(caller, terminal, found, scope=scope, ways=(receive, send))
            return
        method, view = self._views[path]
        if scope["method"] != method:
            raise MethodNotAllowed(allow=method)
        await _answer(send, await view(scope, terminal))

    async def _proved(self, scope: Scope) -> tuple[Caller, Terminal]:
        values = tuple(v.decode("latin-1") for n, v in scope["headers"] if n == b"authorization")
        signed = SignedRequest(scope["method"], target_of(scope), scope["state"]["body"], values)
        caller = (await authenticate(signed, self._keys, self._nonces)).caller
        terminal = await terminal_with_id(self._db, caller.key_id)
        if (terminal.merchant_id, terminal.mode) != (caller.merchant_id, caller.mode):
            raise KeyUnknown  # it was taken back, or given to another merchant, a moment ago
        return caller, terminal

    async def _act(
        self,
        caller: Caller,
        terminal: Terminal,
        found: re.Match[str],
        *,
        scope: Scope,
        ways: tuple[Receive, Send],
    ) -> None:
        """Serve a request of the API for who is signed in, or sign them out.

        Raises:
            RouteUnknown, TerminalSuspended, TillSessionOver, StaffMayNot
        """
        session_id, inner = _session_id(found[1]), found[2]
        if (scope["method"], inner) == ("POST", "/sign_out"):
            await sign_out(self._db, terminal, session_id)
            await _answer(ways[1], SignedOut("till_session", show(SESSION, session_id)))
            return
        offered = _offered(scope["method"], inner)
        here = await signed_in(self._db, terminal, session_id)
        check_may(here.staff.role, offered.act)
        acting = msgspec.structs.replace(
            caller,
            scopes=frozenset({offered.scope}),
            till=AtTill(here.staff.id, terminal.id),
        )
        inside = {**scope, "path": inner, "raw_path": quote(inner).encode()}
        await self._api.serve_for(acting, inside, *ways)

    async def _people(self, _scope: Scope, terminal: Terminal) -> Struct:
        people = await people_at(self._db, terminal)
        shown = [PersonView(show(PREFIX, each.id), each.name_masked, each.role) for each in people]
        return PeopleView(shown)

    async def _set_pin(self, scope: Scope, terminal: Terminal) -> Struct:
        asked: SetPin = decode(scope["state"]["body"], SetPin)
        who = parse(PREFIX, asked.staff_id)
        await set_pin(self._db, self._keyring, terminal, who, code=asked.code, pin=asked.pin)
        return PinView("staff_pin", show(PREFIX, who))

    async def _sign_in(self, scope: Scope, terminal: Terminal) -> Struct:
        asked: SignIn = decode(scope["state"]["body"], SignIn)
        here = await sign_in(
            self._db, self._keyring, terminal, parse(PREFIX, asked.staff_id), asked.pin
        )
        return SessionView(
            id=show(SESSION, here.session.id),
            object="till_session",
            staff_id=show(PREFIX, here.staff.id),
            name=here.staff.name_masked,
            role=here.staff.role,
            may=acts_of(here.staff.role),
            ends_at=here.session.ends_at,
        )


class PinView(Struct, frozen=True):
    """Whose PIN is in force now."""

    object: Literal["staff_pin"]
    staff_id: str


class SignedOut(Struct, frozen=True):
    """The session that is over."""

    object: Literal["till_session"]
    id: str


def _offered(method: str, path: str) -> Offered:
    """Return what a request is at a till.

    Raises:
        RouteUnknown, MethodNotAllowed
    """
    here = [each for each in OFFERED if each.path.fullmatch(path)]
    if not here:
        raise RouteUnknown
    for each in here:
        if each.method == method:
            return each
    raise MethodNotAllowed(allow=", ".join(sorted({each.method for each in here})))


def _session_id(shown: str) -> UUID:
    """Return the id of a session; one that is none was never opened.

    Raises:
        TillSessionOver
    """
    try:
        return parse(SESSION, shown)
    except UnknownId:
        raise TillSessionOver from None


async def _answer(send: Send, view: Struct) -> None:
    body = msgspec.json.encode(view)
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})

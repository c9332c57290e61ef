"""Where terminals call: mounted beside the API, with keys of their own.

POST /terminals/v1/activate     serial number and code  ─► the terminal's key, once
POST /terminals/v1/heartbeat    "I am here"             ─► which parameters it should run
GET  /terminals/v1/parameters                           ─► those
GET  /terminals/v1/notices      server-sent events      ─► what it is to say and print
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from datetime import datetime
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

from tongbao.infra.admission.authentication import (
    KeyUnknown,
    SignedRequest,
    authenticate,
    nonces_of,
    prove,
)
from tongbao.infra.crypto import Keyring
from tongbao.infra.db import Db
from tongbao.infra.web.problem import MethodNotAllowed, RouteUnknown
from tongbao.infra.web.request import decode
from tongbao.kernel.clock import real_now
from tongbao.kernel.ids import show
from tongbao.parties.terminals.devices import (
    Beat,
    Heartbeats,
    TerminalKeys,
    activate,
)
from tongbao.parties.terminals.inventory import terminal_with_id
from tongbao.parties.terminals.model import PREFIX as TERMINAL
from tongbao.parties.terminals.model import TerminalState
from tongbao.parties.terminals.parameters import parameters_of
from tongbao.payments.terminal_notices.model import LastEventMalformed
from tongbao.payments.terminal_notices.streams import Receive, Send, Streams

TERMINALS_PREFIX: Final = "/terminals"
_LAST_EVENT: Final = b"last-event-id"
_DIGITS_MAX: Final = 18

Scope = MutableMapping[str, Any]


class Activate(Struct, frozen=True, forbid_unknown_fields=True):
    """A terminal's first word."""

    serial: Annotated[str, Meta(min_length=4, max_length=64)]
    code: Annotated[str, Meta(min_length=1, max_length=64)]


class ActivatedView(Struct, frozen=True):
    """A terminal's key; the secret is shown in this answer only."""

    terminal_id: str
    key_id: str
    secret: str
    server_time: datetime


class BeatSaid(Struct, frozen=True, forbid_unknown_fields=True):
    """What a terminal says of itself. ``heard``: the id of the last notice it has told."""

    firmware: Annotated[str, Meta(max_length=64)] = ""
    battery: Annotated[int, Meta(ge=0, le=100)] | None = None
    signal: Annotated[int, Meta(ge=0, le=100)] | None = None
    parameters_version: Annotated[int, Meta(ge=0, le=2**31 - 1)] = 0
    heard: Annotated[int, Meta(ge=0, le=10**_DIGITS_MAX)] = 0


class BeatView(Struct, frozen=True):
    """How a terminal stands with us; it fetches its parameters where it runs another version."""

    status: TerminalState
    parameters_version: int
    server_time: datetime


class ParametersNow(Struct, frozen=True):
    """What a terminal is to do."""

    version: int
    parameters: dict[str, Any]


class TerminalApp:
    """An ASGI application to mount at ``/terminals``."""

    def __init__(self, db: Db, keyring: Keyring, streams: Streams) -> None:
        self._db = db
        self._nonces = nonces_of(db)
        self._keyring = keyring
        self._streams = streams
        self._keys = TerminalKeys(db, keyring)
        self._beats = Heartbeats(db)
        self._views: Mapping[str, tuple[str, Callable[..., Awaitable[None]]]] = {
            f"{TERMINALS_PREFIX}/v1/activate": ("POST", self._activate),
            f"{TERMINALS_PREFIX}/v1/heartbeat": ("POST", self._beat),
            f"{TERMINALS_PREFIX}/v1/parameters": ("GET", self._parameters),
            f"{TERMINALS_PREFIX}/v1/notices": ("GET", self._notices),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request of a terminal.

        Raises:
            RouteUnknown, MethodNotAllowed, and what the views refuse
        """
        if scope["path"] not in self._views:
            raise RouteUnknown
        method, view = self._views[scope["path"]]
        if scope["method"] != method:
            raise MethodNotAllowed(allow=method)
        await view(scope, receive, send)

    async def _activate(self, scope: Scope, _receive: Receive, send: Send) -> None:
        asked: Activate = decode(scope["state"]["body"], Activate)
        made = await activate(self._db, self._keyring, asked.serial, asked.code)
        view = ActivatedView(
            terminal_id=show(TERMINAL, made.terminal.id),
            key_id=show("key", made.terminal.id),
            secret=made.secret.reveal(),
            server_time=real_now(),
        )
        await _answer(send, view)

    async def _beat(self, scope: Scope, _receive: Receive, send: Send) -> None:
        said, key = await prove(_signed(scope), self._keys)
        asked: BeatSaid = decode(scope["state"]["body"] or b"{}", BeatSaid)
        beat = Beat(said.timestamp, **msgspec.structs.asdict(asked))
        standing = await self._beats.beat(key.caller.key_id, beat)
        if standing is None or not standing.state.is_placed:
            raise KeyUnknown
        view = BeatView(standing.state, standing.parameters_version, real_now())
        await _answer(send, view)

    async def _parameters(self, scope: Scope, _receive: Receive, send: Send) -> None:
        caller = (await authenticate(_signed(scope), self._keys, self._nonces)).caller
        terminal = await terminal_with_id(self._db, caller.key_id)
        await _answer(send, ParametersNow(*await parameters_of(self._db, terminal)))

    async def _notices(self, scope: Scope, receive: Receive, send: Send) -> None:
        caller = (await authenticate(_signed(scope), self._keys, self._nonces)).caller
        await self._streams.serve(caller, _last_heard(scope), receive, send)


def _signed(scope: Scope) -> SignedRequest:
    path: bytes = scope.get("raw_path") or scope["path"].encode()
    query: bytes = scope["query_string"]
    return SignedRequest(
        scope["method"],
        (path + b"?" + query if query else path).decode("latin-1"),
        scope["state"]["body"],
        tuple(v.decode("latin-1") for n, v in scope["headers"] if n == b"authorization"),
    )


def _last_heard(scope: Scope) -> int | None:
    """Return the number of the last notice a terminal has, if it says one.

    Raises:
        LastEventMalformed
    """
    said = [value for name, value in scope["headers"] if name == _LAST_EVENT]
    if not said or said == [b""]:
        return None
    if len(said) > 1 or not said[0].isdigit() or len(said[0]) > _DIGITS_MAX:
        raise LastEventMalformed
    return int(said[0])


async def _answer(send: Send, view: Struct) -> None:
    body = msgspec.json.encode(view)
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})

"""What the server does before the application sees a request: bounds, and the short way in.

The server's parser takes headers of any size for any time, from anybody; the application's own
limits begin with the body. A request for a hot route is handed to its door directly once it is
whole, without a task and the messages of ASGI, which cost more than the route itself. One that is
not whole soon goes through ASGI.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, MutableMapping, Sequence
from functools import partial
from typing import Any, Final, Protocol, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from tongbao.infra.client_certificates import PEER

HEAD_BYTES_MAX: Final = 64 * 1024
"""Request line and headers, beyond the bytes that arrive together with the first of them; and what
comes beside a body, such as trailers: the parser copies a line anew with every piece of it."""
MESSAGE_BYTES_MAX: Final = 12 * 1024 * 1024
"""Everything: a file of the largest size, or a body of JSON in the smallest chunks."""
HEAD_SECONDS_MAX: Final = 20.0
WHOLE_WITHIN_S: Final = 0.5
"""How long a request for the door may take to follow its head; many send the body by itself."""

_TOO_LARGE: Final = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"connection: close\r\ncontent-length: 0\r\n\r\n"
)


Scope = MutableMapping[str, Any]


class Door(Protocol):
    """Takes whole requests of hot routes; `infra.hot_routes.HotDoor` is one."""

    def may_take(self, scope: Scope) -> bool:
        """Return whether it has a route for it."""

    def take(
        self,
        scope: Scope,
        body: bytes,
        answered: Callable[[bytes, bytes], None],
        handed_over: Callable[[], None],
    ) -> None:
        """Answer with the lines of a head and a body, or hand the request over."""

    async def ask(self, scope: Scope, body: bytes) -> bytes | None:
        """Return the JSON of what was created, or None where the application shall answer."""


class BoundedHttpProtocol(HttpToolsProtocol):
    """One connection: uvicorn's, closed when a message is too large or its head too slow."""

    door: Door | None = None  # of the class that `protocol_with` makes
    _whole: RequestResponseCycle | None = None  # begun, and for the door if it is whole at once
    _steps = 0  # beginnings, heads and ends of messages so far
    _received = 0  # bytes since the last step
    _bodiless = 0  # bytes since then, or since the last piece of a body
    _reads_head = True
    _in_head = False  # a head has begun and is not whole
    _head_timer: asyncio.TimerHandle | None = None
    _whole_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request's head."""
        super().connection_made(transport)
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._stop_timer()
        self._taken_whole()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what arrived and give up on a message that is larger than any we take."""
        before = self._steps
        self._bodiless += len(data)
        super().data_received(data)
        if self._whole is not None and not self.transport.is_closing():  # else it was told 400
            self._hand_in_whole(self._whole)
        if self._in_head:  # most heads come whole, and need no timer
            self._start_timer()
        if self._steps != before:
            self._received = self._bodiless = 0
            return
        self._received += len(data)
        if self._bodiless > HEAD_BYTES_MAX or self._received > MESSAGE_BYTES_MAX:
            self._give_up()
        elif self._reads_head:
            self._start_timer()

    def on_message_begin(self) -> None:
        """Count from here, and note who sends before a header says for whom."""
        self._steps += 1
        self._in_head = True
        super().on_message_begin()
        if self.client is not None:
            self.scope["state"][PEER] = self.client[0]

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header, and leave a trailer: it is none (RFC 9110 §6.5.1), and no proxy saw it."""
        if self._in_head:
            super().on_header(name, value)

    def on_body(self, body: bytes) -> None:
        """Count what is no body from here."""
        self._bodiless = 0
        super().on_body(body)

    def on_headers_complete(self) -> None:
        """Let the body have the application's own limits, and speak no other protocol.

        After a request for one, such as h2c, the parser takes all that follows for that protocol:
        it would begin anew within the request's own body, and serve what is hidden there.
        """
        self._steps += 1
        self._reads_head = self._in_head = False
        self._stop_timer()
        is_upgrade = self.parser.should_upgrade()
        if is_upgrade and any(map(_announces_body, self.headers)):
            raise ValueError("asks for another protocol and brings a body")  # it is told 400
        super().on_headers_complete()
        if is_upgrade and self.cycle is not None:
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        """Expect the next head."""
        self._steps += 1
        self._reads_head = True
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Go on with a request that came while this one was answered, maybe without its body."""
        super().on_response_complete()
        if self._whole is not None:
            self._hand_in_whole(self._whole)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        """Begin a request, which takes the short way when it is for the door and arrives whole."""
        scope = cast("Scope", cycle.scope)
        if self.door is None or app is not self.app or not self.door.may_take(scope):
            super()._start_asgi_task(cycle, app)
        elif cycle.more_body:
            self._whole = cycle  # until the bytes at hand are parsed
        else:
            self._hand_in(cycle)

    def _hand_in_whole(self, cycle: RequestResponseCycle) -> None:
        """Hand in a request once it is whole, or is not going to be soon."""
        goes_on = cycle.more_body and not cycle.waiting_for_100_continue
        if goes_on and not self.flow.read_paused:
            if self._whole_timer is None:
                self._whole_timer = self.loop.call_later(WHOLE_WITHIN_S, self._wait_no_more)
        else:
            self._taken_whole()
            self._hand_in(cycle)

    def _wait_no_more(self) -> None:
        cycle = self._taken_whole()
        if cycle is not None and not self.transport.is_closing():
            self._hand_in(cycle)

    def _taken_whole(self) -> RequestResponseCycle | None:
        """Return the request that was waited for, which is waited for no more."""
        if self._whole_timer is not None:
            self._whole_timer.cancel()
            self._whole_timer = None
        cycle, self._whole = self._whole, None
        return cycle

    def _hand_in(self, cycle: RequestResponseCycle) -> None:
        door, ordinary = self.door, partial(super()._start_asgi_task, cycle, self.app)
        is_whole = not (cycle.more_body or cycle.waiting_for_100_continue)
        # Who does not read its answers takes the way that waits until it does.
        if door is None or not is_whole or self.flow.write_paused:
            ordinary()
            return
        scope = cast("Scope", cycle.scope)
        if any(name == b"x-forwarded-for" for name, _ in scope["headers"]):
            _see_through_proxy(scope, self.app)
        door.take(scope, bytes(cycle.body), partial(self._answer, cycle), ordinary)

    def _answer(self, cycle: RequestResponseCycle, head: bytes, body: bytes) -> None:
        """Send a whole answer, unless nobody is there to hear it."""
        # The server marks only the newest request of a connection that is lost, and uvloop raises
        # where one writes to what is closed: to whoever is being told of a whole set of payments.
        if cycle.disconnected or self.transport.is_closing():
            return
        end = b"\r\n" if cycle.keep_alive else b"connection: close\r\n\r\n"
        standing = [b"%b: %b\r\n" % header for header in cycle.default_headers]
        self.transport.write(b"".join([head, *standing, end, body]))
        cycle.response_started = cycle.response_complete = True
        if not cycle.keep_alive:
            self.transport.close()
        cycle.on_response()

    def _start_timer(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_SECONDS_MAX, self.transport.close)

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _give_up(self) -> None:
        """Close; say why only where no other answer is under way."""
        if self.transport.is_closing():
            return
        if self._reads_head and (self.cycle is None or self.cycle.response_complete):
            self.transport.write(_TOO_LARGE)
        self.transport.close()


def _announces_body(header: tuple[bytes, bytes]) -> bool:
    name, value = header
    return name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0") != b"")


def protocol_with(door: Door | None) -> type[BoundedHttpProtocol]:
    """Return the protocol of a server whose hot routes are behind the door."""
    return type("HttpProtocolWithDoor", (BoundedHttpProtocol,), {"door": door})


def _see_through_proxy(scope: Scope, app: Any) -> None:
    """Put in the client whom a trusted proxy names, as uvicorn does in front of the application."""
    trusted, client = getattr(app, "trusted_hosts", None), scope.get("client")
    if trusted is None or client is None or client[0] not in trusted:
        return
    named: Sequence[bytes] = [
        value for name, value in scope["headers"] if name == b"x-forwarded-for"
    ]
    host, port = trusted.get_trusted_client_address(b", ".join(named).decode("latin1"))
    if host:
        scope["client"] = (host, port)

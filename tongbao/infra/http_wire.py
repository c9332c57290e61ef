"""HTTP/1.1 towards others: connections that stay open, one request at a time on each.

A call of the hot path costs what it must: one write, one parser in C, one future. What a call got
to when it failed is in its `Progress`: before the first byte was written nothing can have happened.
"""

from __future__ import annotations

import asyncio
import re
import select
import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

import httptools
from msgspec import Struct

from tongbao.kernel.clock import monotonic

CONNECT_TIMEOUT_S: Final = 10.0
CONNECTIONS_MAX: Final = 200
IDLE_CONNECTIONS_MAX: Final = 50
IDLE_S: Final = 15.0
ADDRESSES_TRIED_MAX: Final = 3
HEAD_MAX_BYTES: Final = 64 * 1024
"""Of all that comes beside a body: heads, trailers, and what may stand between chunks."""
HEADERS_MAX: Final = 256

_PORTS: Final = {"http": 80, "https": 443}
_SWITCHING: Final = 101
_OURS_TO_SAY: Final = frozenset({"host", "content-length", "transfer-encoding", "connection"})
# RFC 9110 §5.1 and §5.5: a name is a token, and a value never ends its line.
_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*")

Addresses = Callable[[str, int], Awaitable[Sequence[str]]]
"""Resolves a name to addresses that may be called."""


class CallFailed(Exception):
    """The call ended without a whole answer; the text says why."""


class ConnectError(CallFailed):
    """No connection came about."""


class LocalProtocolError(CallFailed):
    """The request cannot be written down."""


class RemoteProtocolError(CallFailed):
    """What came back is no answer, or not a whole one."""


class ReplyTooLarge(CallFailed):
    """The answer is larger than its caller takes."""


class Answer(Struct, frozen=True):
    """A whole answer; header names are lower case, and values of one name are joined."""

    status: int
    headers: dict[str, str]
    body: bytes


class Place(Struct, frozen=True):
    """Where a URL points, and how a request names it."""

    scheme: str
    host: str
    port: int
    target: str
    named: str

    @property
    def key(self) -> tuple[str, str, int]:
        """Return what connections that serve it share."""
        return self.scheme, self.host, self.port


class Progress:
    """How far a call got."""

    __slots__ = ("sending", "step")

    def __init__(self) -> None:
        self.step = "waiting"
        self.sending = False


class Connection(asyncio.Protocol):
    """One connection, which carries one request at a time."""

    def __init__(self) -> None:
        self.transport: Any = None
        self.idle_since = 0.0
        self._answer: asyncio.Future[Answer] | None = None
        self._unread: select.poll | None = None
        self._lost = False
        self._keeps = False
        self._begin(0)

    @property
    def usable(self) -> bool:
        """Whether another request may be written."""
        return self._keeps and not self._lost and not self.transport.is_closing()

    @property
    def lost(self) -> bool:
        """Whether it has ended, so that nothing that is written goes anywhere."""
        return self._lost

    def ask(self, request: bytes, body_max: int) -> asyncio.Future[Answer]:
        """Write a request and return the answer to come."""
        self._begin(body_max)
        self._answer = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return self._answer

    def close(self) -> None:
        """Close now, whatever is under way."""
        self._lost = True
        if self.transport is not None:
            self.transport.abort()

    def has_spoken(self) -> bool:
        """Whether bytes, or its end, wait unread: none of that answers what is asked next."""
        if self._unread is None:
            self._unread = select.poll()
            self._unread.register(self.transport.get_extra_info("socket").fileno(), select.POLLIN)
        return bool(self._unread.poll(0))

    def _begin(self, body_max: int) -> None:
        self._body_max = body_max
        self._bodiless = 0  # bytes since the last piece of the body
        self._keeps = False
        self._parser = httptools.HttpResponseParser(self)
        self._expect()

    def _expect(self) -> None:
        self._in_head = True
        self._headers: dict[str, str] = {}
        self._headers_left = HEADERS_MAX
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._status = 0

    # What the transport says

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember where to write."""
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Parse what arrived; what nobody asked for ends the connection."""
        if self._answer is None or self._answer.done():
            self.close()
            return
        self._bodiless += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as failure:
            cause = failure.__context__
            self._fail(cause if isinstance(cause, CallFailed) else _broken(failure))
            return
        if self._bodiless > HEAD_MAX_BYTES and not self._answer.done():
            self._fail(RemoteProtocolError("head or trailers too large"))

    def eof_received(self) -> bool:
        """Take the end for the answer's, where nothing else says how long it is."""
        if self._answer is not None and not self._answer.done() and self._ends_with_connection():
            self._complete()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """End what is under way."""
        self._lost = True
        if self._answer is not None and not self._answer.done():
            if exc is None and self._ends_with_connection():
                self._complete()
                return
            reason = "closed before a whole answer" if exc is None else type(exc).__name__
            self._answer.set_exception(RemoteProtocolError(reason))

    # What the parser says

    def on_message_begin(self) -> None:
        """Refuse a second answer where one was asked for."""
        if self._answer is None or self._answer.done():
            raise RemoteProtocolError("says more than was asked")

    def on_header(self, raw_name: bytes, raw_value: bytes) -> None:
        """Take a header; several of one name are one list. A trailer is none (RFC 9110 §6.5.1)."""
        if not self._in_head:
            return
        self._headers_left -= 1
        if self._headers_left < 0:
            raise RemoteProtocolError("too many headers")
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        before = self._headers.get(name)
        self._headers[name] = value if before is None else f"{before}, {value}"

    def on_headers_complete(self) -> None:
        """Look whether it is an answer that can be taken."""
        self._in_head = False
        self._status = self._parser.get_status_code()
        if self._status == _SWITCHING:
            raise RemoteProtocolError("switches to another protocol")
        if self._status >= 200 and self._headers.get("content-encoding", "identity") != "identity":
            raise RemoteProtocolError("reply encoded although asked not to be")

    def on_body(self, piece: bytes) -> None:
        """Take a piece, as long as there may be more."""
        self._bodiless = 0
        self._body_bytes += len(piece)
        if self._body_bytes > self._body_max:
            raise ReplyTooLarge(f"reply larger than {self._body_max} bytes")
        self._body.append(piece)

    def on_message_complete(self) -> None:
        """Answer, unless it was word that the answer is on its way."""
        if self._status < 200:
            self._expect()
            return
        self._keeps = self._parser.should_keep_alive()
        self._complete()

    def _ends_with_connection(self) -> bool:
        says_length = "content-length" in self._headers or "transfer-encoding" in self._headers
        return not self._in_head and self._status >= 200 and not says_length

    def _complete(self) -> None:
        if self._answer is not None and not self._answer.done():
            body = b"".join(self._body)
            self._answer.set_result(Answer(self._status, self._headers, body))

    def _fail(self, why: CallFailed) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(why)
        self.close()


class Wire:
    """Connections to others, kept open between calls."""

    def __init__(self, addresses: Addresses, tls: Callable[[], ssl.SSLContext]) -> None:
        self._addresses = addresses
        self._tls = tls
        self._idle: dict[tuple[str, str, int], deque[Connection]] = {}
        self._places = asyncio.Semaphore(CONNECTIONS_MAX)
        self._sweeping: asyncio.TimerHandle | None = None

    async def call(
        self,
        method: str,
        url: SplitResult,
        headers: Mapping[str, str],
        body: bytes,
        *,
        reply_max_bytes: int,
        progress: Progress,
        timeout_s: float,
    ) -> Answer:
        """Send one request and return the whole answer; ``progress`` says how far it got.

        ``timeout_s`` is for everything together.

        Raises:
            CallFailed, TimeoutError
        """
        began, place = monotonic(), place_of(url)
        request = _written(method, place, headers, body)
        if self._places.locked():
            async with asyncio.timeout(timeout_s):
                await self._places.acquire()
        else:
            await self._places.acquire()
        try:
            connection = self._at_hand(place.key)
            if connection is None:
                async with asyncio.timeout(timeout_s - (monotonic() - began)):
                    connection = await self._connected(place, progress)
            if connection.lost:
                raise ConnectError("closed before anything was sent")
            progress.step, progress.sending = "send_request", True
            # A time-out of the library's own costs as much as to write the request.
            asked = connection.ask(request, reply_max_bytes)
            left = timeout_s - (monotonic() - began)
            late = asyncio.get_running_loop().call_later(left, _time_out, asked)
            try:
                answer = await asked
            except BaseException:
                connection.close()
                raise
            finally:
                late.cancel()
            self._put_back(place.key, connection)
            return answer
        finally:
            self._places.release()

    def close(self) -> None:
        """Close every connection that nobody uses now."""
        for connections in self._idle.values():
            for connection in connections:
                connection.close()
        self._idle.clear()
        if self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None

    def _at_hand(self, key: tuple[str, str, int]) -> Connection | None:
        """Return a connection that is open and at rest."""
        idle = self._idle.get(key)
        while idle:
            connection = idle.pop()
            is_fresh = monotonic() - connection.idle_since < IDLE_S
            if connection.usable and is_fresh and not connection.has_spoken():
                return connection
            connection.close()
        return None

    async def _connected(self, place: Place, progress: Progress) -> Connection:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            progress.step = "connect_tcp"
            connection = await self._opened(place.host, place.port)
            if place.scheme == "https":
                progress.step = "start_tls"
                await self._secured(connection, place.host)
        return connection

    async def _opened(self, host: str, port: int) -> Connection:
        loop = asyncio.get_running_loop()
        failure: Exception = ConnectError("name not resolved")
        for address in (await self._addresses(host, port))[:ADDRESSES_TRIED_MAX]:
            try:
                _, connection = await loop.create_connection(Connection, address, port)
            except OSError as refused:
                failure = ConnectError(type(refused).__name__)
            else:
                return connection
        raise failure

    async def _secured(self, connection: Connection, host: str) -> None:
        loop, plain = asyncio.get_running_loop(), connection.transport
        try:
            connection.transport = await loop.start_tls(
                plain, connection, self._tls(), server_hostname=host
            )
        except BaseException:
            plain.abort()
            raise

    def _put_back(self, key: tuple[str, str, int], connection: Connection) -> None:
        idle = sum(map(len, self._idle.values()))
        if not connection.usable or idle >= IDLE_CONNECTIONS_MAX:
            connection.close()
            return
        connection.idle_since = monotonic()
        self._idle.setdefault(key, deque()).append(connection)
        if self._sweeping is None:
            self._sweeping = asyncio.get_running_loop().call_later(IDLE_S, self._sweep)

    def _sweep(self) -> None:
        """Close what was idle for too long; the other side will have had enough of it, too."""
        self._sweeping = None
        before = monotonic() - IDLE_S
        for key, connections in list(self._idle.items()):
            while connections and connections[0].idle_since <= before:
                connections.popleft().close()
            if not connections:
                del self._idle[key]
        if self._idle:
            self._sweeping = asyncio.get_running_loop().call_later(IDLE_S, self._sweep)


@lru_cache(maxsize=4096)
def parts_of(url: str) -> tuple[SplitResult | None, str | None]:
    """Return the parts of a URL, or why nobody is called by it; most are called often."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # refuses what is no number, or too large
    except ValueError:
        return None, "not a URL"
    printable = url.isascii() and url.isprintable() and " " not in url and "\\" not in url
    if parts.scheme not in {"http", "https"} or not parts.hostname or not printable:
        return None, "not an http URL"
    if "@" in parts.netloc or "#" in url:
        return None, "carries credentials or a fragment"
    return parts, None


@lru_cache(maxsize=4096)
def place_of(url: SplitResult) -> Place:
    """Return where a URL points; most are called again and again."""
    port = url.port or _PORTS[url.scheme]
    target = (url.path or "/") + (f"?{url.query}" if url.query else "")
    is_usual = url.port is not None and port == _PORTS[url.scheme]
    named = url.netloc.rpartition(":")[0] if is_usual else url.netloc
    return Place(url.scheme, url.hostname or "", port, target, named)


def _written(method: str, place: Place, headers: Mapping[str, str], body: bytes) -> bytes:
    """Return the request as it goes out.

    Raises:
        LocalProtocolError
    """
    lines = [f"{method} {place.target} HTTP/1.1", f"host: {place.named}"]
    for name, value in headers.items():
        # Values in plain printable ASCII need no closer look: they end no line.
        is_plain = (value.isascii() and value.isprintable()) or _VALUE.fullmatch(value)
        if not is_plain or not _is_name(name):
            raise LocalProtocolError(f"no header: {name[:40]!r}")
        lines.append(f"{name}: {value}")
    if body or method != "GET":
        lines.append(f"content-length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


@lru_cache(maxsize=1024)
def _is_name(name: str) -> bool:
    """Whether a header may be called that, and is not ours to say."""
    return _NAME.fullmatch(name) is not None and name not in _OURS_TO_SAY


def _time_out(asked: asyncio.Future[Answer]) -> None:
    if not asked.done():
        asked.set_exception(TimeoutError())


def _broken(failure: Exception) -> RemoteProtocolError:
    return RemoteProtocolError(f"not HTTP: {type(failure).__name__}")

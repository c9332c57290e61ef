"""The one way out over HTTP: time-outs, size caps, no redirects, and who may be called.

A call ends in one of three ways. `HttpReply`: an answer, whole. `NotSentError`: not one byte of
the request left, so nothing can have happened. `NoAnswerError`: anything else, so it may have.

Merchants choose their own webhook addresses, so the client that calls them has a guard: it
resolves the name itself, refuses when any address is not public, and connects to exactly the
address it checked. Nothing here follows redirects or reads proxies from the environment.
"""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import socket
import ssl
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager, contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import SplitResult

import httpcore2
import prometheus_client
from msgspec import Struct

from tongbao.infra.addresses import Address, is_public
from tongbao.infra.http_wire import (
    ADDRESSES_TRIED_MAX,
    CONNECT_TIMEOUT_S,
    CONNECTIONS_MAX,
    IDLE_CONNECTIONS_MAX,
    IDLE_S,
    CallFailed,
    ConnectError,
    Progress,
    Wire,
    parts_of,
)
from tongbao.kernel.clock import monotonic
from tongbao.kernel.errors import Rejected

USER_AGENT: Final = "tongbao/1"
ERROR_REPLY_MAX_BYTES: Final = 256 * 1024

OUTBOUND_SECONDS: Final = prometheus_client.Histogram(
    "tongbao_outbound_seconds",
    "Time of calls to others, by how they ended: answered, not_sent or no_answer.",
    ["end"],
)

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]


class HttpSilence(Exception):
    """There is no answer; the text says why, for evidence."""

    def __init__(self, reason: str, duration_ms: int = 0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.duration_ms = duration_ms


class NotSentError(HttpSilence):
    """Provably nothing of the request left: no address, no connection, no TLS."""


class NoAnswerError(HttpSilence):
    """The request, or some of it, left and no whole answer came: it may have happened."""


class AddressRefused(Rejected):
    """The address is not one the platform calls for a merchant."""

    code = "http.address_refused"
    advice = "Give an https address whose name resolves to public addresses only."
    advice_zh = "请提供 https 地址，且其域名只解析到公网地址。"


class HttpReply(Struct, frozen=True):
    """A whole answer; header names are lower case. A redirect is an answer like any other."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    duration_ms: int


class HttpDownload(Struct, frozen=True):
    """A file fetched whole, or the answer given instead: then ``path`` is None."""

    status: int
    headers: Mapping[str, str]
    path: Path | None
    size: int
    sha256: str
    body: bytes
    duration_ms: int


class Guard(Protocol):
    """Who may be called."""

    def refuses_url(self, url: SplitResult) -> str | None:
        """Return why this URL is not called whatever it resolves to, or None."""

    def allows(self, address: Address) -> bool:
        """Whether a connection to this address may be made."""


class Anywhere:
    """For addresses that the operator chose, such as a channel's or a bank's."""

    def refuses_url(self, url: SplitResult) -> str | None:
        """Refuse nothing."""
        del url
        return None

    def allows(self, address: Address) -> bool:
        """Allow everything."""
        del address
        return True


class PublicOnly:
    """For addresses that a merchant chose."""

    def refuses_url(self, url: SplitResult) -> str | None:
        """Refuse what is not https on a port for it."""
        if url.scheme != "https":
            return "not https"
        port = url.port or 443
        return None if port == 443 or port >= 1024 else "port not allowed"

    def allows(self, address: Address) -> bool:
        """Allow public addresses only."""
        return is_public(address)


class LoopbackAllowed(PublicOnly):
    """For merchants' addresses where merchant and platform are one machine: demo and tests."""

    def refuses_url(self, url: SplitResult) -> str | None:
        """Refuse ports that belong to the system, other than the two of the web."""
        port = url.port or 443
        return None if port in {80, 443} or port >= 1024 else "port not allowed"

    def allows(self, address: Address) -> bool:
        """Allow this machine beside public addresses."""
        return address.is_loopback or super().allows(address)


async def system_resolve(host: str, port: int) -> Sequence[str]:
    """Return the addresses of a name as the system's resolver knows them."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class HttpClient:
    """Calls others. One per guard and process; keeps connections open between calls."""

    def __init__(
        self,
        guard: Guard | None = None,
        *,
        resolve: Resolve = system_resolve,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._guard: Guard = guard or Anywhere()
        self._resolver = _PinningBackend(self._guard, resolve)
        self._tls = tls
        self._wire = Wire(self._resolver.addresses, self._trust)
        self._files: httpcore2.AsyncConnectionPool | None = None

    async def close(self) -> None:
        """Close every connection."""
        self._wire.close()
        if self._files is not None:
            await self._files.aclose()

    async def check(self, url: str) -> None:
        """Refuse an address now rather than at every later call.

        Raises:
            AddressRefused
        """
        parts, reason = self._read_url(url)
        if reason is None and parts is not None:
            try:
                await self._resolver.addresses(parts.hostname or "", parts.port or 443)
            except ConnectError as refused:
                reason = str(refused)
        if reason is not None:
            raise AddressRefused(param="url", reason=reason)

    async def send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes = b"",
        *,
        timeout_s: float,
        reply_max_bytes: int,
    ) -> HttpReply:
        """Send one request and return the answer, whatever its status.

        ``timeout_s`` is for everything together, so a reply that drips in does not outlast it.

        Raises:
            NotSentError, NoAnswerError
        """
        began = monotonic()
        with _timed():
            parts, reason = self._read_url(url)
            if parts is None or reason is not None:
                raise NotSentError(reason or "not a URL")
            progress = Progress()
            try:
                answer = await self._wire.call(
                    method,
                    parts,
                    _sent_headers(headers),
                    body,
                    reply_max_bytes=reply_max_bytes,
                    progress=progress,
                    timeout_s=timeout_s,
                )
            except (CallFailed, OSError) as failure:  # time-outs and TLS failures are the latter
                kind = NoAnswerError if progress.sending else NotSentError
                raise kind(_reason(failure, progress.step), _ms_since(began)) from failure
        return HttpReply(answer.status, answer.headers, answer.body, _ms_since(began))

    async def download(
        self,
        url: str,
        headers: Mapping[str, str],
        path: Path,
        *,
        timeout_s: float,
        max_bytes: int,
    ) -> HttpDownload:
        """Fetch a file to ``path``, which comes into being only when it is whole.

        Raises:
            NotSentError, NoAnswerError
        """
        began = monotonic()
        part = path.with_name(path.name + ".part")
        digest, size, body = hashlib.sha256(), 0, b""
        try:
            with _timed():
                async with self._exchange("GET", url, headers, b"", timeout_s=timeout_s) as reply:
                    if reply.status == 200:
                        size = await _write(_chunks(reply, max_bytes), part, digest)
                    else:
                        body = await _read(reply, ERROR_REPLY_MAX_BYTES)
            if reply.status == 200:
                part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        return HttpDownload(
            status=reply.status,
            headers=_headers(reply),
            path=path if reply.status == 200 else None,
            size=size,
            sha256=digest.hexdigest(),
            body=body,
            duration_ms=_ms_since(began),
        )

    def _read_url(self, url: str) -> tuple[SplitResult | None, str | None]:
        """Return the parts of a URL, or why it is not called."""
        parts, reason = parts_of(url)
        return parts, reason if parts is None else self._guard.refuses_url(parts)

    @asynccontextmanager
    async def _exchange(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, *, timeout_s: float
    ) -> AsyncIterator[httpcore2.Response]:
        _, reason = self._read_url(url)
        if reason is not None:
            raise NotSentError(reason)
        began, progress = monotonic(), _FileProgress()
        connect_s = min(timeout_s, CONNECT_TIMEOUT_S)
        timeouts = {"connect": connect_s, "read": timeout_s, "write": timeout_s, "pool": timeout_s}
        given = _sent_headers(headers)
        try:
            async with (
                asyncio.timeout(timeout_s),
                self._pool().stream(
                    method,
                    url,
                    headers=list(given.items()),
                    content=body,
                    extensions={"timeout": timeouts, "trace": progress},
                ) as reply,
            ):
                yield reply
        except HttpSilence as silence:
            silence.duration_ms = _ms_since(began)
            raise
        except httpcore2.LocalProtocolError as failure:
            # The request could not be written down, so it was not sent either.
            kind = NoAnswerError if progress.headers_left else NotSentError
            raise kind(_reason(failure, progress.step), _ms_since(began)) from failure
        except _FAILURES as failure:
            kind = NoAnswerError if progress.sending else NotSentError
            raise kind(_reason(failure, progress.step), _ms_since(began)) from failure

    def _trust(self) -> ssl.SSLContext:
        return self._tls or tls_context()

    def _pool(self) -> httpcore2.AsyncConnectionPool:
        """Return the connections for files, which are taken piece by piece; few fetch any."""
        if self._files is None:
            self._files = httpcore2.AsyncConnectionPool(
                ssl_context=self._trust(),
                max_connections=CONNECTIONS_MAX,
                max_keepalive_connections=IDLE_CONNECTIONS_MAX,
                keepalive_expiry=IDLE_S,
                network_backend=self._resolver,
            )
        return self._files


@cache
def tls_context() -> ssl.SSLContext:
    """Return the context by which this process trusts others; making one takes 24 ms."""
    context = httpcore2.default_ssl_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


def _sent_headers(headers: Mapping[str, str]) -> dict[str, str]:
    # No encoding, or a small reply could unpack to a huge one.
    given = {"user-agent": USER_AGENT, "accept": "*/*", "accept-encoding": "identity"}
    given |= {name.lower(): value for name, value in headers.items()}
    return given


_FAILURES: Final = (
    TimeoutError,
    ConnectionError,
    ssl.SSLError,
    httpcore2.TimeoutException,
    httpcore2.NetworkError,
    httpcore2.ProtocolError,
)


class _FileProgress:
    """How far a request got: the engine reports each step as it begins and ends."""

    def __init__(self) -> None:
        self.step = "waiting"
        self.sending = False
        self.headers_left = False

    async def __call__(self, event: str, details: Mapping[str, Any]) -> None:
        del details
        step, _, moment = event.rpartition(".")
        name = step.rpartition(".")[2]
        if moment == "started" and name != "response_closed":
            self.step = name
            self.sending = self.sending or name == "send_request_headers"
        self.headers_left = self.headers_left or event.endswith("send_request_headers.complete")


class _PinningBackend(httpcore2.AsyncNetworkBackend):
    """Opens connections to addresses that the guard has seen, and to no others."""

    def __init__(self, guard: Guard, resolve: Resolve) -> None:
        self._guard = guard
        self._resolve = resolve
        self._network = httpcore2.AnyIOBackend()

    async def addresses(self, host: str, port: int) -> list[str]:
        """Return the name's addresses, all of them allowed; one that is not refuses the name."""
        try:
            found = await self._resolve(host, port)
            addresses = [ipaddress.ip_address(text.partition("%")[0]) for text in found]
        except (OSError, ValueError) as failure:  # UnicodeError, from a strange name, is the latter
            raise ConnectError("name not resolved") from failure
        if not addresses:
            raise ConnectError("name not resolved")
        if not all(self._guard.allows(address) for address in addresses):
            raise ConnectError("address not allowed")
        return list(found)

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the engine's signature
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Resolve, check and connect, in one step that nothing can come between."""
        failure: Exception = httpcore2.ConnectError("name not resolved")
        try:
            addresses = await self.addresses(host, port)
        except ConnectError as refused:
            raise httpcore2.ConnectError(str(refused)) from refused
        for address in addresses[:ADDRESSES_TRIED_MAX]:
            try:
                return await self._network.connect_tcp(
                    address, port, timeout, local_address, socket_options
                )
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as refused:
                failure = refused
        raise failure


async def _chunks(reply: httpcore2.Response, max_bytes: int) -> AsyncIterator[bytes]:
    """Yield the reply's body, giving up as soon as it is larger than it may be."""
    headers = _headers(reply)
    if headers.get("content-encoding", "identity") != "identity":
        raise NoAnswerError("reply encoded although asked not to be")
    size = 0
    async for chunk in reply.aiter_stream():
        size += len(chunk)
        if size > max_bytes:
            raise NoAnswerError(f"reply larger than {max_bytes} bytes")
        yield chunk


async def _write(chunks: AsyncIterator[bytes], path: Path, digest: hashlib._Hash) -> int:
    """Write chunks to a file and into the digest, and return how many bytes they were."""
    size = 0
    file = await asyncio.to_thread(path.open, "wb")
    with file:
        async for chunk in chunks:
            file.write(chunk)
            digest.update(chunk)
            size += len(chunk)
    return size


async def _read(reply: httpcore2.Response, max_bytes: int) -> bytes:
    return b"".join([chunk async for chunk in _chunks(reply, max_bytes)])


def _headers(reply: httpcore2.Response) -> dict[str, str]:
    joined: dict[str, str] = {}
    for raw_name, raw_value in reply.headers:
        name, value = raw_name.decode("ascii").lower(), raw_value.decode("latin-1")
        joined[name] = f"{joined[name]}, {value}" if name in joined else value
    return joined


def _reason(failure: Exception, step: str) -> str:
    text = str(failure)[:200]
    return f"{type(failure).__name__} at {step}" + (f": {text}" if text else "")


_ENDS: Final = {end: OUTBOUND_SECONDS.labels(end) for end in ("answered", "not_sent", "no_answer")}


@contextmanager
def _timed() -> Iterator[None]:
    began, end = monotonic(), "answered"
    try:
        yield
    except HttpSilence as silence:
        end = "not_sent" if isinstance(silence, NotSentError) else "no_answer"
        raise
    finally:
        _ENDS[end].observe(monotonic() - began)


def _ms_since(began: float) -> int:
    return int((monotonic() - began) * 1000)

"""The ASGI application: finds the channel of a request and acts out how the wire treats it.

A channel's handler runs inside one SQLite transaction. After the commit the reply is sent late,
never, or the connection is reset, as the reply says.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
import traceback
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from tongbao_sandbox.control import Control
from tongbao_sandbox.panel.server import PANEL, Panel
from tongbao_sandbox.seam import Channel, Reply, Request, World

BODY_MAX: Final = 10 * 1024 * 1024
HOLD_S: Final = 30.0
"""How long a held connection stays open, in real seconds; the setting ``hold_s`` overrides."""
_LOG_MAX: Final = 4000
_TRANSPORT: Final = "tongbao_sandbox.transport"
_ABORTIVE_CLOSE: Final = struct.pack("ii", 1, 0)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Wire(HttpToolsProtocol):
    """uvicorn's protocol, which lets the application cut its own connection."""

    def on_message_begin(self) -> None:
        """Give the request its transport."""
        super().on_message_begin()
        self.scope["state"][_TRANSPORT] = self.transport


class App:
    """The one ASGI callable."""

    def __init__(
        self, world: World, channels: Mapping[str, Channel], control: Control, panel: Panel
    ) -> None:
        self._world = world
        self._control = control
        self._panel = panel
        self._by_prefix = sorted(channels.values(), key=lambda channel: -len(channel.prefix))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        path = scope["raw_path"].decode("latin-1")
        try:
            body = await _read(receive)
        except ConnectionError:
            return
        if body is None:
            await _send(Reply(413, (("Connection", "close"),)), send)
            return
        if path.startswith("/control/"):
            reply = await self._control.answer(_request(scope, path, "/control", body))
        elif path in {"/", PANEL} or path.startswith(f"{PANEL}/"):
            prefix = PANEL if path.startswith(PANEL) else ""
            reply = await self._panel.answer(_request(scope, path, prefix, body))
        else:
            reply = self._answer(scope, path, body)
        await self._act_out(reply, scope, receive, send)

    def _answer(self, scope: Scope, path: str, body: bytes) -> Reply:
        for channel in self._by_prefix:
            if path == channel.prefix or path.startswith(f"{channel.prefix}/"):
                return self._ask(channel, _request(scope, path, channel.prefix, body))
        return Reply(404)

    def _ask(self, channel: Channel, request: Request) -> Reply:
        try:
            with self._world.state.begin():
                reply = channel.answer(request)
                self._log(request, reply)
        except Exception:  # noqa: BLE001 - a bug here is the sandbox's own, and says so
            traceback.print_exc(file=sys.stderr)
            return Reply(500, (("Content-Type", "text/plain"),), b"the sandbox itself failed\n")
        return reply

    def _log(self, request: Request, reply: Reply) -> None:
        status = reply.status if reply.ending == "answer" else None
        self._world.state.log_exchange(
            self._world.clock.now(),
            (request.method, request.prefix + request.target, _shown(request.body)),
            (status, reply.ending, _shown(reply.body)),
        )

    async def _act_out(self, reply: Reply, scope: Scope, receive: Receive, send: Send) -> None:
        if reply.delay_s:
            await asyncio.sleep(reply.delay_s)
        if reply.ending == "answer":
            await _send(reply, send)
            return
        transport: asyncio.Transport = scope["state"][_TRANSPORT]
        gone = asyncio.ensure_future(_disconnected(receive))
        if reply.ending == "hold":
            hold_s = float(self._world.setting("hold_s", HOLD_S))
            await asyncio.wait({gone}, timeout=hold_s)
            transport.close()
        else:
            # With no lingering the kernel sends RST instead of FIN.
            sock: socket.socket = transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORTIVE_CLOSE)
            transport.abort()
        await gone


async def _read(receive: Receive) -> bytes | None:
    """Return the body, or None when it is too large; raise when the client left."""
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise ConnectionResetError
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > BODY_MAX:
            return None
        if not message.get("more_body"):
            return b"".join(parts)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _send(reply: Reply, send: Send) -> None:
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in reply.headers]
    if reply.status != 204:
        headers.append((b"Content-Length", str(len(reply.body)).encode()))
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": reply.body})


def _request(scope: Scope, path: str, prefix: str, body: bytes) -> Request:
    return Request(
        method=scope["method"],
        path=path[len(prefix) :],
        query=scope["query_string"].decode("latin-1"),
        headers={
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        },
        body=body,
        prefix=prefix,
    )


def _shown(body: bytes) -> str:
    return body[:_LOG_MAX].decode("utf-8", "replace")

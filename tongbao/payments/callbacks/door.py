"""The short way in for callbacks, which come by as many as payments: past the messages of ASGI.

One that arrives whole is received here. Where that fails it is handed over untouched, and the
application receives it as if nobody had looked at it: a callback may come twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import Final

from structlog.contextvars import bind_contextvars

from tongbao.infra.audit import come_from
from tongbao.infra.http_edge import Door, Scope
from tongbao.infra.telemetry import observe_request
from tongbao.infra.web.problem import ANSWER_HEADERS
from tongbao.kernel.clock import monotonic
from tongbao.kernel.ids import new_id, show
from tongbao.payments.callbacks.api import PREFIX, CallbackApp
from tongbao.rails.channels.contract.callbacks import CallbackReply

_BODY_MAX: Final = 64 * 1024  # none is as large; the application says what is too large for it


class CallbackDoor:
    """Takes callbacks, and leaves everything else to the ``inner`` door."""

    def __init__(self, inner: Door, app: CallbackApp) -> None:
        self._inner = inner
        self._app = app
        self._running: set[asyncio.Task[None]] = set()

    def may_take(self, scope: Scope) -> bool:
        """Return whether it is a callback, or something for the inner door."""
        return _is_callback(scope) or self._inner.may_take(scope)

    def take(
        self,
        scope: Scope,
        body: bytes,
        answered: Callable[[bytes, bytes], None],
        handed_over: Callable[[], None],
    ) -> None:
        """Answer what the channel wants to hear, or hand the request over."""
        if not _is_callback(scope):
            self._inner.take(scope, body, answered, handed_over)
        elif len(body) > _BODY_MAX:
            handed_over()
        else:
            task = asyncio.create_task(self._receive(scope, body, answered, handed_over))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def ask(self, scope: Scope, body: bytes) -> bytes | None:
        """Return what the inner door says to a request that came through the application."""
        return await self._inner.ask(scope, body)

    async def _receive(
        self,
        scope: Scope,
        body: bytes,
        answered: Callable[[bytes, bytes], None],
        handed_over: Callable[[], None],
    ) -> None:
        began, request_id = monotonic(), show("req", new_id())
        client = scope.get("client")
        bind_contextvars(request_id=request_id)
        come_from(f"{client[0] if client else 'local'} {request_id}")
        try:
            reply = await self._app.receive(scope, body)
        except Exception:  # noqa: BLE001 - the application meets it too, and says what it is
            handed_over()
            return
        answered(_head(reply, request_id), reply.body)
        observe_request("POST", PREFIX, reply.status, monotonic() - began)


def _is_callback(scope: Scope) -> bool:
    path: str = scope["path"]
    return scope["method"] == "POST" and path.startswith(f"{PREFIX}/")


def _head(reply: CallbackReply, request_id: str) -> bytes:
    """Return the lines of an answer's head, its end left out."""
    lines = [f"HTTP/1.1 {reply.status} {HTTPStatus(reply.status).phrase}"]
    if reply.status != HTTPStatus.NO_CONTENT:  # RFC 9110 §8.6: it has no length, not even nought
        lines.append(f"content-length: {len(reply.body)}")
    lines += [f"{name}: {value}" for name, value in reply.headers.items()]
    lines.append(f"x-request-id: {request_id}")
    head = "\r\n".join([*lines, ""]).encode("latin-1")
    return head + b"".join([b"%b: %b\r\n" % header for header in ANSWER_HEADERS])

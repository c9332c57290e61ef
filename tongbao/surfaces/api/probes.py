"""Health, readiness and metrics: for the machines that watch over this one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import msgspec

from tongbao.infra.db import Db
from tongbao.infra.telemetry import exposition, ready

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[Any]]
Asgi = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]


def probes(db: Db) -> dict[str, Asgi]:
    """Return the probes by path.

    ``/healthz`` says that this process runs, ``/readyz`` that it can serve, ``/metrics`` how it
    fares. None shows anything about a merchant or a payment.
    """

    async def healthz(_scope: MutableMapping[str, Any], _receive: Receive, send: Send) -> None:
        await _answer(send, 200, "application/json", b'{"alive":true}')

    async def readyz(_scope: MutableMapping[str, Any], _receive: Receive, send: Send) -> None:
        facts = await ready(db)
        body = msgspec.json.encode(facts)
        await _answer(send, 200 if facts["ready"] else 503, "application/json", body)

    async def metrics(_scope: MutableMapping[str, Any], _receive: Receive, send: Send) -> None:
        body, media_type = exposition()
        await _answer(send, 200, media_type, body)

    return {"/healthz": healthz, "/readyz": readyz, "/metrics": metrics}


async def _answer(send: Send, status: int, media_type: str, body: bytes) -> None:
    headers = [
        (b"content-type", media_type.encode()),
        (b"content-length", str(len(body)).encode()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})

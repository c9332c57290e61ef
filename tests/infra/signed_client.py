"""A merchant's side of the signature scheme, written from its description and not from our code.

Requests go straight into an ASGI application, chunk by chunk where a test wants that.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
from typing import Any
from urllib.parse import unquote

from msgspec import Struct

from tongbao.kernel.clock import real_now


class Reply(Struct):
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str | None:
        """The problem's code, or None when the request was done."""
        if self.headers.get("content-type") != "application/problem+json":
            return None
        return str(self.json["code"])


class SignedClient:
    """Calls an application as the holder of one key."""

    def __init__(self, app: Any, key_id: str, secret: str) -> None:
        self.app = app
        self.key_id = key_id
        self.secret = secret

    def authorization(
        self,
        method: str,
        target: str,
        body: bytes,
        *,
        timestamp: int | None = None,
        nonce: str | None = None,
    ) -> str:
        timestamp = int(real_now().timestamp()) if timestamp is None else timestamp
        nonce = nonce or secrets.token_urlsafe(16)
        text = f"{method}\n{target}\n{timestamp}\n{nonce}\n{hashlib.sha256(body).hexdigest()}\n"
        mac = hmac.new(self.secret.encode(), text.encode(), hashlib.sha256).digest()
        return (
            f"TONGBAO-HMAC-SHA256 key={self.key_id},timestamp={timestamp},nonce={nonce},"
            f"signature={base64.b64encode(mac).decode()}"
        )

    async def get(self, target: str, **more: Any) -> Reply:
        return await self.send("GET", target, **more)

    async def post(
        self, target: str, value: object = None, *, key: str | None = None, **more: Any
    ) -> Reply:
        headers = dict(more.pop("headers", {}))
        if key is not None:
            headers["idempotency-key"] = key
        body = more.pop("body", None)
        if body is None:
            body = b"" if value is None else json.dumps(value).encode()
        if body:
            headers.setdefault("content-type", "application/json")
        return await self.send("POST", target, body=body, headers=headers, **more)

    async def send(
        self,
        method: str,
        target: str,
        *,
        body: bytes = b"",
        headers: dict[str, str] | None = None,
        authorization: str | None = None,
        signed: bool = True,
        chunks: list[bytes] | None = None,
    ) -> Reply:
        found = {name.lower(): value for name, value in (headers or {}).items()}
        if signed:
            found["authorization"] = authorization or self.authorization(method, target, body)
        return await call(self.app, method, target, found, [body] if chunks is None else chunks)


async def call(
    app: Any, method: str, target: str, headers: dict[str, str], chunks: list[bytes]
) -> Reply:
    """Send one request into an ASGI application and collect its answer."""
    path, _, query = target.partition("?")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote(path),
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
        "state": {},
    }
    waiting = [
        {"type": "http.request", "body": chunk, "more_body": place < len(chunks) - 1}
        for place, chunk in enumerate(chunks)
    ]
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return waiting.pop(0) if waiting else {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await app(scope, receive, send)
    if not sent:
        return Reply(0, {}, b"")
    start = sent[0]
    found = {name.decode().lower(): value.decode() for name, value in start["headers"]}
    return Reply(start["status"], found, b"".join(m.get("body", b"") for m in sent[1:]))

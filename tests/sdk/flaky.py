"""A platform that can be told to misbehave towards its callers, for tests of the SDK."""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY_ID = "key_01jd2qy0v8e6ps3j1ts9v0kq3c"
SECRET = "sk_sandbox_flaky"  # it guards nothing


class Asked:
    """One request as it arrived."""

    def __init__(self, method: str, target: str, headers: dict[str, str], body: bytes) -> None:
        self.method = method
        self.target = target
        self.headers = headers
        self.body = body

    @property
    def key(self) -> str | None:
        return self.headers.get("idempotency-key")

    @property
    def signed(self) -> dict[str, str]:
        fields = self.headers["authorization"].partition(" ")[2].split(",")
        return dict(field.split("=", 1) for field in fields)

    @property
    def is_signed_well(self) -> bool:
        """Checked after the description of the scheme, with code of our own."""
        said = self.signed
        digest = hashlib.sha256(self.body).hexdigest()
        lines = [self.method, self.target, said["timestamp"], said["nonce"], digest, ""]
        mac = hmac.digest(SECRET.encode(), "\n".join(lines).encode(), "sha256")
        return said["key"] == KEY_ID and b64encode(mac).decode() == said["signature"]


class FlakyPlatform:
    """Does each key's work once, and answers as scripted: one script entry per request.

    An entry is ``"drop"`` (do the work, close the connection), ``"refuse"`` (close before it), a
    status, or ``(status, body)`` or ``(status, body, headers)``. After the script all is well.
    """

    def __init__(self) -> None:
        self.script: list[Any] = []
        self.asked: list[Asked] = []
        self.made: dict[str, dict[str, Any]] = {}  # by idempotency key
        self.lock = threading.Lock()
        platform = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                platform.answer(self)

            do_GET = do_POST = do_PATCH = do_DELETE = answer  # noqa: N815 - the library's names

            def log_message(self, *_args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        headers = {name.lower(): value for name, value in handler.headers.items()}
        body = handler.rfile.read(int(headers.get("content-length", 0)))
        asked = Asked(handler.command, handler.path, headers, body)
        with self.lock:
            self.asked.append(asked)
            wanted = self.script.pop(0) if self.script else 201
            if wanted == "refuse":
                handler.close_connection = True
                return
            done = self._work(asked)
        if wanted == "drop":
            handler.close_connection = True
            return
        status, content, more = _spelt(wanted, done)
        handler.send_response(status)
        for name, value in more.items():
            handler.send_header(name, value)
        handler.send_header("content-length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    def _work(self, asked: Asked) -> dict[str, Any]:
        if asked.key is None:
            return {"items": [], "next_cursor": None}
        number = len(self.made) + 1
        return self.made.setdefault(asked.key, {"id": f"pay_{number}"})


def _spelt(wanted: Any, done: dict[str, Any]) -> tuple[int, bytes, dict[str, str]]:
    status, *rest = wanted if isinstance(wanted, tuple) else (wanted,)
    content = rest[0] if rest else done
    if not rest and status >= 400:
        content = {"code": f"scripted.{status}", "advice": "none", "request_id": "req_1"}
    if not isinstance(content, bytes):
        content = json.dumps(content).encode()
    return status, content, rest[1] if len(rest) > 1 else {}


@contextmanager
def flaky_platform() -> Iterator[FlakyPlatform]:
    platform = FlakyPlatform()
    thread = threading.Thread(target=platform.server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield platform
    finally:
        platform.server.shutdown()
        platform.server.server_close()
        thread.join()

"""The merchant's side of the bench: asks for payments, lets customers pay, and hears webhooks.

It keeps its connections open in both directions, as a shop of this size does, and its own time is
nobody's but its own: it is another process than the platform.
"""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final
from urllib.parse import urlsplit
from uuid import uuid4

import msgspec
from msgspec import Struct

from tongbao_sdk.signing import authorization

_PATH: Final = "/v1/payments"
_WAIT_S: Final = 120.0


class _NextAction(Struct, frozen=True):
    code_url: str


class _Created(Struct, frozen=True):
    id: str
    next_action: _NextAction


class _Thing(Struct, frozen=True):
    id: str


class _Data(Struct, frozen=True):
    object: _Thing


class _Told(Struct, frozen=True):
    type: str
    data: _Data


class Ears:
    """Hears webhooks and remembers which payments they tell of."""

    def __init__(self) -> None:
        self.paid: set[str] = set()
        ears = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"  # the connection stays open

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                told = msgspec.json.decode(body, type=_Told)
                if told.type == "payment.succeeded":
                    ears.paid.add(told.data.object.id)
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_args: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/webhooks"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Stop hearing."""
        self._server.shutdown()
        self._server.server_close()


class Shop:
    """A merchant with a key, at a platform."""

    def __init__(self, url: str, key_id: str, secret: str, ears: Ears) -> None:
        self._host = urlsplit(url).netloc
        self._key_id = key_id
        self._secret = secret
        self._ears = ears
        self._open = threading.local()

    def sell(
        self, channel: str, payments: int, *, together: int, scan: Callable[[str], object]
    ) -> float:
        """Take so many payments to their webhooks and return how many seconds that took.

        Raises:
            TimeoutError: some webhooks never came.
        """
        begun = time.perf_counter()
        with ThreadPoolExecutor(together) as crowd:
            made = set(crowd.map(lambda _: self._sell_one(channel, scan), range(payments)))
        deadline = time.monotonic() + _WAIT_S
        while not made <= self._ears.paid:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(made - self._ears.paid)} webhooks never came")
            time.sleep(0.02)
        return time.perf_counter() - begun

    def _sell_one(self, channel: str, scan: Callable[[str], object]) -> str:
        asked = {
            "merchant_order_no": uuid4().hex[:24],
            "amount": 1999,
            "subject": "tea",
            "method": {"channel": channel, "mode": "qr"},
        }
        made = msgspec.json.decode(self._post(msgspec.json.encode(asked)), type=_Created)
        scan(made.next_action.code_url)
        return made.id

    def _post(self, body: bytes) -> bytes:
        connection = getattr(self._open, "connection", None)
        if connection is None:
            connection = self._open.connection = http.client.HTTPConnection(self._host, timeout=60)
        signed = authorization(self._key_id, self._secret, method="POST", target=_PATH, body=body)
        headers = {
            "authorization": signed,
            "content-type": "application/json",
            "idempotency-key": uuid4().hex,
        }
        connection.request("POST", _PATH, body, headers)
        answer = connection.getresponse()
        content: bytes = answer.read()
        if answer.status != 201:
            raise RuntimeError(f"{answer.status} {content[:300]!r}")
        return content

"""The demo's processes: the sandbox, the platform's server, and the shop's own webhook receiver."""

from __future__ import annotations

import asyncio
import http.client
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from tongbao_sdk import WebhookInvalid, verify_webhook

_START_S: Final = 30
_STOP_S: Final = 10


class _Ready(Struct, frozen=True):
    """What the sandbox says once it serves, as far as the demo needs it."""

    url: str
    credentials: str
    hosts: dict[str, str] = {}


class Sandbox:
    """The sandbox process and its control API."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        if process.stdout is None:
            raise ValueError("the sandbox tells its address on standard output")
        line = process.stdout.readline()
        if not line:
            raise RuntimeError("the sandbox did not start")
        ready = msgspec.json.decode(line, type=_Ready)
        self.process = process
        self.url = ready.url
        self.hosts = ready.hosts
        credentials = Path(ready.credentials).read_bytes()
        self.credentials = msgspec.json.decode(credentials, type=dict[str, dict[str, str]])

    def control(self, path: str, *, method: str = "POST", **body: object) -> Any:
        """Tell or ask the control API."""
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=60)
        content = msgspec.json.encode(body) if method == "POST" else b""
        connection.request(method, f"/control/{path}", content)
        reply = connection.getresponse()
        answer = reply.read()
        connection.close()
        if reply.status != http.client.OK:
            raise ValueError(f"control API: {reply.status} {answer.decode(errors='replace')}")
        return msgspec.json.decode(answer)

    def fault(self, channel: str, on: str, fault: str, *, number: str = "", times: int = 1) -> None:
        """Script a fault for the next calls, or for one number."""
        self.control("faults", channel=channel, on=on, fault=fault, number=number, times=times)


class Receiver:
    """The shop's webhook receiver: verifies, and does an event's work once, however often told."""

    def __init__(self) -> None:
        self.public_keys: list[str] = []
        self.events: dict[str, Any] = {}
        self.copies = 0
        self.invalid = 0
        self._lock = threading.Lock()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                self.send_response(receiver.take(dict(self.headers.items()), body))
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_args: object) -> None:
                """Keep the screen for the story."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/webhooks"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def take(self, headers: Mapping[str, str], body: bytes) -> int:
        """Receive one webhook and return the status to answer."""
        try:
            event = verify_webhook(headers, body, public_keys=self.public_keys)
        except WebhookInvalid:
            with self._lock:
                self.invalid += 1
            return 401
        with self._lock:
            self.copies += 1
            self.events.setdefault(event["id"], event)
        return 204

    def close(self) -> None:
        """Stop receiving."""
        self._server.shutdown()
        self._server.server_close()


def free_port(wanted: int) -> int:
    """Return the wanted port if nobody listens on it, else one the system chooses."""
    for port in (wanted, 0):
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise OSError("no port is free")


@contextmanager
def child(
    command: list[str], environment: Mapping[str, str] | None = None, *, log: Path | None = None
) -> Iterator[subprocess.Popen[str]]:
    """Run one of our own modules beside us and stop it at the end, whatever happens."""
    with Path(log or os.devnull).open("a", encoding="utf-8") as errors:
        process = subprocess.Popen(  # noqa: S603 - our own interpreter and modules
            [sys.executable, "-m", *command],
            env={**os.environ, **(environment or {})},
            stdout=subprocess.PIPE if log is None else errors,
            stderr=errors,
            text=True,
        )
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


async def until(
    holds: Callable[[], Any], *, what: str, timeout_s: float = _START_S, poll_s: float = 0.1
) -> None:
    """Wait until the condition holds; it may be a plain function or a coroutine function.

    Raises:
        TimeoutError: it never did, and ``what`` says what was waited for.
    """
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                verdict = holds()
                if asyncio.iscoroutine(verdict):
                    verdict = await verdict
                if verdict:
                    return
                await asyncio.sleep(poll_s)
    except TimeoutError:
        raise TimeoutError(f"waited {timeout_s:.0f} s for {what}") from None


def answers(url: str) -> bool:
    """Whether a server says it is ready at this address."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == http.client.OK
    except OSError:
        return False
    finally:
        connection.close()

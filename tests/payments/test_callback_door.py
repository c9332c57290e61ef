"""Callbacks take the short way in, and what is wrong with one is said by the application."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any

from tongbao.payments.callbacks.api import CallbackAddressUnknown
from tongbao.payments.callbacks.door import CallbackDoor
from tongbao.rails.channels.contract.callbacks import CallbackReply

REPLIES = {
    "/callbacks/x/good": CallbackReply(200, {"content-type": "text/plain"}, b"success"),
    "/callbacks/x/quiet": CallbackReply(204, {}, b""),
}
Scope = MutableMapping[str, Any]


class Inner:
    """Takes what is left to it."""

    def __init__(self) -> None:
        self.taken: list[str] = []

    def may_take(self, scope: Scope) -> bool:
        return scope["path"] == "/v1/payments"

    def take(self, scope: Scope, *_more: object) -> None:
        self.taken.append(scope["path"])

    async def ask(self, _scope: Scope, _body: bytes) -> bytes | None:
        return b"asked"


class App:
    """Receives what there is an address for."""

    async def receive(self, scope: Scope, _body: bytes) -> CallbackReply:
        if scope["path"] not in REPLIES:
            raise CallbackAddressUnknown
        return REPLIES[scope["path"]]


def a_request(path: str, method: str = "POST") -> Scope:
    return {"method": method, "path": path, "client": ("192.0.2.1", 4711)}


async def told(door: CallbackDoor, path: str, body: bytes = b"{}") -> tuple[bytes, bytes] | None:
    """Return head and body of the answer; None where the application is to give it."""
    answer = asyncio.get_running_loop().create_future()
    door.take(
        a_request(path),
        body,
        lambda *said: answer.set_result(said),
        lambda: answer.set_result(None),
    )
    async with asyncio.timeout(10):
        return await answer


async def test_a_callback_is_answered_with_what_its_channel_wants_to_hear() -> None:
    door = CallbackDoor(Inner(), App())  # type: ignore[arg-type]
    head, body = await told(door, "/callbacks/x/good") or (b"", b"")
    assert body == b"success"
    lines = head.decode().split("\r\n")
    assert lines[0] == "HTTP/1.1 200 OK"
    assert {"content-length: 7", "content-type: text/plain", "cache-control: no-store"} < {*lines}
    assert lines[-1] == "", "the end of the head is the server's to write"
    head, body = await told(door, "/callbacks/x/quiet") or (b"", b"?")
    assert (head.startswith(b"HTTP/1.1 204 No Content\r\n"), body) == (True, b"")
    assert b"content-length" not in head


async def test_what_cannot_be_received_is_the_applications_to_say() -> None:
    door = CallbackDoor(Inner(), App())  # type: ignore[arg-type]
    assert await told(door, "/callbacks/x/nobody") is None
    assert await told(door, "/callbacks/x/good", bytes(65_537)) is None


async def test_everything_else_is_for_the_inner_door() -> None:
    inner = Inner()
    door = CallbackDoor(inner, App())  # type: ignore[arg-type]
    assert door.may_take(a_request("/callbacks/x/good"))
    assert door.may_take(a_request("/v1/payments"))
    assert not door.may_take(a_request("/callbacks/x/good", "GET"))
    assert not door.may_take(a_request("/callbacksx"))
    door.take(a_request("/v1/payments"), b"", lambda *_: None, lambda: None)
    assert inner.taken == ["/v1/payments"]
    assert await door.ask(a_request("/v1/payments"), b"") == b"asked"

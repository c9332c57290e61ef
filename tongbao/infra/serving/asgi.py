"""The plain ASGI under an application: bodies read whole and capped, documents, the lifespan."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any, Final, cast

from tongbao.infra.admission.message_signatures import SignedMessage
from tongbao.infra.web.problem import BodyTooLarge, BodyTooSlow, MethodNotAllowed, RouteUnknown

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]

BODY_MAX: Final = 1024 * 1024
BODY_SECONDS_MAX: Final = 30
DOCUMENT_PATHS: Final = ("/openapi.json", "/v1/openapi.json")


class ClientGone(Exception):
    """The sender left before the body was whole; nobody is there to be answered."""


async def read_body(scope: Scope, receive: Receive) -> bytes:
    """Read the whole body, however it is chunked, up to the limit.

    Raises:
        BodyTooLarge, BodyTooSlow, ClientGone
    """
    announced = header_of(scope, b"content-length")
    if announced.isdecimal() and int(announced[:20]) > BODY_MAX:
        raise BodyTooLarge(bytes_max=BODY_MAX)
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS_MAX):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientGone
                body += message.get("body", b"")
                if len(body) > BODY_MAX:
                    raise BodyTooLarge(bytes_max=BODY_MAX)
                if not message.get("more_body", False):
                    return bytes(body)
    except TimeoutError:
        raise BodyTooSlow(seconds_max=BODY_SECONDS_MAX) from None


def replay(body: bytes, receive: Receive) -> Receive:
    """Give the body once more to whoever serves the request, then the connection's own messages."""
    told = False

    async def once() -> Message:
        nonlocal told
        if told:
            return await receive()
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return once


def header_of(scope: Scope, name: bytes) -> str:
    """Return the last header of this name, or ""."""
    return cast("bytes", dict(scope["headers"]).get(name, b"")).decode("latin-1")


def message_of(scope: Scope, body: bytes, digest: bytes | None) -> SignedMessage | None:
    """Return the request as RFC 9421 signs it, if it says that it is signed like that."""
    if b"signature-input" not in dict(scope["headers"]):
        return None
    headers = [(n.decode("latin-1"), v.decode("latin-1")) for n, v in scope["headers"]]
    scheme = scope.get("scheme", "http")
    return SignedMessage(scope["method"], scheme, target_of(scope), headers, body, digest=digest)


def target_of(scope: Scope) -> str:
    """Return path and query as they stood on the request line."""
    path = scope.get("raw_path") or scope["path"].encode()
    query = scope["query_string"]
    return cast("bytes", path + b"?" + query if query else path).decode("latin-1")


def json_file(made: Callable[[], bytes], paths: Sequence[str] = DOCUMENT_PATHS) -> Asgi:
    """Return an application that serves a document of JSON at its paths."""

    async def serve(scope: Scope, _receive: Receive, send: Send) -> None:
        if scope["method"] != "GET":
            raise MethodNotAllowed(allow="GET")
        if scope["path"] not in paths:
            raise RouteUnknown
        content = made()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(content)).encode()),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    return serve


async def lifespan(receive: Receive, send: Send) -> None:
    """Say yes: whoever runs the server starts and stops what the application uses."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return

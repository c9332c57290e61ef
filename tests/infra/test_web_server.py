"""The edge behind the real HTTP server, byte by byte over a socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import uvicorn

from tests.infra.signed_client import SignedClient
from tests.infra.test_web import FACTS, HANDLERS, SECRET, OneKey
from tongbao.infra.db import Db
from tongbao.infra.serving import asgi as edge
from tongbao.infra.serving.app import App


@pytest.fixture
def keys() -> OneKey:
    return OneKey("things:read", "things:write")


@pytest.fixture
async def port(db: Db, keys: OneKey) -> AsyncIterator[int]:
    app = App(HANDLERS, db=db, keys=keys, facts=FACTS)
    config = uvicorn.Config(
        app, host="127.0.0.1", port=0, http="httptools", lifespan="on", log_config=None
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - it has no event to wait for
        await asyncio.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    await serving


async def exchange(port: int, *pieces: bytes) -> bytes:
    """Send pieces one after the other and return everything that comes back."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.01)
        async with asyncio.timeout(10):
            return await reader.read()
    except ConnectionResetError:
        return await reader.read()
    finally:
        writer.close()


def request(keys: OneKey, method: str, target: str, body: bytes = b"", *more: str) -> bytes:
    signed = SignedClient(None, keys.id, SECRET).authorization(method, target, body)
    lines = [
        f"{method} {target} HTTP/1.1",
        "Host: 127.0.0.1",
        "Connection: close",
        f"Authorization: {signed}",
        *more,
    ]
    return "\r\n".join([*lines, "", ""]).encode()


async def test_the_target_is_signed_as_it_stands_on_the_request_line(
    port: int, keys: OneKey
) -> None:
    for target in (
        "/v1/things/one",
        "/v1/things?name=a%20b",
        "/v1/things?name=a+b",
        "/v1/things?name=%E5%BC%A0&limit=1",
        "/v1/things/%6Fne",
    ):
        reply = await exchange(port, request(keys, "GET", target))
        assert reply.startswith(b"HTTP/1.1 200"), reply


async def test_a_chunked_body_arrives_whole_and_is_checked_whole(port: int, keys: OneKey) -> None:
    head = request(
        keys,
        "POST",
        "/v1/things",
        b'{"amount":1}',
        "Content-Type: application/json",
        "Transfer-Encoding: chunked",
    )

    reply = await exchange(port, head, b'4\r\n{"am\r\n', b'8\r\nount":1}\r\n', b"0\r\n\r\n")

    assert reply.startswith(b"HTTP/1.1 201"), reply


async def test_an_endless_chunked_body_is_cut_off(port: int, keys: OneKey) -> None:
    head = request(
        keys,
        "POST",
        "/v1/things",
        b"",
        "Content-Type: application/json",
        "Transfer-Encoding: chunked",
    )
    chunk = b"10000\r\n" + b"a" * 65_536 + b"\r\n"

    reply = await exchange(port, head, *[chunk] * 17)

    assert reply.startswith(b"HTTP/1.1 413"), reply
    assert b"request.body_too_large" in reply
    assert b"connection: close" in reply.lower()


async def test_a_body_that_does_not_come_is_not_waited_for(
    port: int, keys: OneKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge, "BODY_SECONDS_MAX", 0.05)
    head = request(
        keys, "POST", "/v1/things", b"", "Content-Type: application/json", "Content-Length: 10"
    )

    reply = await exchange(port, head, b"{")

    assert reply.startswith(b"HTTP/1.1 408"), reply
    assert b"request.body_too_slow" in reply


async def test_what_is_not_http_at_all_harms_nobody(port: int, keys: OneKey) -> None:
    for noise in (b"\x16\x03\x01\x02\x00\x01\x00", b"GET\r\n\r\n", b"\r\n\r\n\x00\xff\r\n\r\n"):
        assert b"Traceback" not in await exchange(port, noise + b"\r\n\r\n")

    reply = await exchange(port, request(keys, "GET", "/v1/things/one"))
    assert reply.startswith(b"HTTP/1.1 200")

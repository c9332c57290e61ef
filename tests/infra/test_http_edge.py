"""Whoever sends headers without end, or without haste, is shown the door; others notice nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn

from tongbao.infra import http_edge
from tongbao.infra.client_certificates import PEER
from tongbao.infra.http_edge import HEAD_BYTES_MAX, MESSAGE_BYTES_MAX, BoundedHttpProtocol

GET = b"GET / HTTP/1.1\r\nhost: x\r\n"
POST = b"POST / HTTP/1.1\r\nhost: x\r\n"
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def length_of_body(scope: Any, receive: Any, send: Any) -> None:
    size, more = 0, True
    while more:
        message = await receive()
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"<%d>" % size})


@pytest.fixture
async def port() -> AsyncIterator[int]:
    async with serving(length_of_body) as at:
        yield at


@asynccontextmanager
async def serving(app: Any, trusted: str | None = None) -> AsyncIterator[int]:
    config = uvicorn.Config(
        app,
        port=0,
        http=BoundedHttpProtocol,
        log_config=None,
        lifespan="off",
        forwarded_allow_ips=trusted,
    )
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn tells it no other way
        await asyncio.sleep(0.005)
    yield int(server.servers[0].sockets[0].getsockname()[1])
    server.should_exit = True
    await task


async def send(writer: asyncio.StreamWriter, chunk: bytes, times: int) -> None:
    """Send until the other side has had enough."""
    try:
        for _ in range(times):
            writer.write(chunk)
            await writer.drain()
    except ConnectionError:
        return


async def heard(reader: asyncio.StreamReader) -> bytes:
    """Everything until the other side closes; a reset is an end like any other."""
    found = b""
    try:
        async with asyncio.timeout(20):
            while more := await reader.read(65536):
                found += more
    except ConnectionError:
        pass
    return found


@pytest.mark.parametrize(
    "chunk", [b"x-a: " + b"a" * 1000 + b"\r\n", b"a" * 1007], ids=["many", "one"]
)
async def test_headers_without_end_close_the_connection(port: int, chunk: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(GET + b"x-b: ")
    await writer.drain()
    sending = asyncio.create_task(send(writer, chunk, 20 * HEAD_BYTES_MAX // len(chunk)))
    answer = await heard(reader)
    await sending
    assert not answer or answer.startswith(b"HTTP/1.1 431 ")


async def test_trailers_without_end_close_the_connection(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(POST + b"transfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n")
    await writer.drain()
    trailer = b"x-a: " + b"a" * 65536 + b"\r\n"
    sending = asyncio.create_task(send(writer, trailer, 2 * MESSAGE_BYTES_MAX // len(trailer)))
    assert b"<1>" not in await heard(reader)
    await sending


@pytest.mark.parametrize(
    "beginning", [b"1\r\na\r\n0\r\nx-a: ", b"1\r\na\r\n1;"], ids=["trailer", "extension"]
)
async def test_a_line_beside_a_body_is_no_longer_than_a_head(port: int, beginning: bytes) -> None:
    """The parser copies what it has of a line with every piece that comes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(POST + b"transfer-encoding: chunked\r\n\r\n" + beginning)
    await writer.drain()
    sending = asyncio.create_task(send(writer, b"a" * 4096, 3 * HEAD_BYTES_MAX // 4096))
    assert b"<1>" not in await heard(reader)
    await sending


@pytest.mark.parametrize("beginning", [b"", b"GET / HT", GET, b"\r\n"])
async def test_a_head_that_does_not_come_closes_the_connection(
    port: int, monkeypatch: pytest.MonkeyPatch, beginning: bytes
) -> None:
    monkeypatch.setattr(http_edge, "HEAD_SECONDS_MAX", 0.05)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(beginning)
    assert await heard(reader) == b""
    writer.close()


async def test_a_trickle_after_an_answer_does_not_keep_the_connection(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(GET + b"\r\n")
    assert b"<0>" in await reader.readuntil(b">")
    monkeypatch.setattr(http_edge, "HEAD_SECONDS_MAX", 0.05)
    writer.write(b"\r\n")
    await heard(reader)
    writer.close()


async def test_who_sends_is_known_whatever_a_header_says_for_whom() -> None:
    told: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        told.append((scope["client"][0], scope["state"][PEER]))
        await length_of_body(scope, receive, send)

    async with serving(app) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        forged = b"x-forwarded-for: 192.0.2.1\r\nconnection: close\r\n\r\n"
        writer.write(GET + forged)
        assert b"200 OK" in await heard(reader)
        writer.close()
    assert told == [("192.0.2.1", "127.0.0.1")]


@pytest.mark.parametrize("said", [b"192.0.2.1", b"127.0.0.1", b"192.0.2.1, 127.0.0.1"])
async def test_who_is_no_trusted_proxy_says_nothing_of_who_the_client_is(said: bytes) -> None:
    told: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        told.append(scope["client"][0])
        await length_of_body(scope, receive, send)

    async with serving(app, trusted="198.51.100.7") as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        forged = b"x-forwarded-for: %b\r\nx-real-ip: %b\r\nforwarded: for=%b\r\n" % (
            said,
            said,
            said,
        )
        writer.write(GET + forged + b"connection: close\r\n\r\n")
        assert b"200 OK" in await heard(reader)
        writer.close()
    assert told == ["127.0.0.1"]


@pytest.mark.parametrize(
    "head",
    [
        b"content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n",
        b"transfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n",
        b"content-length: 4\r\ncontent-length: 30\r\n\r\n",
        b"content-length: 4, 30\r\n\r\n",
        b"content-length: +4\r\n\r\n",
        b"content-length: 0x4\r\n\r\n",
        b"transfer-encoding: xchunked\r\n\r\n",
        b"transfer-encoding: chunked, identity\r\n\r\n",
        b"transfer-encoding : chunked\r\n\r\n",
        b"transfer-encoding:\n chunked\r\n\r\n",
        b"content-length: 4\rtransfer-encoding: chunked\r\n\r\n",
    ],
)
async def test_a_message_of_two_lengths_is_not_two_messages(port: int, head: bytes) -> None:
    """Whatever a proxy takes such a message for, a second request in its body is never served."""
    hidden = b"0\r\n\r\nGET /hidden HTTP/1.1\r\nhost: x\r\n\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(POST + head + hidden)
    said = await heard(reader)
    writer.close()

    assert said.startswith(b"HTTP/1.1 400"), said
    assert b"200 OK" not in said


@pytest.mark.parametrize("protocol", [b"h2c", b"websocket", b"TLS/1.2"])
@pytest.mark.parametrize("length", [b"content-length: %d", b"transfer-encoding: chunked"])
async def test_what_is_hidden_behind_another_protocol_is_not_served(
    port: int, protocol: bytes, length: bytes
) -> None:
    """A proxy that hands on the wish takes what follows for the body that was announced."""
    hidden = b"GET /hidden HTTP/1.1\r\nhost: x\r\n\r\n"
    wish = b"connection: upgrade\r\nupgrade: %b\r\n" % protocol
    announced = length % len(hidden) if b"%" in length else length
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(POST + wish + announced + b"\r\n\r\n")
    await writer.drain()
    said = await reader.read(4096)  # before the body is on its way
    await send(writer, hidden, 1)
    said += await heard(reader)
    writer.close()

    assert said.startswith(b"HTTP/1.1 400"), said
    assert b"200 OK" not in said


async def test_a_wish_for_another_protocol_is_not_granted_and_ends_the_connection(
    port: int,
) -> None:
    """Some clients ask for h2c with every request (java.net.http.HttpClient)."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    wish = b"connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAEA\r\n"
    writer.write(GET + wish + b"content-length: 0\r\n\r\n" + GET + b"\r\n")
    said = await heard(reader)
    writer.close()

    assert said.count(b"200 OK") == 1
    assert b"connection: close" in said


async def test_ordinary_requests_notice_nothing(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    size = 1024 * 1024
    large = POST + b"content-length: %d\r\n\r\n" % size + b"a" * size
    for request, answer in ((large, b"<%d>" % size), (GET + b"\r\n", b"<0>")) * 3:
        writer.write(request)
        assert (await reader.readuntil(b">")).endswith(answer)
    writer.write((GET + b"\r\n") * 3)  # three at once
    for _ in range(3):
        assert (await reader.readuntil(b">")).endswith(b"<0>")
    writer.close()

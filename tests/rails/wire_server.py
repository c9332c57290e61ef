"""A server that answers as a test scripts it: real sockets, so that silence is real silence."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Literal

from msgspec import Struct


class Heard(Struct, frozen=True):
    method: str
    target: str
    headers: dict[str, str]
    body: bytes


Reaction = Callable[[Heard], bytes | Literal["hang", "reset"]]


class WireServer:
    def __init__(self) -> None:
        self.url = ""
        self.heard: list[Heard] = []
        self.react: Reaction = lambda _: http_reply(404)
        self.stopping = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            request = await _read(reader)
            self.heard.append(request)
            answer = self.react(request)
            if answer == "hang":
                await self.stopping.wait()
            elif answer == "reset":
                sock: socket.socket = writer.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            else:
                writer.write(answer)
                await writer.drain()
        writer.close()


@asynccontextmanager
async def wire_server() -> AsyncIterator[WireServer]:
    scripted = WireServer()
    server = await asyncio.start_server(scripted.serve, "127.0.0.1", 0)
    scripted.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield scripted
    finally:
        scripted.stopping.set()
        server.close()


def http_reply(status: int, headers: dict[str, str] | None = None, body: bytes = b"") -> bytes:
    lines = [f"HTTP/1.1 {status} Scripted"]
    given = {"content-length": str(len(body)), "connection": "close", **(headers or {})}
    if status == 204:
        del given["content-length"]
    lines += [f"{name}: {value}" for name, value in given.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def _read(reader: asyncio.StreamReader) -> Heard:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    method, target, _ = head[0].split(" ")
    headers = {
        name.lower(): value.strip()
        for name, _, value in (line.partition(":") for line in head[1:] if line)
    }
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Heard(method, target, headers, body)

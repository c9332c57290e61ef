"""What a request and its answer cost at both ends with nothing behind: a loop and two parsers.

A payment over a channel is four messages to and fro, two with the platform as server and two with
it as client: so twice this, before anything of a payment is done.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

import httptools

_BODY: Final = b"x" * 600
_HEAD: Final = b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(_BODY)
_REQUEST: Final = b"POST /v1/payments HTTP/1.1\r\nhost: localhost\r\n" + _HEAD + _BODY
_ANSWER: Final = b"HTTP/1.1 200 OK\r\n" + _HEAD + _BODY


class _End(asyncio.Protocol):
    """One end; it answers what is asked, or tells that it was answered."""

    def __init__(self, told: asyncio.Queue[None] | None = None) -> None:
        self._told = told
        self._new_parser()

    def _new_parser(self) -> None:
        kind = httptools.HttpRequestParser if self._told is None else httptools.HttpResponseParser
        self._parser = kind(self)

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        self._new_parser()
        if self._told is None:
            self.transport.write(_ANSWER)
        else:
            self._told.put_nowait(None)


async def exchange_us(times: int = 3000) -> float:
    """Return what an exchange takes, in microseconds of a processor."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_End, "127.0.0.1", 0)
    told: asyncio.Queue[None] = asyncio.Queue()
    port = server.sockets[0].getsockname()[1]
    transport, _ = await loop.create_connection(lambda: _End(told), "127.0.0.1", port)
    began = time.process_time_ns()
    for _ in range(times):
        transport.write(_REQUEST)
        await told.get()
    took = time.process_time_ns() - began
    transport.close()
    server.close()
    return took / times / 1000

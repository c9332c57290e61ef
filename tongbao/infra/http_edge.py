"""The bounds of a request before the application sees it: how large and how slow its head may be.

The server's parser takes headers of any size for any time, from anybody; the application's own
limits begin with the body.
"""

from __future__ import annotations

import asyncio
from typing import Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_BYTES_MAX: Final = 64 * 1024
"""Request line and headers, beyond the bytes that arrive together with the first of them."""
MESSAGE_BYTES_MAX: Final = 8 * 1024 * 1024
"""Everything: a body of the largest size in the smallest chunks, and no trailers to speak of."""
HEAD_SECONDS_MAX: Final = 20.0

_TOO_LARGE: Final = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"connection: close\r\ncontent-length: 0\r\n\r\n"
)


class BoundedHttpProtocol(HttpToolsProtocol):
    """One connection: uvicorn's, closed when a message is too large or its head too slow."""

    _steps = 0  # beginnings, heads and ends of messages so far
    _received = 0  # bytes since the last step
    _reads_head = True
    _in_head = False  # a head has begun and is not whole
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request's head."""
        super().connection_made(transport)
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what arrived and give up on a message that is larger than any we take."""
        before = self._steps
        super().data_received(data)
        if self._in_head:  # most heads come whole, and need no timer
            self._start_timer()
        if self._steps != before:
            self._received = 0
            return
        self._received += len(data)
        if self._received > (HEAD_BYTES_MAX if self._reads_head else MESSAGE_BYTES_MAX):
            self._give_up()
        elif self._reads_head:
            self._start_timer()

    def on_message_begin(self) -> None:
        """Count from here."""
        self._steps += 1
        self._in_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Let the body have the application's own limits."""
        self._steps += 1
        self._reads_head = self._in_head = False
        self._stop_timer()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Expect the next head."""
        self._steps += 1
        self._reads_head = True
        super().on_message_complete()

    def _start_timer(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_SECONDS_MAX, self.transport.close)

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _give_up(self) -> None:
        """Close; say why only where no other answer is under way."""
        if self.transport.is_closing():
            return
        if self._reads_head and (self.cycle is None or self.cycle.response_complete):
            self.transport.write(_TOO_LARGE)
        self.transport.close()

"""The test clock of a sandbox deployment: business time that a test may move."""

from __future__ import annotations

from typing import Unpack, cast

from tongbao_sdk.replies import ClockReading
from tongbao_sdk.transport import Once, Transport, path_of


class TestClock:
    """Moves the whole deployment's business time; only forward, and only where it is allowed."""

    __test__ = False  # its name must not make pytest collect it

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def read(self) -> ClockReading:
        """Return business time."""
        return cast("ClockReading", self._transport.get(path_of("test_helpers", "clock")))

    def advance(self, seconds: int, **once: Unpack[Once]) -> ClockReading:
        """Move time on; what becomes due runs at once. A retry does not move it again."""
        path = path_of("test_helpers", "clock", "advance")
        return cast("ClockReading", self._transport.post(path, {"advance_s": seconds}, **once))

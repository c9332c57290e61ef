"""Keep the request log: outside the requests' way, many lines in one write.

    answered ─► heard: one append, or nothing when too much waits
                  └─ half a second ─► whose key? ─► masked ─► one insert

A line that waits when the process dies is lost, and where more comes than is written the rest is
counted and left out: this log is for people who write programs; what money did is in the ledger.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import Final, Protocol
from uuid import UUID

import prometheus_client
import structlog
from msgspec.structs import astuple

from tongbao.infra.db import Db
from tongbao.infra.request_log import _store as store
from tongbao.infra.request_log.model import Heard, Line, line_of
from tongbao.infra.web.caller import Caller
from tongbao.kernel.errors import Refusal
from tongbao.kernel.ids import parse

PACE_S: Final = 0.5
WAITING_MAX: Final = 500
"""Lines that one write takes: so the log costs a process the same however much is asked of it."""
_BODIES_MAX: Final = 25  # of those the newest, with what was sent: to mask it takes the longest
_KEY: Final = re.compile(rb"\bkey=(key_[0-9a-z]{26})\b")

_LEFT_OUT: Final = prometheus_client.Counter(
    "tongbao_request_log_left_out", "Requests that the request log has no line of"
)
_log = structlog.get_logger()


class KnownKey(Protocol):
    """A key on record."""

    @property
    def caller(self) -> Caller:
        """Return whose it is."""


class KnownKeys(Protocol):
    """Where keys are on record."""

    async def find(self, key_id: UUID) -> KnownKey | None:
        """Return the key, revoked or not."""


class RequestLog:
    """What was asked of this process and is not written down yet."""

    def __init__(self, db: Db, keys: KnownKeys) -> None:
        self._db = db
        self._keys = keys
        self._waiting: list[Heard] = []
        self._writer: asyncio.Task[None] | None = None
        self._writing = asyncio.Lock()

    def hear(self, heard: Heard) -> None:
        """Take a request that was answered; it is written within the second, or never."""
        if len(self._waiting) >= WAITING_MAX:
            _LEFT_OUT.inc()
            return
        self._waiting.append(heard)
        if self._writer is None or self._writer.done():
            self._writer = asyncio.get_running_loop().create_task(self._soon())

    async def write(self) -> None:
        """Write what waits now, so that whoever reads next sees it; what fails is left out."""
        async with self._writing:
            taken, self._waiting = self._waiting, []
            if not taken:
                return
            try:
                lines = await self._lines(taken)
                async with self._db.begin("request_log") as tx:
                    await store.INSERT_LINE.run_set(tx, [astuple(line) for line in lines])
            except Exception as failure:  # noqa: BLE001 - nothing that asks may fail of this
                _LEFT_OUT.inc(len(taken))
                _log.warning("request_log_not_written", why=type(failure).__name__)

    async def close(self) -> None:
        """Write what waits and take nothing more down."""
        if self._writer is not None:
            self._writer.cancel()
            await asyncio.gather(self._writer, return_exceptions=True)
        await self.write()

    async def _soon(self) -> None:
        while self._waiting:
            await asyncio.sleep(PACE_S)
            await self.write()

    async def _lines(self, taken: Sequence[Heard]) -> list[Line]:
        lines = []
        for place, heard in enumerate(taken):
            caller = await self._caller(heard.caller)
            if caller is not None:
                is_new = place >= len(taken) - _BODIES_MAX
                lines.append(line_of(heard, caller, with_bodies=is_new))
            if place % 5 == 0:
                await asyncio.sleep(0)  # others are waiting for their answers
        return lines

    async def _caller(self, of: Caller | bytes) -> Caller | None:
        if isinstance(of, Caller):
            return of
        named = _KEY.search(of)
        try:
            key = await self._keys.find(parse("key", named[1].decode())) if named else None
        except Refusal:
            return None
        return key.caller if key is not None else None

"""Hear what becomes of calls, and know how every account stands: many processes, one set of rows.

What is heard is added up here and written a moment later, so many calls are one small write. What
is known is read back at most once a second, by whoever needs it. Both survive a restart: they are
rows. Times are real ones, which a test clock does not move.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import date, datetime, timedelta
from typing import Final
from uuid import UUID

import structlog
from msgspec.structs import astuple
from prometheus_client import Gauge

from tongbao.infra.db import Db
from tongbao.kernel.clock import monotonic, real_now
from tongbao.kernel.errors import Busy
from tongbao.payments.routing import _store as store
from tongbao.payments.routing.choosing import Standings, Used
from tongbao.payments.routing.health import (
    BREAKER_WINDOW,
    WINDOW,
    Breaker,
    Recent,
    Tally,
    bucket_of,
    is_probe_answer,
    judge,
    new_breaker,
    standings_of,
    tally_of,
)
from tongbao.payments.routing.model import Gate, Heard
from tongbao.rails.channels.contract.orders import PayMode

WRITTEN_AFTER_S: Final = 0.25
KNOWN_FOR_S: Final = 1.0
HEARD_MAX: Final = 10_000
"""Figures only: where the database is away for long, what was heard first is let go."""
KEPT: Final = timedelta(hours=24)
_PRUNED_EVERY_S: Final = 600.0

_log = structlog.get_logger()
_GATES: Final = Gauge(
    "tongbao_routing_account_down",
    "Whether an account's breaker is open (1), half open (0.5) or closed (0)",
    ["account"],
)
_SHOWN: Final = {Gate.UP: 0.0, Gate.PROBING: 0.5, Gate.DOWN: 1.0}

Key = tuple[UUID, str, str, datetime]


class Watch:
    """Hears and knows for one process."""

    def __init__(self, db: Db, now: Callable[[], datetime] = real_now) -> None:
        self._db = db
        self._now = now
        self._heard: list[tuple[Heard, datetime]] = []
        self._shadows: dict[tuple[UUID, date], tuple[int, int, int]] = {}
        self._writing: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._reading: asyncio.Lock | None = None
        self._read_at: float | None = None
        self._pruned_at = monotonic()
        self.standings: Standings = {}
        self.breakers: Mapping[UUID, Breaker] = {}
        self.used: Used = {}

    def hear(self, heard: Heard) -> None:
        """Take note; it is written with what else is heard in the next moment."""
        if len(self._heard) >= HEARD_MAX:
            del self._heard[: HEARD_MAX // 2]
        self._heard.append((heard, self._now()))
        self._wake()

    def _wake(self) -> None:
        if self._timer is None and self._writing is None:
            self._timer = asyncio.get_running_loop().call_later(WRITTEN_AFTER_S, self._start)

    def _start(self) -> None:
        self._timer = None
        self._writing = asyncio.create_task(self._write_quietly())

    async def _write_quietly(self) -> None:
        is_written = False
        try:
            await self.write()
            is_written = True
        except Busy as failure:
            # Nobody waits for it, and the next thing that is heard tries again.
            _log.warning("routing_figures_not_written", reason=failure.code)
        finally:
            self._writing = None
        if is_written and (self._heard or self._shadows):  # what came in meanwhile woke nobody
            self._wake()

    async def write(self) -> None:
        """Write down what was heard and counted, and turn the breakers that it turns.

        Raises:
            DatabaseUnavailable, LockNotFree: what is not written is kept for the next time.
        """
        heard, self._heard = self._heard, []
        try:
            await self._add_up(heard)
        except Busy:
            self._heard = heard + self._heard
            raise
        await self._write_shadows()
        await self.read()

    async def _add_up(self, heard: list[tuple[Heard, datetime]]) -> None:
        if not heard:
            return
        classes = await self._classes(heard)
        sums: dict[Key, Tally] = {}
        probes: dict[UUID, tuple[int, int]] = {}
        for each, at in heard:
            tally = tally_of(each)
            class_ = classes.get(each.attempt_id, "")
            key = (each.account_id, each.pay_mode.value, class_, bucket_of(at))
            sums[key] = sums.get(key, Tally()).plus(tally)
            if is_probe_answer(each):
                calls, lost = probes.get(each.account_id, (0, 0))
                probes[each.account_id] = calls + 1, lost + tally.lost
        # In one order everywhere, so that two processes wait for one another and never in a ring.
        rows = [
            (*key, each.calls, each.lost, each.total_ms, each.tried, each.won)
            for key, each in sorted(sums.items())
        ]
        answers = [(account, *found) for account, found in sorted(probes.items())]
        async with self._db.begin("routing") as tx:
            await store.ADD_BUCKET.run_many(tx, rows)
            if answers:
                await store.HEAR_PROBES.run_many(tx, answers)

    def count_shadow(self, rule_set_id: UUID, day: date, *, differs: bool, cost_less: int) -> None:
        """Count what a draft in the shadow would have chosen; it is written with what is heard."""
        self._add_shadow((rule_set_id, day), (1, int(differs), cost_less))
        self._wake()

    def _add_shadow(self, key: tuple[UUID, date], counted: tuple[int, int, int]) -> None:
        decided, differed, cost_less = self._shadows.get(key, (0, 0, 0))
        self._shadows[key] = decided + counted[0], differed + counted[1], cost_less + counted[2]

    async def _write_shadows(self) -> None:
        shadows, self._shadows = self._shadows, {}
        rows = [(*key, *counted) for key, counted in sorted(shadows.items())]
        if not rows:
            return
        try:
            async with self._db.begin("routing") as tx:
                await store.COUNT_SHADOW.run_many(tx, rows)
        except Busy:
            for key, counted in shadows.items():
                self._add_shadow(key, counted)
            raise

    async def _classes(self, heard: list[tuple[Heard, datetime]]) -> dict[UUID, str]:
        """Return the classes of the cards among them; nothing else has one."""
        cards = [each for each, _ in heard if each.pay_mode is PayMode.CARD]
        if not cards:
            return {}
        books = list({each.book for each in cards})
        found = await store.CARDS_OF.all(self._db, books, [each.attempt_id for each in cards])
        return {each.attempt_id: each.bin_class for each in found}

    async def know(self, day: date) -> None:
        """Make sure that what is known is not older than `KNOWN_FOR_S`.

        Raises:
            DatabaseUnavailable
        """
        if self._is_fresh():
            return
        if self._reading is None:
            self._reading = asyncio.Lock()
        async with self._reading:
            if not self._is_fresh():
                await self.read(day)

    def _is_fresh(self) -> bool:
        return self._read_at is not None and monotonic() - self._read_at < KNOWN_FOR_S

    def forget(self) -> None:
        """Read everything anew at its next use."""
        self._read_at = None

    async def read(self, day: date | None = None) -> None:
        """Read how accounts stand and what their breakers come to; ``day``: the quotas of it too.

        Raises:
            DatabaseUnavailable
        """
        asked_at, now = monotonic(), self._now()
        windows = await store.WINDOWS.all(self._db, bucket_of(now - WINDOW))
        breakers = {each.account_id: each for each in await store.BREAKERS.all(self._db)}
        breakers |= await self._turned(breakers, now)
        if day is not None:
            self.used = {
                (each.account_id, each.currency): (each.amount, each.payments)
                for each in await store.QUOTAS.all(self._db, day)
            }
            self._read_at = asked_at
        self.breakers = breakers
        self.standings = standings_of(
            {
                (each.account_id, each.pay_mode, each.bin_class): Tally(
                    each.calls, each.lost, each.total_ms, each.tried, each.won
                )
                for each in windows
            },
            breakers.values(),
        )
        for account_id, breaker in breakers.items():
            _GATES.labels(str(account_id)).set(_SHOWN[breaker.gate])
        await self._prune(now)

    async def _turned(self, breakers: Mapping[UUID, Breaker], now: datetime) -> dict[UUID, Breaker]:
        """Return the breakers that turn now; one process turns each, and all see it."""
        recent: dict[UUID, list[Recent]] = {}
        for each in await store.RECENT.all(self._db, bucket_of(now - BREAKER_WINDOW)):
            recent.setdefault(each.account_id, []).append(each)
        turned = {}
        for account_id in sorted(recent.keys() | breakers.keys()):
            before = breakers.get(account_id) or new_breaker(account_id)
            after = judge(before, recent.get(account_id, []), now)
            if after is None:
                continue
            if await store.TURN_BREAKER.run(self._db, *astuple(after)):
                _log.warning(
                    "routing_breaker_turned",
                    account=str(account_id),
                    gate=after.gate.value,
                    why=after.why,
                )
                turned[account_id] = after
        return turned

    async def _prune(self, now: datetime) -> None:
        if monotonic() - self._pruned_at >= _PRUNED_EVERY_S:
            self._pruned_at = monotonic()
            await store.PRUNE_BUCKETS.run(self._db, now - KEPT)

    async def close(self) -> None:
        """Write what is left, if the database takes it."""
        if self._writing is not None:
            await self._writing
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._heard or self._shadows:
            await self._write_quietly()

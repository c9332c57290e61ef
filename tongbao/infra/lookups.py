"""Questions that many requests ask at once, put to the database together.

A question that comes while another set is on its way waits for the next set: no timer, and a lone
question waits for nobody. Of what changes rarely the answer may be remembered for a moment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping, Sequence
from typing import Final, Generic, TypeVar

from tongbao.kernel.clock import monotonic

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

SET_MAX: Final = 2000
REMEMBERED_MAX: Final = 100_000


class Lookups(Generic[K, V]):
    """Asks ``find`` for all keys that were asked for meanwhile; a key it leaves out is unknown."""

    def __init__(self, find: Callable[[Sequence[K]], Awaitable[Mapping[K, V]]]) -> None:
        self._find = find
        self._waiting: list[tuple[K, asyncio.Future[V | None]]] = []
        self._asking: asyncio.Task[None] | None = None

    def get(self, key: K) -> asyncio.Future[V | None]:
        """Return the answer to come; what ``find`` raises, everybody who waits for it is told."""
        future: asyncio.Future[V | None] = asyncio.get_running_loop().create_future()
        self._waiting.append((key, future))
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask())
        return future

    async def _ask(self) -> None:
        try:
            while self._waiting:
                asked, self._waiting = self._waiting[:SET_MAX], self._waiting[SET_MAX:]
                await self._answer(asked)
        finally:
            self._asking = None

    async def _answer(self, asked: list[tuple[K, asyncio.Future[V | None]]]) -> None:
        try:
            found = await self._find(list({key for key, _ in asked}))
        except Exception as failure:  # noqa: BLE001 - whoever asked decides what it means
            for _, future in asked:
                if not future.done():
                    future.set_exception(failure)
            return
        for key, future in asked:
            if not future.done():
                future.set_result(found.get(key))


class Together(Generic[K, V]):
    """Does for all at once what many ask for meanwhile; each asker has an answer of its own.

    ``run`` is given what was asked in its order, equals included, and returns as many answers.
    """

    def __init__(self, run: Callable[[Sequence[K]], Awaitable[Sequence[V]]]) -> None:
        self._run = run
        self._waiting: list[tuple[K, asyncio.Future[V]]] = []
        self._running: asyncio.Task[None] | None = None

    def ask(self, asked: K) -> asyncio.Future[V]:
        """Return the answer to come; what ``run`` raises, everybody who waits for it is told."""
        future: asyncio.Future[V] = asyncio.get_running_loop().create_future()
        self._waiting.append((asked, future))
        if self._running is None:
            self._running = asyncio.create_task(self._run_all())
        return future

    async def _run_all(self) -> None:
        try:
            while self._waiting:
                those, self._waiting = self._waiting[:SET_MAX], self._waiting[SET_MAX:]
                await self._answer(those)
        finally:
            self._running = None

    async def _answer(self, those: list[tuple[K, asyncio.Future[V]]]) -> None:
        try:
            answers = await self._run([asked for asked, _ in those])
        except Exception as failure:  # noqa: BLE001 - whoever asked decides what it means
            for _, future in those:
                if not future.done():
                    future.set_exception(failure)
            return
        for (_, future), answer in zip(those, answers, strict=True):
            if not future.done():
                future.set_result(answer)


class Remembered(Generic[K, V]):
    """Lookups whose answers stand for ``seconds``, counted from before they were asked for."""

    def __init__(
        self, find: Callable[[Sequence[K]], Awaitable[Mapping[K, V]]], *, seconds: float
    ) -> None:
        self._find = find
        self._lookups = Lookups(find)
        self._seconds = seconds
        self._known: dict[K, tuple[float, V | None]] = {}

    def known(self, key: K) -> V | None:
        """Return what is remembered and stands; None when it must be asked for."""
        entry = self._known.get(key)
        return entry[1] if entry is not None and entry[0] > monotonic() else None

    async def get(self, key: K) -> V | None:
        """Return what is remembered and stands, or ask."""
        entry = self._known.get(key)
        asked_at = monotonic()
        if entry is not None and entry[0] > asked_at:
            return entry[1]
        value = await self._lookups.get(key)
        if len(self._known) >= REMEMBERED_MAX:
            self._known.clear()
        self._known[key] = asked_at + self._seconds, value
        return value

    async def all(self, keys: Iterable[K]) -> dict[K, V]:
        """Return what is remembered of these keys and stands, and ask for the rest at once.

        A key that is unknown is left out, and asked for again the next time.
        """
        now, found, new = monotonic(), dict[K, V](), list[K]()
        for key in keys:
            entry = self._known.get(key)
            if entry is None or entry[0] <= now or entry[1] is None:
                new.append(key)
            else:
                found[key] = entry[1]
        if new:
            if len(self._known) + len(new) > REMEMBERED_MAX:
                self._known.clear()
            until = now + self._seconds
            for key, value in (await self._find(new)).items():
                found[key] = value
                self._known[key] = until, value
        return found

    def forget(self, key: K) -> None:
        """Ask anew the next time."""
        self._known.pop(key, None)

    def amend(self, key: K, value: V) -> None:
        """Put this in the place of what is remembered, for no longer than that stands."""
        if key in self._known:
            self._known[key] = self._known[key][0], value

"""Questions that many requests ask at once, put to the database together.

A question that comes while another set is on its way waits for the next set: no timer, and a lone
question waits for nobody. Of what changes rarely the answer may be remembered for a moment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping, Sequence
from typing import Final, Generic, TypeVar
from uuid import UUID

from tongbao.infra.changes import ALL, Changes
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
    """Lookups whose answers stand for ``seconds``, counted from before they were asked for.

    With ``changes`` they stand only while those are heard, and what is changed is forgotten, see
    `forget_with`; of what is unknown nothing is remembered then.
    """

    def __init__(
        self,
        find: Callable[[Sequence[K]], Awaitable[Mapping[K, V]]],
        *,
        seconds: float,
        changes: Changes | None = None,
    ) -> None:
        self._find = find
        self._lookups = Lookups(find)
        self._seconds = seconds
        self._changes = changes
        self._known: dict[K, tuple[float, V | None]] = {}

    def forget_with(self, what: str, keys: Callable[[UUID], Iterable[K]] | None = None) -> None:
        """Forget the answers to these keys when a thing of this kind is changed; None: to all."""
        if self._changes is None:
            raise TypeError("no changes are heard of")

        def forget(of_id: UUID) -> None:
            if keys is None or of_id == ALL:
                self._known.clear()
                return
            for key in keys(of_id):
                self.forget(key)

        self._changes.on(what, forget)

    def known(self, key: K) -> V | None:
        """Return what is remembered and stands; None when it must be asked for."""
        entry = self._known.get(key)
        if entry is None or entry[0] <= monotonic() or not self._is_heard:
            return None
        return entry[1]

    async def get(self, key: K) -> V | None:
        """Return what is remembered and stands, or ask."""
        entry, is_heard = self._known.get(key), self._is_heard
        asked_at, epoch = monotonic(), self._epoch
        if is_heard and entry is not None and entry[0] > asked_at:
            return entry[1]
        value = await self._lookups.get(key)
        if self._changes is None or (value is not None and epoch == self._epoch):
            self._make_room(1)
            self._known[key] = asked_at + self._seconds, value
        return value

    async def all(self, keys: Iterable[K]) -> dict[K, V]:
        """Return what is remembered of these keys and stands, and ask for the rest at once.

        A key that is unknown is left out, and asked for again the next time.
        """
        now, found, new = monotonic(), dict[K, V](), list[K]()
        is_heard, epoch = self._is_heard, self._epoch
        for key in keys:
            entry = self._known.get(key)
            if not is_heard or entry is None or entry[0] <= now or entry[1] is None:
                new.append(key)
            else:
                found[key] = entry[1]
        if new:
            asked = await self._find(new)
            found.update(asked)
            if epoch == self._epoch:
                self._make_room(len(asked))
                until = now + self._seconds
                self._known.update({key: (until, value) for key, value in asked.items()})
        return found

    @property
    def _is_heard(self) -> bool:
        return self._changes is None or self._changes.is_heard

    @property
    def _epoch(self) -> int:
        """Return what is another number where something was forgotten while it was asked for."""
        return 0 if self._changes is None else self._changes.epoch

    def _make_room(self, count: int) -> None:
        if len(self._known) + count > REMEMBERED_MAX:
            self._known.clear()

    def forget(self, key: K) -> None:
        """Ask anew the next time."""
        self._known.pop(key, None)

    def forget_all(self) -> None:
        """Ask everything anew."""
        self._known.clear()

    def amend(self, key: K, value: V) -> None:
        """Put this in the place of what is remembered, for no longer than that stands."""
        if key in self._known:
            self._known[key] = self._known[key][0], value

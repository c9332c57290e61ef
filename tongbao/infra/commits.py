"""What many callers want written at one moment, in one commit: fewer round trips, one flush.

Each caller's writes happen all or not at all, and it is answered once they are durable, as if it
had a transaction of its own. What comes while a commit is under way waits for the next one, which
may be told to begin no sooner than ``pace_s`` after the one before: a lone caller waits for nobody,
and under load more share each. Where the whole cannot be done, each caller's writes are
tried in a transaction of their own, so that nobody hears what was said of another's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Final

from tongbao.infra.db import DatabaseUnavailable, Db, Statement, Tx, Write
from tongbao.kernel.clock import monotonic

TOGETHER_MAX: Final = 200
"""Callers in one commit: enough to share it, and few enough that nobody waits long for it."""

_NEXT_AFTER_S: Final = 0.05
_SHORT_LOCKS: Final = Statement("set local lock_timeout = '100ms'")

_Asked = tuple[tuple[Write, ...], "asyncio.Future[str | None]"]


class _Refused(Exception):
    """Undo one caller's writes, carrying the code of the one that touched no row."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class _NotAll(Exception):
    """Undo the commit of many: somebody's write touched no row."""


class Commits:
    """Commits the writes of one process's callers together."""

    def __init__(self, db: Db, actor: str, *, pace_s: float = 0.0) -> None:
        self._db = db
        self._actor = actor
        self._pace_s = pace_s
        self._began_at = float("-inf")
        self._waiting: list[_Asked] = []
        self._committing: asyncio.Task[None] | None = None
        self._running: set[asyncio.Task[None]] = set()

    async def write(self, writes: Iterable[Write]) -> str | None:
        """Return None once the writes are durable, or the code of the first that was refused.

        One is refused that had to touch a row and touched none; then nothing was written.

        Raises:
            DatabaseUnavailable: nobody knows whether they were written.
            LockNotFree: nothing was written.
        """
        asked = tuple(writes)
        if not asked:
            return None
        future: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self._waiting.append((asked, future))
        if self._committing is None:
            self._committing = asyncio.create_task(self._commit_all())
        return await future

    async def _commit_all(self) -> None:
        try:
            while self._waiting:
                if (early := self._began_at + self._pace_s - monotonic()) > 0:
                    await asyncio.sleep(early)
                self._began_at = monotonic()
                taken, self._waiting = self._waiting[:TOGETHER_MAX], self._waiting[TOGETHER_MAX:]
                # Who went away before it began is not written for; afterwards nobody can say.
                present = [each for each in taken if not each[1].done()]
                running = asyncio.create_task(self._commit(present))
                self._running.add(running)
                running.add_done_callback(self._running.discard)
                # One that waits for somebody's lock must not hold up those that come after it.
                await asyncio.wait([running], timeout=_NEXT_AFTER_S)
        finally:
            self._committing = None
            left, self._waiting = self._waiting, []
            _let_go(left)  # only where this task itself is ended

    async def _commit(self, asked: Sequence[_Asked]) -> None:
        if len(asked) < 2:
            await self._commit_apart(asked)
            return
        try:
            async with self._db.begin(self._actor) as tx:
                await _SHORT_LOCKS.run(tx)
                for together in _alike(asked):
                    await _run_set(tx, together)
        except DatabaseUnavailable as failure:  # it may have happened: to try again is theirs
            for _, future in asked:
                if not future.done():
                    future.set_exception(failure)
        except Exception:  # noqa: BLE001 - whose it is shows when each has its own
            await self._commit_apart(asked)
        except BaseException:
            _let_go(asked)
            raise
        else:
            _tell_done(asked)

    async def _commit_apart(self, asked: Sequence[_Asked]) -> None:
        await asyncio.gather(*[self._answer(each) for each in asked])

    async def _answer(self, asked: _Asked) -> None:
        writes, future = asked
        try:
            found = await self._alone(writes)
        except Exception as failure:  # noqa: BLE001 - whoever asked decides what it means
            if not future.done():
                future.set_exception(failure)
        except BaseException:
            _let_go([asked])
            raise
        else:
            if not future.done():
                future.set_result(found)

    async def _alone(self, writes: Sequence[Write]) -> str | None:
        try:
            async with self._db.begin(self._actor) as tx:
                for write in writes:
                    if await write.run(tx) == 0 and write.refusal is not None:
                        raise _Refused(write.refusal)  # noqa: TRY301 - it only leaves the block
        except _Refused as refused:
            return refused.code
        return None


def _tell_done(asked: Sequence[_Asked]) -> None:
    for _, future in asked:
        if not future.done():
            future.set_result(None)


def _let_go(asked: Sequence[_Asked]) -> None:
    for _, future in asked:
        future.cancel()


def _alike(asked: Sequence[_Asked]) -> list[list[tuple[Write, ...]]]:
    """Put the callers together whose writes are the same statements in the same order."""
    sets: dict[tuple[int, ...], list[tuple[Write, ...]]] = {}
    for writes, _ in asked:
        sets.setdefault(tuple(id(write.statement) for write in writes), []).append(writes)
    return list(sets.values())


async def _run_set(tx: Tx, together: Sequence[Sequence[Write]]) -> None:
    for step, first in enumerate(together[0]):
        writes = [each[step] for each in together]
        if first.statement.many is None:
            for write in writes:
                _check(await write.run(tx), [write])
        elif len(writes) == 1:
            _check(await first.run(tx), writes)
        else:
            _check(await first.statement.run_set(tx, [write.args for write in writes]), writes)


def _check(touched: int, writes: Sequence[Write]) -> None:
    if touched < len(writes) and any(write.refusal is not None for write in writes):
        raise _NotAll

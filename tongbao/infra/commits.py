"""What many callers want written at one moment, in one commit: fewer round trips, one flush.

Each caller's writes happen all or not at all, and it is answered once they are durable, as if it
had a transaction of its own. Callers whose writes are the same statements share commits: what comes
while one of theirs is under way waits for the next one, which may be told to begin no sooner than
``pace_s`` after the one before: a lone caller waits for nobody, and under load more share each.

Such a commit is one statement, where its statements can be joined, and else a transaction that runs
each once for all. Where it cannot be done, each caller's writes are tried in a transaction of their
own, so that nobody hears what was said of another's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any, Final

from tongbao.infra.db import Db, Statement, Tx, Write
from tongbao.infra.db_failures import DatabaseUnavailable, NotSupported
from tongbao.infra.joined import Shape, arguments, joined
from tongbao.kernel.clock import monotonic

TOGETHER_MAX: Final = 200
"""Callers in one commit: enough to share it, and few enough that nobody waits long for it."""

LANES_MAX: Final = 200
"""Kinds of commit that are remembered: how many writes one has depends on what is asked."""

_NEXT_AFTER_S: Final = 0.05
_SHORT_LOCKS: Final = Statement("set local lock_timeout = '100ms'")
_SHORT_LOCKS_TOO: Final = "set_config('lock_timeout', '100ms', true)"

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
        self._lanes: dict[Shape, _Lane] = {}

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
        shape = tuple([(each.statement, each.refusal is not None) for each in asked])
        lane = self._lanes.get(shape)
        if lane is None:
            if len(self._lanes) >= LANES_MAX:
                self._lanes = {each: lane for each, lane in self._lanes.items() if lane.is_busy}
            lane = self._lanes[shape] = _Lane(self._db, self._actor, self._pace_s, shape)
        return await lane.ask(asked)


class _Lane:
    """The callers whose writes are the same statements."""

    def __init__(self, db: Db, actor: str, pace_s: float, shape: Shape) -> None:
        self._db = db
        self._actor = actor
        self._pace_s = pace_s
        self._joined = joined(shape, _SHORT_LOCKS_TOO)
        self._began_at = float("-inf")
        self._waiting: list[_Asked] = []
        self._runner: asyncio.Task[None] | None = None
        self._running: set[asyncio.Task[None]] = set()

    @property
    def is_busy(self) -> bool:
        """Whether somebody waits for a commit of these."""
        return bool(self._waiting or self._running)

    def ask(self, writes: tuple[Write, ...]) -> asyncio.Future[str | None]:
        """Return the answer to come."""
        future: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self._waiting.append((writes, future))
        if self._runner is None:
            self._begin()
        return future

    def _begin(self) -> None:
        self._runner = asyncio.create_task(self._commit_all())
        self._running.add(self._runner)
        self._runner.add_done_callback(self._running.discard)

    async def _commit_all(self) -> None:
        """Commit whoever waits, until nobody does or somebody else has taken over."""
        loop, me = asyncio.get_running_loop(), asyncio.current_task()
        try:
            while self._waiting and self._runner is me:
                if (early := self._began_at + self._pace_s - monotonic()) > 0:
                    await asyncio.sleep(early)
                self._began_at = monotonic()
                taken, self._waiting = self._waiting[:TOGETHER_MAX], self._waiting[TOGETHER_MAX:]
                # One that waits for somebody's lock must not hold up those that come after it.
                late = loop.call_later(_NEXT_AFTER_S, self._let_others_by, me)
                try:
                    # Who went away before it began is not written for; afterwards nobody can say.
                    await self._commit([each for each in taken if not each[1].done()])
                finally:
                    late.cancel()
        finally:
            if self._runner is me:
                self._runner = None
                left, self._waiting = self._waiting, []
                _let_go(left)  # only where this task itself is ended

    def _let_others_by(self, runner: asyncio.Task[Any] | None) -> None:
        if self._runner is runner:
            self._runner = None
            if self._waiting:
                self._begin()

    async def _commit(self, asked: Sequence[_Asked]) -> None:
        try:
            await self._commit_together([writes for writes, _ in asked])
        except DatabaseUnavailable as failure:  # it may have happened: to try again is theirs
            for _, future in asked:
                if not future.done():
                    future.set_exception(failure)
        except Exception:  # noqa: BLE001 - whose it is shows when each has its own
            await asyncio.gather(*[self._answer(each) for each in asked])
        except BaseException:
            _let_go(asked)
            raise
        else:
            _tell_done(asked)

    async def _commit_together(self, together: Sequence[tuple[Write, ...]]) -> None:
        """Write what all of them asked for.

        Raises:
            _NotAll: nothing was written, as with anything else that is no `DatabaseUnavailable`.
        """
        if not together:
            return
        if self._joined is not None:
            steps = zip(*together, strict=True)
            rows = [[write.args for write in step] for step in steps]
            try:
                await self._db.fetch(self._joined, arguments(rows))
            except NotSupported:  # a database in many parts may take them only one by one
                self._joined = None
            else:
                return
        if len(together) == 1:
            raise _NotAll
        async with self._db.begin(self._actor) as tx:
            await _SHORT_LOCKS.run(tx)
            for step in zip(*together, strict=True):
                await _run_set(tx, step)

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


async def _run_set(tx: Tx, writes: Sequence[Write]) -> None:
    statement = writes[0].statement
    if statement.many is None:
        for write in writes:
            _check(await write.run(tx), [write])
    else:
        _check(await statement.run_set(tx, [write.args for write in writes]), writes)


def _check(touched: int, writes: Sequence[Write]) -> None:
    if touched < len(writes) and any(write.refusal is not None for write in writes):
        raise _NotAll

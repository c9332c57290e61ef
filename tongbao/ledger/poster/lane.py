"""The loop of one book: take what waits, decide it in memory, commit it, answer.

    queue ──► decide ──► append ──► change, commit ──► answer
              N + 2       N + 1            N

Whatever arrived while one batch was being committed is the next one; no timer holds anything back.
A batch is decided on top of the one in its commit, in the hope that all of that takes effect, and
on a connection of its own it appends the rows that wait for nobody. Then it waits for the commit
before. When that fails, or hoped in vain, what was decided on top of it is undone and decided
again. Nobody is answered before the commit, and the loop ends when nothing waits.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from typing import Final, Protocol

import structlog
from prometheus_client import Histogram

from tongbao.infra.db import Db, Tx
from tongbao.infra.db_failures import DatabaseUnavailable, LockNotFree
from tongbao.infra.failpoints import failpoint
from tongbao.kernel.clock import monotonic, real_now
from tongbao.kernel.errors import Refusal
from tongbao.ledger.decision.core import BookState
from tongbao.ledger.decision.records import REPEATED
from tongbao.ledger.door.companions import NotAll
from tongbao.ledger.door.names import Names
from tongbao.ledger.door.repeats import answer_repeats
from tongbao.ledger.poster import _store as store
from tongbao.ledger.poster.calls import Call, answer_in_flight, fail, those_in_time
from tongbao.ledger.poster.commit import (
    Fenced,
    Head,
    Plan,
    advance,
    append_journal,
    settle_companions,
)
from tongbao.ledger.poster.lease import read_head, stop_book, take_book
from tongbao.ledger.poster.projection import ACTOR, Follower, JournalBroken, carry
from tongbao.ledger.poster.queue import BATCH_MAX, Queue
from tongbao.ledger.poster.recall import AHEAD_MAX, fill, state_of
from tongbao.ledger.rows import LedgerWatermark

ACCOUNTS_MAX: Final = 4_000_000
"""Accounts that a book's memory may have room for, before it begins again with none."""
LAG_MAX: Final = 500_000
"""Transfers that balances may be behind before the book waits for them."""

_OVERLAP_MIN: Final = 200  # fewer are decided in no time; let them gather
_ASIDE_MIN: Final = 400  # fewer are decided before a thread has taken them up
_AHEAD_MIN: Final = 100  # fewer rows are appended in less time than it takes to begin early
_CAUTIOUS: Final = 20  # commits that do not hope, after one of them hoped in vain
_RETRY_S: Final = 0.02
_RETRY_S_MAX: Final = 1.0

_BATCH: Final = Histogram(
    "tongbao_ledger_batch_transfers",
    "Transfers in one commit of a book",
    buckets=(1, 3, 10, 30, 100, 300, 1000, 3000, 10_000),
)
_COMMIT: Final = Histogram(
    "tongbao_ledger_commit_seconds",
    "How long a commit of a book took, from the first statement to its end",
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1, 5),
)

_log = structlog.get_logger()


class Moved(Exception):
    """Another process keeps the book; nothing was decided here that it does not know of."""


class _Undone(Exception):
    """The commit that this one was decided on top of did not happen, or not like that."""


class Claim(Protocol):
    """A process's say in who keeps the book."""

    async def may_take(self, book: int) -> bool:
        """Return whether nobody else who lives keeps it."""

    async def address(self) -> str:
        """Return where others reach this process, or ""."""


class Lane:
    """The writer of one book in this process; at rest it has no task and no connection."""

    def __init__(
        self, db: Db, book: int, names: Names, *, claim: Claim, with_balances: bool
    ) -> None:
        self._db = db
        self._book = book
        self._names = names
        self._claim = claim
        self._with_balances = with_balances
        self._queue = Queue(book)
        self._task: asyncio.Task[None] | None = None
        self._head: Head | None = None
        self._state: BookState | None = None
        self._committing: tuple[asyncio.Task[None], Plan] | None = None
        self._taken: Plan | None = None
        self._doubtful: Plan | None = None
        self._calls_max = BATCH_MAX
        self._cautious = 0
        self._setbacks = 0
        self._follower = Follower(db, book)

    @property
    def callers(self) -> int:
        """How many calls wait to be decided."""
        return len(self._queue)

    @property
    def keeps(self) -> bool:
        """Whether this process has the book as far as it knows, or is about to take it."""
        return self._head is not None or self._task is not None

    def put(self, call: Call) -> None:
        """Queue a call; its future has the answer.

        Raises:
            LedgerOverloaded: too much waits already.
        """
        self._queue.put(call)
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=f"ledger book {self._book}")
            self._queue.watch()

    async def close(self) -> None:
        """Stop at once; what was not answered stays unknown to its callers."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        await self._follower.close()

    # The loop

    async def _run(self) -> None:
        try:
            while self._queue or self._committing or self._doubtful:
                self._forget_if_large()
                if self._state is None and not await self._open():
                    continue
                if not await self._gather():
                    self._taken = Plan(self._book, self._queue.take(self._calls_max))
                    if self._taken.calls:
                        await self._turn(self._taken)
        except BaseException as crash:
            self._crash(crash)
            if isinstance(crash, Exception):
                _log.exception("ledger_lane_failed", book=self._book)
            elif isinstance(crash, asyncio.CancelledError):
                raise
        finally:
            self._task = None
            self._queue.watch_no_more()

    async def _gather(self) -> bool:
        """Wait while a commit is under way and little has come; say whether to look again."""
        if self._committing is None or self._queue.transfers >= _OVERLAP_MIN:
            return False
        task, _ = self._committing
        if not task.done():
            self._queue.arrived.clear()
            arrival = asyncio.ensure_future(self._queue.arrived.wait())
            try:
                await asyncio.wait({task, arrival}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                arrival.cancel()
        if task.done():
            await self._settle()
        return True

    async def _turn(self, plan: Plan) -> None:
        """Decide a plan and start its commit, or do what a failure asks for."""
        try:
            await self._prepare(plan)
        except Exception as failure:  # noqa: BLE001 - sorted by kind in _recover
            if await self._settle(plan):
                await self._recover(plan, failure)
            return
        ahead = self._run_ahead(plan)
        if not await self._settle(plan, ahead):
            return
        if plan.commits:
            task = ahead or asyncio.create_task(self._commit(plan))
            self._committing = (task, plan)
            task.add_done_callback(lambda _: plan.sealed.set())
            await plan.sealed.wait()
        else:
            await self._answer_without_commit(plan)

    def _run_ahead(self, plan: Plan) -> asyncio.Task[None] | None:
        """Let a plan append its rows while the commit before it is under way, where that pays."""
        if self._committing is None or not plan.is_firm or plan.appends < _AHEAD_MIN:
            return None
        task = asyncio.create_task(self._commit(plan, behind=self._committing[0]))
        task.add_done_callback(lambda _: plan.sealed.set())
        return task

    async def _settle(
        self, following: Plan | None = None, ahead: asyncio.Task[None] | None = None
    ) -> bool:
        """Wait for the commit under way and return whether the plan after it still stands.

        When it does not, that one, decided on top of what did not happen, goes back to the queue.
        """
        if self._committing is None:
            return True
        task, plan = self._committing
        try:
            await task
        except Exception as failure:  # noqa: BLE001 - sorted by kind in _recover
            self._committing = None
            if ahead is not None:  # it hears of it, and ends; its connection is wanted
                await asyncio.gather(ahead, return_exceptions=True)
            if following is not None:
                self._queue.put_back(following.calls)
            if not isinstance(failure, NotAll):
                await self._recover(plan, failure)
                return False
            return await self._again(plan, following)
        except asyncio.CancelledError:
            if ahead is not None:
                ahead.cancel()
            raise
        self._committing = None
        return True

    async def _again(self, plan: Plan, following: Plan | None) -> bool:
        """Commit a plan that hoped in vain, without hope; say whether nothing had followed it."""
        self._cautious = _CAUTIOUS
        try:
            if following is not None:
                self._take_back(following)
            plan.hopeful = None
            await self._commit(plan)
        except Exception as failure:  # noqa: BLE001 - sorted by kind in _recover
            await self._recover(plan, failure)
            return False
        return following is None

    def _take_back(self, plan: Plan) -> None:
        """Undo in memory what a plan decided that is not going to be committed like this.

        Raises:
            Fenced: it cannot be said how far its decision came.
        """
        if self._state is None or not plan.is_decided:
            raise Fenced
        self._state.revert(plan.decision)

    # One plan

    async def _prepare(self, plan: Plan) -> None:
        """Fill the memory with what the plan needs, decide it, and encode what it will send."""
        state = self._state
        if state is None:
            raise Fenced
        if self._follower.lag > LAG_MAX:
            await self._follower.wait_below(LAG_MAX)
        if self._follower.breach is not None:
            raise JournalBroken(self._follower.breach)
        plan.compose(self._names.accounts(self._book), self._names.codes)
        await fill(self._db, state, plan.batch)
        plan.now, plan.latest = self._db.clock.now(), real_now() + AHEAD_MAX
        hoping = not self._cautious
        if len(plan.batch.records) < _ASIDE_MIN:
            plan.work_out(state, hoping=hoping)
        else:  # beside the loop, which meanwhile feeds the commit before
            await asyncio.to_thread(plan.work_out, state, hoping=hoping)

    async def _commit(self, plan: Plan, behind: asyncio.Task[None] | None = None) -> None:
        """Write the plan, ``behind`` the commit under way if there is one, and answer its callers.

        Raises:
            NotAll: it hoped in vain; plan and memory are as they were.
        """
        began = monotonic()
        self._cautious -= self._cautious > 0
        async with self._db.begin(ACTOR) as tx:
            if plan.is_firm:
                if plan.hopeful is not None:
                    await plan.hopeful.append(tx)
                plan.sealed.set()
                await append_journal(tx, plan)
            if behind is not None:
                await _stands(behind)
            head = await self._write(tx, plan)
        failpoint("ledger.after_commit")
        _COMMIT.observe(monotonic() - began)
        _BATCH.observe(len(plan.decision.journal))
        self._head = head
        self._setbacks = 0
        self._calls_max = min(BATCH_MAX, self._calls_max * 2)
        if plan.commits and not self._with_balances:
            self._follower.follow(plan.last_seq, plan.carried)
        await self._answer(plan)

    async def _write(self, tx: Tx, plan: Plan) -> Head:
        """Write what may only be written after the commit before; return the book's new end."""
        state, head = self._state, self._head
        if state is None or head is None:
            raise Fenced
        if plan.hopeful is not None:
            await plan.hopeful.change(tx)
        elif not plan.is_firm:
            await settle_companions(tx, plan, state)
            plan.sealed.set()
            plan.encode()
            await append_journal(tx, plan)
        if plan.commits:
            head = await advance(tx, plan, head)
        if self._with_balances and plan.commits:
            mark = LedgerWatermark(self._book, plan.first_seq - 1, plan.number - 1)
            if not await carry(tx, self._book, mark, [plan.carried]):
                raise Fenced
        failpoint("ledger.before_commit")
        return head

    async def _answer_without_commit(self, plan: Plan) -> None:
        """Answer a plan that writes nothing, unless the memory it was decided on is outdated."""
        codes = plan.decision.codes
        if bool(((codes < 0) & (codes != REPEATED)).any()):
            head = await read_head(self._db, self._book)
            if self._head is None or head.epoch != self._head.epoch:
                self._forget()
                self._queue.put_back(plan.calls)
                return
        await self._answer(plan)

    async def _answer(self, plan: Plan) -> None:
        places = [*(plan.decision.codes == REPEATED).nonzero()[0].tolist()]
        if places:
            plan.repeats = await answer_repeats(self._db, self._book, plan.batch, places)
        plan.answer()

    # Taking the book, and setbacks

    async def _open(self) -> bool:
        """Take the book, learn what became of a commit in doubt, and begin with an empty memory."""
        try:
            moved = not await self._claim.may_take(self._book)
            if not moved:
                row = await take_book(self._db, self._book, await self._claim.address())
            if self._doubtful is not None:
                await self._resolve_doubt(self._doubtful)
            if moved:
                self._hand_over()
                return False
            state = await state_of(self._db, row)
        except DatabaseUnavailable as failure:
            self._refuse_waiting(failure)
            await self._pause()
            return False
        except (Refusal, LockNotFree) as refusal:
            self._refuse_waiting(refusal)
            return False
        self._head = Head(row.epoch, row.last_batch, row.head_hash)
        self._state = state
        self._follower.start_from(row.last_seq, row.last_batch)
        return True

    async def _resolve_doubt(self, plan: Plan) -> None:
        """Answer a commit whose end we did not hear of, or queue it again: it is known now."""
        batch = await store.GET_BATCH.first(self._db, self._book, plan.number)
        if batch is not None and batch.hash == plan.hash:
            await self._answer(plan)
        else:
            self._queue.put_back(plan.calls)
        self._doubtful = None

    async def _recover(self, plan: Plan, failure: Exception) -> None:
        """Do what the failure of a plan asks for; whatever it is, the memory is not trusted."""
        was_sent = plan.number > 0
        self._forget()
        self._setbacks += 1
        match failure:
            case Fenced():
                _log.warning("ledger_fenced", book=self._book)
                self._queue.put_back(those_in_time(plan.calls, None))
                await self._pause()
            case DatabaseUnavailable() if was_sent:
                self._doubtful = plan
            case DatabaseUnavailable():
                self._queue.put_back(those_in_time(plan.calls, failure))
            case LockNotFree():
                answer_in_flight(plan.calls)
            case JournalBroken():
                await stop_book(self._db, self._book, str(failure))
                self._queue.put_back(plan.calls)
            case _:
                self._halve(plan, failure)

    def _hand_over(self) -> None:
        """Send everybody who waits to whoever keeps the book now."""
        fail(self._queue.drain(), Moved())

    def _halve(self, plan: Plan, failure: Exception) -> None:
        """Try fewer calls at a time, until the one that the database cannot take stands alone."""
        if len(plan.calls) == 1:
            fail(plan.calls, failure)
            _log.error("ledger_call_failed", book=self._book, failure=type(failure).__name__)
            return
        self._calls_max = max(1, len(plan.calls) // 2)
        self._queue.put_back(plan.calls)

    def _forget_if_large(self) -> None:
        """Begin with an empty memory again when it has grown large; the rows have it all."""
        state = self._state
        if state is not None and self._committing is None and len(state.accounts) > ACCOUNTS_MAX:
            self._forget()

    def _forget(self) -> None:
        self._state = self._head = None

    async def _pause(self) -> None:
        """Wait a moment, by chance longer or shorter, so that two who meet do not meet again."""
        longest = min(_RETRY_S_MAX, _RETRY_S * 2 ** min(self._setbacks, 10))
        self._setbacks += 1
        await asyncio.sleep(longest * random.uniform(0.25, 1))  # noqa: S311 - no secret

    def _refuse_waiting(self, failure: Exception) -> None:
        """Tell those who wait why the book cannot be opened; of a commit in doubt, at its time."""
        self._queue.refuse(failure)
        now = monotonic()
        if self._doubtful is not None and isinstance(failure, DatabaseUnavailable | LockNotFree):
            fail([call for call in self._doubtful.calls if now >= call.deadline], failure)
            if all(call.answer.done() for call in self._doubtful.calls):
                self._doubtful = None

    def _crash(self, crash: BaseException) -> None:
        """Let everybody who waits know: the process is dying here, or would be."""
        plans = [self._taken, self._doubtful]
        plans += [self._committing[1]] if self._committing else []
        calls = [*self._queue.drain(), *(call for plan in plans if plan for call in plan.calls)]
        self._committing = self._doubtful = self._taken = None
        self._forget()
        fail(calls, crash)


async def _stands(commit: asyncio.Task[None]) -> None:
    """Wait until a commit has ended.

    Raises:
        _Undone: it is not in the book as it was planned.
    """
    await asyncio.wait({commit})
    if commit.cancelled() or commit.exception() is not None:
        raise _Undone

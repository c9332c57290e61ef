"""The worker: claims due tasks, runs them under leases, and dispatches the outbox.

One loop does the bookkeeping (write what became of tasks, dispatch events, claim more), all of a
turn in one transaction, and every task runs beside it. Whoever enqueues in this process calls
`Worker.nudge` after the commit; other processes are noticed at the next poll. The first nudge is
heard at once, and those that follow closely share a turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

import structlog

from tongbao.infra import _queue_metrics as metrics
from tongbao.infra import _task_store as store
from tongbao.infra import outbox
from tongbao.infra._task_ends import (
    Ended,
    Verdict,
    frames_of,
    later,
    reason_of,
    storable,
    write_down,
)
from tongbao.infra._task_jobs import ArgsMalformed, Job, claim, jobs_of
from tongbao.infra._task_store import TaskRow
from tongbao.infra.audit import come_from
from tongbao.infra.db import Db, Tx
from tongbao.infra.failpoints import failpoint
from tongbao.infra.outbox import Event, FanOut, Subscriber
from tongbao.infra.tasks import Again, Handler, Lease, LeaseLost, RetryPolicy, Task, tag_of
from tongbao.kernel.clock import monotonic, real_now
from tongbao.kernel.errors import Busy

ADOPTED_MAX: Final = 64  # tasks begun without being claimed: each is about one commit long
_EVENTS_MAX: Final = 100
_OBSERVE_EVERY_S: Final = 5.0
_log: Final = structlog.get_logger()


class _Run:
    """A task that is running now."""

    def __init__(self, row: TaskRow, *, is_adopted: bool = False) -> None:
        self.row = row
        self.is_adopted = is_adopted
        self.lease = Lease(row.id, row.attempt)
        self.stopped: Verdict | None = None  # why we cancelled it, if we did
        self.asyncio_task: asyncio.Task[None] | None = None

    def stop(self, why: Verdict) -> None:
        self.stopped = why
        if self.asyncio_task is not None:
            self.asyncio_task.cancel()


class Worker:
    """Runs tasks and dispatches events; any number of workers share one database.

    Types without a handler, and events without an entry in ``subscribers``, belong to a newer
    version of this program: they stay where they are and are counted.
    """

    def __init__(
        self,
        db: Db,
        handlers: Mapping[type[Task], Handler],
        policies: Mapping[type[Task], RetryPolicy],
        subscribers: Mapping[type[Event], Sequence[Subscriber]],
        *,
        concurrency: int = 16,
        fan_outs: Sequence[FanOut] = (),
        lease_s: float = 30.0,
        heartbeat_s: float = 10.0,
        poll_s: float = 0.1,
        turn_s: float = 0.1,
        grace_s: float = 20.0,
    ) -> None:
        self._db = db
        self._jobs = jobs_of(db, handlers, policies, subscribers)
        self._subscribers = {tag_of(event): told for event, told in subscribers.items()}
        self._fan_outs = tuple(fan_outs)
        self._concurrency = concurrency
        self._lease = timedelta(seconds=lease_s)
        self._heartbeat_s = heartbeat_s
        self._poll_s = poll_s
        self._turn_s = self._pause_s = turn_s
        self._turned_at = self._observed_at = float("-inf")
        self._stop: asyncio.Event | None = None
        self._grace_s = grace_s
        self._running: dict[UUID, _Run] = {}
        self._ended: list[Ended] = []
        self._failures: list[Exception] = []
        self._crash: BaseException | None = None
        self._wake = asyncio.Event()

    def nudge(self) -> None:
        """Look for due tasks and events now instead of at the next poll."""
        self._wake.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Work until ``stop``, then let running tasks end and give back what does not.

        Cancelling this coroutine is a crash instead: leases run out by themselves.
        """
        heartbeat = asyncio.create_task(self._keep_leases())
        stopping = asyncio.create_task(self._wake_at(stop))
        try:
            self._stop = stop
            while not stop.is_set():
                self._raise_crash()
                self._turned_at = monotonic()
                if not await self._turned_whole():
                    # Each step by itself: what cannot be dispatched must not stop all other work.
                    for step in (self._settle, self._dispatch, self._claim):
                        await self._survive(step)
                await self._survive(self._observe)
                await self._rest()
            await self._drain()
        finally:
            await _abandon(heartbeat, stopping, *self._asyncio_tasks())

    async def run_until_idle(self, *, raise_failures: bool = False) -> int:
        """Run everything due at the clock's time, and what that leads to; say how many tasks.

        For tests and tools. With ``raise_failures`` what handlers raised is raised here at the
        end, instead of being seen only as a retry.
        """
        heartbeat = asyncio.create_task(self._keep_leases())
        count = 0
        try:
            while True:
                before = len(self._running)
                dispatched = await self._round()
                count += len(self._running) - before
                if not dispatched and not self._running and not self._ended:
                    break
                if self._running:
                    await self._one_ends(self._poll_s)
        finally:
            await _abandon(heartbeat, *self._asyncio_tasks())
        failures, self._failures = self._failures, []
        if raise_failures and failures:
            raise ExceptionGroup("tasks failed", failures)
        return count

    async def _round(self) -> int:
        """Write down, dispatch, claim; return how many events were dispatched."""
        self._raise_crash()
        try:
            return await self._turn()
        except Busy:
            raise
        except Exception:  # noqa: BLE001 - the steps by themselves show whose it is
            await self._settle()
            dispatched = await self._dispatch()
            await self._claim()
            return dispatched

    async def _turn(self) -> int:
        """Write down, dispatch and claim in one transaction; say how many events there were.

        When it fails nothing of it has happened, and what had ended still waits to be told.
        """
        ended, self._ended = self._ended, []
        try:
            async with self._db.begin("worker") as tx:
                if ended:
                    await write_down(tx, ended)
                count = await self._dispatched(tx)
                rows = await self._claimed(tx)
        except BaseException:
            self._ended = ended + self._ended
            raise
        self._begin(rows)
        self._note_dispatched(count)
        if count >= _EVENTS_MAX:
            self._wake.set()
        return count

    def _raise_crash(self) -> None:
        if self._crash is not None:
            raise self._crash

    async def _wake_at(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._wake.set()

    async def _turned_whole(self) -> bool:
        """Take a turn, and say whether all of it was possible."""
        try:
            await self._turn()
        except Exception:  # noqa: BLE001 - the steps by themselves show whose it is
            return False
        return True

    async def _rest(self) -> None:
        """Wait for a nudge, an ended task, the end, or the next poll."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._poll_s):
                await self._wake.wait()
        if (pause := self._turned_at + self._pause_s - monotonic()) > 0:
            await asyncio.sleep(pause)
        self._wake.clear()

    async def _survive(self, step: Callable[[], Awaitable[object]]) -> None:
        """Run a step of the loop; what fails is told and tried again at the next turn."""
        try:
            await step()
        except Busy as refusal:
            _log.warning("worker_waits", reason=refusal.code)
            await asyncio.sleep(1)
        except Exception as bug:  # noqa: BLE001 - one bad step must not end all work
            self._note_bug("worker_step_failed", bug)
            await asyncio.sleep(1)

    def _note_bug(self, what: str, bug: Exception) -> None:
        metrics.LOOP_FAILURES.inc()
        _log.error(what, reason=reason_of(bug), frames=frames_of(bug))

    # Claiming and running

    async def _dispatch(self) -> int:
        total = 0
        while True:
            async with self._db.begin("worker") as tx:
                count = await self._dispatched(tx)
            self._note_dispatched(count)
            total += count
            if count < _EVENTS_MAX:
                return total

    async def _dispatched(self, tx: Tx) -> int:
        if not self._subscribers:
            return 0
        return await outbox.dispatch(tx, self._subscribers, self._fan_outs, events_max=_EVENTS_MAX)

    def _note_dispatched(self, count: int) -> None:
        if count:
            failpoint("outbox.dispatched")
            metrics.EVENTS_DISPATCHED.inc(count)

    async def _claim(self) -> None:
        self._begin(await self._claimed(self._db))

    async def _claimed(self, on: Db | Tx) -> list[TaskRow]:
        running = [run.row.type for run in self._running.values() if not run.is_adopted]
        lease = (self._db.clock.now(), self._lease)
        rows, is_cut = await claim(on, self._jobs, running, self._concurrency, lease)
        self._pause_s = self._turn_s / 5 if is_cut else self._turn_s  # others may have no place yet
        return rows

    def _begin(self, rows: Sequence[TaskRow]) -> None:
        for row in sorted(rows, key=lambda row: (row.run_at, row.id)):
            if row.id in self._running:  # our own lease ran out before it was extended
                self._running[row.id].stop("lost")
            self._start(_Run(row), self._jobs[row.type])

    @property
    def room(self) -> int:
        """How many tasks may be begun here without being claimed."""
        if self._stop is None or self._stop.is_set():
            return 0
        return ADOPTED_MAX - sum(run.is_adopted for run in self._running.values())

    def adopt(self, row: TaskRow, run: Callable[[Lease], Awaitable[Again | None]]) -> None:
        """Begin a task that was enqueued with its first lease, see `tasks.leased_write`."""
        job = Job(lambda _row, lease: run(lease), self._jobs[row.type].policy)
        self._start(_Run(row, is_adopted=True), job)

    def _start(self, run: _Run, job: Job) -> None:
        failpoint("tasks.claimed")
        self._running[run.row.id] = run
        run.asyncio_task = asyncio.create_task(self._execute(run, job), name=run.row.type)

    async def _execute(self, run: _Run, job: Job) -> None:
        started = monotonic()
        come_from(f"task {run.row.type}")
        try:
            ended = await self._outcome(run, job)
            failpoint("tasks.before_done")
        except asyncio.CancelledError:
            if run.stopped is None:
                raise  # the worker itself was cancelled
            ended = self._as_verdict(run, run.stopped)
        except Exception as bug:  # noqa: BLE001 - ours: the lease runs out, and that is counted
            self._note_bug("task_outcome_lost", bug)
            return
        except BaseException as crash:  # noqa: BLE001 - the loop raises it at its next turn
            self._crash = crash
            return
        finally:
            if self._running.get(run.row.id) is run:  # else it is claimed anew, and runs again
                del self._running[run.row.id]
        if ended.verdict != "done" or not run.lease.finished:  # else it is written down already
            self._ended.append(ended)
        if not (run.is_adopted and run.lease.finished):  # else there is no place to be filled
            self._wake.set()
        metrics.TASK_RUNS.labels(run.row.type, ended.verdict).inc()
        metrics.TASK_SECONDS.labels(run.row.type).observe(monotonic() - started)

    async def _outcome(self, run: _Run, job: Job) -> Ended:
        row, policy = run.row, job.policy
        if row.failures >= policy.attempts_max:  # it took its workers down with it
            return self._as_verdict(run, "dead", "lease_expired")
        try:
            async with asyncio.timeout(policy.time_limit.total_seconds()):
                again = await job.run(row, run.lease)
        except Exception as failure:  # noqa: BLE001 - it fails its task, not the worker
            return self._after_failure(run, policy, failure)
        if again is None:
            return self._as_verdict(run, "done")
        return self._as_verdict(run, "again", after=again.after)

    def _after_failure(self, run: _Run, policy: RetryPolicy, failure: Exception) -> Ended:
        match failure:
            case LeaseLost():
                return self._as_verdict(run, "lost")
            case Busy():  # normal contention, so it is not counted against the task
                wait, failures = timedelta(seconds=failure.retry_after_s), run.row.failures
                return self._as_verdict(run, "busy", failure.code, after=wait, failures=failures)
            case ArgsMalformed():
                self._remember(failure)
                return self._as_verdict(run, "dead", f"args_malformed: {failure}")
            case _:
                return self._counted(run, policy, failure)

    def _counted(self, run: _Run, policy: RetryPolicy, failure: Exception) -> Ended:
        row, failures = run.row, run.row.failures + 1
        reason = reason_of(failure)
        self._remember(failure)
        last = failures >= policy.attempts_max
        _log.error(
            "task_failed",
            type=row.type,
            task_id=str(row.id),
            failures=failures,
            last=last,
            reason=reason,
            frames=frames_of(failure),
        )
        if last:
            return self._as_verdict(run, "dead", reason)
        after = policy.delay_after(failures)
        return self._as_verdict(run, "retry", reason, after=after, failures=failures)

    def _remember(self, failure: Exception) -> None:
        self._failures.append(failure)
        del self._failures[:-100]  # only `run_until_idle` ever looks

    def _as_verdict(
        self,
        run: _Run,
        verdict: Verdict,
        reason: str | None = None,
        *,
        after: timedelta = timedelta(),
        failures: int = 0,
    ) -> Ended:
        run_at = later(self._db.clock.now(), after)
        return Ended(run.row, verdict, run_at, failures, reason and storable(reason))

    # Writing down what became of tasks

    async def _settle(self) -> None:
        ended, self._ended = self._ended, []
        if not ended:
            return
        try:
            async with self._db.begin("worker") as tx:
                await write_down(tx, ended)
        except Exception as failure:
            if isinstance(failure, Busy):
                self._ended = ended + self._ended
                raise
            await self._write_down_singly(ended)
        except BaseException:
            self._ended = ended + self._ended
            raise

    async def _write_down_singly(self, ended: Sequence[Ended]) -> None:
        """Find the one that cannot be written and let its lease run out, so that the rest goes on.

        Raises:
            Busy: what is left is kept for the next turn.
        """
        for place, end in enumerate(ended):
            try:
                async with self._db.begin("worker") as tx:
                    await write_down(tx, [end])
            except Busy:
                self._ended = [*ended[place:], *self._ended]
                raise
            except Exception as bug:  # noqa: BLE001 - the others must not wait for it
                self._note_bug("task_not_written_down", bug)

    # Leases

    async def _keep_leases(self) -> None:
        while True:
            await asyncio.sleep(self._heartbeat_s)
            if self._running:
                await self._survive(self._extend)

    async def _extend(self) -> None:
        """Extend every lease we still have and stop the runs whose lease is gone."""
        runs = [run for run in self._running.values() if not run.lease.finished]
        ids, attempts = [run.row.id for run in runs], [run.row.attempt for run in runs]
        real = real_now()
        await store.EXTEND.run(self._db, ids, attempts, real, real + self._lease)
        alive = set(await store.ALIVE.all(self._db, ids, attempts, real_now()))
        for run in runs:
            if run.row.id not in alive and not run.lease.finished:
                _log.warning("task_lease_lost", type=run.row.type, task_id=str(run.row.id))
                run.stop("lost")

    async def _drain(self) -> None:
        """Let running tasks end within the grace period, then give the others back."""
        ends_at = monotonic() + self._grace_s
        while self._running and (left := ends_at - monotonic()) > 0:
            await self._one_ends(left)
            await self._survive(self._settle)
        for run in list(self._running.values()):
            run.stop("given_back")
        if tasks := self._asyncio_tasks():
            await asyncio.wait(tasks, timeout=self._grace_s)
        await self._survive(self._settle)

    async def _one_ends(self, within_s: float) -> None:
        await asyncio.wait(
            self._asyncio_tasks(), timeout=within_s, return_when=asyncio.FIRST_COMPLETED
        )

    def _asyncio_tasks(self) -> list[asyncio.Task[None]]:
        return [run.asyncio_task for run in self._running.values() if run.asyncio_task]

    # Being watched

    async def _observe(self) -> None:
        if monotonic() - self._observed_at < _OBSERVE_EVERY_S:
            return
        self._observed_at = monotonic()
        await metrics.observe(self._db, known=set(self._jobs), known_events=set(self._subscribers))


async def _abandon(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

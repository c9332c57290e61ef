"""Tasks: work enqueued with the fact that asks for it, run later by a worker, at least once.

    waiting ──claim──► leased ──done──► (deleted)
       ▲                 │ Again, failure, lease expired, given back
       └─────────────────┤
                         └─ too many failures ──► dead_letter ──replay──► waiting

A task is a frozen Struct whose tag is its stable public name; fields are added only with defaults,
because an old worker may meet a new message and a new worker an old one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, Protocol, TypeAlias
from uuid import UUID

import msgspec
from msgspec import Struct

from tongbao.infra import _task_store as store
from tongbao.infra import audit
from tongbao.infra._task_store import TaskRow
from tongbao.infra.db import Db, Query, Tx, Write
from tongbao.kernel.clock import real_now
from tongbao.kernel.errors import Conflict, NotFound
from tongbao.kernel.ids import new_id, show
from tongbao.kernel.pages import Page, decode_moment, page_by_moment, page_size

LEASE_LOST: Final = "task.lease_lost"
FIRST_LEASE: Final = timedelta(seconds=30)


class Task(Struct, frozen=True):
    """One piece of work to do later; a subclass states ``tag="domain.do_thing"`` and its args."""


class Again(Struct, frozen=True):
    """A handler's way to say: in order so far, run me once more after this much business time."""

    after: timedelta


class RetryPolicy(Struct, frozen=True):
    """What happens when a task fails, as data.

    Failures are counted in a row; running in order, `Again` included, resets them. After failure
    n the task waits ``delays[n - 1]`` (the last delay repeats); after ``attempts_max`` failures it
    becomes a dead letter. ``time_limit`` is real time. ``concurrency_max`` keeps a slow kind of
    task from taking every place of a worker.
    """

    attempts_max: int
    delays: tuple[timedelta, ...]
    time_limit: timedelta = timedelta(minutes=5)
    concurrency_max: int | None = None

    def delay_after(self, failures: int) -> timedelta:
        """Return how long to wait after this many failures in a row."""
        return self.delays[min(failures, len(self.delays)) - 1]


class DeadLetter(Struct, frozen=True):
    """A task that will not be tried again unless a person says so."""

    id: UUID
    type: str
    args: dict[str, Any]
    key: str | None
    attempts: int
    reason: str
    died_at: datetime


DEFAULT_POLICY: Final = RetryPolicy(
    attempts_max=15,
    delays=(
        timedelta(seconds=1),
        timedelta(seconds=5),
        timedelta(seconds=30),
        timedelta(minutes=2),
        timedelta(minutes=10),
        timedelta(minutes=30),
        timedelta(hours=1),
    ),
)


_DEAD_PAGE: Final = Query(
    DeadLetter,
    """
    select id, type, args, key, attempts, reason, died_at from dead_letter
     where ($1::text is null or type = $1)
       and ($2::timestamptz is null or (died_at, id) < ($2, $3::uuid))
     order by died_at desc, id desc
     limit $4""",
)
_TAKE_DEAD: Final = Query(
    DeadLetter,
    "delete from dead_letter where id = $1"
    " returning id, type, args, key, attempts, reason, died_at",
)


class LeaseLost(Conflict):
    """Another worker may have begun this task; the one who asks must stop."""

    code = LEASE_LOST
    advice = "Nothing to do: the task continues elsewhere."
    advice_zh = "无需处理：任务已由其他进程接手。"


class DeadLetterUnknown(NotFound):
    """No dead letter has this id, or it was replayed or discarded already."""

    code = "task.dead_letter_unknown"
    advice = "List the dead letters again; somebody may have replayed or discarded it."
    advice_zh = "请重新列出死信；它可能已被重放或丢弃。"


class DeadLetterSuperseded(Conflict):
    """A newer task with the same key is waiting or running, so a replay would do it twice."""

    code = "task.dead_letter_superseded"
    advice = "Discard the dead letter, or wait until the newer task has ended."
    advice_zh = "请丢弃该死信，或等待较新的同键任务结束后再重放。"


class Lease:
    """The right to act for a task until a moment of real time, told by its attempt number.

    Every effect of a handler goes into a transaction that also contains one of these, so that a
    worker which slept past its lease changes nothing.
    """

    def __init__(self, task_id: UUID, attempt: int) -> None:
        self.task_id = task_id
        self.attempt = attempt
        self.finished = False

    def write(self) -> Write:
        """Return the companion write that refuses when the lease is lost.

        The ledger remembers refusals for ever, so a group that carries it has an id of this
        attempt's own (`derived_id(group, str(lease.attempt))`); its transfers keep theirs.
        """
        args = (self.task_id, self.attempt, real_now())
        return Write(store.TOUCH_LEASE, args, refusal=LEASE_LOST)

    async def hold(self, tx: Tx) -> None:
        """Keep every other worker from this task until the transaction ends.

        Raises:
            LeaseLost
        """
        if await store.HOLD.first(tx, self.task_id, self.attempt, real_now()) is None:
            raise LeaseLost

    async def finish(self, tx: Tx) -> None:
        """End the task in this transaction, so that its key is free exactly when the effect is.

        Without it the worker ends the task a moment later, and a task enqueued in between with
        the same key is taken for a repeat.

        Raises:
            LeaseLost
        """
        if not await self.finish_write().run(tx):
            raise LeaseLost
        self.finished = True

    def finish_write(self) -> Write:
        """Return the write that ends the task; who has committed it sets ``finished``."""
        args = (self.task_id, self.attempt, real_now())
        return Write(store.FINISH, args, refusal=LEASE_LOST)


Handler = Callable[[Any, Lease], Awaitable[Again | None]]
"""Runs one task; returning None ends it, `Again` repeats it, raising counts as a failure."""


def tag_of(message: type[Struct]) -> str:
    """Return the stable public name of a task or event class."""
    tag = message.__struct_config__.tag
    if not isinstance(tag, str):
        raise TypeError(f"{message.__qualname__} needs tag='domain.name'")
    return tag


def task_write(task: Task, *, run_at: datetime, key: str | None = None) -> Write:
    """Return the write that enqueues a task, for a ledger group or a transaction.

    An unfinished task of the same type and key makes it a no-op, also one that is running now: a
    handler that shares its key must end with `Lease.finish` or return `Again`.
    """
    return Write(store.INSERT, _row_of(task, run_at, key))


def first_task_write(task: Task, *, run_at: datetime, key: str) -> Write:
    """Return the write that enqueues the first task under a key, appending many at a time.

    As `task_write`, but a key that is taken costs everybody in the commit a second try: it is for
    a key that names what the same commit makes.
    """
    task_id, kind, args, _, _ = _row_of(task, run_at, key)
    return Write(store.APPEND, (store.row(task_id, kind, args, key, run_at),))


LeasedTask: TypeAlias = TaskRow
"""A task that was enqueued with its first lease taken, for `Hands`."""


class Hands(Protocol):
    """A worker of this very process, which may begin a task the moment that it was enqueued."""

    @property
    def room(self) -> int:
        """How many places it has now."""

    def adopt(self, row: LeasedTask, run: Callable[[Lease], Awaitable[Again | None]]) -> None:
        """Run this in the place of the handler of the row's type, under the row's lease."""


def leased_write(task: Task, *, run_at: datetime, key: str) -> tuple[Write, LeasedTask]:
    """Return the write that enqueues a task with its first lease taken, and the row, for `Hands`.

    The key is one that nobody can have. Where nobody begins it the lease runs out, and any worker
    takes it, as when its worker has died.
    """
    row, args = _leased(task, run_at, key)
    return Write(store.INSERT_LEASED, args), row


async def enqueue_leased(tx: Tx, tasks: Sequence[tuple[Task, datetime, str]]) -> list[LeasedTask]:
    """Enqueue tasks with their first lease taken, as `leased_write`, and return their rows."""
    leased = [_leased(task, run_at, key) for task, run_at, key in tasks]
    if leased:
        await store.INSERT_LEASED.run_set(tx, [args for _, args in leased])
    return [row for row, _ in leased]


def cancel_write(task: type[Task], key: str) -> Write:
    """Return the write that takes a waiting task away; one that runs is left to end by itself."""
    return Write(store.CANCEL, (tag_of(task), key))


async def enqueue(
    tx: Tx, task: Task, *, run_at: datetime | None = None, key: str | None = None
) -> None:
    """Ask for a task at a moment of business time (at once without one), see `task_write`."""
    await task_write(task, run_at=run_at or tx.now, key=key).run(tx)


async def enqueue_many(tx: Tx, tasks: Sequence[tuple[Task, datetime, str | None]]) -> None:
    """Ask for several tasks, each with its time and key, in one round trip."""
    rows = [_row_of(task, run_at, key) for task, run_at, key in tasks]
    if rows:
        await store.INSERT.run_set(tx, rows)


async def enqueue_raw(tx: Tx, rows: Sequence[tuple[str, dict[str, object], str, datetime]]) -> None:
    """Ask for tasks given as type, args, key and time; for the outbox, which has no classes."""
    if rows:
        found = [(new_id(), type_, _text(args), key, run_at) for type_, args, key, run_at in rows]
        await store.INSERT.run_set(tx, found)


async def unfinished(db: Db) -> int:
    """Return how many tasks are due or running at the business time of now."""
    return await store.UNFINISHED.one(db, db.clock.now())


async def backlog(db: Db) -> list[store.Backlog]:
    """Return how many tasks of each type are due and wait for a worker, and since when."""
    return await store.BACKLOG.all(db, db.clock.now(), real_now())


async def dead_letters(
    db: Db, *, type_: str | None = None, limit: int | None = None, cursor: str | None = None
) -> Page[DeadLetter]:
    """Return dead letters, newest first.

    Raises:
        PageSizeInvalid, CursorInvalid
    """
    size = page_size(limit)
    at, last_id = decode_moment(cursor)
    rows = await _DEAD_PAGE.all(db, type_, at, last_id, size + 1)
    return page_by_moment(rows, size, lambda row: (row.died_at, row.id))


async def replay(tx: Tx, task_id: UUID) -> None:
    """Put a dead letter back into the queue, due now, with a clean count of failures.

    Raises:
        DeadLetterUnknown, DeadLetterSuperseded
    """
    dead = await _take(tx, task_id)
    again = (dead.id, dead.type, _text(dead.args), dead.key, tx.now)
    if not await store.INSERT.run(tx, *again):
        raise DeadLetterSuperseded(task=show("tsk", task_id))
    await audit.record(tx, "task.replay", show("tsk", task_id), {"type": dead.type})


async def discard(tx: Tx, task_id: UUID, *, because: str) -> None:
    """Give a dead letter up for good; the audit log keeps what it was, and why.

    Raises:
        DeadLetterUnknown
    """
    dead = await _take(tx, task_id)
    facts = {"type": dead.type, "key": dead.key, "reason": dead.reason, "because": because}
    await audit.record(tx, "task.discard", show("tsk", task_id), facts)


async def _take(tx: Tx, task_id: UUID) -> DeadLetter:
    dead = await _TAKE_DEAD.first(tx, task_id)
    if dead is None:
        raise DeadLetterUnknown(task=show("tsk", task_id))
    return dead


def _row_of(
    task: Task, run_at: datetime, key: str | None
) -> tuple[UUID, str, str, str | None, datetime]:
    args = msgspec.to_builtins(task)
    type_ = tag_of(type(task))
    del args[type(task).__struct_config__.tag_field]
    return (new_id(), type_, _text(args), key, run_at)


def _leased(task: Task, run_at: datetime, key: str) -> tuple[TaskRow, tuple[object, ...]]:
    task_id, kind, args, _, _ = _row_of(task, run_at, key)
    row = TaskRow(task_id, kind, {}, key, run_at, attempt=1, failures=0)
    return row, (task_id, kind, args, key, run_at, real_now() + FIRST_LEASE)


def _text(args: dict[str, Any] | dict[str, object]) -> str:
    return msgspec.json.encode(args).decode()

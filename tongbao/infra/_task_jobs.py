"""What a worker runs: one callable and one policy for each type of task, made from the wiring."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from uuid import UUID

import msgspec
from msgspec import Struct

from tongbao.infra import _task_store as store
from tongbao.infra import outbox
from tongbao.infra._task_store import TaskRow
from tongbao.infra.db import Db, Tx
from tongbao.infra.outbox import Event, Subscriber
from tongbao.infra.tasks import DEFAULT_POLICY, Again, Handler, Lease, RetryPolicy, Task, tag_of
from tongbao.kernel.clock import real_now


class ArgsMalformed(ValueError):
    """A task's arguments are not what this program's version expects; trying again is useless."""


class Job(Struct, frozen=True):
    """How tasks of one type are run."""

    run: Callable[[TaskRow, Lease], Awaitable[Again | None]]
    policy: RetryPolicy


async def claim(
    on: Db | Tx,
    jobs: Mapping[str, Job],
    running_types: Sequence[str],
    concurrency: int,
    lease: tuple[datetime, timedelta],
) -> tuple[list[TaskRow], bool]:
    """Claim what is due and has a place beside what is running; ``lease``: now, and how long.

    Also say whether all places, or all of a type, are taken now, so that others may be waiting.
    """
    running, places = Counter(running_types), concurrency - len(running_types)
    if places <= 0:
        return [], True
    unlimited, limited, left, is_full = [], [], [], False
    for type_, job in jobs.items():
        if job.policy.concurrency_max is None:
            unlimited.append(type_)
            continue
        own = min(job.policy.concurrency_max, max(1, concurrency // 2)) - running[type_]
        if own > 0:
            limited.append(type_)
            left.append(own)
        else:
            is_full = True
    (now, length), real = lease, real_now()
    until = real + length
    rows = await store.CLAIM.all(on, unlimited, now, real, places, until, limited, left)
    begun = Counter(row.type for row in rows)
    is_full |= any(begun[type_] >= own for type_, own in zip(limited, left, strict=True))
    return rows, is_full or len(rows) >= places


def jobs_of(
    db: Db,
    handlers: Mapping[type[Task], Handler],
    policies: Mapping[type[Task], RetryPolicy],
    subscribers: Mapping[type[Event], Sequence[Subscriber]],
) -> dict[str, Job]:
    """Return the job of each type of task, those of the outbox's subscribers included."""
    jobs = {}
    for task_type, handler in handlers.items():
        policy = policies.get(task_type, DEFAULT_POLICY)
        jobs[tag_of(task_type)] = Job(_task_runner(task_type, handler), policy)
    names: dict[str, list[tuple[type[Event], Subscriber]]] = {}
    for event_type, told in subscribers.items():
        for subscriber in told:
            names.setdefault(subscriber.name, []).append((event_type, subscriber))
    for name, heard in names.items():
        by_type = {tag_of(event_type): (event_type, told) for event_type, told in heard}
        policy = heard[0][1].policy
        jobs[outbox.SUBSCRIBER_TASK + name] = Job(_event_runner(db, by_type), policy)
    return jobs


def _task_runner(
    task_type: type[Task], handler: Handler
) -> Callable[[TaskRow, Lease], Awaitable[Again | None]]:
    async def run(row: TaskRow, lease: Lease) -> Again | None:
        try:
            task = msgspec.convert(row.args, task_type)
        except msgspec.ValidationError as malformed:
            raise ArgsMalformed(str(malformed)) from None
        return await handler(task, lease)

    return run


def _event_runner(
    db: Db, by_type: Mapping[str, tuple[type[Event], Subscriber]]
) -> Callable[[TaskRow, Lease], Awaitable[Again | None]]:
    async def run(row: TaskRow, _lease: Lease) -> Again | None:
        event_row = await outbox.event_row(db, UUID(row.args["event_id"]))
        if event_row is None or event_row.type not in by_type:
            raise ArgsMalformed("no such event for this subscriber")
        event_type, subscriber = by_type[event_row.type]
        try:
            event = outbox.event_of(event_row, event_type)
        except msgspec.ValidationError as malformed:
            raise ArgsMalformed(str(malformed)) from None
        await subscriber.receive(event, event_row.id)
        return None

    return run

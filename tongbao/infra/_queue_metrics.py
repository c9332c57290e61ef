"""What is measured about tasks and the outbox."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from prometheus_client import Counter, Gauge, Histogram

from tongbao.infra import _task_store, outbox
from tongbao.infra.db import Db
from tongbao.kernel.clock import real_now

TASK_RUNS: Final = Counter(
    "tongbao_task_runs", "Runs of tasks by type and what became of them", ["type", "outcome"]
)
TASK_SECONDS: Final = Histogram(
    "tongbao_task_duration_seconds",
    "How long runs of tasks took",
    ["type"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
)
TASKS_DUE: Final = Gauge("tongbao_tasks_due", "Tasks that are due and wait", ["type"])
TASKS_OLDEST: Final = Gauge(
    "tongbao_tasks_oldest_due_age_seconds", "Business time since the oldest waiting task was due"
)
TASKS_UNKNOWN: Final = Gauge(
    "tongbao_tasks_unknown", "Due tasks of types this version does not know"
)
DEAD_LETTERS: Final = Gauge("tongbao_dead_letters", "Tasks given up until a person acts", ["type"])
EVENTS_DISPATCHED: Final = Counter("tongbao_events_dispatched", "Events turned into tasks")
EVENTS_WAITING: Final = Gauge("tongbao_events_waiting", "Events not dispatched yet")
EVENTS_UNKNOWN: Final = Gauge(
    "tongbao_events_unknown", "Waiting events of types this version does not know"
)
EVENTS_OLDEST: Final = Gauge(
    "tongbao_events_oldest_age_seconds", "Business time since the oldest waiting event"
)
LOOP_FAILURES: Final = Counter(
    "tongbao_worker_step_failures", "Unexpected failures of the worker's own steps"
)


async def observe(db: Db, *, known: Collection[str], known_events: Collection[str]) -> None:
    """Look at both queues and set the gauges."""
    now = db.clock.now()
    backlog = await _task_store.BACKLOG.all(db, now, real_now())
    TASKS_DUE.clear()
    for line in backlog:
        TASKS_DUE.labels(line.type).set(line.due)
    TASKS_UNKNOWN.set(sum(line.due for line in backlog if line.type not in known))
    ages = [(now - line.oldest_at).total_seconds() for line in backlog]
    TASKS_OLDEST.set(max(ages, default=0))
    DEAD_LETTERS.clear()
    for count in await _task_store.DEAD_COUNTS.all(db):
        DEAD_LETTERS.labels(count.type).set(count.count)
    waiting = await outbox.undispatched(db)
    EVENTS_WAITING.set(sum(line.waiting for line in waiting))
    EVENTS_UNKNOWN.set(sum(line.waiting for line in waiting if line.type not in known_events))
    ages = [(now - line.oldest_at).total_seconds() for line in waiting]
    EVENTS_OLDEST.set(max(ages, default=0))

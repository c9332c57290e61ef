"""The worker: every due task runs, at least once, and never twice at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from prometheus_client import REGISTRY

from tongbao.infra import _queue_metrics as metrics
from tongbao.infra import _task_store as store
from tongbao.infra import failpoints
from tongbao.infra._task_ends import write_down
from tongbao.infra.db import Db, Query, Statement, Tx
from tongbao.infra.failpoints import SimulatedCrash
from tongbao.infra.outbox import Event, EventRow, publish
from tongbao.infra.tasks import (
    Again,
    Handler,
    Lease,
    LeaseLost,
    RetryPolicy,
    Task,
    dead_letters,
    enqueue,
    replay,
)
from tongbao.infra.worker import Worker
from tongbao.kernel.clock import real_now
from tongbao.kernel.errors import Busy, Rejected
from tongbao.kernel.licence import Mode

MakeDb = Callable[..., Awaitable[Db]]
COUNT = Query(int, "select count(*) from task")
LEASED = Query(int, "select count(*) from task where lease_until is not null")
ATTEMPTS = Query(int, "select attempt from task")
LAST_FAILURE = Query(str, "select last_failure from task")
LEASE_UNTIL = Query(datetime, "select max(lease_until) from task")
EXPIRE = Statement("update task set lease_until = $1 where lease_until is not null")
POLICY = RetryPolicy(3, (timedelta(minutes=1), timedelta(minutes=10)))


class Greet(Task, frozen=True, tag="tests.greet"):
    name: str = "anna"


class Slow(Task, frozen=True, tag="tests.slow"):
    name: str = "slow"


class Happened(Event, frozen=True, kw_only=True, tag="tests.happened"):
    pass


class NotNow(Busy):
    code = "tests.not_now"


class TooMuch(Rejected):
    code = "tests.too_much"


async def ask(db: Db, *tasks: Task) -> None:
    async with db.begin("test") as tx:
        for task in tasks:
            await enqueue(tx, task)


def worker_of(db: Db, greet: Handler, *, policy: RetryPolicy = POLICY, **how: float) -> Worker:
    return Worker(db, {Greet: greet}, {Greet: policy}, {}, **how)  # type: ignore[arg-type]


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await condition():  # noqa: ASYNC110 - the database tells nobody
            await asyncio.sleep(0.01)


async def test_due_tasks_run_once_and_leave_nothing_behind(db: Db) -> None:
    greeted: list[str] = []

    async def greet(task: Greet, _lease: Lease) -> None:
        greeted.append(task.name)

    await ask(db, *[Greet(f"n{number}") for number in range(50)])
    worker = worker_of(db, greet, concurrency=4)
    assert await worker.run_until_idle(raise_failures=True) == 50
    assert sorted(greeted) == sorted(f"n{number}" for number in range(50))
    assert await COUNT.one(db) == 0
    assert await worker.run_until_idle() == 0


async def test_two_workers_share_the_work_and_never_one_task(db: Db, make_db: MakeDb) -> None:
    running: set[str] = set()
    greeted: list[str] = []

    async def greet(task: Greet, _lease: Lease) -> None:
        assert task.name not in running
        running.add(task.name)
        await asyncio.sleep(0.001)
        running.remove(task.name)
        greeted.append(task.name)

    await ask(db, *[Greet(f"n{number}") for number in range(60)])
    workers = [worker_of(db, greet, concurrency=5) for _ in range(2)]
    await asyncio.gather(*[worker.run_until_idle(raise_failures=True) for worker in workers])
    assert len(greeted) == len(set(greeted)) == 60


async def test_a_task_asked_for_by_a_task_runs_too(db: Db) -> None:
    greeted: list[str] = []

    async def greet(task: Greet, lease: Lease) -> None:
        greeted.append(task.name)
        if task.name == "anna":
            async with db.begin("test") as tx:
                await enqueue(tx, Greet("berta"))
                await lease.finish(tx)

    await ask(db, Greet())
    assert await worker_of(db, greet).run_until_idle(raise_failures=True) == 2
    assert greeted == ["anna", "berta"]
    assert await COUNT.one(db) == 0


async def test_again_runs_it_later_without_counting_a_failure(db: Db) -> None:
    runs = 0

    async def greet(_task: Greet, _lease: Lease) -> Again | None:
        nonlocal runs
        runs += 1
        return Again(timedelta(hours=1)) if runs < 6 else None

    await ask(db, Greet())
    worker = worker_of(db, greet)
    for expected in range(1, 7):
        await worker.run_until_idle(raise_failures=True)
        assert runs == expected
        db.clock.offset += timedelta(hours=1)
    assert await COUNT.one(db) == 0


async def test_failures_follow_the_policy_into_a_dead_letter_and_back(db: Db) -> None:
    runs = 0
    broken = True

    async def greet(_task: Greet, _lease: Lease) -> None:
        nonlocal runs
        runs += 1
        if broken:
            raise ValueError("the secret is hunter2")

    await ask(db, Greet())
    worker = worker_of(db, greet)
    for expected, wait in ((1, timedelta(minutes=1)), (2, timedelta(minutes=10))):
        await worker.run_until_idle()
        await worker.run_until_idle()
        assert runs == expected
        assert "hunter2" not in await LAST_FAILURE.one(db)
        db.clock.offset += wait
    await worker.run_until_idle()
    assert runs == 3
    (dead,) = (await dead_letters(db)).items
    assert dead.attempts == 3
    assert dead.reason.startswith("builtins.ValueError at tests/infra/test_worker.py:")
    assert "hunter2" not in dead.reason

    broken = False
    async with db.begin("operator") as tx:
        await replay(tx, dead.id)
    await worker.run_until_idle(raise_failures=True)
    assert runs == 4
    assert await COUNT.one(db) == 0


async def test_what_handlers_raise_is_raised_for_those_who_ask(db: Db) -> None:
    async def greet(_task: Greet, _lease: Lease) -> None:
        raise TooMuch(limit=3)

    await ask(db, Greet())
    with pytest.raises(ExceptionGroup) as caught:
        await worker_of(db, greet).run_until_idle(raise_failures=True)
    assert [type(failure) for failure in caught.value.exceptions] == [TooMuch]
    assert await LAST_FAILURE.one(db) == "tests.too_much(limit=3)"


async def test_busy_is_waited_out_and_not_counted(db: Db) -> None:
    runs = 0

    async def greet(_task: Greet, _lease: Lease) -> None:
        nonlocal runs
        runs += 1
        if runs < 10:
            raise NotNow

    await ask(db, Greet())
    worker = worker_of(db, greet)
    while await COUNT.one(db):
        await worker.run_until_idle(raise_failures=True)
        db.clock.offset += timedelta(seconds=1)
    assert runs == 10


async def test_a_handler_past_its_time_limit_is_stopped_and_counted(db: Db) -> None:
    async def greet(_task: Greet, _lease: Lease) -> None:
        await asyncio.Event().wait()

    await ask(db, Greet())
    policy = RetryPolicy(1, (timedelta(0),), time_limit=timedelta(milliseconds=20))
    await worker_of(db, greet, policy=policy).run_until_idle()
    (dead,) = (await dead_letters(db)).items
    assert dead.reason.startswith("builtins.TimeoutError")


async def test_types_of_a_newer_version_stay_and_are_counted(db: Db) -> None:
    async def greet(_task: Greet, _lease: Lease) -> None:
        return None

    await ask(db, Slow(), Greet())
    await worker_of(db, greet).run_until_idle(raise_failures=True)
    assert await COUNT.one(db) == 1
    assert await ATTEMPTS.one(db) == 0

    await metrics.observe(db, known={"tests.greet"}, known_events=())
    assert REGISTRY.get_sample_value("tongbao_tasks_unknown") == 1
    assert REGISTRY.get_sample_value("tongbao_tasks_due", {"type": "tests.slow"}) == 1


async def test_unknown_fields_of_a_known_task_are_tolerated(db: Db) -> None:
    greeted: list[Greet] = []

    async def greet(task: Greet, _lease: Lease) -> None:
        greeted.append(task)

    await ask(db, Greet("anna"))
    await db.execute('update task set args = args || \'{"tone": "warm"}\'', ())
    await worker_of(db, greet).run_until_idle(raise_failures=True)
    assert greeted == [Greet("anna")]


async def test_malformed_arguments_become_a_dead_letter_at_once(db: Db) -> None:
    async def greet(_task: Greet, _lease: Lease) -> None:
        raise AssertionError

    await ask(db, Greet())
    await db.execute("update task set args = '{\"name\": 7}'", ())
    await worker_of(db, greet).run_until_idle()
    (dead,) = (await dead_letters(db)).items
    assert dead.reason == "args_malformed: Expected `str`, got `int` - at `$.name`"


async def test_a_task_whose_worker_died_runs_again_after_its_lease(db: Db) -> None:
    began = asyncio.Event()
    greeted: list[str] = []

    async def never_ends(_task: Greet, _lease: Lease) -> None:
        began.set()
        await asyncio.Event().wait()

    async def greet(task: Greet, _lease: Lease) -> None:
        greeted.append(task.name)

    await ask(db, Greet())
    dying = asyncio.create_task(worker_of(db, never_ends).run(asyncio.Event()))
    await began.wait()
    dying.cancel()
    await asyncio.gather(dying, return_exceptions=True)
    assert await LEASED.one(db) == 1

    second = worker_of(db, greet)
    await second.run_until_idle()
    assert greeted == []
    await EXPIRE.run(db, real_now())
    await second.run_until_idle(raise_failures=True)
    assert greeted == ["anna"]
    assert await COUNT.one(db) == 0


async def test_a_task_that_kills_every_worker_ends_as_a_dead_letter(db: Db) -> None:
    runs = 0

    async def deadly(_task: Greet, _lease: Lease) -> None:
        nonlocal runs
        runs += 1
        raise SimulatedCrash("deadly")

    await ask(db, Greet())
    for _ in range(3):
        with pytest.raises(SimulatedCrash):
            await worker_of(db, deadly).run_until_idle()
        await EXPIRE.run(db, real_now())
    await worker_of(db, deadly).run_until_idle()
    assert runs == 3
    (dead,) = (await dead_letters(db)).items
    assert dead.reason == "lease_expired"


@pytest.mark.parametrize("name", ["tasks.claimed", "tasks.before_done"])
async def test_a_crash_between_claim_and_end_loses_no_task(db: Db, name: str) -> None:
    async def greet(_task: Greet, _lease: Lease) -> None:
        return None

    await ask(db, Greet())
    failpoints.arm(f"{name}:raise")
    with pytest.raises(SimulatedCrash):
        await worker_of(db, greet).run_until_idle()
    assert await LEASED.one(db) == 1
    await EXPIRE.run(db, real_now())
    await worker_of(db, greet).run_until_idle(raise_failures=True)
    assert await COUNT.one(db) == 0


async def test_a_long_handler_keeps_its_lease(db: Db) -> None:
    ends = asyncio.Event()
    runs = 0

    async def greet(_task: Greet, lease: Lease) -> None:
        nonlocal runs
        runs += 1
        await ends.wait()
        async with db.begin("test") as tx:
            await lease.hold(tx)

    await ask(db, Greet())
    worker = worker_of(db, greet, heartbeat_s=0.05)
    working = asyncio.create_task(worker.run_until_idle(raise_failures=True))
    seen: set[datetime | None] = set()

    async def extended_twice() -> bool:
        seen.add(await LEASE_UNTIL.one(db))
        return len(seen - {None}) >= 3

    await until(extended_twice)
    ends.set()
    await working
    assert runs == 1


async def test_a_worker_that_slept_past_its_lease_changes_nothing(db: Db) -> None:
    began, wakes = asyncio.Event(), asyncio.Event()
    refused: list[bool] = []

    async def sleepy(_task: Greet, lease: Lease) -> None:
        began.set()
        await wakes.wait()
        try:
            async with db.begin("test") as tx:
                await lease.hold(tx)
        except LeaseLost:
            refused.append(True)
            raise

    async def greet(_task: Greet, _lease: Lease) -> Again:
        return Again(timedelta(days=1))

    await ask(db, Greet())
    sleeping = asyncio.create_task(worker_of(db, sleepy).run_until_idle(raise_failures=True))
    await began.wait()
    await EXPIRE.run(db, real_now())
    await worker_of(db, greet).run_until_idle(raise_failures=True)
    wakes.set()
    await sleeping
    assert refused == [True]
    assert await ATTEMPTS.one(db) == 2
    assert await COUNT.one(db) == 1


async def test_a_run_is_stopped_when_its_lease_is_found_lost(db: Db) -> None:
    began = asyncio.Event()
    stopped = asyncio.Event()

    async def greet(_task: Greet, _lease: Lease) -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            stopped.set()
            raise

    await ask(db, Greet())
    worker = worker_of(db, greet, heartbeat_s=0.05)
    working = asyncio.create_task(worker.run_until_idle(raise_failures=True))
    await began.wait()
    await db.execute("update task set attempt = attempt + 1, lease_until = $1", [FAR])
    async with asyncio.timeout(20):
        await stopped.wait()
        await working
    assert await COUNT.one(db) == 1


FAR = real_now() + timedelta(days=1)


async def test_a_worker_that_claims_its_own_task_again_stops_the_first_run(db: Db) -> None:
    """Its database was away for longer than a lease; the second run must be known as running."""
    began: asyncio.Queue[int] = asyncio.Queue()
    stopped, ends = asyncio.Event(), asyncio.Event()
    runs = 0

    async def greet(_task: Greet, _lease: Lease) -> None:
        nonlocal runs
        runs += 1
        began.put_nowait(runs)
        try:
            await ends.wait()
        except asyncio.CancelledError:
            stopped.set()
            raise

    await ask(db, Greet())
    worker, stop = worker_of(db, greet), asyncio.Event()
    running = asyncio.create_task(worker.run(stop))
    async with asyncio.timeout(10):
        assert await began.get() == 1
        await EXPIRE.run(db, real_now())
        worker.nudge()
        assert await began.get() == 2
        await stopped.wait()
        stop.set()
        await asyncio.sleep(0)
        ends.set()  # stopping waits for the second run, and gives nothing back
        await running
    assert await COUNT.one(db) == 0


async def test_a_handler_that_finished_its_task_is_not_stopped(db: Db) -> None:
    ended = False

    async def greet(_task: Greet, lease: Lease) -> None:
        nonlocal ended
        async with db.begin("test") as tx:
            await lease.finish(tx)
        await asyncio.sleep(0.3)  # several heartbeats
        ended = True

    await ask(db, Greet())
    await worker_of(db, greet, heartbeat_s=0.05).run_until_idle(raise_failures=True)
    assert ended


async def test_a_finish_that_was_rolled_back_did_not_happen(db: Db) -> None:
    runs = 0

    async def greet(_task: Greet, lease: Lease) -> None:
        nonlocal runs
        runs += 1
        async with db.begin("test") as tx:
            await lease.finish(tx)
            if runs == 1:
                raise TooMuch

    await ask(db, Greet())
    worker = worker_of(db, greet)
    await worker.run_until_idle()
    assert await COUNT.one(db) == 1
    db.clock.offset += timedelta(minutes=1)
    await worker.run_until_idle(raise_failures=True)
    assert (runs, await COUNT.one(db)) == (2, 0)


async def test_outcomes_are_retried_until_the_database_takes_them(
    db: Db, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = 0

    async def greet(_task: Greet, _lease: Lease) -> None:
        nonlocal runs
        runs += 1

    real_run, refusals = store.DELETE_DONE.run, [NotNow(), NotNow()]

    async def refuse_twice(*args: object) -> int:
        if refusals:
            raise refusals.pop()
        return await real_run(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(store.DELETE_DONE, "run", refuse_twice)
    await ask(db, Greet())
    worker = worker_of(db, greet)
    for _ in range(2):
        with pytest.raises(NotNow):
            await worker.run_until_idle()
    await worker.run_until_idle(raise_failures=True)
    assert (runs, await COUNT.one(db)) == (1, 0)


async def test_stopping_lets_short_tasks_end_and_gives_long_ones_back(db: Db) -> None:
    began = asyncio.Semaphore(0)
    stop = asyncio.Event()

    async def greet(task: Greet, _lease: Lease) -> None:
        began.release()
        await stop.wait()
        if task.name == "long":
            await asyncio.Event().wait()

    await ask(db, Greet("short"), Greet("long"))
    working = asyncio.create_task(worker_of(db, greet, grace_s=2).run(stop))
    await began.acquire()
    await began.acquire()
    stop.set()
    await working
    until = real_now() + timedelta(minutes=1)
    (left,) = await store.CLAIM.all(
        db, ["tests.greet"], db.clock.now(), real_now(), 9, until, [], []
    )
    assert left.args == {"name": "long"}
    assert left.failures == 0


async def test_a_nudged_worker_does_not_wait_for_its_poll(db: Db) -> None:
    greeted = asyncio.Event()

    async def greet(_task: Greet, _lease: Lease) -> None:
        greeted.set()

    stop = asyncio.Event()
    worker = worker_of(db, greet, poll_s=3600)
    working = asyncio.create_task(worker.run(stop))
    await asyncio.sleep(0.05)
    await ask(db, Greet())
    worker.nudge()
    async with asyncio.timeout(20):
        await greeted.wait()
    stop.set()
    await working
    assert await COUNT.one(db) == 0


async def test_advancing_the_test_clock_makes_tasks_due(db: Db) -> None:
    greeted = asyncio.Event()

    async def greet(_task: Greet, _lease: Lease) -> None:
        greeted.set()

    stop = asyncio.Event()
    working = asyncio.create_task(worker_of(db, greet, poll_s=0.01).run(stop))
    async with db.begin("test") as tx:
        await enqueue(tx, Greet(), run_at=tx.now + timedelta(days=30))
    await asyncio.sleep(0.05)
    assert not greeted.is_set()
    db.clock.offset += timedelta(days=30)
    async with asyncio.timeout(20):
        await greeted.wait()
    stop.set()
    await working


async def test_a_slow_kind_of_task_leaves_places_for_the_others(db: Db) -> None:
    release, greeted = asyncio.Event(), asyncio.Event()
    slow_now = slow_max = 0

    async def slow(_task: Slow, _lease: Lease) -> None:
        nonlocal slow_now, slow_max
        slow_now += 1
        slow_max = max(slow_max, slow_now)
        await release.wait()
        slow_now -= 1

    async def greet(_task: Greet, _lease: Lease) -> None:
        greeted.set()

    await ask(db, *[Slow() for _ in range(10)], Greet())
    limited = RetryPolicy(3, (timedelta(minutes=1),), concurrency_max=2)
    worker = Worker(db, {Slow: slow, Greet: greet}, {Slow: limited}, {}, concurrency=4)
    working = asyncio.create_task(worker.run_until_idle(raise_failures=True))
    async with asyncio.timeout(20):
        await greeted.wait()
    release.set()
    await working
    assert slow_max == 2


async def test_the_worker_outlives_a_database_that_goes_away(dsn: str, make_db: MakeDb) -> None:
    db = await make_db(dsn=dsn)
    observer = await make_db(dsn=dsn)
    greeted: list[UUID] = []
    done = asyncio.Event()

    async def greet(_task: Greet, lease: Lease) -> None:
        greeted.append(lease.task_id)
        done.set()

    stop = asyncio.Event()
    working = asyncio.create_task(worker_of(db, greet).run(stop))
    for _ in range(3):
        await observer.fetch(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where datname = current_database() and pid <> pg_backend_pid()",
            (),
        )
        await asyncio.sleep(0.05)
    await ask(observer, Greet())
    async with asyncio.timeout(30):
        await done.wait()
    stop.set()
    await working
    assert await COUNT.one(observer) == 0


async def test_a_reason_no_database_takes_stops_no_other_task(db: Db) -> None:
    greeted: list[str] = []

    async def greet(task: Greet, _lease: Lease) -> None:
        if task.name == "bad":
            raise TooMuch(text="a\0b\ud800")
        greeted.append(task.name)

    await ask(db, Greet("bad"), Greet("good"))
    await worker_of(db, greet).run_until_idle()

    assert greeted == ["good"]
    assert await LAST_FAILURE.one(db) == "tests.too_much(text=a\N{REPLACEMENT CHARACTER}b?)"


async def test_a_task_that_asks_for_an_absurd_time_stops_no_other_task(db: Db) -> None:
    greeted: list[str] = []

    async def greet(task: Greet, _lease: Lease) -> Again | None:
        greeted.append(task.name)
        return Again(timedelta.max) if task.name == "bad" else None

    await ask(db, Greet("bad"), Greet("good"))
    await worker_of(db, greet).run_until_idle()

    assert sorted(greeted) == ["bad", "good"]
    assert await COUNT.one(db) == 1


async def test_an_end_that_cannot_be_written_down_holds_up_no_other(
    db: Db, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def greet(_task: Greet, _lease: Lease) -> None:
        return None

    worker = worker_of(db, greet)

    async def fail_for_bad(tx: Tx, ended: Sequence[Any]) -> None:
        if any(end.row.args == {"name": "bad"} for end in ended):
            raise RuntimeError("cannot be written")
        await write_down(tx, ended)

    monkeypatch.setattr("tongbao.infra.worker.write_down", fail_for_bad)
    await ask(db, Greet("bad"), *[Greet(f"n{number}") for number in range(5)])
    await worker.run_until_idle()

    assert await COUNT.one(db) == 1  # the bad one, until its lease runs out


async def test_events_that_cannot_be_dispatched_hold_up_no_task(db: Db) -> None:
    greeted = asyncio.Event()

    async def greet(_task: Greet, _lease: Lease) -> None:
        greeted.set()

    async def refuse(_tx: Tx, _events: Sequence[EventRow]) -> None:
        raise RuntimeError("cannot be planned")

    async with db.begin("test") as tx:
        await publish(tx, Happened(merchant_id=None, mode=Mode.LIVE, resource_id="x"))
    await ask(db, Greet())
    worker = Worker(db, {Greet: greet}, {}, {Happened: ()}, fan_outs=[refuse])
    stop = asyncio.Event()
    running = asyncio.create_task(worker.run(stop))
    async with asyncio.timeout(20):
        await greeted.wait()
    stop.set()
    await running

"""Tasks: enqueued with their fact, once per key, fenced by a lease, dead letters for people."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from functools import partial
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tongbao.infra import _task_store as store
from tongbao.infra import audit
from tongbao.infra.db import Db, Query
from tongbao.infra.tasks import (
    DEFAULT_POLICY,
    DeadLetterSuperseded,
    DeadLetterUnknown,
    Lease,
    LeaseLost,
    RetryPolicy,
    Task,
    dead_letters,
    discard,
    enqueue,
    enqueue_many,
    first_task_write,
    replay,
    tag_of,
    task_write,
)
from tongbao.kernel.clock import real_now
from tongbao.kernel.ids import new_id, show
from tongbao.kernel.pages import CursorInvalid, PageSizeInvalid

COUNT = Query(int, "select count(*) from task")
MINUTE = timedelta(minutes=1)


class Greet(Task, frozen=True, tag="tests.greet"):
    name: str
    at: datetime | None = None
    times: int = 1


class Wave(Task, frozen=True, tag="tests.wave"):
    name: str


class Untagged(Task, frozen=True):
    name: str


WAITING = Query(
    bool,
    "select exists (select from pg_stat_activity"
    " where datname = current_database() and wait_event_type = 'Lock')",
)


async def somebody_waits(db: Db) -> None:
    async with asyncio.timeout(20):
        while not await WAITING.one(db):  # noqa: ASYNC110 - the database tells nobody
            await asyncio.sleep(0.01)


async def claim(
    db: Db, *, places: int = 10, real: datetime | None = None, lease: timedelta = MINUTE
) -> list[store.TaskRow]:
    real = real or real_now()
    types = ["tests.greet", "tests.wave"]
    return await store.CLAIM.all(db, types, db.clock.now(), real, places, real + lease, [], [])


async def claimed_lease(db: Db, lease: timedelta = MINUTE) -> Lease:
    async with db.begin("test") as tx:
        await enqueue(tx, Greet("anna"))
    (row,) = await claim(db, lease=lease)
    return Lease(row.id, row.attempt)


async def test_a_task_is_there_when_its_transaction_commits_and_not_before(db: Db) -> None:
    async def fail() -> None:
        async with db.begin("test") as tx:
            await enqueue(tx, Greet("anna"))
            assert await COUNT.one(tx) == 1
            raise LookupError

    with pytest.raises(LookupError):
        await fail()
    assert await COUNT.one(db) == 0

    async with db.begin("test") as tx:
        await enqueue(tx, Greet("anna", at=datetime(2026, 1, 2, tzinfo=UTC)))
    (row,) = await claim(db)
    assert row.type == "tests.greet"
    assert row.args == {"name": "anna", "at": "2026-01-02T00:00:00Z", "times": 1}


async def test_a_key_admits_one_unfinished_task_of_its_type(db: Db) -> None:
    async with db.begin("test") as tx:
        await enqueue(tx, Greet("anna"), key="k")
        await enqueue(tx, Greet("berta"), key="k")
        await enqueue(tx, Wave("clara"), key="k")
        await enqueue(tx, Greet("dora"))
        await enqueue(tx, Greet("dora"))
    assert await COUNT.one(db) == 4

    rows = await claim(db)
    async with db.begin("test") as tx:
        await enqueue(tx, Greet("emma"), key="k")  # anna is running: still unfinished
    assert await COUNT.one(db) == 4

    await store.DELETE_DONE.run(db, [row.id for row in rows], [row.attempt for row in rows])
    async with db.begin("test") as tx:
        await enqueue(tx, Greet("emma"), key="k")
    assert await COUNT.one(db) == 1


async def test_many_tasks_are_enqueued_with_their_own_times_and_keys(db: Db) -> None:
    now = db.clock.now()
    async with db.begin("test") as tx:
        await enqueue_many(
            tx,
            [
                (Greet("anna"), now, None),
                (Greet("berta"), now, "b"),
                (Greet("berta"), now, "b"),
                (Wave("clara"), now + timedelta(days=1), None),
            ],
        )
    assert [row.args["name"] for row in await claim(db)] == ["anna", "berta"]


async def test_a_first_task_is_the_one_that_would_be_enqueued_and_minds_its_key(db: Db) -> None:
    async with db.begin("test") as tx:
        for name, key in (("anna", "k"), ("berta", "k"), ("clara", "other")):
            write = first_task_write(Greet(name, times=2), run_at=tx.now, key=key)
            assert await write.run(tx) == (name != "berta")
        await enqueue(tx, Greet("dora"), key="k")

    rows = await claim(db)
    assert [(row.key, row.args) for row in rows] == [
        ("k", {"name": "anna", "at": None, "times": 2}),
        ("other", {"name": "clara", "at": None, "times": 2}),
    ]


async def test_a_task_without_a_tag_is_a_bug() -> None:
    with pytest.raises(TypeError):
        task_write(Untagged("x"), run_at=real_now())
    assert tag_of(Greet) == "tests.greet"


async def test_a_task_waits_for_business_time(db: Db) -> None:
    async with db.begin("test") as tx:
        await enqueue(tx, Greet("anna"), run_at=tx.now + timedelta(days=3))
    assert await claim(db) == []

    db.clock.offset += timedelta(days=3)

    assert len(await claim(db)) == 1


async def test_two_claims_at_the_same_time_never_take_one_task_twice(db: Db) -> None:
    async with db.begin("test") as tx:
        for number in range(5):
            await enqueue(tx, Greet(f"n{number}"))
    real = real_now()
    args = (["tests.greet"], db.clock.now(), real, 3, real + MINUTE, [], [])

    async with db.begin("one") as one, db.begin("two") as two:
        first = await store.CLAIM.all(one, *args)
        second = await store.CLAIM.all(two, *args)  # while the first is not committed

    assert len(first) == 3
    assert len(second) == 2
    assert not {row.id for row in first} & {row.id for row in second}
    assert await claim(db) == []


async def test_a_leased_task_is_claimed_again_only_after_its_lease_and_that_counts(db: Db) -> None:
    await claimed_lease(db)
    assert await claim(db) == []

    (again,) = await claim(db, real=real_now() + 2 * MINUTE)

    assert (again.attempt, again.failures) == (2, 1)


async def test_the_holder_of_a_lease_may_act(db: Db) -> None:
    lease = await claimed_lease(db)
    async with db.begin("test") as tx:
        await lease.hold(tx)
        assert await lease.write().run(tx) == 1


async def test_a_worker_past_its_lease_is_refused_even_if_nobody_else_began(db: Db) -> None:
    lease = await claimed_lease(db, lease=timedelta(0))
    for act in (lease.hold, lease.finish):
        with pytest.raises(LeaseLost):
            async with db.begin("test") as tx:
                await act(tx)
    async with db.begin("test") as tx:
        write = lease.write()
        assert await write.run(tx) == 0
        assert write.refusal == LeaseLost.code


async def test_an_old_attempt_is_refused_after_another_worker_began(db: Db) -> None:
    lease = await claimed_lease(db, lease=timedelta(0))
    (again,) = await claim(db)
    async with db.begin("test") as tx:
        with pytest.raises(LeaseLost):
            await lease.hold(tx)
        assert await lease.write().run(tx) == 0
        with pytest.raises(LeaseLost):
            await lease.finish(tx)
        await Lease(again.id, again.attempt).hold(tx)
    assert await store.DELETE_DONE.run(db, [lease.task_id], [lease.attempt]) == 0
    assert await COUNT.one(db) == 1


async def test_a_hold_that_waited_for_a_claim_sees_that_it_lost(db: Db) -> None:
    lease = await claimed_lease(db, lease=timedelta(seconds=30))
    real = real_now() + MINUTE
    async with db.begin("other") as other:
        await store.CLAIM.one(
            other, ["tests.greet"], db.clock.now(), real, 1, real + MINUTE, [], []
        )

        async def hold() -> None:
            async with db.begin("paused") as tx:
                await lease.hold(tx)

        paused = asyncio.create_task(hold())
        await somebody_waits(db)
    with pytest.raises(LeaseLost):
        await paused


async def test_a_claim_passes_by_a_task_that_its_old_worker_holds(db: Db) -> None:
    lease = await claimed_lease(db, lease=timedelta(seconds=30))
    async with db.begin("old worker") as tx:
        await lease.hold(tx)
        assert await claim(db, real=real_now() + MINUTE) == []


async def test_an_enqueue_that_meets_an_uncommitted_finish_waits_and_is_not_lost(db: Db) -> None:
    async with db.begin("test") as tx:
        await enqueue(tx, Greet("anna"), key="k")
    (row,) = await claim(db)

    async def ask_again() -> None:
        async with db.begin("asker") as tx:
            await enqueue(tx, Greet("berta"), key="k")

    async with db.begin("worker") as tx:
        await Lease(row.id, row.attempt).finish(tx)
        asker = asyncio.create_task(ask_again())
        await somebody_waits(db)
    await asker

    assert [row.args["name"] for row in await claim(db)] == ["berta"]


async def bury(db: Db, count: int, *, key: str | None = None) -> list[UUID]:
    async with db.begin("test") as tx:
        for number in range(count):
            await enqueue(tx, Greet(f"n{number}"), key=key)
    rows = sorted(await claim(db, places=count), key=lambda row: row.id)
    for row in rows:
        await store.BURY.run(db, [row.id], [row.attempt], ["tests.reason"], db.clock.now())
    return [row.id for row in rows]


async def test_a_dead_letter_keeps_its_reason_and_can_be_replayed(db: Db) -> None:
    (task_id,) = await bury(db, 1, key="k")
    page = await dead_letters(db)
    assert [(dead.id, dead.reason, dead.attempts) for dead in page.items] == [
        (task_id, "tests.reason", 1)
    ]
    assert await claim(db) == []

    async with db.begin("operator") as tx:
        await replay(tx, task_id)

    (row,) = await claim(db)
    assert (row.id, row.args["name"], row.key, row.failures) == (task_id, "n0", "k", 0)
    assert (await dead_letters(db)).items == []
    (entry,) = await audit.entries_of_subject(db, show("tsk", task_id))
    assert (entry.action, entry.actor) == ("task.replay", "operator")


async def test_replay_is_refused_while_a_newer_task_has_the_key(db: Db) -> None:
    (task_id,) = await bury(db, 1, key="k")
    async with db.begin("test") as tx:
        await enqueue(tx, Greet("newer"), key="k")
    with pytest.raises(DeadLetterSuperseded):
        async with db.begin("operator") as tx:
            await replay(tx, task_id)
    assert len((await dead_letters(db)).items) == 1


async def test_a_discarded_dead_letter_is_gone_but_audited(db: Db) -> None:
    (task_id,) = await bury(db, 1)
    async with db.begin("operator") as tx:
        await discard(tx, task_id, because="sent by hand")
    for act in (replay, partial(discard, because="again")):
        with pytest.raises(DeadLetterUnknown):
            async with db.begin("operator") as tx:
                await act(tx, task_id)
    (entry,) = await audit.entries_of_subject(db, show("tsk", task_id))
    said = {"type": "tests.greet", "key": None, "reason": "tests.reason"}
    assert entry.facts == {**said, "because": "sent by hand"}


async def test_dead_letters_come_in_pages_by_type(db: Db) -> None:
    ids = await bury(db, 5)
    seen: list[UUID] = []
    cursor = None
    while True:
        page = await dead_letters(db, type_="tests.greet", limit=2, cursor=cursor)
        seen += [dead.id for dead in page.items]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert seen == ids[::-1]
    assert (await dead_letters(db, type_="tests.wave")).items == []
    with pytest.raises(CursorInvalid):
        await dead_letters(db, cursor="no cursor")
    with pytest.raises(PageSizeInvalid):
        await dead_letters(db, limit=1000)


@given(st.integers(min_value=1, max_value=100))
def test_delays_never_shrink_and_never_run_out(failures: int) -> None:
    assert DEFAULT_POLICY.delay_after(failures) <= DEFAULT_POLICY.delay_after(failures + 1)


def test_a_policy_of_one_delay_repeats_it() -> None:
    policy = RetryPolicy(3, (MINUTE,))
    assert [policy.delay_after(n) for n in (1, 2, 3)] == [MINUTE] * 3
    assert Lease(new_id(), 1).finished is False

"""Business time that people may advance."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest

from tongbao.infra import audit, test_clock
from tongbao.infra.db import Db
from tongbao.kernel.clock import real_now

DAY = timedelta(days=1)
MakeDb = Callable[..., Awaitable[Db]]


async def test_business_time_is_real_time_until_somebody_advances_it(db: Db) -> None:
    assert await test_clock.load_offset(db, allowed=True) == timedelta()
    assert abs(db.clock.now() - real_now()) < timedelta(minutes=1)


async def test_an_advance_moves_the_whole_deployment(make_db: MakeDb, dsn: str) -> None:
    mover, follower, latecomer = [await make_db(dsn=dsn) for _ in range(3)]
    await test_clock.load_offset(mover, allowed=True)
    stop = asyncio.Event()
    following = asyncio.create_task(test_clock.follow(follower, stop, poll_s=0.01))
    await test_clock.advance(mover, DAY, "operator:amy")
    async with asyncio.timeout(30):
        while follower.clock.offset != DAY:  # noqa: ASYNC110 - it has no event of its own
            await asyncio.sleep(0.01)
    stop.set()
    await following
    assert mover.clock.offset == DAY
    assert await test_clock.load_offset(latecomer, allowed=True) == DAY
    assert latecomer.clock.offset == DAY


async def test_an_advance_is_audited(db: Db) -> None:
    await test_clock.load_offset(db, allowed=True)
    await test_clock.advance(db, DAY, "operator:amy")
    entry = (await audit.entries_of_subject(db, "deployment"))[-1]
    assert (entry.actor, entry.action) == ("operator:amy", "test_clock.advanced")
    assert entry.facts["by_s"] == DAY.total_seconds()


@pytest.mark.parametrize("by", [timedelta(), -DAY, timedelta(days=401)])
async def test_time_goes_forward_only_and_not_too_far(db: Db, by: timedelta) -> None:
    await test_clock.load_offset(db, allowed=True)
    with pytest.raises(test_clock.TestClockStepInvalid):
        await test_clock.advance(db, by, "operator:amy")
    assert db.clock.offset == timedelta()


async def test_a_deployment_without_test_clock_cannot_be_advanced(db: Db) -> None:
    await test_clock.load_offset(db, allowed=False)
    with pytest.raises(test_clock.TestClockOff):
        await test_clock.advance(db, DAY, "operator:amy")


async def test_a_clock_never_advanced_can_be_switched_off_again(db: Db) -> None:
    await test_clock.load_offset(db, allowed=True)
    await test_clock.load_offset(db, allowed=False)
    with pytest.raises(test_clock.TestClockOff):
        await test_clock.advance(db, DAY, "operator:amy")


async def test_switching_the_clock_off_would_turn_time_back_and_is_refused(
    make_db: MakeDb, dsn: str
) -> None:
    before = await make_db(dsn=dsn)
    await test_clock.load_offset(before, allowed=True)
    await test_clock.advance(before, DAY, "operator:amy")
    with pytest.raises(test_clock.TestClockLeftOn):
        await test_clock.load_offset(await make_db(dsn=dsn), allowed=False)


async def test_concurrent_advances_add_up(make_db: MakeDb, dsn: str) -> None:
    processes = [await make_db(dsn=dsn) for _ in range(4)]
    await test_clock.load_offset(processes[0], allowed=True)
    await asyncio.gather(*(test_clock.advance(on, DAY, "operator:amy") for on in processes))
    assert await test_clock.load_offset(processes[0], allowed=True) == 4 * DAY


async def test_a_late_answer_never_turns_time_back(db: Db) -> None:
    await test_clock.load_offset(db, allowed=True)
    db.clock.offset = 2 * DAY  # as after an advance whose echo the follower has not read yet
    stop = asyncio.Event()
    following = asyncio.create_task(test_clock.follow(db, stop, poll_s=0.01))
    await asyncio.sleep(0.05)
    stop.set()
    await following
    assert db.clock.offset == 2 * DAY


async def test_time_does_not_come_to_an_end(db: Db) -> None:
    await test_clock.load_offset(db, allowed=True)
    for _ in range(91):
        await test_clock.advance(db, test_clock.STEP_MAX, "operator:amy")
    reached = db.clock.offset

    with pytest.raises(test_clock.TestClockTooFar):
        await test_clock.advance(db, test_clock.STEP_MAX, "operator:amy")

    assert db.clock.offset == reached == await test_clock.load_offset(db, allowed=True)

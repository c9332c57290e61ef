"""The routes of the test clock: a step is taken once, however often it is asked for."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

import pytest

from tests.parties.test_person_locks import until_one_waits
from tests.stage import Stage
from tongbao.infra import failpoints, test_clock
from tongbao.infra.db import Db
from tongbao.infra.test_clock import TestClockShared
from tongbao.kernel.ids import parse
from tongbao.kernel.licence import Mode
from tongbao.parties.developers.clock import ClockHand
from tongbao.parties.identity.keys import create_key, revoke_key
from tongbao_sdk import Refused, Unanswered


@pytest.fixture
async def clocked(stage: Stage) -> Stage:
    await test_clock.load_offset(stage.db, allowed=True)
    return stage


async def steps(db: Db) -> int:
    rows = await db.fetch(
        "select count(*) from audit_entry where action = 'test_clock.advanced'", ()
    )
    return int(rows[0][0])


async def test_a_repeat_with_the_same_key_moves_time_once(clocked: Stage) -> None:
    clock = clocked.client.test_clock
    kept: list[str] = []

    first = await clocked.call(clock.advance, 3600, remember=kept.append)
    again = await clocked.call(clock.advance, 3600, idempotency_key=kept[0])

    assert again == first
    assert await steps(clocked.db) == 1
    moved = datetime.fromisoformat((await clocked.call(clock.read))["now"])
    assert moved - datetime.fromisoformat(first["now"]) < timedelta(minutes=30)


async def test_rivals_with_one_key_move_time_once(clocked: Stage) -> None:
    one = clocked.client_of(clocked.shop, tries_max=8)

    await asyncio.gather(
        *(clocked.call(one.test_clock.advance, 60, idempotency_key="k") for _ in range(6))
    )

    assert await steps(clocked.db) == 1


async def test_an_answer_that_was_lost_does_not_move_time_again(clocked: Stage) -> None:
    """The step is committed, and whoever made it dies before saying so."""
    failpoints.arm("test_clock.advanced:raise")
    impatient = clocked.client_of(clocked.shop, tries_max=1)
    with pytest.raises(Unanswered) as unanswered:
        await clocked.call(impatient.test_clock.advance, 60)
    failpoints.arm(None)
    key = unanswered.value.idempotency_key
    await clocked.db.execute("update idempotency_key set lease_until = created_at", ())

    await clocked.call(clocked.client.test_clock.advance, 60, idempotency_key=key)

    assert await steps(clocked.db) == 1


async def test_the_same_key_for_another_step_is_refused(clocked: Stage) -> None:
    clock = clocked.client.test_clock
    await clocked.call(clock.advance, 60, idempotency_key="k")

    with pytest.raises(Refused, match=r"idempotency\.reused"):
        await clocked.call(clock.advance, 61, idempotency_key="k")

    assert await steps(clocked.db) == 1


@pytest.mark.parametrize("seconds", [0, -1, 34_560_001])
async def test_time_moves_forward_and_in_steps(clocked: Stage, seconds: int) -> None:
    with pytest.raises(Refused, match=r"request\.invalid_value"):
        await clocked.call(clocked.client.test_clock.advance, seconds)

    assert await steps(clocked.db) == 0


async def test_where_the_clock_is_off_nothing_moves_and_the_refusal_is_kept(stage: Stage) -> None:
    with pytest.raises(Refused, match=r"test_clock\.off"):
        await stage.call(stage.client.test_clock.advance, 60)


async def test_nobody_moves_the_time_of_others_who_have_keys_too(clocked: Stage) -> None:
    other = await clocked.open_shop()
    with pytest.raises(Refused, match=r"test_clock\.shared"):
        await clocked.call(clocked.client.test_clock.advance, 60)
    refused = await steps(clocked.db)
    shared = ClockHand(clocked.db, is_shared=True)
    await shared.move(timedelta(minutes=1), clocked.shop.merchant.id, "tests")
    async with clocked.db.begin("tests") as tx:
        await revoke_key(tx, other.merchant.id, Mode.SANDBOX, parse("key", other.key_id))

    await clocked.call(clocked.client.test_clock.advance, 60)

    assert (refused, await steps(clocked.db)) == (0, 2)


async def test_a_step_that_waits_for_anothers_new_key_sees_it(clocked: Stage) -> None:
    """Forced interleaving on the clock's row."""
    other, db = await clocked.open_shop(), clocked.db
    merchant_id, kept = other.merchant.id, clocked.platform
    async with db.begin("tests") as tx:
        await revoke_key(tx, merchant_id, Mode.SANDBOX, parse("key", other.key_id))
    hand = ClockHand(db, is_shared=False)

    async with db.begin("tests") as tx:
        await create_key(
            tx,
            kept.keyring,
            merchant_id,
            Mode.SANDBOX,
            licence=kept.settings.licence,
            name="second",
            scopes=["payments:read"],
        )
        moving = asyncio.create_task(
            hand.move(timedelta(minutes=1), clocked.shop.merchant.id, "tests")
        )
        await until_one_waits(db)

    with pytest.raises(TestClockShared):
        await moving
    assert await steps(db) == 0

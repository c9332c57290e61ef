"""The test clock: business time that people may advance, where the deployment allows it.

The offset is one row, so every process of a deployment lives at the same time: `advance` moves
it, `follow` in each process notices within a quarter of a second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Final

import structlog

from tongbao.infra import audit
from tongbao.infra.db import Db, Query, Statement, Tx
from tongbao.infra.db_failures import DatabaseUnavailable, LockNotFree
from tongbao.infra.failpoints import failpoint
from tongbao.kernel.errors import Conflict, Forbidden, Invalid

POLL_S: Final = 0.25
STEP_MAX: Final = timedelta(days=400)
OFFSET_MAX: Final = timedelta(days=36_525)
"""A hundred years; further on, dates come to an end and with them the deployment."""

_log = structlog.get_logger()


class TestClockOff(Forbidden):
    """This deployment's business time is the real time."""

    __test__ = False  # its name must not make pytest collect it
    code = "test_clock.off"
    advice = "Set TONGBAO_TEST_CLOCK=true on a deployment that moves no real money."
    advice_zh = "请在不涉及真实资金的部署中设置 TONGBAO_TEST_CLOCK=true。"


class TestClockLeftOn(Conflict):
    """The test clock was advanced earlier, so switching it off would turn time back."""

    __test__ = False
    code = "test_clock.left_on"
    advice = "Start with TONGBAO_TEST_CLOCK=true, or with a new database."
    advice_zh = "请以 TONGBAO_TEST_CLOCK=true 启动，或使用新的数据库。"


class TestClockStepInvalid(Invalid):
    """The clock moves forward only, and by at most 400 days at once."""

    __test__ = False
    code = "test_clock.step_invalid"
    advice = "Advance by more than zero and at most 400 days."
    advice_zh = "前进时长须大于零且不超过 400 天。"


class TestClockTooFar(Conflict):
    """The clock is a hundred years ahead and goes no further."""

    __test__ = False
    code = "test_clock.too_far"
    advice = "Start anew with an empty database."
    advice_zh = "请使用新的空数据库重新开始。"


class TestClockShared(Forbidden):
    """Others have sandbox keys here too, and their time would move along."""

    __test__ = False
    code = "test_clock.shared"
    advice = "Ask whoever runs the deployment for TONGBAO_TEST_CLOCK_SHARED=true, or run your own."
    advice_zh = "请联系部署方设置 TONGBAO_TEST_CLOCK_SHARED=true，或自行部署一套。"


_OFFSET = Query(int, "select offset_us from deployment_clock where id = 1")
_SWITCH_ON = Statement(
    "insert into deployment_clock (id, offset_us) values (1, 0) on conflict do nothing"
)
_SWITCH_OFF = Statement("delete from deployment_clock where id = 1 and offset_us = 0")
_ADVANCE = Query(
    int,
    "update deployment_clock set offset_us = offset_us + $1 where id = 1 returning offset_us",
)
_HOLD = Query(int, "select id from deployment_clock where id = 1 for share")


async def load_offset(db: Db, *, allowed: bool) -> timedelta:
    """Set this process's business time at its start; ``allowed`` is ``settings.test_clock``.

    Raises:
        TestClockLeftOn
    """
    await (_SWITCH_ON if allowed else _SWITCH_OFF).run(db)
    offset = timedelta(microseconds=await _OFFSET.first(db) or 0)
    if offset and not allowed:
        raise TestClockLeftOn(offset_s=int(offset.total_seconds()))
    _move(db, offset)
    return offset


async def advance(
    db: Db,
    by: timedelta,
    actor: str,
    *,
    take: Callable[[Tx], Awaitable[None]] | None = None,
    check: Callable[[Tx], Awaitable[None]] | None = None,
) -> datetime:
    """Move business time forward for the whole deployment and return the new time.

    ``take`` writes in the same commit what makes a repeat of the request known as one; ``check``
    looks, while nobody who called `hold_still` can commit, whether the actor may.

    Raises:
        TestClockOff, TestClockStepInvalid, TestClockTooFar, and what the two raise
    """
    if not timedelta() < by <= STEP_MAX:
        raise TestClockStepInvalid(param="advance_s")
    async with db.begin(actor) as tx:
        if take is not None:
            await take(tx)
        offset_us = await _ADVANCE.first(tx, by // timedelta(microseconds=1))
        if offset_us is None:
            raise TestClockOff
        if timedelta(microseconds=offset_us) > OFFSET_MAX:
            raise TestClockTooFar
        if check is not None:
            await check(tx)
        facts = {"by_s": int(by.total_seconds()), "offset_us": offset_us}
        await audit.record(tx, "test_clock.advanced", "deployment", facts)
    failpoint("test_clock.advanced")
    _move(db, timedelta(microseconds=offset_us))
    return db.clock.now()


async def hold_still(tx: Tx) -> None:
    """Let nobody advance the clock until the transaction ends, so that it sees what this adds."""
    await _HOLD.first(tx)


async def follow(db: Db, stop: asyncio.Event, *, poll_s: float = POLL_S) -> None:
    """Keep this process's business time up with the deployment's until ``stop`` is set."""
    while not stop.is_set():
        try:
            _move(db, timedelta(microseconds=await _OFFSET.first(db) or 0))
        except (DatabaseUnavailable, LockNotFree):
            _log.warning("test_clock_not_read")
        try:
            await asyncio.wait_for(stop.wait(), poll_s)
        except TimeoutError:
            continue


def _move(db: Db, offset: timedelta) -> None:
    """Never backward: a slow answer may bring an older offset than the one we set ourselves."""
    db.clock.offset = max(db.clock.offset, offset)

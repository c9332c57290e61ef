"""Limits of red packets: two people agree to figures from a day on, and they are written once."""

from __future__ import annotations

import asyncio
from datetime import date, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from tests.dying import dying
from tongbao.controls.approvals.approvals import ApplyApproval, approve, reject, run_apply
from tongbao.controls.approvals.model import Approval, Approvals, OwnProposal, acts_of
from tongbao.controls.approvals.queries import approval_with_id, changes_of
from tongbao.infra.db import Db
from tongbao.kernel.clock import business_date
from tongbao.products.red_packets import _store as red_packets
from tongbao.products.red_packets.hall import (
    LimitInThePast,
    LimitMalformed,
    LimitThere,
    bound_acts,
    propose_limit,
)
from tongbao.products.red_packets.model import RedPacketLimit

MAY = {"merchants_act", "settlement_act"}
NO_LEASE: Any = None


@pytest.fixture
def desk(db: Db) -> Approvals:
    return Approvals(db, acts_of(*bound_acts(db)))


def limit(db: Db, days: int = 1, **changes: Any) -> RedPacketLimit:
    day = business_date(db.clock.now()) + timedelta(days=days)
    return replace(RedPacketLimit("CNY", day, 100, 5000, 50, "house rule"), **changes)


async def ask(db: Db, wanted: RedPacketLimit) -> Approval:
    async with db.begin("opr_maker") as tx:
        return await propose_limit(tx, wanted, reason="a new year", may=MAY)


async def agree(desk: Approvals, asked: Approval, by: str = "opr_checker") -> None:
    async with desk.db.begin(by) as tx:
        await approve(tx, desk.acts, asked.id, digest=asked.digest.hex(), may=MAY)


async def work(desk: Approvals, asked: Approval) -> str:
    await run_apply(desk, ApplyApproval(asked.id), NO_LEASE)
    found = await approval_with_id(desk.db, asked.id)
    return found.code or found.state.value


async def on(db: Db, day: date) -> int:
    return (await red_packets.LIMIT_ON.one(db, "CNY", day)).each_max


@pytest.mark.parametrize(
    "place",
    ["approvals.before_effect", "approvals.before_effect_commit", "approvals.after_effect"],
)
async def test_two_people_set_limits_once_whoever_dies(desk: Approvals, place: str) -> None:
    wanted = limit(desk.db)
    before = await on(desk.db, wanted.valid_from)
    asked = await ask(desk.db, wanted)
    with pytest.raises(OwnProposal):
        await agree(desk, asked, by="opr_maker")
    shown = {each.en: (each.before, each.after) for each in await changes_of(desk, asked)}
    assert shown["one part"] == ("200.00", "1.00")
    await agree(desk, asked)
    assert await on(desk.db, wanted.valid_from) == before
    with dying(place):
        await work(desk, asked)

    assert set(await asyncio.gather(*(work(desk, asked) for _ in range(3)))) == {"applied"}

    assert await on(desk.db, wanted.valid_from) == 100
    assert await on(desk.db, wanted.valid_from - timedelta(days=1)) == before
    with pytest.raises(LimitThere):
        await ask(desk.db, wanted)


async def test_a_rejected_limit_is_nowhere(desk: Approvals) -> None:
    wanted = limit(desk.db)
    asked = await ask(desk.db, wanted)
    async with desk.db.begin("opr_checker") as tx:
        await reject(tx, desk.acts, asked.id, reason="too low", may=MAY)

    assert await work(desk, asked) == "rejected"
    assert await on(desk.db, wanted.valid_from) == 20_000


async def test_a_day_that_went_by_is_refused(desk: Approvals) -> None:
    asked = await ask(desk.db, limit(desk.db, days=0))
    await agree(desk, asked)
    desk.db.clock.offset += timedelta(days=1)

    assert await work(desk, asked) == "red_packet_limit.in_the_past"
    with pytest.raises(LimitInThePast):
        await ask(desk.db, limit(desk.db, days=-1))


@pytest.mark.parametrize(
    "changes",
    [{"each_max": 0}, {"total_max": 99}, {"parts_max": 0}, {"parts_max": 100_001}, {"source": ""}],
)
async def test_figures_must_fit_together(desk: Approvals, changes: dict[str, Any]) -> None:
    with pytest.raises(LimitMalformed):
        await ask(desk.db, limit(desk.db, **changes))

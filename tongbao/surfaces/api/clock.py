"""The routes of the test clock, for sandbox keys on a deployment that allows it."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Annotated
from uuid import UUID

from litestar import Response, get, post
from msgspec import Meta, Struct

from tongbao.infra.db import Db, Tx
from tongbao.infra.settings import Settings
from tongbao.infra.test_clock import (
    TestClockOff,
    TestClockShared,
    TestClockStepInvalid,
    TestClockTooFar,
)
from tongbao.infra.web.caller import Caller, needs
from tongbao.infra.web.idempotency import Idempotency, answer_once
from tongbao.infra.web.request import ApiRequest
from tongbao.kernel.clock import business_date
from tongbao.kernel.ids import new_id
from tongbao.parties.developers.clock import ClockHand


class ClockView(Struct, frozen=True):
    """Business time as the platform lives it."""

    now: datetime
    business_date: date


class AdvanceClock(Struct, frozen=True, forbid_unknown_fields=True):
    """Move business time forward by this much."""

    advance_s: Annotated[int, Meta(ge=1, le=34_560_000)]


def hand_of(db: Db, settings: Settings) -> ClockHand:
    """Return what moves this deployment's clock."""
    return ClockHand(db, settings.test_clock_shared)


def _view(now: datetime) -> ClockView:
    return ClockView(now, business_date(now))


@get("/v1/test_helpers/clock", opt=needs("test_helpers:write", sandbox_only=True))
async def get_clock(db: Db) -> ClockView:
    """Return business time."""
    return _view(db.clock.now())


@post(
    "/v1/test_helpers/clock/advance",
    status_code=200,
    opt=needs(
        "test_helpers:write",
        idempotent=True,
        sandbox_only=True,
        refuses=[TestClockOff, TestClockShared, TestClockStepInvalid, TestClockTooFar],
        request_example=AdvanceClock(86_400),
    ),
)
async def advance_clock(
    data: AdvanceClock, request: ApiRequest, db: Db, caller: Caller, clock_hand: ClockHand
) -> Response[ClockView]:
    """Move business time forward for the whole deployment; what becomes due runs at once.

    Where other merchants have sandbox keys too, only if the deployment says that they share it.
    """
    by = timedelta(seconds=data.advance_s)

    async def fresh(use: Idempotency) -> ClockView:
        async def take(tx: Tx) -> None:
            await use.take(tx, new_id())

        return _view(await clock_hand.move(by, caller.merchant_id, caller.actor, take=take))

    async def resume(_step: UUID) -> ClockView:
        return _view(db.clock.now())

    return await answer_once(request, db, fresh=fresh, resume=resume)


ROUTES = [get_clock, advance_clock]

"""The routes of the test clock, for sandbox keys on a deployment that allows it."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Annotated

from litestar import get, post
from msgspec import Meta, Struct

from tongbao.infra import test_clock
from tongbao.infra.db import Db
from tongbao.infra.test_clock import TestClockOff, TestClockStepInvalid
from tongbao.infra.web.caller import Caller, needs
from tongbao.kernel.clock import business_date


class ClockView(Struct, frozen=True):
    """Business time as the platform lives it."""

    now: datetime
    business_date: date


class AdvanceClock(Struct, frozen=True, forbid_unknown_fields=True):
    """Move business time forward by this much."""

    advance_s: Annotated[int, Meta(ge=1, le=34_560_000)]


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
        "test_helpers:write", sandbox_only=True, refuses=[TestClockOff, TestClockStepInvalid]
    ),
)
async def advance_clock(data: AdvanceClock, db: Db, caller: Caller) -> ClockView:
    """Move business time forward for the whole deployment; what becomes due runs at once."""
    return _view(await test_clock.advance(db, timedelta(seconds=data.advance_s), caller.actor))


ROUTES = [get_clock, advance_clock]

"""Business time is the system's plus an offset, and days are those of Asia/Shanghai."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tongbao.kernel import clock
from tongbao.kernel.clock import Clock, business_date, day_bounds

MOMENTS = st.datetimes(
    datetime(1970, 1, 2),  # noqa: DTZ001 - the zone is drawn
    datetime(2200, 1, 1),  # noqa: DTZ001
    timezones=st.integers(-12, 14).map(lambda hours: timezone(timedelta(hours=hours))),
)
DAYS = st.dates(date(1970, 1, 2), date(2200, 1, 1))


@given(MOMENTS)
def test_every_moment_lies_in_its_own_day_and_in_no_other(at: datetime) -> None:
    start, end = day_bounds(business_date(at))

    assert start <= at < end


@given(DAYS)
def test_days_follow_each_other_without_gap_or_overlap(day: date) -> None:
    """Summer time, which China had from 1986 to 1991, included."""
    assert day_bounds(day)[1] == day_bounds(day + timedelta(days=1))[0]


@given(DAYS)
def test_bounds_are_utc(day: date) -> None:
    assert {bound.tzinfo for bound in day_bounds(day)} == {UTC}


@pytest.mark.parametrize(
    ("at", "day"),
    [
        (datetime(2026, 11, 20, 15, 59, 59, 999_999, UTC), date(2026, 11, 20)),
        (datetime(2026, 11, 20, 16, 0, tzinfo=UTC), date(2026, 11, 21)),
        (datetime(2026, 12, 31, 16, 0, tzinfo=UTC), date(2027, 1, 1)),
    ],
)
def test_the_day_begins_at_midnight_in_shanghai(at: datetime, day: date) -> None:
    assert business_date(at) == day


@given(st.timedeltas(timedelta(days=-400), timedelta(days=400)))
def test_business_time_is_real_time_moved(offset: timedelta) -> None:
    now = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clock, "real_now", lambda: now)

        assert Clock(offset).now() == now + offset


def test_a_clock_nobody_moved_shows_real_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
    monkeypatch.setattr(clock, "real_now", lambda: now)

    assert Clock().now() == now


def test_real_time_knows_its_zone_and_durations_do_not_step_back() -> None:
    assert clock.real_now().tzinfo is UTC
    assert clock.monotonic() <= clock.monotonic()

"""The clock: business time, which a test may move, and real time, which nothing moves.

Business time dates payments, expiries, business days and settlement. Real time is for leases,
time-outs, signature windows and ids. Nobody else in the package reads the system's clock.
"""

from __future__ import annotations

import time
from datetime import UTC, date, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

BUSINESS_ZONE: Final = ZoneInfo("Asia/Shanghai")


class Clock:
    """Business time: the system's time plus an offset that only a test clock has."""

    def __init__(self, offset: timedelta = timedelta()) -> None:
        self.offset = offset

    def now(self) -> datetime:
        """Return business time, UTC."""
        return real_now() + self.offset


def real_now() -> datetime:
    """Return the system's time, UTC."""
    return datetime.now(UTC)  # noqa: TID251 - the one place that may


def monotonic() -> float:
    """Return seconds that never step back, for durations and time-outs."""
    return time.monotonic()


def business_date(at: datetime) -> date:
    """Return the business day (Asia/Shanghai) that the moment lies in."""
    return at.astimezone(BUSINESS_ZONE).date()


def day_bounds(day: date) -> tuple[datetime, datetime]:
    """Return the business day as a half-open period ``[from, to)`` in UTC."""
    start = datetime(day.year, day.month, day.day, tzinfo=BUSINESS_ZONE)
    return start.astimezone(UTC), (start + timedelta(days=1)).astimezone(UTC)

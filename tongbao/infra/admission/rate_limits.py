"""What a rate limit gives: the generic cell rate algorithm and a daily quota, as values.

A bucket that is full gives a burst at once and fills again by so many units a second; whoever gets
units moves the moment at which it will be full. It forgets nothing and needs no timer.
"""

from __future__ import annotations

import math
from datetime import date, datetime, timedelta
from uuid import UUID

from msgspec import Struct

from tongbao.kernel.clock import business_date
from tongbao.kernel.licence import Mode


class RateLimit(Struct, frozen=True):
    """What may be asked: units a second, units at once, and units a day."""

    units_per_s: int
    burst: int
    units_per_day: int | None = None


class LoginSourceRule(Struct, frozen=True):
    """One row: how many logins may fail from one place in a period; ``most`` None: any number."""

    entrance: str
    family: int
    prefix_bits: int
    period_s: int
    valid_from: date
    most: int | None
    because: str


class Bucket(Struct, frozen=True):
    """What was given out of a limit so far."""

    spent_until: datetime
    day: date
    used: int


class BucketRow(Struct, frozen=True):
    """A bucket with the limit that was agreed for it, if one was."""

    subject: UUID
    mode: Mode
    spent_until: datetime
    day: date
    used: int
    units_per_s: int | None
    burst: int | None
    units_per_day: int | None

    @property
    def bucket(self) -> Bucket:
        """Return what was given out."""
        return Bucket(self.spent_until, self.day, self.used)

    @property
    def limit(self) -> RateLimit | None:
        """Return the limit of its own."""
        if self.units_per_s is None or self.burst is None:
            return None
        return RateLimit(self.units_per_s, self.burst, self.units_per_day)


class Lease(Struct, frozen=True):
    """What a bucket gave: ``units`` now, ``left`` for others, or how long to wait for any."""

    bucket: Bucket
    units: int
    left: int
    wait_s: int = 0


class Standing(Struct, frozen=True):
    """What an answer tells of the tighter of the caller's limits."""

    limit: RateLimit
    left: int

    @property
    def headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """Return the fields of draft-ietf-httpapi-ratelimit-headers-10."""
        window = math.ceil(self.limit.burst / self.limit.units_per_s)
        policy, now = (
            f'"units";q={self.limit.burst};w={window}',
            f'"units";r={max(self.left, 0)};t={window}',
        )
        return ((b"ratelimit-policy", policy.encode()), (b"ratelimit", now.encode()))


def given(bucket: Bucket, limit: RateLimit, units: tuple[int, int], now: datetime) -> Lease:
    """Return what a bucket gives to whoever needs and would like so many units: some, or none."""
    needed, wished = units
    # Who read the clock before midnight may ask after somebody who read it later.
    day = max(business_date(now), bucket.day)
    used = bucket.used if bucket.day == day else 0
    owed = max(0.0, (bucket.spent_until - now).total_seconds()) * limit.units_per_s
    free = limit.burst - math.ceil(owed - 1e-6)
    if limit.units_per_day is not None and limit.units_per_day - used < needed:
        return Lease(bucket, 0, 0, _until_tomorrow_s(now))
    if free < needed:
        missing = needed - free if needed <= limit.burst else limit.burst
        return Lease(bucket, 0, max(free, 0), max(1, math.ceil(missing / limit.units_per_s)))
    left_today = free if limit.units_per_day is None else limit.units_per_day - used
    got = min(wished, free, left_today)
    flowed = max(bucket.spent_until, now) + timedelta(seconds=got / limit.units_per_s)
    left = min(free, left_today) - got
    return Lease(Bucket(flowed, day, used + got), got, left)


def _until_tomorrow_s(now: datetime) -> int:
    """Return the seconds until the next business day begins."""
    today, later = business_date(now), now
    while business_date(later) == today:
        later += timedelta(minutes=15)
    return max(1, int((later - now).total_seconds()))

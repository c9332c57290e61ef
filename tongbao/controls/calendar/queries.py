"""The calendar as it is, or was, known."""

from __future__ import annotations

from datetime import date, datetime

from tongbao.controls.calendar import _store as store
from tongbao.controls.calendar.model import Calendar, CalendarDay, cut_off_on
from tongbao.infra.db import Db, Tx
from tongbao.kernel.clock import business_date


async def load_calendar(on: Db | Tx, *, known_at: datetime | None = None) -> Calendar:
    """Return what is known of working days now, or what was known at a moment."""
    return Calendar(await store.DAYS.all(on, known_at or _now(on)))


async def days_of_year(on: Db | Tx, year: int) -> list[CalendarDay]:
    """Return the days of a year about which the calendar says something, in order."""
    return [each for each in await store.DAYS.all(on, _now(on)) if each.day.year == year]


async def is_working_day(on: Db | Tx, day: date) -> bool:
    """Tell whether banks work on a business day; to ask about many, load the calendar once."""
    return (await load_calendar(on)).is_working_day(day)


async def nth_working_day_after(on: Db | Tx, day: date, n: int) -> date:
    """Return the n-th working day after a day; to ask about many, load the calendar once."""
    return (await load_calendar(on)).nth_working_day_after(day, n)


async def cut_off(on: Db | Tx, purpose: str, day: date) -> int:
    """Return the minute at which a business day ends for a purpose, such as ``settlement``."""
    return cut_off_on(await store.CUT_OFFS.all(on, purpose, _now(on)), day)


async def missing_year(on: Db | Tx) -> int | None:
    """Return the year whose arrangement is wanted and missing: this one, or the next in December.

    The State Council publishes a year's arrangement in the November before it.
    """
    calendar, today = await load_calendar(on), business_date(_now(on))
    wanted = [today.year, *([today.year + 1] if today.month == 12 else [])]
    return next((year for year in wanted if not calendar.knows(year)), None)


def _now(on: Db | Tx) -> datetime:
    return on.now if isinstance(on, Tx) else on.clock.now()

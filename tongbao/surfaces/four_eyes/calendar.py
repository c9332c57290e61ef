"""The calendar in the console: the special days of a year, and a file that changes them."""

from __future__ import annotations

from datetime import date
from typing import Final

from tongbao.controls.approvals.queries import open_approval
from tongbao.controls.calendar.changes import (
    PURPOSES,
    CutOffTerms,
    preview,
    propose_calendar,
    propose_cut_off,
)
from tongbao.controls.calendar.model import CHANGE_CALENDAR, as_change
from tongbao.controls.calendar.queries import cut_off, days_of_year, missing_year
from tongbao.kernel.clock import business_date
from tongbao.kernel.errors import Invalid
from tongbao.surfaces.four_eyes.inbox import permissions_of, proposed
from tongbao.surfaces.operator_console.visit import Visit
from tongbao.surfaces.page_kit.replies import Reply

_YEARS: Final = range(2000, 2101)


class CalendarPlaceMalformed(Invalid):
    """The address or the form names no year, day or time."""

    code = "console.calendar_place_malformed"
    advice = "Choose a year between 2000 and 2100, a day, and a time such as 23:00."
    advice_zh = "请选择 2000 至 2100 年之间的年份，并填写日期和时刻（如 23:00）。"


async def show_calendar(visit: Visit) -> Reply:
    """Return the days of a year that are not as their weekday says, and the cut-offs.

    Raises:
        CalendarPlaceMalformed
    """
    return await _page(visit, {})


async def preview_file(visit: Visit) -> Reply:
    """Show what a file would change, before it is proposed.

    Raises:
        CalendarFileMalformed, CalendarUnchanged, SourceMissing
    """
    form = visit.request.form
    terms = await preview(visit.desk.db, form.get("file", ""), form.get("source", ""))
    return await _page(
        visit,
        {
            "changes": [as_change(each) for each in terms.days],
            "source": terms.source,
            "file": form.get("file", ""),
        },
    )


async def propose_file(visit: Visit) -> Reply:
    """Propose what a file says.

    Raises:
        CalendarFileMalformed, CalendarUnchanged, SourceMissing, MakerNotAllowed, ReasonTooShort,
        ApprovalWaiting
    """
    form, may = visit.request.form, sorted(permissions_of(visit))
    async with visit.desk.db.begin(visit.operator.actor) as tx:
        approval = await propose_calendar(
            tx,
            form.get("file", ""),
            form.get("source", ""),
            reason=form.get("reason", ""),
            may=may,
        )
    return proposed(approval)


async def propose_cut_off_time(visit: Visit) -> Reply:
    """Propose another cut-off from a day on.

    Raises:
        CalendarPlaceMalformed, CutOffMalformed, SourceMissing, MakerNotAllowed, ReasonTooShort,
        ApprovalWaiting
    """
    form, may = visit.request.form, sorted(permissions_of(visit))
    purpose, valid_from = form.get("purpose", ""), _day(form.get("valid_from", ""))
    minute = _minute(form.get("time", ""))
    async with visit.desk.db.begin(visit.operator.actor) as tx:
        was = await cut_off(tx, purpose, valid_from)
        terms = CutOffTerms(purpose, valid_from, minute, was, form.get("source", ""))
        approval = await propose_cut_off(tx, terms, reason=form.get("reason", ""), may=may)
    return proposed(approval)


async def _page(visit: Visit, seen: dict[str, object]) -> Reply:
    db = visit.desk.db
    today = business_date(db.clock.now())
    year = _year(visit.request.query.get("year", ""), today.year)
    facts: dict[str, object] = {
        "year": year,
        "days": await days_of_year(db, year),
        "missing": await missing_year(db),
        "cut_offs": [(each, _clock(await cut_off(db, each, today))) for each in PURPOSES],
        "asked": await open_approval(db, CHANGE_CALENDAR, "calendar"),
        "today": today,
        "changes": None,
        "source": "",
        "file": "",
    }
    return await visit.page("calendar.html", {**facts, **seen})


def _year(text: str, this: int) -> int:
    if not text:
        return this
    if not (text.isascii() and text.isdecimal()) or int(text[:5]) not in _YEARS:
        raise CalendarPlaceMalformed(param="year")
    return int(text)


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise CalendarPlaceMalformed(param="valid_from") from None


def _minute(text: str) -> int:
    """Return a time of day in minutes; 24:00 is the day's own end."""
    hour, _, minute = text.partition(":")
    is_time = len(text) == 5 and (hour + minute).isascii() and (hour + minute).isdecimal()
    if not is_time or int(minute) > 59:
        raise CalendarPlaceMalformed(param="time")
    return int(hour) * 60 + int(minute)


def _clock(minute: int) -> str:
    return f"{minute // 60:02d}:{minute % 60:02d}"

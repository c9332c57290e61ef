"""Working days, cut-offs, and a file that changes them: pure decisions. No I/O.

A day is a working day from Monday to Friday, unless a row says otherwise: a public holiday, or a
weekend day that is worked in exchange (调休). Of years whose arrangement was not published yet
there are no rows, and the weekday alone decides; `Calendar.knows` tells which years have some.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from functools import cached_property
from typing import Final
from uuid import UUID

from msgspec import Struct

from tongbao.controls.approvals.model import Act, Change
from tongbao.kernel.clock import BUSINESS_ZONE
from tongbao.kernel.errors import Conflict, Invalid

FILE_BYTES_MAX: Final = 64 * 1024
ROWS_MAX: Final = 400
COLUMNS: Final = ("day", "working", "name")
MIDNIGHT: Final = 1440
_YEARS: Final = range(2000, 2101)
_FIRST_WEEKEND_DAY: Final = 5
_STEPS_MAX: Final = 4000
_YES: Final = {"1": True, "yes": True, "true": True, "0": False, "no": False, "false": False}


class CalendarFileMalformed(Invalid):
    """The file is not a calendar; `line` says where."""

    code = "calendar.file_malformed"
    advice = "Send UTF-8 CSV with the columns day, working, name; working is yes or no."
    advice_zh = "请提供 UTF-8 编码的 CSV，列为 day、working、name，其中 working 为 yes 或 no。"


class CalendarUnchanged(Conflict):
    """Every day of the file is in the calendar already, just so."""

    code = "calendar.unchanged"
    advice = "Nothing to do."
    advice_zh = "日历已包含文件中的全部日期，无需变更。"


class CalendarMoved(Conflict):
    """Another change came first, so what was approved is not what would happen."""

    code = "calendar.moved"
    advice = "Propose the file again."
    advice_zh = "日历已被其他变更修改，请重新提交该文件。"


class SourceMissing(Invalid):
    """A calendar is changed on somebody's word, which is kept with it."""

    code = "calendar.source_missing"
    advice = "Name the instrument, such as 国办发明电〔2025〕7号, in 4 to 120 characters."
    advice_zh = "请注明依据文件，例如 国办发明电〔2025〕7号，4 至 120 个字符。"


class CalendarDay(Struct, frozen=True):
    """One row of calendar_day."""

    day: date
    known_from: datetime
    is_working: bool
    name: str
    source: str
    approval_id: UUID | None


class CalendarCutOff(Struct, frozen=True):
    """One row of calendar_cut_off."""

    purpose: str
    valid_from: date
    known_from: datetime
    minute: int
    source: str
    approval_id: UUID | None


class SaidDay(Struct, frozen=True):
    """One line of a file. ``was`` is what the calendar said when it was proposed; none: nothing."""

    day: date
    is_working: bool
    name: str
    was: bool | None = None


class CalendarTerms(Struct, frozen=True):
    """What is to become of which days, and who says so."""

    source: str
    days: tuple[SaidDay, ...]


CHANGE_CALENDAR: Final = Act(
    "calendar.change",
    "Change the calendar of working days",
    "变更工作日历",
    CalendarTerms,
    maker="settlement_act",
    checker="settlement_act",
)


class Calendar:
    """What is known of working days at a moment. Answers without I/O, however many are asked."""

    def __init__(self, days: Iterable[CalendarDay] = ()) -> None:
        self._days: Mapping[date, CalendarDay] = {each.day: each for each in days}

    @cached_property
    def _years(self) -> frozenset[int]:
        return frozenset(day.year for day in self._days)

    def knows(self, year: int) -> bool:
        """Tell whether the arrangement of a year is in the calendar."""
        return year in self._years

    def said(self, day: date) -> CalendarDay | None:
        """Return the row about a day, if there is one."""
        return self._days.get(day)

    def is_working_day(self, day: date) -> bool:
        """Tell whether banks work on a business day (Asia/Shanghai)."""
        said = self._days.get(day)
        return day.weekday() < _FIRST_WEEKEND_DAY if said is None else said.is_working

    def working_day_from(self, day: date) -> date:
        """Return the day itself, or the first working day after it."""
        for _ in range(_STEPS_MAX):
            if self.is_working_day(day):
                return day
            day += timedelta(days=1)
        raise ValueError("a calendar without a working day in ten years")

    def nth_working_day_after(self, day: date, n: int) -> date:
        """Return the n-th working day after a day, which need not be one itself; T+1 is n = 1."""
        if n < 1:
            raise ValueError("the first working day after a day is number 1")
        for _ in range(n):
            day = self.working_day_from(day + timedelta(days=1))
        return day

    def working_days(self, first: date, end: date) -> int:
        """Return how many working days lie in ``[first, end)``."""
        span = range((end - first).days)
        return sum(self.is_working_day(first + timedelta(days=n)) for n in span)


def settlement_date(at: datetime, minute: int = MIDNIGHT) -> date:
    """Return the business day that a moment counts in, when the day ends at a minute.

    A moment at the cut-off itself, or after it, belongs to the next day. Midnight is 1440.
    """
    there = at.astimezone(BUSINESS_ZONE)
    is_late = there.hour * 60 + there.minute >= minute
    return there.date() + timedelta(days=is_late)


def cut_off_on(rows: Sequence[CalendarCutOff], day: date) -> int:
    """Return the minute at which a business day ends; midnight where nobody said anything else."""
    valid = [each for each in rows if each.valid_from <= day]
    return (
        max(valid, key=lambda each: (each.valid_from, each.known_from)).minute
        if valid
        else MIDNIGHT
    )


def source_of(text: str) -> str:
    """Return the name of an instrument without needless space.

    Raises:
        SourceMissing
    """
    source = " ".join(text.split())
    if not 4 <= len(source) <= 120:
        raise SourceMissing(param="source")
    return source


def read_file(content: str | bytes) -> list[SaidDay]:
    """Return the days a CSV file names, in order.

    Raises:
        CalendarFileMalformed
    """
    if len(content) > FILE_BYTES_MAX:
        raise CalendarFileMalformed(reason="too large")
    try:
        text = content if isinstance(content, str) else content.decode("utf-8-sig")
        lines = list(csv.reader(io.StringIO(text.removeprefix("\ufeff")), strict=True))
    except (UnicodeDecodeError, csv.Error):
        raise CalendarFileMalformed(reason="not UTF-8 CSV") from None
    if not lines or tuple(each.strip() for each in lines[0]) != COLUMNS:
        raise CalendarFileMalformed(reason="the columns are not day, working, name", line=1)
    said = [_said(line, number) for number, line in enumerate(lines[1:], 2) if any(line)]
    if not 0 < len(said) <= ROWS_MAX:
        raise CalendarFileMalformed(reason=f"1 to {ROWS_MAX} days, please")
    if len({each.day for each in said}) != len(said):
        raise CalendarFileMalformed(reason="a day is named twice")
    return sorted(said, key=lambda each: each.day)


def news(calendar: Calendar, said: Iterable[SaidDay]) -> tuple[SaidDay, ...]:
    """Return the days of a file that would change something, with what is said of them now.

    Raises:
        CalendarUnchanged
    """
    found = []
    for each in said:
        now = calendar.said(each.day)
        if now is None or (now.is_working, now.name) != (each.is_working, each.name):
            was = None if now is None else now.is_working
            found.append(SaidDay(each.day, each.is_working, each.name, was))
    if not found:
        raise CalendarUnchanged
    return tuple(found)


def as_change(each: SaidDay) -> Change:
    """Return a day as whoever approves it reads it."""
    before, before_zh = (None, None) if each.was is None else _WORDS[each.was]
    after, after_zh = _WORDS[each.is_working]
    label = f"{each.day.isoformat()} {each.name}"
    return Change(label, label, before, after, before_zh, after_zh)


_WORDS: Final = {True: ("working day", "工作日"), False: ("holiday", "休息日")}


def _said(line: Sequence[str], number: int) -> SaidDay:
    try:
        day_text, working, name = (each.strip() for each in line)
        day, is_working = date.fromisoformat(day_text), _YES[working.lower()]
    except (ValueError, KeyError):
        raise CalendarFileMalformed(
            reason="not a day, yes or no, and a name", line=number
        ) from None
    if day.year not in _YEARS or not 0 < len(name) <= 40 or not name.isprintable():
        raise CalendarFileMalformed(reason="a day or name that cannot be", line=number)
    return SaidDay(day, is_working, name)

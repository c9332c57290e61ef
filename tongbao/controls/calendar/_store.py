"""The SQL of the calendar; nothing outside this package reads the tables."""

from __future__ import annotations

from typing import Final

from tongbao.controls.calendar.model import CalendarCutOff, CalendarDay
from tongbao.infra.db import Query, Statement

_DAY: Final = "day, known_from, is_working, name, source, approval_id"
_CUT_OFF: Final = "purpose, valid_from, known_from, minute, source, approval_id"

DAYS = Query(
    CalendarDay,
    f"""
    select distinct on (day) {_DAY} from calendar_day
     where known_from <= $1
     order by day, known_from desc""",
)
ADD_DAY = Statement(
    f"insert into calendar_day ({_DAY}) values ($1, $2, $3, $4, $5, $6)",
)
CUT_OFFS = Query(
    CalendarCutOff,
    f"""
    select {_CUT_OFF} from calendar_cut_off
     where purpose = $1 and known_from <= $2
     order by valid_from, known_from""",
)
ADD_CUT_OFF = Statement(
    f"insert into calendar_cut_off ({_CUT_OFF}) values ($1, $2, $3, $4, $5, $6)",
)

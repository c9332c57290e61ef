"""Which days banks work: weekdays, holidays, worked weekends, and who may change that."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tongbao.controls.approvals.approvals import ApplyApproval, approve, run_apply
from tongbao.controls.approvals.model import Approval, Approvals, ApprovalState, acts_of
from tongbao.controls.approvals.queries import approval_with_id, changes_of
from tongbao.controls.calendar import changes
from tongbao.controls.calendar.changes import (
    CutOffMalformed,
    CutOffTerms,
    preview,
    propose_calendar,
    propose_cut_off,
)
from tongbao.controls.calendar.model import (
    Calendar,
    CalendarCutOff,
    CalendarDay,
    CalendarFileMalformed,
    CalendarUnchanged,
    SourceMissing,
    cut_off_on,
    read_file,
    settlement_date,
)
from tongbao.controls.calendar.queries import (
    cut_off,
    days_of_year,
    is_working_day,
    load_calendar,
    missing_year,
    nth_working_day_after,
)
from tongbao.infra.db import Db
from tongbao.kernel.clock import BUSINESS_ZONE

D = date
SOURCE = "国办发明电〔2026〕99号"
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


# The published arrangements, as the State Council's notices say them


@pytest.mark.parametrize(
    ("day", "is_working"),
    [
        (D(2025, 1, 1), False),
        (D(2025, 1, 26), True),  # a Sunday that is worked
        (D(2025, 1, 27), True),
        (D(2025, 1, 28), False),
        (D(2025, 2, 4), False),
        (D(2025, 2, 5), True),
        (D(2025, 10, 8), False),
        (D(2025, 10, 11), True),
        (D(2026, 1, 2), False),
        (D(2026, 1, 4), True),
        (D(2026, 2, 14), True),
        (D(2026, 2, 23), False),
        (D(2026, 2, 24), True),
        (D(2026, 9, 20), True),
        (D(2026, 10, 10), True),
        (D(2026, 11, 21), False),  # a plain Saturday
        (D(2026, 11, 23), True),
        (D(2027, 1, 1), True),  # nobody has said anything about 2027 yet
    ],
)
async def test_the_calendar_comes_with_the_published_years(
    module_db: Db, day: date, is_working: bool
) -> None:
    assert await is_working_day(module_db, day) is is_working


async def test_a_year_has_the_days_that_its_notice_names(module_db: Db) -> None:
    for year, rests, worked in ((2025, 28, 5), (2026, 33, 6)):
        days = await days_of_year(module_db, year)
        assert sum(not each.is_working for each in days) == rests
        assert sum(each.is_working for each in days) == worked
        assert all(each.day.weekday() >= 5 for each in days if each.is_working)


async def test_working_days_are_counted_over_holidays(module_db: Db) -> None:
    calendar = await load_calendar(module_db)
    assert await nth_working_day_after(module_db, D(2026, 2, 13), 1) == D(2026, 2, 14)
    assert calendar.nth_working_day_after(D(2026, 2, 13), 2) == D(2026, 2, 24)
    assert calendar.nth_working_day_after(D(2026, 9, 30), 1) == D(2026, 10, 8)
    assert calendar.working_day_from(D(2026, 10, 1)) == D(2026, 10, 8)
    assert calendar.working_day_from(D(2026, 10, 8)) == D(2026, 10, 8)
    assert calendar.working_days(D(2026, 10, 1), D(2026, 11, 1)) == 18
    with pytest.raises(ValueError, match="number 1"):
        calendar.nth_working_day_after(D(2026, 1, 1), 0)


async def test_a_missing_year_is_missed_in_december(make_db: Any) -> None:
    db = await make_db()
    for now, missing in (("2026-11-30", None), ("2026-12-01", 2027), ("2028-03-01", 2028)):
        there = datetime.fromisoformat(now).replace(tzinfo=BUSINESS_ZONE)
        db.clock.offset += there - db.clock.now()
        assert await missing_year(db) == missing


# Properties


days = st.dates(D(2025, 1, 1), D(2026, 12, 31))
rows = st.dictionaries(days, st.booleans(), max_size=30)


@settings(max_examples=50)
@given(rows, days, st.integers(1, 15))
def test_the_nth_working_day_is_the_nth(said: dict[date, bool], day: date, n: int) -> None:
    calendar = Calendar(
        CalendarDay(each, LONG_AGO, on, "x", "x", None) for each, on in said.items()
    )
    found = calendar.nth_working_day_after(day, n)
    assert calendar.is_working_day(found)
    assert calendar.working_days(day + timedelta(days=1), found + timedelta(days=1)) == n
    assert all(calendar.is_working_day(each) is on for each, on in said.items())
    assert calendar.nth_working_day_after(day, n + 1) == calendar.nth_working_day_after(found, 1)


def test_a_calendar_without_a_working_day_does_not_run_for_ever() -> None:
    start = D(2026, 1, 1)
    never = Calendar(
        CalendarDay(start + timedelta(days=n), LONG_AGO, False, "x", "x", None) for n in range(4001)
    )
    with pytest.raises(ValueError, match="ten years"):
        never.working_day_from(start)


# Cut-offs


@pytest.mark.parametrize(
    ("moment", "minute", "day"),
    [
        ("2026-11-22T23:59:59+08:00", 1440, D(2026, 11, 22)),
        ("2026-11-22T16:00:00+00:00", 1440, D(2026, 11, 23)),
        ("2026-11-22T22:59:59.999+08:00", 1380, D(2026, 11, 22)),
        ("2026-11-22T23:00:00+08:00", 1380, D(2026, 11, 23)),
        ("2026-11-22T00:00:00+08:00", 1, D(2026, 11, 22)),
    ],
)
def test_a_moment_at_the_cut_off_belongs_to_the_next_day(
    moment: str, minute: int, day: date
) -> None:
    assert settlement_date(datetime.fromisoformat(moment), minute) == day


def test_of_cut_offs_the_newest_that_is_valid_counts() -> None:
    def row(valid_from: date, minute: int, *, later: int = 0) -> CalendarCutOff:
        known = LONG_AGO + timedelta(days=later)
        return CalendarCutOff("settlement", valid_from, known, minute, "x", None)

    history = [
        row(D(2026, 1, 1), 1380),
        row(D(2026, 6, 1), 1320),
        row(D(2026, 6, 1), 1200, later=1),
    ]
    assert cut_off_on(history, D(2025, 12, 31)) == 1440
    assert cut_off_on(history, D(2026, 5, 31)) == 1380
    assert cut_off_on(history, D(2026, 6, 1)) == 1200


# Files


GOOD = "day,working,name\n2027-01-01,no,元旦\n2027-01-03,yes,元旦调休上班\n"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        "日期,上班,名称\n",
        "day,working,name\n",
        "day,working,name\n2027-13-01,no,x\n",
        "day,working,name\n2027-01-01,maybe,x\n",
        "day,working,name\n2027-01-01,no\n",
        "day,working,name\n2027-01-01,no,\n",
        "day,working,name\n1999-01-01,no,x\n",
        "day,working,name\n2027-01-01,no," + "x" * 41,
        "day,working,name\n2027-01-01,no,x\n2027-01-01,yes,x\n",
        'day,working,name\n2027-01-01,no,"a\nb"\n',
        'day,working,name\n2027-01-01,no,"x\n',
        "day,working,name\n" + "".join(f"2027-01-01,no,{n}\n" for n in range(401)),
        "x" * 70_000,
    ],
)
def test_a_file_that_is_no_calendar_is_refused(content: str | bytes) -> None:
    with pytest.raises(CalendarFileMalformed):
        read_file(content)


@settings(max_examples=60)
@given(st.one_of(st.text(max_size=200), st.binary(max_size=200)))
def test_no_file_is_a_bug(content: str | bytes) -> None:
    for text in (content, "day,working,name\n" + content if isinstance(content, str) else content):
        try:
            read_file(text)
        except CalendarFileMalformed:
            continue


async def decide(db: Db, asked: Approval) -> Approval:
    """Have another person agree, and do it."""
    desk = Approvals(db, acts_of(*changes.bound(db)))
    async with db.begin("opr_checker") as tx:
        digest = asked.digest.hex()
        await approve(tx, desk.acts, asked.id, digest=digest, may={"settlement_act"})
    await run_apply(desk, ApplyApproval(asked.id), None)
    return await approval_with_id(db, asked.id)


async def test_a_file_is_previewed_proposed_and_applied_and_the_past_stays_known(db: Db) -> None:
    seen = await preview(db, GOOD.encode(), f" {SOURCE} ")
    assert [(each.day, each.is_working, each.was) for each in seen.days] == [
        (D(2027, 1, 1), False, None),
        (D(2027, 1, 3), True, None),
    ]
    async with db.begin("opr_maker") as tx:
        asked = await propose_calendar(tx, GOOD, SOURCE, reason="next year")
    shown = await changes_of(Approvals(db, acts_of(*changes.bound(db))), asked)
    assert [each.after for each in shown] == [SOURCE, "holiday", "working day"]
    assert await is_working_day(db, D(2027, 1, 1))

    before = db.clock.now()
    assert (await decide(db, asked)).state is ApprovalState.APPLIED
    assert not await is_working_day(db, D(2027, 1, 1))
    assert await is_working_day(db, D(2027, 1, 3))
    assert (await load_calendar(db, known_at=before)).is_working_day(D(2027, 1, 1))
    with pytest.raises(CalendarUnchanged):
        await preview(db, GOOD, SOURCE)
    with pytest.raises(SourceMissing):
        await preview(db, GOOD, " x ")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await db.execute("delete from calendar_day", ())


async def test_a_day_that_changed_meanwhile_fails_the_approval(db: Db) -> None:
    async with db.begin("opr_maker") as tx:
        asked = await propose_calendar(tx, GOOD, SOURCE, reason="next year")
    await db.execute(
        "insert into calendar_day values ('2027-01-03', $1, false, 'x', 'another', null)",
        (db.clock.now(),),
    )
    failed = await decide(db, asked)
    assert (failed.state, failed.code) == (ApprovalState.FAILED, "calendar.moved")
    assert await is_working_day(db, D(2027, 1, 1))


async def test_a_cut_off_changes_from_a_day_on(db: Db) -> None:
    terms = CutOffTerms("settlement", D(2026, 12, 1), 1380, 1440, "settlement agreement")
    for wrong in (("nobody", 1380), ("settlement", 0), ("settlement", 1441)):
        bad = CutOffTerms(wrong[0], D(2026, 12, 1), wrong[1], 1440, "agreement")
        with pytest.raises(CutOffMalformed):
            await proposed_cut_off(db, bad)
    asked = await proposed_cut_off(db, terms)
    assert (await decide(db, asked)).state is ApprovalState.APPLIED
    assert await cut_off(db, "settlement", D(2026, 11, 30)) == 1440
    assert await cut_off(db, "settlement", D(2026, 12, 1)) == 1380
    again = await decide(db, await proposed_cut_off(db, terms))
    assert (again.state, again.code) == (ApprovalState.FAILED, "calendar.moved")
    shown = await changes_of(Approvals(db, acts_of(*changes.bound(db))), asked)
    assert (shown[-1].before, shown[-1].after) == ("24:00", "23:00")


async def proposed_cut_off(db: Db, terms: CutOffTerms) -> Approval:
    async with db.begin("opr_maker") as tx:
        return await propose_cut_off(tx, terms, reason="banks close earlier")

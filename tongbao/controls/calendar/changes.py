"""Change the calendar: a file is previewed, proposed by one, and applied with another's word."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Final

from msgspec import Struct

from tongbao.controls.approvals.approvals import in_transaction, propose
from tongbao.controls.approvals.model import Act, Approval, Bound, Change
from tongbao.controls.calendar import _store as store
from tongbao.controls.calendar.model import (
    CHANGE_CALENDAR,
    CalendarMoved,
    CalendarTerms,
    as_change,
    news,
    read_file,
    source_of,
)
from tongbao.controls.calendar.queries import cut_off, load_calendar
from tongbao.infra import audit
from tongbao.infra.db import Db, Tx
from tongbao.kernel.errors import Fact, Invalid

PURPOSES: Final = ("settlement", "payout")


class CutOffMalformed(Invalid):
    """A cut-off is a minute of the day, for settlement or payout."""

    code = "calendar.cut_off_malformed"
    advice = "Give the purpose, settlement or payout, and a time from 00:01 to 24:00."
    advice_zh = "请填写用途（settlement 或 payout）以及 00:01 至 24:00 之间的时刻。"


class CutOffTerms(Struct, frozen=True):
    """From which day on a business day ends when; ``minute`` counts from midnight."""

    purpose: str
    valid_from: date
    minute: int
    was: int
    source: str


SET_CUT_OFF: Final = Act(
    "calendar.set_cut_off",
    "Change a cut-off time",
    "变更截止时间",
    CutOffTerms,
    maker="settlement_act",
    checker="settlement_act",
)


async def preview(on: Db | Tx, content: str | bytes, source: str) -> CalendarTerms:
    """Return what a file would change.

    Raises:
        CalendarFileMalformed, CalendarUnchanged, SourceMissing
    """
    return CalendarTerms(source_of(source), news(await load_calendar(on), read_file(content)))


async def propose_calendar(
    tx: Tx, content: str | bytes, source: str, *, reason: str, may: Sequence[str] | None = None
) -> Approval:
    """Propose what a file says about working days.

    Raises:
        CalendarFileMalformed, CalendarUnchanged, SourceMissing, MakerNotAllowed, ReasonTooShort,
        ApprovalWaiting
    """
    terms = await preview(tx, content, source)
    return await propose(tx, CHANGE_CALENDAR, "calendar", terms, reason=reason, may=may)


async def propose_cut_off(
    tx: Tx, terms: CutOffTerms, *, reason: str, may: Sequence[str] | None = None
) -> Approval:
    """Propose another cut-off time from a day on.

    Raises:
        CutOffMalformed, SourceMissing, MakerNotAllowed, ReasonTooShort, ApprovalWaiting
    """
    if terms.purpose not in PURPOSES or not 0 < terms.minute <= 1440:
        raise CutOffMalformed
    source_of(terms.source)
    return await propose(tx, SET_CUT_OFF, terms.purpose, terms, reason=reason, may=may)


def bound(db: Db) -> tuple[Bound, ...]:
    """Return the calendar's acts, for the registry."""
    return (
        Bound(CHANGE_CALENDAR, in_transaction(db, _change), _show, link=lambda _: "/calendar"),
        Bound(SET_CUT_OFF, in_transaction(db, _set_cut_off), _show_cut_off,
              link=lambda _: "/calendar"),
    )  # fmt: skip


async def _change(tx: Tx, approval: Approval, terms: CalendarTerms) -> None:
    """Add the rows.

    Raises:
        CalendarMoved: a day is not any more what the approval says it was.
    """
    calendar = await load_calendar(tx)
    for each in terms.days:
        said = calendar.said(each.day)
        if (None if said is None else said.is_working) != each.was:
            raise CalendarMoved(day=each.day.isoformat())
        row = (each.day, tx.now, each.is_working, each.name, terms.source, approval.id)
        await store.ADD_DAY.run(tx, *row)
    facts: dict[str, Fact] = {"source": terms.source, "days": len(terms.days)}
    await audit.record(tx, "calendar.changed", approval.shown_id, facts)


async def _set_cut_off(tx: Tx, approval: Approval, terms: CutOffTerms) -> None:
    """Add the row.

    Raises:
        CalendarMoved: the cut-off is not any more what the approval says it was.
    """
    if await cut_off(tx, terms.purpose, terms.valid_from) != terms.was:
        raise CalendarMoved(purpose=terms.purpose)
    row = (terms.purpose, terms.valid_from, tx.now, terms.minute, terms.source, approval.id)
    await store.ADD_CUT_OFF.run(tx, *row)
    facts: dict[str, Fact] = {"purpose": terms.purpose, "minute": terms.minute}
    await audit.record(tx, "calendar.cut_off_set", approval.shown_id, facts)


async def _show(_db: Db, _approval: Approval, terms: CalendarTerms) -> Sequence[Change]:
    source = Change("Instrument", "依据", None, terms.source)
    return [source, *(as_change(each) for each in terms.days)]


async def _show_cut_off(_db: Db, _approval: Approval, terms: CutOffTerms) -> Sequence[Change]:
    return [
        Change("Instrument", "依据", None, terms.source),
        Change("From", "生效日", None, terms.valid_from.isoformat()),
        Change(f"Cut-off, {terms.purpose}", f"{terms.purpose} 截止时间",
               _clock(terms.was), _clock(terms.minute)),
    ]  # fmt: skip


def _clock(minute: int) -> str:
    return f"{minute // 60:02d}:{minute % 60:02d}"

"""Match the statements of a day, and keep what differs with the other differences.

A run takes the day and the days before it that may still wait, every side whole, and writes what
each day's rows came to. What finds no match there may have found it further back, where an earlier
run matched it: it is looked for among what those days left over, and they are not judged again.
Repeating a run, or running it after a corrected file, changes only what has changed: a difference
is its key, so it is kept, goes, or comes again, and never stands twice.
"""

from __future__ import annotations

import asyncio
from datetime import date, timedelta
from typing import Final
from uuid import UUID

from msgspec import Struct

from tongbao.clearing.matching.model import (
    ROWS_MAX,
    Difference,
    Entry,
    Matched,
    Rule,
    Side,
    TooManyRows,
    differences,
    match,
)
from tongbao.clearing.matching.sides import SOURCE, Asked, entries_of, is_given
from tongbao.clearing.reconciliation.breaks import RULE_PREFIX, Comparison, Found, record_comparison
from tongbao.clearing.reconciliation.model import BillFile
from tongbao.clearing.sources.ingest import current_file, source_named
from tongbao.clearing.sources.model import SourceFile
from tongbao.infra.db import Db, Tx
from tongbao.infra.failpoints import failpoint
from tongbao.kernel.clock import business_date
from tongbao.kernel.errors import Conflict
from tongbao.kernel.ids import derived_id
from tongbao.kernel.licence import Mode

_RULES: Final = UUID(int=0x7275_6C65 << 96)
"""What rules' ids are derived from: a rule of one name is the same rule everywhere."""


class SideIncomplete(Conflict):
    """A side has no complete file of the day, its channels are not compared, or it is not over."""

    code = "matching.side_incomplete"
    advice = "Take the file in, or reconcile the day's bills, and match again."
    advice_zh = "请先导入该日文件或完成渠道对账，再执行勾对。"


class DayResult(Struct, frozen=True):
    """What one day came to, as it stands now."""

    bill: BillFile
    differences: list[Difference]


class _Loaded(Struct, frozen=True):
    entries: list[Entry]
    files: dict[tuple[Side, date], SourceFile | None]
    there: dict[Side, set[date]]


def rule_id(rule: Rule) -> UUID:
    """Return the id that stands for a rule where a channel's account would."""
    return derived_id(_RULES, rule.name)


async def run_rule(db: Db, rule: Rule, day: date, *, actor: str) -> list[DayResult]:
    """Match a day by a rule, and again the days before whose rows may have waited for it.

    Raises:
        SideIncomplete, SourceUnknown, TooManyRows
    """
    days = [day - timedelta(days=back) for back in range(rule.waits_days, -1, -1)]
    async with db.begin(actor) as tx:
        mode = await _mode(tx, rule)
        loaded = await _load(tx, rule, days, mode)
    for side, name in rule.sides:
        if day not in loaded.there[side]:
            raise SideIncomplete(side=name, day=day.isoformat())
    # In a thread: a million rows must not keep the worker from its leases.
    matched = await asyncio.to_thread(match, rule, loaded.entries)
    matched = await _with_earlier(db, rule, days[0], matched, actor=actor)
    found = await asyncio.to_thread(differences, rule, matched.left_over)
    failpoint("matching.before_record")
    results = []
    async with db.begin(actor) as tx:
        for each in days:
            if _was_given(rule, loaded, each):
                comparison = _comparison(
                    rule, mode=mode, day=each, last=day, loaded=loaded, matched=matched, found=found
                )
                bill = await record_comparison(tx, comparison)
                results.append(DayResult(bill, [one for one in found if one.day == each]))
    return results


async def _with_earlier(
    db: Db, rule: Rule, first: date, matched: Matched, *, actor: str
) -> Matched:
    """Match what is left over of the first day with what the days before it left over.

    A row that was cut off agrees with one of the day before it. An earlier run found that, and in
    this one, which no longer takes that day, it would stand alone. One day more is taken than such
    a row may lie back, so that a match of that one's own is not taken for this one's.
    """
    left_over = [entry for entry in matched.left_over if entry.day == first]
    if not rule.waits_days or not left_over:
        return matched
    reach = first - timedelta(days=rule.waits_days)
    earlier = [first - timedelta(days=back) for back in range(rule.waits_days + 1, 0, -1)]
    async with db.begin(actor) as tx:
        before = await _load(tx, rule, earlier, await _mode(tx, rule))
    alone = (await asyncio.to_thread(match, rule, before.entries)).left_over
    open_then = [entry for entry in alone if entry.day >= reach]
    found = await asyncio.to_thread(match, rule, [*open_then, *left_over])
    pairs = [pair for pair in found.pairs if any(row.day == first for row in pair.rows)]
    explained = {_place_of(row) for pair in pairs for row in pair.rows}
    still_open = [row for row in matched.left_over if _place_of(row) not in explained]
    return Matched([*matched.pairs, *pairs], still_open)


def _place_of(entry: Entry) -> tuple[Side, date, int]:
    return entry.side, entry.day, entry.place


def _was_given(rule: Rule, loaded: _Loaded, day: date) -> bool:
    """Whether anybody's papers of a day are there; our own books alone are no statement."""
    given = [side for side, name in rule.sides if is_given(name)]
    return any(day in loaded.there[side] for side in given or loaded.there)


async def _mode(tx: Tx, rule: Rule) -> Mode:
    for _, name in rule.sides:
        if name.startswith(SOURCE):
            return (await source_named(tx, name.removeprefix(SOURCE))).mode
    return Mode(rule.mode)


async def _load(tx: Tx, rule: Rule, days: list[date], mode: Mode) -> _Loaded:
    loaded = _Loaded([], {}, {side: set() for side, _ in rule.sides})
    today = business_date(tx.now)
    for side, name in rule.sides:
        for day in days:
            count = 0
            async for entry in entries_of(tx, Asked(rule, side, name, day, mode)):
                loaded.entries.append(entry)
                count += 1
                if len(loaded.entries) > ROWS_MAX:
                    raise TooManyRows(rows=len(loaded.entries))
            file = None
            if name.startswith(SOURCE):
                file = await current_file(tx, name.removeprefix(SOURCE), day)
            loaded.files[side, day] = file
            is_there = day < today if not is_given(name) else bool(file or count)
            if is_there:
                loaded.there[side].add(day)
    return loaded


def _comparison(
    rule: Rule,
    *,
    mode: Mode,
    day: date,
    last: date,
    loaded: _Loaded,
    matched: Matched,
    found: list[Difference],
) -> Comparison:
    waits = day + timedelta(days=rule.waits_days) > last
    own = [one for one in found if one.day == day]
    # What stands on one side alone may find its match in tomorrow's file, and so may what is not
    # booked; figures that differ are not waited for.
    waiting = [
        one for one in own
        if waits and (one.found.startswith("missing")
                      or (one.found == "ledger_differs" and one.third is None))
    ]  # fmt: skip
    rows = [entry for entry in loaded.entries if entry.day == day and entry.side == "right"]
    left = {_place_of(entry) for entry in matched.left_over}
    file = loaded.files.get(("right", day)) or loaded.files.get(("left", day))
    return Comparison(
        account_id=rule_id(rule),
        channel=f"{RULE_PREFIX}{rule.name}",
        mode=mode,
        day=day,
        currency=rule.currency,
        sha256=file.sha256 if file else None,
        row_count=len(rows),
        matched_count=sum(_place_of(one) not in left for one in rows),
        money_in=sum(one.amount for one in rows if one.amount > 0),
        money_out=-sum(one.amount for one in rows if one.amount < 0),
        waiting_count=len(waiting),
        found=[
            Found(one.key[:128], one.found, one.right, one.left, one.line, one.third)
            for one in own
            if one not in waiting
        ],
    )

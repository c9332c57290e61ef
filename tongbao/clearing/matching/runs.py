"""Match two statements of a day, and keep what differs with the other differences.

A run takes the day and the days before it that may still wait, both sides whole, and writes what
each day's rows came to. Repeating it, or running it after a corrected file, changes only what has
changed: a difference is its key, so it is kept, goes, or comes again, and never stands twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import date, datetime, time, timedelta
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
from tongbao.clearing.reconciliation.breaks import RULE_PREFIX, Comparison, Found, record_comparison
from tongbao.clearing.reconciliation.model import BillFile
from tongbao.clearing.reconciliation.queries import bills_of_day
from tongbao.clearing.sources.ingest import current_file, rows_of_file, source_named
from tongbao.clearing.sources.model import SourceFile
from tongbao.infra.db import Db, Tx
from tongbao.infra.failpoints import failpoint
from tongbao.kernel.clock import BUSINESS_ZONE
from tongbao.kernel.errors import Conflict
from tongbao.kernel.ids import base32, derived_id
from tongbao.kernel.licence import Mode

_RULES: Final = UUID(int=0x7275_6C65 << 96)
"""What rules' ids are derived from: a rule of one name is the same rule everywhere."""


class SideIncomplete(Conflict):
    """A side has no complete file of the day, or a channel's day is not compared yet."""

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
    for side in ("left", "right"):
        if day not in loaded.there[side]:
            raise SideIncomplete(side=getattr(rule, side), day=day.isoformat())
    # In a thread: a million rows must not keep the worker from its leases.
    matched = await asyncio.to_thread(match, rule, loaded.entries)
    found = await asyncio.to_thread(differences, rule, matched.left_over)
    failpoint("matching.before_record")
    results = []
    async with db.begin(actor) as tx:
        for each in days:
            if any(each in loaded.there[side] for side in loaded.there):
                comparison = _comparison(
                    rule, mode=mode, day=each, last=day, loaded=loaded, matched=matched, found=found
                )
                bill = await record_comparison(tx, comparison)
                results.append(DayResult(bill, [one for one in found if one.day == each]))
    return results


async def _mode(tx: Tx, rule: Rule) -> Mode:
    for side in (rule.left, rule.right):
        if side.startswith("source:"):
            return (await source_named(tx, side.removeprefix("source:"))).mode
    return Mode.LIVE


async def _load(tx: Tx, rule: Rule, days: list[date], mode: Mode) -> _Loaded:
    loaded = _Loaded([], {}, {"left": set(), "right": set()})
    sides: tuple[tuple[Side, str], ...] = (("left", rule.left), ("right", rule.right))
    for side, name in sides:
        for day in days:
            count = 0
            async for entry in _rows(tx, rule, (side, name), day, mode):
                loaded.entries.append(entry)
                count += 1
                if len(loaded.entries) > ROWS_MAX:
                    raise TooManyRows(rows=len(loaded.entries))
            file = None
            if name.startswith("source:"):
                file = await current_file(tx, name.removeprefix("source:"), day)
            loaded.files[side, day] = file
            if file is not None or (name == "channels" and count):
                loaded.there[side].add(day)
    return loaded


async def _rows(
    tx: Tx, rule: Rule, where: tuple[Side, str], day: date, mode: Mode
) -> AsyncIterator[Entry]:
    side, name = where
    if name == "channels":
        async for entry in _channel_days(tx, rule, side, day, mode):
            yield entry
        return
    file = await current_file(tx, name.removeprefix("source:"), day)
    if file is None:
        return
    async for row in rows_of_file(tx, file.id):
        if row.currency == rule.currency:
            yield Entry(
                side, day, row.place, row.line, row.kind, row.number, row.ref, row.batch,
                row.amount - row.fee, row.at,
            )  # fmt: skip


async def _channel_days(
    tx: Tx, rule: Rule, side: Side, day: date, mode: Mode
) -> AsyncIterator[Entry]:
    """Yield what each channel account owes of a day that was compared with its whole bill."""
    at = datetime.combine(day, time(23, 59), BUSINESS_ZONE)
    for place, bill in enumerate(await bills_of_day(tx, day)):
        if bill.state.is_final and bill.mode is mode and bill.currency == rule.currency:
            net = bill.payment_amount - bill.refund_amount - bill.fee_amount
            if not bill.channel.startswith(RULE_PREFIX) and net:
                yield Entry(
                    side, day, place, 0, "settlement", base32(bill.account_id), "", bill.channel,
                    net, at,
                )  # fmt: skip


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
    # What stands on one side alone may find its match in tomorrow's file; figures that differ
    # are not waited for.
    waiting = [one for one in own if waits and one.found.startswith("missing")]
    rows = [entry for entry in loaded.entries if entry.day == day and entry.side == "right"]
    left = {(entry.side, entry.day, entry.place) for entry in matched.left_over}
    file = loaded.files.get(("right", day)) or loaded.files.get(("left", day))
    return Comparison(
        account_id=rule_id(rule),
        channel=f"{RULE_PREFIX}{rule.name}",
        mode=mode,
        day=day,
        currency=rule.currency,
        sha256=file.sha256 if file else None,
        row_count=len(rows),
        matched_count=sum((one.side, one.day, one.place) not in left for one in rows),
        money_in=sum(one.amount for one in rows if one.amount > 0),
        money_out=-sum(one.amount for one in rows if one.amount < 0),
        waiting_count=len(waiting),
        found=[
            Found(one.key[:128], one.found, one.right, one.left, one.line)
            for one in own
            if one not in waiting
        ],
    )

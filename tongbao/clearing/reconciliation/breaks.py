"""Differences as they are written down: found, found again, gone, and closed by people."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import Final
from uuid import UUID

import msgspec
from msgspec import Struct

from tongbao.clearing.reconciliation import _store as store
from tongbao.clearing.reconciliation.model import (
    BillFile,
    BillState,
    BreakClass,
    ReconBreak,
)
from tongbao.infra.db import Tx, Write
from tongbao.kernel.ids import derived_id, new_id
from tongbao.kernel.licence import Mode

RULE_PREFIX: Final = "rule:"
"""Begins the channel of what a matching rule found, which is no channel's bill."""


class Found(Struct, frozen=True):
    """A difference between statements; ``theirs``, ``ours``, ``booked`` are sums in minor units."""

    number: str
    found: str
    theirs: int | None
    ours: int | None
    line: int | None
    booked: int | None = None


class Comparison(Struct, frozen=True):
    """What matching two statements of a day came to."""

    account_id: UUID
    channel: str
    mode: Mode
    day: date
    currency: str
    sha256: str | None
    row_count: int
    matched_count: int
    money_in: int
    money_out: int
    waiting_count: int
    found: Sequence[Found]


async def record_comparison(tx: Tx, made: Comparison) -> BillFile:
    """Keep a comparison as the day's, and its differences with all others.

    Doing it again with the same doubles nothing. A difference that is not found any more is gone,
    and one that people closed stays closed while it is the same.
    """
    bill = await _bill_of(tx, made)
    run_id = new_id()
    await store.START_RUN.run(tx, bill.id, run_id)
    for each in made.found:
        await store.ADD_FOUND.run(
            tx,
            derived_id(made.account_id, f"{made.day}/{each.number}/{each.found}"),
            made.account_id,
            made.channel,
            made.mode,
            made.day,
            each.number,
            BreakClass(each.found),
            made.currency,
            each.theirs,
            each.ours,
            _in_question(each),
            each.line,
            bill.id,
            run_id,
            tx.now,
            "line",
            each.booked,
        )
    await store.FORGET_GONE.run(tx, made.account_id, made.day, run_id, tx.now, True)
    await store.NOTE_COMPARISON.run(
        tx,
        bill.id,
        made.row_count,
        made.money_in,
        made.money_out,
        made.matched_count,
        len(made.found),
        made.waiting_count,
        tx.now,
    )
    return await store.GET_BILL.one(tx, bill.id)


def _in_question(found: Found) -> int:
    """Return the money in question: the bill's side less ours, or ours less what is booked."""
    if found.found == BreakClass.LEDGER_DIFFERS:
        return (found.ours or 0) - (found.booked or 0)
    return (found.theirs or 0) - (found.ours or 0)


async def _bill_of(tx: Tx, made: Comparison) -> BillFile:
    """Return the row that stands for the day, another version when the file is another."""
    fresh = BillFile(
        id=new_id(),
        account_id=made.account_id,
        channel=made.channel,
        mode=made.mode,
        day=made.day,
        version=1,
        state=BillState.REQUESTED,
        currency=made.currency,
        requested_at=tx.now,
        sha256=made.sha256,
    )
    await store.INSERT_BILL.run(tx, *msgspec.structs.astuple(fresh))
    current = await store.CURRENT_BILL.one(tx, made.account_id, made.day)
    current = await store.LOCK_BILL.one(tx, current.id)
    if current.sha256 == made.sha256:
        return current
    await store.SUPERSEDE.run(tx, current.id, tx.now)
    newer = msgspec.structs.replace(fresh, version=current.version + 1)
    await store.INSERT_BILL.run(tx, *msgspec.structs.astuple(newer))
    return await store.CURRENT_BILL.one(tx, made.account_id, made.day)


async def raise_totals_break(
    tx: Tx,
    *,
    account_id: UUID,
    channel: str,
    mode: Mode,
    day: date,
    currency: str,
    told: int | None,
    ours: int,
    found_in: UUID,
) -> None:
    """Open a difference between a channel's total and ours; found again, it is the same one.

    Without the channel's figures (``told`` None) the money in question is not known, and shown as
    nothing. ``found_in`` is the bill or the batch.
    """
    difference = 0 if told is None else told - ours
    await store.ADD_FOUND.run(
        tx,
        derived_id(account_id, f"{day}/totals_differ"),
        account_id,
        channel,
        mode,
        day,
        "",
        BreakClass.TOTALS_DIFFER,
        currency,
        told,
        ours,
        difference,
        None,
        found_in,
        found_in,
        tx.now,
        "bill",
        None,
    )


def closing_write(
    found: ReconBreak, *, reason: str, maker: str, checker: str, now: datetime, refusal: str
) -> Write:
    """Return the write that closes a difference, with a posting or without.

    It takes effect once, and only while the difference is what it was. Where money is in question
    the table refuses one person as both.
    """
    args = (found.id, found.difference, reason, maker, checker, now)
    return Write(store.CLOSE, args, refusal=refusal)

"""Close differences: somebody says how, and where money is in question somebody else agrees."""

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
    BreakNotFound,
    BreakNotOpen,
    BreakState,
    ReconBreak,
    SameEyes,
)
from tongbao.infra import audit
from tongbao.infra.db import Tx, Write
from tongbao.kernel.ids import derived_id, new_id, show
from tongbao.kernel.licence import Mode

RULE_PREFIX: Final = "rule:"
"""Begins the channel of what a matching rule found, which is no channel's bill."""


class Found(Struct, frozen=True):
    """A difference between two statements; ``theirs`` and ``ours`` are sums in minor units."""

    number: str
    found: str
    theirs: int | None
    ours: int | None
    line: int | None


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
            (each.theirs or 0) - (each.ours or 0),
            each.line,
            bill.id,
            run_id,
            tx.now,
            "line",
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
    )


def posted_write(
    found: ReconBreak, *, reason: str, maker: str, checker: str, now: datetime, refusal: str
) -> Write:
    """Return the write that closes a difference with the posting it belongs to.

    It takes effect once, and only while the difference is what it was.
    """
    args = (found.id, found.difference, reason, maker, checker, now)
    return Write(store.CLOSE_POSTED, args, refusal=refusal)


async def propose_close(tx: Tx, break_id: UUID, reason: str) -> ReconBreak:
    """Say how a difference is to be closed; one without money is closed by that.

    Raises:
        BreakNotFound, BreakNotOpen
    """
    found = await _locked(tx, break_id, BreakState.OPEN)
    await store.PROPOSE.run(tx, break_id, reason, tx.actor, tx.now)
    await _note(tx, found, "proposed", reason)
    if found.difference == 0:
        await store.CLOSE.run(tx, break_id, tx.actor, tx.now)
        await _note(tx, found, "closed", reason)
    return await store.GET_BREAK.one(tx, break_id)


async def approve_close(tx: Tx, break_id: UUID) -> ReconBreak:
    """Agree to somebody else's proposal, which closes the difference.

    Raises:
        BreakNotFound, BreakNotOpen, SameEyes
    """
    found = await _locked(tx, break_id, BreakState.PROPOSED)
    if found.proposed_by == tx.actor:
        raise SameEyes
    await store.CLOSE.run(tx, break_id, tx.actor, tx.now)
    await _note(tx, found, "closed", found.proposal or "")
    return await store.GET_BREAK.one(tx, break_id)


async def reject_close(tx: Tx, break_id: UUID, reason: str) -> ReconBreak:
    """Turn a proposal down, or take one's own back: the difference is open again.

    Raises:
        BreakNotFound, BreakNotOpen
    """
    found = await _locked(tx, break_id, BreakState.PROPOSED)
    await store.REJECT.run(tx, break_id)
    await _note(tx, found, "rejected", reason)
    return await store.GET_BREAK.one(tx, break_id)


async def _locked(tx: Tx, break_id: UUID, state: BreakState) -> ReconBreak:
    found = await store.LOCK_BREAK.first(tx, break_id)
    if found is None:
        raise BreakNotFound
    if found.state is not state:
        raise BreakNotOpen(state=found.state)
    return found


async def _note(tx: Tx, found: ReconBreak, what: str, reason: str) -> None:
    facts = {
        "class": found.break_class.value,
        "number": found.number,
        "difference": found.difference,
        "reason": reason,
    }
    await audit.record(tx, f"reconciliation.break_{what}", show("brk", found.id), facts)

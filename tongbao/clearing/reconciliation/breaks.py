"""Close differences: somebody says how, and where money is in question somebody else agrees."""

from __future__ import annotations

from datetime import date
from uuid import UUID

from tongbao.clearing.reconciliation import _store as store
from tongbao.clearing.reconciliation.model import (
    BreakNotFound,
    BreakNotOpen,
    BreakState,
    ReconBreak,
    SameEyes,
)
from tongbao.infra import audit
from tongbao.infra.db import Tx
from tongbao.kernel.ids import derived_id, show
from tongbao.kernel.licence import Mode


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
    await store.ADD_TOTALS_BREAK.run(
        tx,
        derived_id(account_id, f"{day}/totals_differ"),
        account_id,
        channel,
        mode,
        day,
        currency,
        told,
        ours,
        difference,
        found_in,
        found_in,
        tx.now,
    )


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

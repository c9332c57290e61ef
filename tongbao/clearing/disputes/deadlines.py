"""What happens when a dispute's time runs out: reminders before, and what the scheme says after."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from tongbao.clearing.disputes import _store as store
from tongbao.clearing.disputes.chargebacks import WatchDispute, move_dispute, remind
from tongbao.clearing.disputes.model import (
    MOVE_AT_END,
    REMIND_DAYS,
    AtEnd,
    Dispute,
    DisputeMoved,
    Term,
    TermTaken,
    next_reminder,
)
from tongbao.infra import audit
from tongbao.infra.db import Tx
from tongbao.infra.tasks import Again, Lease, RetryPolicy
from tongbao.kernel.clock import business_date
from tongbao.kernel.errors import Fact
from tongbao.payments.collecting import queries as payments
from tongbao.payments.collecting.model import CaseKind
from tongbao.payments.collecting.outcomes import Flow, open_case

WATCH_POLICY: Final = RetryPolicy(
    attempts_max=1_000_000,  # a deadline is met however often something fails before it
    delays=tuple(timedelta(minutes=m) for m in (1, 5, 10, 60)),
)


async def add_term(tx: Tx, term: Term) -> None:
    """Write down how long a stage may take from a day on; stages that have begun keep theirs.

    Raises:
        TermTaken
    """
    if term.in_force < business_date(tx.now):
        raise TermTaken
    row = (term.scheme, term.stage, term.in_force, term.days, term.at_end, term.source)
    if await store.PUT_TERM.run(tx, *row, term.quality) == 0:
        raise TermTaken
    facts: dict[str, Fact] = {"stage": term.stage.value, "days": term.days, "source": term.source}
    facts |= {"from": term.in_force.isoformat(), "quality": term.quality.value}
    await audit.record(tx, "dispute.term_added", term.scheme, facts)


async def run_watch_dispute(flow: Flow, task: WatchDispute, _lease: Lease) -> Again | None:
    """Remind, or end the stage as its term says; come again while there is a deadline."""
    dispute = await store.GET_DISPUTE.one(flow.db, task.book, task.dispute_id)
    due = next_reminder(dispute) if dispute.state.is_open else None
    if due is None or dispute.deadline_at is None:
        return None
    now = flow.db.clock.now()
    if now < due:
        return Again(due - now)
    if now < dispute.deadline_at:
        passed = sum(dispute.deadline_at - timedelta(days=days) <= now for days in REMIND_DAYS)
        await remind(flow, dispute, passed)
        flow.nudge()
        return Again(timedelta(0))  # and look at the row as it is now, whoever changed it
    return await _end(flow, dispute)


async def _end(flow: Flow, dispute: Dispute) -> Again | None:
    """Take the step that the term names; where an answer waits with us, only people may decide."""
    move = MOVE_AT_END.get(dispute.at_end or AtEnd.PEOPLE)
    if move is None or dispute.submitted_at is not None:
        payment = await payments.payment(flow.db, dispute.book, dispute.payment_id)
        detail = f"dispute {dispute.scheme_ref}: {dispute.state} ran out of time, decide it"
        await open_case(flow, payment, CaseKind.UNDECIDED, detail)
        return None
    try:
        await move_dispute(flow, dispute, move, actor="time", why="deadline passed")
    except DisputeMoved:
        return Again(timedelta(0))  # somebody acted at the last moment: look again
    return None

"""Erase one payment's raw evidence when somebody asks, unless something still hangs on it."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from tongbao.clearing.complaints.model import ComplaintState
from tongbao.clearing.complaints.queries import ComplaintFilter, list_complaints
from tongbao.clearing.disputes.queries import disputes_of_payment
from tongbao.controls.retention.model import EvidenceNeeded
from tongbao.infra import audit
from tongbao.infra.db import Db, Tx
from tongbao.kernel.clock import real_now
from tongbao.kernel.errors import Fact
from tongbao.kernel.ids import show
from tongbao.payments.callbacks.queries import erase_about
from tongbao.payments.collecting.queries import Timeline, erase_exchanges_of, timeline
from tongbao.payments.refunds.model import Refund
from tongbao.payments.refunds.queries import refunds_of_payment

_COMPLAINTS_MAX: Final = 100


async def erase_now(db: Db, payment_id: UUID, *, because: str, by: str) -> dict[str, Fact]:
    """Put digests in the place of what channels were asked and told about a payment.

    Returns how many callbacks and exchanges that were.

    Raises:
        PaymentNotFound
        EvidenceNeeded: money is on its way, or somebody disputes it or complains.
    """
    story = await timeline(db, payment_id)
    paid, at = story.payment, real_now().isoformat(timespec="seconds")
    refunds = await refunds_of_payment(db, paid.book, paid.id)
    numbers = [each.number for each in story.attempts] + [each.number for each in refunds]
    async with db.begin(by) as tx:
        await _check_over(tx, story, refunds)
        told = await erase_about(tx, numbers, at)
        asked = await erase_exchanges_of(tx, paid, at)
        facts: dict[str, Fact] = {"because": because, "callbacks": told, "exchanges": asked}
        await audit.record(tx, "retention.payment_erased", show("pay", paid.id), facts)
    return {"callbacks": told, "exchanges": asked}


async def _check_over(tx: Tx, story: Timeline, refunds: list[Refund]) -> None:
    """Raise unless everything about a payment has ended.

    Raises:
        EvidenceNeeded
    """
    paid = story.payment
    if paid.state.is_open or paid.state.is_held:
        raise EvidenceNeeded(needed_for="payment")
    if any(each.state.is_open for each in refunds):
        raise EvidenceNeeded(needed_for="refund")
    if any(each.closed_at is None for each in story.cases):
        raise EvidenceNeeded(needed_for="case")
    if any(each.state.is_open for each in await disputes_of_payment(tx, paid.id)):
        raise EvidenceNeeded(needed_for="dispute")
    wanted = ComplaintFilter(payment_id=paid.id)
    complaints = await list_complaints(tx, wanted, limit=_COMPLAINTS_MAX)
    if any(each.state is not ComplaintState.PROCESSED for each in complaints.items):
        raise EvidenceNeeded(needed_for="complaint")

"""Erase one payment's raw evidence when somebody asks and two agree, unless it is needed."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from msgspec import Struct

from tongbao.clearing.complaints.model import ComplaintState
from tongbao.clearing.complaints.queries import ComplaintFilter, list_complaints
from tongbao.clearing.disputes.queries import disputes_of_payment
from tongbao.controls.approvals.approvals import in_transaction, propose
from tongbao.controls.approvals.model import Act, Approval, Bound, Change
from tongbao.controls.retention.model import EvidenceNeeded
from tongbao.infra import audit
from tongbao.infra.db import Db, Tx
from tongbao.kernel.clock import real_now
from tongbao.kernel.errors import Fact
from tongbao.kernel.ids import parse
from tongbao.payments.callbacks.queries import erase_about
from tongbao.payments.collecting.queries import Timeline, erase_exchanges_of, timeline
from tongbao.payments.refunds.model import Refund
from tongbao.payments.refunds.queries import refunds_of_payment

_COMPLAINTS_MAX: Final = 100


class EraseTerms(Struct, frozen=True):
    """What two people agree to: which payment, and who asked for it, without names."""

    payment: str
    because: str


ERASE: Final = Act(
    "retention.erase_payment",
    "Erase what channels said about a payment",
    "清除一笔付款的渠道往来原文",
    EraseTerms,
    maker="deployment_act",
    checker="deployment_act",
)


async def propose_erasure(
    tx: Tx, terms: EraseTerms, *, reason: str, may: Collection[str] | None = None
) -> Approval:
    """Propose to put digests in the place of what channels were asked and told about a payment.

    Raises:
        PaymentNotFound, MakerNotAllowed, ReasonTooShort, ApprovalWaiting
        EvidenceNeeded: money is on its way, or somebody disputes it or complains.
    """
    story = await timeline(tx, parse("pay", terms.payment))
    await _check_over(tx, story, await _refunds(tx, story))
    return await propose(tx, ERASE, terms.payment, terms, reason=reason, may=may)


def bound_acts(db: Db) -> tuple[Bound, ...]:
    """Return the act with what does it."""
    return (Bound(ERASE, in_transaction(db, _erase), show=_show),)


async def _erase(tx: Tx, _approval: Approval, terms: EraseTerms) -> None:
    """Erase; what is not over any more, or again, ends the approval as failed."""
    story = await timeline(tx, parse("pay", terms.payment))
    paid, at = story.payment, real_now().isoformat(timespec="seconds")
    refunds = await _refunds(tx, story)
    numbers = [each.number for each in story.attempts] + [each.number for each in refunds]
    await _check_over(tx, story, refunds)
    told = await erase_about(tx, numbers, at)
    asked = await erase_exchanges_of(tx, paid, at)
    facts: dict[str, Fact] = {"because": terms.because, "callbacks": told, "exchanges": asked}
    await audit.record(tx, "retention.payment_erased", terms.payment, facts)


async def _show(_db: Db, _approval: Approval, terms: EraseTerms) -> list[Change]:
    return [
        Change("what channels said", "渠道往来原文", terms.payment, "SHA-256"),
        Change("because", "依据", None, terms.because),
    ]


async def _refunds(tx: Tx, story: Timeline) -> list[Refund]:
    return await refunds_of_payment(tx, story.payment.book, story.payment.id)


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

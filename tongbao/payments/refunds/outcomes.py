"""Ask a channel about a refund and write down what it says, exactly once.

A refund's number is its idempotency key at the channel, so sending it again is always safe; a
time-out is never a failure.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from msgspec import UNSET
from msgspec.structs import replace

from tongbao.infra import audit
from tongbao.infra.db import Tx, Write
from tongbao.infra.failpoints import failpoint
from tongbao.infra.outbox import Event, event_write
from tongbao.infra.tasks import Again, Lease, RetryPolicy, Task, cancel_write, enqueue
from tongbao.kernel.ids import new_id, show
from tongbao.kernel.money import Money
from tongbao.ledger.model import AccountKey, Transfer
from tongbao.ledger.rules import posting
from tongbao.payments.collecting import queries as payments
from tongbao.payments.collecting.decisions import heard_of
from tongbao.payments.collecting.model import Attempt, CaseKind, Payment
from tongbao.payments.collecting.outcomes import (
    MOVED_ON,
    TOTAL_BROKEN,
    Evidence,
    Flow,
    StateContended,
    case_write,
    commit_unless_moved_on,
    exchange_write,
    open_case,
    unrefunded_write,
)
from tongbao.payments.refunds import _store as store
from tongbao.payments.refunds.model import (
    Refund,
    RefundNews,
    RefundNotStoppable,
    RefundState,
    RefundStep,
    RefundStop,
    RefundView,
    next_refund_step,
)
from tongbao.rails.channels.capabilities.shares import RefundingShares
from tongbao.rails.channels.contract.orders import RefundOrder
from tongbao.rails.channels.contract.outcomes import Absent, Authorised, Declined

_TRIES_MAX: Final = 8
_DELAYS: Final = tuple(timedelta(seconds=s) for s in (2, 5, 10, 30, 60, 300, 600, 1800, 3600))
STOP_SETTLES: Final = timedelta(minutes=10)
"""How long after a stop nobody can still be sending the refund: twice a task's time limit."""
GIVEN_UP: Final = "given_up"
UNDECIDED_AFTER: Final = timedelta(days=1)
"""How long a refund may be on its way before people are told."""
REFUND_POLICY: Final = RetryPolicy(attempts_max=20, delays=_DELAYS)


class SubmitRefund(Task, frozen=True, tag="refunds.submit_refund"):
    """Send a refund to its channel, and keep asking until it has ended."""

    book: int
    refund_id: UUID


class RefundSucceeded(Event, frozen=True, kw_only=True, tag="refund.succeeded"):
    """The channel gave the money back."""

    object: RefundView


class RefundFailed(Event, frozen=True, kw_only=True, tag="refund.failed"):
    """The channel will not give the money back; the merchant's hold is released."""

    object: RefundView


async def submit_refund(flow: Flow, task: SubmitRefund, _lease: Lease) -> Again | None:
    """Take the next step of a refund; return when to look again, or None at its end."""
    refund = await store.GET_REFUND.one(flow.db, task.book, task.refund_id)
    if not refund.state.is_open:
        return None
    refund = await ask_channel(flow, refund)
    if not refund.state.is_open:
        return None
    if flow.db.clock.now() >= refund.created_at + UNDECIDED_AFTER:
        payment = await payments.payment(flow.db, refund.book, refund.payment_id)
        detail = f"refund {refund.number} has been on its way for more than a day"
        await open_case(flow, payment, CaseKind.REFUND_NEEDS_PEOPLE, detail)
    return Again(_DELAYS[min(refund.queries, len(_DELAYS) - 1)])


async def ask_channel(flow: Flow, refund: Refund) -> Refund:
    """Send the refund, or ask what became of it and send it again if the channel knows none.

    Raises:
        StateContended
    """
    payment = await payments.payment(flow.db, refund.book, refund.payment_id)
    attempt = await payments.paid_attempt(flow.db, payment)
    account = await flow.account(attempt.account_id)
    channel = flow.channels[attempt.channel]
    order = order_of(refund, attempt)
    stop = await _stop_of(flow, refund)
    if stop is not None or refund.state is not RefundState.REQUESTED:
        found = await channel.query_refund(account, order)
        failpoint("refunds.after_query")
        evidence = Evidence("query_refund", "query_refund", found.exchange, refund.id)
        flow.router.heard(heard_of(attempt, attempt, found.outcome, evidence.call))
        refund = await record_refund_news(flow, refund, found.outcome, evidence)
        if stop is not None:
            return await _give_up(flow, refund, found.outcome, stop)
        if not isinstance(found.outcome, Absent) or not refund.state.is_open:
            return refund
    ready = await flow.shares.before_refund(refund.book, refund.id)
    if not ready.may_go:
        return refund  # shares are on their way back; they come first
    if ready.backs and isinstance(channel, RefundingShares):
        answer = await channel.refund_with_shares(account, order, ready.backs)
    else:
        answer = await channel.refund(account, order)
    failpoint("refunds.after_channel_call")
    evidence = Evidence("channel answer", "refund", answer.exchange, refund.id)
    flow.router.heard(heard_of(attempt, attempt, answer.outcome, evidence.call))
    return await record_refund_news(flow, refund, answer.outcome, evidence)


def order_of(refund: Refund, attempt: Attempt) -> RefundOrder:
    """Return the refund in the channel's terms."""
    authorised, at = None, attempt.authorised_at
    if attempt.capture_id is not None and at is not None and refund.money == attempt.taken:
        authorised = Authorised(attempt.authorisation_ref or "", attempt.money, at)
    return RefundOrder(
        number=refund.number,
        order_number=attempt.taken_number,
        money=refund.money,
        order_money=attempt.taken,
        order_ref=attempt.channel_ref,
        order_mode=attempt.pay_mode,
        order_app=attempt.how.app_id if attempt.how is not None else None,
        card_terminal=attempt.how.card_terminal if attempt.how is not None else None,
        reason=refund.reason,
        authorised=authorised,
        captured_at=attempt.paid_at,
        of_capture=attempt.capture_id is not None,
    )


async def stop_refund(tx: Tx, book: int, refund_id: UUID) -> Refund:
    """Have nobody send a late refund any more; it ends when the channel says that it has none.

    Raises:
        RefundNotStoppable: it has ended, or is a merchant's.
    """
    refund = await store.LOCK_REFUND.first(tx, book, refund_id)
    if refund is None or refund.kind != "late" or not refund.state.is_open:
        raise RefundNotStoppable
    await store.ADD_STOP.run(tx, book, refund_id, tx.now, tx.actor)
    await audit.record(tx, "refund.stopped", show("ref", refund_id), {})
    key = f"refund/{refund_id}"
    await cancel_write(SubmitRefund, key).run(tx)
    await enqueue(tx, SubmitRefund(book, refund_id), run_at=tx.now + STOP_SETTLES, key=key)
    return refund


async def _stop_of(flow: Flow, refund: Refund) -> RefundStop | None:
    if refund.kind != "late":
        return None
    return await store.GET_STOP.first(flow.db, refund.book, refund.id)


async def _give_up(flow: Flow, refund: Refund, news: RefundNews, stop: RefundStop) -> Refund:
    """End a stopped refund that the channel does not have, once nobody can be sending it."""
    now = flow.db.clock.now()
    is_settled = now >= stop.asked_at + STOP_SETTLES
    if not (refund.state.is_open and is_settled and isinstance(news, Absent | Declined)):
        return refund
    after = replace(
        refund,
        state=RefundState.FAILED,
        code=GIVEN_UP,
        ended_at=now,
        version=refund.version + 1,
    )
    step = RefundStep(refund=after)
    writes = (
        # The payment's row is locked before the refund's, as it is when a refund is asked for.
        unrefunded_write(refund.book, refund.payment_id, refund.amount, refund.fee_back),
        *_row_writes(refund, after, step),
        event_write(end_event(after), now=now),
    )
    failpoint("refunds.before_given_up")
    refusal = await flow.commits.write(writes)
    # A total that cannot be lowered is a refund that somebody else has just given up.
    if refusal not in {None, MOVED_ON, TOTAL_BROKEN}:
        raise RuntimeError(f"a stopped refund was not ended: {refusal} for {refund.id}")
    return after if refusal is None else refund


async def record_refund_news(
    flow: Flow, refund: Refund, news: RefundNews, evidence: Evidence
) -> Refund:
    """Apply news about a refund exactly once and return the row as it is afterwards.

    Raises:
        StateContended: others kept winning; nothing was written, and asking again is safe.
    """
    exchange_id = new_id()
    for _ in range(_TRIES_MAX):
        refund = await store.GET_REFUND.one(flow.db, refund.book, refund.id)
        payment = await payments.payment(flow.db, refund.book, refund.payment_id)
        now = flow.db.clock.now()
        step = next_refund_step(refund, news, now) or RefundStep()
        after = replace(step.refund, version=refund.version + 1) if step.refund else refund
        writes = (
            *_payment_writes(refund, step),
            *_row_writes(refund, after, step),
            *_evidence_writes(refund, exchange_id, evidence, news, now),
            *(() if step.case is None else (case_write(payment, step.case, step.detail, now),)),
            *(() if step.ledger is None else (event_write(end_event(after), now=now),)),
        )
        failpoint("refunds.before_outcome")
        transfers = await _transfers(flow, payment, refund, step)
        if await commit_unless_moved_on(flow, payment, transfers, writes):
            failpoint("refunds.after_outcome")
            flow.nudge()
            return after
    raise StateContended


async def _transfers(
    flow: Flow, payment: Payment, refund: Refund, step: RefundStep
) -> tuple[Transfer, ...]:
    # Late money was never the merchant's: nothing was held, so only giving it back is posted.
    if step.ledger is None or not flow.licence.may_hold_funds:
        return ()
    attempt = await payments.paid_attempt(flow.db, payment)
    return refund_transfers(_END_RULES[refund.kind, step.ledger], payment, attempt, refund)


_END_RULES: Final = {
    ("merchant", "post"): "refund.succeeded",
    ("merchant", "void"): "refund.failed",
    ("late", "post"): "late.refunded",
}


def _payment_writes(refund: Refund, step: RefundStep) -> tuple[Write, ...]:
    # The payment's row is locked before the refund's, as it is when a refund is asked for.
    if step.ledger != "void":
        return ()
    return (unrefunded_write(refund.book, refund.payment_id, refund.amount, refund.fee_back),)


def _row_writes(before: Refund, after: Refund, step: RefundStep) -> tuple[Write, ...]:
    if step.refund is None:
        return ()
    args = (
        before.book,
        before.id,
        before.version,
        after.state,
        after.code,
        after.channel_ref,
        after.channel_at,
        after.ended_at,
    )
    return (Write(store.UPDATE_REFUND, args, refusal=MOVED_ON),)


def _evidence_writes(
    refund: Refund, exchange_id: UUID, evidence: Evidence, news: RefundNews, now: datetime
) -> tuple[Write, ...]:
    count = Write(store.COUNT_QUERY, (refund.book, refund.id))
    if evidence.exchange is None:
        return ()
    kept = exchange_write((refund.book, refund.payment_id), exchange_id, evidence, news, now)
    return (count, kept)


def end_event(refund: Refund) -> Event:
    """Return the event that tells of the refund's end."""
    kind = RefundSucceeded if refund.state is RefundState.SUCCEEDED else RefundFailed
    return kind(
        merchant_id=refund.merchant_id,
        mode=refund.mode,
        resource_id=show("ref", refund.id),
        object=view_refund(refund),
    )


def view_refund(refund: Refund) -> RefundView:
    """Return the refund as the API and the webhooks show it."""
    return RefundView(
        id=show("ref", refund.id),
        object="refund",
        mode=refund.mode,
        payment_id=show("pay", refund.payment_id),
        merchant_refund_no=refund.merchant_refund_no,
        amount=refund.amount,
        currency=refund.currency,
        fee_returned=refund.fee_back,
        kind=refund.kind,
        reason=refund.reason,
        status=refund.state,
        version=refund.version,
        created_at=refund.created_at,
        code=refund.code or UNSET,
        ended_at=refund.ended_at or UNSET,
        staff_id=UNSET if refund.staff_id is None else show("stf", refund.staff_id),
    )


def refund_transfers(
    rule: str, payment: Payment, attempt: Attempt, refund: Refund, to: AccountKey | None = None
) -> tuple[Transfer, ...]:
    """Return the transfers that hold, give back or release a refund by the rule.

    ``to`` is the account of ours that it goes back to; without one the channel gives it.
    """
    currency = payment.currency
    source = to or AccountKey("channel_receivable", currency, attempt.account_id)
    return posting.transfers(
        rule,
        reference=refund.id,
        accounts={
            source.kind: source,
            "merchant_payable": AccountKey("merchant_payable", currency, payment.merchant_id),
        },
        amounts={"gross": refund.money, "fee_back": Money(refund.fee_back, currency)},
    )

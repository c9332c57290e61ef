"""Ask a channel about a capture or a void and write down what it says, exactly once.

A number is the idempotency key at the channel, so sending it again is always safe; a time-out is
never a failure.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final, Literal
from uuid import UUID

from msgspec import Struct
from msgspec.structs import replace

from tongbao.infra.db import Write
from tongbao.infra.failpoints import failpoint
from tongbao.infra.outbox import Event, event_write
from tongbao.infra.tasks import Task
from tongbao.kernel.ids import new_id
from tongbao.ledger.model import Transfer
from tongbao.payments.authorisations import _store as store
from tongbao.payments.authorisations.model import (
    Completion,
    CompletionNews,
    CompletionStep,
    Rows,
    next_completion_step,
)
from tongbao.payments.collecting import queries as payments
from tongbao.payments.collecting.chase import authorising, pay_order
from tongbao.payments.collecting.decisions import capture_transfers, go_together, heard_of
from tongbao.payments.collecting.model import (
    Attempt,
    CaseKind,
    Payment,
    PaymentState,
    PaymentView,
    view_payment,
)
from tongbao.payments.collecting.outcomes import (
    MOVED_ON,
    Evidence,
    Flow,
    PaymentSucceeded,
    StateContended,
    attempt_write,
    case_write,
    commit_unless_moved_on,
    exchange_write,
    payment_writes,
)
from tongbao.rails.channels.capabilities.authorisations import Authorising, Capture, Voiding
from tongbao.rails.channels.contract.orders import ChannelAccount
from tongbao.rails.channels.contract.outcomes import (
    Absent,
    Answer,
    Authorised,
    Closed,
    Declined,
    NotSent,
    Succeeded,
    Unknown,
)

_TRIES_MAX: Final = 8


class ChaseCompletion(Task, frozen=True, tag="authorisations.chase_completion"):
    """Send a capture or a void to its channel, and keep asking until it has ended."""

    book: int
    completion_id: UUID


class PaymentCaptured(Event, frozen=True, kw_only=True, tag="payment.captured"):
    """What was set aside, or a part of it, came in; the rest is free again."""

    object: PaymentView


class PaymentCaptureFailed(Event, frozen=True, kw_only=True, tag="payment.capture_failed"):
    """The channel did not and will not take what was to be captured; it is still set aside."""

    object: PaymentView


class PaymentVoided(Event, frozen=True, kw_only=True, tag="payment.voided"):
    """What was set aside was let go; nothing was collected."""

    object: PaymentView


class Asking(Struct, frozen=True):
    """Whom to ask about a capture or a void, and how."""

    channel: Authorising
    account: ChannelAccount
    payment: Payment
    attempt: Attempt
    completion: Completion

    @property
    def capture(self) -> Capture:
        """The capture in the channel's terms."""
        order = pay_order(self.payment, self.attempt)
        return Capture(
            number=self.completion.number,
            order=order,
            channel_ref=self.attempt.authorisation_ref or "",
            authorisation_code=self.attempt.authorisation_code,
            money=self.completion.money,
        )

    @property
    def voiding(self) -> Voiding:
        """The void in the channel's terms."""
        order = pay_order(self.payment, self.attempt)
        return Voiding(
            number=self.completion.number,
            order=order,
            channel_ref=self.attempt.authorisation_ref or "",
            authorisation_code=self.attempt.authorisation_code,
            money=self.completion.money,
        )

    async def send(self) -> Answer[CompletionNews]:
        """Take the money, or let it go; safe to repeat."""
        if self.completion.kind == "capture":
            return await self.channel.capture(self.account, self.capture)
        return await self.channel.void(self.account, self.voiding)

    async def query(self) -> Answer[CompletionNews]:
        """Ask how it stands: the capture, or what was to be let go."""
        if self.completion.kind == "capture":
            return await self.channel.query_capture(self.account, self.capture)
        return await self.channel.query_authorisation(self.account, self.capture.order)


async def ask_channel(flow: Flow, completion: Completion, *, is_first: bool = False) -> Completion:
    """Send a capture or void, or ask what became of it and send it again if need be.

    ``is_first``: nobody has sent it before, so that a refusal speaks of all there was.

    Raises:
        StateContended
    """
    asking = await _asking(flow, completion)
    verb: Literal["capture", "void"] = completion.kind
    if not is_first:
        found = await asking.query()
        failpoint("authorisations.after_query")
        completion = await _record(flow, asking, completion, found, _purpose(verb))
        is_settled = not _may_be_sent(completion, found.outcome)
        if is_settled or not completion.state.is_open:
            return completion
    answer = await asking.send()
    failpoint("authorisations.after_channel_call")
    if isinstance(answer.outcome, Declined) or (
        isinstance(answer.outcome, NotSent) and not is_first
    ):
        answer = await _confirmed(asking, answer, is_first=is_first)
    return await _record(flow, asking, completion, answer, verb)


async def _asking(flow: Flow, completion: Completion) -> Asking:
    payment = await payments.payment(flow.db, completion.book, completion.payment_id)
    attempt = await payments.attempt(flow.db, completion.book, completion.attempt_id)
    account = await flow.account(attempt.account_id)
    channel = authorising(flow.channels[attempt.channel])
    return Asking(channel, account, payment, attempt, completion)


def _purpose(kind: str) -> str:
    return "query_capture" if kind == "capture" else "query_authorisation"


def _may_be_sent(completion: Completion, found: CompletionNews) -> bool:
    """Whether an answer leaves it to us to send again: nothing is known to have happened."""
    if completion.kind == "void" and isinstance(found, Authorised):
        return True
    return isinstance(found, Absent | Unknown)


async def _confirmed(
    asking: Asking, refused: Answer[CompletionNews], *, is_first: bool
) -> Answer[CompletionNews]:
    """Return a refusal once it is known that no earlier call did what this one was refused."""
    if isinstance(refused.outcome, NotSent):
        return Answer(Unknown(refused.outcome.reason), refused.exchange)
    found = await asking.query()
    if asking.completion.kind == "void":
        stands = isinstance(found.outcome, Authorised) or is_first
        happened = isinstance(found.outcome, Closed | Succeeded)
    else:
        stands = isinstance(found.outcome, Absent | Closed | Declined) or is_first
        happened = isinstance(found.outcome, Succeeded)
    if happened:
        return found
    return refused if stands else Answer(Unknown("refused, and not known why"), found.exchange)


async def _record(
    flow: Flow,
    asking: Asking,
    completion: Completion,
    answer: Answer[CompletionNews],
    purpose: str,
) -> Completion:
    evidence = Evidence(purpose, purpose=purpose, exchange=answer.exchange)
    about = asking.attempt
    flow.router.heard(heard_of(about, about, answer.outcome, evidence.call))
    return await record_completion_news(flow, completion, answer.outcome, evidence)


async def record_completion_news(
    flow: Flow, completion: Completion, news: CompletionNews, evidence: Evidence
) -> Completion:
    """Apply news about a capture or void exactly once and return the row as it is afterwards.

    Raises:
        StateContended: others kept winning; nothing was written, and asking again is safe.
    """
    exchange_id = new_id()
    for _ in range(_TRIES_MAX):
        payment = await payments.payment(flow.db, completion.book, completion.payment_id)
        attempt = await payments.attempt(flow.db, completion.book, completion.attempt_id)
        # Last: one that is open still belongs to these. An older one would end what has ended.
        completion = await store.GET_COMPLETION.one(flow.db, completion.book, completion.id)
        if completion.why != "late" and not go_together(payment, attempt):
            continue  # they change together, and did between the reads
        rows = (payment, attempt, completion)
        now = flow.db.clock.now()
        step = next_completion_step(rows, news, now) or CompletionStep()
        step = await _unless_taken_elsewhere(flow, step)
        writes = (
            *_row_writes(rows, step, evidence.why, now),
            *_evidence_writes(completion, exchange_id, evidence, news, now),
            *(() if step.case is None else (case_write(payment, step.case, step.detail, now),)),
            *_event_writes(rows, step, now),
        )
        failpoint("authorisations.before_outcome")
        if await commit_unless_moved_on(flow, payment, _transfers(rows, step), writes):
            failpoint("authorisations.after_outcome")
            flow.nudge()
            return _bumped(step.completion) or completion
    raise StateContended


async def _unless_taken_elsewhere(flow: Flow, step: CompletionStep) -> CompletionStep:
    """Return the step, or a contradiction when the same trade has paid another attempt."""
    taken = step.attempt
    if not step.takes or taken is None or taken.channel_ref is None:
        return step
    other = await payments.attempt_paid_by(flow.db, taken.book, taken.account_id, taken.channel_ref)
    if other in {None, taken.id}:
        return step
    detail = f"channel number {taken.channel_ref} has paid another order already"
    return CompletionStep(case=CaseKind.CONTRADICTION, detail=detail)


def _bumped(completion: Completion | None) -> Completion | None:
    return completion and replace(completion, version=completion.version + 1)


def _transfers(rows: Rows, step: CompletionStep) -> tuple[Transfer, ...]:
    if not step.takes or step.payment is None:
        return ()
    return capture_transfers("payment.captured", step.payment, rows[1])


def _row_writes(rows: Rows, step: CompletionStep, why: str, now: datetime) -> tuple[Write, ...]:
    # The payment's row is locked first, as it is when a capture is asked for.
    payment, attempt, completion = rows
    writes: list[Write] = []
    if step.payment is not None:
        writes += payment_writes(payment, step.payment, why, now)
    if step.attempt is not None:
        writes.append(attempt_write(attempt, step.attempt))
    if step.completion is not None:
        becomes = step.completion
        args = (
            completion.book,
            completion.id,
            completion.version,
            becomes.state,
            becomes.code,
            becomes.channel_ref,
            becomes.channel_at,
            becomes.ended_at,
        )
        writes.append(Write(store.UPDATE_COMPLETION, args, refusal=MOVED_ON))
    return tuple(writes)


def _evidence_writes(
    completion: Completion,
    exchange_id: UUID,
    evidence: Evidence,
    news: CompletionNews,
    now: datetime,
) -> tuple[Write, ...]:
    if evidence.exchange is None:
        return ()
    place = (completion.book, completion.payment_id)
    return (
        Write(store.COUNT_QUERY, (completion.book, completion.id)),
        exchange_write(place, exchange_id, evidence, news, now),
    )


def _event_writes(rows: Rows, step: CompletionStep, now: datetime) -> tuple[Write, ...]:
    if step.payment is None:
        return ()
    payment = replace(step.payment, version=step.payment.version + 1)
    view = view_payment(payment, step.attempt or rows[1])
    told: list[type[PaymentCaptured | PaymentCaptureFailed | PaymentVoided | PaymentSucceeded]]
    match payment.state:
        case PaymentState.SUCCEEDED:
            told = [PaymentCaptured, PaymentSucceeded]
        case PaymentState.VOIDED:
            told = [PaymentVoided]
        case _:
            told = [PaymentCaptureFailed] if rows[2].kind == "capture" else []
    return tuple(
        event_write(
            kind(
                merchant_id=payment.merchant_id,
                mode=payment.mode,
                resource_id=view.id,
                object=view,
            ),
            now=now,
        )
        for kind in told
    )

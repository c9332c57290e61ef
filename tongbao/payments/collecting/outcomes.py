"""Write down what a channel said: the rows, the posting and the event in one commit, or nothing.

Everything that learns something about an attempt (the first call, the chaser, a callback, a bill)
comes through `record_news`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from hashlib import sha256
from typing import Final
from uuid import UUID

from msgspec import Struct
from msgspec.json import encode
from msgspec.structs import replace

from tongbao.infra.commits import Commits
from tongbao.infra.db import Db, Write
from tongbao.infra.db_failures import UniqueKeyTaken
from tongbao.infra.failpoints import failpoint
from tongbao.infra.outbox import Event, event_write
from tongbao.infra.tasks import LEASE_LOST, LeaseLost, Task, cancel_write, task_write
from tongbao.kernel.errors import Busy
from tongbao.kernel.ids import derived_id, new_id, show
from tongbao.kernel.licence import Licence
from tongbao.ledger.book import Ledger
from tongbao.ledger.model import Transfer
from tongbao.ledger.steps.commit import commit_together, is_committed
from tongbao.payments.collecting import _store as store
from tongbao.payments.collecting.decisions import (
    Instead,
    News,
    Step,
    capture_transfers,
    counted_writes,
    go_together,
    going_elsewhere,
    heard_of,
    next_step,
)
from tongbao.payments.collecting.model import (
    Attempt,
    CaseKind,
    Payment,
    PaymentState,
    PaymentView,
    RiskHook,
    allow_all,
    view_payment,
)
from tongbao.payments.collecting.queries import (
    PaymentReads,
    is_replaced,
    priced_by_card,
    unless_paid_elsewhere,
)
from tongbao.payments.routing.model import AS_ASKED, PLACE_TAKEN, Router
from tongbao.payments.taking_back.model import NO_SHARES, SharesTaker
from tongbao.payments.uses.counting import given_back
from tongbao.rails.channels.contract.channel import Channel
from tongbao.rails.channels.contract.orders import ChannelAccount
from tongbao.rails.channels.contract.outcomes import Exchange

MOVED_ON: Final = "payment.moved_on"
TOTAL_BROKEN: Final = "payment.total_broken"
_TRIES_MAX: Final = 8


class StateContended(Busy):
    """Others kept changing the payment while this was being decided."""

    code = "payment.contended"
    advice = "Repeat the same request with the same Idempotency-Key."
    advice_zh = "请使用相同的 Idempotency-Key 重试同一请求。"


class Flow(Struct, frozen=True):
    """What every step needs, built once by wiring; a process shares ``commits`` and ``reads``."""

    db: Db
    commits: Commits
    reads: PaymentReads
    ledger: Ledger
    channels: Mapping[str, Channel]
    account: Callable[[UUID], Awaitable[ChannelAccount]]
    licence: Licence
    nudge: Callable[[], None]  # wakes this process's worker after a commit
    risk: RiskHook = allow_all
    router: Router = AS_ASKED
    shares: SharesTaker = NO_SHARES


class PaymentSucceeded(Event, frozen=True, kw_only=True, tag="payment.succeeded"):
    """The customer's money came in."""

    object: PaymentView


class PaymentFailed(Event, frozen=True, kw_only=True, tag="payment.failed"):
    """The channel did not and will not take the customer's money."""

    object: PaymentView


class PaymentClosed(Event, frozen=True, kw_only=True, tag="payment.closed"):
    """The payment ended unpaid and can no longer be paid."""

    object: PaymentView


class PaymentAuthorised(Event, frozen=True, kw_only=True, tag="payment.authorised"):
    """The customer's money is set aside for the merchant, to be captured or voided."""

    object: PaymentView


_OVERTAKEN: Final = frozenset({MOVED_ON, TOTAL_BROKEN, PLACE_TAKEN})

_Told = PaymentSucceeded | PaymentFailed | PaymentClosed | PaymentAuthorised


class LateMoneyReceived(Event, frozen=True, kw_only=True, tag="payment.late_success"):
    """The customer paid after the payment had ended; the money goes back."""

    object: PaymentView
    book: int
    payment_id: UUID
    attempt_id: UUID


_EVENT_OF_STATE: Final[Mapping[PaymentState, type[_Told]]] = {
    PaymentState.AUTHORISED: PaymentAuthorised,
    PaymentState.SUCCEEDED: PaymentSucceeded,
    PaymentState.FAILED: PaymentFailed,
    PaymentState.CLOSED: PaymentClosed,
}


class ChaseAttempt(Task, frozen=True, tag="payments.chase_attempt"):
    """Find out what became of an attempt; ``late``: of one that has ended and yet was paid."""

    book: int
    attempt_id: UUID
    late: bool = False


class ExpireAuthorisation(Task, frozen=True, tag="authorisations.expire"):
    """Let go what is still set aside for a payment when its time is over, or it was called off."""

    book: int
    payment_id: UUID


class LetGo(Task, frozen=True, tag="authorisations.let_go"):
    """Let go what was set aside for an attempt after its payment had ended."""

    book: int
    attempt_id: UUID


class Evidence(Struct, frozen=True):
    """Why the news is believed: what it was about and, for a call, the raw exchange.

    ``is_fresh``: the channel was asked after the attempt had ended, so this is how things stand.
    """

    why: str  # "channel answer", "callback", "query", "bill"
    purpose: str = "query"
    exchange: Exchange | None = None
    refund_id: UUID | None = None
    is_fresh: bool = False

    @property
    def call(self) -> tuple[str, int] | None:
        """What the channel was called for and how long it took, where it was."""
        return None if self.exchange is None else (self.purpose, self.exchange.duration_ms)


Also = Callable[[Payment, Attempt], tuple[Write, ...]]
"""Further writes for the commit of news, made of the rows as they will stand by it."""


async def commit_unless_moved_on(
    flow: Flow, payment: Payment, transfers: tuple[Transfer, ...], writes: tuple[Write, ...]
) -> bool:
    """Commit a step of a payment whole; False, and nothing written, when a row had moved on.

    The transfers' ids keep the money to once, whoever tries; an aggregator has no money to move.
    """
    moved = transfers if flow.licence.may_hold_funds else ()
    refused = await commit_together(flow.ledger, flow.commits.write, payment.book, moved, writes)
    if refused == LEASE_LOST:
        raise LeaseLost
    return is_committed(refused, _OVERTAKEN, payment.id)


async def record_news(
    flow: Flow,
    attempt: Attempt,
    news: News,
    evidence: Evidence,
    *,
    instead: Instead | None = None,
    known: Payment | None = None,
    also: Also | None = None,
) -> tuple[Payment, Attempt]:
    """Apply news about an attempt exactly once and return both rows as they are afterwards.

    ``instead`` begins where the news ends the attempt unpaid, and is then the attempt returned;
    ``also`` is for a commit where it does not begin.
    ``known``: its payment, where both were written or read a moment ago and the news changes them
    if they still stand so; they are read again only where they do not, or its trade is known.

    Raises:
        StateContended: others kept winning; nothing was written, and asking again is safe.
    """
    exchange_id = new_id()
    for _ in range(_TRIES_MAX):
        is_known = known is not None
        if known is not None:
            payment, known = known, None
        else:
            payment, attempt = await flow.reads.both(attempt)
        if not (go_together(payment, attempt) or await is_replaced(flow.db, attempt)):
            continue  # they change together, and did between the two reads
        now = flow.db.clock.now()
        step = next_step(payment, attempt, news, now, is_fresh=evidence.is_fresh) or Step()
        if not is_known:
            step = await unless_paid_elsewhere(flow.db, flow.reads, attempt, step)
        step = going_elsewhere(payment, step, instead, now)
        step = await priced_by_card(flow.db, payment, step, news)
        after = _bumped(step.payment) or payment, step.attempt or attempt
        due = _event_writes(payment, after, step, now)
        due += _follow_up_writes(payment, attempt, step, now)
        writes = (
            *_row_writes(payment, attempt, step, evidence, now),
            *_evidence_writes((attempt, step), exchange_id, evidence, news, now),
            *(() if step.case is None else (case_write(payment, step.case, step.detail, now),)),
            *due,
            *(flow.router.ended(attempt.book, attempt.id) if step.ends_unpaid else ()),
            *(step.instead.writes if step.instead is not None else ()),
            *_release_writes(payment, attempt, step, now),
            *_chase_ends(attempt, step),
            *(also(*after) if also is not None and step.instead is None else ()),
        )
        failpoint("payments.before_outcome")
        transfers = _transfers(step, payment, attempt)
        try:
            is_written = await commit_unless_moved_on(flow, payment, transfers, writes)
        except UniqueKeyTaken:  # the trade has paid another order: the rows tell which
            if not is_known:
                raise
            continue
        if is_written:
            failpoint("payments.after_outcome")
            if due:
                flow.nudge()
            flow.router.heard(heard_of(attempt, after[1], news, evidence.call))
            return after if step.instead is None else (after[0], step.instead.attempt)
        instead = None  # the payment moved on, or others took its place there
    raise StateContended


def _bumped(payment: Payment | None) -> Payment | None:
    return payment and replace(payment, version=payment.version + 1)


def _transfers(step: Step, payment: Payment, attempt: Attempt) -> tuple[Transfer, ...]:
    if step.rule is None:
        return ()
    return capture_transfers(step.rule, step.payment or payment, attempt)


def _row_writes(
    payment: Payment, attempt: Attempt, step: Step, evidence: Evidence, now: datetime
) -> tuple[Write, ...]:
    writes: list[Write] = []
    if step.payment is not None:
        writes += payment_writes(payment, step.payment, evidence.why, now)
    if step.attempt is not None:
        was_asked = evidence.exchange is not None
        writes.append(attempt_write(attempt, step.attempt, was_asked=was_asked))
    return tuple(writes)


def payment_writes(before: Payment, becomes: Payment, why: str, now: datetime) -> tuple[Write, ...]:
    """Return the writes that change a payment, if it is still as it was before, and say why."""
    args = (
        before.book,
        before.id,
        before.version,
        becomes.state,
        becomes.captured,
        becomes.failure_code,
        becomes.close_reason,
        becomes.succeeded_at,
        becomes.ended_at,
        becomes.fee,
        becomes.authorised,
        becomes.capturing,
        becomes.authorised_at,
        becomes.authorised_until,
        becomes.card_kind,
        becomes.refund_returns_fee,
    )
    return (
        Write(store.UPDATE_PAYMENT, args, refusal=MOVED_ON),
        change_write(before.state, becomes, before.version + 1, why, now),
        *(() if before.state is becomes.state else counted_writes(becomes)),
    )


def attempt_write(before: Attempt, becomes: Attempt, *, was_asked: bool = False) -> Write:
    """Return the write that changes an attempt, if it is still in the state it was in before.

    ``was_asked``: the channel was called for it once more.
    """
    args = (
        before.book,
        before.id,
        before.state,
        becomes.state,
        becomes.code,
        becomes.channel_ref,
        becomes.payer,
        None if becomes.action is None else encode(becomes.action).decode(),
        becomes.paid_at,
        becomes.authorised_at,
        becomes.authorisation_ref,
        becomes.authorisation_code,
        becomes.capture_id,
        becomes.capture_amount,
        int(was_asked),
    )
    return Write(store.UPDATE_ATTEMPT, args, refusal=MOVED_ON)


def change_write(from_state: str, becomes: Payment, version: int, why: str, now: datetime) -> Write:
    """Return the write that puts a change of state on the payment's timeline."""
    return Write(
        store.INSERT_CHANGE,
        (becomes.book, becomes.id, version, from_state, becomes.state, why, now),
    )


def _evidence_writes(
    about: tuple[Attempt, Step], exchange_id: UUID, evidence: Evidence, news: object, now: datetime
) -> tuple[Write, ...]:
    if evidence.exchange is None:
        return ()
    attempt, step = about
    kept = exchange_write((attempt.book, attempt.payment_id), exchange_id, evidence, news, now)
    if step.attempt is not None:
        return (kept,)  # the write that changes the attempt counts as well
    return (Write(store.COUNT_QUERY, (attempt.book, attempt.id)), kept)


def exchange_write(
    place: tuple[int, UUID], exchange_id: UUID, evidence: Evidence, news: object, now: datetime
) -> Write:
    """Return the write that keeps a raw exchange as evidence; ``place``: book and payment."""
    book, payment_id = place
    seen = evidence.exchange
    if seen is None:
        raise ValueError("there is no exchange to keep")
    return Write(
        store.INSERT_EXCHANGE,
        (
            book,
            exchange_id,
            payment_id,
            evidence.refund_id,
            evidence.purpose,
            seen.method,
            seen.url,
            seen.request,
            seen.status,
            seen.reply,
            seen.duration_ms,
            type(news).__name__.lower(),
            now,
        ),
    )


def case_write(payment: Payment, kind: CaseKind, detail: str, now: datetime) -> Write:
    """Return the write that opens a case; the same case opens once, however often it is seen."""
    case_id = derived_id(payment.id, sha256(f"{kind}/{detail}".encode()).hexdigest())
    whose = (payment.id, payment.merchant_id, payment.mode)
    return Write(store.INSERT_CASE, (payment.book, case_id, *whose, kind, detail, now))


def _follow_up_writes(
    before: Payment, attempt: Attempt, step: Step, now: datetime
) -> tuple[Write, ...]:
    """Return the writes that put up the work the step leads to."""
    writes: list[Write] = []
    if step.look_again:
        task: Task = ChaseAttempt(attempt.book, attempt.id, late=True)
        writes.append(task_write(task, run_at=now, key=f"late/{attempt.id}"))
    if step.let_go:
        task = LetGo(attempt.book, attempt.id)
        writes.append(task_write(task, run_at=now, key=f"let_go/{attempt.id}"))
    if step.payment is not None and step.payment.state is PaymentState.AUTHORISED:
        # Called off while nobody knew whether the money was set aside: then it is let go at once.
        is_wanted = before.close_requested_at is None
        run_at = (step.payment.authorised_until if is_wanted else None) or now
        task = ExpireAuthorisation(before.book, before.id)
        writes.append(task_write(task, run_at=run_at, key=f"authorised/{before.id}"))
    return tuple(writes)


def _release_writes(
    payment: Payment, attempt: Attempt, step: Step, now: datetime
) -> tuple[Write, ...]:
    """Return the writes that give back what the payment counted and did not take."""
    if not step.ends_unpaid or step.instead is not None:
        return ()
    return given_back(payment.book, payment.id, attempt.how, payment.metadata, now)


def _chase_ends(attempt: Attempt, step: Step) -> tuple[Write, ...]:
    """Return the write that calls the chase off where the attempt has ended, unless it runs."""
    if step.attempt is None or step.attempt.state.is_open or not attempt.state.is_open:
        return ()
    return (cancel_write(ChaseAttempt, f"chase/{attempt.id}"),)


async def open_case(flow: Flow, payment: Payment, kind: CaseKind, detail: str) -> None:
    """Open a case that no news brings about: that there is none."""
    async with flow.db.begin("payments") as tx:
        await case_write(payment, kind, detail, tx.now).run(tx)


def _event_writes(
    before: Payment, after: tuple[Payment, Attempt], step: Step, now: datetime
) -> tuple[Write, ...]:
    if step.payment is None:
        return ()
    payment, attempt = after
    if step.rule == "late.captured":
        event: Event = LateMoneyReceived(
            merchant_id=payment.merchant_id,
            mode=payment.mode,
            resource_id=show("pay", payment.id),
            object=view_payment(payment, attempt),
            book=payment.book,
            payment_id=payment.id,
            attempt_id=attempt.id,
        )
        return (event_write(event, now=now),)
    if payment.state == before.state or payment.state not in _EVENT_OF_STATE:
        return ()
    return (event_write(end_event(payment, view_payment(payment, attempt)), now=now),)


def end_event(payment: Payment, view: PaymentView) -> Event:
    """Return the event that tells that the payment is in this state, and shows it so."""
    return _EVENT_OF_STATE[payment.state](
        merchant_id=payment.merchant_id, mode=payment.mode, resource_id=view.id, object=view
    )


def refunded_write(payment: Payment, amount: int, fee_back: int, *, refusal: str) -> Write:
    """Return the write that raises what is given back, seen as ``payment`` says it stands.

    It touches no row when more would be given back than came in, or when another refund was
    faster than the sight this one was worked out from.
    """
    seen = (payment.refunded, payment.fee_returned, payment.shared)
    args = (payment.book, payment.id, amount, fee_back, *seen)
    return Write(store.ADD_REFUNDED, args, refusal=refusal)


def unrefunded_write(book: int, payment_id: UUID, amount: int, fee_back: int) -> Write:
    """Return the write that lowers what is given back by a refund that did not happen."""
    args = (book, payment_id, -amount, -fee_back, None, None, None)
    return Write(store.ADD_REFUNDED, args, refusal=TOTAL_BROKEN)

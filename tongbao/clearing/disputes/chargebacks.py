"""Open a dispute and take its steps: the row, its money and its event in one commit, or nothing.

How much is disputed is a running total on the payment's row, beside what is refunded: whoever is
second for the same money is refused there.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Final, Literal
from uuid import UUID

import msgspec
from msgspec import Struct
from msgspec.structs import replace
from prometheus_client import Counter

from tongbao.clearing.disputes import _store as store
from tongbao.clearing.disputes.model import (
    EXCEEDS_LEFT,
    MOVED_ON,
    NEXT,
    REF_TAKEN,
    Dispute,
    DisputeContended,
    DisputeDue,
    DisputeExceedsLeft,
    DisputeMoved,
    DisputeOpened,
    DisputePaymentUnfit,
    DisputeRefUsed,
    DisputeState,
    Move,
    SchemeUnknown,
    Step,
    Term,
    event_of,
    next_reminder,
    next_step,
)
from tongbao.infra.db import Write, write_all
from tongbao.infra.failpoints import failpoint
from tongbao.infra.outbox import event_write
from tongbao.infra.tasks import Task, cancel_write, task_write
from tongbao.kernel.clock import business_date
from tongbao.kernel.ids import new_id
from tongbao.kernel.money import CurrencyMismatch, Money
from tongbao.ledger.model import MOVED_BEFORE, AccountKey, ExceedsBalance, Transfer
from tongbao.ledger.queries import balance_of
from tongbao.ledger.rules import posting
from tongbao.ledger.steps.commit import commit_together, in_one_transaction
from tongbao.payments.collecting import queries as payments
from tongbao.payments.collecting.model import (
    WALLET,
    Attempt,
    CaseKind,
    Payment,
    PaymentState,
)
from tongbao.payments.collecting.outcomes import Flow, open_case
from tongbao.payments.collecting.payments import disputed_write

DISPUTES: Final = Counter("tongbao_disputes_total", "Disputes by the state they came to", ["state"])
_TRIES_MAX: Final = 8
_FREED: Final = frozenset({DisputeState.WON})

Taking = Callable[[UUID, datetime], Write]
"""Makes the write that takes an idempotency key for a dispute, in the dispute's own commit."""


class WatchDispute(Task, frozen=True, tag="disputes.watch"):
    """Remind the merchant as a deadline comes near, and do what follows when it passes."""

    book: int
    dispute_id: UUID


class DisputeAsked(Struct, frozen=True):
    """What a scheme says of a payment, as a row or an operator brings it."""

    scheme: str
    scheme_ref: str
    reason_code: str
    reason: str
    money: Money
    stage: Literal[DisputeState.RETRIEVAL, DisputeState.CHARGEBACK]
    fee: int = 0
    said_at: datetime | None = None  # when the scheme did: its time runs since then


class _Shares(Struct, frozen=True):
    """How a chargeback and its fee are met: what the merchant has of each, and what is owed."""

    taken: int = 0
    owed: int = 0
    fee: int = 0
    fee_owed: int = 0


async def open_dispute(
    flow: Flow, payment: Payment, asked: DisputeAsked, *, actor: str, why: str
) -> Dispute:
    """Write a dispute down and set the merchant's money aside if the scheme has taken it.

    The same number of the scheme with the same content returns the dispute it already made.

    Raises:
        DisputePaymentUnfit, CurrencyMismatch, SchemeUnknown, DisputeRefUsed, DisputeExceedsLeft,
        DisputeContended
    """
    if payment.state is not PaymentState.SUCCEEDED or payment.channel == WALLET:
        raise DisputePaymentUnfit(status=payment.state)
    if asked.money.currency != payment.currency:
        raise CurrencyMismatch(f"{asked.money.currency} met {payment.currency}")
    attempt = await payments.paid_attempt(flow.db, payment)
    dispute_id = new_id()
    for tries in range(_TRIES_MAX):
        now = flow.db.clock.now()
        begun = _begun(payment, attempt, asked, dispute_id, now)
        move = Move.CHARGE_BACK if asked.stage is DisputeState.CHARGEBACK else None
        term = await _term_of(flow, asked.scheme, asked.stage, now)
        since = min(now, asked.said_at or now)
        step = Step(_in_stage(begun, term, since), None)
        if move is not None:
            step = next_step(begun, move, term, since)
        shares = await _shares(flow, step, asked.money.amount, asked.fee, tries)
        after = replace(step.after, owed=shares.owed + shares.fee_owed, version=1)
        writes = (
            Write(store.INSERT_DISPUTE, msgspec.structs.astuple(after), refusal=REF_TAKEN),
            *_total_writes(begun, after),
            _change_write("new", after, why, actor, now),
            event_write(event_of(after, DisputeOpened), now=now),
            *_watch_writes(after),
        )
        failpoint("disputes.before_open")
        code = await _commit(flow, Step(after, step.rule), shares, writes)
        failpoint("disputes.after_open")
        if code is None:
            DISPUTES.labels(after.state).inc()
            flow.nudge()
            return after
        if code == REF_TAKEN:
            return await _opened_before(flow, payment, after)
        if code == EXCEEDS_LEFT:
            now_is = await payments.payment(flow.db, payment.book, payment.id)
            raise DisputeExceedsLeft(left=now_is.left)
        _check_again(code, dispute_id)
    raise DisputeContended


async def move_dispute(
    flow: Flow,
    dispute: Dispute,
    move: Move,
    *,
    actor: str,
    why: str,
    answer: str | None = None,
    take: Taking | None = None,
    since: datetime | None = None,
) -> Dispute:
    """Take one step of a dispute and return it as it is afterwards.

    ``since``: when it happened, where that was before now; the stage's time runs from then.

    Raises:
        DisputeMoved, DisputeExceedsLeft, DisputeContended
    """
    for tries in range(_TRIES_MAX):
        before = await store.GET_DISPUTE.one(flow.db, dispute.book, dispute.id)
        now = flow.db.clock.now()
        target = NEXT.get((before.state, move))
        term = await _term_of(flow, before.scheme, target, now) if target else None
        step = next_step(before, move, term, min(now, since or now))
        fee = before.fee if step.rule == "dispute.charged_back" else 0
        shares = await _shares(flow, step, before.amount, fee, tries)
        after = replace(
            step.after,
            owed=before.owed + shares.owed + shares.fee_owed,
            answer=before.answer if answer is None else answer,
            version=before.version + 1,
        )
        writes = (
            *(() if take is None else (take(before.id, now),)),
            *_total_writes(before, after),
            _update_write(before, after),
            _change_write(before.state, after, why, actor, now),
            event_write(event_of(after), now=now),
            *_watch_writes(after),
        )
        failpoint("disputes.before_step")
        code = await _commit(flow, Step(after, step.rule), shares, writes, before)
        failpoint("disputes.after_step")
        if code is None:
            DISPUTES.labels(after.state).inc()
            flow.nudge()
            return after
        if code == EXCEEDS_LEFT:
            raise DisputeExceedsLeft
        if code != MOVED_ON:
            _check_again(code, before.id)
    raise DisputeContended


class SchemeRow(Struct, frozen=True):
    """What a scheme's file says of one dispute: which payment, which case, what happened."""

    number: str  # ours of the order, or of the refund
    asked: DisputeAsked
    move: Move | None  # None: only a question


async def take_scheme_row(flow: Flow, account_id: UUID, row: SchemeRow) -> Dispute | None:
    """Do what a scheme's row says, once however often it is read; None where it is not ours.

    What cannot be (more than is left, a word against an earlier one) opens a case for people.
    """
    attempt = await payments.attempt_by_number(flow.db, row.number)
    if attempt is None or attempt.account_id != account_id:
        return None
    payment = await payments.payment(flow.db, attempt.book, attempt.payment_id)
    found = await store.FIND_BY_REF.first(flow.db, attempt.book, account_id, row.asked.scheme_ref)
    try:
        if found is None:
            return await open_dispute(flow, payment, row.asked, actor="scheme", why="scheme's file")
        if row.move is None or _is_known(found, row.move):
            return found
        why, since = "scheme's file", row.asked.said_at
        return await move_dispute(flow, found, row.move, actor="scheme", why=why, since=since)
    except (DisputeExceedsLeft, DisputeMoved, DisputeRefUsed) as refused:
        detail = f"dispute {row.asked.scheme_ref}: the scheme says {row.move}, but {refused.code}"
        await open_case(flow, payment, CaseKind.CONTRADICTION, detail)
        return found


_ENDS_LOST: Final = frozenset({DisputeState.LOST, DisputeState.ACCEPTED})
_KNOWN: Final = {
    Move.CHARGE_BACK: frozenset(DisputeState) - {DisputeState.RETRIEVAL, DisputeState.CLOSED},
    Move.TAKE_AGAIN: {DisputeState.PRE_ARBITRATION, DisputeState.ARBITRATION, *_ENDS_LOST},
    Move.WIN: frozenset({DisputeState.WON}),
    Move.LOSE: _ENDS_LOST,
}


def _is_known(dispute: Dispute, move: Move) -> bool:
    """Whether the dispute has come to where the move leads already, by whoever's doing."""
    return dispute.state in _KNOWN.get(move, frozenset())


async def _opened_before(flow: Flow, payment: Payment, after: Dispute) -> Dispute:
    found = await store.FIND_BY_REF.one(flow.db, after.book, after.account_id, after.scheme_ref)
    if (found.payment_id, found.money) != (payment.id, after.money):
        raise DisputeRefUsed(scheme_ref=after.scheme_ref)
    return found


async def _term_of(flow: Flow, scheme: str, stage: DisputeState, now: datetime) -> Term | None:
    """Return the dated row that rules a stage beginning now; stages that ask nobody have none.

    Raises:
        SchemeUnknown
    """
    term = await store.TERM_OF.first(flow.db, scheme, stage, business_date(now))
    if term is None and stage.asks_merchant:
        raise SchemeUnknown(scheme=scheme[:32])
    return term


async def _shares(flow: Flow, step: Step, amount: int, fee: int, tries: int) -> _Shares:
    """Return how a chargeback is met: from the merchant's money as far as it goes, owed beyond."""
    if step.rule != "dispute.charged_back":
        return _Shares()
    available = 0
    if flow.licence.may_hold_funds and tries < _TRIES_MAX - 1:
        after = step.after
        key = AccountKey("merchant_payable", after.currency, after.merchant_id)
        balance = await balance_of(flow.db, after.book, key)
        # A frozen account lets nothing out, so all of it is owed meanwhile.
        available = 0 if balance.state.name == "FROZEN" else max(0, balance.available)
    taken = min(amount, available)
    fee_taken = min(fee, available - taken)
    return _Shares(taken, amount - taken, fee_taken, fee - fee_taken)


async def _commit(
    flow: Flow,
    step: Step,
    shares: _Shares,
    writes: tuple[Write, ...],
    before: Dispute | None = None,
) -> str | None:
    """Commit a step whole; None when it is in the book, else why not."""
    transfers = _transfers(step, shares, before) if flow.licence.may_hold_funds else ()
    alone = in_one_transaction(flow.db, "disputes")
    return await commit_together(flow.ledger, alone, step.after.book, transfers, writes)


def _transfers(step: Step, shares: _Shares, before: Dispute | None) -> tuple[Transfer, ...]:
    if step.rule is None:
        return ()
    dispute, currency = step.after, step.after.currency
    at_scheme = 0 if before is None else before.at_scheme
    figures = {
        "gross": dispute.amount,
        "taken": shares.taken,
        "owed": shares.owed,
        "fee": shares.fee,
        "fee_owed": shares.fee_owed,
        "at_scheme": at_scheme,
        "not_at_scheme": dispute.amount - at_scheme,
    }
    owner = dispute.merchant_id
    return posting.transfers(
        step.rule,
        reference=dispute.id,
        accounts={
            **{
                kind: AccountKey(kind, currency, owner)
                for kind in ("merchant_payable", "merchant_debt", "dispute_held")
            },
            **{
                kind: AccountKey(kind, currency, dispute.account_id)
                for kind in ("channel_receivable", "dispute_at_scheme")
            },
        },
        amounts={name: Money(figure, currency) for name, figure in figures.items()},
    )


def _check_again(code: str, dispute_id: UUID) -> None:
    """Raise unless what refused a commit is that others were faster."""
    if code not in {ExceedsBalance.code, "in_flight", "ledger.account_frozen", *MOVED_BEFORE}:
        raise RuntimeError(f"the ledger refused a dispute: {code} for {dispute_id}")


def _begun(
    payment: Payment, attempt: Attempt, asked: DisputeAsked, dispute_id: UUID, now: datetime
) -> Dispute:
    return Dispute(
        book=payment.book,
        id=dispute_id,
        payment_id=payment.id,
        attempt_id=attempt.id,
        merchant_id=payment.merchant_id,
        mode=payment.mode,
        account_id=attempt.account_id,
        scheme=asked.scheme,
        scheme_ref=asked.scheme_ref,
        reason_code=asked.reason_code,
        reason=asked.reason,
        state=DisputeState.RETRIEVAL,
        amount=asked.money.amount,
        currency=asked.money.currency,
        held=0,
        owed=0,
        at_scheme=0,
        fee=asked.fee,
        deadline_at=None,
        at_end=None,
        term_source=None,
        reminded=0,
        submitted_at=None,
        answer="",
        opened_at=now,
        ended_at=None,
        version=0,
    )


def _in_stage(dispute: Dispute, term: Term | None, now: datetime) -> Dispute:
    if term is None:
        return dispute
    return replace(
        dispute,
        deadline_at=term.deadline(now),
        at_end=term.at_end,
        term_source=term.source,
    )


def _total_writes(before: Dispute, after: Dispute) -> tuple[Write, ...]:
    """Return the write that changes the payment's total, where the money comes or goes for good.

    What is lost or accepted stays counted: it is gone.
    """
    change = after.held - before.held
    if change < 0 and after.state not in _FREED:
        return ()
    if change == 0:
        return ()
    return (disputed_write(after.book, after.payment_id, change, refusal=EXCEEDS_LEFT),)


def _update_write(before: Dispute, after: Dispute) -> Write:
    args = (
        before.book,
        before.id,
        before.version,
        after.state,
        after.held,
        after.owed,
        after.at_scheme,
        after.deadline_at,
        after.at_end,
        after.term_source,
        after.reminded,
        after.submitted_at,
        after.answer,
        after.ended_at,
    )
    return Write(store.UPDATE_DISPUTE, args, refusal=MOVED_ON)


def _change_write(from_state: str, after: Dispute, why: str, actor: str, now: datetime) -> Write:
    return Write(
        store.INSERT_CHANGE,
        (after.book, after.id, after.version, from_state, after.state, why[:200], actor, now),
    )


def _watch_writes(after: Dispute) -> tuple[Write, ...]:
    """Return the writes that put the watch of a dispute where its stage now wants it."""
    key = f"dispute/{after.id}"
    due = next_reminder(after) if after.state.is_open else None
    cancel = cancel_write(WatchDispute, key)
    if due is None:
        return (cancel,)
    return (cancel, task_write(WatchDispute(after.book, after.id), run_at=due, key=key))


async def remind(flow: Flow, dispute: Dispute, reminded: int) -> bool:
    """Tell the merchant that time runs out, once per reminder; False when others were faster."""
    now = flow.db.clock.now()
    after = replace(dispute, reminded=reminded, version=dispute.version + 1)
    writes = (
        _update_write(dispute, after),
        _change_write(dispute.state, after, "reminder", "time", now),
        event_write(event_of(after, DisputeDue), now=now),
    )
    failpoint("disputes.before_reminder")
    async with flow.db.begin("disputes") as tx:
        return await write_all(tx, writes) is None

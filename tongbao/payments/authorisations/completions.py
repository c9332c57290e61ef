"""Capture what was set aside, void it, and let it go when its time is over.

Each is written down first, with the payment's own row saying that it is under way; then the
channel is asked, and what it answers is committed. What it leaves open is chased.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final, Literal

from msgspec.structs import astuple, replace

from tongbao.infra.db import Write, write_all
from tongbao.infra.failpoints import failpoint
from tongbao.infra.tasks import Again, Lease, RetryPolicy, task_write
from tongbao.infra.web.idempotency import InFlight
from tongbao.kernel.errors import Conflict, Rejected
from tongbao.kernel.ids import new_id
from tongbao.kernel.money import Money
from tongbao.payments.authorisations import _store as store
from tongbao.payments.authorisations.model import Completion, CompletionState
from tongbao.payments.authorisations.outcomes import ChaseCompletion, ask_channel
from tongbao.payments.collecting import queries as payments
from tongbao.payments.collecting.model import (
    Attempt,
    AttemptState,
    CaseKind,
    Payment,
    PaymentState,
)
from tongbao.payments.collecting.outcomes import (
    MOVED_ON,
    ExpireAuthorisation,
    Flow,
    LetGo,
    StateContended,
    open_case,
    payment_writes,
)
from tongbao.payments.collecting.payments import Taking

_TRIES_MAX: Final = 8
_CALLER_ASKS_FIRST: Final = timedelta(seconds=10)
_DELAYS: Final = tuple(timedelta(seconds=s) for s in (2, 5, 10, 30, 60, 300, 600, 1800, 3600))
UNDECIDED_AFTER: Final = timedelta(hours=1)
"""How long a capture or void may be on its way before people are told."""
LOOK_AGAIN_AFTER: Final = timedelta(hours=1)
"""When to look again at an authorisation whose time is over and that is still there."""
COMPLETION_POLICY: Final = RetryPolicy(attempts_max=20, delays=_DELAYS)

_BECAUSE: Final = {
    ("capture", "merchant"): "capture asked for",
    ("void", "merchant"): "void asked for",
    ("void", "expired"): "authorisation over",
}

Why = Literal["merchant", "expired", "late"]


class PaymentNotAuthorised(Conflict):
    """Nothing is set aside for the payment, or a capture or void of it is under way."""

    code = "payment.not_authorised"
    advice = "Capture or void a payment whose status is authorised; wait for what is under way."
    advice_zh = "仅可对状态为 authorised 的支付请款或撤销；处理中的操作请等待其结果。"


class CaptureExceedsAuthorised(Rejected):
    """More would be captured than was set aside."""

    code = "payment.capture_exceeds_authorised"
    advice = "Capture no more than amount_authorised."
    advice_zh = "请款金额不得超过预授权金额 amount_authorised。"


class CaptureCurrencyDiffers(Rejected):
    """A capture is in the payment's own currency."""

    code = "payment.capture_currency_differs"
    advice = "Send the payment's currency, or leave it out."
    advice_zh = "请款币种必须与支付币种一致，或不传。"


class AuthorisationExpired(Conflict):
    """The time to capture is over; the money is being let go."""

    code = "payment.authorisation_expired"
    advice = "Make a new payment; capture before capture_before next time."
    advice_zh = "预授权已过期并将自动撤销，请重新发起支付。"


def check_capturable(payment: Payment, money: Money, now: datetime) -> None:
    """Raise unless this much may be captured of the payment now.

    Raises:
        PaymentNotAuthorised, CaptureCurrencyDiffers, CaptureExceedsAuthorised, AuthorisationExpired
    """
    if payment.state is not PaymentState.AUTHORISED:
        raise PaymentNotAuthorised(status=payment.state)
    if money.currency != payment.currency:
        raise CaptureCurrencyDiffers(expected=payment.currency)
    if money.amount > payment.authorised:
        raise CaptureExceedsAuthorised(authorised=payment.authorised)
    if payment.authorised_until is None or now >= payment.authorised_until:
        raise AuthorisationExpired


async def capture_payment(
    flow: Flow, payment: Payment, money: Money, fee: int, *, take: Taking
) -> Completion:
    """Take this much of what is set aside, once; the channel frees the rest.

    Raises:
        PaymentNotAuthorised, CaptureCurrencyDiffers, CaptureExceedsAuthorised,
        AuthorisationExpired, InFlight, StateContended
    """
    for _ in range(_TRIES_MAX):
        now = flow.db.clock.now()
        check_capturable(payment, money, now)
        attempt = await _held_attempt(flow, payment)
        completion = _row((payment, attempt), "capture", "merchant", (money, fee), now)
        becomes = replace(
            payment, state=PaymentState.CAPTURING, capturing=money.amount, failure_code=None
        )
        failpoint("authorisations.before_capture")
        if await _commit_request(flow, payment, becomes, completion, (take(payment.id, now),)):
            failpoint("authorisations.after_capture_request")
            return await ask_channel(flow, completion, is_first=True)
        payment = await payments.payment(flow.db, payment.book, payment.id)
    raise StateContended


async def void_payment(
    flow: Flow, payment: Payment, why: Why, *, take: Taking | None = None
) -> Completion:
    """Let go what is set aside, at the channel first; what the channel says is what happens.

    Raises:
        PaymentNotAuthorised, InFlight, StateContended
    """
    for _ in range(_TRIES_MAX):
        if payment.state is not PaymentState.AUTHORISED:
            raise PaymentNotAuthorised(status=payment.state)
        now = flow.db.clock.now()
        attempt = await _held_attempt(flow, payment)
        completion = _row((payment, attempt), "void", why, (payment.money, 0), now)
        becomes = replace(payment, state=PaymentState.VOIDING, failure_code=None)
        taking = () if take is None else (take(payment.id, now),)
        failpoint("authorisations.before_void")
        if await _commit_request(flow, payment, becomes, completion, taking):
            failpoint("authorisations.after_void_request")
            return await ask_channel(flow, completion, is_first=True)
        payment = await payments.payment(flow.db, payment.book, payment.id)
    raise StateContended


async def _held_attempt(flow: Flow, payment: Payment) -> Attempt:
    tried = await payments.attempts(flow.db, payment)
    return next(attempt for attempt in tried if attempt.authorised_at is not None)


async def _commit_request(
    flow: Flow,
    payment: Payment,
    becomes: Payment,
    completion: Completion,
    taking: tuple[Write, ...],
) -> bool:
    """Commit that it is under way; False when the payment had moved on and nothing was written.

    Raises:
        InFlight
    """
    now = completion.created_at
    writes = (
        *taking,
        *payment_writes(payment, becomes, _BECAUSE[completion.kind, completion.why], now),
        Write(store.INSERT_COMPLETION, astuple(completion), refusal=MOVED_ON),
        _chase_write(completion, now + _CALLER_ASKS_FIRST),
    )
    async with flow.db.begin("authorisations") as tx:
        refused = await write_all(tx, writes)
    if refused == InFlight.code:
        raise InFlight
    return refused is None


def _chase_write(completion: Completion, run_at: datetime) -> Write:
    task = ChaseCompletion(completion.book, completion.id)
    return task_write(task, run_at=run_at, key=f"completion/{completion.id}")


def _row(
    of: tuple[Payment, Attempt],
    kind: Literal["capture", "void"],
    why: Why,
    what: tuple[Money, int],
    now: datetime,
) -> Completion:
    (payment, attempt), (money, fee) = of, what
    return Completion(
        book=payment.book,
        id=new_id(),
        payment_id=payment.id,
        attempt_id=attempt.id,
        account_id=attempt.account_id,
        merchant_id=payment.merchant_id,
        mode=payment.mode,
        kind=kind,
        why=why,
        amount=money.amount,
        currency=money.currency,
        fee=fee,
        state=CompletionState.REQUESTED,
        code=None,
        channel_ref=None,
        channel_at=None,
        created_at=now,
        ended_at=None,
        queries=0,
        version=1,
    )


async def chase_completion(flow: Flow, task: ChaseCompletion, _lease: Lease) -> Again | None:
    """Take the next look at a capture or void; return when to look again, or None at its end."""
    completion = await store.GET_COMPLETION.one(flow.db, task.book, task.completion_id)
    if not completion.state.is_open:
        return None
    completion = await ask_channel(flow, completion)
    if not completion.state.is_open:
        return None
    if flow.db.clock.now() >= completion.created_at + UNDECIDED_AFTER:
        payment = await payments.payment(flow.db, completion.book, completion.payment_id)
        detail = f"{completion.kind} {completion.number} has been on its way for more than an hour"
        await open_case(flow, payment, CaseKind.UNDECIDED, detail)
    return Again(_DELAYS[min(completion.queries, len(_DELAYS) - 1)])


async def expire_authorisation(
    flow: Flow, task: ExpireAuthorisation, _lease: Lease
) -> Again | None:
    """Void what is still set aside, and come back until it is not; None at its end.

    An authorisation is let go at the channel before it is over here: what the channel keeps aside
    is the customer's money. A capture that is under way goes first.
    """
    payment = await payments.payment(flow.db, task.book, task.payment_id)
    if not payment.state.is_held:
        return None
    if payment.state is PaymentState.AUTHORISED:
        why: Why = "expired" if payment.close_requested_at is None else "merchant"
        completion = await void_payment(flow, payment, why)
        if completion.state is CompletionState.SUCCEEDED:
            return None
        if completion.state is CompletionState.FAILED:
            detail = f"the channel refused to let the authorisation go: {completion.code}"
            await open_case(flow, payment, CaseKind.UNDECIDED, detail)
    return Again(LOOK_AGAIN_AFTER)


async def let_go(flow: Flow, task: LetGo, _lease: Lease) -> None:
    """Void what was set aside for an attempt after its payment had ended.

    The channel is asked by the chase, so that a crash here leaves nothing undone.
    """
    attempt = await payments.attempt(flow.db, task.book, task.attempt_id)
    if attempt.state is AttemptState.AUTHORISED:
        return
    payment = await payments.payment(flow.db, task.book, attempt.payment_id)
    now = flow.db.clock.now()
    completion = _row((payment, attempt), "void", "late", (attempt.money, 0), now)
    async with flow.db.begin("authorisations") as tx:
        if await store.INSERT_COMPLETION.run(tx, *astuple(completion)) == 0:
            return  # it is being let go already, or was
        await _chase_write(completion, now).run(tx)

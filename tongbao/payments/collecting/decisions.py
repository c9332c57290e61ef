"""What news from a channel does to a payment: one pure decision, whoever brings it. No I/O.

News about an attempt (an answer, a callback, a bill) goes through `next_step`, however often.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final, Literal, assert_never
from uuid import UUID

from msgspec import Struct
from msgspec.structs import replace

from tongbao.infra.db import Write
from tongbao.kernel.ids import base32, new_id
from tongbao.kernel.money import Money
from tongbao.ledger.model import AccountKey, Transfer
from tongbao.ledger.rules import posting
from tongbao.parties.merchants.model import LateSuccess
from tongbao.parties.price_plans.model import Quote
from tongbao.parties.price_plans.queries import volume_write
from tongbao.payments.collecting.model import (
    AT_THE_COUNTER,
    Attempt,
    AttemptState,
    CaseKind,
    CloseReason,
    NewPayment,
    Payment,
    PaymentState,
)
from tongbao.payments.methods.asked import kept_of
from tongbao.payments.routing.model import Heard
from tongbao.rails.channels.contract.outcomes import (
    Absent,
    Authorised,
    Closed,
    Declined,
    NotSent,
    Pending,
    Succeeded,
    Unknown,
)

UNPAID: Final = {AttemptState.DECLINED, AttemptState.NOT_SENT, AttemptState.CLOSED}

News = Succeeded | Authorised | Pending | Declined | NotSent | Unknown | Absent | Closed
"""Anything a channel can say about an order, by answer, callback or bill."""


class Step(Struct, frozen=True):
    """What news does: the rows as they become, the posting it causes, the case it opens.

    ``payment`` or ``attempt`` is None where the row stays as it is. ``look_again``: the news alone
    proves nothing, so the channel is to be asked how things stand by now. ``let_go``: money is set
    aside that nobody wants any more.
    """

    payment: Payment | None = None
    attempt: Attempt | None = None
    rule: Literal["payment.captured", "late.captured"] | None = None
    case: CaseKind | None = None
    detail: str = ""
    look_again: bool = False
    let_go: bool = False
    instead: Instead | None = None

    @property
    def ends_unpaid(self) -> bool:
        """Whether the attempt ends, and no money came or will come."""
        return self.attempt is not None and self.attempt.state in UNPAID and not self.rule


class Instead(Struct, frozen=True):
    """Another attempt, to begin in the commit that ends one unpaid, so that both never live.

    ``writes`` move the payment to it, as it was seen, and make it.
    """

    attempt: Attempt
    price: Quote
    writes: tuple[Write, ...]


_NONE: Final = Step()
"""Nothing speaks against the news."""


def going_elsewhere(payment: Payment, step: Step, instead: Instead | None, now: datetime) -> Step:
    """Return the step with another attempt in the place of the payment's end, where it may be.

    It may where the step itself proves that the channel did not and will not take the money, this
    was the only call there was, and nobody has called the payment off.
    """
    is_wanted = payment.close_requested_at is None and now < payment.expires_at
    was_first = payment.state is PaymentState.CREATED
    if instead is None or not (step.ends_unpaid and was_first and is_wanted):
        return step
    price, over = instead.price, instead.attempt.channel
    cost = {"fee": price.fee, "refund_returns_fee": price.refund_returns_fee}
    why = {"price_version": price.version, "price_day": price.day, "price_volume": price.volume}
    priced = {**cost, **why, "card_kind": price.card}
    moved = replace(payment, state=PaymentState.CREATED, channel=over, **priced)
    return replace(step, payment=moved, instead=instead)


def next_step(
    payment: Payment, attempt: Attempt, news: News, now: datetime, *, is_fresh: bool = False
) -> Step | None:
    """Return what the news changes, or None when it is no news.

    Only positive evidence ends anything: `Unknown` and `Absent` never do. Success after the end is
    late money, which is booked apart and given back; a contradiction opens a case and changes
    nothing else. ``is_fresh`` says that the channel was asked after the attempt had ended. What
    becomes of an authorisation is decided with its captures and voids, not here.
    """
    match news:
        case Succeeded():
            doubt = _doubt_success(payment, attempt, news, is_fresh=is_fresh)
            return _on_success(payment, attempt, news, now) if doubt is _NONE else doubt
        case Authorised():
            doubt = _doubt_authorised(payment, attempt, news, is_fresh=is_fresh)
            return _on_authorised(payment, attempt, news, now) if doubt is _NONE else doubt
        case Absent():
            return None
        case _:
            return _on_no_money(payment, attempt, news, now)


def _on_no_money(
    payment: Payment,
    attempt: Attempt,
    news: Pending | Declined | NotSent | Closed | Unknown,
    now: datetime,
) -> Step | None:
    match news:
        case Pending():
            return _on_pending(payment, attempt, news)
        case Declined() | NotSent() | Closed():
            return _on_end(payment, attempt, news, now)
        case Unknown():
            if attempt.state is not AttemptState.CREATED:
                return None
            return Step(
                payment=replace(payment, state=PaymentState.UNKNOWN),
                attempt=replace(attempt, state=AttemptState.UNKNOWN, code=news.reason[:64]),
            )
        case _:
            assert_never(news)


def _doubt_success(
    payment: Payment, attempt: Attempt, news: Succeeded, *, is_fresh: bool
) -> Step | None:
    """Return what speaks against the news, None when it is none, or `_NONE`: it is to be booked."""
    if attempt.capture_id is not None or payment.state is PaymentState.CAPTURING:
        return None  # a capture is told of, and asked about, under its own number
    if news.money != attempt.money:
        told, asked = news.money.decimal_text(), attempt.money.decimal_text()
        return Step(
            case=CaseKind.AMOUNT_DIFFERS,
            detail=f"channel says {told}, asked {asked}",
            look_again=attempt.state in UNPAID and not is_fresh,
        )
    if attempt.state is AttemptState.CLOSED and not is_fresh:
        # What closed it may have been a reversal, which gives back what was paid: word of the
        # success can be older than that, and booking it would give the money back twice.
        return Step(look_again=True)
    if attempt.state in UNPAID and not is_fresh:
        # It said before that there is no money. Which of the two holds is asked, not guessed.
        detail = _paid_after_all(attempt, news)
        return Step(case=CaseKind.CONTRADICTION, detail=detail, look_again=True)
    detail = ""
    if attempt.state is AttemptState.SUCCEEDED:
        if news.channel_ref == attempt.channel_ref:
            return None
        detail = f"paid again under channel number {news.channel_ref}"
    elif attempt.state in {AttemptState.AUTHORISED, AttemptState.VOIDED}:
        detail = f"collected as {news.channel_ref} while it was only {attempt.state}"
    return Step(case=CaseKind.CONTRADICTION, detail=detail) if detail else _NONE


def _on_success(payment: Payment, attempt: Attempt, news: Succeeded, now: datetime) -> Step:
    paid = replace(
        attempt,
        state=AttemptState.SUCCEEDED,
        code=None,
        channel_ref=news.channel_ref,
        payer=news.payer,
        paid_at=news.at,
    )
    if payment.state.is_open or _may_reopen(payment, attempt):
        captured = replace(
            payment,
            state=PaymentState.SUCCEEDED,
            captured=payment.amount,
            failure_code=None,
            close_reason=None,
            succeeded_at=now,
            ended_at=now,
        )
        return Step(payment=captured, attempt=paid, rule="payment.captured")
    contradicts = attempt.state is not AttemptState.CLOSED
    return Step(
        payment=replace(payment, captured=payment.amount),
        attempt=paid,
        rule="late.captured",
        case=CaseKind.CONTRADICTION if contradicts else CaseKind.LATE_SUCCESS,
        detail=_paid_after_all(attempt, news),
    )


def _paid_after_all(attempt: Attempt, news: Succeeded) -> str:
    """Return the detail of a case; the same whenever it is said, so it is opened once."""
    return f"paid at {news.at.isoformat()}, and attempt {attempt.number} was {attempt.state}"


def _doubt_authorised(
    payment: Payment, attempt: Attempt, news: Authorised, *, is_fresh: bool
) -> Step | None:
    """Return what speaks against the news, None when it is none, or `_NONE`: it is to be noted."""
    if attempt.state is AttemptState.SUCCEEDED:
        return None  # older than the collecting of it
    if news.money != attempt.money:
        told, asked = news.money.decimal_text(), attempt.money.decimal_text()
        return Step(case=CaseKind.AMOUNT_DIFFERS, detail=f"channel set {told} aside, asked {asked}")
    detail = ""
    if attempt.authorised_at is not None:
        if news.channel_ref == attempt.authorisation_ref:
            return None
        detail = f"authorised again under channel number {news.channel_ref}"
    elif payment.capture_within_s is None:
        detail = f"set aside as {news.channel_ref}, and it was to be collected"
    elif attempt.state is AttemptState.CLOSED and not is_fresh:
        return Step(look_again=True)  # what closed it may have let the money go since
    return Step(case=CaseKind.CONTRADICTION, detail=detail) if detail else _NONE


def _on_authorised(payment: Payment, attempt: Attempt, news: Authorised, now: datetime) -> Step:
    set_aside = replace(
        attempt,
        channel_ref=news.channel_ref,
        payer=news.payer,
        authorised_at=news.at,
        authorisation_ref=news.channel_ref,
        authorisation_code=news.code,
    )
    if not attempt.state.is_open:
        return Step(
            attempt=set_aside,
            let_go=True,
            case=CaseKind.LATE_SUCCESS,
            detail=f"authorised at {news.at.isoformat()} after the payment had {payment.state}",
        )
    return Step(
        payment=replace(
            payment,
            state=PaymentState.AUTHORISED,
            authorised=payment.amount,
            authorised_at=news.at,
            authorised_until=now + timedelta(seconds=payment.capture_within_s or 0),
        ),
        attempt=replace(set_aside, state=AttemptState.AUTHORISED, code=None),
    )


def _may_reopen(payment: Payment, attempt: Attempt) -> bool:
    """Whether late money is still wanted: it ran out of time and nobody called it off.

    Money over a channel that the payment has left is not: its price is the other channel's.
    """
    return (
        attempt.channel == payment.channel
        and payment.late_success is LateSuccess.ACCEPT_IF_OPEN
        and (payment.state, payment.close_reason) == (PaymentState.CLOSED, CloseReason.EXPIRED)
        and payment.captured == 0
    )


def _on_pending(payment: Payment, attempt: Attempt, news: Pending) -> Step | None:
    if attempt.state not in {AttemptState.CREATED, AttemptState.UNKNOWN}:
        return None
    return Step(
        payment=replace(payment, state=PaymentState.PENDING),
        attempt=replace(
            attempt,
            state=AttemptState.PENDING,
            code=news.reason[:64] or None,
            action=news.action or attempt.action,
        ),
    )


def _on_end(
    payment: Payment, attempt: Attempt, news: Declined | NotSent | Closed, now: datetime
) -> Step | None:
    if attempt.state in {AttemptState.SUCCEEDED, AttemptState.AUTHORISED}:
        if not isinstance(news, Declined):
            # A fully refunded trade reads as closed at some channels, and what was not sent is one
            # call only: another one was.
            return None
        return Step(case=CaseKind.CONTRADICTION, detail=f"declined with {news.code} after success")
    if not attempt.state.is_open:
        return None
    match news:
        case Closed():
            reason = close_reason(payment, attempt, now)
            return Step(
                payment=replace(
                    payment, state=PaymentState.CLOSED, close_reason=reason, ended_at=now
                ),
                attempt=replace(attempt, state=AttemptState.CLOSED, code=news.code[:64] or None),
            )
        case Declined():
            ended, code = AttemptState.DECLINED, news.code
        case NotSent():
            if attempt.state is not AttemptState.CREATED:
                return None  # it was sent once already, so this repeat proves nothing
            ended, code = AttemptState.NOT_SENT, "channel.not_reached"
        case _:
            assert_never(news)
    return Step(
        payment=replace(payment, state=PaymentState.FAILED, failure_code=code[:64], ended_at=now),
        attempt=replace(attempt, state=ended, code=code[:64]),
    )


def heard_of(before: Attempt, after: Attempt, news: object, call: tuple[str, int] | None) -> Heard:
    """Return what routing is told; ``call``: its purpose and how long it took, if there was one."""
    purpose, duration_ms = call or ("", 0)
    return Heard(
        account_id=before.account_id,
        pay_mode=before.pay_mode,
        attempt_id=before.id,
        book=before.book,
        purpose=purpose,
        before=before.state,
        after=after.state,
        outcome=type(news).__name__.lower() if call is not None else None,
        duration_ms=duration_ms,
    )


def close_reason(payment: Payment, attempt: Attempt, now: datetime) -> CloseReason:
    """Return why an unpaid payment ended: called off, out of time, or not confirmed in time."""
    if payment.close_requested_at is not None:
        return CloseReason.MERCHANT
    if attempt.pay_mode in AT_THE_COUNTER and now < payment.expires_at:
        return CloseReason.NOT_PAID
    return CloseReason.EXPIRED


_ATTEMPT_STATE: Final = {
    PaymentState.CREATED: AttemptState.CREATED,
    PaymentState.SUCCEEDED: AttemptState.SUCCEEDED,
    PaymentState.FAILED: AttemptState.DECLINED,
}


def begun(
    asked: NewPayment,
    payment_id: UUID,
    now: datetime,
    state: PaymentState,
    *,
    own_wallet: UUID | None = None,
) -> tuple[Payment, Attempt]:
    """Return the rows of a payment that begins now: to be collected, or at its end already.

    ``own_wallet`` is the wallet of ours that has paid it at this moment.
    """
    is_paid = state is PaymentState.SUCCEEDED
    payment = Payment(
        book=asked.book,
        id=payment_id,
        merchant_id=asked.merchant_id,
        mode=asked.mode,
        merchant_order_no=asked.merchant_order_no,
        request_hash=asked.fingerprint,
        amount=asked.money.amount,
        currency=asked.money.currency,
        subject=asked.subject,
        channel=asked.channel,
        pay_mode=asked.pay_mode,
        state=state,
        captured=asked.money.amount if is_paid else 0,
        refunded=0,
        fee=asked.price.fee,
        fee_returned=0,
        refund_returns_fee=asked.price.refund_returns_fee,
        late_success=asked.late_success,
        failure_code=None,
        close_reason=None,
        close_requested_at=None,
        metadata=asked.metadata,
        created_at=now,
        expires_at=now + asked.expires_in,
        succeeded_at=now if is_paid else None,
        ended_at=None if state.is_open else now,
        version=1,
        capture_within_s=asked.capture_within_s,
        price_version=asked.price.version,
        price_day=asked.price.day,
        price_volume=asked.price.volume,
        card_kind=asked.price.card,
    )
    return payment, _attempt(asked, payment, own_wallet=own_wallet)


def _attempt(asked: NewPayment, payment: Payment, *, own_wallet: UUID | None) -> Attempt:
    """Return the row of the first try to collect a payment that begins now."""
    attempt_id, now = new_id(), payment.created_at
    return Attempt(
        book=asked.book,
        id=attempt_id,
        payment_id=payment.id,
        merchant_id=asked.merchant_id,
        mode=asked.mode,
        channel=asked.channel,
        account_id=asked.account_id,
        pay_mode=asked.pay_mode,
        amount=asked.money.amount,
        currency=asked.money.currency,
        state=_ATTEMPT_STATE[payment.state],
        code=None,
        channel_ref=None if own_wallet is None else base32(attempt_id),
        payer=None if own_wallet is None else str(own_wallet),
        action=None,
        how=kept_of(asked.how, asked.card),
        client_ip=asked.client_ip,
        created_at=now,
        paid_at=None if own_wallet is None else now,
        queries=0,
    )


def go_together(payment: Payment, attempt: Attempt) -> bool:
    """Whether both rows are of one moment: open, with money set aside, or ended, both of them."""
    of_payment = (payment.state.is_open, payment.state.is_held)
    return of_payment == (attempt.state.is_open, attempt.state.is_held)


def counted_writes(payment: Payment) -> tuple[Write, ...]:
    """Return the write that counts a payment that succeeds in its month, if its price does.

    It comes after the payment's own row: whoever waits for the month's row holds no other's.
    """
    if payment.state is not PaymentState.SUCCEEDED or payment.price_volume is None:
        return ()
    of = (payment.currency, payment.price_day or payment.created_at.date(), payment.captured)
    return (volume_write(payment.book, payment.merchant_id, payment.mode, of),)


def capture_transfers(rule: str, payment: Payment, attempt: Attempt) -> tuple[Transfer, ...]:
    """Return the transfers that book the customer's money, as the payment has it, by the rule."""
    currency = payment.currency
    return posting.transfers(
        rule,
        reference=payment.id,
        accounts={
            "channel_receivable": AccountKey("channel_receivable", currency, attempt.account_id),
            "merchant_payable": AccountKey("merchant_payable", currency, payment.merchant_id),
        },
        amounts={"gross": payment.taken, "fee": Money(payment.fee, currency)},
    )

"""What news from a channel does to a payment: one pure decision, whoever brings it. No I/O.

News about an attempt (an answer, a callback, a bill) goes through `next_step`, however often.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final, Literal, assert_never

from msgspec import Struct
from msgspec.structs import replace

from tongbao.parties.merchants.model import LateSuccess
from tongbao.payments.collecting.model import (
    AT_THE_COUNTER,
    Attempt,
    AttemptState,
    CaseKind,
    CloseReason,
    Payment,
    PaymentState,
)
from tongbao.rails.channels.contract import (
    Absent,
    Closed,
    Declined,
    NotSent,
    Pending,
    Succeeded,
    Unknown,
)

_UNPAID: Final = {AttemptState.DECLINED, AttemptState.NOT_SENT, AttemptState.CLOSED}

News = Succeeded | Pending | Declined | NotSent | Unknown | Absent | Closed
"""Anything a channel can say about an order, by answer, callback or bill."""


class Step(Struct, frozen=True):
    """What news does: the rows as they become, the posting it causes, the case it opens.

    ``payment`` or ``attempt`` is None where the row stays as it is. ``look_again``: the news alone
    proves nothing, so the channel is to be asked how things stand by now.
    """

    payment: Payment | None = None
    attempt: Attempt | None = None
    rule: Literal["payment.captured", "late.captured"] | None = None
    case: CaseKind | None = None
    detail: str = ""
    look_again: bool = False


def next_step(
    payment: Payment, attempt: Attempt, news: News, now: datetime, *, is_fresh: bool = False
) -> Step | None:
    """Return what the news changes, or None when it is no news.

    Only positive evidence ends anything: `Unknown` and `Absent` never do. Success after the end is
    late money, which is booked apart and given back; a contradiction opens a case and changes
    nothing else. ``is_fresh`` says that the channel was asked after the attempt had ended.
    """
    match news:
        case Succeeded():
            return _on_success(payment, attempt, news, now, is_fresh=is_fresh)
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
        case Absent():
            return None
        case _:
            assert_never(news)


def _on_success(
    payment: Payment, attempt: Attempt, news: Succeeded, now: datetime, *, is_fresh: bool
) -> Step | None:
    if news.money != attempt.money:
        told, asked = news.money.decimal_text(), attempt.money.decimal_text()
        return Step(
            case=CaseKind.AMOUNT_DIFFERS,
            detail=f"channel says {told}, asked {asked}",
            look_again=attempt.state in _UNPAID and not is_fresh,
        )
    if attempt.state is AttemptState.SUCCEEDED:
        if news.channel_ref == attempt.channel_ref:
            return None
        return Step(
            case=CaseKind.CONTRADICTION,
            detail=f"paid again under channel number {news.channel_ref}",
        )
    if attempt.state is AttemptState.CLOSED and not is_fresh:
        # What closed it may have been a reversal, which gives back what was paid: word of the
        # success can be older than that, and booking it would give the money back twice.
        return Step(look_again=True)

    paid = replace(
        attempt,
        state=AttemptState.SUCCEEDED,
        code=None,
        channel_ref=news.channel_ref,
        payer=news.payer,
        paid_at=news.at,
    )
    if payment.state.is_open or _may_reopen(payment):
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
        detail=f"paid at {news.at.isoformat()} after the payment had {payment.state}",
    )


def _may_reopen(payment: Payment) -> bool:
    """Whether late money is still wanted: it ran out of time and nobody called it off."""
    return (
        payment.late_success is LateSuccess.ACCEPT_IF_OPEN
        and payment.state is PaymentState.CLOSED
        and payment.close_reason is CloseReason.EXPIRED
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
    if attempt.state is AttemptState.SUCCEEDED:
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


def close_reason(payment: Payment, attempt: Attempt, now: datetime) -> CloseReason:
    """Return why an unpaid payment ended: called off, out of time, or not confirmed in time."""
    if payment.close_requested_at is not None:
        return CloseReason.MERCHANT
    if attempt.pay_mode in AT_THE_COUNTER and now < payment.expires_at:
        return CloseReason.NOT_PAID
    return CloseReason.EXPIRED

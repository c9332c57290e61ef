"""When a payment may be tried again on another account: only where nothing else can be paid."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.payments.rows import NOON, new_attempt, new_payment
from tests.payments.test_decisions import NEWS, PAID
from tongbao.parties.merchants.model import LateSuccess
from tongbao.parties.price_plans.model import Quote
from tongbao.payments.collecting.decisions import UNPAID, Instead, Step, going_elsewhere, next_step
from tongbao.payments.collecting.model import AttemptState, CloseReason, Payment, PaymentState
from tongbao.rails.channels.contract.outcomes import Closed, Declined, NotSent

OTHER = Instead(
    new_attempt(id=UUID(int=9), channel="alipay"),
    price=Quote(1, 7, False, date(2026, 11, 21)),
    writes=(),
)
MOMENTS = st.integers(-10, 3600).map(lambda seconds: NOON + timedelta(seconds=seconds))
TOGETHER = st.sampled_from(
    [
        (PaymentState.CREATED, AttemptState.CREATED),
        (PaymentState.PENDING, AttemptState.PENDING),
        (PaymentState.UNKNOWN, AttemptState.UNKNOWN),
        (PaymentState.FAILED, AttemptState.DECLINED),
        (PaymentState.CREATED, AttemptState.DECLINED),  # replaced before
        (PaymentState.CREATED, AttemptState.NOT_SENT),
        (PaymentState.PENDING, AttemptState.CLOSED),
    ]
)


def payment_of(state: PaymentState, close_requested_at: datetime | None) -> Payment:
    ended = None if state.is_open else NOON
    return new_payment(state=state, close_requested_at=close_requested_at, ended_at=ended)


@given(TOGETHER, NEWS, MOMENTS, st.none() | MOMENTS, st.booleans())
def test_another_attempt_begins_only_where_this_one_ends_unpaid(
    states: tuple[PaymentState, AttemptState],
    news: object,
    now: datetime,
    called_off: datetime | None,
    is_fresh: bool,
) -> None:
    payment = payment_of(states[0], called_off)
    attempt = new_attempt(state=states[1])

    step = next_step(payment, attempt, news, now, is_fresh=is_fresh) or Step()
    moved = going_elsewhere(payment, step, OTHER, now)

    if moved.instead is None:
        assert moved == step
        return
    assert isinstance(news, Declined | NotSent | Closed)
    assert attempt.state is AttemptState.CREATED
    assert moved.attempt is not None
    assert moved.attempt.state in UNPAID
    assert moved.rule is None
    assert called_off is None
    assert now < payment.expires_at
    assert moved.payment is not None
    assert (moved.payment.state, moved.payment.channel, moved.payment.fee) == (
        PaymentState.CREATED,
        "alipay",
        7,
    )
    assert (moved.payment.ended_at, moved.payment.failure_code) == (None, None)


@given(NEWS, MOMENTS)
def test_without_another_place_the_step_is_as_it_was(news: object, now: datetime) -> None:
    payment, attempt = payment_of(PaymentState.CREATED, None), new_attempt()
    step = next_step(payment, attempt, news, now) or Step()

    assert going_elsewhere(payment, step, None, now) == step


def test_a_refusal_of_the_only_call_goes_elsewhere() -> None:
    for news in (Declined("NO", retry_elsewhere=True), NotSent("refused")):
        payment, attempt = payment_of(PaymentState.CREATED, None), new_attempt()

        step = next_step(payment, attempt, news, NOON)

        assert step is not None
        assert going_elsewhere(payment, step, OTHER, NOON).instead is OTHER


@pytest.mark.parametrize("over", ["alipay", "wechat_pay"])
def test_late_money_over_a_channel_that_was_left_opens_nothing_again(over: str) -> None:
    """Its price was never agreed to: the payment's is that of the channel which took its place."""
    payment = new_payment(
        state=PaymentState.CLOSED,
        close_reason=CloseReason.EXPIRED,
        ended_at=NOON,
        late_success=LateSuccess.ACCEPT_IF_OPEN,
        channel=over,
    )
    attempt = new_attempt(state=AttemptState.NOT_SENT, channel="wechat_pay")

    step = next_step(payment, attempt, PAID, NOON, is_fresh=True)

    assert step is not None
    assert step.rule == ("payment.captured" if over == attempt.channel else "late.captured")

"""What news does to captures and voids, as properties of the pure decision."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tests.payments.rows import AMOUNT, NOON, new_attempt, new_payment
from tests.payments.test_decisions import transitions_in_the_schema
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import Money
from tongbao.payments.authorisations.model import (
    Completion,
    CompletionNews,
    CompletionState,
    CompletionStep,
    Rows,
    next_completion_step,
)
from tongbao.payments.collecting.model import AttemptState, CaseKind, PaymentState
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

PART = Money(1500, "CNY")
MOMENTS = st.integers(0, 7200).map(lambda seconds: NOON + timedelta(seconds=seconds))
NEWS = st.one_of(
    st.builds(
        Succeeded,
        st.sampled_from(["5200001", "5200002"]),
        st.sampled_from([PART, PART, PART, AMOUNT]),
        MOMENTS,
    ),
    st.builds(Authorised, st.just("4200001"), st.just(AMOUNT), MOMENTS),
    st.builds(Pending, st.none(), st.just("05")),
    st.builds(Declined, st.sampled_from(["51", "78"])),
    st.builds(NotSent, st.just("connection refused")),
    st.builds(Unknown, st.just("no answer")),
    st.builds(Absent, st.just("34")),
    st.builds(Closed, st.just("")),
)
HEARD = st.lists(st.tuples(NEWS, MOMENTS), max_size=10)


def completion(kind: Any, why: Any) -> Completion:
    money = PART if kind == "capture" else AMOUNT
    return Completion(
        book=1,
        id=UUID(int=9),
        payment_id=UUID(int=1),
        attempt_id=UUID(int=3),
        account_id=UUID(int=4),
        merchant_id=UUID(int=2),
        mode=Mode.SANDBOX,
        kind=kind,
        why=why,
        amount=money.amount,
        currency="CNY",
        fee=12 if kind == "capture" else 0,
        state=CompletionState.REQUESTED,
        code=None,
        channel_ref=None,
        channel_at=None,
        created_at=NOON,
        ended_at=None,
        queries=0,
        version=1,
    )


def beginning(kind: Any, why: Any) -> Rows:
    attempt = new_attempt(
        state=AttemptState.AUTHORISED,
        channel_ref="4200001",
        authorisation_ref="4200001",
        authorised_at=NOON,
    )
    payment = new_payment(
        state=PaymentState.CAPTURING if kind == "capture" else PaymentState.VOIDING,
        capture_within_s=3600,
        authorised=AMOUNT.amount,
        capturing=PART.amount if kind == "capture" else 0,
        authorised_at=NOON,
        authorised_until=NOON + timedelta(hours=1),
    )
    if why == "late":
        payment = replace(payment, state=PaymentState.CLOSED, authorised=0, ended_at=NOON)
        attempt = replace(attempt, state=AttemptState.CLOSED)
    return payment, attempt, completion(kind, why)


BEGINNINGS = st.sampled_from(
    [("capture", "merchant"), ("void", "merchant"), ("void", "expired"), ("void", "late")]
).map(lambda how: beginning(*how))

Taken = tuple[Rows, CompletionNews, CompletionStep, Rows]


def live(rows: Rows, heard: Sequence[Any]) -> list[Taken]:
    """Apply news after news, as `record_completion_news` does."""
    taken = []
    for news, now in heard:
        before = rows
        step = next_completion_step(rows, news, now) or CompletionStep()
        rows = (
            step.payment or before[0],
            step.attempt or before[1],
            step.completion or before[2],
        )
        taken.append((before, news, step, rows))
    return taken


@given(BEGINNINGS, HEARD)
def test_nothing_ends_without_positive_evidence(rows: Rows, heard: Any) -> None:
    for before, news, _, after in live(rows, heard):
        if before[2].state.is_open and not after[2].state.is_open:
            assert isinstance(news, Succeeded | Closed | Declined | NotSent)
        if isinstance(news, NotSent) and before[2].state is not CompletionState.REQUESTED:
            assert after == before


@given(BEGINNINGS, HEARD)
def test_money_is_taken_once_as_asked_and_never_by_a_void(rows: Rows, heard: Any) -> None:
    taken = live(rows, heard)
    for before, news, step, (payment, attempt, done) in taken:
        if step.takes:
            assert isinstance(news, Succeeded)
            assert (done.kind, news.money) == ("capture", done.money)
            assert (payment.captured, payment.capturing, payment.fee) == (done.amount, 0, done.fee)
            assert (attempt.capture_id, attempt.taken) == (done.id, done.money)
            assert (attempt.taken_number, attempt.channel_ref) == (done.number, news.channel_ref)
        else:
            assert payment.captured == before[0].captured
    assert sum(step.takes for _, _, step, _ in taken) <= 1


@given(BEGINNINGS, HEARD)
def test_an_end_is_never_left(rows: Rows, heard: Any) -> None:
    for before, _, step, after in live(rows, heard):
        if not before[2].state.is_open:
            assert (step.payment, step.attempt, step.completion) == (None, None, None)
            assert after == before


@given(BEGINNINGS, HEARD)
def test_what_contradicts_the_end_opens_a_case(rows: Rows, heard: Any) -> None:
    for before, news, step, _ in live(rows, heard):
        if before[2].state is CompletionState.FAILED and isinstance(news, Succeeded):
            assert step.case in {CaseKind.CONTRADICTION, CaseKind.AMOUNT_DIFFERS}
        if before[2].state is CompletionState.SUCCEEDED and isinstance(news, Declined):
            assert step.case is CaseKind.CONTRADICTION


@given(BEGINNINGS, HEARD)
def test_the_rows_go_together_and_as_the_database_allows(rows: Rows, heard: Any) -> None:
    allowed = transitions_in_the_schema()
    for before, _, step, (payment, attempt, done) in live(rows, heard):
        if step.payment is not None:
            assert (before[0].state, payment.state) in allowed
        assert payment.state.is_held == attempt.state.is_held
        assert (payment.capturing > 0) == (payment.state is PaymentState.CAPTURING)
        assert (done.ended_at is None) == done.state.is_open
        if payment.state is PaymentState.VOIDED:
            assert (payment.close_reason is not None, payment.captured) == (True, 0)
            assert attempt.state is AttemptState.VOIDED
        if payment.state.is_held:
            assert done.state.is_open == (payment.state is not PaymentState.AUTHORISED)
        if done.why == "late":
            assert (payment, attempt) == rows[:2], "its payment had ended long ago"


@given(BEGINNINGS, HEARD)
def test_the_same_news_twice_changes_nothing_more(rows: Rows, heard: Any) -> None:
    for news, now in heard:
        [(_, _, _, once)] = live(rows, [(news, now)])
        [(_, _, again, twice)] = live(once, [(news, now)])
        assert twice == once
        assert not again.takes
        rows = once

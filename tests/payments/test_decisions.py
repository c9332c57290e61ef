"""What news does to payments and refunds, as properties of the two pure decisions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from importlib import resources
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tests.payments.rows import AMOUNT, NOON, new_attempt, new_payment, new_refund
from tongbao.kernel.money import Money
from tongbao.parties.merchants.model import LateSuccess
from tongbao.payments.collecting.decisions import UNPAID, News, Step, next_step
from tongbao.payments.collecting.model import (
    Attempt,
    AttemptState,
    CaseKind,
    CloseReason,
    Payment,
    PaymentState,
)
from tongbao.payments.refunds.model import (
    Refund,
    RefundNews,
    RefundState,
    RefundStep,
    next_refund_step,
)
from tongbao.payments.refunds.refunds import RefundRequest, _row
from tongbao.rails.channels.contract.orders import PayMode
from tongbao.rails.channels.contract.outcomes import (
    Absent,
    Authorised,
    Closed,
    Declined,
    NotSent,
    Pending,
    ShowQr,
    Succeeded,
    Unknown,
)

PAID = Succeeded("4200001", AMOUNT, NOON, "o-customer")
MOMENTS = st.integers(0, 7200).map(lambda seconds: NOON + timedelta(seconds=seconds))

NEWS = st.one_of(
    st.builds(
        Succeeded,
        st.sampled_from(["4200001", "4200002"]),
        st.sampled_from([AMOUNT, AMOUNT, AMOUNT, Money(AMOUNT.amount + 1, "CNY")]),
        MOMENTS,
        st.none() | st.just("o-customer"),
    ),
    st.builds(
        Pending,
        st.none() | st.just(ShowQr("weixin://wxpay/bizpayurl?pr=1")),
        st.just("NOTPAY"),
    ),
    st.builds(
        Authorised,
        st.sampled_from(["4200001", "4200002"]),
        st.sampled_from([AMOUNT, AMOUNT, AMOUNT, Money(AMOUNT.amount + 1, "CNY")]),
        MOMENTS,
        st.none() | st.just("o-customer"),
        st.none() | st.just("A12345"),
    ),
    st.builds(Declined, st.sampled_from(["NOT_ENOUGH", "PAYERROR"])),
    st.builds(NotSent, st.just("connection refused")),
    st.builds(Unknown, st.just("no answer")),
    st.builds(Absent, st.just("ORDER_NOT_EXIST")),
    st.builds(Closed, st.just("CLOSED")),
)
HEARD = st.lists(st.tuples(NEWS, MOMENTS, st.booleans()), max_size=12)
BEGINNINGS = st.builds(
    lambda mode, late, called_off, within_s: (
        new_payment(
            pay_mode=mode,
            late_success=late,
            close_requested_at=NOON if called_off else None,
            capture_within_s=within_s,
        ),
        new_attempt(pay_mode=mode),
    ),
    st.sampled_from(PayMode),
    st.sampled_from(LateSuccess),
    st.booleans(),
    st.none() | st.just(3600),
)

Rows = tuple[Payment, Attempt]
Taken = tuple[Rows, News, Step, Rows]
"""One step: the rows before, the news, what it does, the rows after."""


def live(beginning: Rows, heard: Sequence[tuple[News, datetime, bool]]) -> list[Taken]:
    """Apply news after news, as `record_news` does, and return every step that was taken."""
    rows, taken = beginning, []
    for news, now, is_fresh in heard:
        before = rows
        step = next_step(*before, news, now, is_fresh=is_fresh) or Step()
        rows = (step.payment or before[0], step.attempt or before[1])
        taken.append((before, news, step, rows))
    return taken


@given(BEGINNINGS, HEARD)
def test_nothing_ends_without_positive_evidence(beginning: Rows, heard: Any) -> None:
    for before, news, _, after in live(beginning, heard):
        if before[0].state.is_open and not after[0].state.is_open:
            assert isinstance(news, Succeeded | Authorised | Declined | NotSent | Closed)


@given(BEGINNINGS, HEARD)
def test_money_is_set_aside_only_where_it_was_asked_for(beginning: Rows, heard: Any) -> None:
    for before, news, step, (payment, attempt) in live(beginning, heard):
        assert payment.state.is_held == attempt.state.is_held == (payment.state == "authorised")
        if payment.state.is_held:
            assert payment.capture_within_s is not None
            assert (payment.authorised, payment.captured) == (payment.amount, 0)
            assert attempt.authorisation_ref is not None
        if before[0].state.is_held:
            # Nothing but its captures and voids ends an authorisation.
            assert (step.payment, step.attempt, step.rule) == (None, None, None)
        if step.let_go:
            assert isinstance(news, Authorised)
            assert not before[0].state.is_open
            assert step.case is CaseKind.LATE_SUCCESS


@given(BEGINNINGS, HEARD)
def test_silence_and_absence_never_end_anything(beginning: Rows, heard: Any) -> None:
    for before, news, step, after in live(beginning, heard):
        if isinstance(news, Unknown | Absent):
            assert before[0].state.is_open == after[0].state.is_open
            assert (step.rule, step.case) == (None, None)
            assert before[0].captured == after[0].captured


@given(BEGINNINGS, HEARD)
def test_an_end_is_left_only_by_late_money(beginning: Rows, heard: Any) -> None:
    for before, news, step, after in live(beginning, heard):
        if before[0].state.is_open or step.payment is None:
            continue
        assert isinstance(news, Succeeded)
        assert before[0].captured == 0
        if after[0].state is before[0].state:
            assert step.rule == "late.captured"
            assert after[0] == replace(before[0], captured=AMOUNT.amount)
        else:
            assert (before[0].state, after[0].state) == (
                PaymentState.CLOSED,
                PaymentState.SUCCEEDED,
            )
            assert before[0].late_success is LateSuccess.ACCEPT_IF_OPEN
            assert before[0].close_reason is CloseReason.EXPIRED
            assert after[0].close_reason is None


@given(BEGINNINGS, HEARD)
def test_the_same_news_twice_changes_nothing_more(beginning: Rows, heard: Any) -> None:
    rows = beginning
    for news, now, is_fresh in heard:
        first = next_step(*rows, news, now, is_fresh=is_fresh) or Step()
        rows = (first.payment or rows[0], first.attempt or rows[1])
        again = next_step(*rows, news, now, is_fresh=is_fresh)
        if again is None:
            continue
        assert (again.payment, again.attempt, again.rule) == (None, None, None)
        # A case that is seen twice is one case; what was late once is not asked about for ever.
        assert (again.case, again.detail) == (first.case, first.detail) or first.rule is None


@given(BEGINNINGS, HEARD)
def test_money_is_captured_whole_or_not_at_all_and_once(beginning: Rows, heard: Any) -> None:
    taken = live(beginning, heard)
    for before, news, step, after in taken:
        assert after[0].captured in {0, after[0].amount}
        assert (step.rule is not None) == (after[0].captured > before[0].captured)
        if step.rule is not None:
            assert isinstance(news, Succeeded)
            assert news.money == AMOUNT
            assert after[1].state is AttemptState.SUCCEEDED
            assert (after[1].channel_ref, after[1].paid_at) == (news.channel_ref, news.at)
    assert sum(step.rule is not None for _, _, step, _ in taken) <= 1


@given(BEGINNINGS, HEARD)
def test_every_step_is_one_the_database_allows(beginning: Rows, heard: Any) -> None:
    allowed = transitions_in_the_schema()
    for before, _, step, after in live(beginning, heard):
        if step.payment is not None:
            assert (before[0].state, after[0].state) in allowed
        payment = after[0]
        is_running = payment.state.is_open or payment.state.is_held
        assert (payment.ended_at is None) == is_running
        assert payment.state is not PaymentState.CLOSED or payment.close_reason is not None
        assert payment.state is not PaymentState.SUCCEEDED or payment.captured == payment.amount


def transitions_in_the_schema() -> set[tuple[str, str]]:
    folder = resources.files("tongbao.infra").joinpath("migrations")
    text = folder.joinpath("0006_pre_payments.sql").read_text("utf-8")
    rules = text.split("from_state || '>' || to_state = any (array[", 1)[1].split("]", 1)[0]
    return set(re.findall(r"'(\w+)>(\w+)'", rules))


@given(BEGINNINGS, HEARD)
def test_a_payment_is_open_exactly_while_its_attempt_is(beginning: Rows, heard: Any) -> None:
    for _, _, step, (payment, attempt) in live(beginning, heard):
        assert payment.state.is_open == attempt.state.is_open
        assert (step.payment is None) == (step.attempt is None or step.let_go)


@given(BEGINNINGS, HEARD)
def test_an_attempt_without_money_is_believed_to_be_paid_only_when_asked_since(
    beginning: Rows, heard: Any
) -> None:
    """What closed it may have been a reversal, in which the money went back; what was declined or
    never sent contradicts itself, which people see at once."""
    rows = beginning
    for news, now, is_fresh in heard:
        step = next_step(*rows, news, now, is_fresh=is_fresh) or Step()
        if rows[1].state in UNPAID and isinstance(news, Succeeded) and not is_fresh:
            assert (step.rule, step.look_again) == (None, True)
            assert (step.case is None) <= (rows[1].state is AttemptState.CLOSED)
        rows = (step.payment or rows[0], step.attempt or rows[1])


@given(BEGINNINGS, HEARD)
def test_success_after_the_end_is_never_silent(beginning: Rows, heard: Any) -> None:
    for before, news, step, after in live(beginning, heard):
        if not isinstance(news, Succeeded) or before[0].state.is_open:
            continue
        known = before[1].channel_ref == news.channel_ref and news.money == AMOUNT
        assert known or step.case or step.look_again or after[0].state is PaymentState.SUCCEEDED


def test_the_wrong_amount_opens_a_case_whatever_the_state() -> None:
    wrong = replace(PAID, money=Money(AMOUNT.amount + 1, "CNY"))
    paid = next_step(new_payment(), new_attempt(), PAID, NOON)
    assert paid is not None

    for rows in ((new_payment(), new_attempt()), (paid.payment, paid.attempt)):
        step = next_step(*rows, wrong, NOON)
        assert step is not None
        assert (step.case, step.payment, step.rule) == (CaseKind.AMOUNT_DIFFERS, None, None)


def test_a_call_that_never_left_says_nothing_about_one_that_did() -> None:
    asked = next_step(new_payment(), new_attempt(), Pending(ShowQr("weixin://1")), NOON)
    assert asked is not None

    assert next_step(asked.payment, asked.attempt, NotSent("refused"), NOON) is None
    paid = next_step(asked.payment, asked.attempt, PAID, NOON)
    assert paid is not None
    assert next_step(paid.payment, paid.attempt, NotSent("refused"), NOON) is None


# Refunds

REFUND_NEWS = st.one_of(
    st.builds(
        Succeeded,
        st.sampled_from(["5030001", "5030002"]),
        st.sampled_from([Money(500, "CNY"), Money(500, "CNY"), Money(501, "CNY")]),
        MOMENTS,
    ),
    st.builds(Pending, st.none(), st.just("PROCESSING")),
    st.builds(Declined, st.sampled_from(["NOT_ENOUGH", "REFUND_CLOSED"])),
    st.builds(NotSent, st.just("connection refused")),
    st.builds(Unknown, st.just("no answer")),
    st.builds(Absent, st.just("RESOURCE_NOT_EXISTS")),
)
REFUND_HEARD = st.lists(st.tuples(REFUND_NEWS, MOMENTS), max_size=12)
REFUNDS = st.sampled_from([new_refund(), new_refund(kind="late", fee_back=0)])

RefundTaken = tuple[Refund, RefundNews, RefundStep, Refund]


def live_refund(
    beginning: Refund, heard: Sequence[tuple[RefundNews, datetime]]
) -> list[RefundTaken]:
    refund, taken = beginning, []
    for news, now in heard:
        step = next_refund_step(refund, news, now) or RefundStep()
        after = step.refund or refund
        taken.append((refund, news, step, after))
        refund = after
    return taken


@given(REFUNDS, REFUND_HEARD)
def test_a_refund_ends_on_positive_evidence_only(beginning: Refund, heard: Any) -> None:
    for before, news, _, after in live_refund(beginning, heard):
        if before.state.is_open and not after.state.is_open:
            assert isinstance(news, Succeeded | Declined)
        if isinstance(news, Unknown | Absent | NotSent | Pending):
            assert before.state.is_open == after.state.is_open


@given(REFUNDS, REFUND_HEARD)
def test_a_refunds_end_is_final(beginning: Refund, heard: Any) -> None:
    for before, news, step, after in live_refund(beginning, heard):
        if before.state.is_open:
            continue
        assert after == before
        assert step.ledger is None
        if isinstance(news, Succeeded) and before.state is RefundState.FAILED:
            assert step.case is CaseKind.CONTRADICTION
        if isinstance(news, Declined) and before.state is RefundState.SUCCEEDED:
            assert step.case is CaseKind.CONTRADICTION


@given(REFUNDS, REFUND_HEARD)
def test_a_hold_is_posted_or_released_once(beginning: Refund, heard: Any) -> None:
    taken = live_refund(beginning, heard)
    moves = [step.ledger for _, _, step, _ in taken if step.ledger]
    assert len(moves) <= 1
    for _, _, step, after in taken:
        ended = {"post": RefundState.SUCCEEDED, "void": RefundState.FAILED}
        if step.ledger is not None:
            assert after.state is ended[step.ledger]
            assert after.ended_at is not None
        assert (after.ended_at is None) == after.state.is_open


@given(REFUNDS, REFUND_HEARD)
def test_the_same_news_of_a_refund_twice_changes_nothing_more(
    beginning: Refund, heard: Any
) -> None:
    refund = beginning
    for news, now in heard:
        first = next_refund_step(refund, news, now) or RefundStep()
        refund = first.refund or refund
        again = next_refund_step(refund, news, now)
        assert again is None or again == replace(first, refund=None, ledger=None)


@given(REFUND_HEARD)
def test_late_money_never_stays_here_by_a_failed_refund(heard: Any) -> None:
    late = new_refund(kind="late", fee_back=0)
    for _, news, step, after in live_refund(late, heard):
        assert after.state is not RefundState.FAILED
        if isinstance(news, Declined):
            assert step.case in {CaseKind.REFUND_NEEDS_PEOPLE, CaseKind.CONTRADICTION}


PRICES = st.integers(1, 10_000).flatmap(lambda paid: st.tuples(st.just(paid), st.integers(0, paid)))


@given(PRICES, st.lists(st.integers(1, 4_000) | st.integers(-6, -1), max_size=16))
def test_refunds_return_the_fee_in_proportion_and_never_more(
    price: tuple[int, int], steps: list[int]
) -> None:
    """A positive step asks for a refund; a negative one makes an earlier one fail."""
    amount, fee = price
    payment = new_payment(
        amount=amount,
        captured=amount,
        fee=fee,
        refund_returns_fee=True,
        state=PaymentState.SUCCEEDED,
    )
    kept: list[Refund] = []
    any_failed = False
    for step in steps:
        if step > 0 and payment.refunded + step <= amount:
            request = RefundRequest("R-1", Money(step, "CNY"), "")
            refund = _row(payment, new_attempt(), request, payment.id, kind="merchant", now=NOON)
            assert 0 <= refund.fee_back <= min(step, fee - payment.fee_returned)
            kept.append(refund)
        elif step < 0 and -step <= len(kept):
            kept.pop(step)
            any_failed = True
        payment = replace(
            payment,
            refunded=sum(refund.amount for refund in kept),
            fee_returned=sum(refund.fee_back for refund in kept),
        )
    if payment.refunded == amount and not any_failed:
        assert payment.fee_returned == fee

"""What calls say about an account, and when its breaker turns."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tongbao.payments.routing.health import (
    BREAKER_WINDOW,
    BUCKET,
    CALLS_MIN,
    PROBE_PATIENCE,
    PROBES,
    REST,
    REST_MAX,
    Breaker,
    Recent,
    Tally,
    bucket_of,
    judge,
    new_breaker,
    rate_of,
    rest_after,
    tally_of,
    verdict,
)
from tongbao.payments.routing.model import Gate, Heard
from tongbao.rails.channels.contract.orders import PayMode

ACCOUNT = UUID(int=1)
NOW = datetime(2026, 11, 22, 3, 0, 7, tzinfo=UTC)


def heard(before: str, after: str, **more: Any) -> Heard:
    told = {"pay_mode": PayMode.QR, "purpose": "pay", "outcome": "pending", "duration_ms": 40}
    return Heard(
        account_id=ACCOUNT, attempt_id=UUID(int=2), book=1, before=before, after=after,
        **told | more,
    )  # fmt: skip


def recent(calls: int, lost: int, at: datetime = NOW) -> list[Recent]:
    return [Recent(ACCOUNT, bucket_of(at), calls, lost)]


@pytest.mark.parametrize(
    ("pay_mode", "before", "after", "expected"),
    [
        (PayMode.QR, "created", "pending", True),
        (PayMode.QR, "created", "declined", False),
        (PayMode.QR, "created", "not_sent", False),
        (PayMode.QR, "created", "unknown", False),
        (PayMode.QR, "pending", "succeeded", None),
        (PayMode.QR, "pending", "closed", None),
        (PayMode.QR, "unknown", "pending", None),
        (PayMode.PAYMENT_CODE, "created", "succeeded", True),
        (PayMode.PAYMENT_CODE, "created", "pending", None),
        (PayMode.PAYMENT_CODE, "pending", "succeeded", True),
        (PayMode.PAYMENT_CODE, "pending", "declined", False),
        (PayMode.PAYMENT_CODE, "pending", "closed", None),
        (PayMode.CARD, "created", "authorised", True),
        (PayMode.CARD, "created", "created", None),
    ],
)
def test_a_channel_is_judged_by_its_own_part(
    pay_mode: PayMode, before: str, after: str, expected: bool | None
) -> None:
    assert verdict(heard(before, after, pay_mode=pay_mode)) is expected


@pytest.mark.parametrize("outcome", ["unknown", "notsent", "not_sent"])
def test_a_call_without_an_answer_is_lost(outcome: str) -> None:
    assert tally_of(heard("created", "unknown", outcome=outcome)) == Tally(1, 1, 40, 1, 0)


def test_a_decline_is_an_answer() -> None:
    declined = heard("created", "declined", outcome="declined", pay_mode=PayMode.CARD)

    assert tally_of(declined) == Tally(1, 0, 40, 1, 0)


def test_news_without_a_call_tells_of_the_attempt_only() -> None:
    paid = heard("pending", "succeeded", pay_mode=PayMode.CARD, outcome=None)

    assert tally_of(paid) == Tally(0, 0, 0, 1, 1)


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_a_rate_lies_between_what_is_seen_and_what_is_expected(tried: int, lost: int) -> None:
    won = max(tried - lost, 0)

    rate = rate_of(Tally(tried=tried, won=won))

    seen = won * 1_000_000 // tried if tried else 950_000
    assert min(seen, 950_000) <= rate.success_ppm <= max(seen + 1, 950_000)


@given(st.datetimes(timezones=st.just(UTC), min_value=datetime(2026, 1, 1)))  # noqa: DTZ001
def test_a_bucket_holds_its_moment(at: datetime) -> None:
    start = bucket_of(at)

    assert start <= at < start + BUCKET
    assert start.timestamp() % BUCKET.total_seconds() == 0


# The breaker


def test_lost_calls_open_it() -> None:
    turned = judge(new_breaker(ACCOUNT), recent(10, 5), NOW)

    assert turned is not None
    assert (turned.gate, turned.since, turned.trips, turned.why) == (
        Gate.DOWN,
        NOW,
        1,
        "5 of 10 calls lost",
    )


@pytest.mark.parametrize(("calls", "lost"), [(CALLS_MIN - 1, CALLS_MIN - 1), (1000, 499), (0, 0)])
def test_few_calls_and_most_answered_do_not(calls: int, lost: int) -> None:
    assert judge(new_breaker(ACCOUNT), recent(calls, lost), NOW) is None


def test_declines_never_open_it() -> None:
    told = [tally_of(heard("created", "declined", outcome="declined")) for _ in range(1000)]
    calls, lost = sum(each.calls for each in told), sum(each.lost for each in told)

    assert judge(new_breaker(ACCOUNT), recent(calls, lost), NOW) is None


def test_it_rests_then_probes_then_closes_and_forgets_what_opened_it() -> None:
    down = judge(new_breaker(ACCOUNT), recent(10, 10), NOW)
    assert down is not None
    assert judge(down, recent(10, 10), NOW + REST - timedelta(seconds=1)) is None

    probing = judge(down, recent(10, 10), NOW + REST)
    assert probing is not None
    assert (probing.gate, probing.probes_left, probing.trips) == (Gate.PROBING, PROBES, 1)

    answered = replace(probing, probe_calls=2, probes_left=1)
    at = NOW + REST + timedelta(seconds=15)
    up = judge(answered, recent(10, 10), at)
    assert up is not None
    assert (up.gate, up.trips, up.probes_left) == (Gate.UP, 0, 0)
    # The calls that opened it are still within the last minute, and are older than its closing.
    assert at - BREAKER_WINDOW < NOW
    assert judge(up, recent(10, 10), at) is None


def test_a_lost_probe_makes_it_rest_twice_as_long() -> None:
    down = judge(new_breaker(ACCOUNT), recent(10, 10), NOW)
    assert down is not None
    probing = judge(down, [], NOW + REST)
    assert probing is not None

    again = judge(replace(probing, probe_calls=2, probe_lost=1), [], NOW + REST)

    assert again is not None
    assert (again.gate, again.trips) == (Gate.DOWN, 2)
    assert judge(again, [], NOW + REST + REST) is None
    assert judge(again, [], NOW + 3 * REST) is not None
    assert rest_after(50) == REST_MAX


def test_probes_that_nobody_hears_of_are_replaced() -> None:
    down = Breaker(ACCOUNT, Gate.DOWN, NOW, 1, 0, 0, 0, "", 1)
    probing = judge(down, [], NOW + REST)
    assert probing is not None
    taken = replace(probing, probes_left=0)

    assert judge(taken, [], NOW + REST) is None
    renewed = judge(taken, [], NOW + REST + PROBE_PATIENCE)
    assert renewed is not None
    assert (renewed.gate, renewed.probes_left) == (Gate.PROBING, PROBES)


@given(
    st.sampled_from(Gate), st.integers(0, 30), st.integers(0, 3), st.integers(0, 5),
    st.integers(0, 5), st.integers(0, 50), st.integers(0, 50), st.integers(0, 2000),
)  # fmt: skip
def test_every_turn_leads_to_another_state_one_version_on(
    gate: Gate, trips: int, left: int, calls: int, lost: int, seen: int, missing: int, after_s: int
) -> None:
    left = left if gate is Gate.PROBING else 0
    before = Breaker(ACCOUNT, gate, NOW, trips, left, calls, min(lost, calls), "", 7)

    after = judge(before, recent(seen, min(missing, seen)), NOW + timedelta(seconds=after_s))

    if after is None:
        return
    assert after.version == before.version + 1
    assert (after.probes_left > 0) == (after.gate is Gate.PROBING)
    allowed = {
        Gate.UP: {Gate.DOWN},
        Gate.DOWN: {Gate.PROBING},
        Gate.PROBING: {Gate.UP, Gate.DOWN, Gate.PROBING},
    }
    assert after.gate in allowed[before.gate]

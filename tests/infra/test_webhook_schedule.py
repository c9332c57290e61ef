"""What is decided before a webhook is sent: its signatures, and when it is tried again."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.infra.webhook_receiver import DAY
from tongbao.infra.webhooks.model import (
    DISABLE_AFTER,
    RETRY_DELAYS,
    AttemptOutcome,
    delay_after,
    outcome_of_status,
    rest_after,
    retry_after,
)
from tongbao.infra.webhooks.signing import SigningKey, new_signing_key, signature_v1, unpacked
from tongbao.kernel.ids import new_id


def test_the_published_example_of_standard_webhooks_is_signed_alike() -> None:
    secret = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    signature = signature_v1(
        secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
    )
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_key_survives_packing_and_never_shows_itself() -> None:
    key = new_signing_key()
    assert unpacked(key.packed()) == key
    assert repr(key) == "SigningKey(********)"
    assert isinstance(key, SigningKey)


# The retry schedule


@given(st.uuids())
def test_the_schedule_takes_about_three_days(delivery_id: UUID) -> None:
    delays = [delay_after(delivery_id, tries) for tries in range(1, len(RETRY_DELAYS) + 1)]
    waits = [delay for delay in delays if delay is not None]
    assert len(waits) == len(RETRY_DELAYS)
    assert timedelta(hours=65) <= sum(waits, timedelta()) <= timedelta(hours=80)
    assert timedelta(seconds=4.5) <= waits[0] <= timedelta(seconds=5.5)
    assert max(waits) <= DAY
    assert delay_after(delivery_id, len(RETRY_DELAYS) + 1) is None
    assert delays == [delay_after(delivery_id, tries) for tries in range(1, len(delays) + 1)]
    for wait, planned in zip(waits, RETRY_DELAYS, strict=True):
        assert planned * 0.9 <= wait <= planned * 1.1


def test_deliveries_that_failed_together_do_not_come_back_together() -> None:
    assert len({delay_after(new_id(), 4) for _ in range(200)}) > 50


def test_an_endpoint_is_disabled_by_the_last_try_of_a_lone_delivery_at_the_latest() -> None:
    assert sum(RETRY_DELAYS, timedelta()) * 0.9 >= DISABLE_AFTER


@given(st.integers(min_value=0, max_value=10_000))
def test_a_rest_is_bounded(failures: int) -> None:
    assert timedelta() <= rest_after(failures) <= timedelta(minutes=10)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("120", 120),
        ("0", 0),
        ("-5", 0),
        ("1e9", 0),
        ("soon", 0),
        ("", 0),
        ("99999999999999999999", 86_400),
        ("Wed, 21 Oct 2026 07:28:30 GMT", 30),
        ("Wed, 21 Oct 2026 07:00:00 GMT", 0),
        ("Wed, 21 Oct 2026 07:28:30 -0000", 0),
    ],
)
def test_retry_after_is_seconds_or_a_date_and_never_more_than_a_day(
    text: str, seconds: int
) -> None:
    now = datetime(2026, 10, 21, 7, 28, tzinfo=UTC)
    assert retry_after({"retry-after": text}, now) == timedelta(seconds=seconds)
    assert retry_after({}, now) == timedelta()


@pytest.mark.parametrize(
    "text",
    [
        "Mon, 01 Jan 99999999999999999999 00:00:00 +0000",
        "Mon, 01 Jan 2024 00:00:00 +99999999999999999999",
        "9" * 5000,
    ],
)
def test_an_absurd_retry_after_asks_for_nothing(text: str) -> None:
    assert retry_after({"retry-after": text}, datetime(2026, 1, 1, tzinfo=UTC)) == timedelta()


def test_only_2xx_is_a_delivery() -> None:
    met = {status: outcome_of_status(status) for status in range(100, 600)}
    assert {s for s, o in met.items() if o is AttemptOutcome.DELIVERED} == set(range(200, 300))
    assert {s for s, o in met.items() if o is AttemptOutcome.REDIRECTED} == set(range(300, 400))
    assert {s for s, o in met.items() if o is AttemptOutcome.GONE} == {410}
    assert {s for s, o in met.items() if o is AttemptOutcome.THROTTLED} == {429, 502, 503, 504}

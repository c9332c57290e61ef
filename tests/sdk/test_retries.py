"""A call happens once, however often it is tried, and what is not known is not guessed."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2 as httpx
import pytest

from tests.sdk.flaky import KEY_ID, SECRET, FlakyPlatform
from tongbao_sdk import Refused, Tongbao, Unanswered
from tongbao_sdk.replies import Payment

ORDER: dict[str, Any] = {
    "merchant_order_no": "A-1",
    "amount": 1999,
    "subject": "两杯茶",
    "method": {"channel": "wechat_pay", "mode": "qr"},
}


class Shop(Tongbao):
    """A client that notes how long it would have waited instead of waiting."""

    def __init__(self, url: str, **options: Any) -> None:
        self.pauses: list[float] = []
        super().__init__(url, key_id=KEY_ID, secret=SECRET, pause=self.pauses.append, **options)


def order(shop: Tongbao, **more: Any) -> Payment:
    return shop.payments.create(**{**ORDER, **more})


def test_the_key_stays_and_the_signature_is_new_on_every_try(flaky: FlakyPlatform) -> None:
    flaky.script = ["drop", 503, "drop"]

    made = order(Shop(flaky.url))

    assert made["id"] == "pay_1"
    assert len(flaky.asked) == 4
    assert len(flaky.made) == 1, "the platform did the work once"
    assert len({asked.key for asked in flaky.asked}) == 1
    assert len({asked.body for asked in flaky.asked}) == 1
    assert len({asked.signed["nonce"] for asked in flaky.asked}) == 4
    assert all(asked.is_signed_well for asked in flaky.asked)


def test_the_key_is_remembered_before_anything_is_sent(flaky: FlakyPlatform) -> None:
    noted: list[tuple[str, int]] = []

    order(Shop(flaky.url), remember=lambda key: noted.append((key, len(flaky.asked))))

    assert noted == [(flaky.asked[0].key, 0)]


def test_a_memory_that_fails_stops_the_call(flaky: FlakyPlatform) -> None:
    def full(_key: str) -> None:
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        order(Shop(flaky.url), remember=full)

    assert flaky.asked == []


def test_an_unanswered_call_carries_the_key_that_finishes_it(flaky: FlakyPlatform) -> None:
    flaky.script = ["drop"] * 4
    shop = Shop(flaky.url)

    with pytest.raises(Unanswered) as unanswered:
        order(shop)
    key = unanswered.value.idempotency_key
    assert key is not None
    assert key in str(unanswered.value)
    again = order(shop, idempotency_key=key)

    assert again["id"] == "pay_1"
    assert len(flaky.made) == 1


def test_a_restarted_program_repeats_with_the_key_it_remembered(flaky: FlakyPlatform) -> None:
    kept: list[str] = []
    flaky.script = ["drop"]
    with pytest.raises(Unanswered):
        order(Shop(flaky.url, tries_max=1), remember=kept.append)

    again = order(Shop(flaky.url), idempotency_key=kept[0], remember=kept.append)

    assert again["id"] == "pay_1"
    assert kept == [kept[0], kept[0]]


@pytest.mark.parametrize("answer", [500, 502, 503, 504, 429, "drop", "refuse"])
def test_it_tries_again_where_that_may_help(flaky: FlakyPlatform, answer: object) -> None:
    flaky.script = [answer]

    assert order(Shop(flaky.url))["id"] == "pay_1"
    assert len(flaky.asked) == 2


def test_it_waits_for_the_first_request_of_its_own_key(flaky: FlakyPlatform) -> None:
    busy = {"code": "idempotency.in_flight", "advice": "wait"}
    flaky.script = [(409, busy, {"retry-after": "1"})]
    shop = Shop(flaky.url)

    assert order(shop)["id"] == "pay_1"
    assert shop.pauses[0] >= 1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 408, 409, 413, 415, 422])
def test_it_does_not_repeat_what_was_refused(flaky: FlakyPlatform, status: int) -> None:
    flaky.script = [status]
    shop = Shop(flaky.url)

    with pytest.raises(Refused) as refused:
        order(shop)

    assert (refused.value.status, refused.value.code) == (status, f"scripted.{status}")
    assert refused.value.request_id == "req_1"
    assert not refused.value.after_unanswered
    assert len(flaky.asked) == 1


def test_a_limit_that_was_never_lifted_is_a_refusal(flaky: FlakyPlatform) -> None:
    flaky.script = [(429, {"code": "request.rate_limited"}, {"retry-after": "3"})] * 4
    shop = Shop(flaky.url)

    with pytest.raises(Refused, match="rate_limited"):
        order(shop)

    assert [pause >= 3 for pause in shop.pauses] == [True] * 3


@pytest.mark.parametrize("status", [401, 403, 429])
def test_a_refusal_at_the_door_does_not_speak_for_an_earlier_try(
    flaky: FlakyPlatform, status: int
) -> None:
    """The first try did the work; that a later one was not let in says nothing about it."""
    flaky.script = ["drop", status, status, status]

    with pytest.raises(Unanswered) as unanswered:
        order(Shop(flaky.url))

    assert unanswered.value.idempotency_key in flaky.made


def test_a_refusal_by_a_rule_speaks_for_every_try(flaky: FlakyPlatform) -> None:
    flaky.script = ["refuse", 422]

    with pytest.raises(Refused) as refused:
        order(Shop(flaky.url))

    assert refused.value.after_unanswered


@pytest.mark.parametrize("body", [b"<html>", b"", b"[1]", b'{"message": "no"}'])
def test_an_answer_of_somebody_in_between_is_not_taken_for_the_platforms(
    flaky: FlakyPlatform, body: bytes
) -> None:
    flaky.script = [(404, body)]
    with pytest.raises(Refused) as refused:
        order(Shop(flaky.url))
    assert refused.value.code == "unreadable_reply"

    flaky.script = ["drop", (404, body)]
    with pytest.raises(Unanswered):
        order(Shop(flaky.url))


def test_a_success_that_cannot_be_read_is_asked_for_again(flaky: FlakyPlatform) -> None:
    flaky.script = [(201, b'{"id": "pay_')]

    assert order(Shop(flaky.url))["id"] == "pay_1"
    assert len(flaky.made) == 1


def test_a_redirect_is_not_followed(flaky: FlakyPlatform) -> None:
    """A signed request goes to the address it was signed for and nowhere else."""
    flaky.script = [(307, b"", {"location": "/elsewhere"})]
    shop = Shop(flaky.url, client=httpx.Client(follow_redirects=True))

    with pytest.raises(Refused):
        order(shop)

    assert [asked.target for asked in flaky.asked] == ["/v1/payments"]


def test_the_wait_grows_and_has_an_end(flaky: FlakyPlatform) -> None:
    flaky.script = [503] * 9
    shop = Shop(flaky.url, tries_max=10)

    order(shop)

    assert all(0.375 <= pause <= 10 for pause in shop.pauses)
    assert shop.pauses[0] < shop.pauses[2] < shop.pauses[4]


def test_a_delete_counts_as_done_when_an_unanswered_try_did_it(flaky: FlakyPlatform) -> None:
    flaky.script = ["drop", 404]
    Shop(flaky.url).webhook_endpoints.delete("whe_1")

    flaky.script = [404]
    with pytest.raises(Refused):
        Shop(flaky.url).webhook_endpoints.delete("whe_1")


def test_nobody_listening_is_unanswered(flaky: FlakyPlatform) -> None:
    flaky.server.server_close()

    with pytest.raises(Unanswered, match="ConnectError"):
        order(Shop(flaky.url))


@pytest.mark.parametrize("key", ["", "k" * 256, "naïve", "line\nbreak"])
def test_a_key_that_no_header_can_carry_is_a_mistake_of_the_program(
    flaky: FlakyPlatform, key: str
) -> None:
    with pytest.raises(ValueError, match="idempotency key"):
        order(Shop(flaky.url), idempotency_key=key)

    assert flaky.asked == []


@pytest.mark.parametrize("resource", ["", ".", ".."])
def test_an_id_is_one_segment_of_the_path(flaky: FlakyPlatform, resource: str) -> None:
    with pytest.raises(ValueError, match="not an id"):
        Shop(flaky.url).payments.get(resource)

    Shop(flaky.url).payments.get("pay_1/../refunds?x=1#y")

    assert flaky.asked[0].target == "/v1/payments/pay_1%2F..%2Frefunds%3Fx%3D1%23y"
    assert flaky.asked[0].is_signed_well


def test_what_is_signed_is_what_is_sent(flaky: FlakyPlatform) -> None:
    shop = Shop(flaky.url)

    list(shop.payments.list(metadata={"店": "一 号+&="}, created_from="2026-11-21T00:00:00+08:00"))

    assert flaky.asked[0].is_signed_well
    assert flaky.asked[0].key is None


def test_a_list_is_walked_page_after_page(flaky: FlakyPlatform) -> None:
    flaky.script = [
        (200, {"items": [{"id": "pay_3"}, {"id": "pay_2"}], "next_cursor": "c/1="}),
        "drop",
        (200, {"items": [{"id": "pay_1"}], "next_cursor": None}),
    ]

    seen = [payment["id"] for payment in Shop(flaky.url).payments.list(limit=2)]

    assert seen == ["pay_3", "pay_2", "pay_1"]
    first, *rest = [asked.target for asked in flaky.asked]
    assert first == "/v1/payments?limit=2"
    assert rest == ["/v1/payments?limit=2&cursor=c%2F1%3D"] * 2


def test_a_list_asks_for_no_page_that_nobody_reads(flaky: FlakyPlatform) -> None:
    flaky.script = [(200, {"items": [{"id": "pay_2"}], "next_cursor": "more"})]

    assert next(Shop(flaky.url).payments.list())["id"] == "pay_2"
    assert len(flaky.asked) == 1


def test_threads_share_a_client_and_keep_their_keys_apart(flaky: FlakyPlatform) -> None:
    shop = Shop(flaky.url, tries_max=50)
    flaky.script = ["drop", 503, 201] * 20
    together = threading.Barrier(8)

    def buy(number: int) -> tuple[str, str]:
        kept: list[str] = []
        if number < 8:
            together.wait()
        payment = order(shop, merchant_order_no=str(number), remember=kept.append)
        return kept[0], payment["id"]

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(buy, range(40)))

    assert len({key for key, _ in answers}) == 40
    assert {key: {"id": made} for key, made in answers} == flaky.made
    bodies = {asked.key: set() for asked in flaky.asked}
    for asked in flaky.asked:
        bodies[asked.key].add(asked.body)
    assert all(len(each) == 1 for each in bodies.values())
    nonces = [asked.signed["nonce"] for asked in flaky.asked]
    assert len(set(nonces)) == len(nonces)


def test_a_secret_is_in_no_text_of_the_client(flaky: FlakyPlatform) -> None:
    flaky.script = ["drop"] * 4
    shop = Shop(flaky.url)

    with pytest.raises(Unanswered) as unanswered:
        order(shop)

    shown = [repr(shop), str(shop), repr(shop.transport), str(unanswered.value)]
    assert not [text for text in shown if SECRET in text]
    assert unanswered.value.__cause__ is None


def test_advice_comes_in_the_language_asked_for(flaky: FlakyPlatform) -> None:
    Shop(flaky.url, language="zh").payments.find("A-1")

    assert flaky.asked[0].headers["accept-language"] == "zh"
    assert flaky.asked[0].headers["user-agent"].startswith("tongbao-sdk-python/")

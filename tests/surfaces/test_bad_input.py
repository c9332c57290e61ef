"""Each bad input gets its own clear refusal, says what to do, and changes nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.infra.signed_client import Reply, SignedClient
from tests.stage import Stage
from tests.surfaces.everything import PROOF_OF_CALLS, REFUSED_BY_THE_BOOK, snapshot
from tongbao.kernel.clock import real_now
from tongbao.kernel.ids import new_id, show
from tongbao_sdk.signing import authorization

ORDER: dict[str, Any] = {
    "merchant_order_no": "A-1",
    "amount": 1999,
    "subject": "两杯茶",
    "method": {"channel": "wechat_pay", "mode": "qr"},
}
QR = ORDER["method"]
MEMBERS = ("type", "title", "status", "code", "detail", "advice", "doc_url", "request_id")
BODY_MAX = 1024 * 1024


@pytest.fixture
def client(stage: Stage) -> SignedClient:
    return SignedClient(stage.app, stage.shop.key_id, stage.shop.secret.reveal())


def check_problem(reply: Reply, status: int, code: str, param: str | None = None) -> None:
    """The whole of RFC 9457, and of what we promise beyond it."""
    problem = reply.json
    assert (reply.status, problem["code"], problem.get("param")) == (status, code, param), problem
    assert reply.headers["content-type"] == "application/problem+json"
    assert problem["status"] == status
    assert not [name for name in MEMBERS if not problem.get(name)]
    assert problem["type"] == problem["doc_url"]
    assert problem["doc_url"].endswith(f"/docs/errors#{code}")
    assert problem["request_id"] == reply.headers["x-request-id"]
    assert problem["advice"].endswith((".", "。"))


BODIES: dict[str, tuple[bytes, str, str | None]] = {
    "cut": (b'{"amount": 19', "request.malformed_json", None),
    "no JSON": (b"amount=1999", "request.malformed_json", None),
    "no UTF-8": (b'{"subject": "\xff"}', "request.malformed_json", None),
    "half a letter": (b'{"subject": "\\ud800"}', "request.malformed_json", None),
    "not a number": (b'{"amount": NaN}', "request.malformed_json", None),
    "two values": (json.dumps(ORDER).encode() * 2, "request.malformed_json", None),
    "empty": (b"", "request.body_missing", "$"),
    "a list": (b"[]", "request.wrong_type", "$"),
    "null": (b"null", "request.wrong_type", "$"),
    "deep": (b"[" * 100_000, "request.wrong_type", "$"),
    "U+0000": (json.dumps({**ORDER, "subject": "a\0"}).encode(), "request.invalid_value", "$"),
}


async def test_what_is_no_order_is_refused(stage: Stage, client: SignedClient) -> None:
    before = await snapshot(stage, without=PROOF_OF_CALLS)

    for body, code, param in BODIES.values():
        json_type = {"content-type": "application/json"}
        reply = await client.post("/v1/payments", body=body, key="k", headers=json_type)
        check_problem(reply, 400, code, param)

    assert await snapshot(stage, without=PROOF_OF_CALLS) == before


def without(name: str) -> dict[str, Any]:
    return {field: value for field, value in ORDER.items() if field != name}


FIELDS: list[tuple[dict[str, Any], int, str, str | None]] = [
    ({**ORDER, "amonut": 1}, 400, "request.unknown_field", "$.amonut"),
    ({**ORDER, "method": {**QR, "cash": 1}}, 400, "request.unknown_field", "$.method.cash"),
    *[(without(name), 400, "request.missing_field", f"$.{name}") for name in ORDER],
    *[
        ({**ORDER, "amount": amount}, 400, "request.wrong_type", "$.amount")
        for amount in ("1999", 19.99, 1999.0, True, None, [1999])
    ],
    *[
        ({**ORDER, "amount": amount}, 400, "money.amount_out_of_range", "$.amount")
        for amount in (0, -1, 2**63 - 1, 2**63, 10**30)
    ],
    *[
        ({**ORDER, "currency": currency}, 400, "money.unknown_currency", None)
        for currency in ("XXX", "cny", "   ")
    ],
    *[
        ({**ORDER, "currency": currency}, 400, "request.invalid_value", "$.currency")
        for currency in ("", "CN", "RENMINBI")
    ],
    *[
        (
            {**ORDER, "merchant_order_no": number},
            400,
            "request.invalid_value",
            "$.merchant_order_no",
        )
        for number in ("", " ", "a b", "a\n", "a/b", "单号", "a" * 65)
    ],
    *[
        ({**ORDER, "subject": subject}, 400, "request.invalid_value", "$.subject")
        for subject in ("", "茶" * 121)
    ],
    *[
        ({**ORDER, "expires_in_s": seconds}, 400, "request.invalid_value", "$.expires_in_s")
        for seconds in (0, 59, 7201, 10**12)
    ],
    ({**ORDER, "metadata": {"a": 1}}, 400, "request.wrong_type", "$.metadata[...]"),
    ({**ORDER, "metadata": {"a": "b" * 501}}, 400, "request.invalid_value", "$.metadata[...]"),
    ({**ORDER, "metadata": {"a" * 41: ""}}, 400, "request.invalid_value", "$.metadata"),
    (
        {**ORDER, "metadata": {str(n): "" for n in range(51)}},
        400,
        "request.invalid_value",
        "$.metadata",
    ),
]
METHODS: list[tuple[Any, int, str, str | None]] = [
    ({"mode": "app", "channel": "wallet"}, 422, "payment.wallet_needs_code", None),
    (
        {"mode": "payment_code", "auth_code": "7" * 18},
        422,
        "payment_code.unknown",
        "$.method.auth_code",
    ),
    ("qr", 400, "request.wrong_type", "$.method"),
    ({}, 400, "request.missing_field", "$.method.mode"),
    ({"mode": "cash"}, 400, "request.invalid_value", "$.method.mode"),
    *[
        ({"mode": mode, **given}, 400, "payment.method_field_missing", f"$.method.{field}")
        for mode, given, field in (
            ("in_app", {"channel": "wechat_pay"}, "payer_id"),
            ("app", {}, "channel"),
            ("h5", {"channel": "alipay"}, "return_url"),
            ("web", {"return_url": "https://shop.example/", "payer_id": "o1"}, "channel"),
            ("agreement", {"channel": "alipay"}, "agreement_id"),
            ("card", {"channel": "cards"}, "card"),
        )
    ],
    *[
        ({**QR, field: value}, 400, "payment.method_field_foreign", f"$.method.{field}")
        for field, value in (
            ("payer_id", "o1"),
            ("return_url", "https://shop.example/"),
            ("app_id", "wx1"),
            ("agreement_id", "agr_1"),
        )
    ],
    *[
        (
            {"mode": "web", "channel": "alipay", "return_url": url},
            400,
            "request.invalid_value",
            "$.method.return_url",
        )
        for url in ("shop.example", "javascript:alert(1)", "https://a b", "https://a\n")
    ],
    (
        {"mode": "card", "channel": "cards", "card": {"number": "6222020000000000"}},
        400,
        "request.missing_field",
        "$.method.card.expiry",
    ),
    ({"mode": "payment_code"}, 400, "payment.method_field_missing", "$.method.auth_code"),
    ({**QR, "auth_code": "28" * 9}, 400, "payment.method_field_foreign", "$.method.auth_code"),
    (
        {"mode": "payment_code", "channel": "alipay", "auth_code": "13" * 9},
        400,
        "request.invalid_value",
        "$.method.channel",
    ),
    *[
        (
            {"mode": "payment_code", "auth_code": code},
            400,
            "request.invalid_value",
            "$.method.auth_code",
        )
        for code in ("1" * 15, "1" * 25, "28" * 8 + "\n", "٢٨" * 9, "28-28-28-28-28-28")
    ],
]


async def test_every_wrong_field_is_named_and_leaves_no_trace(
    stage: Stage, client: SignedClient
) -> None:
    """Not even the idempotency key is used up: the corrected order may have it."""
    before = await snapshot(stage, without=PROOF_OF_CALLS)

    for order, *expected in FIELDS:
        check_problem(await client.post("/v1/payments", order, key="k"), *expected)
    for method, *expected in METHODS:
        order = {**ORDER, "method": method}
        check_problem(await client.post("/v1/payments", order, key="k"), *expected)

    assert await snapshot(stage, without=PROOF_OF_CALLS) == before
    assert (await client.post("/v1/payments", ORDER, key="k")).status == 201


BUSINESS: list[tuple[dict[str, Any], str]] = [
    ({"method": {"mode": "qr", "channel": "paypal"}}, "price.not_agreed"),
    ({"currency": "USD"}, "price.not_agreed"),
]


async def test_a_refusal_by_a_rule_is_the_answer_for_that_key(
    stage: Stage, client: SignedClient
) -> None:
    before = await snapshot(stage, without=(*PROOF_OF_CALLS, "idempotency_key"))

    for number, (change, code) in enumerate(BUSINESS):
        order = {**ORDER, **change}
        first = await client.post("/v1/payments", order, key=f"k{number}")
        again = await client.post("/v1/payments", order, key=f"k{number}")
        check_problem(first, 422, code)
        assert (again.status, again.json) == (first.status, first.json)
        assert again.headers["idempotency-replayed"] == "true"

    after = await snapshot(stage, without=(*PROOF_OF_CALLS, "idempotency_key"))
    assert after == before


QUERIES: list[tuple[str, int, str, str | None]] = [
    ("/v1/payments?limit=0", 400, "page.size_invalid", "limit"),
    ("/v1/payments?limit=101", 400, "page.size_invalid", "limit"),
    ("/v1/payments?limit=ten", 400, "request.wrong_type", "limit"),
    ("/v1/payments?limit=", 400, "request.wrong_type", "limit"),
    ("/v1/payments?limit=null", 400, "request.wrong_type", "limit"),
    ("/v1/payments?limit=1&limit=2", 400, "request.repeated_parameter", "limit"),
    ("/v1/payments?page=2", 400, "request.unknown_field", "page"),
    ("/v1/payments?cursor=x", 400, "page.cursor_invalid", "cursor"),
    ("/v1/payments?status=paid", 400, "request.invalid_value", "status"),
    ("/v1/payments?status=null", 400, "request.wrong_type", "status"),
    ("/v1/payments?created_from=yesterday", 400, "request.invalid_value", "created_from"),
    ("/v1/payments?created_from=2026-11-21T09:00:00", 400, "request.invalid_value", "created_from"),
    ("/v1/payments?created_to=2026-02-30T00:00:00Z", 400, "request.invalid_value", "created_to"),
    ("/v1/payments?metadata=[]", 400, "request.invalid_value", "metadata"),
    ("/v1/payments?merchant_order_no=a%00b", 400, "request.invalid_value", "query"),
    ("/v1/settlements?day=2026-02-30", 400, "request.invalid_value", "day"),
    ("/v1/refunds?payment_id=x", 404, "id.unknown", None),
    ("/v1/payments/x", 404, "id.unknown", None),
    ("/v1/payments/%00", 404, "request.not_found", None),
    ("/v1/payment", 404, "request.not_found", None),
    ("/v2/payments", 404, "request.not_found", None),
]


async def test_every_wrong_address_says_what_is_wrong(client: SignedClient) -> None:
    for target, *expected in QUERIES:
        check_problem(await client.get(target), *expected)


async def test_the_ends_of_time_are_moments_too(client: SignedClient) -> None:
    for moment in ("0001-01-01T00:00:00%2B14:00", "9999-12-31T23:59:59-14:00"):
        for name in ("created_from", "created_to"):
            assert (await client.get(f"/v1/payments?{name}={moment}")).status in {200, 400}


IDS = [
    ("pay", "/v1/payments/{}", "payment.not_found"),
    ("ref", "/v1/refunds/{}", "refund.not_found"),
    ("evt", "/v1/events/{}", "event.unknown"),
    ("whe", "/v1/webhook_endpoints/{}", "webhook.endpoint_unknown"),
    ("whd", "/v1/webhook_deliveries/{}/attempts", "webhook.delivery_unknown"),
    ("wal", "/v1/wallets/{}", "wallet.not_found"),
    ("key", "/v1/api_keys/{}", "api_key.not_found"),
    ("set", "/v1/settlements/{}", "settlement.not_found"),
    ("pyo", "/v1/payouts/{}", "payout.not_found"),
]


async def test_unknown_ids_are_not_found_under_their_own_name(client: SignedClient) -> None:
    for prefix, path, code in IDS:
        unknown = show(prefix, new_id())
        check_problem(await client.get(path.format(unknown)), 404, code)
        for wrong in ("x", show("mch", new_id()), unknown[:-1], f"{prefix}_{'u' * 26}"):
            check_problem(await client.get(path.format(wrong)), 404, "id.unknown")


async def test_a_method_that_is_not_taken_is_told_which_are(client: SignedClient) -> None:
    reply = await client.send("PUT", "/v1/payments")

    check_problem(reply, 405, "request.method_not_allowed")
    assert reply.headers["allow"] == "GET, POST"


async def test_only_plain_json_is_read(client: SignedClient) -> None:
    for headers in (
        {"content-type": "text/plain"},
        {"content-encoding": "gzip"},
        {"content-type": "x" * 500},
    ):
        reply = await client.post("/v1/payments", ORDER, key="k", headers=headers)
        check_problem(reply, 415, "request.media_type_unsupported")


async def test_what_changes_something_needs_a_key(stage: Stage, client: SignedClient) -> None:
    before = await snapshot(stage, without=PROOF_OF_CALLS)

    for key, code in (
        (None, "idempotency.key_missing"),
        (" ", "idempotency.key_missing"),
        ("k" * 256, "idempotency.key_too_long"),
        ("é", "idempotency.key_too_long"),
    ):
        reply = await client.post("/v1/payments", ORDER, key=key)
        check_problem(reply, 400, code, "Idempotency-Key")

    assert await snapshot(stage, without=PROOF_OF_CALLS) == before


async def test_a_key_belongs_to_its_first_request(stage: Stage, client: SignedClient) -> None:
    first = await client.post("/v1/payments", ORDER, key="k")
    before = await snapshot(stage, without=PROOF_OF_CALLS)

    other = await client.post("/v1/payments", {**ORDER, "amount": 1}, key="k")
    again = await client.post("/v1/payments", dict(reversed(ORDER.items())), key="k")

    check_problem(other, 422, "idempotency.reused", "Idempotency-Key")
    assert (again.status, again.json) == (first.status, first.json)
    assert again.headers["idempotency-replayed"] == "true"
    assert await snapshot(stage, without=PROOF_OF_CALLS) == before


async def test_an_order_number_belongs_to_its_first_order(
    stage: Stage, client: SignedClient
) -> None:
    """Under another key the same order is found again, and another order refused."""
    first = await client.post("/v1/payments", ORDER, key="k1")

    same = await client.post("/v1/payments", ORDER, key="k2")
    other = await client.post("/v1/payments", {**ORDER, "amount": 1}, key="k3")

    assert same.json["id"] == first.json["id"]
    check_problem(other, 409, "payment.order_no_used")
    assert len((await client.get("/v1/payments")).json["items"]) == 1


async def test_a_second_request_waits_for_the_first_of_its_key(
    stage: Stage, client: SignedClient
) -> None:
    stage.fault("wechat_pay", "pay", "slow:1")
    first = asyncio.create_task(client.post("/v1/payments", ORDER, key="k"))
    while not await stage.db.fetch("select 1 from idempotency_key", ()):  # noqa: ASYNC110
        await asyncio.sleep(0.01)

    second = await client.post("/v1/payments", ORDER, key="k")

    check_problem(second, 409, "idempotency.in_flight")
    assert second.headers["retry-after"] == "1"
    made = await first
    third = await client.post("/v1/payments", ORDER, key="k")
    assert (third.status, third.json) == (made.status, made.json)
    assert len(await stage.calls_about(made.json)) == 1


Forge = Callable[[SignedClient, str], str | None]


def signed_at(seconds: int) -> Forge:
    def forge(client: SignedClient, target: str) -> str:
        at = int(real_now().timestamp()) + seconds
        return client.authorization("GET", target, b"", timestamp=at)

    return forge


def other_target(client: SignedClient, _target: str) -> str:
    return client.authorization("GET", "/v1/refunds", b"")


def other_secret(client: SignedClient, target: str) -> str:
    return authorization(client.key_id, "sk_x", method="GET", target=target, body=b"")


def other_key(client: SignedClient, target: str) -> str:
    key_id = show("key", new_id())
    return authorization(key_id, client.secret, method="GET", target=target, body=b"")


def short_nonce(client: SignedClient, target: str) -> str:
    return client.authorization("GET", target, b"", nonce="short")


FORGERIES: list[tuple[Forge, str]] = [
    (signed_at(-301), "auth.timestamp_stale"),
    (signed_at(302), "auth.timestamp_stale"),
    (other_target, "auth.signature_invalid"),
    (other_secret, "auth.signature_invalid"),
    (other_key, "auth.key_unknown"),
    (short_nonce, "auth.header_malformed"),
]


async def test_a_request_that_is_not_proved_changes_nothing(
    stage: Stage, client: SignedClient
) -> None:
    before = await snapshot(stage)

    for forge, code in FORGERIES:
        reply = await client.get("/v1/payments", authorization=forge(client, "/v1/payments"))
        check_problem(reply, 401, code)

    assert await snapshot(stage) == before


async def test_a_body_that_was_changed_on_the_way_is_not_proved(
    stage: Stage, client: SignedClient
) -> None:
    content = json.dumps(ORDER).encode()
    signed = client.authorization("POST", "/v1/payments", content)
    before = await snapshot(stage)

    reply = await client.post(
        "/v1/payments", body=content.replace(b"1999", b"1998"), key="k", authorization=signed
    )

    check_problem(reply, 401, "auth.signature_invalid")
    assert await snapshot(stage) == before


async def test_a_request_sent_twice_is_heard_once(stage: Stage, client: SignedClient) -> None:
    content = json.dumps(ORDER).encode()
    signed = client.authorization("POST", "/v1/payments", content)
    first = await client.post("/v1/payments", body=content, key="k1", authorization=signed)
    assert first.status == 201
    before = await snapshot(stage, without=PROOF_OF_CALLS)

    replayed = await client.post("/v1/payments", body=content, key="k2", authorization=signed)

    check_problem(replayed, 401, "auth.nonce_replayed")
    assert await snapshot(stage, without=PROOF_OF_CALLS) == before


async def test_a_revoked_key_is_over(stage: Stage, client: SignedClient) -> None:
    await stage.call(stage.client.api_keys.revoke, stage.shop.key_id)

    check_problem(await client.get("/v1/payments"), 401, "auth.key_revoked")


async def test_advice_is_in_the_readers_language(client: SignedClient) -> None:
    asked = {
        "zh-CN,zh;q=0.9,en;q=0.8": "zh",
        "zh": "zh",
        "en-GB,zh;q=0.1": "en",
        "fr": "en",
        "": "en",
    }

    for header, language in asked.items():
        reply = await client.post(
            "/v1/payments", {**ORDER, "amount": 0}, key="k", headers={"accept-language": header}
        )
        assert reply.headers["content-language"] == language
        assert ("金额" in reply.json["advice"]) == (language == "zh")
        check_problem(reply, 400, "money.amount_out_of_range", "$.amount")


async def over_the_wire(stage: Stage, head: list[str], body: list[bytes]) -> tuple[int, Any]:
    """Send a request as written and return what came back."""
    place = urlsplit(stage.url)
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    lines = ["POST /v1/payments HTTP/1.1", f"host: {place.netloc}", *head, "", ""]
    try:
        writer.write("\r\n".join(lines).encode())
        for part in body:
            writer.write(part)
            await writer.drain()
    except ConnectionError:
        pass  # it has heard enough
    answer = (await reader.read()).decode()
    writer.close()
    status, _, rest = answer.partition("\r\n")
    return int(status.split()[1]), json.loads(rest.partition("\r\n\r\n")[2])


@pytest.mark.parametrize("how", ["announced", "chunked"])
async def test_a_body_too_large_is_not_read_to_its_end(stage: Stage, how: str) -> None:
    part = b"x" * 65_536
    before = await snapshot(stage)

    if how == "announced":
        head, body = [f"content-length: {BODY_MAX + 1}"], [part]
    else:
        chunk = f"{len(part):x}\r\n".encode() + part + b"\r\n"
        head, body = ["transfer-encoding: chunked"], [chunk] * 17
    status, problem = await over_the_wire(stage, head, body)

    assert (status, problem["code"]) == (413, "request.body_too_large")
    assert await snapshot(stage) == before


async def test_a_refund_has_its_own_refusals(stage: Stage, client: SignedClient) -> None:
    paid = await stage.scan_code(await stage.wallet_code())
    open_one = (await client.post("/v1/payments", ORDER, key="k")).json
    refund = {"merchant_refund_no": "R-1", "amount": 1000}
    path = f"/v1/payments/{paid['id']}/refunds"
    await client.post(path, refund, key="r1")

    cases: list[tuple[str, dict[str, Any], int, str, str | None]] = [
        (path, {**refund, "merchant_refund_no": "R-2"}, 422, "refund.exceeds_captured", None),
        (path, {**refund, "amount": 999}, 409, "refund.number_used", None),
        (path, {**refund, "currency": "USD"}, 422, "refund.currency_differs", None),
        (path, {**refund, "amount": 0}, 400, "money.amount_out_of_range", "$.amount"),
        (path, {**refund, "merchant_refund_no": "a\n"}, 400, "request.invalid_value", "$"),
        (path, {**refund, "reason": "r" * 81}, 400, "request.invalid_value", "$.reason"),
        (
            f"/v1/payments/{open_one['id']}/refunds",
            refund,
            409,
            "refund.payment_not_captured",
            None,
        ),
        (
            f"/v1/payments/{show('pay', new_id())}/refunds",
            refund,
            404,
            "payment.not_found",
            None,
        ),
    ]
    # The book, too, remembers what it refused.
    kept = (*PROOF_OF_CALLS, *REFUSED_BY_THE_BOOK, "idempotency_key")
    before = await snapshot(stage, without=kept)
    for number, (target, body, status, code, param) in enumerate(cases):
        reply = await client.post(target, body, key=f"case{number}")
        wanted = "$.merchant_refund_no" if param == "$" else param
        check_problem(reply, status, code, wanted)
    assert await snapshot(stage, without=kept) == before

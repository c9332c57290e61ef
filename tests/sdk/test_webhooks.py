"""Webhooks verify on their raw bytes, after a specification and a library that others wrote."""

from __future__ import annotations

import hmac
import json
from base64 import b64encode
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from tests.outsiders import DRIVERS, heard_from, python_with
from tests.stage import Stage
from tests.surfaces.receiver import receiving
from tongbao.kernel.clock import real_now
from tongbao_sdk import WebhookInvalid, verify_webhook

DRIVE = DRIVERS / "standardwebhooks" / "drive.py"

# The example of the Standard Webhooks specification.
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
AT = 1_614_265_330
BODY = b'{"test": 2432232314}'
EXAMPLE = {
    "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
    "webhook-timestamp": str(AT),
    "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
}

PRIVATE = Ed25519PrivateKey.from_private_bytes(b"\7" * 32)
PUBLIC = (
    "whpk_" + b64encode(PRIVATE.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)).decode()
)


def changed(**headers: str) -> dict[str, str]:
    return {**EXAMPLE, **{f"webhook-{name}": value for name, value in headers.items()}}


def signed(body: bytes, at: int = AT) -> dict[str, str]:
    """A webhook signed with the Ed25519 key."""
    signature = PRIVATE.sign(f"evt_1.{at}.".encode() + body)
    entry = f"v1a,{b64encode(signature).decode()}"
    return {
        "webhook-id": "evt_1",
        "webhook-timestamp": str(at),
        "webhook-signature": entry,
    }


def test_the_published_example_verifies() -> None:
    event: Any = verify_webhook(EXAMPLE, BODY, secrets=[SECRET], now=AT)

    assert event == {"test": 2432232314}


@pytest.mark.parametrize("secret", [SECRET, SECRET.removeprefix("whsec_"), "whsec_c2hvcnQ"])
def test_a_secret_may_come_without_prefix_or_padding(secret: str) -> None:
    key = {"whsec_c2hvcnQ": b"short"}.get(secret)
    headers = EXAMPLE
    if key is not None:
        text = f"{EXAMPLE['webhook-id']}.{AT}.".encode() + BODY
        headers = changed(signature=f"v1,{b64encode(hmac.digest(key, text, 'sha256')).decode()}")

    assert verify_webhook(headers, BODY, secrets=[secret], now=AT)


def test_names_of_headers_have_no_case() -> None:
    loud = {name.upper(): value for name, value in EXAMPLE.items()}

    assert verify_webhook(loud, BODY, secrets=[SECRET], now=AT)


def test_an_ed25519_signature_verifies_with_the_public_key_alone() -> None:
    event: Any = verify_webhook(signed(BODY), BODY, public_keys=[PUBLIC], now=AT)

    assert event == {"test": 2432232314}


def test_during_a_rotation_either_key_will_do() -> None:
    other = "whsec_" + b64encode(b"another secret of 24 byt").decode()
    both = changed(signature="v1,AAAA v9,??? " + EXAMPLE["webhook-signature"])

    assert verify_webhook(both, BODY, secrets=[other, SECRET], now=AT)


@pytest.mark.parametrize("seconds", [-301, 301, 10**9])
def test_an_old_or_early_webhook_is_not_believed(seconds: int) -> None:
    with pytest.raises(WebhookInvalid, match="five minutes"):
        verify_webhook(EXAMPLE, BODY, secrets=[SECRET], now=AT + seconds)


@pytest.mark.parametrize("seconds", [-300, 0, 300])
def test_five_minutes_either_way_are_allowed(seconds: int) -> None:
    assert verify_webhook(EXAMPLE, BODY, secrets=[SECRET], now=AT + seconds)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {name: value for name, value in EXAMPLE.items() if name != "webhook-id"},
        {name: value for name, value in EXAMPLE.items() if name != "webhook-timestamp"},
        {name: value for name, value in EXAMPLE.items() if name != "webhook-signature"},
        changed(timestamp="soon"),
        changed(timestamp="1614265330.5"),
        changed(id="msg_other"),
        changed(timestamp=str(AT + 1)),
        changed(signature=""),
        changed(signature="v1"),
        changed(signature="v1,"),
        changed(signature="v1,not base64!"),
        changed(signature="v2," + EXAMPLE["webhook-signature"][3:]),
        changed(signature="v1a," + EXAMPLE["webhook-signature"][3:]),
        changed(signature=EXAMPLE["webhook-signature"][3:]),
        changed(signature="v1,签名"),
    ],
)
def test_what_is_not_signed_so_is_refused(headers: dict[str, str]) -> None:
    with pytest.raises(WebhookInvalid):
        verify_webhook(headers, BODY, secrets=[SECRET], public_keys=[PUBLIC], now=AT)


@given(st.integers(0, len(BODY) - 1), st.integers(1, 255))
def test_no_byte_of_the_body_may_differ(place: int, flip: int) -> None:
    forged = bytearray(BODY)
    forged[place] ^= flip

    for headers in (EXAMPLE, signed(BODY)):
        with pytest.raises(WebhookInvalid):
            verify_webhook(headers, bytes(forged), secrets=[SECRET], public_keys=[PUBLIC], now=AT)


def test_to_verify_with_no_key_is_a_mistake_of_the_program() -> None:
    with pytest.raises(ValueError, match="public keys or secrets"):
        verify_webhook(EXAMPLE, BODY, now=AT)
    for keys in ({"secrets": ["whsec_?"]}, {"public_keys": ["whpk_AAAA"]}):
        with pytest.raises(ValueError, match=r"base64|padding|32"):
            verify_webhook(EXAMPLE, BODY, now=AT, **keys)


def test_what_is_signed_and_no_json_is_refused() -> None:
    with pytest.raises(WebhookInvalid, match="JSON"):
        verify_webhook(signed(b"{"), b"{", public_keys=[PUBLIC], now=AT)


async def delivered(stage: Stage) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Webhooks of one paid payment as they came over the wire, and their endpoint."""
    async with receiving() as receiver:
        endpoint = await stage.call(stage.client.webhook_endpoints.create, receiver.url)
        payment = await stage.call(
            stage.client.payments.create,
            merchant_order_no="W-1",
            amount=1999,
            subject="两杯茶",
            method={"channel": "wechat_pay", "mode": "qr"},
        )
        url = payment["next_action"]["code_url"]
        await stage.call(stage.sandbox.post, "customer/scan", code_url=url, action="pay")
        await stage.idle()
        await stage.call(stage.client.webhook_endpoints.test, endpoint["id"])
        await stage.idle()
    return endpoint, [
        {"headers": got.headers, "body": got.body.decode()} for got in receiver.received
    ]


async def test_the_platforms_webhooks_verify_both_ways_and_there_too(stage: Stage) -> None:
    """A library by others believes what we send, and we believe what it signs."""
    endpoint, webhooks = await delivered(stage)

    kinds = []
    for each in webhooks:
        body = each["body"].encode()
        by_key = verify_webhook(each["headers"], body, public_keys=endpoint["public_keys"])
        by_secret = verify_webhook(each["headers"], body, secrets=[endpoint["secret"]])
        assert by_key == by_secret
        assert each["headers"]["webhook-id"] == by_key["id"]
        kinds.append(by_key["type"])
    assert sorted(kinds) == ["payment.succeeded", "webhook.test"]

    now = int(real_now().timestamp())
    forged = {**webhooks[0], "body": webhooks[0]["body"] + " "}
    heard = drive(
        secret=endpoint["secret"],
        webhooks=[*webhooks, forged],
        sign=[{"id": "msg_1", "at": now, "body": '{"茶": 1}'}],
    )
    assert heard["verdicts"] == [
        *[json.loads(each["body"]) for each in webhooks],
        "No matching signature found",
    ]
    theirs = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(now),
        "webhook-signature": heard["signatures"][0],
    }
    assert verify_webhook(theirs, '{"茶": 1}'.encode(), secrets=[endpoint["secret"]])


def drive(**given: Any) -> dict[str, Any]:
    heard: dict[str, Any] = heard_from([python_with("standardwebhooks"), DRIVE], given)
    return heard

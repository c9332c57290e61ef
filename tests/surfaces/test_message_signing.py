"""Requests signed with a key of the merchant's own, from the SDK to the served platform."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from tests.stage import Stage
from tongbao_sdk import Refused, Tongbao, encrypted_field

MAKERS = {
    "ed25519": ed25519.Ed25519PrivateKey.generate,
    "ecdsa-p256-sha256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "rsa-pss-sha512": lambda: rsa.generate_private_key(65537, 2048),
}


def pems(key: Any) -> tuple[str, str]:
    """The private and the public half."""
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return private.decode(), public.decode()


async def own_key(stage: Stage, algorithm: str) -> tuple[Tongbao, str]:
    """A client of a new shop that rolled its key to one of its own, and the new secret."""
    shop = await stage.open_shop()
    private, public = pems(MAKERS[algorithm]())
    old = stage.client_of(shop)
    rolled = await stage.call(old.api_keys.roll, shop.key_id, public_key=public)
    assert rolled["algorithm"] == algorithm
    key = {"key_id": rolled["id"], "secret": rolled["secret"], "private_key": private}
    return Tongbao(stage.url, **key), rolled["secret"]


@pytest.mark.parametrize("algorithm", MAKERS)
async def test_a_key_of_ones_own_signs_reads_and_writes(
    shared_stage: Stage, algorithm: str
) -> None:
    client, _ = await own_key(shared_stage, algorithm)
    assert (await shared_stage.call(client.merchant))["object"] == "merchant"
    made = await shared_stage.call(client.wallets.open, holder_name="李四", idempotency_key="w1")
    again = await shared_stage.call(client.wallets.open, holder_name="李四", idempotency_key="w1")
    assert made == again
    await shared_stage.call(lambda: list(client.wallets.list(limit=1)))


async def test_the_secret_of_such_a_key_signs_nothing(shared_stage: Stage) -> None:
    client, secret = await own_key(shared_stage, "ed25519")
    key_id = client.transport._key_id
    by_secret = Tongbao(shared_stage.url, key_id=key_id, secret=secret)
    with pytest.raises(Refused) as refused:
        await shared_stage.call(by_secret.merchant)
    assert refused.value.code == "auth.signature_invalid"


async def test_a_repeat_that_is_encrypted_anew_is_the_same_request(shared_stage: Stage) -> None:
    client, secret = await own_key(shared_stage, "ed25519")

    def name() -> str:
        place = {"method": "POST", "path": "/v1/wallets", "pointer": "/holder_name"}
        return encrypted_field("王五", secret=secret, **place)

    assert name() != name()
    made = await shared_stage.call(client.wallets.open, holder_name=name(), idempotency_key="w2")
    again = await shared_stage.call(client.wallets.open, holder_name=name(), idempotency_key="w2")
    plain = await shared_stage.call(client.wallets.open, holder_name="王五", idempotency_key="w2")
    assert made == again == plain
    assert made["holder_name"] == "*五"


async def test_a_key_that_cannot_be_read_is_refused_where_it_stands(shared_stage: Stage) -> None:
    shop = await shared_stage.open_shop()
    client = shared_stage.client_of(shop)
    with pytest.raises(Refused) as refused:
        await shared_stage.call(client.api_keys.roll, shop.key_id, public_key="no key")
    assert (refused.value.code, refused.value.param) == ("public_key.unusable", "$.public_key")


def test_a_private_key_of_another_kind_is_refused_at_once() -> None:
    private, _ = pems(ec.generate_private_key(ec.SECP384R1()))
    with pytest.raises(ValueError, match="none of Ed25519"):
        Tongbao("http://127.0.0.1", key_id="key_1", secret="s", private_key=private)

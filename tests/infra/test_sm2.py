"""SM2 by the system's libcrypto: the standard's own example, and what must not pass."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tongbao.infra import sm2
from tongbao.infra.sm2 import Sm2, Sm2Failed

VECTORS = Path(__file__).parents[1] / "vectors" / "sm" / "sm2_signature.json"


@pytest.fixture
def curve() -> Sm2:
    found = sm2.provider()
    if found is None:
        if "sm2" in os.environ.get("TONGBAO_REQUIRE", "").split(","):
            pytest.fail("libcrypto has no SM2, and TONGBAO_REQUIRE asks for it")
        pytest.skip("libcrypto has no SM2")
    return found


def test_the_standards_own_signature_verifies(curve: Sm2) -> None:
    case = json.loads(VECTORS.read_text())["sm2_sign_gbt32918_5_A2"]
    point = b"\x04" + bytes.fromhex(case["px"] + case["py"])
    message = case["msg_ascii"].encode()
    signature = bytes.fromhex(case["r"] + case["s"])

    assert case["id"].encode() == sm2.SIGNER_ID
    assert curve.verify(point, message, signature)
    assert not curve.verify(point, message + b".", signature)
    for place in range(len(signature)):
        wrong = signature[:place] + bytes([signature[place] ^ 1]) + signature[place + 1 :]
        assert not curve.verify(point, message, wrong)


def test_what_a_key_signs_verifies_under_that_key_only(curve: Sm2) -> None:
    ours, other = curve.new_key(), curve.new_key()

    signature = curve.sign(ours, b"tea")

    assert len(signature) == sm2.SIGNATURE_BYTES
    assert curve.verify(curve.public_key(ours), b"tea", signature)
    assert not curve.verify(curve.public_key(other), b"tea", signature)
    assert curve.sign(ours, b"tea") != signature  # each has a fresh random number


def test_numbers_with_leading_zeros_survive_their_encoding(curve: Sm2) -> None:
    """One signature in 128 has a half that is shorter than 32 bytes."""
    key = curve.new_key()
    point = curve.public_key(key)

    assert all(
        curve.verify(point, bytes([nth]), curve.sign(key, bytes([nth]))) for nth in range(256)
    )


@pytest.mark.parametrize(
    ("point", "signature"),
    [
        (b"", bytes(64)),
        (b"\x04" + bytes(64), bytes(64)),
        (b"\x04" + b"\xff" * 64, bytes(64)),
        (b"\x02" + bytes(64), b"\x01" * 64),
    ],
)
def test_what_is_no_key_verifies_nothing(curve: Sm2, point: bytes, signature: bytes) -> None:
    assert not curve.verify(point, b"tea", signature)
    assert not curve.verify(curve.public_key(curve.new_key()), b"tea", signature[:63])


@pytest.mark.parametrize("damaged", [b"", b"\x30\x00", bytes(121)])
def test_a_damaged_private_key_signs_nothing(curve: Sm2, damaged: bytes) -> None:
    with pytest.raises(Sm2Failed):
        curve.sign(damaged, b"tea")

"""SM2 by the system's libcrypto: the standard's own example, and what must not pass."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.outsiders import lacking
from tongbao.infra import sm2
from tongbao.infra.sm2 import Sm2, Sm2Failed

VECTORS = Path(__file__).parents[1] / "vectors" / "sm" / "sm2_signature.json"
ENCRYPTION = VECTORS.with_name("sm2_encryption.json")


@pytest.fixture
def curve() -> Sm2:
    found = sm2.provider()
    if found is None:
        lacking("sm2", "libcrypto has no SM2")
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


# Public-key encryption -------------------------------------------------------------------------


def private_der(number: str, public: str) -> bytes:
    """An EC PRIVATE KEY (RFC 5915) on sm2p256v1."""
    head, curve = "30770201010420", "a00a06082a811ccf5501822d"
    return bytes.fromhex(f"{head}{number}{curve}a144034200{public}")


def test_the_standards_own_ciphertext_opens(curve: Sm2) -> None:
    case = json.loads(ENCRYPTION.read_text())["sm2_encrypt_gbt32918_5_C"]
    key = private_der(case["private"], case["public"])
    ciphertext = bytes.fromhex(case["c1"] + case["c3"] + case["c2"])

    assert curve.decrypt(key, ciphertext) == case["msg_ascii"].encode()
    assert sm2.ciphertext_der(ciphertext).hex() == case["gmt0009_der"]
    assert curve.public_key(key).hex() == case["public"]


@pytest.mark.parametrize("size", [1, 12, 31, 32, 33, 127, 128, 255, 256, 4096])
def test_what_is_encrypted_for_a_key_opens_under_that_key_only(curve: Sm2, size: int) -> None:
    ours, other, message = curve.new_key(), curve.new_key(), os.urandom(size)

    ciphertext = curve.encrypt(curve.public_key(ours), message)

    assert len(ciphertext) == 65 + 32 + size
    assert ciphertext[97:] != message
    assert curve.decrypt(ours, ciphertext) == message
    assert curve.encrypt(curve.public_key(ours), message) != ciphertext
    with pytest.raises(Sm2Failed):
        curve.decrypt(other, ciphertext)


def test_a_changed_ciphertext_does_not_open(curve: Sm2) -> None:
    key = curve.new_key()
    ciphertext = curve.encrypt(curve.public_key(key), b"tea")
    for place in range(len(ciphertext)):
        changed = ciphertext[:place] + bytes([ciphertext[place] ^ 1]) + ciphertext[place + 1 :]
        with pytest.raises(Sm2Failed):
            curve.decrypt(key, changed)
    for short in (b"", ciphertext[:97], ciphertext[:-1]):
        with pytest.raises(Sm2Failed):
            curve.decrypt(key, short)


def test_numbers_with_leading_zeros_survive_encryption(curve: Sm2) -> None:
    """One C1 in 128 has a coordinate that is shorter than 32 bytes."""
    key = curve.new_key()
    point = curve.public_key(key)

    assert all(
        curve.decrypt(key, curve.encrypt(point, bytes([nth]))) == bytes([nth]) for nth in range(256)
    )


def test_what_cannot_be_encrypted_is_refused(curve: Sm2) -> None:
    point = curve.public_key(curve.new_key())
    for message in (b"", bytes(4097)):
        with pytest.raises(ValueError, match="public key"):
            curve.encrypt(point, message)
    for nonsense in (b"", b"\x04" + bytes(64), point[:-1]):
        with pytest.raises(Sm2Failed):
            curve.encrypt(nonsense, b"tea")

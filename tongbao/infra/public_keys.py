"""Public keys that others sign with: read from PEM, named by algorithm, and verified with.

The algorithms are those of RFC 9421 §3.3 that we would choose, and SM2 with SM3 (GB/T 32918), which
has no name there. What may be used is decided here once: small keys and other curves are refused.
"""

from __future__ import annotations

from base64 import b64decode
from enum import StrEnum
from functools import lru_cache
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP256R1,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, SHA512
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
    load_pem_public_key,
)
from msgspec import Struct

from tongbao.infra import sm2
from tongbao.infra.crypto import ed25519_verify
from tongbao.kernel.errors import Invalid

PEM_LENGTH_MAX: Final = 2048
RSA_BITS_MIN: Final = 2048
RSA_BITS_MAX: Final = 4096
_PSS_SALT_BYTES: Final = 64  # RFC 9421 §3.3.1
_P256_BYTES: Final = 32
_ED25519_BYTES: Final = 32  # the end of its SubjectPublicKeyInfo (RFC 8410 §4)
# SubjectPublicKeyInfo of a point on SM2's curve (GB/T 35276), which the library does not read.
_SM2_HEAD: Final = bytes.fromhex("3059301306072a8648ce3d020106082a811ccf5501822d034200")
_SM2_POINT_BYTES: Final = 65


class PublicKeyUnusable(Invalid):
    """This is no public key of a kind and size that may sign here."""

    code = "public_key.unusable"
    advice = "Send the PEM of a public key: Ed25519, EC P-256, RSA of 2048 to 4096 bits, or SM2."
    advice_zh = "请提供公钥的 PEM：Ed25519、EC P-256、2048 至 4096 位的 RSA，或 SM2。"


class SigningAlgorithm(StrEnum):
    """How a message is signed, by its name in RFC 9421 §6.2.2; SM2's is our own."""

    HMAC_SHA256 = "hmac-sha256"
    ED25519 = "ed25519"
    ECDSA_P256_SHA256 = "ecdsa-p256-sha256"
    RSA_PSS_SHA512 = "rsa-pss-sha512"
    SM2_SM3 = "sm2-sm3"


class PublicKey(Struct, frozen=True):
    """A key that can only verify; ``der`` is its SubjectPublicKeyInfo."""

    algorithm: SigningAlgorithm
    der: bytes


def read_public_key(pem: str, param: str | None = None) -> PublicKey:
    """Read a public key from PEM; ``param`` is where it was given.

    Raises:
        PublicKeyUnusable
    """
    if len(pem) > PEM_LENGTH_MAX:
        raise PublicKeyUnusable(param=param)
    point = _sm2_point(pem)
    if point is not None:
        return PublicKey(SigningAlgorithm.SM2_SM3, _SM2_HEAD + point)
    try:
        key = load_pem_public_key(pem.encode())
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise PublicKeyUnusable(param=param) from None
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    match key:
        case Ed25519PublicKey():
            return PublicKey(SigningAlgorithm.ED25519, der)
        case EllipticCurvePublicKey() if isinstance(key.curve, SECP256R1):
            return PublicKey(SigningAlgorithm.ECDSA_P256_SHA256, der)
        case RSAPublicKey() if RSA_BITS_MIN <= key.key_size <= RSA_BITS_MAX:
            return PublicKey(SigningAlgorithm.RSA_PSS_SHA512, der)
    raise PublicKeyUnusable(param=param)


def verifies(key: PublicKey, message: bytes, signature: bytes) -> bool:
    """Tell whether the key's owner signed exactly this message."""
    if key.algorithm is SigningAlgorithm.SM2_SM3:
        point, provider = key.der[len(_SM2_HEAD) :], sm2.provider()
        return provider is not None and provider.verify(point, message, signature)
    if key.algorithm is SigningAlgorithm.ED25519:
        return ed25519_verify(key.der[-_ED25519_BYTES:], message, signature)
    try:
        match _loaded(key.der):
            case EllipticCurvePublicKey() as public:
                public.verify(_der_signature(signature), message, ECDSA(SHA256()))
            case RSAPublicKey() as public:
                padding = PSS(MGF1(SHA512()), _PSS_SALT_BYTES)
                public.verify(signature, message, padding, SHA512())
            case _:
                return False
    except (InvalidSignature, ValueError):
        return False
    return True


@lru_cache(maxsize=10_000)
def _loaded(der: bytes) -> object:
    return load_der_public_key(der)


def _der_signature(raw: bytes) -> bytes:
    """Return r and s as the library takes them (RFC 9421 §3.3.4 has them side by side).

    Raises:
        ValueError: they are not 64 bytes.
    """
    if len(raw) != 2 * _P256_BYTES:
        raise ValueError("not r and s")
    return encode_dss_signature(
        int.from_bytes(raw[:_P256_BYTES], "big"), int.from_bytes(raw[_P256_BYTES:], "big")
    )


def _sm2_point(pem: str) -> bytes | None:
    """Return the point of an SM2 key, or None where it is no such key.

    Raises:
        PublicKeyUnusable: it is one, and this machine cannot use it.
    """
    der = _pem_body(pem)
    if der is None or not der.startswith(_SM2_HEAD):
        return None
    point, provider = der[len(_SM2_HEAD) :], sm2.provider()
    if len(point) != _SM2_POINT_BYTES or point[0] != 4 or provider is None:
        raise PublicKeyUnusable
    try:
        provider.encrypt(point, b"\x00")  # refuses what is no point of the curve
    except sm2.Sm2Failed:
        raise PublicKeyUnusable from None
    return point


def _pem_body(pem: str) -> bytes | None:
    lines = pem.strip().splitlines()
    if len(lines) < 3 or lines[0] != "-----BEGIN PUBLIC KEY-----":
        return None
    try:
        return b64decode("".join(lines[1:-1]), validate=True)
    except ValueError:
        return None

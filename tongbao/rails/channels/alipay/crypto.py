"""Alipay's RSA2 signatures: SHA-256 with RSA, PKCS#1 v1.5, over sorted parameters or raw JSON."""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

_KEY_BITS_MIN: Final = 2048


# Loading checks the key and takes 36 ms, signing 0.25 ms: loaded once, signed on the event loop
# (a thread would cost another 0.16 ms of it).
@lru_cache(maxsize=256)
def _private_key(pem: str) -> RSAPrivateKey:
    key = load_pem_private_key(pem.encode(), None)
    if not isinstance(key, RSAPrivateKey):
        raise TypeError("the application's key is no RSA key")
    return key


@lru_cache(maxsize=256)
def public_key(pem: str) -> RSAPublicKey:
    """Return the key in a PEM, which is a public key or a certificate."""
    key: object = (
        x509.load_pem_x509_certificate(pem.encode()).public_key()
        if "CERTIFICATE" in pem
        else load_pem_public_key(pem.encode())
    )
    if not isinstance(key, RSAPublicKey) or key.key_size < _KEY_BITS_MIN:
        raise TypeError("Alipay's key is no RSA key of 2048 bits or more")
    return key


def request_text(parameters: Mapping[str, str]) -> bytes:
    """Return what a request is signed over: every parameter that has a value, but not ``sign``."""
    return _joined({name: value for name, value in parameters.items() if value and name != "sign"})


def notice_text(parameters: Mapping[str, str]) -> bytes:
    """Return what a notification is signed over: all but ``sign`` and ``sign_type``, decoded."""
    return _joined(
        {name: value for name, value in parameters.items() if name not in {"sign", "sign_type"}}
    )


def sign(private_key_pem: str, message: bytes) -> str:
    """Return the base64 signature of a message."""
    return b64encode(_private_key(private_key_pem).sign(message, PKCS1v15(), SHA256())).decode()


def verify(key: RSAPublicKey, message: bytes, signature: str) -> bool:
    """Whether the base64 signature is this key's over exactly these bytes."""
    try:
        key.verify(b64decode(signature, validate=True), message, PKCS1v15(), SHA256())
    except (InvalidSignature, binascii.Error, ValueError):
        return False
    return True


def _joined(parameters: Mapping[str, str]) -> bytes:
    return "&".join(f"{name}={parameters[name]}" for name in sorted(parameters)).encode()

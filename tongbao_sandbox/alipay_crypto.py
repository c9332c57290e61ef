"""Alipay's RSA2 signatures: what is signed, how a reply carries it, how a merchant's is checked."""

from __future__ import annotations

import binascii
import json
from base64 import b64decode, b64encode
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256

REQUEST_LEAVES_OUT: Final = frozenset({"sign"})
NOTIFY_LEAVES_OUT: Final = frozenset({"sign", "sign_type"})


@lru_cache(maxsize=32)
def load_private_key(pem: str) -> rsa.RSAPrivateKey:
    """Read an RSA private key; anything else is a broken installation."""
    key = serialization.load_pem_private_key(
        pem.encode(),
        password=None,
        unsafe_skip_rsa_key_validation=True,  # our own make; it takes 40 ms for each key
    )
    if not isinstance(key, rsa.RSAPrivateKey):
        raise TypeError("Alipay signs with RSA keys only")
    return key


def load_public_key(pem: str) -> rsa.RSAPublicKey:
    """Read an RSA public key; anything else is a broken installation."""
    key = serialization.load_pem_public_key(pem.encode())
    if not isinstance(key, rsa.RSAPublicKey):
        raise TypeError("Alipay verifies with RSA keys only")
    return key


def text_to_sign(params: Mapping[str, str], leaves_out: frozenset[str]) -> str:
    """Return ``k=v&k=v`` of the non-empty parameters in ASCII order, values as they are.

    A request's ``sign_type`` is signed; a notification's is not.
    """
    kept = sorted((k, v) for k, v in params.items() if v and k not in leaves_out)
    return "&".join(f"{name}={value}" for name, value in kept)


def sign(key: rsa.RSAPrivateKey, text: str) -> str:
    """Return SHA256withRSA (PKCS#1 v1.5) over the UTF-8 text, in base64."""
    return b64encode(key.sign(text.encode(), padding.PKCS1v15(), SHA256())).decode()


def is_signed(key: rsa.RSAPublicKey, text: str, signature: str) -> bool:
    """Whether the signature is one over exactly this text; malformed base64 is just a no."""
    try:
        key.verify(b64decode(signature, validate=True), text.encode(), padding.PKCS1v15(), SHA256())
    except (InvalidSignature, binascii.Error, ValueError):
        return False
    return True


def compact(content: Mapping[str, Any]) -> str:
    """Return JSON without spaces and with raw UTF-8: the very bytes that are signed."""
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"))


def signed_reply(
    key: rsa.RSAPrivateKey, name: str, content: Mapping[str, Any], number: str = ""
) -> bytes:
    """Return the gateway's reply; the signature covers the inner object as it is written.

    Clients cut the signed text out of the raw reply, so ``sign`` comes last and nothing is escaped.
    In certificate mode the number of Alipay's certificate stands between the two.
    """
    inner = compact(content)
    named = f'"alipay_cert_sn":"{number}",' if number else ""
    return f'{{"{name}":{inner},{named}"sign":"{sign(key, inner)}"}}'.encode()


def signed_notify(key: rsa.RSAPrivateKey, fields: Mapping[str, str]) -> dict[str, str]:
    """Return a notification's fields with its signature."""
    signature = sign(key, text_to_sign(fields, NOTIFY_LEAVES_OUT))
    return {**fields, "sign_type": "RSA2", "sign": signature}

"""Sign requests with a private key of your own (RFC 9421), and encrypt fields of them."""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable, Mapping
from typing import Final, Literal

from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import SM4
from cryptography.hazmat.primitives.ciphers.modes import GCM
from cryptography.hazmat.primitives.hashes import SHA256, SHA512
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import load_pem_private_key

FieldCipher = Literal["A256GCM", "SM4GCM"]
_PSS_SALT_BYTES: Final = 64


class MessageSigner:
    """Signs with one private key: Ed25519, EC P-256 or RSA, given as PEM without a password."""

    def __init__(self, key_id: str, private_key: str) -> None:
        self._key_id = key_id
        self._algorithm, self._sign = _signing(private_key)

    def headers(
        self, method: str, url: str, body: bytes, headers: Mapping[str, str]
    ) -> dict[str, str]:
        """Return the headers that sign a request, each good for one try within five minutes."""
        values = {"@method": method, "@target-uri": url}
        added = {}
        if body:
            digest = b64encode(hashlib.sha256(body).digest()).decode()
            values["content-digest"] = added["Content-Digest"] = f"sha-256=:{digest}:"
        given = {name.lower(): value for name, value in headers.items()}
        if "idempotency-key" in given:
            values["idempotency-key"] = given["idempotency-key"]
        covered = " ".join(f'"{name}"' for name in values)
        signed_as = (
            f"({covered});created={int(time.time())};keyid={json.dumps(self._key_id)}"
            f';alg="{self._algorithm}";nonce="{secrets.token_urlsafe(18)}";tag="tongbao"'
        )
        lines = [f'"{name}": {value}' for name, value in values.items()]
        base = "\n".join([*lines, f'"@signature-params": {signed_as}'])
        added["Signature-Input"] = f"tongbao={signed_as}"
        added["Signature"] = f"tongbao=:{b64encode(self._sign(base.encode())).decode()}:"
        return added


def encrypted_field(
    text: str,
    *,
    secret: str,
    method: str,
    path: str,
    pointer: str,
    cipher: FieldCipher = "A256GCM",
) -> str:
    """Return a text as it may stand in a request for nobody but the platform to read.

    ``secret`` is the API key's, ``path`` the request's without query, ``pointer`` the field's JSON
    pointer in the body, such as ``/payee/account``.
    """
    size = 32 if cipher == "A256GCM" else 16
    info = f"tongbao field {cipher}".encode()
    key = HKDF(SHA256(), size, salt=None, info=info).derive(secret.encode())
    iv, place = secrets.token_bytes(12), f"{method}\n{path}\n{pointer}\n".encode()
    if cipher == "A256GCM":
        sealed = AESGCM(key).encrypt(iv, text.encode(), place)
    else:
        encryptor = Cipher(SM4(key), GCM(iv)).encryptor()
        encryptor.authenticate_additional_data(place)
        sealed = encryptor.update(text.encode()) + encryptor.finalize() + encryptor.tag
    shown = [urlsafe_b64encode(each).decode().rstrip("=") for each in (iv, sealed)]
    return ".".join(["tbenc", cipher, *shown])


def _signing(pem: str) -> tuple[str, Callable[[bytes], bytes]]:
    match load_pem_private_key(pem.encode(), password=None):
        case Ed25519PrivateKey() as key:
            return "ed25519", key.sign
        case EllipticCurvePrivateKey() as key if isinstance(key.curve, SECP256R1):
            return "ecdsa-p256-sha256", lambda text: _side_by_side(key.sign(text, ECDSA(SHA256())))
        case RSAPrivateKey() as key:
            padding = PSS(MGF1(SHA512()), _PSS_SALT_BYTES)
            return "rsa-pss-sha512", lambda text: key.sign(text, padding, SHA512())
    raise ValueError("the private key is none of Ed25519, EC P-256 and RSA")


def _side_by_side(signature: bytes) -> bytes:
    r, s = decode_dss_signature(signature)
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")

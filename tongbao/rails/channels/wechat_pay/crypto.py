r"""WeChat Pay's signatures (RSA-SHA256, PKCS#1 v1.5) and its AES-256-GCM envelopes.

A request is signed over ``METHOD\nPATH?QUERY\nTIMESTAMP\nNONCE\nBODY\n``, a reply or callback
over ``TIMESTAMP\nNONCE\nBODY\n``. The path is the one below the gateway's address.
"""

from __future__ import annotations

import binascii
import secrets
from base64 import b64decode, b64encode
from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from msgspec import Struct

from tongbao.rails.channels.wechat_pay.secrets import WechatPaySecrets

SCHEME: Final = "WECHATPAY2-SHA256-RSA2048"
WINDOW: Final = timedelta(minutes=5)
PROBE: Final = "WECHATPAY/SIGNTEST/"
"""How a deliberately wrong signature begins; WeChat Pay sends one at times, to be refused."""

_KEY_BITS_MIN: Final = 2048


class Verdict(StrEnum):
    """What became of checking a signature."""

    GOOD = "good"
    MISSING = "no signature"
    PROBE = "a signature probe"
    STALE = "signed more than five minutes away from now"
    UNKNOWN_KEY = "signed with a key we do not hold"
    BAD = "the signature does not verify"


class PlatformKey(Struct, frozen=True):
    """A key WeChat Pay signs with; a public key without a certificate is valid for ever."""

    key: RSAPublicKey
    valid_from: datetime | None
    valid_to: datetime | None

    def is_valid(self, at: datetime) -> bool:
        """Whether the certificate it came in is valid at this real time."""
        return (self.valid_from is None or self.valid_from <= at) and (
            self.valid_to is None or at <= self.valid_to
        )


class EnvelopeBroken(ValueError):
    """An encrypted resource does not open under the APIv3 key: not meant for us, or tampered."""


# Loading checks the key and takes 36 ms, signing 0.25 ms: loaded once, signed on the event loop
# (a thread would cost another 0.16 ms of it).
@lru_cache(maxsize=256)
def _private_key(pem: str) -> RSAPrivateKey:
    key = load_pem_private_key(pem.encode(), None)
    if not isinstance(key, RSAPrivateKey):
        raise TypeError("the merchant key is no RSA key")
    return key


@lru_cache(maxsize=1024)
def platform_key(pem: str) -> PlatformKey:
    """Return the key in a PEM, which is a certificate or a public key."""
    if "CERTIFICATE" not in pem:
        return PlatformKey(_large_rsa(load_pem_public_key(pem.encode())), None, None)
    certificate = x509.load_pem_x509_certificate(pem.encode())
    return PlatformKey(
        _large_rsa(certificate.public_key()),
        certificate.not_valid_before_utc,
        certificate.not_valid_after_utc,
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


def authorization(
    account_secrets: WechatPaySecrets,
    merchant_number: str,
    *,
    method: str,
    target: str,
    body: bytes,
    now: datetime,
) -> str:
    """Return the Authorization header of a request; ``target`` is its path with the query."""
    timestamp, nonce = str(int(now.timestamp())), secrets.token_hex(16).upper()
    message = f"{method}\n{target}\n{timestamp}\n{nonce}\n".encode() + body + b"\n"
    signature = sign(account_secrets.merchant_private_key_pem, message)
    return (
        f'{SCHEME} mchid="{merchant_number}",nonce_str="{nonce}",signature="{signature}",'
        f'timestamp="{timestamp}",serial_no="{account_secrets.merchant_serial}"'
    )


def check_signature(
    headers: Mapping[str, str], body: bytes, keys: Mapping[str, str], now: datetime
) -> Verdict:
    """Check the signature of a reply or callback on its raw bytes; header names are lower case.

    ``keys`` maps serials to PEMs, ``now`` is real time.
    """
    signature = headers.get("wechatpay-signature", "")
    timestamp = headers.get("wechatpay-timestamp", "")
    nonce = headers.get("wechatpay-nonce", "")
    if not (signature and timestamp and nonce):
        return Verdict.MISSING
    if signature.startswith(PROBE):
        return Verdict.PROBE
    if headers.get("wechatpay-signature-type", SCHEME) != SCHEME:
        return Verdict.BAD
    if not _is_recent(timestamp, now):
        return Verdict.STALE
    pem = keys.get(headers.get("wechatpay-serial", ""))
    if pem is None or not (held := platform_key(pem)).is_valid(now):
        return Verdict.UNKNOWN_KEY
    message = f"{timestamp}\n{nonce}\n".encode() + body + b"\n"
    return Verdict.GOOD if verify(held.key, message, signature) else Verdict.BAD


def open_envelope(api_v3_key: str, nonce: str, associated_data: str, ciphertext: str) -> bytes:
    """Decrypt an AEAD_AES_256_GCM resource.

    Raises:
        EnvelopeBroken
    """
    try:
        sealed = b64decode(ciphertext, validate=True)
        return AESGCM(api_v3_key.encode()).decrypt(nonce.encode(), sealed, associated_data.encode())
    except (InvalidTag, binascii.Error, ValueError):
        raise EnvelopeBroken from None


def _large_rsa(key: object) -> RSAPublicKey:
    if not isinstance(key, RSAPublicKey) or key.key_size < _KEY_BITS_MIN:
        raise TypeError("the platform key is no RSA key of 2048 bits or more")
    return key


def _is_recent(timestamp: str, now: datetime) -> bool:
    if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 12):
        return False
    return abs(int(timestamp) - now.timestamp()) <= WINDOW.total_seconds()

"""Signatures and encryption of WeChat Pay API v3, written from the protocol's description.

Requests and replies are signed over their lines joined by newlines (RSA-SHA256, PKCS#1 v1.5);
callbacks and certificates are encrypted with AES-256-GCM under the merchant's APIv3 key.
"""

from __future__ import annotations

import binascii
import re
import secrets
import string
from base64 import b64decode, b64encode
from datetime import timedelta
from functools import cache
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from msgspec import Struct

from tongbao.kernel.clock import real_now
from tongbao_sandbox.clock import from_epoch, rfc3339
from tongbao_sandbox.credentials import new_rsa
from tongbao_sandbox.seam import Keys

SCHEME: Final = "WECHATPAY2-SHA256-RSA2048"
PROBE: Final = "WECHATPAY/SIGNTEST/"
"""A signature that begins so is a probe: the merchant must refuse it."""
WINDOW: Final = timedelta(minutes=5)

_ITEM: Final = re.compile(r'\s*([a-z_]+)="([^"]*)"\s*')
_ITEMS: Final = frozenset({"mchid", "nonce_str", "signature", "timestamp", "serial_no"})
_LETTERS: Final = string.ascii_letters + string.digits


class Authorization(Struct, frozen=True):
    """What the Authorization header of a request says."""

    mchid: str
    nonce_str: str
    signature: str
    timestamp: int
    serial_no: str


def make_keys() -> Keys:
    """Make a merchant's and the platform's key pairs, certificates and the APIv3 key."""
    merchant, _ = new_rsa()
    platform, platform_public = new_rsa()
    modern, modern_public = new_rsa()
    root = _private(new_rsa()[0])
    merchant_certificate = _certificate(merchant, "1900000109", root)
    platform_certificate = _certificate(platform, "Tenpay.com sign", root)
    shown = {
        "mchid": "1900000109",
        "appid": "wxd678efh567hg6787",
        "api_v3_key": "".join(secrets.choice(_LETTERS) for _ in range(32)),
        "merchant_serial": serial_of(merchant_certificate),
        "merchant_private_key_pem": merchant,
        "merchant_certificate_pem": merchant_certificate,
        "platform_serial": serial_of(platform_certificate),
        "platform_certificate_pem": platform_certificate,
        "platform_public_key_pem": platform_public,
        "public_key_id": "PUB_KEY_ID_01" + secrets.token_hex(15).upper(),
        "public_key_pem": modern_public,
    }
    return Keys(
        shown=shown,
        kept={"platform_private_key_pem": platform, "public_key_mode_private_key_pem": modern},
    )


def serial_of(certificate_pem: str) -> str:
    """Return a certificate's serial number as WeChat Pay writes it: upper hex."""
    return f"{x509.load_pem_x509_certificate(certificate_pem.encode()).serial_number:040X}"


def read_authorization(header: str) -> Authorization | None:
    """Return what the header says, or None when it is not of the one accepted form."""
    scheme, _, rest = header.partition(" ")
    if scheme != SCHEME:
        return None
    items: dict[str, str] = {}
    for part in rest.split(","):
        match = _ITEM.fullmatch(part)
        if match is None:
            return None
        items[match[1]] = match[2]
    if set(items) != _ITEMS or not items["timestamp"].isascii() or not items["timestamp"].isdigit():
        return None
    return Authorization(
        mchid=items["mchid"],
        nonce_str=items["nonce_str"],
        signature=items["signature"],
        timestamp=int(items["timestamp"][:12]),
        serial_no=items["serial_no"],
    )


def in_window(timestamp: int) -> bool:
    """Whether the time of signing is within five minutes of real time."""
    return abs(real_now() - from_epoch(timestamp)) <= WINDOW


class Vault:
    """The platform's side of the keys: checks merchants, signs, encrypts."""

    def __init__(self, keys: Keys) -> None:
        self.mchid = keys.shown["mchid"]
        self.appid = keys.shown["appid"]
        self._key = keys.shown["api_v3_key"].encode()
        self._merchant_serial = keys.shown["merchant_serial"]
        self._merchant = _public(keys.shown["merchant_certificate_pem"])
        self._serial = keys.shown["platform_serial"]
        self._certificate = keys.shown["platform_certificate_pem"]
        self._public_key_id = keys.shown["public_key_id"]
        self._platform = _private(keys.kept["platform_private_key_pem"])
        self._modern = _private(keys.kept["public_key_mode_private_key_pem"])

    def is_signed(self, said: Authorization, method: str, target: str, body: bytes) -> bool:
        """Whether the merchant we know signed exactly this request."""
        if said.mchid != self.mchid or said.serial_no.upper() != self._merchant_serial:
            return False
        lines = f"{method}\n{target}\n{said.timestamp}\n{said.nonce_str}\n".encode()
        try:
            signature = b64decode(said.signature, validate=True)
            self._merchant.verify(signature, lines + body + b"\n", PKCS1v15(), hashes.SHA256())
        except (InvalidSignature, binascii.Error, ValueError):
            return False
        return True

    def headers(
        self, body: bytes, *, wanted_serial: str = "", variant: str = "genuine"
    ) -> tuple[tuple[str, str], ...]:
        """Return the five signature headers over a body, now; a variant may be unverifiable.

        A merchant in public-key mode says so by sending the key's id as ``wanted_serial``.
        """
        timestamp, nonce = str(int(real_now().timestamp())), secrets.token_hex(16).upper()
        modern = wanted_serial == self._public_key_id
        if variant == "signtest":
            signature = PROBE + b64encode(secrets.token_bytes(192)).decode()
        else:
            key = _stranger() if variant == "forged" else self._platform
            key = self._modern if modern and variant == "genuine" else key
            lines = f"{timestamp}\n{nonce}\n".encode() + body + b"\n"
            signature = b64encode(key.sign(lines, PKCS1v15(), hashes.SHA256())).decode()
        return (
            ("Wechatpay-Nonce", nonce),
            ("Wechatpay-Serial", self._public_key_id if modern else self._serial),
            ("Wechatpay-Signature", signature),
            ("Wechatpay-Signature-Type", SCHEME),
            ("Wechatpay-Timestamp", timestamp),
        )

    def seal(self, plaintext: bytes, associated: str) -> dict[str, str]:
        """Encrypt for the merchant; the tag follows the ciphertext, all in base64."""
        # The nonce is ASCII text in this protocol: clients take its letters as the 12 bytes.
        nonce = "".join(secrets.choice(_LETTERS) for _ in range(12))
        sealed = AESGCM(self._key).encrypt(nonce.encode(), plaintext, associated.encode())
        return {
            "algorithm": "AEAD_AES_256_GCM",
            "ciphertext": b64encode(sealed).decode(),
            "associated_data": associated,
            "nonce": nonce,
        }

    def certificates(self) -> dict[str, object]:
        """Return the answer of GET /v3/certificates: the platform certificate, encrypted."""
        certificate = x509.load_pem_x509_certificate(self._certificate.encode())
        sealed = self.seal(self._certificate.encode(), "certificate")
        entry = {
            "effective_time": rfc3339(certificate.not_valid_before_utc),
            "encrypt_certificate": sealed,
            "expire_time": rfc3339(certificate.not_valid_after_utc),
            "serial_no": self._serial,
        }
        return {"data": [entry]}


@cache
def _stranger() -> RSAPrivateKey:
    """Return a key nobody knows, for forgeries."""
    return _private(new_rsa()[0])


def _private(pem: str) -> RSAPrivateKey:
    key = serialization.load_pem_private_key(pem.encode(), password=None)
    if not isinstance(key, RSAPrivateKey):
        raise TypeError("WeChat Pay signs with RSA")
    return key


def _public(certificate_pem: str) -> RSAPublicKey:
    key = x509.load_pem_x509_certificate(certificate_pem.encode()).public_key()
    if not isinstance(key, RSAPublicKey):
        raise TypeError("WeChat Pay signs with RSA")
    return key


def _certificate(private_pem: str, common_name: str, root: RSAPrivateKey) -> str:
    """Return a certificate under a root nobody keeps, valid for five years."""
    subject = x509.Name(
        [
            x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name),
            x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "Tenpay.com"),
            x509.NameAttribute(x509.NameOID.COUNTRY_NAME, "CN"),
        ]
    )
    issuer = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Tenpay.com Root CA")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(_private(private_pem).public_key())
        .serial_number(int.from_bytes(b"\x5a" + secrets.token_bytes(19)))
        .not_valid_before(real_now() - timedelta(days=1))
        .not_valid_after(real_now() + timedelta(days=5 * 365))
        .sign(root, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM).decode()

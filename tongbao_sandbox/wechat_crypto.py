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
from collections.abc import Callable
from datetime import timedelta
from functools import cache
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, OAEP, PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from msgspec import Struct

from tongbao.kernel.clock import real_now
from tongbao_sandbox import wechat_sm
from tongbao_sandbox.clock import from_epoch, rfc3339
from tongbao_sandbox.credentials import new_rsa
from tongbao_sandbox.seam import Keys

SCHEME: Final = "WECHATPAY2-SHA256-RSA2048"
SCHEMES: Final = (SCHEME, wechat_sm.SCHEME)
SUB_MCHID: Final = "1900001109"
"""The sub-merchant for whom the merchant may act as a service provider."""
SUB_APPID: Final = "wx8888888888888889"
PROBE: Final = "WECHATPAY/SIGNTEST/"
"""A signature that begins so is a probe: the merchant must refuse it."""
WINDOW: Final = timedelta(minutes=5)

_SM2_NAMES: Final = ("sm2_platform_key_id", "sm2_platform_serial")
"""Under what names the platform's SM2 key is known: its own, and its certificate's."""
_ITEM: Final = re.compile(r'\s*([a-z_]+)="([^"]*)"\s*')
_ITEMS: Final = frozenset({"mchid", "nonce_str", "signature", "timestamp", "serial_no"})
_LETTERS: Final = string.ascii_letters + string.digits


class Authorization(Struct, frozen=True):
    """What the Authorization header of a request says."""

    scheme: str
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
    following, _ = new_rsa()
    merchant_certificate = _certificate(merchant, "1900000109", root)
    platform_certificate = _certificate(platform, "Tenpay.com sign", root)
    sm2_merchant, sm2_merchant_public = wechat_sm.new_pair()
    sm2_platform, sm2_platform_public = wechat_sm.new_pair()
    sm2_serial = secrets.randbits(159)
    shown = {
        "mchid": "1900000109",
        "appid": "wxd678efh567hg6787",
        "app_secret": secrets.token_hex(16),
        "api_v3_key": "".join(secrets.choice(_LETTERS) for _ in range(32)),
        "merchant_serial": serial_of(merchant_certificate),
        "merchant_private_key_pem": merchant,
        "merchant_certificate_pem": merchant_certificate,
        "platform_serial": serial_of(platform_certificate),
        "platform_certificate_pem": platform_certificate,
        "platform_public_key_pem": platform_public,
        "public_key_id": "PUB_KEY_ID_01" + secrets.token_hex(15).upper(),
        "public_key_pem": modern_public,
        "sub_mchid": SUB_MCHID,
        "sub_appid": SUB_APPID,
        "sm2_merchant_serial": secrets.token_hex(20).upper(),
        "sm2_merchant_private_key_pem": sm2_merchant,
        "sm2_platform_key_id": "PUB_KEY_ID_02" + secrets.token_hex(15).upper(),
        "sm2_platform_public_key_pem": sm2_platform_public,
        "sm2_platform_serial": f"{sm2_serial:040X}",
        "sm2_platform_certificate_pem": wechat_sm.certificate(
            sm2_platform, sm2_platform_public, name="Tenpay.com sign", serial=sm2_serial, days=3650
        ),
    }
    kept = {
        "platform_private_key_pem": platform,
        "public_key_mode_private_key_pem": modern,
        "next_platform_private_key_pem": following,
        "next_platform_certificate_pem": _certificate(following, "Tenpay.com sign", root, age_h=1),
        "sm2_merchant_public_key_pem": sm2_merchant_public,
        "sm2_platform_private_key_pem": sm2_platform,
    }
    return Keys(shown=shown, kept=kept)


def serial_of(certificate_pem: str) -> str:
    """Return a certificate's serial number as WeChat Pay writes it: upper hex."""
    return f"{x509.load_pem_x509_certificate(certificate_pem.encode()).serial_number:040X}"


def read_authorization(header: str) -> Authorization | None:
    """Return what the header says, or None when it is not of the one accepted form."""
    scheme, _, rest = header.partition(" ")
    if scheme not in SCHEMES:
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
        scheme=scheme,
        mchid=items["mchid"],
        nonce_str=items["nonce_str"],
        signature=items["signature"],
        timestamp=int(items["timestamp"][:12]),
        serial_no=items["serial_no"],
    )


def in_window(timestamp: int) -> bool:
    """Whether the time of signing is within five minutes of real time."""
    return abs(real_now() - from_epoch(timestamp)) <= WINDOW


class _Platform(Struct, frozen=True):
    """One certificate of the platform with its key."""

    serial: str
    certificate: str
    key: RSAPrivateKey


def _unset(_name: str, default: Any) -> Any:
    return default


class Vault:
    """The platform's side of the keys: checks merchants, signs, encrypts.

    ``wechat.rotation`` says how far the change of the platform certificate has gone: ``announced``
    (both are listed, the old one signs), ``switched`` (both are listed, the new one signs),
    ``retired`` (only the new one).
    """

    def __init__(self, keys: Keys, setting: Callable[[str, Any], Any] = _unset) -> None:
        shown, kept = keys.shown, keys.kept
        self._setting = setting
        self.mchid = shown["mchid"]
        self.appid = shown["appid"]
        self.app_secret = shown.get("app_secret", "")
        self.sub_mchid = shown.get("sub_mchid", SUB_MCHID)
        self._key = shown["api_v3_key"].encode()
        self._merchant_serial = shown["merchant_serial"]
        self._merchant = _public(shown["merchant_certificate_pem"])
        self._public_key_id = shown["public_key_id"]
        self._modern = _private(kept["public_key_mode_private_key_pem"])
        self._now = _Platform(
            shown["platform_serial"],
            shown["platform_certificate_pem"],
            _private(kept["platform_private_key_pem"]),
        )
        self._sm2 = {**shown, **kept}
        self._following = _following(kept)

    def is_signed(self, said: Authorization, method: str, target: str, body: bytes) -> bool:
        """Whether the merchant we know signed exactly this request."""
        lines = f"{method}\n{target}\n{said.timestamp}\n{said.nonce_str}\n".encode() + body + b"\n"
        if said.mchid != self.mchid:
            return False
        if said.scheme == wechat_sm.SCHEME:
            known = said.serial_no.upper() == self._sm2.get("sm2_merchant_serial")
            return known and wechat_sm.verifies(
                self._sm2["sm2_merchant_public_key_pem"], lines, said.signature
            )
        return said.serial_no.upper() == self._merchant_serial and self._is_merchants(
            lines, said.signature
        )

    def is_opening(self, app_id: str, timestamp: str, nonce: str, rest: tuple[str, str]) -> bool:
        """Whether the merchant signed what a page or app opens WeChat with.

        ``rest`` is the fourth line and the signature over all four.
        """
        lines = f"{app_id}\n{timestamp}\n{nonce}\n{rest[0]}\n".encode()
        modern = self._sm2.get("sm2_merchant_public_key_pem")
        if modern and wechat_sm.verifies(modern, lines, rest[1]):
            return True
        return self._is_merchants(lines, rest[1])

    def _is_merchants(self, lines: bytes, signature: str) -> bool:
        try:
            raw = b64decode(signature, validate=True)
            self._merchant.verify(raw, lines, PKCS1v15(), hashes.SHA256())
        except (InvalidSignature, binascii.Error, ValueError):
            return False
        return True

    def reads(self, sealed: str, serial: str) -> str:
        """Return what a merchant encrypted for the key with this serial, or nothing."""
        if serial and serial in {self._sm2.get(name) for name in _SM2_NAMES}:
            found = wechat_sm.opens(self._sm2["sm2_platform_private_key_pem"], sealed)
            return found.decode("utf-8", "replace")
        keys = {one.serial: one.key for one in (self._now, self._following) if one is not None}
        key = {**keys, self._public_key_id: self._modern}.get(serial)
        padding = OAEP(MGF1(hashes.SHA1()), hashes.SHA1(), None)  # noqa: S303
        try:
            raw = b64decode(sealed, validate=True)
            return key.decrypt(raw, padding).decode() if key is not None and raw else ""
        except (binascii.Error, ValueError):
            return ""

    def headers(
        self,
        body: bytes,
        *,
        wanted_serial: str = "",
        variant: str = "genuine",
        scheme: str = SCHEME,
    ) -> tuple[tuple[str, str], ...]:
        """Return the five signature headers over a body, now; a variant may be unverifiable.

        A merchant in public-key mode says so by sending the key's id as ``wanted_serial``.
        """
        timestamp, nonce = str(int(real_now().timestamp())), secrets.token_hex(16).upper()
        lines = f"{timestamp}\n{nonce}\n".encode() + body + b"\n"
        if scheme == wechat_sm.SCHEME:
            serial, signature = self._sign_sm2(lines, wanted_serial, variant)
        else:
            serial, signature = self._sign(lines, wanted_serial, variant)
        if variant == "signtest":
            signature = PROBE + b64encode(secrets.token_bytes(192)).decode()
        return (
            ("Wechatpay-Nonce", nonce),
            ("Wechatpay-Serial", serial),
            ("Wechatpay-Signature", signature),
            ("Wechatpay-Signature-Type", scheme),
            ("Wechatpay-Timestamp", timestamp),
        )

    def _sign(self, lines: bytes, wanted_serial: str, variant: str) -> tuple[str, str]:
        modern, platform = wanted_serial == self._public_key_id, self._signer()
        key = self._modern if modern else platform.key
        if variant == "forged":
            key = _stranger()
        signature = b64encode(key.sign(lines, PKCS1v15(), hashes.SHA256())).decode()
        return self._public_key_id if modern else platform.serial, signature

    def _sign_sm2(self, lines: bytes, wanted_serial: str, variant: str) -> tuple[str, str]:
        private = self._sm2["sm2_platform_private_key_pem"]
        if variant == "forged":
            private, _ = wechat_sm.new_pair()
        key_id = self._sm2["sm2_platform_key_id"]
        serial = key_id if wanted_serial == key_id else self._sm2.get("sm2_platform_serial", key_id)
        return serial, wechat_sm.sign(private, lines)

    def seal(self, plaintext: bytes, associated: str, scheme: str = SCHEME) -> dict[str, str]:
        """Encrypt for the merchant; the tag follows the ciphertext, all in base64."""
        # The nonce is ASCII text in this protocol: clients take its letters as the 12 bytes.
        nonce = "".join(secrets.choice(_LETTERS) for _ in range(12))
        if scheme == wechat_sm.SCHEME:
            algorithm = wechat_sm.ALGORITHM
            sealed = wechat_sm.seal(self._key, nonce.encode(), plaintext, associated.encode())
        else:
            algorithm = "AEAD_AES_256_GCM"
            sealed = AESGCM(self._key).encrypt(nonce.encode(), plaintext, associated.encode())
        return {
            "algorithm": algorithm,
            "ciphertext": b64encode(sealed).decode(),
            "associated_data": associated,
            "nonce": nonce,
        }

    def seal_file(self, content: bytes, algorithm: str) -> tuple[bytes, str, str]:
        """Return a file encrypted under a fresh key, that key for the merchant's, the nonce."""
        if algorithm == "SM4_GCM":
            key, nonce = secrets.token_bytes(16), secrets.token_hex(8)
            for_merchant = wechat_sm.seals(self._sm2["sm2_merchant_public_key_pem"], key)
            sealed = wechat_sm.seal_file(key, nonce.encode(), content)
            return sealed, b64encode(for_merchant).decode(), nonce
        key, nonce = AESGCM.generate_key(256), secrets.token_hex(8)
        padding = OAEP(MGF1(hashes.SHA1()), hashes.SHA1(), None)  # noqa: S303 - the protocol's own
        wrapped = b64encode(self._merchant.encrypt(key, padding)).decode()
        return AESGCM(key).encrypt(nonce.encode(), content, None), wrapped, nonce

    def certificates(self, algorithm: str = "") -> dict[str, object]:
        """Return the answer of GET /v3/certificates: the platform certificates, encrypted.

        ``algorithm`` SM2 asks for the one certificate of that scheme.
        """
        if algorithm == "SM2":
            serial = self._sm2.get("sm2_platform_serial", "")  # none in an older data directory
            pem = self._sm2.get("sm2_platform_certificate_pem", "")
            return {"data": [self._listed(serial, pem, wechat_sm.SCHEME)] if pem else []}
        stage = self._setting("wechat.rotation", "")
        listed = [] if stage == "retired" else [self._now]
        if stage and self._following is not None:
            listed.append(self._following)
        return {"data": [self._listed(one.serial, one.certificate) for one in listed]}

    def _listed(self, serial: str, pem: str, scheme: str = SCHEME) -> dict[str, object]:
        certificate = x509.load_pem_x509_certificate(pem.encode())
        return {
            "effective_time": rfc3339(certificate.not_valid_before_utc),
            "encrypt_certificate": self.seal(pem.encode(), "certificate", scheme),
            "expire_time": rfc3339(certificate.not_valid_after_utc),
            "serial_no": serial,
        }

    def _signer(self) -> _Platform:
        switched = self._setting("wechat.rotation", "") in {"switched", "retired"}
        return self._following if switched and self._following is not None else self._now


def _following(kept: dict[str, str]) -> _Platform | None:
    """Return the certificate that comes next; an older directory has none."""
    if "next_platform_certificate_pem" not in kept:
        return None
    pem = kept["next_platform_certificate_pem"]
    return _Platform(serial_of(pem), pem, _private(kept["next_platform_private_key_pem"]))


@cache
def _stranger() -> RSAPrivateKey:
    """Return a key nobody knows, for forgeries."""
    return _private(new_rsa()[0])


def _private(pem: str) -> RSAPrivateKey:
    key = serialization.load_pem_private_key(
        pem.encode(),
        password=None,
        unsafe_skip_rsa_key_validation=True,  # our own make; it takes 40 ms for each key
    )
    if not isinstance(key, RSAPrivateKey):
        raise TypeError("WeChat Pay signs with RSA")
    return key


def _public(certificate_pem: str) -> RSAPublicKey:
    key = x509.load_pem_x509_certificate(certificate_pem.encode()).public_key()
    if not isinstance(key, RSAPublicKey):
        raise TypeError("WeChat Pay signs with RSA")
    return key


def _certificate(
    private_pem: str, common_name: str, root: RSAPrivateKey, *, age_h: int = 24
) -> str:
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
        .not_valid_before(real_now() - timedelta(hours=age_h))
        .not_valid_after(real_now() + timedelta(days=5 * 365))
        .sign(root, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM).decode()

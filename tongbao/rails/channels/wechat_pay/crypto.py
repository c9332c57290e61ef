r"""WeChat Pay's signatures and envelopes, in RSA with AES and in SM2 with SM4.

A request is signed over ``METHOD\nPATH?QUERY\nTIMESTAMP\nNONCE\nBODY\n``, a reply or callback
over ``TIMESTAMP\nNONCE\nBODY\n``, the parameters a page or app opens WeChat with over
``APPID\nTIMESTAMP\nNONCE\nPREPAY\n``. The path is the one below the gateway's address. RSA is
SHA-256 with PKCS#1 v1.5; SM2 is with SM3, the signature in DER, and the SM4 key is the first half
of the SM3 digest of the APIv3 key (`wechatpay-apiv3/wechatpay-java`, module shangmi).
"""

from __future__ import annotations

import binascii
import secrets
from base64 import b64decode, b64encode
from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, OAEP, PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES256, SM4
from cryptography.hazmat.primitives.ciphers.modes import GCM
from cryptography.hazmat.primitives.hashes import SHA1, SHA256, SM3, Hash
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from msgspec import Struct

from tongbao.infra import sm2
from tongbao.infra.crypto import rsa_private_key
from tongbao.rails.channels.wechat_pay.secrets import Scheme, WechatPaySecrets

SCHEMES: Final[Mapping[Scheme, str]] = {
    "RSA": "WECHATPAY2-SHA256-RSA2048",
    "SM2": "WECHATPAY2-SM2-WITH-SM3",
}
FILES: Final[Mapping[Scheme, str]] = {"RSA": "AEAD_AES_256_GCM", "SM2": "SM4_GCM"}
ENVELOPES: Final[Mapping[Scheme, str]] = {"RSA": "AEAD_AES_256_GCM", "SM2": "AEAD_SM4_GCM"}
WINDOW: Final = timedelta(minutes=5)
PROBE: Final = "WECHATPAY/SIGNTEST/"
"""How a deliberately wrong signature begins; WeChat Pay sends one at times, to be refused."""

_KEY_BITS_MIN: Final = 2048
_TAG_BYTES: Final = 16
_NONCE_BYTES: Final = 12
_SM4_KEY_BYTES: Final = 16
_PIECE_BYTES: Final = 1024 * 1024
# SubjectPublicKeyInfo of a point on the curve sm2p256v1, up to the point itself; the certificate
# library reads such a certificate but not its key.
_SM2_PUBLIC_DER: Final = bytes.fromhex("3059301306072a8648ce3d020106082a811ccf5501822d034200")


class Verdict(StrEnum):
    """What became of checking a signature."""

    GOOD = "good"
    MISSING = "no signature"
    PROBE = "a signature probe"
    STALE = "signed more than five minutes away from now"
    UNKNOWN_KEY = "signed with a key we do not hold"
    BAD = "the signature does not verify"


class PlatformKey(Struct, frozen=True):
    """A key WeChat Pay signs with: RSA, or the 65 bytes of an SM2 point.

    A public key without a certificate is valid for ever.
    """

    key: RSAPublicKey | bytes
    valid_from: datetime | None
    valid_to: datetime | None

    def is_valid(self, at: datetime) -> bool:
        """Whether the certificate it came in is valid at this real time."""
        return (self.valid_from is None or self.valid_from <= at) and (
            self.valid_to is None or at <= self.valid_to
        )


class EnvelopeBroken(ValueError):
    """An encrypted resource does not open under the APIv3 key: not meant for us, or tampered."""


class NotEncryptable(ValueError):
    """A field cannot be encrypted for WeChat Pay: no key is valid, or the text is too long."""


@lru_cache(maxsize=1024)
def platform_key(pem: str) -> PlatformKey:
    """Return the key in a PEM, which is a certificate or a public key.

    Raises:
        ValueError, TypeError: it is neither, or too weak.
    """
    if "CERTIFICATE" not in pem:
        return PlatformKey(_bare_key(pem), None, None)
    certificate = x509.load_pem_x509_certificate(pem.encode())
    return PlatformKey(
        _point_in(certificate.tbs_certificate_bytes) or _large_rsa(certificate.public_key()),
        certificate.not_valid_before_utc,
        certificate.not_valid_after_utc,
    )


def can_sign(scheme: Scheme) -> bool:
    """Whether this machine knows the scheme's algorithms."""
    return scheme == "RSA" or sm2.provider() is not None


def sign(scheme: Scheme, private_key_pem: str, message: bytes) -> str:
    """Return the base64 signature of a message."""
    if scheme == "SM2":
        raw = _sm2().sign(der_of(private_key_pem), message)
        r, s = int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big")
        return b64encode(encode_dss_signature(r, s)).decode()
    return b64encode(rsa_private_key(private_key_pem).sign(message, PKCS1v15(), SHA256())).decode()


def verify(key: RSAPublicKey | bytes, message: bytes, signature: str) -> bool:
    """Whether the base64 signature is this key's over exactly these bytes."""
    try:
        raw = b64decode(signature, validate=True)
        if isinstance(key, bytes):
            r, s = decode_dss_signature(raw)
            if encode_dss_signature(r, s) != raw:  # one signature has one form
                return False
            return _sm2().verify(key, message, r.to_bytes(32, "big") + s.to_bytes(32, "big"))
        key.verify(raw, message, PKCS1v15(), SHA256())
    except (InvalidSignature, binascii.Error, ValueError, OverflowError):
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
    scheme = account_secrets.scheme
    signature = sign(scheme, account_secrets.merchant_private_key_pem, message)
    return (
        f'{SCHEMES[scheme]} mchid="{merchant_number}",nonce_str="{nonce}",'
        f'signature="{signature}",timestamp="{timestamp}",'
        f'serial_no="{account_secrets.merchant_serial}"'
    )


class Opening(Struct, frozen=True):
    """What a page or an app opens WeChat with, signed by the merchant."""

    timestamp: str
    nonce: str
    signature: str


def opening(account_secrets: WechatPaySecrets, app_id: str, prepaid: str, now: datetime) -> Opening:
    """Sign what a page (``prepay_id=…``) or an app (the bare id) hands to WeChat."""
    timestamp, nonce = str(int(now.timestamp())), secrets.token_hex(16).upper()
    message = f"{app_id}\n{timestamp}\n{nonce}\n{prepaid}\n".encode()
    pem = account_secrets.merchant_private_key_pem
    return Opening(timestamp, nonce, sign(account_secrets.scheme, pem, message))


def check_signature(
    headers: Mapping[str, str],
    body: bytes,
    keys: Mapping[str, str],
    now: datetime,
    scheme: Scheme = "RSA",
) -> Verdict:
    """Check the signature of a reply or callback on its raw bytes; header names are lower case.

    ``keys`` maps serials to PEMs, ``now`` is real time.
    """
    signature = headers.get("wechatpay-signature", "")
    timestamp = headers.get("wechatpay-timestamp", "")
    nonce = headers.get("wechatpay-nonce", "")
    if not (signature and timestamp and nonce) or signature.startswith(PROBE):
        return Verdict.PROBE if signature.startswith(PROBE) else Verdict.MISSING
    if headers.get("wechatpay-signature-type", SCHEMES[scheme]) != SCHEMES[scheme]:
        return Verdict.BAD
    if not _is_recent(timestamp, now):
        return Verdict.STALE
    pem = keys.get(headers.get("wechatpay-serial", ""))
    if pem is None or not (held := platform_key(pem)).is_valid(now):
        return Verdict.UNKNOWN_KEY
    message = f"{timestamp}\n{nonce}\n".encode() + body + b"\n"
    fits = isinstance(held.key, bytes) is (scheme == "SM2")
    return Verdict.GOOD if fits and verify(held.key, message, signature) else Verdict.BAD


def open_envelope(
    api_v3_key: str,
    nonce: str,
    associated_data: str,
    ciphertext: str,
    algorithm: str = ENVELOPES["RSA"],
) -> bytes:
    """Decrypt an AEAD_AES_256_GCM or AEAD_SM4_GCM resource.

    Raises:
        EnvelopeBroken
    """
    try:
        sealed = b64decode(ciphertext, validate=True)
        if algorithm == ENVELOPES["SM2"]:
            return _open_sm4(api_v3_key, nonce.encode(), associated_data.encode(), sealed)
        return AESGCM(api_v3_key.encode()).decrypt(nonce.encode(), sealed, associated_data.encode())
    except (InvalidTag, binascii.Error, ValueError):
        raise EnvelopeBroken from None


def open_file(
    scheme: Scheme, private_key_pem: str, *, key: str, nonce: str, sealed: Path, to: Path
) -> None:
    """Decrypt a file of an encrypted bill, whose key comes encrypted for the merchant's.

    From WeChat Pay's own page on sub-merchants' fund bills: AES-256-GCM, its key by RSA-OAEP; a
    tag of 16 bytes is the end of the file, and nothing is associated. SM4-GCM is named there
    without its form: the key is read as SM2 writes encrypted fields, and another form opens
    nothing. A file that breaks is not left behind.

    Raises:
        EnvelopeBroken
    """
    try:
        algorithm = _file_key(scheme, private_key_pem, b64decode(key, validate=True))
        left = sealed.stat().st_size - _TAG_BYTES
        with sealed.open("rb") as source, to.open("wb") as target:
            source.seek(max(left, 0))
            mode = GCM(nonce.encode(), source.read())
            cipher = Cipher(algorithm, mode).decryptor()
            source.seek(0)
            while left > 0:
                piece = source.read(min(left, _PIECE_BYTES))
                left -= len(piece)
                target.write(cipher.update(piece))
            cipher.finalize()
    except (InvalidTag, binascii.Error, ValueError, sm2.Sm2Failed):
        to.unlink(missing_ok=True)
        raise EnvelopeBroken from None


def _file_key(scheme: Scheme, private_key_pem: str, wrapped: bytes) -> AES256 | SM4:
    if scheme == "SM2":
        return SM4(_sm2().decrypt(der_of(private_key_pem), sm2.raw_ciphertext(wrapped)))
    padding = OAEP(MGF1(SHA1()), SHA1(), None)  # noqa: S303 - the protocol's own choice
    return AES256(rsa_private_key(private_key_pem).decrypt(wrapped, padding))


def encrypt_field(pem: str, text: str) -> str:
    """Encrypt a name or account number for WeChat Pay, base64, as the key is.

    RSA is OAEP with SHA-1; SM2 is the DER form of GM/T 0009
    (`wechatpay-apiv3/wechatpay-java:shangmi`).

    Raises:
        NotEncryptable
    """
    key = platform_key(pem).key
    try:
        if isinstance(key, bytes):
            sealed = sm2.ciphertext_der(_sm2().encrypt(key, text.encode()))
        else:
            padding = OAEP(MGF1(SHA1()), SHA1(), None)  # noqa: S303 - the protocol's own choice
            sealed = key.encrypt(text.encode(), padding)
    except (ValueError, sm2.Sm2Failed):
        raise NotEncryptable("the text is too long, or the key is none to encrypt with") from None
    return b64encode(sealed).decode()


def _open_sm4(api_v3_key: str, nonce: bytes, associated: bytes, sealed: bytes) -> bytes:
    if len(nonce) != _NONCE_BYTES or len(sealed) < _TAG_BYTES:
        raise ValueError("no SM4-GCM text")
    digest = Hash(SM3())
    digest.update(api_v3_key.encode())
    mode = GCM(nonce, sealed[-_TAG_BYTES:])
    cipher = Cipher(SM4(digest.finalize()[:_SM4_KEY_BYTES]), mode).decryptor()
    cipher.authenticate_additional_data(associated)
    return cipher.update(sealed[:-_TAG_BYTES]) + cipher.finalize()


def _sm2() -> sm2.Sm2:
    found = sm2.provider()
    if found is None:
        raise ValueError("this machine has no library that knows SM2")
    return found


def der_of(pem: str) -> bytes:
    """Return what a PEM holds."""
    lines = [line for line in pem.strip().splitlines() if not line.startswith("-----")]
    return b64decode("".join(lines))


def _bare_key(pem: str) -> RSAPublicKey | bytes:
    point = _point_in(der_of(pem)) if "BEGIN" in pem else None
    return point or _large_rsa(load_pem_public_key(pem.encode()))


def _point_in(der: bytes) -> bytes | None:
    start = der.find(_SM2_PUBLIC_DER)
    if start < 0:
        return None
    start += len(_SM2_PUBLIC_DER)
    return der[start : start + sm2.POINT_BYTES]


def _large_rsa(key: object) -> RSAPublicKey:
    if not isinstance(key, RSAPublicKey) or key.key_size < _KEY_BITS_MIN:
        raise TypeError("the platform key is no RSA key of 2048 bits or more")
    return key


def _is_recent(timestamp: str, now: datetime) -> bool:
    if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 12):
        return False
    return abs(int(timestamp) - now.timestamp()) <= WINDOW.total_seconds()

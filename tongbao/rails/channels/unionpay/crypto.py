"""UnionPay's signatures: over sorted fields, with certificates (01) or one key (11, 12).

Method 01 hashes twice: the RSA signature is over the lower-case hexadecimal text of the digest. The
certificate that verifies an answer comes with the answer, so it proves nothing until its chain
ends at our root and its name is UnionPay's own: our own certificate is of the same authority.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
from base64 import b64decode, b64encode
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256, SM3, Hash
from cryptography.x509.oid import NameOID
from msgspec import Struct

from tongbao.infra.crypto import rsa_private_key
from tongbao.rails.channels.unionpay.secrets import UnionPaySecrets

UNIONPAY_NAME: Final = "中国银联股份有限公司"
"""The third part of the common name of the certificate that signs, between @ signs."""

RSA: Final = "01"
_SHA256_KEY: Final = "11"
_KEY_BITS_MIN: Final = 2048
_CERTIFICATE_MAX: Final = 16 * 1024


def signed_text(fields: Mapping[str, str]) -> bytes:
    """Return what a signature is over: every field with a value but the signature, by name."""
    return "&".join(
        f"{name}={fields[name]}" for name in sorted(fields) if fields[name] and name != "signature"
    ).encode()


def sign(secrets: UnionPaySecrets, fields: Mapping[str, str]) -> dict[str, str]:
    """Return the fields with how they are signed, and the signature."""
    whole = {**fields, "signMethod": secrets.sign_method}
    if secrets.sign_method == RSA:
        whole["certId"] = certificate_id(secrets.merchant_certificate_pem)
        hexadecimal = hashlib.sha256(signed_text(whole)).hexdigest().encode()
        signature = rsa_private_key(secrets.merchant_private_key_pem).sign(
            hexadecimal, PKCS1v15(), SHA256()
        )
        return {**whole, "signature": b64encode(signature).decode()}
    return {**whole, "signature": _keyed(secrets, signed_text(whole))}


def refusal(secrets: UnionPaySecrets, fields: Mapping[str, str], now: datetime) -> str | None:
    """Return why these fields are not UnionPay's own, or None when their signature verifies.

    ``now`` is real time, for the certificate's dates. Whether an answer is fresh the signature
    does not say: answers are compared with what was asked, and repeats of news are harmless.
    """
    signature = fields.get("signature", "")
    if not signature:
        return "there is no signature"
    if fields.get("signMethod") != secrets.sign_method:
        return "it is signed with another method"
    text = signed_text(fields)
    if secrets.sign_method != RSA:
        expected = _keyed(secrets, text).encode()
        is_same = hmac.compare_digest(expected, signature.encode())
        return None if is_same else "the signature does not verify"
    try:
        key = signer_key(
            fields.get("signPubKeyCert", ""),
            secrets.middle_certificate_pem,
            secrets.root_certificate_pem,
            now,
        )
    except CertificateRefused as refused:
        return str(refused)
    return None if verifies(key, text, signature) else "the signature does not verify"


def verifies(key: RSAPublicKey, text: bytes, signature: str) -> bool:
    """Whether the base64 signature is this key's over the digest of these bytes."""
    try:
        raw = b64decode(signature, validate=True)
        key.verify(raw, hashlib.sha256(text).hexdigest().encode(), PKCS1v15(), SHA256())
    except (InvalidSignature, binascii.Error, ValueError):
        return False
    return True


class CertificateRefused(Exception):
    """The certificate that came with an answer is not UnionPay's."""


def signer_key(leaf_pem: str, middle_pem: str, root_pem: str, now: datetime) -> RSAPublicKey:
    """Return the key of UnionPay's signing certificate, once its chain, name and dates hold.

    SHA-1 in the authority's own signatures is taken, as UnionPay's test certificates have it: the
    two that issue are not taken from the answer but are ours.

    Raises:
        CertificateRefused
    """
    signer = _signer(leaf_pem, middle_pem, root_pem)
    if not signer.begins <= now <= signer.ends:
        raise CertificateRefused("a certificate of the chain is not valid now")
    return signer.key


def name_of(certificate: x509.Certificate) -> str:
    """Return whose certificate it is: the third part of its common name, or the whole of it."""
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    text = str(names[0].value) if names else ""
    parts = text.split("@")
    return parts[2] if len(parts) > 2 else text


def certificate_id(pem: str) -> str:
    """Return a certificate's serial number in decimal, which UnionPay calls ``certId``."""
    return str(_certificate(pem).serial_number)


class _Signer(Struct, frozen=True):
    key: RSAPublicKey
    begins: datetime
    ends: datetime


# Three parsings and two RSA verifications: once per certificate, and not for each answer.
@lru_cache(maxsize=64)
def _signer(leaf_pem: str, middle_pem: str, root_pem: str) -> _Signer:
    if len(leaf_pem) > _CERTIFICATE_MAX:
        raise CertificateRefused("the certificate is larger than any")
    try:
        leaf = x509.load_pem_x509_certificate(leaf_pem.encode())
    except ValueError:
        raise CertificateRefused("there is no certificate in the answer") from None
    middle, root = _certificate(middle_pem), _certificate(root_pem)
    for certificate, issuer in ((leaf, middle), (middle, root)):
        try:
            certificate.verify_directly_issued_by(issuer)
        except (InvalidSignature, ValueError, TypeError):
            raise CertificateRefused("the certificate's chain does not end at our root") from None
    if name_of(leaf) != UNIONPAY_NAME:
        raise CertificateRefused("the certificate is not UnionPay's")
    key = leaf.public_key()
    if not isinstance(key, RSAPublicKey) or key.key_size < _KEY_BITS_MIN:
        raise CertificateRefused("the certificate's key is no RSA key of 2048 bits or more")
    chain = (leaf, middle, root)
    return _Signer(
        key,
        begins=max(certificate.not_valid_before_utc for certificate in chain),
        ends=min(certificate.not_valid_after_utc for certificate in chain),
    )


def _keyed(secrets: UnionPaySecrets, text: bytes) -> str:
    digest = _sha256 if secrets.sign_method == _SHA256_KEY else _sm3
    return digest(text + b"&" + digest(secrets.secure_key.encode()).encode())


def _sha256(message: bytes) -> str:
    return hashlib.sha256(message).hexdigest()


def _sm3(message: bytes) -> str:
    digest = Hash(SM3())
    digest.update(message)
    return digest.finalize().hex()


@lru_cache(maxsize=256)
def _certificate(pem: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem.encode())

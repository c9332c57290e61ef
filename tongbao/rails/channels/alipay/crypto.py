"""Alipay's signatures and certificates.

Signatures are RSA2: SHA-256 with RSA, PKCS#1 v1.5, over sorted parameters or raw JSON. An
application trusts Alipay by a bare public key, or (certificate mode) by a certificate whose chain
ends at roots it was given; then each side names its certificate by a number of its own making.
"""

from __future__ import annotations

import binascii
import hashlib
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from itertools import zip_longest
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from cryptography.x509.oid import NameOID

from tongbao.infra.crypto import rsa_private_key

PublicKey = RSAPublicKey
"""A key that Alipay signs with."""

_KEY_BITS_MIN: Final = 2048
_RSA_SIGNATURES: Final = "1.2.840.113549.1.1."
_CHAIN_MAX: Final = 8
_ISSUER_PARTS: Final = (
    ("CN", NameOID.COMMON_NAME),
    ("OU", NameOID.ORGANIZATIONAL_UNIT_NAME),
    ("O", NameOID.ORGANIZATION_NAME),
    ("C", NameOID.COUNTRY_NAME),
)


@lru_cache(maxsize=256)
def public_key(pem: str) -> PublicKey:
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
    return b64encode(rsa_private_key(private_key_pem).sign(message, PKCS1v15(), SHA256())).decode()


def verify(key: PublicKey, message: bytes, signature: str) -> bool:
    """Whether the base64 signature is this key's over exactly these bytes."""
    try:
        key.verify(b64decode(signature, validate=True), message, PKCS1v15(), SHA256())
    except (InvalidSignature, binascii.Error, ValueError):
        return False
    return True


@lru_cache(maxsize=256)
def certificate_number(pem: str) -> str:
    """Return how Alipay names the first certificate of a PEM (``app_cert_sn``).

    That is the MD5 of its issuer's name and its serial number: a name, and no protection.
    """
    return _number(x509.load_pem_x509_certificate(pem.encode()))


@lru_cache(maxsize=256)
def root_number(pem: str) -> str:
    """Return how Alipay names a set of roots: the numbers of those signed with RSA, joined."""
    return "_".join(
        _number(root)
        for root in x509.load_pem_x509_certificates(pem.encode())
        if root.signature_algorithm_oid.dotted_string.startswith(_RSA_SIGNATURES)
    )


def leads_to_roots(pem: str, *, installed: str, roots: str, now: datetime) -> bool:
    """Whether a fetched chain may be believed: valid now, up to our roots, and still Alipay's.

    The same authority also certifies merchants, so the owner must be that of the certificate that
    people ``installed``. Alipay's own intermediate authorities do not say that they are any, so one
    that does not must be among those installed too.
    """
    try:
        chain = x509.load_pem_x509_certificates(pem.encode())
        held = x509.load_pem_x509_certificates(installed.encode())
        trusted = x509.load_pem_x509_certificates(roots.encode())
        public_key(pem)
    except (ValueError, TypeError):
        return False
    is_alipay = len(chain) <= _CHAIN_MAX and chain[0].subject == held[0].subject
    is_current = all(one.not_valid_before_utc <= now <= one.not_valid_after_utc for one in chain)
    return is_alipay and is_current and _leads_up(chain, trusted, held[1:])


def _leads_up(
    chain: Sequence[x509.Certificate],
    trusted: Sequence[x509.Certificate],
    installed: Sequence[x509.Certificate],
) -> bool:
    for one, above in zip_longest(chain, chain[1:]):
        if any(_issued(one, root) for root in trusted):
            return True
        if above is None or not _issued(one, above):
            return False
        if above not in installed and not _is_authority(above):
            return False
    return False


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, ValueError):
        return False


def _issued(one: x509.Certificate, by: x509.Certificate) -> bool:
    try:
        one.verify_directly_issued_by(by)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True


def _number(certificate: x509.Certificate) -> str:
    parts = [
        f"{label}={_text(found[0].value) if found else None}"
        for label, oid in _ISSUER_PARTS
        for found in [certificate.issuer.get_attributes_for_oid(oid)]
    ]
    named = ",".join(parts) + str(certificate.serial_number)
    return hashlib.md5(named.encode(), usedforsecurity=False).hexdigest()


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _joined(parameters: Mapping[str, str]) -> bytes:
    return "&".join(f"{name}={parameters[name]}" for name in sorted(parameters)).encode()

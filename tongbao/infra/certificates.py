"""Certificates (RFC 5280) of clients: who vouches for them, and whether they still count.

A certificate is believed when a chain of signatures leads from it to an anchor, every link is in
its time, may sign what it signed, and is on no list of revoked ones. RSA and ECDSA are checked by
`cryptography`, SM2 (GM/T 0015) by `infra.sm2` where this machine has it. What is not understood
is refused: an unknown critical extension, a name constraint, an algorithm that is not below.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from hashlib import sha256
from types import MappingProxyType
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512, HashAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID
from msgspec import Struct

from tongbao.infra import sm2
from tongbao.kernel.errors import Rejected

CHAIN_MAX: Final = 5
RSA_BITS_MIN: Final = 2048
CERTIFICATE_BYTES_MAX: Final = 16 * 1024
CRL_BYTES_MAX: Final = 4 * 1024 * 1024
_POINT_BYTES: Final = 65
_HALF: Final = 32
_VERSION: Final = b"\xa0"
_CERTIFICATES: Final = re.compile(
    b"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL
)
_LISTS: Final = re.compile(b"-----BEGIN X509 CRL-----.+?-----END X509 CRL-----", re.DOTALL)
_SM2_WITH_SM3: Final = "1.2.156.10197.1.501"
# SubjectPublicKeyInfo of an SM2 key, up to the 65 bytes of its point: its content, without its tag.
_SM2_KEY: Final = bytes.fromhex("3059301306072a8648ce3d020106082a811ccf5501822d034200")
_HASHES: Final[dict[str, HashAlgorithm]] = {
    "1.2.840.113549.1.1.11": SHA256(),
    "1.2.840.113549.1.1.12": SHA384(),
    "1.2.840.113549.1.1.13": SHA512(),
    "1.2.840.10045.4.3.2": SHA256(),
    "1.2.840.10045.4.3.3": SHA384(),
    "1.2.840.10045.4.3.4": SHA512(),
}
_UNREADABLE: Final = (
    ValueError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
_CURVES: Final = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
_UNDERSTOOD: Final = frozenset(
    {
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
        ExtensionOID.CERTIFICATE_POLICIES,
    }
)


class NameKind(StrEnum):
    """Where in a client's certificate a name stands (RFC 8705 §2.1.2)."""

    SUBJECT_DN = "subject_dn"
    SAN_DNS = "san_dns"
    SAN_URI = "san_uri"
    SAN_IP = "san_ip"
    SAN_EMAIL = "san_email"


_TYPES: Final[Mapping[NameKind, Any]] = {
    NameKind.SAN_DNS: x509.DNSName,
    NameKind.SAN_URI: x509.UniformResourceIdentifier,
    NameKind.SAN_IP: x509.IPAddress,
    NameKind.SAN_EMAIL: x509.RFC822Name,
}


class CertificateRefused(Rejected):
    """The certificate cannot be read, or no chain to an anchor makes it good for a client now."""

    code = "certificate.refused"
    advice = "Use a certificate for client authentication that is in its time and not revoked."
    advice_zh = "请使用在有效期内、未被吊销且用于客户端认证的证书。"


class Certificate(Struct, frozen=True):
    """A certificate that was read; nothing of it is believed yet."""

    der: bytes
    parsed: x509.Certificate
    subject: str
    serial: str
    not_before: datetime
    not_after: datetime


class Anchor(Struct, frozen=True):
    """Who is believed without proof, and the newest list of what it has revoked."""

    certificate: Certificate
    crl_der: bytes | None = None


def read_certificate(der: bytes) -> Certificate:
    """Read one certificate in DER.

    Raises:
        CertificateRefused
    """
    if len(der) > CERTIFICATE_BYTES_MAX:
        raise CertificateRefused(reason="too long")
    try:
        parsed = x509.load_der_x509_certificate(der)
        _ = parsed.issuer, parsed.signature_algorithm_oid, parsed.extensions  # read when asked for
        return Certificate(
            der,
            parsed,
            parsed.subject.rfc4514_string(),
            f"{parsed.serial_number:x}",
            parsed.not_valid_before_utc,
            parsed.not_valid_after_utc,
        )
    except _UNREADABLE:
        raise CertificateRefused(reason="unreadable") from None


def names_of(certificate: Certificate, kind: NameKind) -> list[str]:
    """Return what stands in that place of a certificate."""
    if kind is NameKind.SUBJECT_DN:
        return [certificate.subject]
    names = _extension(certificate, x509.SubjectAlternativeName)
    return [] if names is None else [str(each) for each in names.get_values_for_type(_TYPES[kind])]


def plain_subject(name: str) -> str:
    """Return a distinguished name in the one way to write it (RFC 4514).

    Raises:
        ValueError
    """
    return x509.Name.from_rfc4514_string(name).rfc4514_string()


def spki_of(certificate: Certificate) -> bytes | None:
    """Return the public key as it stands in the certificate, in DER; None where it is not read."""
    try:
        key = certificate.parsed.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return None
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def read_pem(pem: bytes) -> tuple[list[Certificate], list[bytes]]:
    """Return the certificates of a PEM file, and its lists of revoked ones in DER.

    Raises:
        CertificateRefused
    """
    try:
        found = [x509.load_pem_x509_certificate(each) for each in _CERTIFICATES.findall(pem)]
        lists = [x509.load_pem_x509_crl(each) for each in _LISTS.findall(pem)]
    except ValueError:
        raise CertificateRefused(reason="unreadable") from None
    certificates = [read_certificate(each.public_bytes(Encoding.DER)) for each in found]
    return certificates, [each.public_bytes(Encoding.DER) for each in lists]


def is_list_of(der: bytes, authority: Certificate) -> bool:
    """Tell whether a list names this authority as its own; whether it signed it is not asked."""
    return _read_crl(der).issuer == authority.parsed.subject


Lists = Mapping[bytes, bytes]
"""The newest list of revoked certificates of authorities in between, by SHA-256 of theirs (DER)."""


def check_chain(
    leaf: Certificate,
    between: Sequence[Certificate],
    anchors: Sequence[Anchor],
    now: datetime,
    lists: Lists = MappingProxyType({}),
) -> None:
    """Raise unless an anchor vouches for the leaf as a client at this moment.

    An anchor brings its own list of revoked certificates. Whom an authority in between has revoked
    is known where ``lists`` has its list; without one it is not asked for.

    Raises:
        CertificateRefused
    """
    _check_leaf(leaf)
    current, left = leaf, list(between)
    for below in range(CHAIN_MAX):
        _check_link(current, now)
        anchor = next((each for each in anchors if _vouches(each.certificate, current)), None)
        if anchor is not None:
            _check_authority(anchor.certificate, below)
            _check_link(anchor.certificate, now)
            _check_revoked(current, anchor, now)
            return
        issuer = next((each for each in left if _vouches(each, current)), None)
        if issuer is None:
            raise CertificateRefused(reason="no chain to an anchor")
        _check_authority(issuer, below)
        _check_revoked(current, Anchor(issuer, lists.get(sha256(issuer.der).digest())), now)
        left.remove(issuer)
        current = issuer
    raise CertificateRefused(reason="the chain is too long")


def check_authority_of(authority: Certificate, anchors: Sequence[Anchor], now: datetime) -> None:
    """Raise unless an anchor itself vouches for an authority, which may sign certificates.

    Raises:
        CertificateRefused
    """
    _check_link(authority, now)
    _check_authority(authority, 0)
    anchor = next((each for each in anchors if _vouches(each.certificate, authority)), None)
    if anchor is None:
        raise CertificateRefused(reason="no chain to an anchor")
    _check_revoked(authority, anchor, now)


def verify_by_certificate(certificate: Certificate, message: bytes, signature: bytes) -> bool:
    """Tell whether the certificate's key signed this: RSA (PSS or PKCS #1), ECDSA, or SM2.

    Hashes are SHA-256 and SM3; ECDSA and SM2 signatures are DER, as certificates have them.
    """
    point = _sm2_point(certificate)
    if point is not None:
        return _sm2_verifies(point, message, signature)
    key = _key_of(certificate)
    if isinstance(key, rsa.RSAPublicKey):
        pss = padding.PSS(padding.MGF1(SHA256()), padding.PSS.DIGEST_LENGTH)
        return any(
            _verifies(key, signature, message, how, SHA256()) for how in (pss, padding.PKCS1v15())
        )
    return _verifies(key, signature, message, ec.ECDSA(SHA256()))


def check_crl(der: bytes, anchor: Certificate, now: datetime) -> datetime:
    """Return when a list of revoked certificates is to be renewed, if the anchor has signed it.

    Raises:
        CertificateRefused
    """
    crl = _read_crl(der)
    algorithm = crl.signature_algorithm_oid.dotted_string
    if crl.issuer != anchor.parsed.subject or not _signed_by(
        anchor, algorithm, crl.tbs_certlist_bytes, crl.signature
    ):
        raise CertificateRefused(reason="the list is not the anchor's")
    until = crl.next_update_utc
    if until is None or crl.last_update_utc > now or until <= now:
        raise CertificateRefused(reason="the list is not of today")
    if any(each.critical for each in crl.extensions):
        raise CertificateRefused(reason="the list covers a part only")
    return until


def _check_leaf(leaf: Certificate) -> None:
    constraints = _extension(leaf, x509.BasicConstraints)
    if constraints is not None and constraints.ca:
        raise CertificateRefused(reason="an authority's, not a client's")
    usage = _extension(leaf, x509.KeyUsage)
    if usage is not None and not usage.digital_signature:
        raise CertificateRefused(reason="not for signatures")
    purposes = _extension(leaf, x509.ExtendedKeyUsage)
    if purposes is not None and ExtendedKeyUsageOID.CLIENT_AUTH not in purposes:
        raise CertificateRefused(reason="not for clients")


def _check_link(link: Certificate, now: datetime) -> None:
    if not link.not_before <= now <= link.not_after:
        raise CertificateRefused(reason="not in its time")
    for each in _extensions(link):
        if each.critical and each.oid not in _UNDERSTOOD:
            raise CertificateRefused(reason="a critical extension is unknown")
    if _sm2_point(link) is not None:
        return
    key = _key_of(link)
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < RSA_BITS_MIN:
        raise CertificateRefused(reason="the key is too short")


def _check_authority(issuer: Certificate, below: int) -> None:
    constraints = _extension(issuer, x509.BasicConstraints)
    if constraints is None or not constraints.ca:
        raise CertificateRefused(reason="the issuer is no authority")
    if constraints.path_length is not None and constraints.path_length < below:
        raise CertificateRefused(reason="the chain is longer than the issuer may have")
    usage = _extension(issuer, x509.KeyUsage)
    if usage is not None and not usage.key_cert_sign:
        raise CertificateRefused(reason="the issuer may not sign certificates")


def _check_revoked(certificate: Certificate, anchor: Anchor, now: datetime) -> None:
    if anchor.crl_der is None:
        return
    check_crl(anchor.crl_der, anchor.certificate, now)
    crl = _read_crl(anchor.crl_der)
    if crl.get_revoked_certificate_by_serial_number(certificate.parsed.serial_number) is not None:
        raise CertificateRefused(reason="revoked")


def _vouches(issuer: Certificate, below: Certificate) -> bool:
    if issuer.parsed.subject != below.parsed.issuer or issuer.der == below.der:
        return False
    return _signed_by(
        issuer,
        below.parsed.signature_algorithm_oid.dotted_string,
        below.parsed.tbs_certificate_bytes,
        below.parsed.signature,
    )


def _signed_by(issuer: Certificate, algorithm: str, message: bytes, signature: bytes) -> bool:
    point = _sm2_point(issuer)
    if point is not None:
        return algorithm == _SM2_WITH_SM3 and _sm2_verifies(point, message, signature)
    hashed = _HASHES.get(algorithm)
    if hashed is None:
        return False
    key = _key_of(issuer)
    if isinstance(key, rsa.RSAPublicKey):
        return _verifies(key, signature, message, padding.PKCS1v15(), hashed)
    return _verifies(key, signature, message, ec.ECDSA(hashed))


def _verifies(key: Any, signature: bytes, message: bytes, *how: Any) -> bool:
    try:
        key.verify(signature, message, *how)
    except (InvalidSignature, ValueError):
        return False
    return True


def _key_of(certificate: Certificate) -> rsa.RSAPublicKey | EllipticCurvePublicKey:
    try:
        key = certificate.parsed.public_key()
    except (ValueError, UnsupportedAlgorithm):
        raise CertificateRefused(reason="the key is of no kind we take") from None
    if isinstance(key, rsa.RSAPublicKey):
        return key
    if isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, _CURVES):
        return key
    raise CertificateRefused(reason="the key is of no kind we take")


def _sm2_point(certificate: Certificate) -> bytes | None:
    """Return the point of an SM2 key, which the library does not read, or None.

    The key is the seventh part of what is signed, or the sixth where no version stands in front
    (RFC 5280 §4.1): looked for by its place, since any bytes may stand in a name.
    """
    rest = _content(certificate.parsed.tbs_certificate_bytes)[0]
    for _ in range(6 if rest[:1] == _VERSION else 5):
        rest = _content(rest)[1]
    key, point = rest[: len(_SM2_KEY)], rest[len(_SM2_KEY) : len(_SM2_KEY) + _POINT_BYTES]
    return point if key == _SM2_KEY and len(point) == _POINT_BYTES else None


def _content(der: bytes) -> tuple[bytes, bytes]:
    """Return the content of the first element, and what follows it."""
    length, start = der[1], 2
    if length & 0x80:
        start += length & 0x7F
        length = int.from_bytes(der[2:start], "big")
    return der[start : start + length], der[start + length :]


def _sm2_verifies(point: bytes, message: bytes, signature: bytes) -> bool:
    provider = sm2.provider()
    if provider is None:
        raise CertificateRefused(reason="no SM2 on this machine")
    try:
        r, s = decode_dss_signature(signature)
        raw = r.to_bytes(_HALF, "big") + s.to_bytes(_HALF, "big")
    except (ValueError, OverflowError):
        return False
    return provider.verify(point, message, raw)


def _extensions(certificate: Certificate) -> x509.Extensions:
    return certificate.parsed.extensions


def _extension(certificate: Certificate, kind: Any) -> Any:
    try:
        return _extensions(certificate).get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _read_crl(der: bytes) -> x509.CertificateRevocationList:
    if len(der) > CRL_BYTES_MAX:
        raise CertificateRefused(reason="the list is too long")
    try:
        crl = x509.load_der_x509_crl(der)
        _ = crl.issuer, crl.next_update_utc, crl.last_update_utc, crl.extensions
    except _UNREADABLE:
        raise CertificateRefused(reason="the list is unreadable") from None
    return crl

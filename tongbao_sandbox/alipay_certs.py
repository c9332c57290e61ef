"""Alipay's certificates: an authority of its own, what it signs, and a change of certificate.

In certificate mode each side names its certificate by the MD5 of its issuer's name and its serial
number; the roots are named all at once, and only those signed with RSA count.
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID, SignatureAlgorithmOID
from msgspec import Struct

from tongbao.kernel.clock import real_now
from tongbao_sandbox.alipay_crypto import load_private_key
from tongbao_sandbox.alipay_wire import Ask, Refusal, success
from tongbao_sandbox.credentials import new_rsa
from tongbao_sandbox.model import Fault
from tongbao_sandbox.seam import Keys, World

NAME: Final = "alipay"
_LIVES: Final = timedelta(days=3650)
_CURRENT: Final = "certificate/current"
_RSA: Final = frozenset(
    {SignatureAlgorithmOID.RSA_WITH_SHA1, SignatureAlgorithmOID.RSA_WITH_SHA256}
)


class Signer(Struct, frozen=True):
    """What Alipay signs with in certificate mode, and how it names that."""

    private_key_pem: str
    certificate_pem: str
    number: str


def certify(seller_id: str, app_id: str, app_public: rsa.RSAPublicKey, alipay_key: str) -> Keys:
    """Return the certificates of a fresh merchant, of Alipay, and of the authority above both."""
    root_key_pem, _ = new_rsa()
    root_key = load_private_key(root_key_pem)
    root_name = _name("Sandbox Certification Authority R1")
    root = _issue(root_name, root_name, root_key.public_key(), root_key)
    other_key = ec.generate_private_key(ec.SECP256R1())
    other_name = _name("Sandbox Certification Authority E1")
    other = (
        _builder(other_name, other_name)
        .public_key(other_key.public_key())
        .sign(other_key, SHA256())
    )
    app = _issue(_name(f"Merchant-{app_id}"), root_name, app_public, root_key)
    alipay_public = load_private_key(alipay_key).public_key()
    alipay = _issue(_name(_alipay(seller_id)), root_name, alipay_public, root_key)
    return Keys(
        shown={
            "app_certificate_pem": _pem(app),
            "alipay_certificate_pem": _pem(alipay),
            "root_certificates_pem": f"{_pem(root)}\n{_pem(other)}",  # as Alipay's file has them
        },
        kept={"authority_private_key_pem": root_key_pem},
    )


def number_of(pem: str) -> str:
    """Return how Alipay names the first certificate of a PEM; nothing has no name."""
    if not pem:
        return ""
    return _number(x509.load_pem_x509_certificate(pem.encode()))


def root_number_of(pem: str) -> str:
    """Return how Alipay names a set of roots."""
    if not pem:
        return ""
    roots = x509.load_pem_x509_certificates(pem.encode())
    return "_".join(_number(root) for root in roots if root.signature_algorithm_oid in _RSA)


def signer(world: World) -> Signer:
    """Return what Alipay signs with now: the first certificate, or the last change's."""
    kept = world.state.document(NAME, _CURRENT)
    if kept is not None:
        return msgspec.json.decode(kept[0], type=Signer)
    keys = world.keys[NAME]
    pem = keys.shown["alipay_certificate_pem"]
    return Signer(keys.kept["private_key_pem"], pem, number_of(pem))


def rotate(world: World) -> dict[str, Any]:
    """Have Alipay sign with a new key and a new certificate from now on."""
    keys = world.keys[NAME]
    authority = load_private_key(keys.kept["authority_private_key_pem"])
    private, _ = new_rsa()
    public = load_private_key(private).public_key()
    root = x509.load_pem_x509_certificate(keys.shown["root_certificates_pem"].encode())
    subject = _name(_alipay(keys.shown["seller_id"]))
    pem = _pem(_issue(subject, root.subject, public, authority))
    made = Signer(private, pem, number_of(pem))
    now = world.clock.now()
    world.state.put_document(NAME, _CURRENT, msgspec.json.encode(made), now)
    world.state.put_document(NAME, f"certificate/{made.number}", pem.encode(), now)
    return {"alipay_cert_sn": made.number}


def download(world: World, ask: Ask, fault: Fault) -> dict[str, Any]:
    """Hand out a certificate by its number (alipay.open.app.alipaycert.download)."""
    del fault
    wanted = ask.text("alipay_cert_sn")
    first = world.keys[NAME].shown["alipay_certificate_pem"]
    kept = world.state.document(NAME, f"certificate/{wanted}")
    pem = kept[0] if kept else first.encode() if number_of(first) == wanted else None
    if pem is None:
        raise Refusal("40004", "CERT_NOT_EXIST", "证书不存在")
    return success({"alipay_cert_content": b64encode(pem).decode()})


def _issue(
    subject: x509.Name, issuer: x509.Name, public: rsa.RSAPublicKey, authority: rsa.RSAPrivateKey
) -> x509.Certificate:
    return _builder(subject, issuer).public_key(public).sign(authority, SHA256())


def _builder(subject: x509.Name, issuer: x509.Name) -> x509.CertificateBuilder:
    begins = datetime.fromtimestamp(int(real_now().timestamp()) - 60, UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(begins + _LIVES)
    )


def _name(common: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "CN"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Tongbao Sandbox"),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "Certification Authority"),
            x509.NameAttribute(NameOID.COMMON_NAME, common),
        ]
    )


def _alipay(seller_id: str) -> str:
    return f"支付宝(沙箱)网络技术有限公司-{seller_id}"


def _number(certificate: x509.Certificate) -> str:
    issuer = certificate.issuer
    named = ",".join(
        f"{label}={issuer.get_attributes_for_oid(oid)[0].value!s}"
        for label, oid in (
            ("CN", NameOID.COMMON_NAME),
            ("OU", NameOID.ORGANIZATIONAL_UNIT_NAME),
            ("O", NameOID.ORGANIZATION_NAME),
            ("C", NameOID.COUNTRY_NAME),
        )
    )
    text = f"{named}{certificate.serial_number}"
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()

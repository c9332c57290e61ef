"""UnionPay's keys and signatures: its own authority, what is signed, and by which method.

Method 01: SHA-256 of the sorted fields as hexadecimal text, and RSA with SHA-256 over that text.
Methods 11 and 12: SHA-256 or SM3 of the fields, ``&`` and the digest of the key they share.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
import secrets
from base64 import b64decode, b64encode
from collections.abc import Mapping
from datetime import timedelta
from functools import lru_cache
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID
from msgspec import Struct

from tongbao.kernel.clock import real_now
from tongbao_sandbox.credentials import new_rsa
from tongbao_sandbox.seam import Keys, World

NAME: Final = "unionpay"
UNIONPAY: Final = "041@8310000000083040@中国银联股份有限公司@00016495"
_FORGER: Final = "041@8310000000099999@一家别的股份有限公司@00016496"
_MERCHANT: Final = "041@7310000000012345@沙箱商户@00000001"
_LIVES: Final = timedelta(days=3650)
_SIGNER: Final = "signer"


class Signer(Struct, frozen=True):
    """A certificate UnionPay signs with, and its key."""

    private_key_pem: str
    certificate_pem: str


def make_keys() -> Keys:
    """Return the authority, UnionPay's and a forger's certificates, and a fresh merchant's."""
    root_private, root_public = new_rsa()
    middle_private, middle_public = new_rsa()
    merchant_private, merchant_public = new_rsa()
    root = _issue("Sandbox root", root_public, "Sandbox root", root_private)
    middle = _issue("Sandbox middle", middle_public, "Sandbox root", root_private)
    kept = {"middle_private_key_pem": middle_private}
    for who, name in ((_SIGNER, UNIONPAY), ("forger", _FORGER)):
        made = new_signer(middle_private, name)
        kept |= {f"{who}_private_key_pem": made.private_key_pem}
        kept |= {f"{who}_certificate_pem": made.certificate_pem}
    return Keys(
        shown={
            "mer_id": f"777290{secrets.randbelow(10**9):09d}",
            "merchant_private_key_pem": merchant_private,
            "merchant_certificate_pem": _issue(
                _MERCHANT, merchant_public, "Sandbox middle", middle_private
            ),
            "root_certificate_pem": root,
            "middle_certificate_pem": middle,
            "secure_key": secrets.token_hex(16),
        },
        kept=kept,
    )


def new_signer(middle_private_pem: str, name: str = UNIONPAY) -> Signer:
    """Return a fresh key with a certificate of the authority below the root."""
    private, public = new_rsa()
    return Signer(private, _issue(name, public, "Sandbox middle", middle_private_pem))


def text_of(fields: Mapping[str, str]) -> bytes:
    """Return what is signed: the fields that have a value, in the order of their names."""
    named = sorted(name for name, value in fields.items() if value and name != "signature")
    return "&".join(f"{name}={fields[name]}" for name in named).encode()


def signed(fields: Mapping[str, str], method: str, *, key: str, signer: Signer) -> dict[str, str]:
    """Return what UnionPay sends: the fields with its certificate and its signature."""
    whole = {**fields, "signMethod": method}
    if method != "01":
        return {**whole, "signature": _keyed(text_of(whole), method, key)}
    whole["signPubKeyCert"] = signer.certificate_pem.replace("\n", "\r\n").strip()
    hexadecimal = hashlib.sha256(text_of(whole)).hexdigest().encode()
    raw = _private(signer.private_key_pem).sign(hexadecimal, padding.PKCS1v15(), hashes.SHA256())
    return {**whole, "signature": b64encode(raw).decode()}


def is_signed(fields: Mapping[str, str], shown: Mapping[str, str]) -> bool:
    """Whether a request is the merchant's: by its certificate or by the key it shares."""
    method, signature = fields.get("signMethod", ""), fields.get("signature", "")
    if method in {"11", "12"}:
        expected = _keyed(text_of(fields), method, shown["secure_key"])
        return hmac.compare_digest(expected.encode(), signature.encode())
    certificate = x509.load_pem_x509_certificate(shown["merchant_certificate_pem"].encode())
    key = certificate.public_key()
    if method != "01" or fields.get("certId") != str(certificate.serial_number):
        return False
    if not isinstance(key, rsa.RSAPublicKey):
        raise TypeError("merchants sign with RSA keys only")
    hexadecimal = hashlib.sha256(text_of(fields)).hexdigest().encode()
    try:
        raw = b64decode(signature, validate=True)
        key.verify(raw, hexadecimal, padding.PKCS1v15(), hashes.SHA256())
    except (InvalidSignature, binascii.Error, ValueError):
        return False
    return True


def _keyed(text: bytes, method: str, key: str) -> str:
    return _digest(method, text + b"&" + _digest(method, key.encode()).encode())


def _digest(method: str, message: bytes) -> str:
    digest = hashes.Hash(hashes.SHA256() if method == "11" else hashes.SM3())
    digest.update(message)
    return digest.finalize().hex()


@lru_cache(maxsize=32)
def _private(pem: str) -> rsa.RSAPrivateKey:
    key = serialization.load_pem_private_key(
        pem.encode(),
        password=None,
        unsafe_skip_rsa_key_validation=True,  # our own make; it takes 40 ms for each key
    )
    if not isinstance(key, rsa.RSAPrivateKey):
        raise TypeError("UnionPay signs with RSA keys only")
    return key


def _issue(name: str, public_pem: str, issuer: str, issuer_private_pem: str) -> str:
    key = serialization.load_pem_public_key(public_pem.encode())
    if not isinstance(key, rsa.RSAPublicKey):
        raise TypeError("certificates are for RSA keys only")
    now = real_now()
    return (
        x509.CertificateBuilder()
        .subject_name(_named(name))
        .issuer_name(_named(issuer))
        .public_key(key)
        .serial_number(secrets.randbelow(10**11) + 1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + _LIVES)
        .sign(_private(issuer_private_pem), hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
        .decode()
    )


def _named(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def rotate(world: World) -> str:
    """Let UnionPay sign with a fresh certificate from now on, and return its serial number."""
    signer = new_signer(world.keys[NAME].kept["middle_private_key_pem"])
    text = f"{signer.private_key_pem}\n{signer.certificate_pem}".encode()
    world.state.put_document(NAME, _SIGNER, text, world.clock.now())
    return str(x509.load_pem_x509_certificate(signer.certificate_pem.encode()).serial_number)


def signer_of(world: World, *, forged: bool = False) -> Signer:
    """Return who signs now: UnionPay's newest, or another company of the same authority."""
    kept = world.keys[NAME].kept
    if forged:
        return Signer(kept["forger_private_key_pem"], kept["forger_certificate_pem"])
    if (found := world.state.document(NAME, _SIGNER)) is not None:
        private, _, certificate = found[0].decode().partition("-----BEGIN CERTIFICATE")
        return Signer(private, f"-----BEGIN CERTIFICATE{certificate}")
    return Signer(kept["signer_private_key_pem"], kept["signer_certificate_pem"])

"""Client certificates: who is believed, in RSA, ECDSA and SM2, and everything that is not."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from tongbao.infra import sm2
from tongbao.infra.certificates import (
    Anchor,
    CertificateRefused,
    check_authority_of,
    check_chain,
    check_crl,
    read_certificate,
    verify_by_certificate,
)
from tongbao.kernel.clock import real_now

NOW = real_now().replace(microsecond=0)
DAY = timedelta(days=1)
RSA = rsa.generate_private_key(65537, 2048)


def name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


class Authority:
    """Somebody who issues certificates."""

    def __init__(self, key: Any = None, issuer: Authority | None = None, **more: Any) -> None:
        self.key = key or ec.generate_private_key(ec.SECP256R1())
        self.name = name(f"CA {id(self)}")
        more.setdefault("path", None)
        self.der = issued(self.name, self.key.public_key(), issuer or self, ca=True, **more)

    def anchor(self, crl: bytes | None = None) -> Anchor:
        return Anchor(read_certificate(self.der), crl)

    def crl(self, *serials: int, until: timedelta = DAY) -> bytes:
        made = x509.CertificateRevocationListBuilder().issuer_name(self.name)
        made = made.last_update(NOW - DAY * 2).next_update(NOW + until)
        for serial in serials:
            gone = x509.RevokedCertificateBuilder().serial_number(serial)
            made = made.add_revoked_certificate(gone.revocation_date(NOW - DAY).build())
        return made.sign(self.key, SHA256()).public_bytes(Encoding.DER)


def issued(
    subject: x509.Name,
    key: Any,
    by: Authority,
    *,
    ca: bool = False,
    path: int | None = None,
    begins: datetime = NOW - DAY,
    ends: datetime = NOW + DAY,
    purpose: Any = ExtendedKeyUsageOID.CLIENT_AUTH,
    more: x509.ExtensionType | None = None,
) -> bytes:
    made = x509.CertificateBuilder().subject_name(subject).issuer_name(by.name).public_key(key)
    made = made.serial_number(x509.random_serial_number())
    made = made.not_valid_before(begins).not_valid_after(ends)
    made = made.add_extension(x509.BasicConstraints(ca=ca, path_length=path), critical=True)
    if not ca:
        made = made.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
    if more is not None:
        made = made.add_extension(more, critical=True)
    return made.sign(by.key, SHA256()).public_bytes(Encoding.DER)


def client(by: Authority, key: Any = None, **more: Any) -> bytes:
    return issued(name("Zhang San"), (key or RSA).public_key(), by, **more)


def check(leaf: bytes, *between: bytes, anchors: list[Anchor], now: datetime = NOW) -> None:
    check_chain(read_certificate(leaf), [read_certificate(each) for each in between], anchors, now)


@pytest.mark.parametrize("key", [RSA, None], ids=["RSA", "EC"])
def test_a_chain_to_an_anchor_is_believed(key: Any) -> None:
    root = Authority(key)
    between = Authority(issuer=root)

    check(client(root), anchors=[root.anchor()])
    check(client(between), between.der, anchors=[root.anchor(root.crl())])
    check(client(between), anchors=[Authority().anchor(), between.anchor()])


ROOT, STRANGER = Authority(), Authority()
SHORT = Authority(path=0)
LOWER = Authority(issuer=SHORT)
PLAIN_KEY = ec.generate_private_key(ec.SECP256R1())


class NoAuthority(Authority):
    """A client that issues certificates as if it might."""

    def __init__(self) -> None:
        self.key, self.name = PLAIN_KEY, name("client")
        self.der = issued(self.name, PLAIN_KEY.public_key(), ROOT)


MALLORY = NoAuthority()


@pytest.mark.parametrize(
    ("leaf", "between", "reason"),
    [
        (client(STRANGER), [], "no chain"),
        (client(STRANGER), [STRANGER.der], "no chain"),
        (client(ROOT, ends=NOW - timedelta(seconds=1)), [], "not in its time"),
        (client(ROOT, begins=NOW + timedelta(hours=1)), [], "not in its time"),
        (client(ROOT, purpose=ExtendedKeyUsageOID.SERVER_AUTH), [], "not for clients"),
        (Authority(issuer=ROOT).der, [], "an authority's"),
        (client(MALLORY), [MALLORY.der], "no authority"),
        (client(LOWER), [LOWER.der], "longer than the issuer"),
        (client(ROOT, rsa.generate_private_key(65537, 1024)), [], "too short"),
        (client(ROOT, ec.generate_private_key(ec.SECP256K1())), [], "of no kind"),
        (
            client(ROOT, more=x509.NameConstraints([x509.DNSName("a.example")], None)),
            [],
            "critical extension",
        ),
    ],
)
def test_everything_else_is_refused(leaf: bytes, between: list[bytes], reason: str) -> None:
    anchors = [ROOT.anchor(), SHORT.anchor()]

    with pytest.raises(CertificateRefused, match=reason):
        check(leaf, *between, anchors=anchors)


def test_who_is_on_the_list_is_out_and_an_old_list_stops_everybody() -> None:
    leaf = client(ROOT)
    serial = read_certificate(leaf).parsed.serial_number

    check(leaf, anchors=[ROOT.anchor(ROOT.crl(serial + 1))])
    with pytest.raises(CertificateRefused, match="revoked"):
        check(leaf, anchors=[ROOT.anchor(ROOT.crl(serial))])
    with pytest.raises(CertificateRefused, match="not of today"):
        check(leaf, anchors=[ROOT.anchor(ROOT.crl(until=-timedelta(hours=1)))])
    with pytest.raises(CertificateRefused, match="not the anchor's"):
        check_crl(STRANGER.crl(), read_certificate(ROOT.der), NOW)


def test_a_name_alike_is_not_enough() -> None:
    fake = Authority()
    fake.name = ROOT.name

    with pytest.raises(CertificateRefused, match="no chain"):
        check(client(fake), anchors=[ROOT.anchor()])


def test_what_a_certificates_key_signs() -> None:
    for key in (RSA, PLAIN_KEY):
        leaf = read_certificate(client(ROOT, key))
        if key is RSA:
            pss = padding.PSS(padding.MGF1(SHA256()), padding.PSS.DIGEST_LENGTH)
            signatures = [key.sign(b"act", how, SHA256()) for how in (pss, padding.PKCS1v15())]
        else:
            signatures = [PLAIN_KEY.sign(b"act", ec.ECDSA(SHA256()))]
        for signature in signatures:
            assert verify_by_certificate(leaf, b"act", signature)
            assert not verify_by_certificate(leaf, b"ack", signature)
            assert not verify_by_certificate(leaf, b"act", signature[:-1])


@settings(max_examples=60)
@given(st.integers(0, 400), st.integers(1, 255))
def test_a_damaged_certificate_is_never_believed(at: int, by: int) -> None:
    der = bytearray(DAMAGED)
    der[at % len(der)] ^= by

    with pytest.raises(CertificateRefused):
        check(bytes(der), anchors=[ROOT.anchor()])


DAMAGED = client(ROOT)

# SM2, whose certificates no library here writes ---------------------------------------------------

SM2 = sm2.provider()


def tlv(tag: int, *content: bytes) -> bytes:
    body = b"".join(content)
    size = len(body)
    if size < 128:
        return bytes([tag, size]) + body
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + body


def sm2_certificate(subject: str, public: bytes, issuer: str, key: bytes, *, ca: bool) -> bytes:
    """A certificate by GM/T 0015, written by hand."""
    assert SM2 is not None
    algorithm = tlv(0x30, bytes.fromhex("06082a811ccf55018375"))
    named = [name(each).public_bytes() for each in (issuer, subject)]
    times = [tlv(0x17, at.strftime("%y%m%d%H%M%SZ").encode()) for at in (NOW - DAY, NOW + DAY)]
    spki = bytes.fromhex("3059301306072a8648ce3d020106082a811ccf5501822d034200") + public
    constraints = tlv(0x30, *([bytes.fromhex("0101ff")] if ca else []))
    extension = tlv(
        0x30, bytes.fromhex("0603551d13"), bytes.fromhex("0101ff"), tlv(0x04, constraints)
    )
    tbs = tlv(
        0x30,
        bytes.fromhex("a003020102"),
        tlv(0x02, b"\x07"),
        algorithm,
        named[0],
        tlv(0x30, *times),
        named[1],
        spki,
        tlv(0xA3, tlv(0x30, extension)),
    )
    return tlv(0x30, tbs, algorithm, tlv(0x03, b"\x00", sm2_signature(key, tbs)))


def sm2_signature(key: bytes, message: bytes) -> bytes:
    assert SM2 is not None
    raw = SM2.sign(key, message)
    return encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))


@pytest.mark.skipif(SM2 is None, reason="this machine's OpenSSL knows no SM2")
def test_certificates_of_sm2() -> None:
    assert SM2 is not None
    root, leaf, mallory = (SM2.new_key() for _ in range(3))
    anchor = sm2_certificate("SM CA", SM2.public_key(root), "SM CA", root, ca=True)
    good = sm2_certificate("Zhang San", SM2.public_key(leaf), "SM CA", root, ca=False)
    forged = sm2_certificate("Zhang San", SM2.public_key(leaf), "SM CA", mallory, ca=False)
    anchors = [Anchor(read_certificate(anchor))]

    check(good, anchors=anchors)
    with pytest.raises(CertificateRefused, match="no chain"):
        check(forged, anchors=anchors)
    with pytest.raises(CertificateRefused, match="not in its time"):
        check(good, anchors=anchors, now=NOW + DAY * 3)
    read = read_certificate(good)
    assert verify_by_certificate(read, b"act", sm2_signature(leaf, b"act"))
    assert not verify_by_certificate(read, b"ack", sm2_signature(leaf, b"act"))
    assert not verify_by_certificate(read, b"act", sm2_signature(mallory, b"act"))


@pytest.mark.skipif(SM2 is None, reason="this machine's OpenSSL knows no SM2")
def test_an_sm2_key_in_a_name_is_not_the_certificates_key() -> None:
    """Somebody has their key's bytes written where a subject may say anything."""
    assert SM2 is not None
    key = SM2.new_key()
    spki = bytes.fromhex("3059301306072a8648ce3d020106082a811ccf5501822d034200")
    extension = x509.UnrecognizedExtension(
        x509.ObjectIdentifier("1.2.3.4"), spki + SM2.public_key(key)
    )
    made = x509.CertificateBuilder().subject_name(name("x")).issuer_name(ROOT.name)
    made = made.public_key(RSA.public_key()).serial_number(5)
    made = made.not_valid_before(NOW - DAY).not_valid_after(NOW + DAY)
    made = made.add_extension(extension, critical=False)
    read = read_certificate(made.sign(ROOT.key, SHA256()).public_bytes(Encoding.DER))

    assert not verify_by_certificate(read, b"act", sm2_signature(key, b"act"))


def test_what_an_authority_in_between_revoked_is_refused_where_its_list_is_known() -> None:
    between = Authority(issuer=ROOT)
    leaf = client(between)
    serial = read_certificate(leaf).parsed.serial_number
    chain, anchors = [read_certificate(between.der)], [ROOT.anchor(ROOT.crl())]
    of = hashlib.sha256(between.der).digest()

    def checked(lists: dict[bytes, bytes]) -> None:
        check_chain(read_certificate(leaf), chain, anchors, NOW, lists)

    checked({})
    checked({of: between.crl(serial + 1)})
    checked({b"of another": between.crl(serial)})
    for wrong, reason in (
        (between.crl(serial), "revoked"),
        (between.crl(until=-timedelta(hours=1)), "not of today"),
        (STRANGER.crl(), "not the anchor's"),
    ):
        with pytest.raises(CertificateRefused) as refused:
            checked({of: wrong})
        assert reason in str(refused.value)


def test_an_authority_in_between_is_one_that_an_anchor_vouches_for() -> None:
    between = Authority(issuer=ROOT)
    serial = read_certificate(between.der).parsed.serial_number
    known = read_certificate(between.der)

    check_authority_of(known, [STRANGER.anchor(), ROOT.anchor(ROOT.crl())], NOW)
    for anchors in ([], [STRANGER.anchor()], [ROOT.anchor(ROOT.crl(serial))]):
        with pytest.raises(CertificateRefused):
            check_authority_of(known, anchors, NOW)
    with pytest.raises(CertificateRefused):
        check_authority_of(read_certificate(client(ROOT)), [ROOT.anchor()], NOW)

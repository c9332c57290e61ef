"""Client certificates of TLS (RFC 8705) as a proxy in front hands them on (RFC 9440).

We end no TLS ourselves. A proxy that is trusted by its address puts the certificate into
``Client-Cert`` and what stands between it and an authority into ``Client-Cert-Chain``; it has seen
the handshake, and so that the sender holds the key. From anybody else both headers are as if they
had not come: whoever may write them can be anybody.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from base64 import b64decode, urlsafe_b64encode
from binascii import Error as NotBase64
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

import structlog
from msgspec import Struct

from tongbao.infra.certificates import (
    CHAIN_MAX,
    Anchor,
    Certificate,
    CertificateRefused,
    check_crl,
    is_list_of,
    read_certificate,
    read_pem,
)
from tongbao.kernel.errors import Invalid

PEER: Final = "peer"
"""In a request's state: the address that the connection itself came from, whatever a header says
of whom it was forwarded for."""
LEAF_HEADER: Final = "client-cert"
CHAIN_HEADER: Final = "client-cert-chain"
_BYTES: Final = re.compile(r":([A-Za-z0-9+/=]*):")  # a byte sequence of RFC 8941 §3.3.5

log = structlog.get_logger()

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class ProxiesMalformed(Invalid):
    """An address of a trusted proxy is none."""

    code = "client_certificates.proxies_malformed"
    advice = "Name addresses or networks, with commas between them, as 10.0.0.7,10.1.0.0/16."
    advice_zh = "请以逗号分隔填写地址或网段，例如 10.0.0.7,10.1.0.0/16。"


class AnchorsUnreadable(Invalid):
    """The file of authorities is not there, has none in it, or has what is no certificate."""

    code = "client_certificates.anchors_unreadable"
    advice = "Give a PEM file of authorities' certificates, and their revocation lists if any."
    advice_zh = "请提供包含颁发机构证书（及其吊销列表，如有）的 PEM 文件。"


class Presented(Struct, frozen=True):
    """A certificate whose key the sender has shown in its handshake, and what came with it."""

    leaf: Certificate
    between: tuple[Certificate, ...] = ()

    @property
    def x5t(self) -> str:
        """Return what tokens are bound to: ``x5t#S256`` of RFC 8705 §3.1."""
        return x5t_of(self.leaf)

    def check_in_time(self, now: datetime) -> None:
        """Raise unless the certificate is in its time.

        Raises:
            CertificateRefused
        """
        if not self.leaf.not_before <= now <= self.leaf.not_after:
            raise CertificateRefused(reason="not in its time")


def x5t_of(certificate: Certificate) -> str:
    """Return base64url of SHA-256 of a certificate in DER."""
    return urlsafe_b64encode(hashlib.sha256(certificate.der).digest()).rstrip(b"=").decode()


def read_proxies(text: str | None) -> tuple[Network, ...]:
    """Return the networks whose word on certificates is believed.

    Raises:
        ProxiesMalformed
    """
    try:
        return tuple(
            ipaddress.ip_network(each.strip(), strict=False)
            for each in (text or "").split(",")
            if each.strip()
        )
    except ValueError:
        raise ProxiesMalformed from None


def presented(
    headers: Sequence[tuple[str, str]], peer: str | None, proxies: Sequence[Network]
) -> Presented | None:
    """Return the certificate that a trusted proxy says the sender has shown; None without one.

    Raises:
        CertificateRefused
    """
    said = {name: [v for key, v in headers if key == name] for name in (LEAF_HEADER, CHAIN_HEADER)}
    if not any(said.values()):
        return None
    if not _is_trusted(peer, proxies):
        log.warning("client_certificate_header_of_a_stranger", peer=peer)
        return None
    leaves = [each for value in said[LEAF_HEADER] for each in _sequences(value)]
    between = [each for value in said[CHAIN_HEADER] for each in _sequences(value)]
    if len(leaves) != 1 or len(between) > CHAIN_MAX:  # a chain alone is nothing (RFC 9440 §2.3)
        raise CertificateRefused(reason="not one certificate")
    return Presented(read_certificate(leaves[0]), tuple(read_certificate(each) for each in between))


class AnchorFile:
    """Authorities of a PEM file, read again when it has changed: lists of revoked ones age."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, int] | None = None
        self._anchors: tuple[Anchor, ...] = ()

    def anchors(self, now: datetime) -> tuple[Anchor, ...]:
        """Return them as the file has them at this moment.

        Raises:
            AnchorsUnreadable
        """
        try:
            status = self._path.stat()
            stamp = (status.st_mtime_ns, status.st_size)
            if stamp != self._stamp:
                self._anchors = _read_anchors(self._path.read_bytes(), now)
                self._stamp = stamp
        except OSError:
            raise AnchorsUnreadable from None
        return self._anchors


def _is_trusted(peer: str | None, proxies: Sequence[Network]) -> bool:
    try:
        address = ipaddress.ip_address(peer or "")
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return any(address in network for network in proxies)


def _sequences(value: str) -> list[bytes]:
    """Return the byte sequences of one header line; nothing else may stand there.

    Raises:
        CertificateRefused
    """
    found = []
    for each in value.split(","):
        matched = _BYTES.fullmatch(each.strip())
        if matched is None:
            raise CertificateRefused(reason="no byte sequence")
        try:
            found.append(b64decode(matched[1], validate=True))
        except (NotBase64, ValueError):
            raise CertificateRefused(reason="no byte sequence") from None
    return found


def _read_anchors(pem: bytes, now: datetime) -> tuple[Anchor, ...]:
    try:
        roots, lists = read_pem(pem)
    except CertificateRefused:
        raise AnchorsUnreadable from None
    if not roots:
        raise AnchorsUnreadable
    return tuple(Anchor(root, _list_of(root, lists, now)) for root in roots)


def _list_of(root: Certificate, lists: Sequence[bytes], now: datetime) -> bytes | None:
    """Return the authority's own list of those in the file, the one that stands longest."""
    own: list[tuple[datetime, bytes]] = []
    for each in lists:
        try:
            own.append((check_crl(each, root, now), each))
        except CertificateRefused:
            if is_list_of(each, root):
                own.append((datetime.min.replace(tzinfo=now.tzinfo), each))  # over: nobody passes
    return max(own)[1] if own else None

"""Which certificates prove a partner: a name that authorities vouch for, or one of its own.

RFC 8705 §2.1 compares one registered name with the place in the certificate that it is registered
for, and §2.2 the certificate itself with those registered as ``x5c`` of the partner's keys.
"""

from __future__ import annotations

import ipaddress
import re
from base64 import b64decode
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from tongbao.infra.certificates import (
    Anchor,
    Certificate,
    CertificateRefused,
    NameKind,
    check_chain,
    names_of,
    plain_subject,
    read_certificate,
    spki_of,
)
from tongbao.infra.client_certificates import Presented
from tongbao.infra.jose import check_key_set, public_key_of
from tongbao.parties.partners.model import (
    AuthMethod,
    Partner,
    PartnerTermsInvalid,
    Proving,
)

_NAME_MAX: Final = 512
_SHAPES: Final[Mapping[NameKind, re.Pattern[str]]] = {
    NameKind.SUBJECT_DN: re.compile(r".+"),
    NameKind.SAN_DNS: re.compile(r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+"),
    NameKind.SAN_URI: re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[\x21-\x7e]+"),
    NameKind.SAN_IP: re.compile(r"[0-9A-Fa-f.:]+"),
    NameKind.SAN_EMAIL: re.compile(r"[\x21-\x3f\x41-\x7e]+@[A-Za-z0-9.-]+"),
}


def check_proving(proving: Proving, jwks: Sequence[dict[str, Any]]) -> None:
    """Raise unless a partner can prove itself like this.

    Only one that proves itself by a name, and signs nothing, needs no keys of its own.

    Raises:
        PartnerTermsInvalid, KeySetUnusable
    """
    is_named = proving.method is AuthMethod.TLS_CLIENT_AUTH
    if jwks or not is_named or proving.signs_requests:
        check_key_set({"keys": [*jwks]})
    if not (is_named == (proving.name_kind is not None) == (proving.name is not None)):
        raise PartnerTermsInvalid(param="$.proving")
    if proving.name_kind is not None and not _is_name(proving.name_kind, proving.name or ""):
        raise PartnerTermsInvalid(param="$.proving.name")
    try:
        own = registered_certificates(jwks)
    except CertificateRefused:
        raise PartnerTermsInvalid(param="$.jwks") from None
    if proving.method is AuthMethod.SELF_SIGNED and not own:
        raise PartnerTermsInvalid(param="$.jwks")


def registered_certificates(jwks: Sequence[dict[str, Any]]) -> list[Certificate]:
    """Return the certificates of a partner's keys, each of the very key that it stands with.

    Raises:
        CertificateRefused
    """
    found = []
    for key in jwks:
        if "x5c" not in key:
            continue
        chain = key["x5c"]
        if not isinstance(chain, list) or len(chain) != 1 or not isinstance(chain[0], str):
            raise CertificateRefused(reason="x5c is not one certificate")
        try:
            certificate = read_certificate(b64decode(chain[0], validate=True))
        except ValueError:
            raise CertificateRefused(reason="unreadable") from None
        if spki_of(certificate) != public_key_of(key):
            raise CertificateRefused(reason="x5c is of another key")
        found.append(certificate)
    return found


def check_certificate(
    partner: Partner, shown: Presented, anchors: Sequence[Anchor], now: datetime
) -> None:
    """Raise unless this certificate proves the partner, in the way that it is registered for.

    Raises:
        CertificateRefused
    """
    shown.check_in_time(now)
    if partner.auth_method is AuthMethod.SELF_SIGNED:
        own = registered_certificates(partner.jwks)
        if shown.leaf.der not in {each.der for each in own}:
            raise CertificateRefused(reason="not one of the client's own")
        return
    if partner.auth_method is not AuthMethod.TLS_CLIENT_AUTH or partner.name_kind is None:
        raise CertificateRefused(reason="the client does not prove itself by certificates")
    check_chain(shown.leaf, shown.between, anchors, now)
    if not _is_named(shown.leaf, partner.name_kind, partner.certificate_name or ""):
        raise CertificateRefused(reason="the certificate has another name")


def _is_name(kind: NameKind, name: str) -> bool:
    """Tell whether a name can stand in that place of a certificate; patterns are none."""
    if len(name) > _NAME_MAX or not name.isprintable() or not _SHAPES[kind].fullmatch(name):
        return False
    try:
        return bool(_plain(kind, name))
    except ValueError:
        return False


def _is_named(certificate: Certificate, kind: NameKind, name: str) -> bool:
    """Compare the registered name with the certificate's, whole: no wildcard means anybody."""
    wanted = _plain(kind, name)
    return wanted in {_plain(kind, each) for each in names_of(certificate, kind)}


def _plain(kind: NameKind, name: str) -> str:
    """Return a name in the one way to write it; hosts have no large letters.

    Raises:
        ValueError
    """
    match kind:
        case NameKind.SUBJECT_DN:
            return plain_subject(name)
        case NameKind.SAN_DNS:
            return name.lower()
        case NameKind.SAN_IP:
            return str(ipaddress.ip_address(name))
        case NameKind.SAN_EMAIL:
            local, _, host = name.rpartition("@")
            return f"{local}@{host.lower()}"
    return name

"""Who a partner's program is: by an assertion that it signs, or by the connection's certificate.

One request proves its sender in one way, and in the one that two people have agreed for it: a
partner of assertions is not let in by a certificate, nor one of certificates by an assertion.
Rules: FAPI 2.0 Security Profile (Final) §5.3.3, RFC 7523 §3, RFC 8705 §2 and §3.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from tongbao.infra.certificates import CertificateRefused
from tongbao.infra.jose import Token, TokenMalformed, key_with_id, read_token, verify
from tongbao.kernel.clock import real_now
from tongbao.parties.consents.model import Holder
from tongbao.parties.partners.certificates import check_certificate
from tongbao.parties.partners.model import AuthMethod, Partner
from tongbao.parties.partners.partners import active_partner, use_token
from tongbao.surfaces.open_bank.desk import Desk
from tongbao.surfaces.open_bank.protocol import (
    ASSERTION_LIFE_S_MAX,
    JTI,
    SKEW_S,
    Asked,
    OAuthError,
    certificate_of,
    jti_of,
    out_of_time,
    proved_key,
)

ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_KEPT: Final = timedelta(seconds=ASSERTION_LIFE_S_MAX + SKEW_S)


async def prove_partner(desk: Desk, asked: Asked) -> Partner:
    """Return the partner that this request proves, once and now.

    Raises:
        OAuthError
    """
    if asked.header("authorization") or "client_secret" in asked.form:
        raise not_proved("no secret proves a client here")
    if any(name in asked.form for name in ("client_assertion", "client_assertion_type")):
        return await _by_assertion(desk, asked)
    return await _by_certificate(desk, asked)


async def prove_holder(desk: Desk, asked: Asked, partner: Partner, path: str) -> Holder:
    """Return what this request's tokens are to be bound to: a DPoP key, or a certificate.

    Which of the two is agreed for the partner; the other is refused and not passed over, so that
    nobody believes tokens to be bound to what they are not.

    Raises:
        OAuthError
    """
    if not partner.binds_certificate:
        jkt = await proved_key(desk, asked, path)
        if jkt is None:
            raise OAuthError("invalid_dpop_proof", "a DPoP proof is needed")
        return Holder(jkt=jkt)
    if asked.header("dpop") is not None:
        raise OAuthError("invalid_request", "this client's tokens are bound to its certificate")
    shown = certificate_of(desk, asked)
    if shown is None:
        raise OAuthError("invalid_request", "the connection was made without a certificate")
    return Holder(x5t=shown.x5t)


async def _by_certificate(desk: Desk, asked: Asked) -> Partner:
    try:
        shown = certificate_of(desk, asked)
    except OAuthError as refused:
        raise not_proved(refused.description) from None
    partner = await active_partner(desk.db, asked.form.get("client_id", ""))
    if shown is None or partner is None or partner.auth_method is AuthMethod.PRIVATE_KEY_JWT:
        raise not_proved("neither an assertion nor a certificate proves the client")
    now = real_now()
    try:
        check_certificate(partner, shown, desk.partner_anchors(now), now)
    except CertificateRefused as refusal:
        reason = refusal.facts["reason"]
        raise not_proved(f"the client certificate is refused: {reason}") from None
    return partner


async def _by_assertion(desk: Desk, asked: Asked) -> Partner:
    if asked.form.get("client_assertion_type") != ASSERTION_TYPE:
        raise not_proved("client_assertion_type is not jwt-bearer")
    try:
        token = read_token(asked.form.get("client_assertion", ""))
    except TokenMalformed:
        raise not_proved("the client assertion is malformed") from None
    subject = token.claims.get("sub")
    partner = await active_partner(desk.db, subject) if isinstance(subject, str) else None
    if partner is None or partner.auth_method is not AuthMethod.PRIVATE_KEY_JWT:
        raise not_proved("nobody of this sub is a client that signs assertions")
    try:
        verify(token, key_with_id(partner.jwks, token.header.get("kid"), token.header["alg"]))
    except TokenMalformed:
        raise not_proved("the client assertion is not signed by a key of the client") from None
    _check_assertion(token, partner, desk.issuer, asked.form.get("client_id"))
    if not await use_token(desk.db, partner.client_id, jti_of(token.claims), _end(token.claims)):
        raise not_proved("the client assertion was used before")
    return partner


def _check_assertion(token: Token, partner: Partner, issuer: str, client_id: str | None) -> None:
    """Raise unless the claims are those of an assertion for us, now.

    Raises:
        OAuthError
    """
    claims = token.claims
    if claims.get("iss") != partner.client_id or client_id not in {None, partner.client_id}:
        raise not_proved("iss, sub and client_id differ")
    if claims.get("aud") != issuer:  # a single string: a list may name somebody else as well
        raise not_proved("aud is not the issuer alone")
    if not JTI.fullmatch(jti_of(claims)):
        raise not_proved("jti is missing or too long")
    if problem := out_of_time(claims, needs_end=True):
        raise not_proved(problem)


def _end(claims: Mapping[str, Any]) -> datetime:
    """Return until when an assertion's ``jti`` is remembered."""
    latest = real_now() + _KEPT
    said = datetime.fromtimestamp(min(claims["exp"], latest.timestamp()), tz=UTC)
    return said + timedelta(seconds=2 * SKEW_S)


def not_proved(description: str) -> OAuthError:
    """Return what is told to whom nothing proves."""
    return OAuthError("invalid_client", description, status=401)

"""Who a partner's program is: by an assertion, or by a certificate; and what it has signed.

One request proves its sender in one way, and in the one that two people have agreed for it: a
partner of assertions is not let in by a certificate, nor one of certificates by an assertion.
Rules: FAPI 2.0 Security Profile (Final) §5.3.3, RFC 7523 §3, RFC 8705 §2 and §3; for what it signs
FAPI 2.0 Message Signing (Final) §5.3.1, RFC 9101, RFC 9126 §3.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec
from msgspec.structs import replace

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

REQUEST_AGE_S_MAX: Final = 3600
_REQUEST_TYP: Final = "oauth-authz-req+jwt"
_BESIDE: Final = frozenset({"request", "client_id", "client_assertion", "client_assertion_type"})
_NOT_IN_REQUEST: Final = frozenset({"request", "request_uri", "sub"})
_ASKED: Final = (
    *("response_type", "response_mode", "redirect_uri", "state", "scope", "dpop_jkt"),
    *("code_challenge", "code_challenge_method", "authorization_details"),
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


def request_of(desk: Desk, asked: Asked, partner: Partner) -> Asked:
    """Return a pushed request as its signed object says it; as it came, where it need not be.

    Beside the object stands only what proves the client: whatever else did would be unsigned.

    Raises:
        OAuthError
    """
    text = asked.form.get("request")
    if text is None:
        if partner.signs_requests:
            raise OAuthError("invalid_request", "this client's requests are signed: send request")
        return asked
    if not set(asked.form) <= _BESIDE:
        raise OAuthError("invalid_request", "everything that is asked for stands in request")
    try:
        token = read_token(text)
        verify(token, key_with_id(partner.jwks, token.header.get("kid"), token.header["alg"]))
    except TokenMalformed:
        raise _not_signed("it is not signed by a key of the client") from None
    _check_request(token, partner, desk.issuer)
    return replace(asked, form={**_said(token.claims), "client_id": partner.client_id})


def _check_request(token: Token, partner: Partner, issuer: str) -> None:
    """Raise unless a request object is this client's, for us and now.

    Raises:
        OAuthError
    """
    claims, header = token.claims, token.header
    if str(header.get("typ", _REQUEST_TYP)).lower() not in {_REQUEST_TYP, "jwt"}:
        raise _not_signed(f"typ is not {_REQUEST_TYP}")
    if (claims.get("iss"), claims.get("client_id")) != (partner.client_id, partner.client_id):
        raise _not_signed("iss or client_id is not the client")
    named = claims.get("aud")
    if issuer not in (named if isinstance(named, list) else [named]):
        raise _not_signed("aud is not the issuer")
    if _NOT_IN_REQUEST & set(claims):  # with a sub it could pass for an assertion (RFC 9101 §10.8)
        raise _not_signed("request, request_uri and sub have no place in it")
    if problem := out_of_time(claims, needs_end=True):
        raise _not_signed(problem)
    begins = claims.get("nbf")
    if begins is None or begins < real_now().timestamp() - REQUEST_AGE_S_MAX:
        raise _not_signed("nbf is missing, or over an hour ago")
    if claims["exp"] - begins > REQUEST_AGE_S_MAX:
        raise _not_signed("exp is over an hour after nbf")


def _said(claims: Mapping[str, Any]) -> dict[str, str]:
    """Return what a request object asks for, as a form would have said it.

    Raises:
        OAuthError
    """
    details = claims.get("authorization_details")
    found = {name: claims[name] for name in _ASKED if name in claims}
    if isinstance(details, list):
        found["authorization_details"] = msgspec.json.encode(details).decode()
    if not all(isinstance(value, str) for value in found.values()):
        raise _not_signed("a parameter in it is no text")
    return found


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


def _not_signed(description: str) -> OAuthError:
    return OAuthError("invalid_request_object", description)

"""The authorisation server's endpoints for partners' programs: push, token, revoke, and what it is.

No token is signed by us: they are opaque and known by their hash. The key set has what signs
answers: those of browsers as ``response_mode=jwt`` asks for, and payments of UK Open Banking.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any, Final, cast
from uuid import UUID

from msgspec import Struct
from msgspec.structs import replace

from tongbao.infra.jose import ALGORITHMS
from tongbao.parties.accounts.queries import find_wallet
from tongbao.parties.consents import grants
from tongbao.parties.consents.grants import Issued, Pushed, Redeeming
from tongbao.parties.consents.holdings import book_of
from tongbao.parties.consents.lodging import KINDS, access_of, let_in, lodged
from tongbao.parties.consents.model import (
    ACCESS_LIFE,
    REQUEST_LIFE,
    RESPONSE_MODES,
    Consent,
    ConsentNotFound,
    DetailsInvalid,
    Holder,
    ResponseMode,
    Scope,
    State,
    Wish,
    read_named,
    read_wish,
)
from tongbao.parties.partners.message_keys import published_keys, signing_key
from tongbao.parties.partners.model import Kind, Partner
from tongbao.surfaces.open_bank.client_proof import prove_holder, request_of
from tongbao.surfaces.open_bank.desk import Desk
from tongbao.surfaces.open_bank.protocol import (
    Asked,
    OAuthError,
    json_reply,
    proved_key,
)
from tongbao.surfaces.page_kit.replies import Reply

PUSH: Final = "/oauth/par"
AUTHORIZE: Final = "/oauth/authorize"
TOKEN: Final = "/oauth/token"  # noqa: S105 - an address
REVOKE: Final = "/oauth/revoke"
INTROSPECT: Final = "/oauth/introspect"
JWKS: Final = "/oauth/jwks"
METADATA: Final = "/.well-known/oauth-authorization-server"
_CHALLENGE: Final = re.compile(r"[A-Za-z0-9_-]{43}")
_VERIFIER: Final = re.compile(r"[A-Za-z0-9._~-]{43,128}")
_STATE: Final = re.compile(r"[\x20-\x7e]{1,512}")
_KEY: Final = re.compile(r"[A-Za-z0-9_-]{43}")
_PUSHED_MAX: Final = 8192


class PushedRequest(Struct, frozen=True):
    """The address that stands for a pushed request, and for how many seconds."""

    request_uri: str
    expires_in: int


class Tokens(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """New tokens and the consent that they are on; a payment's consent has no refresh token."""

    access_token: str
    token_type: str
    expires_in: int
    scope: str
    authorization_details: list[dict[str, Any]] = []
    refresh_token: str | None = None


class Keys(Struct, frozen=True):
    """A key set (RFC 7517)."""

    keys: list[dict[str, Any]]


class TokenState(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a token is good for, and what it is bound to; nothing but that it is none, otherwise."""

    active: bool
    client_id: str | None = None
    token_type: str | None = None
    scope: str | None = None
    exp: int | None = None
    cnf: dict[str, str] = {}
    authorization_details: list[dict[str, Any]] = []


class Ended(Struct, frozen=True):
    """Nothing, which is what RFC 7009 answers."""


async def show_metadata(desk: Desk, _asked: Asked) -> Reply:
    """Say what the server is and where its endpoints are (RFC 8414)."""
    at = desk.issuer
    told: dict[str, Any] = {
        "issuer": at,
        "authorization_endpoint": at + AUTHORIZE,
        "pushed_authorization_request_endpoint": at + PUSH,
        "require_pushed_authorization_requests": True,
        "token_endpoint": at + TOKEN,
        "revocation_endpoint": at + REVOKE,
        "jwks_uri": at + JWKS,
        "response_types_supported": ["code"],
        "response_modes_supported": [*RESPONSE_MODES],
        "grant_types_supported": [*desk.grant_types],
        "code_challenge_methods_supported": ["S256"],
        "introspection_endpoint": at + INTROSPECT,
        "token_endpoint_auth_methods_supported": desk.auth_methods,
        "token_endpoint_auth_signing_alg_values_supported": [*ALGORITHMS],
        "revocation_endpoint_auth_methods_supported": desk.auth_methods,
        "revocation_endpoint_auth_signing_alg_values_supported": [*ALGORITHMS],
        "introspection_endpoint_auth_methods_supported": desk.auth_methods,
        "introspection_endpoint_auth_signing_alg_values_supported": [*ALGORITHMS],
        "tls_client_certificate_bound_access_tokens": bool(desk.certificate_proxies),
        "dpop_signing_alg_values_supported": [*ALGORITHMS],
        "authorization_response_iss_parameter_supported": True,
        "authorization_details_types_supported": [each.value for each in Kind],
        "scopes_supported": [each.value for each in Kind],
        "request_parameter_supported": True,
        "request_object_signing_alg_values_supported": [*ALGORITHMS],
        "authorization_signing_alg_values_supported": ["PS256"],
        "request_uri_parameter_supported": True,
        "ui_locales_supported": ["zh-CN", "en"],
    }
    if desk.certificate_proxies and desk.mtls_origin is not None:
        endpoints = {
            "pushed_authorization_request_endpoint": PUSH,
            "token_endpoint": TOKEN,
            "revocation_endpoint": REVOKE,
            "introspection_endpoint": INTROSPECT,
        }
        aliases = {name: desk.mtls_origin + path for name, path in endpoints.items()}
        told["mtls_endpoint_aliases"] = aliases  # RFC 8705 §5
    return json_reply(told)


async def show_keys(desk: Desk, _asked: Asked) -> Reply:
    """Return the keys that we sign answers with; tokens are not signed."""
    await signing_key(desk.db, desk.keyring)
    return json_reply(Keys(await published_keys(desk.db)))


async def push(desk: Desk, asked: Asked, partner: Partner) -> Reply:
    """Take a request in advance (RFC 9126) and return the address that stands for it.

    Raises:
        OAuthError
    """
    if "request_uri" in asked.form:  # other unknown parameters are passed over (RFC 6749 §3.1)
        raise OAuthError("invalid_request", "request_uri has no place in a pushed request")
    asked = request_of(desk, asked, partner)
    if asked.form.get("response_type") != "code":
        raise OAuthError("unsupported_response_type", "response_type is not code")
    mode = asked.form.get("response_mode", "query")
    if mode not in RESPONSE_MODES:
        raise OAuthError("invalid_request", "response_mode is neither query nor jwt")
    pushed = Pushed(
        _redirect(asked, partner),
        _challenge(asked),
        _state(asked),
        await _bound_to(desk, asked, partner),
        cast("ResponseMode", mode),
    )
    wish = await _wish(desk, asked, partner)
    async with desk.db.begin(partner.client_id) as tx:
        request_uri = await grants.push(tx, partner, pushed, wish)
    told = PushedRequest(request_uri, int(REQUEST_LIFE.total_seconds()))
    return json_reply(told, status=201)


async def exchange(desk: Desk, asked: Asked, partner: Partner) -> Reply:
    """Return tokens for a code or a refresh token.

    Raises:
        OAuthError
    """
    kind = asked.form.get("grant_type")
    if kind not in desk.grant_types:
        raise OAuthError("unsupported_grant_type", "grant_type is not one of ours")
    holder = await prove_holder(desk, asked, partner, TOKEN)
    if kind == "client_credentials":
        return json_reply(await _let_in(desk, asked, partner, holder))
    if kind == "authorization_code":
        verifier = asked.need("code_verifier", 128)
        if not _VERIFIER.fullmatch(verifier):
            raise OAuthError("invalid_grant", "code_verifier is none")
        redeeming = Redeeming(asked.need("code"), asked.need("redirect_uri"), verifier, holder)
        found = await grants.redeem(desk.db, partner, redeeming)
    else:
        found = await grants.refresh(desk.db, partner, asked.need("refresh_token"), holder)
    if not isinstance(found, Issued):
        raise OAuthError(found, "the grant is not good for this client, key or request")
    return json_reply(_told(found, holder))


async def revoke(desk: Desk, asked: Asked, partner: Partner) -> Reply:
    """End a token (RFC 7009); of an unknown one the answer is the same.

    Raises:
        OAuthError
    """
    await grants.revoke_token(desk.db, partner, asked.need("token"))
    return json_reply(Ended())


async def introspect(desk: Desk, asked: Asked, partner: Partner) -> Reply:
    """Say what a token of the partner's own is good for (RFC 7662); of any other, that it is not.

    Raises:
        OAuthError
    """
    text = asked.need("token")
    if (access := await access_of(desk.db, text)) is not None and access.partner_id == partner.id:
        of = Holder(access.jkt, access.x5t)
        return json_reply(_introspected(partner, of, access.scope, access.expires_at))
    found = await grants.introspect_own(desk.db, partner, text)
    if found is None:
        return json_reply(TokenState(active=False))
    details = [_details_of(found.consent)]
    state = _introspected(
        partner, found.token.holder, found.consent.kind.value, found.token.expires_at
    )
    return json_reply(replace(state, authorization_details=details))


def _introspected(partner: Partner, holder: Holder, scope: str, end: datetime) -> TokenState:
    return TokenState(
        active=True,
        client_id=partner.client_id,
        token_type=holder.token_type,
        scope=scope,
        exp=int(end.timestamp()),
        cnf=holder.cnf,
    )


async def _let_in(desk: Desk, asked: Asked, partner: Partner, holder: Holder) -> Tokens:
    scope = asked.need("scope", 32)
    if scope not in KINDS or KINDS[scope].value not in partner.kinds:
        raise OAuthError("invalid_scope", "scope is accounts or payments, as the client may ask")
    return Tokens(
        access_token=await let_in(desk.db, partner, cast("Scope", scope), holder),
        token_type=holder.token_type,
        expires_in=int(ACCESS_LIFE.total_seconds()),
        scope=scope,
    )


def _told(issued: Issued, holder: Holder) -> Tokens:
    consent = issued.consent
    return Tokens(
        access_token=issued.access,
        token_type=holder.token_type,
        expires_in=int(ACCESS_LIFE.total_seconds()),
        scope=consent.kind.value,
        authorization_details=[_details_of(consent)],
        refresh_token=issued.refresh,
    )


def _details_of(consent: Consent) -> dict[str, Any]:
    """Return the details as they came, with what the consent added (RFC 9396 §7.1)."""
    return {**consent.details, "consent_id": consent.shown_id}


def _redirect(asked: Asked, partner: Partner) -> str:
    uri = asked.need("redirect_uri")
    if uri not in partner.redirect_uris:  # exactly, and never by a pattern
        raise OAuthError("invalid_request", "redirect_uri is not registered")
    return uri


def _challenge(asked: Asked) -> str:
    challenge = asked.form.get("code_challenge", "")
    if asked.form.get("code_challenge_method") != "S256" or not _CHALLENGE.fullmatch(challenge):
        raise OAuthError("invalid_request", "PKCE with S256 is needed")
    return challenge


def _state(asked: Asked) -> str | None:
    state = asked.form.get("state")
    if state is not None and not _STATE.fullmatch(state):
        raise OAuthError("invalid_request", "state is too long or not printable")
    return state


async def _bound_to(desk: Desk, asked: Asked, partner: Partner) -> str | None:
    """Return the key that the code is to be bound to (RFC 9449 §10)."""
    named = asked.form.get("dpop_jkt")
    if partner.binds_certificate and (named is not None or asked.header("dpop") is not None):
        raise OAuthError("invalid_request", "this client's tokens are bound to its certificate")
    if named is not None and not _KEY.fullmatch(named):
        raise OAuthError("invalid_request", "dpop_jkt is no thumbprint")
    shown = await proved_key(desk, asked, PUSH)
    if named is not None and shown is not None and named != shown:
        raise OAuthError("invalid_dpop_proof", "dpop_jkt is not the key of the DPoP proof")
    return named or shown


async def _wish(desk: Desk, asked: Asked, partner: Partner) -> Wish | UUID:
    """Return what the partner asks for, if it may and if it can be; or the consent it has lodged.

    Raises:
        OAuthError
    """
    text = asked.need("authorization_details", _PUSHED_MAX)
    if (named := read_named(text)) is not None:
        return await _lodged(desk, partner, *named)
    try:
        wish = read_wish(text, desk.db.clock.now())
    except DetailsInvalid as refusal:
        raise OAuthError("invalid_authorization_details", refusal.advice) from None
    if wish.kind.value not in partner.kinds:
        raise OAuthError("invalid_authorization_details", "the client may not ask for this type")
    if asked.form.get("scope", wish.kind.value) != wish.kind.value:
        raise OAuthError("invalid_scope", "scope is the type of the authorisation detail, or none")
    if wish.payee is not None and wish.money is not None:
        payee = await find_wallet(desk.db, book_of(partner.mode), wish.payee)
        if payee is None or payee.mode is not partner.mode or payee.currency != wish.money.currency:
            raise OAuthError("invalid_authorization_details", "nobody can be paid there like this")
    return wish


async def _lodged(desk: Desk, partner: Partner, kind: Kind, consent_id: UUID) -> UUID:
    """Return a consent that the partner has lodged and that nobody has decided.

    Raises:
        OAuthError
    """
    try:
        found = await lodged(desk.db, partner, consent_id, kind)
    except ConsentNotFound as refusal:
        raise OAuthError("invalid_authorization_details", refusal.advice) from None
    now = desk.db.clock.now()
    if found.state is not State.AWAITING or now >= found.expires_at:
        raise OAuthError("invalid_authorization_details", "the consent does not wait any more")
    return found.id

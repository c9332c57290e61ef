"""What every endpoint checks: whose the token is, by a DPoP proof or the connection's certificate.

Rules: FAPI 2.0 Security Profile (Final) §5.3.2, RFC 9449 for DPoP, RFC 8705 for certificates.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, MutableMapping
from datetime import timedelta
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

import msgspec
from msgspec import Struct

from tongbao.infra.card_watch import check_request
from tongbao.infra.certificates import CertificateRefused
from tongbao.infra.client_certificates import PEER, Presented, presented
from tongbao.infra.dpop_nonces import current_nonce, is_fresh
from tongbao.infra.jose import (
    ALGORITHMS,
    TokenMalformed,
    check_public_key,
    read_token,
    s256,
    thumbprint,
    verify,
)
from tongbao.kernel.clock import real_now
from tongbao.kernel.errors import Refusal
from tongbao.parties.consents.consents import note_use
from tongbao.parties.consents.grants import introspect
from tongbao.parties.consents.lodging import KINDS, access_of
from tongbao.parties.consents.model import Consent, Holder
from tongbao.parties.consents.paying import payment_of
from tongbao.parties.partners.model import Kind, Partner, PartnerState
from tongbao.parties.partners.partners import partner_with_id, use_token
from tongbao.parties.people.dossier import person_with_id
from tongbao.surfaces.open_bank.desk import Desk
from tongbao.surfaces.page_kit.replies import JSON, Reply

SKEW_S: Final = 10
"""How far ahead another's clock may be: up to 10 seconds must be taken, over 60 refused."""
ASSERTION_LIFE_S_MAX: Final = 3600
PROOF_AGE_S_MAX: Final = 60
_FORM: Final = "application/x-www-form-urlencoded"
_PROOF: Final = re.compile(
    rb"(?:client_assertion|code|code_verifier|code_challenge|refresh_token|token)="
    rb"(?=[^&]*[A-Za-z])[0-9A-Za-z._~-]+"
)
_FIELDS_MAX: Final = 32
_FORM_MAX: Final = 32 * 1024
JTI: Final = re.compile(r"[\x21-\x7e]{1,256}")


class OAuthError(Exception):
    """An answer of RFC 6749 §5.2; ``description`` is for the partner's programmer."""

    def __init__(self, error: str, description: str, *, status: int = 400) -> None:
        super().__init__(error)
        self.error = error
        self.description = description
        self.status = status

    def reply(self) -> Reply:
        """Return it as an answer of an endpoint."""
        told = {"error": self.error, "error_description": self.description}
        reply = json_reply(told, status=self.status)
        if self.error == "invalid_token" or self.status == 401:
            algs = " ".join(ALGORITHMS)
            scheme = f'DPoP error="{self.error}", algs="{algs}"'
            return reply.also(("www-authenticate", scheme))
        return reply


class Asked(Struct, frozen=True):
    """One request of a partner's program; every parameter came once."""

    method: str
    path: str
    query: Mapping[str, str]
    form: Mapping[str, str]
    headers: tuple[tuple[str, str], ...]
    body: bytes
    peer: str | None = None  # where the connection itself came from

    def header(self, name: str) -> str | None:
        """Return a header that may come once.

        Raises:
            OAuthError
        """
        found = [value for key, value in self.headers if key == name]
        if len(found) > 1:
            raise OAuthError("invalid_request", f"{name} came more than once")
        return found[0] if found else None

    def need(self, name: str, length_max: int = 2048) -> str:
        """Return a parameter of the form.

        Raises:
            OAuthError
        """
        value = self.form.get(name, "")
        if not value or len(value) > length_max:
            raise OAuthError("invalid_request", f"{name} is missing or too long")
        return value


NONCE: Final = "dpop-nonce"


def with_nonce(desk: Desk, reply: Reply) -> Reply:
    """Return an answer with the nonce for the next proof, where proofs need one."""
    if desk.nonce_key is None:
        return reply
    return reply.also((NONCE, current_nonce(desk.nonce_key)))


def wait_of(refusal: Refusal) -> list[tuple[str, str]]:
    """Return the header that says when it is worth asking again, where a refusal knows."""
    wait_s = refusal.facts.get("retry_after_s", getattr(refusal, "retry_after_s", None))
    return [] if wait_s is None else [("retry-after", str(wait_s))]


def json_reply(told: object, *, status: int = 200) -> Reply:
    """Return JSON that nobody keeps."""
    headers = (("content-type", JSON), ("cache-control", "no-store"), ("pragma", "no-cache"))
    return Reply(status, headers, msgspec.json.encode(told))


def asked_of(scope: MutableMapping[str, Any], method: str, *, only_forms: bool) -> Asked:
    """Return a program's request; a parameter that comes twice is refused (RFC 6749 §3.1).

    Raises:
        OAuthError, CardNumberUnexpected, SecurityCodeNotTaken
    """
    headers = tuple(
        (name.decode("latin-1").lower(), value.decode("latin-1"))
        for name, value in scope["headers"]
    )
    body: bytes = scope["state"]["body"]
    # Random letters and digits look like card data once in some hundred thousand: of what only
    # proves something, and is kept as a digest at most, nothing is looked at.
    beside = b"&".join(each for each in body.split(b"&") if not _PROOF.fullmatch(each))
    check_request(scope["path"], scope["query_string"], (), beside)
    kinds = [value for name, value in headers if name == "content-type"]
    is_form = len(kinds) == 1 and kinds[0].partition(";")[0].strip().lower() == _FORM
    if body and not is_form and only_forms:
        raise OAuthError("invalid_request", f"the body is not {_FORM}")
    return Asked(
        method,
        scope["path"],
        _fields(scope["query_string"]),
        _fields(body) if is_form else {},
        headers,
        body,
        scope["state"].get(PEER) or (scope.get("client") or (None,))[0],
    )


def _fields(encoded: bytes) -> dict[str, str]:
    try:
        pairs = parse_qsl(
            encoded[: _FORM_MAX + 1].decode("ascii"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=_FIELDS_MAX,
        )
    except ValueError:
        raise OAuthError("invalid_request", "the parameters cannot be read") from None
    found = dict(pairs)
    if len(encoded) > _FORM_MAX:
        raise OAuthError("invalid_request", "the parameters are too long")
    if len(found) != len(pairs) or any("\0" in text for pair in pairs for text in pair):
        raise OAuthError("invalid_request", "a parameter came twice, or has U+0000 in it")
    return found


def certificate_of(desk: Desk, asked: Asked) -> Presented | None:
    """Return the certificate in its time that the connection was made with; None without one.

    Raises:
        OAuthError
    """
    try:
        shown = presented(asked.headers, asked.peer, desk.certificate_proxies)
        if shown is not None:
            shown.check_in_time(real_now())
    except CertificateRefused as refusal:
        reason = refusal.facts["reason"]
        raise OAuthError(
            "invalid_request", f"the client certificate is refused: {reason}"
        ) from None
    return shown


async def proved_key(
    desk: Desk, asked: Asked, path: str, *, access_token: str | None = None
) -> str | None:
    """Return the thumbprint of the key whose DPoP proof came with this request; None without one.

    Raises:
        OAuthError
    """
    text = asked.header("dpop")
    if text is None:
        return None
    try:
        proof = read_token(text)
        key = check_public_key(proof.header.get("jwk"))
        verify(proof, key)
    except TokenMalformed:
        raise _not_held("the DPoP proof is malformed or not signed by its own key") from None
    if proof.header.get("typ") != "dpop+jwt":
        raise _not_held("typ is not dpop+jwt")
    claims = proof.claims
    if claims.get("htm") != asked.method or not any(
        _is_same_url(claims.get("htu"), origin + path) for origin in desk.origins
    ):
        raise _not_held("htm or htu is not of this request")
    made: Any = claims.get("iat")
    now = real_now().timestamp()
    if not _is_number(made) or not -SKEW_S <= now - made <= PROOF_AGE_S_MAX:
        raise _not_held("iat is not now")
    if problem := out_of_time(claims, needs_end=False):
        raise _not_held(problem)
    _check_fresh(desk, claims, access_token)
    if not JTI.fullmatch(jti_of(claims)):
        raise _not_held("jti is missing or too long")
    held = thumbprint(key)
    seen_until = real_now() + timedelta(seconds=PROOF_AGE_S_MAX + 2 * SKEW_S)
    if not await use_token(desk.db, held, jti_of(claims), seen_until):
        raise _not_held("the DPoP proof was used before")
    return held


def _check_fresh(desk: Desk, claims: Mapping[str, Any], access_token: str | None) -> None:
    """Raise unless a proof has a nonce of ours, where one is needed, and is for this token.

    Raises:
        OAuthError
    """
    if desk.nonce_key is not None and not is_fresh(desk.nonce_key, claims.get("nonce")):
        status = 400 if access_token is None else 401  # RFC 9449 §8 and §9
        raise OAuthError("use_dpop_nonce", "nonce is not of ours, or over", status=status)
    if access_token is not None and claims.get("ath") != s256(access_token):
        raise _not_held("ath is not of this access token")


async def prove_consent(
    desk: Desk, asked: Asked, kind: Kind | None, permission: str | None = None
) -> Consent:
    """Return the consent that the request's token is on, if it is good for this now.

    A consent to pay that was used still answers what was paid; for a consent that ended in another
    way no token is good.

    Raises:
        OAuthError
    """
    scheme, token = _bound_token(asked)
    # The token first: a stranger without one makes us remember no proof.
    found = await introspect(desk.db, token)
    if found is None:
        raise _over()
    await _check_holder(desk, asked, (scheme, token), found.token.holder)
    partner = await partner_with_id(desk.db, found.token.partner_id)
    consent = found.consent
    is_paid = kind is Kind.PAYMENT_INITIATION and await payment_of(desk.db, consent) is not None
    if partner.state is not PartnerState.ACTIVE or not (
        is_paid or consent.is_good(desk.db.clock.now())
    ):
        raise _over()
    if consent.person_id is None:
        raise _over()
    person = await person_with_id(desk.db, consent.person_id)
    if person.state != "active":
        raise _over()
    if kind is not None and consent.kind is not kind:
        raise _not_for_this()
    if permission is not None and permission not in consent.permissions:
        raise _not_for_this()
    await note_use(desk.db, consent)
    return consent


async def prove_access(desk: Desk, asked: Asked, scope: str) -> Partner:
    """Return the partner whose own token, of this scope, has come with its key's proof.

    Raises:
        OAuthError
    """
    scheme, token = _bound_token(asked)
    found = await access_of(desk.db, token)
    if found is None:
        raise _over()
    await _check_holder(desk, asked, (scheme, token), found.holder)
    partner = await partner_with_id(desk.db, found.partner_id)
    if partner.state is not PartnerState.ACTIVE or KINDS[found.scope].value not in partner.kinds:
        raise _over()
    if found.scope != scope:
        raise _not_for_this()
    return partner


def _bound_token(asked: Asked) -> tuple[str, str]:
    """Return how the token is sent, and the token.

    Raises:
        OAuthError
    """
    said = asked.header("authorization") or ""
    scheme, _, token = said.partition(" ")
    if scheme.lower() not in {"dpop", "bearer"} or not token or len(token) > 128:
        raise OAuthError("invalid_token", "a bound access token is needed", status=401)
    return scheme.lower(), token


async def _check_holder(desk: Desk, asked: Asked, sent: tuple[str, str], bound_to: Holder) -> None:
    """Raise unless the request is proved by the key or the certificate that the token is bound to.

    A token that is bound to one is never good by the other, nor under the other's scheme.

    Raises:
        OAuthError
    """
    scheme, token = sent
    if scheme != bound_to.token_type.lower():
        raise _over()
    if bound_to.jkt is None:
        shown = certificate_of(desk, asked)
        if shown is None or shown.x5t != bound_to.x5t:
            raise _over()
        return
    jkt = await proved_key(desk, asked, asked.path, access_token=token)
    if jkt is None:
        raise OAuthError("invalid_dpop_proof", "a DPoP proof is needed", status=401)
    if jkt != bound_to.jkt:
        raise _over()


def out_of_time(claims: Mapping[str, Any], *, needs_end: bool) -> str | None:
    """Return what is wrong with the times of a token, if anything."""
    now = real_now().timestamp()
    end, start, made = (claims.get(name) for name in ("exp", "nbf", "iat"))
    if end is None and needs_end:
        return "exp is missing"
    for value in (end, start, made):
        if value is not None and not _is_number(value):
            return "exp, nbf or iat is no number"
    if end is not None and not now < end + SKEW_S:
        return "exp is over"
    if end is not None and end > now + ASSERTION_LIFE_S_MAX + SKEW_S:
        return "exp is too far ahead"
    if any(value is not None and value > now + SKEW_S for value in (start, made)):
        return "nbf or iat is ahead"
    return None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 2**40


def _is_same_url(said: object, url: str) -> bool:
    """Compare without query and fragment (RFC 9449 §4.3 no. 9); scheme and host by RFC 3986."""
    if not isinstance(said, str) or len(said) > 2048:
        return False
    try:
        one, other = urlsplit(said), urlsplit(url)
        ports = [each.port or {"https": 443, "http": 80}.get(each.scheme) for each in (one, other)]
    except ValueError:
        return False
    return (one.scheme, one.hostname, ports[0], one.path, one.username) == (
        *(other.scheme, other.hostname, ports[1], other.path),
        None,
    )


def jti_of(claims: Mapping[str, Any]) -> str:
    """Return what names a token once, or ""."""
    found = claims.get("jti")
    return found if isinstance(found, str) else ""


def _not_held(description: str) -> OAuthError:
    return OAuthError("invalid_dpop_proof", description)


def _over() -> OAuthError:
    return OAuthError("invalid_token", "the token or its consent is not good", status=401)


def _not_for_this() -> OAuthError:
    return OAuthError("insufficient_scope", "the consent is not about this", status=403)

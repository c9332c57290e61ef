"""Ask people for their consent, and see accounts or pay on it: the client of a partner.

    bank = OpenBank("https://pay.example", "ptn_…", private_key=pem, key_id="k1")
    asked = bank.ask({"type": "funds_confirmation"}, redirect_uri=back)
    # send the person's browser to asked["url"]; it comes back to `back` with code, state and iss
    grant = bank.take(asked, query_of_the_address)
    bank.has_funds(grant, account_id, amount=1999, currency="CNY")

What `ask` returns has the PKCE verifier and the DPoP key in it: keep it with the person's session,
and a grant as a secret.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, TypedDict, cast
from urllib.parse import urlencode

import httpx2 as httpx
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP256R1,
    EllipticCurvePrivateKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from tongbao_sdk.errors import MixedUp, Refused

_ASSERTION: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_LIFE_S: Final = 60


class Asking(TypedDict):
    """A pushed request: where the person's browser goes, and what is needed when it is back."""

    url: str
    state: str
    verifier: str
    redirect_uri: str
    dpop_key: str


class Grant(TypedDict):
    """Tokens on a consent, and the key that they are bound to."""

    access_token: str
    refresh_token: str | None
    consent_id: str
    dpop_key: str


class OpenBank:
    """One partner at one platform; safe to share between threads."""

    def __init__(
        self,
        url: str,
        client_id: str,
        *,
        private_key: str,
        key_id: str,
        client: httpx.Client | None = None,
    ) -> None:
        self._url = url.rstrip("/")
        self._client_id = client_id
        self._key = load_pem_private_key(private_key.encode(), password=None)
        self._key_id = key_id
        self._client = client or httpx.Client(trust_env=False)
        self._nonce: str | None = None

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def ask(self, details: Mapping[str, object], *, redirect_uri: str) -> Asking:
        """Push a request for a consent; the address in the answer is good for a minute.

        Raises:
            Refused
        """
        made = generate_private_key(SECP256R1())
        key = made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        verifier, state = secrets.token_urlsafe(48), secrets.token_urlsafe(24)
        pushed = self._form(
            "/oauth/par",
            key,
            response_type="code",
            redirect_uri=redirect_uri,
            code_challenge=_digest(verifier),
            code_challenge_method="S256",
            state=state,
            authorization_details=json.dumps([details]),
        )
        query = urlencode({"client_id": self._client_id, "request_uri": pushed["request_uri"]})
        return {
            "url": f"{self._url}/oauth/authorize?{query}",
            "state": state,
            "verifier": verifier,
            "redirect_uri": redirect_uri,
            "dpop_key": key,
        }

    def take(self, asked: Asking, told: Mapping[str, str]) -> Grant:
        """Return the tokens for the code in the address that the browser came back to.

        Raises:
            MixedUp: another state or issuer, or no code, as when the person did not consent.
            Refused
        """
        if not hmac.compare_digest(told.get("state", ""), asked["state"]):
            raise MixedUp("the state is of another request")
        if told.get("iss") != self._url:
            raise MixedUp("another server has answered")
        if "code" not in told:
            raise MixedUp(told.get("error", "there is no code"))
        tokens = self._form(
            "/oauth/token",
            asked["dpop_key"],
            grant_type="authorization_code",
            code=told["code"],
            redirect_uri=asked["redirect_uri"],
            code_verifier=asked["verifier"],
        )
        return {
            "access_token": tokens["access_token"],
            "refresh_token": tokens.get("refresh_token"),
            "consent_id": tokens["authorization_details"][0]["consent_id"],
            "dpop_key": asked["dpop_key"],
        }

    def refresh(self, grant: Grant) -> Grant:
        """Return the grant with a new access token; the refresh token stays as it is.

        Raises:
            Refused
        """
        if grant["refresh_token"] is None:
            raise ValueError("a consent to pay has no refresh token")
        form = {"grant_type": "refresh_token", "refresh_token": grant["refresh_token"]}
        tokens = self._form("/oauth/token", grant["dpop_key"], **form)
        return {**grant, "access_token": tokens["access_token"]}

    def end(self, grant: Grant) -> None:
        """End the grant; with a refresh token the consent ends too.

        Raises:
            Refused
        """
        self._form("/oauth/revoke", None, token=grant["refresh_token"] or grant["access_token"])

    def introspect(self, grant: Grant) -> Any:
        """Return what the access token is good for, and the key that it is bound to (RFC 7662)."""
        return self._form("/oauth/introspect", None, token=grant["access_token"])

    def consent(self, grant: Grant) -> Any:
        """Return how the consent stands."""
        return self._ask("GET", "/open_bank/consent", grant)

    def accounts(self, grant: Grant) -> Any:
        """Return the accounts that the person chose."""
        return self._ask("GET", "/open_bank/accounts", grant)["items"]

    def account(self, grant: Grant, account_id: str) -> Any:
        """Return one of them."""
        return self._ask("GET", f"/open_bank/accounts/{account_id}", grant)

    def balance(self, grant: Grant, account_id: str) -> Any:
        """Return what is in one of them, in minor units."""
        return self._ask("GET", f"/open_bank/accounts/{account_id}/balance", grant)

    def transactions(
        self, grant: Grant, account_id: str, *, cursor: str | None = None, limit: int | None = None
    ) -> Any:
        """Return a page of what happened in one of them, the newest first."""
        asked = {"cursor": cursor, "limit": limit}
        query = urlencode({name: value for name, value in asked.items() if value is not None})
        path = f"/open_bank/accounts/{account_id}/transactions"
        return self._ask("GET", path, grant, query=query)

    def has_funds(self, grant: Grant, account_id: str, *, amount: int, currency: str) -> bool:
        """Tell whether there is this much, in minor units."""
        body = {"account_id": account_id, "amount": {"amount": amount, "currency": currency}}
        answer = self._ask("POST", "/open_bank/funds_confirmations", grant, body)
        return bool(answer["funds_available"])

    def pay(self, grant: Grant) -> Any:
        """Pay what was consented to; asking again returns the same payment."""
        return self._ask("POST", "/open_bank/payments", grant)

    def payments(self, grant: Grant) -> Any:
        """Return the consent's payment, or none."""
        return self._ask("GET", "/open_bank/payments", grant)["items"]

    def _form(self, path: str, dpop_key: str | None, **fields: str) -> Any:
        def send() -> httpx.Response:
            sent = {
                "client_id": self._client_id,
                "client_assertion_type": _ASSERTION,
                "client_assertion": self._assertion(),
                **fields,
            }
            proof = None if dpop_key is None else self._proof("POST", path, dpop_key, None)
            headers = {} if proof is None else {"DPoP": proof}
            return self._client.post(self._url + path, data=sent, headers=headers)

        return self._answer(send)

    def _ask(
        self, method: str, path: str, grant: Grant, body: object = None, *, query: str = ""
    ) -> Any:
        token = grant["access_token"]
        content = b"" if body is None else json.dumps(body).encode()
        url = f"{self._url}{path}{'?' if query else ''}{query}"

        def send() -> httpx.Response:
            headers = {
                "Authorization": f"DPoP {token}",
                "DPoP": self._proof(method, path, grant["dpop_key"], token),
                "Content-Type": "application/json",
            }
            return self._client.request(method, url, content=content, headers=headers)

        return self._answer(send)

    def _answer(self, send: Callable[[], httpx.Response]) -> Any:
        """Send, and once more when the server wants its own nonce in the proof (RFC 9449 §8)."""
        reply = send()
        nonce = reply.headers.get("dpop-nonce")
        self._nonce = nonce or self._nonce
        if nonce and not reply.is_success and reply.json().get("error") == "use_dpop_nonce":
            reply = send()
        return _read(reply)

    def _assertion(self) -> str:
        now = int(time.time())
        claims = {
            "iss": self._client_id,
            "sub": self._client_id,
            "aud": self._url,
            "jti": secrets.token_urlsafe(18),
            "iat": now,
            "exp": now + _LIFE_S,
        }
        return _token(self._key, {"kid": self._key_id, "typ": "JWT"}, claims)

    def _proof(self, method: str, path: str, pem: str, token: str | None) -> str:
        key = cast("EllipticCurvePrivateKey", load_pem_private_key(pem.encode(), password=None))
        numbers = key.public_key().public_numbers()
        jwk = {
            "kty": "EC",
            "crv": "P-256",
            "x": _b64(numbers.x.to_bytes(32, "big")),
            "y": _b64(numbers.y.to_bytes(32, "big")),
        }
        claims: dict[str, object] = {
            "jti": secrets.token_urlsafe(18),
            "htm": method,
            "htu": self._url + path,
            "iat": int(time.time()),
        }
        if token is not None:
            claims["ath"] = _digest(token)
        if self._nonce is not None:
            claims["nonce"] = self._nonce
        return _token(key, {"typ": "dpop+jwt", "jwk": jwk}, claims)


def _token(key: object, header: dict[str, object], claims: Mapping[str, object]) -> str:
    match key:
        case Ed25519PrivateKey():
            alg = "EdDSA"
        case EllipticCurvePrivateKey() if isinstance(key.curve, SECP256R1):
            alg = "ES256"
        case RSAPrivateKey():
            alg = "PS256"
        case _:
            raise ValueError("the private key is none of Ed25519, EC P-256 and RSA")
    parts = [_b64(json.dumps(each).encode()) for each in ({"alg": alg, **header}, claims)]
    text = ".".join(parts).encode()
    match key:
        case Ed25519PrivateKey():
            signature = key.sign(text)
        case EllipticCurvePrivateKey():
            r, s = decode_dss_signature(key.sign(text, ECDSA(SHA256())))
            signature = r.to_bytes(32, "big") + s.to_bytes(32, "big")
        case RSAPrivateKey():
            signature = key.sign(text, PSS(MGF1(SHA256()), 32), SHA256())
    return ".".join([*parts, _b64(signature)])


def _read(reply: httpx.Response) -> Any:
    try:
        told = reply.json()
    except ValueError:
        told = {}
    if reply.is_success:
        return told
    code = told.get("error") or told.get("code") or "unreadable_reply"
    advice = told.get("error_description") or told.get("advice") or ""
    raise Refused(reply.status_code, {**told, "code": code, "advice": advice})


def _digest(text: str) -> str:
    return _b64(hashlib.sha256(text.encode()).digest())


def _b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")

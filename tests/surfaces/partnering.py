"""A partner of the open bank: its keys, assertions, DPoP proofs, and a person at a browser.

Written from the RFCs and not from our code.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import secrets
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS, PKCS1v15
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from tests.infra.signed_client import Reply, call
from tests.parties.phones import PASSWORD, Phone, address
from tests.stage import Stage
from tongbao.kernel.clock import real_now

BACK = "https://app.partner.example/cb"
ACCOUNTS = {"type": "account_information", "permissions": ["accounts", "balances", "transactions"]}
ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


def b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def digest(text: str) -> str:
    return b64(hashlib.sha256(text.encode()).digest())


def now() -> int:
    return int(real_now().timestamp())


class Es256:
    """A key on P-256 and how it signs."""

    alg = "ES256"

    def __init__(self, key: ec.EllipticCurvePrivateKey | None = None) -> None:
        self.key = key or ec.generate_private_key(ec.SECP256R1())
        numbers = self.key.public_key().public_numbers()
        self.jwk = {
            "kty": "EC",
            "crv": "P-256",
            "x": b64(numbers.x.to_bytes(32, "big")),
            "y": b64(numbers.y.to_bytes(32, "big")),
        }

    def sign(self, text: bytes) -> bytes:
        r, s = decode_dss_signature(self.key.sign(text, ec.ECDSA(SHA256())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")

    @property
    def jkt(self) -> str:
        members = {name: self.jwk[name] for name in ("crv", "kty", "x", "y")}
        return digest(json.dumps(members, separators=(",", ":")))

    def token(self, header: dict[str, Any], claims: dict[str, Any]) -> str:
        parts = [b64(json.dumps(each).encode()) for each in ({"alg": self.alg, **header}, claims)]
        return ".".join([*parts, b64(self.sign(".".join(parts).encode()))])


class Rsa(Es256):
    """An RSA key, for PS256, or wrongly for RS256."""

    def __init__(self, alg: str = "PS256", bits: int = 2048) -> None:
        self.alg = alg
        self.rsa = rsa.generate_private_key(65537, bits)
        numbers = self.rsa.public_key().public_numbers()
        self.jwk = {
            "kty": "RSA",
            "n": b64(numbers.n.to_bytes(bits // 8, "big")),
            "e": b64(numbers.e.to_bytes(3, "big")),
        }

    def sign(self, text: bytes) -> bytes:
        pad = PSS(MGF1(SHA256()), 32) if self.alg == "PS256" else PKCS1v15()
        return self.rsa.sign(text, pad, SHA256())


class Partner:
    """A third party's program."""

    def __init__(self, stage: Stage, client_id: str, key: Es256, kid: str = "k1") -> None:
        self.stage, self.client_id, self.key, self.kid = stage, client_id, key, kid
        self.dpop = Es256()
        self.issuer = stage.url

    def assertion(self, *, without: tuple[str, ...] = (), **claims: Any) -> str:
        said = {
            "iss": self.client_id,
            "sub": self.client_id,
            "aud": self.issuer,
            "jti": secrets.token_hex(8),
            "iat": now(),
            "exp": now() + 60,
            **claims,
        }
        said = {name: value for name, value in said.items() if name not in without}
        return self.key.token({"kid": self.kid, "typ": "JWT"}, said)

    def proof(
        self,
        method: str,
        path: str,
        *,
        token: str | None = None,
        key: Es256 | None = None,
        header: dict[str, Any] | None = None,
        without: tuple[str, ...] = (),
        **claims: Any,
    ) -> str:
        by = key or self.dpop
        said = {"jti": secrets.token_hex(8), "htm": method, "htu": self.issuer + path, "iat": now()}
        said |= {"ath": digest(token)} if token else {}
        said = {name: each for name, each in {**said, **claims}.items() if name not in without}
        return by.token({"typ": "dpop+jwt", "jwk": by.jwk, **(header or {})}, said)

    async def form(
        self, path: str, fields: dict[str, str], *, proof: str | None = None, **more: Any
    ) -> Reply:
        sent = {"client_assertion_type": ASSERTION, "client_assertion": self.assertion()}
        sent |= {**fields, **more}
        sent = {name: value for name, value in sent.items() if value is not None}
        headers = {"content-type": "application/x-www-form-urlencoded"}
        headers |= {"dpop": proof} if proof else {}
        return await call(self.stage.app, "POST", path, headers, [urlencode(sent).encode()])

    async def push(
        self, details: Any = ACCOUNTS, *, proof: str | None = None, **more: Any
    ) -> Reply:
        self.verifier = secrets.token_urlsafe(48)
        fields = {
            "client_id": self.client_id,
            "response_type": "code",
            "redirect_uri": BACK,
            "code_challenge": digest(self.verifier),
            "code_challenge_method": "S256",
            "state": "xyz",
            "authorization_details": json.dumps([details]),
        }
        return await self.form("/oauth/par", fields, proof=proof, **more)

    async def push_signed(
        self, details: Any = ACCOUNTS, *, without: tuple[str, ...] = (), **claims: Any
    ) -> Reply:
        """Push a request object (RFC 9101), with nothing beside it but what proves the client."""
        request = self.request(details, without=without, **claims)
        return await self.form("/oauth/par", {"client_id": self.client_id, "request": request})

    def request(
        self,
        details: Any = ACCOUNTS,
        *,
        without: tuple[str, ...] = (),
        header: dict[str, Any] | None = None,
        key: Es256 | None = None,
        **claims: Any,
    ) -> str:
        """A signed request object, whose claims can be others or left out."""
        self.verifier = secrets.token_urlsafe(48)
        said = {
            "iss": self.client_id,
            "aud": self.issuer,
            "client_id": self.client_id,
            "nbf": now(),
            "exp": now() + 300,
            "response_type": "code",
            "redirect_uri": BACK,
            "code_challenge": digest(self.verifier),
            "code_challenge_method": "S256",
            "state": "xyz",
            "authorization_details": [details],
            **claims,
        }
        said = {name: value for name, value in said.items() if name not in without}
        return (key or self.key).token(
            {"kid": self.kid, "typ": "oauth-authz-req+jwt", **(header or {})}, said
        )

    async def exchange(self, code: str, *, proof: str | None = None, **more: Any) -> Reply:
        fields = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": BACK,
            "code_verifier": self.verifier,
        }
        proof = self.proof("POST", "/oauth/token") if proof is None else proof
        return await self.form("/oauth/token", fields, proof=proof, **more)

    async def refresh(self, token: str, **more: Any) -> Reply:
        fields = {"grant_type": "refresh_token", "refresh_token": token}
        proof = more.pop("proof", None) or self.proof("POST", "/oauth/token")
        return await self.form("/oauth/token", fields, proof=proof, **more)

    async def ask(
        self,
        method: str,
        path: str,
        token: str,
        body: Any = None,
        *,
        proof: str | None = None,
        scheme: str = "DPoP",
    ) -> Reply:
        proof = proof or self.proof(method, path.partition("?")[0], token=token)
        headers = {"authorization": f"{scheme} {token}", "dpop": proof}
        sent = b"" if body is None else json.dumps(body).encode()
        headers |= {"content-type": "application/json"} if sent else {}
        return await call(self.stage.app, method, path, headers, [sent])


class Browser:
    """A person's browser: keeps one cookie, follows our own redirects only."""

    def __init__(self, stage: Stage, phone: Phone, contact: str) -> None:
        self.stage, self.phone, self.contact = stage, phone, contact
        self.cookie = ""
        self.language = "en"

    async def send(
        self, method: str, path: str, fields: dict[str, str] | None = None, **headers: str
    ) -> Reply:
        sent = {"accept-language": self.language, **headers}
        sent |= {"cookie": self.cookie} if self.cookie else {}
        body = b""
        if fields is not None:
            sent["content-type"] = "application/x-www-form-urlencoded"
            body = urlencode(fields).encode()
        reply = await call(self.stage.app, method, path, sent, [body])
        if "set-cookie" in reply.headers:
            self.cookie = reply.headers["set-cookie"].partition(";")[0]
        if reply.headers.get("location", "").startswith("/"):
            return await self.send("GET", reply.headers["location"])
        return reply

    async def post(self, step: str, **fields: str) -> Reply:
        return await self.send("POST", f"/oauth/authorize/{step}", fields)

    async def open(self, client_id: str, request_uri: str) -> Reply:
        query = urlencode({"client_id": client_id, "request_uri": request_uri})
        return await self.send("GET", f"/oauth/authorize?{query}")

    async def log_in(self, password: str = PASSWORD) -> Reply:
        return await self.post("log_in", contact=self.contact, password=password)

    async def code(self) -> str:
        await self.phone.post_office.wait()
        return await self.phone.code(address(self.contact))

    async def consent(self, client_id: str, request_uri: str, *accounts: str) -> dict[str, str]:
        """Log in, choose, confirm; return what the partner is told in the address."""
        assert (await self.open(client_id, request_uri)).status == 200
        page = await self.log_in()
        found = accounts or re.findall(r'(?:value|name)="(?:account\.)?(wal_\w+)"', text(page))
        await self.phone.post_office.wait()
        page = await self.post("choose", **{f"account.{each}": "on" for each in found})
        assert page.status == 200, text(page)
        back = await self.post("confirm", code=await self.code())
        assert back.status == 303, text(back)
        self.sent_to = back.headers["location"]
        return answered(back)


def text(reply: Reply) -> str:
    return reply.body.decode()


def answered(reply: Reply) -> dict[str, str]:
    """What stands in the address that the browser is sent to."""
    parts = urlsplit(reply.headers["location"])
    assert f"{parts.scheme}://{parts.netloc}{parts.path}" == BACK
    return {name: value for name, [value] in parse_qs(parts.query).items()}

"""A person's own account, for an app on their phone: every request is signed by the phone's key.

    phone = Person("https://pay.example", private_key=pem)
    sent = phone.ask_code("13812345678", "log_in")
    phone.log_in("13812345678", password, second={"way": "message_code", ...})
    phone.e_accounts(), phone.limits(account_id), phone.bank_cards(), phone.open_consents()

The key never leaves the phone, and a session's token opens nothing without it. An act that wants
more proof is refused with ``authentication.step_up_required``; its facts name the confirmation to
prove, and the same call is then made again. Everything else the document at
``/v1/me/openapi.json`` describes is asked for with `get` and `post`.
"""

from __future__ import annotations

import json
import secrets
import time
from base64 import b64encode
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any, Final, Literal, cast
from urllib.parse import quote

import httpx2 as httpx
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

from tongbao_sdk.errors import Refused, Unanswered

Mode = Literal["live", "sandbox"]
Purpose = Literal["register", "log_in", "recover"]
_SCHEME: Final = "TONGBAO-DEVICE"
_TIMEOUT_S: Final = 30.0


class Person:
    """One phone and whoever is logged in on it. ``session`` is the token of an earlier login.

    ``private_key`` is the PEM of the phone's own key: Ed25519, or EC on P-256. ``name`` is what the
    person will see the phone called. Nothing is repeated by itself: look the thing up.
    """

    def __init__(
        self,
        url: str,
        *,
        private_key: str,
        name: str = "phone",
        mode: Mode = "live",
        session: str | None = None,
        client: httpx.Client | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        key = load_pem_private_key(private_key.encode(), None)
        if not isinstance(key, Ed25519PrivateKey | EllipticCurvePrivateKey):
            raise ValueError("the phone's key is Ed25519 or EC on P-256")  # noqa: TRY004
        self.session = session
        self._url = url.rstrip("/")
        self._key = key
        self._mode: Mode = mode
        self._clock = clock
        self._client = client or httpx.Client(trust_env=False)
        public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        self._device = {"public_key": public.decode(), "name": name}

    def __repr__(self) -> str:
        return f"Person({self._url!r})"

    # Coming in

    def ask_code(self, contact: str, purpose: Purpose) -> Any:
        """Have a code sent to an address; the answer is the same whether anybody has it."""
        fields = {"contact": contact, "purpose": purpose, "device": self._device}
        return self.post("/codes", {**fields, "mode": self._mode})

    def register(
        self,
        contact: str,
        password: str,
        *,
        code_id: str,
        code: str,
        consents: list[dict[str, Any]] | None = None,
    ) -> Any:
        """Make an account with an address that a code has proved, and log in."""
        fields = {"contact": contact, "password": password, "code_id": code_id, "code": code}
        return self._enter("/registrations", {**fields, "consents": consents or []})

    def log_in(
        self, contact: str, password: str, *, second: Mapping[str, Any] | None = None
    ) -> Any:
        """Log in; from a phone that is not bound yet with a ``second`` proof.

        Raises:
            Refused: the answer is the same whether anybody has the address.
        """
        fields = {"contact": contact, "password": password}
        return self._enter(
            "/sessions", {**fields, "second": None if second is None else {**second}}
        )

    def log_out(self) -> None:
        """End the session."""
        self.post("/log_out")
        self.session = None

    def account(self) -> Any:
        """Return one's own account, masked."""
        return self.get("")

    # Accounts, and what the law lets one move

    def e_accounts(self) -> Any:
        """Return one's electronic accounts, closed ones too."""
        return self.get("/e_accounts")

    def balance(self, account_id: str) -> Any:
        """Return what an account holds."""
        return self.get(f"/e_accounts/{_part(account_id)}/balance")

    def statement(self, account_id: str) -> Any:
        """Return what was moved, newest first, each with the balance after it."""
        return self.get(f"/e_accounts/{_part(account_id)}/statement")

    def limits(self, account_id: str) -> Any:
        """Return every limit of the law on accounts of this class, with what is left of it."""
        return self.get(f"/e_accounts/{_part(account_id)}/limits")

    # Cards

    def bank_cards(self) -> Any:
        """Return the cards that are bound, the default one first."""
        return self.get("/bank_cards")

    def virtual_cards(self, account_id: str) -> Any:
        """Return the virtual cards of an account, without their numbers."""
        return self.get(f"/e_accounts/{_part(account_id)}/virtual_cards")

    # What one agreed to

    def consent_texts(self) -> Any:
        """Return the texts in force; to read them takes no session."""
        return self.get("/consent_texts")

    def consents(self) -> Any:
        """Return what one agreed to and withdrew from."""
        return self.get("/consents")

    def open_consents(self) -> Any:
        """Return what one let third parties and merchants see and do, the newest first."""
        return self.get("/open_consents")

    def revoke_consent(self, consent_id: str) -> Any:
        """End a consent and every token on it; safe to repeat."""
        return self.post(f"/open_consents/{_part(consent_id)}/revoke")

    # Everything

    def get(self, path: str) -> Any:
        """Read what lies at a path below ``/v1/me``.

        Raises:
            Refused, Unanswered
        """
        return self._send("GET", path, b"")

    def post(self, path: str, fields: Mapping[str, object] | None = None) -> Any:
        """Do what a path below ``/v1/me`` does.

        Raises:
            Refused: the platform said no; ``facts`` of a wish for more proof name what to prove.
            Unanswered: it may have been done.
        """
        return self._send("POST", path, b"" if fields is None else json.dumps(fields).encode())

    def _enter(self, path: str, fields: Mapping[str, object]) -> Any:
        self.session = None
        wanted = {name: each for name, each in fields.items() if each is not None}
        opened = self.post(path, {**wanted, "device": self._device, "mode": self._mode})
        self.session = cast("str", opened["token"])
        return opened

    def _send(self, method: str, path: str, body: bytes) -> Any:
        request = self._client.build_request(
            method, f"{self._url}/v1/me{path}", content=body, timeout=_TIMEOUT_S
        )
        target = request.url.raw_path.decode("ascii")
        request.headers["Authorization"] = self._authorization(method, target, body)
        if body:
            request.headers["Content-Type"] = "application/json"
        try:
            reply = self._client.send(request, follow_redirects=False)
        except httpx.RequestError as failure:
            raise Unanswered(type(failure).__name__, None) from failure
        try:
            said = reply.json() if reply.content else None
        except ValueError:
            raise Unanswered(f"{reply.status_code} with an unreadable body", None) from None
        if reply.is_success:
            return said
        if reply.is_server_error or not isinstance(said, dict):
            raise Unanswered(str(reply.status_code), None)
        raise Refused(reply.status_code, said)

    def _authorization(self, method: str, target: str, body: bytes) -> str:
        at, nonce = int(self._clock()), secrets.token_urlsafe(18)
        digest = sha256(body).hexdigest()
        token = self.session or ""
        text = "\n".join([f"{_SCHEME} v1", method, target, str(at), nonce, digest, token, ""])
        signature = b64encode(self._signed(text.encode())).decode()
        session = f"session={token}," if token else ""
        return f"{_SCHEME} {session}timestamp={at},nonce={nonce},signature={signature}"

    def _signed(self, text: bytes) -> bytes:
        if isinstance(self._key, Ed25519PrivateKey):
            return self._key.sign(text)
        r, s = decode_dss_signature(self._key.sign(text, ECDSA(SHA256())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def _part(text: str) -> str:
    if text.strip(".") == "":
        raise ValueError(f"not an id: {text!r}")
    return quote(text, safe="")

"""Routes for people's own phones: mounted beside the merchants' API, with proofs of their own.

    Authorization: TONGBAO-DEVICE session=…,timestamp=1763712000,nonce=…,signature=<base64>

A request is signed by a key that never leaves the phone, so a session's token alone opens nothing.
The signature has 64 bytes, of Ed25519, or r and s of ECDSA on P-256 or of SM2. It is over seven
lines, each ended by a line feed: ``TONGBAO-DEVICE v1``, method, path with query, timestamp, nonce,
hex SHA-256 of the body, and the session's token, empty where there is none yet. It is good for 300
seconds, and its nonce once.

What a route demands it says with `needs`, as everywhere: `OPEN` for those that anybody may call
whose phone signs, `SELF` for those that take a session. One that says nothing is not served.
"""

from __future__ import annotations

import binascii
import hashlib
import re
from base64 import b64decode
from collections.abc import Mapping, MutableMapping, Sequence
from functools import cached_property
from typing import Any, Final, Protocol, cast
from uuid import UUID

import msgspec
from litestar.handlers import HTTPRouteHandler
from msgspec import Struct

from tongbao.infra.admission.authentication import (
    WINDOW_S,
    HeaderMalformed,
    HeaderMissing,
    NonceReplayed,
    SignatureInvalid,
    TimestampStale,
    nonces_of,
)
from tongbao.infra.admission.nonces import Nonce
from tongbao.infra.db import Db
from tongbao.infra.public_keys import PublicKey, verifies
from tongbao.infra.serving.app import check_media_type, framework_of, operations_of
from tongbao.infra.serving.asgi import Asgi, json_file, target_of
from tongbao.infra.serving.openapi import ApiFacts, Security, describe
from tongbao.infra.web.problem import RouteUnknown
from tongbao.infra.web.request import InvalidValue
from tongbao.kernel.clock import real_now
from tongbao.kernel.errors import Unauthenticated
from tongbao.kernel.licence import Mode

OPEN: Final = "person:open"
SELF: Final = "person:self"
SCOPES: Final[Mapping[str, str]] = {
    OPEN: "Register, log in, recover: by anybody whose phone signs the request.",
    SELF: "Act as oneself: by a session, on the phone that it was opened on.",
}
DOCUMENT: Final = "/openapi.json"
"""Where the document lies, below the prefix; to read it takes no proof."""
_SCHEME: Final = "TONGBAO-DEVICE"
_HEADER: Final = re.compile(
    rf"{_SCHEME} (?:session=([A-Za-z0-9_-]{{43}}),)?timestamp=([0-9]{{1,12}}),"
    r"nonce=([A-Za-z0-9._~-]{16,128}),signature=([A-Za-z0-9+/]{86}==)"
)

Scope = MutableMapping[str, Any]


class SessionOver(Unauthenticated):
    """The session is over, was ended, or was never opened on this phone."""

    code = "auth.session_over"
    advice = "Log in again."
    advice_zh = "会话已结束，请重新登录。"


SIGNED_BY_PHONE: Final = Security(
    name="device",
    scheme={
        "type": "apiKey",
        "in": "header",
        "name": "Authorization",
        "description": f"`{_SCHEME} session=<token>,timestamp=<unix seconds>,nonce=<16 to 128"
        " characters>,signature=<base64>`, without `session` where there is none yet. Ed25519, or r"
        " and s of ECDSA on P-256 or of SM2, by the phone's own key over seven lines, each ended"
        f" by a line feed: `{_SCHEME} v1`, method, path with query, timestamp, nonce, hex SHA-256"
        " of the body, and the session's token or nothing.",
    },
    refuses=(
        HeaderMissing,
        HeaderMalformed,
        SessionOver,
        SignatureInvalid,
        TimestampStale,
        NonceReplayed,
    ),
)


class DeviceSession(Struct, frozen=True):
    """A session as it is on record: whose key must sign, and who acts then."""

    device_id: UUID
    person_id: UUID
    key: PublicKey
    mode: Mode
    actor: str
    opened: Any  # what the domain that opened it knows of it


class DeviceSessions(Protocol):
    """Where sessions are on record."""

    async def find(self, token: str) -> DeviceSession | None:
        """Return the session that a token opens, if it is not over."""

    async def note_use(self, session: DeviceSession) -> None:
        """Keep a session from going idle."""


class Proof(Struct, frozen=True):
    """A signature whose key is not known yet, on a route that is told the key in its body."""

    text: bytes
    timestamp: int
    nonce: str
    signature: bytes

    async def check(self, db: Db, key: PublicKey) -> None:
        """Raise unless this key's phone has sent the request, now and once.

        Raises:
            SignatureInvalid, TimestampStale, NonceReplayed
        """
        digest = hashlib.sha256(key.der).digest()
        await self.check_as(db, key, UUID(bytes=digest[:16]))

    async def check_as(self, db: Db, key: PublicKey, nonce_of: UUID) -> None:
        """Do the same for a key that has an id; its nonces are kept under that.

        Raises:
            SignatureInvalid, TimestampStale, NonceReplayed
        """
        if not verifies(key, self.text, self.signature):
            raise SignatureInvalid
        now = real_now()
        if abs(now.timestamp() - self.timestamp) > WINDOW_S:
            raise TimestampStale(our_time=int(now.timestamp()))
        if not await nonces_of(db).use(Nonce(nonce_of, self.nonce)):
            raise NonceReplayed


class DeviceCaller(Struct, frozen=True):
    """Who sent the request: a person with a session, or a phone that nobody is known by yet."""

    session: DeviceSession | None
    proof: Proof
    source: str  # where on the network it came from, for limits

    @property
    def scopes(self) -> frozenset[str]:
        """Return what the caller may ask for."""
        return frozenset({OPEN}) if self.session is None else frozenset({OPEN, SELF})

    @property
    def current(self) -> DeviceSession:
        """Return the session, on routes that demand one.

        Raises:
            SessionOver
        """
        if self.session is None:
            raise SessionOver
        return self.session

    @property
    def mode(self) -> Mode:
        """Return the mode of the session; of nobody's, live."""
        return self.session.mode if self.session else Mode.LIVE

    @property
    def merchant_id(self) -> UUID:
        """Return the id that Idempotency-Keys are kept under: the person's own."""
        return self.current.person_id

    @property
    def actor(self) -> str:
        """Return the name transactions and the audit log know this caller by."""
        return self.session.actor if self.session else "somebody"


class DeviceApi:
    """An ASGI application to mount; ``prefix`` is where all of its routes lie."""

    def __init__(
        self,
        handlers: Sequence[HTTPRouteHandler],
        *,
        db: Db,
        sessions: DeviceSessions,
        provides: Mapping[str, object],
        facts: ApiFacts,
    ) -> None:
        self._facts = facts
        self._db = db
        self._sessions = sessions
        self._given = {"db": db, **provides}
        self._api = framework_of(tuple(handlers), tuple(sorted(self._given)))
        self.operations = operations_of(self._api, SCOPES)

    @cached_property
    def document(self) -> dict[str, Any]:
        """Its OpenAPI document, written when somebody first asks for it."""
        return describe(self.operations, self._facts)

    @property
    def mounts(self) -> dict[str, Asgi]:
        """Where it is to be mounted, its document with it."""
        at = self._facts.prefix
        file = json_file(lambda: msgspec.json.encode(self.document), (at + DOCUMENT,))
        return {at: self, at + DOCUMENT: file}

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        """Prove who is calling, then let the framework route and decode.

        Raises:
            HeaderMissing, HeaderMalformed, SessionOver, SignatureInvalid, TimestampStale,
            NonceReplayed
        """
        if b"%00" in scope["query_string"]:
            raise InvalidValue(param="query", reason="the character U+0000 is not text")
        scope["state"]["caller"] = await self._caller(scope)
        scope["state"]["given"] = self._given
        scope["state"]["limits"] = None  # codes and tries have limits of their own
        if "\x00" in scope["path"]:
            raise RouteUnknown
        if scope["state"]["body"]:
            check_media_type(scope)
        await cast("Asgi", self._api)(scope, receive, send)

    async def _caller(self, scope: Scope) -> DeviceCaller:
        token, proof = _read(scope)
        source = (scope.get("client") or ("",))[0]
        if token is None:
            return DeviceCaller(None, proof, source)
        session = await self._sessions.find(token)
        if session is None:
            raise SessionOver
        await proof.check_as(self._db, session.key, session.device_id)
        await self._sessions.note_use(session)
        return DeviceCaller(session, proof, source)


def signed_text(scope: Scope, timestamp: int, nonce: str, token: str | None) -> bytes:
    """Return the bytes that a phone signs."""
    digest = hashlib.sha256(scope["state"]["body"]).hexdigest()
    lines = (f"{_SCHEME} v1", scope["method"], target_of(scope), str(timestamp), nonce, digest)
    return "\n".join([*lines, token or "", ""]).encode("latin-1")


def _read(scope: Scope) -> tuple[str | None, Proof]:
    values = [v.decode("latin-1") for n, v in scope["headers"] if n == b"authorization"]
    if not values:
        raise HeaderMissing
    found = _HEADER.fullmatch(values[0]) if len(values) == 1 else None
    if found is None:
        raise HeaderMalformed
    token, timestamp, nonce, signature = found.groups()
    try:
        raw = b64decode(signature, validate=True)
    except binascii.Error:
        raise HeaderMalformed from None
    text = signed_text(scope, int(timestamp), nonce, token)
    return token, Proof(text, int(timestamp), nonce, raw)

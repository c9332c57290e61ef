"""Sessions of developers: a cookie's token is known to the browser only, here is its HMAC."""

from __future__ import annotations

import secrets
from base64 import urlsafe_b64encode
from datetime import timedelta
from typing import Final

from msgspec import Struct

from tongbao.infra.crypto import Keyring, constant_time_equal, hmac_sha256
from tongbao.infra.db import Db, Tx
from tongbao.infra.settings import Secret
from tongbao.kernel.clock import real_now
from tongbao.parties.developers import _store as store
from tongbao.parties.developers.model import (
    IDLE_MAX,
    SESSION_MAX,
    Developer,
    DeveloperSessionEnded,
)
from tongbao.parties.identity.model import CsrfTokenWrong

_PURPOSE: Final = "developer.session"
_TOUCHED_EVERY: Final = timedelta(minutes=1)


class Session(Struct, frozen=True):
    """Who is there, proved by the cookie, and the token that their forms carry."""

    developer: Developer
    csrf_token: str

    def check_csrf(self, given: str) -> None:
        """Raise unless a form was made for this session.

        Raises:
            CsrfTokenWrong
        """
        if not constant_time_equal(self.csrf_token.encode(), given.encode()):
            raise CsrfTokenWrong


class OpenedSession(Struct, frozen=True):
    """A new session and, this once, the token for its cookie."""

    session: Session
    token: Secret


async def open_session(tx: Tx, keyring: Keyring, developer: Developer) -> OpenedSession:
    """Open a session for somebody who has proved who they are."""
    token, now = secrets.token_urlsafe(32), real_now()
    await store.INSERT_SESSION.run(tx, _hash(keyring, token), developer.id, now, now + SESSION_MAX)
    return OpenedSession(Session(developer, _csrf_token(keyring, token)), Secret(token))


async def session_of(db: Db, keyring: Keyring, token: str) -> Session:
    """Return the session a cookie belongs to and count this as use of it.

    Raises:
        DeveloperSessionEnded
    """
    token_hash = _hash(keyring, token)
    row = await store.FIND_SESSION.first(db, token_hash)
    now = real_now()
    if row is None or now >= row.expires_at or now >= row.seen_at + IDLE_MAX:
        raise DeveloperSessionEnded
    developer = await store.GET.one(db, row.developer_id)
    if now - row.seen_at >= _TOUCHED_EVERY:
        await store.TOUCH_SESSION.run(db, token_hash, now)
    return Session(developer, _csrf_token(keyring, token))


async def log_out(db: Db, keyring: Keyring, token: str) -> None:
    """End the session; ending it again changes nothing."""
    await store.END_SESSION.run(db, _hash(keyring, token))


async def prune_sessions(db: Db) -> None:
    """Forget sessions that are over."""
    now = real_now()
    await store.PRUNE_SESSIONS.run(db, now, now - IDLE_MAX)


def _hash(keyring: Keyring, token: str) -> bytes:
    return hmac_sha256(keyring.mac_key(_PURPOSE), b"look-up\n", token.encode())


def _csrf_token(keyring: Keyring, token: str) -> str:
    mac = hmac_sha256(keyring.mac_key(_PURPOSE), b"csrf\n", token.encode())
    return urlsafe_b64encode(mac).decode().rstrip("=")

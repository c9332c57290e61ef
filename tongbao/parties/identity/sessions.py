"""Operator sessions: log in with password and code, stay logged in by a cookie, log out.

A session ends 30 minutes after its last use and 12 hours after its first. Its token is known to
the browser only: here are its HMAC, and from it the CSRF token that every form of it carries.
"""

from __future__ import annotations

import asyncio
import secrets
from base64 import urlsafe_b64encode
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from msgspec import Struct

from tongbao.infra import audit
from tongbao.infra.admission.login_sources import knock, let_in
from tongbao.infra.crypto import Keyring, constant_time_equal, hmac_sha256
from tongbao.infra.db import Db, Tx
from tongbao.infra.settings import Secret
from tongbao.kernel.clock import real_now
from tongbao.kernel.errors import Fact
from tongbao.parties.authentication.passkeys import Site, passkeys_of
from tongbao.parties.identity import _store as store
from tongbao.parties.identity.factors import (
    PasskeyAnswer,
    SecondFactor,
    answered,
    recovery_hash,
)
from tongbao.parties.identity.model import CsrfTokenWrong, LoginRefused, Operator, SessionEnded
from tongbao.parties.identity.operators import (
    is_login,
    password_matches,
    step_of_code,
    unmatchable_hash,
)

IDLE_MAX: Final = timedelta(minutes=30)
SESSION_MAX: Final = timedelta(hours=12)
SESSIONS_MAX: Final = 5
"""Sessions of one operator at a time; the next one ends the oldest."""
TRIES_MAX: Final = 5
LOCKED_FOR: Final = timedelta(minutes=15)
_TOUCHED_EVERY: Final = timedelta(minutes=1)
_PURPOSE: Final = "session.token"
_ACTOR: Final = "login"
_NOBODY: Final = UUID(int=0)


class Session(Struct, frozen=True):
    """Who is at the console, proved by the cookie, and the token its forms must carry."""

    operator: Operator
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


class Given(Struct, frozen=True):
    """What somebody gave as their second factor: a code, or a passkey's answer for a site."""

    code: str
    site: Site | None
    answer: PasskeyAnswer | None


class Second(Struct, frozen=True):
    """A second factor that is right, and has yet to be used up."""

    way: str
    step: int | None = None
    recovery: bytes | None = None

    async def use(self, tx: Tx, operator_id: UUID) -> Operator | None:
        """Use it up and return whose it was; of two logins with one code, the second's is None."""
        if self.step is not None:
            return await store.USE_CODE.first(tx, operator_id, self.step)
        if self.recovery is not None and not await store.USE_RECOVERY.run(
            tx, operator_id, self.recovery, tx.now
        ):
            return None
        return await store.LET_IN.first(tx, operator_id)


async def log_in(
    db: Db,
    keyring: Keyring,
    *,
    login: str,
    password: str,
    code: str,
    site: Site | None = None,
    answer: PasskeyAnswer | None = None,
    factor: SecondFactor = "any",
) -> OpenedSession:
    """Open a session for whoever knows the password and holds the second factor.

    That is a TOTP code, a recovery code, or the ``answer`` of a passkey for the ``site``. Where
    ``factor`` wants a passkey, TOTP is taken only from those who have none yet, to enrol one.
    Every refusal is the same, and takes as long, so that nothing can be learnt from it.

    Raises:
        LoginRefused, LoginsTooMany
    """
    now, knocked = real_now(), await knock(db, keyring, "operator")
    found = await store.FIND_OPERATOR.first(db, login) if is_login(login) else None
    operator = await _count_try(db, found, now)
    password_hash = operator.password_hash if operator else unmatchable_hash()
    known = await asyncio.to_thread(password_matches, password, password_hash)
    second = await _second_factor(
        db, keyring, operator, Given(code, site, answer), is_codes_too=factor == "any"
    )
    if operator is None or not known or second is None:
        raise await _refused(db, found)

    token = secrets.token_urlsafe(32)
    async with db.begin(operator.actor) as tx:
        used = await second.use(tx, operator.id)
        if used is not None:
            expires_at = now + SESSION_MAX
            await store.INSERT_SESSION.run(tx, _hash(keyring, token), used.id, now, expires_at)
            ended = await store.END_OLDEST.run(tx, used.id, SESSIONS_MAX)
            facts: dict[str, Fact] = {"by": second.way}
            if ended:
                facts["sessions_ended"] = ended
            await audit.record(tx, "operator.logged_in", used.actor, facts)
    if used is None:  # the code was used before
        raise await _refused(db, found)
    await let_in(db, knocked)
    return OpenedSession(Session(used, _csrf_token(keyring, token)), Secret(token))


async def session_of(db: Db, keyring: Keyring, token: str, *, is_use: bool = True) -> Session:
    """Return the session a cookie belongs to and count this as use of it.

    What a page asks for by itself is no use: ``is_use=False`` lets the idle time run on.

    Raises:
        SessionEnded
    """
    token_hash = _hash(keyring, token)
    row = await store.FIND_SESSION.first(db, token_hash)
    now = real_now()
    if row is None or now >= row.expires_at or now >= row.seen_at + IDLE_MAX:
        raise SessionEnded
    operator = await store.GET_OPERATOR.one(db, row.operator_id)
    if operator.state != "active":
        raise SessionEnded
    if is_use and now - row.seen_at >= _TOUCHED_EVERY:
        await store.TOUCH_SESSION.run(db, token_hash, now)
    return Session(operator, _csrf_token(keyring, token))


async def log_out(db: Db, keyring: Keyring, token: str) -> None:
    """End the session; ending it again changes nothing."""
    await store.END_SESSION.run(db, _hash(keyring, token))


async def prune_sessions(db: Db) -> None:
    """Forget sessions that are over."""
    now = real_now()
    await store.PRUNE_SESSIONS.run(db, now, now - IDLE_MAX)


async def _second_factor(
    db: Db, keyring: Keyring, operator: Operator | None, given: Given, *, is_codes_too: bool
) -> Second | None:
    """Return what was given if it is right; the same questions are asked whoever it is."""
    owner_id = operator.id if operator else _NOBODY
    has_passkey = bool(await passkeys_of(db, owner_id))
    hashed = recovery_hash(keyring, owner_id, given.code)
    is_known = await store.KNOWS_RECOVERY.one(db, owner_id, hashed)
    if operator is None:
        return None
    if given.site is not None and given.answer is not None:
        right = await answered(db, given.site, operator, given.answer)
        return Second("passkey") if right else None
    if is_known:
        return Second("recovery_code", recovery=hashed)
    step = step_of_code(keyring, operator, given.code, int(real_now().timestamp()))
    takes = is_codes_too or not has_passkey
    return Second("totp", step=step) if step is not None and takes else None


async def _count_try(db: Db, found: Operator | None, now: datetime) -> Operator | None:
    """Return the operator if they may try now; the try counts as failed until it succeeds."""
    if found is None:
        return None
    return await store.COUNT_TRY.first(db, found.id, TRIES_MAX, now, now + LOCKED_FOR)


async def _refused(db: Db, operator: Operator | None) -> LoginRefused:
    """Write down who was refused, where there is such an operator, and return the refusal."""
    if operator is not None:
        async with db.begin(_ACTOR) as tx:
            await audit.record(tx, "operator.login_refused", operator.actor, {})
    return LoginRefused()


def _hash(keyring: Keyring, token: str) -> bytes:
    return hmac_sha256(keyring.mac_key(_PURPOSE), b"look-up\n", token.encode())


def _csrf_token(keyring: Keyring, token: str) -> str:
    mac = hmac_sha256(keyring.mac_key(_PURPOSE), b"csrf\n", token.encode())
    return urlsafe_b64encode(mac).decode().rstrip("=")

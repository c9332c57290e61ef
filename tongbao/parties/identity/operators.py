"""Operators: people of the platform's own firm, added by an administrator or, once, by the CLI."""

from __future__ import annotations

import functools
import re
import secrets
from typing import Final
from uuid import UUID

import pyotp
from argon2 import PasswordHasher
from argon2.exceptions import VerificationError
from msgspec import Struct

from tongbao.infra import audit
from tongbao.infra.crypto import Keyring, bind, constant_time_equal
from tongbao.infra.db import Tx
from tongbao.infra.settings import Secret
from tongbao.kernel.errors import Fact
from tongbao.kernel.ids import new_id
from tongbao.parties.authentication.passwords import is_common, says_the_place
from tongbao.parties.identity import _store as store
from tongbao.parties.identity.model import (
    LoginMalformed,
    LoginTaken,
    NotTheFirst,
    Operator,
    OperatorNotFound,
    PasswordWeak,
    Role,
    check_password,
)

ISSUER: Final = "Tongbao"
STEP_S: Final = 30
_PURPOSE: Final = "operator.totp"
_LOGIN: Final = re.compile(r"[a-z0-9._@-]{3,64}")
# RFC 9106's second recommended choice; a login takes some 50 ms of one core.
_HASHER: Final = PasswordHasher(time_cost=3, memory_cost=64 * 1024, parallelism=4)


class Enrolment(Struct, frozen=True):
    """A new second factor and, this once, its secret as authenticator apps take it."""

    operator: Operator
    totp_secret: Secret
    totp_uri: Secret  # otpauth://…, to be drawn as a QR code


async def create_first_operator(
    tx: Tx, keyring: Keyring, *, login: str, name: str, password: str
) -> Enrolment:
    """Make the administrator that a new deployment starts with.

    Raises:
        NotTheFirst, LoginMalformed, PasswordWeak
    """
    if await store.ANY_OPERATOR.one(tx):
        raise NotTheFirst
    try:
        return await _create(
            tx,
            keyring,
            login=login,
            name=name,
            role=Role.ADMIN,
            password=password,
            is_first=True,
        )
    except LoginTaken:  # the insert met the other installer's row
        raise NotTheFirst from None


async def create_operator(
    tx: Tx, keyring: Keyring, *, login: str, name: str, role: Role, password: str
) -> Enrolment:
    """Add an operator.

    Raises:
        LoginMalformed, LoginTaken, PasswordWeak
    """
    return await _create(
        tx, keyring, login=login, name=name, role=role, password=password, is_first=False
    )


async def set_password(tx: Tx, login: str, password: str, *, because: str | None = None) -> None:
    """Replace a password; every session of the operator ends, and a lock is lifted.

    ``because`` is why somebody does it for another; the audit log keeps it.

    Raises:
        OperatorNotFound, PasswordWeak
    """
    _check_choice(password, login)
    operator = await store.SET_PASSWORD.first(tx, login, _HASHER.hash(password))
    await _changed(tx, operator, "operator.password_set", because)


async def reset_second_factor(
    tx: Tx, keyring: Keyring, login: str, *, because: str | None = None
) -> Enrolment:
    """Replace a lost second factor; every session of the operator ends.

    Raises:
        OperatorNotFound
    """
    operator = await store.FIND_OPERATOR.first(tx, login)
    if operator is None:
        raise OperatorNotFound(login=login)
    seed = pyotp.random_base32()
    operator = await store.SET_TOTP.one(tx, operator.id, _sealed(keyring, operator.id, seed))
    await _changed(tx, operator, "operator.second_factor_reset", because)
    return _enrolment(operator, seed)


async def set_disabled(tx: Tx, login: str, *, disabled: bool, because: str | None = None) -> None:
    """Lock an operator out for good, ending every session, or let them in again.

    Raises:
        OperatorNotFound
    """
    operator = await store.SET_STATE.first(tx, login, "disabled" if disabled else "active")
    action = "operator.disabled" if disabled else "operator.enabled"
    await _changed(tx, operator, action, because)


async def unlock(tx: Tx, login: str, *, because: str | None = None) -> None:
    """Let an operator try again who failed too often.

    Raises:
        OperatorNotFound
    """
    operator = await store.UNLOCK.first(tx, login)
    if operator is None:
        raise OperatorNotFound(login=login)
    await audit.record(tx, "operator.unlocked", operator.actor, _why(because))


def is_login(text: str) -> bool:
    """Tell whether any operator could have this login name."""
    return _LOGIN.fullmatch(text) is not None


def password_matches(password: str, password_hash: str) -> bool:
    """Compare a password with its hash; slow on purpose, so never on the event loop."""
    try:
        return _HASHER.verify(password_hash, password.encode(errors="replace"))
    except VerificationError:
        return False


@functools.cache
def unmatchable_hash() -> str:
    """Return a hash to compare with where there is no operator, so that this takes as long."""
    return _HASHER.hash(secrets.token_hex())


def step_of_code(keyring: Keyring, operator: Operator, code: str, at_s: int) -> int | None:
    """Return the 30-second step the code belongs to: the present one or a neighbour, or None."""
    seed = keyring.open(_PURPOSE, operator.totp_sealed, _place(operator.id)).decode()
    totp = pyotp.TOTP(seed, interval=STEP_S)
    now = at_s // STEP_S
    for step in (now - 1, now, now + 1):
        if constant_time_equal(totp.generate_otp(step).encode(), code.encode(errors="replace")):
            return step
    return None


async def _create(
    tx: Tx,
    keyring: Keyring,
    *,
    login: str,
    name: str,
    role: Role,
    password: str,
    is_first: bool,
) -> Enrolment:
    if not is_login(login):
        raise LoginMalformed(login=login[:64])
    _check_choice(password, login)
    operator_id, seed = new_id(), pyotp.random_base32()
    sealed = _sealed(keyring, operator_id, seed)
    operator = await store.INSERT_OPERATOR.first(
        tx, operator_id, login, name, role, _HASHER.hash(password), sealed, tx.now, is_first
    )
    if operator is None:
        raise LoginTaken(login=login)
    facts = {"login": login, "role": role.value}
    await audit.record(tx, "operator.created", operator.actor, facts)
    return _enrolment(operator, seed)


def _check_choice(password: str, login: str) -> None:
    check_password(password, login)
    if is_common(password) or says_the_place(password):
        raise PasswordWeak


def _why(because: str | None) -> dict[str, Fact]:
    return {} if because is None else {"because": because}


async def _changed(tx: Tx, operator: Operator | None, action: str, because: str | None) -> None:
    if operator is None:
        raise OperatorNotFound
    await store.END_SESSIONS_OF.run(tx, operator.id)
    await audit.record(tx, action, operator.actor, _why(because))


def _enrolment(operator: Operator, seed: str) -> Enrolment:
    uri = pyotp.TOTP(seed, interval=STEP_S).provisioning_uri(
        name=operator.login, issuer_name=ISSUER
    )
    return Enrolment(operator, Secret(seed), Secret(uri))


def _sealed(keyring: Keyring, operator_id: UUID, seed: str) -> bytes:
    return keyring.seal(_PURPOSE, seed.encode(), _place(operator_id))


def _place(operator_id: UUID) -> bytes:
    return bind("operator", "totp_sealed", operator_id)

"""Generators of one-time codes that belong to somebody: TOTP, HOTP, and OCRA for challenges.

    new ──first right code──► active ──► ended

A code is taken once: the last step or counter is kept on the row and only grows. An OCRA response
is to a question about the act: digits that a person types into a token show the payee's tail and
the amount, so what they see is what they sign; an app's question is the act's hash.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Iterable
from typing import Final, Literal
from urllib.parse import quote, urlencode
from uuid import UUID

from msgspec import Struct

from tongbao.infra import audit
from tongbao.infra.crypto import Keyring, bind, constant_time_equal
from tongbao.infra.db import Db, Tx
from tongbao.infra.settings import Secret
from tongbao.kernel.clock import real_now
from tongbao.kernel.ids import new_id, show
from tongbao.kernel.one_time_codes import STEP_S, hotp, ocra, read_suite, totp
from tongbao.parties.authentication import _store as store
from tongbao.parties.authentication.model import (
    Act,
    Authenticator,
    AuthenticatorNotFound,
    Challenge,
    ProofRefused,
)

PREFIX: Final = "atr"
ISSUER: Final = "Tongbao"
LOOK_AHEAD: Final = 10
"""Codes of a counter that may have been made and not used (RFC 4226 §7.4)."""
SUITES: Final = ("OCRA-1:HOTP-SHA256-8:C-QN10", "OCRA-1:HOTP-SHA256-8:C-QH64")
"""With a counter, so that no response is good twice: typed by a person, or handed to an app."""
_SECRET_BYTES: Final = 32
_TOTP_BYTES: Final = 20  # what every authenticator app takes
_TAIL: Final = 4
_AMOUNT_DIGITS: Final = 6
_PURPOSE: Final = "person.factor"

AuthenticatorKind = Literal["totp", "hotp", "ocra"]


class Enrolled(Struct, frozen=True):
    """A new authenticator and, this once, its secret; the URI is what apps scan."""

    authenticator: Authenticator
    secret: Secret
    uri: Secret


async def enrol_authenticator(
    tx: Tx,
    own: Keyring,
    owner_id: UUID,
    kind: AuthenticatorKind,
    *,
    name: str,
    account: str,
    suite: str | None = None,
) -> Enrolled:
    """Give somebody a new secret, which counts once its first code was right.

    ``account`` is how their app names it; ``own`` is the owner's own keyring.

    Raises:
        ProofRefused: the suite is none of `SUITES`.
    """
    if (kind == "ocra") != (suite is not None) or (suite is not None and suite not in SUITES):
        raise ProofRefused(reason="suite")
    made = new_id()
    raw = secrets.token_bytes(_TOTP_BYTES if kind == "totp" else _SECRET_BYTES)
    row = await store.INSERT_AUTHENTICATOR.one(
        tx, made, owner_id, kind, suite, name, own.seal(_PURPOSE, raw, _place(made)), -1, tx.now
    )
    text = base64.b32encode(raw).decode().rstrip("=")
    return Enrolled(row, Secret(text), Secret(_uri(kind, text, account)))


async def confirm_authenticator(
    db: Db, own: Keyring, owner_id: UUID, authenticator_id: UUID, code: str, *, actor: str
) -> None:
    """Put a new authenticator in force by its first right code.

    Raises:
        AuthenticatorNotFound, ProofRefused
    """
    row = await store.GET_AUTHENTICATOR.first(db, authenticator_id, owner_id)
    if row is None or row.state != "new":
        raise AuthenticatorNotFound
    moved = _found(own, row, code, _first_question(row))
    if moved is None or not await store.MOVE_AUTHENTICATOR.run(db, row.id, moved, "new"):
        raise ProofRefused
    async with db.begin(actor) as tx:
        facts = {"kind": row.kind, "authenticator": show(PREFIX, row.id)}
        await audit.record(tx, "authentication.enrolled", actor, facts)


async def code_proves(db: Db, own: Keyring, owner_id: UUID, kind: str, code: str) -> bool:
    """Tell whether a TOTP or HOTP code is one of the owner's, and use it up."""
    for row in await authenticators_of(db, owner_id):
        if row.kind == kind and row.state == "active":
            moved = _found(own, row, code, None)
            if moved is not None:
                return bool(await store.MOVE_AUTHENTICATOR.run(db, row.id, moved, "active"))
    return False


async def response_proves(
    db: Db, own: Keyring, owner_id: UUID, challenge: Challenge, *, act: Act, response: str
) -> bool:
    """Tell whether this is an OCRA response of the owner's to a challenge about the act."""
    for row in await authenticators_of(db, owner_id):
        if row.kind == "ocra" and row.suite is not None and row.state == "active":
            moved = _found(own, row, response, question_for(row.suite, act, challenge))
            if moved is not None:
                return bool(await store.MOVE_AUTHENTICATOR.run(db, row.id, moved, "active"))
    return False


def question_for(suite: str, act: Act, challenge: Challenge) -> str:
    """Return what the owner's token is asked: ten digits of payee and amount, or a hash of all."""
    if suite == SUITES[0]:
        tail = "".join(each for each in act.payee if each.isascii() and each.isdigit())[-_TAIL:]
        amount = act.amount % 10**_AMOUNT_DIGITS
        return f"{tail:0>{_TAIL}}{amount:0{_AMOUNT_DIGITS}d}"
    return challenge.signed.hex()


async def authenticators_of(on: Db | Tx, owner_id: UUID) -> list[Authenticator]:
    """Return what somebody has enrolled, the oldest first."""
    return await store.AUTHENTICATORS.all(on, owner_id)


async def end_authenticator(tx: Tx, owner_id: UUID, authenticator_id: UUID) -> None:
    """Forget an authenticator's secret.

    Raises:
        AuthenticatorNotFound
    """
    if not await store.END_AUTHENTICATOR.run(tx, authenticator_id, owner_id):
        raise AuthenticatorNotFound
    facts = {"authenticator": show(PREFIX, authenticator_id)}
    await audit.record(tx, "authentication.ended", tx.actor, facts)


async def forget_authenticators(tx: Tx, owner_id: UUID) -> None:
    """Forget everything somebody enrolled."""
    await store.FORGET_AUTHENTICATORS.run(tx, owner_id)


def _found(own: Keyring, row: Authenticator, code: str, question: str | None) -> int | None:
    """Return the step or counter that makes this code and was not used yet, or None."""
    raw = own.open(_PURPOSE, row.sealed, _place(row.id))
    for moved in _candidates(row):
        if constant_time_equal(_code(row, raw, moved, question).encode(), code.encode("utf-8")):
            return moved
    return None


def _candidates(row: Authenticator) -> Iterable[int]:
    if row.kind != "totp":
        return range(row.moved + 1, row.moved + 1 + LOOK_AHEAD)
    step = int(real_now().timestamp()) // STEP_S
    return [each for each in (step - 1, step, step + 1) if each > row.moved]


def _code(row: Authenticator, raw: bytes, moved: int, question: str | None) -> str:
    if row.kind == "totp":
        return totp(raw, moved * STEP_S)
    if row.kind == "hotp" or row.suite is None:
        return hotp(raw, moved)
    return ocra(read_suite(row.suite), raw, question or "", counter=moved)


def _first_question(row: Authenticator) -> str | None:
    """Return what a new OCRA token is asked: nothing but zeros, which no act asks."""
    if row.suite is None:
        return None
    return "0" * (10 if row.suite == SUITES[0] else 64)


def _uri(kind: str, secret: str, account: str) -> str:
    terms = {"secret": secret, "issuer": ISSUER, **({"counter": "0"} if kind == "hotp" else {})}
    return f"otpauth://{kind}/{ISSUER}:{quote(account)}?{urlencode(terms)}"


def _place(authenticator_id: UUID) -> bytes:
    return bind("authenticator", "sealed", authenticator_id)

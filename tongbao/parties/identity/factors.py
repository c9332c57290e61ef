"""Operators' second factors beside TOTP: passkeys, and recovery codes on paper.

A recovery code is used once and is good for a login whatever else is asked for, which is what it
is kept for. Making new ones ends those that were made before.
"""

from __future__ import annotations

import re
import secrets
from typing import Any, Final, Literal
from uuid import UUID

from msgspec import Struct

from tongbao.infra import audit
from tongbao.infra.crypto import Keyring, bind, hmac_sha256
from tongbao.infra.db import Db, Tx
from tongbao.infra.settings import Secret
from tongbao.kernel.errors import Refusal
from tongbao.kernel.ids import ALPHABET, parse
from tongbao.parties.authentication.model import Challenge, Passkey
from tongbao.parties.authentication.passkeys import (
    Site,
    add_passkey,
    end_passkey,
    new_challenge,
    passkey_proves,
    passkeys_of,
    use_challenge,
)
from tongbao.parties.identity import _store as store
from tongbao.parties.identity.model import Operator

SecondFactor = Literal["any", "passkey"]
LOG_IN: Final = "operator.log_in"
ENROL: Final = "operator.enrol"
CHALLENGE_PREFIX: Final = "chl"
CODES: Final = 10
_GROUPS: Final = 3
_GROUP: Final = 4
_FORM: Final = re.compile(r"[0-9a-z]{4}(?:-?[0-9a-z]{4}){2}")
_PURPOSE: Final = "session.token"


class PasskeyAnswer(Struct, frozen=True):
    """What a browser returned for a challenge of ours."""

    challenge_id: str
    response: Any


class OwnFactors(Struct, frozen=True):
    """How an operator can prove who they are beside TOTP."""

    passkeys: list[Passkey]
    recovery_left: int


async def factors_of(on: Db | Tx, operator: Operator) -> OwnFactors:
    """Return an operator's passkeys and how many recovery codes are left."""
    left = await store.RECOVERY_LEFT.one(on, operator.id)
    return OwnFactors(await passkeys_of(on, operator.id), left)


async def make_recovery_codes(tx: Tx, keyring: Keyring, operator: Operator) -> list[Secret]:
    """Return new recovery codes, shown this once; those made before are good no more."""
    texts = ["".join(secrets.choice(ALPHABET) for _ in range(12)) for _ in range(CODES)]
    await store.FORGET_RECOVERY.run(tx, operator.id)
    for text in texts:
        await store.INSERT_RECOVERY.run(
            tx, operator.id, recovery_hash(keyring, operator.id, text), tx.now
        )
    await audit.record(tx, "operator.recovery_codes_made", operator.actor, {"count": CODES})
    return [
        Secret("-".join(text[at : at + _GROUP] for at in range(0, _GROUPS * _GROUP, _GROUP)))
        for text in texts
    ]


def recovery_hash(keyring: Keyring, operator_id: UUID, code: str) -> bytes | None:
    """Return what a recovery code is kept as, or None where the text cannot be one."""
    if not _FORM.fullmatch(code):
        return None
    plain = code.replace("-", "").encode()
    return hmac_sha256(keyring.mac_key(_PURPOSE), b"recovery\n", bind(operator_id, plain))


async def ask_operator(tx: Tx, purpose: str, operator_id: UUID | None) -> Challenge:
    """Ask something that one of an operator's passkeys is to sign."""
    return await new_challenge(tx, purpose, operator_id)


async def answered(db: Db, site: Site, operator: Operator, answer: PasskeyAnswer) -> bool:
    """Tell whether one of the operator's passkeys has signed the login's challenge."""
    try:
        asked = parse(CHALLENGE_PREFIX, answer.challenge_id)
        challenge = await use_challenge(db, asked, LOG_IN, None)
        passkey = await passkey_proves(db, site, challenge, answer.response, actor="login")
    except Refusal:
        return False
    return passkey.owner_id == operator.id


async def add_own_passkey(
    db: Db, site: Site, operator: Operator, name: str, answer: PasskeyAnswer
) -> Passkey:
    """Enrol a passkey for an operator.

    Raises:
        ProofRefused, PasskeyRefused, PasskeyUnavailable, UnknownId
    """
    asked = parse(CHALLENGE_PREFIX, answer.challenge_id)
    challenge = await use_challenge(db, asked, ENROL, operator.id)
    async with db.begin(operator.actor) as tx:
        return await add_passkey(tx, site, challenge, operator.id, name, response=answer.response)


async def end_own_passkey(tx: Tx, operator: Operator, passkey_id: UUID) -> None:
    """Take one of an operator's passkeys no more.

    Raises:
        AuthenticatorNotFound
    """
    await end_passkey(tx, operator.id, passkey_id)

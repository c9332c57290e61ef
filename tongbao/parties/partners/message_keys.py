"""Keys that sign what partners are answered: made when first needed, renewed by people, published.

A key that was renewed is published for its overlap still, so that what it signed can be verified.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from msgspec import Struct

from tongbao.infra import audit
from tongbao.infra.crypto import Keyring, bind
from tongbao.infra.db import Db, Tx
from tongbao.infra.jose import new_rsa_key, public_jwk, sign_token
from tongbao.kernel.ids import new_id, show
from tongbao.parties.partners import _store as store

OVERLAP: Final = timedelta(days=7)
_PURPOSE: Final = "open_bank.signing"


class SigningKey(Struct, frozen=True):
    """A key as it signs; ``der`` is its PKCS #8 form and secret."""

    kid: str
    der: bytes

    def __repr__(self) -> str:
        return f"SigningKey({self.kid}, ********)"


async def signing_key(db: Db, keyring: Keyring) -> SigningKey:
    """Return the key in use; the first that is asked for is made, and of two at once one stays."""
    found = await store.KEY_IN_USE.first(db)
    if found is None:
        made = await _made()  # takes a while, and so before any transaction
        async with db.begin("open_bank") as tx:
            await _keep(tx, keyring, made)
        found = await store.KEY_IN_USE.one(db)
    return SigningKey(found.kid, keyring.open(_PURPOSE, found.sealed, _place(found.kid)))


async def signed(db: Db, keyring: Keyring, claims: Mapping[str, Any]) -> str:
    """Return claims as a token by the key in use, for whom its ``aud`` names to verify."""
    key = await signing_key(db, keyring)
    return sign_token({"alg": "PS256", "kid": key.kid}, claims, key.der)


async def renew_key(db: Db, keyring: Keyring, actor: str) -> str:
    """Sign by a new key from now on and return its name; the one before is published seven days."""
    made = await _made()
    async with db.begin(actor) as tx:
        await store.RETIRE_KEYS.run(tx, tx.now + OVERLAP)
        await _keep(tx, keyring, made)
    return made.kid


async def published_keys(db: Db) -> list[dict[str, Any]]:
    """Return the public keys by which anybody verifies what we sign, the newest first."""
    return [each.public_jwk for each in await store.KEYS_PUBLISHED.all(db, db.clock.now())]


async def _made() -> SigningKey:
    return SigningKey(show("mky", new_id()), await asyncio.to_thread(new_rsa_key))


async def _keep(tx: Tx, keyring: Keyring, made: SigningKey) -> None:
    sealed = keyring.seal(_PURPOSE, made.der, _place(made.kid))
    jwk = {**public_jwk(made.der), "kid": made.kid, "use": "sig", "alg": "PS256"}
    now: datetime = tx.now
    if await store.INSERT_KEY.run(tx, made.kid, sealed, jwk, now):
        await audit.record(tx, "open_bank.key_made", made.kid, {})


def _place(kid: str) -> bytes:
    return bind("message_key", kid)

"""Limited-use keys: what a device proves with that it has the token, so many times.

A cryptogram is HMAC-SHA-256 of the token's number, the counter, the amount and the currency under
the key, its first 16 bytes in hex. The counter only rises, so what was heard once is worth nothing.
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Final
from uuid import UUID

from msgspec import Struct

from tongbao.infra import audit
from tongbao.infra.crypto import Place, bind, constant_time_equal, hmac_sha256
from tongbao.infra.db import Db, Tx
from tongbao.infra.kms.model import Owner
from tongbao.infra.kms.sealing_keys import SealingKeys
from tongbao.infra.outbox import publish
from tongbao.infra.settings import Secret
from tongbao.kernel.errors import Fact
from tongbao.kernel.ids import new_id, show
from tongbao.kernel.money import Money
from tongbao.parties.vault import _store as store
from tongbao.parties.vault.model import (
    TOKEN,
    Card,
    KeysNotForToken,
    Token,
    TokenState,
    UseKey,
    UseKeyShort,
    view_token,
)
from tongbao.parties.vault.tokens import locked_token

_PURPOSE: Final = "vault.use_key"
_KEY_BYTES: Final = 32
_CRYPTOGRAM_BYTES: Final = 16
USES_DEFAULT: Final = 10
REFILL_DEFAULT: Final = 3
LIFE: Final = timedelta(days=7)


class GivenUseKey(Struct, frozen=True):
    """A key as its device gets it, once."""

    key: UseKey
    secret: Secret


class Proof(Struct, frozen=True):
    """What a device says of one use: which key, which counter, and the cryptogram in hex."""

    key_number: int
    counter: int
    cryptogram: str

    def __repr__(self) -> str:
        return f"Proof({self.key_number}, {self.counter})"


async def give_use_key(
    tx: Tx, keys: SealingKeys, owner: Owner, token_id: UUID, *, uses_max: int, refill_at: int
) -> GivenUseKey:
    """Make the token's next key. The one before goes on, the one before that ends.

    Raises:
        TokenNotFound, KeysNotForToken, KmsUnavailable
    """
    token = await locked_token(tx, owner, token_id)
    if token.state is not TokenState.ACTIVE or token.kind != "device":
        raise KeysNotForToken(status=token.state.value)
    number = await store.LAST_KEY.one(tx, token_id) + 1
    await store.END_KEYS.run(tx, token_id, number - 2)
    key_id, secret = new_id(), os.urandom(_KEY_BYTES)
    sealed = await keys.seal(tx, owner, _PURPOSE, secret, _place(key_id))
    key = await store.INSERT_KEY.one(
        tx,
        *(key_id, token_id, owner.merchant_id, owner.mode, number, sealed, uses_max),
        *(min(refill_at, uses_max), min(tx.now + LIFE, token.expires_at), tx.now),
    )
    facts: dict[str, Fact] = {"number": number, "uses": uses_max}
    await audit.record(tx, "card_token.key_given", show(TOKEN, token_id), facts)
    return GivenUseKey(key, Secret(secret.hex()))


async def use_key_of(on: Db | Tx, owner: Owner, key_id: UUID) -> UseKey:
    """Return one of the owner's limited-use keys."""
    return await store.GET_KEY.one(on, key_id, owner.merchant_id, owner.mode)


async def refusal_of_proof(
    tx: Tx, keys: SealingKeys, token: Token, card: Card, *, money: Money, proof: Proof
) -> str | None:
    """Count one use of a key and return None, or return why the proof is worth nothing."""
    key = await store.LOCK_KEY.first(tx, token.id, proof.key_number)
    if key is None or key.sealed is None or tx.now >= key.expires_at:
        return "token_key_over"
    owner = Owner(token.merchant_id, token.mode)
    secret = await keys.open(tx, owner, _PURPOSE, key.sealed, _place(key.id))
    expected = cryptogram(secret, token.number, proof.counter, money)
    if not constant_time_equal(expected.encode(), proof.cryptogram.lower().encode()):
        return "token_cryptogram"
    counted = await store.COUNT_KEY.first(tx, key.id, proof.counter)
    if counted is None:
        return "token_replayed" if proof.counter <= key.last_counter else "token_key_over"
    if counted.is_short and not key.is_short:
        await publish(
            tx,
            UseKeyShort(
                merchant_id=token.merchant_id,
                mode=token.mode,
                resource_id=show(TOKEN, token.id),
                object=view_token(token, card),
            ),
        )
    return None


def cryptogram(secret: bytes, number: str, counter: int, money: Money) -> str:
    """Return what a device sends for one use, in hex."""
    said = bind(number, str(counter), str(money.amount), money.currency)
    return hmac_sha256(secret, b"tongbao cryptogram 1\0", said)[:_CRYPTOGRAM_BYTES].hex()


def _place(key_id: UUID) -> Place:
    return Place("vault.use_key", "sealed", str(key_id))

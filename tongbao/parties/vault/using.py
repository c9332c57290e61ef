"""Use a token: what is let through gets the card's number, and nothing else ever does.

Whoever sends to a card host asks here, with no transaction open, just before it sends. The use is
counted under the number that the host will know it by: the same number again is the same use.
"""

from __future__ import annotations

from typing import Final
from uuid import UUID

import prometheus_client
from msgspec import Struct

from tongbao.infra import audit
from tongbao.infra.db import Db, Tx
from tongbao.infra.failpoints import failpoint
from tongbao.infra.kms.sealing_keys import SealingKeys
from tongbao.kernel.errors import Fact
from tongbao.kernel.ids import show
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import Money
from tongbao.parties.vault import _store as store
from tongbao.parties.vault.cards import number_of
from tongbao.parties.vault.model import TOKEN, Number, Token, TokenUse, refusal_of_use
from tongbao.parties.vault.use_keys import Proof, refusal_of_proof

_USES = prometheus_client.Counter(
    "tongbao_card_token_uses", "Uses of card tokens, let through or refused", ["end"]
)
_NEEDS_PROOF: Final = "device"


class UseAsked(Struct, frozen=True):
    """Who wants to use which token for what; ``reference`` is its number at the card host."""

    merchant_id: UUID
    mode: Mode
    number: str
    reference: str
    channel: str
    pay_mode: str
    money: Money
    proof: Proof | None = None


class UseRefused(Struct, frozen=True):
    """The token may not be used for this; ``code`` says why, and nothing was counted."""

    code: str


async def use_token(db: Db, keys: SealingKeys, asked: UseAsked) -> Number | UseRefused:
    """Count one use of a token and return its card's number, or say why not.

    Raises:
        DatabaseUnavailable, LockNotFree, KmsUnavailable, SealUnreadable
    """
    async with db.begin("vault") as tx:
        token = await store.LOCK_NUMBER.first(tx, asked.number, asked.merchant_id, asked.mode)
        if token is None:
            return _refused("token_unknown")
        found = await _counted(tx, keys, token, asked)
        if isinstance(found, UseRefused):
            said: dict[str, Fact] = {"code": found.code, "reference": asked.reference}
            await audit.record(tx, "card_token.refused", show(TOKEN, token.id), said)
        failpoint("vault.before_use_commit")
    _USES.labels("refused" if isinstance(found, UseRefused) else "used").inc()
    return found


async def _counted(tx: Tx, keys: SealingKeys, token: Token, asked: UseAsked) -> Number | UseRefused:
    whose = (asked.merchant_id, asked.mode)
    card = await store.GET_CARD.one(tx, token.card_id, *whose)
    earlier = await store.GET_USE.first(tx, token.id, asked.reference)
    if earlier is not None:
        return await number_of(tx, keys, card) if _same(earlier, asked) else _refused("token_used")
    amount, currency = asked.money.amount, asked.money.currency
    code = refusal_of_use(
        token,
        tx.now,
        channel=asked.channel,
        pay_mode=asked.pay_mode,
        amount=amount,
        currency=currency,
    )
    if code is None and token.kind == _NEEDS_PROOF:
        code = "token_needs_cryptogram"
        if asked.proof is not None:
            code = await refusal_of_proof(
                tx, keys, token, card, money=asked.money, proof=asked.proof
            )
    if code is not None:
        return _refused(code)
    proof = asked.proof if token.kind == _NEEDS_PROOF else None
    await store.COUNT_USE.one(tx, token.id, amount, tx.now)
    await store.INSERT_USE.run(
        tx,
        *(token.id, asked.reference, *whose, amount, currency),
        *(proof.key_number if proof else None, proof.counter if proof else None, tx.now),
    )
    return await number_of(tx, keys, card)


def _same(earlier: TokenUse, asked: UseAsked) -> bool:
    return (earlier.amount, earlier.currency) == (asked.money.amount, asked.money.currency)


def _refused(code: str) -> UseRefused:
    return UseRefused(code)

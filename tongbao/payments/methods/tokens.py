"""Tell the channel of cards the card behind a token: the one way by which a number goes out."""

from __future__ import annotations

from typing import Final

from tongbao.infra.db import Db
from tongbao.infra.kms.sealing_keys import SealingKeys
from tongbao.kernel.errors import Busy, Conflict, NotFound
from tongbao.parties.vault.model import Number
from tongbao.parties.vault.use_keys import Proof
from tongbao.parties.vault.using import UseAsked, use_token
from tongbao.payments.methods.asked import ON_FILE
from tongbao.rails.channels.contract.orders import CardRead, Detokenise, PayOrder, TokenRead
from tongbao.rails.channels.contract.outcomes import Declined, NotSent
from tongbao.rails.channels.error_map import error_map

_CHANNEL: Final = "cards"


def detokenising(db: Db, keys: SealingKeys) -> Detokenise:
    """Return who is asked for the card behind a token; wiring gives it to the channel of cards."""

    async def detokenise(token: TokenRead, order: PayOrder) -> CardRead | Declined | NotSent:
        try:
            found = await use_token(db, keys, _asked(token, order))
        except Busy as busy:
            return NotSent(busy.code)
        except (Conflict, NotFound):  # its key was destroyed, or cannot be read
            return _declined("token_card_gone")
        if isinstance(found, Number):
            return CardRead(number=found.number, expiry=found.expiry, entry=ON_FILE)
        return _declined(found.code)

    return detokenise


def _asked(token: TokenRead, order: PayOrder) -> UseAsked:
    proof = None
    if token.key_number and token.counter and token.cryptogram:
        proof = Proof(token.key_number, token.counter, token.cryptogram)
    return UseAsked(
        merchant_id=token.merchant_id,
        mode=token.mode,
        number=token.number,
        reference=order.number,
        channel=_CHANNEL,
        pay_mode=order.mode.value,
        money=order.money,
        proof=proof,
    )


def _declined(code: str) -> Declined:
    return Declined(code, error_map(_CHANNEL).find("pay", code).en)

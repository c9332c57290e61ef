"""Charge the card that an agreement was signed with, when a merchant takes money under it.

The channel is given the agreement in place of the card, and asks for the number just before it
sends: whether the agreement still stands and the card is still bound is looked at then. The number
is in that call and nowhere else.
"""

from __future__ import annotations

from typing import Final

from tongbao.infra.db import Db
from tongbao.infra.kms.sealing_keys import SealingKeys
from tongbao.kernel.errors import Busy, Conflict, NotFound
from tongbao.kernel.ids import parse, show
from tongbao.parties.bound_cards.model import BoundState
from tongbao.parties.bound_cards.queries import card_with_id, number_behind
from tongbao.parties.price_plans.model import CardKind
from tongbao.payments.agreements.model import Agreement, AgreementState
from tongbao.payments.agreements.queries import agreement_of_merchant
from tongbao.payments.card_agreements.signing import card_behind
from tongbao.payments.methods import tokens
from tongbao.payments.methods.asked import ON_FILE
from tongbao.rails.channels.contract.orders import CardRead, Detokenise, PayOrder, TokenRead
from tongbao.rails.channels.contract.outcomes import Declined, NotSent
from tongbao.rails.channels.error_map import error_map

_PREFIX: Final = "agr"


def card_under(agreement: Agreement) -> CardRead:
    """Return what a payment under an agreement gives the channel in place of a card's number."""
    stands_for = TokenRead(agreement.merchant_id, agreement.mode, show(_PREFIX, agreement.id))
    return CardRead(number="", expiry="", entry=ON_FILE, token=stands_for)


async def price_kind(db: Db, agreement: Agreement) -> CardKind:
    """Return the kind of card whose price a payment under an agreement pays.

    Raises:
        BoundCardNotFound
    """
    return (await card_with_id(db, card_behind(agreement))).kind.price_kind


def detokenising(db: Db, keys: SealingKeys) -> Detokenise:
    """Return who is asked for the card behind a token or an agreement; wiring gives it."""
    by_token = tokens.detokenising(db, keys)

    async def detokenise(token: TokenRead, order: PayOrder) -> CardRead | Declined | NotSent:
        # A merchant's token is digits, so none that is given to us can pass for an agreement.
        if not token.number.startswith(f"{_PREFIX}_"):
            return await by_token(token, order)
        try:
            return await _card_of(db, keys, token)
        except Busy as busy:
            return NotSent(busy.code)
        except (Conflict, NotFound):  # it was unbound, its key was destroyed, or cannot be read
            return _declined("token_card_gone")

    return detokenise


async def _card_of(db: Db, keys: SealingKeys, token: TokenRead) -> CardRead | Declined:
    wanted = parse(_PREFIX, token.number)
    agreement = await agreement_of_merchant(db, wanted, token.merchant_id, token.mode)
    if agreement.state is not AgreementState.ACTIVE:
        return _declined("agreement_over")
    card = await card_with_id(db, card_behind(agreement))
    if card.state is not BoundState.BOUND:
        return _declined("token_card_gone")
    number = await number_behind(db, keys, card)
    return CardRead(number=number.number, expiry=number.expiry, entry=ON_FILE)


def _declined(code: str) -> Declined:
    return Declined(code, error_map("cards").find("pay", code).en)

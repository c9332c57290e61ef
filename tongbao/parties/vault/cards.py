"""Keep a card, delete it, take its new number; open its number for whoever may send it on."""

from __future__ import annotations

import base64
from typing import Final
from uuid import UUID

import msgspec

from tongbao.infra import audit
from tongbao.infra.crypto import Place, hmac_sha256
from tongbao.infra.db import Db, Tx
from tongbao.infra.db_failures import UniqueKeyTaken
from tongbao.infra.kms.model import Owner
from tongbao.infra.kms.sealing_keys import SealingKeys
from tongbao.kernel.card_numbers import is_luhn, scheme_of
from tongbao.kernel.clock import business_date
from tongbao.kernel.ids import new_id, show
from tongbao.kernel.pages import Page, decode_moment, encode_moment, page_size
from tongbao.parties.vault import _store as store
from tongbao.parties.vault.model import (
    CARD,
    PAR_CONTROLLER,
    PAR_DIGITS,
    Card,
    CardKnown,
    CardNotFound,
    CardNumberWrong,
    Number,
    check_expiry,
)
from tongbao.parties.vault.tokens import delete_tokens_of

OWN_SCHEME: Final = "own"
_PURPOSE: Final = "vault.card"
_FINGERPRINT: Final = "vault.fingerprint"


async def save_card(tx: Tx, keys: SealingKeys, owner: Owner, number: Number) -> Card:
    """Keep a merchant's card; the same number again is the same card.

    Raises:
        CardNumberWrong, CardExpired, KmsUnavailable
    """
    scheme = _checked(number, tx)
    mark, par = await _marks(tx, keys, owner, number.number)
    card_id = new_id()
    sealed = await _sealed(tx, keys, owner, card_id, number)
    made = await store.INSERT_CARD.first(
        tx,
        *(card_id, owner.merchant_id, owner.mode, mark, par),
        *(number.number[:6], number.number[-4:], scheme, sealed, tx.now),
    )
    if made is None:  # it is there already
        found = await store.FIND_CARD.one(tx, owner.merchant_id, owner.mode, mark)
        return await _renewed(tx, keys, found, number)
    await audit.record(tx, "vault_card.saved", show(CARD, made.id), {"scheme": scheme})
    return made


async def keep_own_card(tx: Tx, keys: SealingKeys, owner: Owner, number: Number) -> Card:
    """Keep a number that the firm itself has issued, which no scheme need know.

    Raises:
        CardNumberWrong: its check digit, or that it is there already. KmsUnavailable
    """
    if not is_luhn(number.number):
        raise CardNumberWrong(param="$.number")
    mark, par = await _marks(tx, keys, owner, number.number)
    card_id = new_id()
    sealed = await _sealed(tx, keys, owner, card_id, number)
    made = await store.INSERT_CARD.first(
        tx,
        *(card_id, owner.merchant_id, owner.mode, mark, par),
        *(number.number[:6], number.number[-4:], OWN_SCHEME, sealed, tx.now),
    )
    if made is None:
        raise CardNumberWrong(param="$.number")
    await audit.record(tx, "vault_card.saved", show(CARD, made.id), {"scheme": OWN_SCHEME})
    return made


async def par_of(tx: Tx, keys: SealingKeys, number: str) -> str:
    """Return the payment account reference of a number, whether the vault has it or not.

    Raises:
        KmsUnavailable
    """
    key = await keys.mac_key(tx, _FINGERPRINT)
    return _par(key, number)


async def reissue_card(
    tx: Tx, keys: SealingKeys, owner: Owner, card_id: UUID, number: Number
) -> Card:
    """Take the number of the card that the issuer sent in place of this one.

    Its tokens go on, and so does its payment account reference: that is what they are for.

    Raises:
        CardNotFound, CardNumberWrong, CardExpired, CardKnown, KmsUnavailable
    """
    await locked_card(tx, owner, card_id)
    scheme = _checked(number, tx)
    mark, _ = await _marks(tx, keys, owner, number.number)
    sealed = await _sealed(tx, keys, owner, card_id, number)
    shown = (number.number[:6], number.number[-4:])
    try:
        async with tx.savepoint():
            card = await store.REISSUE_CARD.one(tx, card_id, mark, *shown, scheme, sealed, tx.now)
    except UniqueKeyTaken:
        raise CardKnown from None
    await audit.record(tx, "vault_card.reissued", show(CARD, card_id), {"scheme": scheme})
    return card


async def delete_card(tx: Tx, owner: Owner, card_id: UUID) -> Card:
    """Forget a card's number and end its tokens; a second time changes nothing.

    Raises:
        CardNotFound
    """
    card = await card_of(tx, owner, card_id)
    deleted = await store.DELETE_CARD.first(tx, card_id, tx.now)
    if deleted is None:
        return card
    await delete_tokens_of(tx, deleted)
    await audit.record(tx, "vault_card.deleted", show(CARD, card_id), {})
    return deleted


async def number_of(on: Db | Tx, keys: SealingKeys, card: Card) -> Number:
    """Return a card's number in the clear, for whoever sends it to a card host at once.

    Raises:
        CardNotFound, SealUnreadable, SealingKeyDestroyed, KmsUnavailable
    """
    if card.sealed is None:
        raise CardNotFound
    owner = Owner(card.merchant_id, card.mode)
    text = await keys.open(on, owner, _PURPOSE, card.sealed, _place(card.id))
    return msgspec.json.decode(text, type=Number)


async def card_of(on: Db | Tx, owner: Owner, card_id: UUID) -> Card:
    """Return one of the owner's cards, deleted or not.

    Raises:
        CardNotFound
    """
    found = await store.GET_CARD.first(on, card_id, owner.merchant_id, owner.mode)
    if found is None:
        raise CardNotFound
    return found


async def locked_card(tx: Tx, owner: Owner, card_id: UUID) -> Card:
    """Return one of the owner's cards that is not deleted, and hold its row.

    Raises:
        CardNotFound
    """
    found = await store.LOCK_CARD.first(tx, card_id, owner.merchant_id, owner.mode)
    if found is None:
        raise CardNotFound
    return found


async def cards_of(
    on: Db | Tx, owner: Owner, *, cursor: str | None, limit: int | None
) -> Page[Card]:
    """Return the owner's cards, newest first.

    Raises:
        CursorInvalid, PageSizeInvalid
    """
    size = page_size(limit)
    _, before = decode_moment(cursor)
    found = await store.LIST_CARDS.all(on, owner.merchant_id, owner.mode, before, size + 1)
    last = found[size - 1] if len(found) > size else None
    return Page(found[:size], encode_moment(last.created_at, last.id) if last else None)


def _checked(number: Number, tx: Tx) -> str:
    scheme = scheme_of(number.number)
    if scheme is None:
        raise CardNumberWrong(param="$.number")
    check_expiry(number.expiry, business_date(tx.now))
    return scheme


async def _marks(tx: Tx, keys: SealingKeys, owner: Owner, number: str) -> tuple[bytes, str]:
    """Return what knows the card again for this merchant, and its reference for everybody.

    Both are keyed: all card numbers are soon tried, so a bare hash would tell the number.
    """
    key = await keys.mac_key(tx, _FINGERPRINT)
    mark = hmac_sha256(key, b"fingerprint\0", owner.tenant.encode(), b"\0", number.encode())
    return mark, _par(key, number)


def _par(key: bytes, number: str) -> str:
    tail = base64.b32encode(hmac_sha256(key, b"par\0", number.encode())).decode()
    return (PAR_CONTROLLER + tail)[:PAR_DIGITS]


async def _sealed(tx: Tx, keys: SealingKeys, owner: Owner, card_id: UUID, number: Number) -> bytes:
    text = msgspec.json.encode(number)
    return await keys.seal(tx, owner, _PURPOSE, text, _place(card_id))


async def _renewed(tx: Tx, keys: SealingKeys, card: Card, number: Number) -> Card:
    """Return the card with the month that was given now, which a renewed card has new."""
    owner = Owner(card.merchant_id, card.mode)
    held = await locked_card(tx, owner, card.id)
    sealed = await _sealed(tx, keys, owner, card.id, number)
    shown = (held.fingerprint, held.bin, held.last4, held.scheme)
    return await store.REISSUE_CARD.one(tx, card.id, *shown, sealed, tx.now)


def _place(card_id: UUID) -> Place:
    return Place("vault.card", "sealed", str(card_id))

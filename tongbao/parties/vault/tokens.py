"""Ask for a token that stands for a card, and change how it stands; every change is told."""

from __future__ import annotations

import secrets
from datetime import datetime
from typing import Final
from uuid import UUID

from tongbao.infra import audit
from tongbao.infra.db import Db, Tx
from tongbao.infra.kms.model import Owner
from tongbao.infra.outbox import publish
from tongbao.kernel.card_numbers import check_digit
from tongbao.kernel.errors import Busy
from tongbao.kernel.ids import show
from tongbao.kernel.pages import Page, decode_moment, encode_moment, page_size
from tongbao.parties.vault import _store as store
from tongbao.parties.vault.model import (
    ANY_ASSURANCE,
    LIFE_MAX,
    MOVES,
    NUMBER_DIGITS,
    RANGE,
    REQUESTOR_CODE,
    TOKEN,
    Card,
    Kind,
    Token,
    TokenControls,
    TokenLifeWrong,
    TokenMoved,
    TokenNotFound,
    TokenStandsOtherwise,
    TokenState,
    view_token,
)

_DRAWS_MAX: Final = 8


class TokensTaken(Busy):
    """Every number that was drawn is taken: that is chance, or a range that is nearly full."""

    code = "card_token.numbers_taken"
    advice = "Repeat the request."
    advice_zh = "请重试该请求。"
    retry_after_s = 1


async def request_token(
    tx: Tx,
    card: Card,
    controls: TokenControls,
    *,
    token_id: UUID,
    kind: Kind,
    expires_at: datetime,
) -> Token:
    """Make a token for a card whose row is held. It pays nothing before it is activated.

    Raises:
        TokenLifeWrong, TokensTaken
    """
    if not tx.now < expires_at <= tx.now + LIFE_MAX:
        raise TokenLifeWrong(param="$.expires_at")
    requestor = await _requestor(tx, Owner(card.merchant_id, card.mode))
    limits = (controls.amount_each_max, controls.amount_max, controls.uses_max)
    for _ in range(_DRAWS_MAX):
        token = await store.INSERT_TOKEN.first(
            tx,
            *(token_id, card.id, card.merchant_id, card.mode, _draw()),
            *(requestor, kind, TokenState.REQUESTED, ANY_ASSURANCE),
            *(controls.channels, controls.pay_modes, controls.currency, *limits),
            *(expires_at, tx.now),
        )
        if token is not None:
            await _told(tx, token, card, "requested")
            return token
    raise TokensTaken


async def move_token(
    tx: Tx, owner: Owner, token_id: UUID, what: str, *, assurance: str | None = None
) -> tuple[Token, Card]:
    """Activate, suspend, resume or delete a token; where it stands so already, nothing changes.

    ``assurance`` says how whoever holds the card was identified and verified, as two digits.

    Raises:
        TokenNotFound, TokenStandsOtherwise
    """
    token = await locked_token(tx, owner, token_id)
    card = await store.GET_CARD.one(tx, token.card_id, owner.merchant_id, owner.mode)
    before, after = MOVES[what]
    if token.state is after:
        return token, card
    if token.state not in before:
        raise TokenStandsOtherwise(status=token.state.value)
    moved = await store.MOVE_TOKEN.one(tx, token.id, after, assurance, None, tx.now)
    if after.is_final:
        await store.END_KEYS.run(tx, token.id, _EVERY)
    await _told(tx, moved, card, what)
    return moved, card


async def replace_token(
    tx: Tx, owner: Owner, token_id: UUID, *, new_token_id: UUID
) -> tuple[Token, Card]:
    """Give a token another number, and end the old one; the limits and what is used of them stay.

    Raises:
        TokenNotFound, TokenStandsOtherwise, TokensTaken
    """
    old = await locked_token(tx, owner, token_id)
    if old.state not in MOVES["replace"][0]:
        raise TokenStandsOtherwise(status=old.state.value)
    card = await store.GET_CARD.one(tx, old.card_id, owner.merchant_id, owner.mode)
    left = TokenControls(
        old.channels,
        old.pay_modes,
        old.currency,
        old.amount_each_max,
        old.amount_max,
        old.uses_max,
    )
    made = await request_token(
        tx, card, left, token_id=new_token_id, kind=old.kind, expires_at=old.expires_at
    )
    await store.TAKE_OVER.run(tx, made.id, old.uses, old.amount_used)
    gone = await store.MOVE_TOKEN.one(tx, old.id, TokenState.REPLACED, None, made.id, tx.now)
    await store.END_KEYS.run(tx, old.id, _EVERY)
    await _told(tx, gone, card, "replaced")
    state, assurance = old.state, old.assurance
    made = await store.MOVE_TOKEN.one(tx, made.id, state, assurance, None, tx.now)
    await _told(tx, made, card, "replaces")
    return made, card


async def delete_tokens_of(tx: Tx, card: Card) -> None:
    """End every token of a card that is gone."""
    for token in await store.LOCK_OF_CARD.all(tx, card.id):
        gone = await store.MOVE_TOKEN.one(tx, token.id, TokenState.DELETED, None, None, tx.now)
        await store.END_KEYS.run(tx, token.id, _EVERY)
        await _told(tx, gone, card, "delete")


async def locked_token(tx: Tx, owner: Owner, token_id: UUID) -> Token:
    """Return one of the owner's tokens, and hold its row.

    Raises:
        TokenNotFound
    """
    found = await store.LOCK_TOKEN.first(tx, token_id, owner.merchant_id, owner.mode)
    if found is None:
        raise TokenNotFound
    return found


async def token_of(on: Db | Tx, owner: Owner, token_id: UUID) -> tuple[Token, Card]:
    """Return one of the owner's tokens with its card.

    Raises:
        TokenNotFound
    """
    found = await store.GET_TOKEN.first(on, token_id, owner.merchant_id, owner.mode)
    if found is None:
        raise TokenNotFound
    return found, await store.GET_CARD.one(on, found.card_id, owner.merchant_id, owner.mode)


async def tokens_of(
    on: Db | Tx,
    owner: Owner,
    *,
    card_id: UUID | None,
    cursor: str | None,
    limit: int | None,
) -> Page[tuple[Token, Card]]:
    """Return the owner's tokens, newest first, those of one card where it is named.

    Raises:
        CursorInvalid, PageSizeInvalid
    """
    size = page_size(limit)
    _, before = decode_moment(cursor)
    whose = (owner.merchant_id, owner.mode)
    found = await store.LIST_TOKENS.all(on, *whose, card_id, before, size + 1)
    cards = {
        each: await store.GET_CARD.one(on, each, *whose) for each in {t.card_id for t in found}
    }
    last = found[size - 1] if len(found) > size else None
    return Page(
        [(each, cards[each.card_id]) for each in found[:size]],
        encode_moment(last.created_at, last.id) if last else None,
    )


_EVERY: Final = 2**31 - 1


async def _requestor(tx: Tx, owner: Owner) -> str:
    """Return the merchant's number as a token requestor, which its first token makes."""
    whose = (owner.merchant_id, owner.mode)
    for _ in range(_DRAWS_MAX):
        found = await store.GET_REQUESTOR.first(tx, *whose)
        if found is not None:
            return found
        number = f"{REQUESTOR_CODE}{secrets.randbelow(10**8):08d}"
        await store.INSERT_REQUESTOR.run(tx, number, *whose, tx.now)
    raise TokensTaken


def _draw() -> str:
    """Return a number of our range, by chance, with its check digit."""
    free = NUMBER_DIGITS - len(RANGE) - 1
    digits = f"{RANGE}{secrets.randbelow(10**free):0{free}d}"
    return digits + check_digit(digits)


async def _told(tx: Tx, token: Token, card: Card, what: str) -> None:
    shown = show(TOKEN, token.id)
    await audit.record(tx, f"card_token.{what}", shown, {"status": token.state.value})
    await publish(
        tx,
        TokenMoved(
            merchant_id=token.merchant_id,
            mode=token.mode,
            resource_id=shown,
            object=view_token(token, card),
        ),
    )

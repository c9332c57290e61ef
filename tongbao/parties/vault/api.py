"""The routes of cards and their tokens, which only a licensed firm has.

A card's number goes in and never comes out. The routes that take one have no idempotency key: a
plain hash of their body would be a hash of the number; saving a card twice is saving it once.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Final, Literal
from uuid import UUID

from litestar import Response, get, post
from litestar.handlers import HTTPRouteHandler
from msgspec import UNSET, Meta, Struct, UnsetType
from msgspec.structs import replace

from tongbao.infra.db import Db
from tongbao.infra.kms.model import Owner
from tongbao.infra.kms.sealing_keys import SealingKeys
from tongbao.infra.web.caller import Caller, needs
from tongbao.infra.web.idempotency import Idempotency, answer_once
from tongbao.infra.web.request import ApiRequest
from tongbao.kernel.ids import new_id, parse, show
from tongbao.kernel.licence import Licence
from tongbao.kernel.pages import Page
from tongbao.parties.vault.cards import (
    card_of,
    cards_of,
    delete_card,
    locked_card,
    reissue_card,
    save_card,
)
from tongbao.parties.vault.model import (
    CARD,
    TOKEN,
    CardExpired,
    CardKnown,
    CardNotFound,
    CardNumberWrong,
    CardView,
    KeysNotForToken,
    Kind,
    Number,
    TokenControls,
    TokenLifeWrong,
    TokenNotFound,
    TokenStandsOtherwise,
    TokenView,
    UseKey,
    view_card,
    view_token,
)
from tongbao.parties.vault.tokens import (
    TokensTaken,
    move_token,
    replace_token,
    request_token,
    token_of,
    tokens_of,
)
from tongbao.parties.vault.use_keys import (
    REFILL_DEFAULT,
    USES_DEFAULT,
    give_use_key,
    use_key_of,
)

_READ: Final = "vault:read"
_WRITE: Final = "vault:write"


class SaveCard(Struct, frozen=True, forbid_unknown_fields=True):
    """Keep a card. There is no field for a security code: it is not kept, and not taken."""

    number: Annotated[str, Meta(pattern=r"^[0-9]{13,19}(?!\n)$")]
    expiry: Annotated[str, Meta(pattern=r"^[0-9]{2}(0[1-9]|1[0-2])(?!\n)$", description="YYMM")]

    def __repr__(self) -> str:
        return "SaveCard(…)"


_CARD: Final = SaveCard("4929420573595709", "4912")
"""A number of a range that is given out for examples."""


class RequestToken(Struct, frozen=True, forbid_unknown_fields=True):
    """Ask for a token that stands for a card, within limits."""

    expires_at: datetime
    kind: Kind = "card_on_file"
    controls: TokenControls = TokenControls()


class ActivateToken(Struct, frozen=True, forbid_unknown_fields=True):
    """Let a token pay; ``assurance_method`` says how its card's holder was verified (EMV)."""

    assurance_method: Annotated[str, Meta(pattern=r"^[0-9]{2}(?!\n)$")] = "00"


class GiveUseKey(Struct, frozen=True, forbid_unknown_fields=True):
    """Give a device its next key, good for so many uses."""

    uses_max: Annotated[int, Meta(ge=1, le=1000)] = USES_DEFAULT
    refill_at: Annotated[int, Meta(ge=0, le=1000)] = REFILL_DEFAULT


class UseKeyView(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A limited-use key. ``secret`` is hex, and shown once.

    A cryptogram is the first 16 bytes, in hex, of HMAC-SHA-256 under the secret over the text
    ``tongbao cryptogram 1`` with a zero byte, and then the token's number, the counter, the amount
    and the currency, each as text after its length in four bytes, the highest first.
    """

    object: Literal["card_token_key"]
    token_id: str
    number: int
    algorithm: Literal["HMAC-SHA-256"]
    uses_max: int
    uses: int
    refill_at: int
    expires_at: datetime
    secret: str | UnsetType = UNSET


@post(
    "/v1/vault/cards",
    opt=needs(_WRITE, refuses=[CardNumberWrong, CardExpired], request_example=_CARD),
)
async def save(data: SaveCard, db: Db, sealing_keys: SealingKeys, caller: Caller) -> CardView:
    """Keep a card's number and get its id. The same number again is the same card."""
    async with db.begin(caller.actor) as tx:
        card = await save_card(tx, sealing_keys, _owner(caller), Number(data.number, data.expiry))
    return view_card(card)


@get("/v1/vault/cards", opt=needs(_READ))
async def list_cards(
    db: Db, caller: Caller, *, cursor: str | None = None, limit: int | None = None
) -> Page[CardView]:
    """Return the cards, newest first, those deleted too."""
    page = await cards_of(db, _owner(caller), cursor=cursor, limit=limit)
    return Page([view_card(each) for each in page.items], page.next_cursor)


@get("/v1/vault/cards/{card_id:str}", opt=needs(_READ, refuses=[CardNotFound]))
async def get_card(card_id: str, db: Db, caller: Caller) -> CardView:
    """Return a card: never more than its first six and last four digits."""
    return view_card(await card_of(db, _owner(caller), parse(CARD, card_id)))


@post(
    "/v1/vault/cards/{card_id:str}/reissue",
    status_code=200,
    opt=needs(
        _WRITE,
        refuses=[CardNotFound, CardNumberWrong, CardExpired, CardKnown],
        request_example=_CARD,
    ),
)
async def reissue(
    card_id: str, data: SaveCard, db: Db, sealing_keys: SealingKeys, caller: Caller
) -> CardView:
    """Take the number of the card that came in place of this one; its tokens go on."""
    async with db.begin(caller.actor) as tx:
        number, found = Number(data.number, data.expiry), parse(CARD, card_id)
        return view_card(await reissue_card(tx, sealing_keys, _owner(caller), found, number))


@post(
    "/v1/vault/cards/{card_id:str}/delete",
    status_code=200,
    opt=needs(_WRITE, refuses=[CardNotFound]),
)
async def delete(card_id: str, db: Db, caller: Caller) -> CardView:
    """Forget a card's number and end its tokens. Safe to repeat."""
    async with db.begin(caller.actor) as tx:
        return view_card(await delete_card(tx, _owner(caller), parse(CARD, card_id)))


@post(
    "/v1/vault/cards/{card_id:str}/tokens",
    opt=needs(
        _WRITE,
        idempotent=True,
        refuses=[CardNotFound, TokenLifeWrong, TokensTaken],
        request_example=RequestToken(datetime(2030, 1, 1, tzinfo=UTC)),
    ),
)
async def ask_for_token(
    card_id: str, data: RequestToken, request: ApiRequest, db: Db, caller: Caller
) -> Response[TokenView]:
    """Ask for a token that stands for the card. It pays once it is activated."""
    owner, found = _owner(caller), parse(CARD, card_id)
    await card_of(db, owner, found)

    async def fresh(use: Idempotency) -> TokenView:
        token_id = new_id()
        async with db.begin(caller.actor) as tx:
            await use.take(tx, token_id)
            card = await locked_card(tx, owner, found)
            terms = (data.kind, data.expires_at)
            token = await request_token(
                tx, card, data.controls, token_id=token_id, kind=terms[0], expires_at=terms[1]
            )
        return view_token(token, card)

    async def resume(token_id: UUID) -> TokenView:
        return view_token(*await token_of(db, owner, token_id))

    return await answer_once(request, db, fresh=fresh, resume=resume)


@get("/v1/card_tokens", opt=needs(_READ, refuses=[CardNotFound]))
async def list_tokens(
    db: Db,
    caller: Caller,
    *,
    card_id: str | None = None,
    cursor: str | None = None,
    limit: int | None = None,
) -> Page[TokenView]:
    """Return the tokens, newest first, those of one card where it is named."""
    owner, of_card = _owner(caller), None
    if card_id is not None:
        of_card = (await card_of(db, owner, parse(CARD, card_id))).id
    page = await tokens_of(db, owner, card_id=of_card, cursor=cursor, limit=limit)
    return Page([view_token(*each) for each in page.items], page.next_cursor)


@get("/v1/card_tokens/{token_id:str}", opt=needs(_READ, refuses=[TokenNotFound]))
async def get_token(token_id: str, db: Db, caller: Caller) -> TokenView:
    """Return a token, and how much of its limits is used."""
    return view_token(*await token_of(db, _owner(caller), parse(TOKEN, token_id)))


_MOVE: Final = needs(_WRITE, refuses=[TokenNotFound, TokenStandsOtherwise])


@post(
    "/v1/card_tokens/{token_id:str}/activate",
    status_code=200,
    opt=needs(
        _WRITE,
        refuses=[TokenNotFound, TokenStandsOtherwise],
        request_example=ActivateToken("13"),
    ),
)
async def activate(token_id: str, data: ActivateToken, db: Db, caller: Caller) -> TokenView:
    """Let a token pay, and say how the card's holder was verified. Safe to repeat."""
    async with db.begin(caller.actor) as tx:
        found, how = parse(TOKEN, token_id), data.assurance_method
        return view_token(*await move_token(tx, _owner(caller), found, "activate", assurance=how))


@post("/v1/card_tokens/{token_id:str}/suspend", status_code=200, opt=_MOVE)
async def suspend(token_id: str, db: Db, caller: Caller) -> TokenView:
    """Let a token pay nothing for now, as when a device is lost. Safe to repeat."""
    async with db.begin(caller.actor) as tx:
        return view_token(*await move_token(tx, _owner(caller), parse(TOKEN, token_id), "suspend"))


@post("/v1/card_tokens/{token_id:str}/resume", status_code=200, opt=_MOVE)
async def resume_token(token_id: str, db: Db, caller: Caller) -> TokenView:
    """Let a suspended token pay again. Safe to repeat."""
    async with db.begin(caller.actor) as tx:
        return view_token(*await move_token(tx, _owner(caller), parse(TOKEN, token_id), "resume"))


@post("/v1/card_tokens/{token_id:str}/delete", status_code=200, opt=_MOVE)
async def delete_token(token_id: str, db: Db, caller: Caller) -> TokenView:
    """End a token for good. Safe to repeat."""
    async with db.begin(caller.actor) as tx:
        return view_token(*await move_token(tx, _owner(caller), parse(TOKEN, token_id), "delete"))


@post(
    "/v1/card_tokens/{token_id:str}/replace",
    opt=needs(_WRITE, idempotent=True, refuses=[TokenNotFound, TokenStandsOtherwise, TokensTaken]),
)
async def replace_by_another(
    token_id: str, request: ApiRequest, db: Db, caller: Caller
) -> Response[TokenView]:
    """Give a token another number, and end this one: its limits, and what is used of them, stay."""
    owner, old = _owner(caller), parse(TOKEN, token_id)
    await token_of(db, owner, old)

    async def fresh(use: Idempotency) -> TokenView:
        made = new_id()
        async with db.begin(caller.actor) as tx:
            await use.take(tx, made)
            return view_token(*await replace_token(tx, owner, old, new_token_id=made))

    async def resume(made: UUID) -> TokenView:
        return view_token(*await token_of(db, owner, made))

    return await answer_once(request, db, fresh=fresh, resume=resume)


@post(
    "/v1/card_tokens/{token_id:str}/keys",
    opt=needs(
        _WRITE,
        idempotent=True,
        refuses=[TokenNotFound, KeysNotForToken],
        request_example=GiveUseKey(),
    ),
)
async def give_key(
    token_id: str,
    data: GiveUseKey,
    request: ApiRequest,
    *,
    db: Db,
    sealing_keys: SealingKeys,
    caller: Caller,
) -> Response[UseKeyView]:
    """Give the token's device its next limited-use key. Its secret is shown in this answer only.

    The key before goes on until it is used up, the one before that ends.
    """
    owner, found = _owner(caller), parse(TOKEN, token_id)
    await token_of(db, owner, found)
    terms = {"uses_max": data.uses_max, "refill_at": data.refill_at}

    async def fresh(use: Idempotency) -> UseKeyView:
        async with db.begin(caller.actor) as tx:
            given = await give_use_key(tx, sealing_keys, owner, found, **terms)
            await use.take(tx, given.key.id)
        return replace(_view_key(given.key), secret=given.secret.reveal())

    async def resume(key_id: UUID) -> UseKeyView:
        return _view_key(await use_key_of(db, owner, key_id))

    return await answer_once(request, db, fresh=fresh, resume=resume, stored=_without_secret)


ROUTES: Final[list[HTTPRouteHandler]] = [
    save,
    list_cards,
    get_card,
    reissue,
    delete,
    ask_for_token,
    list_tokens,
    get_token,
    activate,
    suspend,
    resume_token,
    delete_token,
    replace_by_another,
    give_key,
]


def routes(licence: Licence) -> list[HTTPRouteHandler]:
    """Return the routes a deployment has.

    A firm without a licence collects and keeps no card numbers: 银发〔2017〕45号.
    """
    return ROUTES if licence.may_hold_funds else []


def _owner(caller: Caller) -> Owner:
    return Owner(caller.merchant_id, caller.mode)


def _view_key(key: UseKey) -> UseKeyView:
    return UseKeyView(
        object="card_token_key",
        token_id=show(TOKEN, key.token_id),
        number=key.number,
        algorithm="HMAC-SHA-256",
        uses_max=key.uses_max,
        uses=key.uses,
        refill_at=key.refill_at,
        expires_at=key.expires_at,
    )


def _without_secret(view: UseKeyView) -> UseKeyView:
    return replace(view, secret=UNSET)

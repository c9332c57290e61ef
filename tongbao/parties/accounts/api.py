"""The routes of wallets, which only a licensed firm has."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from litestar import Response, get, post
from litestar.handlers import HTTPRouteHandler
from msgspec import Meta, Struct

from tongbao.infra.crypto import Keyring
from tongbao.infra.db import Db
from tongbao.infra.web.caller import Caller, needs
from tongbao.infra.web.idempotency import Idempotency, answer_once
from tongbao.infra.web.interface_numbers import Area
from tongbao.infra.web.request import AmountField, ApiRequest, CurrencyField
from tongbao.kernel.ids import new_id, parse, show
from tongbao.kernel.licence import Licence, Mode
from tongbao.kernel.money import AmountOutOfRange, UnknownCurrency, positive
from tongbao.kernel.pages import Page
from tongbao.ledger.book import Ledger
from tongbao.parties.accounts import queries
from tongbao.parties.accounts.model import (
    HolderNameInvalid,
    TopUpRefused,
    Wallet,
    WalletBarred,
    WalletCurrencyDiffers,
    WalletFrozen,
    WalletNotFound,
    WalletState,
)
from tongbao.parties.accounts.payment_codes import show_code
from tongbao.parties.accounts.wallets import TopUpView, open_wallet, set_frozen, top_up


class OpenWallet(Struct, frozen=True, forbid_unknown_fields=True):
    """Open a wallet for a person; of the name only the last character is kept."""

    holder_name: Annotated[str, Meta(min_length=1, max_length=64)]
    currency: CurrencyField = "CNY"


class TopUp(Struct, frozen=True, forbid_unknown_fields=True):
    """Put this much, in minor units, into the wallet."""

    amount: AmountField
    currency: CurrencyField = "CNY"


class WalletView(Struct, frozen=True, kw_only=True):
    """A wallet as the merchant that opened it sees it."""

    id: str
    object: Literal["wallet"]
    mode: Mode
    holder_name: str  # masked
    currency: str
    status: WalletState
    balance: int
    available: int  # balance less what is held
    daily_limit: int
    created_at: datetime


class PaymentCodeView(Struct, frozen=True, kw_only=True):
    """A payment code, for the customer's screen; it is not shown again."""

    object: Literal["payment_code"]
    wallet_id: str
    code: str
    expires_at: datetime


@post(
    "/v1/wallets",
    opt=needs(
        "wallets:write",
        interface=Area.WALLETS.a2(1),
        idempotent=True,
        refuses=[HolderNameInvalid, UnknownCurrency],
        request_example=OpenWallet("张三"),
    ),
)
async def create_wallet(
    data: OpenWallet, request: ApiRequest, db: Db, caller: Caller
) -> Response[WalletView]:
    """Open a wallet of the platform's own."""

    async def fresh(use: Idempotency) -> WalletView:
        wallet_id = new_id()
        async with db.begin(caller.actor) as tx:
            await use.take(tx, wallet_id)
            wallet = await open_wallet(
                tx,
                caller,
                holder_name=data.holder_name,
                currency=data.currency,
                wallet_id=wallet_id,
            )
        return await _view(db, wallet)

    async def resume(wallet_id: UUID) -> WalletView:
        return await _view(db, await queries.wallet_of_caller(db, caller, wallet_id))

    return await answer_once(request, db, fresh=fresh, resume=resume)


@get("/v1/wallets", opt=needs("wallets:read", interface=Area.WALLETS.a2(2)))
async def list_wallets(
    db: Db, caller: Caller, *, cursor: str | None = None, limit: int | None = None
) -> Page[WalletView]:
    """Return the merchant's wallets, newest first."""
    page = await queries.wallets_of_caller(db, caller, cursor=cursor, limit=limit)
    return Page([await _view(db, wallet) for wallet in page.items], page.next_cursor)


@get(
    "/v1/wallets/{wallet_id:str}",
    opt=needs("wallets:read", interface=Area.WALLETS.a2(3), refuses=[WalletNotFound]),
)
async def get_wallet(wallet_id: str, db: Db, caller: Caller) -> WalletView:
    """Return one wallet with its balance."""
    return await _view(db, await _wallet(db, caller, wallet_id))


@post(
    "/v1/wallets/{wallet_id:str}/payment_codes",
    opt=needs(
        "wallets:write",
        interface=Area.WALLETS.a2(4),
        refuses=[WalletNotFound, WalletFrozen, WalletBarred],
    ),
)
async def create_payment_code(
    wallet_id: str, db: Db, keyring: Keyring, caller: Caller
) -> PaymentCodeView:
    """Make a one-time code the customer can pay with for 60 seconds.

    Each call makes another; a code that nobody scans just expires.
    """
    wallet = await _wallet(db, caller, wallet_id)
    async with db.begin(caller.actor) as tx:
        shown = await show_code(tx, keyring, wallet)
    return PaymentCodeView(
        object="payment_code",
        wallet_id=show("wal", wallet.id),
        code=shown.code,
        expires_at=shown.expires_at,
    )


@post(
    "/v1/wallets/{wallet_id:str}/freeze",
    status_code=200,
    opt=needs("wallets:write", interface=Area.WALLETS.a2(5), refuses=[WalletNotFound]),
)
async def freeze_wallet(wallet_id: str, db: Db, caller: Caller) -> WalletView:
    """Stop spending from the wallet; money may still come back to it. Safe to repeat."""
    return await _set_frozen(db, caller, wallet_id, frozen=True)


@post(
    "/v1/wallets/{wallet_id:str}/unfreeze",
    status_code=200,
    opt=needs("wallets:write", interface=Area.WALLETS.a2(6), refuses=[WalletNotFound]),
)
async def unfreeze_wallet(wallet_id: str, db: Db, caller: Caller) -> WalletView:
    """Let the wallet spend again. Safe to repeat."""
    return await _set_frozen(db, caller, wallet_id, frozen=False)


@post(
    "/v1/test_helpers/wallets/{wallet_id:str}/top_up",
    opt=needs(
        "test_helpers:write",
        idempotent=True,
        sandbox_only=True,
        refuses=[
            WalletNotFound,
            WalletCurrencyDiffers,
            TopUpRefused,
            AmountOutOfRange,
            UnknownCurrency,
        ],
        request_example=TopUp(10_000),
    ),
)
async def top_up_wallet(
    wallet_id: str, data: TopUp, request: ApiRequest, *, db: Db, ledger: Ledger, caller: Caller
) -> Response[TopUpView]:
    """Put sandbox money into a wallet, as if the customer had paid it in at a bank."""
    money = positive(data.amount, data.currency)

    async def fresh(use: Idempotency) -> TopUpView:
        wallet = await _wallet(db, caller, wallet_id)
        return await top_up(db, ledger, wallet, money, use)

    async def resume(top_up_id: UUID) -> TopUpView:
        wallet = await _wallet(db, caller, wallet_id)
        return await queries.top_up_with_id(db, wallet, top_up_id)

    return await answer_once(request, db, fresh=fresh, resume=resume)


ROUTES: list[HTTPRouteHandler] = [
    create_wallet,
    list_wallets,
    get_wallet,
    create_payment_code,
    freeze_wallet,
    unfreeze_wallet,
    top_up_wallet,
]


def routes(licence: Licence) -> list[HTTPRouteHandler]:
    """Return the routes a deployment has: none where funds may not be held."""
    return ROUTES if licence.may_hold_funds else []


async def _wallet(db: Db, caller: Caller, wallet_id: str) -> Wallet:
    return await queries.wallet_of_caller(db, caller, parse("wal", wallet_id))


async def _set_frozen(db: Db, caller: Caller, wallet_id: str, *, frozen: bool) -> WalletView:
    wallet = await _wallet(db, caller, wallet_id)
    async with db.begin(caller.actor) as tx:
        wallet = await set_frozen(tx, wallet, frozen=frozen)
    return await _view(db, wallet)


async def _view(db: Db, wallet: Wallet) -> WalletView:
    balance = await queries.wallet_balance(db, wallet)
    return WalletView(
        id=show("wal", wallet.id),
        object="wallet",
        mode=wallet.mode,
        holder_name=wallet.holder_masked,
        currency=wallet.currency,
        status=wallet.state,
        balance=balance.posted,
        available=balance.available,
        daily_limit=wallet.daily_limit,
        created_at=wallet.opened_at,
    )

"""The routes with which a wallet's owner pays what merchants show."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from litestar import Response, post
from litestar.handlers import HTTPRouteHandler
from msgspec import Meta, Struct

from tongbao.infra.web.caller import Caller, needs
from tongbao.infra.web.idempotency import Idempotency, answer_once
from tongbao.infra.web.request import ApiRequest
from tongbao.kernel.ids import parse
from tongbao.kernel.licence import Licence
from tongbao.parties.accounts import queries as wallets
from tongbao.parties.accounts.model import (
    DailyLimitExceeded,
    Wallet,
    WalletCurrencyDiffers,
    WalletFrozen,
    WalletNotFound,
)
from tongbao.parties.merchants import queries as merchants
from tongbao.payments.collecting.outcomes import Flow, StateContended
from tongbao.payments.own_wallet.confirming import confirm, scanned_by
from tongbao.payments.own_wallet.model import (
    Scanned,
    WalletBalanceTooLow,
    WalletDeclined,
    WalletQrEnded,
    WalletQrPaid,
    WalletQrUnknown,
    WalletQrView,
    view_qr,
)


class ScanQr(Struct, frozen=True, forbid_unknown_fields=True):
    """What the wallet's app has scanned, as it is."""

    code: Annotated[str, Meta(min_length=1, max_length=256)]


_EXAMPLE = ScanQr("tongbao:pay/06b2c4rks8ttz2wq0d1xv5y7ne")


@post(
    "/v1/wallets/{wallet_id:str}/scans",
    status_code=200,
    opt=needs("wallets:read", refuses=[WalletNotFound, WalletQrUnknown], request_example=_EXAMPLE),
)
async def scan(wallet_id: str, data: ScanQr, flow: Flow, caller: Caller) -> WalletQrView:
    """Return what a scanned code asks for: how much, who is paid, and whether it still can be.

    Nothing changes by it; show it to the wallet's owner before they confirm.
    """
    wallet = await _wallet(flow, caller, wallet_id)
    return await _view(flow, wallet, await scanned_by(flow, wallet, data.code))


@post(
    "/v1/wallets/{wallet_id:str}/payments",
    opt=needs(
        "wallets:write",
        idempotent=True,
        refuses=[
            WalletNotFound,
            WalletQrUnknown,
            WalletQrPaid,
            WalletQrEnded,
            WalletFrozen,
            WalletCurrencyDiffers,
            DailyLimitExceeded,
            WalletBalanceTooLow,
            WalletDeclined,
            StateContended,
        ],
        request_example=_EXAMPLE,
    ),
)
async def pay_scanned(
    wallet_id: str, data: ScanQr, request: ApiRequest, flow: Flow, caller: Caller
) -> Response[WalletQrView]:
    """Pay a scanned code from the wallet, once its owner has confirmed.

    The money has moved when this answers. A refusal changes nothing: the code stays payable.
    """
    wallet = await _wallet(flow, caller, wallet_id)

    async def fresh(use: Idempotency) -> WalletQrView:
        return await _view(flow, wallet, await confirm(flow, wallet, data.code, use.write))

    async def resume(_payment_id: UUID) -> WalletQrView:
        return await _view(flow, wallet, await scanned_by(flow, wallet, data.code))

    return await answer_once(request, flow.db, fresh=fresh, resume=resume)


def routes(licence: Licence) -> list[HTTPRouteHandler]:
    """Return the routes a deployment has: none where funds may not be held."""
    return [scan, pay_scanned] if licence.may_hold_funds else []


async def _wallet(flow: Flow, caller: Caller, wallet_id: str) -> Wallet:
    return await wallets.wallet_of_caller(flow.db, caller, parse("wal", wallet_id))


async def _view(flow: Flow, wallet: Wallet, scanned: Scanned) -> WalletQrView:
    payee = await merchants.merchant_with_id(flow.db, scanned.payment.merchant_id)
    return view_qr(scanned, payee.name, str(wallet.id), flow.db.clock.now())

"""The routes with which a wallet's owner pays and signs what merchants show."""

from __future__ import annotations

from typing import Annotated, Final
from uuid import UUID

from litestar import Response, post
from litestar.handlers import HTTPRouteHandler
from msgspec import Meta, Struct

from tongbao.infra.db import Db
from tongbao.infra.web.caller import Caller, needs
from tongbao.infra.web.idempotency import Idempotency, answer_once
from tongbao.infra.web.interface_numbers import Area
from tongbao.infra.web.request import ApiRequest
from tongbao.kernel.ids import parse
from tongbao.kernel.licence import Licence
from tongbao.parties.accounts import queries as wallets
from tongbao.parties.accounts.model import (
    DailyLimitExceeded,
    Wallet,
    WalletBarred,
    WalletCurrencyDiffers,
    WalletFrozen,
    WalletNotFound,
)
from tongbao.parties.merchants import queries as merchants
from tongbao.payments.agreements.agreements import AgreementNotFound, Reach, end_agreement
from tongbao.payments.agreements.model import Agreement, AgreementNotActive
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
from tongbao.payments.own_wallet.signing import (
    WalletAgreementTaken,
    WalletAgreementUnknown,
    WalletAgreementView,
    agreement_scanned_by,
    sign,
    signed_by_own,
    view_of_wallet,
)


class ScanQr(Struct, frozen=True, forbid_unknown_fields=True):
    """What the wallet's app has scanned, as it is."""

    code: Annotated[str, Meta(min_length=1, max_length=256)]


_EXAMPLE = ScanQr("tongbao:pay/06b2c4rks8ttz2wq0d1xv5y7ne")
_EXAMPLE_TO_SIGN = ScanQr("tongbao:sign/06b2c4rks8ttz2wq0d1xv5y7ne")


@post(
    "/v1/wallets/{wallet_id:str}/scans",
    status_code=200,
    opt=needs(
        "wallets:read",
        interface=Area.WALLETS.a2(11),
        refuses=[WalletNotFound, WalletQrUnknown],
        request_example=_EXAMPLE,
    ),
)
async def scan(wallet_id: str, data: ScanQr, flow: Flow, caller: Caller) -> WalletQrView:
    """Return what a scanned code asks for: how much, who is paid, and whether it still can be.

    Nothing changes by it; show it to the wallet's owner before they confirm.
    """
    wallet = await _wallet(flow.db, caller, wallet_id)
    return await _view(flow, wallet, await scanned_by(flow, wallet, data.code))


@post(
    "/v1/wallets/{wallet_id:str}/payments",
    opt=needs(
        "wallets:write",
        interface=Area.WALLETS.a2(12),
        idempotent=True,
        refuses=[
            WalletNotFound,
            WalletQrUnknown,
            WalletQrPaid,
            WalletQrEnded,
            WalletBarred,
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
    wallet = await _wallet(flow.db, caller, wallet_id)

    async def fresh(use: Idempotency) -> WalletQrView:
        return await _view(flow, wallet, await confirm(flow, wallet, data.code, use.write))

    async def resume(_payment_id: UUID) -> WalletQrView:
        return await _view(flow, wallet, await scanned_by(flow, wallet, data.code))

    return await answer_once(request, flow.db, fresh=fresh, resume=resume)


@post(
    "/v1/wallets/{wallet_id:str}/agreement_scans",
    status_code=200,
    opt=needs(
        "wallets:read",
        interface=Area.WALLETS.a2(13),
        refuses=[WalletNotFound, WalletAgreementUnknown],
        request_example=_EXAMPLE_TO_SIGN,
    ),
)
async def scan_agreement(
    wallet_id: str, data: ScanQr, reach: Reach, caller: Caller
) -> WalletAgreementView:
    """Return what a scanned agreement would allow: who may take how much, how often.

    Nothing changes by it; show it to the wallet's owner before they sign.
    """
    wallet = await _wallet(reach.db, caller, wallet_id)
    found = await agreement_scanned_by(reach, wallet, data.code)
    return await _view_agreement(reach, wallet, found)


@post(
    "/v1/wallets/{wallet_id:str}/agreements",
    opt=needs(
        "wallets:write",
        interface=Area.WALLETS.a2(14),
        idempotent=True,
        refuses=[
            WalletNotFound,
            WalletAgreementUnknown,
            WalletAgreementTaken,
            WalletBarred,
            WalletFrozen,
            WalletCurrencyDiffers,
        ],
        request_example=_EXAMPLE_TO_SIGN,
    ),
)
async def sign_agreement(
    wallet_id: str, data: ScanQr, request: ApiRequest, reach: Reach, caller: Caller
) -> Response[WalletAgreementView]:
    """Sign a scanned agreement for the wallet, once its owner has confirmed.

    From then on its merchant takes money without asking, within the limits, until one of them
    ends it.
    """
    wallet = await _wallet(reach.db, caller, wallet_id)

    async def fresh(use: Idempotency) -> WalletAgreementView:
        signed = await sign(reach, wallet, data.code, use.write)
        return await _view_agreement(reach, wallet, signed)

    async def resume(_agreement_id: UUID) -> WalletAgreementView:
        found = await agreement_scanned_by(reach, wallet, data.code)
        return await _view_agreement(reach, wallet, found)

    return await answer_once(request, reach.db, fresh=fresh, resume=resume)


@post(
    "/v1/wallet_agreements/{agreement_id:str}/end",
    status_code=200,
    opt=needs(
        "wallets:write",
        interface=Area.WALLETS.a2(15),
        idempotent=True,
        refuses=[AgreementNotFound, AgreementNotActive],
    ),
)
async def end_wallet_agreement(
    agreement_id: str, request: ApiRequest, reach: Reach, caller: Caller
) -> Response[WalletAgreementView]:
    """End an agreement that a wallet has signed, for its owner: nothing is taken any more."""
    target = parse("agr", agreement_id)

    async def fresh(use: Idempotency) -> WalletAgreementView:
        signed, wallet = await signed_by_own(reach, caller, target)
        ended = await end_agreement(reach, signed, use.write)
        return await _view_agreement(reach, wallet, ended)

    async def resume(found: UUID) -> WalletAgreementView:
        ended, wallet = await signed_by_own(reach, caller, found)
        return await _view_agreement(reach, wallet, ended)

    return await answer_once(request, reach.db, fresh=fresh, resume=resume)


_ROUTES: Final = [scan, pay_scanned, scan_agreement, sign_agreement, end_wallet_agreement]


def routes(licence: Licence) -> list[HTTPRouteHandler]:
    """Return the routes a deployment has: none where funds may not be held."""
    return [*_ROUTES] if licence.may_hold_funds else []


async def _wallet(db: Db, caller: Caller, wallet_id: str) -> Wallet:
    return await wallets.wallet_of_caller(db, caller, parse("wal", wallet_id))


async def _view_agreement(
    reach: Reach, wallet: Wallet, agreement: Agreement
) -> WalletAgreementView:
    payee = await merchants.merchant_with_id(reach.db, agreement.merchant_id)
    return view_of_wallet(agreement, payee.name, wallet)


async def _view(flow: Flow, wallet: Wallet, scanned: Scanned) -> WalletQrView:
    payee = await merchants.merchant_with_id(flow.db, scanned.payment.merchant_id)
    return view_qr(scanned, payee.name, str(wallet.id), flow.db.clock.now())

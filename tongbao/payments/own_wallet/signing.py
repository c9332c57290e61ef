"""Agreements with the own wallet, from its owner's side: looked at, signed, ended.

Nobody else has to be asked, so each is a change of the agreement's row in one commit with its
event; what is taken under one is the merchant's to ask for, within what was signed.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal
from uuid import UUID

from msgspec import UNSET, Struct, UnsetType

from tongbao.infra.web.caller import Caller
from tongbao.kernel.errors import Conflict, NotFound
from tongbao.kernel.ids import UnknownId, show
from tongbao.kernel.licence import Mode
from tongbao.parties.accounts.model import (
    Wallet,
    WalletCurrencyDiffers,
    WalletFrozen,
    WalletNotFound,
    WalletState,
)
from tongbao.parties.accounts.queries import wallet_of_caller
from tongbao.payments.agreements import queries
from tongbao.payments.agreements.agreements import (
    AgreementNotFound,
    Reach,
    Taking,
    change_own,
)
from tongbao.payments.agreements.model import (
    Agreement,
    AgreementState,
    Period,
    next_agreement,
)
from tongbao.rails.channels.capabilities.agreements import AgreementSigned
from tongbao.rails.channels.codes import OWN_AGREEMENT_QR, OWN_WALLET, number_of_own_qr


class WalletAgreementUnknown(NotFound):
    """The scanned text is no agreement this wallet can sign: not ours, or of the other mode."""

    code = "wallet.agreement_unknown"
    advice = "Scan the code again, with a wallet of the mode the agreement was made in."
    advice_zh = "无法识别该签约码，请重新扫码，并确认钱包与签约码属于同一环境。"


class WalletAgreementTaken(Conflict):
    """The agreement is not open to be signed: it was signed, refused, or its offer is over."""

    code = "wallet.agreement_not_open"
    advice = "Ask the merchant for a new agreement, unless the one that was signed is yours."
    advice_zh = "该协议已签约、已失效或已过期；如非本人签约，请商户重新发起。"


class WalletAgreementView(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An agreement as a wallet's owner sees it: who may take how much."""

    id: str
    object: Literal["wallet_agreement"]
    mode: Mode
    payee: str
    display_name: str
    currency: str
    status: AgreementState
    expires_at: datetime
    signed_by_wallet: bool = False  # by the wallet that asks
    limit_each: int | UnsetType = UNSET
    period: Period | UnsetType = UNSET
    limit_per_period: int | UnsetType = UNSET
    limit_total: int | UnsetType = UNSET
    payments_max: int | UnsetType = UNSET
    signed_at: datetime | UnsetType = UNSET
    ended_at: datetime | UnsetType = UNSET


async def agreement_scanned_by(reach: Reach, wallet: Wallet, text: str) -> Agreement:
    """Return the agreement whose code a wallet has scanned.

    Raises:
        WalletAgreementUnknown
    """
    number = number_of_own_qr(text, OWN_AGREEMENT_QR)
    try:
        found = await queries.agreement_by_number(reach.db, number or "")
    except UnknownId:
        found = None
    if found is None or not _is_shown_to(wallet, found):
        raise WalletAgreementUnknown
    return found


def _is_shown_to(wallet: Wallet, agreement: Agreement) -> bool:
    place = (agreement.channel, agreement.book, agreement.mode)
    return place == (OWN_WALLET, wallet.book, wallet.mode)


async def sign(reach: Reach, wallet: Wallet, text: str, take: Taking) -> Agreement:
    """Sign what a wallet has scanned; of two wallets at once, one signs.

    Raises:
        WalletAgreementUnknown, WalletAgreementTaken, WalletFrozen, WalletCurrencyDiffers,
        InFlight, AgreementContended
    """

    def decide(agreement: Agreement, now: datetime) -> Agreement | None:
        if agreement.state is not AgreementState.PENDING or now >= agreement.expires_at:
            raise WalletAgreementTaken(status=agreement.state)
        if wallet.state is not WalletState.ACTIVE:
            raise WalletFrozen
        if wallet.currency != agreement.currency:
            raise WalletCurrencyDiffers(currency=wallet.currency)
        signed = AgreementSigned(agreement.number, str(wallet.id), now)
        return next_agreement(agreement, signed, "query", now)

    return await change_own(reach, await agreement_scanned_by(reach, wallet, text), decide, take)


async def signed_by_own(
    reach: Reach, caller: Caller, agreement_id: UUID
) -> tuple[Agreement, Wallet]:
    """Return an agreement that one of the caller's wallets has signed, and that wallet.

    Raises:
        AgreementNotFound: also for one that another's wallet has signed, or a channel's customer.
    """
    found = await queries.agreement_with_id(reach.db, agreement_id)
    if found.channel != OWN_WALLET or found.payer is None:
        raise AgreementNotFound
    try:
        wallet = await wallet_of_caller(reach.db, caller, UUID(found.payer))
    except WalletNotFound:
        raise AgreementNotFound from None
    return found, wallet


def view_of_wallet(agreement: Agreement, payee: str, wallet: Wallet) -> WalletAgreementView:
    """Return an agreement as this wallet's owner sees it."""
    return WalletAgreementView(
        id=show("agr", agreement.id),
        object="wallet_agreement",
        mode=agreement.mode,
        payee=payee,
        display_name=agreement.display_name,
        currency=agreement.currency,
        status=agreement.state,
        expires_at=agreement.expires_at,
        signed_by_wallet=agreement.payer == str(wallet.id),
        limit_each=agreement.limit_each or UNSET,
        period=agreement.period or UNSET,
        limit_per_period=agreement.limit_per_period or UNSET,
        limit_total=agreement.limit_total or UNSET,
        payments_max=agreement.payments_max or UNSET,
        signed_at=agreement.signed_at or UNSET,
        ended_at=agreement.ended_at or UNSET,
    )

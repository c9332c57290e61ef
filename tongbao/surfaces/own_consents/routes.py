"""Routes of the wallet's app: one's own consents, ending them, and making a wallet one's own."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from litestar import get, post
from msgspec import Meta, Struct

from tongbao.infra.db import Db
from tongbao.infra.serving.device_api import SELF, DeviceCaller
from tongbao.infra.web.caller import needs
from tongbao.kernel.ids import UnknownId, parse
from tongbao.kernel.pages import Page, decode_moment, encode_moment, page_size
from tongbao.parties.accounts.model import CodeUsedOrExpired, WalletBarred
from tongbao.parties.authentication.model import ConfirmationUsed, StepUpRequired
from tongbao.parties.authentication.step_up import Checks
from tongbao.parties.consents.consents import consents_of_person, revoke_own
from tongbao.parties.consents.holdings import (
    WalletClaimed,
    Wallets,
    account_of_wallet,
    claim_wallet,
)
from tongbao.parties.consents.model import PREFIX as CONSENT
from tongbao.parties.consents.model import Consent, ConsentEnded, ConsentNotFound
from tongbao.parties.merchants.queries import merchant_with_id
from tongbao.parties.partners.partners import partner_with_id
from tongbao.parties.people.sessions import current_person
from tongbao.parties.user_wallets.applications import revoke_own as leave_own
from tongbao.parties.user_wallets.model import PREFIX as WALLET
from tongbao.parties.user_wallets.model import ApplicationNotFound, State, WalletApplication
from tongbao.parties.user_wallets.queries import applications_of_person
from tongbao.surfaces.wallet.desk import PREFIX, Desk, step_up

_STEP_UP: tuple[Any, ...] = (StepUpRequired, ConfirmationUsed)


class OpenConsentView(Struct, frozen=True, kw_only=True):
    """What one let a third party see or do, and how that stands."""

    id: str
    object: Literal["open_consent"]
    partner: str
    kind: str
    permissions: list[str]
    amount: int | None  # of the one payment, or the most at once
    amount_a_day: int | None
    currency: str | None
    payee: str | None
    accounts: int
    status: str
    created_at: datetime
    expires_at: datetime | None
    ended_at: datetime | None


class OwnWalletView(Struct, frozen=True, kw_only=True):
    """A wallet that is one's own."""

    id: str
    object: Literal["own_wallet"]
    holder_name: str
    currency: str
    is_active: bool


class ClaimWallet(Struct, frozen=True, forbid_unknown_fields=True):
    """Make a wallet one's own by a payment code that it shows at this moment."""

    payment_code: Annotated[str, Meta(min_length=1, max_length=32)]


@get(f"{PREFIX}/open_consents", opt=needs(SELF))
async def list_open_consents(
    desk: Desk, caller: DeviceCaller, *, cursor: str | None = None, limit: int | None = None
) -> Page[OpenConsentView]:
    """Return what one let third parties and merchants see and do, the newest first."""
    db, person = desk.db, await current_person(desk.db, caller)
    size, (_, before) = page_size(limit), decode_moment(cursor)
    page = await consents_of_person(db, person.id, cursor=cursor, limit=limit)
    wallets = await applications_of_person(db, person.id, before, size + 1)
    found: list[Consent | WalletApplication] = [*page.items, *wallets]
    found.sort(key=lambda each: each.id, reverse=True)
    shown, last = found[:size], None
    if page.next_cursor is not None or len(found) > size:
        last = encode_moment(shown[-1].created_at, shown[-1].id)
    return Page([await _view(db, each) for each in shown], last)


@post(
    f"{PREFIX}/open_consents/{{consent_id:str}}/revoke",
    status_code=200,
    opt=needs(SELF, refuses=[ConsentNotFound, ConsentEnded]),
)
async def revoke_open_consent(consent_id: str, desk: Desk, caller: DeviceCaller) -> OpenConsentView:
    """End a consent and every token on it. Safe to repeat; it asks for no further proof."""
    person = await current_person(desk.db, caller)
    is_wallet = consent_id.startswith(f"{WALLET}_")
    try:
        wanted = parse(WALLET if is_wallet else CONSENT, consent_id)
        async with desk.db.begin(caller.actor) as tx:
            ended: Consent | WalletApplication = (
                await leave_own(tx, person, wanted)
                if is_wallet
                else await revoke_own(tx, person, wanted)
            )
    except (UnknownId, ApplicationNotFound):
        raise ConsentNotFound from None
    return await _view(desk.db, ended)


@get(f"{PREFIX}/wallets", opt=needs(SELF))
async def list_own_wallets(desk: Desk, caller: DeviceCaller) -> list[OwnWalletView]:
    """Return the wallets that are one's own."""
    person = await current_person(desk.db, caller)
    found = await Wallets(desk.db).accounts_of(person.id, person.mode)
    return [
        OwnWalletView(
            id=each.shown_id,
            object="own_wallet",
            holder_name=each.holder,
            currency=each.currency,
            is_active=each.is_active,
        )
        for each in found
    ]


@post(
    f"{PREFIX}/wallets",
    opt=needs(SELF, refuses=[CodeUsedOrExpired, WalletClaimed, WalletBarred, *_STEP_UP]),
)
async def claim_own_wallet(
    data: ClaimWallet, desk: Desk, checks: Checks, caller: DeviceCaller
) -> OwnWalletView:
    """Make a wallet one's own; the code is used up by that and pays nothing."""
    person = await current_person(desk.db, caller)
    confirmed = await step_up(desk, caller, "security", "wallet.claim")
    async with desk.db.begin(caller.actor) as tx:
        await confirmed.take(tx)
    wallet = account_of_wallet(
        await claim_wallet(desk.db, checks.keyring, person, data.payment_code)
    )
    return OwnWalletView(
        id=wallet.shown_id,
        object="own_wallet",
        holder_name=wallet.holder,
        currency=wallet.currency,
        is_active=wallet.is_active,
    )


ROUTES = [list_open_consents, revoke_open_consent, list_own_wallets, claim_own_wallet]


async def _view(db: Db, consent: Consent | WalletApplication) -> OpenConsentView:
    if isinstance(consent, WalletApplication):
        return await _view_wallet(db, consent)
    partner = await partner_with_id(db, consent.partner_id)
    return OpenConsentView(
        id=consent.shown_id,
        object="open_consent",
        partner=partner.name,
        kind=consent.kind.value,
        permissions=consent.permissions,
        amount=consent.amount,
        amount_a_day=None,
        currency=consent.currency,
        payee=consent.payee_name,
        accounts=len(consent.accounts),
        status=consent.status(db.clock.now()),
        created_at=consent.created_at,
        expires_at=consent.expires_at,
        ended_at=consent.ended_at,
    )


async def _view_wallet(db: Db, wallet: WalletApplication) -> OpenConsentView:
    """Return what a merchant may do with an account; it lasts until it is ended."""
    merchant = await merchant_with_id(db, wallet.merchant_id)
    return OpenConsentView(
        id=wallet.shown_id,
        object="open_consent",
        partner=merchant.name,
        kind="user_wallet",
        permissions=[*wallet.grants],
        amount=wallet.each_max,
        amount_a_day=wallet.day_max,
        currency="CNY",
        payee=None,
        accounts=1,
        status="authorised" if wallet.state is State.OPENED else "revoked",
        created_at=wallet.created_at,
        expires_at=None,
        ended_at=wallet.ended_at,
    )

"""Put the wallet's API together: gateways and registers by mode, the desk, and what is mounted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from litestar.handlers import HTTPRouteHandler

from tongbao.infra.crypto import Keyring
from tongbao.infra.db import Db
from tongbao.infra.http import HttpClient
from tongbao.infra.kms.opening import KeyDesk
from tongbao.infra.notify.gateway import HttpGateway
from tongbao.infra.notify.sending import Gateways
from tongbao.infra.serving.asgi import Asgi
from tongbao.infra.serving.device_api import SCOPES, SIGNED_BY_PHONE, DeviceApi
from tongbao.infra.serving.openapi import ApiFacts
from tongbao.infra.settings import Settings
from tongbao.kernel.licence import Mode
from tongbao.ledger.book import Ledger
from tongbao.parties.authentication.passkeys import site_of
from tongbao.parties.authentication.step_up import Checks
from tongbao.parties.bound_cards import queries as bound_cards
from tongbao.parties.bound_cards.binding import Binder
from tongbao.parties.consents.holdings import ClaimedWallets
from tongbao.parties.e_accounts import queries as e_account_queries
from tongbao.parties.e_accounts.orders import Teller
from tongbao.parties.people.dossier import Contributor, own_contributors
from tongbao.parties.people.sessions import SessionsOnRecord
from tongbao.parties.step_up_risk import deciding
from tongbao.parties.step_up_risk.deciding import RiskBySignals
from tongbao.parties.virtual_cards import cards as virtual_cards
from tongbao.payments.card_agreements import signing as card_agreements
from tongbao.payments.collecting.outcomes import Flow
from tongbao.payments.e_account_payments import queries as e_account_payments
from tongbao.payments.people_banks.client import card_money
from tongbao.rails.channels.bank_transfer.client import BankTransfer
from tongbao.rails.registers.bank_cards import verifier_at
from tongbao.rails.registers.client import registers_at
from tongbao.surfaces.docs_site.app import ERRORS
from tongbao.surfaces.wallet import bank_cards, e_accounts, entering, factors, myself
from tongbao.surfaces.wallet.desk import PREFIX, Desk

ROUTES: Sequence[HTTPRouteHandler] = (
    *(*entering.ROUTES, *myself.ROUTES, *factors.ROUTES),
    *(*e_accounts.ROUTES, *bank_cards.ROUTES),
)


def gateways_of(settings: Settings, http: HttpClient) -> Gateways:
    """Return who carries messages: the sandbox those of its people, a real gateway the others."""
    sandbox = f"{settings.sandbox_url}/messages" if settings.sandbox_url else None
    real, token = settings.message_gateway_url, settings.message_gateway_token
    return {
        Mode.SANDBOX: HttpGateway(http, sandbox) if sandbox else None,
        Mode.LIVE: HttpGateway(http, real, token) if real else None,
    }


class House(Protocol):
    """What the desk is made of; the platform is one."""

    settings: Settings
    db: Db
    keyring: Keyring
    keys: KeyDesk
    http: HttpClient
    flow: Flow
    bank: BankTransfer


def desk_of(house: House, *, contributors: Sequence[Contributor] = ()) -> Desk:
    """Return what the wallet's routes work with; ``contributors`` keep something of people too."""
    settings, db, keyring, http = house.settings, house.db, house.keyring, house.http
    sandbox = f"{settings.sandbox_url}/registers" if settings.sandbox_url else None
    checks = Checks(
        db, keyring, site_of(settings.public_url), settings.password_policy, RiskBySignals(db)
    )
    live, token = settings.registers_url, settings.registers_token
    registers = {
        Mode.SANDBOX: registers_at(http, sandbox),
        Mode.LIVE: registers_at(http, live, token),
    }
    verifiers = {
        Mode.SANDBOX: verifier_at(http, sandbox),
        Mode.LIVE: verifier_at(http, live, token),
    }
    own = (
        *(*own_contributors(keyring), bound_cards.contributor(), virtual_cards.contributor()),
        e_account_queries.contributor(),
    )
    own = (*own, deciding.contributor(), e_account_payments.contributor())
    own = (*own, card_agreements.contributor())
    cards = card_money(house.flow, house.bank, house.keys.sealing_keys, keyring)
    binder = Binder(db, keyring, cards.keys, verifiers)
    return Desk(checks, registers, (*own, *contributors), cards, binder, house.flow)


def teller_of(desk: Desk, ledger: Ledger) -> Teller:
    """Return what people's money is moved with, to every side that there is."""
    return Teller(desk.db, ledger, desk.cards, ClaimedWallets())


def wallet_api(
    settings: Settings,
    desk: Desk,
    more: Sequence[HTTPRouteHandler] = (),
    *,
    ledger: Ledger | None = None,
) -> dict[str, Asgi]:
    """Return what is mounted where funds may be held; ``more`` are other rooms' routes for people.

    A firm that may not hold funds has no users of its own, so there is nothing. Money moves where
    there is a ledger to move it on, and over bank cards where there is a vault for those.
    """
    if not settings.licence.may_hold_funds:
        return {}
    provides: dict[str, object] = {"desk": desk, "checks": desk.checks}
    served = [each for each in (*ROUTES, *more) if ledger or each not in e_accounts.ROUTES]
    served = [each for each in served if desk.binder or each not in bank_cards.ROUTES]
    provides |= {"binder": desk.binder, "flow": desk.flow}
    if ledger is not None:
        provides |= {"teller": teller_of(desk, ledger), "licence": settings.licence}
    api = DeviceApi(
        served,
        db=desk.db,
        sessions=SessionsOnRecord(desk.db, desk.checks.keyring),
        provides=provides,
        facts=ApiFacts(
            title="Tongbao wallet API",
            version="1",
            description="A person's own account, for the app on their phone.",
            public_url=settings.public_url,
            docs_url=f"{settings.public_url}{ERRORS}",
            scopes=SCOPES,
            security=SIGNED_BY_PHONE,
            prefix=PREFIX,
        ),
    )
    return api.mounts

"""What tests of parties share: a keyring, an open merchant, and a signed way in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from tests.infra.signed_client import SignedClient
from tongbao.infra.crypto import Keyring
from tongbao.infra.db import Db
from tongbao.infra.serving.app import App
from tongbao.infra.serving.openapi import ApiFacts
from tongbao.infra.settings import Secret
from tongbao.kernel.ids import show
from tongbao.kernel.licence import Licence, Mode
from tongbao.ledger.book import Ledger
from tongbao.parties.accounts import api as accounts_api
from tongbao.parties.identity import api as identity_api
from tongbao.parties.identity.keys import KeysOnRecord, create_key
from tongbao.parties.identity.model import SCOPES, scopes_under
from tongbao.parties.merchants.merchants import BankAccount, open_merchant
from tongbao.parties.merchants.model import Merchant
from tongbao.parties.offline_codes import api as offline_codes_api
from tongbao.parties.price_plans import api as price_plans_api
from tongbao.parties.profile import api as profile_api

LICENCE = Licence.PAYMENT_INSTITUTION

MakeClient = Callable[..., Awaitable[SignedClient]]


@pytest.fixture
def keyring() -> Keyring:
    return Keyring([b"k" * 32])


@pytest.fixture
def ledger(db: Db) -> Ledger:
    return Ledger(db, LICENCE)


@pytest.fixture
async def merchant(db: Db, keyring: Keyring) -> Merchant:
    return await new_merchant(db, keyring, "Corner Shop")


@pytest.fixture
def app(db: Db, keyring: Keyring, ledger: Ledger) -> App:
    return assembled(db, keyring, ledger, LICENCE)


@pytest.fixture
def make_client(app: App, db: Db, keyring: Keyring, merchant: Merchant) -> MakeClient:
    """``await make_client(mode=…, scopes=…, of=…)`` makes a key and returns its holder."""

    async def make(
        *,
        mode: Mode = Mode.SANDBOX,
        scopes: Sequence[str] = tuple(SCOPES),
        of: Merchant = merchant,
    ) -> SignedClient:
        async with db.begin("test") as tx:
            new = await create_key(
                tx, keyring, of.id, mode, licence=LICENCE, name="test", scopes=scopes
            )
        return SignedClient(app, show("key", new.key.id), new.secret.reveal())

    return make


@pytest.fixture
async def client(make_client: MakeClient) -> SignedClient:
    return await make_client()


async def new_merchant(db: Db, keyring: Keyring, name: str, **more: Any) -> Merchant:
    async with db.begin("test") as tx:
        return await open_merchant(
            tx,
            keyring,
            name=name,
            bank_account=BankAccount(f"{name} Ltd", Secret("6222021234567890128")),
            **more,
        )


def assembled(db: Db, keyring: Keyring, ledger: Ledger, licence: Licence) -> App:
    facts = ApiFacts(
        title="Tongbao",
        version="2026-11-21",
        description="",
        public_url="https://pay.example",
        docs_url="https://pay.example/docs/refusals",
        scopes=scopes_under(licence),
    )
    handlers = [
        *identity_api.ROUTES,
        *profile_api.ROUTES,
        *price_plans_api.ROUTES,
        *accounts_api.routes(licence),
    ]
    handlers += offline_codes_api.routes(licence)
    return App(
        handlers,
        db=db,
        keys=KeysOnRecord(db, keyring),
        facts=facts,
        provides={"keyring": keyring, "ledger": ledger},
    )

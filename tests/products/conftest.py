"""A firm that may hold funds, a merchant, and wallets with money in them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from uuid import UUID

import pytest
from msgspec import Struct

from tests.parties.conftest import new_merchant
from tongbao.infra.crypto import Keyring
from tongbao.infra.db import Db
from tongbao.infra.web.caller import Caller
from tongbao.infra.web.idempotency import Idempotency, use_of
from tongbao.kernel.ids import new_id
from tongbao.kernel.licence import Licence, Mode
from tongbao.kernel.money import Money
from tongbao.ledger.book import Ledger
from tongbao.ledger.verify import verify
from tongbao.parties.accounts.model import Wallet
from tongbao.parties.accounts.queries import wallet_balance
from tongbao.parties.accounts.wallets import open_wallet, top_up
from tongbao.products.red_packets.hall import Hall

LICENCE = Licence.PAYMENT_INSTITUTION


class People(Struct, frozen=True):
    """A merchant whose customers have wallets."""

    hall: Hall
    caller: Caller

    async def wallet(self, balance: int = 0) -> Wallet:
        """One more wallet, with this much in it."""
        [wallet] = await self.wallets(1)
        if balance:
            money = Money(balance, "CNY")
            await top_up(self.hall.db, self.hall.ledger, wallet, money, once(self.caller))
        return wallet

    async def wallets(self, count: int) -> Sequence[Wallet]:
        """Several more wallets, empty."""
        async with self.hall.db.begin("tests") as tx:
            return [await open_wallet(tx, self.caller, holder_name="张三") for _ in range(count)]

    async def balance(self, wallet: Wallet) -> int:
        """What a wallet holds."""
        return (await wallet_balance(self.hall.db, wallet)).posted


def once(caller: Caller) -> Idempotency:
    """A use of an idempotency key that nobody else has."""
    return use_of(caller, "POST /tests", str(new_id()), b"")


def caller_of(merchant_id: UUID, book: int, mode: Mode = Mode.SANDBOX) -> Caller:
    """Who signs for a merchant."""
    return Caller(new_id(), merchant_id, mode, book, frozenset())


@pytest.fixture(scope="module")
async def people(module_db: Db) -> AsyncIterator[People]:
    """Their ledger is verified when the module's tests are over."""
    ledger = Ledger(module_db, LICENCE)
    merchant = await new_merchant(module_db, Keyring([b"k" * 32]), "Corner Shop")
    book = merchant.book(Mode.SANDBOX)
    await ledger.open_book(book, actor="tests")
    yield People(Hall(module_db, ledger), caller_of(merchant.id, book))
    report = await verify(module_db)
    assert report.is_sound, report.broken
    await ledger.close()

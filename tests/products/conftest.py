"""A merchant whose customers have wallets with money in them, and one that has a shop."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence

import pytest
from msgspec import Struct

from tests.parties.conftest import new_merchant
from tests.payments.invariants import assert_money_is_conserved
from tests.products.callers import caller_of, once
from tests.products.corner import Corner, assert_stock_is_where_orders_say
from tests.sandboxes import start_sandbox
from tests.stage import staged
from tongbao.duties import shop_of
from tongbao.infra.crypto import Keyring
from tongbao.infra.db import Db
from tongbao.infra.web.caller import Caller
from tongbao.kernel.licence import Licence, Mode
from tongbao.kernel.money import Money
from tongbao.ledger.book import Ledger
from tongbao.ledger.verify import verify
from tongbao.parties.accounts.model import Wallet
from tongbao.parties.accounts.queries import wallet_balance
from tongbao.parties.accounts.wallets import open_wallet, top_up
from tongbao.products.red_packets.hall import Hall
from tongbao_sandbox.launch import RunningSandbox

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


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSandbox]:
    with start_sandbox(tmp_path_factory.mktemp("sandbox")) as running:
        running.post("settings", hold_s=0.02)
        yield running


@pytest.fixture(scope="module")
async def module_corner(
    module_db: Db, tmp_path_factory: pytest.TempPathFactory, sandbox: RunningSandbox
) -> AsyncIterator[Corner]:
    async with staged(module_db, tmp_path_factory.mktemp("platform"), sandbox) as stage:
        merchant = stage.shop.merchant
        caller = caller_of(merchant.id, merchant.book(Mode.SANDBOX))
        yield Corner(stage, shop_of(stage.flow), caller)
        await assert_money_is_conserved(module_db)
        await assert_stock_is_where_orders_say(module_db)


@pytest.fixture
async def corner(module_corner: Corner) -> Corner:
    module_corner.stage.sandbox.delete("faults")
    await module_corner.stage.live_together()
    return module_corner

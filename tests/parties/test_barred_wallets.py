"""A barred person's own wallets pay nothing either, and they make no other wallet their own."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from tests.parties.card_people import People
from tests.parties.test_barred_people import BarTerms, approved, bar, lift
from tests.parties.test_person_locks import until_one_waits
from tests.parties.test_wallets import caller, shown, wallet
from tongbao.infra.crypto import Keyring
from tongbao.infra.db import Db
from tongbao.kernel.clock import business_date
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import Money
from tongbao.parties.accounts.model import ShownCode, Wallet, WalletBarred
from tongbao.parties.accounts.payment_codes import show_code
from tongbao.parties.accounts.queries import find_wallet
from tongbao.parties.accounts.wallets import spend_write
from tongbao.parties.barring import barring
from tongbao.parties.consents.holdings import claim_wallet
from tongbao.parties.people.model import Person

__all__ = ["caller", "shown", "wallet"]


async def spent(db: Db, wallet: Wallet, *, together: bool = False) -> int:
    write = spend_write(wallet.book, wallet.id, Money(1, "CNY"), db.clock.now())
    async with db.begin("test") as tx:
        return await write.statement.run_set(tx, [write.args]) if together else await write.run(tx)


async def now_is(db: Db, wallet: Wallet) -> Wallet:
    found = await find_wallet(db, wallet.book, wallet.id)
    assert found is not None
    return found


@pytest.fixture
async def person(db: Db) -> Person:
    return await People(db).somebody(mode=Mode.SANDBOX)


@pytest.mark.parametrize("together", [False, True])
async def test_a_wallet_of_ones_own_pays_nothing_until_the_day(
    db: Db, keyring: Keyring, wallet: Wallet, shown: ShownCode, person: Person, *, together: bool
) -> None:
    await claim_wallet(db, keyring, person, shown.code)
    assert await spent(db, wallet, together=together) == 1

    made = await bar(db, person)

    assert await spent(db, wallet, together=together) == 0
    barred = await now_is(db, wallet)
    with pytest.raises(WalletBarred):
        barred.check_may_spend(Money(1, "CNY"), db.clock.now())
    async with db.begin("test") as tx:
        with pytest.raises(WalletBarred):
            await show_code(tx, keyring, barred)
    await lift(db, person)
    assert await spent(db, wallet, together=together) == 1
    made = await bar(db, person)
    db.clock.offset += made.ends_at - db.clock.now() - timedelta(seconds=1)
    assert await spent(db, wallet, together=together) == 0
    db.clock.offset += timedelta(seconds=2)
    assert await spent(db, wallet, together=together) == 1


async def test_who_is_barred_makes_no_wallet_their_own(
    db: Db, keyring: Keyring, wallet: Wallet, shown: ShownCode, person: Person
) -> None:
    await bar(db, person)
    with pytest.raises(WalletBarred):
        await claim_wallet(db, keyring, person, shown.code)
    assert await spent(db, wallet) == 1  # nobody's, and its code is not used up
    await lift(db, person)
    await claim_wallet(db, keyring, person, shown.code)


async def test_a_claim_that_meets_a_bar_waits_for_it_and_is_refused(
    db: Db, keyring: Keyring, shown: ShownCode, person: Person
) -> None:
    async with db.begin("test") as tx:
        day = business_date(tx.now)
        await barring.bar(tx, approved(db), BarTerms(person.actor, "(2026) 1", day))
        late = asyncio.create_task(claim_wallet(db, keyring, person, shown.code))
        await until_one_waits(db)
    with pytest.raises(WalletBarred):
        await late


async def test_a_spending_that_meets_a_bar_waits_for_it_and_is_refused(
    db: Db, keyring: Keyring, wallet: Wallet, shown: ShownCode, person: Person
) -> None:
    await claim_wallet(db, keyring, person, shown.code)
    async with db.begin("test") as tx:
        day = business_date(tx.now)
        await barring.bar(tx, approved(db), BarTerms(person.actor, "(2026) 1", day))
        late = asyncio.create_task(spent(db, wallet))
        await until_one_waits(db)
    assert await late == 0

"""Taking a book, being fenced, and changes made past its writer."""

from __future__ import annotations

import pytest

from tests.ledger.making import ALICE, BANK, BOB, group, outcome, single
from tongbao.ledger.model import AccountMissing, BookMissing, BookStopped, LimitBroken
from tongbao.ledger.poster.lease import altering, read_head, stop_book, take_book
from tongbao.ledger.queries import balance_of


async def test_every_taking_is_an_epoch_of_its_own(db):
    first, second = [await take_book(db, 1, "here") for _ in range(2)]
    assert second.epoch == first.epoch + 1
    assert second.holder == "here"
    with pytest.raises(BookMissing):
        await take_book(db, 99, "here")


async def test_an_idle_writer_whose_epoch_stands_goes_on(db, ledger):
    await ledger.submit([group(single(5, BANK, ALICE))])
    before = await read_head(db, 1)
    await ledger.submit([group(single(5, BANK, ALICE))])
    after = await read_head(db, 1)
    assert after.epoch == before.epoch
    assert after.lease_until >= before.lease_until


async def test_an_alteration_sees_exact_balances_and_fences_the_writer(db, ledger):
    await ledger.submit([group(single(5, BANK, ALICE))])
    before = await read_head(db, 1)
    async with altering(db, 1, actor="ann") as (tx, head):
        assert head.epoch == before.epoch + 1
        rows = await tx.fetch("select credits_posted from ledger_account where kind = 'wallet'", ())
        assert [row[0] for row in rows] == [5]
    assert await outcome(ledger, single(5, ALICE, BOB)) == ("created", None)


async def test_a_stopped_book_takes_nothing_and_is_not_altered(db, ledger):
    await ledger.submit([group(single(5, BANK, ALICE))])
    await stop_book(db, 1, "a test")
    assert await outcome(ledger, single(5, ALICE, BOB)) == ("in_flight", "ledger.book_stopped")
    with pytest.raises(BookStopped):
        await ledger.set_account_limits(1, ALICE, floor=0, ceiling=9, actor="ann", because="a test")
    assert (await stop_book(db, 1, "another")).stopped_because == "a test"


async def test_limits_hold_from_the_moment_they_are_set(db, ledger):
    async def limit(key, floor, ceiling):
        await ledger.set_account_limits(
            1, key, floor=floor, ceiling=ceiling, actor="ann", because="class II"
        )

    await ledger.submit([group(single(50, BANK, ALICE))])
    await limit(ALICE, 10, 60)
    assert await outcome(ledger, single(11, BANK, ALICE)) == ("refused", "ledger.exceeds_ceiling")
    assert await outcome(ledger, single(41, ALICE, BOB)) == ("refused", "ledger.exceeds_balance")
    assert await outcome(ledger, single(40, ALICE, BOB)) == ("created", None)
    for floor, ceiling in ((11, None), (0, 9), (5, 4)):
        with pytest.raises(LimitBroken):
            await limit(ALICE, floor, ceiling)
    with pytest.raises(AccountMissing):
        await limit(type(ALICE)("wallet", "USD", ALICE.owner), 0, 1)
    assert (await balance_of(db, 1, ALICE)).posted == 10
    actions = await db.fetch("select action from audit_entry where actor = 'ann'", ())
    assert [row[0] for row in actions] == ["ledger.account_limits_set"]

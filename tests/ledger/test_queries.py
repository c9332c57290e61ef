"""What the book says about balances, references and statements."""

from __future__ import annotations

from uuid import uuid4

import pytest
from msgspec.structs import replace

from tests.ledger.making import ALICE, BANK, BOB, MERCHANT, group, pending, post, single
from tongbao.kernel.pages import CursorInvalid, PageSizeInvalid, encode_cursor
from tongbao.ledger import queries
from tongbao.ledger.model import AccountKey, Side
from tongbao.ledger.queries import (
    balance_of,
    balances_of_owner,
    movements,
    net_of_references,
    statement,
    sums,
    transfers_of_reference,
)


async def test_an_account_nothing_touched_has_zero(db):
    balance = await balance_of(db, 1, ALICE)
    assert (balance.posted, balance.available, balance.side) == (0, 0, Side.CREDIT)
    assert await balances_of_owner(db, 1, ALICE.owner) == []
    assert (await statement(db, 1, ALICE)).items == []


async def test_balances_stand_on_the_normal_side(db, ledger):
    hold = pending(30, ALICE, BANK)
    await ledger.submit([group(single(100, BANK, ALICE), hold)])
    bank, alice = await balance_of(db, 1, BANK), await balance_of(db, 1, ALICE)
    assert (bank.posted, bank.held, bank.incoming, bank.available) == (100, 30, 0, 70)
    assert (alice.posted, alice.held, alice.incoming, alice.available) == (100, 30, 0, 70)


async def test_an_owner_sees_all_of_its_accounts_and_nobody_elses(db, ledger):
    due = AccountKey("settlement_due", "CNY", MERCHANT.owner)
    dollars = replace(MERCHANT, currency="USD")
    lines = [
        single(9, BANK, MERCHANT),
        single(4, MERCHANT, due),
        single(1, AccountKey("bank", "USD"), dollars),
        single(7, BANK, BOB),
    ]
    await ledger.submit([group(*lines)])
    found = await balances_of_owner(db, 1, MERCHANT.owner)
    assert {balance.account: balance.posted for balance in found} == {
        MERCHANT: 5,
        dollars: 1,
        due: 4,
    }


async def test_a_reference_shows_its_transfers_in_order_with_named_accounts(db, ledger):
    reference = uuid4()
    hold = replace(pending(30, ALICE, MERCHANT), reference=reference)
    await ledger.submit([group(single(100, BANK, ALICE), hold)])
    await ledger.submit([group(replace(post(hold, 20), reference=reference))])
    held, posted = await transfers_of_reference(db, 1, reference)
    assert (held.seq, held.kind, held.debit, held.credit) == (2, "pending", ALICE, MERCHANT)
    assert (posted.seq, posted.kind, posted.amount, posted.pending_id) == (3, "post", 20, hold.id)
    assert (posted.debit, posted.credit) == (ALICE, MERCHANT)


async def test_a_statement_pages_from_new_to_old_without_gap_or_repeat(db, ledger):
    lines = [single(10 * n, BANK, ALICE) for n in range(1, 5)]
    lines.insert(2, single(7, ALICE, BOB))
    hold = pending(1, ALICE, BOB)
    await ledger.submit([group(*lines), group(hold)])
    first = await statement(db, 1, ALICE, limit=2)
    await ledger.submit([group(single(1000, BANK, ALICE))])  # the list grows meanwhile
    second = await statement(db, 1, ALICE, limit=2, cursor=first.next_cursor)
    third = await statement(db, 1, ALICE, limit=2, cursor=second.next_cursor)
    shown = [(line.change, line.balance_after) for line in first.items + second.items + third.items]
    assert shown == [(40, 93), (30, 53), (-7, 23), (20, 30), (10, 10)]
    assert third.next_cursor is None


async def test_a_statement_of_an_asset_grows_by_debits(db, ledger):
    await ledger.submit([group(single(10, BANK, ALICE), single(4, ALICE, BANK))])
    page = await statement(db, 1, BANK)
    assert [(line.change, line.balance_after) for line in page.items] == [(-4, 6), (10, 10)]


@pytest.mark.parametrize("cursor", ["%", encode_cursor("x"), encode_cursor(1, 2), encode_cursor(0)])
async def test_a_cursor_of_another_list_is_refused(db, cursor):
    with pytest.raises(CursorInvalid):
        await statement(db, 1, ALICE, cursor=cursor)
    with pytest.raises(PageSizeInvalid):
        await statement(db, 1, ALICE, limit=0)


async def test_the_trial_balance_adds_up_by_kind_and_currency(db, ledger):
    await ledger.submit(
        [group(single(10, BANK, ALICE), single(5, BANK, BOB), single(2, BOB, BANK))]
    )
    trial = {line.kind: (line.accounts, line.posted) for line in await sums(db, 1)}
    assert trial == {"bank": (1, 13), "wallet": (2, 13)}


async def test_movements_are_the_posted_ones_after_a_number_however_many(db, ledger, monkeypatch):
    monkeypatch.setattr(queries, "_CHUNK", 2)
    lines = [single(n, BANK, ALICE) for n in range(1, 7)]
    await ledger.submit([group(*lines), group(pending(1, ALICE, BOB))])
    assert [line.change async for line in movements(db, 1, ALICE, after=0)] == [6, 5, 4, 3, 2, 1]
    assert [line.change async for line in movements(db, 1, ALICE, after=3)] == [6, 5, 4]
    assert [line async for line in movements(db, 1, ALICE, after=6)] == []
    assert [line async for line in movements(db, 1, MERCHANT, after=0)] == []


async def test_the_net_of_a_reference_is_what_it_posted_to_the_account(db, ledger):
    paid, held = single(30, BANK, ALICE), pending(9, ALICE, BOB)
    back = replace(single(4, ALICE, BANK), reference=paid.reference)
    await ledger.submit([group(paid, back, held)])
    asked = [paid.reference, held.reference, uuid4()]
    assert await net_of_references(db, 1, ALICE, asked) == {paid.reference: -26}
    assert await net_of_references(db, 1, BANK, asked) == {paid.reference: 26}
    assert await net_of_references(db, 1, MERCHANT, asked) == {}

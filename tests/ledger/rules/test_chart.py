"""The chart of accounts: complete, the same in the database, and bound to the licence."""

from __future__ import annotations

from uuid import UUID

import asyncpg
import pytest

from tests.ledger.making import ALICE, BANK, MERCHANT, group, single
from tongbao.kernel.licence import Licence
from tongbao.ledger import _store as store
from tongbao.ledger.book import Ledger
from tongbao.ledger.model import BOOK_MAX, AccountKey, Side
from tongbao.ledger.rules.chart import (
    CHART,
    ChartInvalid,
    Kind,
    OwnerKind,
    _validated,
    book_owner,
    opening_refusal,
)

OWNERS = {OwnerKind.HOUSE: None, OwnerKind.BOOK: book_owner(2)}
FUNDS = {
    "e_account",
    "e_account_leaving",
    "e_account_returned",
    "dispute_held",
    "merchant_payable",
    "merchant_reserve",
    "settlement_due",
    "subsidy",
    "wallet",
}


async def test_the_database_has_the_same_kinds_as_the_chart(db):
    stored = {kind.kind: (kind.side, kind.floor) for kind in await store.LIST_KINDS.all(db)}
    assert stored == {kind.name: (kind.side, kind.floor) for kind in CHART.values()}


def test_other_peoples_money_is_what_needs_a_licence():
    assert {kind.name for kind in CHART.values() if kind.holds_funds} == FUNDS


def test_every_kind_of_other_peoples_money_has_a_floor_of_zero():
    assert all(CHART[name].floor == 0 for name in FUNDS)


@pytest.fixture
async def aggregator_db(make_db):
    return await make_db(licence=Licence.AGGREGATOR)


async def test_an_aggregators_database_lacks_the_kinds_that_hold_funds(aggregator_db):
    kinds = {kind.kind for kind in await store.LIST_KINDS.all(aggregator_db)}
    assert kinds == set(CHART) - FUNDS


@pytest.mark.parametrize("key", [ALICE, MERCHANT, AccountKey("settlement_due", "CNY", ALICE.owner)])
async def test_an_aggregator_cannot_open_an_account_that_holds_funds(aggregator_db, key):
    ledger = Ledger(aggregator_db, Licence.AGGREGATOR)
    [result] = await ledger.submit([group(single(1, BANK, key))])
    assert (result.status, result.code) == ("refused", "ledger.account_kind_not_licensed")


async def test_a_program_that_thinks_it_is_licensed_is_stopped_by_the_database(aggregator_db):
    ledger = Ledger(aggregator_db, Licence.BANK)
    [result] = await ledger.submit([group(single(1, BANK, ALICE))])
    assert (result.status, result.code) == ("refused", "ledger.account_kind_not_licensed")
    forged = """
        insert into ledger_account values
        (1, (1::bigint << 40) + 7, $1, gen_random_uuid(), 'CNY', 'credit', 0, null, 'open',
         0, 0, 0, 0, 0, null, now())"""
    for kind in sorted(FUNDS):
        with pytest.raises(asyncpg.ForeignKeyViolationError):
            await aggregator_db.pool.execute(forged, kind)


async def test_an_aggregator_keeps_its_own_books(aggregator_db):
    ledger = Ledger(aggregator_db, Licence.AGGREGATOR)
    fees = AccountKey("fee_income", "CNY")
    [result] = await ledger.submit([group(single(1, BANK, fees))])
    assert result.happened


@pytest.mark.parametrize(
    ("key", "code"),
    [
        (AccountKey("gold", "CNY"), "ledger.account_kind_unknown"),
        (AccountKey("wallet", "CNY"), "ledger.account_owner_wrong"),
        (AccountKey("bank", "CNY", ALICE.owner), "ledger.account_owner_wrong"),
        (AccountKey("bank", "XAU"), "ledger.currency_unknown"),
        (AccountKey("exchange", "CNY", ALICE.owner), "ledger.account_owner_wrong"),
        (AccountKey("in_transit_in", "CNY"), "ledger.account_owner_wrong"),
        (AccountKey("in_transit_out", "CNY", UUID(int=1 << 100)), "ledger.account_owner_wrong"),
        (
            AccountKey("in_transit_out", "CNY", book_owner(BOOK_MAX + 1)),
            "ledger.account_owner_wrong",
        ),
    ],
)
def test_a_key_that_names_no_possible_account_says_why(key, code):
    refusal = opening_refusal(key, Licence.BANK)
    assert refusal is not None
    assert refusal.code == code


def test_every_possible_account_may_be_opened_by_a_bank():
    for kind in CHART.values():
        owner = OWNERS.get(kind.owner, ALICE.owner)
        assert opening_refusal(AccountKey(kind.name, "CNY", owner), Licence.BANK) is None


def test_the_house_may_move_its_own_money_between_books_without_a_licence():
    for name in ("in_transit_in", "in_transit_out"):
        key = AccountKey(name, "CNY", book_owner(7))
        assert opening_refusal(key, Licence.AGGREGATOR) is None


GOOD = Kind("gold", Side.DEBIT, OwnerKind.HOUSE, "Gold", "黄金")


@pytest.mark.parametrize(
    "kinds",
    [
        [GOOD, GOOD],
        [Kind("go ld", Side.DEBIT, OwnerKind.HOUSE, "Gold", "黄金")],
        [Kind("gold", Side.DEBIT, OwnerKind.HOUSE, "Gold", "")],
        [Kind("gold", Side.CREDIT, OwnerKind.WALLET, "Gold", "黄金", holds_funds=True)],
        [Kind("gold", Side.DEBIT, OwnerKind.WALLET, "Gold", "黄金", floor=0, holds_funds=True)],
    ],
)
def test_a_chart_that_contradicts_itself_does_not_load(kinds):
    with pytest.raises(ChartInvalid):
        _validated(kinds)

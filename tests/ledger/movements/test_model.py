"""Movements, splits and shifts as plain values."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.ledger.making import ALICE, BOB
from tongbao.kernel.money import Money
from tongbao.ledger.movements.model import (
    LedgerSplit,
    MoveOrder,
    Shift,
    families,
    plan_shifts,
)
from tongbao.ledger.rules.posting import RULES

NOW = datetime(2026, 11, 21, tzinfo=UTC)
OWNER = UUID(int=0x5B51D)


def split(*books, low=10, target=100):
    return LedgerSplit("subsidy", OWNER, "CNY", list(books), low, target, NOW)


def test_every_movement_of_the_table_can_end_whatever_happens():
    assert families() == {"cross_book", "quota", "account_move"}
    assert {"cross_book.held", "cross_book.sent", "cross_book.released"} <= RULES.keys()
    assert families(["a.out", "a.in", "a.returned"]) == frozenset()


def test_a_movement_has_one_id_per_reference_and_family():
    reference = UUID(int=5 << 80)
    order = MoveOrder(1, ALICE, 2, BOB, Money(5, "CNY"), reference)
    assert order.id == MoveOrder(1, ALICE, 3, ALICE, Money(9, "CNY"), reference).id
    others = [
        MoveOrder(1, ALICE, 2, BOB, Money(5, "CNY"), reference, held=True),
        MoveOrder(1, ALICE, 2, BOB, Money(5, "CNY"), reference, rule="quota"),
        MoveOrder(1, ALICE, 2, BOB, Money(5, "CNY"), UUID(int=6 << 80)),
    ]
    assert len({order.id, *(other.id for other in others)}) == 4


def test_payments_spread_over_the_parts_and_stay_where_they_are():
    four, five = split(1, 2, 3, 4), split(1, 2, 3, 4, 5)
    payments = [uuid4() for _ in range(2000)]
    before = {payment: four.place(payment) for payment in payments}
    assert all(count > 300 for count in Counter(before.values()).values())
    moved = [payment for payment in payments if five.place(payment) != before[payment]]
    assert all(five.place(payment) == 5 for payment in moved)
    assert 200 < len(moved) < 700


def test_a_payment_goes_where_the_money_is_and_otherwise_where_it_belongs():
    payment = uuid4()
    first, second, third = split(1, 2, 3).order(payment)
    place = split(1, 2, 3).place_by_quota
    assert place(payment, 50, {first: 50, second: 90}) == first
    assert place(payment, 60, {first: 50, second: 59, third: 60}) == third
    assert place(payment, 99, {first: 50, second: 59, third: 60}) == first
    assert place(payment, 1, {}) == first


@pytest.mark.parametrize(
    ("available", "expected"),
    [
        ({1: 100, 2: 100}, []),
        ({1: 300, 2: 10}, []),  # low is not below low
        ({1: 300, 2: 9}, [Shift(1, 2, 91)]),
        ({1: 150, 2: 0}, [Shift(1, 2, 50)]),
        ({1: 110, 2: 0, 3: 160}, [Shift(3, 2, 60), Shift(1, 2, 10)]),
        ({1: 150, 2: 5, 3: 0}, [Shift(1, 3, 50)]),
        ({1: 0, 2: 0}, []),
        ({1: 300, 2: -20}, [Shift(1, 2, 120)]),
    ],
)
def test_what_a_part_lacks_comes_from_parts_that_can_spare_it(available, expected):
    assert plan_shifts(available, 10, 100) == expected


@given(
    st.dictionaries(st.integers(1, 64), st.integers(-(10**6), 10**9), max_size=12),
    st.integers(0, 10**6),
    st.integers(1, 10**6),
)
def test_shifts_never_make_the_giver_poor_nor_the_taker_rich(available, low, more):
    target = low + more
    after = dict(available)
    for shift in plan_shifts(available, low, target):
        assert shift.amount > 0
        assert available[shift.book] > target
        assert available[shift.to_book] < low
        after[shift.book] -= shift.amount
        after[shift.to_book] += shift.amount
    assert sum(after.values()) == sum(available.values())
    for book, had in available.items():
        assert after[book] >= min(had, target)
        assert after[book] <= max(had, target)
    spare = any(had > target for had in after.values())
    assert not (spare and any(after[book] < target for book, had in available.items() if had < low))

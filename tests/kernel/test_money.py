"""Money is whole, keeps its currency, and is never lost or made by arithmetic."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tongbao.kernel.money import (
    AMOUNT_MAX,
    EXPONENTS,
    AmountMalformed,
    AmountOutOfRange,
    CurrencyMismatch,
    Money,
    UnknownCurrency,
    exponent_of,
    from_decimal_text,
    positive,
    share_half_up,
)

CURRENCIES = st.sampled_from(sorted(EXPONENTS))
AMOUNTS = st.integers(-AMOUNT_MAX, AMOUNT_MAX)
MONEY = st.builds(Money, AMOUNTS, CURRENCIES)
WEIGHTS = st.lists(st.integers(0, 10**9), min_size=1, max_size=20).filter(any)


@given(MONEY, WEIGHTS)
def test_the_parts_of_an_allocation_sum_back_to_the_whole(money: Money, weights: list[int]) -> None:
    parts = money.allocate(weights)

    assert sum(part.amount for part in parts) == money.amount
    assert {part.currency for part in parts} == {money.currency}


@given(MONEY, WEIGHTS)
def test_no_part_is_a_whole_unit_from_its_exact_share(money: Money, weights: list[int]) -> None:
    parts = money.allocate(weights)

    for part, weight in zip(parts, weights, strict=True):
        assert abs(part.amount - Fraction(money.amount * weight, sum(weights))) < 1


@given(MONEY, WEIGHTS)
def test_who_weighs_nothing_gets_nothing(money: Money, weights: list[int]) -> None:
    parts = money.allocate(weights)

    assert all(part.amount == 0 for part, weight in zip(parts, weights, strict=True) if weight == 0)


@given(MONEY, WEIGHTS)
def test_giving_back_splits_as_taking_did(money: Money, weights: list[int]) -> None:
    assert (-money).allocate(weights) == [-part for part in money.allocate(weights)]


@pytest.mark.parametrize("weights", [[0], [0, 0], [2, -1]])
def test_weights_that_divide_nothing_are_a_bug(weights: list[int]) -> None:
    with pytest.raises(ValueError, match="weights"):
        Money(100, "CNY").allocate(weights)


@given(AMOUNTS, AMOUNTS, CURRENCIES)
def test_sums_and_order_are_those_of_the_amounts(one: int, other: int, currency: str) -> None:
    first, second = Money(one, currency), Money(other, currency)

    assert first + second == second + first == Money(one + other, currency)
    assert first - second == first + -second
    assert (first < second) == (one < other)
    assert (first <= second) == (one <= other)
    assert (first > second) == (one > other)
    assert (first >= second) == (one >= other)


@pytest.mark.parametrize(
    "meet",
    [
        lambda a, b: a + b,
        lambda a, b: a - b,
        lambda a, b: a < b,
        lambda a, b: a <= b,
        lambda a, b: a > b,
        lambda a, b: a >= b,
    ],
)
def test_currencies_never_meet(meet) -> None:
    with pytest.raises(CurrencyMismatch):
        meet(Money(1, "CNY"), Money(1, "HKD"))


def test_equal_numbers_of_different_currencies_are_different_money() -> None:
    assert Money(1, "CNY") != Money(1, "HKD")


@given(MONEY)
def test_text_for_a_channel_reads_back_as_the_same_money(money: Money) -> None:
    text = money.decimal_text()

    assert from_decimal_text(text, money.currency) == money
    assert len(text.partition(".")[2]) == EXPONENTS[money.currency]


@given(MONEY)
def test_money_survives_the_wire(money: Money) -> None:
    assert msgspec.json.decode(msgspec.json.encode(money), type=Money) == money


@given(CURRENCIES, st.integers(1, 9), AMOUNTS)
def test_more_decimals_than_the_currency_has_are_never_rounded_away(
    currency: str, digit: int, amount: int
) -> None:
    exact = Money(amount, currency).decimal_text()
    dot = "" if "." in exact else "."

    with pytest.raises(AmountMalformed):
        from_decimal_text(f"{exact}{dot}{digit}", currency)


@pytest.mark.parametrize(
    "text",
    [
        "", " ", ".", "-", "1.", ".5", "1,000.00", "1_000", "1e2", "0x10", "NaN", "Infinity", "¥1",
        "１２", "١٢", "1 2", "--1", "0.005", "1.0000000000000000000000000000000000000001",
        "90000000000000.01", "99999999999999999999", "9" * 40,
    ],
)  # fmt: skip
def test_what_is_not_plainly_an_amount_is_refused(text: str) -> None:
    with pytest.raises(AmountMalformed):
        from_decimal_text(text, "CNY")


@pytest.mark.parametrize(
    ("text", "minor"),
    [("12.30", 1230), ("12.3", 1230), ("12", 1200), ("-3.50", -350), ("+3.5", 350), (" 0.01 ", 1),
     ("0.010", 1), ("-0.00", 0), ("90000000000000.00", AMOUNT_MAX)],
)  # fmt: skip
def test_what_channels_write_is_read_exactly(text: str, minor: int) -> None:
    assert from_decimal_text(text, "CNY") == Money(minor, "CNY")


@given(st.text(max_size=40), CURRENCIES)
def test_any_text_is_an_amount_or_a_refusal(text: str, currency: str) -> None:
    try:
        money = from_decimal_text(text, currency)
    except AmountMalformed:
        return

    assert Decimal(money.decimal_text()) == Decimal(text.strip())


@given(st.integers(1, AMOUNT_MAX), CURRENCIES)
def test_an_amount_from_outside_is_taken_as_it_is(amount: int, currency: str) -> None:
    assert positive(amount, currency) == Money(amount, currency)


@given(st.one_of(st.integers(max_value=0), st.integers(min_value=AMOUNT_MAX + 1)), CURRENCIES)
def test_nothing_less_than_one_unit_and_nothing_beyond_the_limit(
    amount: int, currency: str
) -> None:
    with pytest.raises(AmountOutOfRange):
        positive(amount, currency)


@given(st.text(max_size=12).filter(lambda text: text not in EXPONENTS))
def test_an_unknown_currency_is_refused_wherever_it_enters(currency: str) -> None:
    for enter in (
        lambda: exponent_of(currency),
        lambda: positive(1, currency),
        lambda: from_decimal_text("1", currency),
    ):
        with pytest.raises(UnknownCurrency):
            enter()


@given(st.integers(0, AMOUNT_MAX), st.integers(0, 1_000_000))
def test_a_fee_is_its_exact_share_rounded_half_up(amount: int, rate_ppm: int) -> None:
    exact = Fraction(amount * rate_ppm, 1_000_000)

    fee = share_half_up(amount, rate_ppm)

    assert Fraction(-1, 2) < fee - exact <= Fraction(1, 2)
    assert 0 <= fee <= amount


@given(st.integers(0, AMOUNT_MAX), st.integers(0, AMOUNT_MAX), st.integers(0, 1_000_000))
def test_a_larger_amount_never_costs_a_smaller_fee(one: int, other: int, rate_ppm: int) -> None:
    low, high = sorted([one, other])

    assert share_half_up(low, rate_ppm) <= share_half_up(high, rate_ppm)


@pytest.mark.parametrize(
    ("amount", "rate_ppm", "fee"),
    [(10_000, 6_000, 60), (83, 6_000, 0), (84, 6_000, 1), (1, 500_000, 1), (3, 500_000, 2)],
)
def test_half_a_unit_goes_up(amount: int, rate_ppm: int, fee: int) -> None:
    """0.6 % of 100.00 yuan is 0.60; exactly half a fen becomes a fen."""
    assert share_half_up(amount, rate_ppm) == fee

"""What was agreed decides when a day is closed and where its money goes, to the fen."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from tests.clearing.books import FIRST_DAY, Books, open_books
from tongbao.clearing.settlement.model import (
    NothingPayable,
    QuickNotAgreed,
    SettlementNotDue,
)
from tongbao.clearing.settlement.reserves import release_reserves
from tongbao.clearing.settlement.settlements import settle_quickly
from tongbao.clearing.settlement_terms.model import (
    Counts,
    SettlementHoldInvalid,
    SettlementTermsInvalid,
    SettlementTermsPast,
    TermFigures,
    check_figures,
    due_from,
    newest_due,
    shares_of,
)
from tongbao.clearing.settlement_terms.queries import hold_with_id, terms_of_merchant
from tongbao.clearing.settlement_terms.terms import (
    NewTerms,
    lift_hold,
    place_hold,
    propose_terms,
    set_terms,
)
from tongbao.infra.db import Db
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import AMOUNT_MAX
from tongbao.ledger.model import AccountKey
from tongbao.ledger.verify import verify

MONEY = st.integers(-AMOUNT_MAX, AMOUNT_MAX)
PART = st.integers(0, AMOUNT_MAX)


@pytest.fixture
async def books(db: Db, tmp_path: Path) -> Books:
    return await open_books(db, tmp_path)


async def agree(books: Books, **figures: Any) -> None:
    async with books.db.begin("tests") as tx:
        terms = TermFigures(**figures)
        await set_terms(tx, NewTerms(books.merchant.id, books.mode, books.today, terms))


async def hold(books: Books, **how: Any) -> Any:
    async with books.db.begin("operator:anna") as tx:
        how = {"amount": None, "reason": "chargebacks expected", **how}
        return await place_hold(tx, books.merchant.id, books.mode, **how)


async def sound(books: Books) -> None:
    report = await verify(books.db)
    assert report.is_sound, report.broken


# What is shared, without a database


@given(
    due=MONEY,
    available=PART,
    collected=MONEY,
    owed=st.integers(0, 10_000),
    held=st.one_of(st.none(), st.integers(0, 100_000)),
    ppm=st.integers(0, 1_000_000),
    least=st.integers(0, 50_000),
    quick=st.one_of(st.none(), st.tuples(st.integers(0, 100_000), st.integers(0, 500))),
)
@examples(max_examples=150)
def test_the_parts_are_the_whole_and_nothing_is_shared_that_is_not_there(
    due: int, available: int, collected: int, owed: int, held: int | None, ppm: int, least: int,
    quick: tuple[int, int] | None,
) -> None:  # fmt: skip
    figures = TermFigures(
        payable_min=least,
        reserve_ppm=ppm,
        reserve_days=30 if ppm else 0,
        quick_allowed=quick is not None,
        quick_ppm=quick[0] if quick else 0,
        quick_fee_min=quick[1] if quick else 0,
    )
    shares = shares_of(
        figures,
        due,
        available=available,
        collected=collected,
        owed=owed,
        held=held,
        is_quick=quick is not None,
    )
    moved = shares.payable + shares.reserved + shares.quick_fee
    assert moved + shares.carried == due
    assert min(shares.payable, shares.reserved, shares.quick_fee) >= 0
    assert moved <= max(0, min(due, available))
    assert shares.payable == 0 or shares.payable >= max(1, least)
    assert held is not None or shares.payable == 0
    assert shares.quick_fee == 0 or (quick is not None and shares.payable > 0)
    if shares.payable:
        assert moved <= min(due, available) - owed - (held or 0)


def test_figures_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(SettlementTermsInvalid):
        check_figures(TermFigures(reserve_ppm=100_000))
    with pytest.raises(SettlementTermsInvalid):
        check_figures(TermFigures(quick_ppm=300))


# The National Day week of 2026 as an example: seven days off, one Saturday made up.
def works(day: date) -> bool:
    is_holiday = date(2026, 10, 1) <= day <= date(2026, 10, 7)
    return day == date(2026, 10, 10) or (day.weekday() < 5 and not is_holiday)


@pytest.mark.parametrize(
    ("day", "delay", "due"),
    [
        ((9, 29), 1, (9, 30)),
        ((9, 30), 1, (10, 8)),  # over the holidays
        ((10, 3), 1, (10, 8)),
        ((10, 8), 2, (10, 10)),  # a Saturday that is worked
        ((10, 9), 2, (10, 12)),
    ],
)
def test_working_days_are_counted_over_holidays_and_made_up_saturdays(
    day: tuple[int, int], delay: int, due: tuple[int, int]
) -> None:
    figures = TermFigures(delay_days=delay, counts=Counts.WORKING)
    assert due_from(figures, date(2026, *day), works) == date(2026, *due)


@given(offset=st.integers(0, 60), delay=st.integers(1, 5), counts=st.sampled_from(list(Counts)))
@examples(max_examples=60)
def test_the_newest_due_day_is_due_and_the_next_is_not(
    offset: int, delay: int, counts: Counts
) -> None:
    figures = TermFigures(delay_days=delay, counts=counts)
    today = date(2026, 9, 20) + timedelta(days=offset)
    newest = newest_due(figures, today, works)
    assert due_from(figures, newest, works) <= today
    assert due_from(figures, newest + timedelta(days=1), works) > today


# What is agreed, in the book


async def test_a_day_is_cut_off_when_it_was_agreed(books: Books) -> None:
    await agree(books, cut_off_minute=22 * 60)
    books.at(FIRST_DAY, 21, 59)
    await books.capture(1_000, 0)
    books.at(FIRST_DAY, 22, 1)
    await books.capture(500, 0)
    books.at(FIRST_DAY + timedelta(days=1), 11, 30)
    [first] = await books.settle(FIRST_DAY)
    books.at(FIRST_DAY + timedelta(days=2), 11, 30)
    [second] = await books.settle(FIRST_DAY + timedelta(days=1))

    assert (first.gross, second.gross) == (1_000, 500)
    assert (first.carried, second.payable) == (0, 500)
    await sound(books)


async def test_what_is_too_little_waits_for_more(books: Books) -> None:
    await agree(books, payable_min=1_000)
    await books.capture(999, 0)
    books.at(FIRST_DAY + timedelta(days=1), 11, 30)
    [first] = await books.settle(FIRST_DAY)
    await books.capture(1, 0)
    books.at(FIRST_DAY + timedelta(days=2), 11, 30)
    [second] = await books.settle(FIRST_DAY + timedelta(days=1))

    assert (first.payable, first.carried, first.payout_id) == (0, 999, None)
    assert (second.opening, second.payable, second.carried) == (999, 1_000, 0)
    await sound(books)


async def test_a_hold_keeps_back_its_amount_until_it_is_lifted(books: Books) -> None:
    hold_id = await hold(books, amount=300)
    await books.capture(1_000, 0)
    books.at(FIRST_DAY + timedelta(days=1), 11, 30)
    [first] = await books.settle(FIRST_DAY)
    async with books.db.begin("operator:bert") as tx:
        await lift_hold(tx, await hold_with_id(tx, hold_id))
    books.at(FIRST_DAY + timedelta(days=2), 11, 30)
    [second] = await books.settle(FIRST_DAY + timedelta(days=1))

    assert (first.payable, first.carried) == (700, 300)
    assert (second.payable, second.line_count) == (300, 0)
    await sound(books)


async def test_a_hold_on_everything_ends_by_itself_on_its_day(books: Books) -> None:
    await hold(books, until_day=FIRST_DAY + timedelta(days=2))
    await books.capture(1_000, 0)
    books.at(FIRST_DAY + timedelta(days=1), 11, 30)
    [first] = await books.settle(FIRST_DAY)
    books.at(FIRST_DAY + timedelta(days=2), 11, 30)
    [second] = await books.settle(FIRST_DAY + timedelta(days=1))

    assert (first.payable, second.payable) == (0, 1_000)


async def test_what_is_kept_in_reserve_comes_back_on_its_day_and_once(books: Books) -> None:
    await agree(books, reserve_ppm=100_000, reserve_days=2)
    await books.capture(10_005, 5)
    books.at(FIRST_DAY + timedelta(days=1), 11, 30)
    [first] = await books.settle(FIRST_DAY)
    reserve = AccountKey("merchant_reserve", "CNY", books.merchant.id)

    assert (first.reserved, first.payable, first.carried) == (1_001, 8_999, 0)
    assert first.reserve_until == FIRST_DAY + timedelta(days=3)
    assert await books.posted(reserve) == 1_001
    assert await release_reserves(books.clearing) == 0
    books.at(FIRST_DAY + timedelta(days=3), 11, 30)
    assert [await release_reserves(books.clearing) for _ in range(2)] == [1, 0]
    assert await books.posted(reserve) == 0
    books.at(FIRST_DAY + timedelta(days=4), 11, 30)
    [second] = await books.settle(FIRST_DAY + timedelta(days=3))
    assert (second.other, second.payable, second.reserved) == (1_001, 1_001, 0)
    await sound(books)


async def test_a_merchant_in_a_hurry_pays_for_it_and_the_day_has_the_rest(books: Books) -> None:
    where = (books.clearing, books.merchant, Mode.SANDBOX, "CNY")
    with pytest.raises(QuickNotAgreed):
        await settle_quickly(*where)
    await agree(books, quick_allowed=True, quick_ppm=500, quick_fee_min=10)
    await books.capture(100_000, 0)
    quick = await settle_quickly(*where)
    with pytest.raises(NothingPayable):
        await settle_quickly(*where)
    await books.capture(1_000, 0)
    books.at(FIRST_DAY + timedelta(days=1), 11, 30)
    [rest] = await books.settle(FIRST_DAY)

    assert (quick.payable, quick.quick_fee, quick.day) == (99_950, 50, FIRST_DAY)
    assert (rest.gross, rest.payable, rest.number) == (1_000, 1_000, 2)
    assert await books.posted(AccountKey("fee_income", "CNY")) == 50
    [payout] = await books.rows("select run_at from task where type = 'payouts.submit_payout'"
                                " order by run_at limit 1")  # fmt: skip
    assert payout[0] < datetime.combine(FIRST_DAY, datetime.max.time(), books.now.tzinfo)
    await sound(books)


async def test_terms_count_from_their_day_and_need_other_eyes(books: Books) -> None:
    wanted = NewTerms(books.merchant.id, books.mode, books.today, TermFigures(delay_days=3))
    async with books.db.begin("operator:anna") as tx:
        approval = await propose_terms(tx, wanted, reason="slow goods")
        yesterday = FIRST_DAY - timedelta(days=1)
        past = NewTerms(books.merchant.id, books.mode, yesterday, TermFigures())
        with pytest.raises(SettlementTermsPast):
            await propose_terms(tx, past, reason="back then")
    assert approval.maker == "operator:anna"
    assert await terms_of_merchant(books.db, books.merchant.id, books.mode) == []
    await agree(books, delay_days=3)
    await books.capture(1_000, 0)
    books.at(FIRST_DAY + timedelta(days=2), 11, 30)
    with pytest.raises(SettlementNotDue):
        await books.settle(FIRST_DAY)
    books.at(FIRST_DAY + timedelta(days=3), 11, 30)
    [settlement] = await books.settle(FIRST_DAY)
    assert settlement.payable == 1_000


async def test_a_hold_that_makes_no_sense_is_refused(books: Books) -> None:
    for wrong in ({"amount": 0}, {"until_day": FIRST_DAY}, {"reason": " x "}):
        with pytest.raises(SettlementHoldInvalid):
            await hold(books, **wrong)

"""Points of settlement, bank files and the fast lane that no other test dies at."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace

from tests.clearing.books import FIRST_DAY, Books, open_books
from tests.clearing.conftest import Day
from tests.clearing.test_payout_files import by_file, made, now
from tests.clearing.test_settlement_terms import agree
from tests.dying import dying
from tongbao.clearing.sets import duck
from tongbao.clearing.settlement.reserves import release_reserves
from tongbao.infra.db import Db
from tongbao.ledger.model import AccountKey


@pytest.fixture
async def books(db: Db, tmp_path: Path) -> Books:
    return await open_books(db, tmp_path)


async def test_a_reserve_whose_release_died_comes_back_once(books: Books) -> None:
    await agree(books, reserve_ppm=100_000, reserve_days=2)
    await books.capture(10_005, 5)
    books.at(FIRST_DAY + timedelta(days=1), 11, 30)
    await books.settle(FIRST_DAY)
    books.at(FIRST_DAY + timedelta(days=3), 11, 30)

    with dying("settlement.before_reserve"):
        await release_reserves(books.clearing)

    assert [await release_reserves(books.clearing) for _ in range(2)] == [1, 0]
    assert await books.posted(AccountKey("merchant_reserve", "CNY", books.merchant.id)) == 0


async def test_a_file_that_died_before_it_was_written_down_takes_no_payout(day: Day) -> None:
    payout = await by_file(day)
    with dying("payouts.before_file"):
        await made(day)
    assert (await now(day, payout)).state == "requested"
    assert (await made(day)).count == 1


@pytest.mark.skipif(not duck.is_there(), reason="duckdb is not installed")
async def test_a_fast_lane_that_died_is_taken_again(day: Day) -> None:
    day.clearing = replace(day.clearing, quick_from=0)
    await day.paid("wechat_pay", 1000, 2000)
    await day.over()
    with dying("reconciliation.after_lane"):
        await day.reconcile("wechat_pay")
    bill = await day.reconcile("wechat_pay")
    assert (bill.state, bill.matched_count) == ("matched", 2)

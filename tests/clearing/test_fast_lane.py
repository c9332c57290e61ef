"""The fast lane finds what the comparison in the database finds: the same tests, over both."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from tests.clearing import test_reconciliation as ordinary
from tests.clearing.conftest import Day
from tongbao.clearing.sets import duck

pytestmark = pytest.mark.skipif(not duck.is_there(), reason="duckdb is not installed")


@pytest.fixture
async def day(day: Day) -> Day:
    """A day whose bills all go through the fast lane, however small."""
    day.clearing = replace(day.clearing, quick_from=0)
    return day


def on(channel: str, test: Any) -> Any:
    """The test on one channel, or a kind of bill: lines as the table has them, or plain ones."""

    async def on_one_channel(day: Day) -> None:
        await test(day, channel)

    return on_one_channel


test_every_planted_difference_is_found_and_classed_and_nothing_else = on(
    "wechat_pay", ordinary.test_every_planted_difference_is_found_and_classed_and_nothing_else
)
test_every_planted_difference_of_a_bill_in_plain_lines_is_found = on(
    "alipay", ordinary.test_every_planted_difference_is_found_and_classed_and_nothing_else
)
test_a_cut_bill_proves_no_absence_and_is_fetched_again = on(
    "wechat_pay", ordinary.test_a_cut_bill_proves_no_absence_and_is_fetched_again
)
test_a_cut_bill_in_plain_lines_proves_no_absence_either = on(
    "alipay", ordinary.test_a_cut_bill_proves_no_absence_and_is_fetched_again
)
test_rows_that_cannot_be_read_are_told_one_by_one_and_the_others_count = (
    ordinary.test_rows_that_cannot_be_read_are_told_one_by_one_and_the_others_count
)
test_a_row_that_comes_twice_is_a_duplicate = ordinary.test_a_row_that_comes_twice_is_a_duplicate
test_the_ledger_is_the_third_side = ordinary.test_the_ledger_is_the_third_side
test_a_row_of_midday_that_comes_a_day_late_is_missing_until_it_comes = (
    ordinary.test_a_row_of_midday_that_comes_a_day_late_is_missing_until_it_comes
)
test_of_two_runs_at_once_one_counts_and_nothing_is_doubled = (
    ordinary.test_of_two_runs_at_once_one_counts_and_nothing_is_doubled
)

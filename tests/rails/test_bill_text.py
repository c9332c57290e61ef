"""What any bill's cells may hold, and what only a broken or hostile bill does."""

from __future__ import annotations

import io

import pytest

from tongbao.rails.channels.bill_text import (
    CELL_MAX,
    LINE_MAX,
    RowMalformed,
    cell,
    count,
    lines_of,
    moment,
)
from tongbao.rails.channels.contract.bills import BillFault


def test_a_line_with_a_nul_is_a_fault_that_can_be_stored() -> None:
    _, second, third = lines_of(io.BytesIO(b"one\ntw\0o\nthree\n"), "utf-8")
    assert second == (2, BillFault(2, "bill.not_text", "tw\N{REPLACEMENT CHARACTER}o"))
    assert third == (3, "three")


def test_an_endless_line_is_skipped_and_the_next_one_read() -> None:
    [(_, long), after] = lines_of(io.BytesIO(b"a" * (3 * LINE_MAX) + b"\nb\n"), "utf-8")
    assert isinstance(long, BillFault)
    assert after == (2, "b")


@pytest.mark.parametrize("text", ["9" * 16, "9" * 5000, "-1", "1.5", "٣", ""])
def test_what_is_no_number_of_trades_is_malformed(text: str) -> None:
    with pytest.raises(RowMalformed):
        count(text)


@pytest.mark.parametrize(
    "text", ["0001-01-01 00:00:00", "1999-12-31 23:59:59", "2030-13-01 00:00:00"]
)
def test_what_is_no_time_of_a_trade_is_malformed(text: str) -> None:
    with pytest.raises(RowMalformed):
        moment(text)


def test_a_cell_that_fits_into_no_index_is_malformed() -> None:
    assert cell({"a": "x" * CELL_MAX}, "a")
    with pytest.raises(RowMalformed) as malformed:
        cell({"a": "x" * (CELL_MAX + 1)}, "a")
    assert malformed.value.code == "bill.cell_too_long"

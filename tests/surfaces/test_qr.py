"""QR symbols of pages: their size, their path, and what no symbol holds."""

from __future__ import annotations

import re

import pytest

from tongbao.surfaces.page_kit.qr import QUIET_ZONE, QrTextTooLong, draw

FINDER = ["1111111", "1000001", "1011101", "1011101", "1011101", "1000001", "1111111"]


def modules(text: str) -> list[str]:
    """Paint the path, and return the rows without the zone around them."""
    symbol = draw(text)
    size = symbol.size
    rows = [["0"] * size for _ in range(size)]
    for left, y, width in re.findall(r"M(\d+),(\d+)h(\d+)v1h-\d+z", symbol.path):
        for x in range(int(left), int(left) + int(width)):
            assert rows[int(y)][x] == "0", "painted twice"
            rows[int(y)][x] = "1"
    inner = slice(QUIET_ZONE, size - QUIET_ZONE)
    assert sum(row.count("1") for row in rows) == sum(row[inner].count("1") for row in rows[inner])
    return ["".join(row[inner]) for row in rows[inner]]


@pytest.mark.parametrize(("length", "size"), [(1, 21), (14, 21), (15, 25), (2331, 177)])
def test_the_smallest_symbol_that_holds_it_is_drawn(length: int, size: int) -> None:
    assert len(modules("x" * length)) == size


def test_three_corners_say_where_it_is() -> None:
    rows = modules("https://example.com/pay/c/付款")
    assert [row[:7] for row in rows[:7]] == FINDER
    assert [row[-7:] for row in rows[:7]] == FINDER
    assert [row[:7] for row in rows[-7:]] == FINDER


def test_another_text_is_another_symbol() -> None:
    assert modules("https://example.com/1") != modules("https://example.com/2")


def test_what_no_symbol_holds_is_refused() -> None:
    with pytest.raises(QrTextTooLong):
        draw("x" * 2332)

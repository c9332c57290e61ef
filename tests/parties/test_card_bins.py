"""What a card's number tells: the longest beginning, the acquirer's table before the public one."""

from __future__ import annotations

import csv
from importlib import resources
from io import StringIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tongbao.infra.db import Db
from tongbao.parties.card_bins import bins
from tongbao.parties.card_bins.model import (
    BinFileUnreadable,
    BinKind,
    BinRow,
    best_row,
    brand_of,
    read_bins,
)
from tongbao.parties.price_plans.model import CardKind

HEAD = b"bin,bank,type,length\n"


def number(start: str, length: int) -> str:
    """A card number of a length; its last digit is not looked at."""
    return start + "0" * (length - len(start))


async def test_every_row_that_ships_is_found_again(module_db: Db) -> None:
    file = resources.files("tongbao.parties.card_bins").joinpath("bins.csv").read_text()
    lines = list(csv.DictReader(StringIO(file)))
    known = {(each["bin"], int(each["length"])): each for each in lines}
    assert len(lines) == len(known) == 1709

    for place, (start, length) in enumerate(known):
        card = number(start, length)
        starts = [card[:size] for size in range(10, 1, -1)]
        line = next(known[each, length] for each in starts if (each, length) in known)
        row = best_row(card, bins._shipped_near(card))
        assert row is not None
        assert (row.issuer, row.kind) == (line["bank"], line["type"])
        if place % 40 == 0:  # and so it is where rows that were loaded are asked, too
            found = await bins.card_facts(module_db, card)
            assert found is not None
            assert (found.issuer, found.kind, found.source) == (row.issuer, row.kind, bins.SHIPPED)
    assert bins.issuer_name("ICBC") == "中国工商银行"


@pytest.mark.parametrize(
    ("card", "issuer", "kind", "brand"),
    [
        ("6222020000000000000", "ICBC", CardKind.DEBIT, "unionpay"),
        ("3563900000000000", "CITIC", CardKind.CREDIT, "jcb"),
        ("9896000000000000", "CQBANK", CardKind.DEBIT, "unionpay"),
        ("4367420000000000000", "CCB", CardKind.DEBIT, "unionpay"),
        ("4563510000000000000", "BOC", CardKind.DEBIT, "unionpay"),
        ("4367450000000000", "CCB", CardKind.CREDIT, "visa"),
    ],
)
async def test_kind_issuer_and_brand_are_told(
    module_db: Db, card: str, issuer: str, kind: CardKind, brand: str
) -> None:
    found = await bins.card_facts(module_db, card)

    assert found is not None
    assert (found.issuer, found.kind.price_kind, found.brand) == (issuer, kind, brand)


async def test_a_number_of_another_length_is_unknown(module_db: Db) -> None:
    assert await bins.card_facts(module_db, "3563900000000000000") is None
    assert await bins.card_facts(module_db, "4111111111111111") is None


async def test_an_acquirers_row_wins_over_one_that_ships(module_db: Db) -> None:
    card = "6222030000000000000"
    before = await bins.card_facts(module_db, card)
    async with module_db.begin("operator") as tx:
        first = await bins.load_bins(tx, HEAD + b"622203,MINE,CC,19\n", "acquirer, 2026-11")
        again = await bins.load_bins(tx, HEAD + b"622203,MINE,SCC,19\n", "acquirer, 2026-12")
        same = await bins.load_bins(tx, HEAD + b"622203,MINE,SCC,19\n", "acquirer, 2026-12")
    after = await bins.card_facts(module_db, card)

    assert before is not None
    assert after is not None
    assert (before.issuer, before.source) == ("ICBC", bins.SHIPPED)
    assert (after.issuer, after.kind, after.source) == (
        "MINE",
        BinKind.SEMI_CREDIT,
        "acquirer, 2026-12",
    )
    assert [(each.new, each.changed) for each in (first, again, same)] == [(1, 0), (0, 1), (0, 0)]
    shown = await bins.rows_beginning(module_db, "622203")
    assert [each.issuer for each in shown][:1] == ["MINE"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"bin,bank,type\n622203,A,CC\n",
        HEAD,
        HEAD + b"622203,A,XX,19\n",
        HEAD + b"622203,A,CC,20\n",
        HEAD + b"62220312345,A,CC,19\n",
        HEAD + "６２２２,A,CC,19\n".encode(),
        HEAD + b"622203,,CC,19\n",
        HEAD + b"622203,A\n",
        HEAD + b"622203,A,CC,19\n622203,B,DC,19\n",
        b"\xff\xfe" + HEAD,
    ],
)
def test_a_file_is_taken_whole_or_not_at_all(content: bytes) -> None:
    with pytest.raises(BinFileUnreadable):
        read_bins(content, "test")


@given(
    st.lists(st.text("0123456789", min_size=2, max_size=10), unique=True, max_size=20),
    st.text("0123456789", min_size=16, max_size=16),
)
def test_the_longest_beginning_counts(prefixes: list[str], card: str) -> None:
    rows = [BinRow(each, 16, each, BinKind.DEBIT, "t") for each in prefixes]

    found = best_row(card, rows)

    fits = [each for each in prefixes if card.startswith(each)]
    assert (None if found is None else found.prefix) == max(fits, key=len, default=None)
    assert brand_of(card) in {"unionpay", "amex", "jcb", "visa", "mastercard", "other"}

"""Say what a card is by its number: from the rows that were loaded, then the table that ships.

The table that ships is public and ages, so an operator loads the acquirer's over it: a loaded row
wins over a shipped one of the same beginning. A loaded row stays until it is loaded anew.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from functools import cache
from hashlib import sha256
from importlib import resources
from io import StringIO
from types import MappingProxyType
from typing import Final

from msgspec import Struct

from tongbao.infra import audit
from tongbao.infra.db import Db, Tx
from tongbao.kernel.errors import Fact
from tongbao.parties.card_bins import _store as store
from tongbao.parties.card_bins.model import (
    PREFIX_MAX,
    PREFIX_MIN,
    BinRow,
    CardFacts,
    best_row,
    facts_of,
    read_bins,
)

SHIPPED: Final = "bcbc de63182"
_SAID_MAX: Final = 6
"""Of a card number no more than this goes to the database to find its row."""


class BinsLoaded(Struct, frozen=True):
    """What loading a file changed."""

    rows: int
    new: int
    changed: int


async def card_facts(on: Db | Tx, number: str) -> CardFacts | None:
    """Return what is known of a card by its number, or None where no table has it."""
    starts = [number[:size] for size in range(PREFIX_MIN, _SAID_MAX + 1)]
    loaded = await store.NEAR.all(on, starts, number[:_SAID_MAX], len(number))
    found = best_row(number, [*loaded, *_shipped_near(number)])
    return None if found is None else facts_of(number, found)


async def load_bins(tx: Tx, content: bytes, source: str) -> BinsLoaded:
    """Take the rows of a file in; those of the same beginning and length are replaced.

    Raises:
        BinFileUnreadable
    """
    rows = read_bins(content, source)
    known = {(each.prefix, each.length): each for each in await store.ALL_ROWS.all(tx)}
    new = [each for each in rows if (each.prefix, each.length) not in known]
    changed = [
        each
        for each in rows
        if (old := known.get((each.prefix, each.length))) is not None
        and (old.issuer, old.kind) != (each.issuer, each.kind)
    ]
    columns: list[list[object]] = [
        [each.prefix for each in rows],
        [each.length for each in rows],
        [each.issuer for each in rows],
        [each.kind.value for each in rows],
    ]
    await store.PUT_ROWS.run(tx, *columns, source, tx.now)
    digest = sha256(content).hexdigest()
    facts: dict[str, Fact] = {
        "rows": len(rows),
        "new": len(new),
        "changed": len(changed),
        "sha256": digest,
    }
    await audit.record(tx, "bins.loaded", source, facts)
    return BinsLoaded(len(rows), len(new), len(changed))


async def rows_beginning(on: Db | Tx, digits: str) -> list[BinRow]:
    """Return the rows that numbers with this beginning may be of, loaded ones first."""
    loaded = await store.ALL_ROWS.all(on)
    rows = [*loaded, *(row for rows in _shipped().values() for row in rows)]
    return [
        each for each in rows if each.prefix.startswith(digits) or digits.startswith(each.prefix)
    ]


def issuer_name(code: str) -> str:
    """Return a bank's name in Chinese for its short code, or the code."""
    return _names().get(code, code)


def _shipped_near(number: str) -> list[BinRow]:
    sizes = range(PREFIX_MIN, PREFIX_MAX + 1)
    return [row for size in sizes for row in _shipped().get(number[:size], ())]


@cache
def _shipped() -> Mapping[str, Sequence[BinRow]]:
    rows: dict[str, list[BinRow]] = {}
    for each in read_bins(_file("bins.csv"), SHIPPED):
        rows.setdefault(each.prefix, []).append(each)
    return MappingProxyType(rows)


@cache
def _names() -> Mapping[str, str]:
    lines = csv.reader(StringIO(_file("issuers.csv").decode()))
    return MappingProxyType({line[0]: line[1] for line in lines if len(line) > 1})


def _file(name: str) -> bytes:
    return resources.files(__package__).joinpath(name).read_bytes()

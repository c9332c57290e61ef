"""Every table has a class, and no column says more than its table's class."""

from __future__ import annotations

import csv
import re
from fnmatch import fnmatchcase

import pytest

from tongbao.infra.db import Db
from tools.house import ROOT

PATH = ROOT / "docs" / "data-classes.csv"
SAYS: dict[str, re.Pattern[str]] = {
    "C3": re.compile(
        r"secret_sealed|totp_sealed|password_hash|key_sealed|component_sealed|wrapped|sealed_secrets"
    ),
    "C2": re.compile(
        r"(^|_)(phone|mail|blind|payer|payee|holder|sealed|masked|client_ip|person_id"
        r"|balance)($|_)"
    ),
}
"""What columns are called that hold such things."""


@pytest.fixture(scope="module")
def classes() -> list[tuple[str, str]]:
    with PATH.open(encoding="utf-8", newline="") as file:
        head, *rows = csv.reader(file)
    assert head == ["tables", "class", "holds"]
    assert all(len(row) == 3 and row[2] for row in rows)
    return [(row[0], row[1]) for row in rows]


@pytest.fixture
async def columns(db: Db) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for schema, table, column in await db.fetch(
        """select table_schema::text, table_name::text, column_name::text
             from information_schema.columns where table_schema in ('public', 'vault')""",
        (),
    ):
        name = table if schema == "public" else f"{schema}.{table}"
        if not re.search(r"_(\d{4}_\d\d|default)$", name):  # a partition of another
            found.setdefault(name, []).append(column)
    return found


def class_of(table: str, classes: list[tuple[str, str]]) -> str | None:
    return next((each for pattern, each in classes if fnmatchcase(table, pattern)), None)


async def test_every_table_has_a_class(
    columns: dict[str, list[str]], classes: list[tuple[str, str]]
) -> None:
    assert {each for _, each in classes} == {"C1", "C2", "C3"}
    unclassed = sorted(table for table in columns if class_of(table, classes) is None)
    assert not unclassed, f"add a row to {PATH.relative_to(ROOT)}"


async def test_no_column_says_more_than_the_class_of_its_table(
    columns: dict[str, list[str]], classes: list[tuple[str, str]]
) -> None:
    beyond = [
        f"{table}.{column} is {said}"
        for table, names in columns.items()
        for column in names
        for said, pattern in SAYS.items()
        if pattern.search(column) and (class_of(table, classes) or "") < said
    ]

    assert not beyond

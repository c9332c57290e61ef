"""Migrations go forward only, and the schema they make keeps the rules every table must keep."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec import Struct

from tongbao.infra.db import Db
from tongbao.infra.migrate import Migration, migrate, packaged
from tongbao.kernel.licence import Licence

RELEASED = Path(__file__).with_name("released_migrations.txt")


class Table(Struct, frozen=True):
    """One table of the migrated schema."""

    name: str
    columns: dict[str, str]  # name → type
    key: list[str]  # the primary key, in order
    checks: str  # all CHECK constraints as text


@pytest.fixture
async def tables(db: Db) -> list[Table]:
    rows = await db.fetch(
        """select c.relname::text as name,
                  (select jsonb_object_agg(a.attname, format_type(a.atttypid, a.atttypmod))
                     from pg_attribute a
                    where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped) as columns,
                  array(select a.attname::text
                          from pg_index i
                          cross join unnest(i.indkey) with ordinality as k (number, place)
                          join pg_attribute a on a.attrelid = c.oid and a.attnum = k.number
                         where i.indrelid = c.oid and i.indisprimary order by k.place) as key,
                  coalesce((select string_agg(pg_get_constraintdef(o.oid), ' ')
                     from pg_constraint o
                    where o.conrelid = c.oid and o.contype = 'c'), '') as checks
             from pg_class c
            where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p')
            order by c.relname""",
        (),
    )
    return [Table(row["name"], row["columns"], row["key"], row["checks"]) for row in rows]


async def test_they_apply_forward_on_an_empty_database_and_only_once(make_db) -> None:
    db = await make_db(migrated=False)

    first = await migrate(db, Licence.AGGREGATOR, "tests")
    second = await migrate(db, Licence.AGGREGATOR, "tests")

    assert first == [migration.name for migration in packaged()]
    assert second == []


def test_numbers_have_no_gap_before_the_last_release() -> None:
    """`packaged` refuses doubles and misnamed files; a hole would let one slip in behind."""
    numbers = [int(migration.name[:4]) for migration in packaged()]
    released = len(released_checksums())

    assert numbers == sorted(set(numbers))
    assert numbers[:released] == list(range(1, released + 1))


def test_a_released_migration_never_changes() -> None:
    shipped = {migration.name: migration.checksum for migration in packaged()}

    changed = {name for name, sum_ in released_checksums().items() if shipped.get(name) != sum_}

    assert not changed, "put the change into a new migration"


def test_a_new_migration_comes_after_the_released_ones() -> None:
    released = released_checksums()
    names = [migration.name for migration in packaged()]

    assert set(names[: len(released)]) == set(released)


def test_a_checksum_does_not_depend_on_the_checkout() -> None:
    unix = Migration("0001_pre_a.sql", "select 1;\nselect 2;\n")
    windows = Migration("0001_pre_a.sql", "select 1;\r\nselect 2;\r\n")
    other = Migration("0001_pre_a.sql", "select 1;\nselect 3;\n")

    assert unix.checksum == windows.checksum
    assert unix.checksum != other.checksum


async def test_every_table_has_a_primary_key_and_a_singular_name(tables: list[Table]) -> None:
    assert not [table.name for table in tables if not table.key]
    assert not [
        table.name for table in tables if table.name.endswith("s") and table.name[-2] not in "su"
    ]


async def test_money_is_kept_by_book(tables: list[Table]) -> None:
    """The book is the shard: it leads the key of every table that has one."""
    assert not [
        table.name for table in tables if "book" in table.columns and table.key[0] != "book"
    ]


async def test_a_merchants_row_names_its_merchant_and_its_world(tables: list[Table]) -> None:
    """Without the mode a sandbox key could one day read a live row, or the other way round."""
    of_merchants = [table for table in tables if "merchant_id" in table.columns]

    assert not [table.name for table in of_merchants if "mode" not in table.columns]
    assert not [
        table.name
        for table in tables
        if "mode" in table.columns and not ("live" in table.checks and "sandbox" in table.checks)
    ]


async def test_no_column_rounds_money_or_forgets_the_zone(tables: list[Table]) -> None:
    banned = ("real", "double precision", "money", "timestamp without time zone", "json")

    assert not [
        f"{table.name}.{column} is {type_}"
        for table in tables
        for column, type_ in table.columns.items()
        if type_ in banned or type_.startswith(("numeric", "character"))
    ]


async def test_no_trigger_and_no_sequence_exists(db: Db) -> None:
    """Citus has neither for distributed tables."""
    triggers = await db.fetch("select tgname from pg_trigger where not tgisinternal", ())
    sequences = await db.fetch("select relname from pg_class where relkind = 'S'", ())

    assert not triggers
    assert not sequences


def released_checksums() -> dict[str, str]:
    lines = [line for line in RELEASED.read_text().splitlines() if line and line[0] != "#"]
    return {name: sum_ for sum_, name in (line.split() for line in lines)}

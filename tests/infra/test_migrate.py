"""Migrations: forward only, each whole, and what is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import asyncpg
import pytest

from tongbao.infra import audit, migrate
from tongbao.infra.db import Db, Query
from tongbao.infra.db_failures import LockNotFree
from tongbao.infra.migrate import Migration
from tongbao.kernel.licence import Licence

MakeDb = Callable[..., Awaitable[Db]]
FIRST = migrate.packaged()[0]
BIRD = Migration("9001_pre_bird.sql", "create table bird (id int); insert into bird values (1);")
FISH = Migration("9002_pre_fish.sql", "create table fish (id int);")
TIDY = Migration("9003_post_tidy.sql", "drop table bird;")
BROKEN = Migration("9004_pre_broken.sql", "create table half (id int); select 1/0;")

_EXISTS = Query(bool, "select to_regclass($1::text) is not null")


@pytest.fixture
async def empty(make_db: MakeDb) -> Db:
    return await make_db(migrated=False)


async def apply(on: Db, *migrations: Migration, licence: Licence = Licence.BANK) -> list[str]:
    return await migrate.migrate(on, licence, "tests", migrations=[FIRST, *migrations])


async def test_what_ships_applies_to_an_empty_database_once(empty: Db) -> None:
    names = [migration.name for migration in migrate.packaged()]
    assert await migrate.pending_migrations(empty) == names
    assert await migrate.migrate(empty, Licence.BANK, "tests") == names
    assert await migrate.migrate(empty, Licence.BANK, "tests") == []
    assert await migrate.pending_migrations(empty) == []


async def test_a_later_version_applies_only_what_is_new(empty: Db) -> None:
    await apply(empty, BIRD)
    assert await apply(empty, BIRD, FISH) == [FISH.name]


async def test_a_file_that_fails_leaves_nothing_and_those_before_it_stand(empty: Db) -> None:
    with pytest.raises(asyncpg.DivisionByZeroError):
        await apply(empty, BIRD, BROKEN)
    assert await _EXISTS.one(empty, "bird")
    assert not await _EXISTS.one(empty, "half")
    mended = Migration(BROKEN.name, "create table half (id int);")
    assert await apply(empty, BIRD, mended) == [mended.name]


async def test_an_applied_file_that_changed_is_refused(empty: Db) -> None:
    await apply(empty, BIRD)
    with pytest.raises(migrate.MigrationChanged, match=BIRD.name):
        await apply(empty, Migration(BIRD.name, BIRD.sql + " "), FISH)
    assert not await _EXISTS.one(empty, "fish")


async def test_line_ends_are_not_a_change(empty: Db) -> None:
    unix = Migration("9001_pre_bird.sql", "create table bird (\n id int);\n")
    await apply(empty, unix)
    assert await apply(empty, Migration(unix.name, unix.sql.replace("\n", "\r\n"))) == []


async def test_a_database_newer_than_the_program_is_refused(empty: Db) -> None:
    await apply(empty, BIRD, FISH)
    with pytest.raises(migrate.MigrationMissing, match=FISH.name):
        await apply(empty, BIRD)


async def test_a_number_below_an_applied_one_is_refused(empty: Db) -> None:
    await apply(empty, FISH)
    with pytest.raises(migrate.MigrationOutOfOrder, match=BIRD.name):
        await apply(empty, BIRD, FISH)


async def test_the_licence_is_fixed_at_the_first_migration(empty: Db) -> None:
    await apply(empty, licence=Licence.AGGREGATOR)
    assert (await migrate.deployment(empty)).licence is Licence.AGGREGATOR
    with pytest.raises(migrate.LicenceFixed) as refused:
        await apply(empty, BIRD, licence=Licence.BANK)
    assert refused.value.facts == {"recorded": "aggregator", "requested": "bank"}
    assert not await _EXISTS.one(empty, "bird")


async def test_migrations_and_the_licence_are_in_the_audit_log(empty: Db) -> None:
    await apply(empty, BIRD)
    entries = await audit.entries_of_subject(empty, "deployment")
    assert [entry.action for entry in entries] == [
        "deployment.created",
        "migration.applied",
        "migration.applied",
    ]
    assert entries[0].facts == {"licence": "bank"}
    assert entries[2].facts == {"name": BIRD.name, "checksum": BIRD.checksum}
    assert {entry.actor for entry in entries} == {"tests"}


async def test_post_files_at_the_end_can_wait_for_the_old_program_to_go(empty: Db) -> None:
    shipped = [FIRST, BIRD, FISH, TIDY]
    early = await migrate.migrate(empty, Licence.BANK, "tests", migrations=shipped, leave_post=True)
    assert early == [FIRST.name, BIRD.name, FISH.name]
    late = await migrate.migrate(empty, Licence.BANK, "tests", migrations=shipped)
    assert late == [TIDY.name]


async def test_processes_that_migrate_at_once_apply_each_file_once(make_db: MakeDb) -> None:
    first = await make_db(migrated=False, connections_max=20)
    shipped = [FIRST, BIRD, FISH]
    runs = await asyncio.gather(
        *(migrate.migrate(first, Licence.BANK, "tests", migrations=shipped) for _ in range(8))
    )
    assert sorted(name for run in runs for name in run) == [each.name for each in shipped]


async def test_a_table_in_use_makes_a_migration_give_up_and_not_block_others(empty: Db) -> None:
    await apply(empty, BIRD)
    impatient = Migration(
        "9005_pre_alter.sql", "set local lock_timeout = '10ms'; alter table bird add b int;"
    )
    async with empty.begin("reader") as tx:
        await tx.fetch("select * from bird", ())
        with pytest.raises(LockNotFree):
            await apply(empty, BIRD, impatient)
    assert await apply(empty, BIRD, impatient) == [impatient.name]


@pytest.mark.parametrize("names", [["1_pre_x.sql"], ["0001_x.sql"], ["0001_pre_X.sql"],
                                   ["0001_pre_a.sql", "0001_post_b.sql"]])  # fmt: skip
def test_a_file_with_a_wrong_name_is_refused(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        (tmp_path / name).write_text("select 1;")
    with pytest.raises(migrate.MigrationMisnamed):
        migrate.read_folder(tmp_path)

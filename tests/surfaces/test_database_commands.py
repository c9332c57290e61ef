"""`tongbao db`: a mistake undone by going back, a database of another's, months that leave."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import UUID

import pytest

from tests.ledger.archive import past
from tests.surfaces.commands import Cli, command_line
from tongbao.infra import embedded
from tongbao.infra._server_place import EmbeddedProgramsMissing, server_owner
from tongbao.infra.db import Db
from tongbao.infra.migrate import migrate
from tongbao.kernel.clock import real_now
from tongbao.kernel.ids import derived_id, new_id
from tongbao.kernel.licence import Licence
from tongbao.ledger.book import Ledger
from tongbao.ledger.model import AccountKey, Group, Transfer, TransferKind
from tongbao.ledger.queries import balance_of, books

BANK = AccountKey("bank", "CNY")
ALICE = AccountKey("wallet", "CNY", UUID(int=0xA11CE))
LICENCE = Licence.PAYMENT_INSTITUTION
OLD = "16"


@pytest.fixture
def environment(server_folder: Path) -> dict[str, str]:
    return {
        "TONGBAO_DATA_DIR": str(server_folder / "data"),
        "TONGBAO_LICENCE": LICENCE.value,
        "TONGBAO_LOG_LEVEL": "warning",
    }


@pytest.fixture
def cli_of_a_dsn(dsn: str, tmp_path: Path) -> Iterator[Cli]:
    """The command line of a firm whose database is not ours."""
    environment = {
        "TONGBAO_DSN": dsn,
        "TONGBAO_DATA_DIR": str(tmp_path),
        "TONGBAO_LICENCE": LICENCE.value,
        "TONGBAO_LOG_LEVEL": "warning",
    }
    with command_line(environment) as run:
        yield run


@pytest.fixture
async def running(data_folder: Path, make_db) -> AsyncIterator[Db]:
    server = embedded.start(data_folder)
    on = await make_db(dsn=server.dsn)
    await migrate(on, LICENCE, "tests")
    yield on
    await on.close()
    server.stop()


async def pay_in(ledger: Ledger, count: int, amount: int = 100) -> None:
    groups = []
    for _ in range(count):
        reference = new_id()
        leg = derived_id(reference, "leg")
        moved = Transfer(leg, TransferKind.SINGLE, "test/leg", reference, amount, BANK, ALICE)
        groups.append(Group(leg, 1, (moved,)))
    results = await ledger.submit(groups)
    assert {result.status for result in results} == {"created"}


async def test_a_mistake_is_undone_by_going_back_to_the_moment_before(
    cli: Cli, running: Db, server_folder: Path, make_db
) -> None:
    ledger = Ledger(running, LICENCE)
    await pay_in(ledger, 5)
    assert (await cli("db", "backup")).code == 0
    await pay_in(ledger, 20)
    moment = real_now()
    await asyncio.sleep(0.01)
    await pay_in(ledger, 7, amount=1_000_000)
    await ledger.close()
    await running.execute("alter table ledger_account rename to oops", ())

    restored = await cli(
        *("--json", "db", "restore", "--to", moment.isoformat()),
        *("--into", str(server_folder / "then")),
    )

    assert restored.code == 0, restored.err
    assert restored.json["ledger"] == "sound"
    assert restored.json["transfers"] == 25
    then = embedded.start(server_folder / "then")
    on = await make_db(dsn=then.dsn)
    assert next(head.last_seq for head in await books(on)) == 25
    assert (await balance_of(on, 1, ALICE)).posted == 2_500
    again = Ledger(on, LICENCE)
    await pay_in(again, 1)
    assert (await balance_of(on, 1, ALICE)).posted == 2_600
    await again.close()
    await on.close()
    then.stop()


async def test_backups_are_listed_verified_and_say_what_they_cover(cli: Cli, running: Db) -> None:
    taken = await cli("--json", "db", "backup", "--keep", "2")
    listed = await cli("--json", "db", "backups", "--verify")
    told = await cli("db", "backups")

    assert [each["backup"] for each in listed.json] == [taken.json["backup"]]
    assert listed.json[0]["log_segments"] >= 1
    assert told.out.splitlines()[-1].endswith("to now")


async def test_a_moment_without_a_zone_or_outside_is_refused_with_what_is_covered(
    cli: Cli, running: Db, server_folder: Path
) -> None:
    await cli("db", "backup")

    no_zone = await cli("db", "restore", "--to", "2026-11-21T12:00:00")
    too_early = await cli("db", "restore", "--to", "2020-01-01T00:00:00Z")
    no_time = await cli("db", "restore", "--to", "yesterday")

    assert (no_zone.code, too_early.code, no_time.code) == (1, 1, 2)
    assert "restore.time_without_zone" in no_zone.err
    assert "restore.time_not_covered" in too_early.err
    assert "to=now" in too_early.err
    assert sorted(path.name for path in server_folder.iterdir()) == ["data"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("backup",), "pg_basebackup"),
        (("backups",), "pg_basebackup"),
        (("restore", "--to", "2026-11-21T12:00:00Z"), "recovery_target_time"),
        (("upgrade",), "pg_upgrade"),
    ],
)
async def test_for_a_database_of_anothers_the_commands_are_shown(
    cli_of_a_dsn: Cli, words: tuple[str, ...], says: str
) -> None:
    said = await cli_of_a_dsn("db", *words)

    assert said.code == 1
    assert says in said.err
    assert "database.not_ours" in said.err


async def test_there_is_nothing_to_upgrade_in_a_new_folder(cli: Cli, running: Db) -> None:
    said = await cli("db", "upgrade")

    assert said.code == 1
    assert "upgrade.not_needed" in said.err


async def test_a_ledger_of_an_older_postgresql_is_brought_over_and_proved(
    cli: Cli, server_folder: Path, make_db, monkeypatch: pytest.MonkeyPatch
) -> None:
    newest = embedded.place_in
    try:
        newest(server_folder, server_owner(), OLD)
    except EmbeddedProgramsMissing:
        pytest.skip(f"the wheel has no PostgreSQL {OLD}")
    with monkeypatch.context() as patched:
        patched.setattr(embedded, "place_in", lambda at, owner: newest(at, owner, OLD))
        old = embedded.start(server_folder / "data")
    on = await make_db(dsn=old.dsn)
    await migrate(on, LICENCE, "tests")
    ledger = Ledger(on, LICENCE)
    await pay_in(ledger, 9)
    await ledger.close()
    await on.close()
    old.stop()

    refused = await cli("db", "partitions")
    done = await cli("--json", "db", "upgrade")
    forgotten = await cli("--json", "db", "upgrade", "--forget-old")

    assert "tongbao db upgrade" in refused.err
    assert done.code == 0, done.err
    assert (done.json["was"], done.json["ledger"]) == (f"postgres-{OLD}", "sound")
    assert done.json["transfers"] == 9
    assert forgotten.json == [{"deleted": done.json["kept"]}]


async def test_a_month_leaves_and_comes_back_by_command(
    cli_of_a_dsn: Cli, db: Db, tmp_path: Path
) -> None:
    await past.make_past(db)
    ledger = Ledger(db, LICENCE)
    await past.submit(ledger, past.group_of(past.transfer(past.MONTH, 100, BANK, ALICE)))
    await ledger.close()
    await past.pretend_proven(db)
    month = f"{past.MONTH:%Y-%m}"

    archived = await cli_of_a_dsn("--json", "db", "archive", month, "--to", str(tmp_path / "away"))
    listed = await cli_of_a_dsn("--json", "db", "partitions")
    back = await cli_of_a_dsn("--json", "db", "bring-back", month)

    assert archived.code == 0, archived.err
    assert archived.json["transfers"] == 1
    names = {each["partition"]: each["state"] for each in listed.json}
    assert names[month] == "archived"
    assert names[f"ledger_transfer_{past.NEXT:%Y_%m}"] == "open"
    assert (await cli_of_a_dsn("db", "archive", "2026")).code == 1
    assert back.json["state"] == "sealed"


async def test_the_commands_for_a_cluster_are_shown_without_one(cli_of_a_dsn: Cli) -> None:
    shown = await cli_of_a_dsn("--json", "db", "distribute", "--print")
    refused = await cli_of_a_dsn("db", "distribute")
    moved = await cli_of_a_dsn("db", "move-book", "1", "--to", "worker-2:5432")

    assert any("create_distributed_table('ledger_book'" in each["sql"] for each in shown.json)
    assert "distribute.citus_missing" in refused.err
    assert "distribute.citus_missing" in moved.err

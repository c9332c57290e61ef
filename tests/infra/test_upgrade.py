"""A cluster of an older PostgreSQL becomes one of the installed version, and stays beside it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import asyncpg
import pytest

from tongbao.infra import _server_place as place
from tongbao.infra import backup, embedded
from tongbao.infra._server_place import EmbeddedProgramsMissing
from tongbao.infra.embedded import EmbeddedVersionChanged
from tongbao.infra.upgrade import (
    UpgradeNotDone,
    UpgradeNotNeeded,
    UpgradeServerRuns,
    forget_old,
    upgrade,
)

OLD = "16"


async def ask(dsn: str, sql: str) -> object:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


@pytest.fixture
def start_old(monkeypatch: pytest.MonkeyPatch):
    """Start a server of the older version, as the program of that time did."""
    try:
        place.place_in(Path("/nowhere"), place.server_owner(), OLD)
    except EmbeddedProgramsMissing:
        pytest.skip(f"the wheel has no PostgreSQL {OLD}")

    def start(folder: Path) -> embedded.EmbeddedServer:
        newest = embedded.place_in
        with monkeypatch.context() as patched:
            patched.setattr(embedded, "place_in", lambda at, owner: newest(at, owner, OLD))
            return embedded.start(folder)

    return start


async def test_the_data_are_there_in_the_new_version_and_the_old_is_kept(
    start_old, server_folder: Path
) -> None:
    old = start_old(server_folder)
    await ask(old.dsn, "create table kept as select 7 as n")
    backup_before = backup.backups_folder(server_folder)
    with pytest.raises(UpgradeServerRuns):
        upgrade(server_folder)
    old.stop()
    with pytest.raises(EmbeddedVersionChanged):
        embedded.start(server_folder)

    done = upgrade(server_folder)

    new = embedded.start(server_folder)
    assert await ask(new.dsn, "select n from kept") == 7
    assert not str(await ask(new.dsn, "show server_version")).startswith(OLD)
    assert await ask(new.dsn, "show data_checksums") == "on"
    assert done.kept == server_folder / f"postgres-{OLD}.old"
    assert (done.kept / "PG_VERSION").read_text().strip() == OLD
    assert backup.take(server_folder, backup_before).major != OLD
    assert forget_old(server_folder) == [done.kept]
    assert await ask(new.dsn, "select n from kept") == 7
    new.stop()


async def test_an_upgrade_cut_short_is_begun_anew_or_finished(
    start_old, server_folder: Path
) -> None:
    old = start_old(server_folder)
    await ask(old.dsn, "create table kept as select 7 as n")
    old.stop()
    (server_folder / "postgres-18.new").mkdir()
    upgrade(server_folder)
    (server_folder / f"postgres-{OLD}.old").rename(server_folder / f"postgres-{OLD}")

    upgrade(server_folder)

    new = embedded.start(server_folder)
    assert await ask(new.dsn, "select n from kept") == 7
    new.stop()


async def test_a_server_that_was_killed_is_recovered_first(start_old, server_folder: Path) -> None:
    old = start_old(server_folder)
    await ask(old.dsn, "create table kept as select 7 as n")
    pid = old.pid
    assert pid is not None
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    for each in [pid, *map(int, children)]:
        with suppress(ProcessLookupError):  # one of its own that was over just then
            embedded.os.kill(each, embedded.signal.SIGKILL)
    assert old._child is not None
    old._child.wait()

    upgrade(server_folder)

    new = embedded.start(server_folder)
    assert await ask(new.dsn, "select n from kept") == 7
    new.stop()


def test_there_is_nothing_to_do_for_the_version_installed(server_folder: Path) -> None:
    embedded.start(server_folder).stop()

    with pytest.raises(UpgradeNotNeeded):
        upgrade(server_folder)
    with pytest.raises(UpgradeNotDone):
        forget_old(server_folder)


def test_data_of_a_version_that_is_not_installed_are_refused_by_name(server_folder: Path) -> None:
    (server_folder / "postgres-13").mkdir()

    with pytest.raises(EmbeddedProgramsMissing):
        upgrade(server_folder)

"""The private PostgreSQL: found or started, alone or at once, after a crash, as root or not."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from tongbao.infra import _server_place as place
from tongbao.infra import embedded
from tongbao.infra._server_place import (
    EmbeddedDatabaseFailed,
    EmbeddedFolderUnreachable,
    EmbeddedFolderUnsafe,
    Owner,
)
from tongbao.infra.embedded import EmbeddedPasswordMissing, EmbeddedVersionChanged

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root changes the server's user")

START = """
import json, sys
from pathlib import Path
from tongbao.infra import _server_place as place
from tongbao.infra import embedded
server = embedded.start(Path(sys.argv[1]))
print(json.dumps({"dsn": server.dsn, "started_here": server.started_here, "pid": server.pid}))
"""


async def ask(dsn: str, sql: str) -> object:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


async def test_a_start_finds_the_server_that_runs(data_folder: Path) -> None:
    first = embedded.start(data_folder)
    second = embedded.start(data_folder)
    assert (first.started_here, second.started_here) == (True, False)
    assert (first.dsn, first.pid) == (second.dsn, second.pid)
    second.stop()
    assert first.pid is None
    first.stop()  # nothing left to do


async def test_what_was_stored_is_there_after_a_restart(data_folder: Path) -> None:
    server = embedded.start(data_folder)
    await ask(server.dsn, "create table kept as select 7 as n")
    server.stop()
    server = embedded.start(data_folder)
    assert await ask(server.dsn, "select n from kept") == 7


async def test_what_was_stored_survives_kill_9(durable_server) -> None:
    await ask(durable_server.dsn, "create table kept as select 7 as n")
    durable_server.kill9()
    durable_server.restart()
    assert await ask(durable_server.dsn, "select n from kept") == 7
    assert durable_server.running.started_here


def test_processes_that_start_at_once_share_one_server_and_need_no_home(
    server_folder: Path,
) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", START, server_folder],
            stdout=subprocess.PIPE,
            cwd=Path.cwd(),
            env={"PYTHONPATH": os.pathsep.join(sys.path)},
        )
        for _ in range(3)
    ]
    outputs = [process.communicate()[0] for process in processes]
    said = [json.loads(output) for output in outputs]
    assert sorted(each["started_here"] for each in said) == [False, False, True]
    assert len({each["dsn"] for each in said}) == len({each["pid"] for each in said}) == 1


def test_a_server_outlives_the_process_that_was_killed_and_is_found(
    server_folder: Path,
) -> None:
    output = subprocess.run(
        [sys.executable, "-c", START + "import os; sys.stdout.flush(); os.kill(os.getpid(), 9)",
         server_folder],
        capture_output=True, check=False,
    ).stdout  # fmt: skip
    found = embedded.start(server_folder)
    assert not found.started_here
    assert found.pid == json.loads(output)["pid"]
    assert asyncio.run(ask(found.dsn, "select 1")) == 1
    found.stop()
    assert found.pid is None


def test_a_pid_file_that_now_names_a_stranger_is_no_obstacle(data_folder: Path) -> None:
    embedded.start(data_folder).stop()
    cluster = next(data_folder.glob("postgres-*"))
    stranger = subprocess.Popen(["/bin/sleep", "60"], **place.server_owner().run_as())
    try:
        (cluster / "postmaster.pid").write_text(f"{stranger.pid}\n{cluster}\n")
        server = embedded.start(data_folder)
        assert server.started_here
        assert server.pid != stranger.pid
        server.stop()
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_creation_cut_short_is_begun_anew(server_folder: Path) -> None:
    embedded.start(server_folder).stop()
    cluster = next(server_folder.glob("postgres-*"))
    cluster.rename(cluster.with_suffix(".new"))
    (cluster.with_suffix(".new") / "PG_VERSION").unlink()
    assert asyncio.run(ask(embedded.start(server_folder).dsn, "select 1")) == 1


async def test_the_server_is_durable_private_and_checks_its_pages(durable_server) -> None:
    expected = {
        "fsync": "on",
        "synchronous_commit": "on",
        "full_page_writes": "on",
        "data_checksums": "on",
        "listen_addresses": "",
        "server_encoding": "UTF8",
        "lc_collate": None,
        "timezone": "UTC",
        "max_wal_size": "2GB",
        "checkpoint_timeout": "15min",
        "autovacuum_vacuum_scale_factor": "0.01",
    }
    for name, value in expected.items():
        if value is not None:
            assert await ask(durable_server.dsn, f"show {name}") == value, name
    collation = "select datcollate from pg_database where datname = current_database()"
    assert await ask(durable_server.dsn, collation) == "C"


async def test_the_program_is_no_superuser_and_nobody_else_may_connect(durable_server) -> None:
    assert await ask(durable_server.dsn, "show is_superuser") == "off"
    parts = urlsplit(durable_server.dsn)
    for user in ("postgres:x@", "tongbao:wrong@"):
        with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError):
            await ask(urlunsplit(parts._replace(netloc=user)), "select 1")


def test_the_password_is_for_its_owner_only_and_not_printed(server_folder: Path) -> None:
    server = embedded.start(server_folder)
    password = (server_folder / "password").read_text()
    assert password in server.dsn
    assert password not in repr(server)
    modes = {path.name: oct(path.stat().st_mode)[-3:] for path in server_folder.iterdir()}
    assert (modes["password"], modes["run"], modes["server.log"]) == ("600", "700", "600")


async def test_the_log_repeats_no_value_of_a_row(data_folder: Path) -> None:
    server = embedded.start(data_folder)
    await ask(server.dsn, "create table person (card text primary key)")
    await ask(server.dsn, "insert into person values ('4111111111111111')")
    with pytest.raises(asyncpg.UniqueViolationError):
        await ask(server.dsn, "insert into person values ('4111111111111111')")
    said = (data_folder / "server.log").read_text()
    assert "duplicate key" in said
    assert "4111111111111111" not in said


def test_data_of_another_postgresql_are_not_passed_over(data_folder: Path) -> None:
    embedded.start(data_folder).stop()
    cluster = next(data_folder.glob("postgres-*"))
    cluster.rename(data_folder / "postgres-12")
    with pytest.raises(EmbeddedVersionChanged):
        embedded.start(data_folder)


@needs_root
def test_a_folder_that_root_made_is_refused_to_others(data_folder: Path) -> None:
    embedded.start(data_folder).stop()
    script = START.replace("server = embedded", "os.setuid(65533); server = embedded")
    refused = subprocess.run(
        [sys.executable, "-c", "import os\n" + script, data_folder],
        capture_output=True, check=False,
    )  # fmt: skip
    assert b"embedded.folder_unsafe" in refused.stderr


async def test_the_operators_own_settings_win(data_folder: Path) -> None:
    (data_folder / "local.conf").write_text("work_mem = '7MB'\nmax_wal_size = '5GB'\n")
    server = embedded.start(data_folder)
    assert await ask(server.dsn, "show work_mem") == "7MB"
    assert await ask(server.dsn, "show max_wal_size") == "5GB"


def test_a_lost_password_is_refused_by_name(data_folder: Path) -> None:
    embedded.start(data_folder).stop()
    (data_folder / "password").unlink()
    with pytest.raises(EmbeddedPasswordMissing):
        embedded.start(data_folder)


def test_a_server_that_cannot_start_says_why(data_folder: Path) -> None:
    embedded.start(data_folder).stop()
    (data_folder / "local.conf").write_text("port = nonsense\n")
    with pytest.raises(EmbeddedDatabaseFailed, match="nonsense"):
        embedded.start(data_folder)


@pytest.mark.parametrize("name", ["x" * 120, "with space, comma and 'quote'"])
async def test_any_folder_name_works(server_folder: Path, name: str) -> None:
    server = embedded.start(server_folder / name)
    socket_folder = server._place.sockets
    assert socket_folder.parent == Path("/tmp")
    assert await ask(server.dsn, "select 1") == 1
    server.stop()
    assert not socket_folder.exists()


def test_a_socket_folder_of_somebody_else_is_refused(
    server_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted = server_folder / "planted"
    planted.symlink_to("/tmp")
    monkeypatch.setattr(place, "_socket_folder", lambda _: planted)
    with pytest.raises(EmbeddedFolderUnsafe):
        embedded.start(server_folder / "x")


def test_programs_in_a_private_folder_are_copied_once(
    server_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place, "MACHINE_FOLDER", server_folder / "machine")
    installed = place._binaries(Owner(None, None))[0].parent
    copied = place._copy_binaries(installed, "18.0")
    assert place._copy_binaries(installed, "18.0") == copied
    assert len(list((server_folder / "machine").iterdir())) == 1
    shown = subprocess.run([copied / "bin/postgres", "--version"], capture_output=True, check=True)
    assert b"PostgreSQL" in shown.stdout


@needs_root
def test_root_serves_from_a_wheel_that_only_root_can_read(
    server_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = place._binaries(Owner(None, None))[0].parent
    wheel, private = installed.parent, server_folder / "private"
    private.mkdir(mode=0o700)
    for folder in [installed, *place._libraries(wheel)]:
        copy = private / folder.relative_to(wheel.parent)
        shutil.copytree(folder, copy, symlinks=True)
    spec = SimpleNamespace(submodule_search_locations=[str(private / wheel.name)])
    monkeypatch.setattr(place.importlib.util, "find_spec", lambda _: spec)
    monkeypatch.setattr(place, "MACHINE_FOLDER", server_folder / "machine")
    server = embedded.start(server_folder / "data")
    assert server._place.binaries.is_relative_to(server_folder / "machine")
    owner = Path(f"/proc/{server.pid}").stat().st_uid
    assert owner == place.server_owner().uid != 0
    assert asyncio.run(ask(server.dsn, "select 1")) == 1


@needs_root
def test_root_in_a_private_folder_keeps_its_data_elsewhere(
    server_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(server_folder)
    assert embedded.default_data_dir() == server_folder / ".tongbao"
    private = server_folder / "private"
    (private / "checkout").mkdir(parents=True)
    private.chmod(0o700)
    monkeypatch.chdir(private / "checkout")
    elsewhere = embedded.default_data_dir()
    assert elsewhere.parent == place.MACHINE_FOLDER
    assert elsewhere == embedded.default_data_dir()


@needs_root
def test_a_data_folder_closed_to_the_server_is_refused_by_name(server_folder: Path) -> None:
    private = server_folder / "private"
    private.mkdir(mode=0o700)
    with pytest.raises(EmbeddedFolderUnreachable):
        embedded.start(private / "data")


@needs_root
def test_a_strict_umask_does_not_lock_the_server_out(server_folder: Path) -> None:
    before = os.umask(0o077)
    try:
        server = embedded.start(server_folder / "new" / "data")
        server.stop()
        server = embedded.start(server_folder / "new" / "data")
    finally:
        os.umask(before)
    assert server.pid is not None
    assert oct((server_folder / "new/data").stat().st_mode)[-3:] == "711"

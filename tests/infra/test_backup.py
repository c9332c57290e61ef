"""Backups of the private server: taken, verified, kept, and gone back to at any moment since."""

from __future__ import annotations

import asyncio
import gzip
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest

from tongbao.infra import _wal_archive as wal
from tongbao.infra import backup, embedded
from tongbao.infra._server_place import EmbeddedDatabaseFailed
from tongbao.infra.backup import (
    BackupArchiveOff,
    BackupDamaged,
    BackupMissing,
    BackupServerStopped,
    RestoreServerRuns,
    RestoreTargetTaken,
    RestoreTimeNotCovered,
    RestoreTimeWithoutZone,
)
from tongbao.kernel.clock import real_now


async def ask(dsn: str, sql: str) -> object:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


async def noted(dsn: str) -> object:
    return await ask(dsn, "select array_agg(n order by n) from noted")


async def note(dsn: str, number: int) -> datetime:
    """Write one row and return a moment after it and before the next."""
    await ask(dsn, f"insert into noted values ({number})")
    moment = real_now()
    await asyncio.sleep(0.01)
    return moment


@pytest.fixture
async def running(data_folder: Path) -> embedded.EmbeddedServer:
    server = embedded.start(data_folder)
    await ask(server.dsn, "create table noted (n int)")
    return server


async def content_of(folder: Path) -> object:
    restored = embedded.start(folder)
    try:
        return await noted(restored.dsn)
    finally:
        restored.stop()


async def test_a_restore_has_what_was_committed_by_then_and_nothing_later(
    running, server_folder: Path
) -> None:
    await note(running.dsn, 1)
    taken = backup.take(server_folder / "data")
    moment = await note(running.dsn, 2)
    await note(running.dsn, 3)

    restored = backup.restore(server_folder / "data", moment, server_folder / "then")

    assert restored.backup == taken.id
    assert await content_of(server_folder / "then") == [1, 2]
    assert await noted(running.dsn) == [1, 2, 3]


async def test_this_very_moment_can_be_restored_while_nothing_happens(
    running, server_folder: Path
) -> None:
    """PostgreSQL wants a commit after the moment; a quiet night has none."""
    backup.take(server_folder / "data")
    await note(running.dsn, 1)

    backup.restore(server_folder / "data", real_now(), server_folder / "running")
    running.stop()
    backup.restore(server_folder / "data", real_now(), server_folder / "stopped")

    assert await content_of(server_folder / "running") == [1]
    assert await content_of(server_folder / "stopped") == [1]


async def test_a_lost_disk_costs_what_was_not_archived_and_says_how_far_it_reaches(
    running, server_folder: Path
) -> None:
    data, kept = server_folder / "data", server_folder / "elsewhere"
    backup.take(data, kept)
    moment = await note(running.dsn, 1)
    await note(running.dsn, 2)
    backup.take(data)  # to the same folder; its end closes the segment that has both rows
    await note(running.dsn, 3)
    running.stop()
    shutil.rmtree(data)

    reach = backup.covered(kept, data)
    assert reach.to is not None
    with pytest.raises(RestoreTimeNotCovered) as refused:
        backup.restore(data, real_now(), server_folder / "late", backups=kept)
    backup.restore(data, moment, server_folder / "then", backups=kept)

    assert refused.value.facts["to"] == reach.to.isoformat()
    assert await content_of(server_folder / "then") == [1]


async def test_the_data_folder_itself_is_replaced_only_when_asked_for_and_kept_aside(
    running, server_folder: Path
) -> None:
    data = server_folder / "data"
    backup.take(data)
    moment = await note(running.dsn, 1)
    await note(running.dsn, 2)

    with pytest.raises(RestoreTargetTaken):
        backup.restore(data, moment, data)
    with pytest.raises(RestoreServerRuns):
        backup.restore(data, moment, data, replace=True)
    running.stop()
    backup.restore(data, moment, data, replace=True)

    assert await content_of(data) == [1]
    assert len(list(data.glob("postgres-??.before-*"))) == 1


async def test_what_follows_a_restore_is_backed_up_too(running, server_folder: Path) -> None:
    """The restored server goes on in the same archive, on a timeline of its own."""
    data = server_folder / "data"
    backup.take(data)
    moment = await note(running.dsn, 1)
    await note(running.dsn, 2)
    running.stop()
    backup.restore(data, moment, data, replace=True)
    again = embedded.start(data)
    await note(again.dsn, 3)
    later = backup.take(data)
    moment = await note(again.dsn, 4)
    await note(again.dsn, 5)

    backup.restore(data, moment, server_folder / "then")

    assert later.timeline == 2
    assert await content_of(server_folder / "then") == [1, 3, 4]


async def test_moments_outside_are_refused_with_what_is_covered(
    running, server_folder: Path
) -> None:
    taken = backup.take(server_folder / "data")
    into = server_folder / "then"

    for moment in (taken.started_at - timedelta(days=1), real_now() + timedelta(minutes=5)):
        with pytest.raises(RestoreTimeNotCovered) as refused:
            backup.restore(server_folder / "data", moment, into)
        assert refused.value.facts["since"] == taken.finished_at.isoformat()
        assert refused.value.facts["to"] == "now"
    with pytest.raises(RestoreTimeWithoutZone):
        backup.restore(server_folder / "data", real_now().replace(tzinfo=None), into)
    assert not into.exists()


async def test_a_folder_with_something_in_it_is_left_alone(running, server_folder: Path) -> None:
    backup.take(server_folder / "data")
    (server_folder / "taken").mkdir()
    (server_folder / "taken" / "thesis.txt").touch()

    with pytest.raises(RestoreTargetTaken):
        backup.restore(server_folder / "data", real_now(), server_folder / "taken", replace=True)


async def test_a_changed_file_and_a_hole_in_the_log_are_found(running, server_folder: Path) -> None:
    data = server_folder / "data"
    taken = backup.take(data)
    folder = backup.backups_folder(data)
    assert backup.verify_backup(folder, taken) >= 1

    base = folder / taken.id / "base" / "base.tar.gz"
    honest = base.read_bytes()
    base.write_bytes(honest[:-9] + bytes([honest[-9] ^ 1]) + honest[-8:])
    with pytest.raises(BackupDamaged, match=r"base\.tar\.gz"):
        backup.verify_backup(folder, taken)
    base.write_bytes(honest)

    segment = next(wal.folder_of(folder, taken.system).glob("*[0-9A-F].gz"))
    whole = segment.read_bytes()
    segment.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BackupDamaged, match=segment.name):
        backup.verify_backup(folder, taken)
    segment.unlink()
    with pytest.raises(BackupDamaged, match="archive"):
        backup.verify_backup(folder, taken)


async def test_old_backups_go_and_the_log_that_only_they_needed(
    running, server_folder: Path
) -> None:
    data = server_folder / "data"
    first = backup.take(data)
    second = backup.take(data, keep=1)

    folder = backup.backups_folder(data)
    assert [each.id for each in backup.list_backups(folder)] == [second.id]
    archive = wal.folder_of(folder, second.system)
    assert not wal.contiguous(archive, wal.number_at(first.start_lsn))
    assert wal.contiguous(archive, wal.number_at(second.start_lsn))


async def test_a_backup_needs_a_server_that_runs_and_archives(
    data_folder: Path, server_folder: Path
) -> None:
    embedded.start(data_folder).stop()
    with pytest.raises(BackupServerStopped):
        backup.take(data_folder)
    with pytest.raises(BackupMissing):
        backup.restore(data_folder, real_now(), server_folder / "then")
    server = embedded.start(data_folder, {"archive_mode": "off"})
    with pytest.raises(BackupArchiveOff):
        backup.take(data_folder)
    server.stop()


async def test_only_the_role_for_it_may_copy_the_cluster(running) -> None:
    parts = running.dsn.replace("tongbao:", "tongbao_backup:", 1)
    with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError):
        await ask(parts, "select 1")
    assert await ask(running.dsn, "select rolreplication from pg_roles where rolname = 'tongbao'") \
        is False  # fmt: skip


async def test_a_cluster_from_before_backups_learns_to_be_copied(data_folder: Path) -> None:
    embedded.start(data_folder).stop()
    hba = next(data_folder.glob("postgres-*")) / "pg_hba.conf"
    place = embedded.start(data_folder)._place
    embedded.start(data_folder).stop()
    embedded.run_single(place, place.cluster, "drop role tongbao_backup\n")
    hba.write_text("local all tongbao scram-sha-256\n")

    server = embedded.start(data_folder)

    assert backup.take(data_folder).files
    server.stop()


async def test_a_segment_archived_twice_is_fine_and_another_of_its_name_is_not(
    running, server_folder: Path
) -> None:
    data = server_folder / "data"
    taken = backup.take(data)
    script = data / "archive-wal.sh"
    archive = wal.folder_of(backup.backups_folder(data), taken.system)
    kept = next(archive.glob("*[0-9A-F].gz"))
    place = running._place
    segment = server_folder / kept.stem
    segment.write_bytes(gzip.decompress(kept.read_bytes()))
    segment.chmod(0o644)

    again = ["/bin/sh", str(script), str(segment), segment.name]
    wal.run_program(place, again)
    segment.write_bytes(b"\0" * 16)
    with pytest.raises(EmbeddedDatabaseFailed):
        wal.run_program(place, again)


def test_a_place_in_the_log_names_its_segment() -> None:
    assert wal.number_at("0/3000028") == 3
    assert wal.number_of("000000020000000000000003") == 3
    assert wal.number_at("1/00000000") == wal.number_of("000000010000000100000000") == 256


def test_times_in_the_manifest_have_a_zone(tmp_path: Path) -> None:
    folder = tmp_path / "2026-11-21T234005.000Z"
    folder.mkdir()
    at = datetime(2026, 11, 21, 23, 40, 5, tzinfo=UTC)
    made = backup.Backup("2026-11-21T234005.000Z", "1", "18.4", "0/1", "0/2", 1, at, at, ())
    (folder / "manifest.json").write_bytes(backup.msgspec.json.encode(made))
    (tmp_path / "2026-11-21T234006.000Z").mkdir()  # cut short before its manifest

    assert backup.list_backups(tmp_path) == [made]

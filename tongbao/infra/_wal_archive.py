"""Where finished WAL goes, which of it is there, and how a recovery gets it back.

The server archives by itself, through a script that lies in the data folder and that root owns, one
compressed file a segment. Nobody writes the archive but that script, and nobody deletes from it but
the retention of backups.
"""

from __future__ import annotations

import gzip
import os
import re
import shlex
import signal
import zlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from tongbao.infra._server_place import Place, run_program, running_pid

SWITCH_AFTER_S: Final = 60
"""A segment that is not full is archived after this time: what a lost disk can cost."""
SEGMENT_BYTES: Final = 16 * 1024 * 1024
_SEGMENTS_PER_LOG: Final = (1 << 32) // SEGMENT_BYTES
_SEGMENT: Final = re.compile(r"[0-9A-F]{24}\.gz")
_COMMIT: Final = re.compile(r"COMMIT (?:PREPARED )?(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)?) UTC")

# A segment that is there already must be the same one: two servers never share an archive. The
# half file is named for its process, so that an archiver that was killed leaves nothing in the way.
_ARCHIVE: Final = """#!/bin/sh
set -eu
umask 077
kept={folder}/"$2.gz"
half={folder}/".$2.$$"
if [ -e "$kept" ]; then
    gzip -dc "$kept" | cmp -s - "$1"
    exit
fi
trap 'rm -f "$half"' EXIT
gzip -1 -c "$1" > "$half"
sync "$half"
mv "$half" "$kept"
sync {folder}
"""

# The newest segments are not in the archive yet; where the cluster they come from is still there,
# they are read from it. A segment that is being written may be copied: recovery ends at its last
# whole record.
_FETCH: Final = """#!/bin/sh
set -eu
if [ -e {folder}/"$1.gz" ]; then
    gzip -dc {folder}/"$1.gz" > "$2"
    exit
fi
[ -n {cluster} ] && [ -e {cluster}/pg_wal/"$1" ] && cp {cluster}/pg_wal/"$1" "$2"
"""


# Named as in the log, because pg_waldump reads the place from the name; what it says at the end of
# a file, where it would go on to the next, is no failure.
_SHOW: Final = """
set -e
umask 077
half=$(mktemp -d)
trap 'rm -rf "$half"' EXIT
gzip -dc "$2" > "$half/$3"
"$1" --rmgr=Transaction "$half/$3" 2>/dev/null || true
"""


def folder_of(backups: Path, system: str) -> Path:
    """Return the archive of one cluster: another cluster's segments have the same names."""
    return backups / f"wal-{system}"


def point_archive(place: Place, folder: Path) -> None:
    """Let the server send finished segments to this folder, now and after every start."""
    folder.mkdir(mode=0o700, exist_ok=True)
    place.owner.give(folder)
    script = _script(place, "archive-wal.sh", _ARCHIVE.format(folder=shlex.quote(str(folder))))
    command = _command(script, '"%p" "%f"').replace("'", "''")
    lines = (f"archive_command = '{command}'", f"archive_timeout = '{SWITCH_AFTER_S}s'")
    conf = place.folder / "archive.conf"
    conf.write_text("\n".join(lines) + "\n")
    conf.chmod(0o644)
    if (pid := running_pid(place)) is not None:
        os.kill(pid, signal.SIGHUP)


def fetch_command(place: Place, folder: Path, cluster: Path | None) -> str:
    """Return the recovery's command that gets a segment from the archive or the old cluster."""
    quoted = shlex.quote(str(cluster)) if cluster is not None else "''"
    text = _FETCH.format(folder=shlex.quote(str(folder)), cluster=quoted)
    return _command(_script(place, "fetch-wal.sh", text), '"%f" "%p"')


def contiguous(folder: Path, first: int) -> dict[int, Path]:
    """Return the segments from the first one on, up to the first gap, by number."""
    found: dict[int, Path] = {}
    for path in sorted(folder.glob("*.gz")):  # a later timeline's segment wins over an earlier's
        if _SEGMENT.fullmatch(path.name):
            found[number_of(path.name)] = path
    last = first
    while last in found:
        last += 1
    return {number: found[number] for number in range(first, last)}


def number_of(name: str) -> int:
    """Return a segment's place in the log, whatever its timeline."""
    return int(name[8:16], 16) * _SEGMENTS_PER_LOG + int(name[16:24], 16)


def number_at(lsn: str) -> int:
    """Return which segment a place in the log such as ``0/3000028`` lies in."""
    high, _, low = lsn.partition("/")
    return int(high, 16) * _SEGMENTS_PER_LOG + int(low, 16) // SEGMENT_BYTES


def damaged(segments: dict[int, Path]) -> list[str]:
    """Return the names of segments that cannot be read to their end."""
    return [path.name for path in segments.values() if _length(path) != SEGMENT_BYTES]


def last_commit(place: Place, segments: dict[int, Path]) -> datetime | None:
    """Return when the last transaction in these segments was committed; None when there is none."""
    for number in sorted(segments, reverse=True):
        path = segments[number]
        tool = str(place.binaries / "pg_waldump")
        said = run_program(place, ["/bin/sh", "-c", _SHOW, "sh", tool, str(path), path.stem])
        if times := _COMMIT.findall(said):
            return max(datetime.fromisoformat(each).replace(tzinfo=UTC) for each in times)
    return None


def prune(folder: Path, first: int) -> int:
    """Delete the segments before this one and return how many; histories of timelines stay."""
    doomed = [
        path
        for path in folder.glob("*.gz")
        if _SEGMENT.fullmatch(path.name) and number_of(path.name) < first
    ]
    for path in doomed:
        path.unlink()
    return len(doomed)


def _script(place: Place, name: str, text: str) -> Path:
    script = place.folder / name
    half = script.with_suffix(".new")
    half.write_text(text)
    half.chmod(0o755)
    half.rename(script)  # the server may be running the old one
    return script


def _command(script: Path, arguments: str) -> str:
    return f"/bin/sh {shlex.quote(str(script)).replace('%', '%%')} {arguments}"


def _length(path: Path) -> int:
    """Return how many bytes a compressed file holds, or 0 when it is damaged."""
    length = 0
    try:
        with gzip.open(path) as whole:
            while chunk := whole.read(1 << 20):
                length += len(chunk)
    except (OSError, EOFError, zlib.error):
        return 0
    return length

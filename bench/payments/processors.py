"""What the processors did meanwhile, process by process, as the kernel counts it."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_KINDS = {
    "--role poster": "poster",
    "--role api": "api",
    "_service:app": "api",
    "postgres": "database",
    "wrk": "wrk",
    "multiprocessing": "api",
}


def spent(root: int) -> Counter[str]:
    """Return processor seconds so far of what this process has started, by kind."""
    children: dict[int, list[int]] = {}
    seconds: dict[int, tuple[str, float]] = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            _, _, rest = (folder / "stat").read_bytes().decode(errors="replace").rpartition(")")
            command = (
                (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            )
        except OSError:
            continue
        fields = rest.split()
        pid, parent = int(folder.name), int(fields[1])
        # With what its own children have used that are no longer there.
        ticks = sum(int(each) for each in fields[11:15])
        children.setdefault(parent, []).append(pid)
        seconds[pid] = (_kind(command), ticks / _TICKS_PER_S)
    found: Counter[str] = Counter()
    waiting = list(children.get(root, []))
    while waiting:
        pid = waiting.pop()
        waiting += children.get(pid, [])
        kind, used = seconds[pid]
        found[kind] += used
    return found


def _told(file: Path) -> str:
    return file.read_bytes().decode(errors="replace")  # a process calls itself what it likes


def _kind(command: str) -> str:
    return next((kind for mark, kind in _KINDS.items() if mark in command), "other")

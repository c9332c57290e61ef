"""Whose processor time it is: each process's own, as the kernel has counted it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
_PARENT, _USER, _SYSTEM, _WAITED_USER, _WAITED_SYSTEM = 1, 11, 12, 13, 14


def used_s(pid: int) -> float:
    """Return the processor seconds a process has used, all its threads, without its children."""
    fields = _fields(pid)
    return (int(fields[_USER]) + int(fields[_SYSTEM])) / _TICKS_PER_S


def used_with_children_s(pid: int) -> float:
    """Return the same with its children's, those that have ended included: PostgreSQL's, say."""
    fields = _fields(pid)
    ended = (int(fields[_WAITED_USER]) + int(fields[_WAITED_SYSTEM])) / _TICKS_PER_S
    return used_s(pid) + ended + sum(used_s(child) for child in _children(pid))


def _fields(pid: int) -> list[str]:
    """Return what stands in ``/proc/PID/stat`` after the name, which may hold anything."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _children(pid: int) -> list[int]:
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                if int(_fields(int(folder.name))[_PARENT]) == pid:
                    found.append(int(folder.name))
            except (OSError, IndexError):
                continue  # it has ended meanwhile
    return found

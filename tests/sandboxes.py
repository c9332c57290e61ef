"""Sandbox processes for tests: as the real launcher starts them, with keys made once.

A dozen RSA keys cost a second, and a run starts a hundred sandboxes; the first of a process makes
them, and the others are given the same. What is about the making starts its own by the launcher.
"""

from __future__ import annotations

from pathlib import Path

from tongbao_sandbox import launch
from tongbao_sandbox.credentials import KEPT, SHOWN
from tongbao_sandbox.launch import RunningSandbox

_made: dict[str, bytes] = {}


def start_sandbox(folder: Path) -> RunningSandbox:
    """Start a sandbox on a folder that is empty or not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in _made.items():
        (folder / name).write_bytes(content)
    running = launch.start_sandbox(folder)
    if not _made:
        _made.update({name: (folder / name).read_bytes() for name in (SHOWN, KEPT)})
    return running

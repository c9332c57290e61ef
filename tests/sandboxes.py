"""Sandbox processes for tests: as the real launcher starts them, with keys made once.

A dozen RSA keys cost a second, and a run starts a hundred sandboxes; the first of a process makes
them, and the others are given the same. To import the sandbox costs half a second of each of them,
so one process does it and all sandboxes are forks of that. What is about the making or the starting
starts its own by the launcher.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
from functools import cache
from pathlib import Path

import msgspec

from tongbao_sandbox import launch
from tongbao_sandbox.credentials import KEPT, SHOWN
from tongbao_sandbox.launch import RunningSandbox

_MESSAGE_MAX = 65_536
_made: dict[str, bytes] = {}


class Forked:
    """A child of the nursery, with the manners of one of ours; how it ends, only that one sees."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._life = os.pidfd_open(pid)
        self._is_gone = False

    def poll(self) -> int | None:
        return 0 if self._ended_within(0) else None

    def wait(self, timeout: float | None = None) -> int:
        if not self._ended_within(timeout):
            raise subprocess.TimeoutExpired("sandbox", timeout or 0)
        return 0

    def terminate(self) -> None:
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        self._send(signal.SIGKILL)

    def _send(self, number: int) -> None:
        if self.poll() is None:
            signal.pidfd_send_signal(self._life, number)

    def _ended_within(self, timeout: float | None) -> bool:
        if not self._is_gone:
            looking = select.poll()
            looking.register(self._life, select.POLLIN)
            if looking.poll(None if timeout is None else timeout * 1000):
                os.close(self._life)
                self._is_gone = True
        return self._is_gone


def start_sandbox(folder: Path, *, port: int = 0) -> RunningSandbox:
    """Start a sandbox on a folder that is empty, has one's memory in it, or is not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in _made.items():
        (folder / name).write_bytes(content)
    nursery, _ = _nursery()
    hears, says = os.pipe()
    order = msgspec.json.encode(launch.arguments(folder, port))
    socket.send_fds(nursery, [order], [says])
    os.close(says)
    process = Forked(int(nursery.recv(_MESSAGE_MAX)))
    with os.fdopen(hears) as heard:
        running = launch.ready(process, heard.readline(), folder)
    if not _made:
        _made.update({name: (folder / name).read_bytes() for name in (SHOWN, KEPT)})
    return running


@cache
def _nursery() -> tuple[socket.socket, subprocess.Popen[bytes]]:
    """Start the process that has imported the sandbox; it ends when we do."""
    ours, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
    command = [sys.executable, "-m", "tests.sandbox_nursery"]
    with theirs:
        process = subprocess.Popen(command, stdin=theirs.fileno(), cwd=Path(__file__).parents[1])
    return ours, process

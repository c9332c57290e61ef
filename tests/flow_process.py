"""A platform in a process of its own, which can be killed: its API and its worker, polling fast.

    TONGBAO_FAILPOINT=payments.after_intention:kill9 python -m tests.flow_process \
        --dsn postgresql://… --folder /tmp/x --sandbox http://127.0.0.1:9000 --port 9001

It prints {"ready": pid} once it serves. Every line on its standard input is a failpoint to arm from
then on, answered by {"armed": …}; at the end of the input, as when whoever started it dies, it dies
too. Business time is the deployment's. Nothing seeds the housekeeping, which would never end.

Importing the program takes ten times as long as starting it, so tests start many of these from a
`Nursery`: a process that has imported everything and forks. `LiveProcess` is one of its children.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

import anyio
import msgspec
import uvicorn
from msgspec import Struct

from tests.stage import served, settings_for
from tongbao.infra import failpoints, test_clock
from tongbao.infra.crypto import Keyring
from tongbao.infra.db import Db
from tongbao.infra.settings import Secret, Settings
from tongbao.kernel.clock import Clock
from tongbao.wiring import Platform, open_platform

POLL_S = 0.05
_MESSAGE_MAX = 65_536


class Order(Struct, frozen=True):
    """Which platform to run."""

    dsn: str
    folder: str
    sandbox: str
    port: int
    log: str | None = None


def reserved_port() -> socket.socket:
    """Return a socket that keeps a port for processes that come and go; nobody answers there."""
    return _bound(0)


def _bound(port: int) -> socket.socket:
    bound = socket.socket(proto=socket.IPPROTO_TCP)  # named, or Nagle's delay stays on
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    bound.bind(("127.0.0.1", port))
    return bound


def _settings(order: Order) -> Settings:
    dsn, folder = Secret(order.dsn), Path(order.folder)
    return settings_for(folder, order.sandbox, port=order.port, dsn=dsn, log_format="json")


# The program


async def live(order: Order) -> None:
    """Serve and work until the input ends."""
    stop = asyncio.Event()
    async with open_platform(_settings(order)) as platform:
        platform.worker._poll_s = POLL_S
        listening = _bound(order.port)
        async with served(platform.app(), listening), asyncio.TaskGroup() as group:
            group.create_task(test_clock.follow(platform.db, stop, poll_s=POLL_S))
            group.create_task(platform.worker.run(stop))
            _say(ready=os.getpid())
            await _obey()
            os._exit(0)


async def _obey() -> None:
    orders = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    while line := await orders.readline():
        failpoints.arm(line.decode().strip() or None)
        _say(armed=line.decode().strip())


def _say(**words: Any) -> None:
    sys.stdout.write(msgspec.json.encode(words).decode() + "\n")
    sys.stdout.flush()


# The nursery


def _nurse(place: socket.socket) -> None:
    """Fork a platform for every order, until nobody gives orders any more."""
    is_warm = False
    while True:
        message, descriptors, _, _ = socket.recv_fds(place, _MESSAGE_MAX, 1)
        if not message:
            return
        order = msgspec.json.decode(message, type=Order)
        if not is_warm:
            _warm_up(order)
            is_warm = True
        if os.fork() == 0:
            place.close()
            _keep(order, descriptors[0])
        os.close(descriptors[0])
        while _reaped():
            pass


def _warm_up(order: Order) -> None:
    """Build a platform once, for what is imported and remembered by that."""
    settings = _settings(order)
    platform = Platform(settings, Db(None, Clock()), Keyring.from_file(settings.kek_file))
    uvicorn.Config(platform.app(), log_config=None, lifespan="off").load()
    anyio.run(anyio.sleep, 0)
    gc.freeze()  # what all children share need not be looked through by each


def _reaped() -> bool:
    try:
        return os.waitpid(-1, os.WNOHANG)[0] != 0
    except ChildProcessError:
        return False


def _keep(order: Order, line: int) -> NoReturn:
    """Run a platform as a child and tell how it ended."""
    pid = os.fork()
    if pid == 0:
        os.dup2(line, 0)
        os.dup2(line, 1)
        if order.log is not None:
            os.dup2(os.open(order.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
        asyncio.run(live(order))
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    with suppress(BrokenPipeError):
        os.write(line, b'{"ended":%d}\n' % os.waitstatus_to_exitcode(status))
    os._exit(0)


# What tests hold in their hands


class LiveProcess:
    """A platform that runs beside the test."""

    def __init__(self, line: socket.socket, log: Path) -> None:
        self.log = log
        self._line = line
        self._hearing = threading.RLock()  # its time limit is the socket's, for whoever reads
        self._heard = b""
        self._ended: int | None = None
        self.pid: int = self._hear()["ready"]

    def arm(self, spec: str) -> None:
        """Arm a failpoint, and return when it is armed."""
        self._line.sendall(spec.encode() + b"\n")
        self._hear()

    @property
    def is_gone(self) -> bool:
        """Whether it has died, for any thread to ask."""
        return not Path(f"/proc/{self.pid}").exists()

    def ended(self, within_s: float = 0.0) -> int | None:
        """Return the exit code, negative for a signal; None while it lives. Any thread may ask."""
        with self._hearing:
            if self._ended is None:
                self._line.settimeout(within_s)
                try:
                    self._hear()
                except (BlockingIOError, TimeoutError):
                    pass
                finally:
                    self._line.settimeout(None)
            return self._ended

    def kill(self) -> None:
        """Kill it, if it lives, and wait until it is gone."""
        with self._hearing:
            if self.ended() is None:
                os.kill(self.pid, signal.SIGKILL)
                while self._ended is None:
                    self._hear()
            self._line.close()

    def _hear(self) -> dict[str, Any]:
        while b"\n" not in self._heard:
            more = self._line.recv(_MESSAGE_MAX)
            if not more:
                raise ConnectionError("the process and its keeper are gone")
            self._heard += more
        said, _, self._heard = self._heard.partition(b"\n")
        words: dict[str, Any] = msgspec.json.decode(said)
        if "ended" in words:
            self._ended = words["ended"]
            if not hasattr(self, "pid"):
                raise RuntimeError(f"it did not start: {self.log.read_text()[-2000:]}")
        return words


class Nursery:
    """Starts platforms quickly."""

    def __init__(self, place: socket.socket) -> None:
        self._place = place

    def start(self, order: Order) -> LiveProcess:
        """Return a platform that serves."""
        log = Path(order.folder) / f"{time.monotonic_ns()}.log"
        order = msgspec.structs.replace(order, log=str(log))
        ours, theirs = socket.socketpair()
        with theirs:
            socket.send_fds(self._place, [msgspec.json.encode(order)], [theirs.fileno()])
        return LiveProcess(ours, log)


@contextmanager
def nursery() -> Iterator[Nursery]:
    """A nursery that ends, with all its children, when we leave or die."""
    ours, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
    command = [sys.executable, "-m", "tests.flow_process", "--nursery"]
    with subprocess.Popen(command, stdin=theirs.fileno(), cwd=Path(__file__).parents[1]) as process:
        theirs.close()
        with ours:
            yield Nursery(ours)
        process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--nursery", action="store_true")
    for name, kind in (("dsn", str), ("folder", str), ("sandbox", str), ("port", int)):
        parser.add_argument(f"--{name}", type=kind)
    asked = vars(parser.parse_args())
    if asked.pop("nursery"):
        _nurse(socket.socket(fileno=0))
    else:
        asyncio.run(live(Order(**asked)))


if __name__ == "__main__":
    main()

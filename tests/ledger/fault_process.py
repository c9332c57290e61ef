"""A process of the ledger alone, for tests that kill, stop or starve it.

    python -m tests.ledger.fault_process '{"dsn": "…", "folder": "…", "log": "…", …}'

It prints "ready". Its callers each move one fen after the other under ids of their own, writing
down what they ask before they ask it and what they are told; whoever is told that nothing is known,
or to come back later, asks again with the same id until the answer is definite. On SIGTERM they
begin nothing new, settle what is open, and the process ends with 0.

To import the program takes longer than most of these live, so `fork` has it done once, by a process
of which all others are forks.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import structlog
import uvloop
from msgspec import Struct

from tests.ledger.making import BANK, NOTE
from tongbao.infra import db as database
from tongbao.infra import failpoints
from tongbao.infra.db import Write
from tongbao.kernel.clock import Clock
from tongbao.kernel.errors import Busy
from tongbao.kernel.ids import new_id
from tongbao.kernel.licence import Licence
from tongbao.ledger.book import Ledger
from tongbao.ledger.model import AccountKey, Group, Transfer, TransferKind
from tongbao.ledger.poster import commit, lease
from tongbao.ledger.wire import route

AGAIN_S = 0.05


class Order(Struct, frozen=True, kw_only=True):
    """What the process is to do."""

    dsn: str
    folder: str
    log: str = os.devnull
    poster: bool = False
    callers: int = 0
    owner: int = 1
    lease_s: float = 10
    deadline_s: float = 3


class Line(Struct, frozen=True, omit_defaults=True):
    """One line of the log: something was asked, or its final answer came after so many unknowns."""

    id: UUID
    status: str | None = None
    code: str | None = None
    unknowns: int = 0


def group_of(one: UUID, owner: int) -> Group:
    """Return the group that a caller asks under this id; every process makes the same."""
    wallet = AccountKey("wallet", "CNY", UUID(int=owner))
    transfer = Transfer(one, TransferKind.SINGLE, "test/leg", one, 1, BANK, wallet)
    return Group(one, 1, (transfer,), (Write(NOTE, (one, str(owner))),))


def read_log(path: Path) -> list[Line]:
    """Return what the callers wrote, without a last line that was cut off."""
    whole = path.read_bytes().rpartition(b"\n")[0].splitlines()
    return [msgspec.json.decode(line, type=Line) for line in whole]


async def call(ledger: Ledger, order: Order, log: int, stop: asyncio.Event) -> None:
    """Move fen after fen until told to stop."""
    while not stop.is_set():
        one = new_id()
        os.write(log, msgspec.json.encode(Line(one)) + b"\n")
        unknowns = 0
        while True:
            try:
                [result] = await ledger.submit(
                    [group_of(one, order.owner)], deadline_s=order.deadline_s
                )
            except Busy:
                unknowns += 1
            else:
                if result.status != "in_flight":
                    break
            await asyncio.sleep(AGAIN_S)
        line = Line(one, result.status, result.code, unknowns)
        os.write(log, msgspec.json.encode(line) + b"\n")


async def run(order: Order) -> None:
    """Do what was ordered until SIGTERM."""
    # Nobody reads our standard output after the first line, and a full pipe would stop us.
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    lease.LEASE = commit.LEASE = route.LEASE = timedelta(seconds=order.lease_s)
    database._SESSION["idle_in_transaction_session_timeout"] = f"{order.lease_s:.1f}s"
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    db = await database.connect(order.dsn, Clock())
    ledger = Ledger(db, Licence.BANK, sockets=Path(order.folder))
    log = os.open(order.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    settled = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        if order.poster:
            keeping = group.create_task(ledger.keep_books(settled))
        else:
            ledger.leave_books()
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        callers = [group.create_task(call(ledger, order, log, stop)) for _ in range(order.callers)]
        await stop.wait()
        await asyncio.gather(*callers)
        settled.set()
        if order.poster:
            await keeping
    await ledger.close()
    await db.close()


async def submit(dsn: str, balances: str, group: Group) -> None:
    """Submit one group and say what became of it."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    db = await database.connect(dsn, Clock())
    ledger = Ledger(db, Licence.PAYMENT_INSTITUTION, balances=balances)
    sys.stdout.write(f"{await ledger.submit([group])}\n")
    sys.stdout.flush()
    await ledger.close()


class Forked:
    """A process that was forked, with the manners of one that asyncio started."""

    def __init__(
        self, live: Callable[..., Any], *given: Any, complaints: Path, failpoint: str | None
    ) -> None:
        """Start it; ``failpoint`` is armed in it, and then it lives on what it is given."""
        heard, said = multiprocessing.Pipe(duplex=False)
        self._heard = heard
        given = (live, given, str(complaints), failpoint, said)
        self._process = _NURSERY.Process(target=_live, args=given, daemon=True)
        self._process.start()
        said.close()

    async def first_line(self) -> bytes:
        """Return what it says first, nothing if it ends without a word."""
        return await asyncio.to_thread(os.read, self._heard.fileno(), 80)

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        assert self._process.pid is not None
        os.kill(self._process.pid, number)

    async def wait(self) -> int | None:
        await asyncio.to_thread(self._process.join)
        return self._process.exitcode


_NURSERY = multiprocessing.get_context("forkserver")
_NURSERY.set_forkserver_preload([__name__])


def _live(
    live: Callable[..., Any],
    given: tuple[Any, ...],
    complaints: str,
    failpoint: str | None,
    said: Connection,
) -> None:
    os.dup2(said.fileno(), 1)
    os.dup2(os.open(complaints, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    failpoints.arm(failpoint)
    uvloop.run(live(*given))


if __name__ == "__main__":
    uvloop.run(run(msgspec.json.decode(sys.argv[1], type=Order)))

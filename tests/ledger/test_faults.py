"""Processes are killed, stopped and starved under load; what was told stays true.

Every scene has a poster and two client processes whose callers count: each moves one fen under an
id of its own and writes down what it was told. Afterwards every id that was told to have happened
is in the journal once, no other is, and the balances are their number.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from uuid import UUID, uuid4

import msgspec
import pytest

from tests.conftest import DurableServer, on_database, temporary_folder
from tests.ledger.fault_process import Forked, Line, Order, group_of, read_log, run
from tests.ledger.making import BANK, a_calling_domain
from tests.outsiders import lacking
from tongbao.infra import db as database
from tongbao.infra.db import Db, Query
from tongbao.infra.db_failures import DatabaseUnavailable
from tongbao.infra.migrate import migrate
from tongbao.kernel.clock import Clock
from tongbao.kernel.licence import Licence
from tongbao.ledger.book import Ledger
from tongbao.ledger.model import IdOutOfOrder
from tongbao.ledger.queries import balance_of
from tongbao.ledger.verify import verify

SCALE = float(os.environ.get("TONGBAO_CAMPAIGN", "1"))
"""How many times as much load a scene sees; the suite's own is short."""
CALLERS = 8
LEASE_S = 1.5

JOURNAL = Query(UUID, "select id from ledger_transfer where book = 1 order by seq")
NOTES = Query(UUID, "select id from note order by id")
HOLDER = Query(str, "select holder from ledger_book where book = 1")
PATIENCE_S = 60
"""For what goes on after a fault: seconds where all is well. What hangs, hangs for longer."""


class Process:
    """One process of the scene."""

    def __init__(self, running: asyncio.subprocess.Process | Forked, order: Order) -> None:
        self.running = running
        self.order = order
        self.log = Path(order.log)
        self.expected = 0

    def told(self) -> list[Line]:
        return [line for line in read_log(self.log) if line.status is not None]

    def asked(self) -> set[UUID]:
        return {line.id for line in read_log(self.log) if line.status is None}

    def kill(self) -> None:
        self.expected = -signal.SIGKILL
        self.running.send_signal(signal.SIGKILL)

    async def end(self) -> None:
        """Let it settle what it asked, and see that it ends as it was made to."""
        if self.expected == 0 and self.running.returncode is None:
            self.running.send_signal(signal.SIGTERM)
        async with asyncio.timeout(60):
            assert await self.running.wait() == self.expected


class Scene:
    """A ledger on a database that may die, and the processes that work on it."""

    def __init__(self, dsn: Callable[[], str], folder: Path) -> None:
        self.dsn = dsn
        self.folder = folder
        self.environment: dict[str, str] = {}
        self.failpoint: str | None = None
        self.processes: list[Process] = []

    async def start(self, **order: object) -> Process:
        """Start a process and wait until it works."""
        number = len(self.processes) + 1
        ordered = Order(
            dsn=self.dsn(),
            folder=str(self.folder / "posters"),
            log=str(self.folder / f"{number}.log"),
            owner=number,
            lease_s=LEASE_S,
            **order,
        )
        Path(ordered.log).touch()
        complaints = self.folder / f"{number}.err"
        if self.environment:
            process = Process(await self._run(ordered, complaints), ordered)
            assert process.running.stdout is not None
            said = await process.running.stdout.readline()
        else:
            forked = Forked(run, ordered, complaints=complaints, failpoint=self.failpoint)
            process = Process(forked, ordered)
            said = await forked.first_line()
        self.processes.append(process)
        assert said == b"ready\n", self.complaints()
        return process

    async def _run(self, ordered: Order, complaints: Path) -> asyncio.subprocess.Process:
        """Run it from its beginning, for what has to be there before anything else is."""
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.ledger.fault_process"),
            msgspec.json.encode(ordered).decode(),
            env={**os.environ, "PYTHONPATH": ":".join(sys.path), **self.environment},
            stdout=asyncio.subprocess.PIPE,
            stderr=complaints.open("wb"),
        )

    async def start_clients(self) -> list[Process]:
        return [await self.start(callers=CALLERS) for _ in range(2)]

    async def progress(self, *of: Process, by: int = 50) -> None:
        """Wait until each of them was told that much more."""
        goals = [(each, len(each.told()) + int(by * SCALE)) for each in of]
        async with asyncio.timeout(PATIENCE_S * max(1, SCALE)):
            while any(len(each.told()) < goal for each, goal in goals):  # noqa: ASYNC110
                await asyncio.sleep(0.05)

    async def settle(self) -> None:
        """Let every process end, clients first, so that nothing is left open."""
        for process in sorted(self.processes, key=lambda each: each.order.poster):
            await process.end()

    def complaints(self) -> str:
        return "\n".join(path.read_text() for path in sorted(self.folder.glob("*.err")))

    def kill_all(self) -> None:
        for process in self.processes:
            if process.running.returncode is None:
                process.running.send_signal(signal.SIGCONT)
                process.running.send_signal(signal.SIGKILL)


@asynccontextmanager
async def on(dsn: str) -> AsyncIterator[Db]:
    db = await database.connect(dsn, Clock())
    try:
        yield db
    finally:
        await db.close()


async def prepare(dsn: str) -> None:
    async with on(dsn) as db:
        await migrate(db, Licence.BANK, "tests")
        await a_calling_domain(db)


@asynccontextmanager
async def scene_on(dsn: Callable[[], str], folder: Path) -> AsyncIterator[Scene]:
    scene = Scene(dsn, folder)
    try:
        yield scene
    finally:
        scene.kill_all()


@pytest.fixture(scope="module")
def server() -> Iterator[DurableServer]:
    """One server with the durability of production for all scenes, each with its own database."""
    with temporary_folder() as folder:
        durable = DurableServer(folder)
        try:
            yield durable
        finally:
            durable.running.stop()


@pytest.fixture(scope="module")
async def prepared(server: DurableServer) -> str:
    """The name of a database that a scene may begin with."""
    async with on(server.dsn) as db:
        await db.pool.execute("create database prepared")
    await prepare(on_database(server.dsn, "prepared"))
    return "prepared"


@pytest.fixture
async def scene(server: DurableServer, prepared: str, tmp_path: Path) -> AsyncIterator[Scene]:
    name = f"scene_{uuid4().hex}"
    async with on(server.dsn) as db:
        await db.pool.execute(f"create database {name} template {prepared} strategy file_copy")
    async with scene_on(lambda: on_database(server.dsn, name), tmp_path) as ready:
        yield ready


async def assert_all_is_well(scene: Scene) -> Counter[str]:
    """Count, and return how many answers of each status there were."""
    async with on(scene.dsn()) as db:
        ledger = Ledger(db, Licence.BANK)
        lines = [line for process in scene.processes for line in process.told()]
        counts = Counter(line.status or "" for line in lines)
        happened = {line.id for line in lines if line.status in {"created", "exists"}}
        open_ends = {
            one: process.order.owner
            for process in scene.processes
            for one in process.asked() - {line.id for line in process.told()}
        }
        # Only a process that was killed may leave a question open; asking again settles it.
        killed = [each for each in scene.processes if each.expected]
        assert {*open_ends.values()} <= {each.order.owner for each in killed}
        for one, owner in open_ends.items():
            [result] = await ledger.submit([group_of(one, owner)])
            assert result.happened or result.code == IdOutOfOrder.code, result
            if result.happened:
                happened.add(one)
        journal = await JOURNAL.all(db)
        assert len(journal) == len(set(journal)), "doubled"
        assert not happened - set(journal), "told and lost"
        assert not set(journal) - happened, "happened, and its caller was told otherwise"
        assert set(await NOTES.all(db)) == happened, "a companion apart from its transfer"
        assert (await balance_of(db, 1, BANK)).posted == len(journal)
        report = await verify(db)
        assert report.is_sound, report.broken
        await ledger.close()
    return counts


async def test_a_poster_is_killed_under_load(scene: Scene) -> None:
    first = await scene.start(poster=True, callers=CALLERS)
    clients = await scene.start_clients()
    await scene.progress(*clients)
    standby = await scene.start(poster=True)
    await scene.progress(*clients)
    for poster in (first, standby):
        poster.kill()
        await scene.start(poster=True)
        await scene.progress(*clients)
    await scene.settle()
    counts = await assert_all_is_well(scene)
    assert set(counts) <= {"created", "exists"}


@pytest.mark.parametrize(
    "place", ["before_head", "before_commit", "after_commit", "before_projection"]
)
async def test_a_poster_dies_at_a_place_of_its_commit(scene: Scene, place: str) -> None:
    scene.failpoint = f"ledger.{place}:kill9:20"
    poster = await scene.start(poster=True, callers=CALLERS)
    poster.expected = -signal.SIGKILL
    scene.failpoint = None
    client = await scene.start(callers=CALLERS)
    await poster.end()
    await scene.start(poster=True)
    await scene.progress(client)
    await scene.settle()
    counts = await assert_all_is_well(scene)
    assert set(counts) <= {"created", "exists"}


async def test_a_client_is_killed_and_what_it_asked_is_settled(scene: Scene) -> None:
    await scene.start(poster=True)
    victim, other = await scene.start_clients()
    await scene.progress(victim, other)
    victim.kill()
    await scene.progress(other)
    await scene.settle()
    await assert_all_is_well(scene)


async def test_postgresql_is_killed_under_load(scene: Scene, server: DurableServer) -> None:
    await scene.start(poster=True, callers=CALLERS)
    clients = await scene.start_clients()
    await scene.progress(*clients)
    server.kill9()
    await asyncio.sleep(0.3)
    server.restart()
    await scene.progress(*clients)
    await scene.settle()
    counts = await assert_all_is_well(scene)
    assert set(counts) <= {"created", "exists"}


async def test_the_database_is_restarted_under_load(scene: Scene, server: DurableServer) -> None:
    await scene.start(poster=True)
    clients = await scene.start_clients()
    await scene.progress(*clients)
    await asyncio.to_thread(server.running.stop)
    server.restart()
    await scene.progress(*clients)
    await scene.settle()
    await assert_all_is_well(scene)


async def test_a_stopped_poster_comes_back_as_a_zombie(scene: Scene) -> None:
    zombie = await scene.start(poster=True, callers=CALLERS)
    clients = await scene.start_clients()
    await scene.progress(zombie, *clients)
    async with on(scene.dsn()) as db:
        its_address = await HOLDER.one(db)
        zombie.running.send_signal(signal.SIGSTOP)
        await scene.start(poster=True)
        await scene.progress(*clients)  # once the lease was over
        assert await HOLDER.one(db) not in {"", its_address}
        zombie.running.send_signal(signal.SIGCONT)
        await scene.progress(zombie, *clients)
    await scene.settle()
    counts = await assert_all_is_well(scene)
    assert set(counts) <= {"created", "exists"}


SIZE_LIMITED_MB = 364


@asynccontextmanager
async def size_limited(folder: Path) -> AsyncIterator[Path]:
    """A small file system of its own, where the machine lets us make one."""
    mount = shutil.which("mount")
    options = f"size={SIZE_LIMITED_MB}m,mode=0755"
    made = mount is not None and (
        subprocess.run(
            [mount, "-t", "tmpfs", "-o", options, "tongbao-test", folder],
            check=False,
            capture_output=True,
        ).returncode
        == 0
    )
    if not made:
        lacking("mount", "a size-limited mount needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


async def test_the_disk_is_full_for_a_while(tmp_path: Path, server_folder: Path) -> None:
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(size_limited(server_folder))
        server = DurableServer(server_folder)
        stack.callback(lambda: server.running.stop())  # noqa: PLW0108 - the one running then
        await prepare(server.dsn)
        scene = await stack.enter_async_context(scene_on(lambda: server.dsn, tmp_path))
        await scene.start(poster=True)
        clients = await scene.start_clients()
        await scene.progress(*clients)
        filler = server_folder / "filler"
        fill(filler)
        await use_up_the_log(server.dsn)
        await stalled(clients)
        filler.unlink()
        server.restart()  # it stopped itself if its log had no room
        await scene.progress(*clients)
        await scene.settle()
        await assert_all_is_well(scene)


def fill(path: Path) -> None:
    """Leave no room at all."""
    # Without a buffer: what one still held, it would fail on again as it closes.
    with path.open("wb", buffering=0) as filler, suppress(OSError):
        while True:
            filler.write(b"\0" * (1 << 20))


async def use_up_the_log(dsn: str) -> None:
    """Write into the log what room it had set aside, until it can take no more."""
    message = ("x" * 10**6,)
    async with on(dsn) as db:
        with suppress(DatabaseUnavailable):
            for _ in range(SIZE_LIMITED_MB):
                await db.fetch("select pg_logical_emit_message(false, 'test', $1)", message)


async def stalled(clients: list[Process]) -> None:
    """See that nobody is told anything any more."""
    counts = [len(each.told()) for each in clients]
    await asyncio.sleep(1)
    assert [len(each.told()) for each in clients] == counts


FAKETIME = [
    path
    for path in Path("/usr/lib").glob("*/faketime/libfaketime.so.1")
    if os.access(path, os.R_OK)
]


async def test_the_clock_steps_forth_and_back(scene: Scene) -> None:
    if not FAKETIME:
        lacking("faketime", "libfaketime is not installed")
    offset = scene.folder / "offset"

    def step(by: str) -> None:
        new = scene.folder / "offset.new"
        new.write_text(by)
        new.rename(offset)

    step("+0")
    scene.environment = {
        "LD_PRELOAD": str(FAKETIME[0]),
        "FAKETIME_TIMESTAMP_FILE": str(offset),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_FORCE_MONOTONIC_FIX": "0",
    }
    poster = await scene.start(poster=True, callers=CALLERS)
    clients = await scene.start_clients()
    await scene.progress(*clients)
    for by in ("+3600", "-3600", "+0"):
        step(by)
        await scene.progress(poster, *clients)
        poster.kill()
        poster = await scene.start(poster=True, callers=CALLERS)
        await scene.progress(poster, *clients)
    await scene.settle()
    counts = await assert_all_is_well(scene)
    # An id of the future is refused, for good or until its time comes; everything else happens.
    assert set(counts) <= {"created", "exists", "refused"}

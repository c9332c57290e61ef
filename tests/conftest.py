"""What every test may ask for: a real PostgreSQL of its own, started and stopped by the tests.

Each pytest process has one private server and a migrated template database; `db` and `dsn` are like
a clone of it that is one test's alone (`tests.databases`). That server runs with durability off,
because it is worth minutes and nobody reads it after a crash; a test about crashes takes
`durable_server`.
"""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path

import asyncpg
import pytest
import structlog
from argon2 import PasswordHasher
from hypothesis import settings

from tests.databases import SUPERUSER, Databases, on_database
from tongbao.infra import db as database
from tongbao.infra import embedded, failpoints
from tongbao.infra.db import Db
from tongbao.infra.migrate import migrate
from tongbao.kernel.clock import Clock
from tongbao.kernel.licence import Licence
from tongbao.parties.authentication import passwords
from tongbao.parties.identity import operators

SPEED_NOT_DURABILITY = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "shared_buffers": "64MB",
    "max_wal_size": "256MB",
    # Its workers belong to the superuser, and a database they look at cannot be dropped by us.
    "autovacuum": "off",
    # What lies in memory is read at once; to hand that to another process takes longer.
    "io_method": "sync",
    # How slowly a password is guessed, and how slowly each of a thousand pools opens.
    "scram_iterations": "1",
}
# As production's, and the superuser, who cleans databases up between tests: `tests.databases`.
_ADMITS = f"""\
local all {embedded.ROLE} scram-sha-256
local replication {embedded.BACKUP_ROLE} scram-sha-256
local all {SUPERUSER} trust
"""
TEST_LICENCE = Licence.PAYMENT_INSTITUTION
# A clone is some hundred files: in memory that takes a tenth of the time. All that tests do to a
# server is to kill it, and files in memory outlive that as those on a disk do.
_IN_MEMORY = Path("/dev/shm")
_IN_MEMORY_FREE_MIN = 3 << 30
_LOOP = pytest.StashKey[asyncio.AbstractEventLoop]()
_WATCHDOG = """
read -r _
kill -QUIT $(head -qn1 "$1"/*/postmaster.pid "$1"/*/*/postmaster.pid) 2>/dev/null
rm -rf "$1"
"""

_LONGEST = {"test_schemathesis.py", "test_demo.py"}  # a minute each, and cannot be shared

MakeDb = Callable[..., Awaitable[Db]]

# Whatever the caller's environment says: a run starts hundreds of processes, and each would compile
# the program anew, as each of pytest's own would all tests.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# A machine that does other work as well is slow now and then; that proves nothing about the code.
settings.register_profile("tongbao", deadline=None)
settings.load_profile("tongbao")


class DurableServer:
    """A private server with production durability, for tests that kill it."""

    def __init__(self, folder: Path) -> None:
        """Start it on a folder that may have a cluster in it."""
        self.folder = folder
        self.running = embedded.start(folder)

    @property
    def dsn(self) -> str:
        return self.running.dsn

    def kill9(self) -> None:
        """Kill the postmaster and every backend at once, as a power cut would."""
        postmaster = self.running.pid
        assert postmaster is not None
        shown = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text()
        for pid in [postmaster, *map(int, shown.split())]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue

    def restart(self) -> None:
        """Start it again, which replays its log."""
        self.running = embedded.start(self.folder)


def _place_of_servers() -> str:
    """The memory, where the machine has some to spare; else the disk."""
    try:
        roomy = shutil.disk_usage(_IN_MEMORY).free > _IN_MEMORY_FREE_MIN
    except OSError:
        roomy = False
    return str(_IN_MEMORY) if roomy and os.access(_IN_MEMORY, os.W_OK | os.X_OK) else "/tmp"


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder the server's user can reach; its server dies with us, even at kill -9."""
    folder = Path(tempfile.mkdtemp(prefix="tongbao-test-", dir=_place_of_servers()))
    folder.chmod(0o755)
    watchdog = subprocess.Popen(
        ["/bin/sh", "-c", _WATCHDOG, "sh", folder],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield folder
    finally:
        assert watchdog.stdin is not None
        watchdog.stdin.close()  # an end of file, as our death would be
        watchdog.wait()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session", autouse=True)
def _quick_hashes() -> Iterator[None]:
    """What a password costs is for attackers, and not for a thousand logins here."""
    quick = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(operators, "_HASHER", quick)
        patch.setattr(passwords, "_HASHER", quick)
        yield


@pytest.fixture(scope="session")
def server() -> Iterator[embedded.EmbeddedServer]:
    """This pytest process's server. Fast, not durable."""
    with temporary_folder() as folder:
        admits = folder / "pg_hba.conf"
        admits.write_text(_ADMITS)
        admits.chmod(0o644)
        running = embedded.start(folder, {**SPEED_NOT_DURABILITY, "hba_file": str(admits)})
        try:
            yield running
        finally:
            running.stop()


@pytest.fixture
def server_folder() -> Iterator[Path]:
    """An empty folder for servers that the test starts itself; none of them outlives it."""
    with temporary_folder() as folder:
        yield folder


@pytest.fixture(scope="session")
def _untouched_cluster() -> Iterator[Path]:
    with temporary_folder() as folder:
        embedded.start(folder / "made").stop()
        yield folder / "made"


@pytest.fixture
def data_folder(server_folder: Path, _untouched_cluster: Path) -> Path:
    """A folder with a cluster in it that nothing was done to; to make one takes a second."""
    copy = ["cp", "-a", _untouched_cluster, server_folder / "data"]  # its owner is another user
    subprocess.run(copy, check=True)
    return server_folder / "data"


@pytest.fixture
def durable_server(data_folder: Path) -> Iterator[DurableServer]:
    """A server of this test's own with the settings of production."""
    durable = DurableServer(data_folder)
    try:
        yield durable
    finally:
        durable.running.stop()


@pytest.fixture(scope="session")
async def _admin(server: embedded.EmbeddedServer) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(server.dsn)
    try:
        yield connection
    finally:
        await connection.close()


@pytest.fixture(scope="session")
def template_of(
    server: embedded.EmbeddedServer, _admin: asyncpg.Connection
) -> Callable[[Licence], Awaitable[str]]:
    """``await template_of(licence)`` names a migrated database of a firm that has it."""
    made: dict[Licence, str] = {}

    async def of(licence: Licence) -> str:
        if licence not in made:
            name = f"template_{licence}"
            await _admin.execute(f"create database {name}")
            on = await database.connect(on_database(server.dsn, name), Clock())
            try:
                await migrate(on, licence, "tests")
            finally:
                await on.close()
            made[licence] = name
        return made[licence]

    return of


@pytest.fixture(scope="session")
async def _template(template_of: Callable[[Licence], Awaitable[str]]) -> str:
    return await template_of(TEST_LICENCE)


@pytest.fixture(scope="session")
async def databases(server: embedded.EmbeddedServer, _admin: asyncpg.Connection) -> Databases:
    """The databases of this pytest process."""
    return Databases(server.dsn, _admin)


@pytest.fixture
async def make_dsn(
    server: embedded.EmbeddedServer,
    databases: Databases,
    template_of: Callable[[Licence], Awaitable[str]],
) -> AsyncIterator[Callable[..., Awaitable[str]]]:
    """``await make_dsn(migrated=True, licence=…)`` makes one more database, gone after the test."""
    made: list[tuple[str, str]] = []
    bare: list[str] = []

    async def make(*, migrated: bool = True, licence: Licence = TEST_LICENCE) -> str:
        if migrated:
            template = await template_of(licence)
            name = await databases.take(template)
            made.append((name, template))
        else:
            name = await databases.bare()
            bare.append(name)
        return on_database(server.dsn, name)

    yield make
    for each in made:
        await databases.give_back(*each)
    for name in bare:
        await databases.drop(name)


@pytest.fixture
async def make_db(
    make_dsn: Callable[..., Awaitable[str]],
) -> AsyncIterator[MakeDb]:
    """``await make_db(dsn=None, migrated=True, licence=…)`` opens a pool, closed afterwards.

    With the DSN of another fixture it is one more process's view of the same database.
    """
    opened: list[Db] = []

    async def make(
        *,
        dsn: str | None = None,
        migrated: bool = True,
        licence: Licence = TEST_LICENCE,
        clock: Clock | None = None,
        connections_max: int = 10,
    ) -> Db:
        place = dsn or await make_dsn(migrated=migrated, licence=licence)
        on = await database.connect(place, clock or Clock(), connections_max=connections_max)
        opened.append(on)
        return on

    yield make
    for on in opened:
        on.pool.terminate()  # a test may have left a transaction open on purpose


@pytest.fixture
async def dsn(make_dsn: Callable[..., Awaitable[str]]) -> str:
    """The address of this test's database, the one `db` is on, for processes it starts."""
    return await make_dsn()


@pytest.fixture
async def db(make_db: MakeDb, dsn: str) -> Db:
    """This test's own migrated database."""
    return await make_db(dsn=dsn)


@pytest.fixture(scope="module")
async def module_db(
    server: embedded.EmbeddedServer, databases: Databases, _template: str
) -> AsyncIterator[Db]:
    """A migrated database that the tests of a module share."""
    name = await databases.take(_template)
    on = await database.connect(on_database(server.dsn, name), Clock())
    yield on
    on.pool.terminate()
    await databases.give_back(name, _template)


@pytest.fixture(scope="session", autouse=True)
async def _loop(request: pytest.FixtureRequest) -> None:
    request.config.stash[_LOOP] = asyncio.get_running_loop()


def pytest_configure() -> None:
    """Let failures be logged plainly: drawn with all their local values they hold the loop up."""
    gc.disable()  # until all tests are read: nothing of that is garbage
    plain = structlog.dev.ConsoleRenderer(
        colors=False, exception_formatter=structlog.dev.plain_traceback
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=True),
            plain,
        ]
    )


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest: begun last, it would be waited for by all others."""
    items.sort(key=lambda item: item.path.name not in _LONGEST)


def pytest_collection_finish() -> None:
    """Spare the collector of garbage what is there to the end: modules, and thousands of tests.

    And let it look seldom: what tests leave is gone with its last name, nearly all of it.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test cut off by its time limit says what every task was waiting for.

    The stack of the thread shows the loop's selector alone.
    """
    report = yield
    loop = item.config.stash.get(_LOOP, None)
    if report.failed and "Timeout" in report.longreprtext[-200:] and loop is not None:
        waiting = StringIO()
        for task in asyncio.all_tasks(loop):
            task.print_stack(file=waiting)
        report.sections.append(("tasks of the loop", waiting.getvalue()))
    return report


@pytest.fixture(autouse=True)
def _no_failpoint_left() -> Iterator[None]:
    yield
    failpoints.arm(None)

"""What tests of the surfaces share: a served platform against the sandbox."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import structlog

from tests.sandboxes import start_sandbox
from tests.stage import Stage, staged
from tests.surfaces.commands import Cli, command_line
from tests.surfaces.visitors import close_browser
from tongbao.infra.db import Db
from tongbao_sandbox.launch import RunningSandbox


@pytest.fixture(scope="session", autouse=True)
async def _one_browser() -> AsyncIterator[None]:
    yield
    await close_browser()


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSandbox]:
    """One sandbox process per test module."""
    with start_sandbox(tmp_path_factory.mktemp("sandbox")) as running:
        yield running


@pytest.fixture
async def stage(db: Db, tmp_path: Path, sandbox: RunningSandbox) -> AsyncIterator[Stage]:
    """A platform with an open shop; the sandbox forgets the faults of the test before."""
    sandbox.delete("faults")
    async with staged(db, tmp_path, sandbox) as ready:
        yield ready


@pytest.fixture(scope="module")
async def module_stage(
    module_db: Db, tmp_path_factory: pytest.TempPathFactory, sandbox: RunningSandbox
) -> AsyncIterator[Stage]:
    """A platform for all tests of a module that look at their own payments only."""
    async with staged(module_db, tmp_path_factory.mktemp("platform"), sandbox) as ready:
        yield ready


@pytest.fixture
async def shared_stage(module_stage: Stage) -> Stage:
    """The module's platform, at the sandbox's time; the sandbox has forgotten earlier faults."""
    module_stage.sandbox.delete("faults")
    await module_stage.live_together()
    return module_stage


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Thousands of requests need not each leave a line."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("warning"))
    yield
    structlog.configure(**before)


@pytest.fixture
def cli(environment: dict[str, str]) -> Iterator[Cli]:
    """The command line, with the settings a test module's `environment` gives it."""
    with command_line(environment) as run:
        yield run

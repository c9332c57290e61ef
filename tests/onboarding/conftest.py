"""A platform, an agent's program with its key, and two operators who review."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.onboarding.applicants import Applicant
from tests.sandboxes import start_sandbox
from tests.stage import Stage, staged
from tongbao.infra.db import Db
from tongbao_sandbox.launch import RunningSandbox


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSandbox]:
    with start_sandbox(tmp_path_factory.mktemp("sandbox")) as running:
        yield running


@pytest.fixture(scope="module")
async def module_stage(
    module_db: Db, tmp_path_factory: pytest.TempPathFactory, sandbox: RunningSandbox
) -> AsyncIterator[Stage]:
    async with staged(module_db, tmp_path_factory.mktemp("platform"), sandbox) as ready:
        yield ready


@pytest.fixture
async def stage(module_stage: Stage) -> Stage:
    """One for the module; no fault survives a test, and each firm applies once."""
    module_stage.sandbox.delete("faults")
    await module_stage.live_together()
    return module_stage


@pytest.fixture
async def applicant(stage: Stage) -> Applicant:
    return Applicant(stage)

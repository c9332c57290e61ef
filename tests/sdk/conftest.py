"""What tests of the SDK share: a platform that misbehaves, and a real one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.sandboxes import start_sandbox
from tests.sdk.flaky import FlakyPlatform, flaky_platform
from tests.stage import Stage, staged
from tongbao.infra.db import Db
from tongbao_sandbox.launch import RunningSandbox


@pytest.fixture
def flaky() -> Iterator[FlakyPlatform]:
    with flaky_platform() as platform:
        yield platform


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSandbox]:
    with start_sandbox(tmp_path_factory.mktemp("sandbox")) as running:
        yield running


@pytest.fixture
async def stage(db: Db, tmp_path: Path, sandbox: RunningSandbox) -> AsyncIterator[Stage]:
    sandbox.delete("faults")
    async with staged(db, tmp_path, sandbox) as ready:
        yield ready

"""Flows run on a real platform, served over HTTP, against the sandbox.

One sandbox and one platform serve a whole module: a test uses numbers nobody else uses, and looks
at its own payments. What must always hold is checked once more when a platform is left.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.payments.invariants import assert_money_is_conserved
from tests.payments.letters import Postman
from tests.sandboxes import start_sandbox
from tests.stage import Stage, staged
from tongbao.infra.db import Db
from tongbao_sandbox.launch import RunningSandbox


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSandbox]:
    """One sandbox process per test module; who gets no answer does not wait long for it."""
    with start_sandbox(tmp_path_factory.mktemp("sandbox")) as running:
        running.post("settings", hold_s=0.02)
        yield running


@pytest.fixture(scope="module")
async def module_stage(
    module_db: Db, tmp_path_factory: pytest.TempPathFactory, sandbox: RunningSandbox
) -> AsyncIterator[Stage]:
    async with staged(module_db, tmp_path_factory.mktemp("platform"), sandbox) as ready:
        yield ready
        await assert_money_is_conserved(module_db)


@pytest.fixture
async def stage(module_stage: Stage) -> Stage:
    """The module's platform with an open shop; the sandbox has forgotten earlier faults."""
    module_stage.sandbox.delete("faults")
    await module_stage.live_together()
    return module_stage


@pytest.fixture
async def own_stage(db: Db, tmp_path: Path, sandbox: RunningSandbox) -> AsyncIterator[Stage]:
    """A platform on a database of the test's own."""
    sandbox.delete("faults")
    async with staged(db, tmp_path, sandbox) as ready:
        yield ready
        await assert_money_is_conserved(db)


@pytest.fixture(scope="module")
async def postman(module_stage: Stage) -> AsyncIterator[Postman]:
    """Delivers letters that the institutions have really signed."""
    async with Postman(module_stage) as carrying:
        yield carrying

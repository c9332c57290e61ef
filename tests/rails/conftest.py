"""The client, the scripted server and the sandbox that channel tests share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.rails.wire_server import WireServer, wire_server
from tongbao.infra.http import HttpClient
from tongbao_sandbox.launch import RunningSandbox, start_sandbox


@pytest.fixture
async def http() -> AsyncIterator[HttpClient]:
    client = HttpClient()
    yield client
    await client.close()


@pytest.fixture
async def server() -> AsyncIterator[WireServer]:
    async with wire_server() as scripted:
        yield scripted


@pytest.fixture(scope="session")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSandbox]:
    folder: Path = tmp_path_factory.mktemp("sandbox")
    with start_sandbox(folder) as running:
        yield running

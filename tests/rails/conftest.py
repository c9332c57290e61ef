"""The client, the scripted server and the sandbox that channel tests share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from tests.rails.stalls import HOLD_S, STALLS, Stall
from tests.rails.wire_server import WireServer, wire_server
from tests.sandboxes import start_sandbox
from tongbao.infra.http import HttpClient
from tongbao_sandbox.launch import RunningSandbox

HOLD_S_OF_ALL = 1.0


@pytest.fixture
async def http() -> AsyncIterator[HttpClient]:
    client = HttpClient()
    yield client
    await client.close()


@pytest.fixture
async def far_end() -> AsyncIterator[WireServer]:
    async with wire_server() as scripted:
        yield scripted


@pytest.fixture(scope="session")
def sandbox_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSandbox]:
    with start_sandbox(tmp_path_factory.mktemp("sandbox")) as running:
        running.post("settings", hold_s=HOLD_S_OF_ALL)
        yield running


@pytest.fixture
def sandbox(sandbox_process: RunningSandbox) -> Iterator[RunningSandbox]:
    """One process for all; no fault survives a test."""
    yield sandbox_process
    sandbox_process.delete("faults")


@pytest.fixture
def fresh_sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSandbox]:
    """A process and days of its own, for a test that looks at a whole bill."""
    with start_sandbox(tmp_path_factory.mktemp("fresh")) as running:
        yield running


@pytest.fixture
async def stall_at(
    sandbox: RunningSandbox, http: HttpClient, far_end: WireServer
) -> AsyncIterator[Callable[[str], Stall]]:
    """Opens a merchant's stall at the channel of this name."""
    opened: list[Stall] = []
    sandbox.post("settings", hold_s=HOLD_S)

    def open_stall(name: str) -> Stall:
        opened.append(STALLS[name](sandbox, http, far_end))
        return opened[-1]

    yield open_stall
    sandbox.post("settings", hold_s=HOLD_S_OF_ALL)
    for stall in opened:
        await asyncio.to_thread(sandbox.settle)
        if shut := getattr(stall.channel, "shut", None):
            await shut()

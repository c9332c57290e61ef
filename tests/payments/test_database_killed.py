"""PostgreSQL is killed while the platform works, and comes back; what was told stays true.

These run on a server with the durability of production. The platform outlives its database, except
where both die at once.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.conftest import TEST_LICENCE, DurableServer
from tests.payments.crash_scene import Place, Scene, open_place, open_shop, scene_on
from tongbao.infra.db import connect
from tongbao.infra.migrate import migrate
from tongbao.kernel.clock import Clock
from tongbao_sandbox.launch import RunningSandbox
from tongbao_sdk import Unanswered

MANY = 12


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, sandbox: RunningSandbox) -> Iterator[Place]:
    with open_place(tmp_path_factory.mktemp("platform"), sandbox) as ready:
        yield ready


@pytest.fixture
async def scene(place: Place, durable_server: DurableServer) -> AsyncIterator[Scene]:
    db = await connect(durable_server.dsn, Clock())
    await migrate(db, TEST_LICENCE, "tests")
    await db.close()
    shop = await open_shop(place, durable_server.dsn)
    async with scene_on(place, shop, durable_server.dsn) as ready:
        ready.death_within_s = 0
        await ready.start()
        yield ready


async def test_while_the_channel_makes_a_qr(scene: Scene, durable_server: DurableServer) -> None:
    def ask() -> Any:
        return scene.create(channel="wechat_pay", mode="qr")

    with held(scene.sandbox):
        asking = asyncio.create_task(ask())
        await made(scene, "attempt")
        durable_server.kill9()
    with pytest.raises(Unanswered):
        await asking
    durable_server.restart()
    await scene.database_is_back()

    payment = await ask()
    await scene.customer_pays(payment)
    await all_is_well(scene)
    assert (await scene.read(payment))["status"] == "succeeded"


async def test_while_the_channel_gives_money_back(
    scene: Scene, durable_server: DurableServer
) -> None:
    payment = await scene.create(channel="alipay", mode="qr")
    await scene.customer_pays(payment)
    await scene.rest()

    with held(scene.sandbox):
        asking = asyncio.create_task(scene.refund(payment, 500))
        await made(scene, "refund")
        durable_server.kill9()
    with pytest.raises(Unanswered):
        await asking
    durable_server.restart()
    await scene.database_is_back()

    refund = await scene.refund(payment, 500)
    await all_is_well(scene)
    assert (await scene.read(refund))["status"] == "succeeded"


async def test_while_customers_pay(scene: Scene, durable_server: DurableServer) -> None:
    payments = [
        await scene.create(f"create-{number}", channel=channel, mode="qr")
        for number, channel in enumerate(["wechat_pay", "alipay"] * 3)
    ]

    scans = [asyncio.create_task(scene.customer_pays(payment)) for payment in payments]
    await scans[0]  # callbacks are coming in
    durable_server.kill9()
    await asyncio.gather(*scans)
    durable_server.restart()
    await scene.database_is_back()

    await all_is_well(scene)
    for payment in payments:
        assert (await scene.read(payment))["status"] == "succeeded"


@pytest.mark.parametrize("platform", ["lives on", "dies too"])
async def test_under_many_requests_what_was_answered_is_durable(
    scene: Scene, durable_server: DurableServer, platform: str
) -> None:
    def ask(number: int) -> Any:
        return scene.create(f"create-{number}", channel="wechat_pay", mode="qr")

    asking = [asyncio.create_task(ask(number)) for number in range(MANY)]
    await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
    durable_server.kill9()
    if platform == "dies too":
        scene.stop()
    await asyncio.gather(*asking, return_exceptions=True)
    acknowledged = list(scene.answers.values())
    assert acknowledged, "it was killed before anything was told"
    durable_server.restart()
    if platform == "dies too":
        await scene.start()
    await scene.database_is_back()

    for payment in acknowledged:
        assert (await scene.read(payment))["status"] == "pending"
    for payment in [await ask(number) for number in range(MANY)]:
        await scene.customer_pays(payment)
    await all_is_well(scene)


@contextmanager
def held(sandbox: RunningSandbox) -> Iterator[None]:
    """Let the channels fall silent for a while, with whatever they are being asked."""
    os.kill(sandbox.process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(sandbox.process.pid, signal.SIGCONT)


async def made(scene: Scene, table: str) -> None:
    """Wait until the intention is committed, so that the channel is what is waited for."""
    async with asyncio.timeout(30):
        count = 0
        while count == 0:
            await asyncio.sleep(0.05)
            [row] = await scene.db.fetch(f"select count(*) as count from {table}", ())
            count = row["count"]


async def all_is_well(scene: Scene) -> None:
    await scene.rest()
    await scene.ask_everything_again()
    await scene.assert_all_is_well()
    scene.assert_no_failure_was_logged()

"""The database did it, and its answer is lost: with the connection, whenever it likes.

Whoever asked does not know, asks again under the same key, and hears what became of the first.
TONGBAO_LOST_ANSWERS=100 lets a hundred payments go over such a line; an ordinary run takes a few.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from typing import Any

import pytest

from tests.payments.crash_scene import AMOUNT, Place, Scene, open_place, open_shop, scene_on
from tests.payments.lossy_line import LossyLine
from tongbao_sandbox.launch import RunningSandbox
from tongbao_sdk import Unanswered

MANY = int(os.environ.get("TONGBAO_LOST_ANSWERS", "8"))
SEED = int(os.environ.get("TONGBAO_LOST_ANSWERS_SEED", "20261122"))
TRIES_MAX = 60


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, sandbox: RunningSandbox) -> Iterator[Place]:
    with open_place(tmp_path_factory.mktemp("platform"), sandbox) as ready:
        yield ready


@pytest.fixture
async def line(make_dsn: Callable[..., Awaitable[str]]) -> LossyLine:
    return LossyLine(await make_dsn(), SEED)


@pytest.fixture
async def scene(place: Place, line: LossyLine) -> AsyncIterator[Scene]:
    shop = await open_shop(place, line.dsn)
    async with scene_on(place, shop, line.dsn) as ready:
        ready.death_within_s = 0
        ready.platform_dsn = await line.open()
        await ready.start()
        yield ready


async def heard(asking: Callable[[], Awaitable[Any]]) -> Any:
    """Ask until there is an answer, as a merchant's program does."""
    for _ in range(TRIES_MAX):
        try:
            return await asking()
        except Unanswered:
            await asyncio.sleep(0.2)
    raise TimeoutError("nobody ever answered")


async def has_succeeded(scene: Scene, payment: Any) -> None:
    if (await scene.read(payment))["status"] != "succeeded":
        raise Unanswered("not yet", None)


async def buy(scene: Scene, number: int) -> None:
    """A customer buys something at a channel, and gets some of the money back."""
    channel = ("wechat_pay", "alipay")[number % 2]
    payment = await heard(lambda: scene.create(f"create-{number}", channel=channel, mode="qr"))
    await scene.customer_pays(payment)
    await heard(lambda: has_succeeded(scene, payment))
    if number % 3 == 0:
        await heard(lambda: scene.refund(payment, AMOUNT // 2, f"refund-{number}"))


async def buy_from_wallet(scene: Scene, number: int) -> None:
    """Somebody puts money into a wallet and pays with its code."""
    wallets = scene.client.wallets
    wallet = await heard(lambda: scene.ask(f"wallet-{number}", wallets.open, holder_name="张三"))
    top_up = partial(scene.ask, f"top_up-{number}", wallets.top_up, wallet["id"], amount=3 * AMOUNT)
    await heard(top_up)
    code = await heard(lambda: asyncio.to_thread(wallets.payment_code, wallet["id"]))
    method = {"mode": "payment_code", "auth_code": code["code"]}
    payment = await heard(lambda: scene.create(f"create-{number}", **method))
    assert payment["status"] == "succeeded"
    assert await heard(lambda: scene.wallet_balance(wallet)) == 2 * AMOUNT


async def test_what_was_done_unheard_of_is_done_once(scene: Scene, line: LossyLine) -> None:
    line.chance = 0.05
    ways = [buy if number % 4 != 3 else buy_from_wallet for number in range(MANY)]
    await asyncio.gather(*[way(scene, number) for number, way in enumerate(ways)])
    line.chance = 0.0
    assert line.lost, "no answer was lost"
    await scene.leases_run_out()
    await scene.rest()
    await scene.ask_everything_again()
    await scene.assert_all_is_well()

"""The database did it, and its answer is lost: with the connection, whenever it likes.

Whoever asked does not know, asks again under the same key, and hears what became of the first.
TONGBAO_LOST_ANSWERS=100 lets a hundred payments go over such a line; an ordinary run takes a few.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import pytest

from tests.flow_process import Order
from tests.payments.crash_scene import AMOUNT, Died, Place, Scene, open_place, open_shop, scene_on
from tests.payments.lossy_line import LossyLine
from tongbao_sandbox.launch import RunningSandbox
from tongbao_sdk import Refused, Unanswered

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
        except (Unanswered, Died):
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


async def buy_much(scene: Scene) -> None:
    ways = [buy if number % 4 != 3 else buy_from_wallet for number in range(MANY)]
    await asyncio.gather(*[way(scene, number) for number, way in enumerate(ways)])


async def all_is_well(scene: Scene) -> None:
    await scene.leases_run_out()
    await scene.rest()
    await scene.ask_everything_again()
    await scene.assert_all_is_well()


async def test_what_was_done_unheard_of_is_done_once(scene: Scene, line: LossyLine) -> None:
    line.chance = 0.05
    await buy_much(scene)
    line.chance = 0.0
    assert line.lost, "no answer was lost"
    await all_is_well(scene)


async def test_who_dies_again_and_again_doubles_nothing(scene: Scene) -> None:
    """Anywhere, as no list of places has it: by the clock."""
    buying, chance = asyncio.create_task(buy_much(scene)), random.Random(SEED)
    lives = scene.lives
    while not buying.done():
        await asyncio.sleep(chance.uniform(0.1, 0.9))
        await scene.start()  # which kills the one before it
        await scene.leases_run_out()
    await buying
    assert scene.lives > lives
    await all_is_well(scene)


async def begrudge(scene: Scene, number: int, lead_s: float) -> None:
    """A customer pays while the merchant closes, about the same moment."""
    channel = ("wechat_pay", "alipay")[number % 2]
    payment = await heard(lambda: scene.create(f"create-{number}", channel=channel, mode="qr"))

    async def pay() -> None:
        await asyncio.sleep(max(lead_s, 0))
        with suppress(ValueError):  # there is no such order any more
            await scene.customer_pays(payment)

    async def close() -> None:
        await asyncio.sleep(max(-lead_s, 0))
        with suppress(Refused):  # it is paid
            await asyncio.to_thread(scene.client.payments.close, payment["id"])

    await asyncio.gather(pay(), close())


async def test_of_two_processes_none_closes_what_is_paid(scene: Scene) -> None:
    """Answers, callbacks, queries and closings of one payment come to either."""
    order = Order(scene.platform_dsn, str(scene.place.folder), scene.sandbox.url, scene.place.port)
    other, chance = await asyncio.to_thread(scene.place.nursery.start, order), random.Random(SEED)
    try:
        leads = [-1.0, 1.0, *(chance.uniform(-0.1, 0.3) for _ in range(MANY))]
        await asyncio.gather(*[begrudge(scene, *each) for each in enumerate(leads)])
        await all_is_well(scene)
        ends = await scene.db.fetch("select distinct state from payment", ())
        assert {row["state"] for row in ends} == {"succeeded", "closed"}
    finally:
        other.kill()

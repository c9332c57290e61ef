"""Commissions: each agent's part of each fee, posted once, carried when it is less than nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from msgspec import Struct

from tests.infra.signed_client import SignedClient
from tests.stage import Stage
from tongbao.clearing.commissions import _store as store
from tongbao.clearing.commissions.commissions import CommissionContended, pay_commissions
from tongbao.clearing.commissions.model import Commission, parts_of
from tongbao.infra import failpoints
from tongbao.infra.failpoints import SimulatedCrash
from tongbao.kernel.licence import Mode
from tongbao.ledger.model import AccountKey
from tongbao.ledger.queries import balance_of, movements
from tongbao.ledger.verify import verify
from tongbao.parties.agents.agents import add_agent, assign_merchant, chains_of, set_agent_terms
from tongbao.parties.agents.model import Agent
from tongbao.surfaces.demo.stage import Shop

MODE = Mode.SANDBOX


class Scene(Struct):
    """A shop that the lower of two agents brought: 30 % of the fee below, 70 % in all."""

    stage: Stage
    shop: Shop
    upper: Agent
    lower: Agent
    upper_shop: Shop

    @property
    def book(self) -> int:
        return self.shop.merchant.book(MODE)

    async def sells(self, amount: int) -> Any:
        return await self.stage.paid("wechat_pay", amount, client=self.stage.client_of(self.shop))

    async def pays(self) -> dict[Any, Commission]:
        """What each agent got of the fees since the last run."""
        stage = self.stage
        await stage.idle()
        chains = await chains_of(stage.db, MODE)
        clearing = stage.platform.clearing
        made = await pay_commissions(clearing, chains, self.shop.merchant.id, MODE)
        return {each.agent_id: each for each in made}

    async def balance(self, agent: Agent) -> int:
        key = AccountKey("merchant_payable", "CNY", agent.merchant_id)
        found = await balance_of(self.stage.db, self.book, key)
        return found.posted if found else 0


@pytest.fixture
async def scene(stage: Stage) -> Scene:
    shop, upper_shop, lower_shop = [await stage.open_shop() for _ in range(3)]
    async with stage.db.begin("test") as tx:
        upper = await add_agent(
            tx, upper_shop.merchant.id, MODE, name="upper", share_ppm=700_000, parent_id=None
        )
        lower = await add_agent(
            tx, lower_shop.merchant.id, MODE, name="lower", share_ppm=300_000, parent_id=upper.id
        )
        await assign_merchant(tx, shop.merchant.id, MODE, lower)
    return Scene(stage, shop, upper, lower, upper_shop)


async def test_a_fee_is_shared_along_the_chain_and_posted_once(scene: Scene) -> None:
    await scene.sells(10_000)  # fee 80
    await scene.sells(1_001)  # fee 8
    made = await scene.pays()
    again = await scene.pays()

    assert made[scene.lower.id].posted == 24 + 2
    assert made[scene.upper.id].posted == 32 + (5 - 2)
    assert again == {}
    assert await scene.balance(scene.lower) == 26
    assert await scene.balance(scene.upper) == 35
    assert (await verify(scene.stage.db)).is_sound


async def test_what_a_refund_takes_back_is_carried_until_it_is_earned(scene: Scene) -> None:
    first = await scene.sells(10_000)
    assert (await scene.pays())[scene.lower.id].posted == 24
    await scene.sells(5_000)  # money to refund from
    await scene.pays()
    await scene.stage.refund(first, 10_000, client=scene.stage.client_of(scene.shop))
    owed = (await scene.pays())[scene.lower.id]
    await scene.sells(10_000)
    last = (await scene.pays())[scene.lower.id]
    await scene.sells(10_000)
    after = (await scene.pays())[scene.lower.id]

    assert (owed.earned, owed.posted, owed.carried_out) == (-24, 0, -24)
    assert (last.earned, last.carried_in, last.posted) == (24, -24, 0)
    assert (after.carried_in, after.posted) == (0, 24)


async def test_a_commission_is_worked_out_again_from_the_journal_and_the_terms(
    scene: Scene,
) -> None:
    """Terms that change later change nothing that was earned before."""
    stage = scene.stage
    await scene.sells(10_000)
    made = await scene.pays()
    async with stage.db.begin("test") as tx:
        await set_agent_terms(tx, scene.lower.id, MODE, share_ppm=100_000, parent_id=scene.upper.id)
    await scene.sells(10_000)
    later = await scene.pays()

    key = AccountKey("merchant_payable", "CNY", scene.shop.merchant.id)
    lines = [line async for line in movements(stage.db, scene.book, key, after=0)]
    parts = parts_of(await chains_of(stage.db, MODE), scene.shop.merchant.id, lines)

    kept = []
    for one in (*made.values(), *later.values()):
        kept += await store.LINES.all(stage.db, one.book, one.id, 0, 100)
    assert sorted((each.seq, each.share_ppm, each.amount) for each in kept) == sorted(
        (each.seq, each.share_ppm, each.amount) for each in parts
    )
    assert later[scene.lower.id].posted == 8
    assert later[scene.upper.id].posted == 48


async def test_runs_at_once_count_a_fee_once(scene: Scene) -> None:
    await scene.sells(10_000)
    await scene.stage.idle()

    async def run() -> int:
        try:
            return len(await scene.pays())
        except CommissionContended:
            return 0

    counts = await asyncio.gather(*(run() for _ in range(4)))

    assert sorted(counts) == [0, 0, 0, 2]
    assert await scene.balance(scene.lower) == 24


@pytest.mark.parametrize("place", ["commissions.before_commit", "commissions.after_commit"])
async def test_whoever_dies_in_a_run_is_followed_by_one_that_pays_once(
    scene: Scene, place: str
) -> None:
    await scene.sells(10_000)
    await scene.stage.idle()
    failpoints.arm(f"{place}:raise")
    try:
        with pytest.raises(SimulatedCrash):
            await scene.pays()
    finally:
        failpoints.arm(None)

    await scene.pays()

    assert await scene.balance(scene.lower) == 24


async def test_an_agent_sees_its_own_and_nobody_elses(scene: Scene) -> None:
    stage = scene.stage
    await scene.sells(10_000)
    made = await scene.pays()
    agent = SignedClient(stage.app, scene.upper_shop.key_id, scene.upper_shop.secret.reveal())
    payer = SignedClient(stage.app, scene.shop.key_id, scene.shop.secret.reveal())

    listed = (await agent.get("/v1/commissions")).json
    [one] = listed["items"]
    path = f"/v1/commissions/{one['id']}/lines"
    lines = (await agent.get(path)).json["items"]

    assert (one["earned"], one["posted"]) == (32, 32)
    assert [(each["fee"], each["amount"]) for each in lines] == [(80, 32)]
    assert made[scene.upper.id].payer_id.hex not in str(listed)
    assert (await payer.get(path)).code == "commission.not_found"
    assert (await payer.get("/v1/commissions")).json["items"] == []
    assert (await agent.get(f"{path}?cursor=x")).code == "page.cursor_invalid"

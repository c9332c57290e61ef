"""Agents: a chain that cannot be too long, cannot close, and cannot promise more than there is."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.parties.conftest import new_merchant
from tongbao.controls.approvals.approvals import ApplyApproval, approve, run_apply
from tongbao.controls.approvals.model import Approval, Approvals, OwnProposal, acts_of
from tongbao.controls.approvals.queries import approval_with_id
from tongbao.infra.crypto import Keyring
from tongbao.infra.db import Db, Tx
from tongbao.infra.db_failures import LockNotFree
from tongbao.infra.tasks import Lease
from tongbao.kernel.errors import Refusal
from tongbao.kernel.ids import new_id, show
from tongbao.kernel.licence import Mode
from tongbao.parties.agents.agents import (
    add_agent,
    agent_of_merchant,
    agent_with_id,
    assign_merchant,
    chains_of,
    set_agent_terms,
)
from tongbao.parties.agents.approving import (
    AgentTerms,
    BroughtTerms,
    bound_acts,
    propose_agent,
    propose_brought,
    propose_new_terms,
)
from tongbao.parties.agents.model import (
    DEPTH_MAX,
    SHARE_WHOLE,
    Agent,
    AgentChainCloses,
    AgentChainTooLong,
    AgentExists,
    AgentHasOthersBelow,
    AgentInAnotherBook,
    AgentNotFound,
    AgentShareTooLarge,
    AgentTerm,
    Promise,
    chain_at,
)

NOON = datetime(2026, 11, 22, 4, tzinfo=UTC)
KEYS = Keyring([b"k" * 32])
SHARES = st.lists(st.integers(0, SHARE_WHOLE), min_size=1, max_size=DEPTH_MAX).map(sorted)


def promises(shares: list[int]) -> list[Promise]:
    """A chain from below: each passes on what the one below it has."""
    return [
        Promise(new_id(), share, passed)
        for share, passed in zip(shares, [0, *shares[:-1]], strict=True)
    ]


@given(SHARES, st.integers(-(10**15), 10**15))
def test_a_chains_parts_are_its_first_share_of_the_fee_and_never_more(
    shares: list[int], fee: int
) -> None:
    parts = [each.of(fee) for each in promises(shares)]

    assert abs(sum(parts)) == abs(fee) * shares[-1] // SHARE_WHOLE
    assert abs(sum(parts)) <= abs(fee)
    assert all(part == 0 or (part > 0) == (fee > 0) for part in parts)


@given(SHARES, st.integers(0, 10**12))
def test_what_a_fee_gave_its_return_takes(shares: list[int], fee: int) -> None:
    assert [each.of(fee) for each in promises(shares)] == [
        -each.of(-fee) for each in promises(shares)
    ]


def test_a_chain_is_what_it_was_at_the_moment() -> None:
    a, b = new_id(), new_id()
    later = NOON + timedelta(days=1)
    terms = [
        AgentTerm(a, 1, None, 700_000, NOON, "t"),
        AgentTerm(b, 1, a, 500_000, NOON, "t"),
        AgentTerm(b, 2, a, 600_000, later, "t"),
    ]

    assert chain_at(terms, b, NOON) == [Promise(b, 500_000, 0), Promise(a, 700_000, 500_000)]
    assert chain_at(terms, b, later) == [Promise(b, 600_000, 0), Promise(a, 700_000, 600_000)]
    assert chain_at(terms, b, NOON - timedelta(days=1)) == []
    circle = [AgentTerm(a, 1, b, 1, NOON, "t"), AgentTerm(b, 1, a, 1, NOON, "t")]
    assert len(chain_at(circle, a, NOON)) == 2


@pytest.fixture(scope="module")
async def forest(module_db: Db) -> Db:
    return module_db


async def agent(db: Db, share: int, parent: UUID | None = None) -> Agent:
    merchant = await new_merchant(db, KEYS, "Agent")
    async with db.begin("test") as tx:
        return await add_agent(
            tx, merchant.id, Mode.SANDBOX, name="agent", share_ppm=share, parent_id=parent
        )


async def terms(db: Db, who: Agent, share: int, parent: Agent | None) -> Agent:
    async with db.begin("test") as tx:
        parent_id = parent.id if parent else None
        return await set_agent_terms(tx, who.id, Mode.SANDBOX, share_ppm=share, parent_id=parent_id)


async def test_a_chain_has_five_members_at_most(forest: Db) -> None:
    last = await agent(forest, 900_000)
    for place in range(2, DEPTH_MAX + 1):
        last = await agent(forest, 900_000 - place, last.id)
    assert last.depth == DEPTH_MAX

    with pytest.raises(AgentChainTooLong):
        await agent(forest, 1, last.id)


async def test_nobody_stands_below_themselves(forest: Db) -> None:
    a = await agent(forest, 900_000)
    b = await agent(forest, 500_000, a.id)
    c = await agent(forest, 300_000, b.id)

    for below in (a, b, c):
        with pytest.raises(AgentChainCloses):
            await terms(forest, a, 100_000, below)
    lone = await agent(forest, 500_000)
    with pytest.raises(AgentHasOthersBelow):
        await terms(forest, a, 500_000, lone)
    moved = await terms(forest, c, 200_000, a)
    assert (moved.depth, moved.parent_id) == (2, a.id)


async def test_the_table_itself_refuses_a_circle(forest: Db) -> None:
    """Whoever writes past the program meets the same rule: depth grows along every chain."""
    a = await agent(forest, 900_000)
    b = await agent(forest, 500_000, a.id)

    for parent, depth, parent_depth, share in (
        (b.id, 1, 2, 500_000),
        (b.id, 3, 2, 500_000),
        (a.id, 2, 1, 900_000),
    ):
        with pytest.raises(asyncpg.IntegrityConstraintViolationError):
            await forest.execute(
                "update agent set parent_id = $2, depth = $3, parent_depth = $4,"
                " parent_share_ppm = $5 where id = $1",
                (a.id, parent, depth, parent_depth, share),
            )


async def test_nobody_is_promised_more_than_the_one_above_has(forest: Db) -> None:
    a = await agent(forest, 700_000)
    b = await agent(forest, 500_000, a.id)

    with pytest.raises(AgentShareTooLarge):
        await agent(forest, 700_001, a.id)
    with pytest.raises(AgentShareTooLarge):
        await terms(forest, a, 499_999, None)
    with pytest.raises(AgentShareTooLarge):
        await terms(forest, a, SHARE_WHOLE + 1, None)

    await terms(forest, a, 500_000, None)
    assert (await agent_with_id(forest, b.id)).parent_share_ppm == 500_000


async def test_two_moves_that_would_close_a_chain_do_not_both_happen(forest: Db) -> None:
    a, b = await agent(forest, 500_000), await agent(forest, 500_000)

    async def move(who: Agent, below: Agent) -> bool:
        try:
            await terms(forest, who, 400_000, below)
        except (Refusal, LockNotFree):
            return False
        return True

    happened = await asyncio.gather(move(a, b), move(b, a))

    assert sum(happened) <= 1
    now = [await agent_with_id(forest, each.id) for each in (a, b)]
    assert sum(each.parent_id is not None for each in now) == sum(happened)


async def test_an_agent_is_one_merchants_in_one_mode(forest: Db) -> None:
    a = await agent(forest, 500_000)
    async with forest.begin("test") as tx:
        with pytest.raises(AgentExists):
            await add_agent(tx, a.merchant_id, Mode.SANDBOX, name="x", share_ppm=1, parent_id=None)
    async with forest.begin("test") as tx:
        with pytest.raises(AgentNotFound):
            await add_agent(tx, a.merchant_id, Mode.LIVE, name="x", share_ppm=1, parent_id=a.id)


async def test_who_brought_a_merchant_is_known_for_every_moment(
    forest: Db,
) -> None:
    a = await agent(forest, 500_000)
    shop = await new_merchant(forest, KEYS, "Shop")
    far = await new_merchant(forest, KEYS, "Far", sandbox_book=77)
    before = forest.clock.now()
    async with forest.begin("test") as tx:
        await assign_merchant(tx, shop.id, Mode.SANDBOX, a)
        with pytest.raises(AgentInAnotherBook):
            await assign_merchant(tx, far.id, Mode.SANDBOX, a)
    between = forest.clock.now()
    async with forest.begin("test") as tx:
        await assign_merchant(tx, shop.id, Mode.SANDBOX, None)

    chains = await chains_of(forest, Mode.SANDBOX)

    assert chains.chain(shop.id, before) == []
    assert chains.chain(shop.id, between) == [Promise(a.id, 500_000, 0)]
    assert chains.chain(shop.id, forest.clock.now()) == []


async def agreed(db: Db, asked: Approval, checker: str = "operator:bert") -> str:
    """A second person says yes, the worker does it; return what became of it."""
    desk = Approvals(db, acts_of(*bound_acts(db)))
    async with db.begin(checker) as tx:
        may, digest = {"settlement_act"}, asked.digest.hex()
        await approve(tx, desk.acts, asked.id, digest=digest, may=may)
    await run_apply(desk, ApplyApproval(asked.id), Lease(new_id(), 1))
    return (await approval_with_id(db, asked.id)).state.value


async def test_who_shares_in_live_fees_is_agreed_by_two_people(db: Db) -> None:
    payee, shop = await new_merchant(db, KEYS, "east"), await new_merchant(db, KEYS, "shop")
    mine, why = show("mch", payee.id), "their contract of May"

    async def proposed(ask: Callable[[Tx], Awaitable[Approval]]) -> Approval:
        async with db.begin("operator:anna") as tx:
            return await ask(tx)

    first = AgentTerms(mine, Mode.LIVE, "east", 300_000, None)
    asked = await proposed(lambda tx: propose_agent(tx, first, reason=why))
    assert await agent_of_merchant(db, payee.id, Mode.LIVE) is None
    with pytest.raises(OwnProposal):
        await agreed(db, asked, checker="operator:anna")
    assert await agreed(db, asked) == "applied"
    agent = await agent_of_merchant(db, payee.id, Mode.LIVE)
    assert agent is not None
    assert agent.share_ppm == 300_000

    brought = BroughtTerms(show("mch", shop.id), Mode.LIVE, show("agt", agent.id))
    assert await agreed(db, await proposed(lambda tx: propose_brought(tx, brought, reason=why)))
    chains = await chains_of(db, Mode.LIVE)
    [promise] = chains.chain(shop.id, db.clock.now())
    assert promise.agent_id == agent.id

    later = await proposed(
        lambda tx: propose_new_terms(tx, agent.id, share_ppm=400_000, below=None, reason=why)
    )
    async with db.begin("tests") as tx:  # meanwhile something else was agreed
        await set_agent_terms(tx, agent.id, Mode.LIVE, share_ppm=1, parent_id=None)
    assert await agreed(db, later) == "failed"
    assert (await agent_with_id(db, agent.id)).share_ppm == 1

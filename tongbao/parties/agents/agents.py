"""Take an agent on, move it, change its share, say whom it brought.

A chain's rules are the table's: a child's row names its parent with depth and share, so the
database refuses what is too long, closes on itself, or promises more than there is. What is here
says the same in words, on locked rows, from the house downwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from tongbao.infra import audit
from tongbao.infra.db import Db, Tx
from tongbao.infra.db_failures import CheckViolated
from tongbao.kernel.errors import Fact
from tongbao.kernel.ids import new_id, show
from tongbao.kernel.licence import Mode
from tongbao.kernel.pages import Page, decode_moment, page_by_moment, page_size
from tongbao.parties.agents import _store as store
from tongbao.parties.agents._store import Brought
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
from tongbao.parties.merchants.queries import merchant_with_id

PREFIX = "agt"


async def add_agent(
    tx: Tx, merchant_id: UUID, mode: Mode, *, name: str, share_ppm: int, parent_id: UUID | None
) -> Agent:
    """Make a merchant an agent, below another or directly below the house.

    Raises:
        MerchantNotFound, AgentNotFound, AgentChainTooLong, AgentShareTooLarge, AgentExists
    """
    await merchant_with_id(tx, merchant_id)
    parent = await _locked(tx, parent_id, mode) if parent_id else None
    _check_share(share_ppm, parent)
    made = await store.INSERT_AGENT.first(
        tx,
        new_id(),
        merchant_id,
        mode,
        name,
        parent_id,
        _depth_below(parent),
        parent.depth if parent else None,
        share_ppm,
        parent.share_ppm if parent else None,
        tx.now,
    )
    if made is None:
        raise AgentExists
    await _write_down(tx, made, "agent.added")
    return made


async def set_agent_terms(
    tx: Tx, agent_id: UUID, mode: Mode, *, share_ppm: int, parent_id: UUID | None
) -> Agent:
    """Agree another share with an agent, or put it below another, from now on.

    Raises:
        AgentNotFound, AgentChainCloses, AgentChainTooLong, AgentHasOthersBelow, AgentShareTooLarge
    """
    # Parents are locked before children, in whatever chain: two moves meet on a common row.
    parent = await _locked(tx, parent_id, mode) if parent_id else None
    if parent is not None and agent_id in {parent.id, *await _above(tx, parent)}:
        raise AgentChainCloses
    agent = await _locked(tx, agent_id, mode)
    below = await store.CHILDREN.all(tx, agent.id)
    depth = _depth_below(parent)
    if below and depth != agent.depth:
        raise AgentHasOthersBelow(below=len(below))
    _check_share(share_ppm, parent, [each.share_ppm for each in below])
    try:
        async with tx.savepoint():
            changed = await store.SET_TERMS.one(
                tx,
                agent.id,
                parent_id,
                depth,
                parent.depth if parent else None,
                share_ppm,
                parent.share_ppm if parent else None,
            )
    except CheckViolated:  # a child came between: its row says no
        raise AgentShareTooLarge from None
    await _write_down(tx, changed, "agent.terms_set")
    return changed


async def assign_merchant(tx: Tx, merchant_id: UUID, mode: Mode, agent: Agent | None) -> Brought:
    """Say who brought a merchant, from now on; None: nobody any more.

    Raises:
        MerchantNotFound, AgentInAnotherBook
    """
    merchant = await merchant_with_id(tx, merchant_id)
    if agent is not None:
        payee = await merchant_with_id(tx, agent.merchant_id)
        if payee.book(mode) != merchant.book(mode):
            raise AgentInAnotherBook
    brought = await store.ASSIGN.one(
        tx, merchant_id, mode, agent.id if agent else None, tx.now, tx.actor
    )
    facts = {"mode": mode.value, "agent": show(PREFIX, agent.id) if agent else None}
    await audit.record(tx, "merchant.agent_set", show("mch", merchant_id), facts)
    return brought


async def agent_with_id(on: Db | Tx, agent_id: UUID) -> Agent:
    """Return an agent.

    Raises:
        AgentNotFound
    """
    found = await store.GET_AGENT.first(on, agent_id)
    if found is None:
        raise AgentNotFound
    return found


async def agent_of_merchant(on: Db | Tx, merchant_id: UUID, mode: Mode) -> Agent | None:
    """Return the agent that a merchant is, if it is one."""
    found = await store.AGENT_OF_MERCHANT.first(on, merchant_id, mode)
    return found if found is not None and found.state == "active" else None


async def list_agents(
    on: Db | Tx, *, mode: Mode | None, cursor: str | None, limit: int | None
) -> Page[Agent]:
    """Return a page of agents, newest first.

    Raises:
        CursorInvalid, PageSizeInvalid
    """
    size = page_size(limit)
    _, before = decode_moment(cursor)
    found = await store.LIST_AGENTS.all(on, mode, before, size + 1)
    return page_by_moment(found, size, lambda row: (row.created_at, row.id))


class Chains:
    """Who gets which share of whose fees at which moment, read once and asked many times."""

    def __init__(self, brought: Sequence[Brought], terms: Sequence[AgentTerm]) -> None:
        self._brought: dict[UUID, list[Brought]] = {}
        for each in brought:
            self._brought.setdefault(each.merchant_id, []).append(each)
        self._terms = terms

    @property
    def merchants(self) -> list[UUID]:
        """Every merchant that somebody brought, at whatever time."""
        return sorted(self._brought)

    def chain(self, merchant_id: UUID, at: datetime) -> list[Promise]:
        """Return the chain that a fee of this moment is shared with, the lowest first."""
        begun = [each for each in self._brought.get(merchant_id, ()) if each.valid_from <= at]
        if not begun:
            return []
        return chain_at(self._terms, begun[-1].agent_id, at)


async def chains_of(on: Db | Tx, mode: Mode) -> Chains:
    """Return every chain of a mode: there are few agents, and merchants fit into memory."""
    brought = await store.BROUGHT_IN.all(on, mode)
    return Chains(brought, await store.TERMS_OF_MODE.all(on, mode))


async def _locked(tx: Tx, agent_id: UUID, mode: Mode) -> Agent:
    found = await store.LOCK_AGENT.first(tx, agent_id)
    if found is None or found.mode is not mode:
        raise AgentNotFound
    return found


async def _above(tx: Tx, agent: Agent) -> list[UUID]:
    """Return who stands above an agent, the nearest first."""
    found: list[UUID] = []
    parent_id = agent.parent_id
    while parent_id is not None and len(found) <= DEPTH_MAX:
        found.append(parent_id)
        parent_id = (await store.GET_AGENT.one(tx, parent_id)).parent_id
    return found


def _depth_below(parent: Agent | None) -> int:
    depth = 1 + (parent.depth if parent else 0)
    if depth > DEPTH_MAX:
        raise AgentChainTooLong(most=DEPTH_MAX)
    return depth


def _check_share(share_ppm: int, parent: Agent | None, below: Sequence[int] = ()) -> None:
    most = parent.share_ppm if parent else SHARE_WHOLE
    if not max(below, default=0) <= share_ppm <= most:
        raise AgentShareTooLarge(most_ppm=most, least_ppm=max(below, default=0))


async def _write_down(tx: Tx, agent: Agent, action: str) -> None:
    await store.INSERT_TERM.run(
        tx, agent.id, agent.version, agent.parent_id, agent.share_ppm, tx.now, tx.actor
    )
    facts: dict[str, Fact] = {
        "name": agent.name,
        "share_ppm": agent.share_ppm,
        "parent": show(PREFIX, agent.parent_id) if agent.parent_id else None,
    }
    await audit.record(tx, action, show(PREFIX, agent.id), facts)

"""Agents and their shares of a merchant's fee. No I/O.

An agent's share is what it and everybody below it may get of a fee. It passes a part of that on to
an agent below and keeps the rest, so what a whole chain gets is the share of its first member, and
never more than the fee:

    house ──70 %──► agent A ──50 %──► agent B ──30 %──► agent C, who brought the merchant
                    keeps 20          keeps 20          keeps 30 of every 100 of the fee
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final, Literal
from uuid import UUID

from msgspec import Struct

from tongbao.kernel.errors import Conflict, NotFound, Rejected
from tongbao.kernel.licence import Mode

DEPTH_MAX: Final = 5
"""How many agents may stand between the house and a merchant; the table's CHECK says it too."""
SHARE_WHOLE: Final = 1_000_000


class AgentNotFound(NotFound):
    """There is no such agent, or not in this mode."""

    code = "agent.not_found"
    advice = "List the agents to find the id."
    advice_zh = "请通过代理商列表查找正确的标识。"


class AgentExists(Conflict):
    """The merchant is an agent in this mode already."""

    code = "agent.exists"
    advice = "Change the terms of the agent that there is."
    advice_zh = "该商户已是代理商，请直接修改其条款。"


class AgentChainTooLong(Rejected):
    """Below this agent there is no room for another."""

    code = "agent.chain_too_long"
    advice = "Put the agent under one that stands nearer to the house."
    advice_zh = "代理层级已达上限，请挂到更上一级代理商之下。"


class AgentChainCloses(Rejected):
    """An agent cannot stand below itself, or below one of its own."""

    code = "agent.chain_closes"
    advice = "Choose an agent outside the one's own chain."
    advice_zh = "代理关系不能形成环路，请选择其下级以外的代理商。"


class AgentHasOthersBelow(Conflict):
    """An agent with others below moves only within its depth."""

    code = "agent.has_others_below"
    advice = "Move those below it first."
    advice_zh = "该代理商尚有下级，跨层级调整前请先迁移其下级。"


class AgentShareTooLarge(Rejected):
    """The share is more than the agent above has, or less than one below was promised."""

    code = "agent.share_too_large"
    advice = "Promise no more than the share above, and no less than the shares below."
    advice_zh = "分润比例不得高于上级，也不得低于下级已获得的比例。"


class AgentInAnotherBook(Rejected):
    """The agent's account is in another book than the merchant's, where commission is posted."""

    code = "agent.in_another_book"
    advice = "Choose an agent whose merchant has its money in the same book."
    advice_zh = "代理商与商户账户不在同一账簿，请选择同账簿的代理商。"


class Agent(Struct, frozen=True):
    """One row of the agent table; ``merchant_id`` is who it is: its keys, and where it is paid."""

    id: UUID
    merchant_id: UUID
    mode: Mode
    name: str
    parent_id: UUID | None
    depth: int
    parent_depth: int | None
    share_ppm: int
    parent_share_ppm: int | None
    state: Literal["active", "ended"]
    version: int
    created_at: datetime


class AgentTerm(Struct, frozen=True):
    """One row of agent_term: what was agreed with an agent from a moment on."""

    agent_id: UUID
    version: int
    parent_id: UUID | None
    share_ppm: int
    valid_from: datetime
    set_by: str


class Promise(Struct, frozen=True):
    """One agent of a chain at a moment: its share, and what of it is passed on."""

    agent_id: UUID
    share_ppm: int
    passed_ppm: int

    def of(self, fee: int) -> int:
        """Return what the agent gets of a fee in minor units; of a fee given back, what it owes.

        Each share is rounded down by itself, and an agent gets the difference of two: so a chain's
        parts add up to its first share of the fee, whatever was rounded.
        """
        size = abs(fee)
        amount = size * self.share_ppm // SHARE_WHOLE - size * self.passed_ppm // SHARE_WHOLE
        return amount if fee >= 0 else -amount


def chain_at(terms: Sequence[AgentTerm], agent_id: UUID | None, at: datetime) -> list[Promise]:
    """Return the chain from an agent up to the house as it was at a moment, the lowest first.

    ``terms`` are those of every agent that may be in it. Nobody appears twice, whatever they say.
    """
    latest: dict[UUID, AgentTerm] = {}
    for term in sorted(terms, key=lambda each: each.version):
        if term.valid_from <= at:
            latest[term.agent_id] = term
    promises: list[Promise] = []
    passed, seen = 0, set[UUID]()
    while agent_id is not None and agent_id in latest and agent_id not in seen:
        seen.add(agent_id)
        term = latest[agent_id]
        share = max(term.share_ppm, passed)
        promises.append(Promise(agent_id, share, passed))
        passed, agent_id = share, term.parent_id
    return promises

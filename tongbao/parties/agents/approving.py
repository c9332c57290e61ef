"""Who shares in live fees, and how much: what two people agree to, and what it does then."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final
from uuid import UUID

from msgspec import Struct

from tongbao.controls.approvals.approvals import in_transaction, propose
from tongbao.controls.approvals.model import Act, Approval, Bound, Change
from tongbao.infra.db import Db, Tx
from tongbao.kernel.errors import Conflict
from tongbao.kernel.ids import parse, show
from tongbao.kernel.licence import Mode
from tongbao.parties.agents.agents import (
    PREFIX,
    add_agent,
    agent_with_id,
    assign_merchant,
    set_agent_terms,
)
from tongbao.parties.agents.model import Agent, AgentNotFound
from tongbao.parties.merchants.queries import merchant_with_id


class AgentMoved(Conflict):
    """What was agreed with the agent changed after this change of it was proposed."""

    code = "agent.moved"
    advice = "Look at the agent again and propose what is still wanted."
    advice_zh = "代理商条款在提交后已变更，请重新查看并提交。"


class AgentTerms(Struct, frozen=True):
    """An agent's share and who stands over it; without ``agent`` the merchant becomes one."""

    merchant: str
    mode: Mode
    name: str
    share_ppm: int
    below: str | None
    agent: str | None = None
    before: int = 0  # the version of the agent's terms that this replaces


class BroughtTerms(Struct, frozen=True):
    """Who brought a merchant; without ``agent``, nobody any more."""

    merchant: str
    mode: Mode
    agent: str | None


SET_TERMS: Final = Act(
    "agent.set_terms",
    "Agree an agent's share",
    "约定代理商分润",
    AgentTerms,
    maker="merchants_act",
    checker="settlement_act",
)
SET_BROUGHT: Final = Act(
    "agent.set_brought",
    "Say which agent brought a merchant",
    "设定商户所属代理商",
    BroughtTerms,
    maker="merchants_act",
    checker="settlement_act",
)


async def propose_agent(
    tx: Tx, terms: AgentTerms, *, reason: str, may: Collection[str] | None = None
) -> Approval:
    """Propose that a merchant becomes an agent, or other terms of one.

    Raises:
        MerchantNotFound, AgentNotFound, MakerNotAllowed, ReasonTooShort, ApprovalWaiting
    """
    merchant = await merchant_with_id(tx, parse("mch", terms.merchant))
    if terms.below is not None:
        await _agent(tx, terms.below, terms.mode)
    subject = terms.agent or f"{terms.merchant}/{terms.mode}"
    return await propose(
        tx, SET_TERMS, subject, terms, reason=reason, merchant_id=merchant.id, mode=terms.mode,
        may=may,
    )  # fmt: skip


async def propose_new_terms(
    tx: Tx,
    agent_id: UUID,
    *,
    share_ppm: int,
    below: str | None,
    reason: str,
    may: Collection[str] | None = None,
) -> Approval:
    """Propose another share of an agent, or that it stands below another.

    Raises:
        AgentNotFound, MakerNotAllowed, ReasonTooShort, ApprovalWaiting
    """
    agent = await agent_with_id(tx, agent_id)
    terms = AgentTerms(
        show("mch", agent.merchant_id), agent.mode, agent.name, share_ppm, below,
        show(PREFIX, agent.id), agent.version,
    )  # fmt: skip
    return await propose_agent(tx, terms, reason=reason, may=may)


async def propose_brought(
    tx: Tx, terms: BroughtTerms, *, reason: str, may: Collection[str] | None = None
) -> Approval:
    """Propose who brought a merchant.

    Raises:
        MerchantNotFound, AgentNotFound, MakerNotAllowed, ReasonTooShort, ApprovalWaiting
    """
    merchant = await merchant_with_id(tx, parse("mch", terms.merchant))
    if terms.agent is not None:
        await _agent(tx, terms.agent, terms.mode)
    return await propose(
        tx, SET_BROUGHT, f"{terms.merchant}/{terms.mode}", terms, reason=reason,
        merchant_id=merchant.id, mode=terms.mode, may=may,
    )  # fmt: skip


def bound_acts(db: Db) -> tuple[Bound, ...]:
    """Return the acts on agents, for the registry."""
    return (
        Bound(SET_TERMS, in_transaction(db, _set_terms), _show_terms, link=lambda _: "/agents"),
        Bound(
            SET_BROUGHT, in_transaction(db, _set_brought), _show_brought,
            link=lambda approval: f"/merchants/{approval.subject.partition('/')[0]}",
        ),
    )  # fmt: skip


async def _set_terms(tx: Tx, _approval: Approval, terms: AgentTerms) -> None:
    """Make the merchant an agent, or change its terms.

    Raises:
        AgentMoved, and what `add_agent` and `set_agent_terms` refuse
    """
    parent_id = parse(PREFIX, terms.below) if terms.below else None
    if terms.agent is None:
        merchant_id = parse("mch", terms.merchant)
        await add_agent(
            tx, merchant_id, terms.mode, name=terms.name, share_ppm=terms.share_ppm,
            parent_id=parent_id,
        )  # fmt: skip
        return
    changed = await set_agent_terms(
        tx, parse(PREFIX, terms.agent), terms.mode, share_ppm=terms.share_ppm, parent_id=parent_id
    )
    if changed.version != terms.before + 1:  # the row was locked: nobody comes between
        raise AgentMoved


async def _set_brought(tx: Tx, _approval: Approval, terms: BroughtTerms) -> None:
    agent = await agent_with_id(tx, parse(PREFIX, terms.agent)) if terms.agent else None
    await assign_merchant(tx, parse("mch", terms.merchant), terms.mode, agent)


async def _show_terms(db: Db, _approval: Approval, terms: AgentTerms) -> Sequence[Change]:
    now = await agent_with_id(db, parse(PREFIX, terms.agent)) if terms.agent else None
    over = show(PREFIX, now.parent_id) if now and now.parent_id else None
    return [
        Change("Agent", "代理商", None, f"{terms.name} ({terms.agent or terms.merchant})"),
        Change("Share of the fee", "分润比例", _percent(now.share_ppm) if now else None,
               _percent(terms.share_ppm)),
        Change("Below", "上级", over, terms.below or "—"),
    ]  # fmt: skip


async def _show_brought(db: Db, _approval: Approval, terms: BroughtTerms) -> Sequence[Change]:
    merchant = await merchant_with_id(db, parse("mch", terms.merchant))
    agent = await agent_with_id(db, parse(PREFIX, terms.agent)) if terms.agent else None
    name = f"{agent.name} ({terms.agent})" if agent else "—"
    return [
        Change("Merchant", "商户", None, f"{merchant.name} ({terms.merchant})"),
        Change("Brought by", "所属代理商", None, name),
    ]


async def _agent(tx: Tx, shown: str, mode: Mode) -> Agent:
    found = await agent_with_id(tx, parse(PREFIX, shown))
    if found.mode is not mode:
        raise AgentNotFound
    return found


def _percent(ppm: int) -> str:
    whole, rest = divmod(ppm, 10_000)
    return f"{whole}.{rest:04d}".rstrip("0").rstrip(".") + "%"

"""Close a difference as two people do: one proposes, another approves, the worker does it."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from tongbao.clearing.cases.cases import bound_closings, propose_closing
from tongbao.controls.approvals.approvals import ApplyApproval, approve, run_apply
from tongbao.controls.approvals.model import Approval, Approvals, acts_of
from tongbao.controls.approvals.queries import approval_with_id
from tongbao.infra.db import Db

MAY: Sequence[str] = ("breaks_act",)


async def propose_close(db: Db, break_id: UUID, reason: str, *, maker: str = "maker") -> Approval:
    """Propose to close a difference that is about money."""
    async with db.begin(maker) as tx:
        asked = await propose_closing(tx, break_id, reason=reason, may=MAY)
    assert asked is not None
    return asked


async def agree(db: Db, asked: Approval, *, checker: str = "checker") -> str:
    """Approve a proposal and do it; return the state it then has."""
    desk = Approvals(db, acts_of(*bound_closings(db)))
    async with db.begin(checker) as tx:
        await approve(tx, desk.acts, asked.id, digest=asked.digest.hex(), may=MAY)
    await run_apply(desk, ApplyApproval(asked.id), None)
    return (await approval_with_id(db, asked.id)).state.value


async def close_difference(db: Db, break_id: UUID, reason: str) -> None:
    """Close a difference by two people."""
    assert await agree(db, await propose_close(db, break_id, reason)) == "applied"

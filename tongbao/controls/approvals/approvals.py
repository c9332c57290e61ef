"""Propose, decide, withdraw, expire; and apply once what was approved."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from functools import partial
from typing import Any, Final
from uuid import UUID

import msgspec
import structlog
from msgspec import Struct
from msgspec.structs import replace

from tongbao.controls.approvals import _store as store
from tongbao.controls.approvals.model import (
    PREFIX,
    REASON_MAX,
    Act,
    Acts,
    ActUnknown,
    Apply,
    Approval,
    ApprovalDecided,
    ApprovalExpired,
    ApprovalMoved,
    ApprovalNotFound,
    Approvals,
    ApprovalState,
    ApprovalWaiting,
    Bound,
    CheckerNotAllowed,
    Effect,
    MakerNotAllowed,
    NotTheMaker,
    OwnProposal,
    TermsDiffer,
    TermsTampered,
    digest_of,
    reason_of,
    terms_text,
)
from tongbao.controls.approvals.seconds import waits_for_another
from tongbao.infra import audit
from tongbao.infra.db import Db, Tx, Write
from tongbao.infra.failpoints import failpoint
from tongbao.infra.outbox import event_write
from tongbao.infra.tasks import (
    DEFAULT_POLICY,
    Again,
    Handler,
    Lease,
    LeaseLost,
    RetryPolicy,
    Task,
    cancel_write,
    enqueue,
)
from tongbao.kernel.errors import Busy, Fact, Refusal
from tongbao.kernel.ids import new_id, show
from tongbao.kernel.licence import Mode

APPROVALS_POLICY: Final[RetryPolicy] = DEFAULT_POLICY
_log: Final = structlog.get_logger()


class ApplyApproval(Task, frozen=True, tag="approvals.apply"):
    """Do what was approved."""

    approval_id: UUID


class ExpireApproval(Task, frozen=True, tag="approvals.expire"):
    """End a proposal that nobody decided about."""

    approval_id: UUID


POLICIES: Final[Mapping[type[Task], RetryPolicy]] = {
    ApplyApproval: APPROVALS_POLICY,
    ExpireApproval: APPROVALS_POLICY,
}


def work_of(desk: Approvals) -> dict[type[Task], Handler]:
    """Return who does the tasks of four eyes."""
    return {
        ApplyApproval: partial(run_apply, desk),
        ExpireApproval: partial(run_expire, desk),
    }


async def propose(
    tx: Tx,
    act: Act,
    subject: str,
    terms: Struct,
    *,
    reason: str,
    merchant_id: UUID | None = None,
    mode: Mode | None = None,
    may: Collection[str] | None = None,
    supersede: bool = False,
) -> Approval:
    """Put a dangerous act before other eyes, in the name of the transaction's actor.

    ``subject`` is the public id of what it happens to. ``may`` are the actor's permissions; None
    for the program itself. ``supersede`` withdraws what waits on the same subject, without the
    act's ``ended`` being told: the caller replaces it. What is approved is never superseded.

    Raises:
        MakerNotAllowed, ReasonTooShort, TermsTooLarge, ApprovalWaiting
    """
    if may is not None and act.maker not in may:
        raise MakerNotAllowed(act=act.name, permission=act.maker)
    if not isinstance(terms, act.terms):
        raise TypeError(f"{act.name} is about {act.terms.__name__}")
    why, text, approval_id = reason_of(reason), terms_text(terms), new_id()
    if supersede:
        await _supersede(tx, act, subject, approval_id)
    drawn = Approval(
        approval_id,
        act.name,
        subject,
        merchant_id,
        mode,
        text,
        b"",
        why,
        tx.actor,
        tx.now,
        tx.now + act.lasts,
        ApprovalState.PROPOSED,
        *(None,) * 6,
    )
    made = await store.INSERT.first(
        tx,
        approval_id,
        act.name,
        subject,
        merchant_id,
        mode,
        text,
        digest_of(drawn),
        why,
        tx.actor,
        tx.now,
        drawn.expires_at,
    )
    if made is None:
        raise ApprovalWaiting(act=act.name, subject=subject)
    await enqueue(tx, ExpireApproval(made.id), run_at=made.expires_at, key=str(made.id))
    await _note(tx, made)
    return made


async def approve(
    tx: Tx, acts: Acts, approval_id: UUID, *, digest: str, may: Collection[str], note: str = ""
) -> Approval:
    """Agree to what somebody else proposed; a task does it after the caller's commit.

    Where so much money takes two who agree, the first leaves it proposed. ``digest`` is the
    hexadecimal SHA-256 that was shown with the terms the actor has read.

    Raises:
        ApprovalNotFound, ApprovalDecided, ApprovalExpired, ActUnknown, CheckerNotAllowed,
        OwnProposal, TermsDiffer, TermsTampered, AlreadyAgreed
    """
    found = await _locked_to_decide(tx, acts, approval_id, may)
    if found.digest.hex() != digest.strip().lower():
        raise TermsDiffer(approval=found.shown_id)
    found.check_untouched(await _digest_told(tx, found, ApprovalState.PROPOSED))
    failpoint("approvals.before_decision")
    why = " ".join(note.split())[:REASON_MAX] or None
    if await waits_for_another(tx, _bound(acts, found).act, found, why):
        return found
    decided = await _decide(tx, found, ApprovalState.APPROVED, why)
    await enqueue(tx, ApplyApproval(found.id), key=str(found.id))
    return decided


async def reject(
    tx: Tx, acts: Acts, approval_id: UUID, *, reason: str, may: Collection[str]
) -> Approval:
    """Turn down what somebody else proposed.

    Raises:
        ApprovalNotFound, ApprovalDecided, ApprovalExpired, ActUnknown, CheckerNotAllowed,
        OwnProposal, ReasonTooShort
    """
    why = reason_of(reason)
    found = await _locked_to_decide(tx, acts, approval_id, may)
    decided = await _decide(tx, found, ApprovalState.REJECTED, why)
    await _tell_ended(tx, acts, decided)
    return decided


async def withdraw(tx: Tx, acts: Acts, approval_id: UUID, *, reason: str = "") -> Approval:
    """Take one's own proposal back.

    Raises:
        ApprovalNotFound, ApprovalDecided, NotTheMaker
    """
    found = await _locked(tx, approval_id)
    if found.maker != tx.actor:
        raise NotTheMaker(approval=found.shown_id)
    note = " ".join(reason.split())[:REASON_MAX] or None
    gone = await _give_up(tx, found, ApprovalState.WITHDRAWN, note)
    await _tell_ended(tx, acts, gone)
    return gone


async def run_expire(desk: Approvals, task: ExpireApproval, _lease: Lease) -> Again | None:
    """End a proposal whose time is over."""
    async with desk.db.begin("approvals") as tx:
        found = await store.LOCK.first(tx, task.approval_id)
        if found is None or found.state is not ApprovalState.PROPOSED:
            return None
        if not found.is_expired(tx.now):
            return Again(found.expires_at - tx.now)
        gone = await _give_up(tx, found, ApprovalState.EXPIRED)
        await _tell_ended(tx, desk.acts, gone)
    return None


async def run_apply(desk: Approvals, task: ApplyApproval, _lease: Lease) -> Again | None:
    """Do what was approved, once.

    Raises:
        ActUnknown: and tries again, until a program that knows the act is running.
    """
    approval = await store.GET.one(desk.db, task.approval_id)
    if approval.state is not ApprovalState.APPROVED:
        return None  # a run before this one died after the effect had committed
    bound = _bound(desk.acts, approval)
    failpoint("approvals.before_effect")
    try:
        await _check_appliable(desk.db, bound.act, approval)
        await bound.apply(_effect_of(desk.db, bound, approval))
    except (Busy, LeaseLost):
        raise
    except Refusal as refusal:
        await _fail(desk, approval, refusal)
    failpoint("approvals.after_effect")
    after = await store.GET.one(desk.db, approval.id)
    if after.state is ApprovalState.APPROVED:
        raise RuntimeError(f"{approval.act} returned without closing {approval.shown_id}")
    return None


def in_transaction(db: Db, change: Callable[[Tx, Approval, Any], Awaitable[None]]) -> Apply:
    """Return an ``apply`` for an effect that is one transaction and moves no money."""

    async def apply(effect: Effect) -> None:
        async with db.begin(effect.actor) as tx:
            await effect.close(tx)  # first: it locks the row, so a second run waits here
            await change(tx, effect.approval, effect.terms)
            failpoint("approvals.before_effect_commit")

    return apply


def _effect_of(db: Db, bound: Bound, approval: Approval) -> Effect:
    now = db.clock.now()
    applied = replace(approval, state=ApprovalState.APPLIED)
    writes = (
        Write(store.APPLIED, (approval.id, now), refusal=ApprovalDecided.code),
        audit.entry_write("approval.applied", approval.shown_id, _facts(applied),
                          actor="approvals", now=now),
        event_write(_moved(applied), now=now),
    )  # fmt: skip
    terms = msgspec.json.decode(approval.terms, type=bound.act.terms)
    return Effect(approval, terms, now, writes)


async def _check_appliable(db: Db, act: Act, approval: Approval) -> None:
    """Raise where the terms are not those approved, or the approval has waited too long."""
    approval.check_untouched(await _digest_told(db, approval, ApprovalState.APPROVED))
    decided_at = approval.decided_at
    if decided_at is None or db.clock.now() >= decided_at + act.lasts:
        raise ApprovalExpired(approval=approval.shown_id)


async def _fail(desk: Approvals, approval: Approval, refusal: Refusal) -> None:
    if isinstance(refusal, TermsTampered):
        _log.error("approval_terms_tampered", approval=approval.shown_id, act=approval.act)
    async with desk.db.begin("approvals") as tx:
        failed = await store.FAIL.first(tx, approval.id, tx.now, refusal.code)
        if failed is None:
            return  # a run beside this one has applied it, and its commit came first
        await _note(tx, failed)
        await _tell_ended(tx, desk.acts, failed)
        failpoint("approvals.before_failure_commit")


async def _locked(tx: Tx, approval_id: UUID) -> Approval:
    """Lock a proposal that nobody has decided about.

    Raises:
        ApprovalNotFound, ApprovalDecided
    """
    found = await store.LOCK.first(tx, approval_id)
    if found is None:
        raise ApprovalNotFound(approval=show(PREFIX, approval_id))
    if found.state is not ApprovalState.PROPOSED:
        raise ApprovalDecided(approval=found.shown_id, state=found.state.value)
    return found


async def _locked_to_decide(
    tx: Tx, acts: Acts, approval_id: UUID, may: Collection[str]
) -> Approval:
    found = await _locked(tx, approval_id)
    act = _bound(acts, found).act
    if found.is_expired(tx.now):
        raise ApprovalExpired(approval=found.shown_id)
    if act.checker not in may:
        raise CheckerNotAllowed(act=act.name, permission=act.checker)
    if found.maker == tx.actor:
        raise OwnProposal(approval=found.shown_id)
    return found


async def _decide(tx: Tx, found: Approval, state: ApprovalState, note: str | None) -> Approval:
    cut = note[:REASON_MAX] if note else None
    decided = await store.DECIDE.one(tx, found.id, state, tx.actor, tx.now, cut)
    await cancel_write(ExpireApproval, str(found.id)).run(tx)
    await _note(tx, decided)
    return decided


async def _give_up(
    tx: Tx,
    found: Approval,
    state: ApprovalState,
    note: str | None = None,
    superseded_by: UUID | None = None,
) -> Approval:
    gone = await store.GIVE_UP.one(tx, found.id, state, tx.now, note, superseded_by)
    if state is not ApprovalState.EXPIRED:  # the task that expires it is running now
        await cancel_write(ExpireApproval, str(found.id)).run(tx)
    await _note(tx, gone)
    return gone


async def _supersede(tx: Tx, act: Act, subject: str, by: UUID) -> None:
    found = await store.LOCK_OPEN.first(tx, act.name, subject)
    if found is None:
        return
    if found.state is not ApprovalState.PROPOSED:
        raise ApprovalWaiting(act=act.name, subject=subject)
    await _give_up(tx, found, ApprovalState.WITHDRAWN, superseded_by=by)


def _bound(acts: Acts, approval: Approval) -> Bound:
    bound = acts.get(approval.act)
    if bound is None:
        raise ActUnknown(act=approval.act)
    return bound


async def _tell_ended(tx: Tx, acts: Acts, approval: Approval) -> None:
    """Let the act's domain hear that it will not happen; one this program lacks has nobody."""
    bound = acts.get(approval.act)
    if bound is not None and bound.ended is not None:
        terms = msgspec.json.decode(approval.terms, type=bound.act.terms)
        await bound.ended(tx, approval, terms)


async def _digest_told(on: Db | Tx, approval: Approval, state: ApprovalState) -> object:
    """Return the digest that the audit log, which nobody can change, was told at a move."""
    wanted = f"approval.{state}"
    entries = await audit.entries_of_subject(on, approval.shown_id)
    return next((each.facts.get("digest") for each in entries if each.action == wanted), None)


async def _note(tx: Tx, approval: Approval) -> None:
    """Write down a move, and tell whoever listens."""
    action = f"approval.{approval.state}"
    await audit.record(tx, action, approval.shown_id, _facts(approval))
    await event_write(_moved(approval), now=tx.now).run(tx)


def _facts(approval: Approval) -> dict[str, Fact]:
    return {
        "act": approval.act,
        "about": approval.subject,
        "digest": approval.digest.hex(),
        "reason": approval.reason,
        "maker": approval.maker,
        "checker": approval.checker,
        "note": approval.note,
        "code": approval.code,
    }


def _moved(approval: Approval) -> ApprovalMoved:
    return ApprovalMoved(
        merchant_id=approval.merchant_id,
        mode=approval.mode or Mode.LIVE,
        resource_id=approval.shown_id,
        act=approval.act,
        subject=approval.subject,
        state=approval.state.value,
    )

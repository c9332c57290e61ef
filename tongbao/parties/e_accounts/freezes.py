"""Freeze electronic accounts and lift freezes, by two people, with a reason and a document.

An operational freeze is the firm's own; a judicial one is ordered by a court or another authority
(协助冻结), and the document is theirs. Several stand beside each other, and each is lifted alone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import Final, Literal
from uuid import UUID

from msgspec import Struct

from tongbao.controls.approvals.approvals import in_transaction, propose
from tongbao.controls.approvals.model import Act, Approval, Bound, Change
from tongbao.infra import audit
from tongbao.infra.db import Db, Tx
from tongbao.infra.failpoints import failpoint
from tongbao.infra.tasks import Again, Handler, Lease, RetryPolicy, Task, enqueue
from tongbao.kernel.errors import Fact, Invalid
from tongbao.kernel.ids import derived_id, parse, show
from tongbao.kernel.licence import Mode
from tongbao.parties.e_accounts import _store as store
from tongbao.parties.e_accounts.model import (
    FREEZE_PREFIX,
    PREFIX,
    Direction,
    EAccount,
    EAccountFreeze,
    EAccountNotFound,
    EAccountStateWrong,
    FreezeUnknown,
)
from tongbao.parties.e_accounts.opening import book_of
from tongbao.parties.identity.model import Permission
from tongbao.parties.notices.model import Notice, TellPerson

_DOCUMENT_MAX: Final = 64
_MOST: Final = 10**15
MIND_POLICY: Final = RetryPolicy(
    attempts_max=1_000_000, delays=tuple(timedelta(seconds=s) for s in (1, 5, 60, 600))
)
"""A court's order does not end because a database was away."""


class DocumentWrong(Invalid):
    """A freeze and its end name the document that orders it, in 1 to 64 characters."""

    code = "e_account.document_wrong"
    advice = "Give the number of the document, in 1 to 64 characters."
    advice_zh = "请填写文书或工单编号，1 至 64 个字符。"


class FreezeWrong(Invalid):
    """An amount is frozen on its way out; a freeze ends after it starts, at a moment to come."""

    code = "e_account.freeze_wrong"
    advice = "Freeze an amount with direction `out`; let it end after it starts, and not today."
    advice_zh = "按金额冻结的方向应为 out；结束时间应晚于开始时间和当前时间。"


class MindFreeze(Task, frozen=True, tag="e_accounts.mind_freeze"):
    """Let a freeze begin or end when its moment has come."""

    book: int
    freeze_id: UUID


class FreezeTerms(Struct, frozen=True):
    """What two people agree to when they freeze an account."""

    account: str
    mode: Mode
    kind: Literal["operational", "judicial"]
    direction: Direction
    document: str
    amount: int | None = None  # minor units; None: everything in the direction
    starts_at: datetime | None = None  # None: at once
    ends_at: datetime | None = None  # None: until somebody lifts it


class LiftTerms(Struct, frozen=True):
    """What two people agree to when they lift a freeze."""

    account: str
    mode: Mode
    freeze: str
    document: str


FREEZE: Final = Act(
    "e_account.freeze",
    "Freeze a person's electronic account",
    "冻结个人电子账户",
    FreezeTerms,
    maker=Permission.PEOPLE_ACT,
    checker=Permission.PEOPLE_ACT,
)
LIFT: Final = Act(
    "e_account.lift_freeze",
    "Lift a freeze of a person's electronic account",
    "解除个人电子账户冻结",
    LiftTerms,
    maker=Permission.PEOPLE_ACT,
    checker=Permission.PEOPLE_ACT,
)


async def propose_freeze(
    tx: Tx, account: EAccount, terms: FreezeTerms, *, reason: str, may: Collection[str]
) -> Approval:
    """Propose to stop what comes in, what goes out, or both.

    Raises:
        DocumentWrong, FreezeWrong, EAccountStateWrong, MakerNotAllowed, ReasonTooShort,
        ApprovalWaiting
    """
    _check_document(terms.document)
    _check_freeze(terms, tx.now)
    if account.state == "closed":
        raise EAccountStateWrong(status=account.state.value)
    return await propose(
        tx, FREEZE, account.shown_id, terms, reason=reason, mode=account.mode, may=may
    )


async def propose_lift(
    tx: Tx, account: EAccount, terms: LiftTerms, *, reason: str, may: Collection[str]
) -> Approval:
    """Propose to end one freeze.

    Raises:
        DocumentWrong, FreezeUnknown, UnknownId, MakerNotAllowed, ReasonTooShort, ApprovalWaiting
    """
    _check_document(terms.document)
    wanted = parse(FREEZE_PREFIX, terms.freeze)
    standing = await store.FREEZES.all(tx, account.book, account.id)
    if not any(each.id == wanted and each.lifted_at is None for each in standing):
        raise FreezeUnknown
    return await propose(tx, LIFT, terms.freeze, terms, reason=reason, mode=account.mode, may=may)


async def freeze(tx: Tx, approval: Approval, terms: FreezeTerms) -> EAccountFreeze:
    """Freeze an account in the caller's transaction; movements that come after it are refused.

    Raises:
        EAccountNotFound, EAccountStateWrong, FreezeWrong: it would be over already.
    """
    account = await _locked(tx, terms.mode, terms.account)
    _check_freeze(terms, tx.now)
    if account.state == "closed":
        raise EAccountStateWrong(status=account.state.value)
    starts_at = max(terms.starts_at or tx.now, tx.now)
    made = await store.INSERT_FREEZE.one(
        tx,
        account.book,
        derived_id(approval.id, "freeze"),
        account.id,
        terms.kind,
        terms.direction,
        terms.document,
        approval.reason,
        approval.shown_id,
        tx.now,
        terms.amount,
        starts_at,
        terms.ends_at,
        None,
    )
    if starts_at <= tx.now:
        made = await _begin(tx, account, made)
    next_at = terms.ends_at if made.counts else starts_at
    if next_at is not None:
        await enqueue(tx, MindFreeze(made.book, made.id), run_at=next_at, key=str(made.id))
    facts: dict[str, Fact] = {"kind": terms.kind, "direction": terms.direction.value}
    facts |= {"document": terms.document, "amount": terms.amount}
    await audit.record(tx, "e_account.frozen", account.shown_id, facts)
    failpoint("e_accounts.before_freeze_commit")
    return made


async def lift(tx: Tx, approval: Approval, terms: LiftTerms) -> EAccountFreeze:
    """End one freeze in the caller's transaction; the others stand.

    Raises:
        EAccountNotFound, FreezeUnknown, UnknownId
    """
    account = await _locked(tx, terms.mode, terms.account)
    wanted = parse(FREEZE_PREFIX, terms.freeze)
    why = f"{terms.document}: {approval.reason}"
    lifted = await _end(tx, account, wanted, approval.shown_id, why)
    if lifted is None:
        raise FreezeUnknown
    facts = {"freeze": terms.freeze, "document": terms.document}
    await audit.record(tx, "e_account.freeze_lifted", account.shown_id, facts)
    failpoint("e_accounts.before_lift_commit")
    return lifted


async def run_mind_freeze(db: Db, task: MindFreeze, _lease: Lease) -> Again | None:
    """Let a freeze begin or end, once; one that was lifted before stays so."""
    found = await store.GET_FREEZE.one(db, task.book, task.freeze_id)
    async with db.begin("e_accounts") as tx:
        account = await store.LOCK_ACCOUNT.one(tx, found.book, found.account_id)
        found = await store.GET_FREEZE.one(tx, task.book, task.freeze_id)
        if found.lifted_at is not None:
            return None
        if tx.now < found.starts_at:
            return Again(found.starts_at - tx.now)
        if found.ends_at is not None and tx.now >= found.ends_at:
            because = f"{found.document}: {found.ends_at.isoformat()}"
            await _end(tx, account, found.id, "its own date", because)
            facts = {"freeze": shown_freeze(found), "document": found.document}
            await audit.record(tx, "e_account.freeze_ended", account.shown_id, facts)
            failpoint("e_accounts.before_freeze_end_commit")
            return None
        if found.began_at is None:
            await _begin(tx, account, found)
            facts = {"freeze": shown_freeze(found), "document": found.document}
            await audit.record(tx, "e_account.freeze_began", account.shown_id, facts)
            failpoint("e_accounts.before_freeze_begin_commit")
        return None if found.ends_at is None else Again(found.ends_at - tx.now)


class Queued(Struct, frozen=True):
    """A freeze with what it really keeps now: later ones wait behind earlier ones (轮候)."""

    freeze: EAccountFreeze
    keeps: int | None  # minor units; None: it is not of an amount, or does not count now


def queued(freezes: Iterable[EAccountFreeze], balance: int) -> list[Queued]:
    """Return freezes with what each keeps of a balance, by the order in which they began."""
    keeps: dict[UUID, int] = {}
    left = balance
    for each in sorted(freezes, key=lambda one: (one.began_at or one.starts_at, one.id)):
        if each.counts and each.amount is not None:
            keeps[each.id] = min(each.amount, left)
            left -= keeps[each.id]
    return [Queued(each, keeps.get(each.id)) for each in freezes]


def bound_acts(db: Db) -> tuple[Bound, ...]:
    """Return the acts of this module with what does them."""

    async def apply_freeze(tx: Tx, approval: Approval, terms: FreezeTerms) -> None:
        await freeze(tx, approval, terms)

    async def apply_lift(tx: Tx, approval: Approval, terms: LiftTerms) -> None:
        await lift(tx, approval, terms)

    return (
        Bound(FREEZE, in_transaction(db, apply_freeze), show=_show_freeze),
        Bound(LIFT, in_transaction(db, apply_lift), show=_show_lift),
    )


def handlers(db: Db) -> Mapping[type[Task], Handler]:
    """Return who does the task of this module."""
    return {MindFreeze: partial(run_mind_freeze, db)}


def shown_freeze(row: EAccountFreeze) -> str:
    """Return a freeze's public id."""
    return show(FREEZE_PREFIX, row.id)


async def _begin(tx: Tx, account: EAccount, made: EAccountFreeze) -> EAccountFreeze:
    """Let a freeze count from now on; movements that commit after it are refused."""
    await _tell(tx, account, made, Notice.FROZEN)
    await store.BEGIN_FREEZE.run(tx, made.book, made.id, tx.now)
    await store.ADD_STOPS.run(tx, made.book, made.account_id, *_weight(made))
    return await store.GET_FREEZE.one(tx, made.book, made.id)


async def _end(
    tx: Tx, account: EAccount, freeze_id: UUID, by: str, because: str
) -> EAccountFreeze | None:
    row = (account.book, account.id, freeze_id, by, tx.now, because)
    lifted = await store.LIFT_FREEZE.first(tx, *row)
    if lifted is not None and lifted.began_at is not None:
        weight = (-each for each in _weight(lifted))
        await store.ADD_STOPS.run(tx, account.book, account.id, *weight)
        await _tell(tx, account, lifted, Notice.UNFROZEN)
    return lifted


async def _tell(tx: Tx, account: EAccount, made: EAccountFreeze, notice: Notice) -> None:
    """Have the person told; of a court's freeze it is the court that tells them."""
    if made.kind == "operational":
        await enqueue(tx, TellPerson(account.person_id, notice))


async def _locked(tx: Tx, mode: Mode, shown_id: str) -> EAccount:
    found = await store.LOCK_ACCOUNT.first(tx, book_of(mode), parse(PREFIX, shown_id))
    if found is None:
        raise EAccountNotFound
    return found


async def _show_freeze(db: Db, _approval: Approval, terms: FreezeTerms) -> list[Change]:
    account = await store.GET_ACCOUNT.first(db, book_of(terms.mode), parse(PREFIX, terms.account))
    before = account.frozen if account else "–"
    return [
        Change("account", "账户", None, terms.account),
        Change("kind", "冻结类型", None, terms.kind),
        Change("stopped", "冻结方向", before, terms.direction.value),
        Change("amount (minor units)", "冻结金额（分）", None, str(terms.amount or "all")),
        Change("from", "开始时间", None, _moment(terms.starts_at)),
        Change("until", "结束时间", None, _moment(terms.ends_at)),
        Change("document", "文书编号", None, terms.document),
    ]


async def _show_lift(_db: Db, _approval: Approval, terms: LiftTerms) -> list[Change]:
    return [
        Change("account", "账户", None, terms.account),
        Change("freeze that ends", "解除的冻结", terms.freeze, "–"),
        Change("document", "文书编号", None, terms.document),
    ]


def _weight(made: EAccountFreeze) -> tuple[int, int, int]:
    """Return what a freeze adds to the account: stops of in and out, or an amount."""
    if made.amount is not None:
        return (0, 0, made.amount)
    direction = made.direction
    return (int(direction is not Direction.OUT), int(direction is not Direction.IN), 0)


def _moment(at: datetime | None) -> str:
    return "–" if at is None else at.isoformat(timespec="minutes")


def _check_freeze(terms: FreezeTerms, now: datetime) -> None:
    amount = terms.amount
    if amount is not None and (terms.direction is not Direction.OUT or not 0 < amount <= _MOST):
        raise FreezeWrong(param="amount")
    if terms.ends_at is not None and terms.ends_at <= max(now, terms.starts_at or now):
        raise FreezeWrong(param="ends_at")


def _check_document(text: str) -> None:
    if not 1 <= len(text.strip()) <= _DOCUMENT_MAX:
        raise DocumentWrong(param="document")

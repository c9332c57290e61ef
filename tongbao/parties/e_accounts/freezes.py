"""Freeze electronic accounts and lift freezes, by two people, with a reason and a document.

An operational freeze is the firm's own; a judicial one is ordered by a court or another authority
(协助冻结), and the document is theirs. Several stand beside each other, and each is lifted alone.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, Literal

from msgspec import Struct

from tongbao.controls.approvals.approvals import in_transaction, propose
from tongbao.controls.approvals.model import Act, Approval, Bound, Change
from tongbao.infra import audit
from tongbao.infra.db import Db, Tx
from tongbao.infra.failpoints import failpoint
from tongbao.kernel.errors import Invalid
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

_DOCUMENT_MAX: Final = 64


class DocumentWrong(Invalid):
    """A freeze and its end name the document that orders it, in 1 to 64 characters."""

    code = "e_account.document_wrong"
    advice = "Give the number of the document, in 1 to 64 characters."
    advice_zh = "请填写文书或工单编号，1 至 64 个字符。"


class FreezeTerms(Struct, frozen=True):
    """What two people agree to when they freeze an account."""

    account: str
    mode: Mode
    kind: Literal["operational", "judicial"]
    direction: Direction
    document: str


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
        DocumentWrong, EAccountStateWrong, MakerNotAllowed, ReasonTooShort, ApprovalWaiting
    """
    _check_document(terms.document)
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
        EAccountNotFound, EAccountStateWrong
    """
    account = await _locked(tx, terms.mode, terms.account)
    comes_in, goes_out = _stops(terms.direction)
    if not await store.ADD_STOPS.run(tx, account.book, account.id, comes_in, goes_out):
        raise EAccountStateWrong(status=account.state.value)
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
    )
    facts = {"kind": terms.kind, "direction": terms.direction.value, "document": terms.document}
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
    lifted = await store.LIFT_FREEZE.first(
        tx, account.book, account.id, wanted, approval.shown_id, tx.now, why
    )
    if lifted is None:
        raise FreezeUnknown
    comes_in, goes_out = _stops(lifted.direction)
    await store.ADD_STOPS.run(tx, account.book, account.id, -comes_in, -goes_out)
    facts = {"freeze": terms.freeze, "document": terms.document}
    await audit.record(tx, "e_account.freeze_lifted", account.shown_id, facts)
    failpoint("e_accounts.before_lift_commit")
    return lifted


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


def shown_freeze(row: EAccountFreeze) -> str:
    """Return a freeze's public id."""
    return show(FREEZE_PREFIX, row.id)


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
        Change("document", "文书编号", None, terms.document),
    ]


async def _show_lift(_db: Db, _approval: Approval, terms: LiftTerms) -> list[Change]:
    return [
        Change("account", "账户", None, terms.account),
        Change("freeze that ends", "解除的冻结", terms.freeze, "–"),
        Change("document", "文书编号", None, terms.document),
    ]


def _stops(direction: Direction) -> tuple[int, int]:
    return (int(direction is not Direction.OUT), int(direction is not Direction.IN))


def _check_document(text: str) -> None:
    if not 1 <= len(text.strip()) <= _DOCUMENT_MAX:
        raise DocumentWrong(param="document")

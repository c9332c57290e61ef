"""Take a case, and post or close it: proposed by one person, approved by another."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import date
from functools import partial
from uuid import UUID

from msgspec import Struct

from tongbao.clearing.cases import _store as store
from tongbao.clearing.cases.model import (
    CLOSE,
    DUE_WORKING_DAYS,
    POST,
    PREFIX,
    CaseTaken,
    CloseTerms,
    DifferenceMoved,
    NothingToPost,
    PostingLate,
    PostTerms,
    ReconCase,
    Suggestion,
    can_be_posted,
    found_on,
    owed_more,
    suggest,
)
from tongbao.clearing.reconciliation.breaks import closing_write
from tongbao.clearing.reconciliation.model import BreakNotOpen, BreakState, ReconBreak
from tongbao.clearing.reconciliation.queries import break_with_id
from tongbao.controls.approvals.approvals import in_transaction, propose
from tongbao.controls.approvals.model import Approval, Bound, Change, Effect, reason_of
from tongbao.controls.calendar.queries import load_calendar
from tongbao.infra import audit
from tongbao.infra.db import Db, Tx
from tongbao.infra.failpoints import failpoint
from tongbao.kernel.errors import Conflict
from tongbao.kernel.ids import new_id, show
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import Money
from tongbao.ledger.model import MOVED_BEFORE, AccountKey, Group
from tongbao.ledger.rules import posting
from tongbao.parties.merchants.merchants import LIVE_BOOK, SANDBOX_BOOK
from tongbao.payments.collecting.outcomes import Flow


class PostingRefused(Conflict):
    """The ledger does not take the posting."""

    code = "reconciliation.posting_refused"
    advice = "Look at the ledger's reason; the accounting day or an account may be closed."
    advice_zh = "账本拒绝该笔记账，请查看原因（会计日或账户可能已关闭）。"


class Case(Struct, frozen=True):
    """A difference as people work on it."""

    found: ReconBreak
    suggestion: Suggestion
    due_on: date
    is_overdue: bool
    owner: str | None
    can_be_posted: bool


async def cases_of(on: Db | Tx, found: Sequence[ReconBreak], today: date) -> list[Case]:
    """Return differences as cases, in the same order."""
    calendar = await load_calendar(on)
    owners = await _owners(on, [each.id for each in found])
    cases = []
    for each in found:
        due = calendar.nth_working_day_after(found_on(each), DUE_WORKING_DAYS)
        owner = owners.get(each.id)
        cases.append(
            Case(
                found=each,
                suggestion=suggest(each),
                due_on=due,
                is_overdue=each.closed_at is None and today > due,
                owner=owner.owner if owner else None,
                can_be_posted=can_be_posted(each),
            )
        )
    return cases


async def _owners(on: Db | Tx, ids: Sequence[UUID]) -> dict[UUID, ReconCase]:
    return {each.break_id: each for each in await store.CASES.all(on, list(ids))}


async def take_case(tx: Tx, break_id: UUID, *, take_over: bool = False) -> None:
    """Make the transaction's actor the owner of a difference.

    Raises:
        BreakNotFound, CaseTaken
    """
    found = await break_with_id(tx, break_id)
    if not await store.TAKE.run(tx, found.id, tx.actor, tx.now, take_over):
        raise CaseTaken
    await audit.record(tx, "reconciliation.case_taken", show(PREFIX, found.id), {})


async def leave_case(tx: Tx, break_id: UUID) -> None:
    """Give a difference back that the transaction's actor had taken; of another's nothing is done.

    Raises:
        BreakNotFound
    """
    found = await break_with_id(tx, break_id)
    if await store.LEAVE.run(tx, found.id, tx.actor):
        await audit.record(tx, "reconciliation.case_left", show(PREFIX, found.id), {})


async def propose_posting(
    tx: Tx, break_id: UUID, *, reason: str, may: Collection[str] | None = None
) -> Approval:
    """Propose to post a difference: to the channel's account, against suspense.

    Raises:
        BreakNotFound, NothingToPost, MakerNotAllowed, ReasonTooShort, ApprovalWaiting
    """
    found = await break_with_id(tx, break_id)
    if not can_be_posted(found):
        raise NothingToPost
    terms = PostTerms(
        break_id=found.id,
        account_id=found.account_id,
        book=LIVE_BOOK if found.mode is Mode.LIVE else SANDBOX_BOOK,
        amount=owed_more(found),
        currency=found.currency,
        difference=found.difference,
        found=found.break_class.value,
        number=found.number,
    )
    subject = show(PREFIX, found.id)
    return await propose(tx, POST, subject, terms, reason=reason, may=may, mode=found.mode)


async def propose_closing(
    tx: Tx, break_id: UUID, *, reason: str, may: Collection[str] | None = None
) -> Approval | None:
    """Propose to close a difference as it is; one without money is closed at once, by one person.

    Raises:
        BreakNotFound, BreakNotOpen, MakerNotAllowed, ReasonTooShort, ApprovalWaiting
    """
    found = await break_with_id(tx, break_id)
    if found.state is not BreakState.OPEN:
        raise BreakNotOpen(state=found.state)
    if found.difference == 0:
        await _close(tx, found, reason=reason_of(reason), maker=tx.actor, checker=tx.actor)
        return None
    terms = CloseTerms(
        break_id=found.id,
        difference=found.difference,
        currency=found.currency,
        found=found.break_class.value,
        number=found.number,
    )
    subject = show(PREFIX, found.id)
    return await propose(tx, CLOSE, subject, terms, reason=reason, may=may, mode=found.mode)


async def apply_closing(tx: Tx, approval: Approval, terms: CloseTerms) -> None:
    """Close what was approved to be closed.

    Raises:
        DifferenceMoved
    """
    found = await break_with_id(tx, terms.break_id)
    if found.difference != terms.difference:
        raise DifferenceMoved
    checker = approval.checker or tx.actor
    await _close(tx, found, reason=approval.reason, maker=approval.maker, checker=checker)


async def _close(tx: Tx, found: ReconBreak, *, reason: str, maker: str, checker: str) -> None:
    closed = closing_write(
        found,
        reason=reason,
        maker=maker,
        checker=checker,
        now=tx.now,
        refusal=DifferenceMoved.code,
    )
    if not await closed.run(tx):
        raise DifferenceMoved
    facts = {
        "class": found.break_class.value,
        "number": found.number,
        "difference": found.difference,
        "reason": reason,
    }
    await audit.record(tx, "reconciliation.break_closed", show(PREFIX, found.id), facts)


async def apply_posting(flow: Flow, effect: Effect) -> None:
    """Post what was approved, and close the difference in the same commit.

    Raises:
        DifferenceMoved, PostingRefused, PostingLate
    """
    terms: PostTerms = effect.terms
    approval = effect.approval
    found = await break_with_id(flow.db, terms.break_id)
    if found.difference != terms.difference or not can_be_posted(found):
        raise DifferenceMoved
    closed = closing_write(
        found,
        reason=approval.reason,
        maker=approval.maker,
        checker=approval.checker or effect.actor,
        now=effect.now,
        refusal=DifferenceMoved.code,
    )
    transfers = posting.transfers(
        terms.rule,
        # A difference that comes again after it was posted is posted again, by another approval.
        reference=approval.id,
        accounts={
            "channel_receivable": AccountKey("channel_receivable", terms.currency, terms.account_id)
        },
        amounts={"amount": Money(abs(terms.amount), terms.currency)},
    )
    # A new id each time: the ledger remembers a refusal for ever, and the transfers have theirs.
    group = Group(new_id(), terms.book, transfers, (closed, *effect.writes))
    failpoint("cases.before_post")
    [result] = await flow.ledger.submit([group])
    failpoint("cases.after_post")
    if result.happened or result.code in MOVED_BEFORE:
        return  # the second means a run before this one; the approval says so too
    if result.status == "in_flight":
        raise PostingLate
    if result.code == DifferenceMoved.code:
        raise DifferenceMoved
    raise PostingRefused(ledger=result.code)


def bound_postings(flow: Flow) -> tuple[Bound, ...]:
    """Return the act that posts, for the registry of a firm that keeps a ledger of money."""
    return (Bound(POST, partial(apply_posting, flow), _show, link=_link),)


def bound_closings(db: Db) -> tuple[Bound, ...]:
    """Return the act that closes as it is, for the registry."""
    return (Bound(CLOSE, in_transaction(db, apply_closing), _show_closing, link=_link),)


def _link(approval: Approval) -> str:
    return f"/differences/{approval.subject}"


async def _show(_db: Db, _approval: Approval, terms: PostTerms) -> Sequence[Change]:
    amount = Money(abs(terms.amount), terms.currency)
    shown = f"{amount.currency} {amount.decimal_text()}"
    sides = ("channel_receivable", "suspense")
    debit, credit = sides if terms.amount > 0 else sides[::-1]
    return [
        Change("Difference", "差错", None, f"{terms.found} {terms.number}"),
        Change("Debit", "借", None, f"{debit}: {shown}"),
        Change("Credit", "贷", None, f"{credit}: {shown}"),
    ]


async def _show_closing(_db: Db, _approval: Approval, terms: CloseTerms) -> Sequence[Change]:
    left = Money(terms.difference, terms.currency)
    return [
        Change("Difference", "差错", None, f"{terms.found} {terms.number}"),
        Change("Left as it is", "差额", None, f"{left.currency} {left.decimal_text()}"),
    ]

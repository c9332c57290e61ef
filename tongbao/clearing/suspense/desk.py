"""Give money in suspense a home, and post by hand: proposed by one person, approved by another."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial
from typing import Final
from uuid import UUID

import msgspec
from msgspec.structs import replace

from tongbao.clearing.suspense.items import item_now
from tongbao.clearing.suspense.model import (
    ADJUST,
    ADJUSTMENT_PREFIX,
    ITEM_PREFIX,
    RESOLVE,
    STOP_REFUND,
    AdjustmentTerms,
    Home,
    PostingBusy,
    PostingRefused,
    StopTerms,
    SuspenseHomeWrong,
    SuspenseItem,
    SuspenseMoved,
    SuspenseSpokenFor,
    SuspenseTerms,
)
from tongbao.controls.approvals.approvals import in_transaction, propose
from tongbao.controls.approvals.model import Approval, Bound, Change, Effect
from tongbao.infra.db import Db, Tx, Write
from tongbao.infra.failpoints import failpoint
from tongbao.kernel.ids import derived_id, new_id, show
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import Money
from tongbao.ledger.model import MOVED_BEFORE, AccountKey, Group, Transfer
from tongbao.ledger.rules import posting
from tongbao.ledger.rules.chart import CHART
from tongbao.parties.merchants.merchants import SANDBOX_BOOK
from tongbao.parties.merchants.queries import merchants_with_ids
from tongbao.payments.collecting import queries as payments
from tongbao.payments.collecting.outcomes import Flow, refunded_write
from tongbao.payments.refunds.model import Refund, RefundNotStoppable
from tongbao.payments.refunds.outcomes import stop_refund
from tongbao.payments.refunds.queries import refunds_of_payment
from tongbao.rails.channels.accounts import list_accounts

_SPOKEN_FOR: Final = SuspenseSpokenFor.code


async def propose_resolution(
    flow: Flow,
    item: SuspenseItem,
    amount: int,
    home: Home,
    home_owner: UUID | None,
    *,
    reason: str,
    actor: str,
    may: Collection[str] | None = None,
) -> Approval:
    """Propose where an item's money, or a part of it, goes; below zero, where it comes from.

    Raises:
        SuspenseAmountWrong, SuspenseHomeWrong, SuspenseSpokenFor, SuspenseItemNotFound,
        SuspenseMoved, PostingRefused, MakerNotAllowed, ReasonTooShort, ApprovalWaiting
    """
    terms = SuspenseTerms(
        item.book, item.currency, item.owner, item.code, item.amount, amount, home, home_owner
    )
    terms.check()
    await _check_home(flow.db, terms)
    await _spoken_write(flow.db, terms)
    await _rehearse(flow, terms.book, _resolution(terms, new_id()))
    async with flow.db.begin(actor) as tx:
        return await propose(
            tx, RESOLVE, item.shown_id, terms, reason=reason, may=may, mode=mode_of_book(item.book)
        )


async def propose_stop(
    flow: Flow,
    item: SuspenseItem,
    *,
    reason: str,
    actor: str,
    may: Collection[str] | None = None,
) -> Approval:
    """Propose that late money is not given back by itself any more.

    Raises:
        RefundNotStoppable, MakerNotAllowed, ReasonTooShort, ApprovalWaiting
    """
    refund = await late_refund(flow.db, item)
    if refund is None:
        raise RefundNotStoppable
    terms = StopTerms(item.book, item.owner, refund.id, refund.currency, refund.amount)
    async with flow.db.begin(actor) as tx:
        mode = mode_of_book(item.book)
        subject = show("ref", refund.id)
        return await propose(tx, STOP_REFUND, subject, terms, reason=reason, may=may, mode=mode)


async def late_refund(db: Db, item: SuspenseItem) -> Refund | None:
    """Return the refund by which an item's money is on its way back, if it is."""
    if not item.is_late_payment:
        return None
    found = await refunds_of_payment(db, item.book, item.owner)
    return next((each for each in found if each.kind == "late" and each.state.is_open), None)


async def propose_adjustment(
    flow: Flow,
    terms: AdjustmentTerms,
    *,
    reason: str,
    actor: str,
    may: Collection[str] | None = None,
) -> Approval:
    """Propose a posting by hand; the ledger is asked now whether it would take it.

    Raises:
        AdjustmentWrong, PostingRefused, MakerNotAllowed, ReasonTooShort, ApprovalWaiting
    """
    terms.check()
    await _rehearse(flow, terms.book, _adjustment(terms))
    subject = show(ADJUSTMENT_PREFIX, terms.id)
    async with flow.db.begin(actor) as tx:
        mode = mode_of_book(terms.book)
        return await propose(tx, ADJUST, subject, terms, reason=reason, may=may, mode=mode)


async def apply_resolution(flow: Flow, effect: Effect) -> None:
    """Post what was approved about an item, if the item still is what it was.

    Raises:
        SuspenseMoved, SuspenseSpokenFor, PostingRefused, PostingBusy
    """
    terms: SuspenseTerms = effect.terms
    item = await item_now(flow.db, terms.book, terms.currency, terms.owner)
    if item.amount != terms.open:
        raise SuspenseMoved(open=item.amount)
    spoken = await _spoken_write(flow.db, terms)
    transfers = _resolution(terms, effect.approval.id)
    await _post(flow, terms.book, transfers, (*spoken, *effect.writes))


async def apply_adjustment(flow: Flow, effect: Effect) -> None:
    """Post an adjustment that was approved.

    Raises:
        PostingRefused, PostingBusy
    """
    terms: AdjustmentTerms = effect.terms
    await _post(flow, terms.book, _adjustment(terms), effect.writes)


def bound_acts(flow: Flow) -> tuple[Bound, ...]:
    """Return the desk's acts, for the registry."""
    return (
        Bound(RESOLVE, partial(apply_resolution, flow), _show_resolution, link=_link),
        Bound(ADJUST, partial(apply_adjustment, flow), _show_adjustment, link=_link),
        Bound(STOP_REFUND, in_transaction(flow.db, _stop), _show_stop, link=_payment_link),
    )


def mode_of_book(book: int) -> Mode:
    """Return whose money a book holds: the sandbox has one book, all others are real."""
    return Mode.SANDBOX if book == SANDBOX_BOOK else Mode.LIVE


async def _post(
    flow: Flow, book: int, transfers: tuple[Transfer, ...], companions: tuple[Write, ...]
) -> None:
    """Commit the posting with the approval's own move, or neither.

    Raises:
        SuspenseSpokenFor, PostingRefused, PostingBusy
    """
    # A new id each time: the ledger remembers a refusal for ever, and the transfers have theirs.
    group = Group(new_id(), book, transfers, companions)
    failpoint("suspense.before_post")
    [result] = await flow.ledger.submit([group])
    failpoint("suspense.after_post")
    if result.happened or result.code in MOVED_BEFORE:
        return  # the second means a run before this one; the approval says so too
    if result.status == "in_flight":
        raise PostingBusy
    if result.code == _SPOKEN_FOR:
        # Either a refund has the money, or the payment's row has moved: look again.
        raise PostingBusy
    raise PostingRefused(ledger=result.code)


def _resolution(terms: SuspenseTerms, approval_id: UUID) -> tuple[Transfer, ...]:
    """Return the posting; an item may have several, so each is also its approval's."""
    return tuple(
        replace(leg, id=derived_id(terms.owner, f"{leg.code}/{approval_id}"))
        for leg in posting.transfers(
            terms.rule,
            reference=terms.owner,
            accounts={"home": terms.home_key},
            amounts={"amount": Money(terms.amount, terms.currency)},
        )
    )


def _adjustment(terms: AdjustmentTerms) -> tuple[Transfer, ...]:
    debit, credit = terms.accounts
    return posting.transfers(
        "adjustment.posted",
        reference=terms.id,
        accounts={"from": debit, "to": credit},
        amounts={"amount": Money(terms.amount, terms.currency)},
    )


async def _rehearse(flow: Flow, book: int, transfers: tuple[Transfer, ...]) -> None:
    """Raise where the ledger would refuse this now.

    Raises:
        PostingRefused
    """
    [result] = await flow.ledger.dry_run([Group(new_id(), book, transfers)])
    if result.status == "refused":
        raise PostingRefused(ledger=result.code)


async def _spoken_write(db: Db, terms: SuspenseTerms) -> tuple[Write, ...]:
    """Return the write that takes late money from whoever would give it back to the customer.

    It raises what is given back of the payment, as a refund does, so a refund and the desk can
    never both have it.

    Raises:
        SuspenseSpokenFor: a refund of it is under way or has succeeded.
    """
    if not terms.code.startswith("late.") or terms.open < 0:
        return ()
    payment = await payments.payment(db, terms.book, terms.owner)
    if payment.refunded + terms.amount > payment.captured:
        raise SuspenseSpokenFor
    return (refunded_write(payment, terms.amount, 0, refusal=_SPOKEN_FOR),)


async def _check_home(db: Db, terms: SuspenseTerms) -> None:
    mode, owner = mode_of_book(terms.book), terms.home_owner
    if owner is None:
        return
    if terms.home is Home.CHANNEL:
        accounts = {each.id: each.mode for each in await list_accounts(db)}
        if accounts.get(owner) is not mode:
            raise SuspenseHomeWrong(param="home_owner")
        return
    found = (await merchants_with_ids(db, [owner])).get(owner)
    if found is None or found.book(mode) != terms.book:
        raise SuspenseHomeWrong(param="home_owner")


async def _stop(tx: Tx, _approval: Approval, terms: StopTerms) -> None:
    await stop_refund(tx, terms.book, terms.refund_id)


def _link(_approval: Approval) -> str:
    return "/suspense"


def _payment_link(approval: Approval) -> str:
    terms = msgspec.json.decode(approval.terms, type=StopTerms)
    return f"/payments/{show('pay', terms.payment_id)}"


async def _show_stop(_db: Db, _approval: Approval, terms: StopTerms) -> Sequence[Change]:
    amount = shown(Money(terms.amount, terms.currency))
    return [
        Change("Payment", "支付单", None, show("pay", terms.payment_id)),
        Change(
            "Late money",
            "迟到款项",
            f"{amount} goes back by itself",
            "stays in suspense",
            f"{amount} 自动退回",
            "留在挂账",
        ),
    ]


async def _show_resolution(_db: Db, _approval: Approval, terms: SuspenseTerms) -> Sequence[Change]:
    left = terms.open - terms.amount if terms.open > 0 else terms.open + terms.amount
    before, after = Money(terms.open, terms.currency), Money(left, terms.currency)
    kind = CHART[terms.home.kind]
    verb = ("Goes to", "转入") if terms.open > 0 else ("Comes from", "来自")
    owner = f" {shown_owner(terms.home_key)}" if terms.home_owner else ""
    return [
        Change("Item", "挂账项目", None, f"{show(ITEM_PREFIX, terms.owner)} ({terms.code})"),
        Change(*verb, None, f"{kind.en}{owner}", after_zh=f"{kind.zh}{owner}"),
        Change(f"Suspense, book {terms.book}", f"挂账余额，账簿 {terms.book}",
               shown(before), shown(after)),
    ]  # fmt: skip


async def _show_adjustment(db: Db, _approval: Approval, terms: AdjustmentTerms) -> Sequence[Change]:
    amount = shown(Money(terms.amount, terms.currency))
    del db
    lines = [Change("Book", "账簿", None, str(terms.book))]
    for (en, zh), key in zip((("Debit", "借"), ("Credit", "贷")), terms.accounts, strict=True):
        kind = CHART[key.kind]
        owner = f" {shown_owner(key)}" if key.owner else ""
        said = (f"{kind.en}{owner}: {amount}", f"{kind.zh}{owner}：{amount}")
        lines.append(Change(en, zh, None, said[0], after_zh=said[1]))
    return lines


def shown(money: Money) -> str:
    """Return an amount as people read it: CNY 12.34."""
    return f"{money.currency} {money.decimal_text()}"


def shown_owner(key: AccountKey) -> str:
    """Return the public id of an account's owner."""
    if key.owner is None:
        return ""
    prefix = {"merchant_payable": "mch", "channel_receivable": "chn"}.get(key.kind, "own")
    return show(prefix, key.owner)

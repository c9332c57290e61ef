"""Rows of splits with their money: what every step writes, reads and tells of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from msgspec.structs import astuple, replace

from tongbao.infra.db import Db, Tx, Write
from tongbao.infra.outbox import Event, event_write
from tongbao.infra.tasks import Task, task_write
from tongbao.kernel.errors import NotFound
from tongbao.kernel.ids import from_base32, show
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import Money
from tongbao.ledger.model import MOVED_BEFORE, AccountKey, Transfer
from tongbao.ledger.rules import posting
from tongbao.ledger.steps.commit import commit_together, in_one_transaction
from tongbao.payments.collecting.outcomes import MOVED_ON, TOTAL_BROKEN
from tongbao.payments.collecting.payments import shared_write
from tongbao.payments.splits import _store as store
from tongbao.payments.splits.model import (
    ReceiverRow,
    Return,
    ReturnState,
    SharedAtChannel,
    ShareRow,
    ShareState,
    Split,
    SplitReturnView,
    SplitState,
    SplitView,
    view_return,
    view_split,
)
from tongbao.payments.splits.receivers import Sharing

DELAYS: Final = tuple(timedelta(seconds=s) for s in (2, 5, 10, 30, 60, 300, 600, 1800, 3600))
RETURN_EXCEEDS: Final = "split.return_exceeds"
RETURN_NUMBER_TAKEN: Final = "split.return_number_taken"

Parts = Sequence[tuple[ShareRow, ReceiverRow]]


class SplitNotFound(NotFound):
    """The caller has no such split."""

    code = "split.not_found"
    advice = "Check the id, and that the API key is of the same merchant and mode."
    advice_zh = "请检查分账标识，并确认 API 密钥属于同一商户与模式。"


class ChaseSplit(Task, frozen=True, tag="splits.chase"):
    """Have a channel give shares, and find out what became of each."""

    book: int
    split_id: UUID


class SplitEnded(Event, frozen=True, kw_only=True, tag="split.ended"):
    """Every share of a split was given or has failed."""

    object: SplitView


class SplitCancelled(Event, frozen=True, kw_only=True, tag="split.cancelled"):
    """A split that was held was called off; nobody got a share."""

    object: SplitView


def chase_write(split: Split, at: datetime) -> Write:
    """Return the write that puts up the asking of the channel, in case the caller dies."""
    task = ChaseSplit(split.book, split.id)
    return task_write(task, run_at=at, key=f"split/{split.id}/chase")


async def commit(
    sharing: Sharing, book: int, transfers: tuple[Transfer, ...], writes: tuple[Write, ...]
) -> str | None:
    """Commit rows and money together, or rows alone where there is none; None, or why not."""
    flow = sharing.flow
    moved = transfers if flow.licence.may_hold_funds else ()
    alone = in_one_transaction(flow.db, "splits")
    return await commit_together(flow.ledger, alone, book, moved, writes)


def transfers_of(rule: str, split: Split, parts: Parts) -> tuple[Transfer, ...]:
    """Return the transfers of these shares by the rule, each under its share's own id."""
    made: list[Transfer] = []
    for share, receiver in parts:
        accounts = accounts_of(split, receiver)
        amounts = {"amount": Money(share.amount, split.currency)}
        made += posting.transfers(rule, reference=share.id, accounts=accounts, amounts=amounts)
    return tuple(made)


def accounts_of(split: Split, receiver: ReceiverRow) -> dict[str, AccountKey]:
    """Return whose money a share is, by the roles that the posting rules name."""
    giver = AccountKey("merchant_payable", split.currency, split.merchant_id)
    if split.side == "channel" and split.account_id is not None:
        there = AccountKey("channel_receivable", split.currency, split.account_id)
        return {"merchant_payable": giver, "channel_receivable": there}
    if receiver.party_id is None:
        raise TypeError("a receiver of the book has an account there")
    kind = "wallet" if receiver.kind == "wallet" else "merchant_payable"
    return {"giver": giver, "receiver": AccountKey(kind, split.currency, receiver.party_id)}


async def parts_of(sharing: Sharing, split: Split) -> list[tuple[ShareRow, ReceiverRow]]:
    """Return a split's shares, each with its receiver."""
    db = sharing.flow.db
    shares = await store.SHARES_OF_SPLIT.all(db, split.book, split.id)
    return [
        (share, await store.GET_RECEIVER.one(db, split.book, share.receiver_id)) for share in shares
    ]


def change_writes(
    split: Split,
    becomes: Split,
    shares: Sequence[ShareRow],
    now: datetime,
    *,
    beside: Sequence[ShareRow] = (),
) -> tuple[Write, ...]:
    """Return the writes that change a split and these of its shares, if it still stands so.

    ``beside``: its shares that stay as they are. What nobody gets is taken off the payment's
    total first: its row is locked before the others.
    """
    lost = sum(
        each.amount for each in shares if each.state in {ShareState.FAILED, ShareState.CANCELLED}
    )
    args = (
        *(split.book, split.id, split.version),
        *(becomes.state, becomes.code, becomes.channel_ref, becomes.ended_at),
    )
    writes = [*unshared_writes(split, lost), Write(store.UPDATE_SPLIT, args, refusal=MOVED_ON)]
    for each in shares:
        changed = (each.book, each.id, each.version, each.state, each.code, each.channel_ref)
        writes.append(Write(store.UPDATE_SHARE, changed, refusal=MOVED_ON))
    if becomes.state is SplitState.REQUESTED and split.state is SplitState.HELD:
        writes.append(chase_write(becomes, now + DELAYS[2]))
    if not becomes.state.is_open and split.state.is_open:
        shown = replace(becomes, version=split.version + 1)
        writes.append(event_write(ended_event(shown, [*beside, *shares]), now=now))
    return tuple(writes)


def unshared_writes(split: Split, amount: int) -> tuple[Write, ...]:
    """Return the write that lowers what is shared of a split's payment."""
    if not amount:
        return ()
    return (shared_write(split.book, split.payment_id, -amount, None, refusal=TOTAL_BROKEN),)


def ended_event(split: Split, shares: Sequence[ShareRow]) -> Event:
    """Return the event that tells how a split ended."""
    kind = SplitCancelled if split.state is SplitState.CANCELLED else SplitEnded
    return kind(
        merchant_id=split.merchant_id,
        mode=split.mode,
        resource_id=show("spl", split.id),
        object=view_split(split, shares),
    )


def is_overtaken(code: str | None) -> bool:
    """Whether a commit did not happen because others were faster, so that it may be tried anew."""
    return code in {MOVED_ON, TOTAL_BROKEN, "in_flight", *MOVED_BEFORE}


class ChaseReturn(Task, frozen=True, tag="splits.chase_return"):
    """Have a channel take a share back, and find out whether it did."""

    book: int
    return_id: UUID


class SplitReturnSucceeded(Event, frozen=True, kw_only=True, tag="split_return.succeeded"):
    """A share, or a part of it, came back."""

    object: SplitReturnView


class SplitReturnFailed(Event, frozen=True, kw_only=True, tag="split_return.failed"):
    """A share did not come back; its receiver keeps it."""

    object: SplitReturnView


def return_row(
    split: Split, share: ShareRow, return_id: UUID, number: str, amount: int, *, is_done: bool
) -> Return:
    """Return the row of a return; its times and its refund are the caller's to set."""
    return Return(
        book=split.book,
        id=return_id,
        share_id=share.id,
        split_id=split.id,
        payment_id=split.payment_id,
        merchant_id=split.merchant_id,
        mode=split.mode,
        merchant_return_no=number,
        refund_id=None,
        amount=amount,
        state=ReturnState.SUCCEEDED if is_done else ReturnState.REQUESTED,
        code=None,
        channel_ref=None,
        created_at=split.created_at,
        ended_at=None,
        queries=0,
        version=1,
    )


def return_writes(split: Split, back: Return) -> tuple[Write, ...]:
    """Return the writes of a return: the number, the payment's total, the share's, what follows."""
    is_done = back.state is ReturnState.SUCCEEDED
    returned = (back.book, back.share_id, back.amount)
    if is_done:
        follow_up = event_write(return_event(back), now=back.created_at)
    else:
        task = ChaseReturn(back.book, back.id)
        run_at = back.created_at + DELAYS[2]
        follow_up = task_write(task, run_at=run_at, key=f"split_return/{back.id}")
    return (
        Write(store.INSERT_RETURN, astuple(back), refusal=RETURN_NUMBER_TAKEN),
        *(unshared_writes(split, back.amount) if is_done else ()),
        Write(store.ADD_RETURNED, returned, refusal=RETURN_EXCEEDS),
        follow_up,
    )


def back_transfers(
    rule: str, split: Split, receiver: ReceiverRow, back: Return
) -> tuple[Transfer, ...]:
    """Return the transfers that take a share, or a part of it, back by the rule."""
    amounts = {"amount": Money(back.amount, split.currency)}
    accounts = accounts_of(split, receiver)
    return posting.transfers(rule, reference=back.id, accounts=accounts, amounts=amounts)


def return_event(back: Return) -> Event:
    """Return the event that tells how a return ended."""
    kind = SplitReturnSucceeded if back.state is ReturnState.SUCCEEDED else SplitReturnFailed
    return kind(
        merchant_id=back.merchant_id,
        mode=back.mode,
        resource_id=show("spr", back.id),
        object=view_return(back),
    )


async def split_of_merchant(
    on: Db | Tx, book: int, split_id: UUID, merchant_id: UUID, mode: Mode
) -> Split:
    """Return the merchant's split.

    Raises:
        SplitNotFound: also for another merchant's, or another mode's.
    """
    found = await store.FIND_SPLIT.first(on, book, split_id, merchant_id, mode)
    if found is None:
        raise SplitNotFound
    return found


async def split_by_number(on: Db | Tx, number: str) -> Split | None:
    """Return the split a channel means by our number, if it is one of ours.

    Raises:
        UnknownId: it is not a number of ours at all.
    """
    return await store.FIND_ANYWHERE.first(on, from_base32(number))


async def shares_of(on: Db | Tx, split: Split) -> list[ShareRow]:
    """Return the shares of a split."""
    return await store.SHARES_OF_SPLIT.all(on, split.book, split.id)


async def splits_of_payment(
    on: Db | Tx, book: int, payment_id: UUID
) -> list[tuple[Split, list[ShareRow]]]:
    """Return every split of a payment with its shares, oldest first."""
    shares = await store.SHARES_OF_PAYMENT.all(on, book, payment_id)
    return [
        (split, [each for each in shares if each.split_id == split.id])
        for split in await store.SPLITS_OF_PAYMENT.all(on, book, payment_id)
    ]


async def returns_of_payment(on: Db | Tx, book: int, payment_id: UUID) -> list[Return]:
    """Return every share of a payment that came back or is to, oldest first."""
    return await store.RETURNS_OF_PAYMENT.all(on, book, payment_id)


def shared_between(
    tx: Tx, mode: Mode, start: datetime, end: datetime
) -> AsyncIterator[SharedAtChannel]:
    """Yield what channels gave to receivers and took back in ``[start, end)``, oldest first."""
    return store.SHARED_BETWEEN.stream(tx, mode, start, end)

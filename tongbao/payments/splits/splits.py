"""Share a payment: write it down with the money, give the shares, hold them, let them go.

How much of a payment is shared is a running total on its row, raised by a guarded update in the
commit that moves or holds the money; the table's CHECK says it again.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final, Literal
from uuid import UUID

from msgspec.structs import astuple, replace

from tongbao.infra.db import Write
from tongbao.infra.failpoints import failpoint
from tongbao.infra.outbox import event_write
from tongbao.infra.tasks import Again, Lease, RetryPolicy, Task, task_write
from tongbao.infra.web.idempotency import InFlight
from tongbao.kernel.errors import Conflict, Rejected
from tongbao.kernel.ids import derived_id
from tongbao.ledger.model import (
    AccountFrozen,
    ExceedsBalance,
)
from tongbao.payments.collecting import queries as payments
from tongbao.payments.collecting.model import Attempt, Payment, PaymentState
from tongbao.payments.collecting.outcomes import StateContended
from tongbao.payments.collecting.payments import Taking, shared_write, shares_ended_write
from tongbao.payments.splits import _store as store
from tongbao.payments.splits.model import (
    ReceiverRow,
    ReceiverState,
    ShareRow,
    ShareState,
    Split,
    SplitAsked,
    SplitState,
    SplitTerms,
)
from tongbao.payments.splits.receivers import (
    ReceiverNotActive,
    ReceiverNotFound,
    ReceiverNotOffered,
    Sharing,
)
from tongbao.payments.splits.records import (
    DELAYS,
    Parts,
    change_writes,
    chase_write,
    commit,
    ended_event,
    parts_of,
    transfers_of,
)
from tongbao.rails.channels.capabilities.shares import Splitting

EXCEEDS: Final = "split.exceeds"
_NUMBER_TAKEN: Final = "split.number_taken"
_TRIES_MAX: Final = 8
SPLIT_POLICY: Final = RetryPolicy(attempts_max=20, delays=DELAYS)


class SplitExceeds(Rejected):
    """More would be shared than may be, or than is left of the payment."""

    code = EXCEEDS
    advice = "Share no more than what is left, within the ratio agreed with the merchant."
    advice_zh = "分账金额不得超过剩余可分金额及约定的最高比例。"


class PaymentNotShareable(Conflict):
    """Only a payment that succeeded and whose sharing has not been finished can be shared."""

    code = "split.payment_not_shareable"
    advice = "Share a payment that has succeeded, before its sharing is finished."
    advice_zh = "仅支付成功且未完结分账的订单可分账。"


class SplitNumberUsed(Conflict):
    """The merchant's split number belongs to another request, for ever."""

    code = "split.number_used"
    advice = "Use a new merchant_split_no, or repeat the first request unchanged."
    advice_zh = "请更换 merchant_split_no，或原样重复首次请求。"


class SplitBalanceTooLow(Rejected):
    """The merchant's balance does not cover the shares."""

    code = "split.balance_too_low"
    advice = "Wait for new payments, or share less."
    advice_zh = "商户待结算余额不足，请待入账后再分账或减少金额。"


class SplitNotHeld(Conflict):
    """Only a split that is held can be released or called off."""

    code = "split.not_held"
    advice = "Look at the split's status; shares that are given are taken back with a return."
    advice_zh = "仅冻结中的分账可释放或撤销；已分出的请发起分账回退。"


class ReleaseSplit(Task, frozen=True, tag="splits.release"):
    """Give the shares of a split whose day has come."""

    book: int
    split_id: UUID


async def terms_of(sharing: Sharing, payment: Payment) -> SplitTerms:
    """Return how much of its payments the merchant may share, and who pays for refunds."""
    found = await store.TERMS.first(sharing.flow.db, payment.merchant_id, payment.mode)
    return found or SplitTerms()


async def request_split(
    sharing: Sharing, payment: Payment, asked: SplitAsked, *, take: Taking, split_id: UUID
) -> tuple[Split, list[ShareRow]]:
    """Share a payment: in the book at once or held, at a channel in the order it knows.

    The same number with the same content returns the split it already made.

    Raises:
        PaymentNotShareable, ReceiverNotFound, ReceiverNotActive, ReceiverNotOffered, SplitExceeds,
        SplitNumberUsed, SplitBalanceTooLow, AccountFrozen, InFlight, StateContended
    """
    flow = sharing.flow
    for _ in range(_TRIES_MAX):
        if payment.state is not PaymentState.SUCCEEDED:
            raise PaymentNotShareable(status=payment.state)
        attempt = await payments.paid_attempt(flow.db, payment)
        receivers = await _receivers(sharing, payment, attempt, asked)
        now = flow.db.clock.now()
        split, parts = _rows((payment, attempt), asked, receivers, split_id, now)
        most = (await terms_of(sharing, payment)).most_of(payment.captured)
        writes = (take(split.id, split.created_at), *_birth_writes(split, parts, most))
        failpoint("splits.before_request")
        transfers = transfers_of(_BIRTH_RULES[split.side, split.state], split, parts)
        code = await commit(sharing, split.book, transfers, writes)
        failpoint("splits.after_request")
        if code is None:
            flow.nudge()
            return split, [share for share, _ in parts]
        if code == _NUMBER_TAKEN:
            return await _earlier(sharing, payment, asked, take)
        current = await payments.payment(flow.db, payment.book, payment.id)
        if code != EXCEEDS or current.version == payment.version:
            raise _refusal(code, current, most)
        payment = current
    raise StateContended


def _refusal(code: str, payment: Payment, most: int) -> Exception:
    if code == EXCEEDS:
        left = min(most, payment.left) - payment.shared
        return SplitExceeds(left=max(left, 0))
    known = {ExceedsBalance.code: SplitBalanceTooLow, AccountFrozen.code: AccountFrozen}
    return known.get(code, InFlight if code == InFlight.code else StateContended)()


async def _earlier(
    sharing: Sharing, payment: Payment, asked: SplitAsked, take: Taking
) -> tuple[Split, list[ShareRow]]:
    db = sharing.flow.db
    whose = (payment.book, payment.merchant_id, payment.mode)
    found = await store.FIND_BY_NUMBER.one(db, *whose, asked.merchant_split_no)
    if found.request_hash != asked.fingerprint(payment.id):
        raise SplitNumberUsed(merchant_split_no=asked.merchant_split_no)
    async with db.begin("splits") as tx:
        await take(found.id, tx.now).run(tx)
    return found, await store.SHARES_OF_SPLIT.all(db, found.book, found.id)


async def _receivers(
    sharing: Sharing, payment: Payment, attempt: Attempt, asked: SplitAsked
) -> list[ReceiverRow]:
    """Return the receivers: all of this payment's channel, or all of the house.

    Raises:
        ReceiverNotFound, ReceiverNotActive, ReceiverNotOffered
    """
    found = []
    for receiver_id, _ in asked.parts:
        whose = (payment.merchant_id, payment.mode)
        row = await store.FIND_RECEIVER.first(sharing.flow.db, payment.book, receiver_id, *whose)
        if row is None:
            raise ReceiverNotFound
        if row.state is not ReceiverState.ACTIVE:
            raise ReceiverNotActive(status=row.state)
        found.append(row)
    at_channel = [row for row in found if row.kind == "channel"]
    may_book = sharing.flow.licence.may_hold_funds
    if len(at_channel) not in ({0, len(found)} if may_book else {len(found)}):
        raise ReceiverNotOffered(kind="mixed")
    if any(row.account_id != attempt.account_id for row in at_channel):
        raise ReceiverNotOffered(kind="channel")
    return found


def _rows(
    sight: tuple[Payment, Attempt],
    asked: SplitAsked,
    receivers: Sequence[ReceiverRow],
    split_id: UUID,
    now: datetime,
) -> tuple[Split, Parts]:
    payment, attempt = sight
    at_channel = receivers[0].kind == "channel"
    state = SplitState.HELD
    if asked.releases == "now":
        state = SplitState.REQUESTED if at_channel else SplitState.ENDED
    split = Split(
        book=payment.book,
        id=split_id,
        payment_id=payment.id,
        merchant_id=payment.merchant_id,
        mode=payment.mode,
        merchant_split_no=asked.merchant_split_no,
        request_hash=asked.fingerprint(payment.id),
        currency=payment.currency,
        amount=asked.total,
        side="channel" if at_channel else "book",
        kind="shares",
        account_id=attempt.account_id if at_channel else None,
        channel_trade=attempt.channel_ref if at_channel else None,
        releases=asked.releases,
        release_at=asked.release_at,
        state=state,
        code=None,
        channel_ref=None,
        created_at=now,
        ended_at=now if state is SplitState.ENDED else None,
        queries=0,
        version=1,
    )
    parts = []
    for row, (_, amount) in zip(receivers, asked.parts, strict=True):
        share_id = derived_id(split_id, f"share {row.id}")
        place = (payment.book, share_id, split_id, payment.id, row.id, amount)
        parts.append((ShareRow(*place, _SHARE_STATES[state], None, None, 0, 1), row))
    return split, parts


_SHARE_STATES: Final = {
    SplitState.HELD: ShareState.HELD,
    SplitState.REQUESTED: ShareState.PENDING,
    SplitState.ENDED: ShareState.SUCCEEDED,
}
_BIRTH_RULES: Final = {
    ("book", SplitState.ENDED): "split.given_at_once",
    ("book", SplitState.HELD): "split.held",
    ("channel", SplitState.HELD): "split.channel_held",
    ("channel", SplitState.REQUESTED): "split.channel_held",
}


def _birth_writes(split: Split, parts: Parts, most: int) -> tuple[Write, ...]:
    now, shares = split.created_at, [share for share, _ in parts]
    writes = [
        # The number comes before the total: a repeat is told apart from a split too many.
        Write(store.INSERT_SPLIT, astuple(split), refusal=_NUMBER_TAKEN),
        shared_write(split.book, split.payment_id, split.amount, most, refusal=EXCEEDS),
        *[Write(store.INSERT_SHARE, astuple(share)) for share in shares],
    ]
    if split.state is SplitState.ENDED:
        writes.append(event_write(ended_event(split, shares), now=now))
    elif split.state is SplitState.REQUESTED:
        writes.append(chase_write(split, now + DELAYS[2]))
    elif split.release_at is not None:
        task = ReleaseSplit(split.book, split.id)
        writes.append(task_write(task, run_at=split.release_at, key=f"split/{split.id}"))
    return tuple(writes)


async def release_split(sharing: Sharing, split: Split, take: Taking | None = None) -> Split:
    """Give the shares of a split that is held: in the book at once, at a channel from now on.

    Raises:
        SplitNotHeld, AccountFrozen, InFlight, StateContended
    """
    return await _let_go(sharing, split, take, "release")


async def cancel_split(sharing: Sharing, split: Split, take: Taking) -> Split:
    """Call a split off that is held; what was held for it is the merchant's again.

    Raises:
        SplitNotHeld, AccountFrozen, InFlight, StateContended
    """
    return await _let_go(sharing, split, take, "cancel")


async def _let_go(
    sharing: Sharing, split: Split, take: Taking | None, how: Literal["release", "cancel"]
) -> Split:
    for _ in range(_TRIES_MAX):
        if split.state is not SplitState.HELD:
            raise SplitNotHeld(status=split.state)
        now, parts = sharing.flow.db.clock.now(), await parts_of(sharing, split)
        becomes, rule = _after(split, how, now)
        shares = [replace(share, state=_SHARES_AFTER[becomes.state]) for share, _ in parts]
        taking = () if take is None else (take(split.id, now),)
        writes = (*taking, *change_writes(split, becomes, shares, now))
        failpoint("splits.before_let_go")
        transfers = transfers_of(rule, split, parts) if rule else ()
        code = await commit(sharing, split.book, transfers, writes)
        failpoint("splits.after_let_go")
        if code is None:
            sharing.flow.nudge()
            return replace(becomes, version=split.version + 1)
        if code == AccountFrozen.code:
            raise AccountFrozen
        if code == InFlight.code:
            raise InFlight
        split = await store.GET_SPLIT.one(sharing.flow.db, split.book, split.id)
    raise StateContended


_SHARES_AFTER: Final = {
    SplitState.ENDED: ShareState.SUCCEEDED,
    SplitState.REQUESTED: ShareState.PENDING,
    SplitState.CANCELLED: ShareState.CANCELLED,
}


def _after(split: Split, how: str, now: datetime) -> tuple[Split, str | None]:
    """Return what a split that was held becomes, and by which rule its money moves."""
    at_channel = split.side == "channel"
    if how == "cancel":
        rule = "split.channel_released" if at_channel else "split.released"
        return replace(split, state=SplitState.CANCELLED, ended_at=now), rule
    if at_channel:
        return replace(split, state=SplitState.REQUESTED), None
    return replace(split, state=SplitState.ENDED, ended_at=now), "split.given"


async def run_release(sharing: Sharing, task: ReleaseSplit, _lease: Lease) -> Again | None:
    """Give the shares of a split whose day has come, unless it was called off."""
    split = await store.GET_SPLIT.one(sharing.flow.db, task.book, task.split_id)
    if split.state is SplitState.HELD:
        await release_split(sharing, split)
    return None


async def finish_sharing(
    sharing: Sharing, payment: Payment, number: str, *, take: Taking, split_id: UUID
) -> Split:
    """Let no more shares follow, and have the channel free what is left, where it froze any.

    The same number again returns the finish it already was.

    Raises:
        PaymentNotShareable, SplitNumberUsed, InFlight
    """
    flow, now = sharing.flow, sharing.flow.db.clock.now()
    if payment.state is not PaymentState.SUCCEEDED:
        raise PaymentNotShareable(status=payment.state)
    attempt = await payments.paid_attempt(flow.db, payment)
    at_channel = isinstance(flow.channels.get(attempt.channel), Splitting)
    asked = SplitAsked(number, (), "now", None)
    split = _finish_row((payment, attempt), asked, split_id, now, at_channel=at_channel)
    follow_up = chase_write(split, now + DELAYS[2])
    if not at_channel:
        follow_up = event_write(ended_event(split, ()), now=now)
    writes = (
        take(split.id, now),
        Write(store.INSERT_SPLIT, astuple(split), refusal=_NUMBER_TAKEN),
        shares_ended_write(payment.book, payment.id, refusal=EXCEEDS),
        follow_up,
    )
    code = await commit(sharing, split.book, (), writes)
    failpoint("splits.after_finish_request")
    if code is None:
        flow.nudge()
        return split
    if code == _NUMBER_TAKEN:
        return (await _earlier(sharing, payment, asked, take))[0]
    raise PaymentNotShareable(status=payment.state) if code == EXCEEDS else InFlight


def _finish_row(
    sight: tuple[Payment, Attempt],
    asked: SplitAsked,
    split_id: UUID,
    now: datetime,
    *,
    at_channel: bool,
) -> Split:
    payment, attempt = sight
    return Split(
        book=payment.book,
        id=split_id,
        payment_id=payment.id,
        merchant_id=payment.merchant_id,
        mode=payment.mode,
        merchant_split_no=asked.merchant_split_no,
        request_hash=asked.fingerprint(payment.id),
        currency=payment.currency,
        amount=0,
        side="channel" if at_channel else "book",
        kind="finish",
        account_id=attempt.account_id if at_channel else None,
        channel_trade=attempt.channel_ref if at_channel else None,
        releases="now",
        release_at=None,
        state=SplitState.REQUESTED if at_channel else SplitState.ENDED,
        code=None,
        channel_ref=None,
        created_at=now,
        ended_at=None if at_channel else now,
        queries=0,
        version=1,
    )

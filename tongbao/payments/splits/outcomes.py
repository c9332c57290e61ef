"""Ask a channel to give shares, and write down what it says of each receiver, exactly once.

A split's number is its idempotency key at the channel, so sending it again is always safe; a
time-out is never a failure.
"""

from __future__ import annotations

from typing import Final, Literal, Protocol, runtime_checkable

from msgspec import Struct
from msgspec.structs import replace

from tongbao.infra.db import Write
from tongbao.infra.failpoints import failpoint
from tongbao.infra.tasks import Again, Lease
from tongbao.kernel.errors import Busy
from tongbao.kernel.ids import new_id, show
from tongbao.kernel.money import Money
from tongbao.payments.collecting import queries as payments
from tongbao.payments.collecting.model import Payment
from tongbao.payments.collecting.outcomes import Evidence, StateContended, exchange_write
from tongbao.payments.splits import _store as store
from tongbao.payments.splits.model import Split, SplitState, next_share_step
from tongbao.payments.splits.receivers import Sharing, opened
from tongbao.payments.splits.records import (
    DELAYS,
    ChaseSplit,
    change_writes,
    commit,
    is_overtaken,
    parts_of,
    transfers_of,
)
from tongbao.payments.splits.splits import PaymentNotShareable
from tongbao.rails.channels.capabilities.shares import Share, SplitOrder, Splitting
from tongbao.rails.channels.contract.orders import ChannelAccount
from tongbao.rails.channels.contract.outcomes import Absent, Answer, NotSent, Unknown

_TRIES_MAX: Final = 8


async def ask_channel(sharing: Sharing, split: Split) -> Split:
    """Have the channel give the shares, or ask about them and send them again if it knows none.

    Raises:
        StateContended
    """
    flow = sharing.flow
    if split.account_id is None or not split.state.is_asked:
        return split
    account = await flow.account(split.account_id)
    channel = giving(sharing, account)
    order = await _order(sharing, split)
    if split.state is not SplitState.REQUESTED:
        found = await channel.query_split(account, order)
        failpoint("splits.after_query")
        split = await record_share_news(sharing, split, found, "query_split")
        if not isinstance(found.outcome, Absent) or not split.state.is_asked:
            return split
    call = channel.unfreeze if split.kind == "finish" else channel.split
    answer = await call(account, order)
    failpoint("splits.after_channel_call")
    purpose = "unfreeze" if split.kind == "finish" else "split"
    return await record_share_news(sharing, split, answer, purpose)


def giving(sharing: Sharing, account: ChannelAccount) -> Splitting:
    """Return the channel of an account as one that gives shares."""
    channel: object = sharing.flow.channels[account.channel]
    if not isinstance(channel, Splitting):
        raise TypeError(f"{account.channel} gives no shares")
    return channel


async def _order(sharing: Sharing, split: Split) -> SplitOrder:
    shares = [
        Share(opened(sharing.keyring, receiver), Money(share.amount, split.currency))
        for share, receiver in await parts_of(sharing, split)
    ]
    finishes = split.kind == "finish"
    return SplitOrder(split.number, split.channel_trade or "", shares, finishes=finishes)


async def record_share_news(
    sharing: Sharing, split: Split, answer: Answer[object], purpose: str
) -> Split:
    """Apply what a channel says of a split and return it as it is afterwards.

    Raises:
        StateContended: others kept winning; nothing was written, and asking again is safe.
    """
    flow, exchange_id = sharing.flow, new_id()
    place = (split.book, split.payment_id)
    evidence = Evidence(purpose, purpose, answer.exchange)
    for _ in range(_TRIES_MAX):
        split = await store.GET_SPLIT.one(flow.db, split.book, split.id)
        parts, now = await parts_of(sharing, split), flow.db.clock.now()
        accounts = {receiver.id: opened(sharing.keyring, receiver).account for _, receiver in parts}
        shares = [share for share, _ in parts]
        # What did not leave now may have left before: the next look asks.
        news = None if isinstance(answer.outcome, NotSent | Absent) else answer.outcome
        step = None if news is None else next_share_step(split, shares, accounts, news, now)
        told = exchange_write(place, exchange_id, evidence, answer.outcome, now)
        seen = (Write(store.COUNT_QUERY, place_of(split)), told)
        if step is None:
            await commit(sharing, split.book, (), seen)
            return replace(split, queries=split.queries + 1)
        of = {receiver.id: receiver for _, receiver in parts}
        given = [(each, of[each.receiver_id]) for each in step.given]
        failed = [(each, of[each.receiver_id]) for each in step.failed]
        moved = (
            *transfers_of("split.channel_given", split, given),
            *transfers_of("split.channel_released", split, failed),
        )
        changed = [*step.given, *step.failed]
        ended = {each.id for each in changed}
        beside = [each for each in shares if each.id not in ended]
        writes = (*change_writes(split, step.split, changed, now, beside=beside), *seen)
        failpoint("splits.before_outcome")
        code = await commit(sharing, split.book, moved, writes)
        failpoint("splits.after_outcome")
        if code is None:
            flow.nudge()
            return await store.GET_SPLIT.one(flow.db, split.book, split.id)
        if not is_overtaken(code):
            raise RuntimeError(f"the ledger refused what became of shares: {code} for {split.id}")
    raise StateContended


def place_of(split: Split) -> tuple[object, ...]:
    """Return where a split's row is."""
    return split.book, split.id


async def chase_split(sharing: Sharing, task: ChaseSplit, _lease: Lease) -> Again | None:
    """Take the next step of a split at a channel; return when to look again, or None at its end."""
    split = await store.GET_SPLIT.one(sharing.flow.db, task.book, task.split_id)
    if split.state.is_asked:
        split = await ask_channel(sharing, split)
    if not split.state.is_asked:
        return None
    return Again(DELAYS[min(split.queries, len(DELAYS) - 1)])


@runtime_checkable
class TellingUnsplit(Protocol):
    """Says how much of a payment may still be shared."""

    async def unsplit_money(
        self, account: ChannelAccount, channel_ref: str
    ) -> Answer[Money | Absent | Unknown]:
        """Ask about a payment by the channel's own number of it."""


class UnsplitUnanswered(Busy):
    """The channel gave no answer that can be trusted; nothing has happened."""

    code = "split.unanswered"
    advice = "Ask again in a moment; a question moves no money."
    advice_zh = "未收到可信应答，查询不涉及资金，请稍后重试。"
    retry_after_s = 2


class UnsplitView(Struct, frozen=True):
    """How much of a payment may still be shared: as its channel says, and what was shared here."""

    object: Literal["unsplit_money"]
    payment_id: str
    currency: str
    amount: int
    amount_shared: int


async def ask_unsplit(sharing: Sharing, payment: Payment) -> UnsplitView:
    """Ask the channel that collected a payment.

    Raises:
        PaymentNotShareable: it was not collected, or its channel shares nothing or does not tell.
        UnsplitUnanswered
    """
    attempt = await payments.last_attempt(sharing.flow.db, payment)
    channel: object = sharing.flow.channels.get(attempt.channel)
    if attempt.channel_ref is None or not isinstance(channel, TellingUnsplit):
        raise PaymentNotShareable(status=payment.state)
    account = await sharing.flow.account(attempt.account_id)
    answer = await channel.unsplit_money(account, attempt.channel_ref)
    match answer.outcome:
        case Money(amount=amount, currency=currency):
            shown = show("pay", payment.id)
            return UnsplitView("unsplit_money", shown, currency, amount, payment.shared)
        case Absent():
            raise PaymentNotShareable(status=payment.state)
        case _:
            raise UnsplitUnanswered

"""Pay one row of a batch once: instruct its channel under its number, ask, write down its word."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final, Literal
from uuid import UUID

import msgspec
from msgspec.structs import replace

from tongbao.clearing.context import Clearing
from tongbao.clearing.payouts.model import PayoutNews, Returned
from tongbao.clearing.transfers import _store as store
from tongbao.clearing.transfers.model import (
    REVERSED,
    Payee,
    TransferContended,
    TransferEnded,
    TransferItem,
    TransferNews,
    TransferNotTakenBack,
    TransferState,
    TransferStep,
    next_step,
    view_item,
)
from tongbao.clearing.transfers.ways import (
    TakingTransfersBack,
    ledger_way,
    order_of,
    unsealed,
    way_of,
)
from tongbao.infra.crypto import Keyring
from tongbao.infra.db import Write
from tongbao.infra.failpoints import failpoint
from tongbao.infra.outbox import event_write
from tongbao.infra.tasks import Again, Lease, RetryPolicy, Task
from tongbao.kernel.ids import UnknownId, from_base32, new_id, show
from tongbao.ledger.model import AccountKey, Transfer
from tongbao.ledger.rules import posting
from tongbao.ledger.steps.commit import commit_together, in_one_transaction, is_committed
from tongbao.parties.merchants.queries import merchant_with_id
from tongbao.rails.channels.contract.callbacks import Callback
from tongbao.rails.channels.contract.orders import ChannelAccount
from tongbao.rails.channels.contract.outcomes import Absent, Declined, Exchange

TRANSFER_POLICY: Final = RetryPolicy(
    attempts_max=20,
    delays=tuple(timedelta(seconds=s) for s in (5, 10, 30, 60, 300, 900, 1800, 3600)),
)
ACTOR: Final = "transfers"
MOVED_ON: Final = TransferContended.code
WHILE_HELD: Final = timedelta(hours=1)
_AFTER_SUCCESS: Final = timedelta(days=1)
_LOOKS_AFTER_SUCCESS: Final = 3
"""Days on which a channel is asked whether the money came back."""
_TRIES_MAX: Final = 8


class SubmitTransfer(Task, frozen=True, tag="transfers.submit_transfer"):
    """Pay one row, and keep asking until the channel has said how it ended."""

    book: int
    item_id: UUID


async def run_submit_transfer(
    context: Clearing, task: SubmitTransfer, _lease: Lease
) -> Again | None:
    """Take the next step of a transfer; return when to look again, or None at its end."""
    item = await store.GET_ITEM.one(context.db, task.book, task.item_id)
    if item.state is TransferState.SUCCEEDED:
        return await _look_after_success(context, item)
    if not item.state.is_open:
        return None
    item = await pay(context, item)
    if item.state is TransferState.SUCCEEDED:
        return Again(_AFTER_SUCCESS)
    if not item.state.is_open:
        return None
    if item.sends == 0:  # of a merchant whose money stays for now
        return Again(WHILE_HELD)
    delays = TRANSFER_POLICY.delays
    return Again(delays[min(item.queries, len(delays) - 1)])


async def pay(context: Clearing, item: TransferItem) -> TransferItem:
    """Instruct the channel, or ask what became of it and instruct again if it knows of none.

    Raises:
        TransferContended
    """
    if item.account_id is None:
        raise LookupError("a transfer that is held has an account of ours")
    if item.sends == 0 and not (await merchant_with_id(context.db, item.merchant_id)).is_paid_out:
        return item  # what the channel has goes on regardless
    account, way = await way_of(context, item.account_id)
    order = order_of(item, payee_of(context.keyring, item))
    if item.sends > 0:
        found = await way.query_transfer(account, order)
        failpoint("transfers.after_query")
        item = await record_news(context, item, "query", found.outcome, found.exchange)
        if not isinstance(found.outcome, Absent) or not item.state.is_open:
            return item
    is_repeat = item.sends > 0
    if await store.COUNT_SEND.run(context.db, item.book, item.id, item.version) == 0:
        raise TransferContended
    failpoint("transfers.before_call")
    answer = await way.transfer(account, order)
    failpoint("transfers.after_call")
    news: TransferNews = answer.outcome
    if is_repeat and isinstance(news, Declined):
        # A refusal of the repeat need not speak of the first instruction.
        asked = await way.query_transfer(account, order)
        if not isinstance(asked.outcome, Declined | Absent):
            news = asked.outcome
    return await record_news(context, item, "transfer", news, answer.exchange)


async def take_back(context: Clearing, item: TransferItem) -> TransferItem:
    """Take back what its payee has not confirmed; the channel's word says how it stands then.

    Safe to repeat: who confirmed first has the money, and one that has ended stays as it is.

    Raises:
        TransferNotTakenBack, TransferContended
    """
    if item.state is TransferState.FAILED:
        return item  # perhaps by an earlier request of the same kind
    is_with_payee = item.state.is_open and item.sends > 0 and item.account_id is not None
    if not is_with_payee or item.account_id is None:
        raise TransferNotTakenBack(status=item.state)
    account, way = await way_of(context, item.account_id)
    if not isinstance(way, TakingTransfersBack):
        raise TransferNotTakenBack(status=item.state)
    answer = await way.cancel_transfer(account, order_of(item, payee_of(context.keyring, item)))
    failpoint("transfers.after_take_back")
    return await record_news(context, item, "query", answer.outcome, answer.exchange)


async def _look_after_success(context: Clearing, item: TransferItem) -> Again | None:
    """Ask once a day for a while whether the money came back."""
    if item.account_id is None or item.ended_at is None:
        return None
    if context.db.clock.now() > item.ended_at + _LOOKS_AFTER_SUCCESS * _AFTER_SUCCESS:
        return None
    account, way = await way_of(context, item.account_id)
    found = await way.query_transfer(account, order_of(item, payee_of(context.keyring, item)))
    item = await record_news(context, item, "query", found.outcome, found.exchange)
    return Again(_AFTER_SUCCESS) if item.state is TransferState.SUCCEEDED else None


async def take_transfer(context: Clearing, account: ChannelAccount, callback: Callback) -> bool:
    """Ask what became of a transfer that its channel tells of; False: none of ours.

    Raises:
        TransferContended
    """
    try:
        item = await store.FIND_ITEM.first(context.db, from_base32(callback.number))
    except UnknownId:
        return False
    if item is None or item.account_id != account.id:
        return False
    if item.state.is_open and item.sends > 0:
        await pay(context, item)
    return True


async def hear_from_bank(
    context: Clearing, account_id: UUID, item_id: UUID, news: PayoutNews, seen: Exchange
) -> bool:
    """Apply what a bank's file says of a transfer of ours; tell whether it changed anything.

    Another amount than was paid is not believed; reconciliation meets it.

    Raises:
        TransferContended
    """
    item = await store.FIND_ITEM.first(context.db, item_id)
    if item is None or item.account_id != account_id:
        return False
    heard: TransferNews
    if isinstance(news, Returned):
        if news.money != item.money:
            return False
        heard = Declined(REVERSED, news.reason)
    else:
        heard = news
    after = await record_news(context, item, "file", heard, seen)
    return after.state is not item.state


async def record_news(
    context: Clearing,
    item: TransferItem,
    purpose: Literal["transfer", "query", "file"],
    news: TransferNews,
    exchange: Exchange,
) -> TransferItem:
    """Apply the channel's word exactly once and return the row as it is afterwards.

    Raises:
        TransferContended: others kept winning; nothing was written, and asking again is safe.
    """
    for _ in range(_TRIES_MAX):
        item = await store.GET_ITEM.one(context.db, item.book, item.id)
        now = context.db.clock.now()
        step = next_step(item, news, now)
        writes = (
            *_row_writes(item, step, now),
            Write(store.COUNT_QUERY, (item.book, item.id)),
            _exchange_write(item, purpose, news, exchange, now=now),
        )
        failpoint("transfers.before_outcome")
        refused = await commit_together(
            context.flow.ledger,
            in_one_transaction(context.db, ACTOR),
            item.book,
            posting_of(context, step.rule, item) if step and step.rule else (),
            writes,
        )
        if is_committed(refused, {MOVED_ON}, item.id):
            failpoint("transfers.after_outcome")
            context.flow.nudge()
            return await store.GET_ITEM.one(context.db, item.book, item.id)
    raise TransferContended


def _row_writes(
    before: TransferItem, step: TransferStep | None, now: datetime
) -> tuple[Write, ...]:
    if step is None:
        return ()
    after = step.item
    args = (before.book, before.id, before.version, after.state, after.code, after.channel_ref,
            after.action, after.ended_at)  # fmt: skip
    row = Write(store.UPDATE_ITEM, args, refusal=MOVED_ON)
    if step.rule is None:
        return (row,)
    return (row, ended_write(replace(after, version=before.version + 1), now))


def ended_write(item: TransferItem, now: datetime) -> Write:
    """Return the write that tells how a transfer ended."""
    event = TransferEnded(
        merchant_id=item.merchant_id,
        mode=item.mode,
        resource_id=show("tri", item.id),
        object=view_item(item),
    )
    return event_write(event, now=now)


def _exchange_write(
    item: TransferItem,
    purpose: Literal["transfer", "query", "file"],
    news: TransferNews,
    seen: Exchange,
    *,
    now: datetime,
) -> Write:
    outcome = type(news).__name__.lower()
    args = (item.book, new_id(), item.id, purpose, seen.method, seen.url, seen.request, seen.status,
            seen.reply, seen.duration_ms, outcome, now)  # fmt: skip
    return Write(store.INSERT_EXCHANGE, args)


def payee_of(keyring: Keyring, item: TransferItem) -> Payee:
    """Return who is paid."""
    return msgspec.json.decode(unsealed(keyring, item), type=Payee)


def posting_of(context: Clearing, rule: str, item: TransferItem) -> tuple[Transfer, ...]:
    """Return what a rule posts for a transfer."""
    way = ledger_way(item, payee_of(context.keyring, item))
    return posting.transfers(
        rule,
        reference=item.id,
        accounts={
            "merchant_payable": AccountKey("merchant_payable", item.currency, item.merchant_id),
            "way": way,
            "wallet": way,
        },
        amounts={"amount": item.money},
    )

"""Close the batches of accounts whose channel sends no bill, and compare what they came to.

The figures are committed first, then the channel is asked, as often as it takes, and its answer is
committed last. A trade is counted in one batch, the first after it was known; by its time one could
not tell, for channels' times have seconds. The next batch is made when the channel has answered.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from msgspec import Struct
from msgspec.structs import astuple, replace
from prometheus_client import Counter

from tongbao.clearing.batches import _store as store
from tongbao.clearing.batches.model import (
    BATCH_AT,
    LOOK_AGAIN,
    LOOKS_BACK,
    WAITS_FOR_OPEN,
    Batch,
    BatchState,
)
from tongbao.clearing.context import Clearing
from tongbao.clearing.daily import DAILY_POLICY, next_moment
from tongbao.clearing.reconciliation.breaks import raise_totals_break
from tongbao.infra.db import Db, Tx
from tongbao.infra.failpoints import failpoint
from tongbao.infra.tasks import Again, Lease, RetryPolicy, Task, enqueue, enqueue_many
from tongbao.kernel.clock import business_date
from tongbao.kernel.errors import Rejected
from tongbao.kernel.ids import base32, new_id
from tongbao.payments.collecting import queries as payments
from tongbao.payments.refunds import queries as refunds
from tongbao.payments.refunds.model import GivenBack
from tongbao.rails.channels.accounts import list_accounts
from tongbao.rails.channels.contract.bills import (
    BatchTotals,
    ComparingTotals,
    TotalsAgree,
    TotalsDiffer,
)
from tongbao.rails.channels.contract.orders import ChannelAccount

BATCHES: Final = Counter(
    "tongbao_batches_total",
    "Batches by channel and what became of them",
    ["channel", "state"],
)
BATCHES_POLICY: Final = DAILY_POLICY
COMPARE_POLICY: Final = RetryPolicy(attempts_max=1_000_000, delays=LOOK_AGAIN)
"""Nobody else asks again, and the next batch waits for the answer."""

_ACTOR: Final = "batches"
_BEGINNING: Final = datetime(2000, 1, 1, tzinfo=UTC)
_ANSWER_MAX: Final = 200
_CHUNK: Final = 1000


class TotalsNotOffered(Rejected):
    """The channel compares no totals."""

    code = "batch.not_offered"
    advice = "Reconcile the account by its bill."
    advice_zh = "该渠道不支持轧账，请使用对账单对账。"


class CloseBatches(Task, frozen=True, tag="batches.close_daily"):
    """Close the batch of every account whose channel compares totals."""


class CompareBatch(Task, frozen=True, tag="batches.compare"):
    """Close an account's batch and ask the channel until it has said what it has."""

    account_id: UUID
    asked_at: datetime


async def seed(tx: Tx) -> None:
    """Start the daily round, unless it is running: done at every start of the program."""
    await enqueue(tx, CloseBatches(), run_at=next_moment(tx.now, BATCH_AT), key="daily")


async def run_close_batches(context: Clearing, _task: CloseBatches, _lease: Lease) -> Again:
    """Ask for the batch of every account that has one, and come again tomorrow.

    An account whose host is still silent about the last one has a task for it already.
    """
    now = context.db.clock.now()
    tasks = [
        (CompareBatch(row.id, now), now, str(row.id))
        for row in await list_accounts(context.db)
        if isinstance(context.flow.channels.get(row.channel), ComparingTotals)
    ]
    async with context.db.begin(_ACTOR) as tx:
        await enqueue_many(tx, tasks)
    return Again(next_moment(now, BATCH_AT) - now)


async def run_compare_batch(context: Clearing, task: CompareBatch, _lease: Lease) -> Again | None:
    """Take the next step of an account's batch; return when to look again, or None at its end."""
    now = context.db.clock.now()
    if now < task.asked_at + WAITS_FOR_OPEN and await _has_open(context, task.account_id):
        return Again(LOOK_AGAIN[1])
    batch = await close_batch(context, task.account_id)
    if batch.state is not BatchState.ASKED:
        return None
    return Again(LOOK_AGAIN[min(batch.tries, len(LOOK_AGAIN)) - 1])


async def close_batch(context: Clearing, account_id: UUID) -> Batch:
    """Compare an account's totals since its last batch; one without an answer is asked about again.

    Raises:
        TotalsNotOffered, ChannelAccountNotFound
    """
    account = await context.flow.account(account_id)
    channel: object = context.flow.channels.get(account.channel)
    if not isinstance(channel, ComparingTotals):
        raise TotalsNotOffered(channel=account.channel)
    batch = await _open_batch(context, account)
    if not channel.totals_fit(batch.ours):
        return await _end(context.db, replace(batch, state=BatchState.TOO_LARGE), None)
    failpoint("batches.before_question")
    answer = await channel.compare_totals(account, batch.channel_number, batch.ours)
    failpoint("batches.after_question")
    match answer.outcome:
        case TotalsAgree():
            ended = replace(batch, state=BatchState.AGREES)
            return await _end(context.db, ended, batch.ours)
        case TotalsDiffer(theirs=theirs):
            return await _end(context.db, replace(batch, state=BatchState.DIFFERS), theirs)
        case unanswered:
            reason = unanswered.reason[:_ANSWER_MAX]
            await store.COUNT_TRY.run(context.db, batch.id, reason)
            return await store.GET_BATCH.one(context.db, batch.id)


async def latest_batches(on: Db | Tx, *, limit: int = 100) -> list[Batch]:
    """Return batches, newest first."""
    return await store.LATEST_BATCHES.all(on, limit)


async def _open_batch(context: Clearing, account: ChannelAccount) -> Batch:
    """Return the batch that has no answer yet, or a new one that begins where the last ended.

    Of two processes at once, one writes it and both ask about the same.
    """
    while True:
        async with context.db.begin(_ACTOR) as tx:
            last = await store.LAST_BATCH.first(tx, account.id)
            if last is not None and last.state is BatchState.ASKED:
                return last
            counted = await _uncounted(tx, account, last)
            batch = _batch(context, account, last, _totals(counted), tx.now)
            if await store.INSERT_BATCH.run(tx, *astuple(batch)):
                rows = [(account.id, each.number, batch.id) for each in counted]
                await store.INSERT_ITEM.run_many(tx, rows)
                return batch


def _batch(
    context: Clearing,
    account: ChannelAccount,
    last: Batch | None,
    totals: BatchTotals,
    now: datetime,
) -> Batch:
    [currency] = context.flow.channels[account.channel].currencies
    begins = _BEGINNING if last is None else last.ends
    ends = max(now, begins + timedelta(microseconds=1))
    return Batch(
        id=new_id(),
        account_id=account.id,
        channel=account.channel,
        mode=account.mode,
        number=1 if last is None else last.number + 1,
        currency=currency,
        begins=begins,
        ends=ends,
        state=BatchState.ASKED,
        debit_count=totals.debit_count,
        debit_amount=totals.debit_amount,
        credit_count=totals.credit_count,
        credit_amount=totals.credit_amount,
        their_debit_count=None,
        their_debit_amount=None,
        their_credit_count=None,
        their_credit_amount=None,
        tries=0,
        last_answer="",
        answered_at=None,
    )


class _Trade(Struct, frozen=True):
    """What a batch counts: money that came, or less than nothing where it went back."""

    number: str
    amount: int


async def _uncounted(tx: Tx, account: ChannelAccount, last: Batch | None) -> list[_Trade]:
    """Return what the account took and gave back and no batch has counted yet."""
    since = _BEGINNING if last is None else last.begins - LOOKS_BACK
    until = tx.now + LOOKS_BACK  # the channel's clock may be ahead
    trades = [
        _Trade(base32(paid.id), paid.amount)
        async for paid in payments.paid_between(tx, account.id, since, until)
    ]
    async for chunk in _chunks(refunds.given_back_between(tx, account.mode, since, until)):
        attempts = await payments.attempts_with_ids(tx, [each.attempt_id for each in chunk])
        ours = {attempt.id for attempt in attempts if attempt.account_id == account.id}
        trades += [
            _Trade(base32(each.id), -each.amount) for each in chunk if each.attempt_id in ours
        ]
    counted = set(await store.COUNTED.all(tx, account.id, [each.number for each in trades]))
    return [each for each in trades if each.number not in counted]


def _totals(trades: Sequence[_Trade]) -> BatchTotals:
    taken = [each.amount for each in trades if each.amount > 0]
    returned = [-each.amount for each in trades if each.amount < 0]
    return BatchTotals(len(taken), sum(taken), len(returned), sum(returned))


async def _chunks(found: AsyncIterator[GivenBack]) -> AsyncIterator[list[GivenBack]]:
    chunk: list[GivenBack] = []
    async for each in found:
        chunk.append(each)
        if len(chunk) == _CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


async def _has_open(context: Clearing, account_id: UUID) -> bool:
    """Return whether the account has attempts nobody knows the end of."""
    # A payment's time is hours at most: tomorrow, all of today's have run out of it.
    tomorrow = context.db.clock.now() + timedelta(days=1)
    return bool(await payments.overdue_attempts(context.db, account_id, tomorrow))


async def _end(db: Db, batch: Batch, theirs: BatchTotals | None) -> Batch:
    """Write down what became of a batch; what does not agree is a difference for people."""
    figures = (None,) * 4 if theirs is None else astuple(theirs)
    async with db.begin(_ACTOR) as tx:
        answered_at = None if batch.state is BatchState.TOO_LARGE else tx.now
        ended = await store.END_BATCH.run(tx, batch.id, batch.state, *figures, answered_at, "")
        batch = await store.GET_BATCH.one(tx, batch.id)
        if ended and batch.state is not BatchState.AGREES:
            await _raise_difference(tx, batch)
    if ended:
        BATCHES.labels(batch.channel, batch.state).inc()
    failpoint("batches.after_answer")
    return batch


async def _raise_difference(tx: Tx, batch: Batch) -> None:
    await raise_totals_break(
        tx,
        account_id=batch.account_id,
        channel=batch.channel,
        mode=batch.mode,
        day=business_date(batch.ends),
        currency=batch.currency,
        told=batch.their_net,
        ours=batch.ours.net,
        found_in=batch.id,
    )

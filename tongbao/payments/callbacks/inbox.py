"""Receive a channel's callback and, later, believe it: verify, store raw, answer, then process.

Whoever takes a kind of notice is named in the table of takers. What nobody takes yet is kept and,
at the first start with somebody who takes it, believed as if it had come then.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import partial
from hashlib import sha256
from typing import Final
from uuid import UUID

import msgspec
import structlog
from prometheus_client import Counter

from tongbao.infra.card_watch import without_cards
from tongbao.infra.db import Db, Tx, Write
from tongbao.infra.failpoints import failpoint
from tongbao.infra.tasks import (
    Again,
    Hands,
    Lease,
    LeaseLost,
    Task,
    enqueue,
    enqueue_many,
    leased_write,
    task_write,
)
from tongbao.kernel.clock import real_now
from tongbao.kernel.ids import new_id
from tongbao.payments.callbacks import _store as store
from tongbao.payments.callbacks.model import InboundCallback, InboundState, Takers, redacted
from tongbao.payments.callbacks.takers import Ending, take_payment
from tongbao.payments.collecting.outcomes import Flow
from tongbao.rails.channels.contract.callbacks import (
    Callback,
    CallbackForged,
    CallbackKeyUnknown,
    CallbackKind,
    CallbackReply,
    CallbackUnreadable,
)
from tongbao.rails.channels.contract.channel import Channel
from tongbao.rails.channels.contract.orders import ChannelAccount

RECEIVED: Final = Counter(
    "tongbao_callbacks_received_total",
    "Callbacks that channels sent us, by channel and what the signature said.",
    ["channel", "result"],
)
_KEPT_HEADERS_MAX: Final = 32
_KEPT_BODY_MAX: Final = 65_536
_REFUSED_A_DAY_MAX: Final = 1000
_TAKEN_AT_ONCE: Final = 500
_log = structlog.get_logger()


class BelieveCallback(Task, frozen=True, tag="callbacks.believe"):
    """Believe a stored callback: compare it with what we asked and record the news.

    A copy is known by its account and notification, as it is stored under the first one's id.
    """

    callback_id: UUID
    account_id: UUID | None = None
    notification_id: str | None = None


class TakeKept(Task, frozen=True, tag="callbacks.take_kept"):
    """Have what was kept believed, as far as somebody takes its kind now."""


async def receive(
    flow: Flow,
    account: ChannelAccount,
    headers: Mapping[str, str],
    body: bytes,
    *,
    hands: Hands | None = None,
) -> CallbackReply:
    """Verify a callback on its raw bytes, store it, and say what the channel wants to hear.

    One that is forged, or signed but unreadable, is kept as evidence and changes nothing; the
    effect of a good one comes after the answer. News of a payment is believed by the ``hands`` of
    this process, if they are free, and anything else by whichever worker claims it.
    """
    channel = flow.channels[account.channel]
    kept = dict(list(headers.items())[:_KEPT_HEADERS_MAX])
    try:
        callback = await _read(channel, account, headers, body)
    except (CallbackForged, CallbackUnreadable) as refused:
        state = InboundState.FORGED
        if isinstance(refused, CallbackUnreadable):
            state = InboundState.UNREADABLE
        RECEIVED.labels(account.channel, state).inc()
        _log.warning("callback_refused", channel=account.channel, code=refused.code)
        async with flow.db.begin(f"channel:{account.channel}") as tx:
            await _keep_refused(tx, account, state, kept, body)
        return channel.reply_to_callback(accepted=False)
    RECEIVED.labels(account.channel, "verified").inc()
    failpoint("callbacks.before_store")
    now, callback_id = flow.db.clock.now(), new_id()
    keeping = _keeping(account, callback, (callback_id, kept, body), now)
    task = BelieveCallback(callback_id, account.id, callback.notification_id)
    key = f"callback/{callback_id}"
    queued, row = task_write(task, run_at=now, key=key), None
    if hands is not None and hands.room > 0 and callback.kind is CallbackKind.PAYMENT:
        queued, row = leased_write(task, run_at=now, key=key)
    await flow.commits.write((keeping, queued))
    failpoint("callbacks.after_store")
    if hands is not None and row is not None:
        hands.adopt(row, partial(_believe_at_once, flow, account, callback, callback_id))
    else:
        flow.nudge()
    return channel.reply_to_callback(accepted=True)


async def _read(
    channel: Channel, account: ChannelAccount, headers: Mapping[str, str], body: bytes
) -> Callback:
    try:
        return channel.read_callback(account, headers, body, real_now())
    except CallbackKeyUnknown:
        await channel.refresh_keys(account)
        return channel.read_callback(account, headers, body, real_now())


async def _keep_refused(
    tx: Tx, account: ChannelAccount, state: InboundState, headers: dict[str, str], body: bytes
) -> None:
    fingerprint = sha256(body).hexdigest()
    await store.KEEP_REFUSED.run(
        tx,
        new_id(),
        account.id,
        account.channel,
        fingerprint,
        headers,
        without_cards(body[:_KEPT_BODY_MAX]),  # whoever knows the address can send anything
        state,
        tx.now,
        tx.now - timedelta(days=1),
        _REFUSED_A_DAY_MAX,
    )


def _keeping(
    account: ChannelAccount,
    callback: Callback,
    what: tuple[UUID, dict[str, str], bytes],
    now: datetime,
) -> Write:
    """Return the write that stores a callback, or counts a copy; ``what``: id, headers, body."""
    callback_id, headers, body = what
    row = (
        callback_id,
        account.id,
        account.channel,
        callback.notification_id,
        msgspec.json.encode(headers).decode(),
        body,
        callback.number,
        callback.kind,
        msgspec.json.encode(redacted(callback)).decode(),
        now,
    )
    return Write(store.KEEP_CALLBACK, row)


async def _believe_at_once(
    flow: Flow, account: ChannelAccount, callback: Callback, callback_id: UUID, lease: Lease
) -> None:
    """Believe news of a payment as it was stored a moment ago, and end its task with the news.

    A copy is believed again, which changes nothing, and marks nothing: it has no row of its own.

    Raises:
        LeaseLost: nothing is written; whoever has the task now believes it.
    """
    marked = _marked(callback_id, InboundState.PROCESSED, flow.db.clock.now())
    ending = Ending(marked, lease.finish_write())
    takers: Takers = {CallbackKind.PAYMENT: partial(take_payment, flow, ending=ending)}
    state = await _believe(takers, account, callback)
    if not ending.written:
        marked = _marked(callback_id, state, flow.db.clock.now())
        if await flow.commits.write((marked, lease.finish_write())) is not None:
            raise LeaseLost
    lease.finished = True


def _marked(callback_id: UUID, state: InboundState, now: datetime) -> Write:
    failpoint("callbacks.before_mark")
    return Write(store.MARK_CALLBACK, (callback_id, state, now))


async def believe_callback(
    flow: Flow, takers: Takers, task: BelieveCallback, _lease: Lease
) -> None:
    """Give a stored callback to whoever takes its kind; hearing it again changes nothing."""
    row = await _stored(flow.db, task)
    if row is None or row.state is not InboundState.RECEIVED or row.callback is None:
        return  # done before this copy's turn came
    account = await flow.account(row.account_id)
    state = await _believe(takers, account, row.callback)
    await flow.commits.write([_marked(row.id, state, flow.db.clock.now())])


async def _stored(db: Db, task: BelieveCallback) -> InboundCallback | None:
    """Return the callback; a copy is stored under the id that the first of them came with."""
    row = await store.GET_CALLBACK.first(db, task.callback_id)
    if row is None and task.account_id is not None:
        row = await store.FIND_CALLBACK.first(db, task.account_id, task.notification_id)
    return row


async def _believe(takers: Takers, account: ChannelAccount, callback: Callback) -> InboundState:
    is_ours = callback.merchant_number == account.merchant_number and callback.app_id in {
        None,
        account.app_id,
    }
    if not is_ours:
        _log.error("callback_mismatched", channel=account.channel, number=callback.number)
        return InboundState.MISMATCHED
    take = takers.get(callback.kind)
    if take is None:
        _log.info("callback_kept", channel=account.channel, kind=callback.kind)
        return InboundState.KEPT
    return InboundState.PROCESSED if await take(account, callback) else InboundState.ORPHANED


async def seed(tx: Tx) -> None:
    """Ask for one look, at every start, at what was kept before there was somebody to take it."""
    await enqueue(tx, TakeKept(), key="callbacks/take_kept")


async def take_kept(db: Db, takers: Takers, _task: TakeKept, lease: Lease) -> Again | None:
    """Have what was kept of the kinds that somebody takes now believed, some at a time."""
    async with db.begin("callbacks") as tx:
        kept = await store.TAKE_KEPT.all(tx, sorted(takers), _TAKEN_AT_ONCE)
        # Without keys: a copy's task that saw them still kept ends without effect.
        await enqueue_many(tx, [(BelieveCallback(each), tx.now, None) for each in kept])
        if len(kept) < _TAKEN_AT_ONCE:
            await lease.finish(tx)
    return Again(timedelta(0)) if len(kept) == _TAKEN_AT_ONCE else None

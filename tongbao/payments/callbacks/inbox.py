"""Receive a channel's callback and, later, believe it: verify, store raw, answer, then process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from hashlib import sha256
from typing import Final
from uuid import UUID

import structlog
from prometheus_client import Counter

from tongbao.infra.db import Db, Tx
from tongbao.infra.failpoints import failpoint
from tongbao.infra.tasks import Lease, Task, enqueue
from tongbao.kernel.clock import real_now
from tongbao.kernel.ids import UnknownId, from_base32, new_id
from tongbao.payments.agreements.agreements import Reach, ask_about
from tongbao.payments.agreements.queries import agreement_by_number
from tongbao.payments.authorisations.outcomes import ask_channel as ask_about_completion
from tongbao.payments.authorisations.outcomes import record_completion_news
from tongbao.payments.authorisations.queries import completion_by_number
from tongbao.payments.callbacks import _store as store
from tongbao.payments.callbacks.model import InboundCallback, InboundState
from tongbao.payments.collecting import chase
from tongbao.payments.collecting import queries as payments
from tongbao.payments.collecting.outcomes import Evidence, Flow, record_news
from tongbao.payments.refunds import queries as refunds
from tongbao.payments.refunds.outcomes import ask_channel, record_refund_news
from tongbao.rails.channels.contract import (
    Authorised,
    Callback,
    CallbackForged,
    CallbackKeyUnknown,
    CallbackKind,
    CallbackReply,
    CallbackUnreadable,
    Channel,
    ChannelAccount,
    Closed,
    Succeeded,
    Unknown,
)

RECEIVED: Final = Counter(
    "tongbao_callbacks_received_total",
    "Callbacks that channels sent us, by channel and what the signature said.",
    ["channel", "result"],
)
_KEPT_HEADERS_MAX: Final = 32
_KEPT_BODY_MAX: Final = 65_536
_REFUSED_A_DAY_MAX: Final = 1000
_log = structlog.get_logger()


class BelieveCallback(Task, frozen=True, tag="callbacks.believe"):
    """Believe a stored callback: compare it with what we asked and record the news."""

    callback_id: UUID


async def receive(
    flow: Flow, account: ChannelAccount, headers: Mapping[str, str], body: bytes
) -> CallbackReply:
    """Verify a callback on its raw bytes, store it, and say what the channel wants to hear.

    One that is forged, or signed but unreadable, is kept as evidence and changes nothing; the
    effect of a good one comes after the answer.
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
    async with flow.db.begin(f"channel:{account.channel}") as tx:
        await _keep(tx, account, callback, kept, body)
    failpoint("callbacks.after_store")
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
        body[:_KEPT_BODY_MAX],
        state,
        tx.now,
        tx.now - timedelta(days=1),
        _REFUSED_A_DAY_MAX,
    )


async def _keep(
    tx: Tx, account: ChannelAccount, callback: Callback, headers: dict[str, str], body: bytes
) -> None:
    callback_id = await store.KEEP_CALLBACK.one(
        tx,
        new_id(),
        account.id,
        account.channel,
        callback.notification_id,
        headers,
        body,
        callback.number,
        callback,
        tx.now,
    )
    await enqueue(tx, BelieveCallback(callback_id), key=f"callback/{callback_id}")


async def believe_callback(flow: Flow, task: BelieveCallback, _lease: Lease) -> None:
    """Record the news of a stored callback; hearing it again changes nothing."""
    row = await store.GET_CALLBACK.one(flow.db, task.callback_id)
    if row.state is not InboundState.RECEIVED or row.callback is None:
        return  # done before this copy's turn came
    account = await flow.account(row.account_id)
    state = await _believe(flow, account, row.callback)
    failpoint("callbacks.before_mark")
    await store.MARK_CALLBACK.run(flow.db, row.id, state, flow.db.clock.now())


async def _believe(flow: Flow, account: ChannelAccount, callback: Callback) -> InboundState:
    is_ours = callback.merchant_number == account.merchant_number and callback.app_id in {
        None,
        account.app_id,
    }
    if not is_ours:
        _log.error("callback_mismatched", channel=account.channel, number=callback.number)
        return InboundState.MISMATCHED
    try:
        from_base32(callback.number)
    except UnknownId:
        return InboundState.ORPHANED
    if callback.kind is CallbackKind.REFUND:
        return await _believe_refund(flow, account, callback)
    if callback.kind is CallbackKind.AGREEMENT:
        return await _believe_agreement(flow, account, callback)
    return await _believe_payment(flow, account, callback)


async def _believe_payment(flow: Flow, account: ChannelAccount, callback: Callback) -> InboundState:
    attempt = await payments.attempt_by_number(flow.db, callback.number)
    if attempt is None:
        return await _believe_completion(flow, account, callback)
    if attempt.account_id != account.id:
        return InboundState.ORPHANED
    payment, attempt = await record_news(flow, attempt, callback.outcome, Evidence("callback"))
    says_enough = not isinstance(callback.outcome, Unknown) and (
        not isinstance(callback.outcome, Succeeded) or callback.outcome.money == attempt.money
    )
    if not says_enough and attempt.state.is_open:
        # The channel's own answer decides, not a callback that is vague or of another amount.
        await chase.look_at(flow, payment, attempt)
    return InboundState.PROCESSED


async def _believe_completion(
    flow: Flow, account: ChannelAccount, callback: Callback
) -> InboundState:
    completion = await completion_by_number(flow.db, callback.number)
    if completion is None or completion.account_id != account.id:
        return InboundState.ORPHANED
    news = callback.outcome
    if not isinstance(news, Unknown):
        evidence = Evidence("callback")
        completion = await record_completion_news(flow, completion, news, evidence)
    if completion.state.is_open:
        # It was vague, or of another amount: the channel's own answer decides.
        await ask_about_completion(flow, completion)
    return InboundState.PROCESSED


async def _believe_agreement(
    flow: Flow, account: ChannelAccount, callback: Callback
) -> InboundState:
    """Ask how the agreement stands: what may be taken is known from the channel's own answer."""
    agreement = await agreement_by_number(flow.db, callback.number)
    if agreement is None or agreement.account_id != account.id:
        return InboundState.ORPHANED
    await ask_about(Reach(flow.db, flow.channels, flow.account, flow.nudge), agreement)
    return InboundState.PROCESSED


async def _believe_refund(flow: Flow, account: ChannelAccount, callback: Callback) -> InboundState:
    refund = await refunds.refund_by_number(flow.db, callback.number)
    if refund is None:
        return InboundState.ORPHANED
    attempt = await payments.attempt(flow.db, refund.book, refund.attempt_id)
    if attempt.account_id != account.id:
        return InboundState.ORPHANED
    if isinstance(callback.outcome, Authorised | Closed | Unknown):
        if refund.state.is_open:
            await ask_channel(flow, refund)
        return InboundState.PROCESSED
    evidence = Evidence("callback", refund_id=refund.id)
    await record_refund_news(flow, refund, callback.outcome, evidence)
    return InboundState.PROCESSED


async def callbacks_about(on: Db | Tx, numbers: Sequence[str]) -> list[InboundCallback]:
    """Return every callback about these numbers of ours, oldest first, for a timeline."""
    return await store.CALLBACKS_ABOUT.all(on, list(numbers))

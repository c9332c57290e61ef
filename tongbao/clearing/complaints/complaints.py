"""Read complaints from the channels, when one calls and by the hour, and keep what they say.

A complaint is read whole each time: whoever hears of it twice, late or out of order writes down
how it stands, once.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

import msgspec
import structlog
from msgspec.structs import replace
from prometheus_client import Gauge

from tongbao.clearing.complaints import _store as store
from tongbao.clearing.complaints.images import image_writes
from tongbao.clearing.complaints.model import (
    ANSWER_WITHIN,
    MOVED_ON,
    Complaint,
    ComplaintContended,
    ComplaintState,
    event_of,
)
from tongbao.infra.db import Tx, Write, write_all
from tongbao.infra.failpoints import failpoint
from tongbao.infra.outbox import event_write
from tongbao.infra.tasks import DEFAULT_POLICY, Again, Lease, RetryPolicy, Task, enqueue
from tongbao.kernel.clock import business_date
from tongbao.kernel.ids import UnknownId, new_id
from tongbao.kernel.licence import Mode
from tongbao.payments.collecting import queries as payments
from tongbao.payments.collecting.model import Payment
from tongbao.payments.collecting.outcomes import Flow
from tongbao.rails.channels.accounts import list_accounts
from tongbao.rails.channels.capabilities.complaints import (
    Complaining,
    ComplaintFound,
    ComplaintsListed,
)
from tongbao.rails.channels.contract.callbacks import Callback
from tongbao.rails.channels.contract.orders import ChannelAccount
from tongbao.rails.channels.contract.outcomes import Absent, Exchange

PULL_EVERY: Final = timedelta(hours=1)
PULL_POLICY: Final[RetryPolicy] = DEFAULT_POLICY
_LOOKS_BACK: Final = timedelta(days=29)
_TRIES_MAX: Final = 8
_OVERDUE: Final = Gauge(
    "tongbao_complaints_overdue", "Complaints nobody has answered by their deadline", ["mode"]
)
_log: Final = structlog.get_logger()


class PullComplaints(Task, frozen=True, tag="complaints.pull"):
    """Ask every channel that has complaints for those of the last days: news may be lost."""


async def seed(tx: Tx) -> None:
    """Start the hourly round, unless it is running."""
    await enqueue(tx, PullComplaints(), run_at=tx.now + PULL_EVERY, key="hourly")


async def take_complaint(flow: Flow, account: ChannelAccount, callback: Callback) -> bool:
    """Read the complaint that a channel's notice names; return whether it is about a payment here.

    Raises:
        ComplaintContended: also where the channel did not answer; the notice is believed again.
    """
    return await hear(flow, account, callback.number) is not None


async def run_pull_complaints(flow: Flow, _task: PullComplaints, _lease: Lease) -> Again:
    """Read every complaint of the last 29 days that the channels list, and come again.

    First those whose deadline has passed are counted, loudly.
    """
    await _count_overdue(flow)
    last = business_date(flow.db.clock.now())
    for row in await list_accounts(flow.db):
        if row.channel not in flow.channels:
            continue  # our bank is no channel of payments
        channel = flow.channels[row.channel]
        if not isinstance(channel, Complaining):
            continue
        account = await flow.account(row.id)
        listed = await channel.find_complaints(account, last - _LOOKS_BACK, last)
        if isinstance(listed.outcome, ComplaintsListed):
            for ref in listed.outcome.refs:
                await hear(flow, account, ref)
    return Again(PULL_EVERY)


async def _count_overdue(flow: Flow) -> None:
    for mode in Mode:
        count = await store.COUNT_OVERDUE.one(flow.db, flow.db.clock.now(), mode)
        _OVERDUE.labels(mode).set(count)
        if count:
            _log.warning("complaints_overdue", mode=mode, count=count)


async def hear(flow: Flow, account: ChannelAccount, ref: str) -> Complaint | None:
    """Read a complaint from its channel and write down how it stands; None: nothing of ours.

    Raises:
        ComplaintContended: the channel did not say, or others kept writing.
    """
    channel = flow.channels[account.channel]
    if not isinstance(channel, Complaining):
        return None
    answer = await channel.read_complaint(account, ref)
    failpoint("complaints.after_read")
    if isinstance(answer.outcome, Absent):
        return None
    if not isinstance(answer.outcome, ComplaintFound):
        raise ComplaintContended
    payment = await _payment_of(flow, account, answer.outcome)
    if payment is None:
        return None
    return await _record(flow, payment, account, answer.outcome, answer.exchange)


async def _record(
    flow: Flow,
    payment: Payment,
    account: ChannelAccount,
    found: ComplaintFound,
    exchange: Exchange,
) -> Complaint:
    for _ in range(_TRIES_MAX):
        now = flow.db.clock.now()
        before = await store.FIND_BY_REF.first(flow.db, payment.book, account.id, found.ref)
        after = _as_told(before, payment, account, found, now)
        if before is not None and replace(after, version=before.version) == before:
            said = await store.MESSAGES_OF.all(flow.db, before.book, before.id)
            if len(said) >= len(found.messages):
                return before  # heard before, word for word
        writes = (
            _row_write(before, after),
            *_message_writes(after, found),
            *image_writes(after, found, now),
            exchange_write(after, "read", exchange, "complaintfound", now),
            event_write(event_of(after, is_new=before is None), now=now),
        )
        failpoint("complaints.before_record")
        async with flow.db.begin(f"channel:{account.channel}") as tx:
            refusal = await write_all(tx, writes)
        failpoint("complaints.after_record")
        if refusal is None:
            flow.nudge()
            return after
    raise ComplaintContended


async def _payment_of(flow: Flow, account: ChannelAccount, found: ComplaintFound) -> Payment | None:
    try:
        attempt = await payments.attempt_by_number(flow.db, found.number)
    except UnknownId:
        return None
    if attempt is None or attempt.account_id != account.id:
        return None
    return await payments.payment(flow.db, attempt.book, attempt.payment_id)


def _as_told(
    before: Complaint | None,
    payment: Payment,
    account: ChannelAccount,
    found: ComplaintFound,
    now: datetime,
) -> Complaint:
    state = ComplaintState(found.state)
    is_over = state is ComplaintState.PROCESSED
    if before is None:
        return Complaint(
            book=payment.book,
            id=new_id(),
            merchant_id=payment.merchant_id,
            mode=payment.mode,
            account_id=account.id,
            channel=account.channel,
            channel_ref=found.ref,
            payment_id=payment.id,
            state=state,
            kind=found.kind,
            detail=found.detail,
            amount=found.money.amount,
            currency=found.money.currency,
            times=found.times,
            is_refunded=found.is_refunded,
            has_news=found.has_news,
            answer_by=now + ANSWER_WITHIN,
            complained_at=found.at,
            first_seen_at=now,
            ended_at=now if is_over else None,
            version=1,
        )
    return replace(
        before,
        state=state,
        detail=found.detail,
        times=found.times,
        is_refunded=found.is_refunded,
        has_news=found.has_news,
        answer_by=now + ANSWER_WITHIN if found.times > before.times else before.answer_by,
        ended_at=(before.ended_at or now) if is_over else None,
        version=before.version + 1,
    )


def _row_write(before: Complaint | None, after: Complaint) -> Write:
    if before is None:
        return Write(store.INSERT_COMPLAINT, msgspec.structs.astuple(after), refusal=MOVED_ON)
    args = (
        before.book,
        before.id,
        before.version,
        after.state,
        after.detail,
        after.times,
        after.is_refunded,
        after.has_news,
        after.answer_by,
        after.ended_at,
    )
    return Write(store.UPDATE_COMPLAINT, args, refusal=MOVED_ON)


def _message_writes(after: Complaint, found: ComplaintFound) -> list[Write]:
    return [
        Write(
            store.INSERT_MESSAGE,
            (after.book, after.id, m.ref, place, m.kind, m.who, m.text, m.image_count, m.at),
        )
        for place, m in enumerate(found.messages)
    ]


def exchange_write(
    complaint: Complaint, purpose: str, seen: Exchange, outcome: str, now: datetime
) -> Write:
    """Return the write that keeps a raw exchange about a complaint as evidence."""
    what = (seen.method, seen.url, seen.request, seen.status, seen.reply, seen.duration_ms)
    place = (complaint.book, new_id(), complaint.id, purpose)
    return Write(store.INSERT_EXCHANGE, (*place, *what, outcome, now))

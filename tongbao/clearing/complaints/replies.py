"""Say something to a customer through the channel, exactly once.

The channel has no key for it. So a sending is counted in a commit of its own before it leaves, and
nothing that was counted is said again before the channel's own history shows that it is not there.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final, Literal, assert_never
from uuid import UUID

import msgspec
from msgspec import Struct

from tongbao.clearing.complaints import _store as store
from tongbao.clearing.complaints.complaints import exchange_write, hear
from tongbao.clearing.complaints.images import attach_images, sent_up
from tongbao.clearing.complaints.model import (
    MOVED_ON,
    Complaint,
    ComplaintContended,
    ComplaintOver,
    ComplaintState,
    Reply,
    ReplyState,
    arrived,
)
from tongbao.infra.blobs.store import Blobs
from tongbao.infra.db import Tx, Write, write_all
from tongbao.infra.failpoints import failpoint
from tongbao.infra.tasks import Again, Lease, RetryPolicy, Task, enqueue
from tongbao.payments.collecting.outcomes import Flow
from tongbao.rails.channels.capabilities.complaints import Complaining, ReplySent
from tongbao.rails.channels.contract.orders import ChannelAccount
from tongbao.rails.channels.contract.outcomes import Declined, NotSent, Unknown

_DELAYS: Final = tuple(timedelta(seconds=s) for s in (5, 15, 60, 300, 900, 3600))
REPLY_POLICY: Final = RetryPolicy(attempts_max=30, delays=_DELAYS)


class SendReply(Task, frozen=True, tag="complaints.send_reply"):
    """Say something to a customer, and find out whether it arrived."""

    book: int
    reply_id: UUID


class Said(Struct, frozen=True):
    """What is to be said."""

    kind: Literal["reply", "complete"]
    text: str
    images: tuple[UUID, ...] = ()  # files that were handed in for the complaint


async def request_reply(tx: Tx, complaint: Complaint, said: Said, *, reply_id: UUID) -> Reply:
    """Write down what is to be said and have it sent.

    Raises:
        ComplaintOver, ImageNotSendable
    """
    if complaint.state is ComplaintState.PROCESSED:
        raise ComplaintOver
    reply = Reply(
        book=complaint.book,
        id=reply_id,
        complaint_id=complaint.id,
        merchant_id=complaint.merchant_id,
        mode=complaint.mode,
        kind=said.kind,
        text=said.text,
        state=ReplyState.REQUESTED,
        code=None,
        sends=0,
        sent_at=None,
        written_by=tx.actor,
        created_at=tx.now,
        ended_at=None,
        version=1,
    )
    await store.INSERT_REPLY.run(tx, *msgspec.structs.astuple(reply))
    await attach_images(tx, complaint, reply, said.images)
    await enqueue(tx, SendReply(reply.book, reply.id), key=f"reply/{reply.id}")
    return reply


async def run_send_reply(flow: Flow, blobs: Blobs, task: SendReply, _lease: Lease) -> Again | None:
    """Take the next step of a reply; return when to look again, or None at its end.

    Its pictures go up before the sending is counted: that may be done again at will.
    """
    reply = await store.GET_REPLY.one(flow.db, task.book, task.reply_id)
    if not reply.state.is_open:
        return None
    complaint = await store.GET_COMPLAINT.one(flow.db, reply.book, reply.complaint_id)
    account = await flow.account(complaint.account_id)
    if reply.sends > 0 and await _is_there(flow, account, complaint, reply):
        await _end(flow, reply, ReplyState.SENT, None)
        return None
    images = await sent_up(flow, blobs, account, complaint, reply)
    if images is None:
        return Again(_DELAYS[0])
    if isinstance(images, Declined) and reply.sends == 0:
        await _end(flow, reply, ReplyState.REFUSED, images.code)
        return None
    if isinstance(images, Declined):
        raise ComplaintContended  # it may have been said with it: people look
    reply = await _send(flow, account, complaint, reply, images)
    if reply.state.is_open:
        return Again(_DELAYS[min(reply.sends, len(_DELAYS)) - 1])
    return None


async def _is_there(
    flow: Flow, account: ChannelAccount, complaint: Complaint, reply: Reply
) -> bool:
    """Ask the channel whether what may have been said is in its history.

    Raises:
        ComplaintContended: the channel does not say, so nothing is said again.
    """
    if await hear(flow, account, complaint.channel_ref) is None:
        raise ComplaintContended
    failpoint("complaints.after_look")
    messages = await store.MESSAGES_OF.all(flow.db, complaint.book, complaint.id)
    replies = await store.REPLIES_OF.all(flow.db, complaint.book, complaint.id)
    return arrived(reply, replies, messages)


async def _send(
    flow: Flow, account: ChannelAccount, complaint: Complaint, reply: Reply, images: list[str]
) -> Reply:
    now = flow.db.clock.now()
    counted = await store.COUNT_SEND.run(flow.db, reply.book, reply.id, reply.version, now)
    if counted == 0:
        raise ComplaintContended
    channel = flow.channels[account.channel]
    if not isinstance(channel, Complaining):
        raise TypeError(f"{account.channel} takes no complaints")
    failpoint("complaints.before_call")
    if reply.kind == "reply":
        answer = await channel.reply_to_complaint(
            account, complaint.channel_ref, reply.text, images
        )
    else:
        answer = await channel.complete_complaint(account, complaint.channel_ref)
    failpoint("complaints.after_call")
    reply = await store.GET_REPLY.one(flow.db, reply.book, reply.id)
    outcome = type(answer.outcome).__name__.lower()
    kept = exchange_write(complaint, reply.kind, answer.exchange, outcome, flow.db.clock.now())
    match answer.outcome:
        case ReplySent():
            return await _end(flow, reply, ReplyState.SENT, None, kept)
        case Declined(code=code):
            # A refusal of the repeat need not speak of what was said first.
            state = ReplyState.REFUSED if reply.sends == 1 else ReplyState.UNKNOWN
            return await _end(flow, reply, state, code, kept)
        case NotSent() | Unknown():
            return await _end(flow, reply, ReplyState.UNKNOWN, None, kept)
        case _:
            assert_never(answer.outcome)


async def _end(
    flow: Flow, reply: Reply, state: ReplyState, code: str | None, *also: Write
) -> Reply:
    """Write down what became of a reply, unless somebody has."""
    ended_at = None if state.is_open else flow.db.clock.now()
    args = (reply.book, reply.id, reply.version, state, code and code[:64], ended_at)
    async with flow.db.begin("complaints") as tx:
        await write_all(tx, (Write(store.END_REPLY, args, refusal=MOVED_ON), *also))
    failpoint("complaints.after_outcome")
    return await store.GET_REPLY.one(flow.db, reply.book, reply.id)

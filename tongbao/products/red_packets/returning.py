"""Give back what nobody took of a red packet when its time is over, exactly once.

The task is enqueued in the commit that fills the red packet. Its posting's transfer has an id
derived from the red packet, and the row says in the same commit that it was returned: neither can
happen twice, whoever runs the task and however often.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from msgspec.structs import replace

from tongbao.infra.db import Write
from tongbao.infra.failpoints import failpoint
from tongbao.infra.outbox import event_write
from tongbao.infra.tasks import Again, Lease, RetryPolicy, Task
from tongbao.ledger.model import AccountKey
from tongbao.ledger.rules import posting
from tongbao.ledger.steps.commit import commit_together, in_one_transaction, is_committed
from tongbao.products.red_packets import _store as store
from tongbao.products.red_packets.hall import MOVED_ON, Hall, ended_event, pot_of
from tongbao.products.red_packets.model import RedPacket, RedPacketState

_SOON: Final = timedelta(seconds=1)
RETURN_POLICY: Final = RetryPolicy(
    attempts_max=20, delays=tuple(timedelta(seconds=s) for s in (1, 5, 30, 120, 600, 1800))
)


class ReturnRedPacket(Task, frozen=True, tag="red_packets.return"):
    """Give back what nobody took of a red packet, once its time is over."""

    book: int
    red_packet_id: UUID


def return_key(red_packet_id: UUID) -> str:
    """Return the key of the task that ends a red packet."""
    return f"red_packet/{red_packet_id}"


async def return_red_packet(hall: Hall, task: ReturnRedPacket, _lease: Lease) -> Again | None:
    """Give the rest back; return when to look again, or None at the end.

    A grab that is being decided at this moment may change what is left: then it is looked at anew.
    """
    packet = await store.GET_PACKET.first(hall.db, task.book, task.red_packet_id)
    if packet is None or packet.state is not RedPacketState.OPEN:
        return None  # emptied, or returned by a run whose worker died afterwards
    now = hall.db.clock.now()
    if now < packet.expires_at:
        return Again(packet.expires_at - now)
    wallet = AccountKey("wallet", packet.currency, packet.sender_id)
    transfers = posting.transfers(
        "red_packet.returned",
        reference=packet.id,
        accounts={"subsidy": pot_of(packet), "sender": wallet},
        amounts={"amount": packet.left},
    )
    alone = in_one_transaction(hall.db, "red_packets")
    failpoint("red_packets.before_return")
    refused = await commit_together(
        hall.ledger, alone, packet.book, transfers, _ending(packet, now)
    )
    failpoint("red_packets.after_return")
    return None if is_committed(refused, {MOVED_ON}, packet.id) else Again(_SOON)


def _ending(packet: RedPacket, now: datetime) -> tuple[Write, ...]:
    after = replace(
        packet, state=RedPacketState.RETURNED, returned=packet.left.amount, ended_at=now
    )
    args = (packet.book, packet.id, packet.grabbed, now)
    return (
        Write(store.RETURN, args, refusal=MOVED_ON),
        event_write(ended_event(after), now=now),
    )

"""Send a message to a person: written with the fact that asks for it, sent by a task.

    waiting ──taken──► sent          ──will not──► refused (and what was to go instead waits)
       └── too old to be of use ───► given_up

A message may arrive twice when nobody knows whether it left; its gateway is given the same number
again. Nothing of it is logged.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Final
from uuid import UUID

import msgspec
from msgspec import structs

from tongbao.infra.crypto import Keyring, bind
from tongbao.infra.db import Db, Tx
from tongbao.infra.failpoints import failpoint
from tongbao.infra.notify import _store as store
from tongbao.infra.notify.model import (
    Gateway,
    Handed,
    Message,
    Notification,
    NotTaken,
    Taken,
    Unclear,
)
from tongbao.infra.tasks import Again, Lease, RetryPolicy, Task, enqueue
from tongbao.kernel.ids import base32, new_id
from tongbao.kernel.licence import Mode

USEFUL_FOR: Final = timedelta(minutes=10)
"""A code is dead by then, and a notice that late only alarms."""
KEPT: Final = timedelta(days=180)
"""How long is kept that somebody was sent something; the text itself goes at once."""
_AGAIN: Final = timedelta(seconds=5)
_SEALED: Final = "notification.text"
SEND_POLICY: Final = RetryPolicy(
    attempts_max=30, delays=(timedelta(seconds=1), timedelta(seconds=5), timedelta(seconds=20))
)

Gateways = Mapping[Mode, Gateway | None]
"""Who carries the messages of each mode; None where nobody does."""


class SendNotification(Task, frozen=True, tag="notify.send"):
    """Hand one message to its gateway."""

    notification_id: UUID


async def queue_message(
    tx: Tx,
    keyring: Keyring,
    message: Message,
    *,
    mode: Mode,
    purpose: str,
    subject: UUID | None = None,
    instead: Message | None = None,
) -> UUID:
    """Have a message sent once this transaction commits, and return its id.

    ``subject`` is the person it is about, who may ask for everything that is kept of them;
    ``instead`` is sent where a gateway does not take the message.
    """
    made = new_id()
    handed = Handed(**structs.asdict(message), instead=instead)
    sealed = keyring.seal(_SEALED, msgspec.json.encode(handed), _place(made))
    await store.INSERT.run(tx, made, mode, message.kind, purpose, subject, sealed, tx.now)
    await enqueue(tx, SendNotification(made))
    return made


async def run_send_notification(
    db: Db, keyring: Keyring, gateways: Gateways, task: SendNotification, lease: Lease
) -> Again | None:
    """Send one message, or try again in a moment; one that is too old is given up."""
    found = await store.GET.first(db, task.notification_id)
    if found is None or found.sealed is None:
        return None
    if db.clock.now() - found.created_at > USEFUL_FOR:
        await _end(db, lease, found.id, "given_up", None)
        return None
    gateway = gateways.get(found.mode)
    if gateway is None:
        await _end(db, lease, found.id, "refused", "no_gateway")
        return None
    opened = keyring.open(_SEALED, found.sealed, _place(found.id))
    message = msgspec.json.decode(opened, type=Handed)
    failpoint("notify.before_send")
    answer = await gateway.send(base32(found.id), message)
    failpoint("notify.after_send")
    match answer:
        case Taken(reference):
            await _end(db, lease, found.id, "sent", reference)
        case NotTaken(reason):
            await _refused(db, keyring, lease, found, reason=reason, instead=message.instead)
        case Unclear():
            return Again(_AGAIN)
    return None


async def notifications_of(on: Db | Tx, subject: UUID) -> list[Notification]:
    """Return what somebody was sent, without the texts, which nobody keeps."""
    return await store.OF_SUBJECT.all(on, subject)


async def forget_notifications(tx: Tx, subject: UUID) -> int:
    """Forget that somebody was ever sent anything, and return how often that was."""
    return await store.FORGET_SUBJECT.run(tx, subject)


async def prune_notifications(db: Db) -> None:
    """Forget what was sent long ago."""
    await store.PRUNE.run(db, db.clock.now() - KEPT)


async def _end(db: Db, lease: Lease, sent: UUID, state: str, reference: str | None) -> None:
    async with db.begin("notify") as tx:
        await lease.hold(tx)
        await store.END.run(tx, sent, state, reference and reference[:128], tx.now)


async def _refused(
    db: Db,
    keyring: Keyring,
    lease: Lease,
    found: Notification,
    *,
    reason: str,
    instead: Message | None,
) -> None:
    """End a message that is not taken and have the other one sent, in one commit."""
    async with db.begin("notify") as tx:
        await lease.hold(tx)
        ended = await store.END.run(tx, found.id, "refused", reason[:128], tx.now)
        if ended and instead is not None:
            await queue_message(
                tx,
                keyring,
                instead,
                mode=found.mode,
                purpose=found.purpose,
                subject=found.subject,
            )


def _place(notification_id: UUID) -> bytes:
    return bind("notification", "sealed", notification_id)

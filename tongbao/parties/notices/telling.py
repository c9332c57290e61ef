"""Tell people: a task that comes with the fact writes the messages, once, and they are sent.

phones with a token ──► push to each; where the newest one's is not taken, an SMS instead
no such phone       ──► an SMS, or a mail where there is no number
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from tongbao.infra.crypto import Keyring
from tongbao.infra.db import Db, Tx, Write
from tongbao.infra.failpoints import failpoint
from tongbao.infra.notify.model import Kind, Message
from tongbao.infra.notify.sending import queue_message
from tongbao.infra.tasks import Lease, RetryPolicy, task_write
from tongbao.parties.notices.model import TEXTS, TITLES, Notice, Reached, TellPerson
from tongbao.parties.notices.phones import opened, tokens_of, wants

TELL_POLICY: Final = RetryPolicy(
    attempts_max=50, delays=tuple(timedelta(seconds=s) for s in (1, 5, 20, 60))
)

Reach = Callable[[Tx, Keyring, UUID], Awaitable[Reached | None]]
"""Returns how somebody is reached, their row held until the commit; None: there is nobody."""


async def run_tell(db: Db, keyring: Keyring, reach: Reach, task: TellPerson, lease: Lease) -> None:
    """Write the messages of one notice, in the commit that ends the task."""
    async with db.begin("notices") as tx:
        await tell(tx, keyring, await reach(tx, keyring, task.person_id), task)
        await lease.finish(tx)
        failpoint("notices.before_commit")


async def tell(tx: Tx, keyring: Keyring, reached: Reached | None, task: TellPerson) -> None:
    """Write the messages of a notice at once, for who is reached as they are now."""
    if reached is None or not await wants(tx, task.person_id, task.notice.topic):
        return
    for message, instead in await _messages(tx, reached, task):
        await queue_message(
            tx,
            keyring,
            message,
            mode=reached.mode,
            purpose=f"notice.{task.notice}",
            subject=task.person_id,
            instead=instead,
        )


def money_moved(
    person_id: UUID, change: int, now: datetime, *, payee: UUID | None = None
) -> list[Write]:
    """Return the writes that have somebody told that money came in (above zero) or went out.

    ``payee`` is who has it now, if that is another person of ours.
    """
    told = {person_id: Notice.MONEY_IN if change > 0 else Notice.MONEY_OUT}
    if payee is not None and payee != person_id:
        told[payee] = Notice.MONEY_IN
    return [task_write(TellPerson(each, what), run_at=now) for each, what in told.items()]


async def _messages(
    tx: Tx, reached: Reached, task: TellPerson
) -> list[tuple[Message, Message | None]]:
    """Return what is sent, each with what goes in its place where it is not taken."""
    language = reached.language
    words = (TITLES[language], TEXTS[task.notice][language], language)
    letter = next((Message(each.kind, each.to, *words) for each in reached.addresses), None)
    rows = [row for row in await tokens_of(tx, task.person_id) if row.device_id != task.spared]
    pushes = [Message(Kind.PUSH, opened(reached.own, row), *words) for row in rows]
    if not pushes:
        return [] if letter is None else [(letter, None)]
    newest, *others = pushes
    return [(newest, letter), *((each, None) for each in others)]

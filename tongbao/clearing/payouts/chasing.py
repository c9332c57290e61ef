"""Miss a bank's answer: a file that was sent and not answered in time is called overdue, loudly.

    sent ─► overdue ─► answered

Nothing is paid again for it: only the bank's word about a payout, brought in a file, ends that
payout, and until then its money stays settled and on its way. People ask the bank.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, time, timedelta
from typing import Final
from uuid import UUID

import structlog
from prometheus_client import Gauge

from tongbao.clearing.context import Clearing
from tongbao.clearing.payouts import _store as store
from tongbao.controls.calendar.queries import load_calendar
from tongbao.infra import audit
from tongbao.infra.db import Db, Tx
from tongbao.infra.failpoints import failpoint
from tongbao.infra.tasks import Again, Lease, RetryPolicy, Task, enqueue
from tongbao.kernel.clock import BUSINESS_ZONE, business_date
from tongbao.kernel.ids import show

ANSWER_WORKING_DAYS: Final = 1
"""A bank's portal answers on the day or the next working day. Our own rule."""
LOOK_AT: Final = time(18)
FILE_POLICY: Final = RetryPolicy(attempts_max=1_000, delays=(timedelta(minutes=10),))
_ACTOR: Final = "payouts"
_OVERDUE: Final = Gauge(
    "tongbao_payout_files_overdue", "Files of payouts that a bank has not answered in time"
)
_log: Final = structlog.get_logger()


class ChaseFile(Task, frozen=True, tag="payouts.chase_file"):
    """Look whether a bank has answered a file in time, and say so until it has."""

    file_id: UUID


async def expect_answer(tx: Tx, file_id: UUID) -> None:
    """Have somebody look, when the bank's time is over, whether a sent file was answered."""
    due = await answer_due(tx, business_date(tx.now))
    await enqueue(tx, ChaseFile(file_id), run_at=due, key=str(file_id))


async def answer_due(on: Db | Tx, sent_on: date) -> datetime:
    """Return until when a file that was sent on a day is to be answered."""
    due = (await load_calendar(on)).nth_working_day_after(sent_on, ANSWER_WORKING_DAYS)
    return datetime.combine(due, LOOK_AT, BUSINESS_ZONE)


async def run_chase_file(context: Clearing, task: ChaseFile, _lease: Lease) -> Again | None:
    """Call a file overdue while any payout of it is open, once a working day, and count them."""
    db = context.db
    file = await store.GET_FILE.first(db, task.file_id)
    if file is None or file.state not in {"sent", "overdue"}:
        _OVERDUE.set(await store.COUNT_OVERDUE.one(db))
        return None
    if await files_open(db, [file.id]):
        failpoint("payouts.before_overdue")
        async with db.begin(_ACTOR) as tx:
            if await store.MISS_FILE.run(tx, file.id):
                facts = {"count": file.count, "sent_by": file.sent_by}
                await audit.record(tx, "payouts.file_overdue", show("pyf", file.id), facts)
        _log.error("payout_file_unanswered", file=show("pyf", file.id), count=file.count)
    else:
        await store.ANSWER_FILE.run(db, [file.id])  # two answers at once left it to us
    _OVERDUE.set(await store.COUNT_OVERDUE.one(db))
    now = db.clock.now()
    return Again(await answer_due(db, business_date(now)) - now)


async def files_open(on: Db | Tx, file_ids: Sequence[UUID]) -> set[UUID]:
    """Return those of the files of which the bank has not ended every payout."""
    return set(await store.OPEN_FILES.all(on, list(file_ids)))

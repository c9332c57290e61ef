"""What becomes of the runs of tasks: how it is written down, and what is told of a failure.

A failure is told so that it can be found, and without anything that it may quote.
"""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, Literal
from uuid import UUID

from msgspec import Struct

from tongbao.infra import _task_store as store
from tongbao.infra._task_store import TaskRow
from tongbao.infra.db import Tx
from tongbao.kernel.errors import Refusal

_REASON_MAX: Final = 500
_LAST_MOMENT: Final = datetime(9999, 1, 1, tzinfo=UTC)

Verdict = Literal["done", "again", "busy", "retry", "dead", "given_back", "lost"]


class Ended(Struct, frozen=True):
    """What became of one run, to be written down with the others of its round."""

    row: TaskRow
    verdict: Verdict
    run_at: datetime
    failures: int = 0
    reason: str | None = None


async def write_down(tx: Tx, ended: Sequence[Ended]) -> None:
    """Write down what became of these runs; of one whose task is gone nothing is written."""

    def of(*verdicts: Verdict) -> list[Ended]:
        return [end for end in ended if end.verdict in verdicts]

    if done := of("done"):
        await store.DELETE_DONE.run(tx, *_keys(done))
    if again := of("again", "busy", "retry"):
        whens, counts = [end.run_at for end in again], [end.failures for end in again]
        reasons = [end.reason for end in again]
        await store.RESCHEDULE.run(tx, *_keys(again), whens, counts, reasons)
    if back := of("given_back"):
        await store.GIVE_BACK.run(tx, *_keys(back))
    if dead := of("dead"):
        await store.BURY.run(tx, *_keys(dead), [end.reason for end in dead], tx.now)


def _keys(ended: Sequence[Ended]) -> tuple[list[UUID], list[int]]:
    return [end.row.id for end in ended], [end.row.attempt for end in ended]


def reason_of(failure: BaseException) -> str:
    """Name a failure without its message, which may quote anything; a refusal's text is safe."""
    if isinstance(failure, Refusal):
        return str(failure)
    where = traceback.extract_tb(failure.__traceback__)
    place = f" at {_place(where[-1])}" if where else ""
    return f"{type(failure).__module__}.{type(failure).__qualname__}{place}"


def storable(reason: str) -> str:
    """Return a reason as the database takes it: a refusal's facts may quote any bytes."""
    text = reason[:_REASON_MAX].replace("\0", "\ufffd")
    return text.encode(errors="replace").decode()


def frames_of(failure: BaseException) -> list[str]:
    """Return the places it came through, the last one last."""
    return [_place(frame) for frame in traceback.extract_tb(failure.__traceback__)[-6:]]


def _place(frame: traceback.FrameSummary) -> str:
    """Return file, line and function, without the folders of this machine."""
    return f"{'/'.join(frame.filename.split('/')[-3:])}:{frame.lineno} {frame.name}"


def later(now: datetime, after: timedelta) -> datetime:
    """Return a moment from now, or the last one there is: what is asked for may be absurd."""
    try:
        return now + after
    except OverflowError:
        return _LAST_MOMENT

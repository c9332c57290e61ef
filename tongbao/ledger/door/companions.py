"""Companion writes of many groups in one commit: as sets, and exactly as if one by one.

Groups whose companions are the same statements run together, each statement once for all of them.
When less took effect than was asked, the half that failed is undone and halved again, until the
groups stand alone whose companion refused, waits for a lock, or is a bug; the others are in effect.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from tongbao.infra.db import DatabaseRefused, LockNotFree, Tx, ValueOutOfRange, Write
from tongbao.ledger.door import _store as store

Work = Sequence[tuple[int, Sequence[Write]]]
"""The companions of each group that has any, with the group's place in the batch."""


class Refused(Struct, frozen=True):
    """A companion that must touch a row touched none."""

    code: str


class Waiting(Struct, frozen=True):
    """A companion waits for a lock that somebody else keeps."""


class Failed(Struct, frozen=True):
    """The database takes a companion for a bug; only its own caller hears of it."""

    error: Exception


Verdict = Refused | Waiting | Failed


class _TouchedTooFew(Exception):
    """Undo a set: not every write of it took effect."""


class _CompanionRefused(Exception):
    """Undo one group, carrying the code of its write that touched no row."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


_FAILURES: Final = (
    LockNotFree,
    DatabaseRefused,
    ValueOutOfRange,
    _TouchedTooFew,
    _CompanionRefused,
)


class NotAll(Exception):
    """Not every companion took effect; the transaction is spoilt."""


async def run_whole(tx: Tx, work: Work) -> None:
    """Run every group's companions, for a transaction that ends where one of them cannot be run.

    Four round trips fewer than `run_companions`, which says which of them it was.

    Raises:
        NotAll
    """
    await store.SHORT_LOCKS.run(tx)
    try:
        for together in _alike(work):
            await (_run_alone(tx, together[0][1]) if len(together) == 1 else _run_set(tx, together))
    except _FAILURES as why:
        raise NotAll from why
    await store.USUAL_LOCKS.run(tx)


async def run_companions(tx: Tx, work: Work) -> dict[int, Verdict]:
    """Run every group's companions and return those that could not; the rest are in effect.

    Sets of the same statements may change places with each other; groups that stand alone, for
    want of a form for many rows, keep their order.
    """
    verdicts: dict[int, Verdict] = {}
    await store.SHORT_LOCKS.run(tx)
    for together in _alike(work):
        verdicts |= await _run(tx, together)
    await store.USUAL_LOCKS.run(tx)
    return verdicts


def _alike(work: Work) -> list[Work]:
    """Put the groups together that can run as a set; every other one stands alone."""
    sets: dict[tuple[int, ...], list[tuple[int, Sequence[Write]]]] = {}
    for place, writes in work:
        shape = tuple(id(write.statement) for write in writes)
        if not all(_goes_in_a_set(write) for write in writes):
            shape = (-1 - place,)
        sets.setdefault(shape, []).append((place, writes))
    return list(sets.values())


def _goes_in_a_set(write: Write) -> bool:
    return write.statement.many is not None or write.refusal is None


async def _run(tx: Tx, work: Work) -> dict[int, Verdict]:
    """Run these groups, halving them where they cannot all be run."""
    try:
        async with tx.savepoint():
            await (_run_alone(tx, work[0][1]) if len(work) == 1 else _run_set(tx, work))
    except _FAILURES as why:
        if isinstance(why, LockNotFree):
            await store.SHORTEST_LOCKS.run(tx)  # everybody else waits for this one
        if len(work) == 1:
            return {work[0][0]: _verdict(why)}
        middle = len(work) // 2
        return await _run(tx, work[:middle]) | await _run(tx, work[middle:])
    return {}


def _verdict(why: Exception) -> Verdict:
    if isinstance(why, _CompanionRefused):
        return Refused(why.code)
    return Waiting() if isinstance(why, LockNotFree) else Failed(why)


async def _run_alone(tx: Tx, writes: Sequence[Write]) -> None:
    for write in writes:
        if await write.run(tx) == 0 and write.refusal is not None:
            raise _CompanionRefused(write.refusal)


async def _run_set(tx: Tx, work: Work) -> None:
    for step, first in enumerate(work[0][1]):
        rows = [writes[step].args for _, writes in work]
        if first.statement.many is None:
            await first.statement.run_many(tx, rows)
            continue
        touched = await first.statement.run_set(tx, rows)
        if touched < len(rows) and any(writes[step].refusal is not None for _, writes in work):
            raise _TouchedTooFew

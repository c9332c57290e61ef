"""Companion writes of many groups in one commit: as sets, and exactly as if one by one.

Groups whose companions are the same statements run together, each statement once for all of them.
When less took effect than was asked, the half that failed is undone and halved again, until the
groups stand alone whose companion refused, waits for a lock, or is a bug; the others are in effect.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from tongbao.infra.copy_rows import Append
from tongbao.infra.db import Tx, Write
from tongbao.infra.db_failures import DatabaseRefused, LockNotFree, ValueOutOfRange
from tongbao.infra.joined import Shape, arguments, joined, stretches
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


class Hopeful:
    """The companions of a commit that ends where one of them cannot be run, in two parts.

    What each set begins by appending comes first: it waits for nobody but the holder of the same
    key, so it can be written while the commit before is still under way. The rest changes rows, and
    has to wait for whoever has changed them, and is one statement where it can be joined. That is
    fewer round trips than `run_companions`, which says which companion it was.
    """

    def __init__(self, work: Work) -> None:
        self._sets = [(together, _appends(together[0][1])) for together in _alike(work)]

    @property
    def appends(self) -> int:
        """How many rows the first part has."""
        return sum(len(together) * first for together, first in self._sets)

    async def append(self, tx: Tx) -> None:
        """Write the first part.

        Raises:
            NotAll
        """
        await store.SHORT_LOCKS.run(tx)
        for together, first in self._sets:
            await self._run(tx, together, range(first))

    async def change(self, tx: Tx) -> None:
        """Write the rest.

        Raises:
            NotAll
        """
        for together, first in self._sets:
            for steps in stretches(_shape(together, range(first, len(together[0][1])))):
                here = range(first + steps.start, first + steps.stop)
                if len(here) == 1:
                    await self._run(tx, together, here)
                    continue
                try:
                    await tx.fetch(*_joined(together, here))
                except _FAILURES as why:
                    raise NotAll from why
        await store.USUAL_LOCKS.run(tx)

    async def _run(self, tx: Tx, together: Work, steps: range) -> None:
        try:
            if len(together) == 1:
                await _run_alone(tx, together[0][1][steps.start : steps.stop])
            else:
                await _run_set(tx, together, steps)
        except _FAILURES as why:
            raise NotAll from why


def _shape(together: Work, steps: range) -> Shape:
    """Return what is to be run in these steps."""
    return tuple(
        [
            (
                together[0][1][step].statement,
                any(writes[step].refusal is not None for _, writes in together),
            )
            for step in steps
        ]
    )


def _joined(together: Work, steps: range) -> tuple[str, list[object]]:
    """Return these steps of the groups as one statement, with its arguments."""
    one = joined(_shape(together, steps))
    if one is None:
        raise TypeError("these are not for one statement")
    return one, arguments([[writes[step].args for _, writes in together] for step in steps])


def _appends(writes: Sequence[Write]) -> int:
    """Return how many of a group's companions only append rows before the first that does more."""
    places = (at for at, write in enumerate(writes) if not isinstance(write.statement, Append))
    return next(places, len(writes))


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
            if len(work) == 1:
                await _run_alone(tx, work[0][1])
            else:
                await _run_set(tx, work, range(len(work[0][1])))
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


async def _run_set(tx: Tx, work: Work, steps: range) -> None:
    for step in steps:
        first = work[0][1][step]
        rows = [writes[step].args for _, writes in work]
        if first.statement.many is None:
            await first.statement.run_many(tx, rows)
            continue
        touched = await first.statement.run_set(tx, rows)
        if touched < len(rows) and any(writes[step].refusal is not None for _, writes in work):
            raise _TouchedTooFew

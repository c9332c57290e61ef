"""What callers hand to a book's lane, and how many calls become one batch."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Final, overload

import numpy as np

from tongbao.infra.db import Write
from tongbao.kernel.clock import monotonic
from tongbao.ledger.decision.records import (
    COMPANION_REFUSED,
    CREATED,
    REFUSALS,
    Batch,
    Codes,
    code_of,
)
from tongbao.ledger.model import Group, GroupDiffers, GroupInFlight, Result

_NUMBER_OF: Final = {
    "ledger.exists_different_amount": code_of(GroupDiffers),
    "ledger.exists_different_accounts": code_of(GroupDiffers),
    "ledger.exists_different_code": code_of(GroupDiffers),
    "ledger.exists_different_order": code_of(GroupDiffers),
    **{refusal.code: code_of(refusal) for refusal in REFUSALS},
}


class AllCreated(Sequence[Result]):
    """The results of groups that are all created; made one by one only for who looks at them."""

    def __init__(self, seqs: list[int]) -> None:
        self._seqs = seqs

    def __len__(self) -> int:
        return len(self._seqs)

    @overload
    def __getitem__(self, place: int) -> Result: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[Result]: ...

    def __getitem__(self, place: int | slice) -> Result | Sequence[Result]:
        if isinstance(place, slice):
            return AllCreated(self._seqs[place])
        return Result("created", seq=self._seqs[place] or None)


class Call:
    """One caller's groups, as they are or as columns, and where the answer goes."""

    __slots__ = (
        "answer",
        "batch",
        "begun",
        "deadline",
        "failures",
        "groups",
        "of_many",
        "transfers",
        "writes",
    )

    def __init__(
        self,
        answer: asyncio.Future[Sequence[Result]],
        deadline: float,
        *,
        groups: Sequence[Group] = (),
        batch: Batch | None = None,
        writes: Sequence[Sequence[Write]] = (),
        of_many: bool = False,
    ) -> None:
        """``of_many`` keeps the failure of a group to itself: the groups are of several callers."""
        self.answer = answer
        self.deadline = deadline
        self.groups = groups
        self.batch = batch
        self.writes = writes
        self.begun = False
        self.of_many = of_many
        self.failures: dict[int, Exception] = {}
        count = sum(len(each.transfers) for each in groups)
        self.transfers = max(1, count if batch is None else len(batch.records))

    def again(self, answer: asyncio.Future[Sequence[Result]]) -> Call:
        """Return the same call, to be answered elsewhere."""
        return Call(answer, self.deadline, groups=self.groups, batch=self.batch, writes=self.writes)

    def __len__(self) -> int:
        return len(self.groups) if self.batch is None else len(self.batch.ids)

    def companions(self) -> Sequence[Sequence[Write]]:
        """Return the writes of each group; nothing at all when no group has any."""
        if self.batch is not None:
            return self.writes
        return [each.companions for each in self.groups]


def codes_of(results: Sequence[Result]) -> Codes:
    """Return results as the numbers that columns have for them."""
    if isinstance(results, AllCreated):
        return np.zeros(len(results), np.int16)
    return np.fromiter(map(_code_number, results), np.int16, len(results))


def _code_number(result: Result) -> int:
    if result.happened:
        return CREATED
    return _NUMBER_OF.get(result.code or "", COMPANION_REFUSED)


def alone(batch: Batch, place: int) -> Batch:
    """Return one group of a batch as a batch."""
    first, last = batch.starts[place : place + 2].tolist()
    return Batch(
        records=batch.records[first:last],
        starts=np.array([0, last - first], np.int64),
        ids=batch.ids[place : place + 1],
        refused=batch.refused[place : place + 1],
    )


def joined(batches: Sequence[Batch]) -> Batch:
    """Return the groups of several batches as one, in order."""
    starts = [np.zeros(1, np.int64)]
    for batch in batches:
        starts.append(batch.starts[1:] + starts[-1][-1])
    return Batch(
        records=np.concatenate([batch.records for batch in batches]),
        starts=np.concatenate(starts),
        ids=np.concatenate([batch.ids for batch in batches]),
        refused=np.concatenate([batch.refused for batch in batches]),
    )


def those_in_time(calls: Iterable[Call], failure: Exception | None) -> list[Call]:
    """Return who still waits; tell the others that nothing was decided, or the failure."""
    now = monotonic()
    late = [call for call in calls if now >= call.deadline]
    if failure is None:
        answer_in_flight(late)
    else:
        fail(late, failure)
    return [call for call in calls if now < call.deadline]


def answer_in_flight(calls: Iterable[Call]) -> None:
    """Say for certain that nothing was decided."""
    for call in calls:
        if not call.answer.done():
            call.answer.set_result([Result("in_flight", GroupInFlight.code)] * len(call))


def fail(calls: Iterable[Call], failure: BaseException) -> None:
    """Tell who still waits that this went wrong."""
    for call in calls:
        if not call.answer.done():
            call.answer.set_exception(failure)

"""Where the transfers of a commit lie in the journal: stretches of ids that hold few others.

An id keeps the time its payment was made, not that of the commit. A code that is paid half an hour
after it was shown lies half an hour before its neighbours, and whoever read from the lowest id of
the commit to the highest would read all that happened in between.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final
from uuid import UUID

import numpy as np

from tongbao.ledger.decision.records import Records
from tongbao.ledger.model import SPAN_GAP_MS

_BELOW_TIME: Final = 16
"""The bits of an id's first half after its 48 of milliseconds."""


def spans_of(ids: Records) -> Records:
    """Return the lowest and highest id of every stretch, one after the other, ascending.

    ``ids`` is one contiguous column, in any order. A stretch ends where the next id is more than
    `SPAN_GAP_MS` later.
    """
    if not len(ids):
        return ids
    halves = ids.view(">u8").astype(np.uint64).reshape(-1, 2)
    order = np.lexsort((halves[:, 1], halves[:, 0]))
    times = halves[order, 0] >> np.uint64(_BELOW_TIME)
    gaps = (times[1:] - times[:-1] > SPAN_GAP_MS).nonzero()[0]
    ends = np.empty(2 * len(gaps) + 2, np.int64)
    ends[0], ends[-1] = 0, len(ids) - 1
    ends[1:-1:2], ends[2:-1:2] = gaps, gaps + 1
    spans: Records = ids[order[ends]]
    return spans


def merged(spans: Iterable[Sequence[UUID]]) -> tuple[list[UUID], list[UUID]]:
    """Return the lows and the highs of the stretches of several commits, ascending and disjoint.

    Stretches that overlap become one, so that no row is read twice.
    """
    lows: list[UUID] = []
    highs: list[UUID] = []
    for low, high in sorted(
        pair for each in spans for pair in zip(each[::2], each[1::2], strict=False)
    ):
        if highs and low <= highs[-1]:
            highs[-1] = max(highs[-1], high)
        else:
            lows.append(low)
            highs.append(high)
    return lows, highs

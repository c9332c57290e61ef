"""The stretches of a commit's ids have all of them, hold no gap, and merge without overlap."""

from __future__ import annotations

from uuid import UUID

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tongbao.kernel.ids import new_id
from tongbao.ledger.decision.spans import merged, spans_of
from tongbao.ledger.model import SPAN_GAP_MS

TIMES = st.integers(0, 20 * SPAN_GAP_MS)
IDS = st.builds(
    lambda time, tail: UUID(int=time << 80 | tail), TIMES, st.integers(0, (1 << 80) - 1)
)


def spans(ids):
    column = np.frombuffer(b"".join(each.bytes for each in ids), "V16")
    return [UUID(bytes=each) for each in spans_of(column).tolist()]


def time_of(id_):
    return id_.int >> 80


@given(st.lists(IDS, unique=True, max_size=30))
def test_a_stretch_ends_where_the_next_id_is_later_by_more_than_the_gap(ids):
    stretches: list[list[UUID]] = []
    for each in sorted(ids):
        if stretches and time_of(each) - time_of(stretches[-1][-1]) <= SPAN_GAP_MS:
            stretches[-1].append(each)
        else:
            stretches.append([each])
    assert spans(ids) == [end for each in stretches for end in (each[0], each[-1])]


def test_the_gap_itself_is_no_gap():
    first, near, far = (UUID(int=ms << 80) for ms in (5, 5 + SPAN_GAP_MS, 6 + SPAN_GAP_MS))
    assert spans([near, first]) == [first, near]
    assert spans([first, far]) == [first, first, far, far]


def test_fresh_ids_are_one_stretch():
    ids = [new_id() for _ in range(1000)]
    assert spans(reversed(ids)) == [ids[0], ids[-1]]


@given(st.lists(st.lists(IDS, unique=True, max_size=6), max_size=6))
def test_merged_stretches_are_disjoint_and_have_what_each_had(commits):
    lows, highs = merged([spans(ids) for ids in commits])
    pairs = list(zip(lows, highs, strict=True))
    assert all(low <= high for low, high in pairs)
    assert all(high < low for high, low in zip(highs[:-1], lows[1:], strict=True))
    for ids in commits:
        assert all(any(low <= each <= high for low, high in pairs) for each in ids)


@given(st.lists(st.lists(IDS, unique=True, min_size=1, max_size=6), max_size=6))
def test_merged_stretches_begin_and_end_with_ids_of_the_commits(commits):
    """Nothing is added at their ends, and those that do not overlap stay apart."""
    own = [spans(ids) for ids in commits]
    lows, highs = merged(own)
    assert set(lows) | set(highs) <= {end for each in own for end in each}
    apart = merged([[UUID(int=1), UUID(int=2)], [UUID(int=3), UUID(int=4)]])
    assert apart == ([UUID(int=1), UUID(int=3)], [UUID(int=2), UUID(int=4)])

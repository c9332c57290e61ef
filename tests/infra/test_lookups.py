"""Questions asked together: one query for all that came meanwhile, and nobody's answer is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from tongbao.infra import lookups
from tongbao.infra.lookups import Lookups, Remembered, Together


class Source:
    """Doubles even numbers, does not know odd ones, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []
        self.failure: Exception | None = None

    async def find(self, keys: Sequence[int]) -> dict[int, int]:
        self.asked.append(sorted(keys))
        await asyncio.sleep(0.01)
        if self.failure is not None:
            raise self.failure
        return {key: key * 2 for key in keys if key % 2 == 0}


@pytest.fixture
def source() -> Source:
    return Source()


async def test_what_is_asked_at_once_is_one_question(source: Source) -> None:
    asking = Lookups(source.find)

    answers = await asyncio.gather(*[asking.get(key) for key in (1, 2, 2, 4)])

    assert answers == [None, 4, 4, 8]
    assert source.asked == [[1, 2, 4]]


async def test_what_comes_meanwhile_is_the_next_question(source: Source) -> None:
    asking = Lookups(source.find)
    first = asking.get(2)
    for _ in range(3):
        await asyncio.sleep(0)
    assert source.asked == [[2]]

    later = [asking.get(key) for key in (4, 6)]

    assert (await first, await later[0], await later[1]) == (4, 8, 12)
    assert source.asked == [[2], [4, 6]]
    assert await asking.get(8) == 16, "and a question after all that is asked as well"


async def test_a_question_has_a_greatest_length(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookups, "SET_MAX", 3)
    asking = Lookups(source.find)

    answers = await asyncio.gather(*[asking.get(key) for key in range(0, 14, 2)])

    assert answers == list(range(0, 28, 4))
    assert [len(each) for each in source.asked] == [3, 3, 1]


async def test_a_failure_is_told_to_everybody_who_waits_and_to_nobody_else(source: Source) -> None:
    asking = Lookups(source.find)
    source.failure = RuntimeError("gone")

    failed = await asyncio.gather(asking.get(2), asking.get(4), return_exceptions=True)
    source.failure = None

    assert failed == [source_failure := failed[0], source_failure]
    assert str(source_failure) == "gone"
    assert await asking.get(2) == 4


async def test_who_leaves_keeps_nobody_from_an_answer(source: Source) -> None:
    asking = Lookups(source.find)
    leaving, staying = asking.get(2), asking.get(2)

    leaving.cancel()

    assert await staying == 4


async def test_an_answer_stands_for_its_time(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(lookups, "monotonic", lambda: now[0])
    known = Remembered(source.find, seconds=1)
    assert await known.get(2) == 4
    now[0] = 100.99
    assert (known.known(2), await known.get(2)) == (4, 4)

    now[0] = 101.0

    assert known.known(2) is None
    assert await known.get(2) == 4
    assert source.asked == [[2], [2]]


async def test_the_time_counts_from_before_the_question(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(lookups, "monotonic", lambda: now[0])

    async def slow(keys: Sequence[int]) -> dict[int, int]:
        now[0] += 5
        return await source.find(keys)

    known = Remembered(slow, seconds=1)

    assert await known.get(2) == 4
    assert known.known(2) is None


async def test_an_amended_answer_stands_no_longer(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(lookups, "monotonic", lambda: now[0])
    known = Remembered(source.find, seconds=1)
    await known.get(2)
    now[0] = 100.5

    known.amend(2, 5)
    known.amend(4, 5)

    assert (known.known(2), known.known(4)) == (5, None)
    now[0] = 101.0
    assert known.known(2) is None


async def test_not_more_is_remembered_than_fits(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookups, "REMEMBERED_MAX", 2)
    known = Remembered(source.find, seconds=60)

    for key in (2, 4, 6):
        await known.get(key)

    assert [known.known(key) for key in (2, 4, 6)] == [None, None, 12]


async def test_equals_done_together_have_an_answer_each() -> None:
    sets: list[list[int]] = []

    async def run(asked: Sequence[int]) -> list[int]:
        sets.append([*asked])
        await asyncio.sleep(0.01)
        if 13 in asked:
            raise RuntimeError("unlucky")
        return [each * 10 + place for place, each in enumerate(asked)]

    together = Together(run)
    first = together.ask(1)
    await asyncio.sleep(0)
    assert await asyncio.gather(first, *[together.ask(each) for each in (2, 2, 3)]) == [
        10,
        20,
        21,
        32,
    ]
    assert sets == [[1], [2, 2, 3]]
    with pytest.raises(RuntimeError, match="unlucky"):
        await together.ask(13)
    assert await together.ask(4) == 40

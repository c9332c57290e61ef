"""What is remembered stands until it is changed, and nowhere longer than changes are heard of."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from uuid import UUID, uuid4

import pytest

from tests.conftest import MakeDb
from tongbao.infra import changes as changes_module
from tongbao.infra import lookups
from tongbao.infra.changes import ALL, BOUND_S, Changes, mark
from tongbao.infra.db import Db
from tongbao.infra.lookups import Remembered

WHAT = "lamp"


class Lamps:
    """Knows every lamp by a number that grows each time it is asked; waits when told to."""

    def __init__(self) -> None:
        self.asked = 0
        self.gate: asyncio.Event | None = None
        self.begun = asyncio.Event()

    async def find(self, ids: Sequence[UUID]) -> dict[UUID, int]:
        self.asked += 1
        found = self.asked
        self.begun.set()
        if self.gate is not None:
            await self.gate.wait()
        return dict.fromkeys(ids, found)


class Process:
    """One process's view: what it remembers of lamps."""

    def __init__(self, db: Db) -> None:
        self.changes = Changes(db)
        self.lamps = Lamps()
        self.known: Remembered[UUID, int] = Remembered(
            self.lamps.find, seconds=60, changes=self.changes
        )
        self.known.forget_with(WHAT, lambda lamp: (lamp,))


@pytest.fixture
async def process(module_db: Db) -> Process:
    made = Process(module_db)
    await made.changes.hear()
    return made


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time of this process, which stands still."""
    at = [100.0]
    monkeypatch.setattr(changes_module, "monotonic", lambda: at[0])
    monkeypatch.setattr(lookups, "monotonic", lambda: at[0])
    return at


async def change(db: Db, lamp: UUID) -> None:
    async with db.begin("tests") as tx:
        await mark(tx, WHAT, lamp)


async def test_what_was_changed_is_forgotten_and_nothing_else(
    module_db: Db, process: Process
) -> None:
    one, other = uuid4(), uuid4()
    assert (await process.known.get(one), await process.known.get(other)) == (1, 2)

    await change(module_db, one)
    await process.changes.hear()

    assert (process.known.known(one), process.known.known(other)) == (None, 2)
    assert await process.known.get(one) == 3
    await process.changes.hear()
    assert process.known.known(one) == 3, "the same mark is heard once"
    await change(module_db, ALL)
    await process.changes.hear()
    assert process.known.known(other) is None


async def test_a_change_that_is_undone_is_none(module_db: Db, process: Process) -> None:
    lamp = uuid4()
    await process.known.get(lamp)

    async def undone() -> None:
        async with module_db.begin("tests") as tx:
            await mark(tx, WHAT, lamp)
            raise RuntimeError("undone")

    with pytest.raises(RuntimeError, match="undone"):
        await undone()

    await process.changes.hear()

    assert process.known.known(lamp) == 1


async def test_a_change_that_commits_after_later_ones_is_heard_too(
    module_db: Db, process: Process
) -> None:
    """Numbers are given when a transaction begins and seen when it ends: none may be skipped."""
    slow, quick = uuid4(), uuid4()
    await process.known.all([slow, quick])
    async with module_db.begin("tests") as tx:
        await mark(tx, WHAT, slow)
        await change(module_db, quick)
        await process.changes.hear()
        assert (process.known.known(slow), process.known.known(quick)) == (1, None)
        epoch = process.changes.epoch
        await process.known.get(quick)
        await process.changes.hear()
        assert process.known.known(quick) is not None, "a long transaction forgets nothing twice"
        assert process.changes.epoch == epoch

    await process.changes.hear()

    assert process.known.known(slow) is None


@pytest.mark.parametrize("by_set", [False, True])
async def test_an_answer_from_before_a_change_is_not_kept(
    module_db: Db, process: Process, *, by_set: bool
) -> None:
    """It was read before the change was committed, and comes after the change was heard of."""
    lamp, process.lamps.gate = uuid4(), asyncio.Event()

    async def read() -> int | None:
        if by_set:
            return (await process.known.all([lamp]))[lamp]
        return await process.known.get(lamp)

    reading = asyncio.create_task(read())
    await process.lamps.begun.wait()

    await change(module_db, lamp)
    await process.changes.hear()
    process.lamps.gate.set()

    assert await reading == 1
    assert process.known.known(lamp) is None


async def test_before_anything_was_heard_nothing_is_kept(module_db: Db) -> None:
    deaf, lamp = Process(module_db), uuid4()
    assert await deaf.known.get(lamp) == 1
    deaf.changes._heard_at = float("inf")  # as if: it would be believed if it had been kept

    await deaf.changes.hear()

    assert deaf.known.known(lamp) is None


async def test_where_nothing_is_heard_nothing_is_believed_beyond_the_bound(
    module_db: Db, now: list[float]
) -> None:
    process, lamp = Process(module_db), uuid4()
    await process.changes.hear()
    assert await process.known.get(lamp) == 1
    await change(module_db, lamp)

    now[0] += BOUND_S - 0.01
    assert process.known.known(lamp) == 1, "believed, for it has not heard yet"
    now[0] += 0.01

    assert process.known.known(lamp) is None
    assert await process.known.get(lamp) == 2
    assert await process.known.all([lamp]) == {lamp: 3}


async def test_who_relies_on_what_is_remembered_hears_without_being_told(
    module_db: Db, process: Process
) -> None:
    lamp = uuid4()
    await process.known.get(lamp)
    await change(module_db, lamp)

    forgotten = asyncio.Event()
    process.changes.on(WHAT, lambda _: forgotten.set())
    assert process.known.known(lamp) == 1
    await asyncio.wait_for(forgotten.wait(), 30)

    assert process.known.known(lamp) is None
    assert process.changes.is_heard, "by a mark, and not because the listening ended"


async def test_a_database_that_answers_nobody_leaves_nothing_to_believe(
    make_db: MakeDb, now: list[float]
) -> None:
    lost = await make_db()
    process, lamp = Process(lost), uuid4()
    await process.changes.hear()
    await process.known.get(lamp)
    lost.pool.terminate()

    assert process.known.known(lamp) == 1
    process.changes._ask_soon()
    assert process.changes._asking is not None
    await process.changes._asking

    now[0] += BOUND_S
    assert process.known.known(lamp) is None
    assert not process.changes.is_heard


async def test_a_server_whose_numbers_begin_anew_makes_all_uncertain(
    module_db: Db, process: Process
) -> None:
    lamp = uuid4()
    await process.known.get(lamp)
    process.changes._horizon += 10**9

    await process.changes.hear()

    assert process.known.known(lamp) is None

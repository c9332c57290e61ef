"""Commits of many callers: shared where they can be, and nobody hears of another's refusal."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import UUID

import pytest

from tongbao.infra.commits import Commits
from tongbao.infra.db import Db, Query, Statement, Write
from tongbao.infra.joined import joined, stretches
from tongbao.kernel.ids import new_id

MAKE = Statement("create table if not exists scratch_jar (id uuid primary key, cats int not null)")
MAKE_LABELS = Statement("create table scratch_label (id uuid primary key, text text not null)")
DROP = Statement("drop table if exists scratch_jar, scratch_label")
PUT = Statement(
    "insert into scratch_jar (id, cats) values ($1, $2) on conflict do nothing",
    many="insert into scratch_jar (id, cats) select * from unnest($1::uuid[], $2::int[])"
    " on conflict do nothing",
)
TAKE = Statement("update scratch_jar set cats = cats - 1 where id = $1 and cats > 0")
TAKE_MANY = Statement(
    "update scratch_jar set cats = cats - 1 where id = $1 and cats > 0",
    many="update scratch_jar j set cats = j.cats - 1 from unnest($1::uuid[]) as t (id)"
    " where j.id = t.id and j.cats > 0",
)
LOOK = Statement(
    "select from scratch_jar where id = $1",
    many="select from unnest($1::uuid[]) as t (id) join scratch_jar j on j.id = t.id",
)
LABEL = Statement(
    "insert into scratch_label (id, text) values ($1, $2) on conflict do nothing",
    many="insert into scratch_label (id, text) select * from unnest($1::uuid[], $2::text[])"
    " on conflict do nothing",
)
HOLD = Statement(
    "select from scratch_jar where id = $1 for update",
    many="select from unnest($1::uuid[]) as t (id) join scratch_jar j on j.id = t.id"
    " for update of j",
)
UNLABELLED = Statement(
    "select where not exists (select from scratch_label where id = $1)",
    many="select from unnest($1::uuid[]) as t (id)"
    " where not exists (select from scratch_label l where l.id = t.id)",
)
WAITING = Query(
    int,
    "select count(*)::int from pg_stat_activity"
    " where datname = current_database() and wait_event_type = 'Lock'",
)
LABELS = Query(str, "select text from scratch_label order by text")
BREAK = Statement("update scratch_jar set cats = null where id = $1")
JARS = Query(int, "select count(*) from scratch_jar")
CATS = Query(int, "select cats from scratch_jar where id = $1")


@pytest.fixture
async def jars(db: Db) -> AsyncIterator[Db]:
    await MAKE.run(db)
    await MAKE_LABELS.run(db)
    yield db
    await DROP.run(db)


@pytest.fixture
def begun(jars: Db, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Say how many transactions have begun, those of one statement included."""
    times = 0

    def counting(real: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any) -> Any:
            nonlocal times
            times += 1
            return real(*args)

        return counted

    for name in ("begin", "fetch"):
        monkeypatch.setattr(jars, name, counting(getattr(jars, name)))
    return lambda: times


def put(id_: UUID, cats: int = 1) -> Write:
    return Write(PUT, (id_, cats), refusal="jar.taken")


async def test_what_is_asked_at_once_shares_a_commit(jars: Db, begun: Callable[[], int]) -> None:
    commits = Commits(jars, "tests")
    first = asyncio.create_task(commits.write([put(new_id())]))
    others = [asyncio.create_task(commits.write([put(new_id())])) for _ in range(20)]
    assert await asyncio.gather(first, *others) == [None] * 21
    assert begun() == 1
    assert await JARS.one(jars) == 21


async def test_what_changes_different_tables_is_one_statement(
    jars: Db, begun: Callable[[], int]
) -> None:
    commits, jar, gone = Commits(jars, "tests"), new_id(), new_id()
    assert (
        await commits.write([put(jar), Write(LABEL, (jar, "figs"), refusal="label.taken")]) is None
    )
    assert begun() == 1
    both = [put(gone), Write(LABEL, (jar, "dates"), refusal="label.taken")]
    other = [put(new_id()), Write(LABEL, (new_id(), "nuts"), refusal="label.taken")]
    found = await asyncio.gather(commits.write(both), commits.write(other))
    assert found == ["label.taken", None]
    assert await CATS.all(jars, gone) == []
    assert await LABELS.all(jars) == ["figs", "nuts"]


async def test_what_reads_or_changes_a_row_that_was_just_written_comes_after_it(jars: Db) -> None:
    commits, jars_ids = Commits(jars, "tests"), [new_id(), new_id()]
    writes = [[put(jar, cats=5), Write(TAKE_MANY, (jar,), refusal="jar.empty")] for jar in jars_ids]
    assert await asyncio.gather(*[commits.write(each) for each in writes]) == [None, None]
    assert [await CATS.one(jars, jar) for jar in jars_ids] == [4, 4]


def test_only_statements_that_cannot_see_each_other_are_joined() -> None:
    def is_joined(*statements: Statement) -> bool:
        return joined(tuple((each, True) for each in statements)) is not None

    assert is_joined(PUT, LABEL)
    assert is_joined(LOOK, LABEL)
    assert is_joined(LOOK, PUT)  # nobody waits before it looks
    assert is_joined(LOOK, UNLABELLED, PUT)
    assert is_joined(TAKE_MANY, LABEL)
    assert not is_joined(TAKE_MANY, UNLABELLED)  # it may look long before it has the row
    assert not is_joined(LABEL, LOOK)
    assert not is_joined(HOLD, UNLABELLED)
    assert not is_joined(PUT, LOOK)
    assert not is_joined(PUT, TAKE_MANY)
    assert not is_joined(PUT, TAKE)
    assert not is_joined(LABEL, LABEL)


async def test_what_is_looked_at_after_waiting_is_as_it_is_then(jars: Db) -> None:
    commits, jar = Commits(jars, "tests"), new_id()
    await commits.write([put(jar, cats=9)])
    take = Write(TAKE_MANY, (jar,), refusal="jar.empty")
    looked = Write(UNLABELLED, (jar,), refusal="label.taken")
    async with jars.begin("other") as tx:
        await TAKE.run(tx, jar)
        await LABEL.run(tx, jar, "figs")
        waits = asyncio.create_task(commits.write([take, looked]))
        while not await WAITING.one(jars):  # noqa: ASYNC110 - the server tells no other way
            await asyncio.sleep(0)
    assert await waits == "label.taken"
    assert await CATS.one(jars, jar) == 8


def test_what_cannot_be_joined_with_what_is_before_it_begins_anew() -> None:
    def cut(*statements: Statement) -> list[list[int]]:
        return [[*each] for each in stretches(tuple((each, True) for each in statements))]

    assert cut(PUT, LABEL, LOOK, LABEL) == [[0, 1], [2, 3]]
    assert cut(TAKE, PUT, LABEL, TAKE) == [[0], [1, 2], [3]]
    assert cut(PUT) == [[0]]
    assert cut() == []


async def test_a_refusal_undoes_its_own_writes_and_nobody_elses(jars: Db) -> None:
    commits, taken, beside = Commits(jars, "tests"), new_id(), new_id()
    assert await commits.write([put(taken)]) is None
    found = await asyncio.gather(
        commits.write([put(new_id())]),
        commits.write([put(beside), put(taken)]),
        commits.write([put(new_id()), put(new_id())]),
    )
    assert found == [None, "jar.taken", None]
    assert await JARS.one(jars) == 4
    assert await CATS.all(jars, beside) == []


async def test_of_two_who_want_one_thing_at_once_one_gets_it(jars: Db) -> None:
    commits, wanted, jar = Commits(jars, "tests"), new_id(), new_id()
    found = await asyncio.gather(*[commits.write([put(wanted)]) for _ in range(3)])
    assert sorted(found, key=str) == [None, "jar.taken", "jar.taken"]
    await commits.write([put(jar, cats=2)])
    take = Write(TAKE, (jar,), refusal="jar.empty")
    taken = await asyncio.gather(*[commits.write([take]) for _ in range(3)])
    assert sorted(taken, key=str) == [None, None, "jar.empty"]
    assert await CATS.one(jars, jar) == 0


async def test_a_bug_of_one_is_told_to_that_one_only(jars: Db) -> None:
    commits, jar = Commits(jars, "tests"), new_id()
    await commits.write([put(jar)])
    found = await asyncio.gather(
        commits.write([put(new_id())]),
        commits.write([Write(BREAK, (jar,))]),
        commits.write([put(new_id())]),
        return_exceptions=True,
    )
    assert (found[0], found[2]) == (None, None)
    assert "null" in str(found[1])
    assert await JARS.one(jars) == 3


async def test_one_that_waits_for_a_lock_holds_up_no_other(jars: Db) -> None:
    commits, jar = Commits(jars, "tests"), new_id()
    await commits.write([put(jar, cats=9)])
    take = Write(TAKE, (jar,), refusal="jar.empty")
    async with jars.begin("other") as tx:
        await TAKE.run(tx, jar)
        waiting = asyncio.create_task(commits.write([take]))
        await asyncio.sleep(0)
        async with asyncio.timeout(4):  # less than anybody waits for a lock
            assert await commits.write([put(new_id())]) is None
        assert not waiting.done()
    assert await waiting is None
    assert await CATS.one(jars, jar) == 7


async def test_who_is_gone_before_it_begins_is_not_written_for(jars: Db) -> None:
    commits = Commits(jars, "tests")
    gone = asyncio.create_task(commits.write([put(new_id())]))
    stays = asyncio.create_task(commits.write([put(new_id())]))
    await asyncio.sleep(0)
    gone.cancel()
    assert await stays is None
    with pytest.raises(asyncio.CancelledError):
        await gone
    assert await JARS.one(jars) == 1


async def test_kinds_of_commit_that_nobody_waits_for_are_forgotten(
    jars: Db, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tongbao.infra.commits.LANES_MAX", 4)
    commits = Commits(jars, "tests")
    async with jars.begin("test") as tx:
        await tx.execute("lock table scratch_label in exclusive mode", ())
        waits = asyncio.create_task(commits.write([Write(LABEL, (new_id(), "figs"))]))
        for many in range(1, 12):
            assert await commits.write([put(new_id()) for _ in range(many)]) is None
            assert len(commits._lanes) <= 4
        assert ((LABEL, False),) in commits._lanes
    assert await waits is None
    assert await LABELS.all(jars) == ["figs"]


async def test_nothing_to_write_is_written_at_once(jars: Db, begun: Callable[[], int]) -> None:
    assert await Commits(jars, "tests").write([]) is None
    assert begun() == 0

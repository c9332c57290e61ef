"""A commit that appends its rows while the one before it is still under way."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest

from tests.ledger.making import ALICE, BANK, BOB, NOTES, a_calling_domain, group, note, single
from tongbao.infra.copy_rows import Append, sized, text
from tongbao.infra.db import Statement, Write
from tongbao.kernel.ids import new_id
from tongbao.ledger.door import _store as store
from tongbao.ledger.poster import lane
from tongbao.ledger.queries import balance_of
from tongbao.ledger.verify import verify

APPEND_NOTE = Append("note", ("id", "text"))
_IN_THE_MIDDLE = """
    select count(*) from pg_stat_activity
     where datname = current_database() and state = 'idle in transaction'"""
_WAITS_FOR_A_LOCK = """
    select count(*) from pg_stat_activity
     where datname = current_database() and wait_event_type = 'Lock'"""


def appended(words, id_=None):
    return Write(
        APPEND_NOTE,
        (b"\0\2" + sized((id_ or new_id()).bytes) + text(words),),
        "test.taken",
    )


@pytest.fixture(autouse=True)
async def _book_stays_sound(db, ledger, monkeypatch):
    monkeypatch.setattr(lane, "_OVERLAP_MIN", 1)
    monkeypatch.setattr(lane, "_AHEAD_MIN", 1)
    await a_calling_domain(db)
    await ledger.submit([group(single(100, BANK, ALICE))])
    yield
    report = await verify(db)
    assert report.is_sound, report.broken


async def until(db, sql, count=1):
    async with asyncio.timeout(30):
        while await db.pool.fetchval(sql) < count:  # noqa: ASYNC110 - no event tells it
            await asyncio.sleep(0.002)


@asynccontextmanager
async def head_row_kept(db):
    """Keep the book's head row by hand: commits get as far as that."""
    async with db.begin("by hand") as tx:
        await tx.execute("select 1 from ledger_book where book = 1 for no key update", ())
        yield


def asked(ledger, *transfers, **more):
    return asyncio.create_task(ledger.submit([group(*transfers, **more)]))


async def one_behind_the_other(db, ledger, first, second):
    """Start two commits, the second on top of the first, which gets as far as the head row."""
    before = asked(ledger, single(60, ALICE, BOB), companions=first)
    await until(db, _WAITS_FOR_A_LOCK)
    behind = asked(ledger, single(60, BOB, ALICE), companions=second)
    return before, behind


async def test_rows_are_appended_before_the_commit_before_has_ended(db, ledger):
    async with head_row_kept(db):
        tasks = await one_behind_the_other(db, ledger, [appended("one")], [appended("two")])
        # By hand, the first that waits for the row, and the second that waits for the first.
        await until(db, _IN_THE_MIDDLE, 2)
        assert await NOTES.all(db) == []
    results = [result for task in tasks for result in await task]
    assert [(each.status, each.seq) for each in results] == [("created", 2), ("created", 3)]
    assert await NOTES.all(db) == ["one", "two"]
    assert (await balance_of(db, 1, ALICE)).posted == 100
    sizes = await db.fetch("select transfers from ledger_batch order by batch", ())
    assert [row[0] for row in sizes] == [1, 1, 1]


async def test_what_was_decided_on_a_vain_hope_is_decided_again(db, ledger, monkeypatch):
    """The money the second group spends comes from the first, which does not happen after all."""
    monkeypatch.setattr(store, "SHORT_LOCKS", Statement("set local lock_timeout = '20s'"))
    key = new_id()
    async with db.begin("by hand") as tx:
        await note("by hand", id=key).run(tx)
        before, behind = await one_behind_the_other(
            db, ledger, [appended("never"), note("late", "test.taken", key)], [appended("neither")]
        )
        await until(db, _IN_THE_MIDDLE, 2)
    assert [(each.status, each.code) for each in await before] == [("refused", "test.taken")]
    assert [each.status for each in await behind] == ["refused"]
    assert await NOTES.all(db) == ["by hand"]
    assert (await balance_of(db, 1, ALICE)).posted == 100


async def test_a_taken_key_refuses_its_own_group_only(db, ledger):
    key = new_id()
    await ledger.submit([group(single(1, BANK, BOB), companions=[note("there", id=key)])])
    before = asked(ledger, single(60, ALICE, BOB), companions=[appended("never", key)])
    behind = asked(ledger, single(1, BOB, ALICE), companions=[appended("done")])
    assert [(each.status, each.code) for each in await before] == [("refused", "test.taken")]
    assert [each.status for each in await behind] == ["created"]
    assert await NOTES.all(db) == ["done", "there"]
    assert (await balance_of(db, 1, ALICE)).posted == 101


async def test_the_same_key_twice_goes_to_the_one_who_came_first(db, ledger):
    key = new_id()
    async with head_row_kept(db):
        before, behind = await one_behind_the_other(
            db, ledger, [appended("first", key)], [appended("second", key)]
        )
        await asyncio.sleep(0.05)
    assert [each.status for each in await before] == ["created"]
    assert [(each.status, each.code) for each in await behind] == [("refused", "test.taken")]
    assert await NOTES.all(db) == ["first"]


async def test_who_waits_behind_a_lost_commit_is_decided_again(db, ledger):
    """The first one's connection is cut before its commit; both are asked for again and done."""
    async with head_row_kept(db):
        tasks = await one_behind_the_other(db, ledger, [appended("one")], [appended("two")])
        await until(db, _IN_THE_MIDDLE, 2)
        await db.pool.fetchval(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where datname = current_database() and wait_event_type = 'Lock'"
        )
    results = [result for task in tasks for result in await task]
    assert [each.status for each in results] == ["created", "created"]
    assert await NOTES.all(db) == ["one", "two"]
    assert (await balance_of(db, 1, ALICE)).posted == 100


async def test_closing_leaves_nothing_half_done(db, ledger):
    async with head_row_kept(db):
        tasks = await one_behind_the_other(db, ledger, [appended("one")], [appended("two")])
        await until(db, _IN_THE_MIDDLE, 2)
        await ledger.close()
    for task in tasks:
        with pytest.raises(asyncio.CancelledError):
            await task
    assert await NOTES.all(db) in ([], ["one"], ["one", "two"])


async def test_many_groups_of_which_some_cannot_be_done(db, ledger):
    """Two hundred callers, every ninth with a key that is taken: each hears its own answer."""
    taken = new_id()
    await ledger.submit([group(single(1, BANK, BOB), companions=[note("taken", id=taken)])])
    tasks = [
        asked(
            ledger,
            single(1, BANK, BOB),
            companions=[appended(f"{number:03}", taken if number % 9 == 0 else None)],
        )
        for number in range(200)
    ]
    answers = [(await task)[0].status for task in tasks]
    expected = ["refused" if number % 9 == 0 else "created" for number in range(200)]
    assert answers == expected
    written = [f"{number:03}" for number in range(200) if number % 9]
    assert await NOTES.all(db) == [*written, "taken"]
    assert (await balance_of(db, 1, BOB)).posted == 1 + len(written)

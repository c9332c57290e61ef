"""The loop of one book: what gathers, what waits too long, what was in doubt."""

from __future__ import annotations

import asyncio
from uuid import UUID

import numpy as np
import pytest
from msgspec.structs import replace

from tests.ledger.making import ALICE, BANK, BOB, NOTES, a_calling_domain, group, note, single
from tongbao.infra.db_failures import DatabaseUnavailable
from tongbao.kernel.ids import derived_id, new_id
from tongbao.ledger.decision.records import batch_of, code_of
from tongbao.ledger.model import ExceedsBalance, LedgerOverloaded
from tongbao.ledger.poster import lane, queue
from tongbao.ledger.queries import balance_of
from tongbao.ledger.verify import verify


@pytest.fixture(autouse=True)
async def _book_stays_sound(db):
    yield
    report = await verify(db)
    assert report.is_sound, report.broken


class Held:
    """The head row of the book, kept by hand while commits wait for it."""

    def __init__(self, db):
        self._begun = db.begin("by hand")

    async def __aenter__(self):
        tx = await self._begun.__aenter__()
        await tx.execute("select 1 from ledger_book where book = 1 for no key update", ())

    async def __aexit__(self, *failure):
        await self._begun.__aexit__(*failure)


async def a_commit_that_waits(db, ledger):
    task = asyncio.create_task(ledger.submit([group(single(1, BANK, ALICE))]))
    async with asyncio.timeout(30):
        while not await db.pool.fetchval(  # noqa: ASYNC110 - no event tells it
            "select count(*) from pg_stat_activity where wait_event_type = 'Lock'"
            " and datname = current_database()"
        ):
            await asyncio.sleep(0.005)
    return task


async def test_what_came_during_a_commit_is_the_next_one(db, ledger):
    await ledger.submit([group(single(1, BANK, ALICE))])
    async with Held(db):
        tasks = [await a_commit_that_waits(db, ledger)]
        later = [group(single(1, BANK, ALICE)) for _ in range(20)]
        tasks += [asyncio.create_task(ledger.submit([each])) for each in later]
        await asyncio.sleep(0.01)
        assert ledger.waiting(1) == 20
    results = [result for task in tasks for result in await task]
    assert {result.status for result in results} == {"created"}
    assert sorted(result.seq for result in results) == list(range(2, 23))
    sizes = await db.fetch("select transfers from ledger_batch order by batch", ())
    assert [row[0] for row in sizes] == [1, 1, 20]


async def test_a_full_queue_says_so_and_decides_nothing(db, ledger, monkeypatch):
    monkeypatch.setattr(queue, "QUEUE_MAX", 3)
    await ledger.submit([group(single(1, BANK, ALICE))])
    async with Held(db):
        first = await a_commit_that_waits(db, ledger)
        waiting = [
            asyncio.create_task(ledger.submit([group(single(1, BANK, ALICE))])) for _ in range(3)
        ]
        await asyncio.sleep(0.01)
        with pytest.raises(LedgerOverloaded):
            await ledger.submit([group(single(1, BANK, ALICE))])
    for task in (first, *waiting):
        assert [each.status for each in await task] == ["created"]
    assert (await balance_of(db, 1, ALICE)).posted == 5


async def test_who_waits_past_the_deadline_is_told_and_left_out(db, ledger):
    await ledger.submit([group(single(1, BANK, ALICE))])
    async with Held(db):
        first = await a_commit_that_waits(db, ledger)
        with pytest.raises(LedgerOverloaded):
            await ledger.submit([group(single(1, BANK, ALICE))], deadline_s=0.01)
    assert [each.status for each in await first] == ["created"]
    assert (await balance_of(db, 1, ALICE)).posted == 2


async def test_a_caller_who_went_away_changes_nothing_for_the_others(db, ledger):
    await ledger.submit([group(single(1, BANK, ALICE))])
    async with Held(db):
        first = await a_commit_that_waits(db, ledger)
        gone = asyncio.create_task(ledger.submit([group(single(1, BANK, ALICE))]))
        stays = asyncio.create_task(ledger.submit([group(single(1, BANK, ALICE))]))
        await asyncio.sleep(0.01)
        gone.cancel()
    assert [each.status for each in await first + await stays] == ["created", "created"]


@pytest.mark.parametrize("arrived", [True, False])
async def test_a_commit_in_doubt_is_looked_up_and_never_guessed(db, ledger, arrived, monkeypatch):
    """The connection is lost around COMMIT: before it or after, the caller cannot tell."""
    await a_calling_domain(db)
    await ledger.submit([group(single(1, BANK, ALICE))])
    begin = db.begin

    class Lost:
        def __init__(self, actor):
            self._begun = begin(actor)

        async def __aenter__(self):
            return await self._begun.__aenter__()

        async def __aexit__(self, *failure):
            monkeypatch.setattr(db, "begin", begin)
            lost = DatabaseUnavailable()
            await self._begun.__aexit__(*(failure if arrived else (type(lost), lost, None)))
            raise lost

    monkeypatch.setattr(db, "begin", Lost)
    [result] = await ledger.submit([group(single(5, BANK, ALICE), companions=[note("once")])])
    assert result.status == "created"
    assert await NOTES.all(db) == ["once"]
    assert (await balance_of(db, 1, ALICE)).posted == 6
    assert await db.pool.fetchval("select last_batch from ledger_book where book = 1") == 2


async def test_columns_go_in_and_codes_come_out(db, ledger):
    await ledger.submit([group(single(100, BANK, ALICE), single(1, ALICE, BOB))])
    rows = await db.fetch("select kind, owner, id from ledger_account", ())
    numbers = {row["owner"]: row["id"] for row in rows}
    alice, bob = numbers[ALICE.owner], numbers[BOB.owner]
    groups = [group(single(amount, ALICE, BOB)) for amount in (60, 60, 39)]
    batch = batch_of(groups, {ALICE: alice, BOB: bob}, {"test/leg": 1})
    short = code_of(ExceedsBalance)
    assert (await ledger.submit_batch(1, batch)).tolist() == [0, short, 0]
    assert (await ledger.submit_batch(1, batch)).tolist() == [0, short, 0]
    assert np.all((await ledger.submit_batch(1, replace(batch, refused=batch.refused))) >= 0)
    assert (await balance_of(db, 1, BOB)).posted == 100


async def test_a_rehearsal_says_what_would_happen_and_leaves_no_trace(db, ledger):
    await ledger.submit([group(single(100, BANK, ALICE))])
    tables = ("ledger_account", "ledger_transfer", "ledger_request", "ledger_batch", "ledger_code")
    count = " + ".join(f"(select count(*) from {table})" for table in tables)
    before = await db.pool.fetchval(f"select {count}")
    nobody = replace(ALICE, owner=UUID(int=77))
    asked = [
        group(single(60, ALICE, nobody)),
        group(single(60, ALICE, BOB)),
        group(replace(single(60, nobody, BOB), code="new/word")),
    ]
    told = [result.code or result.status for result in await ledger.dry_run(asked)]
    assert told == ["created", "ledger.exceeds_balance", "created"]
    assert await db.pool.fetchval(f"select {count}") == before
    results = await ledger.submit(asked)
    assert [result.code or result.status for result in results] == told
    again = [result.status for result in await ledger.dry_run(asked)]
    assert again == ["exists", "already_refused", "exists"]


async def test_ids_older_than_the_writers_memory_are_looked_up(db, ledger):
    reference = new_id()
    late = replace(single(5, BANK, ALICE), id=derived_id(reference, "late"), reference=reference)
    await ledger.submit([group(single(1, BANK, ALICE))])
    await ledger.submit([group(late, id=late.id)])
    await ledger.close()
    [again] = await ledger.submit([group(late, id=late.id)])
    assert (again.status, again.seq) == ("exists", 2)
    [other] = await ledger.submit([group(replace(late, amount=6), id=late.id)])
    assert (other.status, other.code) == ("exists_different", "ledger.exists_different_amount")
    [taken] = await ledger.submit([group(late)])
    assert (taken.status, taken.code) == ("refused", "ledger.transfer_exists")


async def test_a_memory_that_grew_large_begins_again_and_forgets_no_money(db, ledger, monkeypatch):
    monkeypatch.setattr(lane, "ACCOUNTS_MAX", 0)
    await ledger.submit([group(single(10, BANK, ALICE))])
    once = group(single(6, ALICE, BOB))
    results = [
        (await ledger.submit([each]))[0] for each in (once, once, group(single(6, ALICE, BOB)))
    ]
    assert [each.code or each.status for each in results] == [
        "created",
        "exists",
        "ledger.exceeds_balance",
    ]
    assert await db.pool.fetchval("select epoch from ledger_book where book = 1") == 4

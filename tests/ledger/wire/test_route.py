"""Two processes' ledgers on one database: one keeps the book, the other asks it, by themselves."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from datetime import timedelta

import pytest

from tests.ledger.making import (
    ALICE,
    BANK,
    BOB,
    NOTES,
    a_calling_domain,
    group,
    note,
    outcome,
    single,
    spend,
)
from tongbao.infra.db import Query, Statement, Write
from tongbao.kernel.clock import real_now
from tongbao.kernel.licence import Licence
from tongbao.ledger.book import Ledger
from tongbao.ledger.decision.records import batch_of
from tongbao.ledger.model import AccountState, BookElsewhere, BookMissing
from tongbao.ledger.queries import balance_of
from tongbao.ledger.wire import client, route

HOLDER = Query(str, "select holder from ledger_book where book = 1")
EPOCH = Query(int, "select epoch from ledger_book where book = 1")
SET_HOLDER = Statement(
    "update ledger_book set epoch = epoch + 1, holder = $1, lease_until = $2 where book = 1"
)


@pytest.fixture
async def processes(make_db, dsn, tmp_path):
    """``await processes()`` is one more process's ledger, with a database pool of its own."""
    made = []

    async def one(*, listens=True, **more):
        db = await make_db(dsn=dsn, **more)
        folder = tmp_path / "posters" if listens else None
        made.append(Ledger(db, Licence.PAYMENT_INSTITUTION, sockets=folder))
        return made[-1]

    yield one
    for each in made:
        await each.close()


async def keep(ledger):
    """Let it take what nobody keeps, once."""
    stop = asyncio.Event()
    keeping = asyncio.create_task(ledger.keep_books(stop))
    await asyncio.sleep(0)
    stop.set()
    await keeping


async def test_the_first_to_post_keeps_the_book_and_the_others_ask_it(db, processes):
    first, second, third = [await processes() for _ in range(3)]
    assert await outcome(first, single(100, BANK, ALICE)) == ("created", None)
    epoch, holder = await EPOCH.one(db), await HOLDER.one(db)
    assert holder.endswith(".sock")
    for ledger in (second, third, first):
        assert await outcome(ledger, single(10, ALICE, BOB)) == ("created", None)
    assert await outcome(second, single(71, ALICE, BOB)) == ("refused", "ledger.exceeds_balance")
    assert (await EPOCH.one(db), await HOLDER.one(db)) == (epoch, holder)


async def test_companions_take_effect_in_the_process_that_keeps_the_book(db, processes):
    await a_calling_domain(db)
    keeper, asker = await processes(), await processes()
    await outcome(keeper, single(100, BANK, ALICE))
    done, too_much = await asker.submit(
        [
            group(single(1, ALICE, BOB), companions=[spend(1, 60), note("done")]),
            group(single(1, ALICE, BOB), companions=[spend(1, 60), note("not done")]),
        ]
    )
    assert (done.status, too_much.status, too_much.code) == (
        "created",
        "refused",
        "test.over_budget",
    )
    assert await NOTES.all(db) == ["done"]
    assert (await balance_of(db, 1, BOB)).posted == 1


async def test_a_companion_that_the_database_refuses_fails_its_own_caller(db, processes):
    await a_calling_domain(db)
    keeper, asker = await processes(), await processes()
    await outcome(keeper, single(100, BANK, ALICE))
    wrong = Write(Statement("insert into note (id, text) values ($1, null)"), (group().id,))
    good = [group(single(1, ALICE, BOB), companions=[note(str(n))]) for n in range(5)]
    bad = group(single(1, ALICE, BOB), companions=[wrong])
    results = await asyncio.gather(
        *(asker.submit([each]) for each in [*good[:2], bad, *good[2:]]), return_exceptions=True
    )
    assert isinstance(results.pop(2), client.PosterFailed)
    assert [each.status for [each] in results] == ["created"] * 5
    assert await NOTES.all(db) == ["0", "1", "2", "3", "4"]


async def test_columns_are_decided_elsewhere_as_well(processes):
    keeper, asker = await processes(), await processes()
    groups = [group(single(1, BANK, ALICE)) for _ in range(100)]
    await keeper.submit(groups[:1])
    names = asker._names
    await names.learn(1, groups)
    batch = batch_of(groups, names.accounts(1), names.codes)
    assert (await asker.submit_batch(1, batch)).tolist() == [0] * 100


async def test_when_the_keeper_is_gone_the_next_takes_over_at_once(db, processes):
    keeper, heir, other = [await processes() for _ in range(3)]
    once = group(single(100, BANK, ALICE))
    await keeper.submit([once])
    assert await outcome(heir, single(1, ALICE, BOB)) == ("created", None)
    before = await HOLDER.one(db)
    await keeper.close()
    assert [each.status for each in await heir.submit([once])] == ["exists"]
    assert await HOLDER.one(db) not in {"", before}
    assert await outcome(other, single(1, ALICE, BOB)) == ("created", None)
    assert (await balance_of(db, 1, BOB)).posted == 2


async def test_one_that_left_the_books_to_others_waits_for_a_poster(db, processes):
    asker, poster = await processes(), await processes()
    asker.leave_books()
    with pytest.raises(BookElsewhere):
        await asker.submit([group(single(1, BANK, ALICE))], deadline_s=0.3)
    assert await EPOCH.one(db) == 0
    waiting = asyncio.create_task(asker.submit([group(single(1, BANK, ALICE))]))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    await keep(poster)
    assert [each.status for each in await waiting] == ["created"]
    assert await EPOCH.one(db) == 1


async def test_a_poster_takes_only_what_nobody_keeps(db, processes):
    first, second = await processes(), await processes()
    await first.open_book(7, actor="test")
    await outcome(first, single(1, BANK, ALICE))
    holder = await HOLDER.one(db)
    await keep(second)
    assert await HOLDER.one(db) == holder
    rows = await db.fetch("select holder from ledger_book where book = 7", ())
    assert rows[0]["holder"] not in {"", holder}
    await first.close()
    await keep(second)
    assert await HOLDER.one(db) == rows[0]["holder"]


async def test_a_change_past_the_keeper_leaves_the_book_with_it(db, processes):
    keeper, asker = await processes(), await processes()
    await outcome(keeper, single(100, BANK, ALICE))
    holder = await HOLDER.one(db)
    await asker.set_account_state(1, ALICE, AccountState.FROZEN, actor="test", because="a test")
    assert await HOLDER.one(db) == ""
    assert await outcome(keeper, single(1, ALICE, BOB)) == ("refused", "ledger.account_frozen")
    assert await HOLDER.one(db) == holder
    assert await outcome(asker, single(1, ALICE, BOB)) == ("refused", "ledger.account_frozen")


async def test_the_keeper_hands_its_callers_to_whoever_took_the_book(db, processes):
    old, new = await processes(), await processes()
    await outcome(old, single(100, BANK, ALICE))
    address = await new._route.address()
    await SET_HOLDER.run(db, address, real_now() + timedelta(seconds=10))
    groups = [group(single(1, ALICE, BOB)) for _ in range(20)]
    results = await asyncio.gather(*(old.submit([each]) for each in groups))
    assert [each.status for [each] in results] == ["created"] * 20
    assert await HOLDER.one(db) == address
    assert (await balance_of(db, 1, BOB)).posted == 20


async def test_two_that_nobody_can_ask_share_a_book_all_the_same(db, processes):
    both = [await processes(listens=False) for _ in range(2)]
    await outcome(both[0], single(100, BANK, ALICE))

    async def post(ledger):
        for _ in range(10):
            status = "in_flight"
            while status == "in_flight":
                status, _ = await outcome(ledger, single(1, ALICE, BOB))
            assert status == "created"

    await asyncio.gather(*map(post, both))
    assert (await balance_of(db, 1, BOB)).posted == 20


@pytest.fixture
def silent(tmp_path):
    """The address of a process that is stopped: it takes connections and never answers."""
    with socket.socket(socket.AF_UNIX) as stopped:
        path = str(tmp_path / "stopped.sock")
        stopped.bind(path)
        stopped.listen()
        yield path


async def test_a_silent_keeper_is_left_alone_until_its_lease_is_over(
    db, processes, silent, monkeypatch
):
    monkeypatch.setattr(client, "_SILENT_BEATS_MAX", 2)
    monkeypatch.setattr(client, "_BEAT_S", 0.05)
    ledger = await processes()
    await SET_HOLDER.run(db, silent, real_now() + timedelta(seconds=5))
    with pytest.raises(BookElsewhere):
        await ledger.submit([group(single(1, BANK, ALICE))], deadline_s=0.3)
    await SET_HOLDER.run(db, silent, real_now() + timedelta(seconds=0.5))
    assert await outcome(ledger, single(1, BANK, ALICE)) == ("created", None)
    assert await HOLDER.one(db) not in {"", silent}


async def test_a_lease_from_a_clock_that_stepped_back_holds_nobody_up(
    db, processes, silent, monkeypatch
):
    monkeypatch.setattr(client, "_SILENT_BEATS_MAX", 2)
    monkeypatch.setattr(client, "_BEAT_S", 0.05)
    ledger = await processes()
    await SET_HOLDER.run(db, silent, real_now() + 3 * route.LEASE)
    assert await outcome(ledger, single(1, BANK, ALICE)) == ("created", None)


async def test_a_book_that_was_never_opened_is_missing_wherever_it_is_asked_for(processes):
    ledger = await processes()
    with pytest.raises(BookMissing):
        await ledger.submit([group(single(1, BANK, ALICE), book=99)])


HALF_A_COMMIT = """
import asyncio, asyncpg, sys

async def rows():
    print("sending", flush=True)
    await asyncio.Event().wait()
    yield b""

async def main():
    connection = await asyncpg.connect(sys.argv[1])
    await connection.execute("begin")
    await connection.execute("update ledger_book set lease_until = lease_until where book = 1")
    await connection.copy_to_table("ledger_transfer", source=rows(), format="binary")

asyncio.run(main())
"""


async def test_a_keeper_stopped_while_it_sends_a_commit_does_not_keep_the_book_for_ever(
    db, dsn, processes, silent, monkeypatch
):
    monkeypatch.setattr(client, "_SILENT_BEATS_MAX", 2)
    monkeypatch.setattr(client, "_BEAT_S", 0.05)
    monkeypatch.setattr(route, "LEASE", timedelta(seconds=0.5))
    await SET_HOLDER.run(db, silent, real_now() + timedelta(seconds=0.5))
    stopped = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HALF_A_COMMIT, dsn, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert stopped.stdout is not None
        assert await stopped.stdout.readline() == b"sending\n"
        stopped.send_signal(signal.SIGSTOP)
        status = "in_flight"
        ledger = await processes()
        async with asyncio.timeout(30):
            while status == "in_flight":
                status, _ = await outcome(ledger, single(1, BANK, ALICE))
        assert status == "created"
    finally:
        stopped.kill()
        await stopped.wait()

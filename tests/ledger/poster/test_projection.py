"""Balances behind the journal: one stretch after the other, marks on the way, breaches stop it."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from tests.ledger.making import ALICE, BANK, BOB, MERCHANT, group, outcome, pending, post, single
from tongbao.infra import failpoints
from tongbao.kernel.licence import Licence
from tongbao.ledger.book import Ledger
from tongbao.ledger.poster import projection
from tongbao.ledger.poster.lease import read_head
from tongbao.ledger.queries import balance_of
from tongbao.ledger.verify import verify


@pytest.fixture
def balances():
    return "behind"


async def behind(db, ledger, *groups):
    """Commit the groups, of which the balances never hear."""
    await balance_of(db, 1, BANK)
    failpoints.arm("ledger.before_projection:raise")
    results = await ledger.submit(groups)
    await ledger.close()
    failpoints.arm(None)
    return results


async def counters(db):
    rows = await db.fetch(
        "select kind, sum(debits_pending)::int, sum(debits_posted)::int, sum(credits_pending)::int,"
        " sum(credits_posted)::int, sum(touches)::int from ledger_account group by kind"
        " order by kind",
        (),
    )
    return {row[0]: tuple(row)[1:] for row in rows}


async def test_the_end_of_a_hold_takes_all_of_it_out_of_pending(db, ledger):
    hold = pending(70, ALICE, MERCHANT)
    await behind(db, ledger, group(single(100, BANK, ALICE), hold), group(post(hold, 30)))
    before = {kind: figures for kind, figures in (await counters(db)).items() if any(figures)}
    assert before == {}

    await projection.catch_up(db, await read_head(db, 1))

    assert await counters(db) == {
        "bank": (0, 100, 0, 0, 1),
        "merchant_payable": (0, 0, 0, 30, 2),
        "wallet": (0, 30, 0, 100, 3),
    }
    assert (await verify(db)).is_sound


async def test_catching_up_twice_changes_nothing(db, ledger):
    await behind(db, ledger, group(single(100, BANK, ALICE)))
    head = await read_head(db, 1)
    await asyncio.gather(*(projection.catch_up(db, head) for _ in range(4)))
    assert (await balance_of(db, 1, ALICE)).posted == 100


async def test_a_long_way_is_gone_in_stretches_of_whole_batches(db, ledger, monkeypatch):
    monkeypatch.setattr(projection, "CHUNK", 5)
    for _ in range(7):
        await behind(db, ledger, group(*(single(1, BANK, ALICE) for _ in range(3))))
    head = await read_head(db, 1)
    marks = []
    while not marks or marks[-1].batch < head.last_batch:
        async with db.begin("tests") as tx:
            marks.append(await projection.project_next(tx, 1, head.last_batch))
    steps = [after.seq - before.seq for before, after in pairwise(marks)]
    assert set(steps) <= {3}, "two batches do not go into a stretch"
    assert marks[-1].seq == head.last_seq
    assert (await balance_of(db, 1, ALICE)).posted == head.last_seq


async def test_every_64th_touch_of_an_account_is_marked(db, ledger):
    for size in (63, 1, 64, 100):
        await ledger.submit([group(*(single(1, BANK, ALICE) for _ in range(size)))])
    await balance_of(db, 1, ALICE)
    rows = await db.fetch(
        "select m.account, array_agg(m.seq order by m.seq) as seqs, bool_and(t.seq = m.seq) as same"
        " from ledger_mark m join ledger_transfer t on t.book = m.book and t.id = m.transfer_id"
        " group by m.account",
        (),
    )
    assert [row["seqs"] for row in rows] == [[64, 128, 192]] * 2
    assert all(row["same"] for row in rows)


async def test_a_breach_stops_the_book_and_says_why(db, ledger):
    await ledger.submit([group(single(100, BANK, ALICE))])
    await balance_of(db, 1, ALICE)
    # By its row the account has nothing, by its writer's memory it has 100.
    await db.execute("update ledger_account set credits_posted = 0 where kind = 'wallet'", ())
    await ledger.submit([group(single(60, ALICE, BOB))])
    async with asyncio.timeout(30):
        while (await read_head(db, 1)).stopped_because is None:
            await ledger.submit([group(single(1, BANK, BOB))])
            await asyncio.sleep(0.01)
    assert (await outcome(ledger, single(1, BANK, BOB))) == ("in_flight", "ledger.book_stopped")
    other = Ledger(db, Licence.BANK)
    assert (await outcome(other, single(1, BANK, BOB))) == ("in_flight", "ledger.book_stopped")


async def test_many_commits_are_carried_at_once_and_their_marks_with_them(db, ledger, monkeypatch):
    steps = []
    carry = projection.carry

    async def counted(tx, book, mark, commits):
        done = await carry(tx, book, mark, commits)
        steps.append((len(commits), done))
        return done

    monkeypatch.setattr(projection, "carry", counted)
    await ledger.submit([group(single(100_000, BANK, ALICE))])
    async with db.begin("tests") as tx:
        await tx.fetch("select 1 from ledger_watermark for update", ())
        for _ in range(40):
            hold = pending(5, ALICE, MERCHANT)
            await ledger.submit([group(hold, single(1, ALICE, BOB))])
            await ledger.submit([group(post(hold, 3), single(1, BANK, BOB))])
    assert (await balance_of(db, 1, ALICE)).posted == 100_000 - 40 * 4
    assert max(many for many, done in steps if done) > 40
    assert await counters(db) == {
        "bank": (0, 100_040, 0, 0, 41),
        "merchant_payable": (0, 0, 0, 120, 80),
        "wallet": (0, 160, 0, 100_080, 201),
    }
    assert (await verify(db)).is_sound


async def test_where_somebody_else_moved_the_watermark_the_journal_is_added_up(db, ledger):
    await ledger.submit([group(single(100, BANK, ALICE))])
    await balance_of(db, 1, ALICE)
    failpoints.arm("ledger.before_projection:raise")
    await ledger.submit([group(single(1, BANK, ALICE))])
    failpoints.arm(None)
    await projection.catch_up(db, await read_head(db, 1))
    await ledger.submit([group(single(1, BANK, ALICE))])
    assert (await balance_of(db, 1, ALICE)).posted == 102
    assert (await verify(db)).is_sound


async def test_a_book_that_is_taken_anew_while_its_balances_wait_is_not_broken(
    db, ledger, dsn, make_db
):
    """As after a restart of the database, when a connection comes late and all is caught up."""
    lane = ledger._lane(1)
    await behind(db, ledger, group(single(100, BANK, ALICE)))
    [carried] = lane._follower._carried
    head = await read_head(db, 1)
    slow = await make_db(dsn=dsn, connections_max=1)
    follower = projection.Follower(slow, 1)
    held = await slow.pool.acquire()
    follower.follow(head.last_seq, carried)
    await asyncio.sleep(0)  # it has begun its step, and waits for the connection

    await projection.catch_up(db, head)
    follower.start_from(head.last_seq, head.last_batch)
    await slow.pool.release(held)
    await follower._task

    assert follower.breach is None
    assert (await balance_of(db, 1, ALICE)).posted == 100
    assert (await verify(db)).is_sound


async def test_an_account_that_is_not_as_its_writer_left_it_stops_the_book(db, ledger):
    await ledger.submit([group(single(100, BANK, ALICE))])
    await balance_of(db, 1, ALICE)
    await db.execute("update ledger_account set touches = touches + 1 where kind = 'wallet'", ())
    async with asyncio.timeout(30):
        while (await read_head(db, 1)).stopped_because is None:
            await ledger.submit([group(single(1, BANK, ALICE))])
            await asyncio.sleep(0.01)
    stopped = (await read_head(db, 1)).stopped_because
    assert "1 accounts are not as their writer left them" in stopped


async def test_a_batch_that_lost_a_transfer_is_a_breach(db, ledger):
    await behind(db, ledger, group(single(100, BANK, ALICE), single(1, BANK, ALICE)))
    await db.execute("grant delete on ledger_transfer to current_user", ())
    await db.execute("delete from ledger_transfer where amount = 1", ())
    assert await outcome(ledger, single(1, ALICE, BOB)) == ("in_flight", "ledger.book_stopped")
    assert "1 transfers after 0, up to 2" in (await read_head(db, 1)).stopped_because

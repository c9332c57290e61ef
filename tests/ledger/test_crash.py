"""Dying anywhere inside a submission loses nothing that was answered and doubles nothing."""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress
from uuid import UUID

import pytest

from tests.ledger.fault_process import Forked, submit
from tests.ledger.making import (
    ALICE,
    BANK,
    BOB,
    MERCHANT,
    NOTES,
    a_calling_domain,
    group,
    note,
    outcome,
    pending,
    post,
    single,
)
from tongbao.infra import db as database
from tongbao.infra import failpoints
from tongbao.infra.db_failures import DatabaseUnavailable
from tongbao.infra.migrate import migrate
from tongbao.kernel.clock import Clock
from tongbao.kernel.licence import Licence
from tongbao.ledger.book import Ledger
from tongbao.ledger.model import Group, Transfer, TransferKind
from tongbao.ledger.queries import balance_of
from tongbao.ledger.verify import verify

DYING = [
    ("ledger.before_head", "created"),
    ("ledger.after_head", "created"),
    ("ledger.before_commit", "created"),
    ("ledger.after_commit", "exists"),
]
BEHIND = ["ledger.before_projection", "ledger.after_projection"]


@pytest.mark.parametrize(("place", "afterwards"), DYING)
async def test_a_submission_that_dies_is_repeated_safely(db, ledger, place, afterwards):
    await a_calling_domain(db)
    hold = pending(40, ALICE, MERCHANT)
    await ledger.submit([group(single(100, BANK, ALICE), hold)])
    once = group(post(hold, 30), single(5, ALICE, BOB), companions=[note("done")])
    failpoints.arm(f"{place}:raise")
    with pytest.raises(failpoints.SimulatedCrash):
        await ledger.submit([once])
    failpoints.arm(None)
    assert await NOTES.all(db) == (["done"] if afterwards == "exists" else [])
    [again] = await ledger.submit([once])
    assert (again.status, again.seq) == (afterwards, 4)
    assert (await balance_of(db, 1, ALICE)).available == 65
    assert await NOTES.all(db) == ["done"]
    assert (await verify(db)).is_sound


@pytest.mark.parametrize(("place", "afterwards"), DYING)
async def test_a_refusal_that_dies_is_decided_again_or_remembered(db, ledger, place, afterwards):
    once = group(single(5, ALICE, BOB))
    failpoints.arm(f"{place}:raise")
    with pytest.raises(failpoints.SimulatedCrash):
        await ledger.submit([once])
    failpoints.arm(None)
    await ledger.submit([group(single(100, BANK, ALICE))])
    [again] = await ledger.submit([once])
    assert again.status == ("already_refused" if afterwards == "exists" else "created")
    assert (await verify(db)).is_sound


async def test_everybody_in_a_commit_that_dies_is_told(db, ledger):
    await ledger.submit([group(single(1, BANK, ALICE))])
    groups = [group(single(1, BANK, ALICE)) for _ in range(6)]
    failpoints.arm("ledger.before_commit:raise")
    tasks = [asyncio.create_task(ledger.submit([each])) for each in groups]
    told = await asyncio.gather(*tasks, return_exceptions=True)
    failpoints.arm(None)
    died = [each for each in told if isinstance(each, failpoints.SimulatedCrash)]
    assert died, "somebody was in it"
    statuses = [(await ledger.submit([each]))[0].status for each in groups]
    assert statuses.count("created") <= len(died)
    assert (await balance_of(db, 1, ALICE)).posted == 7


@pytest.mark.parametrize("place", BEHIND)
@pytest.mark.parametrize("balances", ["behind"])
async def test_balances_that_die_follow_after_the_next_take_over(db, dsn, make_db, ledger, place):
    await ledger.submit([group(single(1, BANK, ALICE))])
    await balance_of(db, 1, ALICE)
    failpoints.arm(f"{place}:raise")
    await ledger.submit([group(single(99, BANK, ALICE))])
    await asyncio.sleep(0)
    await ledger.close()
    failpoints.arm(None)
    afterwards = Ledger(await make_db(dsn=dsn), Licence.PAYMENT_INSTITUTION)
    assert await outcome(afterwards, single(100, ALICE, BOB)) == ("created", None)
    assert (await balance_of(db, 1, BOB)).posted == 100
    assert (await verify(db)).is_sound
    await afterwards.close()


FRONT = 0x0190_0000_0000_7000 << 64


@pytest.mark.parametrize(("place", "afterwards"), [*DYING, ("ledger.after_take_over", "created")])
async def test_a_process_killed_mid_statement_leaves_all_or_nothing(
    db, dsn, ledger, place, afterwards, balances, tmp_path
):
    line = Transfer(
        UUID(int=FRONT + 1), TransferKind.SINGLE, "test/leg", UUID(int=FRONT + 2), 100, BANK, ALICE
    )
    asked = Group(UUID(int=FRONT + 3), 1, (line,))
    complaints = tmp_path / "complaints"
    child = Forked(submit, dsn, balances, asked, complaints=complaints, failpoint=f"{place}:kill9")
    assert await child.first_line() == b""
    assert await child.wait() == -signal.SIGKILL, complaints.read_text()
    assert await outcome(ledger, line, id=UUID(int=FRONT + 3)) == (afterwards, None)
    assert (await balance_of(db, 1, ALICE)).posted == 100
    assert (await verify(db)).is_sound


@pytest.mark.parametrize("balances", ["behind", "with_commit"])
async def test_what_was_answered_survives_a_power_cut(durable_server, balances):
    db = await database.connect(durable_server.running.dsn, Clock())
    await migrate(db, Licence.BANK, "tests")
    ledger = Ledger(db, Licence.BANK, balances=balances)
    refused = group(single(10_000, ALICE, BOB))
    assert (await ledger.submit([refused]))[0].status == "refused"
    asked = [group(single(1 + n, BANK, ALICE)) for n in range(2000)]
    answered, under_way = [], asyncio.Event()

    async def submitter(groups):
        for each in groups:
            [result] = await ledger.submit([each], deadline_s=2)
            assert result.status == "created"
            answered.append(each)
            if len(answered) == 40:
                under_way.set()

    submitters = [asyncio.create_task(submitter(asked[n::4])) for n in range(4)]
    await under_way.wait()
    durable_server.kill9()
    outcomes = await asyncio.gather(*submitters, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {DatabaseUnavailable}, outcomes
    await ledger.close()
    db.pool.terminate()
    durable_server.restart()
    db = await database.connect(durable_server.running.dsn, Clock())
    ledger = Ledger(db, Licence.BANK, balances=balances)
    assert {result.status for result in await ledger.submit(answered)} == {"exists"}
    open_ends = [result.status for result in await ledger.submit(asked[:200])]
    assert set(open_ends) <= {"exists", "created"}
    await ledger.submit([group(single(100_000, BANK, ALICE))])
    assert (await ledger.submit([refused]))[0].status == "already_refused"
    report = await verify(db)
    assert report.is_sound, report.broken
    await ledger.close()
    await db.close()


async def test_callers_outlast_a_restart_of_the_database(durable_server):
    """Whoever is in a commit when the database goes away hears the truth once it is back."""
    db = await database.connect(durable_server.running.dsn, Clock())
    await migrate(db, Licence.BANK, "tests")
    ledger = Ledger(db, Licence.BANK)
    await ledger.submit([group(single(1, BANK, ALICE))])
    once = group(single(5, BANK, ALICE))
    with suppress(DatabaseUnavailable):  # of the lock held by hand
        async with db.begin("by hand") as tx:
            await tx.execute("select 1 from ledger_book where book = 1 for no key update", ())
            task = asyncio.create_task(ledger.submit([once], deadline_s=60))
            while not await db.pool.fetchval(WAITING):  # noqa: ASYNC110 - no event tells it
                await asyncio.sleep(0.01)
            durable_server.kill9()
            durable_server.restart()
    assert [result.status for result in await task] == ["created"]
    [again] = await ledger.submit([once])
    assert again.status == "exists"
    assert (await balance_of(db, 1, ALICE)).posted == 6
    assert (await verify(db)).is_sound
    await ledger.close()
    await db.close()


WAITING = """
    select count(*) from pg_stat_activity
     where datname = current_database() and wait_event_type = 'Lock'"""

"""Dying anywhere inside a submission loses nothing that was answered and doubles nothing."""

from __future__ import annotations

import asyncio
import signal
import sys
from uuid import UUID

import pytest

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
from tongbao.infra.migrate import migrate
from tongbao.kernel.clock import Clock
from tongbao.kernel.licence import Licence
from tongbao.ledger.book import Ledger
from tongbao.ledger.queries import balance_of
from tongbao.ledger.verify import verify

DYING = [
    ("ledger.before_head", "created"),
    ("ledger.before_commit", "created"),
    ("ledger.after_commit", "exists"),
]


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
    reaches_it = place != "ledger.before_head"
    if reaches_it:
        with pytest.raises(failpoints.SimulatedCrash):
            await ledger.submit([once])
    failpoints.arm(None)
    await ledger.submit([group(single(100, BANK, ALICE))])
    [again] = await ledger.submit([once])
    assert again.status == ("refused" if afterwards == "exists" else "created")
    assert (await verify(db)).is_sound


CHILD = """
import asyncio, sys
from uuid import UUID
from tongbao.infra import db as database
from tongbao.kernel.clock import Clock
from tongbao.kernel.licence import Licence
from tongbao.ledger.book import Ledger
from tongbao.ledger.model import AccountKey, Group, Transfer, TransferKind

async def main():
    db = await database.connect(sys.argv[1], Clock())
    wallet = AccountKey("wallet", "CNY", UUID(int=0xA11CE))
    line = Transfer(UUID(int=1), TransferKind.SINGLE, "test/leg", UUID(int=2), 100,
                    AccountKey("bank", "CNY"), wallet)
    print(await Ledger(db, Licence.BANK).submit([Group(UUID(int=3), 1, (line,))]))

asyncio.run(main())
"""


@pytest.mark.parametrize(("place", "afterwards"), DYING)
async def test_a_process_killed_mid_statement_leaves_all_or_nothing(
    db, dsn, ledger, place, afterwards
):
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        CHILD,
        dsn,
        env={"PYTHONPATH": ":".join(sys.path), failpoints.VARIABLE: f"{place}:kill9"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    said, complained = await child.communicate()
    assert (child.returncode, said) == (-signal.SIGKILL, b""), complained
    line = single(100, BANK, ALICE)
    line = type(line)(
        UUID(int=1), line.kind, line.code, UUID(int=2), line.amount, line.debit, line.credit
    )
    assert await outcome(ledger, line, id=UUID(int=3)) == (afterwards, None)
    assert (await balance_of(db, 1, ALICE)).posted == 100
    assert (await verify(db)).is_sound


async def test_what_was_answered_survives_a_power_cut(durable_server):
    db = await database.connect(durable_server.running.dsn, Clock())
    await migrate(db, Licence.BANK, "tests")
    ledger = Ledger(db, Licence.BANK)
    refused = group(single(10_000, ALICE, BOB))
    assert (await ledger.submit([refused]))[0].status == "refused"
    asked = [group(single(1 + n, BANK, ALICE)) for n in range(2000)]
    answered, under_way = [], asyncio.Event()

    async def submitter(groups):
        for each in groups:
            [result] = await ledger.submit([each])
            assert result.status == "created"
            answered.append(each)
            if len(answered) == 40:
                under_way.set()

    submitters = [asyncio.create_task(submitter(asked[n::4])) for n in range(4)]
    await under_way.wait()
    durable_server.kill9()
    outcomes = await asyncio.gather(*submitters, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {database.DatabaseUnavailable}, outcomes
    db.pool.terminate()
    durable_server.restart()
    db = await database.connect(durable_server.running.dsn, Clock())
    ledger = Ledger(db, Licence.BANK)
    assert {result.status for result in await ledger.submit(answered)} == {"exists"}
    open_ends = [result.status for result in await ledger.submit(asked[:200])]
    assert set(open_ends) <= {"exists", "created"}
    await ledger.submit([group(single(100_000, BANK, ALICE))])
    assert (await ledger.submit([refused]))[0].status == "refused"
    report = await verify(db)
    assert report.is_sound, report.broken
    await db.close()

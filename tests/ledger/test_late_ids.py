"""A code paid long after it was shown: its transfers lie far from those of their commit."""

from __future__ import annotations

import json
from uuid import UUID, uuid4

import pytest

from tests.ledger.making import ALICE, BANK, MERCHANT, group
from tongbao.infra.crypto import Keyring
from tongbao.kernel.clock import real_now
from tongbao.kernel.ids import derived_id
from tongbao.ledger.decision.spans import merged
from tongbao.ledger.general import _store as general
from tongbao.ledger.general.proving import check_general_ledger
from tongbao.ledger.general.vouchers import build_vouchers, coverage
from tongbao.ledger.model import Transfer, TransferKind
from tongbao.ledger.poster import _store as poster
from tongbao.ledger.proofs import _store as proofs
from tongbao.ledger.proofs.checkpoints import audit_whole, prove_now
from tongbao.ledger.proofs.model import Proofs
from tongbao.ledger.queries import balance_of
from tongbao.ledger.verify import verify

SHOWN_S = 1800
EVERY_S = 5
LATE_S = (12, 600, 1234)
"""Between the seconds at which the others were made, and in no order."""


def made_ago(seconds, amount, debit, credit):
    """A transfer of a payment that was made so long ago, and happens now."""
    ms = int(real_now().timestamp() * 1000) - round(seconds * 1000)
    tail = uuid4().int & ((1 << 62) - 1)
    reference = UUID(int=ms << 80 | 0x7 << 76 | 0b10 << 62 | tail)
    single = TransferKind.SINGLE
    return Transfer(
        derived_id(reference, "leg"), single, "test/leg", reference, amount, debit, credit
    )


@pytest.fixture
async def late_book(db, ledger):
    """Half an hour of payments in many commits, then one commit of fresh and late ones."""
    await ledger.submit([group(made_ago(SHOWN_S + 60, 100_000, BANK, ALICE))])
    for start in range(SHOWN_S, 0, -60):
        times = range(start, start - 60, -EVERY_S)
        await ledger.submit([group(made_ago(each, 1, ALICE, MERCHANT)) for each in times])
    last = [group(made_ago(ago, 2, ALICE, MERCHANT)) for ago in (0, *LATE_S, 0)]
    results = await ledger.submit(last)
    assert [each.status for each in results] == ["created"] * len(last)
    assert await balance_of(db, 1, MERCHANT)
    return db


async def last_batch(db):
    [row] = await db.pool.fetch("select * from ledger_batch order by batch desc limit 1")
    return row


async def test_a_commit_keeps_the_stretches_of_its_ids(late_book):
    row = await last_batch(late_book)
    ids = [
        each["id"]
        for each in await late_book.pool.fetch(
            "select id from ledger_transfer where seq >= $1 order by id", row["first_seq"]
        )
    ]
    assert len(ids) == row["transfers"] == 2 + len(LATE_S)
    late = [end for id_ in ids[: len(LATE_S)] for end in (id_, id_)]
    assert row["spans"] == [*late, ids[-2], ids[-1]]


async def test_everything_behind_the_journal_comes_out_exact(late_book, tmp_path):
    transfers = await late_book.pool.fetchval("select count(*) from ledger_transfer")
    paid = SHOWN_S // EVERY_S + 2 * (2 + len(LATE_S))
    assert (await balance_of(late_book, 1, MERCHANT)).posted == paid
    assert (await verify(late_book)).is_sound

    await build_vouchers(late_book, 1)
    assert (await coverage(late_book, 1)).covered_seq == transfers
    assert await check_general_ledger(late_book, 1) == []

    proving = Proofs(late_book, Keyring.from_file(tmp_path / "kek"))
    await prove_now(proving)
    size = await late_book.pool.fetchval("select size from ledger_tree where book = 1")
    assert size == transfers
    await audit_whole(proving)


@pytest.mark.parametrize("query", [poster.PROJECT, proofs.ROWS, general.MOVEMENTS])
async def test_as_many_rows_are_read_as_are_kept(late_book, query):
    """The book is small, so the planner is told not to read all of it; a wide range still would."""
    row = await last_batch(late_book)
    first, last = row["first_seq"], row["first_seq"] + row["transfers"] - 1
    after = first - 1 if query is poster.PROJECT else first
    async with late_book.begin("tests") as tx:
        await tx.execute("select set_config('enable_seqscan', 'off', true)", ())
        await tx.execute("select set_config('enable_bitmapscan', 'off', true)", ())
        [found] = await tx.fetch(
            f"explain (analyze, timing off, format json) {query.sql}",
            (1, *merged([row["spans"]]), after, last),
        )
    scans = scans_of(json.loads(found[0])[0]["Plan"])
    assert {each["Node Type"] for each in scans} == {"Index Scan"}
    assert sum(map(rows_read, scans)) < 2 * row["transfers"]


def scans_of(node):
    """Every look into the journal below this node of a plan."""
    own = [node] if node.get("Relation Name", "").startswith("ledger_transfer") else []
    return own + [scan for each in node.get("Plans", ()) for scan in scans_of(each)]


def rows_read(scan):
    return (scan["Actual Rows"] + scan.get("Rows Removed by Filter", 0)) * scan["Actual Loops"]

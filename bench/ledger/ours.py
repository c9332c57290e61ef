"""Ours: one poster, group commit, journal first; (c) balances in the commit, (d) behind it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Final
from uuid import UUID

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from bench.ledger.figures import Figures
from bench.ledger.workloads import FUNDED, Drawn, Workload
from tongbao.infra.db import Db, connect
from tongbao.infra.migrate import migrate
from tongbao.kernel.clock import Clock, monotonic, real_now
from tongbao.kernel.ids import derived_id, new_id
from tongbao.kernel.licence import Licence
from tongbao.ledger.book import Ledger
from tongbao.ledger.decision.records import COMMAND, Batch
from tongbao.ledger.model import BOOK_SHIFT, NOBODY, AccountKey, Group, Transfer, TransferKind

BOOK: Final = 1
CODE: Final = 1
CODE_NAME: Final = "bench/single"
MODES: Final = {
    "(c) ours, balances in the commit": "with_commit",
    "(d) ours, balances behind": "behind",
}
_FIRST: Final = (BOOK << BOOK_SHIFT) + 1_000_000  # near the first, as the door numbers them
_BANK: Final = _FIRST - 1
_OWNER: Final = 0xBE << 100
_FUNDING: Final = 4000
_READY_PER_SECOND: Final = 30_000


class Bench(Struct, frozen=True):
    """A ledger with its accounts opened and funded."""

    db: Db
    ledger: Ledger
    keys: list[AccountKey]

    @property
    def accounts(self) -> int:
        """How many accounts there are."""
        return len(self.keys)


def ids(n: int) -> NDArray[np.void]:
    """Return n fresh ids in time order, as UUIDv7: one millisecond, then a count, then chance."""
    words = np.empty((n, 2), ">u8")
    tick = int(real_now().timestamp() * 1000)
    count = np.arange(n, dtype=np.uint64)
    words[:, 0] = (np.uint64(tick) + (count >> np.uint64(12)) << np.uint64(16)) | np.uint64(0x7000)
    words[:, 0] |= count & np.uint64(0xFFF)
    words[:, 1] = np.frombuffer(os.urandom(8 * n), np.uint64) >> np.uint64(2) | np.uint64(1 << 63)
    return np.frombuffer(words.tobytes(), "V16")


def batch(drawn: Drawn) -> Batch:
    """Return the drawn transfers as the poster takes them."""
    n = len(drawn)
    records = np.zeros(n, COMMAND)
    made = ids(n)
    records["id"] = made
    records["reference"] = made
    records["debit"] = drawn.debit + _FIRST
    records["credit"] = drawn.credit + _FIRST
    records["amount"] = drawn.amount
    records["code"] = CODE
    records["kind"] = TransferKind.SINGLE
    starts = np.arange(n + 1, dtype=np.int64)
    if drawn.holds:
        records["kind"][0::2] = TransferKind.PENDING
        records["kind"][1::2] = TransferKind.POST
        records["pending_id"][1::2] = made[0::2]
        records["debit"][1::2] = records["credit"][1::2] = 0
    if drawn.linked:
        starts = starts[::2].copy()
    return Batch(
        records, starts, records["id"][starts[:-1]].copy(), np.zeros(len(starts) - 1, np.int16)
    )


@asynccontextmanager
async def opened(dsn: str, mode: str, accounts: int, workload: Workload) -> AsyncIterator[Bench]:
    """Open a database of its own with the accounts in it, funded through the ledger."""
    db = await connect(dsn, Clock(), connections_max=8)
    ledger = Ledger(db, Licence.PAYMENT_INSTITUTION, balances=mode)
    try:
        await migrate(db, Licence.PAYMENT_INSTITUTION, "bench")
        await _open_accounts(db, accounts)
        poor = accounts - int(accounts * workload.poor)
        for begin in range(0, poor, _FUNDING):
            many = np.arange(begin, min(begin + _FUNDING, poor))
            funding = Drawn(np.full(len(many), -1), many, np.full(len(many), FUNDED))
            codes = await ledger.submit_batch(BOOK, batch(funding))
            if codes.any():
                raise AssertionError(f"funding was refused: {codes[codes != 0][:3]}")
        await db.execute("vacuum analyze", ())
        keys = [AccountKey("wallet", "CNY", UUID(int=_OWNER + n)) for n in range(accounts)]
        yield Bench(db, ledger, keys)
    finally:
        await ledger.close()
        await db.close()


async def _open_accounts(db: Db, accounts: int) -> None:
    now = db.clock.now()
    await db.execute("insert into ledger_code (number, code) values ($1, $2)", (CODE, CODE_NAME))
    columns = (
        "insert into ledger_account (book, id, kind, owner, currency, side, floor, ceiling, state,"
        " debits_pending, debits_posted, credits_pending, credits_posted, touches, last_transfer,"
        " opened_at)"
        " select $1, n.id, $2, n.owner, 'CNY', $3, $4, null, 'open', 0, 0, 0, 0, 0, null, $5"
        " from unnest($6::bigint[], $7::uuid[]) as n (id, owner)"
    )
    await db.execute(columns, (BOOK, "bank", "debit", None, now, [_BANK], [NOBODY]))
    for begin in range(0, accounts, 10_000):
        numbers = range(begin, min(begin + 10_000, accounts))
        owners = [UUID(int=_OWNER + number) for number in numbers]
        made = [_FIRST + number for number in numbers]
        await db.execute(columns, (BOOK, "wallet", "credit", 0, now, made, owners))


async def run_batches(
    bench: Bench, workload: Workload, *, size: int, seconds: float, callers: int = 8
) -> Figures:
    """Let several callers post batches of this size, each one after the other."""
    latencies: list[float] = []
    counted = [0, 0]
    before = await _last_seq(bench.db)
    begins = monotonic()

    async def caller(number: int) -> None:
        rng = np.random.default_rng(number)
        while monotonic() - begins < seconds:
            made = batch(workload.draw(rng, size, bench.accounts))
            started = monotonic()
            codes = await bench.ledger.submit_batch(BOOK, made)
            latencies.append(monotonic() - started)
            lengths = np.diff(made.starts)
            counted[0] += len(made.records)
            counted[1] += int(lengths[codes != 0].sum())

    await asyncio.gather(*[caller(number) for number in range(callers)])
    figures = Figures(counted[0], counted[1], monotonic() - begins, latencies)
    await check(bench, figures, before)
    return figures


async def run_callers(
    bench: Bench,
    workload: Workload,
    *,
    callers: int,
    seconds: float,
    offered: float | None = None,
) -> Figures:
    """Let so many callers post one group after the other through the same door as the platform.

    With ``offered`` they pause so that together they ask for that many transfers a second.
    """
    latencies: list[float] = []
    counted = [0, 0]
    before = await _last_seq(bench.db)
    await _know_every_account(bench)
    drawing = _drawing(bench, workload, int(seconds * (offered or _READY_PER_SECOND)))
    begins = monotonic()
    share = None if offered is None else callers / offered

    async def caller(number: int) -> None:
        due = begins + number / callers * (share or 0)
        for group in drawing:
            if share is not None:
                due += share * len(group.transfers)
                await asyncio.sleep(max(due - monotonic(), 0))
            started = monotonic()
            if started - begins >= seconds:
                return
            [result] = await bench.ledger.submit([group])
            latencies.append(monotonic() - (started if share is None else due))
            counted[0] += len(group.transfers)
            counted[1] += 0 if result.happened else len(group.transfers)

    await asyncio.gather(*[caller(number) for number in range(callers)])
    figures = Figures(counted[0], counted[1], monotonic() - begins, latencies)
    await check(bench, figures, before)
    return figures


def _drawing(bench: Bench, workload: Workload, ready: int) -> Iterator[Group]:
    """Yield groups for ever; so many are made before anybody asks, so that making is not timed."""
    rng = np.random.default_rng(1)
    made = groups(bench, workload.draw(rng, ready, bench.accounts))

    def yielding() -> Iterator[Group]:
        yield from made
        while True:
            yield from groups(bench, workload.draw(rng, 100, bench.accounts))

    return yielding()


def groups(bench: Bench, drawn: Drawn) -> list[Group]:
    """Return the drawn transfers as the platform would ask for them."""
    rows = zip(drawn.debit.tolist(), drawn.credit.tolist(), drawn.amount.tolist(), strict=True)
    made: list[Transfer] = []
    for place, (debit, credit, amount) in enumerate(rows):
        payer, payee = bench.keys[debit], bench.keys[credit]
        second = place % 2 == 1 and (drawn.linked or drawn.holds)
        reference = made[-1].reference if second else new_id()
        if drawn.holds and second:
            end = derived_id(reference, "post")
            held = made[-1].id
            made.append(Transfer(end, TransferKind.POST, CODE_NAME, reference, pending_id=held))
            continue
        kind = TransferKind.PENDING if drawn.holds else TransferKind.SINGLE
        made.append(
            Transfer(
                id=derived_id(reference, str(second)),
                kind=kind,
                code=CODE_NAME,
                reference=reference,
                amount=amount,
                debit=payer,
                credit=payee,
            )
        )
    size = 2 if drawn.linked else 1
    return [
        Group(made[place].id, BOOK, tuple(made[place : place + size]))
        for place in range(0, len(made), size)
    ]


async def check(bench: Bench, figures: Figures, before: int) -> None:
    """Compare what was answered with what is stored, and add the book up.

    Raises:
        AssertionError
    """
    head = await _last_seq(bench.db)
    if figures.transfers - figures.refused != head - before:
        raise AssertionError(f"{figures.transfers=} {figures.refused=} stored {head - before}")
    await _caught_up(bench.db, head)
    [row] = await bench.db.fetch(
        "select sum(debits_posted) = sum(credits_posted) as posted,"
        " sum(debits_pending) = sum(credits_pending) as pending,"
        " sum(touches) = 2 * $2 as touched,"
        " bool_and(floor is null or"
        "  credits_posted - debits_posted - debits_pending >= floor) as above"
        " from ledger_account where book = $1",
        (BOOK, head),
    )
    [stored] = await bench.db.fetch(
        "select count(*) as n, max(seq) as last from ledger_transfer where book = $1", (BOOK,)
    )
    if not all(row.values()) or stored["n"] != head or stored["last"] != head:
        raise AssertionError(f"the book does not add up: {dict(row)}, {dict(stored)}, head {head}")


async def lag(db: Db) -> int:
    """Return how many transfers the balances are behind."""
    [row] = await db.fetch(
        "select b.last_seq - w.seq as lag from ledger_book b join ledger_watermark w using (book)"
        " where book = $1",
        (BOOK,),
    )
    return int(row["lag"])


async def _caught_up(db: Db, head: int) -> None:
    while (behind := await lag(db)) > 0:
        if head == 0:
            raise AssertionError(f"{behind} behind an empty book")
        await asyncio.sleep(0.01)


async def _last_seq(db: Db) -> int:
    [row] = await db.fetch("select last_seq from ledger_book where book = $1", (BOOK,))
    return int(row["last_seq"])


async def _know_every_account(bench: Bench) -> None:
    """Let the door learn the numbers of the accounts, as it has after its first minutes."""
    step = 2000
    for begin in range(0, bench.accounts, step):
        numbers = np.arange(begin, min(begin + step, bench.accounts))
        named = Drawn(numbers, numbers[::-1], np.ones_like(numbers))
        await bench.ledger._names.learn(BOOK, groups(bench, named))

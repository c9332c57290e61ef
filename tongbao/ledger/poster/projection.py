"""Balances behind the journal: the one way in which accounts follow what was committed.

The same statement serves the commit that carries its balances, the follower right behind it, and
the recovery after a crash. It adds up a stretch of the journal by account, marks every 64th touch,
and moves the watermark in the same transaction, whose row lock makes every two of them take turns.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import structlog
from prometheus_client import Gauge

from tongbao.infra.db import CheckViolated, DatabaseUnavailable, Db, LockNotFree, Tx
from tongbao.infra.failpoints import failpoint
from tongbao.ledger.decision.spans import merged
from tongbao.ledger.poster import _store as store
from tongbao.ledger.poster._store import BatchRange
from tongbao.ledger.rows import LedgerBook, LedgerWatermark

ACTOR: Final = "ledger"
CHUNK: Final = 48_000
_BATCHES_MAX: Final = 512
_RETRY_S: Final = 0.2

_LAG = Gauge(
    "tongbao_ledger_lag_transfers",
    "Committed transfers that the balances of a book do not have yet",
    ["book"],
)
_log = structlog.get_logger()


class JournalBroken(Exception):
    """The journal is not what its batches say, or moves an account past what its table allows."""


async def project_next(tx: Tx, book: int, until_batch: int) -> LedgerWatermark:
    """Let the balances follow by one stretch, at most to that batch, and return how far they are.

    Raises:
        JournalBroken: a breach; nobody may write the book before it is understood.
    """
    mark = await store.LOCK_WATERMARK.one(tx, book)
    ranges = await store.NEXT_BATCHES.all(tx, book, mark.batch, until_batch, _BATCHES_MAX)
    stretch = _stretch(ranges)
    if not stretch:
        return mark
    if stretch[0].batch != mark.batch + 1 or stretch[0].first_seq != mark.seq + 1:
        raise JournalBroken(f"batch {mark.batch + 1} is not where the balances end")
    after = LedgerWatermark(
        book, seq=mark.seq + sum(each.transfers for each in stretch), batch=stretch[-1].batch
    )
    if after.seq > mark.seq:
        await _add_up(tx, mark, after, stretch)
    await store.MOVE_WATERMARK.run(tx, book, mark.batch, after.seq, after.batch)
    return after


def _stretch(ranges: Sequence[BatchRange]) -> list[BatchRange]:
    """Return as many batches as go into one transaction."""
    taken: list[BatchRange] = []
    transfers = 0
    for each in ranges:
        transfers += each.transfers
        if taken and transfers > CHUNK:
            break
        taken.append(each)
    return taken


async def _add_up(
    tx: Tx, mark: LedgerWatermark, after: LedgerWatermark, stretch: Sequence[BatchRange]
) -> None:
    lows, highs = merged(each.spans for each in stretch)
    await store.BY_KEY_ONLY.run(tx)
    try:
        met = await store.PROJECT.one(tx, mark.book, lows, highs, mark.seq, after.seq)
    except CheckViolated as violated:
        raise JournalBroken(str(violated)) from violated
    if met.transfers != after.seq - mark.seq:
        raise JournalBroken(f"{met.transfers} transfers after {mark.seq}, up to {after.seq}")
    if met.accounts != met.moved:
        raise JournalBroken(f"{met.accounts - met.moved} accounts missing, up to {after.seq}")


async def catch_up(db: Db, head: LedgerBook) -> None:
    """Let the balances follow to the head, in as many transactions as that takes.

    Raises:
        JournalBroken
    """
    while True:
        async with db.begin(ACTOR) as tx:
            mark = await project_next(tx, head.book, head.last_batch)
        if mark.batch >= head.last_batch:
            return


async def catch_up_within(tx: Tx, head: LedgerBook) -> None:
    """As `catch_up`, as part of the caller's transaction, which holds the head row.

    Raises:
        JournalBroken
    """
    while (await project_next(tx, head.book, head.last_batch)).batch < head.last_batch:
        pass


class Follower:
    """Takes the balances of one book along behind its commits; at rest there is no task."""

    def __init__(self, db: Db, book: int) -> None:
        self._db = db
        self._book = book
        self._batch = 0
        self._seq = 0
        self._mark = LedgerWatermark(book, 0, 0)
        self._task: asyncio.Task[None] | None = None
        self._moved = asyncio.Condition()
        self.breach: str | None = None
        self._lag = _LAG.labels(str(book))

    @property
    def lag(self) -> int:
        """How many transfers the balances are behind."""
        return self._seq - self._mark.seq

    def start_from(self, seq: int, batch: int) -> None:
        """Say how far journal and balances both are."""
        self._seq, self._batch = seq, batch
        self._mark = LedgerWatermark(self._book, seq, batch)
        self.breach = None

    def follow(self, seq: int, batch: int) -> None:
        """Say how far the journal has come."""
        self._seq, self._batch = max(seq, self._seq), max(batch, self._batch)
        self._lag.set(self.lag)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name=f"ledger balances {self._book}")

    async def wait_below(self, lag: int) -> None:
        """Return once the balances are at most so many transfers behind, or cannot follow."""
        async with self._moved:
            await self._moved.wait_for(lambda: self.lag <= lag or self.breach is not None)

    async def close(self) -> None:
        """Stop following; whoever takes the book next goes on from here."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while self._mark.batch < self._batch and self.breach is None:
            try:
                await self._step()
            except (DatabaseUnavailable, LockNotFree):
                await asyncio.sleep(_RETRY_S)
            except JournalBroken as breach:
                self.breach = f"balances: {breach}"
                _log.error("ledger_balances_broken", book=self._book, because=self.breach)
            async with self._moved:
                self._moved.notify_all()

    async def _step(self) -> None:
        failpoint("ledger.before_projection")
        async with self._db.begin(ACTOR) as tx:
            mark = await project_next(tx, self._book, self._batch)
        failpoint("ledger.after_projection")
        self._mark = mark
        self._lag.set(self.lag)

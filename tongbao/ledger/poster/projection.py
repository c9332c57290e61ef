"""Balances behind the journal: how accounts follow what was committed, and how far they are.

A book's writer knows what its commits do to accounts, and writes the sums: in the commit itself, or
for many commits at once right behind them. Where nobody remembers, after a crash or for a book that
somebody else wrote, one statement adds the journal up by account. Either way the watermark moves in
the same transaction, whose row lock makes every two of them take turns.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Final

import numpy as np
import structlog
from msgspec import Struct
from prometheus_client import Gauge

from tongbao.infra.db import Db, Tx, uuids
from tongbao.infra.db_failures import CheckViolated, DatabaseUnavailable, LockNotFree
from tongbao.infra.failpoints import failpoint
from tongbao.ledger.decision.memory import Marks, Moved
from tongbao.ledger.decision.records import Records, Whole
from tongbao.ledger.decision.spans import merged
from tongbao.ledger.poster import _store as store
from tongbao.ledger.poster._store import BatchRange
from tongbao.ledger.rows import LedgerBook, LedgerWatermark

ACTOR: Final = "ledger"
CHUNK: Final = 100_000
_ACCOUNTS_AT_ONCE: Final = 2_048  # more would keep the loop from everybody else for longer
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


class Sums(Struct, frozen=True):
    """Accounts, ascending, and how their rows change."""

    accounts: Whole
    touches_before: Whole
    touches: Whole
    changes: Whole  # of the four counters, a row per account
    last: Records  # the id of the transfer that touched each account last
    marks: Marks


def summed(moved: Sequence[Moved]) -> Sums:
    """Add up consecutive decisions of one book that moved something, the earliest first."""
    accounts = np.concatenate([each.accounts for each in moved])
    changes = np.concatenate([each.counters - each.counters_before for each in moved])
    order = accounts.argsort(kind="stable")  # so the earliest of an account comes first
    accounts = accounts[order]
    begins = np.ones(len(accounts), np.bool_)
    np.not_equal(accounts[1:], accounts[:-1], out=begins[1:])
    [starts] = begins.nonzero()
    ends = np.append(starts[1:], len(accounts)) - 1
    touches = np.concatenate([each.touches for each in moved])[order]
    before = np.concatenate([each.touches_before for each in moved])[order]
    return Sums(
        accounts=accounts[starts],
        touches_before=before[starts],
        touches=np.add.reduceat(touches, starts),
        changes=np.add.reduceat(changes[order], starts),
        last=np.concatenate([each.last for each in moved])[order][ends],
        marks=Marks(
            np.concatenate([each.marks.accounts for each in moved]),
            np.concatenate([each.marks.seqs for each in moved]),
            np.concatenate([each.marks.ids for each in moved]),
        ),
    )


class Carried(Struct, frozen=True):
    """A commit whose balances are to follow, as its writer remembers it."""

    batch: int
    transfers: int
    moved: Moved


async def carry(tx: Tx, book: int, mark: LedgerWatermark, commits: Sequence[Carried]) -> bool:
    """Let the balances follow by these commits, which begin right behind the watermark.

    Returns False, and has done nothing, when the watermark is elsewhere.

    Raises:
        JournalBroken: an account is not as its writer remembers it.
    """
    last = commits[-1].batch
    seq = mark.seq + sum(each.transfers for each in commits)
    if not await store.MOVE_WATERMARK.run(tx, book, mark.batch, seq, last):
        return False
    moved = [each.moved for each in commits if each.transfers]
    if not moved:  # nothing but refusals
        return True
    sums = summed(moved)
    await store.BY_KEY_ONLY.run(tx)
    for first in range(0, len(sums.accounts), _ACCOUNTS_AT_ONCE):
        await _change(tx, book, sums, slice(first, first + _ACCOUNTS_AT_ONCE))
    marks = sums.marks
    if len(marks.seqs):
        ids = uuids(marks.ids.tolist())
        await store.MARK.run(tx, book, marks.accounts.tolist(), marks.seqs.tolist(), ids)
    return True


async def _change(tx: Tx, book: int, sums: Sums, some: slice) -> None:
    accounts: list[int] = sums.accounts[some].tolist()
    changes = sums.changes[some]
    try:
        changed = await store.CARRY.run(
            tx,
            book,
            accounts,
            sums.touches_before[some].tolist(),
            sums.touches[some].tolist(),
            uuids(sums.last[some].tolist()),
            # A counter that nothing changes is left out, which is nearly always true of two.
            *([] if not column.any() else column.tolist() for column in changes.T),
        )
    except CheckViolated as violated:
        raise JournalBroken(str(violated)) from violated
    if changed != len(accounts):
        what = f"{len(accounts) - changed} accounts are not as their writer left them"
        raise JournalBroken(f"{what}, from {accounts[0]} to {accounts[-1]}")


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
        self._carried: deque[Carried] = deque()
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
        self._carried.clear()
        self.breach = None

    def follow(self, seq: int, carried: Carried) -> None:
        """Say how far the journal has come, and by which commit."""
        self._seq, self._batch = max(seq, self._seq), max(carried.batch, self._batch)
        self._carried.append(carried)
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
        # Whoever takes the book anew says how far it is while this waits for the database: commits
        # that lie behind the mark of now, put behind that one, would look like a breach.
        before, commits = self._mark, self._next_commits()
        async with self._db.begin(ACTOR) as tx:
            if commits and await carry(tx, self._book, before, commits):
                mark = _behind(before, commits)
            else:
                mark = await project_next(tx, self._book, self._batch)
        failpoint("ledger.after_projection")
        if mark.batch > self._mark.batch:
            self._mark = mark
        self._lag.set(self.lag)

    def _next_commits(self) -> list[Carried]:
        """Return the commits right behind the watermark, as far as they are remembered."""
        while self._carried and self._carried[0].batch <= self._mark.batch:
            self._carried.popleft()
        taken: list[Carried] = []
        transfers, due = 0, self._mark.batch + 1
        for each in self._carried:
            transfers += each.transfers
            if each.batch != due or (taken and transfers > CHUNK):
                break
            taken.append(each)
            due += 1
        return taken


def _behind(mark: LedgerWatermark, commits: Sequence[Carried]) -> LedgerWatermark:
    transfers = sum(each.transfers for each in commits)
    return LedgerWatermark(mark.book, seq=mark.seq + transfers, batch=commits[-1].batch)

"""Building vouchers behind the journal.

A range is the next stretch of commits that nobody summed up yet. Its row, its vouchers and the
totals of its days are one transaction, and the keys of the table of ranges let only one range begin
where another ended: however many workers build, every commit is summed up exactly once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, timedelta
from typing import Final

from prometheus_client import Gauge

from tongbao.infra.db import Db, Tx
from tongbao.infra.failpoints import failpoint
from tongbao.infra.tasks import Again, Lease, RetryPolicy, Task, enqueue
from tongbao.ledger.decision.spans import merged
from tongbao.ledger.general import _store as store
from tongbao.ledger.general._store import BatchSpan, Covered
from tongbao.ledger.general.accounts import NUMBER_OF
from tongbao.ledger.general.model import JournalIncomplete, Line, lines_of
from tongbao.ledger.model import BookMissing

TRANSFERS_MAX: Final = 50_000
_BATCHES_MAX: Final = 10_000
_RANGES_A_RUN: Final = 20
_EVERY: Final = timedelta(seconds=20)
_SOON: Final = timedelta(seconds=1)
_ACTOR: Final = "general_ledger"

BUILD_POLICY: Final = RetryPolicy(attempts_max=1_000_000, delays=(_EVERY,))
"""It is the only task of its kind, and only a restart would ask for it again: it never gives up."""

_LAG = Gauge(
    "tongbao_general_ledger_lag_transfers", "Committed transfers that no voucher has yet", ["book"]
)


class BuildVouchers(Task, frozen=True, tag="ledger.build_vouchers"):
    """Sum up what was committed since the last vouchers, in every book."""


async def seed(tx: Tx) -> None:
    """Start the rounds, unless they run already."""
    await enqueue(tx, BuildVouchers(), key="always")


async def run_build_vouchers(db: Db, _task: BuildVouchers, _lease: Lease) -> Again:
    """Do one round and come back: soon when a book had more than one round takes."""
    is_behind = False
    for book in await store.LIST_BOOKS.all(db):
        built = await build_vouchers(db, book, ranges_max=_RANGES_A_RUN)
        is_behind = is_behind or built == _RANGES_A_RUN
        covered = await coverage(db, book)
        _LAG.labels(str(book)).set(covered.last_seq - covered.covered_seq)
    return Again(_SOON if is_behind else _EVERY)


async def coverage(on: Db | Tx, book: int) -> Covered:
    """Return how far the vouchers of a book cover its commits.

    Raises:
        BookMissing
    """
    found = await store.COVERED.first(on, book)
    if found is None:
        raise BookMissing(book=book)
    return found


async def build_vouchers(db: Db, book: int, *, ranges_max: int | None = None) -> int:
    """Sum up what is committed and not summed up yet; return how many ranges that made.

    Raises:
        BookMissing, JournalIncomplete
    """
    made = 0
    while ranges_max is None or made < ranges_max:
        async with db.begin(_ACTOR) as tx:
            if not await build_next(tx, book):
                return made
            failpoint("ledger.before_vouchers_commit")
        made += 1
    return made


async def build_next(tx: Tx, book: int, *, transfers_max: int = TRANSFERS_MAX) -> bool:
    """Sum up the next range in the caller's transaction; False when there is none to do.

    Raises:
        BookMissing
        JournalIncomplete: some of it is in the archive, or nowhere; nobody can sum it up here.
    """
    covered = await coverage(tx, book)
    spans = _stretch(
        await store.BATCHES_AFTER.all(
            tx, book, covered.covered_batch, covered.last_batch, _BATCHES_MAX
        ),
        transfers_max,
    )
    if not spans:
        return False
    if spans[0].batch != covered.covered_batch + 1:
        raise RuntimeError(f"book {book} has no batch {covered.covered_batch + 1}")
    lines, transfers = await derive_lines(tx, book, spans)
    # A builder that was faster has this row already, and then we add nothing.
    if not await store.ADD_RANGE.run(
        tx, book, spans[0].batch, spans[-1].batch, sum(transfers.values()), tx.now
    ):
        return False
    if lines:
        await _add_vouchers(tx, book, spans, lines, transfers=transfers)
    return True


async def derive_lines(
    tx: Tx, book: int, spans: Sequence[BatchSpan]
) -> tuple[list[Line], dict[date, int]]:
    """Return what commits moved, as voucher lines, and how many transfers each day has.

    Raises:
        JournalIncomplete
    """
    lows, highs = merged(each.spans for each in spans)
    if not lows:
        return [], {}
    first, last = spans[0].first_seq, spans[-1].first_seq + spans[-1].transfers - 1
    sums = await store.MOVEMENTS.all(tx, book, lows, highs, first, last)
    seen = sum(each.seen for each in sums)
    if seen != last - first + 1:
        raise JournalIncomplete(f"book {book}: {seen} of transfers {first} to {last}")
    moved = [each for each in sums if each.transfers]
    transfers: dict[date, int] = {}
    for each in moved:
        transfers[each.biz_date] = transfers.get(each.biz_date, 0) + each.transfers
    return lines_of(moved, NUMBER_OF), transfers


async def _add_vouchers(
    tx: Tx,
    book: int,
    spans: Sequence[BatchSpan],
    lines: Sequence[Line],
    *,
    transfers: Mapping[date, int],
) -> None:
    first, last = spans[0].batch, spans[-1].batch
    await store.ADD_VOUCHERS.run(
        tx, book, first, last, list(transfers.keys()), list(transfers.values())
    )
    dates = [line.biz_date for line in lines]
    currencies = [line.currency for line in lines]
    accounts = [line.account for line in lines]
    debits = [line.debits for line in lines]
    credits_ = [line.credits for line in lines]
    await store.ADD_LINES.run(
        tx,
        book,
        last,
        dates,
        currencies,
        [line.code for line in lines],
        accounts,
        debits,
        credits_,
        [line.transfers for line in lines],
    )
    await store.ADD_TO_DAYS.run(tx, book, dates, currencies, accounts, debits, credits_)


def _stretch(spans: Iterable[BatchSpan], transfers_max: int) -> list[BatchSpan]:
    """Return as many commits as go into one range, at least one."""
    taken: list[BatchSpan] = []
    transfers = 0
    for each in spans:
        transfers += each.transfers
        if taken and transfers > transfers_max:
            break
        taken.append(each)
    return taken

"""Partitions made ahead of time, and months sealed: nothing of a sealed month changes any more."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import date
from uuid import UUID

from tongbao.infra import audit
from tongbao.infra.db import Db, Tx
from tongbao.infra.failpoints import failpoint
from tongbao.kernel.clock import real_now
from tongbao.ledger.archive import _store as store
from tongbao.ledger.archive.model import (
    AHEAD,
    PARENTS,
    BookNotSound,
    LedgerMonth,
    MonthHasOpenHolds,
    MonthHasOpenMovements,
    MonthNotProven,
    MonthOutOfTurn,
    Partition,
    check_age,
    first_of,
    lowest_id,
    month_after,
    partition_of,
)
from tongbao.ledger.poster.lease import altering

Prove = Callable[[Db], Awaitable[str | None]]
"""Verifies every book and returns the first breach, or None."""


async def make_months(db: Db, *, ahead: int = AHEAD) -> list[str]:
    """Make the partitions of this month and the next ones that are missing; return their names.

    A month whose first rows went to the default partition stays there. Postings wait for a moment
    at most: what needs a lock for longer is left for the next time.

    Raises:
        LockNotFree
    """
    made = []
    this = first_of(real_now())
    for month in [month_after(this, count) for count in range(ahead + 1)]:
        for parent in PARENTS:
            name = partition_of(parent, month)
            if await store.TABLE_EXISTS.one(db, name):
                continue
            if await _lies_in_default(db, parent, month):
                continue
            async with db.begin("partitions") as tx:
                await store.SHORT_LOCKS.run(tx)
                await store.LOCK_MONTHS.run(tx)
                if not await store.TABLE_EXISTS.one(tx, name):  # another process was faster
                    await store.make_partition(tx, parent, month)
                    made.append(name)
    return made


async def list_partitions(db: Db) -> list[Partition]:
    """Return every partition of the journal and of the recorded answers."""
    return await store.PARTITIONS.all(db)


async def list_months(db: Db) -> list[LedgerMonth]:
    """Return the months that are sealed or archived."""
    return await store.MONTHS.all(db)


async def seal_month(db: Db, month: date, *, actor: str, prove: Prove) -> LedgerMonth:
    """Close a month for good: its ids are refused from now on, and its rows are summed up.

    Every book is fenced for a moment, so that whoever writes it learns of the new horizon.
    Sealing what is sealed already returns it as it is.

    Raises:
        MonthTooYoung, MonthOutOfTurn, MonthHasOpenHolds, MonthHasOpenMovements, MonthNotProven,
        BookNotSound, BookStopped
    """
    sealed = {each.month: each for each in await store.MONTHS.all(db)}
    if month in sealed:
        return sealed[month]
    check_age(month, real_now())
    for partition in await store.PARTITIONS.all(db):
        _check_turn(partition, month, set(sealed))
    breach = await prove(db)
    if breach is not None:
        raise BookNotSound(breach=breach)
    books = await store.BOOKS.all(db)
    low, high = lowest_id(month), lowest_id(month_after(month))
    for book in books:  # before any of them is fenced
        await _check_complete(db, book, high)
    for book in books:
        async with altering(db, book, actor=actor) as (tx, _head):
            await _check_complete(tx, book, high)
            await store.RAISE_HORIZON.run(tx, book, high)
        failpoint("ledger.after_horizon")
    async with db.begin(actor) as tx:
        await store.NO_LIMIT.run(tx)
        await store.INSERT_MONTH.run(tx, month, tx.now)
        for book in books:
            await store.run_long(tx, store.INSERT_MONTH_BOOK, book, month, low, high)
            await store.run_long(tx, store.INSERT_MONTH_ACCOUNTS, book, month, low, high)
        found = await store.MONTH_BOOKS.all(tx, month)
        transfers, requests = sum(b.transfers for b in found), sum(b.requests for b in found)
        await store.COUNT_MONTH.run(tx, month, transfers, requests)
        facts = {"transfers": transfers, "requests": requests}
        await audit.record(tx, "ledger.month_sealed", f"{month:%Y-%m}", facts)
        made = await store.LOCK_MONTH.one(tx, month)
    await _freeze(db, month)
    return made


async def _check_complete(on: Db | Tx, book: int, high: UUID) -> None:
    hold = await store.OPEN_HOLD.first(on, book, high)
    if hold is not None:
        raise MonthHasOpenHolds(book=book, hold=str(hold))
    movement = await store.OPEN_MOVEMENT.first(on, book, high)
    if movement is not None:
        raise MonthHasOpenMovements(book=book, movement=str(movement))
    last = await store.LAST_BATCH.one(on, book, high)
    proven = await store.PROVEN_TO.one(on, book)
    if last > proven:
        raise MonthNotProven(book=book, last_batch=last, proven_to=proven)


def _check_turn(partition: Partition, month: date, sealed: set[date]) -> None:
    tail = partition.name.removeprefix(f"{partition.parent}_")
    if tail == "default":
        return
    own = date.fromisoformat(f"{tail.replace('_', '-')}-01")
    if own < month and own not in sealed:
        raise MonthOutOfTurn(first=f"{own:%Y-%m}")


async def _lies_in_default(db: Db, parent: str, month: date) -> bool:
    query = {
        "ledger_transfer": store.DEFAULT_HAS_TRANSFERS,
        "ledger_request": store.DEFAULT_HAS_REQUESTS,
    }[parent]
    return await query.one(db, lowest_id(month), lowest_id(month_after(month)))


async def _freeze(db: Db, month: date) -> None:
    """Vacuum a month for the last time: no later vacuum has to read it again."""
    for parent in PARENTS:
        name = partition_of(parent, month)
        if await store.TABLE_EXISTS.one(db, name):
            await store.freeze(db, name)

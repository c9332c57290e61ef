"""Postings of months ago: their ids say so, and each such month has a partition."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from uuid import UUID, uuid4

from tongbao.infra.db import Db
from tongbao.kernel.clock import real_now
from tongbao.kernel.ids import derived_id
from tongbao.ledger.archive import _store as store
from tongbao.ledger.archive.model import PARENTS, first_of, month_after
from tongbao.ledger.book import Ledger
from tongbao.ledger.model import AccountKey, Group, Transfer, TransferKind

BANK = AccountKey("bank", "CNY")
ALICE = AccountKey("wallet", "CNY", UUID(int=0xA11CE))
BOB = AccountKey("wallet", "CNY", UUID(int=0xB0B))

MONTH: date = month_after(first_of(real_now()), -6)
"""A month that is old enough to leave."""
NEXT: date = month_after(MONTH)


def reference_in(month: date, day: int = 5) -> UUID:
    """Return an id as it was made on some day of the month."""
    at = datetime(month.year, month.month, day, 12, tzinfo=UTC) + timedelta(
        microseconds=uuid4().int % 10**9
    )
    milliseconds = int(at.timestamp() * 1000)
    return UUID(int=milliseconds << 80 | 0x7 << 76 | uuid4().int & ((1 << 62) - 1) | 0b10 << 62)


def transfer(month: date, amount: int | None, debit, credit, kind=TransferKind.SINGLE, **more):
    reference = reference_in(month)
    return Transfer(
        id=derived_id(reference, "leg"),
        kind=kind,
        code="test/leg",
        reference=reference,
        amount=amount,
        debit=debit,
        credit=credit,
        **more,
    )


def group_of(*transfers: Transfer, book: int = 1) -> Group:
    return Group(transfers[0].id, book, transfers)


async def submit(ledger: Ledger, *groups: Group) -> list[str]:
    return [result.status for result in await ledger.submit(groups)]


async def make_past(db: Db) -> None:
    """Make the partitions that these months would have had."""
    async with db.begin("tests") as tx:
        for month in (MONTH, NEXT):
            for parent in PARENTS:
                await store.make_partition(tx, parent, month)


async def pretend_proven(db: Db, book: int = 1) -> None:
    """Say that vouchers, tree and checkpoints have come as far as the book."""
    last = await db.pool.fetchval("select last_batch from ledger_book where book = $1", book)
    await db.pool.execute(
        "insert into gl_range (book, last_batch, first_batch, transfers, made_at)"
        " select $1, $2, coalesce(max(last_batch), 0) + 1, 0, now() from gl_range where book = $1",
        book,
        last,
    )
    await db.pool.execute(
        "insert into ledger_tree (book, size, batch, head_hash, frontier, block_batch, audited,"
        " checkpoints) values ($1, 0, $2::bigint, $3, '', $2::bigint + 1, 0, 1)"
        " on conflict (book) do update set block_batch = excluded.block_batch",
        book,
        last,
        bytes(32),
    )
    await db.pool.execute(
        "insert into ledger_checkpoint (book, number, size, batch, root, head_hash, frontier,"
        " codes, codes_root, at, note)"
        " select $1, coalesce(max(number), 0) + 1, 0, $2, $3, $3, '', 0, $3, now(), ''"
        " from ledger_checkpoint where book = $1",
        book,
        last,
        bytes(32),
    )


async def sound(_db: Db) -> None:
    """Stand for a verification that finds nothing."""

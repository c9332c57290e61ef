"""The chain of an account: from its newest transfer to its first, each naming the one before."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from uuid import UUID

from tongbao.infra.db import Db, Tx
from tongbao.kernel.errors import NotFound
from tongbao.ledger import _store as store
from tongbao.ledger._store import ChainRow
from tongbao.ledger.rows import LedgerAccount


class HistoryArchived(NotFound):
    """The movements before this one were moved to the archive."""

    code = "ledger.history_archived"
    advice = "Older movements are in the archive; ask the operator for them."
    advice_zh = "更早的明细已归档，请联系运营方调取。"


async def chain(
    on: Db | Tx, account: LedgerAccount, start: UUID | None, *, chunk: int, after: int = 0
) -> AsyncIterator[ChainRow]:
    """Yield an account's transfers above ``after`` from ``start`` back to its first.

    ``chunk`` is how many are read at a time.

    Raises:
        HistoryArchived
    """
    while start is not None:
        rows = await store.WALK.all(on, account.book, account.id, start, chunk, after)
        for row in rows:
            if row.seq <= after:
                return
            yield row
        if not rows:
            raise HistoryArchived(book=account.book, account=account.id)
        start = rows[-1].previous


async def link(on: Db | Tx, account: LedgerAccount, transfer: UUID) -> ChainRow | None:
    """Return one transfer as the account sees it; None when it does not name the account."""
    return await store.WALK.first(on, account.book, account.id, transfer, 1, 0)


async def entrance(on: Db | Tx, account: LedgerAccount, seq: int) -> UUID | None:
    """Return a transfer of the account, at or after ``seq``, from which that is not far."""
    mark = await store.FIRST_MARK.first(on, account.book, account.id, seq)
    return account.last_transfer if mark is None else mark.transfer_id


async def seq_at(on: Db | Tx, book: int, at: datetime) -> int:
    """Return the number of the last transfer that was decided at or before a moment.

    Commits are in order of time, so their numbers are searched by halves.
    """
    last = await store.LAST_BATCH.first(on, book)
    low, high, seq = 1, last or 0, 0
    while low <= high:
        middle = (low + high) // 2
        batch = await store.BATCH_MOMENT.first(on, book, middle)
        if batch is None or batch.at > at:
            high = middle - 1
        else:
            seq, low = batch.last_seq, batch.batch + 1
    return seq

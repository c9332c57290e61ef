"""What is in the archive, for whoever derives figures from the journal."""

from __future__ import annotations

from uuid import UUID

from tongbao.infra.db import Db, Tx
from tongbao.ledger.archive import _store as store
from tongbao.ledger.archive.model import ArchivedTotal, LedgerMonthBook, Opening

NOTHING: UUID = UUID(int=0)


async def archived_before(on: Db | Tx, book: int) -> UUID:
    """Return the id below which a book takes nothing more; zero when it takes every id."""
    horizon = await store.HORIZON.first(on, book)
    return NOTHING if horizon is None else horizon.archived_before


async def archived_books(on: Db | Tx, book: int) -> list[LedgerMonthBook]:
    """Return what each archived month has of a book.

    Their transfers and requests are those missing from the journal. A commit whose range of ids
    reaches into such a month cannot be derived from what is here.
    """
    return await store.ARCHIVED_BOOKS.all(on, book)


async def archived_totals(on: Db | Tx, book: int) -> list[ArchivedTotal]:
    """Return what the archived months did to each account's counters.

    With the transfers that are still here they add up to `LedgerAccount`'s.
    """
    return await store.ARCHIVED_TOTALS.all(on, book)


async def opening_of(tx: Tx, book: int) -> Opening | None:
    """Return where a proof of the book begins; None when nothing of it is in the archive."""
    cut = await store.CUT.first(tx, book)
    if cut is None:
        return None
    return Opening(
        batch=cut.batch,
        seq=cut.seq,
        accounts=tuple(await store.OPENING_ACCOUNTS.all(tx, book, cut.seq)),
        holds=tuple(await store.OPENING_HOLDS.all(tx, book, cut.seq)),
        holds_begun=await store.OPENING_HOLDS_BEGUN.one(tx, book, cut.seq),
    )

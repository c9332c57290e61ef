"""Who may write a book: taking it, being fenced, and changes made past its writer.

    take      epoch + 1, under the head row's lock, which waits for a commit in flight
    fenced    a commit that names an older epoch touches no head row and is undone
    alter     take the book, let the balances catch up, change a row: one transaction

Nobody renews a lease: every commit does. An idle writer whose epoch still stands simply goes on.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Final

import structlog

from tongbao.infra.db import Db, Tx
from tongbao.infra.failpoints import failpoint
from tongbao.kernel.clock import real_now
from tongbao.ledger.model import BookMissing, BookStopped
from tongbao.ledger.poster import _store as store
from tongbao.ledger.poster.projection import ACTOR, JournalBroken, catch_up, catch_up_within
from tongbao.ledger.rows import LedgerBook

LEASE: Final = timedelta(seconds=10)

_log = structlog.get_logger()


async def take_book(db: Db, book: int, holder: str) -> LedgerBook:
    """Become the writer of a book and return its head; its balances are as far as its journal.

    A breach found on the way stops the book; the head says so.

    Raises:
        BookMissing
    """
    async with db.begin(ACTOR) as tx:
        head = await store.TAKE_BOOK.first(tx, book, holder, real_now() + LEASE)
    if head is None:
        raise BookMissing(book=book)
    failpoint("ledger.after_take_over")
    _log.info("ledger_book_taken", book=book, epoch=head.epoch, holder=holder)
    if head.stopped_because is not None:
        return head
    try:
        await catch_up(db, head)
    except JournalBroken as breach:
        return await stop_book(db, book, f"balances: {breach}")
    return head


async def read_head(on: Db | Tx, book: int) -> LedgerBook:
    """Return the head of a book as it is.

    Raises:
        BookMissing
    """
    head = await store.GET_HEAD.first(on, book)
    if head is None:
        raise BookMissing(book=book)
    return head


async def stop_book(db: Db, book: int, because: str) -> LedgerBook:
    """Fence whoever writes the book and let nobody write it before a person has looked.

    Raises:
        BookMissing
    """
    async with db.begin(ACTOR) as tx:
        await store.STOP_BOOK.run(tx, book, because)
    _log.error("ledger_book_stopped", book=book, because=because)
    return await read_head(db, book)


@asynccontextmanager
async def altering(
    db: Db, book: int, *, actor: str, needs_balances: bool = True
) -> AsyncIterator[tuple[Tx, LedgerBook]]:
    """Open a transaction that has the book to itself and sees exact balances.

    Its writer is fenced by it and starts again with an empty memory.

    Raises:
        BookMissing, BookStopped
    """
    async with db.begin(actor) as tx:
        head = await store.TAKE_BOOK.first(tx, book, "", real_now())
        if head is None:
            raise BookMissing(book=book)
        if needs_balances:
            if head.stopped_because is not None:
                raise BookStopped(book=book)
            await catch_up_within(tx, head)
        yield tx, head

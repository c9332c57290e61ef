"""Prove a book: derive every stored figure again from its transfers and name what differs.

Each book is read in one snapshot, so postings may go on meanwhile. The transfers are streamed in
order of seq and taken by thousands; memory grows with the accounts, batches, recorded answers and
open holds of a book, and not with its transfers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Final

from msgspec import Struct

from tongbao.infra import audit
from tongbao.infra.db import Db
from tongbao.kernel.errors import Fact, Rejected
from tongbao.ledger import _store as store
from tongbao.ledger.audit.findings import Check
from tongbao.ledger.audit.prove import books_of, prove
from tongbao.ledger.model import BookMissing
from tongbao.ledger.poster.lease import stop_book

CHECKS: Final = {
    "accounts": "every account is of a licensed kind, with its side, owner and currency",
    "alterations": "limits and states are the chart's, or those the audit log says",
    "sequence": "the transfers are numbered from 1 to the head without a gap",
    "batches": "every commit has exactly its transfers and answers, one behind the other",
    "digests": "the transfers and answers of every commit are those it was made of",
    "batch_chain": "every commit hangs on the one before it, up to the head",
    "parties": "every transfer is between two accounts of the book and one currency",
    "codes": "every transfer has a known posting code",
    "dates": "the accounting day is that of the moment, or the first one open in the commit",
    "chains": "every transfer names the one before it on both accounts, up to the newest",
    "marks": "every 64th transfer of an account is marked, and no other",
    "limits": "no account ever passed its floor or ceiling, open holds counted",
    "running_balances": "the balances noted beside each transfer are those of that moment",
    "holds": "every hold ended at most once, as its row says, for no more than was held",
    "overdue_holds": "no open hold is past its time and the grace",
    "requests": "every recorded answer has exactly its transfers, and every group is whole",
    "bodies": "the transfers are those that were asked for, by their fingerprint",
    "watermark": "the balances stand where a commit ended",
    "counters": "the four counters of every account are the sum of its transfers",
    "balanced": "debits equal credits in every currency, posted and pending",
}
GRACE: Final = timedelta(days=1)

Progress = Callable[[int, int, int], None]
"""Is told a book, how many of its transfers were proved, and how many there are."""


class StillBroken(Rejected):
    """The book has a breach now; nothing was changed."""

    code = "ledger.still_broken"
    advice = "Repair what `tongbao ledger verify` names, or resume despite it and say why."
    advice_zh = (
        "账本校验仍不一致，请先修复 tongbao ledger verify 指出的问题，或说明原因后强制恢复。"
    )


class Report(Struct, frozen=True):
    """What verifying found, book by book and check by check."""

    at: datetime
    checks: tuple[Check, ...]

    @property
    def is_sound(self) -> bool:
        """Whether every invariant of every book holds."""
        return all(check.breaches == 0 for check in self.checks)

    @property
    def broken(self) -> tuple[Check, ...]:
        """The checks that found something."""
        return tuple(check for check in self.checks if check.breaches)


async def verify(
    db: Db,
    *,
    books: Sequence[int] | None = None,
    grace: timedelta = GRACE,
    stop: bool = False,
    actor: str = "ledger verify",
    parallel: int = 1,
    progress: Progress | None = None,
) -> Report:
    """Verify the named books, or all, up to ``parallel`` at a time, each on a connection.

    A hold may be open for ``grace`` after its time. ``stop`` stops the writer of every book in
    which a breach is found, in ``actor``'s name: nothing is posted there until `resume_book`.

    Raises:
        BookMissing
    """
    known = await books_of(db)
    chosen = known if books is None else list(books)
    for book in chosen:
        if book not in known:
            raise BookMissing(book=book)
    due_before = db.clock.now() - grace
    places = asyncio.Semaphore(max(1, parallel))

    async def one(book: int) -> list[Check]:
        async with places:
            found = await prove(db, book, CHECKS, due_before, progress)
        if stop and any(check.breaches for check in found):
            await _stop(db, book, _reason(found), actor)
        return found

    checks = await asyncio.gather(*(one(book) for book in chosen))
    return Report(db.clock.now(), tuple(check for each in checks for check in each))


async def resume_book(
    db: Db, book: int, *, actor: str, because: str, despite_breach: bool = False
) -> None:
    """Let a stopped book be written again, once verifying it finds nothing any more.

    ``despite_breach`` spares the proof: somebody has looked, and answers for it.

    Raises:
        BookMissing, StillBroken
    """
    if not despite_breach:
        report = await verify(db, books=[book])
        if not report.is_sound:
            raise StillBroken(book=book, check=report.broken[0].name)
    elif book not in await books_of(db):
        raise BookMissing(book=book)
    async with db.begin(actor) as tx:
        if await store.RESUME_BOOK.run(tx, book):
            subject = f"book {book}"
            facts: dict[str, Fact] = {"because": because, "despite_breach": despite_breach}
            await audit.record(tx, "ledger.book_resumed", subject, facts)


async def _stop(db: Db, book: int, because: str, actor: str) -> None:
    await stop_book(db, book, because)
    async with db.begin(actor) as tx:
        await audit.record(tx, "ledger.book_stopped", f"book {book}", {"because": because})


def _reason(checks: Sequence[Check]) -> str:
    first = next(check for check in checks if check.breaches)
    where = "" if first.first is None else f": {first.first.what}"
    return f"verify: {first.name}{where}"

"""Erase what was kept long enough: some rows a commit, the oldest first, the digest stays.

Each kind is gone through by the time in its ids, and how far is a row locked by whoever does it, so
two processes never do the same and none that dies leaves anything half done. Each commit that
erases says so in the audit log, with a digest over the ids, whose tree is signed.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Final
from uuid import UUID

from tongbao.controls.retention import _store as store
from tongbao.controls.retention.model import (
    BATCH,
    Raw,
    RetentionProgress,
    RetentionTerm,
    term_at,
)
from tongbao.infra import audit
from tongbao.infra.db import Db
from tongbao.infra.failpoints import failpoint
from tongbao.kernel.clock import business_date, real_now
from tongbao.kernel.errors import Fact
from tongbao.kernel.ids import first_id_at

LOOKED_EVERY: Final = timedelta(hours=1)
_NO_BOOK: Final = 0


async def erase_old(db: Db, kinds: Sequence[Raw], books: Sequence[int]) -> int:
    """Erase a batch of each kind in each book that was not looked at lately; return how many rows.

    Ages are real ones, so a test clock that is moved on makes nothing older.
    """
    now = real_now()
    terms = await store.TERMS.all(db)
    looked = {(each.kind, each.of_book): each.looked_at for each in await store.PROGRESS.all(db)}
    erased = 0
    for raw in kinds:
        term = term_at(terms, raw.kind, business_date(now))
        if term is None:
            continue
        for book in books if raw.has_book else (_NO_BOOK,):
            at = looked.get((raw.kind, book))
            if at is None or now - at >= LOOKED_EVERY:
                erased += await _erase_batch(db, raw, book, term, now)
    return erased


async def _erase_batch(db: Db, raw: Raw, book: int, term: RetentionTerm, now: datetime) -> int:
    before = first_id_at(now - timedelta(days=term.days))
    async with db.begin("retention") as tx:
        await store.BEGIN.run(tx, raw.kind, book, UUID(int=0), now)
        progress = await store.LOCK_PROGRESS.first(tx, raw.kind, book)
        if progress is None:
            return 0  # another process is at it
        args = (book, progress.after_id, before, BATCH, now.isoformat(timespec="seconds"))
        gone = sorted(await raw.erase.all(tx, *args))
        if gone and raw.and_with_them is not None:
            await raw.and_with_them(tx, gone)
        failpoint("retention.before_progress")
        after = gone[-1] if gone else progress.after_id
        # A full batch has more behind it, and is looked at again at the next round.
        seen = now - LOOKED_EVERY if len(gone) == BATCH else now
        await store.ADVANCE.run(tx, raw.kind, book, after, len(gone), seen)
        if gone:
            digest = sha256(b"".join(each.bytes for each in gone)).hexdigest()
            facts: dict[str, Fact] = {
                "rows": len(gone),
                "book": book,
                "days": term.days,
                "ids_sha256": digest,
            }
            await audit.record(tx, "retention.erased", raw.kind, facts)
    return len(gone)


async def progress_of_all(db: Db) -> list[RetentionProgress]:
    """Return how far every kind was gone through."""
    return await store.PROGRESS.all(db)

"""Who keeps a book: this process, another that lives, or nobody, so that it may be taken.

An address stands in the head row of the book. Where nobody listens at it any more its process is
dead, or on a machine we cannot reach, and the book may be taken at once: the epoch keeps whoever
had it from writing. One that listens and does not answer may only be stopped for a while: it keeps
the book until its lease is over.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from math import inf
from pathlib import Path
from typing import Final

import structlog

from tongbao.infra.db import Db
from tongbao.kernel.clock import monotonic, real_now
from tongbao.ledger.model import BookElsewhere, LedgerUnanswered, Result
from tongbao.ledger.poster.lease import LEASE, read_head
from tongbao.ledger.rows import LedgerBook
from tongbao.ledger.wire import _store as store
from tongbao.ledger.wire.client import Asked, Gone, Lines, NotDelivered, Unanswered
from tongbao.ledger.wire.server import Desk, Listener, listen

_log = structlog.get_logger()

_LOOK_AGAIN_S: Final = 0.1
_MOVED_S: Final = 0.01
_SILENT_S: Final = 2.0


class Route:
    """One process's way to every book.

    ``folder`` is where it listens once it keeps a book; without one, no other process can ask it.
    """

    def __init__(self, db: Db, desk: Desk, *, folder: Path | None) -> None:
        self._db = db
        self._desk = desk
        self._folder = folder
        self.takes = True  # whether this process may keep books at all
        self._listener: Listener | None = None
        self._opening = asyncio.Lock()
        self._lines = Lines()
        self._holders: dict[int, str] = {}
        self._silent: dict[str, float] = {}  # found so at this time of the monotonic clock

    async def address(self) -> str:
        """Return where others reach this process, which listens from now on; "" if nowhere.

        Raises:
            SocketFolderUnfit
        """
        async with self._opening:
            if self._listener is None and self._folder is not None:
                self._listener = await listen(self._folder, self._desk)
        return self._own

    def forget(self, book: int) -> None:
        """Look again who keeps the book at the next question."""
        self._holders.pop(book, None)

    async def holder(self, book: int, *, deadline: float) -> str | None:
        """Return the address of another process that keeps the book, or None when we may take it.

        Raises:
            BookElsewhere: until the deadline nobody kept it whom we could ask, and we may not.
            BookMissing
        """
        known = self._holders.get(book)
        if known is not None:
            return known
        while True:
            head = await read_head(self._db, book)
            standing = await self._standing(head)
            if standing == "alive":
                self._holders[book] = head.holder
                return head.holder
            if standing == "nobody" and self.takes:
                return None
            if monotonic() >= deadline:
                raise BookElsewhere(book=book)
            await asyncio.sleep(_LOOK_AGAIN_S)

    async def may_take(self, book: int) -> bool:
        """Return whether this process may keep the book, which nobody else who lives does.

        Raises:
            BookMissing
        """
        return self.takes and await self._standing(await read_head(self._db, book)) == "nobody"

    async def is_abandoned(self, book: int) -> bool:
        """Return whether nobody who lives keeps the book, this process included.

        Raises:
            BookMissing
        """
        head = await read_head(self._db, book)
        if self._own and head.holder == self._own:
            return False
        return await self._standing(head) == "nobody"

    @property
    def _own(self) -> str:
        """Return where others reach this process now."""
        return self._listener.address if self._listener is not None else ""

    async def ask(self, book: int, asked: Asked, *, deadline: float) -> list[Result] | None:
        """Return the answers of whoever keeps the book, or None when we may take it ourselves.

        Asks again, with the same ids, when the one it asked went away.

        Raises:
            LedgerUnanswered: it went away, and until the deadline nobody could tell what became of
                what we asked.
            BookElsewhere, LedgerOverloaded: nothing was decided.
            VersionsDiffer, PosterFailed, BookMissing; and whatever refusal the poster met itself.
        """
        unknown = False
        while True:
            try:
                address = await self.holder(book, deadline=deadline)
            except BookElsewhere:
                if unknown:
                    raise LedgerUnanswered(book=book) from None
                raise
            if address is None:
                return None
            try:
                return await self._lines.ask(address, book, asked, deadline=deadline)
            except Unanswered:
                unknown = True
            except (NotDelivered, BookElsewhere):
                await asyncio.sleep(_MOVED_S)  # it is just changing hands
            self.forget(book)
            if monotonic() >= deadline:
                raise LedgerUnanswered(book=book) if unknown else BookElsewhere(book=book)

    async def close(self) -> None:
        """Stop listening, once those who asked were answered, and asking."""
        listener, self._listener = self._listener, None
        if listener is not None:
            self.takes = False
            await listener.close()
        await self._lines.close()

    async def _standing(self, head: LedgerBook) -> str:
        """Say whether the holder is alive, may be, or is nobody."""
        if head.holder in {"", self._own}:
            return "nobody"
        if monotonic() - self._silent.get(head.holder, -inf) > _SILENT_S:
            try:
                await self._lines.probe(head.holder)
            except Gone:
                return "nobody"
            except (NotDelivered, Unanswered):
                self._silent = {head.holder: monotonic()}
            else:
                return "alive"
        # A lease that is longer than any was written before a clock stepped back.
        left = head.lease_until - real_now()
        if timedelta(0) < left < 2 * LEASE:
            return "silent"
        if await store.END_STOPPED.all(self._db, real_now() - LEASE):
            _log.warning("ledger_stopped_commit_ended", book=head.book, holder=head.holder)
        return "nobody"

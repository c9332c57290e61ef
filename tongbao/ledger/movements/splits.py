"""One account in several books, for the rare case that one book is not fast enough for it.

The parts are ordinary accounts under the same key, each exact by itself. A payment goes to one of
them, by its id or by where there is money. Money follows by movements between the books, which no
part can overdraw.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Final
from uuid import UUID

import structlog
from msgspec import Struct

from tongbao.infra import audit
from tongbao.infra.db import Db, Tx
from tongbao.infra.tasks import Again, Lease, RetryPolicy, Task, enqueue
from tongbao.kernel.ids import new_id
from tongbao.kernel.money import Money
from tongbao.ledger.book import Ledger
from tongbao.ledger.model import NOBODY, AccountKey, Result
from tongbao.ledger.movements import _store as store
from tongbao.ledger.movements.crossings import move
from tongbao.ledger.movements.model import (
    QUOTA,
    LedgerMovement,
    LedgerSplit,
    MoveOrder,
    Shift,
    SplitInvalid,
    SplitNotFound,
    plan_shifts,
)
from tongbao.ledger.movements.queries import moving_since
from tongbao.ledger.queries import Balance, balance_of

_EVERY: Final = timedelta(seconds=5)
_RARELY: Final = timedelta(minutes=1)  # while there is no split account
_BOOKS_MAX: Final = 64

REBALANCE_POLICY: Final = RetryPolicy(attempts_max=1_000_000, delays=(_EVERY,))
"""It is the only task of its kind, and only a restart would ask for it again: it never gives up."""

_log = structlog.get_logger()


class RebalanceSplits(Task, frozen=True, tag="ledger.rebalance_splits"):
    """Give every part of every split account the money it should have."""


class SplitBalance(Struct, frozen=True):
    """A split account as one: its parts by book, and what moves between them just now."""

    split: LedgerSplit
    parts: Mapping[int, Balance]
    moving: int

    @property
    def posted(self) -> int:
        """All of the account's money, whether in a part or between two."""
        return sum(part.posted for part in self.parts.values()) + self.moving

    @property
    def held(self) -> int:
        """What is held, in all parts."""
        return sum(part.held for part in self.parts.values())

    @property
    def available(self) -> int:
        """What can be paid out now, by one part or another."""
        return sum(part.available for part in self.parts.values())


async def set_split(
    tx: Tx, key: AccountKey, books: Sequence[int], *, low: int, target: int
) -> LedgerSplit:
    """Keep an account in these books, each with at least ``low`` and at best ``target`` in it.

    A book that is left out keeps its part, and nobody fills it any more: move that part's money.

    Raises:
        SplitInvalid
    """
    is_listed = 0 < len(books) <= _BOOKS_MAX and len(set(books)) == len(books)
    if not is_listed or not 0 <= low < target:
        raise SplitInvalid
    if set(books) - set(await store.BOOKS.all(tx)):
        raise SplitInvalid(param="books")
    name = (key.kind, key.owner or NOBODY, key.currency)
    await store.SET_SPLIT.run(tx, *name, sorted(books), low, target, tx.now)
    listed = ",".join(str(book) for book in sorted(books))
    await audit.record(
        tx, "ledger.split_set", _subject(key), {"books": listed, "low": low, "target": target}
    )
    return await store.GET_SPLIT.one(tx, *name)


async def split_of(on: Db | Tx, key: AccountKey) -> LedgerSplit:
    """Return how an account is split.

    Raises:
        SplitNotFound
    """
    found = await store.GET_SPLIT.first(on, key.kind, key.owner or NOBODY, key.currency)
    if found is None:
        raise SplitNotFound(kind=key.kind)
    return found


async def list_splits(on: Db | Tx) -> list[LedgerSplit]:
    """Return every split account."""
    return await store.LIST_SPLITS.all(on)


async def split_balance(db: Db, split: LedgerSplit) -> SplitBalance:
    """Return a split account as one, each part as of its own book's head.

    There is no common moment over books: the sum is exact when nothing moves between the parts.

    Raises:
        BalancesBehind
    """
    moving = sum(each.amount for each in await _arriving(db, split))
    parts = {book: await balance_of(db, book, split.key) for book in split.books}
    return SplitBalance(split, parts, moving)


async def place_by_quota(db: Db, split: LedgerSplit, payment_id: UUID, amount: int) -> int:
    """Return the book whose part should serve a payment: the first in its order with the money.

    It looks at balances as they happen to be; the book decides, exactly.
    """
    parts = {book: await balance_of(db, book, split.key, as_of=0) for book in split.books}
    available = {book: part.available for book, part in parts.items()}
    return split.place_by_quota(payment_id, amount, available)


async def rebalance(db: Db, ledger: Ledger, split: LedgerSplit) -> list[tuple[Shift, Result]]:
    """Move money between the parts of a split account where one has run low.

    What is on its way to a part counts as there. A part that meanwhile spent what it was to give
    refuses, and nothing happens.

    Raises:
        BalancesBehind
    """
    arriving = await _arriving(db, split)
    available = {
        book: (await balance_of(db, book, split.key)).available
        + sum(each.amount for each in arriving if each.to_book == book)
        for book in split.books
    }
    done: list[tuple[Shift, Result]] = []
    for shift in plan_shifts(available, split.low, split.target):
        order = MoveOrder(
            book=shift.book,
            payer=split.key,
            to_book=shift.to_book,
            payee=split.key,
            money=Money(shift.amount, split.currency),
            reference=new_id(),
            rule=QUOTA,
        )
        result = await move(db, ledger, order)
        _log.info(
            "ledger_quota_moved",
            book=shift.book,
            to_book=shift.to_book,
            amount=shift.amount,
            status=result.status,
        )
        done.append((shift, result))
    return done


async def seed(tx: Tx) -> None:
    """Start the rounds, unless they run already."""
    await enqueue(tx, RebalanceSplits(), key="always")


async def run_rebalance_splits(
    db: Db, ledger: Ledger, _task: RebalanceSplits, _lease: Lease
) -> Again:
    """Do one round and come back."""
    found = await list_splits(db)
    for split in found:
        await rebalance(db, ledger, split)
    return Again(_EVERY if found else _RARELY)


async def _arriving(db: Db, split: LedgerSplit) -> list[LedgerMovement]:
    now = db.clock.now()
    return [
        each
        for book in split.books
        for each in await moving_since(db, book, now)
        if each.payer == split.key and each.payee == split.key
    ]


def _subject(key: AccountKey) -> str:
    return f"account {key.kind} {key.owner or ''} {key.currency}"

"""What is on its way between books, since when, and whether the two sides agree."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import structlog
from msgspec import Struct
from prometheus_client import Gauge

from tongbao.infra.db import Db, Tx
from tongbao.infra.tasks import Again, Lease, RetryPolicy, Task, enqueue
from tongbao.kernel.ids import show
from tongbao.ledger.movements import _store as store
from tongbao.ledger.movements._store import TransitSum
from tongbao.ledger.movements.crossings import PREFIX, CompleteMovement
from tongbao.ledger.movements.model import LedgerMovement, MovementNotFound
from tongbao.ledger.queries import BalancesBehind, caught_up
from tongbao.ledger.rules.chart import book_owner

_OPEN_MAX: Final = 1000
_EVERY: Final = timedelta(seconds=30)
_STRAY: Final = timedelta(minutes=5)

WATCH_POLICY: Final = RetryPolicy(attempts_max=1_000_000, delays=(_EVERY,))
"""It is the only task of its kind, and only a restart would ask for it again: it never gives up."""

_OPEN = Gauge("tongbao_ledger_movements_open", "Movements to other books that are on their way")
_OLDEST = Gauge(
    "tongbao_ledger_movements_oldest_age_seconds",
    "Business time since the oldest unfinished movement between books began",
)
_BREACHES = Gauge(
    "tongbao_ledger_transit_breaches",
    "Pairs of books between which there is money that no movement explains",
)
_log = structlog.get_logger()


class TransitPair(Struct, frozen=True):
    """Money between two books in one currency: what left one less what arrived in the other.

    ``breach`` says what is wrong, and is empty when nothing is.
    """

    book: int
    to_book: int
    currency: str
    sent: int
    arrived: int
    breach: str = ""

    @property
    def in_flight(self) -> int:
        """What is on its way; nothing when everything has ended."""
        return self.sent - self.arrived


class WatchMovements(Task, frozen=True, tag="ledger.watch_movements"):
    """Measure what is between books, and ask again for what nobody is bringing to its end."""


async def seed(tx: Tx) -> None:
    """Start the rounds, unless they run already."""
    await enqueue(tx, WatchMovements(), key="always")


async def run_watch_movements(db: Db, _task: WatchMovements, _lease: Lease) -> Again:
    """Do one round and come back."""
    now = db.clock.now()
    found = [
        each
        for book in await store.BOOKS.all(db)
        for each in await store.OPEN_MOVEMENTS.all(db, book, now, _OPEN_MAX)
    ]
    _OPEN.set(len(found))
    _OLDEST.set(max(((now - each.made_at).total_seconds() for each in found), default=0))
    await _watch_pairs(db)
    strays = [each for each in found if now - each.made_at > _STRAY]
    if strays:
        _log.warning("ledger_movements_late", count=len(strays), since=strays[0].made_at)
        async with db.begin("ledger") as tx:
            for each in strays:  # a task that is there already makes this a no-op
                task = CompleteMovement(each.book, each.id)
                await enqueue(tx, task, key=str(each.id))
    return Again(_EVERY)


async def _watch_pairs(db: Db) -> None:
    try:
        pairs = await transit_pairs(db)
    except BalancesBehind:
        return  # the next round looks again, and the lag has a metric of its own
    broken = [pair for pair in pairs if pair.breach]
    _BREACHES.set(len(broken))
    for pair in broken:
        _log.error(
            "ledger_transit_broken",
            book=pair.book,
            to_book=pair.to_book,
            currency=pair.currency,
            in_flight=pair.in_flight,
            because=pair.breach,
        )


async def movement_of(on: Db | Tx, book: int, movement_id: UUID) -> LedgerMovement:
    """Return one movement.

    Raises:
        MovementNotFound
    """
    movement = await store.GET_MOVEMENT.first(on, book, movement_id)
    if movement is None:
        raise MovementNotFound(movement=show(PREFIX, movement_id))
    return movement


async def moving_since(
    on: Db | Tx, book: int, before: datetime, *, limit: int = _OPEN_MAX
) -> list[LedgerMovement]:
    """Return movements out of a book that began by then and have not ended, oldest first."""
    return await store.OPEN_MOVEMENTS.all(on, book, before, limit)


async def transit_pairs(db: Db) -> list[TransitPair]:
    """Return what is between each two books, and where that cannot be.

    What arrived is read before what was sent, so money that moves meanwhile can only make it look
    as if more were on its way. That is never negative; and where something is on its way, there is
    a movement that brings it.

    Raises:
        BalancesBehind
    """
    pairs, open_before = await _pairs_now(db), await _open(db)
    if all(pair.in_flight == 0 or _key_of(pair) in open_before for pair in pairs):
        return [_judged(pair, is_lost=False) for pair in pairs]
    again = {_key_of(pair): pair for pair in await _pairs_now(db)}
    open_after = await _open(db)
    return [
        _judged(
            pair,
            is_lost=pair.in_flight != 0
            and _key_of(pair) not in open_before | open_after
            and again.get(_key_of(pair)) == pair,
        )
        for pair in pairs
    ]


def _judged(pair: TransitPair, *, is_lost: bool) -> TransitPair:
    breach = ""
    if pair.in_flight < 0:
        breach = "more arrived than was sent"
    elif is_lost:
        breach = "on its way, and no movement brings it"
    return TransitPair(pair.book, pair.to_book, pair.currency, pair.sent, pair.arrived, breach)


async def _open(db: Db) -> set[tuple[int, int, str]]:
    now = db.clock.now()
    return {
        (each.book, each.to_book, each.currency)
        for book in await store.BOOKS.all(db)
        for each in await store.OPEN_MOVEMENTS.all(db, book, now, _OPEN_MAX)
    }


async def _pairs_now(db: Db) -> list[TransitPair]:
    books = await store.BOOKS.all(db)
    arrived = {
        (each.peer.int, book, each.currency): each.posted
        for book, each in await _sums(db, books)
        if each.kind == "in_transit_in"
    }
    sent = {
        (book, each.peer.int, each.currency): each.posted + each.held
        for book, each in await _sums(db, books)
        if each.kind == "in_transit_out"
    }
    return [
        TransitPair(*key, sent.get(key, 0), arrived.get(key, 0))
        for key in sorted(sent.keys() | arrived.keys())
    ]


async def _sums(db: Db, books: Sequence[int]) -> list[tuple[int, TransitSum]]:
    found: list[tuple[int, TransitSum]] = []
    peers = [book_owner(book) for book in books]
    for book in books:
        await caught_up(db, book)
        found += [(book, each) for each in await store.TRANSIT_SUMS.all(db, book, peers)]
    return found


def _key_of(pair: TransitPair) -> tuple[int, int, str]:
    return pair.book, pair.to_book, pair.currency

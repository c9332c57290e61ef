"""What lies in suspense, item by item, summed up behind the journal from where it ended last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Final
from uuid import UUID

from msgspec import Struct
from prometheus_client import Gauge

from tongbao.clearing.suspense import _store as store
from tongbao.clearing.suspense.model import (
    SUSPENSE,
    SummedAccount,
    SuspenseItem,
    SuspenseItemNotFound,
)
from tongbao.infra.db import Db, Tx
from tongbao.infra.failpoints import failpoint
from tongbao.infra.tasks import Again, Lease, RetryPolicy, Task, enqueue
from tongbao.kernel.pages import Page, decode_moment, page_by_moment, page_size
from tongbao.ledger import queries as ledger
from tongbao.ledger.model import AccountKey
from tongbao.ledger.queries import StatementLine
from tongbao.ledger.rows import HouseAccount
from tongbao.payments.refunds.queries import refunds_with_ids

EVERY: Final = timedelta(hours=1)
WATCH_POLICY: Final = RetryPolicy(attempts_max=1_000_000, delays=(timedelta(minutes=5),))
"""It is the only task of its kind, and only a restart would ask for it again: it never gives up."""

_OPEN: Final = Gauge("tongbao_suspense_open_items", "Items of money without a home")
_OLDEST: Final = Gauge(
    "tongbao_suspense_oldest_age_seconds",
    "Business time since the oldest open item of suspense began",
)
_UNTIED: Final = Gauge(
    "tongbao_suspense_untied_accounts", "Suspense accounts that their items do not explain"
)


class WatchSuspense(Task, frozen=True, tag="suspense.watch"):
    """Sum up what lies in suspense, so that a first look finds no archived months between."""


class SuspenseSum(Struct, frozen=True):
    """One suspense account: what the ledger holds, and what the items add up to."""

    book: int
    currency: str
    balance: int
    items: int

    @property
    def ties(self) -> bool:
        """Whether every fen is explained by an item."""
        return self.balance == self.items


async def seed(tx: Tx) -> None:
    """Start the rounds, unless they run already."""
    await enqueue(tx, WatchSuspense(), key="always")


async def run_watch_suspense(db: Db, _task: WatchSuspense, _lease: Lease) -> Again:
    """Do one round and come back."""
    found = await suspense_sums(db)
    _UNTIED.set(sum(not each.ties for each in found))
    count, oldest = 0, db.clock.now()
    for book in {each.book for each in found}:
        waiting = await store.WAITING.one(db, book)
        count += waiting.items
        oldest = min(oldest, waiting.oldest_at or oldest)
    _OPEN.set(count)
    _OLDEST.set((db.clock.now() - oldest).total_seconds())
    return Again(EVERY)


async def suspense_sums(db: Db) -> list[SuspenseSum]:
    """Return every suspense account of every book, brought up to date.

    However many books there are, they are read together; only one that moved is looked into.

    Raises:
        BalancesBehind, HistoryArchived
    """
    summed = await _summed(db)
    accounts = await ledger.house_accounts(db, SUSPENSE)
    moved = [each for each in accounts if each.last_seq > _through(summed, each)]
    for each in moved:
        await catch_up(db, each.book, each.currency)
    if moved:
        # The items first: what is posted meanwhile makes the balance newer, never the items.
        summed = await _summed(db)
        accounts = await ledger.house_accounts(db, SUSPENSE)
    found = []
    for each in accounts:
        items = summed.get((each.book, each.currency))
        found.append(
            SuspenseSum(each.book, each.currency, each.posted, items.items if items else 0)
        )
    return found


async def open_items(
    db: Db,
    book: int,
    *,
    currency: str | None = None,
    limit: int | None = None,
    cursor: str | None = None,
) -> Page[SuspenseItem]:
    """Return a page of a book's open items, oldest first, as `suspense_sums` last found them.

    Raises:
        PageSizeInvalid, CursorInvalid
    """
    size = page_size(limit)
    rows = await store.OPEN_ITEMS.all(db, book, currency, *decode_moment(cursor), size + 1)
    return page_by_moment(rows, size, lambda row: (row.first_at, row.owner))


async def item_now(db: Db, book: int, currency: str, owner: UUID) -> SuspenseItem:
    """Return an item as the journal says that it is.

    Raises:
        SuspenseItemNotFound, BalancesBehind, HistoryArchived
    """
    await catch_up(db, book, currency)
    item = await store.GET_ITEM.first(db, book, currency, owner)
    if item is None:
        raise SuspenseItemNotFound
    return item


async def catch_up(db: Db, book: int, currency: str) -> None:
    """Sum up what happened to a suspense account since the last time.

    Two at once do it once: who comes second finds that the account has moved on, and leaves.

    Raises:
        BalancesBehind, HistoryArchived
    """
    account = await store.GET_ACCOUNT.first(db, book, currency)
    after = 0 if account is None else account.through_seq
    key = AccountKey(SUSPENSE, currency)
    lines = [line async for line in ledger.movements(db, book, key, after=after)]
    if not lines:
        return
    owners = await _owners(db, lines)
    async with db.begin("suspense") as tx:
        await store.OPEN_ACCOUNT.run(tx, book, currency)
        if not await store.MOVE_ON.run(tx, book, currency, after, lines[0].seq):
            return
        rows = [
            (book, currency, owner, line.change, line.code, line.at, line.at, line.seq)
            for line, owner in zip(reversed(lines), reversed(owners), strict=True)
        ]
        await store.ADD_MOVEMENT.run_many(tx, rows)
        failpoint("suspense.before_catch_up_commit")


async def _summed(db: Db) -> dict[tuple[int, str], SummedAccount]:
    return {(each.book, each.currency): each for each in await store.SUMMED.all(db)}


def _through(summed: Mapping[tuple[int, str], SummedAccount], account: HouseAccount) -> int:
    known = summed.get((account.book, account.currency))
    return 0 if known is None else known.through_seq


async def _owners(db: Db, lines: Sequence[StatementLine]) -> list[UUID]:
    """Return whose each movement is: a refund of late money is about the payment."""
    refunded = [line.reference for line in lines if line.code.startswith("late.refunded/")]
    payments = {each.id: each.payment_id for each in await refunds_with_ids(db, refunded)}
    return [payments.get(line.reference, line.reference) for line in lines]

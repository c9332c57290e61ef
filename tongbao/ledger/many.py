"""What the book says of many owners at once: their balances, and what moved since a number.

For work that goes over everybody, such as a day's settlement: one question where a question for
each account would take most of the time.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from uuid import UUID

from msgspec import Struct

from tongbao.infra.db import Db, Tx
from tongbao.ledger import _store as store
from tongbao.ledger._store import Walked
from tongbao.ledger.model import AccountState, Side
from tongbao.ledger.queries import caught_up
from tongbao.ledger.rows import LedgerAccount


class OwnedAccount(Struct, frozen=True):
    """An account as of one reading; ``newest`` is where its chain of movements begins."""

    id: int
    kind: str
    owner: UUID
    currency: str
    side: Side
    state: AccountState
    posted: int
    held: int
    newest: UUID | None

    @property
    def available(self) -> int:
        """What may be moved out: posted less held."""
        return self.posted - self.held


class Since(Struct, frozen=True):
    """What is asked about an account: movements above a number.

    Those are told apart that are of accounting days up to ``until`` and, where a moment is given,
    were decided before it.
    """

    account: OwnedAccount
    after: int
    until: date
    before: datetime | None = None


async def accounts_of_owners(
    on: Db | Tx, book: int, owners: Sequence[UUID], kinds: Sequence[str]
) -> list[OwnedAccount]:
    """Return every account of these kinds that these owners have, by owner and currency.

    Raises:
        BalancesBehind
    """
    await caught_up(on, book)
    rows = await store.ACCOUNTS_OF_OWNERS.all(on, book, list(owners), list(kinds))
    return [_owned(row) for row in rows]


async def movements_of_many(on: Db | Tx, book: int, asked: Sequence[Since], side: Side) -> Walked:
    """Return the posted movements of accounts of one side, as they were at their reading.

    A place in ``lost`` is an account some of whose movements are not in this database any more;
    what is there of it must not be used.
    """
    return await store.WALK_MANY.one(
        on,
        book,
        [each.account.id for each in asked],
        [each.account.newest for each in asked],
        [each.after for each in asked],
        [each.until for each in asked],
        [each.before for each in asked],
        side.value,
    )


def _owned(row: LedgerAccount) -> OwnedAccount:
    net = row.credits_posted - row.debits_posted
    is_credit = row.side is Side.CREDIT
    return OwnedAccount(
        id=row.id,
        kind=row.kind,
        owner=row.owner,
        currency=row.currency,
        side=row.side,
        state=row.state,
        posted=net if is_credit else -net,
        held=row.debits_pending if is_credit else row.credits_pending,
        newest=row.last_transfer,
    )

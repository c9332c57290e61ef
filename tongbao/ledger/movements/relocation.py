"""Moving an account to another book: move what it has, give its limits to the new one, close it.

Closing is exact: a book closes no account that has money or holds. What came in meanwhile is moved
as well, and the closing tried again. The command can be repeated after any crash or refusal.
"""

from __future__ import annotations

import contextlib
from typing import Final

from msgspec import Struct

from tongbao.infra import audit
from tongbao.infra.db import Db
from tongbao.infra.failpoints import failpoint
from tongbao.kernel.ids import new_id
from tongbao.kernel.money import Money
from tongbao.ledger.book import Ledger
from tongbao.ledger.model import (
    NOBODY,
    AccountKey,
    AccountMissing,
    AccountNotEmpty,
    AccountState,
    BookMissing,
)
from tongbao.ledger.movements import _store as store
from tongbao.ledger.movements.crossings import complete, move
from tongbao.ledger.movements.model import (
    ACCOUNT_MOVE,
    AccountHasHolds,
    AccountNotMovable,
    MovementState,
    MovementUnfinished,
    MovementWithinBook,
    MoveOrder,
)
from tongbao.ledger.movements.queries import moving_since
from tongbao.ledger.queries import balance_of
from tongbao.ledger.rules.chart import CHART, OwnerKind

_TRIES_MAX: Final = 20


class Moved(Struct, frozen=True):
    """An account that has moved, and how much money it took along in this run."""

    key: AccountKey
    book: int
    to_book: int
    amount: int


async def move_account(
    db: Db, ledger: Ledger, book: int, key: AccountKey, *, to_book: int, actor: str
) -> Moved:
    """Move an account and all of its money to another book and close it in the old one.

    Whoever posts to it must know its new book; say so where the owner's book is kept, and before,
    so that nothing more comes into the old one.

    Raises:
        MovementWithinBook, BookMissing, AccountMissing, AccountNotMovable, AccountHasHolds
        MovementUnfinished: the money is on its way; repeat the command.
        AccountNotEmpty: money came in between, every time; repeat the command.
    """
    if book == to_book:
        raise MovementWithinBook(book=book)
    if await store.HAS_BOOK.first(db, to_book) is None:
        raise BookMissing(book=to_book)
    kind = CHART[key.kind]
    # The limits of a person's accounts are counted in the book of all of them, with their money.
    if kind.floor is None or kind.owner is OwnerKind.E_ACCOUNT:
        raise AccountNotMovable(kind=key.kind)
    moved = 0
    for _ in range(_TRIES_MAX):
        await _finish_earlier(db, ledger, book, key)
        moved += await _move_balance(db, ledger, book, key, to_book=to_book)
        await _copy_limits(db, ledger, book, key, to_book=to_book, actor=actor)
        failpoint("ledger.before_account_closed")
        with contextlib.suppress(AccountNotEmpty):
            await _close(db, ledger, book, key, to_book=to_book, actor=actor)
            return Moved(key, book, to_book, moved)
    raise AccountNotEmpty(kind=key.kind)


async def _finish_earlier(db: Db, ledger: Ledger, book: int, key: AccountKey) -> None:
    """Bring what left the account before to its end: money may come back from it."""
    for each in await moving_since(db, book, db.clock.now()):
        if each.payer == key and (await complete(db, ledger, book, each.id)).ended_at is None:
            raise MovementUnfinished


async def _move_balance(db: Db, ledger: Ledger, book: int, key: AccountKey, *, to_book: int) -> int:
    """Send what the account has just now, wait until it is there, and return how much it was."""
    balance = await balance_of(db, book, key)
    if balance.held or balance.incoming:
        raise AccountHasHolds(kind=key.kind)
    if balance.state is not AccountState.OPEN or balance.posted < 0:
        raise AccountNotMovable(state=balance.state.value)
    if balance.posted == 0:
        return 0
    order = MoveOrder(
        book=book,
        payer=key,
        to_book=to_book,
        payee=key,
        money=Money(balance.posted, key.currency),
        reference=new_id(),
        rule=ACCOUNT_MOVE,
    )
    result = await move(db, ledger, order)
    if result.status == "in_flight":
        raise MovementUnfinished
    if not result.happened:
        return 0  # some of it was spent just before: look again
    movement = await complete(db, ledger, book, order.id)
    if movement.ended_at is None:
        raise MovementUnfinished
    if movement.state is not MovementState.ARRIVED:
        raise AccountNotMovable(code=movement.code)
    return movement.amount


async def _copy_limits(
    db: Db, ledger: Ledger, book: int, key: AccountKey, *, to_book: int, actor: str
) -> None:
    """Give the account in its new book the limits of the old one, where they are its own."""
    limits = await store.LIMITS.first(db, book, key.owner or NOBODY, key.kind, key.currency)
    if limits is None:
        raise AccountMissing(kind=key.kind)
    if (limits.floor, limits.ceiling) == (CHART[key.kind].floor, None):
        return
    with contextlib.suppress(AccountMissing):  # without money nothing opened it there yet
        await ledger.set_account_limits(
            to_book,
            key,
            floor=limits.floor,
            ceiling=limits.ceiling,
            actor=actor,
            because=f"moved from book {book}",
        )


async def _close(
    db: Db, ledger: Ledger, book: int, key: AccountKey, *, to_book: int, actor: str
) -> None:
    await ledger.set_account_state(
        book, key, AccountState.CLOSED, actor=actor, because=f"moved to book {to_book}"
    )
    async with db.begin(actor) as tx:
        subject = f"account {key.kind} {key.owner}"
        await audit.record(tx, "ledger.account_moved", subject, {"from": book, "to": to_book})

"""Moving an account to another book: shut it for money in, move the balance, close what is empty.

Shutting means a ceiling of zero: from then on its balance can only fall, so the loop below ends.
Whatever its owner still spends meanwhile is spent from what is there, exactly. The command can be
repeated after any crash; what was done stays done.
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
from tongbao.ledger.chart import CHART
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
    LedgerAccountMove,
    MovementState,
    MovementUnfinished,
    MovementWithinBook,
    MoveOrder,
)
from tongbao.ledger.queries import Balance, balance_of

_TRIES_MAX: Final = 20
_BECAUSE: Final = "moves to another book"


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

    Whoever posts to it must know its new book: change that where the owner's book is kept.

    Raises:
        MovementWithinBook, BookMissing, AccountMissing, AccountNotMovable, AccountHasHolds
        MovementUnfinished: the money is on its way; repeat the command.
        AccountNotEmpty: its owner's other movements came between, every time; repeat it.
    """
    if book == to_book:
        raise MovementWithinBook(book=book)
    if await store.HAS_BOOK.first(db, to_book) is None:
        raise BookMissing(book=to_book)
    if CHART[key.kind].floor is None:
        raise AccountNotMovable(kind=key.kind)
    balance = await _movable(db, book, key)
    under_way = await _begin(db, book, key, to_book=to_book)
    await ledger.set_account_limits(
        book, key, floor=under_way.floor, ceiling=0, actor=actor, because=_BECAUSE
    )
    try:
        moved = await _empty(db, ledger, under_way, balance)
    except (AccountHasHolds, AccountNotMovable):
        await _reopen(db, ledger, under_way, actor=actor)
        raise
    failpoint("ledger.before_account_closed")
    await _give_limits(ledger, under_way, actor=actor)
    await ledger.set_account_state(
        book, key, AccountState.CLOSED, actor=actor, because=f"moved to book {to_book}"
    )
    async with db.begin(actor) as tx:
        await store.END_MOVE.run(tx, *_name(under_way), tx.now)
        facts = {"from": book, "to": to_book, "amount": moved}
        await audit.record(tx, "ledger.account_moved", f"account {key.kind} {key.owner}", facts)
    return Moved(key, book, to_book, moved)


async def _movable(db: Db, book: int, key: AccountKey) -> Balance:
    balance = await balance_of(db, book, key)
    if balance.held or balance.incoming:
        raise AccountHasHolds(kind=key.kind)
    if balance.state is not AccountState.OPEN or balance.posted < 0:
        raise AccountNotMovable(state=balance.state.value)
    return balance


async def _begin(db: Db, book: int, key: AccountKey, *, to_book: int) -> LedgerAccountMove:
    """Write down the account's limits before the first of them is changed."""
    owner = key.owner or NOBODY
    limits = await store.LIMITS.first(db, book, owner, key.kind, key.currency)
    if limits is None:
        raise AccountMissing(kind=key.kind)
    name = (book, key.kind, owner, key.currency)
    await store.BEGIN_MOVE.run(db, *name, to_book, limits.floor, limits.ceiling, db.clock.now())
    under_way = await store.GET_MOVE.first(db, *name)
    if under_way is None or under_way.to_book != to_book or under_way.ended_at is not None:
        raise AccountNotMovable(book=book)  # on its way elsewhere, or gone
    return under_way


async def _empty(db: Db, ledger: Ledger, under_way: LedgerAccountMove, balance: Balance) -> int:
    """Move the balance until nothing is left; return how much that was."""
    key, moved = balance.account, 0
    for _ in range(_TRIES_MAX):
        if balance.posted == 0:
            return moved
        order = MoveOrder(
            book=under_way.book,
            payer=key,
            to_book=under_way.to_book,
            payee=key,
            money=Money(balance.posted, key.currency),
            reference=new_id(),
            rule=ACCOUNT_MOVE,
        )
        result = await move(db, ledger, order)
        if result.status == "in_flight":
            raise MovementUnfinished
        if result.happened:
            moved += await _arrived(db, ledger, order)
        balance = await _movable(db, under_way.book, key)
    raise AccountNotEmpty(kind=key.kind)


async def _arrived(db: Db, ledger: Ledger, order: MoveOrder) -> int:
    movement = await complete(db, ledger, order.book, order.id)
    if movement.ended_at is None:
        raise MovementUnfinished
    if movement.state is not MovementState.ARRIVED:
        raise AccountNotMovable(code=movement.code)
    return movement.amount


async def _give_limits(ledger: Ledger, under_way: LedgerAccountMove, *, actor: str) -> None:
    """Give the account in its new book the limits it had, where the kind's own differ."""
    key = _key(under_way)
    if (under_way.floor, under_way.ceiling) == (CHART[key.kind].floor, None):
        return
    with contextlib.suppress(AccountMissing):  # without money nothing opened it there yet
        await ledger.set_account_limits(
            under_way.to_book,
            key,
            floor=under_way.floor,
            ceiling=under_way.ceiling,
            actor=actor,
            because=_BECAUSE,
        )


async def _reopen(db: Db, ledger: Ledger, under_way: LedgerAccountMove, *, actor: str) -> None:
    """Give the account in its old book its limits back, because it stays."""
    await ledger.set_account_limits(
        under_way.book,
        _key(under_way),
        floor=under_way.floor,
        ceiling=under_way.ceiling,
        actor=actor,
        because="stays in its book",
    )
    await store.FORGET_MOVE.run(db, *_name(under_way))


def _key(under_way: LedgerAccountMove) -> AccountKey:
    owner = None if under_way.owner == NOBODY else under_way.owner
    return AccountKey(under_way.kind, under_way.currency, owner)


def _name(under_way: LedgerAccountMove) -> tuple[object, ...]:
    return under_way.book, under_way.kind, under_way.owner, under_way.currency

"""Moving money between books: a leg in each, each a commit of its own, and no way to lose any.

The first leg takes the money from the payer and, in the same commit, writes down the movement and
asks for the second. Every later leg has an id derived from the reference, and the ledger answers
each of them for ever, so whoever brings a movement to its end, however often, does the same.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final
from uuid import UUID

import structlog
from prometheus_client import Counter

from tongbao.infra.db import Db, Write
from tongbao.infra.failpoints import failpoint
from tongbao.infra.tasks import Again, Lease, RetryPolicy, Task, task_write
from tongbao.kernel.ids import derived_id, show
from tongbao.kernel.money import CurrencyMismatch
from tongbao.ledger.book import Ledger
from tongbao.ledger.model import (
    NOBODY,
    AccountKey,
    BookMissing,
    Group,
    Result,
    Transfer,
    TransferAmountInvalid,
)
from tongbao.ledger.movements import _store as store
from tongbao.ledger.movements.model import (
    LedgerMovement,
    MovementEnded,
    MovementNotCancellable,
    MovementNotFound,
    MovementState,
    MovementWithinBook,
    MoveOrder,
    families,
)
from tongbao.ledger.rules.chart import book_owner
from tongbao.ledger.rules.posting import RULES, FactsDiffer, transfers

PREFIX: Final = "mov"
_SOON: Final = timedelta(seconds=1)

COMPLETE_POLICY: Final = RetryPolicy(
    attempts_max=1_000_000,  # money is on its way: it never gives up
    delays=tuple(timedelta(seconds=each) for each in (1, 5, 30, 120, 600)),
)
_ENDED: Final = Counter(
    "tongbao_ledger_movements", "Movements between books that ended, by how", ["state"]
)
_log = structlog.get_logger()


class CompleteMovement(Task, frozen=True, tag="ledger.complete_movement"):
    """Bring a movement between books to its end."""

    book: int
    movement_id: UUID


async def move(db: Db, ledger: Ledger, order: MoveOrder) -> Result:
    """Send money to another book: the answer is that of the first leg, and final for the payer.

    A worker brings it to its end; `complete` does so at once, for a caller who wants to know.

    Raises:
        MovementWithinBook, BookMissing, TransferAmountInvalid
        FactsDiffer, CurrencyMismatch: a bug of the caller.
    """
    if order.rule not in families() or (order.held and f"{order.rule}.held" not in RULES):
        raise FactsDiffer(f"there is no family of rules {order.rule} for this movement")
    if order.book == order.to_book:
        raise MovementWithinBook(book=order.book)
    if order.money.amount < 1:
        raise TransferAmountInvalid
    if order.payee.currency != order.money.currency:
        raise CurrencyMismatch(f"{order.payee.currency} met {order.money.currency}")
    if await store.HAS_BOOK.first(db, order.to_book) is None:
        raise BookMissing(book=order.to_book)
    now = db.clock.now()
    part = "held" if order.held else "out"
    leg = _leg(
        f"{order.rule}.{part}",
        order.reference,
        {"payer": order.payer, "in_transit_out": _transit("in_transit_out", order)},
        order,
    )
    row = (
        *(order.book, order.id, order.reference, order.rule, order.held),
        *(order.money.currency, order.money.amount),
        *(order.payer.kind, order.payer.owner or NOBODY, order.to_book),
        *(order.payee.kind, order.payee.owner or NOBODY, now),
    )
    companions = (
        Write(store.ADD_MOVEMENT, row),
        task_write(CompleteMovement(order.book, order.id), run_at=now, key=str(order.id)),
    )
    [result] = await ledger.submit([Group(leg.id, order.book, (leg,), companions)])
    failpoint("ledger.after_leg_out")
    return result


async def run_complete_movement(
    db: Db, ledger: Ledger, task: CompleteMovement, _lease: Lease
) -> Again | None:
    """Bring a movement a step nearer to its end, and come back until it has one."""
    movement = await complete(db, ledger, task.book, task.movement_id)
    return None if movement.ended_at is not None else Again(_SOON)


async def complete(db: Db, ledger: Ledger, book: int, movement_id: UUID) -> LedgerMovement:
    """Bring a movement as far as possible now and return it; repeating this changes nothing.

    Raises:
        MovementNotFound
    """
    movement = await _get(db, book, movement_id)
    if movement.ended_at is not None:
        return movement
    if movement.held and movement.state is MovementState.MOVING:
        await store.START_ARRIVING.run(db, book, movement_id)
        movement = await _get(db, book, movement_id)
        if movement.state is not MovementState.ARRIVING:
            return movement  # cancelled just before
    failpoint("ledger.before_leg_in")
    arrival = await _submit(ledger, movement.to_book, _arrival(movement))
    failpoint("ledger.after_leg_in")
    if arrival.status == "in_flight":
        return movement
    if arrival.happened:
        await _settle(db, ledger, movement)
    else:
        await _give_back(db, ledger, movement, arrival.code or "")
    ended = await _get(db, book, movement_id)
    if ended.ended_at is not None:
        _ENDED.labels(ended.state.value).inc()
    return ended


async def cancel(db: Db, ledger: Ledger, book: int, movement_id: UUID) -> Result:
    """Release a held movement that has not begun to arrive.

    Refused with `MovementNotCancellable` once the payee may have the money.

    Raises:
        MovementNotFound
    """
    movement = await _get(db, book, movement_id)
    if not movement.held:
        return Result("refused", MovementNotCancellable.code)
    write = Write(
        store.CANCEL_MOVEMENT,
        (book, movement_id, db.clock.now()),
        refusal=MovementNotCancellable.code,
    )
    # A group of its own, because a refused one is refused for ever and a later release is not.
    group_id = derived_id(movement_id, "cancel")
    leg = _end_of_hold(movement, "released")
    [result] = await ledger.submit([Group(group_id, book, (leg,), (write,))])
    return result


async def _settle(db: Db, ledger: Ledger, movement: LedgerMovement) -> None:
    """Note that the payee has the money; what was only held is moved now."""
    end = _end(db, movement, MovementState.ARRIVED, None)
    if movement.held:
        await _submit(ledger, movement.book, _end_of_hold(movement, "sent"), end)
    else:
        await end.statement.run(db, *end.args)


async def _give_back(db: Db, ledger: Ledger, movement: LedgerMovement, code: str) -> None:
    """Return the money to the payer, or keep it in suspense where the payer cannot take it."""
    _log.warning(
        "ledger_movement_refused",
        movement=show(PREFIX, movement.id),
        to_book=movement.to_book,
        code=code,
    )
    end = _end(db, movement, MovementState.RETURNED, code)
    if movement.held:
        await _submit(ledger, movement.book, _end_of_hold(movement, "released"), end)
        return
    accounts = {"in_transit_out": _transit("in_transit_out", movement), "payer": movement.payer}
    rule = f"{movement.rule}.returned"
    back = await _submit(
        ledger, movement.book, _leg(rule, movement.reference, accounts, movement), end
    )
    if back.status == "in_flight" or back.happened:
        return
    _log.error("ledger_movement_suspended", movement=show(PREFIX, movement.id), code=back.code)
    leg = _leg(f"{movement.rule}.suspended", movement.reference, accounts, movement)
    end = _end(db, movement, MovementState.SUSPENDED, code)
    await _submit(ledger, movement.book, leg, end)


async def _submit(ledger: Ledger, book: int, leg: Transfer, *companions: Write) -> Result:
    [result] = await ledger.submit([Group(leg.id, book, (leg,), companions)])
    if result.status == "exists_different":
        raise RuntimeError(f"{leg.code} of {leg.reference} is in book {book} with another body")
    return result


def _end(db: Db, movement: LedgerMovement, state: MovementState, code: str | None) -> Write:
    args = (movement.book, movement.id, state.value, code, db.clock.now())
    return Write(store.END_MOVEMENT, args, refusal=MovementEnded.code)


def _arrival(movement: LedgerMovement) -> Transfer:
    origin = AccountKey("in_transit_in", movement.currency, book_owner(movement.book))
    accounts = {"in_transit_in": origin, "payee": movement.payee}
    return _leg(f"{movement.rule}.in", movement.reference, accounts, movement)


def _end_of_hold(movement: LedgerMovement, part: str) -> Transfer:
    rule = f"{movement.rule}.{part}"
    [leg] = transfers(rule, reference=movement.reference, accounts={}, amounts={})
    return leg


def _leg(
    rule: str,
    reference: UUID,
    accounts: dict[str, AccountKey],
    of: MoveOrder | LedgerMovement,
) -> Transfer:
    [leg] = transfers(rule, reference=reference, accounts=accounts, amounts={"amount": of.money})
    return leg


def _transit(kind: str, of: MoveOrder | LedgerMovement) -> AccountKey:
    return AccountKey(kind, of.money.currency, book_owner(of.to_book))


async def _get(db: Db, book: int, movement_id: UUID) -> LedgerMovement:
    movement = await store.GET_MOVEMENT.first(db, book, movement_id)
    if movement is None:
        raise MovementNotFound(movement=show(PREFIX, movement_id))
    return movement

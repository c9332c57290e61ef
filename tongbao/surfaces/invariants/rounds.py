"""The round: every few minutes, what happened since the last one, and a piece of the past.

    payments   …past mark ──► 20,000 ──►            …new mark ──► 20,000 ──► … ──► five minutes ago
    audit log  …past block ─► 1,024 ──►             last checkpoint proved ──► the newest
    accounts   …past mark ──► 20,000 ──►

A round costs what happened since the one before and a fixed share of the past, and not what ever
happened: the marks are how far everything was looked at once, and behind them the past is looked
at again from its beginning, in turn. `tongbao invariants` looks at everything at once. A round
turns a light red and never green: what is red is looked at whole again, once an hour.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final
from uuid import UUID

from msgspec import Struct

from tongbao.controls.audit_log.checkpoints import (
    last_checkpoint_number,
    verify_log,
    verify_log_since,
)
from tongbao.infra.audit_tree import BLOCK, place_entries, size_of_log, troubles_of_block
from tongbao.infra.db import Db, Tx
from tongbao.infra.tasks import Again, Lease, RetryPolicy, Task, enqueue
from tongbao.kernel.clock import monotonic, real_now
from tongbao.kernel.ids import show
from tongbao.kernel.licence import Licence, Mode
from tongbao.parties.e_accounts.opening import book_of
from tongbao.surfaces.invariants import _store as store
from tongbao.surfaces.invariants._store import Found
from tongbao.surfaces.invariants.running import (
    LAST_ID,
    LOOKS_BACK,
    UNTOLD_FOR,
    add_up,
    chosen,
    look,
    put_light,
)

EVERY: Final = timedelta(minutes=5)
POLICY: Final = RetryPolicy(attempts_max=1_000_000, delays=(EVERY,))
PAYMENTS: Final = 20_000
"""So many payments are looked at in one piece."""
PIECES_MAX: Final = 10
"""So many pieces of new payments a round looks at; what is left is the next one's, at once."""
SETTLES: Final = timedelta(minutes=5)
"""How old, in real time, a payment is when it is looked at first: most have ended by then."""
RED_AGAIN: Final = timedelta(hours=1)
USED_SINCE: Final = timedelta(days=2)
SMALL_LOG: Final = 2 * BLOCK
"""A log of so many entries is derived whole every time."""
ACCOUNTS: Final = 20_000
"""So many electronic accounts of people are compared with the ledger in a round."""
_PIECEWISE: Final = ("I4", "I5", "I6", "I7")
_IN_PART: Final = (*_PIECEWISE, "I10", "I11", "I15")
"""Of these a round sees a part, and a part that is sound says nothing of the rest."""
_BOOKS: Final = sorted(book_of(mode) for mode in Mode)
_BEGINNING: Final = UUID(int=0)
_BEHIND_THE_TIME: Final = 80  # bits of a UUIDv7
_SHARED: Final = 64  # bits at the end in which a derived id differs from its parent's


class WatchInvariants(Task, frozen=True, tag="invariants.watch"):
    """Run the quick invariants over what is new, every few minutes."""


class _Piece(Struct, frozen=True):
    """Payments with ids after one and up to another."""

    after: UUID
    until: UUID


async def seed(tx: Tx) -> None:
    """Start the round, unless it runs already."""
    await enqueue(tx, WatchInvariants(), key="always")


async def run_watch(db: Db, licence: Licence, _task: WatchInvariants, _lease: Lease) -> Again:
    """Look at what is new, and come again: at once where more is left than one round takes."""
    return Again(timedelta(seconds=1) if await run_round(db, licence) else EVERY)


async def run_round(db: Db, licence: Licence, red_again: timedelta = RED_AGAIN) -> bool:
    """Look at what is new and at a piece of the past; tell whether more that is new is left.

    What was seen red longer than ``red_again`` ago is looked at whole.
    """
    pieces, is_behind = await _pieces(db)
    for each in chosen((), licence, quick=True):
        began = monotonic()
        light = await store.LIGHT.first(db, each.name)
        is_red = light is not None and light.breaches > 0
        if light is not None and is_red and db.clock.now() - light.checked_at >= red_again:
            await put_light(db, each.name, await look(db, each.name, licence), began)
            continue
        if each.name in _PIECEWISE:
            found = add_up([await _look_at(db, each.name, piece) for piece in pieces])
        elif each.name == "I10":
            found = await _audit(db)
        elif each.name == "I11":
            found = await store.OFFLINE_SINCE.one(db, db.clock.now() - USED_SINCE)
        elif each.name == "I15":
            found = await _e_accounts(db)
        else:
            found = await look(db, each.name, licence)
        if found.breaches or not is_red or each.name not in _IN_PART:
            await put_light(db, each.name, found, began)
    await _move_marks(db, pieces)
    return is_behind


async def _pieces(db: Db) -> tuple[list[_Piece], bool]:
    """Return a piece of the past, then the new ones in order; and whether more is left."""
    new, past = (
        await store.MARK.first(db, "payments.new"),
        await store.MARK.first(db, "payments.past"),
    )
    proved = new.place if new else _BEGINNING
    pieces = [await _piece(db, past.place if past and past.place < proved else _BEGINNING, proved)]
    ceiling = UUID(int=int((real_now() - SETTLES).timestamp() * 1000) << _BEHIND_THE_TIME)
    while len(pieces) <= PIECES_MAX and proved < ceiling:
        pieces.append(await _piece(db, proved, ceiling))
        proved = pieces[-1].until
    return pieces, proved < ceiling


async def _piece(db: Db, after: UUID, ceiling: UUID) -> _Piece:
    last = await store.SLICE_END.first(db, after, ceiling, PAYMENTS - 1)
    return _Piece(after, last or ceiling)


async def _look_at(db: Db, name: str, piece: _Piece) -> Found:
    if piece.after == piece.until:
        return Found(0, "")
    now, ends = db.clock.now(), (piece.after, piece.until)
    if name == "I4":
        return await store.REFUNDS_IN.one(db, *ends)
    if name == "I5":
        return await store.STATES_IN.one(db, *ends)
    if name == "I6":
        first = UUID(int=piece.after.int >> _SHARED << _SHARED)
        last = UUID(int=piece.until.int | (1 << _SHARED) - 1)
        return await store.CAPTURES_IN.one(db, *ends, first, last, now - LOOKS_BACK)
    told = await store.ENDS_IN.all(db, *ends, now - LOOKS_BACK)
    subjects = [show(each.prefix, each.id) for each in told]
    found = await store.TOLD.one(db, subjects, [each.type for each in told])
    return add_up([found, await store.UNTOLD.one(db, now - UNTOLD_FOR, *ends)])


async def _e_accounts(db: Db) -> Found:
    """Compare the next accounts with the ledger: book by book, and then from the beginning."""
    mark = await store.MARK.first(db, "e_accounts.past")
    book, after = (mark.number, mark.place) if mark else (_BOOKS[0], _BEGINNING)
    last = await store.E_ACCOUNTS_END.first(db, book, after, ACCOUNTS - 1)
    found = await store.E_ACCOUNTS_IN.one(db, book, after, last or LAST_ID)
    following = _BOOKS[(_BOOKS.index(book) + 1) % len(_BOOKS)]
    book, after = (book, last) if last else (following, _BEGINNING)
    await store.PUT_MARK.run(db, "e_accounts.past", after, book, db.clock.now())
    return found


async def _move_marks(db: Db, pieces: list[_Piece]) -> None:
    past, *new = pieces
    at = db.clock.now()
    await store.PUT_MARK.run(db, "payments.past", past.until, 0, at)
    if new:
        await store.PUT_MARK.run(db, "payments.new", new[-1].until, 0, at)


async def _audit(db: Db) -> Found:
    """Derive what the log has had since the last checkpoint that was proved, and an old block."""
    await place_entries(db)
    size = await size_of_log(db)
    if size <= SMALL_LOG:
        report = await verify_log(db)
        return Found(report.breaches, report.first)
    new, past = await store.MARK.first(db, "audit.new"), await store.MARK.first(db, "audit.past")
    proves = await last_checkpoint_number(db)
    report = await verify_log_since(db, new.number if new else 0)
    block = past.number if past and (past.number + 1) * BLOCK <= size else 0
    troubles = await troubles_of_block(db, block)
    at = db.clock.now()
    if not report.breaches:
        await store.PUT_MARK.run(db, "audit.new", _BEGINNING, proves, at)
    await store.PUT_MARK.run(db, "audit.past", _BEGINNING, block + 1, at)
    return Found(report.breaches + len(troubles), report.first or next(iter(troubles), ""))

"""Filling the memory of a book from its rows, for its writer and for a rehearsal of a posting.

A rehearsal decides on a memory of its own, in a snapshot that it only reads: nothing is written, no
account is opened and no id is used up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from tongbao.infra.db import Db, Tx
from tongbao.kernel.clock import real_now
from tongbao.ledger.decision.core import BookState, decide
from tongbao.ledger.decision.records import (
    CREATED,
    REPEATED,
    AccountRow,
    Batch,
    batch_of,
    refusal_of,
)
from tongbao.ledger.door.names import Accounts, Names, is_imagined
from tongbao.ledger.door.repeats import answer_repeats, recorded_ids
from tongbao.ledger.model import AccountState, Group, Result
from tongbao.ledger.poster import _store as store
from tongbao.ledger.poster.lease import read_head
from tongbao.ledger.rows import LedgerBook
from tongbao.ledger.rules.chart import CHART

AHEAD_MAX: Final = timedelta(minutes=5)
"""How far the time in an id may be ahead of ours."""
_TRIES: Final = 50
_PAUSE_S: Final = 0.01


async def state_of(on: Db | Tx, head: LedgerBook) -> BookState:
    """Return the memory of a book with nothing in it yet."""
    state = BookState(head)
    horizon = await store.ARCHIVED_BEFORE.first(on, head.book)
    if horizon is not None:
        state.archived_front = horizon.int >> 64
    return state


async def fill(on: Db | Tx, state: BookState, batch: Batch) -> None:
    """Put into the memory what the batch needs and it lacks."""
    if ids := state.missing_ids(batch):
        state.remember(*await recorded_ids(on, state.book, ids))
    if holds := state.missing_holds(batch):
        state.load_holds(await store.LOAD_HOLDS.all(on, state.book, holds))
    if accounts := state.missing_accounts(batch):
        state.load_accounts(await store.LOAD_ACCOUNTS.all(on, state.book, accounts))


async def rehearse(db: Db, names: Names, book: int, groups: Sequence[Group]) -> list[Result]:
    """Return what would become of the groups now, one after the other, companions left out.

    Decided on the balances as they are, which under load may be those of a moment ago.

    Raises:
        BookMissing
    """
    accounts = await names.look(book, groups)
    codes = await names.look_up_codes(groups)
    batch = batch_of(groups, accounts, codes)
    for tries_left in reversed(range(_TRIES)):
        async with db.begin("ledger") as tx:
            await store.BEGIN_SNAPSHOT.run(tx)
            head = await read_head(tx, book)
            mark = await store.GET_WATERMARK.one(tx, book)
            if mark.batch == head.last_batch or not tries_left:
                return await _rehearse(tx, head, batch, _unopened(accounts))
        await asyncio.sleep(_PAUSE_S)
    raise AssertionError("the last try decides")


async def _rehearse(
    tx: Tx, head: LedgerBook, batch: Batch, unopened: Sequence[AccountRow]
) -> list[Result]:
    state = await state_of(tx, head)
    state.load_accounts(unopened)
    await fill(tx, state, batch)
    decision = decide(state, batch, tx.now, real_now() + AHEAD_MAX)
    repeated = (decision.codes == REPEATED).nonzero()[0].tolist()
    repeats = await answer_repeats(tx, head.book, batch, repeated) if repeated else {}
    codes = decision.codes.tolist()
    return [repeats.get(place) or _result(code) for place, code in enumerate(codes)]


def _result(code: int) -> Result:
    if code == CREATED:
        return Result("created")
    return Result("refused" if code > 0 else "in_flight", refusal_of(code).code)


def _unopened(accounts: Accounts) -> list[AccountRow]:
    """Return the accounts that would be opened, as they would be."""
    return [
        AccountRow(
            id=number,
            side=CHART[key.kind].side,
            floor=CHART[key.kind].floor,
            ceiling=None,
            state=AccountState.OPEN,
            currency=key.currency,
            debits_pending=0,
            debits_posted=0,
            credits_pending=0,
            credits_posted=0,
            touches=0,
            last_transfer=None,
        )
        for key, number in accounts.items()
        if isinstance(number, int) and is_imagined(number)
    ]

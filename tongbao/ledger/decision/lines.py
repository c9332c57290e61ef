"""The transfers of a batch as columns, and what they do to the counters of their accounts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeAlias

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from tongbao.ledger.decision.memory import BookState, Hold
from tongbao.ledger.decision.records import CREATED, Batch, Records, Whole, code_of
from tongbao.ledger.model import (
    HoldAlreadyPosted,
    HoldAlreadyVoided,
    HoldExceeded,
    HoldExpired,
    HoldNotDue,
    TransferFlags,
    TransferKind,
)

Flags: TypeAlias = NDArray[np.bool_]

PENDING, POST, EXPIRE = map(int, (TransferKind.PENDING, TransferKind.POST, TransferKind.EXPIRE))
LINKED, WHOLE, AT_MOST, FOLLOWS = map(int, TransferFlags)
OVER: Final = (CREATED, *map(code_of, (HoldAlreadyPosted, HoldAlreadyVoided, HoldExpired)))
"""Why a hold does not end once more, by its state."""
_NOT_DUE: Final = code_of(HoldNotDue)
_EXPIRED: Final = code_of(HoldExpired)
_EXCEEDED: Final = code_of(HoldExceeded)


Touches: TypeAlias = tuple[Whole, Whole, Whole]
"""Touches of accounts, sorted: which one (2n is the debit of line n and 2n + 1 its credit), the
account's slot, and where each account begins."""


class Lines(Struct):
    """The transfers of a batch as columns; ``posted`` and ``held`` are what they do to counters."""

    group: Whole
    kinds: Whole
    flags: Whole
    ids: list[bytes]
    pending_ids: list[bytes]  # empty when no hold is ended
    debit: Whole  # slots of the memory; -1 when not known
    credit: Whole
    amount: Whole
    posted: Whole
    held: Whole
    records: Records
    touches: Touches | None = None  # of all the transfers, when they were worked out

    def move(self, place: int, amount: int, *, held: bool) -> None:
        """Write down that this much moves, or is held."""
        self.amount[place] = amount
        (self.held if held else self.posted)[place] = amount

    def end(self, settled: Sequence[tuple[int, int, int]]) -> None:
        """Write down which transfers end a hold, of how much, and how much of it is posted."""
        if settled:
            places, held, posted = np.array(settled, np.int64).T
            self.held[places], self.posted[places] = -held, posted
            self.amount[places] = np.where(posted == 0, held, posted)

    @property
    def ends(self) -> bool:
        """Whether a hold is ended."""
        return bool(self.pending_ids)


def lines_of(state: BookState, batch: Batch) -> Lines:
    """Write the transfers of the batch as columns; what ends of holds do is not filled in."""
    records = batch.records
    kinds = records["kind"].astype(np.int64)
    amount = records["amount"].astype(np.int64)
    return Lines(
        group=np.arange(len(batch.ids)).repeat(batch.starts[1:] - batch.starts[:-1]),
        kinds=kinds,
        flags=records["flags"].astype(np.int64) & (WHOLE | AT_MOST),
        ids=records["id"].tolist(),
        pending_ids=records["pending_id"].tolist() if (kinds > PENDING).any() else [],
        debit=state.slots_of(records["debit"]),
        credit=state.slots_of(records["credit"]),
        amount=amount,
        posted=np.where(kinds < PENDING, amount, 0),
        held=np.where(kinds == PENDING, amount, 0),
        records=records,
    )


def stood_for(batch: Batch) -> Flags:
    """Say which groups have the id of their first transfer, so that it can stand for them."""
    if not len(batch.records):
        return np.zeros(len(batch.ids), np.bool_)
    firsts = np.minimum(batch.starts[:-1], len(batch.records) - 1)
    same: Flags = batch.records["id"][firsts] == batch.ids
    return same & (batch.starts[1:] > batch.starts[:-1])


def opened_in(lines: Lines, live: Flags) -> dict[bytes, int]:
    """Return the places of the transfers that open a hold."""
    places: list[int] = ((lines.kinds == PENDING) & live).nonzero()[0].tolist()
    return {lines.ids[place]: place for place in places}


def ending(hold: Hold, kind: int, amount: int, now: int) -> tuple[int, int]:
    """Say whether a hold may end so, and how much of it is posted."""
    _, _, held, state, _, expires_at = hold
    is_due = 0 < expires_at <= now
    if state:
        return OVER[state], 0
    if kind != POST:
        return (_NOT_DUE if kind == EXPIRE and not is_due else CREATED), 0
    if is_due:
        return _EXPIRED, 0
    if amount > held:
        return _EXCEEDED, 0
    return CREATED, amount or held


def by_account(debit: Whole, credit: Whole) -> Touches:
    """Return every touch of an account, account by account and in order."""
    count = 2 * len(debit)
    shift = count.bit_length()
    keys = np.empty(count, np.int64)
    keys[0::2], keys[1::2] = debit, credit
    keys <<= shift
    keys |= np.arange(count)
    keys.sort()  # no two are equal, so this order is the one of the batch within an account
    slot = keys >> shift
    begins = np.ones(count, np.bool_)
    np.not_equal(slot[1:], slot[:-1], out=begins[1:])
    return keys & ((1 << shift) - 1), slot, begins.nonzero()[0]

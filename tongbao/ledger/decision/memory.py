"""What the poster of one book remembers: its accounts as columns, its holds, its newest ids."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Final, TypeAlias, TypeVar
from uuid import UUID

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from tongbao.ledger.decision.records import (
    NO_ID,
    AccountRow,
    Batch,
    Codes,
    HoldRow,
    Records,
    Whole,
    fronts,
    microseconds,
)
from tongbao.ledger.model import BOOK_SHIFT, AccountState, HoldState, Side, TransferKind
from tongbao.ledger.rows import LedgerBook

_Kind = TypeVar("_Kind", bound=np.generic)
Hold: TypeAlias = tuple[int, int, int, int, int, int]
"""Debit account, credit account, amount, state, posted amount, expires_at: as in HOLD."""

HOLD_STATES: Final = (HoldState.HELD, HoldState.POSTED, HoldState.VOIDED, HoldState.EXPIRED)
"""The states by the number that records keep; that of an end is two less than its kind."""

NO_LIMIT: Final = int(np.iinfo(np.int64).max)
# The row of an account: four counters, then the least and the most that its credit balance may be,
# see _limits; 1 or -1 for the normal side; what it bars, and above that its currency.
LEAST, MOST, SIGN, TRAITS = 4, 5, 6, 7
# What an account does not let happen, as bits: a frozen one keeps in what would lower its balance.
BARS_DEBIT, BARS_CREDIT, BARS_ALL = 1, 2, 4
CURRENCY_SHIFT: Final = 3

MARK_EVERY: Final = 64
"""The touches of an account from one mark of its chain to the next."""

_ROOM: Final = 512
_NEAR: Final = 1 << 26
"""Accounts numbered below this, which is all of them, are found by their number."""
_IDS_MAX: Final = 400_000
_HOLDS_MAX: Final = 400_000
_FORGOTTEN: Final = 50_000
"""How many ids or holds are forgotten at once when there are more than that."""


class Marks(Struct, frozen=True):
    """The transfers that touch their account for the 64th, 128th, … time."""

    accounts: Whole
    seqs: Whole
    ids: Records


class Moved(Struct, frozen=True):
    """How the accounts that a batch touches, and the holds, come out of it and were before."""

    slots: Whole
    accounts: Whole
    counters: Whole
    counters_before: Whole
    touches: Whole
    touches_before: Whole
    last: Records
    last_before: Records
    marks: Marks
    holds: dict[bytes, Hold]
    holds_before: dict[bytes, Hold]
    transfers: list[bytes]
    groups: list[bytes]


class Decision(Struct, frozen=True):
    """What becomes of each group of a batch and what to write; nothing is changed yet."""

    codes: Codes  # CREATED, above it refused, below it not now (see records.code_of)
    seqs: Whole  # of each created group's last transfer; 0 when it has none
    journal: Records  # of JOURNAL, seq given
    holds_opened: Records  # of HOLD, in their state at the end of the batch
    holds_ended: Records  # of HOLD, that were opened by earlier batches
    requests: Whole  # the groups to record, by place: refused, or created and not stood for
    spans: Records  # of the journal records' ids, see spans.spans_of
    newest_id: bytes  # the greatest id that is recorded: of transfers and of requests
    moved: Moved


class BookState:
    """The memory of one book's poster: what its accounts, holds and ids have come to.

    Filled as batches need it; an account that is not in it was not touched since the book was
    taken, so its row is exact. Every id above ``known_above`` that the book has recorded is in it;
    so are, up to a number, the holds that were opened or ended last.
    """

    def __init__(self, head: LedgerBook) -> None:
        self.book = head.book
        self.last_seq = head.last_seq
        self.frozen = head.frozen
        self.stopped = head.stopped_because is not None
        self.closed_through = head.closed_through
        self.known_above = head.newest_id.bytes
        self.archived_front = 0  # ids whose first eight bytes are below it are not taken any more
        self.holds: dict[bytes, Hold] = {}
        self.transfers: dict[bytes, None] = {}  # ids, in the order they came, as are the groups'
        self.groups: dict[bytes, None] = {}
        self.rows = np.zeros((_ROOM, 8), np.int64)
        self.accounts = np.zeros(_ROOM, np.int64)
        self.touches = np.zeros(_ROOM, np.int64)
        self.last = np.zeros(_ROOM, "V16")
        self._loaded = 0
        self._near = np.zeros(_ROOM, np.int32)  # the slot of each account, plus one
        self._far: dict[int, int] = {}
        self._currencies: dict[str, int] = {}

    def slots_of(self, accounts: Whole) -> Whole:
        """Return where the accounts are in the columns; -1 for one that is not loaded."""
        numbers = accounts - (self.book << BOOK_SHIFT)
        near = (numbers >= 0) & (numbers < len(self._near))
        if near.all():
            return self._near[numbers].astype(np.int64) - 1
        slots = np.full(len(accounts), -1, np.int64)
        slots[near] = self._near[numbers[near]].astype(np.int64) - 1
        if self._far:
            for place in (~near).nonzero()[0].tolist():
                slots[place] = self._far.get(int(accounts[place]), -1)
        return slots

    def slot_of(self, account: int) -> int:
        """Return where the account is in the columns; -1 when it is not loaded."""
        number = account - (self.book << BOOK_SHIFT)
        if 0 <= number < len(self._near):
            return int(self._near[number]) - 1
        return self._far.get(account, -1)

    def missing_holds(self, batch: Batch) -> list[UUID]:
        """Return the holds that the batch ends and the memory lacks.

        Ask after `missing_ids`, for a hold that the batch itself opens is in no other place, and
        before `missing_accounts`, which knows the accounts of holds only then.
        """
        unknown = dict.fromkeys(hold for hold in _holds_ended(batch) if hold not in self.holds)
        if not unknown:
            return []
        opened: list[bytes] = batch.records["id"].tolist()
        for hold in unknown.keys() & opened:
            if hold not in self.transfers:
                del unknown[hold]
        return [UUID(bytes=hold) for hold in unknown]

    def missing_accounts(self, batch: Batch) -> list[int]:
        """Return the accounts that the batch, or a hold it ends, names and the memory lacks."""
        named = np.concatenate((batch.records["debit"], batch.records["credit"]))
        unknown = set(named[self.slots_of(named) < 0].tolist())
        for hold in map(self.holds.get, _holds_ended(batch)):
            if hold is not None:
                unknown.update(account for account in hold[:2] if self.slot_of(account) < 0)
        return sorted(account for account in unknown if account > 0)

    def missing_ids(self, batch: Batch) -> list[UUID]:
        """Return the ids, of groups and transfers, that may be recorded without the memory knowing.

        Look them up and `remember` those found, then decide.
        """
        bound = int.from_bytes(self.known_above[:8], "big")
        doubtful: dict[bytes, None] = {}
        for column in (batch.ids, batch.records["id"]):
            for place in (fronts(column) <= bound).nonzero()[0].tolist():
                doubtful[column[place].tobytes()] = None
        return [
            UUID(bytes=one)
            for one in doubtful
            if one <= self.known_above and one not in self.transfers and one not in self.groups
        ]

    def remember(self, transfers: Iterable[bytes], groups: Iterable[bytes]) -> None:
        """Take in ids that look-ups found in the journal and among the requests."""
        self.transfers.update(dict.fromkeys(transfers))
        self.groups.update(dict.fromkeys(groups))

    def load_accounts(self, rows: Sequence[AccountRow]) -> None:
        """Take in accounts; one that is loaded already keeps what the memory knows of it."""
        rows = [row for row in rows if self.slot_of(row.id) < 0]
        if not rows:
            return
        first = self._loaded
        self._loaded += len(rows)
        self._make_room()
        new = slice(first, self._loaded)
        self.rows[new] = [
            (
                row.debits_pending,
                row.debits_posted,
                row.credits_pending,
                row.credits_posted,
                *_limits(row),
                1 if row.side is Side.CREDIT else -1,
                _bars(row) | self._currency(row.currency) << CURRENCY_SHIFT,
            )
            for row in rows
        ]
        self.accounts[new] = [row.id for row in rows]
        self.touches[new] = [row.touches for row in rows]
        last_ids = (row.last_transfer.bytes if row.last_transfer else NO_ID for row in rows)
        self.last[new] = np.frombuffer(b"".join(last_ids), "V16")
        for slot, row in enumerate(rows, start=first):
            self._place(row.id, slot)

    def load_holds(self, rows: Sequence[HoldRow]) -> None:
        """Take in holds; one that is loaded already keeps what the memory knows of it."""
        for row in rows:
            self.holds.setdefault(
                row.pending_id.bytes,
                (
                    row.debit_account,
                    row.credit_account,
                    row.amount,
                    HOLD_STATES.index(row.state),
                    row.posted_amount,
                    0 if row.expires_at is None else microseconds(row.expires_at),
                ),
            )

    def apply(self, decision: Decision) -> None:
        """Move on to the state that the decision leads to."""
        moved = decision.moved
        self.last_seq += len(decision.journal)
        self.rows[moved.slots, :LEAST] = moved.counters
        self.touches[moved.slots] += moved.touches
        self.last[moved.slots] = moved.last
        for hold in moved.holds_before:
            del self.holds[hold]  # so that it counts as new when the oldest are forgotten
        self.holds.update(moved.holds)
        self.remember(moved.transfers, moved.groups)
        self._forget()

    def revert(self, decision: Decision) -> None:
        """Go back to before the decision, which must be the last one applied."""
        moved = decision.moved
        self.last_seq -= len(decision.journal)
        self.rows[moved.slots, :LEAST] = moved.counters_before
        self.touches[moved.slots] -= moved.touches
        self.last[moved.slots] = moved.last_before
        for hold in moved.holds:
            del self.holds[hold]
        self.holds.update(moved.holds_before)
        for one in moved.transfers:
            del self.transfers[one]
        for one in moved.groups:
            del self.groups[one]

    def _currency(self, code: str) -> int:
        return self._currencies.setdefault(code, len(self._currencies))

    def _make_room(self) -> None:
        if self._loaded > len(self.accounts):
            room = 2 * self._loaded
            self.rows, self.accounts = _grown(self.rows, room), _grown(self.accounts, room)
            self.touches, self.last = _grown(self.touches, room), _grown(self.last, room)

    def _place(self, account: int, slot: int) -> None:
        number = account - (self.book << BOOK_SHIFT)
        if number >= _NEAR:
            self._far[account] = slot
            return
        if number >= len(self._near):
            self._near = _grown(self._near, min(2 * number, _NEAR))
        self._near[number] = slot + 1

    def _forget(self) -> None:
        """Let the oldest ids and holds go: from now on they are looked up when they are named."""
        if len(self.holds) > _HOLDS_MAX:
            for hold in [*islice(self.holds, _FORGOTTEN)]:
                del self.holds[hold]
        for known in (self.transfers, self.groups):
            if len(known) > _IDS_MAX:
                # All but the few that are ahead of their time, for whose sake everything up to
                # them would have to be looked up.
                oldest = sorted(islice(known, _FORGOTTEN))[: -1 - _FORGOTTEN // 50]
                for one in oldest:
                    del known[one]
                self.known_above = max(self.known_above, oldest[-1])


def _grown(column: NDArray[_Kind], room: int) -> NDArray[_Kind]:
    """Return the column with room for more."""
    longer: NDArray[_Kind] = np.zeros((room, *column.shape[1:]), column.dtype)
    longer[: len(column)] = column
    return longer


def _holds_ended(batch: Batch) -> list[bytes]:
    """Return the ids of the holds that the batch ends."""
    ends = batch.records["kind"] >= TransferKind.POST
    ended: list[bytes] = batch.records["pending_id"][ends].tolist() if ends.any() else []
    return ended


def _limits(row: AccountRow) -> tuple[int, int]:
    """Return the bounds of the credit balance: less outgoing holds, and with incoming ones.

    So a debit is checked against the first and a credit against the second, on either side.
    """
    floor = -NO_LIMIT if row.floor is None else max(row.floor, -NO_LIMIT)
    ceiling = NO_LIMIT if row.ceiling is None else max(row.ceiling, -NO_LIMIT)
    return (floor, ceiling) if row.side is Side.CREDIT else (-ceiling, -floor)


def _bars(row: AccountRow) -> int:
    if row.state is AccountState.CLOSED:
        return BARS_ALL
    if row.state is AccountState.OPEN:
        return 0
    return BARS_DEBIT if row.side is Side.CREDIT else BARS_CREDIT

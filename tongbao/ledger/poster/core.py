"""Decide a batch against the memory of one book: pure, no I/O, no clock.

The answer of a batch is that of its groups decided one after the other, each seeing what the ones
before it did. A group is refused for what it is in itself first, and then for the first of its
transfers that cannot happen.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from uuid import UUID

from msgspec import Struct

from tongbao.ledger.model import LedgerBook
from tongbao.ledger.poster.records import (
    AccountRow,
    Batch,
    Codes,
    HoldRow,
    Records,
    Whole,
)


class Decision(Struct, frozen=True):
    """What becomes of each group of a batch and what to write; nothing is changed yet."""

    codes: Codes  # CREATED, above it refused, below it not now (see records.code_of)
    seqs: Whole  # of each created group's last transfer; 0 when it has none
    journal: Records  # of JOURNAL, seq given
    holds_opened: Records  # of HOLD, in their state at the end of the batch
    holds_ended: Records  # of HOLD, that were opened by earlier batches
    requests: Whole  # the groups to record, by place: refused, or created and not stood for
    lowest_id: bytes  # of the journal records; NO_ID when there is none
    highest_id: bytes
    newest_id: bytes  # the greatest id that is recorded: of transfers and of requests


class BookState:
    """The memory of one book's poster: what its accounts, holds and ids have come to.

    Filled as batches need it; an account that is not in it was not touched since the book was
    taken, so its row is exact. Every id above ``known_above`` that the book has recorded is in it.
    """

    def __init__(self, head: LedgerBook) -> None:
        self.book = head.book
        self.last_seq = head.last_seq
        self.frozen = head.frozen
        self.stopped = head.stopped_because is not None
        self.closed_through = head.closed_through
        self.known_above = head.newest_id.bytes

    def missing_holds(self, batch: Batch) -> list[UUID]:
        """Return the holds that the batch ends and the memory lacks; load them before accounts."""
        raise NotImplementedError

    def missing_accounts(self, batch: Batch) -> list[int]:
        """Return the accounts that the batch, or a hold it ends, names and the memory lacks."""
        raise NotImplementedError

    def missing_ids(self, batch: Batch) -> list[UUID]:
        """Return the ids, of groups and transfers, that may be recorded without the memory knowing.

        Look them up and `remember` those found, then decide.
        """
        raise NotImplementedError

    def remember(self, transfers: Iterable[bytes], groups: Iterable[bytes]) -> None:
        """Take in ids that look-ups found in the journal and among the requests."""
        raise NotImplementedError

    def load_accounts(self, rows: Sequence[AccountRow]) -> None:
        """Take in accounts; one that is loaded already keeps what the memory knows of it."""
        raise NotImplementedError

    def load_holds(self, rows: Sequence[HoldRow]) -> None:
        """Take in holds; one that is loaded already keeps what the memory knows of it."""
        raise NotImplementedError

    def apply(self, decision: Decision) -> None:
        """Move on to the state that the decision leads to."""
        raise NotImplementedError

    def revert(self, decision: Decision) -> None:
        """Go back to before the decision, which must be the last one applied."""
        raise NotImplementedError


def decide(state: BookState, batch: Batch, now: datetime, latest: datetime) -> Decision:
    """Say what becomes of every group of the batch; the state stays as it is.

    ``now`` is business time; ids whose time is after ``latest`` (real time) are in the future.
    """
    raise NotImplementedError


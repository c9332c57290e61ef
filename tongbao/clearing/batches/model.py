"""What a batch is, and what the channel can say of it. No I/O.

asked ─► agrees
  ├────► differs      a difference for people, as one of a bill
  └────► too_large    the channel's message cannot hold the figures: never asked
"""

from __future__ import annotations

from datetime import datetime, time, timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID

from msgspec import Struct

from tongbao.kernel.ids import base32
from tongbao.kernel.licence import Mode
from tongbao.rails.channels.contract.bills import BatchTotals

BATCH_AT: Final = time(3, 30)
"""When batches are closed, in the business's zone. What is paid in that very moment may be in our
batch and in the channel's next one or the other way round, so it is done when least is paid."""
WAITS_FOR_OPEN: Final = timedelta(hours=1)
"""How long a batch waits for payments nobody knows the end of yet; then it is closed with them."""
LOOKS_BACK: Final = timedelta(days=2)
"""How long before a batch began what it counts may have happened and not been known."""
LOOK_AGAIN: Final = tuple(timedelta(minutes=m) for m in (1, 5, 15, 60))


class BatchState(StrEnum):
    """What became of a batch; all but the first are ends."""

    ASKED = "asked"
    AGREES = "agrees"
    DIFFERS = "differs"
    TOO_LARGE = "too_large"


class Batch(Struct, frozen=True):
    """One row of batch: what was known by ``ends`` and is in no earlier batch."""

    id: UUID
    account_id: UUID
    channel: str
    mode: Mode
    number: int
    currency: str
    begins: datetime
    ends: datetime
    state: BatchState
    debit_count: int
    debit_amount: int
    credit_count: int
    credit_amount: int
    their_debit_count: int | None
    their_debit_amount: int | None
    their_credit_count: int | None
    their_credit_amount: int | None
    tries: int
    last_answer: str
    answered_at: datetime | None

    @property
    def channel_number(self) -> str:
        """What the channel knows the batch by, and the idempotency key of every question."""
        return base32(self.id)

    @property
    def ours(self) -> BatchTotals:
        """What we have."""
        return BatchTotals(
            self.debit_count, self.debit_amount, self.credit_count, self.credit_amount
        )

    @property
    def their_net(self) -> int | None:
        """What the channel says came to us, where it gave figures."""
        if self.their_debit_amount is None or self.their_credit_amount is None:
            return None
        return self.their_debit_amount - self.their_credit_amount

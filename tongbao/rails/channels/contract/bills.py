"""A channel's account of its day: its bill and the rows of it, or totals where it sends none."""

from __future__ import annotations

from datetime import date, datetime
from enum import StrEnum
from pathlib import Path
from typing import Protocol, runtime_checkable

from msgspec import Struct

from tongbao.kernel.money import Money
from tongbao.rails.channels.contract.orders import ChannelAccount
from tongbao.rails.channels.contract.outcomes import Answer, NotSent, Unknown


class BillKind(StrEnum):
    """What a bill row is about."""

    PAYMENT = "payment"
    REFUND = "refund"


class BillRow(Struct, frozen=True):
    """One trade of a bill. A refund's money is positive; fees we get back are negative."""

    line: int
    kind: BillKind
    number: str  # our number: the order's, or for a refund the refund's
    order_number: str
    channel_ref: str
    money: Money
    fee: Money
    at: datetime
    state: str  # the channel's word, such as SUCCESS
    merchants: tuple[str, ...] = ()  # whose trade it is, by the channel's numbers, where it says so


class BillTerms(Struct, frozen=True):
    """How a channel's bill is to be read: its words for a row's state, and its ways with fees.

    A word in none of the sets is not guessed at: its row is a fault.
    """

    moved: frozenset[str]  # the money moved
    under_way: frozenset[str]  # it had not moved when the bill was made, and still may
    failed: frozenset[str]  # it did not move and will not
    returns_refund_fees: bool  # a refund's row may return its share of the fee
    keeps_refund_fees: bool  # or may return nothing
    quiet_when_empty: bool  # of a day without trades it says "not ready", and goes on saying so


class BillFault(Struct, frozen=True):
    """One line that cannot be read; the other lines still count."""

    line: int
    code: str  # such as "bill.amount_malformed"
    text: str  # the start of the line


class BillTotal(Struct, frozen=True):
    """What the bill's own trailer says, to be compared with the rows; None: it does not say.

    It also says that the bill is whole. A file that proves that in another way, by its checksum,
    and has no figures yields one without any.
    """

    payment_count: int | None = None
    payment_amount: Money | None = None
    refund_amount: Money | None = None
    fee_amount: Money | None = None
    row_count: int | None = None


BillLine = BillRow | BillFault | BillTotal


class BillNotReady(Struct, frozen=True, tag="not_ready"):
    """The channel has not made the day's bill yet; ask again later."""

    code: str


class BillEmpty(Struct, frozen=True, tag="empty"):
    """The channel says there were no trades that day."""

    code: str


class BillFile(Struct, frozen=True, tag="file"):
    """A bill downloaded whole, its digest verified where the channel gives one."""

    path: Path
    sha256: str
    size: int


BillOutcome = BillFile | BillNotReady | BillEmpty | Unknown


@runtime_checkable
class FurtherBills(Protocol):
    """Has bills beside that of the day's trades: of funds, of shares."""

    further_bills: frozenset[str]  # "funds", "splits"

    async def download_further_bill(
        self, account: ChannelAccount, kind: str, day: date, folder: Path
    ) -> Answer[BillOutcome]:
        """Fetch one of them into ``folder``."""


@runtime_checkable
class Unbilled(Protocol):
    """Sends no bill of its trades, by this connection or ever; nobody is to wait for one."""

    no_bill_because: str


class BatchTotals(Struct, frozen=True):
    """What a batch came to, in minor units: debits are purchases and captures, credits refunds."""

    debit_count: int
    debit_amount: int
    credit_count: int
    credit_amount: int

    @property
    def net(self) -> int:
        """What the customers paid, less what they got back."""
        return self.debit_amount - self.credit_amount


class TotalsAgree(Struct, frozen=True, tag="agree"):
    """The channel has the same figures."""


class TotalsDiffer(Struct, frozen=True, tag="differ"):
    """The channel has other figures: these, where it gives them."""

    theirs: BatchTotals | None


@runtime_checkable
class ComparingTotals(Protocol):
    """Closes an account's batch and compares what it came to; the next trade opens another."""

    def totals_fit(self, totals: BatchTotals) -> bool:
        """Return whether the channel's message can hold the figures."""

    async def compare_totals(
        self, account: ChannelAccount, number: str, totals: BatchTotals
    ) -> Answer[TotalsAgree | TotalsDiffer | NotSent | Unknown]:
        """Compare; ``number`` is ours of the batch, and a repeat is answered as the first was."""

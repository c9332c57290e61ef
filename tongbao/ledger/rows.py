"""The rows of the ledger's tables, each with exactly the columns of its table. No I/O."""

from __future__ import annotations

from datetime import date, datetime
from typing import Literal
from uuid import UUID

from msgspec import Struct

from tongbao.ledger.model import AccountState, HoldState, Side, TransferKind


class LedgerAccountKind(Struct, frozen=True):
    """A kind of account this deployment may open; filled at migration by the licence."""

    kind: str
    side: Side
    floor: int | None


class LedgerBook(Struct, frozen=True):
    """The head of one book: who may write it, how far it is written, whether it may be written."""

    book: int
    epoch: int  # grows with every change of writer; a commit that names an older one is refused
    holder: str  # where the writer listens, or ""
    lease_until: datetime  # real time
    last_seq: int
    last_batch: int
    head_hash: bytes
    newest_id: UUID
    frozen: bool
    stopped_because: str | None
    closed_through: date | None
    opened_at: datetime


class LedgerWatermark(Struct, frozen=True):
    """How far the balances of a book have followed its journal."""

    book: int
    seq: int
    batch: int


class LedgerAccount(Struct, frozen=True):
    """One account with its four counters, from which every balance is a difference.

    As of the book's watermark. ``last_transfer`` is the newest transfer that named it: each
    transfer names the one before, so its history is a chain.
    """

    book: int
    id: int
    kind: str
    owner: UUID
    currency: str
    side: Side
    floor: int | None
    ceiling: int | None
    state: AccountState
    debits_pending: int
    debits_posted: int
    credits_pending: int
    credits_posted: int
    touches: int
    last_transfer: UUID | None
    opened_at: datetime


class HouseAccount(Struct, frozen=True):
    """What one of the house's accounts holds, and the ``seq`` of the newest transfer to name it."""

    book: int
    currency: str
    posted: int
    last_seq: int


class LedgerCode(Struct, frozen=True):
    """The number under which the journal keeps a posting code."""

    number: int
    code: str


class LedgerTransfer(Struct, frozen=True):
    """One transfer as recorded.

    ``amount`` is what moved or was held; for a void or expiry, what was released. The two
    after-figures are posted balances, on the normal side of each account. ``biz_date`` is the
    accounting day: that of the moment, or the first open one after it.
    """

    book: int
    id: UUID
    seq: int
    debit_account: int
    credit_account: int
    amount: int
    kind: TransferKind
    flags: int
    code: int
    reference: UUID
    pending_id: UUID | None
    debit_previous: UUID | None
    credit_previous: UUID | None
    debit_after: int
    credit_after: int
    biz_date: date
    value_date: date
    at: datetime


class LedgerMark(Struct, frozen=True):
    """A place where the chain of an account can be entered."""

    book: int
    account: int
    seq: int
    transfer_id: UUID


class LedgerBatch(Struct, frozen=True):
    """One group commit: its transfers and recorded answers, and how it hangs on the one before.

    ``spans`` are the stretches of ids that have its transfers: the lowest and the highest of each,
    ascending. Ids of other commits may lie in them too.
    """

    book: int
    batch: int
    epoch: int
    first_seq: int
    transfers: int
    requests: int
    spans: list[UUID]
    digest: bytes
    hash: bytes
    at: datetime


class LedgerHold(Struct, frozen=True):
    """What became of one pending transfer."""

    book: int
    pending_id: UUID
    debit_account: int
    credit_account: int
    amount: int
    state: HoldState
    posted_amount: int
    expires_at: datetime | None


class LedgerRequest(Struct, frozen=True):
    """The recorded answer to one group: created with its transfers, or refused for ever.

    A created group whose id is that of its first transfer needs none: the transfer stands for it.
    """

    book: int
    id: UUID
    body_hash: bytes
    status: Literal["created", "refused"]
    code: str | None
    seq: int | None
    transfer_count: int
    batch: int
    at: datetime


class ReferenceNet(Struct, frozen=True):
    """What one reference did to one account, posted: debits less credits."""

    reference: UUID
    net: int


class KindBalance(Struct, frozen=True):
    """All accounts of a kind and currency in a book, summed."""

    kind: str
    currency: str
    side: Side
    accounts: int
    debits_pending: int
    debits_posted: int
    credits_pending: int
    credits_posted: int

    @property
    def posted(self) -> int:
        """What is booked, on the normal side."""
        net = self.credits_posted - self.debits_posted
        return net if self.side is Side.CREDIT else -net

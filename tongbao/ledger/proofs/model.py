"""What trees, checkpoints and receipts are, and why one may not be given. No I/O."""

from __future__ import annotations

from datetime import date, datetime
from enum import StrEnum
from typing import Final, Literal
from uuid import UUID

from msgspec import UNSET, Struct, UnsetType, field

from tongbao.infra.crypto import Keyring
from tongbao.infra.db import Db
from tongbao.kernel.errors import Conflict, Invalid, NotFound

BLOCK_LEVEL: Final = 8
"""The nodes kept are of this level and its multiples; what lies below is derived again."""
BLOCK: Final = 1 << BLOCK_LEVEL
"""How many leaves lie below the lowest node that is kept."""


class KeyKind(StrEnum):
    """What a key of the proofs does."""

    ED25519 = "ed25519"
    SM2 = "sm2"
    BLIND = "blind"  # salts the sides of every leaf, so that a receipt can leave one sealed


class AccountRow(Struct, frozen=True):
    """What never changes about an account."""

    id: int
    kind: str
    owner: UUID
    currency: str


class AccountFacts(Struct, frozen=True):
    """The same, and as the bytes that are part of every leaf that names it."""

    id: int
    kind: str
    owner: UUID
    currency: str
    packed: bytes  # owner, kind
    currency_bytes: bytes


class Proofs(Struct, frozen=True):
    """What proofs work with, built once by wiring. ``accounts`` caches what cannot change."""

    db: Db
    keyring: Keyring
    accounts: dict[bytes, AccountFacts] = field(default_factory=dict)


# Rows, with exactly the columns of their tables.


class ProofKey(Struct, frozen=True):
    """One private key, sealed, and the time in which it signs."""

    id: UUID
    kind: KeyKind
    public_key: bytes | None
    sealed: bytes
    starts_at: datetime
    ends_at: datetime | None


class LedgerTree(Struct, frozen=True):
    """How far the tree of a book has come."""

    book: int
    size: int
    batch: int
    head_hash: bytes
    frontier: bytes
    block_batch: int
    audited: int
    checkpoints: int


class LedgerTreeNode(Struct, frozen=True):
    """The root of a complete subtree of 2 ** level leaves."""

    book: int
    level: int
    number: int
    hash: bytes
    batch: int | None


class LedgerCheckpoint(Struct, frozen=True):
    """What was signed about a book at one moment; ``note`` is all of it, with its signatures."""

    book: int
    number: int
    size: int
    batch: int
    root: bytes
    head_hash: bytes
    frontier: bytes
    codes: int
    codes_root: bytes
    day: date | None
    at: datetime
    note: str


class LedgerDayRoot(Struct, frozen=True):
    """One root over the nightly checkpoints of every book."""

    day: date
    books: int
    root: bytes
    at: datetime
    note: str


# What is shown.


class PublishedKey(Struct, frozen=True):
    """A key that checkpoints are or were signed with: the line a verifier is given."""

    algorithm: KeyKind
    key: str
    starts_at: datetime
    ends_at: datetime | None


class ReceiptEntry(Struct, frozen=True):
    """The part of a recorded transfer that every receipt shows. ``amount`` is minor units."""

    book: int
    seq: int
    id: UUID
    amount: int
    currency: str
    kind: str
    flags: int
    code: int
    reference: UUID
    pending_id: UUID | None
    biz_date: date
    value_date: date
    at: str


class ReceiptSide(Struct, frozen=True):
    """One side of a transfer: open for whom it belongs to, and for others only ``sealed``.

    What is sealed cannot be changed later, nor looked into.
    """

    sealed: str | UnsetType = UNSET
    salt: str | UnsetType = UNSET
    account: int | UnsetType = UNSET
    owner: UUID | UnsetType | None = UNSET
    kind: str | UnsetType = UNSET
    previous: UUID | UnsetType | None = UNSET
    after: int | UnsetType = UNSET


class ReceiptTransfer(Struct, frozen=True):
    """A transfer and the way from it to the root of the checkpoint."""

    entry: ReceiptEntry
    code: str
    code_proof: list[str]
    debit: ReceiptSide
    credit: ReceiptSide
    proof: list[str]


class Receipt(Struct, frozen=True):
    """Transfers, and the proof that a signed checkpoint holds them."""

    object: Literal["tongbao.receipt/1"]
    checkpoint: str
    transfers: list[ReceiptTransfer]


class Consistency(Struct, frozen=True):
    """The proof that a book was only added to between two checkpoints."""

    object: Literal["tongbao.consistency/1"]
    old: str
    new: str
    proof: list[str]


class AuditTour(Struct, frozen=True):
    """How much of a tree was derived anew from the journal."""

    book: int
    blocks: int
    leaves: int


class TreeBroken(Exception):
    """What was promised does not hold any more: a bug, or somebody's hand in the database."""

    def __init__(self, book: int, what: str) -> None:
        super().__init__(f"proofs: {what}")
        self.book = book


# Refusals.


class ReceiptNotReady(Conflict):
    """No checkpoint covers the transfer yet."""

    code = "ledger.receipt_not_ready"
    advice = "Ask again in a minute: the next checkpoint will cover it."
    advice_zh = "下一个检查点尚未生成，请约一分钟后重试。"


class LeavesArchived(Conflict):
    """The part of the journal that the proof needs went to the archive."""

    code = "ledger.leaves_archived"
    advice = "Keep receipts while they can be had; the operator can restore the month."
    advice_zh = "相关流水已归档，请联系运营方恢复该月份后再出具凭证。"


class TransferUnproven(NotFound):
    """Nothing was ever posted under this id."""

    code = "ledger.nothing_posted"
    advice = "Name a transfer, or what it was posted for; an unpaid payment has no postings."
    advice_zh = "该标识下没有任何记账；未支付的订单没有分录。"


class CheckpointMissing(NotFound):
    """The book has no such checkpoint."""

    code = "ledger.checkpoint_missing"
    advice = "List the checkpoints of the book and name one of them."
    advice_zh = "该账本没有此检查点，请先列出检查点。"


class DayRootMissing(NotFound):
    """Nothing was signed over all books for that day; the day may not be over."""

    code = "ledger.day_root_missing"
    advice = "Ask for a business day that has ended, once the books have closed it."
    advice_zh = "该日尚未签署全账本根，请查询已结束且各账本已封存的营业日。"


class CheckpointsReversed(Invalid):
    """The older checkpoint is the newer one."""

    code = "ledger.checkpoints_reversed"
    advice = "Name the older checkpoint first."
    advice_zh = "请先给出较早的检查点。"


class ProofBroken(Conflict):
    """The book does not match what was signed about it; its writer was stopped."""

    code = "ledger.proof_broken"
    advice = "The operator has been told. No receipt can be given before it is resolved."
    advice_zh = "账本与已签名的检查点不一致，已停止记账并通知运营方，暂不能出具凭证。"

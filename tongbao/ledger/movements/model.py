"""Money between books: movements, split accounts, accounts that move. No I/O.

A movement has a leg in each book, each a commit of its own:

    moving ──leg 2──► arrived
       └─ the payee cannot take it ──► returned   (or suspended, when the payer cannot either)

One that is held first holds the payer's money, and moves it after the payee has it:

    moving ──► arriving ──leg 2──► arrived
       │          └─ the payee cannot take it ──► returned
       └─ cancelled
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

from msgspec import Struct

from tongbao.kernel.errors import Busy, Conflict, Invalid, NotFound, Rejected
from tongbao.kernel.money import Money
from tongbao.ledger.model import NOBODY, AccountKey
from tongbao.ledger.rules.posting import RULES, transfer_id

CROSS_BOOK: Final = "cross_book"
QUOTA: Final = "quota"
ACCOUNT_MOVE: Final = "account_move"
_PARTS: Final = ("out", "in", "returned", "suspended")


class MovementState(StrEnum):
    """How far a movement is."""

    MOVING = "moving"
    ARRIVING = "arriving"
    ARRIVED = "arrived"
    RETURNED = "returned"
    SUSPENDED = "suspended"
    CANCELLED = "cancelled"


class MoveOrder(Struct, frozen=True):
    """Money that is to leave an account of one book for an account of another.

    ``reference`` is the payment, refund or settlement it belongs to, and ``rule`` the family of
    posting rules: a reference moves once per family. ``held`` keeps the money with the payer, as
    a hold, until the payee has it.
    """

    book: int
    payer: AccountKey
    to_book: int
    payee: AccountKey
    money: Money
    reference: UUID
    rule: str = CROSS_BOOK
    held: bool = False

    @property
    def id(self) -> UUID:
        """Return the movement's id: that of its first transfer."""
        return transfer_id(
            self.reference, f"{self.rule}.{'held' if self.held else 'out'}", "amount"
        )


class LedgerMovement(Struct, frozen=True):
    """One row of the table, kept in the payer's book."""

    book: int
    id: UUID
    reference: UUID
    rule: str
    held: bool
    currency: str
    amount: int
    payer_kind: str
    payer_owner: UUID
    to_book: int
    payee_kind: str
    payee_owner: UUID
    state: MovementState
    code: str | None
    made_at: datetime
    ended_at: datetime | None

    @property
    def money(self) -> Money:
        """What moves."""
        return Money(self.amount, self.currency)

    @property
    def payer(self) -> AccountKey:
        """The account it leaves, in ``book``."""
        return _key(self.payer_kind, self.currency, self.payer_owner)

    @property
    def payee(self) -> AccountKey:
        """The account it is for, in ``to_book``."""
        return _key(self.payee_kind, self.currency, self.payee_owner)


class LedgerSplit(Struct, frozen=True):
    """One account that is kept in several books, and how much each part should have."""

    kind: str
    owner: UUID
    currency: str
    books: list[int]
    low: int
    target: int
    made_at: datetime

    @property
    def key(self) -> AccountKey:
        """The account, the same in each of its books."""
        return _key(self.kind, self.currency, self.owner)

    def order(self, payment_id: UUID) -> list[int]:
        """Return the books in the order in which a payment would take them, the same every time.

        Each book has its own weight for each payment, so a further book takes an equal share from
        all the others and moves nothing else.
        """
        return sorted(self.books, key=lambda book: _weight(payment_id, book), reverse=True)

    def place(self, payment_id: UUID) -> int:
        """Return the book whose part of the account serves a payment."""
        return self.order(payment_id)[0]

    def place_by_quota(self, payment_id: UUID, amount: int, available: Mapping[int, int]) -> int:
        """Return the first book in a payment's order that has the money, as far as is known.

        Where none has, it is the first: its book decides, exactly.
        """
        order = self.order(payment_id)
        return next((book for book in order if available.get(book, 0) >= amount), order[0])


class Shift(Struct, frozen=True):
    """So much from the part in one book to the part in another."""

    book: int
    to_book: int
    amount: int


def plan_shifts(available: Mapping[int, int], low: int, target: int) -> list[Shift]:
    """Return what to move so that no part has less than ``low``, as far as others can spare it.

    A part below ``low`` is filled up to ``target``; only what others have above ``target`` is
    taken. The neediest is served first, from whoever has most.
    """
    spare = {book: has - target for book, has in available.items() if has > target}
    needy = sorted((has, book) for book, has in available.items() if has < low)
    shifts: list[Shift] = []
    for has, book in needy:
        lacks = target - has
        for donor in sorted(spare, key=lambda each: (-spare[each], each)):
            amount = min(lacks, spare[donor])
            if amount > 0:
                shifts.append(Shift(donor, book, amount))
                spare[donor] -= amount
                lacks -= amount
    return shifts


def families(rules: Sequence[str] | None = None) -> frozenset[str]:
    """Return the families of posting rules that have every leg of a movement."""
    names = set(RULES if rules is None else rules)
    return frozenset(
        name.removesuffix(".out")
        for name in names
        if name.endswith(".out")
        and all(f"{name.removesuffix('.out')}.{part}" in names for part in _PARTS)
    )


def _weight(payment_id: UUID, book: int) -> bytes:
    return hashlib.sha256(payment_id.bytes + book.to_bytes(4, "big")).digest()


def _key(kind: str, currency: str, owner: UUID) -> AccountKey:
    return AccountKey(kind, currency, None if owner == NOBODY else owner)


class MovementWithinBook(Invalid):
    """Both accounts are in one book, where a transfer needs no way."""

    code = "ledger.movement_within_book"
    advice = "Post an ordinary transfer."
    advice_zh = "同一账簿内请直接记账，无需跨账簿转账。"


class MovementNotFound(NotFound):
    """There is no such movement."""

    code = "ledger.movement_not_found"
    advice = "Name the payer's book and the id of the first leg."
    advice_zh = "请提供付款方账簿与首笔分录的标识。"


class MovementEnded(Conflict):
    """The movement has ended before."""

    code = "ledger.movement_ended"
    advice = "Read what became of it."
    advice_zh = "该笔跨账簿转账已终结，请查询其结果。"


class MovementNotCancellable(Conflict):
    """Only a held movement that has not begun to arrive can be cancelled."""

    code = "ledger.movement_not_cancellable"
    advice = "Wait until it has arrived and move the money back."
    advice_zh = "仅冻结方式且尚未入账的转账可撤销；请在到账后反向转账。"


class MovementUnfinished(Busy):
    """The money is on its way."""

    code = "ledger.movement_unfinished"
    advice = "Repeat the command in a few seconds; what was done stays done."
    advice_zh = "资金在途，请稍后重复执行，已完成的步骤不会重复。"
    retry_after_s = 5


class AccountHasHolds(Conflict):
    """An account with open holds stays in its book."""

    code = "ledger.account_has_holds"
    advice = "End the holds first, or wait until they expire."
    advice_zh = "账户存在未终结的冻结，请先处理或等待到期。"


class AccountNotMovable(Rejected):
    """The account cannot move: it is the house's own or a person's, closed, or refused there."""

    code = "ledger.account_not_movable"
    advice = "Only open accounts of wallets and merchants move, and only where they may be opened."
    advice_zh = "仅钱包与商户的正常账户可迁移，且目标账簿须能开立该账户。"


class SplitNotFound(NotFound):
    """The account is not split."""

    code = "ledger.split_not_found"
    advice = "List the split accounts."
    advice_zh = "该账户未拆分，请查看拆分账户列表。"


class SplitInvalid(Invalid):
    """A split names different books that are open, and keeps its lower limit under its target."""

    code = "ledger.split_invalid"
    advice = "Name 1 to 64 open books, each once, and 0 <= low < target."
    advice_zh = "请列出 1 至 64 个不重复的已开账簿，且 0 ≤ 下限 < 目标额度。"

"""What the book says: balances, the transfers of a reference, statements, sums."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import date, datetime
from typing import Final
from uuid import UUID

from msgspec import Struct

from tongbao.infra.db import Db, Tx
from tongbao.kernel.pages import CursorInvalid, Page, decode_cursor, encode_cursor, page_size
from tongbao.ledger import _store as store
from tongbao.ledger._store import StatementRow
from tongbao.ledger.chart import CHART
from tongbao.ledger.model import (
    NOBODY,
    AccountKey,
    AccountState,
    KindBalance,
    LedgerAccount,
    LedgerBook,
    Side,
    TransferKind,
)

_SEQ_MAX: Final = (1 << 63) - 1
_CHUNK: Final = 5000


class Balance(Struct, frozen=True):
    """What an account holds, on its normal side.

    ``posted`` is booked; of it ``held`` is promised away by open holds; ``incoming`` may still
    arrive by open holds and counts for nothing yet.
    """

    account: AccountKey
    side: Side
    state: AccountState
    posted: int
    held: int
    incoming: int

    @property
    def available(self) -> int:
        """What may be moved out: posted less held."""
        return self.posted - self.held


class RecordedTransfer(Struct, frozen=True):
    """One transfer of a reference, between named accounts.

    The two after-figures are the accounts' posted balances, each on its normal side.
    """

    seq: int
    id: UUID
    kind: TransferKind
    code: str
    debit: AccountKey
    credit: AccountKey
    amount: int
    debit_after: int
    credit_after: int
    pending_id: UUID | None
    biz_date: date
    at: datetime


class StatementLine(Struct, frozen=True):
    """One posted movement as its account sees it; ``change`` is signed by the normal side."""

    seq: int
    transfer_id: UUID
    change: int
    balance_after: int
    code: str
    reference: UUID
    biz_date: date
    value_date: date
    at: datetime


async def balance_of(on: Db | Tx, book: int, key: AccountKey) -> Balance:
    """Return an account's balance; an account that nothing ever touched has zero."""
    row = await store.GET_ACCOUNT.first(on, book, key.owner or NOBODY, key.kind, key.currency)
    if row is None:
        return Balance(key, CHART[key.kind].side, AccountState.OPEN, 0, 0, 0)
    return _balance(row)


async def balances_of_owner(on: Db | Tx, book: int, owner: UUID) -> list[Balance]:
    """Return the balances of every account an owner has, by kind and currency."""
    return [_balance(row) for row in await store.ACCOUNTS_OF_OWNER.all(on, book, owner)]


async def transfers_of_reference(
    on: Db | Tx, book: int, reference: UUID
) -> Sequence[RecordedTransfer]:
    """Return everything recorded for a payment, refund or settlement, in the book's order."""
    return [
        RecordedTransfer(
            seq=row.seq,
            id=row.id,
            kind=row.kind,
            code=row.code,
            debit=_key(row.debit_kind, row.currency, row.debit_owner),
            credit=_key(row.credit_kind, row.currency, row.credit_owner),
            amount=row.amount,
            debit_after=row.debit_after,
            credit_after=row.credit_after,
            pending_id=row.pending_id,
            biz_date=row.biz_date,
            at=row.at,
        )
        for row in await store.TRANSFERS_OF_REFERENCE.all(on, book, reference)
    ]


async def statement(
    on: Db | Tx,
    book: int,
    key: AccountKey,
    *,
    limit: int | None = None,
    cursor: str | None = None,
) -> Page[StatementLine]:
    """Return a page of an account's posted movements, newest first.

    Raises:
        PageSizeInvalid, CursorInvalid
    """
    size = page_size(limit)
    before = _SEQ_MAX if cursor is None else _seq_of(cursor)
    account = await store.GET_ACCOUNT.first(on, book, key.owner or NOBODY, key.kind, key.currency)
    if account is None:
        return Page([])
    rows = await store.STATEMENT_LINES.all(on, book, account.id, before, size + 1)
    lines = [_line(row, account) for row in rows[:size]]
    return Page(lines, encode_cursor(lines[-1].seq) if len(rows) > size else None)


async def movements(
    on: Db | Tx, book: int, key: AccountKey, *, after: int
) -> AsyncIterator[StatementLine]:
    """Yield an account's posted movements with a ``seq`` above ``after``, newest first.

    What is posted meanwhile has a higher ``seq`` than anything yielded, and is not.
    """
    account = await store.GET_ACCOUNT.first(on, book, key.owner or NOBODY, key.kind, key.currency)
    before = _SEQ_MAX
    while account is not None:
        rows = await store.STATEMENT_LINES.all(on, book, account.id, before, _CHUNK)
        for row in rows:
            if row.seq <= after:
                return
            yield _line(row, account)
        if len(rows) < _CHUNK:
            return
        before = rows[-1].seq


async def net_of_references(
    on: Db | Tx, book: int, key: AccountKey, references: Sequence[UUID]
) -> dict[UUID, int]:
    """Return what each of these did to the account, posted: debits less credits.

    A reference that never touched the account is left out.
    """
    account = await store.GET_ACCOUNT.first(on, book, key.owner or NOBODY, key.kind, key.currency)
    if account is None:
        return {}
    rows = await store.NET_OF_REFERENCES.all(on, book, account.id, list(references))
    return {row.reference: row.net for row in rows}


async def sums(on: Db | Tx, book: int) -> list[KindBalance]:
    """Return a book's totals by kind of account and currency: its trial balance."""
    return await store.SUMS.all(on, book)


async def books(on: Db | Tx) -> list[LedgerBook]:
    """Return the head of every book."""
    return await store.LIST_BOOKS.all(on)


def _seq_of(cursor: str) -> int:
    keys = decode_cursor(cursor)
    if len(keys) != 1 or not keys[0].isdecimal() or not 0 < int(keys[0]) <= _SEQ_MAX:
        raise CursorInvalid(param="cursor")
    return int(keys[0])


def _line(row: StatementRow, account: LedgerAccount) -> StatementLine:
    return StatementLine(
        seq=row.seq,
        transfer_id=row.id,
        change=row.amount if row.side is account.side else -row.amount,
        balance_after=row.balance_after,
        code=row.code,
        reference=row.reference,
        biz_date=row.biz_date,
        value_date=row.value_date,
        at=row.at,
    )


def _balance(row: LedgerAccount) -> Balance:
    net = row.credits_posted - row.debits_posted
    is_credit = row.side is Side.CREDIT
    return Balance(
        account=_key(row.kind, row.currency, row.owner),
        side=row.side,
        state=row.state,
        posted=net if is_credit else -net,
        held=row.debits_pending if is_credit else row.credits_pending,
        incoming=row.credits_pending if is_credit else row.debits_pending,
    )


def _key(kind: str, currency: str, owner: UUID) -> AccountKey:
    return AccountKey(kind, currency, None if owner == NOBODY else owner)

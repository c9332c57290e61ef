"""What the book says: balances, the transfers of a reference, statements, sums.

Balances follow the journal a moment behind. So every read first waits until they have reached what
the book's head says when the read begins: it sees all that was answered before. ``as_of`` names
another number of the book to wait for; 0 takes what is there.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import date, datetime, timedelta
from typing import Final
from uuid import UUID

from msgspec import Struct

from tongbao.infra.db import Db, Tx
from tongbao.kernel.clock import day_bounds, monotonic
from tongbao.kernel.errors import Busy
from tongbao.kernel.pages import CursorInvalid, Page, decode_cursor, encode_cursor, page_size
from tongbao.ledger import _store as store
from tongbao.ledger._store import ChainRow
from tongbao.ledger.chains import HistoryArchived, chain, entrance, link, seq_at
from tongbao.ledger.model import NOBODY, AccountKey, AccountState, Side, TransferKind
from tongbao.ledger.poster.lease import read_head
from tongbao.ledger.poster.projection import JournalBroken, catch_up
from tongbao.ledger.rows import HouseAccount, KindBalance, LedgerAccount, LedgerBook
from tongbao.ledger.rules.chart import CHART

CATCH_UP_S_MAX: Final = 5.0
_POLL_S: Final = 0.001
_POLL_S_MAX: Final = 0.05
_HELP_S: Final = 0.5
_CHUNK: Final = 5000
_PAGE_STEPS: Final = 72  # a little more than marks are apart
_AHEAD_MAX: Final = timedelta(days=7)
"""How far an accounting day may run ahead of the calendar when days are closed early."""
_SHOWN: Final = frozenset({TransferKind.SINGLE, TransferKind.POST})


class BalancesBehind(Busy):
    """The balances of the book have not reached its journal; nothing was read."""

    code = "ledger.balances_behind"
    advice = "Read again in a moment; postings are not affected."
    advice_zh = "余额汇总尚未追上日记账，请稍后重新查询；记账不受影响。"


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
    value_date: date
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


class PastBalance(Struct, frozen=True):
    """The posted balance of an account after transfer ``seq`` of its book, and what made it so.

    ``transfer_id`` is the newest transfer up to there that named the account; None before the
    first. ``transfer_seq`` is its number.
    """

    posted: int
    seq: int
    transfer_id: UUID | None
    transfer_seq: int


class DayStatement(Struct, frozen=True):
    """An account's movements of some accounting days, oldest first, between two balances."""

    account: AccountKey
    first: date
    last: date
    opening: int
    closing: int
    lines: tuple[StatementLine, ...]


async def balance_of(
    on: Db | Tx, book: int, key: AccountKey, *, as_of: int | None = None
) -> Balance:
    """Return an account's balance; an account that nothing ever touched has zero.

    Raises:
        BalancesBehind
    """
    row = await _account(on, book, key, as_of)
    if row is None:
        return Balance(key, CHART[key.kind].side, AccountState.OPEN, 0, 0, 0)
    return _balance(row)


async def balances_of_owner(
    on: Db | Tx, book: int, owner: UUID, *, as_of: int | None = None
) -> list[Balance]:
    """Return the balances of every account an owner has, by kind and currency.

    Raises:
        BalancesBehind
    """
    await caught_up(on, book, as_of)
    return [_balance(row) for row in await store.ACCOUNTS_OF_OWNER.all(on, book, owner)]


async def house_accounts(on: Db | Tx, kind: str) -> list[HouseAccount]:
    """Return the house's accounts of a kind in every book, however many books there are.

    Raises:
        BalancesBehind
    """
    for book in await store.BOOKS_BEHIND.all(on):
        await caught_up(on, book)
    return await store.HOUSE_ACCOUNTS.all(on, NOBODY, kind)


async def sums(on: Db | Tx, book: int, *, as_of: int | None = None) -> list[KindBalance]:
    """Return a book's totals by kind of account and currency: its trial balance.

    Raises:
        BalancesBehind
    """
    await caught_up(on, book, as_of)
    return await store.SUMS.all(on, book)


async def books(on: Db | Tx) -> list[LedgerBook]:
    """Return the head of every book."""
    return await store.LIST_BOOKS.all(on)


async def transfers_of_reference(
    on: Db | Tx, book: int, reference: UUID
) -> Sequence[RecordedTransfer]:
    """Return everything recorded for a payment, refund or settlement, in the book's order.

    The journal is never behind, so this waits for nothing.
    """
    rows = await store.TRANSFERS_OF_REFERENCE.all(on, book, reference, *_range_of(reference))
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
            value_date=row.value_date,
            at=row.at,
        )
        for row in rows
    ]


async def net_of_references(
    on: Db | Tx, book: int, key: AccountKey, references: Sequence[UUID]
) -> dict[UUID, int]:
    """Return what each of these did to the account, posted: debits less credits.

    A reference that never touched the account is left out.
    """
    account = await _account(on, book, key, 0)
    if account is None:
        return {}
    asked = list(dict.fromkeys(references))
    ranges = [_range_of(reference) for reference in asked]
    lowest, highest = [low for low, _ in ranges], [high for _, high in ranges]
    rows = await store.NET_OF_REFERENCES.all(on, book, account.id, asked, lowest, highest)
    return {row.reference: row.net for row in rows}


async def export_nets(
    tx: Tx,
    book: int,
    key: AccountKey,
    references: tuple[UUID, UUID],
    take: Callable[[bytes], Awaitable[None]],
) -> None:
    """Copy out what did something to an account under references from the lowest to the highest.

    One row per transfer, in PostgreSQL's binary COPY format: the reference, and debits less
    credits in minor units. Of an account that does not exist nothing is sent, not even a header.
    """
    account = await _account(tx, book, key, 0)
    if account is not None:
        span = (_range_of(references[0])[0], _range_of(references[1])[1])
        await tx.copy_out(store.EXPORT_NETS, (book, account.id, *span), take)


async def statement(
    on: Db | Tx,
    book: int,
    key: AccountKey,
    *,
    limit: int | None = None,
    cursor: str | None = None,
    as_of: int | None = None,
) -> Page[StatementLine]:
    """Return a page of an account's posted movements, newest first.

    A cursor names the last line shown, so a page never moves while the account does.

    Raises:
        PageSizeInvalid, CursorInvalid, BalancesBehind
        HistoryArchived: the page would begin beyond what this database still has.
    """
    size = page_size(limit)
    shown_last = None if cursor is None else _transfer_of(cursor)
    account = await _account(on, book, key, as_of if cursor is None else 0)
    if account is None:
        if cursor is not None:
            raise CursorInvalid(param="cursor")
        return Page([])
    start = account.last_transfer
    if shown_last is not None:
        begins = await link(on, account, shown_last)
        if begins is None:
            raise CursorInvalid(param="cursor")
        start = begins.previous
    lines: list[StatementLine] = []
    try:
        async for row in chain(on, account, start, chunk=_PAGE_STEPS):
            if row.kind in _SHOWN:
                lines.append(_line(row, account))
            if len(lines) > size:
                return Page(lines[:size], encode_cursor(str(lines[size - 1].transfer_id)))
    except HistoryArchived:
        if not lines:
            raise
        return Page(lines, encode_cursor(str(lines[-1].transfer_id)))
    return Page(lines)


async def movements(
    on: Db | Tx, book: int, key: AccountKey, *, after: int, as_of: int | None = None
) -> AsyncIterator[StatementLine]:
    """Yield an account's posted movements with a ``seq`` above ``after``, newest first.

    What is posted meanwhile has a higher ``seq`` than anything yielded, and is not.

    Raises:
        BalancesBehind
        HistoryArchived: some of them are not in this database any more.
    """
    account = await _account(on, book, key, as_of)
    if account is None:
        return
    async for row in chain(on, account, account.last_transfer, chunk=_CHUNK, after=after):
        if row.kind in _SHOWN:
            yield _line(row, account)


async def balance_at(
    on: Db | Tx, book: int, key: AccountKey, seq: int | datetime, *, as_of: int | None = None
) -> PastBalance:
    """Return an account's posted balance after transfer ``seq``, or at a moment (business time).

    One probe of the account's marks and a walk of at most their distance.

    Raises:
        BalancesBehind, HistoryArchived
    """
    account = await _account(on, book, key, as_of)
    if isinstance(seq, datetime):
        seq = await seq_at(on, book, seq)
    nothing = PastBalance(0, seq, None, 0)
    if account is None:
        return nothing
    async for row in chain(on, account, await entrance(on, account, seq), chunk=_PAGE_STEPS):
        if row.seq <= seq:
            return PastBalance(row.balance_after, seq, row.id, row.seq)
    return nothing


async def statement_of_days(
    on: Db | Tx, book: int, key: AccountKey, first: date, last: date
) -> DayStatement:
    """Return an account's movements of the accounting days ``first`` to ``last``, both included.

    Opening and closing are what stood after all movements of earlier days, and of these: a
    movement that was recorded late and dated back into the range belongs to it.

    Raises:
        BalancesBehind, HistoryArchived
    """
    account = await _account(on, book, key, None)
    lines: list[StatementLine] = []
    newest: int | None = None
    later = 0
    if account is not None:
        # What was decided after the last day ended is of a later accounting day.
        until = await seq_at(on, book, day_bounds(last)[1] - timedelta(microseconds=1))
        reaches_back = day_bounds(first)[0] - _AHEAD_MAX
        start = await entrance(on, account, until)
        async for row in chain(on, account, start, chunk=_CHUNK):
            if row.seq > until:
                continue
            if newest is None:
                newest = row.balance_after
            if row.at < reaches_back:
                break
            if row.kind in _SHOWN and row.biz_date >= first:
                line = _line(row, account)
                if row.biz_date <= last:
                    lines.append(line)
                else:
                    later += line.change
    closing = (newest or 0) - later
    opening = closing - sum(line.change for line in lines)
    return DayStatement(key, first, last, opening, closing, tuple(reversed(lines)))


async def caught_up(on: Db | Tx, book: int, as_of: int | None = None) -> None:
    """Wait until the balances of a book have reached its head as it is now, or ``as_of``.

    Raises:
        BalancesBehind: they did not within five seconds.
    """
    if as_of is not None and as_of <= 0:
        return
    progress = await store.PROGRESS.first(on, book)
    if progress is None:
        return
    wanted = progress.last_seq if as_of is None else as_of
    began_at, pause, helped = monotonic(), _POLL_S, False
    while progress is not None and progress.balanced_seq < wanted:
        waited = monotonic() - began_at
        if progress.stopped or waited > CATCH_UP_S_MAX:
            raise BalancesBehind(book=book, seq=wanted, balanced_seq=progress.balanced_seq)
        if waited > _HELP_S and not helped and isinstance(on, Db):
            helped = True
            await _help(on, book)
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, _POLL_S_MAX)
        progress = await store.PROGRESS.first(on, book)


async def _help(db: Db, book: int) -> None:
    """Take the balances along: whoever wrote the book last may be gone.

    Two who do this take turns. What cannot be added up is for the writer to stop the book over.
    """
    with suppress(JournalBroken):
        await catch_up(db, await read_head(db, book))


async def _account(
    on: Db | Tx, book: int, key: AccountKey, as_of: int | None
) -> LedgerAccount | None:
    await caught_up(on, book, as_of)
    return await store.GET_ACCOUNT.first(on, book, key.owner or NOBODY, key.kind, key.currency)


def _range_of(reference: UUID) -> tuple[UUID, UUID]:
    """Return the lowest and highest id that can be derived from a reference."""
    lowest = reference.int >> 64 << 64
    return UUID(int=lowest), UUID(int=lowest | (1 << 64) - 1)


def _transfer_of(cursor: str) -> UUID:
    keys = decode_cursor(cursor)
    try:
        [text] = keys
        return UUID(text)
    except ValueError:
        raise CursorInvalid(param="cursor") from None


def _line(row: ChainRow, account: LedgerAccount) -> StatementLine:
    raises = row.is_debit == (account.side is Side.DEBIT)
    return StatementLine(
        seq=row.seq,
        transfer_id=row.id,
        change=row.amount if raises else -row.amount,
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

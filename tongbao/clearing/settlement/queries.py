"""Read settlements, their lines and balances: for the merchant's API and for the console."""

from __future__ import annotations

from datetime import date
from uuid import UUID

from msgspec import Struct

from tongbao.clearing.settlement import _store as store
from tongbao.clearing.settlement.model import (
    BatchSum,
    Settlement,
    SettlementLine,
    SettlementNotFound,
    SettlementState,
)
from tongbao.infra.db import Db, Tx
from tongbao.kernel.licence import Mode
from tongbao.kernel.pages import CursorInvalid, Page, decode_cursor, page_of, page_size
from tongbao.ledger.queries import balances_of_owner
from tongbao.payments.collecting.queries import cursor_id


class SettlementFilter(Struct, frozen=True):
    """Which settlements a list shows; every None means any."""

    merchant_id: UUID | None = None
    mode: Mode | None = None
    day: date | None = None
    currency: str | None = None
    state: SettlementState | None = None
    batch_id: UUID | None = None
    with_drawn: bool = False  # only for the house: a merchant sees what was released


class CurrencyBalance(Struct, frozen=True):
    """What a merchant is owed in one currency.

    ``available`` may be settled or refunded; ``held`` is promised to open refunds; ``settling``
    is settled and on its way to the bank; ``reserved`` is kept back for a time.
    """

    currency: str
    available: int
    held: int
    settling: int
    reserved: int


async def settlement_of_merchant(
    on: Db | Tx, settlement_id: UUID, merchant: UUID, mode: Mode
) -> Settlement:
    """Return the merchant's settlement.

    Raises:
        SettlementNotFound: also for another merchant's, or another mode's.
    """
    settlement = await store.FIND_SETTLEMENT.first(on, settlement_id, merchant, mode)
    if settlement is None or settlement.state is SettlementState.DRAWN:
        raise SettlementNotFound
    return settlement


async def settlement_with_id(on: Db | Tx, settlement_id: UUID) -> Settlement:
    """Return a settlement, whoever's it is.

    Raises:
        SettlementNotFound
    """
    settlement = await store.GET_SETTLEMENT.first(on, settlement_id)
    if settlement is None:
        raise SettlementNotFound
    return settlement


async def list_settlements(
    on: Db | Tx,
    wanted: SettlementFilter,
    *,
    cursor: str | None = None,
    limit: int | None = None,
) -> Page[Settlement]:
    """Return a page of settlements, newest first.

    Raises:
        CursorInvalid, PageSizeInvalid
    """
    size = page_size(limit)
    rows = await store.LIST_SETTLEMENTS.all(
        on,
        wanted.merchant_id,
        wanted.mode,
        wanted.day,
        wanted.currency,
        wanted.state,
        wanted.batch_id,
        wanted.with_drawn,
        cursor_id(cursor),
        size + 1,
    )
    return page_of(rows, size, lambda row: row.id)


async def lines_of_settlement(
    on: Db | Tx, settlement: Settlement, *, cursor: str | None = None, limit: int | None = None
) -> Page[SettlementLine]:
    """Return a page of a settlement's lines, in the ledger's order.

    Raises:
        CursorInvalid, PageSizeInvalid
    """
    size = page_size(limit)
    rows = await store.LINES_OF.all(
        on, settlement.book, settlement.id, _seq_after(cursor), size + 1
    )
    return page_of(rows, size, lambda row: row.seq)


async def settled_among(on: Db | Tx, settlement: Settlement, seqs: list[int]) -> set[int]:
    """Return which of these movements a settlement has, or one before it in its chain."""
    found = await store.SETTLED_UP_TO.all(
        on, settlement.book, settlement.merchant_id, seqs, settlement.number, settlement.currency
    )
    return set(found)


async def drawn_of_batch(
    on: Db | Tx, batch_id: UUID, *, after: UUID | None = None, limit: int
) -> list[Settlement]:
    """Return what a batch has drawn and not closed, in the order of ids."""
    return await store.DRAWN_OF_BATCH.all(on, batch_id, after, limit)


async def sums_of_batch(on: Db | Tx, batch_id: UUID) -> list[BatchSum]:
    """Return what a batch comes to, by currency."""
    return await store.SUMS_OF_BATCH.all(on, batch_id)


async def balance_of_merchant(on: Db | Tx, book: int, merchant: UUID) -> list[CurrencyBalance]:
    """Return what the merchant is owed, by currency."""
    balances = await balances_of_owner(on, book, merchant)
    settling, reserved = (
        {each.account.currency: each.posted for each in balances if each.account.kind == kind}
        for kind in ("settlement_due", "merchant_reserve")
    )
    return [
        CurrencyBalance(
            currency=each.account.currency,
            available=each.available,
            held=each.held,
            settling=settling.get(each.account.currency, 0),
            reserved=reserved.get(each.account.currency, 0),
        )
        for each in balances
        if each.account.kind == "merchant_payable"
    ]


def _seq_after(cursor: str | None) -> int:
    if cursor is None:
        return 0
    keys = decode_cursor(cursor)
    if len(keys) != 1 or not keys[0].isdecimal() or len(keys[0]) > 18:
        raise CursorInvalid(param="cursor")
    return int(keys[0])

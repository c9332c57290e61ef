"""Read settlements, their lines and balances: for the merchant's API and for the console."""

from __future__ import annotations

from datetime import date
from uuid import UUID

from msgspec import Struct

from tongbao.clearing.settlement import _store as store
from tongbao.clearing.settlement.model import Settlement, SettlementLine, SettlementNotFound
from tongbao.infra.db import Db, Tx
from tongbao.kernel.licence import Mode
from tongbao.kernel.pages import CursorInvalid, Page, decode_cursor, encode_cursor, page_size
from tongbao.ledger.queries import balances_of_owner
from tongbao.payments.collecting.queries import cursor_id


class SettlementFilter(Struct, frozen=True):
    """Which settlements a list shows; every None means any."""

    merchant_id: UUID | None = None
    mode: Mode | None = None
    day: date | None = None
    currency: str | None = None


class CurrencyBalance(Struct, frozen=True):
    """What a merchant is owed in one currency.

    ``available`` may be settled or refunded; ``held`` is promised to open refunds; ``settling``
    is settled and on its way to the bank.
    """

    currency: str
    available: int
    held: int
    settling: int


async def settlement_of_merchant(
    on: Db | Tx, settlement_id: UUID, merchant: UUID, mode: Mode
) -> Settlement:
    """Return the merchant's settlement.

    Raises:
        SettlementNotFound: also for another merchant's, or another mode's.
    """
    settlement = await store.FIND_SETTLEMENT.first(on, settlement_id, merchant, mode)
    if settlement is None:
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
        cursor_id(cursor),
        size + 1,
    )
    more = len(rows) > size
    return Page(rows[:size], encode_cursor(str(rows[size - 1].id)) if more else None)


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
    more = len(rows) > size
    return Page(rows[:size], encode_cursor(rows[size - 1].seq) if more else None)


async def balance_of_merchant(on: Db | Tx, book: int, merchant: UUID) -> list[CurrencyBalance]:
    """Return what the merchant is owed, by currency."""
    balances = await balances_of_owner(on, book, merchant)
    settling = {
        each.account.currency: each.posted
        for each in balances
        if each.account.kind == "settlement_due"
    }
    return [
        CurrencyBalance(
            currency=each.account.currency,
            available=each.available,
            held=each.held,
            settling=settling.get(each.account.currency, 0),
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

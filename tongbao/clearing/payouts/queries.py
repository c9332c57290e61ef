"""Read payouts: for the merchant's API and for the console."""

from __future__ import annotations

from datetime import datetime
from typing import Final
from uuid import UUID

from msgspec import Struct

from tongbao.clearing.payouts import _store as store
from tongbao.clearing.payouts.model import Payout, PayoutExchange, PayoutNotFound, PayoutState
from tongbao.controls.retention.model import Raw
from tongbao.infra.db import Db, Tx
from tongbao.kernel.licence import Mode
from tongbao.kernel.pages import Page, page_of, page_size
from tongbao.payments.collecting.queries import cursor_id

EXCHANGES_KEPT: Final = Raw(
    "payout_exchange",
    "What banks were asked about payouts",
    "与银行关于出款的往来报文",
    store.ERASE_EXCHANGES,
    is_licensed=True,
)


class PayoutFilter(Struct, frozen=True):
    """Which payouts a list shows; every None means any."""

    merchant_id: UUID | None = None
    mode: Mode | None = None
    status: PayoutState | None = None
    settlement_id: UUID | None = None


async def payout_of_merchant(on: Db | Tx, payout_id: UUID, merchant: UUID, mode: Mode) -> Payout:
    """Return the merchant's payout.

    Raises:
        PayoutNotFound: also for another merchant's, or another mode's.
    """
    payout = await store.FIND_PAYOUT.first(on, payout_id, merchant, mode)
    if payout is None:
        raise PayoutNotFound
    return payout


async def payout_with_id(on: Db | Tx, payout_id: UUID) -> Payout:
    """Return a payout, whoever's it is.

    Raises:
        PayoutNotFound
    """
    payout = await store.FIND_PAYOUT_ANYWHERE.first(on, payout_id)
    if payout is None:
        raise PayoutNotFound
    return payout


async def open_payouts(
    on: Db | Tx, *, merchant_id: UUID | None = None, mode: Mode | None = None
) -> list[Payout]:
    """Return payouts that have not ended, oldest first."""
    return await store.OPEN_PAYOUTS.all(on, merchant_id, mode)


async def paid_out_between(
    on: Db | Tx, mode: Mode, currency: str, start: datetime, end: datetime
) -> list[Payout]:
    """Return payouts that the bank paid or sent back in ``[start, end)``, by moment."""
    return await store.PAID_OUT_BETWEEN.all(on, mode, currency, start, end)


async def contradicted_payouts(on: Db | Tx, limit: int = 50) -> list[Payout]:
    """Return payouts of which the bank said two different things."""
    return await store.CONTRADICTED.all(on, limit)


async def exchanges_of_payout(on: Db | Tx, payout: Payout) -> list[PayoutExchange]:
    """Return everything said to and by the bank about a payout, oldest first."""
    return await store.EXCHANGES_OF_PAYOUT.all(on, payout.book, payout.id)


async def list_payouts(
    on: Db | Tx, wanted: PayoutFilter, *, cursor: str | None = None, limit: int | None = None
) -> Page[Payout]:
    """Return a page of payouts, newest first.

    Raises:
        CursorInvalid, PageSizeInvalid
    """
    size = page_size(limit)
    rows = await store.LIST_PAYOUTS.all(
        on,
        wanted.merchant_id,
        wanted.mode,
        wanted.status,
        wanted.settlement_id,
        cursor_id(cursor),
        size + 1,
    )
    return page_of(rows, size, lambda row: row.id)

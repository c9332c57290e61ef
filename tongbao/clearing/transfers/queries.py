"""Read batch transfers: for the merchant's API and for the console."""

from __future__ import annotations

from datetime import datetime
from typing import Final
from uuid import UUID

from tongbao.clearing.transfers import _store as store
from tongbao.clearing.transfers.model import (
    CountOfState,
    TransferBatch,
    TransferBatchNotFound,
    TransferBatchState,
    TransferItem,
    TransferNotFound,
)
from tongbao.controls.retention.model import Raw
from tongbao.infra.db import Db, Tx
from tongbao.kernel.licence import Mode
from tongbao.kernel.pages import CursorInvalid, Page, decode_cursor, page_of, page_size
from tongbao.payments.collecting.queries import cursor_id

EXCHANGES_KEPT: Final = Raw(
    "transfer_exchange",
    "What banks were asked about transfers",
    "与银行关于转账的往来报文",
    store.ERASE_EXCHANGES,
    is_licensed=True,
)


async def batch_with_id(on: Db | Tx, batch_id: UUID) -> TransferBatch:
    """Return a batch, whoever's it is.

    Raises:
        TransferBatchNotFound
    """
    batch = await store.GET_BATCH.first(on, batch_id)
    if batch is None:
        raise TransferBatchNotFound
    return batch


async def batch_of_merchant(
    on: Db | Tx, batch_id: UUID, merchant: UUID, mode: Mode
) -> TransferBatch:
    """Return the merchant's batch.

    Raises:
        TransferBatchNotFound: also for another merchant's, or another mode's.
    """
    batch = await batch_with_id(on, batch_id)
    if (batch.merchant_id, batch.mode) != (merchant, mode):
        raise TransferBatchNotFound
    return batch


async def item_of_merchant(on: Db | Tx, item_id: UUID, merchant: UUID, mode: Mode) -> TransferItem:
    """Return the merchant's transfer.

    Raises:
        TransferNotFound: also for another merchant's, or another mode's.
    """
    item = await store.FIND_ITEM.first(on, item_id)
    if item is None or (item.merchant_id, item.mode) != (merchant, mode):
        raise TransferNotFound
    return item


async def counts_of(on: Db | Tx, batch: TransferBatch) -> list[CountOfState]:
    """Return how far a batch is, by the state of its transfers."""
    return await store.COUNTS.all(on, batch.book, batch.id)


async def transferred_between(
    on: Db | Tx, account_id: UUID, start: datetime, end: datetime
) -> list[TransferItem]:
    """Return the transfers that an account at a channel made and that ended in a span of time."""
    return await store.TRANSFERRED.all(on, account_id, start, end)


async def list_transfer_batches(
    on: Db | Tx,
    *,
    merchant_id: UUID | None = None,
    mode: Mode | None = None,
    state: TransferBatchState | None = None,
    cursor: str | None = None,
    limit: int | None = None,
) -> Page[TransferBatch]:
    """Return a page of batches, newest first.

    Raises:
        CursorInvalid, PageSizeInvalid
    """
    size = page_size(limit)
    rows = await store.LIST_BATCHES.all(on, merchant_id, mode, state, cursor_id(cursor), size + 1)
    return page_of(rows, size, lambda row: row.id)


async def items_of_batch(
    on: Db | Tx, batch: TransferBatch, *, cursor: str | None = None, limit: int | None = None
) -> Page[TransferItem]:
    """Return a page of a batch's transfers, in the order of its file.

    Raises:
        CursorInvalid, PageSizeInvalid
    """
    size = page_size(limit)
    after = 0
    if cursor is not None:
        keys = decode_cursor(cursor)
        if len(keys) != 1 or not keys[0].isdecimal() or len(keys[0]) > 9:
            raise CursorInvalid(param="cursor")
        after = int(keys[0])
    rows = await store.ITEMS.all(on, batch.book, batch.id, after, size + 1)
    return page_of(rows, size, lambda row: str(row.line))

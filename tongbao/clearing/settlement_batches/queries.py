"""Read settlement batches: for the console and the command line."""

from __future__ import annotations

from uuid import UUID

from tongbao.clearing.settlement_batches import _store as store
from tongbao.clearing.settlement_batches.model import (
    BatchState,
    LeftOut,
    SettlementBatch,
    SettlementBatchNotFound,
)
from tongbao.infra.db import Db, Tx
from tongbao.kernel.licence import Mode
from tongbao.kernel.pages import Page, page_of, page_size
from tongbao.payments.collecting.queries import cursor_id


async def batch_with_id(on: Db | Tx, batch_id: UUID) -> SettlementBatch:
    """Return a batch.

    Raises:
        SettlementBatchNotFound
    """
    batch = await store.GET_BATCH.first(on, batch_id)
    if batch is None:
        raise SettlementBatchNotFound
    return batch


async def list_batches(
    on: Db | Tx,
    *,
    mode: Mode | None = None,
    state: BatchState | None = None,
    cursor: str | None = None,
    limit: int | None = None,
) -> Page[SettlementBatch]:
    """Return a page of batches, newest first.

    Raises:
        CursorInvalid, PageSizeInvalid
    """
    size = page_size(limit)
    rows = await store.LIST_BATCHES.all(on, mode, state, cursor_id(cursor), size + 1)
    return page_of(rows, size, lambda row: row.id)


async def left_out_of(on: Db | Tx, batch_id: UUID) -> list[LeftOut]:
    """Return who was taken out of a batch, in order."""
    return await store.LEFT_OUT_OF.all(on, batch_id)

"""Read complaints and what was said: for the merchant's API and for the console."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from msgspec import Struct

from tongbao.clearing.complaints import _store as store
from tongbao.clearing.complaints.model import (
    Complaint,
    ComplaintNotFound,
    ComplaintState,
    Message,
    Reply,
)
from tongbao.controls.retention.model import Raw
from tongbao.infra.db import Db, Tx
from tongbao.kernel.licence import Mode
from tongbao.kernel.pages import Page, page_of, page_size
from tongbao.payments.collecting.queries import cursor_id

EXCHANGES_KEPT: Final = Raw(
    "complaint_exchange",
    "What channels were asked about complaints",
    "与渠道关于投诉的往来报文",
    store.ERASE_EXCHANGES,
)


class ComplaintFilter(Struct, frozen=True):
    """Which complaints a list shows; every None means any."""

    merchant_id: UUID | None = None
    mode: Mode | None = None
    status: ComplaintState | None = None
    payment_id: UUID | None = None


async def complaint_of_merchant(
    on: Db | Tx, complaint_id: UUID, merchant: UUID, mode: Mode
) -> Complaint:
    """Return the merchant's complaint.

    Raises:
        ComplaintNotFound: also for another merchant's, or another mode's.
    """
    found = await store.FIND_COMPLAINT.first(on, complaint_id, merchant, mode)
    if found is None:
        raise ComplaintNotFound
    return found


async def complaint_with_id(on: Db | Tx, complaint_id: UUID) -> Complaint:
    """Return a complaint, whoever's it is.

    Raises:
        ComplaintNotFound
    """
    found = await store.FIND_COMPLAINT_ANYWHERE.first(on, complaint_id)
    if found is None:
        raise ComplaintNotFound
    return found


async def messages_of(on: Db | Tx, complaint: Complaint) -> list[Message]:
    """Return everything that was said, oldest first."""
    return await store.MESSAGES_OF.all(on, complaint.book, complaint.id)


async def replies_of(on: Db | Tx, complaint: Complaint) -> list[Reply]:
    """Return everything we said or meant to say, oldest first."""
    return await store.REPLIES_OF.all(on, complaint.book, complaint.id)


async def reply_with_id(on: Db | Tx, book: int, reply_id: UUID) -> Reply:
    """Return a reply that is known to exist."""
    return await store.GET_REPLY.one(on, book, reply_id)


async def list_complaints(
    on: Db | Tx, wanted: ComplaintFilter, *, cursor: str | None = None, limit: int | None = None
) -> Page[Complaint]:
    """Return a page of complaints, newest first.

    Raises:
        CursorInvalid, PageSizeInvalid
    """
    size = page_size(limit)
    rows = await store.LIST_COMPLAINTS.all(
        on,
        wanted.merchant_id,
        wanted.mode,
        wanted.status,
        wanted.payment_id,
        cursor_id(cursor),
        size + 1,
    )
    return page_of(rows, size, lambda row: row.id)

"""Read disputes, their steps and terms: for the merchant's API and for the console."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from msgspec import Struct

from tongbao.clearing.disputes import _store as store
from tongbao.clearing.disputes.model import (
    Dispute,
    DisputeChange,
    DisputeNotFound,
    DisputeState,
    EvidenceFile,
    SchemeUnknown,
    Term,
)
from tongbao.infra.db import Db, Tx
from tongbao.kernel.licence import Mode
from tongbao.kernel.pages import Page, page_of, page_size
from tongbao.payments.collecting.queries import cursor_id


class DisputeFilter(Struct, frozen=True):
    """Which disputes a list shows; every None means any. ``due_before``: open ones only."""

    merchant_id: UUID | None = None
    mode: Mode | None = None
    status: DisputeState | None = None
    payment_id: UUID | None = None
    scheme_ref: str | None = None
    scheme: str | None = None
    due_before: datetime | None = None


async def dispute_of_merchant(on: Db | Tx, dispute_id: UUID, merchant: UUID, mode: Mode) -> Dispute:
    """Return the merchant's dispute.

    Raises:
        DisputeNotFound: also for another merchant's, or another mode's.
    """
    dispute = await store.FIND_DISPUTE.first(on, dispute_id, merchant, mode)
    if dispute is None:
        raise DisputeNotFound
    return dispute


async def dispute_with_id(on: Db | Tx, dispute_id: UUID) -> Dispute:
    """Return a dispute, whoever's it is.

    Raises:
        DisputeNotFound
    """
    dispute = await store.FIND_DISPUTE_ANYWHERE.first(on, dispute_id)
    if dispute is None:
        raise DisputeNotFound
    return dispute


async def disputes_of_payment(on: Db | Tx, payment_id: UUID) -> list[Dispute]:
    """Return every dispute of a payment, oldest first."""
    return await store.DISPUTES_OF_PAYMENT.all(on, payment_id)


async def changes_of_dispute(on: Db | Tx, dispute: Dispute) -> list[DisputeChange]:
    """Return every step of a dispute, oldest first."""
    return await store.CHANGES_OF.all(on, dispute.book, dispute.id)


async def files_of(on: Db | Tx, book: int, subject_id: UUID) -> list[EvidenceFile]:
    """Return what was handed in for a dispute or complaint, oldest first."""
    return await store.FILES_OF.all(on, book, subject_id)


async def terms(on: Db | Tx) -> list[Term]:
    """Return every stage's dated term, with its source."""
    return await store.TERMS.all(on)


async def check_scheme(on: Db | Tx, scheme: str) -> None:
    """Raise unless the scheme's chargebacks have terms.

    Raises:
        SchemeUnknown
    """
    if all(each.scheme != scheme for each in await terms(on)):
        raise SchemeUnknown(scheme=scheme[:32])


async def list_disputes(
    on: Db | Tx, wanted: DisputeFilter, *, cursor: str | None = None, limit: int | None = None
) -> Page[Dispute]:
    """Return a page of disputes, newest first.

    Raises:
        CursorInvalid, PageSizeInvalid
    """
    size = page_size(limit)
    rows = await store.LIST_DISPUTES.all(
        on,
        wanted.merchant_id,
        wanted.mode,
        wanted.status,
        wanted.payment_id,
        wanted.scheme_ref,
        wanted.scheme,
        wanted.due_before,
        cursor_id(cursor),
        size + 1,
    )
    return page_of(rows, size, lambda row: row.id)

"""Read combined payments: for the merchant who asked, for the channel's notices."""

from __future__ import annotations

from uuid import UUID

from msgspec.structs import astuple

from tongbao.infra.db import Db, Tx
from tongbao.kernel.ids import from_base32
from tongbao.kernel.licence import Mode
from tongbao.kernel.pages import Page, page_of, page_size
from tongbao.payments.collecting import queries as payments
from tongbao.payments.collecting.model import Attempt, Payment
from tongbao.payments.combining import _store as store
from tongbao.payments.combining.model import (
    CombinedFilter,
    CombinedNotFound,
    CombinedPayment,
    Consent,
)


async def combined_of_merchant(
    on: Db | Tx, combined_id: UUID, merchant: UUID, mode: Mode
) -> CombinedPayment:
    """Return the merchant's combined payment.

    Raises:
        CombinedNotFound: also for another merchant's, or another mode's.
    """
    found = await store.FIND_COMBINED.first(on, combined_id, merchant, mode)
    if found is None:
        raise CombinedNotFound
    return found


async def combined(on: Db | Tx, book: int, combined_id: UUID) -> CombinedPayment:
    """Return a combined payment that is known to exist."""
    return await store.GET_COMBINED.one(on, book, combined_id)


async def combined_by_number(on: Db | Tx, number: str) -> CombinedPayment | None:
    """Return the combined payment a channel means by our number, if it is one of ours.

    Raises:
        UnknownId: it is not a number of ours at all.
    """
    return await store.FIND_COMBINED_ANYWHERE.first(on, from_base32(number))


async def parts_of(on: Db | Tx, whole: CombinedPayment) -> list[tuple[Payment, Attempt]]:
    """Return the payments of a combined one with their attempts, in its own order."""
    members = await store.PARTS.all(on, whole.book, whole.id)
    return [
        (
            await payments.payment(on, each.part_book, each.payment_id),
            await payments.attempt(on, each.part_book, each.attempt_id),
        )
        for each in members
    ]


async def list_combined(
    on: Db | Tx,
    merchant: tuple[UUID, Mode],
    *,
    number: str | None = None,
    cursor: str | None = None,
    limit: int | None = None,
) -> Page[CombinedPayment]:
    """Return a page of a merchant's combined payments, newest first.

    Raises:
        CursorInvalid, PageSizeInvalid
    """
    size = page_size(limit)
    rows = await store.LIST_COMBINED.all(
        on, *merchant, number, payments.cursor_id(cursor), size + 1
    )
    return page_of(rows, size, lambda row: row.id)


async def shown_combined(
    on: Db | Tx, wanted: CombinedFilter, *, cursor: str | None = None, limit: int | None = None
) -> Page[CombinedPayment]:
    """Return a page of anybody's combined payments, newest first, for people of the platform.

    Raises:
        CursorInvalid, PageSizeInvalid
    """
    size, place = page_size(limit), payments.cursor_id(cursor)
    rows = await store.LIST_SHOWN.all(on, *astuple(wanted), place, size + 1)
    return page_of(rows, size, lambda row: row.id)


async def combined_with_id(on: Db | Tx, combined_id: UUID) -> CombinedPayment:
    """Return anybody's combined payment, for people of the platform.

    Raises:
        CombinedNotFound
    """
    found = await store.FIND_COMBINED_ANYWHERE.first(on, combined_id)
    if found is None:
        raise CombinedNotFound
    return found


async def has_consent(on: Db | Tx, merchant_id: UUID, mode: Mode, initiator_id: UUID) -> bool:
    """Whether a merchant lets another ask for its orders together with theirs."""
    return await store.CONSENTED.first(on, merchant_id, mode, initiator_id) is not None


async def consents_of(
    on: Db | Tx, book: int, merchant_id: UUID, mode: Mode, limit: int
) -> list[Consent]:
    """Return whom a merchant lets ask for its orders, in the order it agreed."""
    return await store.CONSENTS.all(on, book, merchant_id, mode, limit)

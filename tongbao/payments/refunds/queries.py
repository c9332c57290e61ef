"""Read refunds: for the merchant's API, for clearing above, for the console."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from uuid import UUID

from msgspec import Struct

from tongbao.infra.db import Db, Tx
from tongbao.kernel.errors import NotFound
from tongbao.kernel.ids import from_base32
from tongbao.kernel.licence import Mode
from tongbao.kernel.pages import Page, page_of, page_size
from tongbao.payments.collecting.queries import cursor_id
from tongbao.payments.refunds import _store as store
from tongbao.payments.refunds.model import GivenBack, Refund, RefundState


class RefundNotFound(NotFound):
    """The caller has no such refund."""

    code = "refund.not_found"
    advice = "Check the id, and that the API key is of the same merchant and mode."
    advice_zh = "请检查退款标识，并确认 API 密钥属于同一商户与模式。"


class RefundFilter(Struct, frozen=True):
    """Which refunds a list shows; every None means any."""

    merchant_id: UUID | None = None
    mode: Mode | None = None
    payment_id: UUID | None = None
    status: RefundState | None = None
    merchant_refund_no: str | None = None


async def refund_of_merchant(on: Db | Tx, refund_id: UUID, merchant: UUID, mode: Mode) -> Refund:
    """Return the merchant's refund.

    Raises:
        RefundNotFound: also for another merchant's, or another mode's.
    """
    refund = await store.FIND_REFUND.first(on, refund_id, merchant, mode)
    if refund is None:
        raise RefundNotFound
    return refund


async def refund_by_number(on: Db | Tx, number: str) -> Refund | None:
    """Return the refund a channel means by our number, if it is one of ours.

    Raises:
        UnknownId: it is not a number of ours at all.
    """
    return await store.FIND_REFUND_ANYWHERE.first(on, from_base32(number))


async def refund(on: Db | Tx, book: int, refund_id: UUID) -> Refund:
    """Return a refund that is known to exist."""
    return await store.GET_REFUND.one(on, book, refund_id)


async def refunds_of_payment(on: Db | Tx, book: int, payment_id: UUID) -> list[Refund]:
    """Return every refund of a payment, oldest first."""
    return await store.REFUNDS_OF_PAYMENT.all(on, book, payment_id)


async def refunds_with_ids(on: Db | Tx, ids: Sequence[UUID]) -> list[Refund]:
    """Return those of these refunds that exist, in no order."""
    return await store.REFUNDS_WITH_IDS.all(on, list(ids))


def given_back_between(
    tx: Tx, mode: Mode, start: datetime, end: datetime
) -> AsyncIterator[GivenBack]:
    """Yield what channels gave back in ``[start, end)`` of their own time, whatever channel."""
    return store.GIVEN_BACK_BETWEEN.stream(tx, mode, start, end)


async def list_refunds(
    on: Db | Tx, wanted: RefundFilter, *, cursor: str | None = None, limit: int | None = None
) -> Page[Refund]:
    """Return a page of refunds, newest first.

    Raises:
        CursorInvalid, PageSizeInvalid
    """
    size = page_size(limit)
    rows = await store.LIST_REFUNDS.all(
        on,
        wanted.merchant_id,
        wanted.mode,
        wanted.payment_id,
        wanted.status,
        wanted.merchant_refund_no,
        cursor_id(cursor),
        size + 1,
    )
    return page_of(rows, size, lambda row: row.id)

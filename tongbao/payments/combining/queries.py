"""Read combined payments: for the merchant who asked, the channel's notices, and the customer.

A customer pays at an address nobody finds without being given it: the payment's number and 128
bits of a MAC over it, so that nothing is kept for it.
"""

from __future__ import annotations

from typing import Final
from uuid import UUID

from msgspec.structs import astuple

from tongbao.infra.crypto import Keyring, bind, constant_time_equal, hmac_sha256
from tongbao.infra.db import Db, Tx
from tongbao.kernel.ids import UnknownId, base32, from_base32
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

PREFIX: Final = "/pay/m"
_PURPOSE: Final = "combined.page"
_NUMBER: Final = 26
_MAC: Final = 32


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
    meant = from_base32(number)
    found = await store.FIND_COMBINED_ANYWHERE.first(on, meant)
    return found or await store.FIND_BY_TRY.first(on, meant)


async def parts_of(on: Db | Tx, whole: CombinedPayment) -> list[tuple[Payment, Attempt]]:
    """Return the payments of a combined one, as it is tried now, with their attempts, in order."""
    members = await store.PARTS.all(on, whole.book, whole.id, whole.try_id)
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


def path_of(keyring: Keyring, combined_id: UUID) -> str:
    """Return the path of a combined payment's page."""
    return f"{PREFIX}/{base32(combined_id)}{_mac(keyring, combined_id)}"


async def combined_of_token(db: Db, keyring: Keyring, token: str) -> CombinedPayment:
    """Return the combined payment whose page an address is.

    Raises:
        CombinedNotFound: also where only the number is right.
    """
    try:
        combined_id = from_base32(token[:_NUMBER])
    except UnknownId:
        raise CombinedNotFound from None
    if not constant_time_equal(_mac(keyring, combined_id).encode(), token[_NUMBER:].encode()):
        raise CombinedNotFound
    found = await store.FIND_COMBINED_ANYWHERE.first(db, combined_id)
    if found is None:
        raise CombinedNotFound
    return found


def _mac(keyring: Keyring, combined_id: UUID) -> str:
    key = keyring.mac_key(_PURPOSE)
    return hmac_sha256(key, bind("combined_payment", combined_id)).hex()[:_MAC]

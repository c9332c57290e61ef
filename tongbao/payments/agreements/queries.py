"""Read agreements: for the merchant's API, for payments under them, for callbacks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from msgspec.structs import astuple

from tongbao.controls.retention.model import Raw
from tongbao.infra.db import Db, Tx
from tongbao.kernel.ids import from_base32, parse
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import Money
from tongbao.kernel.pages import CursorInvalid, Page, decode_cursor, page_of, page_size
from tongbao.payments.agreements import _store as store
from tongbao.payments.agreements.agreements import AgreementNotFound
from tongbao.payments.agreements.model import (
    Agreement,
    AgreementCurrencyDiffers,
    AgreementLimitEach,
    AgreementLimitPerPeriod,
    AgreementLimitTotal,
    AgreementNotActive,
    AgreementPaymentsUsed,
)
from tongbao.payments.agreements.records import AgreementExchange, AgreementFilter, AgreementUse

EXCHANGES_KEPT: Final = Raw(
    "agreement_exchange",
    "What channels were asked about agreements",
    "与渠道关于签约的往来报文",
    store.ERASE_EXCHANGES,
)


_EXCHANGES_MAX: Final = 200


async def agreement_of_merchant(
    on: Db | Tx, agreement_id: UUID, merchant: UUID, mode: Mode
) -> Agreement:
    """Return the merchant's agreement.

    Raises:
        AgreementNotFound: also for another merchant's, or another mode's.
    """
    found = await store.FIND_AGREEMENT.first(on, agreement_id, merchant, mode)
    if found is None:
        raise AgreementNotFound
    return found


UNUSABLE: Final = (
    AgreementNotFound,
    AgreementNotActive,
    AgreementCurrencyDiffers,
    AgreementLimitEach,
    AgreementLimitPerPeriod,
    AgreementLimitTotal,
    AgreementPaymentsUsed,
)
"""What `usable_agreement` refuses."""


async def usable_agreement(on: Db, shown_id: str, of: tuple[UUID, Mode], money: Money) -> Agreement:
    """Return a merchant's agreement, by the id it is shown with, that allows taking this much now.

    Raises:
        UnknownId, AgreementNotFound, AgreementNotActive, AgreementCurrencyDiffers,
        AgreementLimitEach, AgreementLimitPerPeriod, AgreementLimitTotal, AgreementPaymentsUsed
    """
    found = await agreement_of_merchant(on, parse("agr", shown_id), *of)
    found.check_usable(money, on.clock.now())
    return found


async def agreement(on: Db | Tx, book: int, agreement_id: UUID) -> Agreement:
    """Return an agreement that is known to exist."""
    return await store.GET_AGREEMENT.one(on, book, agreement_id)


async def agreement_by_number(on: Db | Tx, number: str) -> Agreement | None:
    """Return the agreement a channel means by our number, if it is one of ours.

    Raises:
        UnknownId: it is not a number of ours at all.
    """
    return await store.FIND_AGREEMENT_ANYWHERE.first(on, from_base32(number))


async def agreement_with_id(on: Db | Tx, agreement_id: UUID) -> Agreement:
    """Return anybody's agreement, for people of the platform.

    Raises:
        AgreementNotFound
    """
    found = await store.FIND_AGREEMENT_ANYWHERE.first(on, agreement_id)
    if found is None:
        raise AgreementNotFound
    return found


async def agreements_by_payers(on: Db | Tx, payers: Sequence[str]) -> list[Agreement]:
    """Return what was signed with bank cards, by the cards' ids, of merchants in every book.

    What is still signed comes first, so that however much has ended hides none of it.
    """
    return await store.AGREEMENTS_BY_PAYERS.all(on, list(payers), _EXCHANGES_MAX)


async def list_agreements(
    on: Db | Tx, wanted: AgreementFilter, *, cursor: str | None = None, limit: int | None = None
) -> Page[Agreement]:
    """Return a page of agreements, newest first.

    Raises:
        CursorInvalid, PageSizeInvalid
    """
    size, given = page_size(limit), astuple(wanted)
    rows = await store.LIST_AGREEMENTS.all(on, *given, _cursor_id(cursor), size + 1)
    return page_of(rows, size, lambda row: row.id)


async def uses_of_agreement(
    on: Db | Tx, agreement: Agreement, *, cursor: str | None = None, limit: int | None = None
) -> Page[AgreementUse]:
    """Return a page of what was taken under an agreement, newest first.

    Raises:
        CursorInvalid, PageSizeInvalid
    """
    size = page_size(limit)
    place = (agreement.book, agreement.id)
    rows = await store.LIST_USES.all(on, *place, _cursor_id(cursor), size + 1)
    return page_of(rows, size, lambda row: row.payment_id)


async def exchanges_of_agreement(on: Db | Tx, agreement: Agreement) -> list[AgreementExchange]:
    """Return the latest of what was asked of the channel about an agreement, oldest first."""
    place = (agreement.book, agreement.id)
    return (await store.EXCHANGES_OF_AGREEMENT.all(on, *place, _EXCHANGES_MAX))[::-1]


def _cursor_id(cursor: str | None) -> UUID | None:
    if cursor is None:
        return None
    try:
        [text] = decode_cursor(cursor)
        return UUID(text)
    except ValueError:
        raise CursorInvalid(param="cursor") from None

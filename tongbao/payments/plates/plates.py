"""Make a plate, revoke it, and open a checkout for the customer who scanned it."""

from __future__ import annotations

import secrets
from typing import Final
from uuid import UUID

from msgspec import Struct

from tongbao.infra import audit
from tongbao.infra.db import Db, Tx
from tongbao.infra.web.caller import Caller
from tongbao.kernel.ids import base32, new_id, show
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import Money
from tongbao.kernel.pages import Page, page_of, page_size
from tongbao.parties.merchants import queries as merchants
from tongbao.payments.checkouts.checkouts import open_checkout, opened_by_plate
from tongbao.payments.checkouts.model import Checkout, CheckoutAsked
from tongbao.payments.collecting.queries import cursor_id
from tongbao.payments.plates import _store as store
from tongbao.payments.plates.model import (
    OPENED_PER_MINUTE_MAX,
    PLATE,
    EmvAsked,
    Plate,
    PlateAmountDiffers,
    PlateBusy,
    PlateNotFound,
    PlateRevoked,
    emv_text,
)

_TOKEN_BYTES: Final = 16


class PlateAsked(Struct, frozen=True):
    """What a merchant wants on the counter; without money the customer enters the amount."""

    name: str
    subject: str
    currency: str
    money: Money | None = None
    emv: EmvAsked | None = None


async def make_plate(
    tx: Tx, caller: Caller, asked: PlateAsked, *, public_url: str, plate_id: UUID
) -> Plate:
    """Write a plate down with an address nobody can guess.

    Raises:
        PlateCurrencyUnknown, EmvQrTooLong, EmvQrFieldMalformed
    """
    token = secrets.token_urlsafe(_TOKEN_BYTES)
    text = None
    if asked.emv is not None:
        merchant = await merchants.merchant_with_id(tx, caller.merchant_id)
        text = emv_text(
            asked.emv,
            asked.money,
            asked.currency,
            token=token,
            public_url=public_url,
            name=merchant.name,
        )
    plate = await store.INSERT_PLATE.one(
        tx,
        plate_id,
        caller.merchant_id,
        caller.mode,
        token,
        asked.name,
        asked.subject,
        asked.money.amount if asked.money is not None else None,
        asked.currency,
        text,
        tx.now,
    )
    facts = {"name": plate.name, "amount": plate.amount, "currency": plate.currency}
    await audit.record(tx, "plate.made", show("plt", plate.id), facts)
    return plate


async def revoke_plate(tx: Tx, plate_id: UUID, caller: Caller) -> Plate:
    """Give a plate up for good; a second time does nothing.

    Raises:
        PlateNotFound
    """
    plate = await store.REVOKE_PLATE.first(tx, plate_id, caller.merchant_id, caller.mode, tx.now)
    if plate is None:
        raise PlateNotFound
    await audit.record(tx, "plate.revoked", show("plt", plate.id), {})
    return plate


async def plate_of_merchant(on: Db | Tx, plate_id: UUID, merchant: UUID, mode: Mode) -> Plate:
    """Return the merchant's plate.

    Raises:
        PlateNotFound: also for another merchant's, or another mode's.
    """
    plate = await store.FIND_PLATE.first(on, plate_id, merchant, mode)
    if plate is None:
        raise PlateNotFound
    return plate


async def plate_of_token(on: Db | Tx, token: str) -> Plate:
    """Return the plate whose code says this address, if it is in use.

    Raises:
        PlateNotFound, PlateRevoked
    """
    plate = await store.FIND_BY_TOKEN.first(on, token)
    if plate is None:
        raise PlateNotFound
    if plate.revoked_at is not None:
        raise PlateRevoked
    return plate


async def list_plates(
    on: Db | Tx, merchant: UUID, mode: Mode, *, cursor: str | None, limit: int | None
) -> Page[Plate]:
    """Return a page of the merchant's plates, newest first.

    Raises:
        CursorInvalid, PageSizeInvalid
    """
    size = page_size(limit)
    rows = await store.LIST_PLATES.all(on, merchant, mode, cursor_id(cursor), size + 1)
    return page_of(rows, size, lambda row: row.id)


async def open_at_plate(db: Db, plate: Plate, money: Money) -> Checkout:
    """Open a checkout for a customer at a plate; its order number is made here.

    Raises:
        PlateAmountDiffers, PlateBusy, MerchantSuspended, CheckoutsTooMany
    """
    if money.currency != plate.currency or plate.amount not in {None, money.amount}:
        raise PlateAmountDiffers(param="amount")
    if await opened_by_plate(db, plate.id, OPENED_PER_MINUTE_MAX) >= OPENED_PER_MINUTE_MAX:
        raise PlateBusy
    merchant = await merchants.merchant_with_id(db, plate.merchant_id)
    checkout_id = new_id()
    asked = CheckoutAsked(
        merchant_id=merchant.id,
        mode=plate.mode,
        book=merchant.book(plate.mode),
        merchant_order_no=base32(checkout_id),
        money=money,
        subject=plate.subject,
        metadata={PLATE: show("plt", plate.id)},
        plate_id=plate.id,
    )
    return await open_checkout(db, asked, _by_nobody, checkout_id)


async def _by_nobody(_tx: Tx, _checkout_id: UUID) -> None:
    """Take no idempotency key: a customer's browser has none, and a checkout costs nothing."""

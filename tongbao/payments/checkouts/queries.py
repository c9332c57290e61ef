"""What others may ask about checkouts."""

from __future__ import annotations

from uuid import UUID

from tongbao.infra.db import Db, Tx
from tongbao.kernel.ids import UnknownId, parse
from tongbao.kernel.licence import Mode
from tongbao.kernel.pages import Page, page_of, page_size
from tongbao.payments.checkouts import _store as store
from tongbao.payments.checkouts.model import METADATA_KEY, Checkout, CheckoutNotFound
from tongbao.payments.collecting import queries as payments
from tongbao.payments.collecting.model import Attempt, Payment


async def checkout_of_merchant(
    on: Db | Tx, checkout_id: UUID, merchant: UUID, mode: Mode
) -> Checkout:
    """Return the merchant's checkout.

    Raises:
        CheckoutNotFound: also for another merchant's, or another mode's.
    """
    checkout = await store.FIND_CHECKOUT.first(on, checkout_id, merchant, mode)
    if checkout is None:
        raise CheckoutNotFound
    return checkout


async def checkout_of_token(on: Db | Tx, token: str) -> Checkout:
    """Return the checkout whose page has this address.

    Raises:
        CheckoutNotFound
    """
    checkout = await store.FIND_BY_TOKEN.first(on, token)
    if checkout is None:
        raise CheckoutNotFound
    return checkout


async def checkout(on: Db | Tx, book: int, checkout_id: UUID) -> Checkout:
    """Return a checkout that is known to exist."""
    return await store.GET_CHECKOUT.one(on, book, checkout_id)


async def checkout_of_payment(on: Db | Tx, payment: Payment) -> Checkout | None:
    """Return the checkout whose latest try a payment is, or None where no page has made it.

    The payment's metadata says where to look and no more: a merchant may write that, too.
    """
    try:
        wanted = parse("cko", payment.metadata.get(METADATA_KEY, ""))
    except UnknownId:
        return None
    found = await store.GET_CHECKOUT.first(on, payment.book, wanted)
    return found if found is not None and found.payment_id == payment.id else None


async def latest_try(on: Db | Tx, checkout: Checkout) -> tuple[Payment, Attempt] | None:
    """Return the payment a customer last tried, with its attempt, or None before the first."""
    if checkout.payment_id is None:
        return None
    payment = await payments.payment(on, checkout.book, checkout.payment_id)
    return payment, await payments.last_attempt(on, payment)


async def list_checkouts(
    on: Db | Tx,
    merchant: UUID,
    mode: Mode,
    *,
    merchant_order_no: str | None,
    cursor: str | None,
    limit: int | None,
) -> Page[Checkout]:
    """Return a page of the merchant's checkouts, newest first.

    Raises:
        CursorInvalid, PageSizeInvalid
    """
    size = page_size(limit)
    rows = await store.LIST_CHECKOUTS.all(
        on, merchant, mode, merchant_order_no, payments.cursor_id(cursor), size + 1
    )
    return page_of(rows, size, lambda row: row.id)

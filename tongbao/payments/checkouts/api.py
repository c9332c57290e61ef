"""The routes of checkouts."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Final
from uuid import UUID

from litestar import Response, get, post
from msgspec import Meta, Struct

from tongbao.infra.db import Db, Tx
from tongbao.infra.web.caller import Caller, needs
from tongbao.infra.web.idempotency import Idempotency, answer_once
from tongbao.infra.web.request import AmountField, ApiRequest, CurrencyField, InvalidValue
from tongbao.kernel.ids import new_id, parse
from tongbao.kernel.money import AmountOutOfRange, UnknownCurrency, positive
from tongbao.kernel.pages import Page
from tongbao.parties.merchants.model import MerchantSuspended
from tongbao.parties.terminals.model import PREFIX as TERMINAL
from tongbao.payments.checkouts import queries
from tongbao.payments.checkouts.checkouts import call_off, open_checkout
from tongbao.payments.checkouts.model import (
    EXPIRES_DEFAULT,
    EXPIRES_MAX,
    EXPIRES_MIN,
    METADATA_KEY,
    ORDER_NO_LENGTH_MAX,
    Checkout,
    CheckoutAsked,
    CheckoutNotFound,
    CheckoutPaid,
    CheckoutsTooMany,
    CheckoutView,
    ReturnUrlUnsafe,
    view_checkout,
)
from tongbao.payments.collecting.outcomes import Flow
from tongbao.payments.collecting.payments import OrderNumberUsed
from tongbao.payments.uses.counting import AT_TERMINAL

_METADATA_KEYS_MAX: Final = 49  # a payment takes 50, and we add one
OrderNumber = Annotated[
    str, Meta(min_length=1, max_length=ORDER_NO_LENGTH_MAX, pattern=r"^[A-Za-z0-9_\-|*@.]+(?!\n)$")
]
ChannelName = Annotated[str, Meta(min_length=1, max_length=32, pattern=r"^[a-z0-9_]+(?!\n)$")]
ReturnUrl = Annotated[str, Meta(min_length=1, max_length=512)]
ShortText = Annotated[str, Meta(max_length=500)]
Lifetime = Annotated[
    int, Meta(ge=int(EXPIRES_MIN.total_seconds()), le=int(EXPIRES_MAX.total_seconds()))
]


class PublicUrl(Struct, frozen=True):
    """Where browsers reach us; given to handlers by wiring."""

    text: str


class OpenCheckout(Struct, frozen=True, forbid_unknown_fields=True):
    """Let a customer pay this much on our page. ``amount`` is minor units: 1999 is 19.99 yuan.

    ``channels`` limits which of the merchant's channels are offered; all of them by default. The
    customer can go back to ``return_url`` afterwards; that they did says nothing about the money.
    With ``terminal_id`` each try counts against that terminal's limits, and it tells of it.
    """

    merchant_order_no: OrderNumber
    amount: AmountField
    subject: Annotated[str, Meta(min_length=1, max_length=120)]
    currency: CurrencyField = "CNY"
    channels: Annotated[list[ChannelName], Meta(max_length=16)] = []
    return_url: ReturnUrl | None = None
    expires_in_s: Lifetime | None = None
    metadata: dict[Annotated[str, Meta(max_length=40)], ShortText] = {}
    terminal_id: Annotated[str, Meta(max_length=64)] | None = None


_EXAMPLE = OpenCheckout(
    merchant_order_no="20261121-0001",
    amount=1999,
    subject="two cups of tea",
    return_url="https://shop.example/orders/20261121-0001",
)


@post(
    "/v1/checkouts",
    opt=needs(
        "payments:write",
        idempotent=True,
        refuses=[
            ReturnUrlUnsafe,
            OrderNumberUsed,
            MerchantSuspended,
            CheckoutsTooMany,
            AmountOutOfRange,
            UnknownCurrency,
            *AT_TERMINAL,
        ],
        request_example=_EXAMPLE,
    ),
)
async def create_checkout(
    data: OpenCheckout, request: ApiRequest, db: Db, public_url: PublicUrl, caller: Caller
) -> Response[CheckoutView]:
    """Open a checkout and get the address of its page.

    The customer pays there by a way they choose. Each try is a payment whose metadata names the
    checkout; the webhook ``payment.succeeded`` tells that it is paid, ``checkout.closed`` that it
    ended unpaid. The same order number with the same content returns the checkout it already made.
    """
    asked = _asked(data, caller)

    async def fresh(use: Idempotency) -> CheckoutView:
        async def take(tx: Tx, checkout_id: UUID) -> None:
            await use.take(tx, checkout_id)

        return await _view(db, await open_checkout(db, asked, take, new_id()), public_url)

    async def resume(checkout_id: UUID) -> CheckoutView:
        checkout = await queries.checkout(db, caller.book, checkout_id)
        return await _view(db, checkout, public_url)

    return await answer_once(request, db, fresh=fresh, resume=resume)


@post(
    "/v1/checkouts/{checkout_id:str}/close",
    status_code=200,
    opt=needs("payments:write", refuses=[CheckoutNotFound, CheckoutPaid]),
)
async def close_checkout(
    checkout_id: str, flow: Flow, public_url: PublicUrl, caller: Caller
) -> CheckoutView:
    """Call a checkout off: nothing more can be paid on it, the latest try closed first.

    A customer who paid first wins. ``closing`` says that the channel of the latest try has not
    answered yet; the platform goes on closing it. Safe to repeat.
    """
    checkout = await _checkout(flow.db, checkout_id, caller)
    return await _view(flow.db, await call_off(flow, checkout, caller.actor), public_url)


@get("/v1/checkouts/{checkout_id:str}", opt=needs("payments:read", refuses=[CheckoutNotFound]))
async def get_checkout(
    checkout_id: str, db: Db, public_url: PublicUrl, caller: Caller
) -> CheckoutView:
    """Return one checkout."""
    return await _view(db, await _checkout(db, checkout_id, caller), public_url)


@get("/v1/checkouts", opt=needs("payments:read"))
async def list_checkouts(
    db: Db,
    public_url: PublicUrl,
    caller: Caller,
    *,
    merchant_order_no: str | None = None,
    cursor: str | None = None,
    limit: int | None = None,
) -> Page[CheckoutView]:
    """Return checkouts, newest first."""
    page = await queries.list_checkouts(
        db,
        caller.merchant_id,
        caller.mode,
        merchant_order_no=merchant_order_no,
        cursor=cursor,
        limit=limit,
    )
    views = [await _view(db, each, public_url) for each in page.items]
    return Page(views, page.next_cursor)


ROUTES = [create_checkout, close_checkout, get_checkout, list_checkouts]


def _asked(data: OpenCheckout, caller: Caller) -> CheckoutAsked:
    if len(data.metadata) > _METADATA_KEYS_MAX:
        raise InvalidValue(param="$.metadata", reason="at most 49 keys")
    if METADATA_KEY in data.metadata:
        raise InvalidValue(param="$.metadata", reason="checkout_id is the platform's own")
    lifetime = timedelta(seconds=data.expires_in_s) if data.expires_in_s else EXPIRES_DEFAULT
    return CheckoutAsked(
        merchant_id=caller.merchant_id,
        mode=caller.mode,
        book=caller.book,
        merchant_order_no=data.merchant_order_no,
        money=positive(data.amount, data.currency),
        subject=data.subject,
        channels=tuple(data.channels),
        return_url=data.return_url,
        metadata=data.metadata,
        expires_in=lifetime,
        terminal_id=parse(TERMINAL, data.terminal_id) if data.terminal_id is not None else None,
    )


async def _checkout(db: Db, checkout_id: str, caller: Caller) -> Checkout:
    wanted = parse("cko", checkout_id)
    return await queries.checkout_of_merchant(db, wanted, caller.merchant_id, caller.mode)


async def _view(db: Db, checkout: Checkout, public_url: PublicUrl) -> CheckoutView:
    latest = await queries.latest_try(db, checkout)
    payment = latest[0] if latest is not None else None
    return view_checkout(checkout, payment, db.clock.now(), public_url.text)

"""The routes of what was set aside: capture and void."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from litestar import Response, post
from msgspec import Meta, Struct

from tongbao.infra.web.caller import Caller, needs
from tongbao.infra.web.idempotency import Idempotency, answer_once
from tongbao.infra.web.request import ApiRequest
from tongbao.kernel.ids import parse
from tongbao.kernel.money import Money, positive
from tongbao.payments.authorisations.completions import (
    AuthorisationExpired,
    CaptureCurrencyDiffers,
    CaptureExceedsAuthorised,
    PaymentNotAuthorised,
    capture_payment,
    check_capturable,
    void_payment,
)
from tongbao.payments.collecting import queries as payments
from tongbao.payments.collecting.model import Payment, PaymentState, PaymentView, view_payment
from tongbao.payments.collecting.outcomes import Flow
from tongbao.payments.collecting.queries import PaymentNotFound


class CapturePayment(Struct, frozen=True, forbid_unknown_fields=True):
    """Capture this much of what is set aside; everything when no amount is given."""

    amount: int | None = None
    currency: Annotated[str, Meta(min_length=3, max_length=3)] | None = None


_EXAMPLE = CapturePayment(amount=1500)


@post(
    "/v1/payments/{payment_id:str}/capture",
    status_code=200,
    opt=needs(
        "payments:write",
        idempotent=True,
        refuses=[
            PaymentNotFound,
            PaymentNotAuthorised,
            CaptureExceedsAuthorised,
            CaptureCurrencyDiffers,
            AuthorisationExpired,
        ],
        request_example=_EXAMPLE,
    ),
)
async def capture(
    payment_id: str, data: CapturePayment, request: ApiRequest, flow: Flow, caller: Caller
) -> Response[PaymentView]:
    """Take what was set aside, or a part of it, once; the channel frees the rest.

    The payment comes back succeeded, or capturing while the channel is at it or silent; a webhook
    tells the end. It comes back authorised, with the reason in ``failure``, when the channel did
    not and will not take the money.
    """
    target = parse("pay", payment_id)

    async def fresh(use: Idempotency) -> PaymentView:
        payment = await payments.payment_of_merchant(
            flow.db, target, caller.merchant_id, caller.mode
        )
        money = _money_asked(data, payment)
        check_capturable(payment, money, flow.db.clock.now())
        fee = await _fee(flow, payment, money)
        await capture_payment(flow, payment, money, fee, take=use.write)
        return await _view(flow, payment)

    async def resume(found: UUID) -> PaymentView:
        return await _view(flow, await payments.payment(flow.db, caller.book, found))

    return await answer_once(request, flow.db, fresh=fresh, resume=resume)


def _money_asked(data: CapturePayment, payment: Payment) -> Money:
    currency = data.currency or payment.currency
    if data.amount is not None:
        return positive(data.amount, currency)
    if payment.state is not PaymentState.AUTHORISED:
        raise PaymentNotAuthorised(status=payment.state)
    return Money(payment.authorised, currency)


async def _fee(flow: Flow, payment: Payment, money: Money) -> int:
    """Return the fee of a capture by the prices that were in force when the payment was made."""
    if money == payment.money:
        return payment.fee
    return (await payments.price_again(flow.db, payment, money)).fee


async def _view(flow: Flow, payment: Payment) -> PaymentView:
    payment = await payments.payment(flow.db, payment.book, payment.id)
    return view_payment(payment, await payments.last_attempt(flow.db, payment))


@post(
    "/v1/payments/{payment_id:str}/void",
    status_code=200,
    opt=needs("payments:write", idempotent=True, refuses=[PaymentNotFound, PaymentNotAuthorised]),
)
async def void(
    payment_id: str, request: ApiRequest, flow: Flow, caller: Caller
) -> Response[PaymentView]:
    """Let go what was set aside; nothing is collected.

    The payment comes back voided, or voiding while the channel is at it or silent; a webhook tells
    the end.
    """
    target = parse("pay", payment_id)

    async def fresh(use: Idempotency) -> PaymentView:
        payment = await payments.payment_of_merchant(
            flow.db, target, caller.merchant_id, caller.mode
        )
        await void_payment(flow, payment, "merchant", take=use.write)
        return await _view(flow, payment)

    async def resume(found: UUID) -> PaymentView:
        return await _view(flow, await payments.payment(flow.db, caller.book, found))

    return await answer_once(request, flow.db, fresh=fresh, resume=resume)


ROUTES = [capture, void]

"""The routes of refunds."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from litestar import Response, get, post
from msgspec import Meta, Struct

from tongbao.infra.db import Db
from tongbao.infra.web.caller import Caller, needs
from tongbao.infra.web.idempotency import Idempotency, answer_once
from tongbao.infra.web.request import ApiRequest, NumberField
from tongbao.kernel.ids import new_id, parse
from tongbao.kernel.money import positive
from tongbao.kernel.pages import Page
from tongbao.ledger.model import AccountFrozen
from tongbao.parties.merchants.model import MerchantHeld
from tongbao.payments.collecting import queries as payments
from tongbao.payments.collecting.outcomes import Flow
from tongbao.payments.collecting.queries import PaymentNotFound
from tongbao.payments.refunds import queries
from tongbao.payments.refunds.model import RefundState, RefundView
from tongbao.payments.refunds.outcomes import ask_channel, view_refund
from tongbao.payments.refunds.queries import RefundFilter, RefundNotFound
from tongbao.payments.refunds.refunds import (
    MerchantBalanceTooLow,
    PaymentNotCaptured,
    RefundCurrencyDiffers,
    RefundExceedsCaptured,
    RefundNumberUsed,
    RefundRequest,
    request_refund,
)


class CreateRefund(Struct, frozen=True, forbid_unknown_fields=True):
    """Give back this much of a payment."""

    merchant_refund_no: NumberField
    amount: int
    currency: Annotated[str, Meta(min_length=3, max_length=3)] = "CNY"
    reason: Annotated[str, Meta(max_length=80)] = ""


_EXAMPLE = CreateRefund("R-20261121-0001", 500, "CNY", "returned goods")


@post(
    "/v1/payments/{payment_id:str}/refunds",
    opt=needs(
        "refunds:write",
        idempotent=True,
        refuses=[
            PaymentNotFound,
            PaymentNotCaptured,
            RefundCurrencyDiffers,
            RefundExceedsCaptured,
            RefundNumberUsed,
            MerchantBalanceTooLow,
            AccountFrozen,
            MerchantHeld,
        ],
        request_example=_EXAMPLE,
    ),
)
async def create_refund(
    payment_id: str, data: CreateRefund, request: ApiRequest, flow: Flow, caller: Caller
) -> Response[RefundView]:
    """Give money back, in part or in full.

    The merchant's money is held at once and the channel is asked at once; where it needs time the
    refund comes back as requested, pending or unknown, and a webhook tells its end.
    """
    asked = RefundRequest(
        data.merchant_refund_no, positive(data.amount, data.currency), data.reason
    )
    target = parse("pay", payment_id)

    async def fresh(use: Idempotency) -> RefundView:
        payment = await payments.payment_of_merchant(
            flow.db, target, caller.merchant_id, caller.mode
        )
        refund = await request_refund(flow, payment, asked, take=use.write, refund_id=new_id())
        if refund.state.is_open and refund.queries == 0:
            refund = await ask_channel(flow, refund)
        return view_refund(refund)

    async def resume(refund_id: UUID) -> RefundView:
        return view_refund(await queries.refund(flow.db, caller.book, refund_id))

    return await answer_once(request, flow.db, fresh=fresh, resume=resume)


@get("/v1/refunds/{refund_id:str}", opt=needs("refunds:read", refuses=[RefundNotFound]))
async def get_refund(refund_id: str, db: Db, caller: Caller) -> RefundView:
    """Return one refund."""
    return view_refund(
        await queries.refund_of_merchant(
            db, parse("ref", refund_id), caller.merchant_id, caller.mode
        )
    )


@get("/v1/refunds", opt=needs("refunds:read"))
async def list_refunds(
    db: Db,
    caller: Caller,
    *,
    payment_id: str | None = None,
    status: RefundState | None = None,
    merchant_refund_no: str | None = None,
    cursor: str | None = None,
    limit: int | None = None,
) -> Page[RefundView]:
    """Return refunds, newest first, by payment, status or the merchant's refund number."""
    wanted = RefundFilter(
        merchant_id=caller.merchant_id,
        mode=caller.mode,
        payment_id=parse("pay", payment_id) if payment_id else None,
        status=status,
        merchant_refund_no=merchant_refund_no,
    )
    page = await queries.list_refunds(db, wanted, cursor=cursor, limit=limit)
    return Page([view_refund(refund) for refund in page.items], page.next_cursor)


ROUTES = [create_refund, get_refund, list_refunds]

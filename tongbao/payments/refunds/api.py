"""The routes of refunds."""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

from litestar import Response, get, post
from msgspec import Meta, Struct

from tongbao.infra.crypto import Keyring
from tongbao.infra.db import Db
from tongbao.infra.web.caller import Caller, needs
from tongbao.infra.web.idempotency import Idempotency, answer_once
from tongbao.infra.web.request import ApiRequest, InvalidValue, NumberField
from tongbao.kernel.ids import new_id, parse
from tongbao.kernel.money import positive
from tongbao.kernel.pages import Page
from tongbao.ledger.model import AccountFrozen
from tongbao.parties.merchants.model import MerchantHeld
from tongbao.payments.collecting import queries as payments
from tongbao.payments.collecting.outcomes import Flow
from tongbao.payments.collecting.queries import PaymentNotFound
from tongbao.payments.refunds import queries
from tongbao.payments.refunds.model import RedirectionView, RefundState, RefundView
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
from tongbao.payments.refunds.sending_on import (
    RedirectionNotFound,
    RefundNotStuck,
    SendingOnNotOffered,
    redirection_of,
    send_on,
    view_redirection,
)
from tongbao.rails.channels.contract.orders import RefundTarget


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
        data.merchant_refund_no,
        positive(data.amount, data.currency),
        data.reason,
        None if caller.till is None else caller.till.staff_id,
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


class SendRefundElsewhere(Struct, frozen=True, forbid_unknown_fields=True):
    """Where a refund goes that the customer's card or account could not take.

    ``customer_card``: a card of the customer's, with its bank in the channel's words (ICBC_DEBIT),
    its number and its holder. ``merchant_account``: back to the merchant, who then owes it.
    """

    target: Literal["customer_card", "merchant_account"]
    bank: Annotated[str, Meta(pattern=r"^[0-9A-Z_]{0,32}(?!\n)$")] = ""
    account_number: Annotated[str, Meta(pattern=r"^([0-9]{8,32})?(?!\n)$")] = ""
    holder: Annotated[str, Meta(max_length=64)] = ""

    def __repr__(self) -> str:  # a person's card
        return "SendRefundElsewhere(…)"


@post(
    "/v1/refunds/{refund_id:str}/redirection",
    opt=needs(
        "refunds:write",
        idempotent=True,
        refuses=[RefundNotFound, RefundNotStuck, SendingOnNotOffered],
        request_example=SendRefundElsewhere("merchant_account"),
    ),
)
async def redirect_refund(
    refund_id: str,
    data: SendRefundElsewhere,
    request: ApiRequest,
    *,
    flow: Flow,
    keyring: Keyring,
    caller: Caller,
) -> Response[RedirectionView]:
    """Send a stuck refund somewhere else.

    ``accepted``: the channel sends it there; the refund's own end is told as ever. ``refused``: it
    does not, and another card may be tried. The card lies encrypted until the channel has answered,
    and is kept nowhere after.
    """
    wanted, to = parse("ref", refund_id), _target(data)

    async def fresh(use: Idempotency) -> RedirectionView:
        refund = await queries.refund_of_merchant(flow.db, wanted, caller.merchant_id, caller.mode)
        return view_redirection(await send_on(flow, keyring, refund, to, use.write))

    async def resume(found: UUID) -> RedirectionView:
        refund = await queries.refund(flow.db, caller.book, found)
        return view_redirection(await redirection_of(flow, refund))

    return await answer_once(request, flow.db, fresh=fresh, resume=resume)


def _target(data: SendRefundElsewhere) -> RefundTarget:
    whose = {"bank": data.bank, "account_number": data.account_number, "holder": data.holder}
    for name, value in whose.items():
        if bool(value) is not (data.target == "customer_card"):
            reason = "a card's bank, number and holder go together, and only with customer_card"
            raise InvalidValue(param=f"$.{name}", reason=reason)
    return RefundTarget(data.target, data.bank, data.account_number, data.holder)


@get(
    "/v1/refunds/{refund_id:str}/redirection",
    opt=needs("refunds:read", refuses=[RefundNotFound, RedirectionNotFound]),
)
async def get_redirection(refund_id: str, flow: Flow, caller: Caller) -> RedirectionView:
    """Return where a stuck refund was sent."""
    wanted = parse("ref", refund_id)
    refund = await queries.refund_of_merchant(flow.db, wanted, caller.merchant_id, caller.mode)
    return view_redirection(await redirection_of(flow, refund))


ROUTES = [create_refund, get_refund, list_refunds, redirect_refund, get_redirection]

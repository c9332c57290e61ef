"""What jeepay's calls do with refunds: the domain's own door, under the merchant's number."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final
from uuid import UUID

from msgspec.structs import astuple, replace

from tongbao.infra.db import Db, Write
from tongbao.infra.web.idempotency import InFlight
from tongbao.infra.webhooks.model import check_url
from tongbao.kernel.errors import Refusal
from tongbao.kernel.ids import UnknownId, new_id, parse, show
from tongbao.kernel.money import positive
from tongbao.payments.refunds import queries
from tongbao.payments.refunds.model import Refund, RefundState
from tongbao.payments.refunds.outcomes import ask_channel
from tongbao.payments.refunds.refunds import PaymentNotCaptured, RefundRequest, request_refund
from tongbao.surfaces.jeepay import _store as store
from tongbao.surfaces.jeepay.apps import Fields
from tongbao.surfaces.jeepay.model import (
    REFUND_STATES,
    JeepayApp,
    JeepayOrder,
    JeepayRefund,
    OrderNamed,
    RefundAsked,
    RefundDiffers,
    RefundNamed,
    RefundUnknown,
    request_hash,
)
from tongbao.surfaces.jeepay.orders import (
    Facade,
    Standing,
    book_of,
    in_ms,
    order_named,
    read_as,
    standing,
)

_PREFIX: Final = "ref"
_REASON_MAX: Final = 80


async def refund_order(facade: Facade, app: JeepayApp, fields: Mapping[str, str]) -> Fields:
    """Give money back, in part or in full; a repeat finds the refund.

    Raises:
        OrderUnknown, RefundDiffers, UrlNotAllowed, InFlight, and what a refund by API refuses
    """
    asked = read_as(RefundAsked, fields)
    named = OrderNamed(asked.pay_order_id, asked.mch_order_no)
    order = await order_named(facade.db, app, named)
    row = _row(facade, app, asked, order, request_hash(fields))
    earlier = await _earlier(facade.db, row)
    if earlier is None:
        if asked.notify_url is not None:
            check_url(asked.notify_url, app.mode, facade.webhook_rules)
        now = await standing(facade.db, app, order)
        try:
            return await _request(facade, asked, now, row)
        except Refusal:  # somebody else's of this number, or refused after the commit
            earlier = await _earlier(facade.db, row)
            if earlier is None:
                raise
    refund = await queries.refund(facade.db, await book_of(facade.db, app), earlier.refund_id)
    return _answer(await standing(facade.db, app, order), refund)


async def _request(facade: Facade, asked: RefundAsked, now: Standing, row: JeepayRefund) -> Fields:
    """Hold the merchant's money, and ask the channel at once.

    Raises:
        InFlight, and what a refund by API refuses
    """
    if now.payment is None:
        raise PaymentNotCaptured
    money = positive(asked.refund_amount, asked.currency.upper())
    wanted = RefundRequest(asked.mch_refund_no, money, asked.refund_reason[:_REASON_MAX])

    def take(refund_id: UUID, _now: datetime) -> Write:
        args = astuple(replace(row, refund_id=refund_id))
        return Write(store.INSERT_REFUND, args, refusal=InFlight.code)

    refund = await request_refund(
        facade.flow, now.payment, wanted, take=take, refund_id=row.refund_id
    )
    if refund.state.is_open and refund.queries == 0:
        refund = await ask_channel(facade.flow, refund)
    return _answer(now, refund)


def _row(
    facade: Facade, app: JeepayApp, asked: RefundAsked, order: JeepayOrder, digest: bytes
) -> JeepayRefund:
    return JeepayRefund(
        merchant_id=app.merchant_id,
        mode=app.mode,
        mch_refund_no=asked.mch_refund_no,
        app=app.id,
        request_hash=digest,
        refund_id=new_id(),
        order_target=order.target,
        currency=asked.currency,
        notify_url=asked.notify_url,
        ext_param=asked.ext_param,
        created_at=facade.db.clock.now(),
    )


async def _earlier(db: Db, row: JeepayRefund) -> JeepayRefund | None:
    """Return the refund that has this number, if it was asked for alike.

    Raises:
        RefundDiffers
    """
    found = await store.FIND_REFUND.first(db, row.merchant_id, row.mode, row.mch_refund_no)
    if found is not None and found.request_hash != row.request_hash:
        raise RefundDiffers(param="$.mchRefundNo")
    return found


async def query_refund(facade: Facade, app: JeepayApp, fields: Mapping[str, str]) -> Fields:
    """Return a refund as it is now.

    Raises:
        RefundUnknown
    """
    row = await _refund_named(facade.db, app, read_as(RefundNamed, fields))
    return await refund_fields(facade.db, app, row)


async def _refund_named(db: Db, app: JeepayApp, named: RefundNamed) -> JeepayRefund:
    if named.refund_order_id is not None:
        try:
            wanted = parse(_PREFIX, named.refund_order_id)
        except UnknownId:
            raise RefundUnknown from None
        row = await store.GET_REFUND.first(db, wanted)
    else:
        number = named.mch_refund_no or ""
        row = await store.FIND_REFUND.first(db, app.merchant_id, app.mode, number)
    is_theirs = row is not None and (row.merchant_id, row.mode) == (app.merchant_id, app.mode)
    if row is None or not is_theirs or named.mch_refund_no not in {None, row.mch_refund_no}:
        raise RefundUnknown
    return row


async def refund_fields(
    db: Db, app: JeepayApp, row: JeepayRefund, told_state: int | None = None
) -> dict[str, str | int]:
    """Return what a query says of a refund, and a notice with the state it tells of."""
    refund = await queries.refund(db, await book_of(db, app), row.refund_id)
    order = await store.ORDER_OF_TARGET.one(db, row.order_target)
    now = await standing(db, app, order)
    said: dict[str, str | int | None] = {
        **_answer(now, refund),
        "payOrderId": now.order_id,
        "mchNo": app.mch_no,
        "appId": app.app_id,
        "currency": row.currency,
        "extParam": row.ext_param,
        "createdAt": in_ms(refund.created_at),
        "successTime": None if refund.state is not RefundState.SUCCEEDED else _ended(refund),
    }
    if told_state is not None:
        said["state"] = told_state
    return {name: value for name, value in said.items() if value is not None}


def _ended(refund: Refund) -> int | None:
    return None if refund.ended_at is None else in_ms(refund.ended_at)


def _answer(now: Standing, refund: Refund) -> dict[str, str | int]:
    """Return what the answer to a refund says."""
    said: dict[str, str | int | None] = {
        "refundOrderId": show(_PREFIX, refund.id),
        "mchRefundNo": refund.merchant_refund_no,
        "payAmount": now.amount,
        "refundAmount": refund.amount,
        "state": REFUND_STATES[refund.state],
        "channelOrderNo": refund.channel_ref,
    }
    if refund.state is RefundState.FAILED:
        said |= {"errCode": refund.code, "errMsg": "渠道拒绝退款"}
    return {name: value for name, value in said.items() if value is not None}

"""What the façade keeps and says: rows, requests, states and refusals. No I/O.

What is true of a payment is in the payment; here is only how a merchant who speaks jeepay's
language asked for it, and in which of that language's states it stands.

    0 订单生成   1 支付中   2 支付成功   3 支付失败   4 已撤销   5 已退款   6 订单关闭
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Annotated, Final, Literal, assert_never
from uuid import UUID

import msgspec
from msgspec import Meta, Struct

from tongbao.infra.settings import Secret
from tongbao.infra.web.request import NumberField
from tongbao.kernel.errors import Conflict, Invalid, NotFound, Rejected, Unauthenticated
from tongbao.kernel.licence import Mode
from tongbao.payments.checkouts.model import CheckoutStatus
from tongbao.payments.collecting.model import Payment, PaymentState
from tongbao.payments.refunds.model import RefundState
from tongbao.rails.channels.contract.orders import PayMode

NAME: Final = re.compile(r"[0-9A-Za-z_-]{1,64}")
FRESH_FOR: Final = timedelta(minutes=5)
"""How far a request's time may lie from ours; the API's own signatures have the same window."""
CHECKOUT: Final = "checkout"
PAYMENT: Final = "payment"

Kind = Literal["payment", "checkout"]
NotifyBy = Literal["form", "query"]
NoticeState = Literal["pending", "answered", "given_up", "dropped"]


class SignatureWrong(Unauthenticated):
    """Nobody we know has signed this: an unknown or disabled app, or a wrong signature."""

    code = "jeepay.signature_wrong"
    advice = "Check mchNo, appId and the secret; sign every field you send, signType MD5."
    advice_zh = (
        "商户应用不存在、未启用或验签失败，请检查 mchNo、appId 与密钥（signType 仅支持 MD5）。"
    )


class RequestStale(Unauthenticated):
    """The request's time is more than five minutes from ours."""

    code = "jeepay.request_stale"
    advice = "Send reqTime as milliseconds since 1970, now, by a clock that is right."
    advice_zh = "请求时间戳 reqTime 已过期或有误，应为当前的 13 位毫秒时间戳。"


class FieldsUnreadable(Invalid):
    """The body is neither a flat JSON object nor a form."""

    code = "jeepay.fields_unreadable"
    advice = "Post one flat JSON object or a form in UTF-8, each field once, at most 64 KiB."
    advice_zh = "请以 UTF-8 提交一层 JSON 对象或表单，字段不得重复，大小不超过 64 KiB。"


class WayNotOffered(Rejected):
    """There is no such way of paying here."""

    code = "jeepay.way_not_offered"
    advice = "Use a wayCode that the guide lists; QR_CASHIER leaves the choice to the customer."
    advice_zh = "不支持该支付方式 wayCode，请使用接入指南所列方式，或使用 QR_CASHIER。"


class DivisionNotOffered(Rejected):
    """Payments are not split through this façade."""

    code = "jeepay.division_not_offered"
    advice = "Leave divisionMode out or send 0."
    advice_zh = "本接口不支持分账，divisionMode 请不传或传 0。"


class OrderDiffers(Conflict):
    """The order number was used before with another request; the first one stands."""

    code = "jeepay.order_differs"
    advice = "Query the first order, or use a new mchOrderNo for a new one."
    advice_zh = "商户订单号已存在且请求内容不同，原订单不变；请查询原订单或更换 mchOrderNo。"


class OrderUnknown(NotFound):
    """The merchant has made no such order through this façade."""

    code = "jeepay.order_unknown"
    advice = "Check payOrderId and mchOrderNo; what was made elsewhere is not found here."
    advice_zh = "订单不存在，请检查 payOrderId 与 mchOrderNo。"


class OrderEnded(Conflict):
    """The order has ended already, otherwise than by being closed."""

    code = "jeepay.order_ended"
    advice = "Query the order; what was paid can be refunded."
    advice_zh = "订单已结束，无法关闭；请查询订单，已支付的请发起退款。"


class CloseUndecided(Conflict):
    """The channel has not said that the order is closed, so it can still be paid."""

    code = "jeepay.close_undecided"
    advice = "Query until the state is final; the platform goes on closing the order."
    advice_zh = "渠道尚未确认关闭，订单仍可能被支付；平台会继续关单，请查询直至终态。"


class RefundDiffers(Conflict):
    """The refund number was used before with another request; the first one stands."""

    code = "jeepay.refund_differs"
    advice = "Query the first refund, or use a new mchRefundNo for a new one."
    advice_zh = "商户退款单号已存在且请求内容不同，原退款不变；请查询原退款或更换 mchRefundNo。"


class RefundUnknown(NotFound):
    """The merchant has asked for no such refund through this façade."""

    code = "jeepay.refund_unknown"
    advice = "Check refundOrderId and mchRefundNo."
    advice_zh = "退款单不存在，请检查 refundOrderId 与 mchRefundNo。"


class AppUnknown(NotFound):
    """There is no such app."""

    code = "jeepay.app_unknown"
    advice = "List the apps of the merchant to find its appId."
    advice_zh = "请列出该商户的应用以查找正确的 appId。"


class AppNameMalformed(Invalid):
    """Such a name cannot stand in a signed field."""

    code = "jeepay.app_name_malformed"
    advice = "Give mchNo and appId 1 to 64 letters, digits, hyphens or underscores."
    advice_zh = "mchNo 与 appId 应为 1 至 64 个字母、数字、连字符或下划线。"


class AppIdTaken(Conflict):
    """Another app has this appId."""

    code = "jeepay.app_id_taken"
    advice = "Leave --app-id out to get a new one, or roll the secret of the app that has it."
    advice_zh = "该 appId 已被使用；请不传 --app-id 以自动生成，或为已有应用更换密钥。"


class FacadeOff(Rejected):
    """This deployment does not answer jeepay's calls."""

    code = "jeepay.facade_off"
    advice = "Set TONGBAO_JEEPAY_FACADE to true and restart, if you accept MD5 signatures."
    advice_zh = "本部署未启用 jeepay 兼容接口；确认接受 MD5 签名后设置 TONGBAO_JEEPAY_FACADE=true。"


class NoticeUnknown(NotFound):
    """There is no such notice, or it is still on its way."""

    code = "jeepay.notice_unknown"
    advice = "List the merchant's notices; only one that has ended can be sent again."
    advice_zh = "请列出该商户的通知；只有已结束的通知可以重新发送。"


class JeepayApp(Struct, frozen=True):
    """One row of the app table: a merchant in one mode, as jeepay's contract names it."""

    id: UUID
    merchant_id: UUID
    mode: Mode
    mch_no: str
    app_id: str
    notify_by: NotifyBy
    secret_sealed: bytes
    secret_tail: str
    created_at: datetime
    disabled_at: datetime | None


class NewSecret(Struct, frozen=True):
    """An app and, this once, its secret."""

    app: JeepayApp
    secret: Secret


class JeepayOrder(Struct, frozen=True):
    """One row of the order table. ``target`` is the payment, or the checkout it is paid on."""

    merchant_id: UUID
    mode: Mode
    mch_order_no: str
    app: UUID
    request_hash: bytes
    kind: Kind
    target: UUID
    way_code: str
    currency: str
    subject: str
    body: str
    client_ip: str
    notify_url: str | None
    ext_param: str | None
    shown_as: str
    created_at: datetime


class JeepayRefund(Struct, frozen=True):
    """One row of the refund table."""

    merchant_id: UUID
    mode: Mode
    mch_refund_no: str
    app: UUID
    request_hash: bytes
    refund_id: UUID
    order_target: UUID
    currency: str
    notify_url: str | None
    ext_param: str | None
    created_at: datetime


class JeepayNotice(Struct, frozen=True):
    """One row of the notice table: what a merchant is told until they answer ``success``."""

    id: UUID
    event_id: UUID
    merchant_id: UUID
    mode: Mode
    app: UUID
    about: Literal["order", "refund"]
    target: UUID
    told_state: int
    url: str
    state: NoticeState
    round: int
    tries: int
    last_status: int | None
    last_reply: str
    created_at: datetime
    tried_at: datetime | None
    closed_at: datetime | None


Url = Annotated[str, Meta(min_length=1, max_length=2048)]
CurrencyText = Annotated[str, Meta(pattern=r"^[A-Za-z]{3}(?!\n)$")]
Reference = Annotated[str, Meta(min_length=1, max_length=64)]


class UnifiedOrder(Struct, frozen=True, rename="camel"):
    """An order as jeepay's clients ask for it; ``amount`` is fen, ``expired_time`` seconds."""

    mch_order_no: NumberField
    way_code: Annotated[str, Meta(max_length=32)]
    amount: int
    currency: CurrencyText
    subject: Annotated[str, Meta(min_length=1, max_length=256)]
    body: Annotated[str, Meta(max_length=512)] = ""
    client_ip: Annotated[str, Meta(max_length=128)] = ""
    notify_url: Url | None = None
    return_url: Annotated[str, Meta(min_length=1, max_length=500)] | None = None
    expired_time: Annotated[int, Meta(ge=60, le=30 * 86_400)] | None = None
    channel_extra: Annotated[str, Meta(max_length=2048)] = "{}"
    division_mode: int = 0
    ext_param: Annotated[str, Meta(max_length=512)] | None = None


class OrderNamed(Struct, frozen=True, rename="camel"):
    """Which order is meant: by our number, the merchant's, or both."""

    pay_order_id: Reference | None = None
    mch_order_no: Reference | None = None


class RefundAsked(Struct, frozen=True, rename="camel"):
    """A refund as jeepay's clients ask for it; ``refund_amount`` is fen."""

    mch_refund_no: NumberField
    refund_amount: int
    currency: CurrencyText
    pay_order_id: Reference | None = None
    mch_order_no: Reference | None = None
    refund_reason: Annotated[str, Meta(max_length=256)] = ""
    notify_url: Url | None = None
    ext_param: Annotated[str, Meta(max_length=512)] | None = None


class RefundNamed(Struct, frozen=True, rename="camel"):
    """Which refund is meant: by our number, the merchant's, or both."""

    refund_order_id: Reference | None = None
    mch_refund_no: Reference | None = None


_UNTOLD: Final = frozenset({"sign", "signType", "version", "reqTime", "clientIp", "channelExtra"})
"""What may differ in a repeat; of ``channelExtra`` only the customer's one-time code may."""


def request_hash(fields: Mapping[str, str], extra: Mapping[str, str] | None = None) -> bytes:
    """Return what makes two requests with the same number the same request."""
    meant = sorted((name, value) for name, value in fields.items() if name not in _UNTOLD)
    told = sorted((name, value) for name, value in (extra or {}).items() if name != "authcode")
    return hashlib.sha256(msgspec.json.encode((meant, told))).digest()


def order_state(payment: Payment, given_back: int) -> int:
    """Return jeepay's state of a payment of which this much was provably given back.

    What nobody knows the end of is 支付中. Only a decline is 支付失败.
    """
    match payment.state:
        case PaymentState.SUCCEEDED:
            return 5 if given_back >= payment.captured else 2
        case PaymentState.FAILED:
            return 3
        case PaymentState.CLOSED:
            return 4 if payment.pay_mode is PayMode.PAYMENT_CODE else 6
        case PaymentState.VOIDED:
            return 4
        case PaymentState.CREATED | PaymentState.PENDING | PaymentState.UNKNOWN:
            return 1
        case PaymentState.AUTHORISED | PaymentState.CAPTURING | PaymentState.VOIDING:
            return 1
        case _:
            assert_never(payment.state)


def checkout_state(status: CheckoutStatus, payment: Payment | None, given_back: int) -> int:
    """Return jeepay's state of an order that is paid on our page.

    A try that failed ends nothing: the customer may try again until the order's time is over.
    """
    if payment is not None and payment.state is PaymentState.SUCCEEDED:
        return order_state(payment, given_back)
    match status:
        case CheckoutStatus.CLOSED:
            return 6
        case CheckoutStatus.OPEN:
            return 0 if payment is None else 1
        case CheckoutStatus.CLOSING | CheckoutStatus.PAID:
            return 1
        case _:
            assert_never(status)


REFUND_STATES: Final[Mapping[RefundState, int]] = {
    RefundState.REQUESTED: 1,
    RefundState.PENDING: 1,
    RefundState.UNKNOWN: 1,
    RefundState.SUCCEEDED: 2,
    RefundState.FAILED: 3,
}
"""1 退款中, 2 退款成功, 3 退款失败; a refund in silence is on its way."""

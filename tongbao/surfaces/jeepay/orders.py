"""What jeepay's calls do with orders: each is the domain's own door, under the merchant's number.

The row that remembers how a merchant asked is written in the commit of the payment or checkout
itself, so a number stands for one request for ever, and repeating that request is harmless.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar
from uuid import UUID

import msgspec
from msgspec import Struct
from msgspec.structs import astuple, replace

from tongbao.infra.crypto import Keyring
from tongbao.infra.db import Db, Tx, Write
from tongbao.infra.web.caller import Caller
from tongbao.infra.web.idempotency import InFlight
from tongbao.infra.web.request import InvalidValue, refusal_of_validation
from tongbao.infra.webhooks.model import WebhookRules, check_url
from tongbao.kernel.errors import Refusal
from tongbao.kernel.ids import UnknownId, new_id, parse, show
from tongbao.kernel.money import positive
from tongbao.parties.merchants import queries as merchants
from tongbao.payments.asking.api import collect_asked
from tongbao.payments.asking.terms import CreatePayment
from tongbao.payments.checkouts import model as page
from tongbao.payments.checkouts import queries as checkouts
from tongbao.payments.checkouts.checkouts import call_off, open_checkout
from tongbao.payments.collecting import queries as payments
from tongbao.payments.collecting.model import Attempt, Payment, PaymentState, view_payment
from tongbao.payments.collecting.outcomes import Flow
from tongbao.payments.collecting.payments import EXPIRES_MAX, close_payment, resume_payment
from tongbao.payments.refunds.model import RefundState
from tongbao.payments.refunds.queries import refunds_of_payment
from tongbao.surfaces.jeepay import _store as store
from tongbao.surfaces.jeepay import ways
from tongbao.surfaces.jeepay.apps import Fields
from tongbao.surfaces.jeepay.model import (
    CHECKOUT,
    PAYMENT,
    CloseUndecided,
    DivisionNotOffered,
    JeepayApp,
    JeepayOrder,
    OrderDiffers,
    OrderEnded,
    OrderNamed,
    OrderUnknown,
    UnifiedOrder,
    checkout_state,
    order_state,
    request_hash,
)

PAY_PREFIX: Final = "/api/pay"
RETURNED: Final = f"{PAY_PREFIX}/returned"
PICTURES: Final = f"{PAY_PREFIX}/code/"
EXPIRES_DEFAULT: Final = timedelta(hours=2)
"""jeepay's own; a payment that is made at once lasts no longer, an order on our page may."""
_SUBJECT_MAX: Final = 120
_PREFIXES: Final = {PAYMENT: "pay", CHECKOUT: "cko"}

T = TypeVar("T")


class Facade(Struct, frozen=True):
    """What every call is answered with."""

    flow: Flow
    keyring: Keyring
    public_url: str
    webhook_rules: WebhookRules

    @property
    def db(self) -> Db:
        """The database."""
        return self.flow.db


class Standing(Struct, frozen=True):
    """An order as it is now: its payment if there is one, and the page it is paid on, if any."""

    order: JeepayOrder
    payment: Payment | None
    attempt: Attempt | None
    checkout: page.Checkout | None
    given_back: int

    @property
    def order_id(self) -> str:
        """What a merchant knows the order by."""
        return show(_PREFIXES[self.order.kind], self.order.target)

    @property
    def amount(self) -> int:
        """What is to be paid, in minor units."""
        asked = self.payment or self.checkout
        if asked is None:
            raise LookupError(f"neither a payment nor a page for {self.order_id}")
        return asked.amount

    def state(self, now: datetime) -> int:
        """Return jeepay's state of it."""
        if self.checkout is not None:
            status = page.status_of(self.checkout, self.payment, now)
            return checkout_state(status, self.payment, self.given_back)
        if self.payment is None:
            raise LookupError(f"the payment of {self.order_id}")
        return order_state(self.payment, self.given_back)


def read_as(kind: type[T], fields: Mapping[str, Any]) -> T:
    """Return fields of texts as a Struct.

    Raises:
        MissingField, WrongType, InvalidValue
    """
    try:
        return msgspec.convert(fields, kind, strict=False)
    except msgspec.ValidationError as failure:
        raise refusal_of_validation(str(failure)) from None


async def unified_order(
    facade: Facade, app: JeepayApp, fields: Mapping[str, str], client_ip: str
) -> Fields:
    """Collect, or open a page where the customer chooses how to pay; a repeat finds the order.

    Raises:
        WayNotOffered, DivisionNotOffered, FieldsUnreadable, UrlNotAllowed, ReturnUrlUnsafe,
        OrderDiffers, InFlight, and what `POST /v1/payments` and `POST /v1/checkouts` refuse
    """
    asked = read_as(UnifiedOrder, fields)
    extra = ways.channel_extra(asked.channel_extra)
    order = _row(facade, app, asked, extra, request_hash(fields, extra))
    order = replace(order, client_ip=_address(asked.client_ip) or client_ip)
    earlier = await _earlier(facade.db, order)
    if earlier is not None:
        return await _resumed(facade, earlier)
    if asked.division_mode != 0:
        raise DivisionNotOffered(param="$.divisionMode")
    if asked.notify_url is not None:
        check_url(asked.notify_url, app.mode, facade.webhook_rules)
    if asked.return_url is not None:
        page.check_return_url(asked.return_url, app.mode)
    try:
        if order.kind == CHECKOUT:
            await _open_page(facade, app, asked, order)
        else:
            await _collect(facade, app, asked, order, extra)
    except Refusal:
        # Somebody else has taken the number, or what was refused came after the commit: then there
        # is an order, and a program that hears "no" would ask for another.
        if await _earlier(facade.db, order) is None:
            raise
    made = await _find(facade.db, app, order.mch_order_no)
    return _answer(facade, await standing(facade.db, app, made))


def _row(
    facade: Facade, app: JeepayApp, asked: UnifiedOrder, extra: Mapping[str, str], digest: bytes
) -> JeepayOrder:
    return JeepayOrder(
        merchant_id=app.merchant_id,
        mode=app.mode,
        mch_order_no=asked.mch_order_no,
        app=app.id,
        request_hash=digest,
        kind=CHECKOUT if asked.way_code == ways.QR_CASHIER else PAYMENT,
        target=new_id(),
        way_code=asked.way_code,
        currency=asked.currency,
        subject=asked.subject,
        body=asked.body,
        client_ip="",
        notify_url=asked.notify_url,
        ext_param=asked.ext_param,
        shown_as=extra.get("paydatatype", "")[:32],
        created_at=facade.db.clock.now(),
    )


async def _earlier(db: Db, order: JeepayOrder) -> JeepayOrder | None:
    """Return the order that has this number, if it was asked for alike.

    Raises:
        OrderDiffers
    """
    found = await store.FIND_ORDER.first(db, order.merchant_id, order.mode, order.mch_order_no)
    if found is not None and found.request_hash != order.request_hash:
        raise OrderDiffers(param="$.mchOrderNo")
    return found


async def _resumed(facade: Facade, order: JeepayOrder) -> Fields:
    """Carry on where a request was broken off, and answer with the order as it is now."""
    app = await store.GET_APP.one(facade.db, order.app)
    now = await standing(facade.db, app, order)
    if order.kind == PAYMENT and now.payment is not None:
        payment, attempt = await resume_payment(facade.flow, now.payment)
        now = replace(now, payment=payment, attempt=attempt)
    return _answer(facade, now)


def _taking(order: JeepayOrder, target: UUID) -> Write:
    args = astuple(replace(order, target=target))
    return Write(store.INSERT_ORDER, args, refusal=InFlight.code)


async def _collect(
    facade: Facade,
    app: JeepayApp,
    asked: UnifiedOrder,
    order: JeepayOrder,
    extra: Mapping[str, str],
) -> None:
    way = ways.way_of(asked.way_code)
    connected = await merchants.channels_of(facade.db, app.merchant_id, app.mode)
    back = asked.return_url or f"{facade.public_url}{RETURNED}"
    seconds = asked.expired_time or int(EXPIRES_DEFAULT.total_seconds())
    wanted = {
        "merchant_order_no": asked.mch_order_no,
        "amount": asked.amount,
        "currency": asked.currency.upper(),
        "subject": asked.subject[:_SUBJECT_MAX],
        "method": ways.method_fields(way, extra, connected, back),
        "expires_in_s": min(seconds, int(EXPIRES_MAX.total_seconds())),
    }

    def take(payment_id: UUID, _now: datetime) -> Write:
        return _taking(order, payment_id)

    caller = await caller_of(facade.db, app)
    data, by = read_as(CreatePayment, wanted), (take, order.client_ip)
    await collect_asked(facade.flow, facade.keyring, caller, data, by)


async def _open_page(
    facade: Facade, app: JeepayApp, asked: UnifiedOrder, order: JeepayOrder
) -> None:
    if len(asked.mch_order_no) > page.ORDER_NO_LENGTH_MAX:
        raise InvalidValue(param="$.mchOrderNo", reason="at most 60 characters on a page")
    expires_in = timedelta(seconds=asked.expired_time or EXPIRES_DEFAULT.total_seconds())
    if not page.EXPIRES_MIN <= expires_in <= page.EXPIRES_MAX:
        raise InvalidValue(param="$.expiredTime", reason="2 minutes to 7 days on a page")
    caller = await caller_of(facade.db, app)
    wanted = page.CheckoutAsked(
        merchant_id=app.merchant_id,
        mode=app.mode,
        book=caller.book,
        merchant_order_no=asked.mch_order_no,
        money=positive(asked.amount, asked.currency.upper()),
        subject=asked.subject[:_SUBJECT_MAX],
        return_url=asked.return_url,
        expires_in=expires_in,
    )

    async def take(tx: Tx, checkout_id: UUID) -> None:
        if await _taking(order, checkout_id).run(tx) == 0:
            raise InFlight

    await open_checkout(facade.db, wanted, take, new_id())


async def query_order(facade: Facade, app: JeepayApp, fields: Mapping[str, str]) -> Fields:
    """Return an order as it is now.

    Raises:
        OrderUnknown
    """
    order = await order_named(facade.db, app, read_as(OrderNamed, fields))
    return await order_fields(facade.db, app, order)


async def close_order(facade: Facade, app: JeepayApp, fields: Mapping[str, str]) -> Fields:
    """Call an unpaid order off, at its channel first, and answer only when it is closed there.

    jeepay's own answer has no field but errors. An empty one is signed in two ways, by "key=" or
    "&key=" and the secret, so this one says which order it was.

    Raises:
        OrderUnknown, OrderEnded: also when the customer paid first; CloseUndecided, StateContended
    """
    order = await order_named(facade.db, app, read_as(OrderNamed, fields))
    now = await standing(facade.db, app, order)
    if now.checkout is not None:
        try:
            await call_off(facade.flow, now.checkout, actor_of(app))
        except page.CheckoutPaid:
            raise OrderEnded from None
    elif now.payment is not None and now.payment.state.is_open:
        await close_payment(facade.flow, now.payment)
    after = await standing(facade.db, app, order)
    match after.state(facade.db.clock.now()):
        case 4 | 6 as state:
            number = order.mch_order_no
            return {"payOrderId": after.order_id, "mchOrderNo": number, "orderState": state}
        case 0 | 1:
            raise CloseUndecided
        case _:
            raise OrderEnded


async def order_named(db: Db, app: JeepayApp, named: OrderNamed) -> JeepayOrder:
    """Return the app's merchant's order of these numbers.

    Raises:
        OrderUnknown: also for another merchant's, or another mode's.
    """
    if named.pay_order_id is None:
        if named.mch_order_no is None:
            raise OrderUnknown
        return await _find(db, app, named.mch_order_no)
    prefix = named.pay_order_id.partition("_")[0]
    kind = next((kind for kind, its in _PREFIXES.items() if its == prefix), None)
    try:
        target = parse(prefix, named.pay_order_id)
    except UnknownId:
        raise OrderUnknown from None
    order = await store.ORDER_OF_TARGET.first(db, target)
    is_theirs = order is not None and (order.merchant_id, order.mode, order.kind) == (
        app.merchant_id,
        app.mode,
        kind,
    )
    if order is None or not is_theirs or named.mch_order_no not in {None, order.mch_order_no}:
        raise OrderUnknown
    return order


async def _find(db: Db, app: JeepayApp, mch_order_no: str) -> JeepayOrder:
    order = await store.FIND_ORDER.first(db, app.merchant_id, app.mode, mch_order_no)
    if order is None:
        raise OrderUnknown
    return order


async def standing(db: Db, app: JeepayApp, order: JeepayOrder) -> Standing:
    """Return an order as it is now."""
    book, checkout, latest = await book_of(db, app), None, None
    if order.kind == CHECKOUT:
        checkout = await checkouts.checkout(db, book, order.target)
        latest = await checkouts.latest_try(db, checkout)
    else:
        payment = await payments.payment(db, book, order.target)
        latest = (payment, await payments.last_attempt(db, payment))
    if latest is None:
        return Standing(order, None, None, checkout, 0)
    return Standing(order, *latest, checkout, await _given_back(db, latest[0]))


async def _given_back(db: Db, payment: Payment) -> int:
    """Return how much was provably given back; asked only where it could be everything."""
    if payment.state is not PaymentState.SUCCEEDED or payment.refunded < payment.captured:
        return 0
    found = await refunds_of_payment(db, payment.book, payment.id)
    return sum(each.amount for each in found if each.state is RefundState.SUCCEEDED)


async def order_fields(
    db: Db, app: JeepayApp, order: JeepayOrder, told_state: int | None = None
) -> dict[str, str | int]:
    """Return what a query says of an order, and a notice with the state it tells of."""
    now = await standing(db, app, order)
    payment, attempt = now.payment, now.attempt
    said: dict[str, str | int | None] = {
        "payOrderId": now.order_id,
        "mchNo": app.mch_no,
        "appId": app.app_id,
        "mchOrderNo": order.mch_order_no,
        "ifCode": None if payment is None else ways.IF_CODES.get(payment.channel, payment.channel),
        "wayCode": order.way_code,
        "amount": now.amount,
        "currency": order.currency,
        "state": now.state(db.clock.now()) if told_state is None else told_state,
        "clientIp": order.client_ip,
        "subject": order.subject,
        "body": order.body,
        "channelOrderNo": None if attempt is None else attempt.channel_ref,
        "extParam": order.ext_param,
        "createdAt": in_ms(order.created_at),
        "successTime": in_ms(payment.succeeded_at) if payment and payment.succeeded_at else None,
        **_failure(payment, attempt),
    }
    return {name: value for name, value in said.items() if value is not None}


def _failure(payment: Payment | None, attempt: Attempt | None) -> dict[str, str]:
    """Return why a payment failed; a payment that has not failed has no error."""
    if payment is None or attempt is None or payment.state is not PaymentState.FAILED:
        return {}
    failure = view_payment(payment, attempt).failure
    return {"errCode": failure.code, "errMsg": failure.message_zh} if failure else {}


def _answer(facade: Facade, now: Standing) -> Fields:
    """Return what the customer is to do, as the answer to an order has it."""
    wanted, url = now.order.shown_as, f"{facade.public_url}{PICTURES}{now.order_id}"
    state = now.state(facade.db.clock.now())
    shown: ways.Shown | None = None
    if now.checkout is not None:
        if state in {0, 1}:
            address = f"{facade.public_url}{now.checkout.path}"
            shown = ways.cashier_shown(address, wanted, url)
    elif now.payment is not None and now.attempt is not None:
        is_pending = now.payment.state is PaymentState.PENDING
        shown = ways.shown(now.attempt.action if is_pending else None, wanted, url)
    return {
        "payOrderId": now.order_id,
        "mchOrderNo": now.order.mch_order_no,
        "orderState": state,
        "payDataType": shown.kind if shown else "none",
        "payData": shown.text if shown else "",
        **(_failure(now.payment, now.attempt) if now.checkout is None else {}),
    }


async def picture_text(facade: Facade, order_id: str) -> str | None:
    """Return what the picture of an order's code says, while a customer can follow it."""
    prefix, _, _ = order_id.partition("_")
    try:
        target = parse(prefix, order_id)
    except UnknownId:
        return None
    order = await store.ORDER_OF_TARGET.first(facade.db, target)
    if order is None or _PREFIXES[order.kind] != prefix:
        return None
    app = await store.GET_APP.one(facade.db, order.app)
    found = replace(order, shown_as="")
    answer = _answer(facade, await standing(facade.db, app, found))
    return str(answer["payData"]) if answer["payDataType"] in {"codeUrl", "payurl"} else None


async def caller_of(db: Db, app: JeepayApp) -> Caller:
    """Return an app as the domains know callers; what it may do, this folder decides."""
    return Caller(app.id, app.merchant_id, app.mode, await book_of(db, app), frozenset())


async def book_of(db: Db, app: JeepayApp) -> int:
    """Return the book of the app's merchant and mode."""
    return (await merchants.merchant_with_id(db, app.merchant_id)).book(app.mode)


def actor_of(app: JeepayApp) -> str:
    """Return the name transactions know an app by."""
    return f"jeepay:{app.app_id}"


def in_ms(moment: datetime) -> int:
    """Return a moment as jeepay writes it: milliseconds since 1970."""
    return int(moment.timestamp() * 1000)


def _address(text: str) -> str | None:
    """Return the customer's address where a merchant has given one that is one."""
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return None

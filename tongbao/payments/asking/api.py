"""The routes of payments."""

from __future__ import annotations

from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec
from litestar import Response, get, post
from msgspec.structs import replace

from tongbao.infra.crypto import Keyring
from tongbao.infra.db import Db
from tongbao.infra.web.caller import Caller, needs
from tongbao.infra.web.idempotency import Idempotency, answer_once
from tongbao.infra.web.request import ApiRequest, InvalidValue
from tongbao.kernel.ids import new_id, parse, show
from tongbao.kernel.money import Money, positive
from tongbao.kernel.pages import Page
from tongbao.parties.accounts.model import CodeUsedOrExpired, WalletCurrencyDiffers
from tongbao.parties.merchants.model import (
    ChannelNotOpened,
    MerchantSuspended,
)
from tongbao.parties.offline_codes.codes import scanned_code
from tongbao.parties.offline_codes.model import OfflineKeyStopped
from tongbao.parties.price_plans.model import PriceNotAgreed
from tongbao.parties.staff.model import METADATA_KEY as BY_STAFF
from tongbao.parties.staff.model import PREFIX as STAFF
from tongbao.parties.terminals.model import PREFIX as TERMINAL
from tongbao.payments.agreements.queries import UNUSABLE
from tongbao.payments.asking.terms import CreatePayment, terms_of
from tongbao.payments.collecting import queries
from tongbao.payments.collecting.model import (
    WALLET,
    Attempt,
    NewPayment,
    Payment,
    PaymentState,
    PaymentView,
    view_payment,
)
from tongbao.payments.collecting.outcomes import Flow, StateContended
from tongbao.payments.collecting.payments import (
    CaptureNotOffered,
    ModeNotOffered,
    NotClosable,
    OrderNumberUsed,
    Taking,
    UseRefused,
    WalletNeedsCode,
    check_closable,
    close_payment,
    create_payment,
    earlier_payment,
    pay_by_wallet,
    resume_payment,
)
from tongbao.payments.collecting.queries import PaymentFilter, PaymentNotFound
from tongbao.payments.methods.asked import (
    MethodAsked,
    MethodFieldForeign,
    MethodFieldMissing,
    check_method,
)
from tongbao.payments.routing.model import (
    NoChannelLeft,
    NoChannelUp,
    PlaceTaken,
)
from tongbao.payments.uses.counting import AT_TERMINAL, at_terminal, told_of
from tongbao.rails.channels.codes import PaymentCodeUnknown, takers_of_code
from tongbao.rails.channels.contract.orders import PayMode

_PLACES_MAX: Final = 3
_AT_TILL: Final = frozenset({PayMode.QR, PayMode.PAYMENT_CODE, PayMode.CARD})
_EXAMPLE = CreatePayment(
    merchant_order_no="20261121-0001",
    amount=1999,
    subject="two cups of tea",
    method=MethodAsked(PayMode.QR, "wechat_pay"),
)


@post(
    "/v1/payments",
    opt=needs(
        "payments:write",
        idempotent=True,
        refuses=[
            OrderNumberUsed,
            ModeNotOffered,
            MethodFieldMissing,
            MethodFieldForeign,
            CaptureNotOffered,
            WalletNeedsCode,
            PaymentCodeUnknown,
            CodeUsedOrExpired,
            OfflineKeyStopped,
            WalletCurrencyDiffers,
            MerchantSuspended,
            PriceNotAgreed,
            ChannelNotOpened,
            *UNUSABLE,
            *AT_TERMINAL,
            NoChannelLeft,
            NoChannelUp,
            PlaceTaken,
        ],
        request_example=_EXAMPLE,
    ),
)
async def create(
    data: CreatePayment, request: ApiRequest, flow: Flow, keyring: Keyring, caller: Caller
) -> Response[PaymentView]:
    """Collect a payment.

    ``next_action`` of a pending payment says what the customer is to do: scan a code, follow a
    redirect, submit a form, or continue in an app with these parameters. ``payment_code``,
    ``card`` and ``agreement`` come back with their end, or pending or unknown while the customer
    confirms or the channel is silent. A webhook tells the end. The same order number with the
    same content returns the payment it already made. Without a channel we choose one.
    """
    data = _by_person(caller, data)
    _check_asked(data)
    ip = request.client.host if request.client is not None else "127.0.0.1"

    async def fresh(use: Idempotency) -> PaymentView:
        return view_payment(*await collect_asked(flow, keyring, caller, data, (use.write, ip)))

    async def resume(payment_id: UUID) -> PaymentView:
        payment = await queries.payment(flow.db, caller.book, payment_id)
        return view_payment(*await resume_payment(flow, payment))

    return await answer_once(request, flow.db, fresh=fresh, resume=resume)


def _by_person(caller: Caller, data: CreatePayment) -> CreatePayment:
    """Return the request with who asks and where, which a person at a till cannot choose."""
    if caller.till is None:
        return data
    shown = show(TERMINAL, caller.till.terminal_id)
    if data.terminal_id not in {None, shown}:
        raise InvalidValue(param="$.terminal_id", reason="a payment at a till is its terminal's")
    if data.method.mode not in _AT_TILL or data.method.card_token is not None:
        raise InvalidValue(param="$.method", reason="at a till the customer is there, and shows it")
    by = {BY_STAFF: show(STAFF, caller.till.staff_id)}
    return replace(data, terminal_id=shown, metadata={**data.metadata, **by})


def _check_asked(data: CreatePayment) -> tuple[str | None, Money]:
    money = positive(data.amount, data.currency)
    channel = _channel_asked(data.method)
    if channel == WALLET and data.capture == "manual":
        raise CaptureNotOffered(channel=channel)
    return channel, money


async def collect_asked(
    flow: Flow, keyring: Keyring, caller: Caller, data: CreatePayment, by: tuple[Taking, str]
) -> tuple[Payment, Attempt]:
    """Collect for a merchant; ``by``: the write that takes the key in its commit, the client's IP.

    `create` names what this refuses.
    """
    (channel, money), (take, client_ip) = _check_asked(data), by
    owner = (caller.merchant_id, caller.mode)
    for _ in range(_PLACES_MAX):
        payment_id = new_id()  # a group of the ledger that was refused is so for ever
        asked = await terms_of(
            flow, caller, data, (channel, money), client_ip=client_ip, payment_id=payment_id
        )
        try:
            told, uses = await at_terminal(
                flow.db,
                data.terminal_id,
                owner,
                book=caller.book,
                money=money,
                payment_id=payment_id,
            )
        except AT_TERMINAL:
            # This very order may be what has filled the terminal: then that payment is the answer.
            earlier = await earlier_payment(flow, _named(asked, data.terminal_id), take)
            if earlier is None:
                raise
            return earlier
        asked = replace(asked, metadata={**asked.metadata, **told}, uses=(*asked.uses, *uses))
        try:
            if channel == WALLET and asked.auth_code is not None:
                return await _collect_from_wallet(flow, keyring, asked, take, payment_id)
            return await create_payment(flow, asked, take, payment_id)
        except PlaceTaken:
            await flow.router.refresh()
        except UseRefused:
            continue  # the agreement, or the terminal, is read again and says why
    raise PlaceTaken if channel is None else StateContended


def _named(asked: NewPayment, terminal_id: str | None) -> NewPayment:
    """Return the request as it was kept, if it was, with the terminal that it names."""
    told = {} if terminal_id is None else told_of(terminal_id)
    return replace(asked, metadata={**asked.metadata, **told})


async def _collect_from_wallet(
    flow: Flow, keyring: Keyring, asked: NewPayment, take: Taking, payment_id: UUID
) -> tuple[Payment, Attempt]:
    try:
        scanned = await scanned_code(
            flow.db, keyring, asked.auth_code or "", book=asked.book, mode=asked.mode
        )
    except (CodeUsedOrExpired, OfflineKeyStopped):
        # It may be this very order that has used it: then that payment is the answer.
        earlier = await earlier_payment(flow, asked, take)
        if earlier is None:
            raise
        return earlier
    return await pay_by_wallet(flow, asked, take, payment_id=payment_id, code=scanned)


def _channel_asked(method: MethodAsked) -> str | None:
    """Return the channel that is named, by the merchant or a code that one channel can charge."""
    check_method(method)
    if method.auth_code is not None:
        takers = takers_of_code(method.auth_code)
        if method.channel not in {None, *takers}:
            raise InvalidValue(param="$.method.channel", reason="the code is of another channel")
        return takers[0] if len(takers) == 1 else method.channel
    if method.channel == WALLET and method.mode not in {PayMode.QR, PayMode.AGREEMENT}:
        raise WalletNeedsCode
    return method.channel


async def _view(db: Db, payment: Payment) -> PaymentView:
    return view_payment(payment, await queries.last_attempt(db, payment))


@post(
    "/v1/payments/{payment_id:str}/close",
    status_code=200,
    opt=needs("payments:write", idempotent=True, refuses=[PaymentNotFound, NotClosable]),
)
async def close(
    payment_id: str, request: ApiRequest, flow: Flow, caller: Caller
) -> Response[PaymentView]:
    """Call an unpaid payment off, at the channel first.

    A customer who paid first wins: the payment comes back succeeded. When the channel is silent
    the payment stays open and the platform goes on closing it.
    """
    target = parse("pay", payment_id)

    async def fresh(use: Idempotency) -> PaymentView:
        payment = await queries.payment_of_merchant(
            flow.db, target, caller.merchant_id, caller.mode
        )
        check_closable(payment)
        async with flow.db.begin(caller.actor) as tx:
            await use.take(tx, payment.id)
        return view_payment(*await close_payment(flow, payment))

    async def resume(found: UUID) -> PaymentView:
        payment = await queries.payment(flow.db, caller.book, found)
        return view_payment(*await close_payment(flow, payment))

    return await answer_once(request, flow.db, fresh=fresh, resume=resume)


@get("/v1/payments/{payment_id:str}", opt=needs("payments:read", refuses=[PaymentNotFound]))
async def get_payment(payment_id: str, db: Db, caller: Caller) -> PaymentView:
    """Return one payment."""
    payment = await queries.payment_of_merchant(
        db, parse("pay", payment_id), caller.merchant_id, caller.mode
    )
    return await _view(db, payment)


@get("/v1/payments", opt=needs("payments:read"))
async def list_payments(
    db: Db,
    caller: Caller,
    *,
    merchant_order_no: str | None = None,
    status: PaymentState | None = None,
    channel: str | None = None,
    created_from: datetime | None = None,
    created_to: datetime | None = None,
    metadata: str | None = None,
    cursor: str | None = None,
    limit: int | None = None,
) -> Page[PaymentView]:
    """Return payments, newest first.

    Filter by order number, status, channel, time of creation (half-open), or by metadata given as
    a JSON object that the payment's own must contain.
    """
    wanted = PaymentFilter(
        merchant_id=caller.merchant_id,
        mode=caller.mode,
        status=status,
        channel=channel,
        merchant_order_no=merchant_order_no,
        created_from=created_from,
        created_to=created_to,
        metadata=_metadata_asked(metadata),
    )
    page = await queries.list_payments(db, wanted, cursor=cursor, limit=limit)
    attempts = await queries.last_attempts(db, page.items)
    views = [view_payment(payment, attempts[payment.id]) for payment in page.items]
    return Page(views, page.next_cursor)


def _metadata_asked(text: str | None) -> dict[str, str] | None:
    if text is None:
        return None
    try:
        return msgspec.json.decode(text, type=dict[str, str])
    except msgspec.DecodeError:
        raise InvalidValue(param="metadata", reason="a JSON object of texts") from None


ROUTES = [create, close, get_payment, list_payments]

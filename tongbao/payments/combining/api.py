"""The routes of combined payments, and of who may combine whose orders."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated, Final
from uuid import UUID

from litestar import Response, get, post
from msgspec import Meta, Struct
from msgspec.structs import replace

from tongbao.infra.crypto import Keyring
from tongbao.infra.db import Db
from tongbao.infra.web.caller import Caller, needs
from tongbao.infra.web.idempotency import Idempotency, answer_once
from tongbao.infra.web.request import (
    AmountField,
    ApiRequest,
    CurrencyField,
    InvalidValue,
    NumberField,
)
from tongbao.kernel.ids import new_id, parse, show
from tongbao.kernel.money import AmountOutOfRange, UnknownCurrency, positive
from tongbao.kernel.pages import Page
from tongbao.parties.merchants.model import ChannelNotOpened, MerchantSuspended
from tongbao.parties.price_plans.model import PriceNotAgreed
from tongbao.payments.checkouts.api import PublicUrl
from tongbao.payments.collecting.outcomes import Flow
from tongbao.payments.collecting.payments import (
    EXPIRES_DEFAULT,
    EXPIRES_MAX,
    OrderNumberUsed,
)
from tongbao.payments.combining import queries
from tongbao.payments.combining.combined import Parts, close_combined, combine, resume
from tongbao.payments.combining.consents import CONSENTS_MAX, give_consent, withdraw_consent
from tongbao.payments.combining.model import (
    CombinedApart,
    CombinedNotFound,
    CombinedNumberUsed,
    CombinedOrdersRepeat,
    CombinedPayment,
    CombinedPaymentView,
    CombiningNotAllowed,
    CombiningNotOffered,
    Consent,
    ConsentsTooMany,
    ConsentView,
    NewCombined,
    PartAsked,
    view_combined,
)
from tongbao.payments.combining.queries import path_of
from tongbao.payments.combining.terms import channel_for
from tongbao.payments.methods.asked import (
    MethodAsked,
    MethodFieldForeign,
    MethodFieldMissing,
    check_method,
    how_asked,
)
from tongbao.rails.channels.contract.orders import PayMode

PARTS_MIN: Final = 2
PARTS_MAX: Final = 50
"""How many orders WeChat Pay takes in one (facts/channels.md §1.1, and its own document)."""
ORDER_NO_MAX: Final = 60  # where a customer chooses: later tries add their number
_METADATA_KEYS_MAX: Final = 50
_TextField = Annotated[str, Meta(max_length=500)]


class PartOrder(Struct, frozen=True, forbid_unknown_fields=True):
    """One order to be paid with others; ``merchant_id`` where it is another merchant's."""

    merchant_order_no: NumberField
    amount: AmountField
    subject: Annotated[str, Meta(min_length=1, max_length=120)]
    merchant_id: Annotated[str, Meta(max_length=64)] | None = None
    metadata: dict[Annotated[str, Meta(max_length=40)], _TextField] = {}


class CreateCombined(Struct, frozen=True, forbid_unknown_fields=True):
    """Have several orders paid in one go. Amounts are minor units: 1999 is 19.99 yuan.

    Modes are ``qr``, ``in_app``, ``app`` and ``h5``; without a channel, one that combines is taken.
    """

    merchant_combined_no: NumberField
    method: MethodAsked
    orders: Annotated[list[PartOrder], Meta(min_length=PARTS_MIN, max_length=PARTS_MAX)]
    currency: CurrencyField = "CNY"
    expires_in_s: Annotated[int, Meta(ge=60, le=int(EXPIRES_MAX.total_seconds()))] | None = None
    customer_chooses: bool = False


_EXAMPLE = CreateCombined(
    merchant_combined_no="MALL-20261121-0001",
    method=MethodAsked(PayMode.QR, "wechat_pay"),
    orders=[
        PartOrder("20261121-0001", 1999, "two cups of tea"),
        PartOrder("20261121-0002", 300, "a bun"),
    ],
)


@post(
    "/v1/combined_payments",
    opt=needs(
        "payments:write",
        idempotent=True,
        refuses=[
            CombiningNotOffered,
            CombiningNotAllowed,
            CombinedApart,
            CombinedNumberUsed,
            CombinedOrdersRepeat,
            OrderNumberUsed,
            MethodFieldMissing,
            MethodFieldForeign,
            MerchantSuspended,
            ChannelNotOpened,
            PriceNotAgreed,
            AmountOutOfRange,
            UnknownCurrency,
        ],
        request_example=_EXAMPLE,
    ),
)
async def create_combined(
    data: CreateCombined,
    request: ApiRequest,
    flow: Flow,
    *,
    caller: Caller,
    keyring: Keyring,
    public_url: PublicUrl,
) -> Response[CombinedPaymentView]:
    """Have several orders paid in one go.

    ``next_action`` says what the customer is to do; a page of ours at ``hosted_url`` has them do
    it, and with ``customer_chooses`` lets them take another way that can pay these orders: the
    first is closed at its channel before, and the orders are tried anew as payments whose numbers
    have a count behind them. Each order becomes a payment of its own merchant, who hears of it, is
    settled and gives it back as ever; closing one closes all. Another merchant's order needs its
    consent. The same number with the same content returns the combined payment it already made.
    """
    ip = request.client.host if request.client is not None else "127.0.0.1"
    asked, at = _asked(data, flow, caller, ip), (keyring, public_url)

    async def fresh(use: Idempotency) -> CombinedPaymentView:
        return _view(at, *await combine(flow, asked, use.write, new_id()))

    async def again(combined_id: UUID) -> CombinedPaymentView:
        found = await queries.combined(flow.db, caller.book, combined_id)
        return _view(at, *await resume(flow, found))

    return await answer_once(request, flow.db, fresh=fresh, resume=again)


@post(
    "/v1/combined_payments/{combined_id:str}/close",
    status_code=200,
    opt=needs("payments:write", refuses=[CombinedNotFound]),
)
async def close_combined_payment(
    combined_id: str, flow: Flow, caller: Caller, keyring: Keyring, public_url: PublicUrl
) -> CombinedPaymentView:
    """Call all orders of a combined payment off, at the channel first.

    A customer who paid first wins, and what has ended stays so. Safe to repeat.
    """
    own = await _own(flow.db, combined_id, caller)
    return _view((keyring, public_url), *await close_combined(flow, own))


@get(
    "/v1/combined_payments/{combined_id:str}",
    opt=needs("payments:read", refuses=[CombinedNotFound]),
)
async def get_combined(
    combined_id: str, db: Db, caller: Caller, keyring: Keyring, public_url: PublicUrl
) -> CombinedPaymentView:
    """Return one combined payment."""
    whole = await _own(db, combined_id, caller)
    return _view((keyring, public_url), whole, await queries.parts_of(db, whole))


@get("/v1/combined_payments", opt=needs("payments:read"))
async def list_combined(
    db: Db,
    caller: Caller,
    *,
    keyring: Keyring,
    public_url: PublicUrl,
    merchant_combined_no: str | None = None,
    cursor: str | None = None,
    limit: int | None = None,
) -> Page[CombinedPaymentView]:
    """Return combined payments, newest first, or the one with the merchant's number."""
    page = await queries.list_combined(
        db,
        (caller.merchant_id, caller.mode),
        number=merchant_combined_no,
        cursor=cursor,
        limit=limit,
    )
    at = (keyring, public_url)
    views = [_view(at, each, await queries.parts_of(db, each)) for each in page.items]
    return Page(views, page.next_cursor)


class WhoCombines(Struct, frozen=True, forbid_unknown_fields=True):
    """The merchant who asks for our orders together with theirs."""

    merchant_id: Annotated[str, Meta(max_length=64)]


@post(
    "/v1/combining_consents",
    status_code=200,
    opt=needs("payments:write", refuses=[ConsentsTooMany]),
)
async def give_consent_to_combine(data: WhoCombines, db: Db, caller: Caller) -> Page[ConsentView]:
    """Let another merchant combine our orders with theirs; return all who may. Safe to repeat."""
    initiator = _another(data, caller)
    async with db.begin(caller.actor) as tx:
        mine = (caller.merchant_id, caller.mode)
        return _views(await give_consent(tx, caller.book, mine, initiator))


@post(
    "/v1/combining_consents/withdraw",
    status_code=200,
    opt=needs("payments:write"),
)
async def withdraw_consent_to_combine(
    data: WhoCombines, db: Db, caller: Caller
) -> Page[ConsentView]:
    """Let another merchant combine our orders no more; return all who still may. Safe to repeat."""
    initiator = _another(data, caller)
    async with db.begin(caller.actor) as tx:
        mine = (caller.merchant_id, caller.mode)
        return _views(await withdraw_consent(tx, caller.book, mine, initiator))


@get("/v1/combining_consents", opt=needs("payments:read"))
async def list_consents_to_combine(db: Db, caller: Caller) -> Page[ConsentView]:
    """Return who may combine our orders with theirs, in the order we agreed; at most 500."""
    mine = (caller.merchant_id, caller.mode)
    return _views(await queries.consents_of(db, caller.book, *mine, CONSENTS_MAX))


ROUTES = [
    create_combined,
    close_combined_payment,
    get_combined,
    list_combined,
    give_consent_to_combine,
    withdraw_consent_to_combine,
    list_consents_to_combine,
]


def _another(data: WhoCombines, caller: Caller) -> UUID:
    initiator = parse("mch", data.merchant_id)
    if initiator == caller.merchant_id:
        raise InvalidValue(param="$.merchant_id", reason="name another merchant")
    return initiator


def _asked(data: CreateCombined, flow: Flow, caller: Caller, client_ip: str) -> NewCombined:
    check_method(data.method)
    mode = data.method.mode
    channel = data.method.channel or channel_for(flow.channels, mode, data.currency)
    parts = [_part(each, data.currency, caller) for each in data.orders]
    if len({(part.merchant_id, part.merchant_order_no) for part in parts}) < len(parts):
        raise CombinedOrdersRepeat(param="$.orders")
    lifetime = timedelta(seconds=data.expires_in_s) if data.expires_in_s else EXPIRES_DEFAULT
    asked = NewCombined(
        merchant_id=caller.merchant_id,
        mode=caller.mode,
        book=caller.book,
        merchant_combined_no=data.merchant_combined_no,
        channel=channel,
        pay_mode=mode,
        how=how_asked(data.method),
        client_ip=client_ip,
        expires_in=lifetime,
        parts=parts,
        chooses=data.customer_chooses,
    )
    if data.customer_chooses and any(len(each.merchant_order_no) > ORDER_NO_MAX for each in parts):
        raise InvalidValue(param="$.orders", reason=f"merchant_order_no: at most {ORDER_NO_MAX}")
    positive(asked.money.amount, data.currency)  # the sum has the same limit as any amount
    return asked


def _part(order: PartOrder, currency: str, caller: Caller) -> PartAsked:
    if len(order.metadata) > _METADATA_KEYS_MAX:
        raise InvalidValue(param="$.orders", reason="at most 50 keys of metadata")
    whose = caller.merchant_id if order.merchant_id is None else parse("mch", order.merchant_id)
    return PartAsked(
        merchant_id=whose,
        merchant_order_no=order.merchant_order_no,
        money=positive(order.amount, currency),
        subject=order.subject,
        metadata=order.metadata,
    )


async def _own(db: Db, combined_id: str, caller: Caller) -> CombinedPayment:
    wanted = parse("cmb", combined_id)
    return await queries.combined_of_merchant(db, wanted, caller.merchant_id, caller.mode)


def _view(
    at: tuple[Keyring, PublicUrl], whole: CombinedPayment, parts: Parts
) -> CombinedPaymentView:
    keyring, public_url = at
    page = f"{public_url.text}{path_of(keyring, whole.id)}"
    return replace(view_combined(whole, [payment for payment, _ in parts]), hosted_url=page)


def _views(consents: Sequence[Consent]) -> Page[ConsentView]:
    return Page(
        [ConsentView(show("mch", each.initiator_id), each.given_at) for each in consents], None
    )

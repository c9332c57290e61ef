"""The routes of visits to car parks."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Final
from uuid import UUID

from litestar import Response, get, post
from msgspec import Meta, Struct

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
from tongbao.kernel.ids import new_id, parse
from tongbao.kernel.money import AmountOutOfRange, UnknownCurrency, positive
from tongbao.kernel.pages import Page
from tongbao.parties.merchants import queries as merchants
from tongbao.parties.merchants.model import ChannelNotOpened, MerchantSuspended
from tongbao.parties.price_plans.model import PriceNotAgreed
from tongbao.payments.collecting import queries as payments
from tongbao.payments.collecting.model import PaymentView, view_payment
from tongbao.payments.collecting.outcomes import Flow
from tongbao.payments.collecting.payments import ModeNotOffered, OrderNumberUsed
from tongbao.payments.parking import queries
from tongbao.payments.parking.charges import ChargeAsked, charge_visit, resume_charge
from tongbao.payments.parking.looking_up import ParkingPlateView, PlateUnanswered, look_up_plate
from tongbao.payments.parking.model import (
    Car,
    ParkingNotOffered,
    ParkingVisitView,
    VisitCharged,
    VisitNotChargeable,
    VisitNotFound,
    VisitNumberUsed,
    VisitState,
    VisitTimesWrong,
    view_visit,
)
from tongbao.payments.parking.visits import (
    CarParks,
    VisitAsked,
    drive_in,
    drive_out,
    parking,
    tell,
)
from tongbao.rails.channels.contract.orders import PlateColour

_METADATA_KEYS_MAX: Final = 50
_FREE_S_MAX: Final = int(timedelta(days=1).total_seconds())
_Plate = Annotated[str, Meta(pattern=r"^[0-9A-Z\u4e00-\u9fff]{6,16}(?!\n)$")]
_TextField = Annotated[str, Meta(max_length=500)]


class EnterCarPark(Struct, frozen=True, forbid_unknown_fields=True):
    """A car drove in. ``lot`` is the channel's number of the car park, where it has one (Alipay).

    The first ``free_s`` seconds cost nothing. The plate is kept sealed and shown to nobody again.
    """

    merchant_visit_no: NumberField
    channel: Annotated[str, Meta(max_length=32)]
    plate: _Plate
    plate_colour: PlateColour
    place: Annotated[str, Meta(min_length=1, max_length=64)]
    lot: Annotated[str, Meta(pattern=r"^[!-~]{0,64}(?!\n)$")] = ""
    free_s: Annotated[int, Meta(ge=0, le=_FREE_S_MAX)] = 0
    entered_at: datetime | None = None
    device: Annotated[str, Meta(pattern=r"^[!-~]{1,32}(?!\n)$")] = "gate"

    def __repr__(self) -> str:  # a person's car
        return "EnterCarPark(…)"


_EXAMPLE = EnterCarPark(
    merchant_visit_no="GATE-20261121-0001",
    channel="wechat_pay",
    plate="粤B888888",
    plate_colour="BLUE",
    place="Harbour car park",
    free_s=900,
)


class LookUpPlate(Struct, frozen=True, forbid_unknown_fields=True):
    """Ask about a plate of the customer whom the channel knows by ``payer_id``."""

    channel: Annotated[str, Meta(max_length=32)]
    plate: _Plate
    plate_colour: PlateColour
    payer_id: Annotated[str, Meta(pattern=r"^[!-~]{1,128}(?!\n)$")]

    def __repr__(self) -> str:  # a person's car
        return "LookUpPlate(…)"


class ChargeVisit(Struct, frozen=True, forbid_unknown_fields=True):
    """Take this much for the stay, which ends at ``left_at``: now, when nothing is said."""

    merchant_order_no: NumberField
    amount: AmountField
    subject: Annotated[str, Meta(min_length=1, max_length=120)] = "parking"
    currency: CurrencyField = "CNY"
    left_at: datetime | None = None
    metadata: dict[Annotated[str, Meta(max_length=40)], _TextField] = {}


class LeaveCarPark(Struct, frozen=True, forbid_unknown_fields=True):
    """The car drove out, now when nothing is said."""

    left_at: datetime | None = None


@post(
    "/v1/parking_visits",
    opt=needs(
        "payments:write",
        idempotent=True,
        refuses=[
            ParkingNotOffered,
            VisitNumberUsed,
            VisitTimesWrong,
            MerchantSuspended,
            ChannelNotOpened,
        ],
        request_example=_EXAMPLE,
    ),
)
async def enter_car_park(
    data: EnterCarPark, request: ApiRequest, flow: Flow, keyring: Keyring, caller: Caller
) -> Response[ParkingVisitView]:
    """Say that a car drove in, and learn whether its fee can be taken on leaving.

    ``open``: it can. ``blocked``: the driver pays in another way. ``unknown``: the channel has not
    answered; it is told again, and a webhook says how it stands.
    """
    parks = CarParks(flow, keyring)
    _aware(data.entered_at, "$.entered_at")

    async def fresh(use: Idempotency) -> ParkingVisitView:
        parking(parks, data.channel)
        merchant = await merchants.merchant_with_id(flow.db, caller.merchant_id)
        merchant.check_active()
        account_id = await merchants.channel_account_of(
            flow.db, merchant.id, caller.mode, data.channel
        )
        asked = _asked(data, caller, account_id)
        return view_visit(await drive_in(parks, asked, use.write, new_id()))

    async def resume(visit_id: UUID) -> ParkingVisitView:
        visit = await queries.visit(flow.db, caller.book, visit_id)
        if visit.state in {VisitState.CREATED, VisitState.UNKNOWN}:
            visit = await tell(parks, visit, "enter")
        return view_visit(visit)

    return await answer_once(request, flow.db, fresh=fresh, resume=resume)


@post(
    "/v1/parking_plates/look_up",
    status_code=200,
    opt=needs(
        "payments:write",
        refuses=[ParkingNotOffered, PlateUnanswered, MerchantSuspended, ChannelNotOpened],
        request_example=LookUpPlate(
            "wechat_pay", "粤B888888", "BLUE", "oUpF8uMuAJO_M2pxb1Q9zNjWeS6o"
        ),
    ),
)
async def look_up_parking_plate(data: LookUpPlate, flow: Flow, caller: Caller) -> ParkingPlateView:
    """Ask, before the car comes, whether its fees can be taken without its driver's doing.

    For a page on which customers sign up. Nothing of it is kept.
    """
    of, plate = (caller.merchant_id, caller.mode), (data.plate, data.plate_colour)
    return await look_up_plate(flow, of, data.channel, plate, payer_id=data.payer_id)


@post(
    "/v1/parking_visits/{visit_id:str}/charge",
    opt=needs(
        "payments:write",
        idempotent=True,
        refuses=[
            VisitNotFound,
            VisitNotChargeable,
            VisitCharged,
            VisitTimesWrong,
            OrderNumberUsed,
            MerchantSuspended,
            ChannelNotOpened,
            ModeNotOffered,
            PriceNotAgreed,
            AmountOutOfRange,
            UnknownCurrency,
        ],
        request_example=ChargeVisit("20261121-0001", 500),
    ),
)
async def charge_parking_visit(
    visit_id: str,
    data: ChargeVisit,
    request: ApiRequest,
    *,
    flow: Flow,
    keyring: Keyring,
    caller: Caller,
) -> Response[PaymentView]:
    """Take the fee of a visit: a payment like any other, which is queried and given back as such.

    It comes back with its end, or pending while the channel takes it; a webhook tells the end. A
    visit is charged again only after its payment ended unpaid.
    """
    parks, wanted = CarParks(flow, keyring), parse("prk", visit_id)
    asked = _charge_asked(data, request)

    async def fresh(use: Idempotency) -> PaymentView:
        visit = await queries.visit_of_merchant(flow.db, wanted, caller.merchant_id, caller.mode)
        return view_payment(*await charge_visit(parks, visit, asked, use.write))

    async def resume(payment_id: UUID) -> PaymentView:
        visit = await queries.visit_of_merchant(flow.db, wanted, caller.merchant_id, caller.mode)
        payment = await payments.payment(flow.db, caller.book, payment_id)
        return view_payment(*await resume_charge(parks, visit, payment))

    return await answer_once(request, flow.db, fresh=fresh, resume=resume)


@post(
    "/v1/parking_visits/{visit_id:str}/leave",
    status_code=200,
    opt=needs(
        "payments:write",
        idempotent=True,
        refuses=[VisitNotFound, VisitTimesWrong],
        request_example=LeaveCarPark(),
    ),
)
async def leave_car_park(
    visit_id: str,
    data: LeaveCarPark,
    request: ApiRequest,
    *,
    flow: Flow,
    keyring: Keyring,
    caller: Caller,
) -> Response[ParkingVisitView]:
    """Say that the car drove out; a channel that wants to hear it is told.

    Its fee can still be taken.
    """
    parks, wanted = CarParks(flow, keyring), parse("prk", visit_id)
    _aware(data.left_at, "$.left_at")

    async def fresh(use: Idempotency) -> ParkingVisitView:
        visit = await queries.visit_of_merchant(flow.db, wanted, caller.merchant_id, caller.mode)
        return view_visit(await drive_out(parks, visit, data.left_at, use.write))

    async def resume(found: UUID) -> ParkingVisitView:
        return view_visit(await queries.visit(flow.db, caller.book, found))

    return await answer_once(request, flow.db, fresh=fresh, resume=resume)


@get("/v1/parking_visits/{visit_id:str}", opt=needs("payments:read", refuses=[VisitNotFound]))
async def get_parking_visit(visit_id: str, db: Db, caller: Caller) -> ParkingVisitView:
    """Return one visit."""
    wanted = parse("prk", visit_id)
    visit = await queries.visit_of_merchant(db, wanted, caller.merchant_id, caller.mode)
    return view_visit(visit)


@get("/v1/parking_visits", opt=needs("payments:read"))
async def list_parking_visits(
    db: Db,
    caller: Caller,
    *,
    merchant_visit_no: str | None = None,
    status: VisitState | None = None,
    cursor: str | None = None,
    limit: int | None = None,
) -> Page[ParkingVisitView]:
    """Return visits, newest first, by status or the merchant's number."""
    page = await queries.list_visits(
        db,
        (caller.merchant_id, caller.mode),
        number=merchant_visit_no,
        status=status,
        cursor=cursor,
        limit=limit,
    )
    return Page([view_visit(each) for each in page.items], page.next_cursor)


ROUTES = [
    enter_car_park,
    look_up_parking_plate,
    charge_parking_visit,
    leave_car_park,
    get_parking_visit,
    list_parking_visits,
]


def _asked(data: EnterCarPark, caller: Caller, account_id: UUID) -> VisitAsked:
    return VisitAsked(
        merchant_id=caller.merchant_id,
        mode=caller.mode,
        book=caller.book,
        merchant_visit_no=data.merchant_visit_no,
        channel=data.channel,
        account_id=account_id,
        car=Car(data.plate, data.plate_colour, data.device),
        place=data.place,
        lot=data.lot,
        free_s=data.free_s,
        entered_at=data.entered_at,
    )


def _charge_asked(data: ChargeVisit, request: ApiRequest) -> ChargeAsked:
    if len(data.metadata) > _METADATA_KEYS_MAX:
        raise InvalidValue(param="$.metadata", reason="at most 50 keys")
    _aware(data.left_at, "$.left_at")
    return ChargeAsked(
        merchant_order_no=data.merchant_order_no,
        money=positive(data.amount, data.currency),
        subject=data.subject,
        left_at=data.left_at,
        metadata=data.metadata,
        client_ip=request.client.host if request.client is not None else "127.0.0.1",
    )


def _aware(at: datetime | None, param: str) -> None:
    if at is not None and at.tzinfo is None:
        raise InvalidValue(param=param, reason="a moment names its offset from UTC")

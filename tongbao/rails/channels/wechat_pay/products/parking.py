"""Parking of WeChat Pay (车主服务 · 停车): a plate is looked up, drives in, and is charged.

Only service providers may call it, so the account must have a partner.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Final, assert_never

from msgspec import Struct
from msgspec.structs import replace

from tongbao.rails.channels.capabilities.agreements import VisitBlocked, VisitOpen, VisitOutcome
from tongbao.rails.channels.contract.orders import (
    CarStay,
    CarVisit,
    ChannelAccount,
    PayOrder,
    PlateColour,
)
from tongbao.rails.channels.contract.outcomes import (
    Absent,
    Answer,
    Closed,
    CloseOutcome,
    Declined,
    Exchange,
    NotSent,
    Outcome,
    Pending,
    QueryOutcome,
    Succeeded,
    Unknown,
)
from tongbao.rails.channels.exchange import MASK, decode, followed_by, unsent
from tongbao.rails.channels.wechat_pay.documents import vehicles as documents
from tongbao.rails.channels.wechat_pay.documents.orders import Transaction
from tongbao.rails.channels.wechat_pay.documents.parts import Amount
from tongbao.rails.channels.wechat_pay.gateway import (
    ERRORS,
    Answered,
    Gateway,
    Refused,
    ids_of,
    in_path,
    meant,
)
from tongbao.rails.channels.wechat_pay.wire import (
    CURRENCY,
    DESCRIPTION_MAX,
    china_time,
    encode,
    first_difference,
    order_outcome,
)

CHARGES: Final = "/v3/vehicle/transactions"
ENTRANCES: Final = "/v3/vehicle/parking/parkings"
SERVICES: Final = "/v3/vehicle/parking/services/find"
_PLATE: Final = re.compile(r'("plate_number"\s*:\s*)"[^"]*"')
_NO_PARTNER: Final = "parking is for service providers only"


class Plate(Struct, frozen=True):
    """A car's plate."""

    number: str
    colour: PlateColour


class Entrance(Struct, frozen=True):
    """A car that drives in. ``number`` is ours; ``free_s`` are seconds that cost nothing."""

    number: str
    plate: Plate
    at: datetime
    place: str
    free_s: int


class Stay(Struct, frozen=True):
    """What is charged for."""

    parking_id: str  # WeChat Pay's number of the entrance
    plate: Plate
    from_: datetime
    until: datetime
    place: str
    charged_s: int
    device: str


class ParkingOpen(Struct, frozen=True, tag="parking_open"):
    """The plate may be charged without the customer's doing (``parking_id`` once it drove in)."""

    parking_id: str = ""


class ParkingBlocked(Struct, frozen=True, tag="parking_blocked"):
    """The plate cannot be charged: let the driver pay in another way."""

    reason: str


ParkingOutcome = ParkingOpen | ParkingBlocked | Absent | NotSent | Unknown


async def look_up(
    gateway: Gateway, account: ChannelAccount, plate: Plate, openid: str
) -> Answer[VisitOutcome]:
    """Ask whether the customer has opened the service for this plate."""
    ids = ids_of(account)
    if ids.sp_appid is None:
        return Answer(NotSent(_NO_PARTNER), unsent("GET", account.gateway + SERVICES, _NO_PARTNER))
    query = {
        "appid": ids.sp_appid,
        "sub_mchid": ids.sub_mchid or "",
        "plate_number": plate.number,
        "plate_color": plate.colour,
        "openid": openid,
    }
    text = "&".join(f"{name}={in_path(value)}" for name, value in query.items())
    hidden = (plate.number, in_path(plate.number))
    heard, exchange = await gateway.call(account, "GET", f"{SERVICES}?{text}", hidden=hidden)
    match heard:
        case Answered():
            found = decode(heard.body, documents.ParkingPlate)
            if found is None or (found.plate_number, found.openid) != (plate.number, openid):
                return Answer(Unknown("the answer is about another plate"), exchange)
            if found.service_state == "NORMAL":
                return Answer(VisitOpen(""), exchange)
            return Answer(VisitBlocked(found.service_state or "UNKNOWN"), exchange)
        case Refused():
            return Answer(_refused(heard), exchange)
        case NotSent() | Unknown():
            return Answer(heard, exchange)
        case _:
            assert_never(heard)


async def enter(
    gateway: Gateway, account: ChannelAccount, entrance: Entrance
) -> Answer[ParkingOutcome]:
    """Tell WeChat Pay that a car drove in; safe to repeat."""
    ids = ids_of(account)
    if ids.sp_appid is None:
        reason = _NO_PARTNER
        return Answer(NotSent(reason), unsent("POST", account.gateway + ENTRANCES, reason))
    body = documents.Parking(
        sub_mchid=ids.sub_mchid,
        out_parking_no=entrance.number,
        plate_number=entrance.plate.number,
        plate_color=entrance.plate.colour,
        notify_url=account.notify_url,
        start_time=china_time(entrance.at),
        parking_name=entrance.place,
        free_duration=entrance.free_s,
    )
    hidden = (entrance.plate.number,)
    heard, exchange = await gateway.call(account, "POST", ENTRANCES, encode(body), hidden=hidden)
    match heard:
        case Answered():
            found = decode(heard.body, documents.Parking)
            if found is None or not found.id or found.out_parking_no != entrance.number:
                return Answer(Unknown("the answer is about another entrance"), exchange)
            if found.state == "NORMAL":
                return Answer(ParkingOpen(found.id), exchange)
            return Answer(ParkingBlocked(found.block_reason or found.state or ""), exchange)
        case Refused():
            return Answer(_refused(heard), exchange)
        case NotSent() | Unknown():
            return Answer(heard, exchange)
        case _:
            assert_never(heard)


async def charge(
    gateway: Gateway, account: ChannelAccount, order: PayOrder, stay: Stay
) -> Answer[Outcome]:
    """Take the fee: accepted now, decided later and told by callback."""
    ids, target = ids_of(account), f"{CHARGES}/parking"
    reason = _NO_PARTNER if ids.sp_appid is None else None
    if order.money.currency != CURRENCY:
        reason = f"WeChat Pay does not take {order.money.currency}"
    if reason:
        return Answer(NotSent(reason), unsent("POST", account.gateway + target, reason))
    body = documents.ParkingRequest(
        appid=ids.sp_appid,
        sub_appid=ids.sub_appid or ids.sp_appid,  # required here, unlike elsewhere
        sub_mchid=ids.sub_mchid,
        description=order.subject[:DESCRIPTION_MAX] or order.number,
        out_trade_no=order.number,
        trade_scene="PARKING",
        notify_url=account.notify_url,
        amount=Amount(total=order.money.amount, currency=order.money.currency),
        parking_info=_stay(stay),
    )
    hidden = (stay.plate.number,)
    heard, exchange = await gateway.call(account, "POST", target, encode(body), hidden=hidden)
    match heard:
        case Answered():
            outcome = _read(heard.body, account, order)
            return Answer(
                Declined(outcome.code) if isinstance(outcome, Closed) else outcome, exchange
            )
        case Refused():
            entry = ERRORS.find("pay", heard.code)
            if not entry.ask:
                return Answer(meant(entry, heard), exchange)
            asked = await query_charge(gateway, account, order)
            both = followed_by(exchange, asked.exchange)
            if isinstance(asked.outcome, Absent | Closed):
                return Answer(meant(entry, heard), both)
            return Answer(asked.outcome, both)
        case NotSent() | Unknown():
            return Answer(heard, exchange)
        case _:
            assert_never(heard)


async def query_charge(
    gateway: Gateway, account: ChannelAccount, order: PayOrder
) -> Answer[QueryOutcome]:
    """Ask what became of a fee."""
    sub_mchid = in_path(account.merchant_number)
    target = f"{CHARGES}/out-trade-no/{in_path(order.number)}?sub_mchid={sub_mchid}"
    answer = await gateway.question(
        account, target, "query", lambda body: _read(body, account, order)
    )
    return Answer(answer.outcome, _without_plate(answer.exchange))


def _without_plate(seen: Exchange) -> Exchange:
    """Return the evidence without the plate, which the answer says and the question did not."""
    return replace(seen, reply=_PLATE.sub(rf'\1"{MASK}"', seen.reply))


async def drive_in(
    gateway: Gateway, account: ChannelAccount, visit: CarVisit
) -> Answer[VisitOutcome]:
    """Tell of an entrance, as every channel with car parks is told."""
    plate = Plate(visit.plate, visit.colour)
    entrance = Entrance(visit.number, plate, visit.entered_at, visit.place, visit.free_s)
    answer = await enter(gateway, account, entrance)
    match answer.outcome:
        case ParkingOpen(parking_id=ref):
            return Answer(VisitOpen(ref), answer.exchange)
        case ParkingBlocked(reason=reason):
            return Answer(VisitBlocked(reason), answer.exchange)
        case Absent() | NotSent() | Unknown():
            return Answer(answer.outcome, answer.exchange)
        case _:
            assert_never(answer.outcome)


async def take_fee(gateway: Gateway, account: ChannelAccount, order: PayOrder) -> Answer[Outcome]:
    """Take a visit's fee, or only ask about it where the stay is not known any more."""
    if order.stay is not None:
        return await charge(gateway, account, order, _stay_of(order.stay))
    asked = await query_charge(gateway, account, order)
    match asked.outcome:
        case Absent(code=code):
            return Answer(Unknown(f"{code}: the fee is not there"), asked.exchange)
        case Closed(code=code):
            return Answer(Declined(code), asked.exchange)
        case Succeeded() | Pending() | Declined() | Unknown():
            return Answer(asked.outcome, asked.exchange)
        case _:
            assert_never(asked.outcome)


async def close_fee(
    gateway: Gateway, account: ChannelAccount, order: PayOrder
) -> Answer[CloseOutcome]:
    """Say what became of a fee: what WeChat Pay accepted it goes on taking, and nobody closes."""
    asked = await query_charge(gateway, account, order)
    match asked.outcome:
        case Declined(code=code):
            return Answer(Closed(code), asked.exchange)
        case Pending(reason=reason):
            return Answer(Unknown(f"{reason}: it goes on being taken"), asked.exchange)
        case Succeeded() | Closed() | Absent() | Unknown():
            return Answer(asked.outcome, asked.exchange)
        case _:
            assert_never(asked.outcome)


def _stay_of(stay: CarStay) -> Stay:
    return Stay(
        parking_id=stay.ref,
        plate=Plate(stay.visit.plate, stay.visit.colour),
        from_=stay.visit.entered_at,
        until=stay.left_at,
        place=stay.visit.place,
        charged_s=int((stay.left_at - stay.visit.entered_at).total_seconds()),
        device=stay.device,
    )


def _stay(stay: Stay) -> documents.Stay:
    return documents.Stay(
        parking_id=stay.parking_id,
        plate_number=stay.plate.number,
        plate_color=stay.plate.colour,
        start_time=china_time(stay.from_),
        end_time=china_time(stay.until),
        parking_name=stay.place,
        charging_duration=stay.charged_s,
        device_id=stay.device,
    )


def _refused(refused: Refused) -> Absent | NotSent | Unknown:
    entry = ERRORS.find("agreement", refused.code)
    if entry.meaning == "absent":
        return Absent(refused.code)
    if entry.meaning in {"declined", "not_sent"}:
        return NotSent(f"{refused.code}: {refused.message}")
    return Unknown(f"{refused.code}: {refused.message}")


def _read(
    body: bytes, account: ChannelAccount, order: PayOrder
) -> Succeeded | Pending | Declined | Closed | Unknown:
    found, ids = decode(body, documents.VehicleTransaction), ids_of(account)
    if found is None:
        return Unknown("the answer is no fee")
    amount = found.amount or Amount()
    difference = first_difference(
        [
            ("out_trade_no", found.out_trade_no, order.number),
            ("sp_mchid", found.sp_mchid, ids.sp_mchid),
            ("sub_mchid", found.sub_mchid, ids.sub_mchid),
            ("total", amount.total, order.money.amount),
            ("currency", amount.currency or CURRENCY, order.money.currency),
        ]
    )
    if difference:
        return Unknown(f"contradiction: {difference}")
    return order_outcome(
        Transaction(
            trade_state=found.trade_state,
            trade_state_desc=found.trade_state_description,
            transaction_id=found.transaction_id,
            success_time=found.success_time,
            payer=found.payer,
            amount=amount,
        )
    )

"""Car parks at Alipay (停车无感支付): a car's coming and going, and its fee by its plate.

The owner bound the plate to an agreement in Alipay's own app, so payments name the plate and no
agreement. A fee becomes an ordinary trade, which `Alipay.query` and refunds know by our number.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, assert_never

import msgspec
from msgspec import Struct

from tongbao.kernel.clock import BUSINESS_ZONE
from tongbao.rails.channels.alipay import answers
from tongbao.rails.channels.alipay.gateway import Answered, Gateway, Refused
from tongbao.rails.channels.alipay.wire import SUBJECT_MAX, Trade
from tongbao.rails.channels.capabilities.agreements import VisitBlocked, VisitOpen, VisitOutcome
from tongbao.rails.channels.contract.orders import CarVisit, ChannelAccount, ParkingFee, PayOrder
from tongbao.rails.channels.contract.outcomes import (
    Answer,
    Closed,
    Declined,
    NotSent,
    Outcome,
    Pending,
    Succeeded,
    Unknown,
)
from tongbao.rails.channels.error_map import error_map
from tongbao.rails.channels.exchange import decode, followed_by, unsent

_ERRORS: Final = error_map("alipay")
_METHOD: Final = "alipay.eco.mycar.parking."
_TAKEN: Final = "0"
_WITHHELD: Final = "2"
_NO_LOT: Final = "Alipay wants its own number of the car park"
_TIME: Final = "%Y-%m-%d %H:%M:%S"


class ParkedCar(Struct, frozen=True):
    """One visit of a car to a car park; ``number`` is ours."""

    number: str
    plate: str
    plate_colour: str  # BLUE, GREEN, YELLOW, BLACK, WHITE, LIMEGREEN
    lot: str  # Alipay's number of the car park
    own_lot: str  # ours

    entered_at: datetime


class PlateChargeable(Struct, frozen=True, tag="plate_chargeable"):
    """The car's owner has agreed: the fee can be taken when the car leaves."""


class PlateNotChargeable(Struct, frozen=True, tag="plate_not_chargeable"):
    """Nobody has agreed for this plate, or may not be charged; the driver pays another way."""

    reason: str = ""


ParkingOutcome = PlateChargeable | PlateNotChargeable | Declined | NotSent | Unknown


class _Status(Struct, frozen=True):
    agreement_status: str = ""


class _Fee(Struct, frozen=True):
    out_trade_no: str = ""
    trade_no: str = ""
    total_fee: str | float = ""
    gmt_payment: str = ""
    user_id: str | None = None
    open_id: str | None = None


class AlipayParking:
    """What `Alipay` can do about car parks."""

    _gateway: Gateway
    tells_exits = True

    async def drive_in(self, account: ChannelAccount, visit: CarVisit) -> Answer[VisitOutcome]:
        """Tell of an entrance, as every channel with car parks is told."""
        if not visit.lot:
            url = account.gateway
            return Answer(NotSent(_NO_LOT), unsent("POST", url, _NO_LOT))
        answer = await self.enter_car_park(account, car_of(visit))
        match answer.outcome:
            case PlateChargeable():
                return Answer(VisitOpen(visit.number), answer.exchange)
            case PlateNotChargeable(reason=reason):
                return Answer(VisitBlocked(reason), answer.exchange)
            case Declined() | NotSent() | Unknown():
                return Answer(answer.outcome, answer.exchange)
            case _:
                assert_never(answer.outcome)

    async def drive_out(
        self, account: ChannelAccount, visit: CarVisit, left_at: datetime, fee: ParkingFee | None
    ) -> Answer[Closed | Declined | NotSent | Unknown]:
        """Tell that the car drove out, and what it paid, which Alipay shows to the driver."""
        answer = await self.leave_car_park(account, car_of(visit), left_at)
        match answer.outcome:
            case None if fee is not None:
                kept = await self._keep_order(account, visit, left_at, fee)
                return Answer(kept.outcome, followed_by(answer.exchange, kept.exchange))
            case None:
                return Answer(Closed(), answer.exchange)
            case Declined() | NotSent() | Unknown():
                return Answer(answer.outcome, answer.exchange)
            case PlateChargeable() | PlateNotChargeable():
                return Answer(Unknown("an answer about the plate"), answer.exchange)
            case _:
                assert_never(answer.outcome)

    async def enter_car_park(
        self, account: ChannelAccount, car: ParkedCar
    ) -> Answer[ParkingOutcome]:
        """Tell that the car drove in, then ask whether its plate's owner can be charged."""
        came = await self._tell(account, "enterinfo.sync", car, in_time=car.entered_at)
        if came.outcome is not None:
            return Answer(came.outcome, came.exchange)
        heard, second = await self._gateway.call(
            account, f"{_METHOD}agreement.query", {"car_number": car.plate}, hidden=(car.plate,)
        )
        both = followed_by(came.exchange, second)
        match heard:
            case Answered():
                return Answer(_chargeable(heard.node), both)
            case Refused():
                return Answer(Unknown(f"agreement query refused: {heard.shown_code}"), both)
            case NotSent() | Unknown():
                return Answer(Unknown(heard.reason), both)
            case _:
                assert_never(heard)

    async def leave_car_park(
        self, account: ChannelAccount, car: ParkedCar, left_at: datetime
    ) -> Answer[ParkingOutcome | None]:
        """Tell that the car drove out; None says that Alipay heard it."""
        return await self._tell(account, "exitinfo.sync", car, out_time=left_at)

    async def pay_parking(
        self, account: ChannelAccount, order: PayOrder, car: ParkedCar
    ) -> Answer[Outcome]:
        """Take the fee from the plate's owner."""
        content = {
            "out_trade_no": order.number,
            "total_fee": order.money.decimal_text(),
            "subject": order.subject[:SUBJECT_MAX],
            "car_number": car.plate,
            "car_number_color": car.plate_colour.lower(),
            "parking_id": car.lot,
            "out_parking_id": car.own_lot,
            "seller_id": account.merchant_number,
            "agent_id": account.merchant_number,
        }
        heard, exchange = await self._gateway.call(
            account, f"{_METHOD}order.pay", content, notify=True, hidden=(car.plate,)
        )
        match heard:
            case Answered():
                return Answer(_paid(heard.node, order), exchange)
            case Refused():
                entry = _ERRORS.find("pay", heard.sub_code, heard.code)
                # A repeat is refused for what the first call did, so only a query believes it.
                meant = answers.meant(entry, heard)
                return Answer(Unknown(heard.shown_code) if entry.ask else meant, exchange)
            case NotSent() | Unknown():
                return Answer(heard, exchange)
            case _:
                assert_never(heard)

    async def _keep_order(
        self, account: ChannelAccount, visit: CarVisit, left_at: datetime, fee: ParkingFee
    ) -> Answer[Closed | Declined | NotSent | Unknown]:
        """Tell of a fee that was taken (订单同步)."""
        content = {
            "user_id": fee.payer,
            "out_parking_id": visit.lot,
            "parking_id": visit.lot,
            "parking_name": visit.place,
            "car_number": visit.plate,
            "out_order_no": fee.number,
            "order_no": fee.channel_ref,
            "order_status": _TAKEN,
            "order_time": _plain(fee.asked_at),
            "pay_time": _plain(fee.paid_at),
            "pay_type": _WITHHELD,
            "pay_money": fee.money.decimal_text(),
            "in_time": _plain(visit.entered_at),
            "in_duration": str(int((left_at - visit.entered_at).total_seconds()) // 60),
            "card_number": "*",
        }
        hidden = (visit.plate, fee.payer)
        heard, exchange = await self._gateway.call(
            account, f"{_METHOD}order.sync", content, hidden=hidden
        )
        match heard:
            case Answered():
                return Answer(Closed(), exchange)
            case Refused():
                return Answer(_not_told(heard), exchange)
            case NotSent() | Unknown():
                return Answer(heard, exchange)
            case _:
                assert_never(heard)

    async def _tell(
        self, account: ChannelAccount, method: str, car: ParkedCar, **times: datetime
    ) -> Answer[ParkingOutcome | None]:
        content: dict[str, Any] = {"parking_id": car.lot, "car_number": car.plate}
        for name, at in times.items():
            content[name] = _plain(at)
        if "in_time" in times:
            content["car_color"] = car.plate_colour
        heard, exchange = await self._gateway.call(
            account, f"{_METHOD}{method}", content, hidden=(car.plate,)
        )
        match heard:
            case Answered():
                return Answer(None, exchange)
            case Refused():
                return Answer(_not_told(heard), exchange)
            case NotSent() | Unknown():
                return Answer(heard, exchange)
            case _:
                assert_never(heard)


def _plain(at: datetime) -> str:
    return at.astimezone(BUSINESS_ZONE).strftime(_TIME)


def _not_told(refused: Refused) -> Declined | NotSent | Unknown:
    entry = _ERRORS.find("agreement", refused.sub_code, refused.code)
    meant = answers.meant(entry, refused)
    return Unknown(meant.reason) if isinstance(meant, Pending) else meant


def car_of(visit: CarVisit) -> ParkedCar:
    """Return the car in Alipay's terms; its own number of the car park stands for ours."""
    places = (visit.lot, visit.lot)
    return ParkedCar(visit.number, visit.plate, visit.colour, *places, visit.entered_at)


def _chargeable(node: bytes) -> PlateChargeable | PlateNotChargeable | Unknown:
    status = decode(node, _Status)
    match "" if status is None else status.agreement_status:
        case "0":
            return PlateChargeable()
        case "1":
            return PlateNotChargeable("the plate is bound to no agreement")
        case other:
            return Unknown(f"agreement_status {other[:32] or 'missing'}")


def _paid(node: bytes, order: PayOrder) -> Succeeded | Unknown:
    """Return what the fee came to: an ordinary trade, only with another word for the amount."""
    fee = decode(node, _Fee)
    if fee is None:
        return Unknown("the answer is no fee")
    trade = Trade(
        out_trade_no=fee.out_trade_no,
        total_amount=str(fee.total_fee),
        trade_no=fee.trade_no,
        gmt_payment=fee.gmt_payment,
        buyer_user_id=fee.user_id,
        buyer_open_id=fee.open_id,
    )
    return answers.charged(msgspec.json.encode(trade), order)

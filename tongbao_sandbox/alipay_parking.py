"""Car parks: cars that drive in and out, and fees taken under the agreement a plate is bound to.

The customer binds the plate in Alipay's app; the control API does it here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

from msgspec import structs

from tongbao_sandbox import alipay_agreements as agreements
from tongbao_sandbox import alipay_trade as trades
from tongbao_sandbox.alipay_bill import yuan
from tongbao_sandbox.alipay_methods import check_again, new_trade
from tongbao_sandbox.alipay_trade import NAME
from tongbao_sandbox.alipay_wire import Ask, Refusal, amount_of, invalid, need, success
from tongbao_sandbox.clock import plain
from tongbao_sandbox.model import Fault
from tongbao_sandbox.seam import Refused, World

CAN_BE_CHARGED: Final = "0"
CANNOT: Final = "1"


def enter(world: World, ask: Ask, fault: Fault) -> dict[str, Any]:
    """Hear that a car drove in (alipay.eco.mycar.parking.enterinfo.sync)."""
    del fault
    return _move(world, ask, "in_time")


def leave(world: World, ask: Ask, fault: Fault) -> dict[str, Any]:
    """Hear that a car drove out (alipay.eco.mycar.parking.exitinfo.sync)."""
    del fault
    return _move(world, ask, "out_time")


def keep_order(world: World, ask: Ask, fault: Fault) -> dict[str, Any]:
    """Hear what a fee came to (alipay.eco.mycar.parking.order.sync); it must be one that is paid.

    Form: the vendor's own SDKs, AlipayEcoMycarParkingOrderSyncModel.
    """
    del fault
    for name in ("user_id", "out_parking_id", "parking_name", "car_number", "parking_id"):
        need(ask, name)
    for name in ("order_time", "pay_time", "in_time"):
        _moment(ask, name)
    found = world.state.trade(NAME, need(ask, "out_order_no"))
    paid = found is not None and found.state == "paid" and found.ref == need(ask, "order_no")
    if found is None or not paid or need(ask, "pay_money") != yuan(found.amount):
        raise invalid("out_order_no")
    told = f"{need(ask, 'order_status')} {need(ask, 'pay_type')} {need(ask, 'in_duration')}"
    world.state.put_document(
        NAME, f"parking-order/{found.number}", told.encode(), world.clock.now()
    )
    return success({})


def agreement_query(world: World, ask: Ask, fault: Fault) -> dict[str, Any]:
    """Say whether fees can be taken from a plate (alipay.eco.mycar.parking.agreement.query)."""
    del fault
    found = _agreement_of(world, need(ask, "car_number"))
    status = CAN_BE_CHARGED if found is not None and found.state == "NORMAL" else CANNOT
    return success({"agreement_status": status})


def pay(world: World, ask: Ask, fault: Fault) -> dict[str, Any]:
    """Take a fee from a plate's owner (alipay.eco.mycar.parking.order.pay)."""
    amount, subject = amount_of(ask, "total_fee"), need(ask, "subject")
    plate = need(ask, "car_number")
    for name in ("parking_id", "out_parking_id", "agent_id", "seller_id"):
        need(ask, name)
    known = trades.find(world, ask)
    if known is not None:
        check_again(known, "agreement", amount)
    found = _agreement_of(world, plate)
    if found is None or found.state != "NORMAL":
        raise Refusal("40004", "ACQ.AGREEMENT_NOT_EXIST", "车牌未开通代扣")
    order = new_trade(world, ask, "agreement", amount, subject)
    trade = trades.create(world, order, found.user)
    now = world.clock.now()
    if found.behaviour == "decline" or fault.name == "not_enough":
        world.state.put_trade(structs.replace(trade, state="failed", closed_at=now))
        raise Refusal("40004", "ACQ.BUYER_BALANCE_NOT_ENOUGH", "买家余额不足")
    trade = trades.collect(world, trade, now)
    return success(
        {
            "trade_no": trade.ref,
            "out_trade_no": trade.number,
            "user_id": trade.payer,
            "total_fee": yuan(trade.amount),
            "gmt_payment": plain(now),
        }
    )


def bind_plate(world: World, plate: str, number: str) -> dict[str, Any]:
    """Let the customer bind a plate to a signed agreement of the merchant's number.

    Raises:
        Refused
    """
    if agreements.find(world, number) is None:
        raise Refused("no agreement has this number")
    world.state.put_document(NAME, f"plate/{plate}", number.encode(), world.clock.now())
    return {"plate": plate, "number": number}


METHODS: Final[Mapping[str, tuple[str, Callable[[World, Ask, Fault], dict[str, Any]]]]] = {
    "alipay.eco.mycar.parking.enterinfo.sync": ("parking", enter),
    "alipay.eco.mycar.parking.exitinfo.sync": ("parking", leave),
    "alipay.eco.mycar.parking.order.sync": ("parking", keep_order),
    "alipay.eco.mycar.parking.agreement.query": ("parking", agreement_query),
    "alipay.eco.mycar.parking.order.pay": ("pay", pay),
}


def _move(world: World, ask: Ask, time_name: str) -> dict[str, Any]:
    plate, lot, at = need(ask, "car_number"), need(ask, "parking_id"), _moment(ask, time_name)
    told = f"{time_name} {lot} {at}".encode()
    world.state.put_document(NAME, f"parked/{plate}", told, world.clock.now())
    return success({})


def _moment(ask: Ask, name: str) -> str:
    at = need(ask, name)
    try:
        datetime.strptime(at, "%Y-%m-%d %H:%M:%S")  # noqa: DTZ007 - only its form is looked at
    except ValueError:
        raise invalid(name) from None
    return at


def _agreement_of(world: World, plate: str) -> agreements.Agreement | None:
    kept = world.state.document(NAME, f"plate/{plate}")
    return None if kept is None else agreements.find(world, kept[0].decode())

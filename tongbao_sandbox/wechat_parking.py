"""WeChat Pay's parking (车主服务): plates, entrances, and fees that are taken on leaving."""

from __future__ import annotations

import secrets
from datetime import datetime, timedelta
from typing import Any, Final

from tongbao_sandbox.clock import rfc3339
from tongbao_sandbox.faults import allow
from tongbao_sandbox.model import Fault, Trade
from tongbao_sandbox.seam import Refused
from tongbao_sandbox.wechat_desk import NAME, Desk, Event
from tongbao_sandbox.wechat_orders import Orders
from tongbao_sandbox.wechat_wire import (
    Call,
    Handler,
    Outcome,
    Problem,
    Rule,
    checked,
    is_notify_url,
    is_number,
    is_positive,
    parameter_error,
    spoilt,
)

AFTER_S: Final = 1.0
_CHARGE: Final = (
    Rule("/appid", str, length_max=32),
    Rule("/sub_mchid", str, length_max=32),
    Rule("/description", str, length_max=128),
    Rule("/out_trade_no", str, check=is_number),
    Rule("/trade_scene", str, check=lambda value: value == "PARKING"),
    Rule("/notify_url", str, length_max=256, check=is_notify_url),
    Rule("/amount", dict),
    Rule("/amount/total", int, check=is_positive),
    Rule("/parking_info", dict),
    Rule("/parking_info/parking_id", str),
)
_ENTER: Final = (
    Rule("/sub_mchid", str, length_max=32),
    Rule("/out_parking_no", str, check=is_number),
    Rule("/plate_number", str, length_max=32),
    Rule("/plate_color", str, length_max=32),
    Rule("/notify_url", str, length_max=256, check=is_notify_url),
    Rule("/start_time", str),
    Rule("/parking_name", str),
    Rule("/free_duration", int),
)
allow("agreement", "plate_paused")


class Parkings:
    """Keeps the rules of parking; every method runs inside the request's transaction."""

    def __init__(self, desk: Desk, orders: Orders) -> None:
        self._desk = desk
        self._world = desk.world
        self._orders = orders

    def routes(self) -> tuple[tuple[str, str, Handler], ...]:
        """Return every call about parking."""
        return (
            ("GET", "/v3/vehicle/parking/services/find", self.look_up),
            ("POST", "/v3/vehicle/parking/parkings", self.enter),
            ("POST", "/v3/vehicle/transactions/parking", self.charge),
            ("GET", "/v3/vehicle/transactions/out-trade-no/{number}", self.by_number),
        )

    def look_up(self, call: Call) -> Outcome:
        """Say whether a plate may be charged: the fault ``plate_paused`` says no."""
        query = call.query
        self._check_sub(query.get("sub_mchid", ""))
        fault = self._world.faults.take(NAME, "agreement", query.get("plate_number", ""))
        found = Outcome(
            {
                "plate_number": query.get("plate_number", ""),
                "plate_color": query.get("plate_color", ""),
                "service_open_time": rfc3339(self._world.clock.now()),
                "openid": query.get("openid", ""),
                "service_state": "PAUSE" if fault.name == "plate_paused" else "NORMAL",
            }
        )
        return spoilt(fault, lambda: found)

    def enter(self, call: Call) -> Outcome:
        """Let a car drive in; the same entrance again answers the same."""
        body = checked(call.body, _ENTER)
        self._check_sub(body["sub_mchid"])
        kept = self._desk.kept("parking", body["out_parking_no"])
        if kept is not None and kept["body"] != body:
            raise Problem(400, "INVALID_REQUEST", "商户入场编号重复")
        if kept is None:
            fault = self._world.faults.take(NAME, "agreement", body["plate_number"])
            blocked = fault.name == "plate_paused"
            kept = {"body": body, "id": secrets.token_hex(10).upper(), "blocked": blocked}
            self._desk.keep("parking", body["out_parking_no"], kept)
            self._desk.keep("parking-id", kept["id"], {"number": body["out_parking_no"]})
        shown = ("out_parking_no", "plate_number", "plate_color", "start_time", "parking_name")
        content = {"id": kept["id"], **{name: body[name] for name in shown}}
        content |= {"free_duration": body["free_duration"], "state": "NORMAL"}
        if kept["blocked"]:
            content |= {"state": "BLOCKED", "block_reason": "PAUSE"}
        return Outcome(content)

    def block(self, number: str, *, blocked: bool) -> dict[str, Any]:
        """Let a plate stop or start being chargeable while its car is inside, and tell of it."""
        kept = self._desk.kept("parking", number)
        if kept is None:
            raise Refused("no car drove in under this number")
        kept["blocked"] = blocked
        self._desk.keep("parking", number, kept)
        body, state = kept["body"], "BLOCKED" if blocked else "NORMAL"
        shown = ("out_parking_no", "plate_number", "plate_color", "start_time", "parking_name")
        content = {
            "sp_mchid": self._desk.vault.mchid,
            "parking_id": kept["id"],
            **{name: body[name] for name in (*shown, "free_duration")},
            "parking_state": state,
            "state_update_time": rfc3339(self._world.clock.now()),
        }
        event = Event("vehicle", "VEHICLE.ENTRANCE_STATE_CHANGE", "停车入场状态变更", content)
        self._desk.notify(number, body["notify_url"], event)
        return {"number": number, "state": state}

    def charge(self, call: Call) -> Outcome:
        """Accept a fee; it is taken a little later."""
        body = checked(call.body, _CHARGE)
        self._check_sub(body["sub_mchid"])
        fault = self._world.faults.take(NAME, "pay", body["out_trade_no"])
        return spoilt(fault, lambda: self._charge(body, fault))

    def by_number(self, call: Call) -> Outcome:
        """Say what became of a fee."""
        self._check_sub(call.query.get("sub_mchid", ""))
        number = call.variables["number"]
        fault = self._world.faults.take(NAME, "query", number)
        return spoilt(fault, lambda: Outcome(_shown(self._orders.existing(number))))

    def take(self, number: str, moment: datetime) -> None:
        """Take a fee, as was put on the agenda."""
        trade = self._orders.find(number)
        if trade is not None and trade.state == "waiting":
            self._pay(trade, moment)

    def _charge(self, body: dict[str, Any], fault: Fault) -> Outcome:
        known = self._orders.find(body["out_trade_no"])
        order: dict[str, Any] = {
            "sp_appid": body["appid"],
            "sp_mchid": self._desk.vault.mchid,
            **{name: body[name] for name in ("sub_appid", "sub_mchid") if name in body},
            **{name: body[name] for name in ("out_trade_no", "description", "amount")},
            "notify_url": body["notify_url"],
            "parking_info": body["parking_info"],
        }
        if known is not None and known.extra["body"] != order:
            raise Problem(403, "OUT_TRADE_NO_USED", "商户订单号重复")
        if self._desk.kept("parking-id", body["parking_info"]["parking_id"]) is None:
            raise parameter_error("/parking_info/parking_id", "", "停车入场不存在")
        if known is None:
            known = self._orders.new(order, "parking")
            when = self._world.clock.now() + timedelta(seconds=AFTER_S)
            self._world.courier.at(NAME, "parking", known.number, when=when)
        if fault.name.endswith("_paid") and known.state == "waiting":
            known = self._pay(known, self._world.clock.now())
        return Outcome(_shown(known))

    def _pay(self, trade: Trade, moment: datetime) -> Trade:
        paid = self._orders.pay(trade, moment, quiet=True)
        event = Event("payment", "TRANSACTION.SUCCESS", "支付成功", _shown(paid))
        self._desk.notify(paid.number, paid.notify_url, event)
        return paid

    def _check_sub(self, sub_mchid: str) -> None:
        if sub_mchid != self._desk.vault.sub_mchid:
            raise parameter_error("/sub_mchid", sub_mchid, "特约商户号未绑定")


def _shown(trade: Trade) -> dict[str, Any]:
    """Return the fee object, which has names of its own."""
    body = trade.extra["body"]
    content: dict[str, Any] = {
        "appid": body["sp_appid"],
        **{name: body[name] for name in ("sub_appid", "sp_mchid", "sub_mchid") if name in body},
        "out_trade_no": trade.number,
        "description": trade.subject,
        "create_time": rfc3339(trade.created_at),
        "trade_state": "SUCCESS" if trade.state == "paid" else "ACCEPTED",
        "trade_scene": "PARKING",
        "parking_info": body["parking_info"],
        "payer": {"openid": trade.payer},
        "amount": {"total": trade.amount, "currency": trade.currency},
    }
    if trade.paid_at is not None:
        content |= {
            "transaction_id": trade.ref,
            "success_time": rfc3339(trade.paid_at),
            "bank_type": "OTHERS",
            "user_repaid": "N",
        }
    return content

"""WeChat Pay's combined orders: several orders that a customer pays in one go.

Each part is a trade of its own, paid and told of together; what the customer is given belongs to
the first part.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

from msgspec.structs import replace

from tongbao_sandbox.model import Fault, Trade
from tongbao_sandbox.wechat_desk import NAME, Desk, combined_object
from tongbao_sandbox.wechat_orders import LATE_SUCCESS_S, Orders, given_as
from tongbao_sandbox.wechat_wire import (
    Call,
    Handler,
    Outcome,
    Problem,
    Rule,
    checked,
    is_notify_url,
    is_number,
    parameter_error,
    read_time,
    spoilt,
)

PARTS_MAX: Final = 50
_PATH: Final = "/v3/combine-transactions"
_RULES: Final = (
    Rule("/combine_appid", str, length_max=32),
    Rule("/combine_mchid", str, length_max=32),
    Rule("/combine_out_trade_no", str, check=is_number),
    Rule("/sub_orders", list),
    Rule("/scene_info", dict, required=False),
    Rule("/combine_payer_info", dict, required=False),
    Rule("/time_expire", str, required=False, check=lambda value: read_time(value) is not None),
    Rule("/notify_url", str, length_max=256, check=is_notify_url),
)


class Combined:
    """Keeps the rules of combined orders; methods run inside the request's transaction."""

    def __init__(self, desk: Desk, orders: Orders) -> None:
        self._desk = desk
        self._world = desk.world
        self._orders = orders

    def routes(self) -> tuple[tuple[str, str, Handler], ...]:
        """Return every call about combined orders."""
        number = f"{_PATH}/out-trade-no/{{number}}"
        return (
            *(
                ("POST", f"{_PATH}/{product}", self.placing(product))
                for product in ("native", "jsapi", "app", "h5")
            ),
            ("GET", number, self.by_number),
            ("POST", f"{number}/close", self.close),
        )

    def placing(self, product: str) -> Handler:
        """Return what places a combined order of a product; the same again answers the same."""

        def place(call: Call) -> Outcome:
            body = checked(call.body, _RULES)
            self._check(body, product)
            fault = self._world.faults.take(NAME, "pay", body["combine_out_trade_no"])
            return spoilt(fault, lambda: self._place(call, body, product, fault))

        return place

    def by_number(self, call: Call) -> Outcome:
        """Say what became of all parts."""
        number = call.variables["number"]
        fault = self._world.faults.take(NAME, "query", number)

        def answer() -> Outcome:
            kept, trades = self._existing(number)
            return Outcome(combined_object(kept, trades))

        return spoilt(fault, answer)

    def close(self, call: Call) -> Outcome:
        """Make all parts unpayable."""
        body = checked(call.body, (Rule("/combine_appid", str), Rule("/sub_orders", list)))
        kept, trades = self._existing(call.variables["number"])
        if [part.get("out_trade_no") for part in body["sub_orders"]] != kept["numbers"]:
            raise parameter_error("/sub_orders", "", "子单与合单不一致")
        fault = self._world.faults.take(NAME, "close", call.variables["number"])

        def end() -> Outcome:
            if any(trade.state == "paid" for trade in trades):
                raise Problem(400, "ORDERPAID", "该订单已支付")
            for trade in trades:
                if trade.state == "waiting":
                    ended = replace(trade, state="closed", closed_at=self._world.clock.now())
                    self._world.state.put_trade(ended)
            if fault.name == "late_success":  # one of them stands for all
                later = self._world.clock.now() + timedelta(seconds=fault.seconds(LATE_SUCCESS_S))
                self._world.courier.at(NAME, "late_success", trades[0].number, when=later)
            return Outcome(None, status=204)

        return spoilt(fault, end)

    def _check(self, body: dict[str, Any], product: str) -> None:
        vault = self._desk.vault
        if body["combine_mchid"] != vault.mchid:
            raise parameter_error("/combine_mchid", body["combine_mchid"], "商户号不一致")
        if body["combine_appid"] != vault.appid:
            raise Problem(400, "APPID_MCHID_NOT_MATCH", "appid和mch_id不匹配")
        if product == "jsapi" and not (body.get("combine_payer_info") or {}).get("openid"):
            raise parameter_error("/combine_payer_info/openid", "", "必填参数缺失")
        if not 2 <= len(body["sub_orders"]) <= PARTS_MAX:
            raise parameter_error("/sub_orders", len(body["sub_orders"]), "子单数量不符合要求")
        for place, part in enumerate(body["sub_orders"]):
            self._check_part(part, f"/sub_orders/{place}")

    def _check_part(self, part: dict[str, Any], start: str) -> None:
        vault, amount = self._desk.vault, part.get("amount") or {}
        total = amount.get("total_amount")
        fits = {
            "mchid": part.get("mchid") == vault.mchid,
            "sub_mchid": part.get("sub_mchid", vault.sub_mchid) == vault.sub_mchid,
            "out_trade_no": is_number(str(part.get("out_trade_no", ""))),
            "description": bool(part.get("description")),
            "attach": bool(part.get("attach")),
            "amount/total_amount": isinstance(total, int) and total > 0,
        }
        for name, is_right in fits.items():
            if not is_right:
                raise parameter_error(f"{start}/{name}", part.get(name, ""), "参数值不符合规则")

    def _place(self, call: Call, body: dict[str, Any], product: str, fault: Fault) -> Outcome:
        number = body["combine_out_trade_no"]
        kept = self._desk.kept("combine", number)
        if kept is None:
            if any(self._orders.find(part["out_trade_no"]) for part in body["sub_orders"]):
                raise Problem(403, "OUT_TRADE_NO_USED", "商户订单号重复")
            trades = [
                self._orders.new(self._part(body, part, place), product, call.origin)
                for place, part in enumerate(body["sub_orders"])
            ]
            kept = {
                "body": body,
                "product": product,
                "numbers": [trade.number for trade in trades],
            }
            self._desk.keep("combine", number, kept)
        elif kept["body"] != body or kept["product"] != product:
            raise Problem(403, "OUT_TRADE_NO_USED", "商户订单号重复")
        first = self._orders.existing(kept["numbers"][0])
        if first.state == "paid":
            raise Problem(400, "ORDERPAID", "该订单已支付")
        if first.state == "closed":
            raise Problem(400, "ORDER_CLOSED", "订单已关闭，请重新下单")
        if fault.name.endswith("_paid"):
            self._orders.pay(first)
        return Outcome({given_as(product): first.token})

    def _part(self, body: dict[str, Any], part: dict[str, Any], place: int) -> dict[str, Any]:
        """Return one part as the body of an order of its own."""
        ids = {"appid": body["combine_appid"], "mchid": part["mchid"]}
        if "sub_mchid" in part:
            ids = {
                "sp_appid": body["combine_appid"],
                "sp_mchid": part["mchid"],
                "sub_mchid": part["sub_mchid"],
            }
        optional = {
            "time_expire": body.get("time_expire"),
            "settle_info": part.get("settle_info"),
            "scene_info": body.get("scene_info"),
            "payer": body.get("combine_payer_info"),
        }
        return {
            **ids,
            **{name: value for name, value in optional.items() if value},
            "description": part["description"],
            "out_trade_no": part["out_trade_no"],
            "attach": part["attach"],
            "notify_url": body["notify_url"],
            "amount": {"total": part["amount"]["total_amount"], "currency": "CNY"},
            "combine": body["combine_out_trade_no"],
            "is_first": place == 0,
        }

    def _existing(self, number: str) -> tuple[dict[str, Any], list[Trade]]:
        kept = self._desk.kept("combine", number)
        if kept is None:
            raise Problem(404, "ORDER_NOT_EXIST", "订单不存在")
        return kept, [self._orders.existing(part) for part in kept["numbers"]]

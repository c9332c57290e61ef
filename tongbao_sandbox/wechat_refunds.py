"""WeChat Pay's refunds: asked for, going through, done, or stuck."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final

from msgspec.structs import replace

from tongbao_sandbox import magic
from tongbao_sandbox.faults import allow
from tongbao_sandbox.model import Fault, Refund, RefundState, Trade
from tongbao_sandbox.seam import Refused
from tongbao_sandbox.wechat_desk import (
    NAME,
    REFUND_STATES,
    Desk,
    Event,
    refund_object,
    refund_resource,
)
from tongbao_sandbox.wechat_orders import Orders
from tongbao_sandbox.wechat_wire import (
    Call,
    Outcome,
    Problem,
    Rule,
    checked,
    is_notify_url,
    is_number,
    is_positive,
    is_refund_number,
    parameter_error,
    spoilt,
)

REFUND_AFTER_S: Final = 1.0
_ABNORMAL_TO: Final = frozenset({"USER_BANK_CARD", "MERCHANT_BANK_CARD"})
"""Where a refund goes that the customer's account cannot take."""
REFUNDS_MAX: Final = 50
"""So many refunds one order may have."""
_SUMMARY: Final = {
    "done": ("REFUND.SUCCESS", "退款成功"),
    "abnormal": ("REFUND.ABNORMAL", "退款异常"),
    "closed": ("REFUND.CLOSED", "退款关闭"),
}
_SAME: Final = ("out_trade_no", "transaction_id", "amount", "reason", "notify_url")
"""What a repeated request must say again to be the same request."""

RULES: Final = (
    Rule("/sub_mchid", str, required=False, length_max=32),
    Rule("/transaction_id", str, required=False, length_max=32),
    Rule("/out_trade_no", str, required=False, check=is_number),
    Rule("/out_refund_no", str, check=is_refund_number),
    Rule("/reason", str, required=False, length_max=80),
    Rule("/notify_url", str, required=False, length_max=256, check=is_notify_url),
    Rule("/funds_account", str, required=False, check=lambda value: value == "AVAILABLE"),
    Rule("/amount", dict),
    Rule("/amount/refund", int, check=is_positive),
    Rule("/amount/total", int, check=is_positive),
    Rule("/amount/currency", str, check=lambda value: value == "CNY"),
    Rule("/amount/from", list, required=False),
    Rule("/goods_detail", list, required=False),
)

allow("refund", "not_enough")
allow("pay", "time_out_made")


class Refunds:
    """Keeps the refunds' rules; every method runs inside the request's transaction."""

    def __init__(self, desk: Desk, orders: Orders) -> None:
        self._desk = desk
        self._world = desk.world
        self._orders = orders

    def ask(self, call: Call) -> Outcome:
        """Give money back; the same request again answers with the same refund."""
        body = checked(call.body, RULES)
        if not body.get("out_trade_no") and not body.get("transaction_id"):
            raise parameter_error("/transaction_id", "", "微信订单号与商户订单号不能同时为空")
        amount = body["amount"]["refund"]
        fault = magic.fault_of(self._world, NAME, "refund", body["out_refund_no"], amount)
        return spoilt(fault, lambda: self._ask(body, fault))

    def by_number(self, call: Call) -> Outcome:
        """Say what became of the refund with the merchant's number."""
        number = call.variables["number"]
        fault = self._world.faults.take(NAME, "refund_query", number)
        return spoilt(fault, lambda: self._shown(self._existing(number)))

    def apply_abnormal(self, call: Call) -> Outcome:
        """Send a stuck refund on its way again, to another account."""
        rules = (
            Rule("/out_refund_no", str),
            Rule("/type", str, check=lambda value: value in _ABNORMAL_TO),
        )
        body = checked(call.body, rules)
        refund = self._existing(body["out_refund_no"])
        if refund.ref != call.variables["id"]:
            raise Problem(404, "RESOURCE_NOT_EXISTS", "退款单不存在")
        if refund.state != "abnormal":
            raise Problem(400, "INVALID_REQUEST", "退款单状态不是退款异常")
        if body["type"] == "USER_BANK_CARD":
            for name in ("bank_account", "real_name"):
                if not self._desk.vault.reads(body.get(name, ""), call.wanted_serial):
                    raise parameter_error(f"/{name}", "", "敏感信息解密失败")
        refund = self._world.state.put_refund(replace(refund, state="processing"))
        self._finish_later(refund)
        return self._shown(refund)

    def act(self, number: str, argument: str, moment: datetime) -> None:
        """Finish a refund, as was put on the agenda."""
        refund = self._find(number)
        if refund is not None and refund.state == "processing":
            self._end(refund, "abnormal" if argument == "abnormal" else "done", moment)

    def settle(self, number: str, state: str) -> dict[str, Any]:
        """Let a person decide a refund that stays in processing; for the control API."""
        refund = self._find(number)
        if refund is None or state not in _SUMMARY:
            raise Refused("a known refund and one of done, abnormal, closed")
        final: RefundState = "done" if state == "done" else "closed"
        final = "abnormal" if state == "abnormal" else final
        refund = self._end(refund, final, self._world.clock.now())
        return {"number": number, "status": REFUND_STATES[refund.state]}

    def _ask(self, body: dict[str, Any], fault: Fault) -> Outcome:
        known = self._find(body["out_refund_no"])
        if known is not None:
            before = known.extra["body"]
            if any(before.get(name) != body.get(name) for name in _SAME):
                raise Problem(
                    400, "INVALID_REQUEST", "订单金额或退款金额与之前请求不一致，请核实后再试"
                )
            return self._shown(known)
        trade = self._refundable(body)
        if fault.name == "not_enough":
            raise Problem(403, "NOT_ENOUGH", "基本账户余额不足，请充值后重新发起")
        now = self._world.clock.now()
        kept = ("funds_account", "from")
        sources = {**body, **body["amount"]}
        refund = self._world.state.put_refund(
            Refund(
                channel=NAME,
                trade_number=trade.number,
                number=body["out_refund_no"],
                state="processing",
                amount=body["amount"]["refund"],
                currency=trade.currency,
                created_at=now,
                ref=self._desk.refund_id(now),
                reason=body.get("reason", ""),
                notify_url=body.get("notify_url", ""),
                extra={**{name: sources[name] for name in kept if name in sources}, "body": body},
            )
        )
        self._world.state.put_trade(replace(trade, refunded=trade.refunded + refund.amount))
        if fault.name != "processing":
            self._finish_later(refund, "abnormal" if fault.name == "abnormal" else "done")
        return self._shown(refund)

    def _refundable(self, body: dict[str, Any]) -> Trade:
        """Return the order if this much more of it can be given back."""
        if ref := body.get("transaction_id"):
            trade = self._world.state.trade_by_ref(NAME, ref)
        else:
            trade = self._orders.find(body["out_trade_no"])
        if trade is None:
            raise Problem(404, "RESOURCE_NOT_EXISTS", "原订单不存在")
        self._desk.check_sub(body.get("sub_mchid"), trade)
        if trade.state != "paid":
            raise Problem(400, "INVALID_REQUEST", "订单状态不支持退款")
        amount = body["amount"]
        if amount["total"] != trade.amount:
            raise Problem(400, "INVALID_REQUEST", "订单金额与原订单不一致，请核实后再试")
        if trade.refunded + amount["refund"] > trade.amount:
            raise Problem(400, "INVALID_REQUEST", "累计退款金额大于支付金额")
        if len(self._world.state.refunds_of(NAME, trade.number)) >= REFUNDS_MAX:
            raise Problem(400, "INVALID_REQUEST", "部分退款次数超过限制")
        return trade

    def _finish_later(self, refund: Refund, state: str = "done") -> None:
        after_s = float(self._world.setting("wechat.refund_after_s", REFUND_AFTER_S))
        when = self._world.clock.now() + timedelta(seconds=after_s)
        self._world.courier.at(NAME, "refund", refund.number, when=when, argument=state)

    def _end(self, refund: Refund, state: RefundState, moment: datetime) -> Refund:
        trade = self._orders.existing(refund.trade_number)
        done_at = moment if state == "done" else None
        refund = self._world.state.put_refund(replace(refund, state=state, done_at=done_at))
        if state == "closed":
            trade = self._world.state.put_trade(
                replace(trade, refunded=trade.refunded - refund.amount)
            )
        name, summary = _SUMMARY[state]
        event = Event("refund", name, summary, refund_resource(refund, trade))
        self._desk.notify(refund.number, refund.notify_url, event)
        return refund

    def _find(self, number: str) -> Refund | None:
        for refund in self._world.state.refunds_numbered(NAME, number):
            if not refund.extra.get("reversal"):
                return refund
        return None

    def _existing(self, number: str) -> Refund:
        refund = self._find(number)
        if refund is None:
            raise Problem(404, "RESOURCE_NOT_EXISTS", "退款单不存在")
        return refund

    def _shown(self, refund: Refund) -> Outcome:
        return Outcome(refund_object(refund, self._orders.existing(refund.trade_number)))

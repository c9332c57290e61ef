"""WeChat Pay's orders: placed, scanned, paid, queried, closed, reversed."""

from __future__ import annotations

import secrets
import string
from datetime import datetime, timedelta
from typing import Any, Final

from msgspec.structs import replace

from tongbao_sandbox import magic
from tongbao_sandbox.clock import china
from tongbao_sandbox.model import Fault, PaymentCode, Refund, Trade
from tongbao_sandbox.seam import Refused
from tongbao_sandbox.wechat_desk import IDS, NAME, Desk, Event, combined_object, ids_of, transaction
from tongbao_sandbox.wechat_rules import LINK_FOR, MODES, openid_names, rules_of
from tongbao_sandbox.wechat_wire import (
    Call,
    Handler,
    Outcome,
    Problem,
    at,
    checked,
    parameter_error,
    read_time,
    spoilt,
)

OPEN_FOR: Final = timedelta(days=7)
"""An unpaid order without ``time_expire`` closes after this."""
PAYMENT_CODE_FOR: Final = timedelta(seconds=60)
LATE_SUCCESS_S: Final = 5.0

_LETTERS: Final = string.ascii_letters + string.digits


class Orders:
    """Keeps the orders' rules; every method runs inside the request's transaction."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._world = desk.world

    # What merchants call --------------------------------------------------------------------

    def routes(self, path: str, *, partner: bool) -> tuple[tuple[str, str, Handler], ...]:
        """Return every call about orders, below a path; a partner has one of its own."""
        number = f"{path}/out-trade-no/{{number}}"
        return (
            *(
                ("POST", f"{path}/{product}", self.placing(product, partner=partner))
                for product in ("native", "codepay", "jsapi", "app", "h5")
            ),
            ("GET", f"{path}/id/{{id}}", self.by_transaction_id),
            ("GET", number, self.by_number),
            ("POST", f"{number}/close", self.close),
            ("POST", f"{number}/reverse", self.reverse),
        )

    def placing(self, product: str, *, partner: bool) -> Handler:
        """Return what places an order of a product; the same order again answers the same."""
        rules = rules_of(product, partner=partner)

        def place(call: Call) -> Outcome:
            body = checked(call.body, rules)
            self._desk.check_body(body)
            self._check_app(body)
            if product == "jsapi" and not any(at(body, f"/payer/{n}") for n in openid_names(body)):
                raise parameter_error("/payer/openid", "", "必填参数缺失")
            total = body["amount"]["total"]
            fault = magic.fault_of(self._world, NAME, "pay", body["out_trade_no"], total)
            if fault.name == "new_key":
                self._desk.new_key()
            return spoilt(fault, lambda: self._place(call, body, product, fault))

        return place

    def by_number(self, call: Call) -> Outcome:
        """Say what became of the order with the merchant's number."""
        self._desk.check_query(call)
        return self._query(self.find(call.variables["number"]), call.variables["number"])

    def by_transaction_id(self, call: Call) -> Outcome:
        """Say what became of the order with our number."""
        self._desk.check_query(call)
        trade = self._world.state.trade_by_ref(NAME, call.variables["id"])
        return self._query(trade, trade.number if trade else "")

    def close(self, call: Call) -> Outcome:
        """Make an unpaid order unpayable."""
        self._desk.check_body(checked(call.body, ()))
        number = call.variables["number"]
        trade = self.existing(number)
        fault = self._world.faults.take(NAME, "close", number)
        if fault.name == "paid_just_before" and trade.state == "waiting":
            trade = self.pay(trade)
        return spoilt(fault, lambda: self._close(trade, fault))

    def reverse(self, call: Call) -> Outcome:
        """Undo a payment by code, whatever became of it; money that moved goes back."""
        body = checked(call.body, ())
        self._desk.check_body(body)
        self._check_app(body)
        number = call.variables["number"]
        trade = self.existing(number)
        if trade.mode != "payment_code":
            raise Problem(400, "INVALID_REQUEST", "订单的支付场景不支持该请求")
        fault = self._world.faults.take(NAME, "close", number)
        if fault.name == "paid_just_before" and trade.state in {"waiting", "asking"}:
            trade = self.pay(trade)
        return spoilt(fault, lambda: self._reverse(trade, fault))

    # What customers do ----------------------------------------------------------------------

    def scanned(self, trade: Trade, action: str) -> Trade:
        """Let a customer meet the order: pay it, decline it or walk away."""
        trade = self._aged(trade)
        if trade.state not in {"waiting", "asking"}:
            raise Refused(f"the order is {trade.state}")
        if action == "abandon":
            return trade
        if action == "pay" and not magic.is_declined(trade.amount):
            good_for = LINK_FOR.get(trade.mode)
            if trade.state == "waiting" and good_for and self._now() > trade.created_at + good_for:
                raise Refused("what the customer was given is older than two hours, or 5 minutes")
            return self.pay(trade)
        # A declined scan leaves the order open for another try; a refused password does not.
        if trade.mode != "payment_code":
            return self._aged(self._world.state.put_trade(replace(trade, state="waiting")))
        return self._fail(trade, "用户取消支付")

    def new_payment_code(self) -> str:
        """Return 18 fresh digits that begin with 10 to 15."""
        while True:
            head = 10 + secrets.randbelow(6)
            code = f"{head}{secrets.randbelow(10**16):016d}"
            if self._world.state.code(code) is None:
                return code

    def act(self, action: str, number: str, moment: datetime) -> None:
        """Do what was put on the agenda: a password typed, a customer gone, a late success."""
        trade = self.find(number)
        if trade is None:
            return
        if action == "password" and trade.state == "asking":
            self.pay(trade, moment)
        elif action == "cancel" and trade.state == "asking":
            self._fail(trade, "用户取消支付")
        elif action == "late_success" and trade.state in {"closed", "reversed"}:
            self.pay(trade, moment)

    # Used by the other parts of WeChat Pay ---------------------------------------------------

    def find(self, number: str) -> Trade | None:
        """Return the order with the merchant's number, its expiry looked at."""
        trade = self._world.state.trade(NAME, number)
        return None if trade is None else self._aged(trade)

    def existing(self, number: str) -> Trade:
        """Return the order or say 404."""
        trade = self.find(number)
        if trade is None:
            raise Problem(404, "ORDER_NOT_EXIST", "订单不存在")
        return trade

    def pay(self, trade: Trade, moment: datetime | None = None, *, quiet: bool = False) -> Trade:
        """Take the customer's money and tell the merchant; of a combined order, for all parts."""
        now, combined = moment or self._now(), trade.extra.get("combine", "")
        kept = self._desk.kept("combine", combined) if combined else None
        if kept is None:
            paid = self._paid(trade, now)
            if not quiet:
                self._desk.notify(paid.number, paid.notify_url, _success(paid))
            return paid
        trades = [self._paid(self.existing(number), now) for number in kept["numbers"]]
        content = combined_object(kept, trades)
        event = Event("payment", "TRANSACTION.SUCCESS", "支付成功", content)
        self._desk.notify(combined, trade.notify_url, event)
        return trades[0]

    def _paid(self, trade: Trade, now: datetime) -> Trade:
        bank_type = self._world.setting("wechat.bank_type", "OTHERS")
        return self._world.state.put_trade(
            replace(
                trade,
                state="paid",
                paid_at=now,
                ref=trade.ref or self._desk.transaction_id(now),
                payer=trade.payer or "o" + secrets.token_urlsafe(21)[:27],
                extra={**trade.extra, "bank_type": bank_type},
            )
        )

    def fail_deduction(self, trade: Trade) -> Trade:
        """Find no money for a deduction, and tell the merchant so."""
        failed = self._fail(trade, "扣款失败，余额不足")
        event = Event("payment", "TRANSACTION.FAIL", "支付失败", transaction(failed))
        self._desk.notify(failed.number, failed.notify_url, event)
        return failed

    def probe(self, trade: Trade) -> None:
        """Send a signature probe to the order's callback address."""
        self._desk.probe(trade.notify_url, _success(trade))

    # Placing ----------------------------------------------------------------------------------

    def _check_app(self, body: dict[str, Any]) -> None:
        """Refuse an app that is not bound to the merchant."""
        ours = self._desk.vault.appid
        if body.get("appid", ours) != ours or body.get("sp_appid", ours) != ours:
            raise Problem(400, "APPID_MCHID_NOT_MATCH", "appid和mch_id不匹配")

    def _place(self, call: Call, body: dict[str, Any], product: str, fault: Fault) -> Outcome:
        known = self.find(body["out_trade_no"])
        if known is not None and (known.extra["body"] != body or known.extra["product"] != product):
            raise Problem(403, "OUT_TRADE_NO_USED", "商户订单号重复")
        pays = fault.name.endswith("_paid")
        if product == "codepay":
            return self._codepay(body, known, fault)
        trade = known or self.new(body, product, call.origin)
        if fault.name == "processing":
            trade = self._hold(trade, fault)
        if pays and trade.state == "waiting":
            self.pay(trade)
        elif trade.state == "closed":
            raise Problem(400, "ORDER_CLOSED", "订单已关闭，请重新下单")
        elif trade.state == "paid":
            raise Problem(400, "ORDERPAID", "该订单已支付")
        return Outcome({given_as(product): trade.token})

    def new(self, body: dict[str, Any], product: str, origin: str = "") -> Trade:
        """Make an unpaid order of a product from its body."""
        now = self._now()
        expires = read_time(body.get("time_expire", "")) or now + OPEN_FOR
        if expires <= now:
            raise parameter_error("/time_expire", body["time_expire"], "订单失效时间早于当前时间")
        kept = (*IDS, "attach", "scene_info", "settle_info", "combine")
        total = body["amount"]["total"]
        magic.script_callback(self._world, NAME, body["out_trade_no"], total)
        named = (at(body, f"/payer/{name}") for name in ("openid", "sub_openid", "sp_openid"))
        return self._world.state.put_trade(
            Trade(
                channel=NAME,
                number=body["out_trade_no"],
                mode=MODES[product],
                state="waiting",
                amount=total,
                currency=body["amount"].get("currency") or "CNY",
                subject=body["description"],
                created_at=now,
                expires_at=expires,
                token=self._token(product, now, origin) if body.get("is_first", True) else "",
                payer=next((openid for openid in named if openid), ""),
                notify_url=body.get("notify_url", ""),
                extra={
                    **{name: body[name] for name in kept if name in body},
                    "body": body,
                    "product": product,
                },
            )
        )

    def _token(self, product: str, now: datetime, origin: str) -> str:
        """Return what the customer, or the app, is given to pay with."""
        slug = "".join(secrets.choice(_LETTERS) for _ in range(9))
        prepay_id = f"wx{china(now):%d%H%M%S}{secrets.token_hex(13)}"
        match product:
            case "native":
                return f"weixin://wxpay/bizpayurl?pr={slug}"
            case "h5":
                return f"{origin}/h5?prepay_id={prepay_id}&package={secrets.randbelow(10**10)}"
            case "jsapi" | "app":
                return prepay_id
            case _:
                return ""

    def _codepay(self, body: dict[str, Any], known: Trade | None, fault: Fault) -> Outcome:
        trade = known or self._charge(body, self._use_code(body), fault)
        if trade.state == "failed":
            raise Problem(403, *trade.extra["decline"])
        if trade.state in {"closed", "reversed"}:
            raise Problem(400, "ORDER_CLOSED", "订单已关闭，请重新下单")
        if trade.state == "asking" and self._world.setting("wechat.userpaying", "") == "error":
            content = {"code": "USERPAYING", "message": "需要用户输入支付密码"}
            return Outcome(content, status=202)
        return Outcome(transaction(trade))

    def _use_code(self, body: dict[str, Any]) -> PaymentCode:
        """Return the customer's code and mark it used, or refuse it: no order comes to be."""
        digits = body["payer"]["auth_code"]
        if len(digits) != 18 or not digits.isdigit() or not 10 <= int(digits[:2]) <= 15:
            raise parameter_error("/payer/auth_code", digits, "付款码格式错误")
        code = self._world.state.code(digits)
        if code is None or code.channel != NAME:
            raise Problem(400, "AUTH_CODE_INVALID", "付款码无效，请重新扫码")
        if code.used_for:
            raise Problem(400, "AUTH_CODE_INVALID", "每个付款码仅限使用一次，请刷新再试")
        if self._now() > code.made_at + PAYMENT_CODE_FOR:
            raise Problem(400, "AUTH_CODE_EXPIRED", "付款码已过期，请刷新再试")
        return self._world.state.put_code(replace(code, used_for=body["out_trade_no"]))

    def _hold(self, trade: Trade, fault: Fault) -> Trade:
        """Keep a payment in processing until somebody decides it, or for the fault's seconds."""
        if trade.state not in {"waiting", "asking"}:
            return trade
        if fault.argument:
            when = self._now() + timedelta(seconds=fault.seconds())
            self._world.courier.at(NAME, "password", trade.number, when=when)
        held = {**trade.extra, "held": True}
        return self._world.state.put_trade(replace(trade, state="asking", extra=held))

    def _charge(self, body: dict[str, Any], code: PaymentCode, fault: Fault) -> Trade:
        trade = self.new(body, "codepay")
        if fault.name == "processing":
            return self._hold(trade, fault)
        if fault.name == "time_out_made":
            return self._world.state.put_trade(replace(trade, state="asking"))
        is_poor = code.behaviour == "decline" or magic.is_declined(trade.amount)
        if fault.name.endswith("_paid") or (code.behaviour == "pay" and not is_poor):
            return self.pay(trade)
        if is_poor:
            return self._fail(trade, "余额不足", ("NOT_ENOUGH", "用户账号余额不足"))
        soon = self._now() + timedelta(seconds=code.after_s)
        if code.behaviour == "ask_then_pay":
            self._world.courier.at(NAME, "password", trade.number, when=soon)
        elif code.behaviour == "cancel":
            self._world.courier.at(NAME, "cancel", trade.number, when=soon)
        return self._world.state.put_trade(replace(trade, state="asking"))

    def _fail(
        self,
        trade: Trade,
        description: str,
        decline: tuple[str, str] = ("TRADE_ERROR", "支付失败，请撤销订单后重新下单"),
    ) -> Trade:
        extra = {**trade.extra, "decline": decline, "trade_state_desc": description}
        return self._world.state.put_trade(
            replace(trade, state="failed", closed_at=self._now(), extra=extra)
        )

    # Querying and closing ---------------------------------------------------------------------

    def _query(self, trade: Trade | None, number: str) -> Outcome:
        fault = self._world.faults.take(NAME, "query", number)
        return spoilt(fault, lambda: self._answer_query(trade, fault))

    def _answer_query(self, trade: Trade | None, fault: Fault) -> Outcome:
        if trade is None:
            raise Problem(404, "ORDER_NOT_EXIST", "订单不存在")
        if fault.name == "stale":
            before = "asking" if trade.mode == "payment_code" else "waiting"
            trade = replace(trade, state=before, paid_at=None, refunded=0)
        return Outcome(transaction(trade))

    def _close(self, trade: Trade, fault: Fault) -> Outcome:
        if trade.state == "paid":
            raise Problem(400, "ORDERPAID", "该订单已支付")
        if trade.state == "asking":
            raise Problem(400, "USERPAYING", "用户支付中，请稍后查询订单")
        if trade.state == "waiting":
            self._end(trade, "closed", fault)
        return Outcome(None, status=204)

    def _reverse(self, trade: Trade, fault: Fault) -> Outcome:
        if trade.refunded:
            raise Problem(403, "TRADE_ERROR", "订单已发生退款，不能撤销")
        if trade.state == "paid":
            self._give_back(trade)
        elif trade.state != "reversed":
            self._end(trade, "reversed", fault)
        return Outcome({**ids_of(trade), "out_trade_no": trade.number})

    def _end(self, trade: Trade, state: Any, fault: Fault) -> None:
        now = self._now()
        self._world.state.put_trade(replace(trade, state=state, closed_at=now))
        if fault.name == "late_success":
            later = now + timedelta(seconds=fault.seconds(LATE_SUCCESS_S))
            self._world.courier.at(NAME, "late_success", trade.number, when=later)

    def _give_back(self, trade: Trade) -> None:
        """Reverse a paid order. The bill shows it as a refund, so it is kept as one."""
        now = self._now()
        self._world.state.put_trade(replace(trade, state="reversed", closed_at=now))
        self._world.state.put_refund(
            Refund(
                channel=NAME,
                trade_number=trade.number,
                number=trade.number,
                state="done",
                amount=trade.amount,
                currency=trade.currency,
                created_at=now,
                ref=self._desk.refund_id(now),
                done_at=now,
                extra={"reversal": True},
            )
        )

    # Small things -----------------------------------------------------------------------------

    def _now(self) -> datetime:
        return self._world.clock.now()

    def _aged(self, trade: Trade) -> Trade:
        """Close the order if its time ran out since anybody last looked."""
        if trade.state != "waiting" or self._now() < trade.expires_at:
            return trade
        return self._world.state.put_trade(
            replace(trade, state="closed", closed_at=trade.expires_at)
        )


def given_as(product: str) -> str:
    """Return under what name the answer to an order holds what the customer pays with."""
    return {"native": "code_url", "h5": "h5_url"}.get(product, "prepay_id")


def _success(trade: Trade) -> Event:
    return Event("payment", "TRANSACTION.SUCCESS", "支付成功", transaction(trade))

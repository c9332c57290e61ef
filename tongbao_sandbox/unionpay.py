"""UnionPay, simulated: the ACP 5.1.0 gateway, its page for customers, notifications and files."""

from __future__ import annotations

import secrets
from datetime import datetime, timedelta
from typing import Any, Final
from urllib.parse import parse_qs, urlencode

from msgspec import structs

from tongbao_sandbox import faults, magic, unionpay_days, unionpay_page
from tongbao_sandbox import unionpay_trade as trades
from tongbao_sandbox.model import Callback, Fault, PaymentCode, Refund, Trade
from tongbao_sandbox.seam import Outgoing, Refused, Reply, Request, World
from tongbao_sandbox.unionpay_crypto import NAME, is_signed, rotate, signed, signer_of
from tongbao_sandbox.unionpay_wire import (
    DONE,
    Ask,
    Refusal,
    check_order,
    echoed,
    framed,
    message,
    moment,
    page,
    read_form,
)

_API: Final = "/gateway/api/"
_POINTS: Final = {"01": "pay", "02": "pay", "03": "pay", "13": "pay", "04": "refund", "76": "bill"}
_CODE_LIVES: Final = timedelta(seconds=60)
_CHARGED: Final = frozenset({NAME, "unionpay_qra"})  # a phone's code is the same at either gateway

faults.allow("pay", "time_out_made", "code")
faults.allow("query", "code")
faults.allow("refund", "not_enough", "code")
faults.allow("refund_query", "code", "stale")
faults.allow("close", "bad_signature_done", "code", "http_500_done")


class UnionPay:
    """The simulated institution; see `seam.Channel`."""

    name = NAME
    prefix = "/unionpay"
    retry_plan: tuple[float, ...] = (60.0, 120.0, 240.0, 300.0)

    def __init__(self, world: World) -> None:
        self._world = world
        self._shown = world.keys[NAME].shown

    # The gateway ------------------------------------------------------------------------------

    def answer(self, request: Request) -> Reply:
        """Answer the gateway, its page, and the file server, which is its root."""
        if request.path.startswith(unionpay_page.PATH):
            return self._page(request)
        is_file = request.path in {"", "/"}
        if request.method != "POST" or not (is_file or request.path.startswith(_API)):
            return Reply(404)
        ask = Ask(read_form(request), request.path.removeprefix(_API), request.origin)
        try:
            self._check(ask)
        except Refusal as refusal:
            return self._framed(ask, {}, refusal.code)
        return self._carry_out(ask)

    def _check(self, ask: Ask) -> None:
        if not is_signed(ask.fields, self._shown):
            raise Refusal("11")
        if ask.text("version") != "5.1.0" or ask.text("encoding").upper() != "UTF-8":
            raise Refusal("10")
        if ask.text("merId") != self._shown["mer_id"]:
            raise Refusal("31")
        if moment(ask.text("txnTime")) is None:
            raise Refusal("10")

    def _carry_out(self, ask: Ask) -> Reply:
        fault = self._fault(ask)
        if faults.is_lost(fault.name) or fault.name == "code":
            return self._misbehaving(ask, {}, fault.argument or "05", fault)
        if fault.name == "new_key":
            self.new_key()
        code, fields = DONE, {}
        try:
            fields = self._do(ask, fault)
        except Refusal as refusal:
            code = refusal.code
        if ask.path == "frontTransReq.do":
            return self._shown_page(ask, fault, code)
        return self._misbehaving(ask, fields, code, fault)

    def _fault(self, ask: Ask) -> Fault:
        number = ask.text("orderId")
        if ask.path == "queryTrans.do":
            is_refund = isinstance(trades.find_any(self._world, number), Refund)
            return self._world.faults.take(NAME, "refund_query" if is_refund else "query", number)
        point = _POINTS.get(ask.text("txnType"), "close")
        if point == "bill":
            return self._world.faults.take(NAME, point, "", unionpay_days.CALL_FAULTS)
        if point == "close":
            return self._world.faults.take(NAME, point, number)
        amount = int(ask.text("txnAmt")) if ask.text("txnAmt").isdecimal() else None
        if point == "pay":
            magic.script_callback(self._world, NAME, number, amount)
        return magic.fault_of(self._world, NAME, point, number, amount)

    def _do(self, ask: Ask, fault: Fault) -> dict[str, str]:
        """Carry a request out and return what its answer says beside the code."""
        if ask.path == "queryTrans.do":
            return self._query(ask, fault)
        if ask.path in {"", "/"}:
            return unionpay_days.file_of(self._world, ask, fault)
        check_order(ask)
        mode = trades.MODES.get((ask.path, *ask.kind))
        if mode is not None:
            return self._order(ask, mode, fault)
        if ask.path != "backTransReq.do" or ask.kind[1] != "00":
            raise Refusal("32")
        if ask.kind[0] == "04":
            return self._refund(ask, fault)
        if ask.kind[0] not in {"03", "31", "32", "33"}:
            raise Refusal("32")
        return {"queryId": trades.follow(self._world, ask).ref}

    def _order(self, ask: Ask, mode: Any, fault: Fault) -> dict[str, str]:
        code = self._usable_code(ask) if mode == "payment_code" else None
        trade, is_new = trades.new_order(self._world, ask, mode)
        if code is not None and is_new:
            trade = self._charge(trade, code, fault)
        if fault.name.endswith("_paid") and trade.state in trades.OPEN:
            trade = trades.collect(self._world, trade, self._world.clock.now())
        if fault.name == "processing":
            trade = self._keep_processing(trade, fault)
        if trade.state == "failed":
            raise Refusal(trade.extra["code"])
        names = {"qr": "qrCode", "app": "tn"}
        return {names[mode]: trade.token} if mode in names else {}

    def _charge(self, trade: Trade, code: PaymentCode, fault: Fault) -> Trade:
        self._world.state.put_code(structs.replace(code, used_for=trade.number))
        now = self._world.clock.now()
        if fault.name.endswith("_paid") or fault.name in {"processing", "time_out_made"}:
            return trade
        match "decline" if magic.is_declined(trade.amount) else code.behaviour:
            case "pay":
                return trades.collect(self._world, trade, now)
            case "decline":
                return trades.fail(self._world, trade, "64", finally_=True)
            case "ask_then_pay" | "cancel" as later:
                action = "pay" if later == "ask_then_pay" else "quit"
                when = now + timedelta(seconds=code.after_s)
                self._world.courier.at(NAME, action, trade.number, when=when)
        return trade

    def _usable_code(self, ask: Ask) -> PaymentCode:
        code = self._world.state.code(ask.text("qrNo"))
        if code is None or code.channel not in _CHARGED:
            raise Refusal("88")
        is_repeat = code.used_for == ask.text("orderId")
        is_old = code.made_at + _CODE_LIVES <= self._world.clock.now()
        if not is_repeat and (code.used_for or is_old):
            raise Refusal("86")
        return code

    def _keep_processing(self, trade: Trade, fault: Fault) -> Trade:
        if fault.argument:
            when = self._world.clock.now() + timedelta(seconds=fault.seconds())
            self._world.courier.at(NAME, "pay", trade.number, when=when)
        held = {**trade.extra, "code": "05", "opened": True, "held": True}
        far = self._world.clock.now() + timedelta(days=30)
        return self._world.state.put_trade(
            structs.replace(trade, state="asking", expires_at=far, extra=held)
        )

    def _refund(self, ask: Ask, fault: Fault) -> dict[str, str]:
        _, refund = trades.new_refund(self._world, ask)
        match fault.name:
            case "processing":
                pass
            case "abnormal":
                trades.drop_refund(self._world, refund, "01")
            case "not_enough":
                trades.drop_refund(self._world, refund, "64")
            case _:
                after = float(self._world.setting("unionpay.refund_after_s", trades.REFUND_AFTER_S))
                when = self._world.clock.now() + timedelta(seconds=after)
                self._world.courier.at(NAME, "finish_refund", refund.number, when=when)
        return {"queryId": refund.ref}

    def _query(self, ask: Ask, fault: Fault) -> dict[str, str]:
        item = trades.find_any(self._world, ask.text("orderId"))
        if item is None or item.extra["asked"]["txnTime"] != ask.text("txnTime"):
            raise Refusal("34")
        code = trades.standing(item)
        if fault.name == "stale" and code == DONE:
            code = None if isinstance(item, Trade) and item.mode != "payment_code" else "05"
        if code is None:
            raise Refusal("34")
        fields = {**trades.told(item), "origRespCode": code, "origRespMsg": message(code)}
        if code != DONE:
            for name in ("settleDate", "settleAmt", "settleCurrencyCode"):
                fields.pop(name)
        return fields

    # How it answers ---------------------------------------------------------------------------

    def _framed(
        self, ask: Ask, fields: dict[str, str], code: str, *, forged: bool = False
    ) -> Reply:
        whole = {**echoed(ask), **fields, "respCode": code, "respMsg": message(code)}
        return framed(self._signed(whole, ask.text("signMethod") or "01", forged=forged))

    def _signed(self, fields: dict[str, str], method: str, *, forged: bool) -> dict[str, str]:
        key = secrets.token_hex(16) if forged else self._shown["secure_key"]
        return signed(fields, method, key=key, signer=signer_of(self._world, forged=forged))

    def _misbehaving(self, ask: Ask, fields: dict[str, str], code: str, fault: Fault) -> Reply:
        """Return the reply as the scripted fault leaves it."""
        kind = fault.name
        if kind.startswith("http_5"):
            status, told = faults.error_page(kind)
            return Reply(status, (("content-type", "text/html"),), told)
        if kind == "http_429":
            return Reply(429)
        reply = self._framed(ask, fields, code, forged=kind.startswith("bad_signature"))
        if kind.startswith("time_out"):
            return structs.replace(reply, ending="hold")
        if kind == "reset":
            return structs.replace(reply, ending="reset")
        return structs.replace(reply, delay_s=fault.seconds(3)) if kind == "slow" else reply

    # The page ---------------------------------------------------------------------------------

    def _shown_page(self, ask: Ask, fault: Fault, code: str) -> Reply:
        """Return the page a browser sees; a fault of the gateway hits it like any request."""
        if fault.name.startswith(("time_out", "http_5")):
            return self._misbehaving(ask, {}, code, fault)
        if code != DONE:
            return page(200, f"<h1>无法付款</h1><p>{message(code)}</p>")
        trade = trades.find(self._world, ask.text("orderId"))
        if trade is None:
            return Reply(404)
        return unionpay_page.shown(trades.open_up(self._world, trade), ask.origin)

    def _page(self, request: Request) -> Reply:
        trade = unionpay_page.find(self._world, request)
        if trade is None:
            return Reply(404)
        if request.method == "GET":
            return unionpay_page.shown(trade, request.origin)
        action = parse_qs(request.body.decode("latin-1")).get("action", [""])[0]
        try:
            trade = self._decide(trade, action)
        except Refused as refused:
            return page(200, f"<h1>无法付款</h1><p>{refused}</p>")
        return unionpay_page.left(trade, self._front_fields(trade), request.origin)

    def _front_fields(self, trade: Trade) -> dict[str, str]:
        """Return what the browser carries back to the merchant; it is evidence of nothing."""
        fields = {**trades.told(trade), "respCode": DONE, "respMsg": "success"}
        return self._signed(fields, trade.extra["asked"]["signMethod"], forged=False)

    # Notifications ------------------------------------------------------------------------------

    def outgoing(self, callback: Callback) -> Outgoing:
        """Sign a notification now; a forged one is another company's of the same authority."""
        is_forged = callback.variant != "genuine"
        content = callback.content
        fields = self._signed(content["fields"], content["method"], forged=is_forged)
        headers = (("content-type", "application/x-www-form-urlencoded;charset=UTF-8"),)
        return Outgoing(headers, urlencode(fields).encode())

    def accepted(self, status: int, body: bytes) -> bool:
        """Only the status counts."""
        del body
        return status in {200, 302}

    def wrong_amount(self, content: dict[str, Any]) -> dict[str, Any]:
        """Return the notification with one fen more."""
        fields = content["fields"]
        return {**content, "fields": {**fields, "txnAmt": str(int(fields["txnAmt"]) + 1)}}

    def new_key(self) -> None:
        """Sign with a fresh certificate, which every message brings along."""
        rotate(self._world)

    # Customers ----------------------------------------------------------------------------------

    def scanned(self, trade: Trade, action: str) -> dict[str, Any]:
        """Let a customer pay, decline or abandon, wherever the order is met."""
        trade = self._decide(trade, action)
        return {"number": trade.number, "state": trade.state, "ref": trade.ref}

    def _decide(self, trade: Trade, action: str) -> Trade:
        found = trades.find(self._world, trade.number)
        if found is None or found.state not in trades.OPEN or found.extra.get("held"):
            raise Refused(f"the order is {trade.state} and cannot be paid")
        is_poor = magic.is_declined(found.amount)
        if action == "pay" and not is_poor:
            return trades.collect(self._world, found, self._world.clock.now())
        if action in {"pay", "decline"}:
            is_code = found.mode == "payment_code"
            return trades.fail(self._world, found, "64", finally_=is_code)
        return trades.open_up(self._world, found)

    def new_payment_code(self) -> str:
        """Return 19 digits beginning with 62."""
        return f"62{secrets.randbelow(10**17):017d}"

    def code_made(self, code: PaymentCode) -> None:
        """Nothing to prepare."""

    def act(self, action: str, number: str, argument: str, at: datetime) -> None:
        """Carry out what was planned: a password typed, a customer gone, a refund done."""
        del argument
        item = trades.find_any(self._world, number)
        if isinstance(item, Refund):
            if action == "finish_refund" and item.state == "processing":
                trades.give_back(self._world, item)
        elif item is not None and item.state in trades.OPEN:
            if action == "pay":
                trades.collect(self._world, item, at)
            elif action == "quit":
                trades.fail(self._world, item, "01", finally_=True)

    def control(self, method: str, path: str, body: dict[str, Any]) -> Any:
        """Decide what stays in processing, play a browser, rotate the certificate, change files."""
        match (method, path):
            case ("POST", "decide"):
                return self._settle(body["number"], body["state"])
            case ("POST", "visit"):
                return self._visit(body["fields"], body.get("action", "pay"))
            case ("POST", "rotate"):
                return {"certificate": rotate(self._world)}
            case ("POST", "bill/make"):
                return unionpay_days.make(self._world, body["day"])
            case ("POST", "bill/forget"):
                return unionpay_days.forget(self._world, body["day"])
            case ("POST", "difference"):
                return unionpay_days.add_difference(self._world, body)
        raise Refused("UnionPay can be told: decide, visit, rotate, difference, bill/make, forget")

    def _settle(self, number: str, state: str) -> Any:
        item = trades.find_any(self._world, number)
        if state not in {"done", "failed"}:
            raise Refused("it becomes done or failed")
        if isinstance(item, Refund) and item.state == "processing":
            if state == "done":
                trades.give_back(self._world, item)
            else:
                trades.drop_refund(self._world, item, "01")
        elif isinstance(item, Trade) and item.state in trades.OPEN:
            if state == "done":
                trades.collect(self._world, item, self._world.clock.now())
            else:
                trades.fail(self._world, item, "01", finally_=True)
        else:
            raise Refused("nothing with this number is in processing")
        return {"number": number, "state": state}

    def _visit(self, fields: dict[str, str], action: str) -> Any:
        """Play the customer whose browser posts the merchant's form, and what it carries back."""
        ask = Ask(fields, "frontTransReq.do", "")
        try:
            self._check(ask)
            self._do(ask, self._fault(ask))
        except Refusal as refusal:
            raise Refused(f"{refusal.code} {message(refusal.code)}") from None
        trade = trades.find(self._world, ask.text("orderId"))
        if trade is None:
            raise Refused("there is no such order")
        if trade.state != "paid" and not trade.extra.get("held"):
            trade = self._decide(trades.open_up(self._world, trade), action)
        carried = self._front_fields(trade) if trade.state == "paid" else {}
        return {"number": trade.number, "state": trade.state, "carried": carried}

"""UnionPay's aggregated QR (Qra), simulated: XML with an MD5 key, codes both ways, refunds.

What is real: the address, the names of the services, the frame with its signature. Guessed, after
WeChat Pay's API v2, which it resembles: the states, most codes, the fields of refunds.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final
from xml.etree.ElementTree import Element, ParseError, SubElement, fromstring, tostring

from msgspec import structs

from tongbao_sandbox import faults, magic
from tongbao_sandbox.clock import CHINA, china
from tongbao_sandbox.model import Callback, Fault, PaymentCode, Refund, Trade
from tongbao_sandbox.seam import Keys, Outgoing, Refused, Reply, Request, World

NAME: Final = "unionpay_qra"
REFUND_AFTER_S: Final = 1.0
_OPEN: Final = frozenset({"waiting", "asking"})
_STATES: Final = {
    "waiting": "NOTPAY",
    "asking": "USERPAYING",
    "paid": "SUCCESS",
    "closed": "CLOSED",
    "reversed": "REVERSE",
    "failed": "PAYERROR",
}
_REFUND_STATES: Final = {"processing": "PROCESSING", "done": "SUCCESS", "abnormal": "FAIL"}
_POINTS: Final = {
    "unified.trade.native": "pay",
    "unified.trade.micropay": "pay",
    "unified.trade.query": "query",
    "unified.trade.close": "close",
    "unified.micropay.reverse": "close",
    "unified.trade.refund": "refund",
    "unified.trade.refundquery": "refund_query",
}
_CODE_LIVES: Final = timedelta(seconds=60)
_CHARGED: Final = frozenset({NAME, "unionpay", "alipay", "wechat"})  # the codes of any wallet

faults.allow("pay", "time_out_made")
faults.allow("refund", "not_enough")

Fields = Mapping[str, str]


class Refusal(Exception):
    """What a call is refused with; ``need_query`` N: nothing happened and nothing will."""

    def __init__(self, code: str, words: str, need_query: str = "N") -> None:
        super().__init__(code)
        self.fields = {
            "result_code": "1",
            "err_code": code,
            "err_msg": words,
            "need_query": need_query,
        }


def make_keys() -> Keys:
    """Return the number and the key of a fresh merchant."""
    shown = {
        "mch_id": f"QRA{secrets.randbelow(10**8):08d}KKR1",
        "secure_key": secrets.token_hex(16),
    }
    return Keys(shown=shown, kept={"forger_key": secrets.token_hex(16)})


def signature(key: str, fields: Fields) -> str:
    """Return the MD5 of the sorted fields and the key."""
    names = sorted(name for name, value in fields.items() if value and name != "sign")
    text = "&".join([*(f"{name}={fields[name]}" for name in names), f"key={key}"])
    return hashlib.md5(text.encode()).hexdigest().upper()  # noqa: S324 - the protocol's own


def document(key: str, fields: Fields) -> bytes:
    """Return fields as a signed document."""
    root = Element("xml")
    for name, value in {**fields, "sign": signature(key, fields)}.items():
        SubElement(root, name).text = value
    return bytes(tostring(root, encoding="utf-8"))


class Qra:
    """The simulated institution; see `seam.Channel`."""

    name = NAME
    prefix = "/qra"
    retry_plan: tuple[float, ...] = (15.0, 15.0, 30.0, 180.0, 1800.0, 3600.0)

    def __init__(self, world: World) -> None:
        self._world = world
        self._shown = world.keys[NAME].shown
        self._services: dict[str, Callable[[Fields, Fault], dict[str, str]]] = {
            "unified.trade.native": self._native,
            "unified.trade.micropay": self._micropay,
            "unified.trade.query": self._query,
            "unified.trade.close": self._close,
            "unified.micropay.reverse": self._reverse,
            "unified.trade.refund": self._refund,
            "unified.trade.refundquery": self._refund_query,
        }

    # The gateway --------------------------------------------------------------------------------

    def answer(self, request: Request) -> Reply:
        """Answer the one address."""
        if (request.method, request.path) != ("POST", "/pay/gateway"):
            return Reply(404)
        asked = _read(request.body)
        service = self._services.get(asked.get("service", ""))
        expected = signature(self._shown["secure_key"], asked)
        is_signed = hmac.compare_digest(expected.encode(), asked.get("sign", "").encode())
        if service is None or not is_signed or asked.get("mch_id") != self._shown["mch_id"]:
            return self._framed({"status": "400", "message": "签名错误或参数错误"}, faults.NONE)
        fault = self._fault(asked)
        if faults.is_lost(fault.name):
            return self._framed({}, fault)
        try:
            fields = {"result_code": "0", **service(asked, fault)}
        except Refusal as refusal:
            fields = refusal.fields
        return self._framed({"status": "0", **fields}, fault)

    def _fault(self, asked: Fields) -> Fault:
        number = asked.get("out_refund_no") or asked.get("out_trade_no", "")
        text = asked.get("refund_fee") or asked.get("total_fee", "")
        amount, point = int(text) if text.isdecimal() else None, _POINTS[asked["service"]]
        if point not in magic.TABLE:
            return self._world.faults.take(NAME, point, number)
        if point == "pay":
            magic.script_callback(self._world, NAME, number, amount)
        return magic.fault_of(self._world, NAME, point, number, amount)

    def _framed(self, fields: dict[str, str], fault: Fault) -> Reply:
        kind = fault.name
        if kind.startswith("http_5"):
            return Reply(faults.http_status(kind))
        if kind == "http_429":
            return Reply(429)
        is_forged = kind.startswith("bad_signature")
        kept = self._world.keys[NAME].kept
        key = kept["forger_key"] if is_forged else self._shown["secure_key"]
        whole = {
            "version": "2.0",
            "charset": "UTF-8",
            "sign_type": "MD5",
            "mch_id": self._shown["mch_id"],
            "nonce_str": secrets.token_hex(16),
            **fields,
        }
        reply = Reply(200, (("content-type", "text/xml;charset=UTF-8"),), document(key, whole))
        if kind.startswith("time_out"):
            return structs.replace(reply, ending="hold")
        if kind == "reset":
            return structs.replace(reply, ending="reset")
        return structs.replace(reply, delay_s=fault.seconds(3)) if kind == "slow" else reply

    # The services ---------------------------------------------------------------------------------

    def _native(self, asked: Fields, fault: Fault) -> dict[str, str]:
        trade = self._order(asked, "qr")
        if fault.name.endswith("_paid"):
            self._collect(trade, self._world.clock.now())
        elif fault.name == "processing" and trade.state in _OPEN:
            self._hold(trade, fault)
        return {"code_url": trade.token, "out_trade_no": trade.number}

    def _micropay(self, asked: Fields, fault: Fault) -> dict[str, str]:
        code = self._world.state.code(asked.get("auth_code", ""))
        now = self._world.clock.now()
        if code is None or code.channel not in _CHARGED:
            raise Refusal("AUTH_CODE_INVALID", "付款码无效")
        if code.used_for not in {"", asked.get("out_trade_no")} or code.made_at + _CODE_LIVES < now:
            raise Refusal("AUTHCODEEXPIRE", "付款码已过期")
        trade = self._order(asked, "payment_code")
        self._world.state.put_code(structs.replace(code, used_for=trade.number))
        if fault.name == "processing":
            trade = self._hold(trade, fault)
        is_poor = code.behaviour == "decline" or magic.is_declined(trade.amount)
        if trade.extra.get("held") or fault.name == "time_out_made":
            pass  # it waits for somebody's word
        elif fault.name.endswith("_paid") or (code.behaviour == "pay" and not is_poor):
            trade = self._collect(trade, now)
        elif is_poor:
            self._put(trade, state="failed")
            raise Refusal("NOTENOUGH", "余额不足")
        elif code.behaviour in {"ask_then_pay", "cancel"}:
            action = "pay" if code.behaviour == "ask_then_pay" else "quit"
            when = now + timedelta(seconds=code.after_s)
            self._world.courier.at(NAME, action, trade.number, when=when)
        if trade.state != "paid":
            raise Refusal("USERPAYING", "需要用户输入支付密码", "Y")
        return {**self._told(trade), "pay_result": "0"}

    def _query(self, asked: Fields, fault: Fault) -> dict[str, str]:
        trade = self._existing(asked)
        state = "NOTPAY" if fault.name == "stale" else _STATES[trade.state]
        if trade.state == "paid" and trade.refunded and fault.name != "stale":
            state = "REFUND"
        return {**self._told(trade), "trade_state": state}

    def _close(self, asked: Fields, fault: Fault) -> dict[str, str]:
        trade = self._existing(asked)
        if fault.name == "paid_just_before":
            trade = self._collect(trade, self._world.clock.now())
        if trade.state == "paid":
            raise Refusal("ORDERPAID", "订单已支付")
        if trade.state in _OPEN:
            self._put(trade, state="closed")
        if fault.name == "late_success":
            when = self._world.clock.now() + timedelta(seconds=fault.seconds(5.0))
            self._world.courier.at(NAME, "late_pay", trade.number, when=when)
        return {}

    def _reverse(self, asked: Fields, fault: Fault) -> dict[str, str]:
        trade = self._existing(asked)
        if fault.name == "paid_just_before":
            trade = self._collect(trade, self._world.clock.now())
        self._put(trade, state="reversed" if trade.state == "paid" else "closed")
        return {}

    def _refund(self, asked: Fields, fault: Fault) -> dict[str, str]:
        trade = self._existing(asked)
        number, amount = asked.get("out_refund_no", ""), int(asked.get("refund_fee", "0"))
        found = self._world.state.refunds_numbered(NAME, number)
        if found:
            if found[0].amount != amount or found[0].trade_number != trade.number:
                raise Refusal("OUT_TRADE_NO_USED", "退款单号重复", "Y")
            return self._taken_on(found[0])
        if trade.state != "paid" or asked.get("total_fee") != str(trade.amount):
            raise Refusal("ORDERNOTEXIST", "订单状态不正确")
        if amount <= 0 or trade.refunded + amount > trade.amount:
            raise Refusal("REFUND_FEE_MISMATCH", "退款金额大于可退金额")
        if fault.name == "not_enough":
            raise Refusal("NOTENOUGH", "商户余额不足")
        refund = self._world.state.put_refund(
            Refund(
                channel=NAME,
                trade_number=trade.number,
                number=number,
                state="abnormal" if fault.name == "abnormal" else "processing",
                amount=amount,
                currency="CNY",
                created_at=self._world.clock.now(),
                ref=self._reference(),
            )
        )
        if refund.state == "processing":
            self._put(trade, refunded=trade.refunded + amount)
        if fault.name not in {"processing", "abnormal"}:
            after = float(self._world.setting("unionpay_qra.refund_after_s", REFUND_AFTER_S))
            when = self._world.clock.now() + timedelta(seconds=after)
            self._world.courier.at(NAME, "finish_refund", number, when=when)
        return self._taken_on(refund)

    def _taken_on(self, refund: Refund) -> dict[str, str]:
        return {
            "out_trade_no": refund.trade_number,
            "out_refund_no": refund.number,
            "refund_id": refund.ref,
            "refund_fee": str(refund.amount),
        }

    def _refund_query(self, asked: Fields, fault: Fault) -> dict[str, str]:
        del fault
        found = self._world.state.refunds_numbered(NAME, asked.get("out_refund_no", ""))
        if not found:
            raise Refusal("REFUNDNOTEXIST", "退款不存在")
        told = {"out_trade_no": found[0].trade_number, "refund_count": "1"}
        for name, value in self._taken_on(found[0]).items():
            told[f"{name}_0"] = value
        told["refund_status_0"] = _REFUND_STATES[found[0].state]
        if found[0].done_at:
            told["refund_time_0"] = _time(found[0].done_at)
        return told

    # Orders -------------------------------------------------------------------------------------

    def _order(self, asked: Fields, mode: Any) -> Trade:
        number, now = asked.get("out_trade_no", ""), self._world.clock.now()
        amount = asked.get("total_fee", "")
        if not number or not amount.isdigit() or not asked.get("mch_create_ip"):
            raise Refusal("PARAM_ERROR", "参数错误")
        known = self._found(number)
        if known is not None:
            if known.state == "paid":
                raise Refusal("ORDERPAID", "订单已支付", "Y")
            if known.amount != int(amount) or known.mode != mode or known.state not in _OPEN:
                raise Refusal("OUT_TRADE_NO_USED", "商户订单号重复", "Y")
            return known
        try:
            text = asked.get("time_expire", "")
            expires_at = datetime.strptime(text, "%Y%m%d%H%M%S").replace(tzinfo=CHINA)
        except ValueError:
            expires_at = now + timedelta(hours=2)
        serial = self._world.state.next_number("unionpay_qra.trade")
        return self._world.state.put_trade(
            Trade(
                channel=NAME,
                number=number,
                mode=mode,
                state="waiting" if mode == "qr" else "asking",
                amount=int(amount),
                currency="CNY",
                subject=asked.get("body", ""),
                created_at=now,
                expires_at=expires_at,
                ref=self._reference(),
                token=f"https://qr.95516.com/qra/{serial:012d}" if mode == "qr" else "",
                payer=f"oQra{serial:010d}",
                notify_url=asked.get("notify_url", ""),
            )
        )

    def _existing(self, asked: Fields) -> Trade:
        trade = self._found(asked.get("out_trade_no", ""))
        if trade is None:
            raise Refusal("ORDERNOTEXIST", "订单不存在")
        return trade

    def _found(self, number: str) -> Trade | None:
        trade = self._world.state.trade(NAME, number)
        if trade is None or trade.state not in _OPEN:
            return trade
        is_over = trade.expires_at <= self._world.clock.now()
        return self._put(trade, state="closed") if is_over else trade

    def _put(self, trade: Trade, **changes: Any) -> Trade:
        return self._world.state.put_trade(structs.replace(trade, **changes))

    def _collect(self, trade: Trade, at: datetime) -> Trade:
        trade = self._put(trade, state="paid", paid_at=at)
        content = {"status": "0", "result_code": "0", "pay_result": "0", **self._told(trade)}
        self._world.courier.post(
            NAME, "payment", trade.number, url=trade.notify_url, content=content
        )
        return trade

    def _hold(self, trade: Trade, fault: Fault) -> Trade:
        """Keep a payment in processing until somebody decides it, or for the fault's seconds."""
        now = self._world.clock.now()
        if fault.argument:
            when = now + timedelta(seconds=fault.seconds())
            self._world.courier.at(NAME, "pay", trade.number, when=when)
        held = {**trade.extra, "held": True}
        return self._put(trade, state="asking", expires_at=now + timedelta(days=30), extra=held)

    def _told(self, trade: Trade) -> dict[str, str]:
        told = {
            "out_trade_no": trade.number,
            "total_fee": str(trade.amount),
            "fee_type": "CNY",
            "trade_type": "pay.unionpay.native" if trade.mode == "qr" else "pay.unionpay.micropay",
        }
        if trade.paid_at is None:
            return told
        paid = {"transaction_id": trade.ref, "time_end": _time(trade.paid_at)}
        return {**told, **paid, "openid": trade.payer}

    def _reference(self) -> str:
        return f"95516000{self._world.state.next_number('unionpay_qra.ref'):024d}"

    # Notifications and customers ------------------------------------------------------------------

    def outgoing(self, callback: Callback) -> Outgoing:
        """Sign a notification now; a forged one has another key."""
        kept = self._world.keys[NAME].kept
        is_genuine = callback.variant == "genuine"
        key = self._shown["secure_key"] if is_genuine else kept["forger_key"]
        frame = {"version": "2.0", "charset": "UTF-8", "sign_type": "MD5"}
        fields = {**frame, "mch_id": self._shown["mch_id"], **callback.content}
        return Outgoing((("content-type", "text/xml;charset=UTF-8"),), document(key, fields))

    def accepted(self, status: int, body: bytes) -> bool:
        """Only the bare word counts."""
        return status == 200 and body.strip() == b"success"

    def wrong_amount(self, content: dict[str, Any]) -> dict[str, Any]:
        """Return the notification with one fen more."""
        return {**content, "total_fee": str(int(content["total_fee"]) + 1)}

    def scanned(self, trade: Trade, action: str) -> dict[str, Any]:
        """Let a customer pay, decline or abandon."""
        found = self._found(trade.number)
        if found is None or found.state not in _OPEN:
            raise Refused(f"the order is {trade.state} and cannot be paid")
        if action == "pay" and magic.is_declined(found.amount):
            action = "decline"
        if action == "pay":
            found = self._collect(found, self._world.clock.now())
        elif action == "decline" and found.mode == "payment_code":
            found = self._put(found, state="failed")
        return {"number": found.number, "state": found.state, "ref": found.ref}

    def new_payment_code(self) -> str:
        """Return 19 digits beginning with 62."""
        return f"62{secrets.randbelow(10**17):017d}"

    def code_made(self, code: PaymentCode) -> None:
        """Nothing to prepare."""

    def act(self, action: str, number: str, argument: str, at: datetime) -> None:
        """Carry out what was planned: a password typed, a customer gone, a refund done."""
        del argument
        if action == "finish_refund":
            for refund in self._world.state.refunds_numbered(NAME, number):
                if refund.state == "processing":
                    done = structs.replace(refund, state="done", done_at=at)
                    self._world.state.put_refund(done)
            return
        trade = self._world.state.trade(NAME, number)
        if trade is None:
            return
        if action == "late_pay" or (action == "pay" and trade.state in _OPEN):
            self._collect(trade, at)
        elif action == "quit" and trade.state in _OPEN:
            self._put(trade, state="failed")

    def control(self, method: str, path: str, body: dict[str, Any]) -> Any:
        """Decide a refund that stays in processing."""
        if (method, path) != ("POST", "refund") or body.get("state") not in {"done", "abnormal"}:
            raise Refused("Qra can be told: refund, done or abnormal")
        [refund] = self._world.state.refunds_numbered(NAME, body["number"])
        changes = {"done_at": self._world.clock.now()} if body["state"] == "done" else {}
        self._world.state.put_refund(structs.replace(refund, state=body["state"], **changes))
        return {"number": refund.number, "state": body["state"]}


def _read(body: bytes) -> dict[str, str]:
    """Return a document's fields; one that declares a type is not looked into."""
    try:
        text = body.decode()  # in another encoding a declaration could hide
        if "<!DOCTYPE" in text:
            return {}
        root = fromstring(text)  # noqa: S314 - without declarations there is nothing to expand
    except (ParseError, ValueError):
        return {}
    return {child.tag: child.text or "" for child in root}


def _time(at: datetime) -> str:
    return f"{china(at):%Y%m%d%H%M%S}"

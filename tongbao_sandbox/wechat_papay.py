"""WeChat Pay's agreements (委托代扣): offered, signed by the customer, ended, and taken under.

Settings: ``wechat.deduct_after_s`` (1).
"""

from __future__ import annotations

import secrets
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

from tongbao_sandbox import magic
from tongbao_sandbox.clock import rfc3339
from tongbao_sandbox.faults import allow
from tongbao_sandbox.model import Fault
from tongbao_sandbox.seam import Refused
from tongbao_sandbox.wechat_desk import IDS, NAME, Desk, Event
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
LASTS: Final = timedelta(days=365)
_SIGN: Final = "/v3/papay/scheduled-deduct-sign/contracts/pre-entrust-sign"
_PARTNER_SIGN: Final = "/v3/papay/scheduled-deduct-sign/partner/contracts/pre-entrust-sign"
_CONTRACT: Final = "/v3/papay/sign/contracts/plan-id/{plan}/out-contract-code/{number}"
_PARTNER_CONTRACT: Final = (
    "/v3/papay/sign/partner/contracts/plan-id/{plan}/out-contract-code/{number}"
)
_DIRECT: Final = (Rule("/appid", str, length_max=32),)
_PARTNER: Final = (Rule("/sp_appid", str, length_max=32), Rule("/sub_mchid", str, length_max=32))
_OFFER: Final = (
    Rule("/plan_id", int, check=is_positive),
    Rule("/out_contract_code", str, check=is_number),
    Rule("/contract_display_account", str, length_max=32),
    Rule("/contract_notify_url", str, length_max=256, check=is_notify_url),
)
_DEDUCT: Final = (
    Rule("/out_trade_no", str, check=is_number),
    Rule("/description", str, length_max=127),
    Rule("/transaction_notify_url", str, length_max=256, check=is_notify_url),
    Rule("/contract_id", str, length_max=32),
    Rule("/amount", dict),
    Rule("/amount/total", int, check=is_positive),
)
allow("agreement", "http_500_done", "http_500_not_done", "time_out_done", "time_out_not_done")
allow("agreement", "http_502_done", "http_502_not_done", "bad_signature_done", "http_429", "reset")


class Agreements:
    """Keeps the agreements' rules; every method runs inside the request's transaction."""

    def __init__(self, desk: Desk, orders: Orders) -> None:
        self._desk = desk
        self._world = desk.world
        self._orders = orders

    def routes(self) -> tuple[tuple[str, str, Handler], ...]:
        """Return every call about agreements."""
        return (
            *(
                ("POST", f"{path}/{place}", partial(handler, place=place))
                for path, handler in ((_SIGN, self.offer), (_PARTNER_SIGN, self.offer_as_partner))
                for place in ("h5", "jsapi", "app", "mini-program")
            ),
            *(
                route
                for path in (_CONTRACT, _PARTNER_CONTRACT)
                for route in (
                    ("GET", path, self.by_number),
                    ("POST", f"{path}/terminate", self.terminate),
                )
            ),
            ("POST", "/v3/papay/contracts/{id}/notify", self.announce),
            ("POST", "/v3/papay/pay/transactions/apply", self.deduct),
            ("POST", "/v3/papay/pay/partner/transactions/apply", self.deduct_as_partner),
        )

    def offer(self, call: Call, *, place: str) -> Outcome:
        """Offer an agreement; it exists once the customer has signed."""
        return self._offer(call, checked(call.body, (*_DIRECT, *_OFFER)), place)

    def offer_as_partner(self, call: Call, *, place: str) -> Outcome:
        """Offer an agreement with a service provider's merchant."""
        body = checked(call.body, (*_PARTNER, *_OFFER))
        self._check_sub(body["sub_mchid"])
        return self._offer(call, body, place)

    def _offer(self, call: Call, body: dict[str, Any], place: str) -> Outcome:
        number = body["out_contract_code"]
        fault = self._world.faults.take(NAME, "agreement", number)

        def make() -> Outcome:
            kept = self._desk.kept("contract", number)
            if kept is not None and kept["body"] != body:
                raise Problem(400, "INVALID_REQUEST", "签约协议号已使用")
            if kept is None:
                session = f"wx{secrets.token_hex(12)}"
                kept = {"body": body, "state": "OFFERED", "session": session}
                self._desk.keep("contract", number, kept)
            return Outcome(_where_to_sign(call.origin, place, kept["session"]))

        return spoilt(fault, make)

    def by_number(self, call: Call) -> Outcome:
        """Say whether an agreement is signed."""
        fault = self._world.faults.take(NAME, "agreement", call.variables["number"])
        sub_mchid = call.query.get("sub_mchid")
        return spoilt(fault, lambda: Outcome(self._shown(self._existing(call, sub_mchid))))

    def terminate(self, call: Call) -> Outcome:
        """End an agreement for the merchant."""
        body = checked(call.body, (Rule("/contract_termination_remark", str, length_max=256),))
        fault = self._world.faults.take(NAME, "agreement", call.variables["number"])

        def end() -> Outcome:
            kept = self._existing(call, body.get("sub_mchid"))
            if kept["state"] == "SIGNED":
                remark = body["contract_termination_remark"]
                kept = self._end(kept, "MERCHANT_TERMINATE", remark)
            return Outcome(self._shown(kept))

        return spoilt(fault, end)

    def announce(self, call: Call) -> Outcome:
        """Tell the customer what will be taken."""
        checked(call.body, (Rule("/mchid", str), Rule("/appid", str)))
        fault = self._world.faults.take(NAME, "agreement", call.variables["id"])

        def tell() -> Outcome:
            self._signed(call.variables["id"])
            return Outcome(None, status=204)

        return spoilt(fault, tell)

    def deduct(self, call: Call) -> Outcome:
        """Accept a deduction; the money is taken a little later, or is not there."""
        return self._deduct_under(checked(call.body, (*_DIRECT, *_DEDUCT)))

    def deduct_as_partner(self, call: Call) -> Outcome:
        """Accept a deduction for a service provider's merchant."""
        body = checked(call.body, (*_PARTNER, *_DEDUCT))
        self._check_sub(body["sub_mchid"])
        return self._deduct_under(body)

    def _check_sub(self, sub_mchid: str) -> None:
        if sub_mchid != self._desk.vault.sub_mchid:
            raise parameter_error("/sub_mchid", sub_mchid, "特约商户号未绑定")

    def _deduct_under(self, body: dict[str, Any]) -> Outcome:
        total = body["amount"]["total"]
        fault = magic.fault_of(self._world, NAME, "pay", body["out_trade_no"], total)
        if fault.name == "new_key":
            self._desk.new_key()
        return spoilt(fault, lambda: self._deduct(body, fault))

    def _deduct(self, body: dict[str, Any], fault: Fault) -> Outcome:
        known = self._orders.find(body["out_trade_no"])
        order: dict[str, Any] = {
            **{name: body[name] for name in IDS if name in body},
            "sp_mchid" if "sub_mchid" in body else "mchid": self._desk.vault.mchid,
            **{name: body[name] for name in ("out_trade_no", "description", "amount")},
            "notify_url": body["transaction_notify_url"],
            "contract_id": body["contract_id"],
        }
        if known is not None and known.extra["body"] != order:
            raise Problem(403, "OUT_TRADE_NO_USED", "商户订单号重复")
        if known is None:
            kept = self._signed(body["contract_id"], body.get("sub_mchid"))
            known = self._orders.new(order, "papay")
            now = self._world.clock.now()
            after_s = float(self._world.setting("wechat.deduct_after_s", AFTER_S))
            if fault.name == "processing":  # without seconds it waits for somebody's word
                after_s = fault.seconds()
            empty = "empty" if kept.get("empty") else ""
            if fault.name != "processing" or fault.argument:
                when = now + timedelta(seconds=after_s)
                self._world.courier.at(NAME, "deduct", known.number, when=when, argument=empty)
        if fault.name.endswith("_paid") and known.state == "waiting":
            self._orders.pay(known)
        return Outcome({"out_trade_no": known.number, "amount": body["amount"]})

    def take(self, number: str, argument: str, moment: datetime) -> None:
        """Take the money, or find none, as was put on the agenda."""
        trade = self._orders.find(number)
        if trade is None or trade.state != "waiting":
            return
        if argument == "empty" or magic.is_declined(trade.amount):
            self._orders.fail_deduction(trade)
        else:
            self._orders.pay(trade, moment)

    def decide(self, number: str, action: str) -> dict[str, Any]:
        """Let the customer sign, end it, or have an empty purse; for the control API."""
        kept = self._desk.kept("contract", number)
        if kept is None:
            raise Refused("no such agreement was offered")
        if action == "sign" and kept["state"] == "OFFERED":
            now = self._world.clock.now()
            kept |= {
                "state": "SIGNED",
                "contract_id": f"{self._world.state.next_number('wechat.contract'):018d}",
                "openid": _openid(kept["body"]) or "o" + secrets.token_urlsafe(21)[:27],
                "signed_at": rfc3339(now),
                "expires_at": rfc3339(now + LASTS),
            }
            self._desk.keep("contract", number, kept)
            self._desk.keep("contract-id", kept["contract_id"], {"number": number})
            self._tell("ENTRUST.SIGN", "签约成功", kept)
        elif action == "end" and kept["state"] == "SIGNED":
            kept = self._end(kept, "USER_TERMINATE", "用户解约")
        elif action in {"empty", "fill"}:
            kept["empty"] = action == "empty"
            self._desk.keep("contract", number, kept)
        else:
            raise Refused(f"the agreement is {kept['state']}; sign, end, empty, fill")
        return self._shown(kept)

    def _end(self, kept: dict[str, Any], mode: str, remark: str) -> dict[str, Any]:
        ended = {
            "contract_termination_mode": mode,
            "contract_terminated_time": rfc3339(self._world.clock.now()),
            "contract_termination_remark": remark,
        }
        kept = {**kept, "state": "TERMINATED", "ended": ended}
        self._desk.keep("contract", kept["body"]["out_contract_code"], kept)
        self._tell("ENTRUST.TERMINATE", "解约成功", kept)
        return kept

    def _existing(self, call: Call, sub_mchid: str | None) -> dict[str, Any]:
        kept = self._desk.kept("contract", call.variables["number"])
        fits = (
            kept is not None
            and str(kept["body"]["plan_id"]) == call.variables["plan"]
            and kept["body"].get("sub_mchid") == sub_mchid
        )
        if kept is None or not fits or kept["state"] == "OFFERED":
            raise Problem(404, "RESOURCE_NOT_EXISTS", "协议不存在")
        return kept

    def _signed(self, contract_id: str, sub_mchid: str | None = None) -> dict[str, Any]:
        found = self._desk.kept("contract-id", contract_id)
        kept = self._desk.kept("contract", found["number"]) if found else None
        is_theirs = kept is not None and kept["body"].get("sub_mchid") == sub_mchid
        if kept is None or kept["state"] != "SIGNED" or not is_theirs:
            raise parameter_error("/contract_id", contract_id, "协议不存在或已解约")
        return kept

    def _shown(self, kept: dict[str, Any]) -> dict[str, Any]:
        body = kept["body"]
        content = {
            **{name: body[name] for name in IDS if name in body},
            "sp_mchid" if "sub_mchid" in body else "mchid": self._desk.vault.mchid,
            "contract_id": kept.get("contract_id", ""),
            **{name: body[name] for name in ("plan_id", "out_contract_code")},
            "contract_display_account": body["contract_display_account"],
            "contract_state": kept["state"],
            "contract_signed_time": kept.get("signed_at", ""),
            "contract_expired_time": kept.get("expires_at", ""),
            "sp_openid" if "sub_mchid" in body else "openid": kept.get("openid", ""),
        }
        if "sub_appid" in body:
            content["sub_openid"] = kept.get("openid", "")
        return {**content, "contract_terminate_info": kept["ended"]} if "ended" in kept else content

    def _tell(self, name: str, summary: str, kept: dict[str, Any]) -> None:
        event = Event("entrust", name, summary, self._shown(kept))
        self._desk.notify(
            kept["body"]["out_contract_code"], kept["body"]["contract_notify_url"], event
        )


def _where_to_sign(origin: str, place: str, session: str) -> dict[str, str]:
    """Return what opens the signature: on a page, out of an app, or out of a mini-program."""
    if place == "app":
        return {
            "pre_entrustweb_id": session,
            "miniprogram_username": "gh_sandbox000001",
            "miniprogram_path": f"pages/index/index?sign_scene=app&pre_entrustweb_id={session}",
        }
    if place == "mini-program":
        return {
            "pre_entrustweb_id": session,
            "redirect_appid": "wxsandboxsign0001",
            "redirect_path": "pages/PwdExemptContract/index",
        }
    return {"redirect_url": f"{origin}/sign?session_id={session}"}


def _openid(body: dict[str, Any]) -> str:
    """Return the customer the merchant named, for whichever app."""
    names = ("openid", "sub_openid", "sp_openid")
    return next((str(body[name]) for name in names if body.get(name)), "")

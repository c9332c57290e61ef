"""WeChat Pay's payouts to customers: asked for, confirmed by the payee, cancelled, overdue."""

from __future__ import annotations

import secrets
from datetime import timedelta
from typing import Any, Final

from tongbao_sandbox.clock import rfc3339
from tongbao_sandbox.faults import allow
from tongbao_sandbox.model import Fault
from tongbao_sandbox.seam import Refused, decode_object
from tongbao_sandbox.wechat_crypto import SUB_APPID
from tongbao_sandbox.wechat_desk import NAME, Desk, Event
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

CONFIRM_WITHIN: Final = timedelta(hours=24)
_PATH: Final = "/v3/fund-app/mch-transfer/transfer-bills"
_PARTNER_PATH: Final = "/v3/fund-app/mch-transfer/partner/transfer-bills"
_RULES: Final = (
    Rule("/appid", str, length_max=32),
    Rule("/out_bill_no", str, check=is_number),
    Rule("/transfer_scene_id", str, length_max=36),
    Rule("/openid", str, length_max=64),
    Rule("/transfer_amount", int, check=is_positive),
    Rule("/transfer_remark", str, length_max=32),
    Rule("/notify_url", str, required=False, check=is_notify_url),
    Rule("/transfer_scene_report_infos", list),
)
allow(
    "transfer",
    *("time_out_done", "time_out_not_done", "http_500_done", "http_500_not_done"),
    *("http_502_done", "http_502_not_done"),
    *("http_429", "bad_signature_done", "reset", "not_enough", "at_once"),
)
allow("transfer_query", "http_500", "http_502", "time_out", "bad_signature")
_SHOWN: Final = ("out_bill_no", "transfer_bill_no", "create_time", "state", "package_info")
_SHOWN_TO_PARTNERS: Final = ("sub_mchid", *(name for name in _SHOWN if name != "state"))
_ASKED: Final = ("sub_mchid", "appid", "out_bill_no", "openid")


class Transfers:
    """Keeps the payouts' rules; every method runs inside the request's transaction."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._world = desk.world

    def routes(self) -> tuple[tuple[str, str, Handler], ...]:
        """Return every call about payouts."""
        return tuple(
            route
            for path, pay_out in ((_PATH, self.pay_out), (_PARTNER_PATH, self.pay_out_as_partner))
            for route in (
                ("POST", path, pay_out),
                ("GET", f"{path}/out-bill-no/{{number}}", self.by_number),
                ("POST", f"{path}/out-bill-no/{{number}}/cancel", self.cancel),
            )
        )

    def pay_out(self, call: Call) -> Outcome:
        """Offer money to a customer, who is to confirm; the same again answers the same."""
        return self._pay_out_as(call, checked(call.body, _RULES), _SHOWN)

    def pay_out_as_partner(self, call: Call) -> Outcome:
        """Offer money of a service provider's merchant."""
        body = checked(call.body, (Rule("/sub_mchid", str, length_max=32), *_RULES))
        if body["sub_mchid"] != self._desk.vault.sub_mchid:
            raise parameter_error("/sub_mchid", body["sub_mchid"], "特约商户号未绑定")
        return self._pay_out_as(call, body, _SHOWN_TO_PARTNERS)

    def _pay_out_as(self, call: Call, body: dict[str, Any], shown: tuple[str, ...]) -> Outcome:
        apps = {self._desk.vault.appid, *([SUB_APPID] if "sub_mchid" in body else [])}
        if body["appid"] not in apps:
            raise Problem(400, "APPID_MCHID_NOT_MATCH", "商户号和APPID没有绑定关系")
        name = body.get("user_name", "")
        if name and not self._desk.vault.reads(name, call.wanted_serial):
            raise parameter_error("/user_name", "", "敏感信息解密失败")
        fault = self._world.faults.take(NAME, "transfer", body["out_bill_no"])

        def do() -> Outcome:
            kept = self._pay_out(body, fault)
            return Outcome({key: kept[key] for key in shown if key in kept})

        return spoilt(fault, do)

    def by_number(self, call: Call) -> Outcome:
        """Say what became of a payout."""
        number, sub_mchid = call.variables["number"], call.query.get("sub_mchid", "")
        fault = self._world.faults.take(NAME, "transfer_query", number)
        return spoilt(fault, lambda: Outcome(_public(self._existing(number, sub_mchid))))

    def cancel(self, call: Call) -> Outcome:
        """Take a payout back that nobody has confirmed."""
        sub_mchid = checked(call.body, ()).get("sub_mchid", "") if call.body else ""
        kept = self._existing(call.variables["number"], sub_mchid)
        if kept["state"] != "WAIT_USER_CONFIRM":
            raise Problem(400, "INVALID_REQUEST", "当前单据状态不支持撤销")
        kept = self._end(kept, "CANCELLED")
        shown = ("sub_mchid", "out_bill_no", "transfer_bill_no", "state", "update_time")
        return Outcome({key: kept[key] for key in shown if key in kept})

    def decide(self, number: str, action: str) -> dict[str, Any]:
        """Let the payee confirm, or the payout fail; for the control API."""
        kept = self._desk.kept("transfer", number)
        if kept is None or kept["state"] != "WAIT_USER_CONFIRM":
            raise Refused("no payout that waits for its payee")
        if action not in {"confirm", "fail"}:
            raise Refused("a payee can confirm; a payout can fail")
        kept = self._end(kept, "SUCCESS" if action == "confirm" else "FAIL")
        return _public(kept)

    def paid_out(self) -> list[dict[str, Any]]:
        """Return every payout that its payee has, for the bill of the operating account."""
        every = self._world.state.documents(NAME, "transfer:", 1_000_000)
        kept = [decode_object(raw) or {} for raw in every]
        return [one for one in kept if one.get("state") == "SUCCESS"]

    def expire(self, number: str) -> None:
        """Close a payout that nobody confirmed in time, as was put on the agenda."""
        kept = self._desk.kept("transfer", number)
        if kept is not None and kept["state"] == "WAIT_USER_CONFIRM":
            self._end(kept, "FAIL", "OVERDUE_CLOSE")

    def _pay_out(self, body: dict[str, Any], fault: Fault) -> dict[str, Any]:
        asked = {key: value for key, value in body.items() if key != "user_name"}
        known = self._desk.kept("transfer", body["out_bill_no"])
        if known is not None:
            if known["asked"] != asked:
                raise Problem(400, "ALREADY_EXISTS", "商户单号已存在")
            return known
        if fault.name == "not_enough":
            raise Problem(403, "NOT_ENOUGH", "资金不足")
        now = self._world.clock.now()
        kept: dict[str, Any] = {
            "mchid" if "sub_mchid" in body else "mch_id": self._desk.vault.mchid,
            **{key: body[key] for key in _ASKED if key in body},
            "transfer_bill_no": f"1330000071{self._world.state.next_number('wechat.pay'):020d}",
            "state": "WAIT_USER_CONFIRM",
            "transfer_amount": body["transfer_amount"],
            "transfer_remark": body["transfer_remark"],
            "create_time": rfc3339(now),
            "update_time": rfc3339(now),
            "package_info": secrets.token_urlsafe(24),
            "notify_url": body.get("notify_url", ""),
            "asked": asked,
        }
        self._desk.keep("transfer", body["out_bill_no"], kept)
        if fault.name == "at_once":
            kept = self._end(kept, "SUCCESS")
        self._world.courier.at(NAME, "transfer", body["out_bill_no"], when=now + CONFIRM_WITHIN)
        return kept

    def _end(self, kept: dict[str, Any], state: str, reason: str = "") -> dict[str, Any]:
        kept = {**kept, "state": state, "update_time": rfc3339(self._world.clock.now())}
        if state == "FAIL":
            kept["fail_reason"] = reason or "PAYEE_ACCOUNT_ABNORMAL"
        self._desk.keep("transfer", kept["out_bill_no"], kept)
        shown = ("out_bill_no", "transfer_bill_no", "state", "transfer_amount", "fail_reason")
        resource = {
            "mchid": kept.get("mch_id") or kept["mchid"],
            **{key: kept[key] for key in (*shown, *_ASKED, "create_time") if key in kept},
            "update_time": kept["update_time"],
        }
        event = Event("mch_payment", "MCHTRANSFER.BILL.FINISHED", "商家转账单据终态通知", resource)
        self._desk.notify(kept["out_bill_no"], kept["notify_url"], event)
        return kept

    def _existing(self, number: str, sub_mchid: str) -> dict[str, Any]:
        kept = self._desk.kept("transfer", number)
        if kept is None or kept.get("sub_mchid", "") != sub_mchid:
            raise Problem(404, "NOT_FOUND", "记录不存在")
        return kept


def _public(kept: dict[str, Any]) -> dict[str, Any]:
    hidden = {"asked", "notify_url", "package_info"}
    return {key: value for key, value in kept.items() if key not in hidden}

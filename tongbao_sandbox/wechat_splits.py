"""WeChat Pay's profit sharing: receivers, shares, returns, and what is freed at the end.

Settings: ``wechat.split_after_s`` (1), ``wechat.split_notify_url`` (the order's own address; the
real one is set on the merchant's website).
"""

from __future__ import annotations

import secrets
from datetime import date, datetime, timedelta
from typing import Any, Final

from tongbao.kernel.clock import business_date
from tongbao_sandbox.clock import rfc3339
from tongbao_sandbox.faults import allow
from tongbao_sandbox.model import Fault, Trade
from tongbao_sandbox.wechat_desk import NAME, Desk, Event, ids_of
from tongbao_sandbox.wechat_wire import (
    Call,
    Handler,
    Outcome,
    Problem,
    Rule,
    checked,
    is_positive,
    is_refund_number,
    parameter_error,
    spoilt,
)

AFTER_S: Final = 1.0
SHARES_MAX: Final = 50
KINDS: Final = frozenset({"MERCHANT_ID", "PERSONAL_OPENID", "PERSONAL_SUB_OPENID"})
_PATH: Final = "/v3/profitsharing"
_FREED: Final = "解冻给分账方"
_DONE: Final = (
    *("time_out_done", "time_out_not_done", "http_500_done", "http_500_not_done"),
    *("http_502_done", "http_502_not_done"),
    *("http_429", "bad_signature_done", "reset"),
)
allow("split", *_DONE, "share_failed", "processing")
allow("split_return", *_DONE, "failed")
allow("split_query", "http_500", "http_502", "time_out", "bad_signature")

_ORDER: Final = (
    Rule("/sub_mchid", str, required=False),
    Rule("/transaction_id", str, length_max=32),
    Rule("/out_order_no", str, check=is_refund_number),
)
_SPLIT: Final = (*_ORDER, Rule("/receivers", list), Rule("/unfreeze_unsplit", bool))
_UNFREEZE: Final = (*_ORDER, Rule("/description", str, length_max=80))
_RECEIVER: Final = (
    Rule("/type", str, check=lambda value: value in KINDS),
    Rule("/account", str, length_max=64),
)
_RETURN: Final = (
    Rule("/out_return_no", str, check=is_refund_number),
    Rule("/return_mchid", str, length_max=32),
    Rule("/amount", int, check=is_positive),
    Rule("/description", str, length_max=80),
)


class Splits:
    """Keeps the shares' rules; every method runs inside the request's transaction."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._world = desk.world

    def routes(self) -> tuple[tuple[str, str, Handler], ...]:
        """Return every call about shares."""
        return (
            ("POST", f"{_PATH}/orders", self.split),
            ("POST", f"{_PATH}/orders/unfreeze", self.unfreeze),
            ("GET", f"{_PATH}/orders/{{number}}", self.by_number),
            ("GET", f"{_PATH}/transactions/{{ref}}/amounts", self.unsplit),
            ("POST", f"{_PATH}/return-orders", self.take_back),
            ("GET", f"{_PATH}/return-orders/{{number}}", self.return_by_number),
            ("POST", f"{_PATH}/receivers/add", self.add_receiver),
            ("POST", f"{_PATH}/receivers/delete", self.remove_receiver),
        )

    # Receivers ------------------------------------------------------------------------------

    def add_receiver(self, call: Call) -> Outcome:
        """Know a receiver from now on; a merchant's name must come encrypted."""
        rules = (*_RECEIVER, Rule("/appid", str), Rule("/relation_type", str))
        body = checked(call.body, rules)
        name = body.get("name", "")
        if (body["type"] == "MERCHANT_ID" or name) and not self._reads(name, call):
            raise parameter_error("/name", "", "敏感信息解密失败")
        self._desk.keep("receiver", _key(body), {"known": True})
        kept = ("sub_mchid", "type", "account", "name", "relation_type", "custom_relation")
        return Outcome({key: body[key] for key in kept if key in body})

    def remove_receiver(self, call: Call) -> Outcome:
        """Forget a receiver."""
        body = checked(call.body, (*_RECEIVER, Rule("/appid", str)))
        self._desk.keep("receiver", _key(body), {"known": False})
        kept = ("sub_mchid", "type", "account")
        return Outcome({key: body[key] for key in kept if key in body})

    # Shares ---------------------------------------------------------------------------------

    def split(self, call: Call) -> Outcome:
        """Give shares of a payment away; the same request again answers the same."""
        body = checked(call.body, _SPLIT)
        fault = self._world.faults.take(NAME, "split", body["out_order_no"])
        return spoilt(fault, lambda: self._split(body, call, fault))

    def unfreeze(self, call: Call) -> Outcome:
        """Free what nobody got a share of."""
        body = {**checked(call.body, _UNFREEZE), "receivers": [], "unfreeze_unsplit": True}
        fault = self._world.faults.take(NAME, "split", body["out_order_no"])
        return spoilt(fault, lambda: self._split(body, call, fault))

    def by_number(self, call: Call) -> Outcome:
        """Say what became of the shares."""
        number = call.variables["number"]
        fault = self._world.faults.take(NAME, "split_query", number)

        def answer() -> Outcome:
            kept = self._desk.kept("split", number)
            if kept is None or kept["transaction_id"] != call.query.get("transaction_id"):
                raise Problem(404, "RESOURCE_NOT_EXISTS", "记录不存在")
            return _shown(kept)

        return spoilt(fault, answer)

    def unsplit(self, call: Call) -> Outcome:
        """Say how much of a payment may still be split."""
        trade = self._trade(call.variables["ref"])
        return Outcome({"transaction_id": trade.ref, "unsplit_amount": self._left(trade)})

    def _split(self, body: dict[str, Any], call: Call, fault: Fault) -> Outcome:
        asked = _asked(body)
        known = self._desk.kept("split", body["out_order_no"])
        if known is not None:
            if known["asked"] != asked:
                raise Problem(400, "INVALID_REQUEST", "分账单已存在，但请求参数不一致")
            return _shown(known)
        trade = self._trade(body["transaction_id"])
        self._desk.check_sub(body.get("sub_mchid"), trade)
        self._check_shares(body, call)
        total = sum(share["amount"] for share in body["receivers"])
        left = self._left(trade)
        if total > left:
            raise Problem(403, "NOT_ENOUGH", "分账金额不足")
        shares = [self._share(share, fault) for share in body["receivers"]]
        if body["unfreeze_unsplit"] and left - total:
            merchant = ids_of(trade).get("sub_mchid") or ids_of(trade)["mchid"]
            own = {"type": "MERCHANT_ID", "account": merchant, "amount": left - total}
            shares.append(self._share({**own, "description": _FREED}, fault))
        now = self._world.clock.now()
        kept: dict[str, Any] = {
            **{key: body[key] for key in ("sub_mchid", "transaction_id") if key in body},
            "out_order_no": body["out_order_no"],
            "order_id": f"3008450740{self._world.state.next_number('wechat.split'):018d}",
            "state": "PROCESSING",
            "receivers": shares,
            "asked": asked,
            "trade": trade.number,
            "made_at": rfc3339(now),
        }
        self._desk.keep("split", body["out_order_no"], kept)
        before = self._desk.kept("shared", trade.number) or {"amount": 0}
        freed = sum(share["amount"] for share in shares)
        self._desk.keep("shared", trade.number, {"amount": before["amount"] + freed})
        self._note("split", body["out_order_no"])
        if fault.name != "processing":
            after_s = float(self._world.setting("wechat.split_after_s", AFTER_S))
            when = now + timedelta(seconds=after_s)
            self._world.courier.at(NAME, "split", body["out_order_no"], when=when)
        return _shown(kept)

    def finish(self, number: str, moment: datetime) -> None:
        """Bring every share to its end, as was put on the agenda, and tell of those that moved."""
        kept = self._desk.kept("split", number)
        if kept is None or kept["state"] != "PROCESSING":
            return
        for share in kept["receivers"]:
            reason = share.pop("fails", "")
            if not reason and not self._is_known(share):
                reason = "NO_RELATION"
            share["result"] = "CLOSED" if reason else "SUCCESS"
            share["finish_time"] = rfc3339(moment)
            if reason:
                share["fail_reason"] = reason
        kept["state"] = "FINISHED"
        self._desk.keep("split", number, kept)
        failed = sum(one["amount"] for one in kept["receivers"] if one["result"] == "CLOSED")
        shared = self._desk.kept("shared", kept["trade"]) or {"amount": 0}
        self._desk.keep("shared", kept["trade"], {"amount": shared["amount"] - failed})
        for share in kept["receivers"]:
            if share["result"] == "SUCCESS" and share["description"] != _FREED:
                self._tell("PROFITSHARING", "分账成功", kept, share, number)

    # Returns --------------------------------------------------------------------------------

    def take_back(self, call: Call) -> Outcome:
        """Take a share back from a merchant; the same request again answers the same."""
        body = checked(call.body, _RETURN)
        fault = self._world.faults.take(NAME, "split_return", body["out_return_no"])
        return spoilt(fault, lambda: self._take_back(body, fault))

    def return_by_number(self, call: Call) -> Outcome:
        """Say what became of a return."""
        number = call.variables["number"]
        fault = self._world.faults.take(NAME, "split_query", number)

        def answer() -> Outcome:
            kept = self._desk.kept("return", number)
            if kept is None or kept["out_order_no"] != call.query.get("out_order_no"):
                raise Problem(404, "RESOURCE_NOT_EXISTS", "记录不存在")
            return _shown(kept)

        return spoilt(fault, answer)

    def _take_back(self, body: dict[str, Any], fault: Fault) -> Outcome:
        known = self._desk.kept("return", body["out_return_no"])
        if known is not None:
            if known["asked"] != body:
                raise Problem(400, "INVALID_REQUEST", "回退单已存在，但请求参数不一致")
            return _shown(known)
        split = self._desk.kept("split", body.get("out_order_no", ""))
        if split is None or split["state"] != "FINISHED":
            raise Problem(404, "RESOURCE_NOT_EXISTS", "分账单不存在或未完成")
        share = next((s for s in split["receivers"] if _may_give(s, body["return_mchid"])), None)
        if share is None or share["amount"] - share.get("returned", 0) < body["amount"]:
            raise Problem(403, "NOT_ENOUGH", "回退金额超过可回退金额")
        now = self._world.clock.now()
        kept: dict[str, Any] = {
            **{
                key: split[key] for key in ("sub_mchid", "order_id", "out_order_no") if key in split
            },
            **{key: body[key] for key in ("out_return_no", "return_mchid", "amount")},
            "description": body["description"],
            "return_id": f"3009450740{self._world.state.next_number('wechat.return'):018d}",
            "result": "FAILED" if fault.name == "failed" else "SUCCESS",
            "create_time": rfc3339(now),
            "finish_time": rfc3339(now),
            "asked": body,
            "trade_ref": split["transaction_id"],
        }
        if fault.name == "failed":
            kept["fail_reason"] = fault.argument or "BALANCE_NOT_ENOUGH"
        else:
            share["returned"] = share.get("returned", 0) + body["amount"]
            self._desk.keep("split", split["out_order_no"], split)
            moved = {**share, "amount": body["amount"]}
            self._tell("PROFITSHARING_RETURN", "分账回退", split, moved, body["out_return_no"])
        self._desk.keep("return", body["out_return_no"], kept)
        self._note("return", body["out_return_no"])
        return _shown(kept)

    # Used by the bills ------------------------------------------------------------------------

    def lines_of(self, day: date) -> list[dict[str, Any]]:
        """Return the shares and returns of a day, for the bill of shares."""
        lines = [
            {**split, **share, "kind": "分账", "at": split["made_at"]}
            for split in self._all("split")
            for share in split["receivers"]
        ]
        lines += [
            {
                **back,
                "transaction_id": back["trade_ref"],
                "account": back["return_mchid"],
                "kind": "分账回退",
                "at": back["create_time"],
            }
            for back in self._all("return")
        ]
        return [line for line in lines if business_date(datetime.fromisoformat(line["at"])) == day]

    def movements(self) -> list[tuple[datetime, str, int, str, str]]:
        """Return what left the merchant's account and came back: when, name, fen, ref, number."""
        moved: list[tuple[datetime, str, int, str, str]] = []
        for split in self._all("split"):
            for share in split["receivers"]:
                if share["result"] == "SUCCESS" and share["description"] != _FREED:
                    at = datetime.fromisoformat(share["finish_time"])
                    refs = split["order_id"], split["out_order_no"]
                    moved.append((at, "分账", -share["amount"], *refs))
        for back in self._all("return"):
            if back["result"] == "SUCCESS":
                at = datetime.fromisoformat(back["finish_time"])
                refs = back["return_id"], back["out_return_no"]
                moved.append((at, "分账回退", back["amount"], *refs))
        return moved

    def _all(self, kind: str) -> list[dict[str, Any]]:
        numbers = (self._desk.kept("all", kind) or {"numbers": []})["numbers"]
        return [kept for number in numbers if (kept := self._desk.kept(kind, number))]

    # Small things -----------------------------------------------------------------------------

    def _trade(self, ref: str) -> Trade:
        trade = self._world.state.trade_by_ref(NAME, ref)
        if trade is None or trade.state != "paid":
            raise Problem(404, "RESOURCE_NOT_EXISTS", "订单不存在")
        if not (trade.extra.get("settle_info") or {}).get("profit_sharing"):
            raise Problem(400, "INVALID_REQUEST", "非分账订单不支持分账")
        return trade

    def _left(self, trade: Trade) -> int:
        shared = self._desk.kept("shared", trade.number) or {"amount": 0}
        return trade.amount - trade.refunded - int(shared["amount"])

    def _check_shares(self, body: dict[str, Any], call: Call) -> None:
        if len(body["receivers"]) > SHARES_MAX:
            raise parameter_error("/receivers", len(body["receivers"]), "超过分账接收方数量限制")
        for place, share in enumerate(body["receivers"]):
            start = f"/receivers/{place}"
            amount = share.get("amount")
            if share.get("type") not in KINDS or not share.get("account"):
                raise parameter_error(f"{start}/account", share.get("account", ""), "参数错误")
            if not isinstance(amount, int) or amount <= 0 or not share.get("description"):
                raise parameter_error(f"{start}/amount", amount, "参数错误")
            if share.get("name") and not self._reads(share["name"], call):
                raise parameter_error(f"{start}/name", "", "敏感信息解密失败")

    def _share(self, asked: dict[str, Any], fault: Fault) -> dict[str, Any]:
        share = {key: asked[key] for key in ("type", "account", "amount", "description")}
        share |= {
            "detail_id": f"360{secrets.randbelow(10**20):020d}",
            "result": "PENDING",
            "create_time": rfc3339(self._world.clock.now()),
        }
        if fault.name == "share_failed" and asked["description"] != _FREED:
            share["fails"] = fault.argument or "ACCOUNT_ABNORMAL"
        return share

    def _is_known(self, share: dict[str, Any]) -> bool:
        known = self._desk.kept("receiver", _key(share)) or {"known": False}
        return bool(known["known"]) or share["description"] == _FREED

    def _reads(self, sealed: str, call: Call) -> bool:
        return bool(self._desk.vault.reads(sealed, call.wanted_serial))

    def _note(self, kind: str, number: str) -> None:
        listed = self._desk.kept("all", kind) or {"numbers": []}
        self._desk.keep("all", kind, {"numbers": [*listed["numbers"], number]})

    def _tell(
        self, event: str, summary: str, split: dict[str, Any], share: dict[str, Any], number: str
    ) -> None:
        trade = self._world.state.trade(NAME, split["trade"])
        if trade is None:
            return
        parties = {name: value for name, value in ids_of(trade).items() if name.endswith("mchid")}
        receiver = {key: share[key] for key in ("type", "account", "amount", "description")}
        resource = {
            **parties,
            "transaction_id": split["transaction_id"],
            "order_id": split["order_id"],
            "out_order_no": number,
            "receiver": receiver,
            "success_time": rfc3339(self._world.clock.now()),
        }
        url = str(self._world.setting("wechat.split_notify_url", trade.notify_url))
        self._desk.notify(number, url, Event("profitsharing", event, summary, resource))


def _key(receiver: dict[str, Any]) -> str:
    return f"{receiver['type']}:{receiver['account']}"


def _may_give(share: dict[str, Any], merchant: str) -> bool:
    return (share["type"], share["account"], share["result"]) == (
        "MERCHANT_ID",
        merchant,
        "SUCCESS",
    )


def _asked(body: dict[str, Any]) -> dict[str, Any]:
    """Return what a repeat must say again; names are encrypted anew each time."""
    shares = [{k: v for k, v in share.items() if k != "name"} for share in body["receivers"]]
    return {**body, "receivers": shares}


def _shown(kept: dict[str, Any]) -> Outcome:
    hidden = {"asked", "trade", "made_at", "trade_ref"}
    content = {key: value for key, value in kept.items() if key not in hidden}
    if "receivers" in content:
        content["receivers"] = [
            {k: v for k, v in share.items() if k not in {"fails", "returned"}}
            for share in kept["receivers"]
        ]
    return Outcome(content)

"""What WeChat Pay's orders and refunds share: the objects they show, numbers, notifications."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec
from msgspec import Struct

from tongbao_sandbox.clock import china, rfc3339
from tongbao_sandbox.model import Refund, Trade
from tongbao_sandbox.seam import World, decode_object
from tongbao_sandbox.wechat_crypto import Vault
from tongbao_sandbox.wechat_rules import TRADE_TYPES
from tongbao_sandbox.wechat_wire import Call, at, parameter_error

NAME: Final = "wechat"
ROTATING: Final = "wechat.rotation"
"""The setting that says how far the change of the platform certificate is."""

IDS: Final = ("appid", "mchid", "sp_appid", "sp_mchid", "sub_appid", "sub_mchid")
"""Under what names an order says whose it is."""
_TRADE_STATES: Final = {
    "waiting": ("NOTPAY", "订单未支付"),
    "asking": ("USERPAYING", "需要用户输入支付密码"),
    "paid": ("SUCCESS", "支付成功"),
    "refunded": ("REFUND", "订单发生过退款，退款详情请查询退款单"),
    "closed": ("CLOSED", "订单已关闭"),
    "reversed": ("REVOKED", "订单已撤销"),
    "failed": ("PAYERROR", "支付失败，请撤销订单"),
}
REFUND_STATES: Final = {
    "processing": "PROCESSING",
    "done": "SUCCESS",
    "abnormal": "ABNORMAL",
    "closed": "CLOSED",
}


class Event(Struct, frozen=True):
    """What a notification says."""

    kind: str  # payment | refund | profitsharing | mch_payment | entrust
    name: str  # TRANSACTION.SUCCESS
    summary: str
    resource: dict[str, Any]


class Desk:
    """The world and the keys, with the small things every handler needs."""

    def __init__(self, world: World, vault: Vault) -> None:
        self.world = world
        self.vault = vault

    def notify(self, number: str, url: str, event: Event) -> None:
        """Queue one notification; at times a signature probe goes with it."""
        if not url:
            return
        content = self._content(event)
        every = int(self.world.setting("wechat.signtest_every", 0))
        if every and self.world.state.next_number("wechat.callback") % every == 0:
            self.probe(url, event)
        self.world.courier.post(NAME, event.kind, number, url=url, content=content)

    def new_key(self) -> None:
        """Sign with the other one of the platform's two certificates; both are listed."""
        is_newer = self.world.setting(ROTATING, "") in {"switched", "retired"}
        self.world.state.set_setting(ROTATING, "announced" if is_newer else "switched")

    def probe(self, url: str, event: Event) -> None:
        """Queue a signature probe, which the merchant must refuse."""
        self.world.courier.probe(NAME, url=url, content=self._content(event))

    def _content(self, event: Event) -> dict[str, Any]:
        now = self.world.clock.now()
        return {
            "id": f"EV-{china(now):%Y%m%d%H%M%S}{secrets.randbelow(10**10):010d}",
            "create_time": rfc3339(now),
            "event_type": event.name,
            "summary": event.summary,
            "original_type": "transaction" if event.kind == "payment" else event.kind,
            "resource": event.resource,
        }

    def keep(self, kind: str, number: str, content: dict[str, Any]) -> None:
        """Keep what is neither a trade nor a refund, under its kind and number."""
        raw = msgspec.json.encode(content)
        self.world.state.put_document(NAME, f"{kind}:{number}", raw, self.world.clock.now())

    def kept(self, kind: str, number: str) -> dict[str, Any] | None:
        """Return what was kept, or None."""
        found = self.world.state.document(NAME, f"{kind}:{number}")
        return decode_object(found[0]) if found else None

    def check_body(self, body: Mapping[str, Any]) -> None:
        """Refuse a body that speaks for another merchant than the signer or its sub-merchant."""
        self._check_parties(body, "/", "body")

    def check_query(self, call: Call) -> None:
        """Refuse a query string without the signer's merchant number."""
        self._check_parties(call.query, "", "query")

    def check_sub(self, said: str | None, trade: Trade) -> None:
        """Refuse a request about an order of another sub-merchant than it names."""
        if (said or "") != trade.extra.get("sub_mchid", ""):
            raise parameter_error("/sub_mchid", said or "", "子商户号与订单不一致")

    def has_sub(self, merchant: str) -> bool:
        """Whether this is a sub-merchant of the provider's: the first, or one taken on since."""
        return merchant == self.vault.sub_mchid or self.kept("sub_mchid", merchant) is not None

    def _check_parties(self, said: Mapping[str, Any], start: str, location: str) -> None:
        signer = "sp_mchid" if "sp_mchid" in said else "mchid"
        value = said.get(signer) or ""
        if value != self.vault.mchid:
            issue = "商户号与签名的商户号不一致" if value else "必填参数缺失"
            raise parameter_error(f"{start}{signer}", value, issue, location)
        merchant = said.get("sub_mchid") or ""
        if signer == "sp_mchid" and not self.has_sub(merchant):
            raise parameter_error(f"{start}sub_mchid", merchant, "特约商户号未绑定", location)

    def transaction_id(self, now: datetime) -> str:
        """Return a fresh 28-digit number of a transaction."""
        serial = self.world.state.next_number("wechat.transaction")
        return f"4200000891{china(now):%Y%m%d}{serial:010d}"

    def refund_id(self, now: datetime) -> str:
        """Return a fresh 29-digit number of a refund."""
        serial = self.world.state.next_number("wechat.refund")
        return f"5000130773{china(now):%Y%m%d}{serial:011d}"


def transaction(trade: Trade) -> dict[str, Any]:
    """Return the transaction object, field by field as WeChat Pay writes it."""
    key = "refunded" if trade.state == "paid" and trade.refunded else trade.state
    state, description = _TRADE_STATES[key]
    if trade.mode == "agreement":
        state = {"NOTPAY": "ACCEPT", "PAYERROR": "PAY_FAIL"}.get(state, state)
    amount: dict[str, Any] = {"currency": trade.currency, "total": trade.amount}
    content: dict[str, Any] = {
        "amount": amount,
        "attach": trade.extra.get("attach", ""),
        **ids_of(trade),
        "out_trade_no": trade.number,
        "promotion_detail": [],
        "trade_state": state,
        "trade_state_desc": trade.extra.get("trade_state_desc", description),
    }
    if device_id := at(trade.extra, "/scene_info/device_id"):
        content["scene_info"] = {"device_id": device_id}
    if trade.mode == "payment_code":
        content["trade_type"] = "MICROPAY"
    if trade.paid_at is not None:
        amount |= {"payer_currency": trade.currency, "payer_total": trade.amount}
        content |= {
            "bank_type": trade.extra.get("bank_type", "OTHERS"),
            "payer": _payer(trade),
            "success_time": rfc3339(trade.paid_at),
            "trade_type": trade_type(trade),
            "transaction_id": trade.ref,
        }
    return content


def trade_type(trade: Trade) -> str:
    """Return how the customer paid, as objects and bills name it."""
    return TRADE_TYPES[trade.extra.get("product", "native")]


def ids_of(trade: Trade) -> dict[str, str]:
    """Return whose order it is: the merchant's, or a provider's and its merchant's."""
    return {name: trade.extra[name] for name in IDS if name in trade.extra}


def _payer(trade: Trade) -> dict[str, str]:
    if "sp_mchid" not in trade.extra:
        return {"openid": trade.payer}
    payer = {"sp_openid": trade.payer}
    return {**payer, "sub_openid": trade.payer} if "sub_appid" in trade.extra else payer


def combined_object(kept: Mapping[str, Any], trades: Sequence[Trade]) -> dict[str, Any]:
    """Return the object of a combined order: what was asked, and every part's state."""
    body = kept["body"]
    content: dict[str, Any] = {
        "combine_appid": body["combine_appid"],
        "combine_mchid": body["combine_mchid"],
        "combine_out_trade_no": body["combine_out_trade_no"],
        "sub_orders": [_part(trade) for trade in trades],
    }
    if device_id := at(body, "/scene_info/device_id"):
        content["scene_info"] = {"device_id": device_id}
    if trades[0].paid_at is not None:
        content["combine_payer_info"] = {"openid": trades[0].payer}
    return content


def _part(trade: Trade) -> dict[str, Any]:
    whole = transaction(trade)
    ids = ids_of(trade)
    amount: dict[str, Any] = {"total_amount": trade.amount, "currency": trade.currency}
    part = {"mchid": ids.get("mchid") or ids["sp_mchid"], "out_trade_no": trade.number}
    if "sub_mchid" in ids:
        part["sub_mchid"] = ids["sub_mchid"]
    shown = ("attach", "trade_type", "trade_state", "bank_type", "success_time", "transaction_id")
    part |= {name: whole[name] for name in shown if name in whole}
    if trade.paid_at is not None:
        amount |= {"payer_amount": trade.amount, "payer_currency": trade.currency}
    return {**part, "amount": amount}


def refund_object(refund: Refund, trade: Trade) -> dict[str, Any]:
    """Return the refund object as the refund calls answer it."""
    amount: dict[str, Any] = {
        "currency": refund.currency,
        "discount_refund": 0,
        "from": refund.extra.get("from", []),
        "payer_refund": refund.amount,
        "payer_total": trade.amount,
        "refund": refund.amount,
        "refund_fee": refund.extra.get("refund_fee", 0),
        "settlement_refund": refund.amount,
        "settlement_total": trade.amount,
        "total": trade.amount,
    }
    content: dict[str, Any] = {
        "amount": amount,
        "channel": "ORIGINAL",
        "create_time": rfc3339(refund.created_at),
        "funds_account": refund.extra.get("funds_account", "UNSETTLED"),
        "out_refund_no": refund.number,
        "out_trade_no": trade.number,
        "promotion_detail": [],
        "refund_id": refund.ref,
        "status": REFUND_STATES[refund.state],
        "transaction_id": trade.ref,
        "user_received_account": "支付用户零钱",
    }
    if refund.done_at is not None:
        content["success_time"] = rfc3339(refund.done_at)
    return content


def refund_resource(refund: Refund, trade: Trade) -> dict[str, Any]:
    """Return what a refund's callback says: fewer fields, and the state under another name."""
    parties = {name: value for name, value in ids_of(trade).items() if name.endswith("mchid")}
    content: dict[str, Any] = {
        **parties,
        "out_trade_no": trade.number,
        "transaction_id": trade.ref,
        "out_refund_no": refund.number,
        "refund_id": refund.ref,
        "refund_status": REFUND_STATES[refund.state],
        "user_received_account": "支付用户零钱",
        "amount": {
            "total": trade.amount,
            "refund": refund.amount,
            "payer_total": trade.amount,
            "payer_refund": refund.amount,
        },
    }
    if refund.done_at is not None:
        content["success_time"] = rfc3339(refund.done_at)
    return content

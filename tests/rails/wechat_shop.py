"""A merchant of ours at the simulated WeChat Pay, for the tests of its products."""

from __future__ import annotations

import asyncio
import json
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

from tests.rails.wire_server import WireServer, http_reply
from tongbao.infra.http import HttpClient
from tongbao.kernel.clock import real_now
from tongbao.kernel.ids import base32, new_id
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import Money
from tongbao.rails.channels.contract.callbacks import Callback, CallbackForged
from tongbao.rails.channels.contract.orders import ChannelAccount, PayMode, PayOrder, RefundOrder
from tongbao.rails.channels.contract.outcomes import OpenApp, Pending, Redirect, ShowQr
from tongbao.rails.channels.exchange import TimeLimits
from tongbao.rails.channels.wechat_pay.client import WechatPay
from tongbao.rails.channels.wechat_pay.secrets import Partner, WechatPaySecrets
from tongbao_sandbox.launch import RunningSandbox

LIMITS = TimeLimits(ask_s=0.6, bill_s=10.0)
PRICE = Money(1999, "CNY")
OPENID = "oUpF8uMuAJO_M2pxb1Q9zNjWeS6o"


def number() -> str:
    return base32(new_id())


class WechatShop:
    def __init__(self, sandbox: RunningSandbox, http: HttpClient, far_end: WireServer) -> None:
        self.sandbox = sandbox
        self.keys = sandbox.credentials["wechat"]
        self.wire = far_end
        self.channel = WechatPay(http, limits=LIMITS)
        self.account = self.account_with()
        reply = self.channel.reply_to_callback(accepted=True)
        far_end.react = lambda _: http_reply(reply.status, dict(reply.headers), reply.body)

    def account_with(self, **changes: Any) -> ChannelAccount:
        keys: dict[str, Any] = {
            "api_v3_key": self.keys["api_v3_key"],
            "merchant_serial": self.keys["merchant_serial"],
            "merchant_private_key_pem": self.keys["merchant_private_key_pem"],
            "platform_keys": {
                self.keys["platform_serial"]: self.keys["platform_certificate_pem"],
            },
        }
        secrets = WechatPaySecrets(**{**keys, **changes})
        partner = secrets.partner
        return ChannelAccount(
            id=uuid4(),
            channel="wechat_pay",
            mode=Mode.SANDBOX,
            gateway=f"{self.sandbox.url}/wechat",
            merchant_number=self.keys["sub_mchid"] if partner else self.keys["mchid"],
            app_id=(partner.sub_appid or partner.sp_appid) if partner else self.keys["appid"],
            notify_url=f"{self.wire.url}/notify",
            fee_ppm=6000,
            secrets=secrets,
        )

    def sandbox_kept(self, name: str) -> str:
        """Return a key that only WeChat Pay itself holds."""
        kept = json.loads((self.sandbox.data_dir / "institution.json").read_text())
        return str(kept["wechat"][name])

    def become_partner(self, sub_appid: str = "") -> None:
        """Call for the sub-merchant from now on, as its service provider."""
        partner = Partner(self.keys["mchid"], self.keys["appid"], sub_appid)
        self.account = self.account_with(partner=partner)

    def order(self, mode: PayMode, **changes: Any) -> PayOrder:
        now = datetime.fromisoformat(self.sandbox.get("clock")["now"])
        fields: dict[str, Any] = {
            "number": number(),
            "mode": mode,
            "money": PRICE,
            "subject": "一杯咖啡 & 1 muffin",
            "expires_at": now + timedelta(minutes=30),
            "payer_id": OPENID if mode is PayMode.IN_APP else None,
        }
        return PayOrder(**{**fields, **changes})

    def code(self, behaviour: str = "pay") -> PayOrder:
        made = self.sandbox.post("customer/payment-code", channel="wechat", behaviour=behaviour)
        return self.order(PayMode.PAYMENT_CODE, auth_code=made["auth_code"])

    async def offer(self, order: PayOrder) -> ShowQr | Redirect | OpenApp:
        """Place the order and return what the customer is to do."""
        answer = await self.channel.pay(self.account, order)
        assert isinstance(answer.outcome, Pending), answer
        action = answer.outcome.action
        assert isinstance(action, ShowQr | Redirect | OpenApp)
        return action

    async def control(self, path: str, **body: Any) -> Any:
        return await asyncio.to_thread(lambda: self.sandbox.post(path, **body))

    async def scan(self, order: PayOrder, action: str = "pay") -> Any:
        return await self.control(
            "customer/scan", channel="wechat", number=order.number, action=action
        )

    async def paid(self, mode: PayMode = PayMode.QR, **changes: Any) -> PayOrder:
        order = self.order(mode, **changes)
        await self.offer(order)
        await self.scan(order)
        return order

    async def advance(self, seconds: float) -> None:
        await asyncio.to_thread(self.sandbox.advance, seconds)

    async def settle(self) -> None:
        await asyncio.to_thread(self.sandbox.settle)

    async def callbacks(self) -> list[Callback | str]:
        """Everything that arrived, read, or the word forged."""
        await self.settle()
        seen: list[Callback | str] = []
        for heard in self.wire.heard:
            try:
                seen.append(
                    self.channel.read_callback(self.account, heard.headers, heard.body, real_now())
                )
            except CallbackForged:
                seen.append("forged")
        return seen

    def refund(self, order: PayOrder, fen: int) -> RefundOrder:
        return RefundOrder(
            number=number(),
            order_number=order.number,
            money=Money(fen, "CNY"),
            order_money=order.money,
            reason="缺货",
        )

"""A merchant at the sandbox's Alipay, in each of the ways an account can be set up."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

from tests.rails.wire_server import WireServer, http_reply
from tongbao.infra.http import HttpClient
from tongbao.kernel.clock import real_now
from tongbao.kernel.ids import base32, new_id
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import Money
from tongbao.rails.channels.alipay.client import Alipay
from tongbao.rails.channels.alipay.secrets import AlipaySecrets
from tongbao.rails.channels.contract.callbacks import Callback, CallbackForged
from tongbao.rails.channels.contract.orders import ChannelAccount, PayMode, PayOrder
from tongbao.rails.channels.contract.outcomes import OpenApp, Pending, Redirect
from tongbao.rails.channels.exchange import TimeLimits
from tongbao_sandbox.launch import RunningSandbox

PRICE = Money(1999, "CNY")
BUYER = "2088722000000017"
RETURN_URL = "https://shop.example/paid?order=7"
KINDS = ["key", "certificate", "rest", "rest and certificate"]


class Desk:
    """One merchant; ``account`` may be exchanged for one set up in another way."""

    def __init__(self, sandbox: RunningSandbox, http: HttpClient, wire: WireServer) -> None:
        self.sandbox, self.wire = sandbox, wire
        self.now = real_now
        self.channel = Alipay(
            http,
            limits=TimeLimits(ask_s=0.7, bill_s=5.0),
            clock=lambda: self.now(),  # noqa: PLW0108 - replaced later
        )
        self.account = account_of(sandbox, wire.url, "key")
        wire.react = lambda _: http_reply(200, {}, b"success")

    def order(self, mode: PayMode, **changes: Any) -> PayOrder:
        fields: dict[str, Any] = {
            "number": base32(new_id()),
            "mode": mode,
            "money": PRICE,
            "subject": "一杯咖啡 & 1 muffin",
            "expires_at": datetime.fromisoformat(self.sandbox.get("clock")["now"])
            + timedelta(minutes=30),
            "payer_id": BUYER if mode is PayMode.IN_APP else None,
            "return_url": RETURN_URL,
        }
        return PayOrder(**{**fields, **changes})

    async def offer(self, order: PayOrder) -> str:
        """Return what the customer is given: an address, a text for the app, a trade number."""
        answer = await self.channel.pay(self.account, order)
        assert isinstance(answer.outcome, Pending), answer
        action = answer.outcome.action
        assert isinstance(action, Redirect | OpenApp)
        return (
            action.url if isinstance(action, Redirect) else next(iter(action.parameters.values()))
        )

    async def control(self, path: str, **body: Any) -> Any:
        return await asyncio.to_thread(lambda: self.sandbox.post(path, **body))

    async def visit(self, offered: str, action: str = "pay") -> dict[str, Any]:
        return await self.control("alipay/visit", url=offered, action=action)

    async def scan(self, order: PayOrder, action: str = "pay") -> None:
        await self.control("customer/scan", channel="alipay", number=order.number, action=action)

    async def callbacks(self) -> list[Callback | CallbackForged]:
        await asyncio.to_thread(self.sandbox.settle)
        read: list[Callback | CallbackForged] = []
        for heard in self.wire.heard:
            try:
                read.append(
                    self.channel.read_callback(self.account, heard.headers, heard.body, real_now())
                )
            except CallbackForged as refusal:
                read.append(refusal)
        return read


def account_of(sandbox: RunningSandbox, notify: str, kind: str, **changes: Any) -> ChannelAccount:
    given = sandbox.credentials["alipay"]
    keys: dict[str, Any] = {
        "app_private_key_pem": given["app_private_key_pem"],
        "alipay_public_key_pem": given["alipay_public_key_pem"],
    }
    if "certificate" in kind:
        keys["alipay_public_key_pem"] = given["alipay_certificate_pem"]
        keys["app_certificate_pem"] = given["app_certificate_pem"]
        keys["root_certificates_pem"] = given["root_certificates_pem"]
    if "rest" in kind:
        keys["protocol"] = "v3"
    return ChannelAccount(
        id=uuid4(),
        channel="alipay",
        mode=Mode.SANDBOX,
        gateway=f"{sandbox.url}/alipay",
        merchant_number=given["seller_id"],
        app_id=given["app_id"],
        notify_url=f"{notify}/callbacks/alipay",
        fee_ppm=6000,
        secrets=AlipaySecrets(**{**keys, **changes}),
    )

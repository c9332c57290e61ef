"""A merchant of ours at every simulated channel, all behind one face, for the contract suite.

A stall knows how its customers meet an order and how to look, at the sandbox and behind the
channel's back, at where the money is.
"""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any

import msgspec

from tests.rails import card_host
from tests.rails.alipay_desk import account_of
from tests.rails.wire_server import WireServer, http_reply
from tongbao.infra.http import HttpClient
from tongbao.kernel.clock import real_now
from tongbao.kernel.ids import base32, new_id
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import Money
from tongbao.rails.channels.alipay.client import Alipay
from tongbao.rails.channels.capabilities.agreements import (
    AgreementOffered,
    AgreementOrder,
    AgreementSigned,
)
from tongbao.rails.channels.cards.client import Cards
from tongbao.rails.channels.cards.line import LineLimits
from tongbao.rails.channels.cards.messages import trace_of
from tongbao.rails.channels.contract.callbacks import Callback, CallbackForged
from tongbao.rails.channels.contract.channel import Channel
from tongbao.rails.channels.contract.orders import ChannelAccount, PayMode, PayOrder, RefundOrder
from tongbao.rails.channels.contract.outcomes import OpenApp, Pending, Redirect, SubmitForm
from tongbao.rails.channels.exchange import TimeLimits
from tongbao.rails.channels.unionpay.client import UnionPay
from tongbao.rails.channels.unionpay.secrets import UnionPaySecrets
from tongbao.rails.channels.unionpay.wire import CANCEL_SUFFIX
from tongbao.rails.channels.unionpay_qra.client import Qra
from tongbao.rails.channels.unionpay_qra.secrets import QraSecrets
from tongbao.rails.channels.wechat_pay.client import WechatPay
from tongbao.rails.channels.wechat_pay.secrets import WechatPaySecrets
from tongbao_sandbox.launch import RunningSandbox

LIMITS = TimeLimits(ask_s=5.0, bill_s=5.0)
HOLD_S = 0.2
"""How long the sandbox keeps a connection open that gets no answer: nobody waits for a limit here,
and a busy machine is not taken for silence. That silence itself is Unknown, test_contract.py says.
"""
CARD_ANSWER_S = 1.0  # a card host says nothing at all, and the line stays
PRICE = Money(1999, "CNY")
CHARGES = frozenset({PayMode.PAYMENT_CODE, PayMode.AGREEMENT, PayMode.CARD})
"""What is taken by the call itself; in all other modes the call only offers."""
CARD_MONEY = 1_000_000


class Stall:
    """A merchant at one channel; each channel's differences are overridden."""

    name: str
    at_sandbox: str
    makes: type[Channel]
    channel: Any
    account: ChannelAccount
    unasked: frozenset[PayMode] = frozenset()  # offers that are signed without asking the channel
    answers_queries = True  # False: nobody can be asked, so what is unknown is closed
    closes_open = True  # False: an order that was offered ends by its own time
    tells: frozenset[str] = frozenset({"payment", "refund"})  # what it sends notices of

    def __init__(self, sandbox: RunningSandbox, http: HttpClient, wire: WireServer) -> None:
        self.sandbox = sandbox
        self.wire = wire
        self.offered: dict[str, Pending] = {}
        self.open(http)

    def open(self, http: HttpClient) -> None:
        """Set ``channel`` and ``account``, and answer callbacks."""
        raise NotImplementedError

    def account_at(
        self, secrets: Any, number: str, app: str, *, prefix: str = ""
    ) -> ChannelAccount:
        reply = self.channel.reply_to_callback(accepted=True)
        self.wire.react = lambda _: http_reply(reply.status, dict(reply.headers), reply.body)
        return ChannelAccount(
            id=new_id(),
            channel=self.name,
            mode=Mode.SANDBOX,
            gateway=f"{self.sandbox.url}/{prefix or self.at_sandbox}",
            merchant_number=number,
            app_id=app,
            notify_url=f"{self.wire.url}/callbacks/{self.name}",
            fee_ppm=6000,
            secrets=secrets,
        )

    # Orders

    def now(self) -> datetime:
        return datetime.fromisoformat(self.sandbox.get("clock")["now"])

    async def order(self, mode: PayMode, **changes: Any) -> PayOrder:
        fields: dict[str, Any] = {
            "number": base32(new_id()),
            "mode": mode,
            "money": PRICE,
            "subject": "一杯咖啡 & 1 muffin",
            "expires_at": self.now() + timedelta(minutes=30),
            "return_url": "https://shop.example/back",
        }
        if mode is PayMode.IN_APP:
            fields["payer_id"] = "2088722000000017"
        if mode is PayMode.PAYMENT_CODE:
            behaviour = changes.pop("behaviour", "pay")
            made = await self.control(
                "customer/payment-code", channel=self.at_sandbox, behaviour=behaviour
            )
            fields["auth_code"] = made["auth_code"]
        if mode is PayMode.AGREEMENT:
            fields["agreement_ref"] = (await self.signed()).agreement_ref
        return PayOrder(**{**fields, **changes})

    async def place(self, order: PayOrder) -> Any:
        """Pay, and remember what the customer is to do."""
        answer = await self.channel.pay(self.account, order)
        if isinstance(answer.outcome, Pending):
            self.offered[order.number] = answer.outcome
        return answer

    async def meet(self, order: PayOrder, action: str = "pay") -> None:
        """Let the customer do what they were shown: pay, decline or look and walk away."""
        offered = self.offered.get(order.number)
        if not (offered and await self.visit(offered.action, action)):
            await self.control(
                "customer/scan", channel=self.at_sandbox, number=order.number, action=action
            )

    async def visit(self, action: Any, what: str) -> bool:
        """Open the page of an action, where the order has one; say whether it had."""
        del action, what
        return False

    async def paid(self, mode: PayMode | None = None) -> PayOrder:
        """An order that is paid, in the plainest mode unless one is named."""
        order = await self.order(mode or self.plain)
        await self.place(order)
        if order.mode not in CHARGES:
            await self.meet(order)
        return order

    @property
    def plain(self) -> PayMode:
        return PayMode.QR

    async def signed(self, order: AgreementOrder | None = None) -> AgreementSigned:
        """An agreement that a customer has signed."""
        order = order or self.agreement()
        offered = (await self.channel.offer_agreement(self.account, order)).outcome
        assert isinstance(offered, AgreementOffered), offered
        await self.sign(order, offered.action)
        found = (await self.channel.query_agreement(self.account, order)).outcome
        assert isinstance(found, AgreementSigned), found
        return found

    def agreement(self) -> AgreementOrder:
        raise NotImplementedError

    async def sign(self, order: AgreementOrder, action: Any) -> None:
        raise NotImplementedError

    def refund(self, order: PayOrder, fen: int, **changes: Any) -> RefundOrder:
        fields = {
            "number": base32(new_id()),
            "order_number": order.number,
            "money": Money(fen, "CNY"),
            "order_money": order.money,
            "reason": "缺货",
        }
        return RefundOrder(**{**fields, **changes})

    # The sandbox

    async def control(self, path: str, **body: Any) -> Any:
        return await asyncio.to_thread(lambda: self.sandbox.post(path, **body))

    async def advance(self, seconds: float) -> None:
        await asyncio.to_thread(self.sandbox.advance, seconds)

    def number_there(self, number: str) -> str:
        """What the sandbox calls one of our numbers when faults are scripted."""
        return number

    def close_number(self, order: PayOrder) -> str:
        """Under which number the call that closes an order goes out."""
        return order.number

    def fault(self, on: str, fault: str, number: str, times: int = 1) -> None:
        self.sandbox.fault(
            self.at_sandbox, on, fault, number=self.number_there(number), times=times
        )

    def trades(self, order: PayOrder) -> list[dict[str, Any]]:
        found = self.sandbox.get("trades", channel=self.at_sandbox, number=order.number)
        return [dict(one) for one in found]

    def taken(self, order: PayOrder) -> int:
        """What the customer is poorer by, looked up at the sandbox, refunds not counted."""
        return sum(one["amount"] for one in self.trades(order) if one["state"] == "paid")

    def given_back(self, order: PayOrder) -> int:
        refunds = self.sandbox.get("refunds", channel=self.at_sandbox)
        return sum(
            one["amount"]
            for one in refunds
            if one["trade_number"] == order.number and one["state"] in {"done", "processing"}
        )

    def callbacks(self) -> list[Callback | str]:
        """Everything that arrived, read, or the word forged."""
        seen: list[Callback | str] = []
        for heard in self.wire.heard:
            try:
                seen.append(
                    self.channel.read_callback(self.account, heard.headers, heard.body, real_now())
                )
            except CallbackForged:
                seen.append("forged")
        return seen


class WechatStall(Stall):
    name = "wechat_pay"
    at_sandbox = "wechat"
    makes = WechatPay

    def open(self, http: HttpClient) -> None:
        given = self.sandbox.credentials["wechat"]
        self.channel = WechatPay(http, limits=LIMITS)
        secrets = WechatPaySecrets(
            api_v3_key=given["api_v3_key"],
            merchant_serial=given["merchant_serial"],
            merchant_private_key_pem=given["merchant_private_key_pem"],
            platform_keys={given["platform_serial"]: given["platform_certificate_pem"]},
        )
        self.account = self.account_at(secrets, given["mchid"], given["appid"])

    def agreement(self) -> AgreementOrder:
        return AgreementOrder(base32(new_id()), "12535", "顾客甲", payer_id="oUpF8uMuAJO_M2pxb1Q9")

    async def sign(self, order: AgreementOrder, action: Any) -> None:
        del action
        await self.control("wechat/agreement", number=order.number, action="sign")


class AlipayStall(Stall):
    name = "alipay"
    at_sandbox = "alipay"
    makes = Alipay
    unasked = frozenset({PayMode.WEB, PayMode.H5, PayMode.APP})

    def open(self, http: HttpClient) -> None:
        self.channel = Alipay(http, limits=LIMITS)
        self.account = account_of(self.sandbox, self.wire.url, "key")
        self.wire.react = lambda _: http_reply(200, {}, b"success")

    async def visit(self, action: Any, what: str) -> bool:
        match action:
            case Redirect(url=url):
                await self.control("alipay/visit", url=url, action=what)
            case OpenApp(parameters={"orderString": url}):
                await self.control("alipay/visit", url=url, action=what)
            case _:
                return False
        return True

    def agreement(self) -> AgreementOrder:
        plan = "GENERAL_WITHHOLDING_P/INDUSTRY|CARRENTAL"
        return AgreementOrder(base32(new_id()), plan, "顾客甲", "https://shop.example/signed")

    async def sign(self, order: AgreementOrder, action: Any) -> None:
        del order
        await self.visit(action, "pay")


class UnionPayStall(Stall):
    name = "unionpay"
    at_sandbox = "unionpay"
    makes = UnionPay
    unasked = frozenset({PayMode.WEB, PayMode.H5})
    closes_open = False

    def open(self, http: HttpClient) -> None:
        given = self.sandbox.credentials["unionpay"]
        self.channel = UnionPay(http, limits=LIMITS, clock=self.now)
        secrets = UnionPaySecrets(
            merchant_private_key_pem=given["merchant_private_key_pem"],
            merchant_certificate_pem=given["merchant_certificate_pem"],
            root_certificate_pem=given["root_certificate_pem"],
            middle_certificate_pem=given["middle_certificate_pem"],
        )
        self.account = self.account_at(secrets, given["mer_id"], "000201")

    def close_number(self, order: PayOrder) -> str:
        return order.number + CANCEL_SUFFIX

    async def visit(self, action: Any, what: str) -> bool:
        if not isinstance(action, SubmitForm):
            return False
        await self.control("unionpay/visit", fields=dict(action.fields), action=what)
        return True


class QraStall(Stall):
    name = "unionpay_qra"
    at_sandbox = "unionpay_qra"
    makes = Qra
    tells = frozenset({"payment"})

    def open(self, http: HttpClient) -> None:
        given = self.sandbox.credentials["unionpay_qra"]
        self.channel = Qra(http, limits=LIMITS)
        secrets = QraSecrets(given["secure_key"])
        self.account = self.account_at(secrets, given["mch_id"], "qra", prefix="qra")


class CardStall(Stall):
    name = "cards"
    at_sandbox = "cards"
    makes = Cards
    answers_queries = False
    tells = frozenset()

    def open(self, http: HttpClient) -> None:
        del http
        given = self.sandbox.credentials["cards"]
        keys = {
            name: given[name] for name in ("master_key", "institution", "switch", "cipher", "mac")
        }
        self.channel = Cards(LineLimits(answer_s=CARD_ANSWER_S))
        self.account = msgspec.structs.replace(
            card_host.account(self.sandbox.hosts["cards"], **keys),
            merchant_number=given["merchant_number"],
            app_id=given["terminal"],
        )
        self.cards: dict[str, str] = {}  # our order's number → the card's

    @property
    def plain(self) -> PayMode:
        return PayMode.CARD

    async def order(self, mode: PayMode, **changes: Any) -> PayOrder:
        # Each order has a card of its own; digits 00NN at its end would choose a refusal.
        card = f"625188{new_id().int % 10**6:06d}7788"
        made = await super().order(mode, **{"card": card_host.card(card), **changes})
        self.cards[made.number] = card
        return made

    def number_there(self, number: str) -> str:
        return trace_of(number).reference

    def trades(self, order: PayOrder) -> list[dict[str, Any]]:
        kinds = {"purchase", "authorise"}
        entries = [dict(one) for one in self.sandbox.get("cards/entries")]
        about = self.number_there(order.number)
        return [one for one in entries if one["reference"] == about and one["kind"] in kinds]

    def money_on(self, order: PayOrder) -> tuple[int, int]:
        shown = self.sandbox.post("cards/card", number=self.cards[order.number])
        return shown["balance"], shown["held"]

    def taken(self, order: PayOrder) -> int:
        return CARD_MONEY - self.money_on(order)[0] + self.given_back(order)

    def given_back(self, order: PayOrder) -> int:
        return sum(one["refunded"] for one in self.trades(order))


STALLS: dict[str, type[Stall]] = {
    made.name: made for made in (WechatStall, AlipayStall, UnionPayStall, QraStall, CardStall)
}

"""Where things are made to happen: a merchant's access to the API, and the simulated channels.

The merchant's part goes through the public API with the merchant's key, the customer's through the
control API of the simulated channels. So the event, the ledger and the webhook are the real thing.
"""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, cast
from urllib.parse import urlsplit
from uuid import uuid4

import msgspec
from msgspec import Struct

from tongbao.kernel.errors import Busy, Invalid
from tongbao.kernel.ids import base32, parse
from tongbao_sdk import Tongbao

_TIMEOUT_S: Final = 60
_WAITS_S: Final = 15.0
_LOOK_EVERY_S: Final = 0.1
_CODE: Final = "customer/payment-code"
CHANNELS: Final = {"wechat_pay": "wechat", "alipay": "alipay", "unionpay": "unionpay"}


NAME: Final = "tongbao trigger"
_TELLS_COMPLAINTS: Final = "wechat_pay"  # Alipay's are asked for by the hour
_PLANS: Final = {"wechat_pay": "12251", "alipay": "GENERAL_WITHHOLDING_P/INDUSTRY|CARRENTAL"}
"""What an agreement is made under at a channel; the sandbox's take any."""


class OverrideUnreadable(Invalid):
    """An override is a path of names and a value: ``metadata.table=4``."""

    code = "trigger.override_unreadable"
    advice = "Write --override name.inner=value; a value that is no JSON is taken as text."
    advice_zh = "请按 名称.内层=值 书写 --override；非 JSON 的值按文本处理。"


class SandboxNotThere(Invalid):
    """The simulated channels do not answer, or said no to what the customer was to do."""

    code = "trigger.sandbox_not_there"
    advice = "Name the running sandbox with --sandbox-url, as the platform's settings do."
    advice_zh = "请用 --sandbox-url 指定正在运行的沙箱地址。"


class ChannelWithout(Invalid):
    """The channel has nothing like it, or tells of it by the hour only."""

    code = "trigger.channel_without"
    advice = "Choose another channel: agreements at wechat_pay, alipay; complaints at wechat_pay."
    advice_zh = "请更换渠道：代扣协议用 wechat_pay 或 alipay，投诉用 wechat_pay。"


class NotHeardYet(Busy):
    """The channel's word about it has not come within 15 seconds."""

    code = "trigger.not_heard_yet"
    advice = "See that a worker of the platform is running; what was begun goes on by itself."
    advice_zh = "请确认平台的 worker 正在运行；已开始的事项会自行继续。"


class Theatre(Struct, frozen=True):
    """Where things happen: a merchant's access, and the simulated channels."""

    shop: Tongbao
    sandbox_url: str
    channel: str
    overrides: Sequence[tuple[list[str], Any]] = ()

    def pay(self, behaviour: str) -> Any:
        """Charge a payment code of a customer who behaves like this."""
        shown = self.customer(_CODE, channel=CHANNELS[self.channel], behaviour=behaviour)
        method = {
            "channel": self.channel,
            "mode": "payment_code",
            "auth_code": shown["auth_code"],
        }
        return self.shop.transport.post("/v1/payments", self._with_overrides(method))

    def set_aside(self) -> Any:
        """Have the money of a customer's payment code set aside, to be taken or let go."""
        shown = self.customer(_CODE, channel=CHANNELS[self.channel], behaviour="pay")
        method = {"channel": self.channel, "mode": "payment_code", "auth_code": shown["auth_code"]}
        order = self._with_overrides(method)
        payment = self.shop.transport.post("/v1/payments", {"capture": "manual", **order})
        waiting = {"created", "pending", "unknown"}
        return until(
            lambda: self.shop.payments.get(payment["id"]), lambda it: it["status"] not in waiting
        )

    def show_qr(self) -> Any:
        """Ask for a payment that nobody pays."""
        method = {"channel": self.channel, "mode": "qr"}
        return self.shop.transport.post("/v1/payments", self._with_overrides(method))

    def pay_from_wallet(self) -> Any:
        """Charge the code of a new wallet that has just enough in it; its money is in our book."""
        order = self._with_overrides({"channel": "wallet", "mode": "payment_code"})
        wallet = self.shop.wallets.open(holder_name=NAME)
        self.shop.wallets.top_up(wallet["id"], amount=order["amount"])
        code = self.shop.wallets.payment_code(wallet["id"])["code"]
        order["method"] |= {"auth_code": code}
        return self.shop.transport.post("/v1/payments", order)

    def sign_agreement(self) -> Any:
        """Offer an agreement and have the customer sign it at the channel.

        Raises:
            ChannelWithout
        """
        if self.channel not in _PLANS:
            raise ChannelWithout
        offered = self.shop.agreements.create(
            merchant_agreement_no=uuid4().hex,
            channel=cast("Any", self.channel),
            plan=_PLANS[self.channel],
            display_name=NAME,
            payer_id="oTrigger" if self.channel == "wechat_pay" else None,
            return_url="https://example.com/agreed",
        )
        if self.channel == "alipay":
            self.customer("alipay/visit", url=cast("Any", offered)["next_action"]["url"])
        else:
            number = base32(parse("agr", offered["id"]))
            self.customer("wechat/agreement", number=number, action="sign")
        return until(
            lambda: self.shop.agreements.get(offered["id"]), lambda it: it["status"] == "active"
        )

    def complain(self, number: str, detail: str) -> None:
        """Have whoever paid an order complain about it, or say more."""
        self.customer(f"{CHANNELS[self.channel]}/complain", number=number, detail=detail)

    def at_bank(self, payout_id: str, action: str) -> None:
        """Have the bank decide about a payout that it has taken and not yet made."""
        self.customer(f"bank/payments/{base32(parse('pyo', payout_id))}", action=action)

    def paid_by_scan(self) -> tuple[Any, str]:
        """Return a payment whose QR code a customer paid, and its number at the channel.

        Raises:
            ChannelWithout
        """
        if self.channel != _TELLS_COMPLAINTS:
            raise ChannelWithout
        payment = self.show_qr()
        token = payment["next_action"]["code_url"]
        said = self.customer("customer/scan", code_url=token, action="pay")
        paid = until(
            lambda: self.shop.payments.get(payment["id"]), lambda it: it["status"] == "succeeded"
        )
        return paid, said["out_trade_no"]

    def _with_overrides(self, method: Mapping[str, Any]) -> dict[str, Any]:
        order: dict[str, Any] = {
            "merchant_order_no": uuid4().hex,
            "amount": 1999,
            "currency": "CNY",
            "subject": NAME,
            "method": dict(method),
        }
        for path, value in self.overrides:
            inner = order
            for name in path[:-1]:
                inner = inner.setdefault(name, {})
                if not isinstance(inner, dict):
                    raise OverrideUnreadable(param=".".join(path))
            inner[path[-1]] = value
        return order

    def customer(self, what: str, **body: Any) -> Any:
        """Tell the control API what the customer does.

        Raises:
            SandboxNotThere
        """
        connection = http.client.HTTPConnection(
            urlsplit(self.sandbox_url).netloc, timeout=_TIMEOUT_S
        )
        try:
            connection.request("POST", f"/control/{what}", msgspec.json.encode(body))
            reply = connection.getresponse()
            said = reply.read()
        except OSError as failure:
            raise SandboxNotThere(reason=type(failure).__name__) from None
        finally:
            connection.close()
        if reply.status != http.client.OK:
            raise SandboxNotThere(status=reply.status)
        return msgspec.json.decode(said)


def until(read: Callable[[], Any], is_there: Callable[[Any], bool]) -> Any:
    """Return what is read once it is as it should be; a channel's word comes by itself.

    Raises:
        NotHeardYet: it is not so within 15 seconds.
    """
    waited_s = 0.0
    while not is_there(found := read()):
        if waited_s >= _WAITS_S:
            raise NotHeardYet
        time.sleep(_LOOK_EVERY_S)
        waited_s += _LOOK_EVERY_S
    return found

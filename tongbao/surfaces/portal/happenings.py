"""Make something happen in the sandbox, by the same way as in earnest: ask, pay, give back.

The merchant's part goes through the public API with the merchant's key, the customer's through the
control API of the simulated channels. So the event, the ledger and the webhook are the real thing.
"""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, cast
from urllib.parse import urlsplit
from uuid import uuid4

import msgspec
from msgspec import Struct

from tongbao.kernel.errors import Invalid
from tongbao_sdk import Tongbao

_TIMEOUT_S: Final = 60
_SET_ASIDE_S: Final = 15.0
_LOOK_EVERY_S: Final = 0.1
CHANNELS: Final = {"wechat_pay": "wechat", "alipay": "alipay", "unionpay": "unionpay"}


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


class Theatre(Struct, frozen=True):
    """Where things happen: a merchant's access, and the simulated channels."""

    shop: Tongbao
    sandbox_url: str
    channel: str
    overrides: Sequence[tuple[list[str], Any]] = ()

    def pay(self, behaviour: str) -> Any:
        """Charge a payment code of a customer who behaves like this."""
        shown = self._customer(channel=CHANNELS[self.channel], behaviour=behaviour)
        method = {
            "channel": self.channel,
            "mode": "payment_code",
            "auth_code": shown["auth_code"],
        }
        return self.shop.transport.post("/v1/payments", self._with_overrides(method))

    def set_aside(self) -> Any:
        """Have the money of a customer's payment code set aside, to be taken or let go."""
        shown = self._customer(channel=CHANNELS[self.channel], behaviour="pay")
        method = {"channel": self.channel, "mode": "payment_code", "auth_code": shown["auth_code"]}
        order = self._with_overrides(method)
        payment = self.shop.transport.post("/v1/payments", {"capture": "manual", **order})
        waited_s = 0.0
        while payment["status"] in {"created", "pending", "unknown"} and waited_s < _SET_ASIDE_S:
            time.sleep(_LOOK_EVERY_S)  # the channel's word comes by itself
            waited_s += _LOOK_EVERY_S
            payment = self.shop.payments.get(payment["id"])
        return payment

    def show_qr(self) -> Any:
        """Ask for a payment that nobody pays."""
        method = {"channel": self.channel, "mode": "qr"}
        return self.shop.transport.post("/v1/payments", self._with_overrides(method))

    def _with_overrides(self, method: Mapping[str, Any]) -> dict[str, Any]:
        order: dict[str, Any] = {
            "merchant_order_no": uuid4().hex,
            "amount": 1999,
            "currency": "CNY",
            "subject": "tongbao trigger",
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

    def _customer(self, **body: Any) -> Any:
        """Tell the control API what the customer does.

        Raises:
            SandboxNotThere
        """
        connection = http.client.HTTPConnection(
            urlsplit(self.sandbox_url).netloc, timeout=_TIMEOUT_S
        )
        try:
            connection.request("POST", "/control/customer/payment-code", msgspec.json.encode(body))
            reply = connection.getresponse()
            said = reply.read()
        except OSError as failure:
            raise SandboxNotThere(reason=type(failure).__name__) from None
        finally:
            connection.close()
        if reply.status != http.client.OK:
            raise SandboxNotThere(status=reply.status)
        return msgspec.json.decode(said)


def _succeeded(theatre: Theatre) -> Iterator[str]:
    yield theatre.pay("pay")["id"]


def _failed(theatre: Theatre) -> Iterator[str]:
    yield theatre.pay("decline")["id"]


def _closed(theatre: Theatre) -> Iterator[str]:
    payment = theatre.show_qr()
    yield payment["id"]
    theatre.shop.payments.close(payment["id"])


def _refunded(theatre: Theatre) -> Iterator[str]:
    payment = theatre.pay("pay")
    yield payment["id"]
    yield theatre.shop.payments.refund(
        payment["id"], merchant_refund_no=uuid4().hex, amount=payment["amount"]
    )["id"]


def _authorised(theatre: Theatre) -> Iterator[str]:
    """The money is set aside and waits: over the channels that can do so."""
    yield theatre.set_aside()["id"]


def _captured(theatre: Theatre) -> Iterator[str]:
    payment = theatre.set_aside()
    yield payment["id"]
    theatre.shop.payments.capture(payment["id"])


def _voided(theatre: Theatre) -> Iterator[str]:
    payment = theatre.set_aside()
    yield payment["id"]
    theatre.shop.payments.void(payment["id"])


def _disputed(theatre: Theatre) -> Iterator[str]:
    payment = theatre.pay("pay")
    yield payment["id"]
    yield theatre.shop.disputes.raise_in_sandbox(payment["id"])["id"]


def _dispute_closed(theatre: Theatre) -> Iterator[str]:
    made = list(_disputed(theatre))
    yield from made
    theatre.shop.disputes.accept(made[-1], "tongbao trigger")


def _checkout_closed(theatre: Theatre) -> Iterator[str]:
    checkout = theatre.shop.checkouts.create(
        merchant_order_no=uuid4().hex, amount=1999, subject="tongbao trigger"
    )
    yield checkout["id"]
    theatre.shop.checkouts.close(checkout["id"])


def _topped_up(theatre: Theatre) -> Iterator[str]:
    wallet = theatre.shop.wallets.open(holder_name="tongbao trigger")
    yield wallet["id"]
    yield theatre.shop.wallets.top_up(wallet["id"], amount=1999)["id"]


def _webhook_tested(theatre: Theatre) -> Iterator[str]:
    for endpoint in theatre.shop.webhook_endpoints.list():
        yield endpoint["id"]
        theatre.shop.webhook_endpoints.test(endpoint["id"])


HAPPENINGS: Final[Mapping[str, Callable[[Theatre], Iterator[str]]]] = {
    "payment.succeeded": _succeeded,
    "payment.failed": _failed,
    "payment.closed": _closed,
    "payment.authorised": _authorised,
    "payment.captured": _captured,
    "payment.voided": _voided,
    "refund.succeeded": _refunded,
    "dispute.opened": _disputed,
    "dispute.closed": _dispute_closed,
    "checkout.closed": _checkout_closed,
    "wallet.topped_up": _topped_up,
    "webhook.test": _webhook_tested,
}
"""What can be made to happen, by the event that tells of it."""


def read_override(text: str) -> tuple[list[str], Any]:
    """Return the path and the value of ``a.b=c``; the value is JSON, or text as it stands.

    Raises:
        OverrideUnreadable
    """
    path, is_set, value = text.partition("=")
    names = path.split(".")
    if not is_set or not all(names):
        raise OverrideUnreadable
    if names[0] == "metadata":  # which has texts only
        return names, value
    try:
        return names, cast("Any", msgspec.json.decode(value.encode()))
    except msgspec.DecodeError:
        return names, value

"""Calls to Alipay's gateway: signed forms out, replies verified on their raw bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final
from urllib.parse import urlencode

import msgspec
from msgspec import Raw, Struct

from tongbao.infra.http import HttpClient, HttpReply
from tongbao.kernel.clock import BUSINESS_ZONE
from tongbao.rails.channels.alipay.crypto import public_key, request_text, sign, verify
from tongbao.rails.channels.alipay.secrets import AlipaySecrets
from tongbao.rails.channels.contract import ChannelAccount, Exchange, NotSent, Unknown
from tongbao.rails.channels.exchange import Request, TimeLimits, ask, decode

DONE: Final = "10000"

_PATH: Final = "/gateway.do"
_USER_AGENT: Final = "tongbao/1"
_TIME: Final = "%Y-%m-%d %H:%M:%S"


class Answered(Struct, frozen=True):
    """A verified reply with code 10000; ``node`` is its inner object, byte for byte."""

    node: bytes


class Refused(Struct, frozen=True):
    """A verified reply with any other code."""

    code: str
    sub_code: str
    message: str

    @property
    def shown_code(self) -> str:
        """The most specific code there is."""
        return self.sub_code or self.code


Heard = Answered | Refused | NotSent | Unknown


class _Head(Struct, frozen=True):
    code: str
    msg: str = ""
    sub_code: str = ""
    sub_msg: str = ""


def secrets_of(account: ChannelAccount) -> AlipaySecrets:
    """Return the account's keys; keys of another channel are a bug."""
    if not isinstance(account.secrets, AlipaySecrets):
        raise TypeError(f"account {account.id} holds no Alipay keys")
    return account.secrets


class Gateway:
    """Asks and checks; it remembers nothing."""

    def __init__(
        self, http: HttpClient, limits: TimeLimits, real_now: Callable[[], datetime]
    ) -> None:
        self.http = http
        self.limits = limits
        self.real_now = real_now

    async def call(
        self,
        account: ChannelAccount,
        method: str,
        content: Mapping[str, Any],
        *,
        notify: bool = False,
        hidden: tuple[str, ...] = (),
    ) -> tuple[Heard, Exchange]:
        """Make one call and return what was heard, with the evidence."""
        request = self._request(account, method, content, notify=notify, hidden=hidden)
        reply, exchange = await ask(self.http, request, timeout_s=self.limits.ask_s)
        if not isinstance(reply, HttpReply):
            return reply, exchange
        if reply.status != 200:
            return Unknown(f"http {reply.status}"), exchange
        return _judge(account, method, reply.body), exchange

    def _request(
        self,
        account: ChannelAccount,
        method: str,
        content: Mapping[str, Any],
        *,
        notify: bool,
        hidden: tuple[str, ...],
    ) -> Request:
        text = msgspec.json.encode(content).decode()
        common = {
            "app_id": account.app_id,
            "method": method,
            "format": "JSON",
            "charset": "utf-8",
            "sign_type": "RSA2",
            "timestamp": self.real_now().astimezone(BUSINESS_ZONE).strftime(_TIME),
            "version": "1.0",
        }
        if notify:
            common["notify_url"] = account.notify_url
        message = request_text({**common, "biz_content": text})
        signature = sign(secrets_of(account).app_private_key_pem, message)
        address = gateway_address(account)
        return Request(
            method="POST",
            url=f"{address}?{urlencode({**common, 'sign': signature})}",
            headers={
                "accept": "application/json",
                "user-agent": _USER_AGENT,
                "content-type": "application/x-www-form-urlencoded;charset=utf-8",
            },
            body=urlencode({"biz_content": text}).encode(),
            shown_url=f"{address}?{urlencode(common)}",
            shown_body=text,
            hidden=hidden,
        )


def gateway_address(account: ChannelAccount) -> str:
    """Return the one address of every call."""
    return account.gateway.removesuffix(_PATH) + _PATH


def _judge(account: ChannelAccount, method: str, body: bytes) -> Heard:
    """Verify the inner object as it was sent: `Raw` keeps its very bytes."""
    parts = decode(body, dict[str, Raw])
    if parts is None:
        return Unknown("the reply is no JSON object")
    node = parts.get(f"{method.replace('.', '_')}_response") or parts.get("error_response")
    signature = decode(bytes(parts.get("sign", Raw(b"null"))), str)
    if node is None or signature is None:
        return Unknown("the reply is not signed, or not about this call")
    key = public_key(secrets_of(account).alipay_public_key_pem)
    if not verify(key, bytes(node), signature):
        return Unknown("the reply's signature does not verify")
    head = decode(bytes(node), _Head)
    if head is None:
        return Unknown("the reply has no code")
    if head.code == DONE:
        return Answered(bytes(node))
    return Refused(head.code, head.sub_code, head.sub_msg or head.msg)

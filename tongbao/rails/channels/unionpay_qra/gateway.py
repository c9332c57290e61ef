"""Calls to Qra's gateway: signed documents out, replies verified before they are read."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from typing import Final

import msgspec
from msgspec import Struct

from tongbao.infra.http import HttpClient, HttpReply
from tongbao.rails.channels.contract.orders import ChannelAccount
from tongbao.rails.channels.contract.outcomes import Exchange, NotSent, Unknown
from tongbao.rails.channels.exchange import MASK, Request, TimeLimits, ask
from tongbao.rails.channels.unionpay_qra.crypto import (
    DocumentMalformed,
    is_authentic,
    read,
    signed,
    written,
)
from tongbao.rails.channels.unionpay_qra.secrets import QraSecrets

_PATH: Final = "/pay/gateway"
_GOOD: Final = "0"
_NEVER_SHOWN: Final = frozenset({"sign", "auth_code", "nonce_str"})
_HIDDEN_FIELDS: Final = re.compile(r"<(sign|auth_code)>[^<]*")


class Answered(Struct, frozen=True):
    """A verified reply that the call was carried out."""

    fields: Mapping[str, str]


class Refused(Struct, frozen=True):
    """A verified reply that it was not; ``is_settled``: Qra says that there is nothing to ask."""

    code: str
    message: str
    is_settled: bool


Heard = Answered | Refused | NotSent | Unknown


def secrets_of(account: ChannelAccount) -> QraSecrets:
    """Return the account's key; keys of another channel are a bug."""
    if not isinstance(account.secrets, QraSecrets):
        raise TypeError(f"account {account.id} holds no Qra key")
    return account.secrets


class Gateway:
    """Asks and checks; it remembers nothing."""

    def __init__(self, http: HttpClient, limits: TimeLimits) -> None:
        self._http = http
        self._limits = limits

    async def call(
        self,
        account: ChannelAccount,
        service: str,
        content: Mapping[str, str],
        *,
        hidden: tuple[str, ...] = (),
    ) -> tuple[Heard, Exchange]:
        """Make one call and return what was heard, with the evidence, ``hidden`` texts masked."""
        fields = {
            "service": service,
            "version": "2.0",
            "charset": "UTF-8",
            "sign_type": "MD5",
            "mch_id": account.merchant_number,
            "nonce_str": secrets.token_hex(16),
            **{name: value for name, value in content.items() if value},
        }
        url = account.gateway + _PATH
        request = Request(
            method="POST",
            url=url,
            headers={"content-type": "text/xml;charset=UTF-8"},
            body=written(signed(secrets_of(account).secure_key, fields)),
            shown_url=url,
            shown_body=written(shown_fields(fields)).decode(),
            hidden=hidden,
        )
        reply, exchange = await ask(self._http, request, timeout_s=self._limits.ask_s)
        exchange = msgspec.structs.replace(
            exchange, reply=_HIDDEN_FIELDS.sub(rf"<\1>{MASK}", exchange.reply)
        )
        if not isinstance(reply, HttpReply):
            return reply, exchange
        return _judge(account, reply), exchange


def gateway_address(account: ChannelAccount) -> str:
    """Return the one address of every call."""
    return account.gateway + _PATH


def shown_fields(fields: Mapping[str, str]) -> dict[str, str]:
    """Return the fields without what nobody may see."""
    return {name: value for name, value in fields.items() if name not in _NEVER_SHOWN}


def _judge(account: ChannelAccount, reply: HttpReply) -> Answered | Refused | Unknown:
    if reply.status != 200:
        return Unknown(f"http {reply.status}")
    try:
        fields = read(reply.body)
    except DocumentMalformed as failure:
        return Unknown(f"the reply is no document: {failure}")
    if not is_authentic(secrets_of(account).secure_key, fields):
        return Unknown("the reply's signature does not verify")
    if fields.get("mch_id", account.merchant_number) != account.merchant_number:
        return Unknown("contradiction: the reply is for another merchant")
    return _told(fields)


def _told(fields: Mapping[str, str]) -> Answered | Refused:
    if fields.get("status") != _GOOD:
        return Refused(_code(fields, "status"), fields.get("message", "")[:128], is_settled=False)
    if fields.get("result_code") != _GOOD:
        is_settled = fields.get("need_query") == "N"
        return Refused(_code(fields, "result_code"), fields.get("err_msg", "")[:128], is_settled)
    return Answered(fields)


def _code(fields: Mapping[str, str], otherwise: str) -> str:
    return fields.get("err_code") or fields.get("code") or fields.get(otherwise, "missing")

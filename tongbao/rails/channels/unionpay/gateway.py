"""Calls to UnionPay's gateway: signed forms out, replies verified before they are read."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final
from urllib.parse import urlencode

import msgspec
from msgspec import Struct

from tongbao.infra.beside import beside
from tongbao.infra.http import HttpClient, HttpReply
from tongbao.rails.channels.contract.orders import ChannelAccount
from tongbao.rails.channels.contract.outcomes import Exchange, NotSent, SubmitForm, Unknown
from tongbao.rails.channels.exchange import MASK, REPLY_MAX, Request, TimeLimits, ask
from tongbao.rails.channels.unionpay.crypto import refusal, sign
from tongbao.rails.channels.unionpay.secrets import UnionPaySecrets
from tongbao.rails.channels.unionpay.wire import FILE, Transaction, parse_reply

FILE_REPLY_MAX: Final = 64 * 1024 * 1024

_API: Final = "/gateway/api/"
_HOST: Final = "://gateway."
_FILE_HOST: Final = "://filedownload."
_NEVER_SHOWN: Final = frozenset(
    {
        *("signature", "signPubKeyCert", "qrNo", "fileContent"),
        *("accNo", "payCardNo", "customerInfo", "encryptCertId", "cardTransData", "tokenPayData"),
    }
)
"""Signatures, codes, card numbers and names: they are no evidence that anybody may look at."""
_HIDDEN_FIELDS: Final = re.compile(rf"\b({'|'.join(sorted(_NEVER_SHOWN))})=[^&]*")


class Answered(Struct, frozen=True):
    """A verified reply, whatever its code."""

    fields: Mapping[str, str]

    @property
    def code(self) -> str:
        """What the reply says about the request itself."""
        return self.fields.get("respCode", "")

    @property
    def message(self) -> str:
        """Its words for that."""
        return self.fields.get("respMsg", "")[:128]


Heard = Answered | NotSent | Unknown


def secrets_of(account: ChannelAccount) -> UnionPaySecrets:
    """Return the account's keys; keys of another channel are a bug."""
    if not isinstance(account.secrets, UnionPaySecrets):
        raise TypeError(f"account {account.id} holds no UnionPay keys")
    return account.secrets


class Gateway:
    """Asks and checks; it remembers nothing. ``clock`` is business time, ``real_now`` is not."""

    def __init__(
        self,
        http: HttpClient,
        limits: TimeLimits,
        *,
        clock: Callable[[], datetime],
        real_now: Callable[[], datetime],
    ) -> None:
        self.http = http
        self.limits = limits
        self.now = clock
        self.real_now = real_now

    async def call(
        self,
        account: ChannelAccount,
        kind: Transaction,
        fields: Mapping[str, str],
        *,
        hidden: tuple[str, ...] = (),
    ) -> tuple[Heard, Exchange]:
        """Make one call and return what was heard, with the evidence, ``hidden`` texts masked."""
        is_file = kind is FILE
        # Signed beside the event loop: a private key takes a third of a millisecond of a processor.
        request = await beside(self._request, account, kind, fields, hidden)
        reply, exchange = await ask(
            self.http,
            request,
            timeout_s=self.limits.bill_s if is_file else self.limits.ask_s,
            reply_max_bytes=FILE_REPLY_MAX if is_file else REPLY_MAX,
        )
        if not isinstance(reply, HttpReply):
            return reply, exchange
        # A file's digest is megabytes of work: not on the event loop.
        heard = (
            await asyncio.to_thread(self._judge, account, reply)
            if is_file
            else self._judge(account, reply)
        )
        # A reply that is not a verified one may still hold what nobody may see.
        text = shown(heard.fields) if isinstance(heard, Answered) else _masked(exchange.reply)
        return heard, msgspec.structs.replace(exchange, reply=text)

    def form(
        self, account: ChannelAccount, kind: Transaction, fields: Mapping[str, str]
    ) -> tuple[SubmitForm, Exchange]:
        """Return what the customer's browser is to post, and what was given to it."""
        url = address(account, kind)
        signed = sign(secrets_of(account), _filled(fields))
        evidence = Exchange("POST", url, shown(signed), None, "given to the customer's browser", 0)
        return SubmitForm(url, signed), evidence

    def _request(
        self,
        account: ChannelAccount,
        kind: Transaction,
        fields: Mapping[str, str],
        hidden: tuple[str, ...],
    ) -> Request:
        url = address(account, kind)
        signed = sign(secrets_of(account), _filled(fields))
        return Request(
            method="POST",
            url=url,
            headers={"content-type": "application/x-www-form-urlencoded;charset=UTF-8"},
            body=urlencode(signed).encode(),
            shown_url=url,
            shown_body=shown(signed),
            hidden=hidden,
        )

    def _judge(self, account: ChannelAccount, reply: HttpReply) -> Answered | Unknown:
        if reply.status != 200:
            return Unknown(f"http {reply.status}")
        fields = parse_reply(reply.body)
        if fields is None:
            return Unknown("the reply is no list of fields")
        if reason := refusal(secrets_of(account), fields, self.real_now()):
            return Unknown(f"the reply is not UnionPay's: {reason}")
        return Answered(fields)


def address(account: ChannelAccount, kind: Transaction) -> str:
    """Return where a transaction goes; files have a host of their own at UnionPay."""
    if kind is FILE:
        return account.gateway.replace(_HOST, _FILE_HOST, 1) + "/"
    return f"{account.gateway}{_API}{kind.path}"


def shown(fields: Mapping[str, str]) -> str:
    """Return fields as evidence."""
    return "&".join(f"{name}={value}" for name, value in shown_fields(fields).items())


def shown_fields(fields: Mapping[str, str]) -> dict[str, str]:
    """Return the fields without what nobody may see."""
    return {name: value for name, value in fields.items() if name not in _NEVER_SHOWN}


def _masked(reply: str) -> str:
    return _HIDDEN_FIELDS.sub(rf"\1={MASK}", reply)


def _filled(fields: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in fields.items() if value}

"""Calls to Alipay's gateway: signed requests out, replies verified on their raw bytes.

Two protocols carry the same content: forms (v1), whose replies sign their inner object, and REST
(v3), whose replies sign the whole body in a header. What a customer's browser or app carries to
Alipay itself is a form in either case, signed here and not sent by us.
"""

from __future__ import annotations

import asyncio
import binascii
import secrets
from base64 import b64decode
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final
from urllib.parse import quote, urlencode
from uuid import UUID

import msgspec
import structlog
from msgspec import Raw, Struct

from tongbao.infra.beside import beside
from tongbao.infra.http import HttpClient, HttpReply
from tongbao.kernel.clock import BUSINESS_ZONE, monotonic, real_now
from tongbao.rails.channels.alipay.crypto import (
    PublicKey,
    certificate_number,
    leads_to_roots,
    public_key,
    request_text,
    root_number,
    sign,
    verify,
)
from tongbao.rails.channels.alipay.secrets import AlipaySecrets
from tongbao.rails.channels.contract.orders import ChannelAccount
from tongbao.rails.channels.contract.outcomes import Exchange, NotSent, Unknown
from tongbao.rails.channels.error_map import error_map
from tongbao.rails.channels.exchange import Request, TimeLimits, ask, decode, evidence

DONE: Final = "10000"
WAITING: Final = "10003"
REFRESH_PAUSE_S: Final = 60.0
SERIAL_MAX: Final = 64
CERTIFICATE: Final = "alipay.open.app.alipaycert.download"

_PATH: Final = "/gateway.do"
USER_AGENT: Final = "tongbao/1"
_TIME: Final = "%Y-%m-%d %H:%M:%S"
_FORM: Final = "application/x-www-form-urlencoded;charset=utf-8"
_SCHEME: Final = "ALIPAY-SHA256withRSA"
_BY_GET: Final = frozenset(
    {
        CERTIFICATE,
        "alipay.data.dataservice.bill.downloadurl.query",
        "alipay.fund.trans.common.query",
        "alipay.trade.order.settle.query",
    }
)
"""What the REST protocol asks with GET; everything else is a POST."""
_SHOWN_HEADERS: Final = ("alipay-timestamp", "alipay-nonce", "alipay-sn", "alipay-signature")
_MAPPED: Final = frozenset(entry.code for entry in error_map("alipay").entries)

_log = structlog.get_logger()


class Answered(Struct, frozen=True):
    """A verified reply that says it was done; ``node`` is its object, byte for byte."""

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


class _Failure(Struct, frozen=True):
    code: str = ""
    message: str = ""


class _Said(Struct, frozen=True):
    """What a reply's signature is over, whose it claims to be, and what it means if genuine."""

    text: bytes
    signature: str
    serial: str
    heard: Heard
    node: bytes


class _Certificate(Struct, frozen=True):
    alipay_cert_content: str = ""


def secrets_of(account: ChannelAccount) -> AlipaySecrets:
    """Return the account's keys; keys of another channel are a bug."""
    if not isinstance(account.secrets, AlipaySecrets):
        raise TypeError(f"account {account.id} holds no Alipay keys")
    return account.secrets


def gateway_address(account: ChannelAccount) -> str:
    """Return the one address of every form."""
    return account.gateway.removesuffix(_PATH) + _PATH


class Gateway:
    """Asks and checks. It remembers only fetched certificates, by account."""

    def __init__(self, http: HttpClient, limits: TimeLimits, clock: Callable[[], datetime]) -> None:
        self.http = http
        self.limits = limits
        self.now = clock  # business time; windows of signatures and certificates are in real time
        self._fetched: dict[UUID, dict[str, str]] = {}
        self._wanted: dict[UUID, str] = {}
        self._refreshed_at: dict[tuple[UUID, str], float] = {}
        self._refreshing: dict[UUID, asyncio.Lock] = {}

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
        reply, exchange = await self._ask(account, method, content, notify=notify, hidden=hidden)
        return await self._hear(account, method, reply), exchange

    async def send(
        self, account: ChannelAccount, method: str, request: Request
    ) -> tuple[Heard, Exchange]:
        """Send what somebody else has made and signed, and return what was heard."""
        reply, exchange = await ask(self.http, request, timeout_s=self.limits.ask_s)
        return await self._hear(account, method, reply), exchange

    async def _hear(
        self, account: ChannelAccount, method: str, reply: HttpReply | NotSent | Unknown
    ) -> Heard:
        if not isinstance(reply, HttpReply):
            return reply
        said = _said(account, method, reply)
        if isinstance(said, Unknown):
            return said
        if self.key(account, said.serial) is None:
            await self._learn(account, said.serial[:SERIAL_MAX], "answer")
        key = self.key(account, said.serial)
        if key is None or not verify(key, said.text, said.signature):
            return Unknown("the reply's signature does not verify")
        return said.heard

    def signed_form(
        self,
        account: ChannelAccount,
        method: str,
        content: Mapping[str, Any],
        *,
        return_url: str | None = None,
        hidden: tuple[str, ...] = (),
    ) -> tuple[dict[str, str], Exchange]:
        """Return the fields that a browser or an app brings to Alipay, signed; no call is made."""
        text = msgspec.json.encode(content).decode()
        fields = {**self.common_fields(account, method), "notify_url": account.notify_url}
        if return_url:
            fields["return_url"] = return_url
        address = gateway_address(account)
        kept_back = (*hidden, secrets_of(account).app_auth_token)
        shown = Request("SIGN", address, {}, b"", f"{address}?{urlencode(fields)}", text, kept_back)
        fields["biz_content"] = text
        signature = sign(secrets_of(account).app_private_key_pem, request_text(fields))
        note = "signed here; no call was made: the customer brings it to Alipay"
        return {**fields, "sign": signature}, evidence(shown, None, note, 0)

    def key(self, account: ChannelAccount, serial: str) -> PublicKey | None:
        """Return the key Alipay signs with under this certificate number, or None.

        In public-key mode there is one key, whatever number is said beside it.
        """
        keys = secrets_of(account)
        held = keys.alipay_public_key_pem
        if not keys.app_certificate_pem or serial in {"", certificate_number(held)}:
            return public_key(held)
        fetched = self._fetched.get(account.id, {}).get(serial)
        return None if fetched is None else public_key(fetched)

    def key_of_notice(self, account: ChannelAccount, serial: str) -> PublicKey | None:
        """Return the same for a notification, and remember what it named for `refresh_keys`."""
        key = self.key(account, serial)
        if key is None:
            self._wanted[account.id] = serial[:SERIAL_MAX]
        return key

    async def refresh_keys(self, account: ChannelAccount) -> None:
        """Fetch the certificate a notification named last, at most once a minute per account.

        Anybody can send a notification that names a certificate, so what answers of Alipay itself
        name has a minute of its own and cannot be kept waiting by that.
        """
        if wanted := self._wanted.pop(account.id, None):
            await self._learn(account, wanted, "callback")

    async def _learn(self, account: ChannelAccount, serial: str, named_by: str) -> None:
        async with self._refreshing.setdefault(account.id, asyncio.Lock()):
            known = self._fetched.setdefault(account.id, {})
            before = self._refreshed_at.get((account.id, named_by))
            is_early = before is not None and monotonic() - before < REFRESH_PAUSE_S
            if serial in known or is_early:
                return
            self._refreshed_at[account.id, named_by] = monotonic()
            pem = await self._fetch_certificate(account, serial)
            if pem is not None:
                known[serial] = pem
                _log.info("alipay_certificate_fetched", account=str(account.id), serial=serial)

    async def _fetch_certificate(self, account: ChannelAccount, serial: str) -> str | None:
        """Return a certificate of Alipay's that leads to our roots and signs its own delivery."""
        content = {"alipay_cert_sn": serial}
        reply, _ = await self._ask(account, CERTIFICATE, content, notify=False, hidden=())
        said = _said(account, CERTIFICATE, reply) if isinstance(reply, HttpReply) else None
        if not isinstance(said, _Said):
            _log.warning("alipay_certificate_not_fetched", account=str(account.id))
            return None
        keys = secrets_of(account)
        pem = _certificate_in(said.node)
        is_genuine = (
            pem is not None
            and leads_to_roots(
                pem,
                installed=keys.alipay_public_key_pem,
                roots=keys.root_certificates_pem,
                now=real_now(),
            )
            and certificate_number(pem) == serial
            and said.serial in {serial, certificate_number(keys.alipay_public_key_pem)}
            and verify(
                public_key(pem if said.serial == serial else keys.alipay_public_key_pem),
                said.text,
                said.signature,
            )
        )
        if not is_genuine:
            _log.warning("alipay_certificate_refused", account=str(account.id), serial=serial)
        return pem if is_genuine else None

    async def _ask(
        self,
        account: ChannelAccount,
        method: str,
        content: Mapping[str, Any],
        *,
        notify: bool,
        hidden: tuple[str, ...],
    ) -> tuple[HttpReply | NotSent | Unknown, Exchange]:
        is_rest = secrets_of(account).protocol == "v3"
        make = self._rest_request if is_rest else self._form_request
        # Signed beside the event loop: a private key takes a third of a millisecond of a processor.
        request = await beside(make, account, method, content, notify=notify, hidden=hidden)
        shown = _SHOWN_HEADERS if is_rest else ()
        return await ask(self.http, request, timeout_s=self.limits.ask_s, shown_headers=shown)

    def common_fields(self, account: ChannelAccount, method: str) -> dict[str, str]:
        """Return what every form says: who asks for what, and when."""
        common = {
            "app_id": account.app_id,
            "method": method,
            "format": "JSON",
            "charset": "utf-8",
            "sign_type": "RSA2",
            "timestamp": self.now().astimezone(BUSINESS_ZONE).strftime(_TIME),
            "version": "1.0",
        }
        keys = secrets_of(account)
        if keys.app_certificate_pem:
            common["app_cert_sn"] = certificate_number(keys.app_certificate_pem)
            common["alipay_root_cert_sn"] = root_number(keys.root_certificates_pem)
        if keys.app_auth_token:
            common["app_auth_token"] = keys.app_auth_token
        return common

    def _form_request(
        self,
        account: ChannelAccount,
        method: str,
        content: Mapping[str, Any],
        *,
        notify: bool,
        hidden: tuple[str, ...],
    ) -> Request:
        common = self.common_fields(account, method)
        if notify:
            common["notify_url"] = account.notify_url
        text = msgspec.json.encode(content).decode()
        message = request_text({**common, "biz_content": text})
        signature = sign(secrets_of(account).app_private_key_pem, message)
        address = gateway_address(account)
        return Request(
            method="POST",
            url=f"{address}?{urlencode({**common, 'sign': signature})}",
            headers={
                "accept": "application/json",
                "user-agent": USER_AGENT,
                "content-type": _FORM,
            },
            body=urlencode({"biz_content": text}).encode(),
            shown_url=f"{address}?{urlencode(common)}",
            shown_body=text,
            hidden=(*hidden, secrets_of(account).app_auth_token),
        )

    def _rest_request(
        self,
        account: ChannelAccount,
        method: str,
        content: Mapping[str, Any],
        *,
        notify: bool,
        hidden: tuple[str, ...],
    ) -> Request:
        target = "/v3/" + method.replace(".", "/")
        verb, body = "POST", b""
        if method in _BY_GET:
            verb, target = "GET", f"{target}?{urlencode(content, quote_via=quote)}"
        else:
            told = {"notify_url": account.notify_url} if notify else {}
            body = msgspec.json.encode({**content, **told})
        keys = secrets_of(account)
        claims = {"app_id": account.app_id}
        headers = {"accept": "application/json", "user-agent": USER_AGENT}
        if keys.app_certificate_pem:
            claims["app_cert_sn"] = certificate_number(keys.app_certificate_pem)
            headers["alipay-root-cert-sn"] = root_number(keys.root_certificates_pem)
        claims |= {
            "nonce": secrets.token_hex(16),
            "timestamp": str(int(real_now().timestamp() * 1000)),
        }
        claimed = ",".join(f"{name}={value}" for name, value in claims.items())
        message = f"{claimed}\n{verb}\n{target}\n".encode() + body + b"\n"
        if keys.app_auth_token:
            headers["alipay-app-auth-token"] = keys.app_auth_token
            message += keys.app_auth_token.encode() + b"\n"
        signature = sign(keys.app_private_key_pem, message)
        headers["authorization"] = f"{_SCHEME} {claimed},sign={signature}"
        if body:
            headers["content-type"] = "application/json;charset=utf-8"
        url = account.gateway.removesuffix(_PATH) + target
        return Request(
            method=verb,
            url=url,
            headers=headers,
            body=body,
            shown_url=url,
            shown_body=body.decode(),
            hidden=hidden,
        )


def _said(account: ChannelAccount, method: str, reply: HttpReply) -> _Said | Unknown:
    if secrets_of(account).protocol == "v3":
        return _said_in_rest(reply)
    return _said_in_form(method, reply)


def _said_in_form(method: str, reply: HttpReply) -> _Said | Unknown:
    """Find the inner object as it was sent: `Raw` keeps its very bytes."""
    if reply.status != 200:
        return Unknown(f"http {reply.status}")
    parts = decode(reply.body, dict[str, Raw])
    if parts is None:
        return Unknown("the reply is no JSON object")
    node = parts.get(f"{method.replace('.', '_')}_response") or parts.get("error_response")
    signature = decode(bytes(parts.get("sign", Raw(b"null"))), str)
    if node is None or signature is None:
        return Unknown("the reply is not signed, or not about this call")
    serial = decode(bytes(parts.get("alipay_cert_sn", Raw(b'""'))), str) or ""
    head = decode(bytes(node), _Head)
    heard: Heard
    if head is None:
        heard = Unknown("the reply has no code")
    elif head.code == DONE:
        heard = Answered(bytes(node))
    else:
        heard = Refused(head.code, head.sub_code, head.sub_msg or head.msg)
    return _Said(bytes(node), signature, serial, heard, bytes(node))


def _said_in_rest(reply: HttpReply) -> _Said | Unknown:
    if reply.status >= 500:
        return Unknown(f"http {reply.status}")
    signature = reply.headers.get("alipay-signature", "")
    if not signature:
        return Unknown(f"http {reply.status}, not signed")
    prefix = f"{reply.headers.get('alipay-timestamp')}\n{reply.headers.get('alipay-nonce')}\n"
    text = prefix.encode() + reply.body + b"\n"
    serial = reply.headers.get("alipay-sn", "")
    return _Said(text, signature, serial, _heard_in_rest(reply), reply.body)


def _heard_in_rest(reply: HttpReply) -> Heard:
    match reply.status:
        case 200:
            return Answered(reply.body)
        case 202:
            return Refused(WAITING, "", "accepted")
        case status if 400 <= status < 500:
            failure = decode(reply.body, _Failure)
            if failure is None or not failure.code:
                return Unknown(f"http {status} without a code")
            # The REST protocol leaves out the part before the dot of a business code.
            known = f"ACQ.{failure.code}"
            return Refused(failure.code, known if known in _MAPPED else "", failure.message)
        case status:
            return Unknown(f"http {status}")


def _certificate_in(node: bytes) -> str | None:
    found = decode(node, _Certificate)
    if found is None:
        return None
    try:
        return b64decode(found.alipay_cert_content, validate=True).decode("ascii")
    except (binascii.Error, ValueError):
        return None

"""Calls to WeChat Pay's gateway: signed requests, verified replies, and the keys they need."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final, TypeVar, assert_never
from urllib.parse import quote
from uuid import UUID

import structlog
from msgspec import Struct
from msgspec.structs import replace

from tongbao.infra.beside import beside
from tongbao.infra.http import HttpClient, HttpReply
from tongbao.kernel.clock import monotonic
from tongbao.rails.channels.contract.bills import BillEmpty, BillNotReady
from tongbao.rails.channels.contract.orders import ChannelAccount
from tongbao.rails.channels.contract.outcomes import (
    Absent,
    Answer,
    Declined,
    Exchange,
    NotSent,
    Pending,
    Unknown,
)
from tongbao.rails.channels.error_map import Call, Entry, error_map
from tongbao.rails.channels.exchange import Request, TimeLimits, ask, decode, unsent
from tongbao.rails.channels.wechat_pay.crypto import (
    EnvelopeBroken,
    NotEncryptable,
    Verdict,
    authorization,
    can_sign,
    check_signature,
    encrypt_field,
    open_envelope,
    platform_key,
)
from tongbao.rails.channels.wechat_pay.documents.orders import CertificateList, ListedCertificate
from tongbao.rails.channels.wechat_pay.secrets import Scheme, WechatPaySecrets

CERTIFICATES: Final[Mapping[Scheme, str]] = {
    "RSA": "/v3/certificates",
    "SM2": "/v3/certificates?algorithm_type=SM2",  # wechatpay-apiv3/wechatpay-java:shangmi
}
ERRORS: Final = error_map("wechat_pay")
REFRESH_PAUSE_S: Final = 60.0

_USER_AGENT: Final = "tongbao/1"  # without one WeChat Pay answers 400 before it looks at anything
_SHOWN_HEADERS: Final = (
    "request-id",
    "wechatpay-serial",
    "wechatpay-timestamp",
    "wechatpay-nonce",
    "wechatpay-signature",
)

_log = structlog.get_logger()


class Failure(Struct, frozen=True):
    """The body of a 4xx or 5xx."""

    code: str
    message: str = ""


class Answered(Struct, frozen=True):
    """A 2xx whose signature verifies; the body of a 204 is empty."""

    body: bytes


class Refused(Struct, frozen=True):
    """A 4xx with a code, which WeChat Pay does not sign, or a 202 with one, which it does."""

    code: str
    message: str


Heard = Answered | Refused | NotSent | Unknown
T = TypeVar("T")


def secrets_of(account: ChannelAccount) -> WechatPaySecrets:
    """Return the account's keys; keys of another channel are a bug."""
    if not isinstance(account.secrets, WechatPaySecrets):
        raise TypeError(f"account {account.id} holds no WeChat Pay keys")
    return account.secrets


class Ids(Struct, frozen=True):
    """Who asks, as every request and answer names it; a provider and its merchant, or us alone."""

    appid: str | None = None
    mchid: str | None = None
    sp_appid: str | None = None
    sp_mchid: str | None = None
    sub_appid: str | None = None
    sub_mchid: str | None = None

    @property
    def query(self) -> str:
        """The merchant numbers as the query string of a question."""
        if self.mchid:
            return f"mchid={quote(self.mchid, safe='')}"
        provider, merchant = quote(self.sp_mchid or "", safe=""), quote(self.sub_mchid or "")
        return f"sp_mchid={provider}&sub_mchid={merchant}"


def ids_of(account: ChannelAccount, app_id: str | None = None) -> Ids:
    """Return who asks; ``app_id`` is the app of this order where it is not the account's own."""
    partner = secrets_of(account).partner
    if partner is None:
        return Ids(appid=app_id or account.app_id, mchid=account.merchant_number)
    return Ids(
        sp_appid=partner.sp_appid,
        sp_mchid=partner.sp_mchid,
        sub_appid=(app_id or partner.sub_appid or None) if app_id != partner.sp_appid else None,
        sub_mchid=account.merchant_number,
    )


def signer_of(account: ChannelAccount) -> str:
    """Return the merchant number that signs: ours, or the service provider's."""
    partner = secrets_of(account).partner
    return partner.sp_mchid if partner else account.merchant_number


def signed_headers(
    account: ChannelAccount, method: str, target: str, body: bytes, now: datetime
) -> dict[str, str]:
    """Return the headers of a request to ``target``, its path and query below the gateway."""
    keys = secrets_of(account)
    headers = {
        "accept": "application/json",
        "user-agent": _USER_AGENT,
        "authorization": authorization(
            keys, signer_of(account), method=method, target=target, body=body, now=now
        ),
    }
    if body:
        headers["content-type"] = "application/json"
    if keys.public_key_id:
        headers["wechatpay-serial"] = keys.public_key_id
    return headers


def in_path(number: str) -> str:
    """Return a number as a part of a path or query."""
    return quote(number, safe="")


def meant(entry: Entry, refused: Refused) -> Pending | Declined | NotSent | Unknown:
    """Return what a refused order, refund, split or transfer means for the money."""
    match entry.meaning:
        case "declined":
            return Declined(refused.code, refused.message, retry_elsewhere=entry.retry_elsewhere)
        case "not_sent":
            return NotSent(f"{refused.code}: {refused.message}")
        case "pending":
            return Pending(reason=refused.code)
        case _:
            return Unknown(f"{refused.code}: {refused.message}")


def read_or_absent(heard: Heard, point: Call, read: Callable[[bytes], T]) -> T | Absent | Unknown:
    """Return what ``read`` makes of the answer to a question, or why nothing can be said.

    `Absent` only where the error map of the ``point`` says that there is no such thing.
    """
    match heard:
        case Answered():
            return read(heard.body)
        case Refused():
            if ERRORS.find(point, heard.code).meaning == "absent":
                return Absent(heard.code)
            return Unknown(f"{point} refused: {heard.code}")
        case NotSent() | Unknown():
            return Unknown(heard.reason)
        case _:
            assert_never(heard)


def no_bill(refused: Refused) -> BillNotReady | BillEmpty | Unknown:
    """Return why there is no bill."""
    match ERRORS.find("bill", refused.code).meaning:
        case "empty":
            return BillEmpty(refused.code)
        case "not_ready":
            return BillNotReady(refused.code)
        case _:
            return Unknown(f"{refused.code}: {refused.message}")


class Gateway:
    """Asks and checks. It remembers only fetched platform certificates, by account."""

    def __init__(
        self, http: HttpClient, limits: TimeLimits, real_now: Callable[[], datetime]
    ) -> None:
        self.http = http
        self.limits = limits
        self.real_now = real_now
        self._fetched: dict[UUID, dict[str, str]] = {}
        self._refreshed_at: dict[UUID, float] = {}
        self._refreshing: dict[UUID, asyncio.Lock] = {}

    def keys(self, account: ChannelAccount) -> Mapping[str, str]:
        """Return the keys WeChat Pay may sign with for this account, by serial."""
        return {**self._fetched.get(account.id, {}), **secrets_of(account).platform_keys}

    async def call(
        self,
        account: ChannelAccount,
        method: str,
        target: str,
        body: bytes = b"",
        *,
        hidden: tuple[str, ...] = (),
        encrypted_for: str = "",
    ) -> tuple[Heard, Exchange]:
        """Make one call and return what was heard, with the evidence.

        ``hidden`` texts are masked in the evidence; ``encrypted_for`` is the serial of the key
        under which fields of the body are encrypted.
        """
        if not can_sign(secrets_of(account).scheme):
            reason = "this machine has no library that knows SM2"
            return NotSent(reason), unsent(method, account.gateway + target, reason)
        # Signed beside the event loop: a private key takes a third of a millisecond of a processor.
        request = await beside(self._request, account, method, target, body, hidden)
        if encrypted_for:
            request = replace(
                request, headers={**request.headers, "wechatpay-serial": encrypted_for}
            )
        return await self.send(account, request)

    async def send(self, account: ChannelAccount, request: Request) -> tuple[Heard, Exchange]:
        """Make one call that is signed already, and return what was heard, with the evidence."""
        reply, exchange = await ask(
            self.http, request, timeout_s=self.limits.ask_s, shown_headers=_SHOWN_HEADERS
        )
        if not isinstance(reply, HttpReply):
            return reply, exchange
        return await self._judge(account, reply), exchange

    async def question(
        self,
        account: ChannelAccount,
        target: str,
        point: Call,
        read: Callable[[bytes], T],
        *,
        hidden: tuple[str, ...] = (),
    ) -> Answer[T | Absent | Unknown]:
        """Ask with GET and return what `read_or_absent` says, with the evidence."""
        heard, exchange = await self.call(account, "GET", target, hidden=hidden)
        return Answer(read_or_absent(heard, point, read), exchange)

    async def encrypt(self, account: ChannelAccount, text: str) -> tuple[str, str]:
        """Encrypt a field for WeChat Pay; return it and the serial of the key.

        The account's public key, or the platform certificate of its scheme that came into force
        last.

        Raises:
            NotEncryptable
        """
        found = self._encryption_key(account)
        if found is None:
            await self.refresh_keys(account)
            found = self._encryption_key(account)
        if found is None:
            raise NotEncryptable("no key of WeChat Pay is valid")
        serial, pem = found
        return encrypt_field(pem, text), serial

    def _encryption_key(self, account: ChannelAccount) -> tuple[str, str] | None:
        keys, chosen = self.keys(account), secrets_of(account).public_key_id
        if chosen:
            return chosen, keys[chosen]
        now, is_sm2 = self.real_now(), secrets_of(account).scheme == "SM2"
        valid = [
            (held.valid_from, serial, pem)
            for serial, pem in keys.items()
            if (held := platform_key(pem)).valid_from
            and held.is_valid(now)
            and isinstance(held.key, bytes) is is_sm2
        ]
        return max(valid)[1:] if valid else None

    async def refresh_keys(self, account: ChannelAccount) -> None:
        """Fetch the platform certificates, at most once a minute per account."""
        async with self._refreshing.setdefault(account.id, asyncio.Lock()):
            before = self._refreshed_at.get(account.id)
            if before is not None and monotonic() - before < REFRESH_PAUSE_S:
                return
            self._refreshed_at[account.id] = monotonic()
            fetched = await self._fetch_certificates(account)
            if fetched:
                self._fetched[account.id] = fetched

    async def _judge(self, account: ChannelAccount, reply: HttpReply) -> Heard:
        if reply.status >= 500:
            return Unknown(f"http {reply.status} {_failure(reply.body).code}".rstrip())
        signed = "wechatpay-signature" in reply.headers
        if signed or reply.status < 300:
            verdict = await self._check(account, reply)
            if verdict is not Verdict.GOOD:
                return Unknown(f"http {reply.status}, {verdict}")
        if reply.status in {200, 204}:
            return Answered(reply.body)
        failure = _failure(reply.body)
        if not failure.code or 300 <= reply.status < 400:
            # A bare 202 too: accepted, and to be asked about with the same number.
            return Unknown(f"http {reply.status} without a code")
        return Refused(failure.code, failure.message)

    async def _check(self, account: ChannelAccount, reply: HttpReply) -> Verdict:
        verdict = self._verdict(account, reply, self.keys(account))
        if verdict is not Verdict.UNKNOWN_KEY:
            return verdict
        await self.refresh_keys(account)
        return self._verdict(account, reply, self.keys(account))

    def _verdict(
        self, account: ChannelAccount, reply: HttpReply, keys: Mapping[str, str]
    ) -> Verdict:
        scheme = secrets_of(account).scheme
        return check_signature(reply.headers, reply.body, keys, self.real_now(), scheme)

    async def _fetch_certificates(self, account: ChannelAccount) -> dict[str, str]:
        scheme = secrets_of(account).scheme
        if not can_sign(scheme):
            return {}
        request = self._request(account, "GET", CERTIFICATES[scheme], b"", ())
        reply, _ = await ask(self.http, request, timeout_s=self.limits.ask_s)
        if not isinstance(reply, HttpReply) or reply.status != 200:
            _log.warning("wechat_certificates_not_fetched", account=str(account.id))
            return {}
        listed = decode(reply.body, CertificateList)
        opened = [_opened(account, one) for one in listed.data] if listed else []
        fetched = dict(pair for pair in opened if pair)
        # Only the APIv3 key could have encrypted them; with them the list itself verifies.
        verdict = self._verdict(account, reply, {**self.keys(account), **fetched})
        if verdict is not Verdict.GOOD:
            _log.warning(
                "wechat_certificates_refused", account=str(account.id), verdict=str(verdict)
            )
            return {}
        return fetched

    def _request(
        self,
        account: ChannelAccount,
        method: str,
        target: str,
        body: bytes,
        hidden: tuple[str, ...],
    ) -> Request:
        url = account.gateway + target
        return Request(
            method=method,
            url=url,
            headers=signed_headers(account, method, target, body, self.real_now()),
            body=body,
            shown_url=url,
            shown_body=body.decode(),
            hidden=hidden,
        )


def _failure(body: bytes) -> Failure:
    return decode(body, Failure) or Failure("")


def _opened(account: ChannelAccount, listed: ListedCertificate) -> tuple[str, str] | None:
    sealed = listed.encrypt_certificate
    try:
        pem = open_envelope(
            secrets_of(account).api_v3_key,
            sealed.nonce,
            sealed.associated_data or "",
            sealed.ciphertext,
            sealed.algorithm,
        ).decode()
        platform_key(pem)
    except (EnvelopeBroken, ValueError, TypeError):
        _log.warning("wechat_certificate_unreadable", serial=listed.serial_no[:64])
        return None
    return listed.serial_no, pem

"""The façade as an ASGI application: jeepay's paths and envelope, mounted beside the API.

    {"code": 0, "msg": "SUCCESS", "data": {…}, "sign": "…"}      {"code": 9999, "msg": "…"}

Only a deployment that says so mounts it, and only apps that were let in are answered. As in jeepay
a refusal is HTTP 200 with another code than 0. What may have happened is not: a failure of ours
is 500 or 503, so that no program takes "unknown" for "no".
"""

from __future__ import annotations

import io
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import parse_qsl

import msgspec
import segno
import structlog

from tongbao.infra.card_watch import check_form
from tongbao.infra.settings import Secret
from tongbao.infra.web.idempotency import InFlight
from tongbao.infra.web.problem import (
    InternalError,
    MethodNotAllowed,
    RouteUnknown,
    language_of,
    title_of,
)
from tongbao.kernel.clock import real_now
from tongbao.kernel.errors import Busy, Refusal
from tongbao.payments.collecting.outcomes import StateContended
from tongbao.surfaces.jeepay.apps import SIGN, Fields, app_named, is_signed, secret_of, signature
from tongbao.surfaces.jeepay.model import (
    FRESH_FOR,
    FieldsUnreadable,
    JeepayApp,
    RequestStale,
    SignatureWrong,
)
from tongbao.surfaces.jeepay.orders import (
    PAY_PREFIX,
    PICTURES,
    RETURNED,
    Facade,
    close_order,
    picture_text,
    query_order,
    unified_order,
)
from tongbao.surfaces.jeepay.refunds import query_refund, refund_order
from tongbao.surfaces.jeepay.ways import without_shown_code

REFUND_PREFIX: Final = "/api/refund"
BODY_MAX: Final = 64 * 1024
FIELDS_MAX: Final = 64
OK: Final = 0
REFUSED: Final = 9999
FAILED: Final = 10
_UNITS: Final = {
    10: timedelta(seconds=1),
    13: timedelta(milliseconds=1),
    16: timedelta(microseconds=1),
}
"""What a time is counted in, by how many digits it has."""
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NOBODY: Final = Secret("nobody's secret, so that no app takes as long as a wrong signature")
_JSON: Final = "application/json;charset=UTF-8"
_UNDECIDED: Final = (Busy, InFlight, StateContended, InternalError)
"""Refusals after which nobody knows here what became of the request."""
_FAILURE: Final = (
    "系统繁忙，处理结果未知：请以原单号查询，或原样重试，勿更换单号"
    " / The outcome is unknown here: query by your number, or repeat the same request."
)
_THANKS: Final = (
    "支付结果以商户为准，请返回商户页面查看。\nReturn to the merchant to see whether it is paid.\n"
)
_THEIR_NAMES: Final = {
    "$.merchant_order_no": "mchOrderNo",
    "$.subject": "subject",
    "$.expires_in_s": "expiredTime",
    "$.method.auth_code": "channelExtra.authCode",
    "$.method.payer_id": "channelExtra.openid / channelExtra.buyerUserId",
    "$.method.return_url": "returnUrl",
    "url": "notifyUrl",
    "$.return_url": "returnUrl",
}
"""What our refusals call a field, and jeepay's clients."""

Call = Callable[[Facade, JeepayApp, Mapping[str, str]], Awaitable[Fields]]
CALLS: Final[Mapping[str, Call]] = {
    f"{PAY_PREFIX}/query": query_order,
    f"{PAY_PREFIX}/close": close_order,
    f"{REFUND_PREFIX}/refundOrder": refund_order,
    f"{REFUND_PREFIX}/query": query_refund,
}
UNIFIED: Final = f"{PAY_PREFIX}/unifiedOrder"

log = structlog.get_logger()

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]


class JeepayFacade:
    """An ASGI application to mount at ``/api/pay`` and ``/api/refund``."""

    def __init__(self, facade: Facade) -> None:
        self._facade = facade

    async def __call__(
        self, scope: MutableMapping[str, Any], _receive: Callable[[], Awaitable[Any]], send: Send
    ) -> None:
        """Answer one call in jeepay's envelope, refusals included.

        Raises:
            RouteUnknown, MethodNotAllowed
        """
        path, method = scope["path"], scope["method"]
        if path.startswith(PICTURES) or path == RETURNED:
            if method != "GET":
                raise MethodNotAllowed(allow="GET")
            await self._show(path, send)
            return
        if path != UNIFIED and path not in CALLS:
            raise RouteUnknown
        if method != "POST":
            raise MethodNotAllowed(allow="POST")
        status, envelope = await self._answer(scope)
        await _send(send, status, _JSON, msgspec.json.encode(envelope))

    async def _answer(self, scope: MutableMapping[str, Any]) -> tuple[int, Mapping[str, Any]]:
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        accepted = headers.get(b"accept-language", "")
        language = language_of(accepted) if accepted else "zh"
        try:
            kind = headers.get(b"content-type", "").partition(";")[0].strip().lower()
            fields = read_fields(scope["state"]["body"], kind)
            check_form(without_shown_code(fields))
            app, secret = await self._caller(fields)
            data = await self._done(scope, app, fields)
        except _UNDECIDED as refusal:
            return _failure(503, refusal)
        except Refusal as refusal:
            return 200, {"code": REFUSED, "msg": message_of(refusal, language)}
        except Exception:
            log.exception("jeepay_call_failed", path=scope["path"])
            return _failure(500, InternalError())
        return 200, {"code": OK, "msg": "SUCCESS", "data": data, SIGN: signature(data, secret)}

    async def _caller(self, fields: Mapping[str, str]) -> tuple[JeepayApp, Secret]:
        """Return the app that has signed these fields just now.

        Raises:
            SignatureWrong, RequestStale
        """
        db, keyring = self._facade.db, self._facade.keyring
        app = await app_named(db, fields.get("mchNo", ""), fields.get("appId", ""))
        secret = _NOBODY if app is None else secret_of(keyring, app)
        says_md5 = fields.get("signType", "MD5").upper() == "MD5"
        if not is_signed(fields, secret) or app is None or not says_md5:
            raise SignatureWrong
        _check_fresh(fields.get("reqTime", ""))
        return app, secret

    async def _done(
        self, scope: MutableMapping[str, Any], app: JeepayApp, fields: Mapping[str, str]
    ) -> Fields:
        if scope["path"] != UNIFIED:
            return await CALLS[scope["path"]](self._facade, app, fields)
        client = scope.get("client")
        return await unified_order(self._facade, app, fields, client[0] if client else "127.0.0.1")

    async def _show(self, path: str, send: Send) -> None:
        """Send a customer's browser the picture of a code, or a word on their way back.

        Raises:
            RouteUnknown
        """
        if path == RETURNED:
            await _send(send, 200, "text/plain; charset=utf-8", _THANKS.encode())
            return
        order_id = path.removeprefix(PICTURES).removesuffix(".png")
        text = await picture_text(self._facade, order_id)
        if text is None:
            raise RouteUnknown
        await _send(send, 200, "image/png", _picture(text))


def read_fields(body: bytes, kind: str) -> dict[str, str]:
    """Return a call's fields as they are signed: texts, without those that are empty.

    jeepay's programs post JSON, or a form. Numbers and truth values count as Java writes them;
    what is not flat is refused, because nobody could say how it was signed.

    Raises:
        FieldsUnreadable
    """
    if len(body) > BODY_MAX:
        raise FieldsUnreadable
    try:
        pairs = _form_pairs(body) if kind.endswith("form-urlencoded") else _json_pairs(body)
    except (ValueError, RecursionError):  # no JSON, no UTF-8, too many fields, or not flat
        raise FieldsUnreadable from None
    fields = dict(pairs)
    named = all(name and "\0" not in name + value for name, value in pairs)
    if len(fields) != len(pairs) or len(fields) > FIELDS_MAX or not named:
        raise FieldsUnreadable
    return {name: value for name, value in fields.items() if value != ""}


def _form_pairs(body: bytes) -> list[tuple[str, str]]:
    return parse_qsl(
        body.decode("ascii"),
        keep_blank_values=True,
        strict_parsing=True,
        errors="strict",
        max_num_fields=FIELDS_MAX,
    )


def _json_pairs(body: bytes) -> list[tuple[str, str]]:
    said = msgspec.json.decode(body, type=dict[str, str | int | bool | None])
    return [(name, _text(value)) for name, value in said.items() if value is not None]


def _text(value: str | int | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _check_fresh(request_time: str) -> None:
    """Raise unless a request was made within five minutes of now, by the real clock.

    The contract says milliseconds; its examples have seconds, and a client for Node.js sends
    microseconds. jeepay looks at none of them, so all three are met.

    Raises:
        RequestStale
    """
    unit = _UNITS.get(len(request_time))
    if unit is None or not (request_time.isascii() and request_time.isdecimal()):
        raise RequestStale(param="$.reqTime")
    said_at = EPOCH + int(request_time) * unit
    if abs(said_at - real_now()) > FRESH_FOR:
        raise RequestStale(param="$.reqTime")


def message_of(refusal: Refusal, language: str) -> str:
    """Return what a refusal says in one line, with its code and the field as clients name it."""
    named = _THEIR_NAMES.get(refusal.param or "", (refusal.param or "").removeprefix("$."))
    code = f"{refusal.code}: {named}" if named else refusal.code
    if language == "zh":
        return f"{refusal.advice_zh}（{code}）"
    return f"{title_of(type(refusal))} {refusal.advice} ({code})"


def _failure(status: int, refusal: Refusal) -> tuple[int, Mapping[str, Any]]:
    return status, {"code": FAILED, "msg": f"{_FAILURE} ({refusal.code})"}


def _picture(text: str) -> bytes:
    drawn = io.BytesIO()
    segno.make_qr(text, error="m").save(drawn, kind="png", scale=8)
    return drawn.getvalue()


async def _send(send: Send, status: int, kind: str, body: bytes) -> None:
    headers = [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})

"""Alipay's gateway protocol (v1, form parameters): read and check a request, frame the reply.

Common parameters and ``biz_content`` may come in the query, in a form body, or split over both;
the signature covers the union, so where each stands does not matter.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qsl

from cryptography.hazmat.primitives.asymmetric import rsa
from msgspec import Struct

from tongbao.kernel import errors
from tongbao.kernel.money import from_decimal_text, positive
from tongbao_sandbox.alipay_crypto import (
    REQUEST_LEAVES_OUT,
    compact,
    is_signed,
    signed_reply,
    text_to_sign,
)
from tongbao_sandbox.seam import Reply, Request, decode_object

JSON_HEADERS: Final = (("content-type", "application/json;charset=utf-8"),)
_FORM: Final = "application/x-www-form-urlencoded"
_FILE: Final = re.compile(rb'name="image_content"[^\r\n]*\r\n(?:[^\r\n]+\r\n)*\r\n')
_TIMESTAMP: Final = re.compile(r"\d{4}-\d{2}-\d{2} \d{2}:\d{2}:\d{2}")

_HEADLINES: Final = {
    "10000": "Success",
    "10003": "order success pay inprocess",
    "20000": "Service Currently Unavailable",
    "20001": "Insufficient Authorization Permissions",
    "40001": "Missing Required Arguments",
    "40002": "Invalid Arguments",
    "40004": "Business Failed",
    "40005": "Call Limited",
}


class Identity(Struct, frozen=True):
    """Whose requests are answered: the one merchant's application and its key."""

    app_id: str
    app_key: rsa.RSAPublicKey
    certificate_number: str
    root_number: str
    auth_token: str  # what the merchant gave a service provider

    def check_certificates(self, number: str, roots: str) -> None:
        """Refuse certificates that are named wrong, or only in part; naming none is right too.

        Raises:
            Refusal
        """
        if (number or roots) and (number, roots) != (self.certificate_number, self.root_number):
            raise Refusal(
                "40002", "isv.invalid-app-cert-sn", "应用公钥证书序列号或根证书序列号无效"
            )

    def check_token(self, token: str) -> None:
        """Refuse a service provider with a token that no merchant gave; none is right too.

        Raises:
            Refusal
        """
        if token not in {"", self.auth_token}:
            raise Refusal("20001", "aop.invalid-app-auth-token", "无效的应用授权令牌")


class Ask(Struct, frozen=True):
    """One checked request: the method, its business content, and all its parameters."""

    method: str  # alipay.trade.pay
    biz: dict[str, Any]
    params: dict[str, str]
    origin: str  # where the client reached us, for the links we hand out
    file: bytes = b""

    @property
    def reply_name(self) -> str:
        """The key of the reply's inner object."""
        return self.method.replace(".", "_") + "_response"

    @property
    def by_certificate(self) -> bool:
        """Whether the merchant asks in certificate mode."""
        return bool(self.params.get("app_cert_sn"))

    def text(self, name: str) -> str:
        """Return a text of the business content, empty when it is missing."""
        value = self.biz.get(name)
        return "" if value is None else str(value)


class Refusal(Exception):
    """The gateway, or the business behind it, says no; ``content`` is the reply's inner object.

    Gateway refusals come as ``error_response``, all others under the method's name.
    """

    def __init__(
        self, code: str, sub_code: str, sub_msg: str, extra: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(f"{code} {sub_code}")
        self.content = {
            "code": code,
            "msg": _HEADLINES[code],
            "sub_code": sub_code,
            "sub_msg": sub_msg,
            **(extra or {}),
        }
        self.by_gateway = sub_code.startswith(("isv.", "aop.")) or code == "40005"


def success(fields: Mapping[str, Any], code: str = "10000") -> dict[str, Any]:
    """Return a reply's inner object for a call that was carried out."""
    return {"code": code, "msg": _HEADLINES[code], **fields}


def read_params(request: Request) -> dict[str, str]:
    """Return the union of the parameters in the query and in a form body, decoded as UTF-8."""
    pairs = parse_qsl(request.query, keep_blank_values=True)
    if request.headers.get("content-type", "").lower().startswith(_FORM):
        pairs += parse_qsl(request.body.decode("utf-8", "replace"), keep_blank_values=True)
    return dict(pairs)


def file_of(request: Request) -> bytes:
    """Return the file ``image_content`` of a multipart body, which no signature covers."""
    found = _FILE.search(request.body[:1024])
    if found is None:
        return b""
    boundary = request.body.split(b"\r\n", 1)[0]
    return request.body[found.end() :].split(b"\r\n" + boundary, 1)[0]


def check(params: dict[str, str], identity: Identity, methods: frozenset[str]) -> None:
    """Refuse what the gateway refuses before any business sees it, in its order.

    The time window is not enforced: the real gateway's is hours wide.

    Raises:
        Refusal
    """
    for name in ("method", "app_id", "sign_type", "sign", "charset", "timestamp", "version"):
        if not params.get(name):
            shown = {"sign": "signature", "sign_type": "signature-type"}.get(name, name)
            shown = shown.replace("_", "-")
            raise Refusal("40001", f"isv.missing-{shown}", f"缺少{name}参数")
    wrong = (
        (params["method"] in methods, "isv.invalid-method", "不存在的方法名"),
        (params["app_id"] == identity.app_id, "isv.invalid-app-id", "无效的AppID参数"),
        (params["sign_type"] == "RSA2", "isv.invalid-signature-type", "无效的签名类型"),
        (params["charset"].lower() == "utf-8", "isv.invalid-charset", "字符集错误"),
        (params.get("format", "JSON").lower() == "json", "isv.invalid-format", "无效的数据格式"),
        (_TIMESTAMP.fullmatch(params["timestamp"]), "isv.invalid-timestamp", "非法的时间戳参数"),
    )
    for is_right, sub_code, sub_msg in wrong:
        if not is_right:
            raise Refusal("40002", sub_code, sub_msg)
    identity.check_token(params.get("app_auth_token", ""))
    identity.check_certificates(
        params.get("app_cert_sn", ""), params.get("alipay_root_cert_sn", "")
    )
    text = text_to_sign(params, REQUEST_LEAVES_OUT)
    if not is_signed(identity.app_key, text, params["sign"]):
        hint = f"验签出错，请检查应用私钥与签名字符串，网关生成的验签字符串为：{text}"
        raise Refusal("40002", "isv.invalid-signature", hint)


def read_ask(params: dict[str, str], origin: str) -> Ask:
    """Return the checked request with its business content decoded.

    Raises:
        Refusal
    """
    biz = decode_object(params.get("biz_content", "{}").encode())
    if biz is None:
        raise Refusal("40002", "isv.invalid-parameter", "biz_content 不是合法的JSON对象")
    return Ask(params["method"], biz, params, origin)


def framed(
    key: rsa.RSAPrivateKey, name: str, content: Mapping[str, Any], number: str = ""
) -> Reply:
    """Return the signed reply; the gateway answers 200 whatever it has to say."""
    return Reply(200, JSON_HEADERS, signed_reply(key, name, content, number))


def framed_unsigned(content: Mapping[str, Any]) -> Reply:
    """Return the reply to somebody unknown, for whom there is no key to sign with."""
    return Reply(200, JSON_HEADERS, compact({"error_response": content}).encode())


def amount_of(ask: Ask, name: str) -> int:
    """Return an amount of yuan in fen; it must be more than nothing.

    Raises:
        Refusal
    """
    try:
        money = from_decimal_text(need(ask, name), "CNY")
        return positive(money.amount, "CNY").amount
    except errors.Refusal:
        raise invalid(name) from None


def fen_of(ask: Ask) -> int | None:
    """Return what a payment or a refund asks for, or None when it is no amount or none is named."""
    for name in ("total_amount", "refund_amount", "total_fee"):
        if ask.text(name):
            try:
                return amount_of(ask, name)
            except Refusal:
                return None
    return None


def need(ask: Ask, name: str) -> str:
    """Return a text that must be there.

    Raises:
        Refusal
    """
    if text := ask.text(name):
        return text
    raise invalid(name)


def invalid(name: str) -> Refusal:
    """Return the refusal of a business parameter."""
    return Refusal("40004", "ACQ.INVALID_PARAMETER", f"参数无效：{name}")

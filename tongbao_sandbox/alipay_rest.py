"""Alipay's REST protocol (v3): a signed header instead of signed parameters, HTTP's own codes.

It carries the same methods and the same content as the form protocol.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qsl

from cryptography.hazmat.primitives.asymmetric import rsa

from tongbao.kernel.clock import real_now
from tongbao_sandbox.alipay_crypto import compact, is_signed, sign
from tongbao_sandbox.alipay_wire import Ask, Identity, Refusal
from tongbao_sandbox.seam import Reply, Request, decode_object

PREFIX: Final = "/v3/"
_SCHEME: Final = "ALIPAY-SHA256withRSA "
_WINDOW_S: Final = 600
_STATUS: Final = {
    "10000": 200,
    "10003": 202,
    "20000": 500,
    "20001": 401,
    "40006": 403,
    "40005": 429,
}


def read(request: Request, identity: Identity, methods: frozenset[str]) -> Ask:
    """Return the checked request.

    Raises:
        Refusal
    """
    method = request.path.removeprefix(PREFIX).replace("/", ".")
    scheme, _, rest = request.headers.get("authorization", "").partition(" ")
    claimed, _, signature = rest.rpartition(",sign=")
    claims = dict(part.split("=", 1) for part in claimed.split(",") if "=" in part)
    if f"{scheme} " != _SCHEME or not signature:
        raise Refusal("40001", "isv.missing-signature", "缺少签名参数")
    if claims.get("app_id") != identity.app_id:
        raise Refusal("40002", "isv.invalid-app-id", "无效的AppID参数")
    sent_ms = claims.get("timestamp", "")
    if not sent_ms.isdecimal() or abs(real_now().timestamp() - int(sent_ms) / 1000) > _WINDOW_S:
        raise Refusal("40002", "isv.invalid-timestamp", "非法的时间戳参数")
    number = claims.get("app_cert_sn", "")
    identity.check_certificates(number, request.headers.get("alipay-root-cert-sn", ""))
    body = request.body.decode("utf-8", "replace")
    token = request.headers.get("alipay-app-auth-token", "")
    identity.check_token(token)
    tail = f"{token}\n" if token else ""
    targets = (request.target, request.prefix + request.target)
    texts = [f"{claimed}\n{request.method}\n{target}\n{body}\n{tail}" for target in targets]
    if not any(is_signed(identity.app_key, text, signature) for text in texts):
        raise Refusal("40002", "isv.invalid-signature", "验签出错")
    if method not in methods:
        raise Refusal("40002", "isv.invalid-method", "不存在的方法名")
    biz: dict[str, Any] | None = dict(parse_qsl(request.query))
    if request.method == "POST":
        biz = decode_object(request.body)
    if biz is None:
        raise Refusal("40002", "isv.invalid-parameter", "请求体不是合法的JSON对象")
    params = {"app_cert_sn": number, "notify_url": str(biz.pop("notify_url", ""))}
    return Ask(method, biz, params, request.origin)


def framed(
    key: rsa.RSAPrivateKey, name: str, content: Mapping[str, Any], number: str = ""
) -> Reply:
    """Return the reply: its code as HTTP's, its signature in the headers."""
    del name
    code = str(content["code"])
    status = _STATUS.get(code, 400)
    if status < 300:
        told = {k: v for k, v in content.items() if k not in {"code", "msg"}}
    else:
        sub_code = str(content.get("sub_code", code)).removeprefix("ACQ.")
        told = {"code": sub_code, "message": content.get("sub_msg", ""), "links": []}
    body = compact(told)
    stamp, nonce = str(int(real_now().timestamp() * 1000)), secrets.token_hex(16)
    headers = [
        ("content-type", "application/json;charset=utf-8"),
        ("alipay-timestamp", stamp),
        ("alipay-nonce", nonce),
        ("alipay-signature", sign(key, f"{stamp}\n{nonce}\n{body}\n")),
    ]
    if number:
        headers.append(("alipay-sn", number))
    return Reply(status, tuple(headers), body.encode())

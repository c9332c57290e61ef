"""UnionPay's forms and replies: how a request is read and refused, how an answer is framed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from html import escape
from typing import Final
from urllib.parse import parse_qsl

from msgspec import Struct

from tongbao_sandbox.clock import CHINA, china
from tongbao_sandbox.seam import Reply, Request

DONE: Final = "00"
MESSAGES: Final[Mapping[str, str]] = {
    "00": "成功[0000000]",
    "01": "交易失败。详情请咨询95516[1000001]",
    "05": "交易已受理，请稍后查询交易结果[1000005]",
    "10": "报文格式错误[1000010]",
    "11": "验证签名失败[9100004]",
    "12": "重复交易[1000012]",
    "13": "报文交易要素缺失[1000013]",
    "31": "商户状态不正确[1000031]",
    "32": "无此交易权限[1000032]",
    "34": "查无此交易[1000034]",
    "35": "原交易不存在或状态不正确[1000035]",
    "36": "与原交易信息不符[1000036]",
    "39": "交易不在受理时间范围内[1000039]",
    "64": "卡上的余额不足[1000064]",
    "69": "您的输入超时，请重新提交[1000069]",
    "86": "二维码状态错误[1000086]",
    "88": "无此二维码[1000088]",
    "98": "文件不存在[1000098]",
}
_ECHOED: Final = (
    *("version", "encoding", "txnType", "txnSubType", "bizType", "accessType", "merId"),
    *("orderId", "txnTime", "settleDate", "reqReserved"),
)
_ORDER: Final = re.compile(r"[A-Za-z0-9]{8,40}")
_TIME: Final = "%Y%m%d%H%M%S"


class Ask(Struct, frozen=True):
    """One request of a merchant, its signature verified."""

    fields: Mapping[str, str]
    path: str
    origin: str

    def text(self, name: str) -> str:
        """Return a field, empty when it is missing."""
        return self.fields.get(name, "")

    @property
    def kind(self) -> tuple[str, str]:
        """The transaction's type and subtype."""
        return self.text("txnType"), self.text("txnSubType")


class Refusal(Exception):
    """A request that UnionPay answers with a code other than 00."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


def read_form(request: Request) -> dict[str, str]:
    """Return the fields of a posted form; none when it is no form."""
    try:
        text = request.body.decode("ascii")
        return dict(parse_qsl(text, keep_blank_values=True, strict_parsing=True, errors="strict"))
    except ValueError:
        return {}


def check_order(ask: Ask) -> None:
    """Refuse an order whose number, time or amount cannot be one.

    Raises:
        Refusal
    """
    missing = [name for name in ("orderId", "txnTime", "txnAmt", "currencyCode", "backUrl")
               if not ask.text(name)]  # fmt: skip
    if missing:
        raise Refusal("13")
    is_amount = ask.text("txnAmt").isdigit() and 0 < int(ask.text("txnAmt")) < 10**12
    is_fine = _ORDER.fullmatch(ask.text("orderId")) and ask.text("currencyCode") == "156"
    if not is_amount or not is_fine or moment(ask.text("txnTime")) is None:
        raise Refusal("10")


def echoed(ask: Ask) -> dict[str, str]:
    """Return what an answer repeats of its request."""
    return {name: ask.fields[name] for name in _ECHOED if ask.text(name)}


def message(code: str) -> str:
    """Return the words that go with a code."""
    return MESSAGES.get(code, f"其他错误[10000{code}]")


def framed(fields: Mapping[str, str]) -> Reply:
    """Return fields as a reply: pairs with nothing escaped."""
    text = "&".join(f"{name}={value}" for name, value in fields.items())
    return Reply(200, (("content-type", "text/html;charset=UTF-8"),), text.encode())


def page(status: int, body: str) -> Reply:
    """Return a page for the customer's browser."""
    head = '<!doctype html><html lang="zh"><meta charset="utf-8"><title>银联在线支付</title>'
    headers = (("content-type", "text/html; charset=utf-8"),)
    return Reply(status, headers, f"{head}{body}</html>".encode())


def self_posting(url: str, fields: Mapping[str, str]) -> Reply:
    """Return the page that brings the customer's browser back with the signed result."""
    inputs = "".join(
        f'<input type="hidden" name="{escape(name)}" value="{escape(value)}">'
        for name, value in fields.items()
    )
    return page(
        200,
        f'<form method="post" action="{escape(url)}">{inputs}'
        "<button>返回商户</button></form><script>document.forms[0].submit()</script>",
    )


def moment(text: str) -> datetime | None:
    """Return the moment of ``yyyyMMddHHmmss`` in China's zone, or None."""
    try:
        return datetime.strptime(text, _TIME).replace(tzinfo=CHINA)
    except ValueError:
        return None


def month_to_second(at: datetime) -> str:
    """Return ``MMDDhhmmss``, as traces have it."""
    return f"{china(at):%m%d%H%M%S}"
